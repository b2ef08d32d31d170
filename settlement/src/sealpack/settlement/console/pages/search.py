"""One box that finds customers, licenses, machines, documents, plans, files and logs."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from sealpack.settlement.console.app import OFFICE, Console, Page
from sealpack.settlement.overview import search
from sealpack.settlement.overview.search import MAX_HITS, MAX_TEXT, Hit
from sealpack.settlement.users import User

_PATHS = {
    "customer": "customers", "license": "licenses", "machine": "devices", "document": "invoices",
    "plan": "plans", "file": "files", "log": "devices",
}  # fmt: skip
assert set(_PATHS) == set(search.KINDS)


def path_of(hit: Hit) -> str:
    """The page about what was found."""
    return "/".join(("/console", _PATHS[hit.kind], *(quote(part, safe="") for part in hit.key)))


async def get_search(console: Console, request: Request, user: User) -> Response:
    """What fits `q`, the best first."""
    text = request.query_params.get("q", "")[:MAX_TEXT]
    hits = await console.query(search.search, text)
    return console.render(
        request, user, "search.html", text=text, hits=[(hit, path_of(hit)) for hit in hits],
        full={kind for kind in search.KINDS if sum(hit.kind == kind for hit in hits) == MAX_HITS},
    )  # fmt: skip


PAGES = (Page("GET", "/console/search", OFFICE, get_search),)

"""Pages of lists that were sorted in memory, such as machines by what is the matter with them.

Source: specs/console.md, "Lists". As in the API a page begins after the key of the last item of the one
before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from sealpack.format.errors import SealpackError
from sealpack.settlement.service.views import Span, cursor

T = TypeVar("T")
Key = tuple[str | int, ...]
ITEMS = 50


def page(rows: Sequence[T], key: Callable[[T], Key], after: str | None) -> dict[str, Any]:
    """`items` and, where more follow, `next`; `rows` are in the order of their keys. USAGE."""
    if not rows:
        return {"items": []}
    span = Span.parse(str(ITEMS), after, *(type(part) for part in key(rows[0])))
    start = bisect_right(rows, span.after, key=key) if span.after is not None else 0
    shown = rows[start : start + span.limit]
    more = start + span.limit < len(rows)
    return {"items": shown, **({"next": cursor(key(shown[-1]))} if more else {})}


def after(request: Request) -> str | None:
    """Which page of a list is asked for."""
    return request.query_params.get("after")


def choice(request: Request, name: str, values: Sequence[str]) -> str:
    """What of `values` a parameter says, the first one when it is missing. USAGE."""
    said = request.query_params.get(name, values[0])
    if said not in values:
        raise SealpackError("USAGE", f"{name} must be one of {', '.join(filter(None, values))}")
    return said

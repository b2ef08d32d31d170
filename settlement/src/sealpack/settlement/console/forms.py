"""Forms: where they may come from, how large they may be, and the token that each must carry.

Source: specs/console.md, "Forms". A form counts when the browser says that it comes from this very site, and
when it carries the token of the session it is sent in.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from sealpack.format.errors import SealpackError
from sealpack.settlement.console import sessions
from sealpack.settlement.service.limits import Limits
from sealpack.settlement.service.receiving import pieces
from sealpack.settlement.wording import CONTROL

MAX_BYTES = 256 << 10  # of a form without files
MAX_FIELDS = 1000


def check_origin(request: Request) -> None:
    """FORM_INVALID when the browser says that another site sent this."""
    said = request.headers.get("sec-fetch-site")
    if said is not None:
        right = said in ("same-origin", "none")
    else:
        origin = request.headers.get("origin")
        right = origin is None or _host(origin) == request.headers.get("host")
    if not right:
        raise SealpackError("FORM_INVALID", "the form was sent by another site")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def check_address(request: Request) -> None:
    """NOT_FOUND, FORM_INVALID for an address with a NUL: no name has one, and not every database takes it."""
    if "\0" in request.scope["path"]:
        raise SealpackError("NOT_FOUND", "there is no such page")
    if any("\0" in part for pair in request.query_params.multi_items() for part in pair):
        raise SealpackError("FORM_INVALID", "the address holds a character that no name has")


async def read(
    request: Request, token: str, limits: Limits, *, max_bytes: int = MAX_BYTES, max_files: int = 0
) -> FormData:
    """The form of a request; FORM_INVALID, REQUEST_TOO_LARGE, UPLOAD_SLOW."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = pieces(request, limits, max_bytes)
    form = FormData()
    try:
        if kind == "application/x-www-form-urlencoded":
            form = await FormParser(request.headers, body).parse()
        elif kind == "multipart/form-data":
            form = await MultiPartParser(
                request.headers, body, max_files=max_files, max_fields=MAX_FIELDS, max_part_size=MAX_BYTES
            ).parse()
    except (MultiPartException, FormParserError, UnicodeError, KeyError, ValueError) as error:
        raise SealpackError("FORM_INVALID", f"the form cannot be read: {str(error)[:200]}") from None
    if len(form.multi_items()) > MAX_FIELDS + max_files:
        await form.close()
        raise SealpackError("FORM_INVALID", f"the form has more than {MAX_FIELDS} fields")
    given = form.get("csrf")
    if (
        not token
        or not isinstance(given, str)
        or not hmac.compare_digest(given.encode("utf-8", "replace"), sessions.csrf(token).encode())
    ):
        await form.close()
        raise SealpackError("FORM_INVALID", "the form is not of this session")
    return form


def text(form: FormData, name: str, *, most: int = 300, needed: bool = True) -> str:
    """A field of a form without the spaces around it; FORM_INVALID when it is missing or too long."""
    value = form.get(name, "")
    value = value.strip() if isinstance(value, str) else ""
    if needed and not value:
        raise SealpackError("FORM_INVALID", f"{name} is missing", remedy="go back and fill it in")
    if len(value) > most:
        raise SealpackError("FORM_INVALID", f"{name} is longer than {most} characters")
    if CONTROL.search(value):
        raise SealpackError("FORM_INVALID", f"{name} holds a character that cannot be printed")
    return value


def new_password(form: FormData) -> str:
    """A new password, which was typed twice; USAGE."""
    first, second = str(form.get("password", "")), str(form.get("again", ""))
    if first != second:
        raise SealpackError("USAGE", "the two passwords differ", remedy="type the same one twice")
    return first

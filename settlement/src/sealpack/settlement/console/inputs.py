"""What billing pages are told in addresses and forms, and the files they give. Source: specs/console.md."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime

from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement.periods import FIRST_YEAR, LAST_YEAR
from sealpack.settlement.statements.files import Statement

_TYPES = {
    "html": "text/html; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8",
    "pdf": "application/pdf", "xml": "application/xml", "zip": "application/zip",
    "ndjson": "application/x-ndjson", "beancount": "text/plain; charset=utf-8",
}  # fmt: skip
# An issued page brings its own style, and may do nothing else.
_DOCUMENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def month_of(text: str) -> date:
    """The first day of a month such as 2026-11; FORM_INVALID."""
    if not _MONTH.fullmatch(text) or not FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
        raise SealpackError("FORM_INVALID", f"{text[:20]!r} is no month such as 2026-11", remedy=_AGAIN)
    return date.fromisoformat(f"{text}-01")


def day_of(text: str) -> date:
    """A day such as 2026-11-21; FORM_INVALID."""
    try:
        if _DAY.fullmatch(text) and FIRST_YEAR <= int(text[:4]) <= LAST_YEAR:
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise SealpackError("FORM_INVALID", f"{text[:20]!r} is no day such as 2026-11-21", remedy=_AGAIN)


_AGAIN = "go back and correct it"


def today(now: int) -> date:
    """The day (UTC) of a moment in Unix seconds."""
    return datetime.fromtimestamp(now, UTC).date()


def file(data: bytes, name: str) -> Response:
    """A file for the browser: pages are shown, everything else is saved."""
    kind = name.rpartition(".")[2]
    headers = {}
    if kind == "html":
        headers["Content-Security-Policy"] = _DOCUMENT_POLICY
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    shown = "inline" if kind == "html" else "attachment"
    headers["Content-Disposition"] = f'{shown}; filename="{plain}"'
    return Response(data, media_type=_TYPES[kind], headers=headers)


def files(
    made: Sequence[Statement], form: str, name: str, convert: Callable[[bytes, str], bytes]
) -> Response:
    """Statements in a form; several in one zip. NOT_FOUND for a form that there is not."""
    if form not in ("html", "pdf", "json", "csv"):
        raise SealpackError("NOT_FOUND", f"statements have no form {form}")
    found = {}
    for one in made:
        known = one.files.get(f"{one.name}.{form}")
        found[f"{one.name}.{form}"] = convert(one.json, form) if known is None else known
    if len(found) == 1:
        ((only, data),) = found.items()
        return file(data, only)
    return file(zipped(found), f"{name}.zip")


def zipped(found: Mapping[str, bytes]) -> bytes:
    """Files in one zip, the same bytes for the same files."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in found.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return body.getvalue()

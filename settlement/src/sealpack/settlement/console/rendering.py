"""Making pages: templates, what they can call, headers of every answer, and the files beside them.

Source: specs/console.md, "Headers". Everything put into a template is escaped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from sealpack.settlement import money
from sealpack.settlement.outcomes import OUTCOMES

_HERE = Path(__file__).parent
_CODE = re.compile(r"`([^`]+)`")
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}  # a page may set its own value of one of these


class Renderer:
    """The templates, loaded once; `database` is the kind that the footer names."""

    def __init__(self, database: str) -> None:
        self.static = {path.name: _Static.load(path) for path in sorted((_HERE / "static").iterdir())}
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates"), autoescape=True, auto_reload=False,
            undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals.update(
            version=version("sealpack"), database=database, static=self._static, page_url=page_url,
            meaning=OUTCOMES.get, iso=iso, clock=clock, amount=amount, thousands=thousands, tone=tone,
            grouped=money.grouped,
            sentence=sentence, coded=coded, codes=OUTCOMES,
        )  # fmt: skip

    def render(self, template: str, status: int, context: Mapping[str, Any]) -> Response:
        """A page."""
        return HTMLResponse(self._templates.get_template(template).render(context), status)

    def _static(self, name: str) -> str:
        return f"/console/static/{name}?v={self.static[name].digest}"


class _Static:
    """A file beside the pages; its address changes with its content, so browsers may keep it."""

    def __init__(self, data: bytes, media_type: str) -> None:
        self.data, self.media_type = data, media_type
        self.digest = hashlib.sha256(data).hexdigest()[:16]

    @classmethod
    def load(cls, path: Path) -> _Static:
        return cls(path.read_bytes(), _TYPES[path.suffix])

    def response(self) -> Response:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self.data, media_type=self.media_type, headers=headers)


def amount(minor: int, currency: str) -> str:
    """Minor units for people: 175185 USD -> "1,751.85"."""
    return money.grouped(money.amount_text(minor, money.exponent(currency)))


def thousands(number: int) -> str:
    """A count for people: 12345 -> "12,345"."""
    return f"{number:,}"


def sentence(text: str) -> str:
    """A message with a capital letter, without a full stop."""
    return (text[:1].upper() + text[1:]).rstrip(".")


def coded(text: str) -> Markup:
    """Words in which what stands between backticks is shown as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


_TONES = {
    "good": ("paid", "accepted", "active", "valid", "settled", "ok", "done", "whole"),
    "warn": ("open", "due", "draft", "grace", "expiring", "silent", "held", "partial", "partly paid", "late"),
    "bad": ("overdue", "refused", "revoked", "disabled", "expired", "frozen", "void", "failed"),
    "info": ("issued", "approved", "credited", "imported", "test"),
}
_TONE = {word: tone for tone, words in _TONES.items() for word in words}
_LETTERS = {"O": "good", "W": "info", "H": "warn", "R": "bad"}


def tone(state: str) -> str:
    """The colour of a state's badge; an outcome's code is known by its letter."""
    if state in OUTCOMES:
        return _LETTERS[state[0]]
    return _TONE.get(state.lower(), "")


def iso(unix_s: int) -> str:
    """A moment for programs."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def clock(unix_s: int) -> str:
    """A moment for people, UTC."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"


def page_url(request: Any, **changes: str | None) -> str:
    """This page's address with other parameters; None leaves one out."""
    said = dict(request.query_params) | changes
    query = urlencode({name: value for name, value in said.items() if value is not None})
    return f"{request.url.path}?{query}" if query else str(request.url.path)

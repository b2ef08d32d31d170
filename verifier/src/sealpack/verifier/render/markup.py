"""HTML that cannot be injected into: whatever is not :class:`Html` is escaped when it is put in.

Source: specs/report.md, "HTML". There are no attributes with addresses and no scripts, by construction:
:data:`ATTRIBUTES` lists all that are ever written.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from sealpack.format.errors import printable

ATTRIBUTES = frozenset({"class", "id", "scope", "colspan", "aria-label", "aria-hidden", "role"})


class Html(str):
    """Markup; only this module and its own literals make it."""

    __slots__ = ()


def escape(value: str) -> Html:
    """Text as markup: `value` unless it is markup already, control characters spelled out."""
    return value if isinstance(value, Html) else Html(html.escape(printable(value)))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after another."""
    return Html(escape(between).join(escape(part) for part in parts))


def element(tag: str, *children: str, **attributes: str) -> Html:
    """`<tag>children</tag>`; `class_` and `aria_label` are written as `class` and `aria-label`."""
    written = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if name not in ATTRIBUTES:
            raise ValueError(f"attribute {name} is not one of ours")
        written.append(f' {name}="{escape(value)}"')
    return Html(f"<{tag}{''.join(written)}>{join(children)}</{tag}>")


def definitions(rows: Iterable[tuple[str, str]]) -> Html:
    """A list of terms with what they mean, one row each."""
    return element("dl", *(element("div", element("dt", term), element("dd", told)) for term, told in rows))


def bullets(items: Iterable[str]) -> Html:
    """A list."""
    return element("ul", *(element("li", item) for item in items))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_: str) -> Html:
    """A table; a long one repeats its head on every printed page."""
    return element(
        "table",
        element("thead", element("tr", *(element("th", name, scope="col") for name in head))),
        element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows)),
        class_=class_,
    )

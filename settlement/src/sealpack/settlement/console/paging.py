"""Reading where a list goes on. Source: specs/console.md, "Lists"."""

from __future__ import annotations


def number_of(text: str | None) -> int | None:
    """A whole number as an address says it; None for anything else."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)


def split_key(text: str | None) -> tuple[int, str] | None:
    """A time and a name, joined by a dot: where a list that is sorted by both goes on."""
    head, dot, name = (text or "").partition(".")
    at = number_of(head)
    return (at, name) if dot and at is not None and name.isascii() and name.isprintable() else None

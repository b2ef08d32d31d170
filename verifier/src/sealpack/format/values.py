"""Small vocabulary shared by the documents: meters, statuses, identifiers, and plain dict output."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

METERS = ("calls", "tok_in", "tok_out", "ms", "items")
STATUSES = ("ok", "err", "cancel", "aborted")
FEATURE = r"[a-z0-9][a-z0-9._-]{0,63}"
IDENTIFIER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
VERSION_PATTERN = r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,3}"


def plain(value: Any, leave_out: tuple[str, ...] = ()) -> Any:
    """A dataclass as JSON members: None is left out, tuples become lists, nested values likewise."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(member)
            for f in dataclasses.fields(value)
            if f.name not in leave_out and (member := getattr(value, f.name)) is not None
        }
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return value


def utc_day(seconds: int) -> str:
    """The UTC date of Unix seconds, `YYYY-MM-DD`; ValueError past the calendar's end."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def utc_instant(seconds: int) -> str:
    """Unix seconds as RFC 3339 in UTC, `YYYY-MM-DDTHH:MM:SSZ`; ValueError past the calendar's end."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def readable(*texts: str) -> str:
    """A part of a file name that a person recognises, from the first text that has one; else `x`.

    Lower-case ASCII letters and digits, words joined by hyphens, at most 40 characters: every file system
    and every mail program takes it. Names are for people only; nothing reads them back.

    >>> readable("Klinikum Süd, Station 3")
    'klinikum-sud-station-3'
    """
    for text in texts:
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        bare = "".join(char for char in decomposed if not unicodedata.combining(char))
        words = re.findall(r"[a-z0-9]+", bare)
        if words:
            return "-".join(words)[:40].strip("-")
    return "x"

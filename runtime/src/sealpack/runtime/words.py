"""Numbers and times as people read them, in messages, status and summaries."""

from __future__ import annotations

from datetime import UTC, datetime


def plural(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2,000 files`; `many` where the plural takes more than an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def duration(seconds: int) -> str:
    """A span in the largest unit that is full at least twice: `36 hours`, `3 days`, `1 second`."""
    size, unit = next(((n, name) for n, name in _UNITS if seconds >= 2 * n), (1, "second"))
    return plural(seconds // size, unit)


def day(seconds: int) -> str:
    """A time in Unix seconds, UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"time {seconds}"

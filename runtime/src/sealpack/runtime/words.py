"""Numbers and times as people read them, in messages, status and summaries."""

from __future__ import annotations

from datetime import UTC, datetime


def plural(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2,000 files`; `many` where the plural takes more than an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def day(seconds: int) -> str:
    """A time in Unix seconds, UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return f"time {seconds}"

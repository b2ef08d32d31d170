"""A strict reader over one TOML table: every key is asked for by name, the rest is refused.

Source: specs/config.md, section "Reading". Every failure is CONFIG_INVALID and names the key's
whole path, so the message alone says which line to correct.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sealpack.format.errors import SealpackError

T = TypeVar("T")

MAX_TEXT = 64 * 1024
MAX_INT = 2**53 - 1


class Table:
    """One TOML table; `path` is its dotted name, `folder` what relative file names stand on."""

    def __init__(self, value: Any, path: str, folder: Path) -> None:
        if not isinstance(value, dict):
            raise invalid(path, "must be a table")
        self.path = path
        self.folder = folder
        self._value: dict[str, Any] = value
        self._seen: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._value

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that stand here."""
        return tuple(self._value)

    def at(self, key: str) -> str:
        """The dotted path of `key`."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, message: str) -> NoReturn:
        """Raise CONFIG_INVALID for `key`."""
        raise invalid(self.at(key), message)

    def close(self) -> None:
        """Refuse every key that nobody asked for."""
        for key in self._value:
            if key not in self._seen:
                known = ", ".join(sorted(self._seen))
                self.fail(key, f"is not a known key; known here: {known}")

    def raw(self, key: str) -> Any:
        """The value as TOML gave it, or None."""
        self._seen.add(key)
        return self._value.get(key)

    def text(self, key: str, *, pattern: str | None = None, max_len: int = MAX_TEXT) -> str | None:
        """A non-empty string, or None when absent."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            self.fail(key, "must be a non-empty string")
        if len(value) > max_len:
            self.fail(key, f"is longer than {max_len} characters")
        if pattern is not None and not re.fullmatch(pattern, value):
            self.fail(key, f"{value!r} does not fit the pattern {pattern}")
        return value

    def required(self, key: str, *, pattern: str | None = None) -> str:
        """A non-empty string that must be there."""
        value = self.text(key, pattern=pattern)
        if value is None:
            self.fail(key, "is missing")
        return value

    def integer(self, key: str, *, lo: int = 0, hi: int = MAX_INT) -> int | None:
        """An integer within [lo, hi], or None when absent."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not lo <= value <= hi:
            self.fail(key, f"must be an integer from {lo} to {hi}")
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """One of `allowed`, or None when absent."""
        value = self.text(key)
        if value is not None and value not in allowed:
            self.fail(key, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of non-empty strings; absent means none."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            self.fail(key, "must be a list of non-empty strings")
        return tuple(value)

    def date(self, key: str) -> str | None:
        """A calendar day, written as a TOML date or as "YYYY-MM-DD"; returned as that text."""
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return value.isoformat()
        try:
            return dt.date.fromisoformat(value).isoformat()
        except (TypeError, ValueError):
            self.fail(key, "must be a date such as 2027-11-30")

    def file(self, key: str) -> Path | None:
        """A file name, resolved against the configuration's own folder."""
        name = self.text(key)
        return None if name is None else self.folder / Path(name).expanduser()

    def files(self, key: str) -> tuple[Path, ...]:
        """A list of file names."""
        return tuple(self.folder / Path(name).expanduser() for name in self.texts(key))

    def sub(self, key: str) -> Table:
        """A sub-table; an absent one reads as empty."""
        value = self.raw(key)
        return Table({} if value is None else value, self.at(key), self.folder)

    def each(self, key: str, read: Callable[[Table], T]) -> tuple[T, ...]:
        """An array of tables, each read by `read` and then closed."""
        value = self.raw(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.fail(key, "must be an array of tables")
        rows = []
        for index, member in enumerate(value):
            row = Table(member, f"{self.at(key)}[{index}]", self.folder)
            rows.append(read(row))
            row.close()
        return tuple(rows)

    def free(self, key: str) -> Any:
        """A value that goes into a signed document as it stands; floats and dates are refused."""
        value = self.raw(key)
        if value is not None:
            _signable(value, self.at(key))
        return value


def invalid(path: str, message: str) -> SealpackError:
    """The one error of this module."""
    return SealpackError("CONFIG_INVALID", f"{path} {message}", path=path)


def _signable(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, member in value.items():
            _signable(member, f"{path}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _signable(member, f"{path}[{index}]")
    elif isinstance(value, float):
        raise invalid(path, "is a float; signed documents hold none: quote it as a decimal string")
    elif not isinstance(value, (bool, int, str)):
        raise invalid(path, "must be a string, an integer or a boolean")
    elif isinstance(value, int) and abs(value) > MAX_INT:
        raise invalid(path, "is outside +-(2^53 - 1)")

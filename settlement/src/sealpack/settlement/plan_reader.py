"""A typed reader over parsed plan data that names the exact place of every fault.

Every accessor raises PLAN_INVALID with a path such as `charges[2].tiers[0].up_to`. Members nobody
asked for are refused: in a price plan a misspelt key is somebody's money.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

from sealpack.format.errors import SealpackError
from sealpack.settlement.money import parse_decimal

T = TypeVar("T")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")
MAX_ITEMS = 1000


def refuse(path: str, problem: str) -> NoReturn:
    """Raise PLAN_INVALID for the value at `path`."""
    raise SealpackError("PLAN_INVALID", f"{path}: {problem}", path=path)


class Reader:
    """One mapping of the plan and the path that leads to it."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            refuse(path or "plan", "must be a mapping")
        self._value = value
        self._seen: set[str] = set()
        self.path = path

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        return key in self._value

    def raw(self, key: str) -> Any:
        self._seen.add(key)
        if key not in self._value:
            refuse(self.at(key), "is missing")
        return self._value[key]

    def keys(self) -> list[str]:
        return list(self._value)

    def done(self) -> None:
        """Refuse members that no accessor asked for."""
        for key in self._value:
            if key not in self._seen:
                refuse(self.at(key), "is not a member the plan schema knows")

    def refuse(self, key: str, problem: str) -> NoReturn:
        refuse(self.at(key), problem)

    def text(self, key: str, *, pattern: re.Pattern[str] | None = None, max_len: int = 200) -> str:
        value = self.raw(key)
        if not isinstance(value, str) or not 0 < len(value) <= max_len:
            self.refuse(key, f"must be a string of 1 to {max_len} characters")
        if pattern is not None and not pattern.fullmatch(value):
            self.refuse(key, f"{value!r} does not match {pattern.pattern}")
        return value

    def choice(self, key: str, allowed: Collection[str], default: str | None = None) -> str:
        if default is not None and not self.has(key):
            return default
        value = self.raw(key)
        if not isinstance(value, str) or value not in allowed:
            self.refuse(key, f"{value!r} is not one of {', '.join(allowed)}")
        return value

    def integer(self, key: str, *, low: int, high: int, default: int | None = None) -> int:
        if default is not None and not self.has(key):
            return default
        value = self.raw(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, f"must be a whole number from {low} to {high}")
        return value

    def decimal(self, key: str, default: str | None = None) -> Fraction:
        """A non-negative decimal string (or whole number), at most 12 places."""
        value = default if default is not None and not self.has(key) else self.raw(key)
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self.refuse(key, 'must be a decimal string such as "0.0400"')
        try:
            return parse_decimal(str(value))
        except ValueError as error:
            self.refuse(key, str(error))

    def optional_decimal(self, key: str) -> Fraction | None:
        return self.decimal(key) if self.has(key) else None

    def sub(self, key: str) -> Reader:
        return Reader(self.raw(key), self.at(key))

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of distinct strings, at least one."""
        value = self.raw(key)
        if not isinstance(value, list) or not 0 < len(value) <= MAX_ITEMS:
            self.refuse(key, "must be a list with at least one member")
        for index, item in enumerate(value):
            if not isinstance(item, str):
                refuse(f"{self.at(key)}[{index}]", "must be a string")
        if len(set(value)) != len(value):
            self.refuse(key, "names something twice")
        return tuple(value)

    def many(self, key: str, read: Callable[[Reader], T], *, empty: bool = False) -> tuple[T, ...]:
        """A list of mappings, each read by `read`, which must consume every member."""
        value = self.raw(key)
        if not isinstance(value, list) or len(value) > MAX_ITEMS or not (value or empty):
            self.refuse(key, f"must be a list of 1 to {MAX_ITEMS} members")
        return tuple(_read(item, f"{self.at(key)}[{index}]", read) for index, item in enumerate(value))


def _read(item: Any, path: str, read: Callable[[Reader], T]) -> T:
    reader = Reader(item, path)
    result = read(reader)
    reader.done()
    return result

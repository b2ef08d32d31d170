"""A strict, typed view of one JSON object: the only way documents are read into values.

Every accessor names the path of what is wrong. Members nobody asks for are ignored, so that later
versions can add some; a document lists in `crit` the names a reader must know, and :meth:`Fields.crit`
refuses any that is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from sealpack.format.canonical import MAX_INT
from sealpack.format.errors import SealpackError

T = TypeVar("T")
D = TypeVar("D")

DIGEST = re.compile(r"[0-9a-f]{64}")
_MISSING: Any = object()


class Fields:
    """Reads members of `value` by type; `what` names it in errors, `code` is the error raised."""

    __slots__ = ("_value", "code", "what")

    def __init__(self, value: Any, what: str, code: str = "DOC_SCHEMA") -> None:
        self.what = what
        self.code = code
        if not isinstance(value, dict):
            raise SealpackError(code, f"{what} is not an object")
        self._value = value

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def keys(self) -> Iterable[str]:
        """The member names present."""
        return self._value.keys()

    def fail(self, key: str, problem: str) -> SealpackError:
        """The error for member `key`, to be raised by the caller."""
        return SealpackError(self.code, f"{self.what}.{key} {problem}")

    def _get(self, key: str, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        if key not in self._value:
            if default is not _MISSING:
                return default
            raise self.fail(key, "is missing")
        value = self._value[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fail(key, f"is not {name}")
        return value

    @overload
    def text(self, key: str, *, pattern: str | re.Pattern[str] | None = None, max_len: int = 4096) -> str: ...
    @overload
    def text(
        self,
        key: str,
        *,
        pattern: str | re.Pattern[str] | None = None,
        max_len: int = 4096,
        default: D,
    ) -> str | D: ...
    def text(
        self,
        key: str,
        *,
        pattern: str | re.Pattern[str] | None = None,
        max_len: int = 4096,
        default: Any = _MISSING,
    ) -> Any:
        """A string of at most `max_len` characters that matches `pattern` whole."""
        value = self._get(key, str, "a string", default)
        if key in self._value:
            if len(value) > max_len:
                raise self.fail(key, f"is longer than {max_len} characters")
            if pattern is not None and not re.fullmatch(pattern, value):
                raise self.fail(key, f"has a value that is not allowed: {value[:60]!r}")
        return value

    @overload
    def integer(self, key: str, *, lo: int = 0, hi: int = MAX_INT) -> int: ...
    @overload
    def integer(self, key: str, *, lo: int = 0, hi: int = MAX_INT, default: D) -> int | D: ...
    def integer(self, key: str, *, lo: int = 0, hi: int = MAX_INT, default: Any = _MISSING) -> Any:
        """An integer in [lo, hi]."""
        value = self._get(key, int, "an integer", default)
        if key in self._value and not lo <= value <= hi:
            raise self.fail(key, f"is {value}, allowed is {lo} to {hi}")
        return value

    @overload
    def boolean(self, key: str) -> bool: ...
    @overload
    def boolean(self, key: str, *, default: D) -> bool | D: ...
    def boolean(self, key: str, *, default: Any = _MISSING) -> Any:
        """true or false."""
        return self._get(key, bool, "true or false", default)

    @overload
    def digest(self, key: str) -> str: ...
    @overload
    def digest(self, key: str, *, default: D) -> str | D: ...
    def digest(self, key: str, *, default: Any = _MISSING) -> Any:
        """A lower-case hex SHA-256."""
        return self.text(key, pattern=DIGEST, max_len=64, default=default)

    @overload
    def choice(self, key: str, allowed: Iterable[str]) -> str: ...
    @overload
    def choice(self, key: str, allowed: Iterable[str], *, default: D) -> str | D: ...
    def choice(self, key: str, allowed: Iterable[str], *, default: Any = _MISSING) -> Any:
        """One of the strings in `allowed`."""
        value = self._get(key, str, "a string", default)
        options = tuple(allowed)
        if key in self._value and value not in options:
            raise self.fail(key, f"is {value[:60]!r}, allowed: {', '.join(options)}")
        return value

    @overload
    def sub(self, key: str) -> Fields: ...
    @overload
    def sub(self, key: str, *, default: D) -> Fields | D: ...
    def sub(self, key: str, *, default: Any = _MISSING) -> Any:
        """A nested object."""
        value = self._get(key, dict, "an object", default)
        return Fields(value, f"{self.what}.{key}", self.code) if key in self._value else value

    @overload
    def array(self, key: str, read: Callable[[Any, str], T], *, max_items: int = 4096) -> tuple[T, ...]: ...
    @overload
    def array(
        self, key: str, read: Callable[[Any, str], T], *, max_items: int = 4096, default: D
    ) -> tuple[T, ...] | D: ...
    def array(
        self,
        key: str,
        read: Callable[[Any, str], T],
        *,
        max_items: int = 4096,
        default: Any = _MISSING,
    ) -> Any:
        """An array; each item is read by `read(item, path)`."""
        value = self._get(key, list, "an array", default)
        if key not in self._value:
            return value
        if len(value) > max_items:
            raise self.fail(key, f"has more than {max_items} items")
        return tuple(read(item, f"{self.what}.{key}[{i}]") for i, item in enumerate(value))

    def texts(
        self,
        key: str,
        *,
        default: Any = _MISSING,
        max_items: int = 4096,
        pattern: str | re.Pattern[str] | None = None,
    ) -> tuple[str, ...]:
        """An array of strings that each match `pattern` whole."""

        def read(item: Any, path: str) -> str:
            if not isinstance(item, str) or (pattern and not re.fullmatch(pattern, item)):
                raise SealpackError(self.code, f"{path} is not an allowed string")
            return item

        result: tuple[str, ...] = self.array(key, read, max_items=max_items, default=default)
        return result

    def objects(
        self,
        key: str,
        read: Callable[[Fields], T],
        *,
        max_items: int = 4096,
        default: Any = _MISSING,
    ) -> tuple[T, ...]:
        """An array of objects; each is read by `read(fields)`."""
        result: tuple[T, ...] = self.array(
            key,
            lambda item, path: read(Fields(item, path, self.code)),
            max_items=max_items,
            default=default,
        )
        return result

    def raw(self, key: str, *, default: Any = _MISSING) -> Any:
        """The member as parsed; for values that are carried, not understood."""
        return self._get(key, object, "present", default) if key not in self._value else (self._value[key])

    def schema(self, expected: str) -> None:
        """Require `schema` to be `expected`."""
        found = self.text("schema", max_len=100)
        if found != expected:
            raise self.fail("schema", f"is {found!r}, expected {expected!r}")

    def crit(self, known: Iterable[str]) -> None:
        """Refuse a document whose `crit` names something this version does not know."""
        unknown = set(self.texts("crit", default=(), max_items=64)) - set(known)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise SealpackError("DOC_CRIT", f"{self.what} requires {names}, unknown here")

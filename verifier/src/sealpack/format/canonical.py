"""Canonical JSON: the RFC 8785 subset every signed Sealpack document is written in.

Source: specs/canonical-json.md. Values are objects, arrays, strings, booleans and integers with
absolute value <= 2^53 - 1. No floats, no null, no duplicate keys, no lone surrogates. Reading is
strict: the bytes must be exactly what :func:`dumps` would write.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import rfc8785

from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

MAX_INT = 2**53 - 1


def dumps(value: Any) -> bytes:
    """Return the one canonical encoding of `value`; ValueError when it has none."""
    _check_encodable(value)
    return rfc8785.dumps(value)


def loads(
    data: bytes,
    *,
    max_bytes: int = LIMITS.document_bytes,
    max_depth: int = LIMITS.json_depth,
    what: str = "document",
) -> Any:
    """Parse canonical JSON strictly.

    Size and depth are checked before parsing, so hostile input costs no more than its own length.
    Raises JSON_LIMIT (too large, too deep) or JSON_INVALID (anything else).
    """
    if len(data) > max_bytes:
        raise SealpackError("JSON_LIMIT", f"{what} is {len(data)} bytes, the limit is {max_bytes}")
    _check_depth(data, max_depth, what)
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            parse_float=_no_float,
            parse_int=_bounded_int,
            parse_constant=_no_constant,
            object_pairs_hook=_unique,
        )
        canonical = dumps(value)
    except (ValueError, RecursionError) as error:
        raise SealpackError("JSON_INVALID", f"{what} is not canonical JSON: {error}") from None
    if canonical != data:
        raise SealpackError("JSON_INVALID", f"{what} is not in canonical form (RFC 8785)")
    return value


def _check_depth(data: bytes, max_depth: int, what: str) -> None:
    depth = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            if depth > max_depth:
                raise SealpackError("JSON_LIMIT", f"{what} is nested deeper than {max_depth}")
        elif byte in (0x5D, 0x7D):
            depth -= 1


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]} is not an integer")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not allowed")


def _bounded_int(text: str) -> int:
    if len(text) > 17:
        raise ValueError("integer outside +-(2^53 - 1)")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


# Where a value stands: the place of what holds it, and its key or index there; None for the whole. Spelled
# out only for an error: text made for every value of a hostile document would cost the square of its length.
_Place = tuple[Any, str | int] | None


def _check_encodable(value: Any, place: _Place = None) -> None:
    """Refuse what RFC 8785 could write but our documents never hold, naming where it stands."""
    if isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise ValueError(f"{_spelled(place)}: integer outside +-(2^53 - 1)")
    elif isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{_spelled(place)}: object keys are strings")
            _check_encodable(member, (place, key))
    elif isinstance(value, (list, tuple)):
        for index, member in enumerate(value):
            _check_encodable(member, (place, index))
    else:
        raise ValueError(f"{_spelled(place)}: {type(value).__name__} has no canonical form")


def _spelled(place: _Place) -> str:
    """A place as a path: `$.files[3].name`, long keys cut."""
    steps: list[str] = []
    while place is not None:
        place, step = place
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:60]}")
    return "$" + "".join(reversed(steps))

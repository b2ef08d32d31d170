"""What a fuzz target is, and the mutations that know the form of their input."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealpack.format import canonical
from sealpack.format.errors import CODES, SealpackError

VECTORS = Path(__file__).parents[2] / "specs/vectors"
Mutate = Callable[[bytes, random.Random], bytes | None]


@dataclass(frozen=True, slots=True)
class Target:
    """One reader under test.

    `run` reads the bytes and asserts the reader's invariants; of all exceptions only SealpackError may leave
    it, and a code that it returns counts as one. `seeds` yields good and nearly good inputs. `mutate`, where
    plain byte changes get stuck, makes a new input with the form kept; None when it cannot make anything of
    these bytes.
    """

    name: str
    run: Callable[[bytes], str | None]
    seeds: Callable[[], Iterator[bytes]]
    mutate: Mutate | None = None
    max_len: int = 8192

    def check(self, data: bytes) -> str:
        """Run one input and return what became of it: `ok` or the error's code."""
        try:
            return self.run(data) or "ok"
        except SealpackError as error:
            assert error.code in CODES
            assert error.message.isprintable(), error.message
            json.dumps(error.to_dict(), ensure_ascii=False).encode()
            return error.code


def vectors(pattern: str) -> Iterator[bytes]:
    """The files of the vectors that match, in the order of their names."""
    paths = sorted(VECTORS.glob(pattern))
    assert paths, f"no vector matches {pattern}"
    for path in paths:
        yield path.read_bytes()


# --- JSON with its form kept ----------------------------------------------------------------------------

_ATOMS: tuple[Any, ...] = (
    0, 1, -1, 2**53 - 1, 2**31, 253_402_300_800, True, False, "", "x", "0" * 64, "é\x7f", "a/b", "../x",
    "-----BEGIN PUBLIC KEY-----\n", [], {}, [[]], {"crit": ["x"]}, ["a", "a"],
)  # fmt: skip


def mutate_json(data: bytes, chance: random.Random) -> bytes | None:
    """A JSON document with one to three members changed, removed, doubled, moved or renamed; canonical."""
    try:
        value = json.loads(data)
        for _ in range(chance.randint(1, 3)):
            value = _changed(value, chance)
        return canonical.dumps(value)
    except (ValueError, RecursionError):
        return None


def _changed(value: Any, chance: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return chance.choice(_ATOMS)
    holder, key = chance.choice(places)
    action = chance.randrange(7)
    if action == 0:
        del holder[key]
    elif action == 1:
        holder[key] = chance.choice(_ATOMS)
    elif action == 2:
        other, name = chance.choice(places)
        holder[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else 0
    elif action == 3 and isinstance(holder, list):
        holder.insert(chance.randint(0, len(holder)), json.loads(json.dumps(holder[key])))
    elif action == 4 and isinstance(holder, dict):
        holder[chance.choice(("crit", "schema", f"{key}x", chance.choice(places)[1]))] = holder[key]
    else:
        holder[key] = _nudged(holder[key], chance)
    return value


def _keys(holder: Any) -> Any:
    return holder.keys() if isinstance(holder, dict) else range(len(holder))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or array, key) of a JSON value."""
    for key in list(_keys(value)) if isinstance(value, (dict, list)) else ():
        yield value, key
        yield from _places(value[key])


def _nudged(value: Any, chance: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + chance.choice((-1, 1, 256, 2**32))
    if isinstance(value, str):
        at = chance.randint(0, len(value))
        return (
            value[:at]
            + chance.choice(("", "0", "/", ".", "\n", "ß", "A"))
            + value[at + chance.randint(0, 2) :]
        )
    return [value]

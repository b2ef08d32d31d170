"""The second implementation, specs/check/sealpack_check.py, and changes made at random to feed both with."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

SPECS = Path(__file__).parents[2] / "specs"
SCRIPT = SPECS / "check" / "sealpack_check.py"
VECTORS = SPECS / "vectors"
ODD: tuple[Any, ...] = (0, 1, -1, 2**53 - 1, True, "", "x", "acme", "ACME/x", "0" * 64, [], {}, "2026-02-30")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sealpack_check", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


second = load_script()


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutate_json(value: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One change somewhere: left out, replaced, doubled, swapped, or another spelling."""
    value = json.loads(json.dumps(value))
    inside, key = rng.choice(list(places(value)))
    old, change = inside[key], rng.randrange(6)
    if change == 0:
        del inside[key]
    elif change == 1:
        inside[key] = rng.choice(ODD)
    elif change == 2 and isinstance(old, str):
        inside[key] = rng.choice([old.upper(), old + "x", old[:-1], old * 2, old + "\n", "a/" + old])
    elif change == 3 and isinstance(old, int):
        inside[key] = max(-1, old + rng.choice([1, -1, 1 << 20]))
    elif isinstance(inside, list):
        inside.append(inside[rng.randrange(len(inside))])
    else:
        other = rng.choice(list(inside))
        inside[key], inside[other] = inside[other], inside[key]
    return value


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    size = len(data)
    at = rng.choice(
        [rng.randrange(size), rng.randrange(min(8000, size)), -rng.randrange(1, min(900, size)) % size]
    )
    change = rng.randrange(4)
    if change == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if change == 1:
        return data[:at] + bytes(rng.randrange(1, 5)) + data[at:]
    return data[:at] + data[at + rng.randrange(1, 5) :] if change == 2 else data[:at]

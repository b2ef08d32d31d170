"""What the `settle` verbs print as JSON, held against specs/schemas/settle.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[2] / "specs/schemas/settle.json"


@cache
def definitions() -> dict[str, Any]:
    """Name of an output (`settle-import`) or of a part of one -> its schema."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))["$defs"]
    return found


@cache
def _validator(name: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator({"$defs": definitions(), "$ref": f"#/$defs/{name}"})


def check(result: dict[str, Any]) -> str:
    """Require that an output fits; its name, or nothing for what is no output of a settle verb."""
    name = str(result.get("schema", "")).removeprefix("sealpack/").removesuffix("/v1")
    if not name.startswith("settle-") and name not in definitions():
        return ""
    assert name in definitions(), f"{name} has no definition in specs/schemas/settle.json"
    _validator(name).validate(json.loads(json.dumps(result)))
    return name

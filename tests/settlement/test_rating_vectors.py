"""Every case of specs/vectors/rating, run through the command itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from sealpack.format.errors import SealpackError
from sealpack.settlement import plan_yaml
from sealpack.settlement.cli.quote import quote

SPECS = Path(__file__).parents[2] / "specs"
FOLDER = SPECS / "vectors" / "rating"
CASES = sorted(path.parent.name for path in FOLDER.glob("*/case.json"))


def schema(name: str) -> jsonschema.Draft202012Validator:
    data = json.loads((SPECS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(data)


def run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    arguments = ["--plan", str(folder / "plan.yaml"), "--usage", str(folder / "usage.csv")]
    for option, value in case.get("options", {}).items():
        arguments += [f"--{option.replace('_', '-')}", value]
    result = CliRunner().invoke(quote, [*arguments, "--format", "json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.output)
    return answer


def contains(actual: Any, expected: Any) -> bool:
    """Every member that is expected is there with that value; lists match one to one."""
    if isinstance(expected, dict):
        return all(key in actual and contains(actual[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(contains, actual, expected))
    return bool(actual == expected)


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    folder = FOLDER / name
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if case["expect"] != "ok":
        with pytest.raises(SealpackError) as caught:
            run(case, folder)
        assert caught.value.code == case["expect"]
        assert case["mentions"] in caught.value.message
        return
    answer = run(case, folder)
    expected = json.loads((folder / "expect.json").read_text(encoding="utf-8"))
    assert contains(answer, expected), json.dumps(answer, indent=2)
    schema("quote").validate(answer)
    schema("plan").validate(plan_yaml.load((folder / "plan.yaml").read_bytes()))


def test_there_is_a_case_for_every_worked_example() -> None:
    assert {"graduated", "volume-at-bound", "package-started", "minimum-and-tax"} <= set(CASES)
    assert {"committed-overage", "split-25-75", "credit-after", "time-zone"} <= set(CASES)


def test_the_generator_writes_what_is_stored(tmp_path: Path) -> None:
    script = tmp_path / "generate.py"
    script.write_text((FOLDER / "generate.py").read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, str(script)], check=True)
    for name in CASES:
        for stored in (FOLDER / name).iterdir():
            assert (tmp_path / name / stored.name).read_bytes() == stored.read_bytes()
    assert sorted(path.parent.name for path in tmp_path.glob("*/case.json")) == CASES

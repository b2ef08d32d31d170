"""Every JSON output of a `settle` verb has a published form: a day in an office that calls them all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import outputs, world
from support.books import CUSTOMERS, settlement_pem
from support.device import Device, make_license, registry
from support.rating_plans import plan_data

from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import make_cli, run

VERBS = Path(__file__).parents[2] / "settlement/src/sealpack/settlement/cli"
NOW = world.T0 + 40 * 86_400  # 2026-10-31
PLAN = plan_data(
    {"id": "tok", "type": "usage", "meter": "m", "model": "per_unit", "unit": "0.01"}, per=1,
    tax={"percent": "20"},
    shares={"pool": [{"party": "platform", "bps": 2500}, {"party": "creator:acme", "rest": True}]},
)  # fmt: skip
Call = Callable[..., dict[str, Any]]


def test_every_output_in_the_code_has_a_definition_and_no_other_has() -> None:
    named = {
        name
        for path in VERBS.glob("*.py")
        for name in re.findall(r"sealpack/(settle-[a-z-]+)/v1", path.read_text(encoding="utf-8"))
    }
    assert {name for name in outputs.definitions() if name.startswith("settle-")} == named


def test_a_member_too_much_or_missing_is_noticed() -> None:
    good = {"schema": "sealpack/settle-refund/v1", "customer": "a", "currency": "USD", "refunded": "1.00"}
    assert outputs.check(good) == "settle-refund"
    for bad in (
        good | {"more": 1},
        good | {"refunded": 1.0},
        {k: v for k, v in good.items() if k != "currency"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            outputs.check(bad)
    with pytest.raises(AssertionError, match="settle-unheard has no definition"):
        outputs.check({"schema": "sealpack/settle-unheard/v1"})


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a verb with --format json; the result, which fits its definition. `seen` collects the names."""
    monkeypatch.setattr(support, "now", lambda: NOW)

    def called(*arguments: object, status: int = 0, database: str = "settlement.db") -> dict[str, Any]:
        words = ["settle", "--db", str(tmp_path / database), *map(str, arguments), "--format", "json"]
        got = run(make_cli(), words)
        out, err = capsys.readouterr()
        assert got == status, out + err
        result: dict[str, Any] = json.loads(out)
        SEEN.add(outputs.check(result))
        return result

    return called


SEEN: set[str] = set()


def test_a_day_in_the_office(tmp_path: Path, call: Call) -> None:
    device = Device().use(tok_out=10_000)
    cut = device.size
    device.use(tok_out=2_500)
    fork = device.clone().use(tok_out=1)
    late = Device(make_license(license_id="L-2", plan=None, exp=world.T0 + 86_400), number=2)
    late.until((world.T0 + 3 * 86_400) * 1000).use()
    for name, data in (
        ("trust.json", device.trust.to_bytes()), ("plan.yaml", json.dumps(PLAN).encode()),
        ("customers.json", json.dumps(CUSTOMERS).encode()), ("registry.jsonl", registry(device, late)),
        ("a.usage.gz", device.export(0, cut)), ("b.usage.gz", device.export(cut)),
        ("c.usage.gz", device.use(tok_out=5).export()), ("fork.usage.gz", fork.export()),
        ("late.usage.gz", late.export()), ("password", b"correct horse battery staple"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
    key, out, stick = settlement_pem(tmp_path), tmp_path / "out", tmp_path / "stick"
    stick.mkdir()
    given = ("trust.json", "plan.yaml", "customers.json", "registry.jsonl")
    assert len(call("import", *(tmp_path / name for name in given))["imported"]) == 4
    call("ingest", tmp_path / "a.usage.gz", "--acks", tmp_path / "acks", "--key", key)
    call("approve", "--period", "2026-09", "--all", status=5)  # L-2 has no plan
    call("invoice", "--period", "2026-09", "--license", "L-1", "--date", "2026-10-01", "--out", out)
    call("unbilled")
    call("ingest", tmp_path / "b.usage.gz")
    assert call("unbilled")["unbilled"][0]["kind"] == "late"
    assert call("correct", "--date", "2026-10-05", "--out", out)["documents"]
    call("payment", "INV-000001", "60.00", "--date", "2026-10-09", "--ref", "r1")
    call("credit", "INV-000001", "10.00", "--reason", "slow", "--date", "2026-10-10", "--out", out)
    call("payment", "INV-000001", "50.00", "--date", "2026-10-11", "--ref", "r2")
    call("apply", "INV-000002", "1.00", "--date", "2026-10-12")
    assert call("refund", "INV-000001", "--date", "2026-10-13", "--ref", "r3")["currency"] == "USD"
    call("payouts", "--pay", "--ref", "out", "--date", "2026-10-14")
    call("payouts", "--statement", "creator:acme", "--out", out)
    call("statement", "hospital")
    call("write-off", "INV-000002", "--reason", "gone", "--date", "2026-10-15")
    call("aging", "--on", "2026-12-24")
    call("invoices", "--period", "2026-10")
    call("ledger")
    call("export", "usage", "--period", "2026-09")
    call("export", "focus", "INV-000001", "--out", out)
    held = [tmp_path / name for name in ("c.usage.gz", "late.usage.gz", "fork.usage.gz")]
    call("ingest", *held, status=5)
    (number,) = [case["number"] for case in call("cases")["cases"] if case["code"] == "H230"]
    call("held")
    call("estimates", "--period", "2026-09")
    call("case", "show", number)
    call("case", "decide", number, "--accept", "--reason", "as agreed")
    call("evidence", "INV-000001", "--out", tmp_path / "pack.zip")
    call("check-evidence", tmp_path / "pack.zip", "--trust", tmp_path / "trust.json")
    call("reconcile")
    call("sync", stick, "--key", key)
    call("store")
    call("queue")
    call("audit", "list")
    call("audit", "verify")
    call("token", "new", "ward", "--role", "finance", "--days", "9")
    call("token", "list")
    call("token", "revoke", "ward")
    call("user", "add", "eva", "--role", "finance", "--password-file", tmp_path / "password")
    call("user", "list")
    call("user", "disable", "eva")
    call("backup", tmp_path / "all.backup")
    call("restore", tmp_path / "all.backup", database="other.db")
    missing = {name for name in outputs.definitions() if name.startswith("settle-")} - SEEN
    assert not missing

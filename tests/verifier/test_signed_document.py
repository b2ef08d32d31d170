"""`sealpack verify` of signed invoices and statements: words, JSON, exit statuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from support import world

from sealpack.format import billing, canonical
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.verifier.cli import verify as module
from sealpack.verifier.cli.main import make_cli, run

CASES = Path(__file__).parents[2] / "specs/vectors/signed-document"
TRUST = str(CASES / "trust.json")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(case: str, *more: str, trust: str = TRUST) -> tuple[int, str, str]:
        status = run(make_cli(), ["verify", str(CASES / case / "document.json"), "--trust", trust, *more])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def test_who_signed_what_and_that_it_adds_up(told: Any) -> None:
    status, out, err = told("good")
    digest = json.loads((CASES / "good" / "document.json").read_text())
    assert (status, err) == (0, "")
    assert out.splitlines()[:4] == [
        "PASS",
        f"  ok    signature: {world.ISSUER}, key {world.SETTLEMENT.keyid[:16]}",
        "  ok    document: invoice INV-000001 of Acme Models GmbH for Hospital Nord gGmbH, EUR 147.74",
        "  ok    sums: they add up to 147.74 (lines: 2, tax lines: 1, products in the working: 1)",
    ]
    assert digest["payloadType"] == "application/vnd.sealpack.invoice+json"


@pytest.mark.parametrize(("case", "name"), [
    ("good-credit-note", "credit note INV-000002 of Acme Models GmbH for Hospital Nord gGmbH, EUR -11.91"),
    ("good-payout", "payout statement of Acme Models GmbH for creator:acme to 2026-10-31"),
    ("good-account", "statement of Acme Models GmbH for Hospital Nord gGmbH to 2026-10-31"),
])  # fmt: skip
def test_names(told: Any, case: str, name: str) -> None:
    status, out, _ = told(case, "--format", "json")
    report = json.loads(out)
    assert status == 0 and report["ok"] and report["name"] == name
    assert report["schema"] == "sealpack/signed-report/v1"
    assert report["signed_by"]["issuer"] == world.ISSUER
    assert [check["check"] for check in report["checks"]] == ["signature", "document", "sums"]


FAILURES = {
    "changed": "  FAIL  signature: SIG_INVALID: ",
    "draft": "  FAIL  document: DOC_SCHEMA: ",
    "sums-total": "  FAIL  sums: SUMS_WRONG: total, net and tax: 147.75 is stated, 147.74 is right",
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_fails(told: Any, case: str) -> None:
    line = FAILURES[case]
    status, out, _ = told(case)
    assert status == 3 and out.startswith("FAIL\n") and line in out
    report = json.loads(told(case, "--format", "json")[1])
    assert not report["ok"] and report["checks"][-1]["code"] in line


def test_a_revoked_key_has_its_own_status(told: Any) -> None:
    status, out, _ = told("revoked", trust=str(CASES / "revoked" / "trust.json"))
    assert status == 4 and "KEY_REVOKED" in out


def test_it_takes_a_trust_file_and_text_or_json(told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert told("good", "--format", "sarif")[0] == 2
    assert run(make_cli(), ["verify", str(CASES / "good" / "document.json")]) == 2
    assert "error[USAGE]" in capsys.readouterr().err


def test_inspect_shows_it_unverified(capsys: pytest.CaptureFixture[str]) -> None:
    path = CASES / "sums-total" / "document.json"
    assert run(make_cli(), ["inspect", str(path), "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verified"], shown["kind"]) == (False, "invoice")
    assert shown["signed_by"] == [world.SETTLEMENT.keyid] and shown["payload"]["total"] == "147.75"


def test_other_files_are_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not module._is_signed_document(str(path))
    path.write_bytes(b"PK\x03\x04")
    assert not module._is_signed_document(str(path))
    path.write_bytes((CASES / "lease" / "document.json").read_bytes())
    assert not module._is_signed_document(str(path))
    with path.open("wb") as file:
        file.truncate(2 * LIMITS.billing_bytes + 1)
    assert not module._is_signed_document(str(path))


@pytest.mark.parametrize("value", [{"schema": "sealpack/plan/v1"}, {}, []])
def test_nothing_else_is_signed(value: Any) -> None:
    with pytest.raises(SealpackError) as caught:
        billing.sign(canonical.dumps(value), world.SETTLEMENT)
    assert caught.value.code == "DOC_TYPE"


def test_what_is_signed_is_what_was_given() -> None:
    made = billing.sign(canonical.dumps(json.loads(_payload("good"))), world.SETTLEMENT)
    opened = billing.open_signed(made.to_bytes(), world.make_trust())
    assert made.payload == _payload("good") and opened.digest == made.digest
    assert made.to_bytes() == (CASES / "good" / "document.json").read_bytes()


def _payload(case: str) -> bytes:
    return base64.b64decode(json.loads((CASES / case / "document.json").read_bytes())["payload"])

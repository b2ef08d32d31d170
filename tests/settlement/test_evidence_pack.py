"""Dispute packs: what they prove alone, and that a changed byte anywhere is found."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.books import NOW, Books
from support.device import Device, make_license
from support.rating_plans import make_plan, per_unit, recurring

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust
from sealpack.settlement import billing, cases, corrections, evidence_check, evidence_pack, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.evidence_check import PackReport
from sealpack.settlement.plan import Plan
from sealpack.verifier.cli.main import make_cli, run

pytestmark = pytest.mark.sqlite_only
ME = Actor("clerk", NOW)
MONTH, DAY = date(2026, 9, 1), date(2026, 10, 5)
SHARES = {"scope": ["base", "tok"], "pool": [{"party": "platform", "bps": 3000},
          {"party": "creator:a", "rest": True}]}  # fmt: skip


def plan() -> Plan:
    tax = {"category": "S", "percent": "19"}
    made: Plan = make_plan(
        recurring("100.01", when="arrears"), per_unit("0.01"), per=1, shares=SHARES, tax=tax
    )
    return made


def invoiced(books: Books, *devices: Device) -> str:
    """An invoice for what the devices used; its number."""
    books.learn(*devices, plan=plan())
    for device in devices:
        assert books.code(device.export()) == "OK"
        books.reply(device)
    return billing.bill(books.database, "L-1", MONTH, DAY, actor=ME).name


def packed(books: Books, name: str) -> bytes:
    with books.database.read() as connection:
        return evidence_pack.for_invoice(connection, name)


def log_pack(books: Books, origin: str) -> bytes:
    with books.database.read() as connection:
        return evidence_pack.for_log(connection, origin)


def checked(data: bytes) -> PackReport:
    return evidence_check.check(data, world.make_trust())


def failure(data: bytes) -> tuple[str, str]:
    """Name and words of the check that failed."""
    found = [check for check in checked(data).checks if not check.ok]
    assert len(found) == 1
    return found[0].name, found[0].detail


def repacked(data: bytes, **files: bytes | None) -> bytes:
    """A pack whose author wrote other things into it; names with `/` and `.` as `__` and `_`."""
    manifest, kept = evidence_pack.read(data)
    for name in list(kept):
        alias = name.replace("/", "__").replace(".", "_").replace("-", "_")
        if alias in files:
            new = files[alias]
            if new is None:
                del kept[name]
            else:
                kept[name] = new
    del kept[evidence_pack.MANIFEST]
    members = {key: value for key, value in manifest.items() if key not in ("schema", "files")}
    return evidence_pack._pack(members, kept)


def restated(data: bytes, **members: Any) -> bytes:
    """A pack with other members of its manifest."""
    manifest, kept = evidence_pack.read(data)
    del kept[evidence_pack.MANIFEST]
    for name in ("schema", "files"):
        del manifest[name]
    return evidence_pack._pack(manifest | members, kept)


def altered(data: bytes, name: str, **members: Any) -> bytes:
    """A pack whose invoice says something else."""
    _, kept = evidence_pack.read(data)
    value = json.loads(kept[f"invoices/{name}.json"]) | members
    return repacked(data, **{f"invoices__{name}_json".replace("-", "_"): canonical.dumps(value)})


def test_an_invoice_proves_itself(books: Books) -> None:
    one, two = Device().work(300), Device(number=2).work(20)
    data = packed(books, invoiced(books, one, two))
    report = checked(data)
    assert report.ok, report
    told = {check.name: check.detail for check in report.checks}
    assert list(told) == [
        "container", "trust", "documents", "receipts", "acknowledgements", "invoice", "quantities", "amounts",
    ]  # fmt: skip
    used = one.registers.total("tok_out") + two.registers.total("tok_out")
    assert told["receipts"].startswith(f"{one.size + two.size} receipts in 2 logs")
    assert told["acknowledgements"] == "2 acknowledgements fit the receipts"
    assert told["quantities"] == f"tok: {used:,}"
    assert told["amounts"] == "rated again from the receipts: every line and its working the same"
    assert packed(books, "INV-000001") == data


def test_what_came_after_the_invoice_is_not_in_its_pack(books: Books) -> None:
    device = Device().work(20)
    name = invoiced(books, device)
    before = packed(books, name)
    size = device.size
    device.work(30)
    assert books.code(device.export(size)) == "W130"
    assert checked(packed(books, name)).ok
    assert packed(books, name) == before
    (made,) = corrections.correct(books.database, "L-1", DAY, actor=ME)
    late = checked(packed(books, made.name))
    assert late.ok, late
    assert late.checks[-1].detail.startswith("rated again from the receipts: all documents of the period")
    credit = receivables.credit(books.database, name, "10.00", "slow", DAY, actor=ME)
    assert checked(packed(books, credit.name)).checks[-1].detail == "a goodwill credit: not made of usage"


def test_logs_that_were_cut_rotated_and_lost(books: Books) -> None:
    """Files that overlap, a new device key, and a further log that carries what never arrived."""
    device = Device().work(40)
    books.learn(device, plan=plan())
    assert books.code(device.export(0, 20)) == "OK"
    assert books.code(device.export(0, 40)) == "W102"
    device.rotate(5)
    device.work(10).tally()
    assert books.code(device.export(40)) == "OK"
    device.work(7).tally()
    later = device.restored().work(5)
    assert books.code(later.export()) == "W151"
    name = billing.bill(books.database, "L-1", MONTH, DAY, actor=ME).name
    report = checked(packed(books, name))
    assert report.ok, report
    assert "in 2 logs" in report.checks[3].detail
    used = device.registers.total("tok_out") + later.registers.total("tok_out")
    assert report.checks[6].detail == f"tok: {used:,}"


def test_a_changed_byte_anywhere_is_found(books: Books) -> None:
    """Every byte of the container and manifest, every 7th of the rest."""
    data = packed(books, invoiced(books, Device().work(5)))
    _, files = evidence_pack.read(data)
    manifest = data.index(files[evidence_pack.MANIFEST])
    dense = {
        *range(manifest + len(files[evidence_pack.MANIFEST])),
        *range(data.rindex(b"PK\x01\x02"), len(data)),
    }
    for at in sorted(dense | {*range(0, len(data), 7)}):
        for bit in (0x01, 0x80):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(SealpackError) as error:
                evidence_pack.read(changed)
            assert error.value.code == "PACK_INVALID"
    for cut in (0, 1, 30, len(data) // 2, len(data) - 1):
        assert failure(data[:cut])[0] == "container"
    assert failure(data + b"\0")[0] == failure(b"\0" + data)[0] == "container"


def test_what_its_author_made_up_is_found(books: Books) -> None:
    """A vendor who packs anew cannot change what devices signed, nor what follows from it."""
    device = Device().work(40)
    name = invoiced(books, device)
    data = packed(books, name)
    _, files = evidence_pack.read(data)
    value = json.loads(files[f"invoices/{name}.json"])
    usage = next(n for n in files if n.startswith("usage/"))
    stranger = Device(make_license(), number=7).work(40)

    tok = [line | {"raw": str(int(line["raw"]) + 1)} if "raw" in line else line for line in value["lines"]]
    assert failure(altered(data, name, lines=tok))[0] == "quantities"
    cheaper = [line | {"description": "x"} for line in value["lines"]]
    assert failure(altered(data, name, lines=cheaper))[0] == "amounts"
    assert failure(altered(data, name, total="1.00")) == ("invoice", f"{name} does not add up")
    assert failure(altered(data, name, license="L-2")) == ("invoice", f"{name} is another document")
    assert failure(altered(data, name, plan=value["plan"] | {"version": 2}))[1].endswith("another price plan")
    assert failure(altered(data, name, evidence=[]))[1].startswith("the invoice rests on other receipts")
    about = {"documents": [{"name": name, "kind": "credit"}]}
    assert failure(restated(data, **about))[1] == f"{name} is no document of kind credit"
    assert "another currency" in failure(altered(data, name, currency="EUR"))[1]
    assert failure(altered(data, name, period_end="2026-09-29"))[1] == "the invoice is of no whole period"
    given = [{"license": "L-1", "device": device.id, "first_at": world.T0 - 86_400}]
    told = checked(restated(data, activated=given)).checks[3].detail
    assert told.endswith("; 1 older activations are settlement's word")
    alias = usage.replace("/", "__").replace(".", "_")
    assert failure(repacked(data, **{alias: stranger.export()}))[0] == "receipts"
    assert "its files give 30 receipts" in failure(repacked(data, **{alias: device.export(0, 30)}))[1]
    assert failure(repacked(data, **{alias: b"nothing"}))[0] == "receipts"
    assert failure(repacked(data, trust_json=b"{}"))[0] == "trust"
    licenses = next(n for n in files if n.startswith("licenses/")).replace("/", "__").replace(".", "_")
    assert failure(repacked(data, **{licenses: None}))[0] in ("documents", "receipts")
    forged = files[licenses.replace("__", "/").replace("_json", ".json")].replace(b'"sig":"', b'"sig":"AA')
    assert failure(repacked(data, **{licenses: forged}))[0] == "documents"
    acks = next(n for n in files if n.startswith("acknowledgements/")).replace("/", "__").replace(".", "_")
    assert checked(repacked(data, **{acks: None})).ok
    assert failure(restated(data, about={"kind": "wish"}))[0] == "kind"
    assert failure(restated(data, logs=[]))[1] == "it holds usage of a log that it does not state"
    assert failure(restated(data, usage=[]))[0] == "receipts"
    assert failure(restated(data, usage=1))[1].startswith("the pack is malformed")


def test_a_plan_that_no_license_names(books: Books) -> None:
    """The vendor rates under a dearer plan of its own making."""
    data = packed(books, invoiced(books, Device().work(5)))
    dear = make_plan(per_unit("9"), per=1, head={"id": "dear"})
    said = {"id": "dear", "version": 1, "digest": dear.digest}
    changed = repacked(altered(data, "INV-000001", plan=said, tz=dear.tz), plan_json=dear.document)
    assert failure(changed) == ("invoice", "no license names price plan dear version 1")


def test_another_vendors_trust(books: Books) -> None:
    data = packed(books, invoiced(books, Device().work(5)))
    root = world.make_root(keys=(world.ROOT, world.CREATOR))
    other = Trust.from_envelopes(root, world.make_keyring(), world.make_revocations())
    found = evidence_check.check(data, other).checks[-1]
    assert (found.name, found.ok) == ("trust", False)
    assert "another root" in found.detail


def test_a_log_and_a_case(books: Books) -> None:
    device = Device().work(20)
    twin = device.clone()
    device.work(10)
    twin.work(3, step_ms=1_000)
    books.learn(device, plan=plan())
    assert books.code(device.export()) == "OK"
    assert books.code(twin.export()) == "H210"
    report = checked(log_pack(books, device.origin))
    assert report.ok
    assert [check.name for check in report.checks][-1] == "acknowledgements"
    (case,) = cases.cases(books.database)
    data = evidence_pack.for_case(books.database, case.number)
    told = checked(data)
    assert told.ok, told
    assert told.checks[-1].detail.startswith("the device signed two histories")
    assert failure(repacked(data, case__held_usage_gz=device.export()))[1].endswith("nothing contradicts")
    ours = evidence_pack.read(data)[1]["case/ours.note"]
    assert failure(repacked(data, case__theirs_note=ours))[1].startswith("the kept checkpoints are not")
    with pytest.raises(SealpackError, match="LOG_UNKNOWN"):
        log_pack(books, "sealpack/usage/none/none/0")
    with pytest.raises(SealpackError, match="no invoice"):
        packed(books, "INV-9")


def test_a_case_of_a_gap(books: Books) -> None:
    device = Device().work(20)
    books.learn(device, plan=plan())
    assert books.code(device.export(9)) == "H201"
    (case,) = cases.cases(books.database)
    told = checked(evidence_pack.for_case(books.database, case.number)).checks[-1]
    assert told.ok and told.detail.startswith("H201: receipts 0 to 8 are missing")


def test_a_license_that_was_renewed_and_revoked_since(books: Books) -> None:
    device = Device().work(20)
    name = invoiced(books, device)
    gone = world.make_revocations(2, licenses=["L-1"])
    revoked = Trust.from_envelopes(world.make_root(), world.make_keyring(), gone)
    renewed = Device(make_license(seq=2, issued_at=world.T0 + 86_400))
    books.take("renewed.jsonl", renewed.line())
    books.take("trust.json", revoked.to_bytes())
    report = checked(packed(books, name))
    assert report.ok, report
    assert "1 keys, licenses or devices were revoked by now" in report.checks[1].detail


def test_commands(books: Books, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = invoiced(books, Device().work(5))
    trust = tmp_path / "trust.json"
    trust.write_bytes(world.make_trust().to_bytes())
    out = tmp_path / "a.evidence.zip"

    def call(*arguments: str, status: int = 0) -> str:
        assert run(make_cli(), list(arguments)) == status, capsys.readouterr()
        return "".join(capsys.readouterr())

    settle = ("settle", "--db", books.address)
    assert str(out) in call(*settle, "evidence", name, "--out", str(out))
    assert "OUTPUT_EXISTS" in call(*settle, "evidence", name, "--out", str(out), status=2)
    assert "give one of" in call(*settle, "evidence", name, "--case", "1", "--out", "x", status=2)
    said = call("verify", "--trust", str(trust), str(out))
    assert said.startswith("PASS\n  ok    container")
    report = json.loads(call("verify", "--trust", str(trust), "--format", "json", str(out)))
    assert report["ok"] and report["about"] == {"kind": "invoice", "name": name}
    assert "as text or json" in call("verify", "--trust", str(trust), "--format", "html", str(out), status=2)
    assert "--trust FILE" in call("verify", str(out), status=2)
    assert run(make_cli(["verify"]), ["verify", "--trust", str(trust), str(out)]) == 2
    assert "pip install 'sealpack[settlement]'" in capsys.readouterr().err
    data = bytearray(out.read_bytes())
    data[len(data) // 2] ^= 1
    out.write_bytes(data)
    assert "FAIL  container" in call("verify", "--trust", str(trust), str(out), status=3)
    device = Device().origin
    call(*settle, "evidence", "--log", device, "--out", str(out), "--force")
    assert call("verify", "--trust", str(trust), str(out)).startswith("PASS")

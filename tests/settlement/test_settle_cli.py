"""Finance's commands as a clerk types them: words, JSON, exit statuses, sticks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.books import CUSTOMERS, NOW, settlement_pem
from support.device import Device, make_license

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.documents import Parcel
from sealpack.format.license import PlanRef
from sealpack.settlement import stick
from sealpack.verifier.cli import support
from sealpack.verifier.cli.main import make_cli, run

PLAN = """
plan: {id: example, version: 1, currency: USD, tz: UTC}
meters: {m: {field: tok_out, per: 1}}
charges:
  - {id: tok, type: usage, meter: m, model: per_unit, unit: "0.01"}
"""


class Office:
    """Runs `settle` in a folder that holds what finance was given."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.database = folder / "settlement.db"
        self.stick = folder / "stick"
        self.stick.mkdir()
        self.key = settlement_pem(folder)
        self.err = ""

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        """Stdout of a verb, after checking its exit status; stderr is in `err`."""
        got = run(make_cli(), ["settle", "--db", str(self.database), *map(str, arguments)])
        out, self.err = self._capsys.readouterr()
        assert got == status, out + self.err
        assert "Traceback" not in self.err
        return out

    def json(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """The JSON result of a verb."""
        result: dict[str, Any] = json.loads(self(*arguments, "--format", "json", status=status))
        assert result["schema"].startswith("sealpack/settle-") or "reconciliation" in result["schema"]
        return result

    def file(self, name: str, data: bytes | str) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def learn(self, *devices: Device) -> None:
        """Import what `license issue` and finance's own files say."""
        lines = b"".join(device.line() for device in devices)
        self(
            "import",
            self.file("trust.json", world.make_trust().to_bytes()),
            self.file("plan.yaml", PLAN),
            self.file("customers.json", json.dumps(CUSTOMERS)),
            *([self.file("registry.jsonl", lines)] if devices else []),
        )


@pytest.fixture
def office(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.setattr(support, "now", lambda: NOW)
    return Office(tmp_path, capsys)


def test_the_whole_job(office: Office) -> None:
    device = Device().work(20)
    office.learn(device)
    usage = office.file("stick/ward.usage.gz", device.export())
    said = office("ingest", usage)
    assert said == f"OK    ward.usage.gz: accepted ({device.size} receipts accepted)\n"
    assert office("reconcile") == f"1 logs, {device.size} receipts: all agree\n"
    said = office("invoice", "--period", "2026-09", "--date", "2026-10-05", "--out", office.folder / "out")
    assert said == "INV-000001  L-1\n"
    assert "2026-09 is not over" in office.err
    invoice = json.loads((office.folder / "out/INV-000001.json").read_bytes())
    cents = device.registers.total("tok_out")
    assert invoice["total"] == f"{cents // 100}.{cents % 100:02d}"
    before = {p.name: p.read_bytes() for p in (office.folder / "out").iterdir()}
    again = office("invoice", "--period", "2026-09", "--out", office.folder / "out")
    assert again == "INV-000001  L-1 (issued before)\n"
    assert {p.name: p.read_bytes() for p in (office.folder / "out").iterdir()} == before
    assert not [p.name for p in office.folder.iterdir() if p.name.startswith("settlement.db-")]


def test_import_says_what_each_file_brought(office: Office) -> None:
    said = office.json(
        "import",
        office.file("trust.json", world.make_trust().to_bytes()),
        office.file("registry.jsonl", Device().line()),
    )
    assert [item["what"] for item in said["imported"]][1:] == ["1 registry line"]
    assert said["released"] == []


def test_import_frees_what_waited(office: Office) -> None:
    device = Device().work(5)
    office.learn()
    assert "H250" in office("ingest", office.file("a.usage.gz", device.export()), status=5)
    said = office("import", office.file("registry.jsonl", device.line()))
    assert said.splitlines()[1].startswith("OK    a.usage.gz: accepted")


def test_what_is_held_or_refused_shows_in_the_exit_status(office: Office) -> None:
    device = Device().work(10)
    office.learn(device)
    files = [office.file("late.usage.gz", device.export(8)), office.file("letter.txt", b"hello")]
    said = office.json("ingest", *files, status=5)
    assert [(o["file"], o["code"]) for o in said["outcomes"]] == [
        ("late.usage.gz", "H201"), ("letter.txt", "R301"),
    ]  # fmt: skip
    assert said["outcomes"][0]["meaning"] == "usage before this file has not arrived yet"
    said = office.json("ingest", office.file("early.usage.gz", device.export(0, 8)))
    assert [o["code"] for o in said["outcomes"]] == ["OK", "OK"]
    assert office("reconcile").count("waiting") == 0


def test_nothing_is_ingested_when_a_name_is_wrong(office: Office) -> None:
    device = Device().work(3)
    office.learn(device)
    usage = office.file("a.usage.gz", device.export())
    office("ingest", usage, office.folder / "none.usage.gz", status=1)
    assert "error[FILE_MISSING]" in office.err
    assert office("reconcile") == "0 logs, 0 receipts: all agree\n"


def test_acknowledgements_are_left_where_told(office: Office) -> None:
    device = Device().work(3)
    office.learn(device)
    usage = office.file("a.usage.gz", device.export())
    office("ingest", usage, "--acks", office.folder / "acks", status=2)
    assert "--acks and --key" in office.err
    said = office("ingest", usage, "--acks", office.folder / "acks", "--key", office.key)
    assert said.splitlines()[-1] == "left  hospital-ward-3-1.ack"
    path = office.folder / "acks/hospital-ward-3-1.ack"
    (envelope,) = Parcel.from_bytes(path.read_bytes(), path.name).documents
    assert Acknowledgement.open(envelope, world.make_trust()).size == device.size
    before = path.read_bytes()
    assert "W101" in office("ingest", usage, "--acks", office.folder / "acks", "--key", office.key)
    assert path.read_bytes() == before


def test_without_trust_nothing_is_judged(office: Office) -> None:
    office("ingest", office.file("a.usage.gz", Device().work(3).export()), status=4)
    assert "error[TRUST_UNPINNED]" in office.err
    assert "settle import trust.json" in office.err


# --- sticks -----------------------------------------------------------------------------------------


def sync(office: Office, status: int = 0) -> list[str]:
    return office("sync", office.stick, "--key", office.key, status=status).splitlines()


def test_one_verb_per_stick(office: Office) -> None:
    device, other = Device().work(20), Device(number=2, label="ward 4").work(5)
    office.learn(device)
    folder = office.stick / "ward 3"
    folder.mkdir()
    (folder / "b.usage.gz").write_bytes(device.export(0, 9))
    (office.stick / "a.usage.gz").write_bytes(device.export(9))
    (office.stick / "copy").write_bytes(device.export(0, 9))
    (office.stick / "ward4.license").write_bytes(other.line())
    (office.stick / "ward4.usage.gz").write_bytes(other.export())
    (office.stick / "holiday.jpg").write_bytes(b"\xff\xd8" * 500)
    (office.stick / "backup.tar.gz").write_bytes(b"\x1f\x8b" + bytes(500))
    (office.stick / "link").symlink_to(office.folder / "settlement.pem")
    lines = sync(office)
    total = device.size + other.size
    assert lines == [
        f"taken: {total} receipts from 4 files, 0 need attention",
        "left: 2 acknowledgements hospital-ward-3-1.ack hospital-ward-4-1.ack",
    ]
    left = {path.name: path.read_bytes() for path in office.stick.glob("*.ack")}
    assert len(left) == 2
    assert sync(office)[0] == "taken: 0 receipts from 4 files, 0 need attention"
    assert {path.name: path.read_bytes() for path in office.stick.glob("*.ack")} == left


def test_what_needs_attention_is_told_after_the_two_lines(office: Office) -> None:
    device = Device().work(20)
    office.learn(device)
    (office.stick / "a.usage.gz").write_bytes(device.export(0, 5))
    (office.stick / "b.usage.gz").write_bytes(device.export(9))
    (office.stick / "c.usage.gz").write_bytes(b"\x1f\x8b" + bytes(500))
    stranger = Device(make_license(issuer="Other"), number=9)
    (office.stick / "other.license").write_bytes(stranger.line())
    lines = sync(office, status=5)
    assert lines[0] == "taken: 5 receipts from 3 files, 2 need attention"
    assert [line[:4] for line in lines[2:4]] == ["H201", "R301"]
    assert lines[4].startswith("passed over: other.license")


def test_a_large_file_of_someone_else_is_left_alone(office: Office) -> None:
    office.learn()
    with (office.stick / "model.sealpack").open("wb") as file:
        file.truncate(300 << 20)
    assert sync(office)[0] == "taken: 0 receipts from 0 files, 0 need attention"


def test_kinds_of_files(tmp_path: Path) -> None:
    def kind(name: str, data: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(data)
        return stick.kind_of(path)

    device = Device().work(3)
    assert kind("renamed.bin", device.export()) == "usage"
    assert kind("x.usage.gz", b"") == "usage"
    assert kind("x.license", device.parcel()) == "documents"
    assert kind("x", device.line()) == "documents"
    assert kind("x", b"") == kind("y.gz", b"\x1f\x8b\x08broken") == kind("z", PLAN.encode()) == ""


def test_a_key_that_may_not_acknowledge(office: Office) -> None:
    device = Device().work(3)
    office.learn(device)
    (office.stick / "a.usage.gz").write_bytes(device.export())
    office.key.write_bytes(world.LICENSER.to_pem())
    office("sync", office.stick, "--key", office.key, status=3)
    assert "error[SIG_KEY_ROLE]" in office.err
    assert not list(office.stick.glob("*.ack"))


def test_a_stick_that_is_not_there(office: Office) -> None:
    office("sync", office.folder / "none", "--key", office.key, status=1)
    assert "error[FILE_MISSING]" in office.err


# --- the rest ---------------------------------------------------------------------------------------


def test_reconcile_shows_differences(office: Office) -> None:
    device = Device().work(20)
    office.learn(device)
    office("ingest", office.file("a.usage.gz", device.export()))
    with sqlite3.connect(office.database) as connection:
        connection.execute("UPDATE rollups SET calls = calls + 1")
    connection.close()
    said = office.json("reconcile", status=3)
    assert not said["ok"]
    assert said["problems"] == [
        f"{device.origin}: roll-ups differ from the evidence",
        f"{device.origin}: roll-ups do not add up to the running totals",
        "license L-1: its usage is not the sum of its roll-ups",
    ]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE logs SET root = 'ab'", "the stored tree and its root differ"),
        ("UPDATE logs SET size = size + 1", "the stored tree is none"),
        ("UPDATE logs SET size = size - 1", "size, root or checkpoint"),
        ("UPDATE logs SET note = x'00'", "size, root or checkpoint"),
        ("UPDATE evidence SET data = zeroblob(100)", "was changed"),
        ("DELETE FROM segments", "size, root or checkpoint"),
        ("DELETE FROM activations", "activation is gone"),
        ("DELETE FROM rollups", "roll-ups differ"),
        ("DELETE FROM license_usage", "license L-1: its usage is not the sum of its roll-ups"),
        ("UPDATE license_usage SET seq = 2", "license L-1: its usage is not the sum of its roll-ups"),
    ],
)
def test_reconcile_finds_each_fault(office: Office, statement: str, problem: str) -> None:
    device = Device().work(20)
    office.learn(device)
    office("ingest", office.file("a.usage.gz", device.export()))
    with sqlite3.connect(office.database) as connection:
        connection.execute(statement)
    connection.close()
    said = office("reconcile", status=3)
    assert problem in said


def test_silent_devices(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    device, other = Device().work(3), Device(number=2)
    office.learn(device, other)
    office("ingest", office.file("a.usage.gz", device.export()))
    assert office.json("reconcile")["silent"] == []
    monkeypatch.setattr(support, "now", lambda: NOW + 60 * 86_400)
    assert office.json("reconcile")["silent"] == sorted(f"{d.id} under L-1" for d in (device, other))


def test_invoice_asks_for_a_month(office: Office) -> None:
    office.learn(Device())
    for period in ("2026", "2026-13", "09-2026", "9999-12", "1969-12"):
        for verb in (("invoice",), ("export", "usage")):
            office(*verb, "--period", period, status=2)
            assert "error[USAGE]" in office.err
    office("invoice", "--period", "2026-09", "--date", "9999-12-31", status=2)
    assert "error[USAGE]" in office.err


def test_a_draft_and_a_license_that_cannot_be_billed(office: Office) -> None:
    unknown = Device(make_license(license_id="L-2", plan=PlanRef("none", 1)), number=2)
    office.learn(Device(), unknown)
    out = office.folder / "out"
    said = office.json("invoice", "--period", "2026-09", "--draft", "--out", out, status=5)
    assert [i["number"] for i in said["invoices"]] == ["draft-L-1-2026-09"]
    assert said["skipped"] == [{"license": "L-2", "reason": "plan none version 1 is not known here"}]
    assert not office.err
    office("invoice", "--period", "2026-09", "--license", "L-2", "--out", out, status=2)
    assert "error[PLAN_INVALID]" in office.err


def test_nothing_to_bill(office: Office) -> None:
    office.learn()
    assert office("invoice", "--period", "2026-09") == "nothing to bill\n"


def test_light_start() -> None:
    """Listing the verbs loads neither a database nor a parser of plans."""
    code = (
        "import sys; from sealpack.verifier.cli.main import make_cli, run;"
        "run(make_cli(), ['settle', '--help']);"
        "print([m for m in ('sqlalchemy', 'yaml', 'sealpack.settlement.db') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for verb in ("import", "ingest", "sync", "reconcile", "quote", "invoice"):
        assert f"\n  {verb} " in done.stdout

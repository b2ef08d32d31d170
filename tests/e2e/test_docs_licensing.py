"""docs/licensing.md, recipe by recipe: who types, what it says, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack
from e2e.test_docs_verifying import SETTINGS, classifier

from sealpack.builder.project import create
from sealpack.runtime import machine
from sealpack.runtime.clock import Reading

PAGE = (Path(__file__).parents[2] / "docs" / "licensing.md").read_text()
DAY_S = 86_400
Capture = pytest.CaptureFixture[str]
_ACTOR = re.compile(r"(?:^|[.)]\s)(Vendor|Finance|Group|Ward \d)\b", re.MULTILINE)


@dataclass
class Place:
    """One folder in which everybody works, a state for each machine, and a clock that can be moved."""

    folder: Path
    capsys: Capture
    patch: pytest.MonkeyPatch
    wall_s: int = 0  # ahead of the true time
    up_s: int = 0

    def be(self, actor: str) -> None:
        """Type as this one: a machine has its own state and its own marks."""
        name = actor.lower().replace(" ", "-")
        self.patch.setenv("SEALPACK_STATE", str(self.folder / "states" / name))
        self.patch.setenv("SEALPACK_MARKS", str(self.folder / "marks" / name))

    def say(self, *arguments: str) -> str:
        self.capsys.readouterr()
        assert sealpack(*arguments) == 0, (arguments, self.capsys.readouterr().err)
        return self.capsys.readouterr().out

    def state(self, actor: str) -> Path:
        return self.folder / "states" / actor.lower().replace(" ", "-")

    def device(self) -> dict[str, Any]:
        """What `activate status` says on the machine that types."""
        found: dict[str, Any] = json.loads(self.say("activate", "status", "--format", "json"))
        return found

    def device_of(self, actor: str) -> dict[str, Any]:
        """The same on another machine."""
        self.be(actor)
        return self.device()

    def pass_days(self, days: int) -> None:
        self.wall_s += days * DAY_S
        self.up_s += days * DAY_S

    def forget_ward_3(self) -> None:
        """Nobody settles for 46 days."""
        self.pass_days(46)

    def stand_in_2038(self) -> None:
        """Its clock is far ahead for two days of run time, and put right too late."""
        self.be("Ward 3")
        self.wall_s += 12 * 365 * DAY_S
        self.say("status")
        self.pass_days(2)
        self.say("status")
        self.wall_s -= 12 * 365 * DAY_S

    def restore_twice(self) -> None:
        """Ward 3 goes on with a backup, and then with the same one again."""
        self.be("Ward 3")
        backup = self.folder / "backup"
        shutil.copytree(self.state("Ward 3"), backup)
        for _ in range(2):
            self.say("run", "acme/triage", "--input", "x.json")
            shutil.rmtree(self.state("Ward 3"))
            shutil.copytree(backup, self.state("Ward 3"))
        assert "may not run: STATE_ROLLED_BACK: this state is a backup" in self.say("status")


@pytest.fixture
def place(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The vendor's project, with a model that answers at once."""
    made = create(tmp_path / "acme", publisher="acme", name="Acme", now=int(time.time()))
    settings = SETTINGS | {"# ack_required": "ack_required"}
    text = (made.folder / "sealpack.toml").read_text()
    for old, new in settings.items():
        text = text.replace(old, new)
    profile = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert profile is not None
    (made.folder / "sealpack.toml").write_text(text + "\n" + profile[1])
    monkeypatch.chdir(made.folder)
    classifier(made.folder / "triage.onnx")
    Path("x.json").write_text('{"x": [[1, 0]]}')
    Path("passphrase.txt").write_text("correct horse battery\n")
    Path("stick").mkdir()
    assert sealpack("build", "triage.onnx", "--out", "bundles/triage-1.0.0.sealpack") == 0
    here = Place(made.folder, capsys, monkeypatch)
    real, true = machine.reading, time.time
    monkeypatch.setattr("time.time", lambda: true() + here.wall_s)

    def reading() -> Reading:
        found = real()
        return Reading(found.wall, found.monotonic + here.up_s * 1000, found.boot_id)

    monkeypatch.setattr(machine, "reading", reading)
    return here


def sections() -> list[tuple[str, str]]:
    parts = re.split(r"^## \d+\. (.*)\n", PAGE, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str) -> list[tuple[str, list[str]]]:
    """(prose before, commands) in order; who types is told in the prose, else it is who typed before."""
    found = re.split(
        r"((?:^ {4}\S.*\n?)+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE
    )
    return [(prose, lines.splitlines()) for prose, lines in zip(found[::2], found[1::2], strict=False)]


# What happens to ward 3 before a command of the page: the words of the prose that stand before it.
HAPPENS = {
    "was forgotten for 46 days": Place.forget_ward_3,
    "stood in 2038 for two days": Place.stand_in_2038,
    "A second one stops": Place.restore_twice,
}


# What somebody reads who types that: the next step, or what is not as it should be.
SAYS = {
    "activate install kit.license": "provisional use: 50 calls within 3 days of the first; next: ",
    "activate install ward-3.token": "a further log may begin under license north",
    "license issue --existing north-2.license": "`sealpack license confirm north CODE`",
    "license issue --preset clinic": "plan      none: usage is settled, and nothing is invoiced",
    "sync stick": "next: carry stick to the vendor",
    "run acme/triage --input x.json  # STATE_ROLLED_BACK": "an epoch token for log 2 of dev-",
    "run acme/triage --input x.json  # LEASE_STALE": "--break-glass",
}


def carry_out(place: Place, line: str, whose: str) -> None:
    """One command, which does what the page says of it."""
    command, _, code = line.strip().partition("  # ")
    words = shlex.split(command)
    assert words[0] == "sealpack", line
    if "CODE" in words or "DEVICE" in words:
        here = place.device_of(whose)
        codes = {entry["license_id"]: entry.get("confirmation", "") for entry in here["licenses"]}
        known = {"DEVICE": here["device_id"], "CODE": codes.get("north", "")}
        words = [known.get(word, word) for word in words]
    place.capsys.readouterr()
    place.patch.setattr("sys.stdin", io.StringIO("y\n"))  # the words of the root were compared
    status = sealpack(*words[1:])
    said, told = place.capsys.readouterr()
    if code:
        assert status != 0 and f"error[{code}]" in told, (line, said, told)
        assert "next: " in told
    else:
        assert status == 0, (line, said, told)
    for begins, words_read in SAYS.items():
        if line.strip().startswith(f"sealpack {begins}") and not ("sync" in begins and "exported 0" in said):
            assert words_read in said + told, (line, said, told)
    if "terms accept acme/sealed" in line:
        assert "may not run: KEY_UNWRAP" in place.say("status")
    if found := re.search(r"^site code (\S+)", said, re.MULTILINE):
        Path("site-code.txt").write_text(found[1] + "\n")


def test_every_command_of_the_page_does_what_it_says(place: Place) -> None:
    count = 0
    for title, text in sections():
        actor, whose = "Vendor", "Ward 7" if title == "Revocation" else "Ward 3"
        for prose, lines in blocks(text):
            actor = (_ACTOR.findall(prose) or [actor])[-1]
            for words, happen in HAPPENS.items():
                if words in prose.replace("\n", " "):
                    happen(place)
            place.be(actor)
            for line in lines:
                carry_out(place, line, whose)
                count += 1
    assert count == len(re.findall(r"^ {4}sealpack ", PAGE, re.MULTILINE)) > 70
    place.be("Ward 3")
    (north,) = json.loads(place.say("status", "--format", "json"))["licenses"]
    assert north["receipts"]["origin"].endswith("/2"), "two backups, two further logs"
    terms = Path("clinic.html").read_text()
    assert "Clinic South" in terms and "200,000 calls" in terms


def test_it_says_what_the_presets_say(capsys: Capture) -> None:
    """The table's numbers are the presets' own."""
    said = {}
    for name in ("free_dev", "academic", "pro", "commercial", "enterprise"):
        assert sealpack("license", "presets", name) == 0
        said[name] = re.sub(r"\s+", " ", capsys.readouterr().out)
    rows = dict(re.findall(r"^\| [^|]+ \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert rows.keys() == {"open_source", *said}
    for name, text in rows.items():
        for days in re.findall(r"settles every (\d+) days", text):
            assert f"settle every, days {days}" in said[name]
    assert "calls 1000 per day, deny" in said["free_dev"]
    assert "calls 100000 per month, throttle" in said["academic"]

"""docs/key-recovery.md, command by command, and what a device with the old root then believes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from builder.conftest import sealpack

from sealpack.builder import keyfiles

PAGE = Path(__file__).parents[2] / "docs/key-recovery.md"
BUNDLE = "bundles/my-model-1.0.0.sealpack"
Capture = pytest.CaptureFixture[str]


class Device:
    """A machine that pinned the root the project began with, and what it says to files brought to it."""

    def __init__(self, folder: Path, capsys: Capture) -> None:
        self.state = ("--state", folder)
        self.capsys = capsys
        assert sealpack("trust", "pin", "trust/trust.json", "--yes", *self.state) == 0

    def says(self, *arguments: str | Path) -> str:
        """ "" when it takes the file, else the code."""
        self.capsys.readouterr()
        status = sealpack(*arguments, *self.state)
        told = self.capsys.readouterr().err
        found = re.search(r"error\[(\w+)\]", told)
        assert (status == 0) == (found is None), told
        return found[1] if found else ""

    def installs(self, bundle: str) -> str:
        return self.says("install", bundle)

    def takes(self, file: str) -> str:
        return self.says("activate", "install", file)


def commands(section: str) -> list[list[str]]:
    """The commands of one section of the page, in order."""
    parts = re.split(r"^#+ (.*)\n", PAGE.read_text(), flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[section]
    return [shlex.split(line) for line in re.findall(r"^ {4,}sealpack (.*)$", text, re.MULTILINE)]


def follow(device: Device, steps: list[list[str]]) -> None:
    """Run commands of the page; those of a machine on `device`."""
    keyids = {f"{name.upper()}_KEYID": keyid(name)[:16] for name in ("bundle", "license")}
    for step in steps:
        words = [keyids.get(word, word) for word in step]
        if words[:2] == ["activate", "install"]:
            assert device.takes(words[2]) == ""
        else:
            assert sealpack(*words) == 0, words


def keyid(name: str) -> str:
    return keyfiles.load_public(f"keys/{name}.pub.pem").keyid


def build(model: Path, version: str, index: int, key: str) -> str:
    out = f"bundles/my-model-{version}.sealpack"
    more = ("--bundle-version", version, "--release-index", index, "--key", f"keys/{key}.pem", "--out", out)
    assert sealpack("build", model, *map(str, more)) == 0
    return out


def issue(license_id: str, key: str) -> str:
    out = f"licenses/{license_id}.license"
    offer = ("--preset", "open_source", "--customer", "C", "--bundle", BUNDLE, "--license-id", license_id)
    assert sealpack("license", "issue", *offer, "--key", f"keys/{key}.pem", "--out", out) == 0
    return out


@pytest.fixture
def device(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Device:
    """A device of a project whose root has since become two of three."""
    pytest.importorskip("sealpack.runtime.anchors")
    monkeypatch.chdir(home)
    made = Device(tmp_path / "state", capsys)
    follow(made, commands("When a key is lost"))
    return made


def test_every_command_of_the_page_is_run() -> None:
    sections = ("When a key is lost", "Lost bundle key", "Lost license key", "One lost root key of three")
    assert [len(commands(section)) for section in sections] == [5, 4, 3, 3]
    assert len(re.findall(r"^ {4,}sealpack ", PAGE.read_text(), re.MULTILINE)) == 15
    assert not commands("Below the threshold")


def test_lost_then_stolen_bundle_key(device: Device, gguf_model: Path) -> None:
    new, rotate, *stolen = commands("Lost bundle key")
    old = build(gguf_model, "1.0.0", 1, "bundle")
    forged = build(gguf_model, "6.6.6", 2, "bundle")
    follow(device, [new, rotate])
    fresh = build(gguf_model, "1.1.0", 3, "bundle-2")
    assert device.installs(fresh) == ""  # the keyring rides along
    assert device.installs(old) == ""  # retired, not revoked
    follow(device, stolen)
    assert device.installs(forged) == "KEY_REVOKED"
    assert device.installs(old) == ""  # named with --good
    assert device.installs(fresh) == ""


def test_device_without_the_parcel_does_not_know(device: Device, gguf_model: Path) -> None:
    old = build(gguf_model, "1.0.0", 1, "bundle")
    forged = build(gguf_model, "6.6.6", 2, "bundle")
    new, rotate, revoke, take = commands("Lost bundle key")
    follow(device, [new, rotate, revoke])
    assert device.installs(forged) == ""
    follow(device, [take])
    assert (device.installs(forged), device.installs(old)) == ("KEY_REVOKED", "")


def test_lost_then_stolen_license_key(device: Device, gguf_model: Path) -> None:
    build(gguf_model, "1.0.0", 1, "bundle")
    good, other = issue("L-1", "license"), issue("L-2", "license")
    new, rotate, revoke = commands("Lost license key")
    follow(device, [new, rotate])
    assert sealpack("license", "show", other) == 0
    follow(device, [revoke])
    assert device.takes("trust/update-2.parcel") == ""
    assert sealpack("license", "show", good) == 0
    assert sealpack("license", "show", other) == 4
    assert device.takes(other) == "KEY_REVOKED"
    assert device.takes(good) == ""
    assert sealpack("license", "show", issue("L-3", "license-2")) == 0
    device.capsys.readouterr()
    assert sealpack("license", "list") == 0
    rows = device.capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["L-1", "L-2", "L-3"]
    assert [row.endswith("its key was revoked") for row in rows] == [False, True, False]


def test_lost_root_key_of_three(device: Device, gguf_model: Path, capsys: Capture) -> None:
    old = build(gguf_model, "1.0.0", 1, "bundle")
    follow(device, commands("One lost root key of three"))
    assert device.installs(old) == ""
    withdraw = ("trust", "revoke", "--license", "L-9", "--root-key", "keys/root-a.pem", "--root-key")
    capsys.readouterr()
    assert sealpack(*withdraw, "keys/root-c.pem") != 0  # the lost key counts for nothing
    assert "TRUST_THRESHOLD" in capsys.readouterr().err
    assert sealpack(*withdraw, "keys/root-d.pem") == 0


def test_below_the_threshold(device: Device, gguf_model: Path, capsys: Capture) -> None:
    before = Path("trust/trust.json").read_bytes()
    _, rotate, revoke, _ = commands("Lost bundle key")
    assert sealpack("key", "new", "keys/bundle-2.pem") == 0
    fresh = build(gguf_model, "1.0.0", 1, "bundle")
    for step in (rotate, revoke, commands("One lost root key of three")[1]):
        alone = [*step[: step.index("--root-key")], "--root-key", "keys/root-a.pem"]
        alone = [keyid("bundle") if word == "BUNDLE_KEYID" else word for word in alone]
        alone = [word.replace("root-d", "root-c") for word in alone]
        capsys.readouterr()
        assert sealpack(*alone) != 0
        assert "TRUST_THRESHOLD" in capsys.readouterr().err
    assert Path("trust/trust.json").read_bytes() == before
    assert device.installs(fresh) == ""  # bundles go on
    assert device.takes(issue("L-1", "license")) == ""

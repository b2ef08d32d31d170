"""An attacker's own root, offered by every way a program can be told something: none is listened to."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import world
from support.acts import refused
from support.site import T0, Site, make_license
from support.world import BundleSpec

from adversarial.tools import dump, members
from sealpack.format import canonical, documents
from sealpack.format.documents import Parcel
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, machine, store
from sealpack.verifier.cli.main import make_cli, run

ROOT = Path(__file__).resolve().parents[2]
SEALPACK = Path(sys.executable).with_name("sealpack")
MALLORY = PrivateKey.from_scalar(0x6666)
NAMES = ("trust.json", "roots.json", "root.json", "sealpack.toml", "config.toml", ".sealpack", "trust.toml")
GUESSED = ("TRUST", "TRUST_FILE", "ROOT", "ROOTS", "ROOTS_FILE", "CONFIG", "HOME", "KEYRING", "STATE_DIR")


def mallorys_trust() -> Trust:
    """A whole trust of the same names and versions, every role in one stranger's hand."""
    entry = world.key_entry(MALLORY, ["bundle", "license", "settlement", "ack", "evidence"])
    lists = members(world.make_revocations())
    return Trust.from_envelopes(
        world.make_root(keys=(MALLORY,)),
        documents.seal("keyring", {"version": 1, "issued_at": T0, "keys": [entry]}, MALLORY),
        documents.seal("revocations", lists, MALLORY),
    )


def roots_file(*trusts: Trust) -> bytes:
    whole = [canonical.loads(trust.to_bytes(), max_bytes=1 << 20) for trust in trusts]
    return canonical.dumps({"schema": anchors.ROOTS_SCHEMA, "roots": whole})


def variables() -> set[str]:
    """Every variable that the sources name, and others that one would try."""
    sources = [p.read_text() for part in ("runtime", "verifier") for p in (ROOT / part / "src").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"SEALPACK_[A-Z0-9_]+", text)}
    assert "SEALPACK_STATE" in named
    # Where the state and its marks lie is for the user to say, and is no root.
    return (named | {f"SEALPACK_{name}" for name in GUESSED}) - {"SEALPACK_MARKS"}


def plant(folder: Path) -> Path:
    """A folder that offers Mallory's root under every name."""
    folder.mkdir(parents=True, exist_ok=True)
    trust = mallorys_trust()
    for name in NAMES:
        (folder / name).write_bytes(roots_file(trust) if name.startswith("roots") else trust.to_bytes())
    (folder / "sealpack.toml").write_text('trust = "trust.json"\nroots = "roots.json"\n')
    return folder


@pytest.fixture
def stage(site: Site, tmp_path: Path) -> Site:
    """A pinned, activated device without Mallory's things: those lie all around it."""
    site.pin()
    site.activate()
    for place in (
        "cwd",
        "cwd/META",
        "home",
        "home/.config/sealpack",
        "home/.local/share/sealpack",
        "xdg/sealpack",
    ):
        plant(tmp_path / place)
    carried = zip(("root.1", "keyring", "revocations"), mallorys_trust().envelopes, strict=True)
    meta = {f"META/trust/{name}.json": envelope.to_bytes() for name, envelope in carried}
    (tmp_path / "cwd" / "evil.sealpack").write_bytes(BundleSpec(key=MALLORY, meta=meta).build())
    free = make_license(license_id="EVIL", seq=9)
    (tmp_path / "cwd" / "evil.license").write_bytes(
        Parcel((*mallorys_trust().envelopes, documents.seal("license", free.to_dict(), MALLORY))).to_bytes()
    )
    return site


ATTACKS = (
    (["install", "evil.sealpack"], 3, ("SIG_KEY_UNKNOWN", "TRUST_CONFLICT")),
    (["activate", "install", "evil.license"], 3, ("LIC_KEY_UNTRUSTED", "TRUST_CONFLICT")),
    (["trust", "pin", "trust.json", "--yes"], 3, ("TRUST_CONFLICT",)),
)


@pytest.mark.parametrize(
    ("arguments", "status", "codes"), ATTACKS, ids=lambda v: v[0] if isinstance(v, list) else ""
)
def test_a_root_in_the_environment_and_in_every_folder(
    stage: Site, tmp_path: Path, arguments: list[str], status: int, codes: tuple[str, ...]
) -> None:
    """The real command, with Mallory's root in every variable, the working folder, home and XDG folders."""
    folder, before = tmp_path / "cwd", dump(stage, clock=False)
    environment = {name: str(folder / "trust.json") for name in variables()}
    environment |= {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"], "TERM": "dumb"}
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_DIRS"):
        environment[name] = str(tmp_path / "xdg")
    command = [str(SEALPACK), *arguments, "--state", str(stage.state_dir)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    assert any(f"error[{code}]" in done.stderr for code in codes), done.stderr
    assert dump(stage, clock=False) == before


OPTIONS = ("--trust", "--root", "--roots", "--config", "--keyring", "--key", "--public-key")
VERBS = (
    ("install", "evil.sealpack"),
    ("activate", "install", "evil.license"),
    ("activate", "request", "--out", "x.request"),
    ("run", "acme/tiny", "--json", "{}"),
    ("status",),
    ("selftest", "acme/tiny"),
    ("sync", "."),
    ("terms", "accept", "acme/tiny"),
    ("receipts", "export", "--out", "."),
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_verb_of_the_runtime_takes_a_root(
    stage: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: tuple[str, ...],
) -> None:
    folder, before = tmp_path / "cwd", dump(stage, clock=False)
    monkeypatch.chdir(folder)
    for option in OPTIONS:
        given = [*verb, option, str(folder / "trust.json"), "--state", str(stage.state_dir)]
        pins = verb[0] == "install" and option == "--trust"  # as `trust pin` does: the first pin has decided
        assert run(make_cli(), given) == (3 if pins else 2), option
        assert ("TRUST_CONFLICT" if pins else "No such option") in capsys.readouterr().err
    assert dump(stage, clock=False) == before


def test_a_second_root_pinned_beside_the_first(stage: Site) -> None:
    before = dump(stage, clock=False)
    with stage.state() as state:
        refused("TRUST_CONFLICT", lambda: anchors.pin(state, mallorys_trust()))
    assert dump(stage, clock=False) == before


# --- a frozen runtime --------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process says that it is a frozen executable in that folder."""
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.setattr(machine, "frozen", lambda: True)
    monkeypatch.setattr(machine, "runtime_digest", lambda: "00" * 32)
    monkeypatch.setattr(sys, "executable", str(folder / "sealpack-runtime"))
    return folder


def test_a_frozen_runtime_takes_no_root_from_anywhere_else(
    stage: Site, tmp_path: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app / "roots.json").write_bytes(roots_file(stage.trust))
    for name in variables() - {"SEALPACK_STATE"}:
        monkeypatch.setenv(name, str(tmp_path / "cwd" / "roots.json"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(sys, "argv", ["sealpack-runtime", "--roots", "roots.json"])
    with stage.state() as state:
        assert [t.root_digest for t in anchors.load(state)] == [stage.trust.root_digest]
        refused("TRUST_CONFLICT", lambda: anchors.pin(state, mallorys_trust()))
        with pytest.raises(Exception, match=r"error\[(SIG_KEY_UNKNOWN|TRUST_CONFLICT)\]"):
            store.install(state, tmp_path / "cwd" / "evil.sealpack", T0)


def test_a_root_written_into_the_state_of_a_frozen_runtime(site: Site, tmp_path: Path, app: Path) -> None:
    """What another program pinned there, or a hand wrote into the database, is not in the roots file."""
    theirs = mallorys_trust()
    (app / "roots.json").write_bytes(roots_file(site.trust))
    with site.state() as state:
        with state.write() as db:
            row = (theirs.root_digest, theirs.to_bytes(), Parcel(theirs.envelopes).to_bytes())
            db.execute("INSERT INTO trust VALUES(?,?,?)", row)
            ours = (site.trust.root_digest, theirs.to_bytes(), Parcel(theirs.envelopes).to_bytes())
            db.execute("INSERT INTO trust VALUES(?,?,?)", ours)
        with pytest.raises(Exception, match=r"error\[TRUST_"):
            anchors.load(state)
        with state.write() as db:
            db.execute("DELETE FROM trust WHERE anchor=?", (site.trust.root_digest,))
        assert [t.root_digest for t in anchors.load(state)] == [site.trust.root_digest]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"roots":[],"schema":"sealpack/roots/v1"}']
)
def test_a_frozen_runtime_with_a_spoilt_roots_file_believes_nobody(
    site: Site, app: Path, content: bytes
) -> None:
    (app / "roots.json").write_bytes(content)
    with site.state() as state, pytest.raises(Exception, match=r"error\[[A-Z_]+\]"):
        anchors.load(state)

"""The project folder, key files and trust: whole or not at all, private keys private."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from builder.conftest import T0, sealpack

from sealpack.builder import config, keyfiles, project
from sealpack.builder.trust_author import PURPOSES, KeyGrant, first_trust
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ED25519, PrivateKey
from sealpack.format.trust import Trust
from sealpack.format.words import fingerprint_words


def test_keys_are_private_and_trust_names_them(home: Path, trust: Trust) -> None:
    for purpose, (scheme, roles) in PURPOSES.items():
        path = home / f"keys/{purpose}.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key = PrivateKey.load(path)
        assert key.scheme == scheme
        entry = trust.keyring.entries[key.keyid]
        assert entry.roles == frozenset(roles)
        assert entry.namespaces == ("acme",)
        assert keyfiles.load_public(home / f"keys/{purpose}.pub.pem").keyid == key.keyid
    assert stat.S_IMODE((home / "keys").stat().st_mode) == 0o700
    assert PrivateKey.load(home / "keys/root.pem").keyid not in trust.keyring.entries
    assert "keys/*.pem" in (home / ".gitignore").read_text()


def test_recovery_sheet_stands_alone_and_holds_no_secret(home: Path, trust: Trust) -> None:
    sheet = (home / "recovery-sheet.html").read_text()
    assert fingerprint_words(trust.root_digest) in sheet
    for path in (home / "keys").glob("*.pub.pem"):
        assert fingerprint_words(keyfiles.load_public(path).keyid) in sheet
    assert "PRIVATE KEY" not in sheet
    assert not re.search(r"(?:src|href)\s*=", sheet)
    assert "$" not in sheet


def test_names_are_escaped_where_they_stand(tmp_path: Path) -> None:
    name = 'A "B" \\ <C> & ${x}'
    folder = project.create(tmp_path / "p", publisher="acme", name=name, now=T0).folder
    assert config.load(folder / "sealpack.toml").sbom.supplier == name
    sheet = (folder / "recovery-sheet.html").read_text()
    assert "&lt;C&gt; &amp;" in sheet
    assert "<C>" not in sheet


@pytest.mark.parametrize("publisher", ["", "Acme", "a_b", "a/b", "-a", "a b", "x" * 64])
def test_bad_publishers_leave_nothing(tmp_path: Path, publisher: str) -> None:
    with pytest.raises(SealpackError) as caught:
        project.create(tmp_path / "p", publisher=publisher, name=None, now=T0)
    assert caught.value.code == "USAGE"
    assert list(tmp_path.iterdir()) == []


def test_existing_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    project.create(tmp_path / "empty", publisher="acme", name=None, now=T0)
    with pytest.raises(SealpackError) as caught:
        project.create(tmp_path / "empty", publisher="acme", name=None, now=T0)
    assert caught.value.code == "OUTPUT_EXISTS"
    (tmp_path / "file").write_text("x")
    with pytest.raises(SealpackError):
        project.create(tmp_path / "file", publisher="acme", name=None, now=T0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


def test_encrypted_keys_need_their_passphrase(tmp_path: Path) -> None:
    folder = project.create(tmp_path / "p", publisher="a", name=None, now=T0, passphrase=b"secret").folder
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(b"secret\n")
    wrong.write_bytes(b"guess\n")
    path = folder / "keys/bundle.pem"
    assert keyfiles.load_private(path, right).scheme == ECDSA
    for attempt in (wrong, None):
        with pytest.raises(SealpackError) as caught:
            keyfiles.load_private(path, attempt)
        assert caught.value.code == "KEY_UNREADABLE"
    assert "are encrypted" in (folder / "recovery-sheet.html").read_text()


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "k.pem"
    assert sealpack("key", "new", path) == 0
    before = path.read_bytes()
    assert sealpack("key", "new", path) == 2
    assert path.read_bytes() == before
    (tmp_path / "k.pem").unlink()
    assert sealpack("key", "new", path) == 2  # the public half is still there
    assert not path.exists()


def test_key_show_and_trust_init(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scheme in (("root", ECDSA), ("bundle", ECDSA), ("settlement", ED25519)):
        assert sealpack("key", "new", tmp_path / f"{name}.pem", "--scheme", scheme) == 0
    capsys.readouterr()
    assert sealpack("key", "show", tmp_path / "bundle.pub.pem") == 0
    public = capsys.readouterr().out
    assert sealpack("key", "show", tmp_path / "bundle.pem") == 0
    assert capsys.readouterr().out == public
    arguments = ["--publisher", "acme", "--root", tmp_path / "root.pem"]
    arguments += ["--bundle", tmp_path / "bundle.pub.pem", "--settlement", tmp_path / "settlement.pub.pem"]
    assert sealpack("trust", "init", tmp_path / "trust.json", *arguments) == 0
    trust = Trust.load((tmp_path / "trust.json").read_bytes())
    assert {r for e in trust.keyring.entries.values() for r in e.roles} == {
        *("bundle", "evidence", "settlement", "ack"),
    }
    assert sealpack("trust", "init", tmp_path / "trust.json", *arguments) == 2


def test_a_threshold_needs_that_many_keys() -> None:
    roots = [PrivateKey.from_scalar(n) for n in (5, 6)]
    grants = [KeyGrant(PrivateKey.from_scalar(7).public, "bundle")]
    trust = first_trust(roots, grants, issuer="a", namespaces=["a"], now=T0, threshold=2)
    assert trust.root.roles["root"][0] == 2
    with pytest.raises(SealpackError):
        first_trust(roots, grants, issuer="a", namespaces=["a"], now=T0, threshold=3)

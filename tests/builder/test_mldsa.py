"""A creator with ML-DSA keys, from the command line: keys, trust file, bundle, license; and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack

from sealpack.builder import keyfiles
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.keys import ECDSA, ED25519, ML_DSA, PrivateKey
from sealpack.format.license import open_license
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle

Capture = pytest.CaptureFixture[str]
KEYS = ("root", "bundle", "license")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has key pairs with ML-DSA keys beside them, and a trust file that lists them."""
    monkeypatch.chdir(tmp_path)
    for name in KEYS:
        pair(name)
    keyfiles.write_pair(Path("settlement.pem"), PrivateKey.generate(ED25519))
    assert init("--mldsa", "--settlement", "settlement.pub.pem") == 0
    return tmp_path


def pair(name: str) -> None:
    path = Path(f"{name}.pem")
    keyfiles.write_with_mldsa(path, PrivateKey.generate(ECDSA), PrivateKey.generate(ML_DSA))


def init(*more: str, out: str = "trust.json") -> int:
    return sealpack(
        "trust", "init", out, "--publisher", "acme", "--root", "root.pem",
        "--bundle", "bundle.pub.pem", "--license", "license.pub.pem", *more,
    )  # fmt: skip


def trust() -> Trust:
    return Trust.load(Path("trust.json").read_bytes())


def change(*arguments: str, root: str = "root.pem") -> int:
    return sealpack("trust", *arguments, "--trust", "trust.json", "--root-key", root)


def build(model: Path, *more: str, out: str = "m.sealpack") -> int:
    Path("LICENSE").write_text("Terms.\n")
    return sealpack(
        "build", model, "--id", "acme/m", "--bundle-version", "1.0.0", "--spdx", "MIT",
        "--license-text", "LICENSE", "--key", "bundle.pem", "--out", out, *more,
    )  # fmt: skip


def public(name: str) -> Any:
    return keyfiles.load_public(Path(f"{name}.pub.pem"))


def error(capsys: Capture) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# --- keys ------------------------------------------------------------------------------------------------


def test_key_new_makes_both_pairs(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pass").write_text("secret\n")
    assert (
        sealpack("key", "new", "k.pem", "--with-mldsa", "--passphrase-file", "pass", "--format", "json") == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["scheme"] == ECDSA and said["mldsa"]["scheme"] == ML_DSA
    names = {"k.pem", "k.pub.pem", "k.mldsa.pem", "k.mldsa.pub.pem"}
    assert {p.name for p in tmp_path.iterdir()} == names | {"pass"}
    for name, facts in (("k", said), ("k.mldsa", said["mldsa"])):
        assert public(name).keyid == facts["keyid"]
        assert PrivateKey.load(f"{name}.pem", b"secret").keyid == facts["keyid"]
        assert Path(f"{name}.pem").stat().st_mode & 0o777 == 0o600
    assert sealpack("key", "new", "s.pem", "--scheme", "ml-dsa-65") == 0
    assert public("s").scheme == ML_DSA
    capsys.readouterr()
    assert sealpack("key", "show", "k.mldsa.pub.pem") == 0
    assert said["mldsa"]["words"] in capsys.readouterr().out


@pytest.mark.parametrize("taken", ["k.pem", "k.pub.pem", "k.mldsa.pem", "k.mldsa.pub.pem"])
def test_key_new_leaves_nothing_when_a_name_is_taken(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(taken).write_text("mine")
    assert sealpack("key", "new", "k.pem", "--with-mldsa") == 2
    assert [p.name for p in tmp_path.iterdir()] == [taken] and Path(taken).read_text() == "mine"
    assert sealpack("key", "new", "e.pem", "--scheme", "ed25519", "--with-mldsa") == 2
    assert [p.name for p in tmp_path.iterdir()] == [taken]


# --- the trust file --------------------------------------------------------------------------------------


def test_the_first_trust_file_lists_both_keys(project: Path) -> None:
    made = trust()
    for name in ("bundle", "license"):
        entry = made.keyring.entries[public(name).keyid]
        assert entry.mldsa == public(f"{name}.mldsa") and entry.schemes == {ECDSA, ML_DSA}
        assert entry.since == made.keyring.issued_at
    settlement = made.keyring.entries[public("settlement").keyid]
    assert settlement.mldsa is None and settlement.schemes == {ED25519}
    assert made.root.mldsa == {public("root").keyid: public("root.mldsa")}
    assert all(made.root.post_quantum(role) for role in ("root", "keyring", "revocations"))


def test_without_the_ml_dsa_files_there_is_no_trust_file(project: Path) -> None:
    for name in ("bundle.mldsa.pub.pem", "root.mldsa.pem"):
        hidden = Path(name).rename("hidden")
        assert init("--mldsa", out="second.json") in (1, 2)
        assert not Path("second.json").exists()
        hidden.rename(name)
    Path("bundle.mldsa.pub.pem").write_bytes(Path("license.pub.pem").read_bytes())
    assert init("--mldsa", out="second.json") == 2
    assert not Path("second.json").exists()


def test_add_and_rotate_with_pairs(project: Path, capsys: Capture) -> None:
    pair("second")
    assert change("add", "--key", "second.pub.pem", "--role", "bundle", "--mldsa") == 0
    entry = trust().keyring.entries[public("second").keyid]
    assert entry.mldsa == public("second.mldsa") and entry.since == trust().keyring.issued_at
    pair("third")
    rotate = ("rotate", "--key", public("bundle").keyid, "--with", "third.pub.pem")
    capsys.readouterr()
    assert change(*rotate, "--format", "json") == 2
    assert "--mldsa" in error(capsys)["remedy"]
    assert change(*rotate, "--mldsa") == 0
    old, new = (trust().keyring.entries[public(name).keyid] for name in ("bundle", "third"))
    assert (old.status, old.mldsa) == ("retired", public("bundle.mldsa"))
    assert (new.status, new.mldsa, new.roles) == ("active", public("third.mldsa"), old.roles)
    Path("third.mldsa.pub.pem").rename("fourth.mldsa.pub.pem")  # an ML-DSA key that is listed already
    keyfiles.write_pair(Path("fourth.pem"), PrivateKey.generate(ECDSA))
    assert change("add", "--key", "fourth.pub.pem", "--role", "bundle", "--mldsa") == 2
    keyfiles.write_pair(Path("ed.pem"), PrivateKey.generate(ED25519))
    keyfiles.write_pair(Path("ed.mldsa.pem"), PrivateKey.generate(ML_DSA))
    assert change("add", "--key", "ed.pub.pem", "--role", "ack", "--mldsa") == 2


def test_the_root_changes_only_with_both_keys(project: Path, capsys: Capture) -> None:
    floor = ("revoke", "--floor", "acme/m=2", "--format", "json")
    hidden = Path("root.mldsa.pem").rename("elsewhere.pem")
    before = Path("trust.json").read_bytes()
    capsys.readouterr()
    assert change(*floor) == 3
    assert error(capsys)["code"] == "TRUST_THRESHOLD" and Path("trust.json").read_bytes() == before
    assert change(*floor, "--root-key", "elsewhere.pem") == 0
    hidden.rename("root.mldsa.pem")
    pair("root2")
    assert change("rotate", "--new-root", "root2.pem") == 2  # a step back to ECDSA alone
    assert change("rotate", "--new-root", "root2.pem", "--mldsa") == 0
    assert trust().root.mldsa == {public("root2").keyid: public("root2.mldsa")}
    assert change("revoke", "--floor", "acme/m=3", root="root2.pem") == 0
    assert (trust().root.version, trust().revocations.floors) == (2, {"acme/m": 3})


def test_a_plain_root_becomes_a_pair(project: Path) -> None:
    Path("trust.json").unlink()
    assert init() == 0 and trust().root.mldsa == {}
    old = Path("trust.json").read_bytes()
    pair("root2")
    assert change("rotate", "--new-root", "root2.pem", "--mldsa") == 0
    assert trust().root.post_quantum("keyring")
    steps = Parcel.from_bytes(Path("update-2.parcel").read_bytes()).documents
    assert Trust.load(old).update(steps) == trust()


# --- bundles and licenses ----------------------------------------------------------------------------------


def test_a_bundle_with_both_signatures(project: Path, gguf_model: Path) -> None:
    assert build(gguf_model, "--trust", "trust.json") == 0
    report, found = inspect_bundle("m.sealpack", trust())
    assert report.ok and found is not None, report.failures
    assert found.statement.required_schemes == (ECDSA, ML_DSA)
    assert report.facts["post_quantum"] == dict.fromkeys(("bundle", "root", "keyring", "revocations"), True)
    with BundleReader.open("m.sealpack") as bundle:
        sbom = json.loads(bundle.read("sbom.cdx.json"))
    assets = {c["bom-ref"]: c for c in sbom["components"] if c["type"] == "cryptographic-asset"}
    assert (
        assets["crypto:ml-dsa-65"]["cryptoProperties"]["algorithmProperties"]["nistQuantumSecurityLevel"] == 3
    )
    assert {f"key:{public(n).keyid}" for n in ("bundle", "bundle.mldsa")} <= set(assets)
    assert build(gguf_model, "--mldsa-key", "bundle.mldsa.pem", out="free.sealpack") == 0
    report, _ = inspect_bundle("free.sealpack", key=public("bundle"), mldsa_key=public("bundle.mldsa"))
    assert report.ok


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        ("license.mldsa.pem", 3, "SIG_KEY_UNKNOWN"),
        ("license.pem", 2, "KEY_UNREADABLE"),
        ("none.pem", 2, "KEY_UNREADABLE"),
        (None, 3, "SIG_SCHEME"),
    ],
)
def test_keys_a_bundle_is_not_signed_with(
    key: str | None, status: int, code: str, project: Path, gguf_model: Path, capsys: Capture
) -> None:
    Path("bundle.mldsa.pem").rename("hidden.pem")
    more = () if key is None else ("--mldsa-key", key)
    capsys.readouterr()
    assert build(gguf_model, "--trust", "trust.json", "--format", "json", *more) == status
    assert error(capsys)["code"] == code
    assert not Path("m.sealpack").exists()


def test_a_key_that_lies_there_is_not_used_unless_the_keyring_lists_it(
    project: Path, gguf_model: Path, capsys: Capture
) -> None:
    Path("trust.json").unlink()
    assert init() == 0
    assert build(gguf_model, "--trust", "trust.json") == 0
    report, _ = inspect_bundle("m.sealpack", trust())
    assert report.ok and not report.facts["post_quantum"]["bundle"]
    assert (
        build(gguf_model, "--trust", "trust.json", "--mldsa-key", "bundle.mldsa.pem", out="n.sealpack") == 3
    )
    assert not Path("n.sealpack").exists()


def test_a_license_with_both_signatures(project: Path, gguf_model: Path, capsys: Capture) -> None:
    assert build(gguf_model, "--trust", "trust.json") == 0
    issue = (
        "license", "issue", "--preset", "academic", "--bundle", "m.sealpack", "--customer", "Lab",
        "--trust", "trust.json", "--registry", "registry.jsonl", "--key", "license.pem", "--format", "json",
    )  # fmt: skip
    assert sealpack(*issue, "--out", "a.license") == 0
    (license,) = Parcel.from_bytes(Path("a.license").read_bytes()).of_kind("license")
    assert {s.keyid for s in license.signatures} == {public(n).keyid for n in ("license", "license.mldsa")}
    assert open_license(license, trust()).customer.name == "Lab"
    registry = Path("registry.jsonl").read_bytes()
    Path("license.mldsa.pem").rename("hidden.pem")
    capsys.readouterr()
    assert sealpack(*issue, "--out", "b.license") == 3
    assert error(capsys)["code"] == "SIG_SCHEME"
    assert not Path("b.license").exists() and Path("registry.jsonl").read_bytes() == registry
    assert sealpack(*issue, "--out", "b.license", "--mldsa-key", "hidden.pem") == 0

"""Keys on a PKCS#11 token: SoftHSM2 stands in for the hardware."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack

from sealpack.builder import config, keyfiles, token
from sealpack.builder.key_uri import KeyUri
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, PrivateKey, PublicKey
from sealpack.format.trust import Trust

MODULES = (Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/usr/lib64/pkcs11/libsofthsm2.so"))
PIN = "271828"
Capture = pytest.CaptureFixture[str]

needs_softhsm = pytest.mark.skipif(shutil.which("softhsm2-util") is None, reason="needs the package softhsm2")


def init_token(label: str, pin: str = PIN) -> None:
    command = [
        "softhsm2-util",
        "--init-token",
        "--free",
        "--label",
        label,
        "--so-pin",
        "31415926",
        "--pin",
        pin,
    ]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a SoftHSM2 with one token `acme`; the working directory is empty."""
    pytest.importorskip("pkcs11")
    folder, work = tmp_path / "tokens", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {folder}\n")
    module = str(next(path for path in MODULES if path.exists()))
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm2.conf"))
    monkeypatch.setenv("SEALPACK_PKCS11_MODULE", module)
    monkeypatch.setenv("SEALPACK_PIN", PIN)
    monkeypatch.chdir(work)
    init_token("acme")
    yield folder
    log_out()  # the next test has another configuration


def log_out() -> None:
    """As when a process ends; the next one sees the tokens anew."""
    import pkcs11

    pkcs11.lib(os.environ["SEALPACK_PKCS11_MODULE"]).finalize()


def uri(label: str, **more: str) -> str:
    return "pkcs11:" + ";".join(f"{k}={v}" for k, v in ({"token": "acme", "object": label} | more).items())


def new(label: str) -> PublicKey:
    assert sealpack("key", "new", f"{label}.pub.pem", "--token", uri(label)) == 0
    return keyfiles.load_public(f"{label}.pub.pem")


def code_of(text: str) -> str:
    with pytest.raises(SealpackError) as caught:
        keyfiles.load_signer(text)
    assert PIN not in str(caught.value)
    return caught.value.code


def session() -> Any:
    import pkcs11

    log_out()
    found = pkcs11.lib(os.environ["SEALPACK_PKCS11_MODULE"]).get_token(token_label="acme")
    return found.open(rw=True, user_pin=PIN)


@needs_softhsm
def test_keys_on_a_token_sign_trust_bundle_and_license(hsm: Path, onnx_model: Path, capsys: Capture) -> None:
    for name in ("root", "bundle", "license"):
        new(name)
    trust = ["--trust", "trust.json"]
    listed = ["--bundle", "bundle.pub.pem", "--license", uri("license")]
    assert sealpack("trust", "init", "trust.json", "--publisher", "acme", "--root", uri("root"), *listed) == 0
    named = [
        "--id",
        "acme/net",
        "--bundle-version",
        "1.0.0",
        "--spdx",
        "Apache-2.0",
        "--signed-at",
        "1790000000",
    ]
    Path("LICENSE").write_text("You may.\n")
    named += ["--license-text", "LICENSE"]
    for out in ("a.sealpack", "b.sealpack"):
        made = sealpack("build", onnx_model, *named, "--key", uri("bundle"), *trust, "--out", out)
        assert made == 0, capsys.readouterr().err
        assert sealpack("verify", out, *trust) == 0
    with zipfile.ZipFile("a.sealpack") as a, zipfile.ZipFile("b.sealpack") as b:
        assert a.read("META/model.sig") != b.read("META/model.sig")  # random nonces, as specs/keys.md says
        a.extractall("d")
    tool = [Path(sys.executable).with_name("model_signing"), "verify", "key", "d", "--no-ignore-git-paths"]
    tool += ["--signature", "d/META/model.sig", "--public_key", "bundle.pub.pem"]
    found = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    offer = [
        "--preset",
        "free_dev",
        "--customer",
        "Customer",
        "--bundle",
        "a.sealpack",
        "--key",
        uri("license"),
    ]
    issued = sealpack("license", "issue", *offer, *trust, "--registry", "r.jsonl", "--out", "c.license")
    assert issued == 0, capsys.readouterr().err
    assert sealpack("license", "show", "c.license", *trust) == 0


@needs_softhsm
def test_trust_changes_with_root_keys_on_tokens(hsm: Path) -> None:
    for name in ("root", "bundle", "next", "root2"):
        new(name)
    first = ["--publisher", "acme", "--root", uri("root"), "--bundle", "bundle.pub.pem"]
    assert sealpack("trust", "init", "trust.json", *first) == 0
    root = ["--root-key", uri("root"), "--trust", "trust.json"]
    assert sealpack("trust", "add", "--key", uri("next"), "--role", "bundle", *root) == 0
    retired = keyfiles.load_public("bundle.pub.pem").keyid
    assert sealpack("trust", "revoke", "--key", retired, *root) == 0
    # Both keys of one token are used at once: the second finds the user logged in.
    assert sealpack("trust", "rotate", "--new-root", uri("root2"), *root) == 0
    after = Trust.load(Path("trust.json").read_bytes())
    assert (after.root.version, after.keyring.version) == (2, 3)
    assert set(after.root.roles["root"][1]) == {keyfiles.load_public("root2.pub.pem").keyid}
    # No ML-DSA key stands beside a key on a token.
    assert sealpack("trust", "init", "t.json", *first[:4], "--mldsa") == 2
    assert not Path("t.json").exists()


@needs_softhsm
def test_new_key_stays_on_the_token_and_replaces_nothing(hsm: Path, capsys: Capture) -> None:
    import pkcs11

    made = new("one")
    key = session().get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label="one")
    assert key[pkcs11.Attribute.SENSITIVE] and not key[pkcs11.Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.AttributeSensitive):
        key[pkcs11.Attribute.VALUE]
    capsys.readouterr()
    assert sealpack("key", "show", uri("one"), "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["pem"] == made.pem
    assert sealpack("key", "new", "other.pub.pem", "--token", uri("one")) == 2
    assert "OUTPUT_EXISTS" in capsys.readouterr().err and not Path("other.pub.pem").exists()
    assert sealpack("key", "new", "one.pub.pem", "--token", uri("two")) == 2
    assert sealpack("key", "new", "no/folder.pub.pem", "--token", uri("two")) != 0
    assert code_of(uri("two")) == "KEY_TOKEN_OBJECT"  # nothing is left on the token either
    assert sealpack("key", "new", "x.pub.pem", "--token", "pkcs11:token=acme") == 2
    for more in (["--scheme", "ml-dsa-65"], ["--with-mldsa"], ["--encrypt"]):
        assert sealpack("key", "new", "x.pub.pem", "--token", uri("two"), *more) == 2


@needs_softhsm
def test_tokens_and_keys_that_do_not_fit(hsm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pkcs11 import Attribute, KeyType
    from pkcs11.util.ec import encode_named_curve_parameters

    new("one")
    new("two")
    assert code_of("pkcs11:token=none;object=one") == "KEY_TOKEN_MISSING"
    assert code_of(uri("one", serial="0")) == "KEY_TOKEN_MISSING"
    assert code_of("pkcs11:token=acme") == "KEY_TOKEN_AMBIGUOUS"
    with pytest.raises(SealpackError, match="2 keys fit"):
        keyfiles.load_public("pkcs11:token=acme")
    assert code_of(uri("three")) == "KEY_TOKEN_OBJECT"
    with pytest.raises(SealpackError, match="no key that fits"):
        keyfiles.load_public(uri("three"))
    with session() as opened:
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp384r1")}
        wide = opened.create_domain_parameters(KeyType.EC, curve, local=True)
        wide.generate_keypair(store=True, label="wide", id=b"w")
        opened.generate_keypair(KeyType.RSA, 2048, store=True, label="rsa", id=b"r")
        p256 = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        mute = opened.create_domain_parameters(KeyType.EC, p256, local=True)
        mute.generate_keypair(store=True, label="mute", id=b"m", private_template={Attribute.SIGN: False})
        public, _ = mute.generate_keypair(store=True, label="half", id=b"h")
        public.destroy()
    for label in ("wide", "rsa", "mute"):
        assert code_of(uri(label)) == "KEY_TOKEN_KIND"
    assert code_of(uri("half")) == "KEY_TOKEN_OBJECT"
    init_token("acme")
    log_out()
    assert code_of(uri("one")) == "KEY_TOKEN_AMBIGUOUS"


@needs_softhsm
def test_pin_wrong_missing_and_from_a_file(hsm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new("one")
    log_out()
    monkeypatch.setenv("SEALPACK_PIN", "000000")
    assert code_of(uri("one")) == "KEY_TOKEN_PIN"
    Path("pin").write_text(PIN + "\n")
    from_file = f"{uri('one')}?pin-source=file:{Path('pin').absolute()}"  # stands before the variable
    signer = keyfiles.load_signer(from_file)
    assert (signer.keyid, signer.scheme) == (key.keyid, ECDSA)
    key.verify(signer.sign(b"message"), b"message")
    monkeypatch.delenv("SEALPACK_PIN")
    monkeypatch.setattr(sys, "stdin", None)
    assert code_of(uri("one")) == "KEY_TOKEN_PIN"  # no terminal to ask at
    Path("pin").write_bytes(b"\xff\n")
    assert code_of(from_file) == "KEY_TOKEN_PIN"
    Path("pin").unlink()
    assert code_of(from_file) == "FILE_MISSING"


@needs_softhsm
def test_pin_is_locked(hsm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SoftHSM2 never locks: the flag and the refusal of a token that does are put in its place."""
    import pkcs11

    new("one")
    real = token._token(KeyUri.parse(uri("one")))

    class Locked:
        flags = real.flags | pkcs11.TokenFlag.USER_PIN_LOCKED

    monkeypatch.setattr(token, "_token", lambda uri: Locked())
    assert code_of(uri("one")) == "KEY_TOKEN_LOCKED"

    class Locking:
        flags = real.flags

        def open(self, **options: Any) -> None:
            raise pkcs11.PinLocked

    monkeypatch.setattr(token, "_token", lambda uri: Locking())
    assert code_of(uri("one")) == "KEY_TOKEN_LOCKED"


@needs_softhsm
def test_token_removed_in_between_leaves_nothing(
    hsm: Path, onnx_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    new("root")
    signer = keyfiles.load_signer(uri("root"))
    shutil.rmtree(hsm)
    hsm.mkdir()
    with pytest.raises(SealpackError) as caught:
        signer.sign(b"message")
    assert caught.value.code == "KEY_TOKEN_FAILED"
    monkeypatch.setattr(keyfiles, "load_signer", lambda *_: signer)
    made = sealpack("trust", "init", "t.json", "--publisher", "acme", "--root", uri("root"))
    assert made == 1 and "KEY_TOKEN_FAILED" in capsys.readouterr().err
    assert not Path("t.json").exists()


class Faulty:
    """A key object that answers with fixed bytes."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def sign(self, data: bytes, **options: Any) -> bytes:
        assert len(data) == 32
        return self.answer


@pytest.mark.parametrize("answer", [b"", bytes(64), b"\x01" * 64, b"\x01" * 72], ids=len)
def test_faulty_token_is_found_before_anything_is_written(answer: bytes) -> None:
    pytest.importorskip("pkcs11")
    public = PrivateKey.from_scalar(0x1002).public
    with pytest.raises(SealpackError) as caught:
        token.TokenKey(public, KeyUri(object="x"), Faulty(answer), None).sign(b"message")
    assert caught.value.code == "KEY_TOKEN_FAULTY"


def test_module_and_library_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no.so").write_bytes(b"no library")
    for path in (tmp_path / "none.so", tmp_path / "no.so"):
        assert code_of(f"pkcs11:object=x?module-path={path}") == "KEY_TOKEN_MODULE"
    assert code_of("pkcs11:object=x") == "KEY_TOKEN_MODULE"
    monkeypatch.setenv("SEALPACK_PKCS11_MODULE", "relative.so")
    assert code_of("pkcs11:object=x") == "KEY_TOKEN_MODULE"
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    assert code_of("pkcs11:object=x") == "EXTRA_MISSING"


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:object=x?pin-value=271828",
        "pkcs11:pin-value=271828",
        "pkcs11:object=a b",
        "pkcs11:object=%2",
        "pkcs11:object=%ff",
        "pkcs11:object=",
        "pkcs11:object",
        "pkcs11:object=x;object=y",
        "pkcs11:colour=red",
        "pkcs11:type=public",
        "pkcs11:object=x?module-path=relative.so",
        "pkcs11:object=x?pin-source=%7Ccommand",
        "PKCS11:object=x",
        "pkcs11:object=" + "x" * 5000,
    ],
)
def test_uris_that_are_refused(text: str) -> None:
    assert code_of(text) == "KEY_URI"


def test_uri_is_read_and_written() -> None:
    read = KeyUri.parse(
        "pkcs11:token=My%20Token;id=%01%ab;type=private?module-path=/m.so&pin-source=file:///p"
    )
    assert read == KeyUri(token="My Token", id=b"\x01\xab", module_path=Path("/m.so"), pin_source=Path("/p"))
    assert str(read) == "pkcs11:token=My%20Token;id=%01%AB"


def test_project_file_names_a_key_but_no_module(home: Path) -> None:
    path = home / config.CONFIG_NAME
    text = path.read_text()
    key = 'bundle = "pkcs11:token=acme;object=bundle'
    before = 'bundle = "keys/bundle.pem"'
    assert before in text
    path.write_text(text.replace(before, key + '"'))
    assert config.load(path).keys.bundle == "pkcs11:token=acme;object=bundle"
    for ending in ("?module-path=/tmp/evil.so", "?pin-value=1"):
        path.write_text(text.replace(before, f'{key}{ending}"'))
        with pytest.raises(SealpackError) as caught:
            config.load(path)
        assert caught.value.code == "CONFIG_INVALID" and "keys.bundle" in caught.value.message

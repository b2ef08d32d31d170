"""A bundle is accepted by tools we did not write: zip tools, model_signing, openssl with sha256sum."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import world
from support.mldsa import CREATOR_MLDSA, STRANGER_MLDSA, MldsaKey
from support.world import BundleSpec

from sealpack.format import statement
from sealpack.format.keys import ML_DSA, PrivateKey

MODEL_SIGNING = Path(sys.executable).with_name("model_signing")


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module", params=[None, CREATOR_MLDSA], ids=["plain", "hybrid"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two payload files, the second behind a pad or a long extra field, metadata in folders.

    Once with one signature, once with an ML-DSA signature beside it.
    """
    extra = {
        "license/LICENSE.txt": ("license-text", "text/plain", b"Test license.\n"),
        "payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n[UNK]\n"),
    }
    path = tmp_path_factory.mktemp("outside") / "tiny.sealpack"
    path.write_bytes(BundleSpec(extra=extra, mldsa_key=request.param).build())
    return path


@pytest.fixture()
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "d"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


# --- zip tools ------------------------------------------------------------------------------------------


def test_zipfile_reads_it(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as archive:
        assert archive.testzip() is None
        assert archive.read("mimetype") == b"application/vnd.sealpack.bundle+zip"
        assert archive.infolist()[0].filename == "mimetype"
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_unzip_and_zip_find_no_fault(bundle: Path, tmp_path: Path) -> None:
    assert run(tool("unzip"), "-tq", str(bundle)).returncode == 0
    copy = tmp_path / "copy.zip"  # zip wants a name with a suffix it knows
    shutil.copy(bundle, copy)
    assert run(tool("zip"), "-T", str(copy)).returncode == 0


@pytest.mark.parametrize("size", [0, 1, 63, 200, 65_400, 65_530])
def test_unzip_accepts_every_alignment(size: int, tmp_path: Path) -> None:
    """Card sizes around the residues where a pad is needed; the container tests say which need one."""
    path = tmp_path / "a.zip"
    card = {"card2.md": ("card", "text/markdown", bytes(size))}
    path.write_bytes(BundleSpec(extra=card).build())
    assert run(tool("unzip"), "-tq", str(path)).returncode == 0


# --- model_signing --------------------------------------------------------------------------------------


def model_signing(folder: Path) -> subprocess.CompletedProcess[str]:
    key = folder.parent / "creator.pub.pem"
    key.write_text(world.CREATOR.public.pem)
    return run(
        str(MODEL_SIGNING),
        "verify",
        "key",
        str(folder),
        "--signature",
        str(folder / "META/model.sig"),
        "--public_key",
        str(key),
        "--no-ignore-git-paths",
    )


def test_model_signing_accepts_the_unpacked_bundle(unpacked: Path) -> None:
    done = model_signing(unpacked)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (d / "card.md").write_text("# Other\n"),
        lambda d: (d / "card.md").unlink(),
        lambda d: (d / "extra.md").write_text("x"),
        lambda d: (d / "payload/vocab.txt").write_bytes(b""),
    ],
    ids=["changed", "removed", "added", "emptied"],
)
def test_model_signing_refuses_what_we_refuse(unpacked: Path, change: object) -> None:
    change(unpacked)  # type: ignore[operator]
    assert model_signing(unpacked).returncode != 0


# --- openssl and sha256sum ------------------------------------------------------------------------------


def openssl_route(folder: Path, key: str) -> tuple[int, int]:
    """Exit statuses of the signature check and of the digest check, as specs/signature.md describes."""
    work = folder.parent
    envelope = json.loads((folder / "META/model.sig").read_bytes())["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    (work / "pae").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
    (work / "sig.der").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (work / "key.pem").write_text(key)
    signed = run(
        tool("openssl"), "dgst", "-sha256", "-verify", "key.pem", "-signature", "sig.der", "pae", cwd=work
    )
    resources = json.loads(payload)["predicate"]["resources"]
    (work / "sums").write_text("".join(f"{r['digest']}  {r['name']}\n" for r in resources))
    digests = run(tool("sha256sum"), "--strict", "--quiet", "-c", str(work / "sums"), cwd=folder)
    return signed.returncode, digests.returncode


def test_openssl_and_sha256sum_accept_the_unpacked_bundle(unpacked: Path) -> None:
    assert openssl_route(unpacked, world.CREATOR.public.pem) == (0, 0)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """A folder with what an outside tool needs for the ML-DSA signature: `pae` and the signature."""
    spec = BundleSpec(mldsa_key=PrivateKey.from_seed(CREATOR_MLDSA.seed, ML_DSA))  # signs as the builder does
    signature = spec.sign(spec.members())
    (tmp_path / "pae").write_bytes(statement.read_signature(signature).signed_bytes)
    (tmp_path / "model.mldsa65.sig").write_bytes(statement.sign_mldsa(signature, spec.mldsa_key))
    return tmp_path


@pytest.mark.parametrize("key", [CREATOR_MLDSA, STRANGER_MLDSA], ids=["creator", "stranger"])
def test_dilithium_py_checks_the_ml_dsa_signature(key: MldsaKey, second: Path) -> None:
    signature, message = (second / "model.mldsa65.sig").read_bytes(), (second / "pae").read_bytes()
    assert key.verifies(signature, message) is (key is CREATOR_MLDSA)


if (
    shutil.which("openssl") and "ML-DSA-65" in run("openssl", "list", "-signature-algorithms").stdout
):  # OpenSSL 3.5 and newer

    @pytest.mark.parametrize("key", [CREATOR_MLDSA, STRANGER_MLDSA], ids=["creator", "stranger"])
    def test_openssl_checks_the_ml_dsa_signature(key: MldsaKey, second: Path) -> None:
        """As specs/signature.md describes."""
        (second / "key.pem").write_text(key.public.pem)
        done = run(
            tool("openssl"), "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem",
            "-rawin", "-in", "pae", "-sigfile", "model.mldsa65.sig", cwd=second,
        )  # fmt: skip
        assert (done.returncode == 0) is (key is CREATOR_MLDSA), done.stderr


def test_openssl_and_sha256sum_refuse_another_key_and_another_file(unpacked: Path) -> None:
    assert openssl_route(unpacked, world.STRANGER.public.pem)[0] != 0
    (unpacked / "card.md").write_text("# Other\n")
    assert openssl_route(unpacked, world.CREATOR.public.pem)[1] != 0


def test_dd_and_sha256sum_reproduce_a_leaf(unpacked: Path) -> None:
    """specs/chunks.md: leaf 0 of the first payload file."""
    done = run(tool("sh"), "-c", "dd if=payload/model.gguf bs=1M count=1 | sha256sum", cwd=unpacked)
    table = (unpacked / "chunks/0.sha256c").read_bytes()
    assert done.stdout.split()[0] == table[:32].hex()

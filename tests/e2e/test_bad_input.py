"""Bad input to any verb: its code, its exit status, one sentence, and nothing left half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.conftest import SEALPACK, Run


@dataclass(frozen=True)
class World:
    """A vendor's project, a built bundle, an activated customer."""

    folder: Path
    sealpack: Run

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def trust(self) -> Path:
        return self.project / "trust" / "trust.json"

    @property
    def bundle(self) -> Path:
        return self.folder / "words.sealpack"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.project / "sealpack.toml"

    def good(self, *arguments: object) -> str:
        done = self.sealpack(*arguments, state=self.state)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def world(sealpack: Run, tmp_path_factory: pytest.TempPathFactory) -> World:
    from sealpack.builder.demo import models

    w = World(tmp_path_factory.mktemp("world"), sealpack)
    w.good("init", w.project, "--publisher", "acme")
    text = w.config.read_text().replace("[io] ", '[io]\ntask = "text-generation"\n#')
    w.config.write_text(text.replace("acme/my-model", "acme/words"))
    w.good("build", models.tinylm_path(), "--config", w.config, "--out", w.bundle)
    w.good("trust", "pin", w.trust, "--yes")
    w.good("install", w.bundle)
    w.good("activate", "request", "--out", w.folder / "d.request")
    w.good("license", "issue", "--project", w.project, "--preset", "pro", "--customer", "C", "--customer-id",
           "c", "--license-id", "l1", "--until", "2099-01-01", "--bundle", w.bundle, "--request",
           w.folder / "d.request", "--out", w.folder / "l1.license")  # fmt: skip
    w.good("activate", "install", w.folder / "l1.license")
    w.good("run", "acme/words", "--prompt", "A", "--max-tokens", "1")
    w.good("receipts", "export", "--out", w.folder)
    return w


def refused(done: subprocess.CompletedProcess[str], code: str, status: int) -> None:
    """One sentence with the code, the exit status of its row, and no traceback."""
    assert f"error[{code}]" in done.stderr, done.stderr + done.stdout
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "; next: " in done.stderr or done.stdout.startswith("FAIL")


@contextmanager
def nothing_left_in(folder: Path) -> Iterator[Path]:
    before = sorted(folder.rglob("*"))
    yield folder
    assert sorted(folder.rglob("*")) == before


BUILD = {
    "missing": (None, "MODEL_MISSING", 2),
    "empty": (b"", "MODEL_UNKNOWN", 2),
    "a text": (b"hello, this is a text\n" * 50, "MODEL_UNKNOWN", 2),
    "a pickle": (b"\x80\x02}q\x00." * 20, "MODEL_UNKNOWN", 2),
    "truncated": ("half", "MODEL_TRUNCATED", 3),
}


@pytest.mark.parametrize("case", BUILD)
def test_build_refuses_what_is_no_model(world: World, case: str, tmp_path: Path) -> None:
    from sealpack.builder.demo import models

    content, code, status = BUILD[case]
    model = tmp_path / "model.gguf"
    if content == "half":
        data = models.tinylm_path().read_bytes()
        model.write_bytes(data[: len(data) // 2])
    elif isinstance(content, bytes):
        model.write_bytes(content)
    out = tmp_path / "out"
    out.mkdir()
    with nothing_left_in(out):
        done = world.sealpack("build", model, "--config", world.config, "--out", out / "x.sealpack")
    refused(done, code, status)


def test_build_refuses_a_wrong_key(world: World, tmp_path: Path) -> None:
    from sealpack.builder.demo import models

    bad = tmp_path / "bad.pem"
    bad.write_text("not a key")
    arguments = ["build", models.tinylm_path(), "--config", world.config, "--out", tmp_path / "x.sealpack"]
    with nothing_left_in(tmp_path):
        refused(world.sealpack(*arguments, "--key", bad), "KEY_UNREADABLE", 2)


def test_a_bundle_by_another_key_is_refused(world: World, tmp_path: Path) -> None:
    stranger = world.sealpack("init", tmp_path / "p", "--publisher", "acme")
    assert stranger.returncode == 0
    done = world.sealpack("verify", world.bundle, "--trust", tmp_path / "p" / "trust" / "trust.json")
    assert done.returncode == 3
    assert "error[" in done.stderr


def test_an_unsigned_bundle_is_refused(world: World, tmp_path: Path) -> None:
    from support.world import BundleSpec, pack

    from sealpack.format.container import MIMETYPE

    path = tmp_path / "u.sealpack"
    path.write_bytes(pack({"mimetype": MIMETYPE, **BundleSpec().members()}))
    done = world.sealpack("verify", path, "--trust", world.trust)
    assert done.returncode == 3
    assert "error[SIG_MISSING]" in done.stderr
    with nothing_left_in(world.state / "store"):
        refused(world.sealpack("install", path, state=world.state), "SIG_MISSING", 3)


def test_a_plain_zip_is_refused(world: World, tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "z.sealpack"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", "{}")
    done = world.sealpack("verify", path, "--trust", world.trust, "--format", "json")
    assert done.returncode == 3
    assert json.loads(done.stdout)["checks"][0]["code"].startswith("CONTAINER_")


def test_an_edited_license_is_refused(world: World, tmp_path: Path) -> None:
    from sealpack.format.documents import Parcel
    from sealpack.format.dsse import Envelope

    parcel = Parcel.from_bytes((world.folder / "l1.license").read_bytes())
    edited = tuple(
        Envelope(e.payload_type, e.payload.replace(b'"tier":"pro"', b'"tier":"enterprise"'), e.signatures)
        for e in parcel.documents
    )
    path = tmp_path / "edited.license"
    path.write_bytes(Parcel(edited).to_bytes())
    refused(world.sealpack("activate", "install", path, state=world.state), "LIC_SIG_INVALID", 3)


def test_no_license_is_said(world: World, tmp_path: Path) -> None:
    state = tmp_path / "fresh"
    for arguments in (["trust", "pin", world.trust, "--yes"], ["install", world.bundle]):
        assert world.sealpack(*arguments, state=state).returncode == 0
    done = world.sealpack("run", "acme/words", "--prompt", "A", state=state)
    refused(done, "LIC_MISSING", 4)


def test_a_bundle_that_is_not_installed_is_said(world: World) -> None:
    done = world.sealpack("run", "acme/other", "--prompt", "A", state=world.state)
    refused(done, "NOT_INSTALLED", 4)


def test_no_trust_is_said(world: World, tmp_path: Path) -> None:
    done = world.sealpack("install", world.bundle, state=tmp_path / "s")
    refused(done, "TRUST_UNPINNED", 4)


def _usage(world: World) -> Path:
    return next(world.folder.glob("*.usage.gz"))


def test_settlement_refuses_noise_and_keeps_it(world: World, tmp_path: Path) -> None:
    noise = tmp_path / "noise.gz"
    noise.write_bytes(b"\x1f\x8b" + bytes(100))
    database = tmp_path / "s.db"
    assert world.sealpack("settle", "--db", database, "import", world.trust).returncode == 0
    done = world.sealpack("settle", "--db", database, "ingest", noise)
    assert done.returncode == 5
    assert done.stdout.startswith("R301")


def test_settlement_without_trust_says_so(world: World, tmp_path: Path) -> None:
    database = tmp_path / "s.db"
    registry = world.project / "licenses" / "registry.jsonl"
    refused(world.sealpack("settle", "--db", database, "import", registry), "TRUST_UNPINNED", 4)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs permission to mount (Debian package mount)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_nothing(world: World, small_disk: Path) -> None:
    from sealpack.builder.demo import models

    with nothing_left_in(small_disk):
        done = world.sealpack(
            "build", models.tinylm_path(), "--config", world.config, "--out", small_disk / "x.sealpack"
        )
        refused(done, "STORE_FULL", 1)


def test_installing_on_a_full_disk_leaves_no_bundle(world: World, small_disk: Path) -> None:
    state = small_disk / "state"
    assert world.sealpack("trust", "pin", world.trust, "--yes", state=state).returncode == 0
    refused(world.sealpack("install", world.bundle, state=state), "STORE_FULL", 1)
    assert not list(state.rglob("*.sealpack"))


def test_read_only_state_is_said(world: World, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(world.state, state, symlinks=True)
    if os.geteuid() != 0:
        pytest.skip("needs permission to mount (Debian package mount)")
    bind = f"mount --bind {state} {state} && mount -o remount,bind,ro {state}"
    command = f"{bind} && exec {SEALPACK} run acme/words --prompt A --max-tokens 1"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True,
        env=os.environ | {"SEALPACK_STATE": str(state)}, timeout=120,
    )  # fmt: skip
    refused(done, "STORE_READONLY", 1)


def test_a_usage_error_is_ours_and_2(world: World) -> None:
    refused(world.sealpack("verify", "--nonsense"), "USAGE", 2)
    refused(world.sealpack("verify", world.bundle), "USAGE", 2)
    refused(world.sealpack("frobnicate"), "USAGE", 2)


def test_errors_are_json_when_asked(world: World, tmp_path: Path) -> None:
    done = world.sealpack("verify", tmp_path / "no", "--trust", world.trust, "--format", "json")
    error = json.loads(done.stdout)
    assert (error["schema"], error["code"], error["exit"]) == ("sealpack/error/v1", "FILE_MISSING", 1)


def test_python_dash_m_is_the_same_command(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sealpack.verifier", "verify", str(world.bundle), "--trust", str(world.trust)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("PASS")

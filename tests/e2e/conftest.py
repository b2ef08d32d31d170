"""The whole product, run as its users do: the demo once, the frozen executables once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEALPACK = Path(sys.executable).with_name("sealpack")
Run = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Demo:
    """What `sealpack demo --keep` left, and what it said."""

    folder: Path
    said: str

    def bundle(self, name: str) -> Path:
        return self.folder / "bundles" / f"{name}-1.0.0.sealpack"

    @property
    def trust(self) -> Path:
        return self.folder / "trust" / "trust.json"

    @property
    def public_key(self) -> Path:
        return self.folder / "keys" / "creator.pub.pem"


@pytest.fixture(scope="session")
def sealpack() -> Run:
    """Run the installed `sealpack` command; text output, no terminal, no state of this machine."""

    def run(
        *arguments: object, state: Path | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("SEALPACK_")}
        if state is not None:
            env["SEALPACK_STATE"] = str(state)
        command = [str(SEALPACK), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, timeout=300, **options
        )  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session")
def demo(sealpack: Run, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, kept."""
    folder = tmp_path_factory.mktemp("demo") / "kept"
    done = sealpack("demo", "--keep", folder)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return Demo(folder, done.stdout)


@pytest.fixture(scope="session")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `sealpack-runtime/` and `sealpack-verify`, frozen from this tree."""
    if shutil.which("objdump") is None:
        pytest.skip("needs the Debian package binutils")
    out = tmp_path_factory.mktemp("frozen")
    freeze = [sys.executable, str(ROOT / "packaging" / "freeze.py"), "--out", str(out)]
    subprocess.run(freeze, check=True, capture_output=True, cwd=out)
    return out

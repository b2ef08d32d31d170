"""Verifying needs none of the heavy libraries, and no network or database module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import world
from support.world import BundleSpec

HEAVY = ("numpy", "onnxruntime", "onnx", "gguf", "llama_cpp", "yaml", "sqlalchemy", "cyclonedx", "requests")
OUTSIDE = ("sqlite3", "urllib.request", "http.client")
SCRIPT = f"""
import sys
from sealpack.verifier.cli.main import make_cli, run
status = run(make_cli(), sys.argv[1:])
loaded = [name for name in {HEAVY + OUTSIDE!r} if name in sys.modules]
others = ("sealpack.builder", "sealpack.runtime", "sealpack.settlement")
parts = [name for name in sys.modules if name.startswith(others)]
sys.exit(99 if loaded or parts else status)
"""


@pytest.mark.parametrize(
    "arguments",
    [["verify", "good.sealpack", "--trust", "trust.json"], ["inspect", "good.sealpack"], ["--version"]],
    ids=["verify", "inspect", "version"],
)
def test_nothing_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "good.sealpack").write_bytes(BundleSpec().build())
    (tmp_path / "trust.json").write_bytes(world.make_trust().to_bytes())
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""`pip install .` without extras: verifies bundles, and says in one sentence what the rest needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from e2e.conftest import ROOT
from support.world import BundleSpec, make_trust


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `sealpack` command of an environment with the wheel and its three dependencies only."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    constraints = str(ROOT / "packaging" / "constraints.txt")
    subprocess.run([*pip, "-c", constraints, str(ROOT)], check=True, cwd=folder)
    return folder / "venv" / "bin" / "sealpack"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundle")
    bundle, trust = folder / "b.sealpack", folder / "trust.json"
    bundle.write_bytes(BundleSpec().build())
    trust.write_bytes(make_trust().to_bytes())
    return bundle, trust


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, arguments)], capture_output=True, text=True)


def test_it_brings_three_dependencies(bare: Path) -> None:
    listed = _run(bare.with_name("python"), "-m", "pip", "list", "--format=freeze").stdout
    names = {line.split("==")[0].lower() for line in listed.splitlines()}
    assert names == {"sealpack", "click", "cryptography", "rfc8785", "cffi", "pycparser", "pip", "setuptools"}


def test_it_verifies(bare: Path, files: tuple[Path, Path]) -> None:
    done = _run(bare, "verify", files[0], "--trust", files[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS")


def test_a_missing_part_is_one_sentence_with_the_pip_command(bare: Path, tmp_path: Path) -> None:
    for verb, extra in (
        (("demo",), "all"),
        (("settle", "--db", tmp_path / "s.db", "reconcile"), "settlement"),
        (("build", files_model(tmp_path)), "builder"),
        (("status",), "runtime"),
    ):
        done = _run(bare, *verb)
        assert done.returncode == 2, (verb, done.stderr)
        assert "error[EXTRA_MISSING]" in done.stderr, (verb, done.stderr)
        assert f"pip install 'sealpack[{extra}" in done.stderr, (verb, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1


def files_model(folder: Path) -> Path:
    from support.world import tiny_gguf

    path = folder / "m.gguf"
    path.write_bytes(tiny_gguf())
    return path

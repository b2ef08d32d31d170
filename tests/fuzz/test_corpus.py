"""Every kept input against its target, and a few seconds of fuzzing where atheris is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.catalogue import CORPUS, TARGETS, kept
from fuzz.names import NAMES

HERE = Path(__file__).parent
SHORT_SECONDS = 12
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris has no wheel for this platform: the kept corpus is replayed, nothing new is looked for",
)


def test_every_target_has_a_name_and_a_corpus() -> None:
    assert tuple(TARGETS) == NAMES
    assert {path.name for path in CORPUS.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_kept_inputs_hold(name: str) -> None:
    target = TARGETS[name]
    inputs = [*target.seeds(), *(data for _, data in kept(target))]
    outcomes = {target.check(data) for data in inputs}
    assert "ok" in outcomes  # past every check at least once
    assert len(outcomes) > 1  # and refused at least once


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 3 << 20


@needs_atheris
def test_nothing_new_breaks_in_a_short_run(tmp_path: Path) -> None:
    fuzz("mixed", SHORT_SECONDS, tmp_path)


@needs_atheris
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_new_breaks_in_two_minutes(name: str, tmp_path: Path) -> None:
    fuzz(name, 120, tmp_path)


def fuzz(name: str, seconds: int, folder: Path) -> None:
    command = [sys.executable, str(HERE), name, "--seconds", str(seconds), "--corpus", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    executions = int(done.stdout.split()[1])
    assert executions > 100, done.stdout

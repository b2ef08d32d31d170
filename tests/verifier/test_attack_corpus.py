"""Every attack in specs/vectors/bundle: named, nothing written, bounded in memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.corpus import FOLDER, GROUPS, Attack, attacks

from sealpack.format.errors import CODES
from sealpack.verifier.cli import main as cli

MIB = 1 << 20
LIMITS = """
import json, pathlib, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (768 << 20, 768 << 20))
from sealpack.format.keys import PublicKey
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle
from support.memory import peak
codes, slowest = {}, 0.0
for job in json.load(sys.stdin):
    keys = {name: PublicKey.from_pem(pem) for name, pem in job["keys"].items()}
    trust = None if keys else Trust.load(pathlib.Path(job["trust"]).read_bytes())
    begun = time.process_time()
    report = verify_bundle(job["path"], trust, **keys)
    slowest = max(slowest, time.process_time() - begun)
    codes[job["name"]] = report.failures[0].code if report.failures else "ok"
print(json.dumps([codes, slowest, peak()]))
"""


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three empty folders the command stands in: where it is, its home, its temporary files."""
    for name in ("cwd", "home", "tmp"):
        (tmp_path / "around" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "around" / "cwd")
    for variable in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "around" / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "around" / "tmp"))
    return tmp_path / "around"


def belief(case: Attack, folder: Path) -> list[str]:
    """The options that say whom to trust."""
    if "key" not in case.said:
        return ["--trust", str(case.trust)]
    options = []
    for name in ("key", "mldsa_key"):
        if name in case.said:
            path = folder / f"{name}.pem"
            path.write_text(case.said[name])
            options += [f"--{name.replace('_', '-')}", str(path)]
    return options


def test_the_corpus_is_whole() -> None:
    cases = attacks()
    assert {case.said["group"] for case in cases} == set(GROUPS)
    for group in GROUPS:
        assert sum(case.said["expect"] != "ok" for case in attacks(group)) >= 40
    for case in cases:
        code = case.said["expect"]
        assert case.said["exit"] == (0 if code == "ok" else CODES[code].exit), case.name
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*") if path.suffix != ".pyc") < 4 * MIB


@pytest.mark.parametrize("group", GROUPS)
def test_the_command_names_every_fault(
    group: str, tmp_path: Path, closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, wrong = tmp_path / "x.sealpack", {}
    for case in attacks(group):
        path.write_bytes(case.data)
        status = cli.run(cli.make_cli(), ["verify", str(path), *belief(case, tmp_path), "--format", "json"])
        done = capsys.readouterr()
        report = json.loads(done.out)
        codes = [check.get("code") for check in report["checks"] if check.get("code")] or ["ok"]
        if (status, codes[0]) != (case.said["exit"], case.said["expect"]) or "Traceback" in done.err:
            wrong[case.name] = (status, codes, done.err)
        assert not [p for p in closed.rglob("*") if not p.is_dir()], f"{case.name} left something"
    assert wrong == {}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("verb", ["verify", "inspect"])
def test_people_get_text_without_control_characters(
    verb: str, group: str, tmp_path: Path, closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, wrong = tmp_path / "x.sealpack", {}
    for case in attacks(group):
        path.write_bytes(case.data)
        options = belief(case, tmp_path) if verb == "verify" else []
        status = cli.run(cli.make_cli(), [verb, str(path), *options])
        done = capsys.readouterr()
        text = (done.out + done.err).replace("\n", "")
        fine = text and text.isprintable() and "Traceback" not in text and "INTERNAL" not in text
        if not fine or status not in (0, 3, 4) or (verb == "verify" and status != case.said["exit"]):
            wrong[case.name] = (status, text[-300:])
        assert not [p for p in closed.rglob("*") if not p.is_dir()], f"{case.name} left something"
    assert wrong == {}


@pytest.mark.skipif(sys.platform != "linux", reason="limits and peaks are told as Linux tells them")
def test_memory_and_time_are_bounded(tmp_path: Path) -> None:
    """All of them in one process that could not have more than 768 MiB of addresses."""
    jobs = []
    for case in attacks():
        path = tmp_path / f"{case.name}.sealpack"
        path.write_bytes(case.data)
        keys = {name: case.said[name] for name in ("key", "mldsa_key") if name in case.said}
        jobs.append({"name": case.name, "path": str(path), "trust": str(case.trust), "keys": keys})
    done = subprocess.run(
        [sys.executable, "-c", LIMITS],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    codes, slowest, peak = json.loads(done.stdout)
    assert codes == {case.name: case.said["expect"] for case in attacks()}
    assert slowest < 3  # seconds of processor time; the dearest takes a fraction of one
    assert peak < 160 * MIB

"""Run a fuzzer for a while.

usage: python tests/fuzz TARGET|all|mixed [--seconds N] [--corpus DIR] [--keep]
       python tests/fuzz structural [--short]
       python tests/fuzz list

`all` takes the targets one after the other, `mixed` all of them in one process, for short runs.

The coverage-guided fuzzer starts from the targets' seeds and the kept corpus; with --corpus what it finds is
gathered in DIR/TARGET, else it is forgotten. With --keep the kept corpus is afterwards made anew: the fewest
inputs that reach every line pair that seeds, kept corpus and findings reach together. Exit status 1 when an
input broke a target; it lies in DIR/TARGET-crashes, or in the working directory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # the tests' own packages, without this folder's modules at the top


def worker(name: str, seconds: int, folder: Path, crashes: Path) -> None:
    """Fuzz one target in this process until time is up; never returns."""
    import random

    import atheris

    with atheris.instrument_imports(include=["sealpack", "rfc8785"]):
        from fuzz.catalogue import kept, named
    target = named(name)
    for number, data in enumerate([*target.seeds(), *(data for _, data in kept(target))]):
        if len(data) <= target.max_len:
            (folder / f"seed-{number:05}").write_bytes(data)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        made = target.mutate(data, chance) if target.mutate and data and chance.random() < 0.5 else None
        made = atheris.Mutate(data, max_size) if made is None or len(made) > max_size else made
        return bytes(made)

    def one(data: bytes) -> None:
        target.check(data)

    limits = [f"-max_total_time={seconds}", f"-max_len={target.max_len}", "-timeout=20", "-rss_limit_mb=2048"]
    if name == "mixed":  # the short run of every test run begins the same way each time
        limits.append("-seed=1")
    quiet = ["-print_final_stats=1", "-verbosity=1", f"-artifact_prefix={crashes}/"]
    more = {"custom_mutator": mutator} if target.mutate else {}
    atheris.Setup([sys.argv[0], *limits, *quiet, str(folder)], one, **more)
    atheris.Fuzz()


def campaign(name: str, seconds: int, corpus: Path | None) -> tuple[bool, str]:
    """Fuzz one target in a process of its own: whether nothing broke, and a line that sums it up."""
    with tempfile.TemporaryDirectory(prefix="sealpack-fuzz-") as scratch:
        folder = (corpus or Path(scratch)) / name
        crashes = corpus / f"{name}-crashes" if corpus else Path.cwd()
        folder.mkdir(parents=True, exist_ok=True)
        crashes.mkdir(parents=True, exist_ok=True)
        before = time.monotonic()
        command = [sys.executable, str(HERE), "--worker", name, "--seconds", str(seconds)]
        command += ["--corpus", str(folder), "--crashes", str(crashes)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        took = time.monotonic() - before
    told = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stdout)}
    runs, new = told.get("number_of_executed_units", 0), told.get("new_units_added", 0)
    coverage = re.findall(r"cov: (\d+)", done.stdout)
    reach = coverage[-1] if coverage else "?"
    line = f"{name:<14}{runs:>10} executions {took:>6.0f} s {new:>6} new inputs, coverage {reach}"
    if done.returncode:
        line += f"\n{done.stdout[-6000:]}\n{name}: BROKEN, input in {crashes}"
    return done.returncode == 0, line


def structural(short: bool) -> int:
    """The structural fuzzer on every good bundle."""
    from fuzz import structural as damage

    bad = 0
    for name, make in damage.GOOD.items():
        before = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="sealpack-fuzz-") as scratch:
            form = damage.sample if short else damage.everything
            run = form(Path(scratch) / "x.sealpack", make(), damage.other_bundle())
        took = time.monotonic() - before
        print(f"{name}: {run.cases} damaged files, {took:.0f} s, {len(run.accepted)} accepted")
        for code, count in run.codes.most_common():
            print(f"    {count:>8} {code}")
        for what in run.accepted[:20]:
            print(f"    ACCEPTED: {what}")
        bad += len(run.accepted)
    return 1 if bad else 0


def coverage_guided(names: list[str], seconds: int, corpus: Path | None, keep: bool) -> int:
    """Every named target in turn."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(
            "atheris is not installed here (wheels exist for CPython 3.11 on Linux x86-64)", file=sys.stderr
        )
        return 2
    good = True
    for name in names:
        fine, line = campaign(name, seconds, corpus)
        good &= fine
        print(line, flush=True)
        if keep and fine:
            from fuzz.minimise import renew

            print(f"{'':<14}{renew(name, corpus)}", flush=True)
    return 0 if good else 1


def main() -> int:
    """The command line."""
    from fuzz.names import NAMES

    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=["all", "mixed", "structural", "list", *NAMES])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--corpus", type=Path, help="gather findings in this folder")
    parser.add_argument("--keep", action="store_true", help="make the kept corpus anew from all findings")
    parser.add_argument("--short", action="store_true", help="structural: a sample only")
    args = parser.parse_args()
    if args.target == "list":
        print("\n".join(NAMES))
        return 0
    if args.target == "structural":
        return structural(args.short)
    if args.keep and (not args.corpus or args.target == "mixed"):
        parser.error("--keep needs --corpus, and targets one by one")
    names = list(NAMES) if args.target == "all" else [args.target]
    return coverage_guided(names, args.seconds, args.corpus, args.keep)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        _, _, name, _, seconds, _, folder, _, crashes = sys.argv
        sys.argv = sys.argv[:1]
        worker(name, int(seconds), Path(folder), Path(crashes))
    sys.exit(main())

"""Measurements, as ratios against a peer or a physical limit taken in the same minute.

usage: python tests/bench [--mib 512] [--rounds 5] [--frozen DIR] [NAME ...]
       python tests/bench settlement --receipts 1000000 10000000 --devices 1000 [--workers 1 2] [--db URL]

Whole-process figures are wall seconds of alternating runs (A B A B ...), so that a drift of the machine's
speed touches both sides; the ratio is the median over pairs. These figures are no tests: nothing here fails.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BIN = Path(sys.executable).parent


def seconds(command: list[str]) -> float:
    """Wall seconds of one run; the command must succeed."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def versus(name: str, ours: list[str], peer: list[str], rounds: int) -> None:
    """Print medians of both commands and of their ratio, pair by pair."""
    seconds(ours), seconds(peer)  # warm caches
    pairs = [(seconds(ours), seconds(peer)) for _ in range(rounds)]
    row(name, [a for a, _ in pairs], [b for _, b in pairs])


def row(name: str, ours: list[float], peer: list[float], unit: float = 1.0, suffix: str = "s") -> None:
    """One line of the table."""
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    a, b = statistics.median(ours) * unit, statistics.median(peer) * unit
    print(f"{name:<58} {a:>9.3f} {suffix:<2} vs {b:>9.3f} {suffix:<2}  ratio {ratio:.2f}", flush=True)


def bundle_on_disk(folder: Path, values: int) -> tuple[Path, Path, Path]:
    """A bundle with `values` float weights, its public key, and the bundle unpacked."""
    from support.world import CREATOR, BundleSpec, make_trust, tiny_gguf

    bundle = folder / f"b{values}.sealpack"
    bundle.write_bytes(BundleSpec(model=tiny_gguf(values)).build())
    (folder / "creator.pub.pem").write_text(CREATOR.public.pem)
    (folder / "trust.json").write_bytes(make_trust().to_bytes())
    unpacked = folder / f"d{values}"
    subprocess.run(["unzip", "-q", str(bundle), "-d", str(unpacked)], check=True)
    os.sync()  # writing back what was just made would slow the first runs
    return bundle, folder / "creator.pub.pem", unpacked


def model_signing(unpacked: Path, key: Path) -> list[str]:
    """The peer's command line on an unpacked bundle."""
    signature = str(unpacked / "META" / "model.sig")
    return [str(BIN / "model_signing"), "verify", "key", str(unpacked), "--signature", signature,
            "--public_key", str(key), "--no-ignore-git-paths"]  # fmt: skip


def bench_verify(args: argparse.Namespace, folder: Path) -> None:
    """Verification of a large and of a tiny bundle against model_signing, sha256sum and the processor."""
    from bench_hashing import measure

    sealpack = str(BIN / "sealpack")
    trust = ["--trust", str(folder / "trust.json")]
    bundle, key, unpacked = bundle_on_disk(folder, args.mib << 18)
    peer = model_signing(unpacked, key)
    size = f"{args.mib} MiB"
    for option in ([], ["--leaves"], ["--sample", "16"]):
        versus(" ".join(["verify", *option, size, "vs model_signing"]),
               [sealpack, "verify", str(bundle), *trust, *option], peer, args.rounds)  # fmt: skip
    versus(f"verify {size} vs sha256sum", [sealpack, "verify", str(bundle), *trust],
           ["sha256sum", str(bundle)], args.rounds)  # fmt: skip
    for name, ours, limit in measure(bundle, folder / "trust.json", args.rounds):
        row(f"{name}, {size}", ours, limit)
        share = statistics.median(b / a for a, b in zip(ours, limit, strict=True))
        rates = [args.mib / 1024 / statistics.median(side) for side in (ours, limit)]
        print(f"  {rates[0]:.2f} GiB/s, the limit {rates[1]:.2f} GiB/s: {share:.2f} of it")
    small, key, unpacked = bundle_on_disk(folder, 1024)
    versus("verify 70 kB, start to verdict, vs model_signing", [sealpack, "verify", str(small), *trust],
           model_signing(unpacked, key), args.rounds)  # fmt: skip


def bench_build(args: argparse.Namespace, folder: Path) -> None:
    """Hash, sign and write against `cp` and `sha256sum` running side by side."""
    from bench_build import commands

    ours, peer = commands(str(BIN / "sealpack"), folder, args.mib << 18)
    versus(f"build {args.mib} MiB vs cp & sha256sum", ours, peer, args.rounds)


def bench_metered(args: argparse.Namespace, folder: Path) -> None:
    """A metered call through the runtime against a bare session.run on the same model."""
    from bench_metered import measure

    for name, ours, peer in measure(folder, rounds=args.rounds):
        row(name, ours, peer, 1e6, "us")


def bench_books(args: argparse.Namespace, folder: Path) -> None:
    """Admission, durable commits per call, calls per second in high-rate mode."""
    import bench_books as books

    books.prepare(folder)
    p50, p99 = (1e6 * value for value in books.percentiles(books.admission(folder)))
    print(f"admission, all checks, warm, without the commit: p50 {p50:.1f} us, p99 {p99:.1f} us")
    commits = books.commits(folder)
    print(f"durable commits per metered call: {'no strace here' if commits is None else f'{commits:.2f}'}")
    row("metered call vs one durable insert into SQLite", *books.durable(folder, args.rounds), 1e6, "us")
    ours, peer = books.high_rate(folder, args.rounds)
    row("high-rate metered call vs bare session.run", ours, peer, 1e6, "us")
    alone = statistics.median(books.ledger_rate(folder, args.rounds))
    rates = 1 / statistics.median(ours), 1 / alone
    print(f"  {rates[0]:,.0f} metered calls/s with the model, {rates[1]:,.0f}/s the books alone, one process")


def bench_start(args: argparse.Namespace, folder: Path) -> None:
    """Start from the store, every check made, against the same engine mapping the bare file."""
    from bench_start import prepare, start

    for kind in ("gguf", "onnx"):
        place = folder / kind
        place.mkdir()
        prepare(place, kind, args.mib)
        for side, name in (("store", "verified-once load"), ("ours", "start with every check and receipt")):
            start(place, kind, side), start(place, kind, "bare")  # warm caches
            pairs = [(start(place, kind, side), start(place, kind, "bare")) for _ in range(args.rounds)]
            ours, peer = map(list, zip(*pairs, strict=True))
            row(f"{name}, {kind} {args.mib} MiB, vs mapped", ours, peer)


def bench_encrypted(args: argparse.Namespace, folder: Path) -> None:
    """Load to first answer of encrypted weights against the plain ones loaded into memory, leaves checked."""
    from bench_encrypted import prepare, start

    for kind in ("gguf", "onnx"):
        place = folder / kind
        place.mkdir()
        prepare(place, kind, args.mib)
        start(place, kind, "sealed"), start(place, kind, "plain")  # warm caches
        pairs = [(start(place, kind, "sealed"), start(place, kind, "plain")) for _ in range(args.rounds)]
        for figure, suffix in (("seconds", "s"), ("peak", "MiB")):
            ours, peer = ([side[figure] for side in sides] for sides in zip(*pairs, strict=True))
            row(f"encrypted {kind} {args.mib} MiB, {figure}, vs not mapped", ours, peer, suffix=suffix)


def bench_settlement(args: argparse.Namespace, folder: Path) -> None:
    """A fleet's month taken in with every check, rated and invoiced; wall and processor seconds."""
    import bench_settlement as settlement

    for receipts in args.receipts:
        place, truth = settlement.fleet(receipts, args.devices, args.workers[-1])
        limits = settlement.limits(place, truth.receipts)
        print(f"{truth.receipts:,} receipts of {args.devices:,} devices in {len(truth.files):,} files")
        for name, seconds in limits.items():
            print(f"  {name + ' alone':<36}{'':>9}{seconds:>9.1f}{truth.receipts / seconds:>20,.0f}")
        print(f"  {'':<24}{'workers':>12}{'wall s':>9}{'cpu s':>9}{'server':>9}{'per cpu s':>11}"
              f"{'per wall s':>12}{'invoice s':>11}{'cpu s':>7}{'limit':>7}{'MB':>7}")  # fmt: skip
        for run in settlement.measure(place, truth, args.workers, args.db):
            rates = f"{truth.receipts / run.cpu:>11,.0f}{truth.receipts / run.wall:>12,.0f}"
            times = f"{run.wall:>9.1f}{run.ours:>9.1f}{run.server:>9.1f}"
            ratio = run.cpu / min(limits.values())
            spent = f"{run.invoice:>11.2f}{run.invoice_cpu:>7.2f}{ratio:>7.1f}{run.megabytes:>7.0f}"
            print(f"  {run.database:<24}{run.workers:>12}{times}{rates}{spent}", flush=True)


def bench_console(args: argparse.Namespace, folder: Path) -> None:
    """Server time of every page of the console on a fleet's month, against the bar."""
    from bench_console import BAR_MS, fill, measure

    receipts = max(args.receipts)
    start = time.perf_counter()
    database = fill(folder, args.db or str(folder / "settlement.db"), args.devices, receipts)
    print(f"console: {args.devices:,} devices, roll-ups of {receipts:,} receipts, "
          f"made in {time.perf_counter() - start:.0f} s; ms per page, bar {BAR_MS}")  # fmt: skip
    print(f"  {'page':<64}{'p50':>8}{'max':>8}{'cpu p50':>9}{'kB':>8}")
    slow = []
    for took in sorted(measure(database, args.rounds), key=lambda took: -took.p50):
        cpu = statistics.median(took.cpu)
        cells = f"{took.p50:>8.1f}{max(took.wall):>8.1f}{cpu:>9.1f}{took.size / 1000:>8.1f}"
        print(f"  {took.path[:62]:<64}{cells}")
        slow += [took.path] if took.p50 > BAR_MS else []
    print(f"  over the bar: {len(slow)}")
    database.close()


def bench_frozen(args: argparse.Namespace, folder: Path) -> None:
    """Start-up of the frozen executables against the same command in Python."""
    if args.frozen is None:
        print("frozen: give --frozen DIR (made by packaging/freeze.py)")
        return
    python = str(BIN / "sealpack")
    versus("sealpack-runtime --version vs python", [str(args.frozen / "sealpack-runtime/sealpack-runtime"),
           "--version"], [python, "--version"], args.rounds)  # fmt: skip
    bundle, _, _ = bundle_on_disk(folder, 1024)
    verify = ["verify", str(bundle), "--trust", str(folder / "trust.json")]
    versus("sealpack-verify (one file) vs python", [str(args.frozen / "sealpack-verify"), *verify],
           [python, *verify], args.rounds)  # fmt: skip


BENCHES: dict[str, Callable[[argparse.Namespace, Path], None]] = {
    "verify": bench_verify,
    "build": bench_build,
    "metered": bench_metered,
    "books": bench_books,
    "start": bench_start,
    "encrypted": bench_encrypted,
    "settlement": bench_settlement,
    "console": bench_console,
    "frozen": bench_frozen,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mib", type=int, default=512, help="size of the large bundle")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--receipts", type=int, nargs="+", default=[200_000], help="of `settlement`")
    parser.add_argument("--devices", type=int, default=100, help="of `settlement`")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of `settlement`")
    parser.add_argument(
        "--db", metavar="URL", help="of `settlement`: an empty database, instead of both kinds"
    )
    parser.add_argument("--frozen", type=Path, help="folder with the frozen executables")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHES)}; default all")
    args = parser.parse_args()
    for name in args.names or BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            BENCHES[name](args, Path(folder))


if __name__ == "__main__":
    main()

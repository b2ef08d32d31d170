"""Make a fleet, settle it, and compare what the database says with what the fleet did.

usage: python tests/load make DIR [--customers 20] [--devices 1000] [--receipts 10000000] [--seed 1]
       python tests/load run DIR [--db postgresql://... | FILE] [--workers 2]
       python tests/load check DIR [--db ...]

`make` writes registry, usage files and the truth; `run` learns the registry, ingests with `settle ingest`'s
engine, invoices the month and checks; `check` only compares. Exit status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from load import fleet, oracle
from sealpack.settlement import db, workers


@contextmanager
def told(what: str, receipts: int = 0) -> Iterator[None]:
    """Print wall and processor seconds of a step, its children's included."""
    start, before = time.perf_counter(), os.times()
    yield
    after = os.times()
    wall, cpu = time.perf_counter() - start, sum(after[:4]) - sum(before[:4])
    rate = f"  {receipts / cpu:>9,.0f} receipts per processor second" if receipts else ""
    print(f"{what:<10} {wall:8.1f} s wall {cpu:8.1f} s processor{rate}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=["make", "run", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--db", help="default DIR/settlement.db")
    parser.add_argument("--workers", type=int, default=1)
    for name, value in (("customers", 20), ("devices", 1000), ("receipts", 10_000_000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    if args.verb == "make":
        shape = fleet.Shape(args.customers, args.devices, args.receipts, args.seed)
        with told("make"):
            fleet.make(shape, args.folder, args.workers)
        return 0
    truth = fleet.Truth.from_json((args.folder / "truth.json").read_text())
    address = args.db or str(args.folder / "settlement.db")
    with db.Database.open(address) as database:
        problems = []
        if args.verb == "run":
            with told("learn"):
                oracle.learn(database, (args.folder / "registry.jsonl").read_bytes())
            paths = sorted((args.folder / "usage").iterdir())
            with told("ingest", truth.receipts):
                for _ in workers.ingest_files(address, paths, fleet.NOW, args.workers):
                    pass
            with told("invoice"):
                problems += oracle.wrong_invoices(database, truth)
        with told("compare"):
            problems += oracle.wrong(database, truth)
    for problem in problems[:20]:
        print("WRONG", problem)
    print(f"{truth.receipts:,} receipts, {len(truth.files)} files: {len(problems)} differences")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

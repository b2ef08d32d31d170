"""The table of comparisons: the package, the oracle and the truth, side by side.

usage: python tests/load/comparison.py [--plans 20000] [--seed 0] [--receipts 100000]

1. Random plans with random usage and dates, rated by the package and by tests/support/rating_oracle.py, which
   share no code: how many plans had which part, and how many answers differed in a line, tax, total or share.
2. The worked examples of specs/rating.md: package, oracle and literal.
3. A fleet in every trouble, settled into a database: logs, files and totals against what the devices did, and
   every invoice against tokens times price.

Exit status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import rating_dice, worked_examples
from support.rating_dice import Dice

from load import fleet, oracle
from sealpack.settlement import db, ingest


def parts(dice: Dice) -> Iterator[str]:
    """What of the plan schema a plan has, and what else is special about it."""
    plan = dice.plan
    yield f"currency {dice.currency}"
    yield f"rounding {plan['plan'].get('rounding', 'half_up')}"
    for charge in plan["charges"]:
        yield f"charge {charge['type']} {charge.get('model', charge.get('when', ''))}".rstrip()
        yield from (f"charge with {name}" for name in ("included", "prorate", "min", "max") if name in charge)
    for item in plan.get("commitments", []):
        yield f"commitment {item['kind']} {item.get('billing', '')} {item.get('unused', '')}".rstrip()
    for name in ("discounts", "tax", "shares"):
        if plan.get(name):
            yield name
    if any("take" in member for member in plan.get("shares", {}).get("pool", [])):
        yield "shares with yearly tiers"
    for name, given in (("activation", dice.activated), ("end", dice.ended)):
        if given is not None:
            yield f"{name} within a month"
    if dice.zone != "UTC":
        yield "another zone than UTC"


def compare_plans(count: int, seed: int) -> tuple[list[tuple[str, ...]], int]:
    """Rows (part, plans, periods, differ), and how many plans differ."""
    plans: Counter[str] = Counter()
    periods: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for one in range(seed, seed + count):
        dice = Dice(Random(one))
        found = rating_dice.in_minor(dice, rating_dice.by_package(dice))
        differs = found != rating_dice.by_oracle(dice)
        if differs:
            print(f"seed {one} differs", flush=True)
        for part in {"all", *parts(dice)}:
            plans[part] += 1
            periods[part] += len(found)
            wrong[part] += differs
    names = sorted(plans, key=lambda part: (part != "all", part))
    rows = [(part, f"{plans[part]:,}", f"{periods[part]:,}", f"{wrong[part]}") for part in names]
    return rows, wrong["all"]


def compare_examples() -> tuple[list[tuple[str, ...]], int]:
    """Rows (case, what, package, oracle, expected), and how many cells differ."""
    rows, wrong = [], 0
    for example in worked_examples.EXAMPLES:
        ours, theirs = worked_examples.by_package(example), worked_examples.by_oracle(example)
        for what, expected in example.expected.items():
            wrong += {ours[what], theirs[what]} != {expected}
            rows.append((example.case, what, ours[what], theirs[what], expected))
    return rows, wrong


def compare_fleet(receipts: int, seed: int) -> tuple[list[tuple[str, ...]], int]:
    """Rows (what, compared, differ) of a fleet that was settled, and how many things differ."""
    with tempfile.TemporaryDirectory(prefix="sealpack-comparison-") as name:
        folder = Path(name)
        shape = fleet.Shape(customers=5, devices=max(10, receipts // 600), receipts=receipts, seed=seed)
        truth = fleet.make(shape, folder)
        with db.Database.open(folder / "settlement.db") as database:
            oracle.learn(database, (folder / "registry.jsonl").read_bytes())
            for path in sorted((folder / "usage").iterdir()):
                ingest.ingest_file(database, path, fleet.NOW)
            money = oracle.wrong_invoices(database, truth)
            rest = oracle.wrong(database, truth)
    for problem in [*money, *rest][:20]:
        print("WRONG", problem)
    licenses = len(truth.totals)
    totals = sum(problem.split(":")[0] in truth.totals for problem in rest)
    logs = sum(problem.split(":")[0] in truth.logs for problem in rest)
    meters = sum(len(one) for one in truth.totals.values())
    rows = [
        ("receipts settled", f"{truth.receipts:,}", ""),
        ("logs: size and root", f"{len(truth.logs):,}", f"{logs}"),
        ("usage files: outcome", f"{len(truth.files):,}", f"{len(rest) - logs - totals}"),
        ("totals per license and meter", f"{meters:,}", f"{totals}"),
        ("invoices: net = tokens x price, rounded once", f"{licenses:,}", f"{len(money)}"),
    ]
    return rows, len(money) + len(rest)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people."""
    widths = [max(len(row[n]) for row in (columns, *rows)) for n in range(len(columns))]
    print(f"\n{title}\n")
    for row in (columns, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("plans", 20_000), ("seed", 0), ("receipts", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(arguments)
    last = args.seed + args.plans - 1
    rows, wrong = compare_plans(args.plans, args.seed)
    title = f"Random plans, seeds {args.seed} to {last}: package and oracle"
    show(title, ("plans with", "plans", "periods", "differ"), rows)
    cells, examples = compare_examples()
    show("Worked examples", ("case", "what", "package", "oracle", "expected"), cells)
    things, fleets = compare_fleet(args.receipts, args.seed)
    show("A fleet against the truth", ("what", "compared", "differ"), things)
    print(f"\n{wrong + examples + fleets} differences")
    return 1 if wrong or examples or fleets else 0


if __name__ == "__main__":
    sys.exit(main())

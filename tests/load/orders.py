"""One unforked fleet's files, cut anew, in any order, twice, overlapping, torn: always the same books.

usage: python tests/load/orders.py [--runs 10000] [--seed 1]

Every run takes one history of four logs (a device whose key was rotated, one that was set back and lost the
end of its first log, one of little use), cuts it into usage files of its own, adds copies, unpacked, torn and
damaged ones, and shuffles. Half of the runs invoice and correct in between. At the end:

- logs (size, root), roll-ups, billed usage, lease ceilings and replies are those of one file per log in order
- nothing was invoiced: drafts of every month are the same, byte for byte
- otherwise invoices, late invoices and credit notes come to the truth by line, tax and party, nothing is left
  to correct, numbers have no gaps, the ledger balances and nothing is deferred

A run is known by its seed. Exit status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
import sqlite3
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import sqlalchemy as sa
from support.books import Books
from support.device import Device, make_license
from support.rating_plans import GRADUATED, plan_data, recurring

from sealpack.format.errors import SealpackError
from sealpack.format.license import Allowance, LeaseTerms
from sealpack.settlement import audit, billing, corrections, db, epochs, ledger
from sealpack.settlement.plan import Plan
from sealpack.settlement.reconcile import reconcile

MONTHS = tuple(date(2026, month, 1) for month in (9, 10, 11))
DAY = 86_400_000
NOW = int(datetime.fromisoformat("2026-12-10T00:00Z").timestamp())
ENDS = int(datetime.fromisoformat("2026-11-20T00:00Z").timestamp())
CUTS = 12  # places where a log may be cut: every file is made once


def plan() -> Plan:
    """Tiers, an advance charge, a prepayment that is not used up, a minimum, tax, yearly tiers of a part."""
    spend = {"id": "year", "kind": "committed_spend", "scope": ["tok"], "amount": "900.00", "per": "term",
             "billing": "prepaid", "overage_factor": "1.2", "unused": "forfeit"}  # fmt: skip
    minimum = {"id": "min", "kind": "minimum", "scope": ["calls"], "amount": "40.01", "per": "period"}
    calls = {"id": "calls", "type": "usage", "meter": "n", "model": "volume",
             "tiers": [{"up_to": "100", "unit": "0.77"}, {"unit": "0.33"}]}  # fmt: skip
    pool = [
        {"party": "platform", "take": [{"up_to": "100", "bps": 3333}, {"bps": 1111}]},
        {"party": "creator:a", "bps": 4001}, {"party": "creator:b", "rest": True},
    ]  # fmt: skip
    data = plan_data(
        recurring("30.01", when="advance", prorate="day"), GRADUATED, calls, per=1,
        commitments=[spend, minimum], shares={"scope": ["tok", "calls"], "pool": pool},
        tax={"category": "S", "percent": "19"}, head={"tz": "Europe/Berlin"},
    )  # fmt: skip
    meters = {"m": {"field": "tok_out", "per": 1000}, "n": {"field": "calls"}}
    return Plan.from_dict(data | {"meters": meters})


class Log:
    """A device's log, and how much of it ever arrives."""

    def __init__(self, device: Device, arrives: int | None = None) -> None:
        self.device = device
        self.size = arrives or device.size
        step = max(1, self.size // CUTS)
        self.grid = [0, *range(step, self.size - 1, step), self.size]
        self._files: dict[tuple[int, int], bytes] = {}

    def file(self, start: int, end: int) -> bytes:
        """The usage file with receipts [start, end)."""
        if (start, end) not in self._files:
            self._files[start, end] = self.device.export(start, end)
        return self._files[start, end]


@cache
def fleet() -> tuple[Log, ...]:
    """The history: from September 21st to November 24th, days of grace included."""
    lease = LeaseTerms(required=True, max_age_s=30 * 86_400, allowance=(Allowance("calls", 100),))
    license = make_license(exp=ENDS, grace_s=30 * 86_400, lease=lease)
    one = Device(license, number=1).work(70, step_ms=DAY // 3).rotate(11).work(120, step_ms=DAY // 3)
    old = Device(license, number=2).work(90, step_ms=DAY // 4).lose(tok_out=700)
    new = old.wait(DAY).restored().work(110, step_ms=DAY // 4)
    few = Device(license, number=3).until((ENDS - 40 * 86_400) * 1000)
    for _ in range(12):
        few.wait(3 * DAY).use(calls=9, tok_out=2_950_000)
    return Log(one), Log(old, old.size - 17), Log(new), Log(few)


def total_used() -> Counter[str]:
    """What the devices counted themselves: the part of the old log that never comes is carried over."""
    total: Counter[str] = Counter()
    for log in fleet():
        for meter in ("calls", "tok_in", "tok_out", "ms"):
            total[meter] += log.device.registers.total(meter)
    return total


# --- arrivals -----------------------------------------------------------------------------------------


def arrivals(rng: Random) -> list[bytes]:
    """Files that together hold all there is, and many more, in some order."""
    lanes: list[list[bytes]] = []
    for log in fleet():
        inner = log.grid[1:-1]
        bounds = sorted({0, log.size, *rng.sample(inner, rng.randint(0, min(3, len(inner))))})
        lane = []
        for start, end in pairwise(bounds):
            earlier = [place for place in log.grid if place <= start]
            later = [place for place in log.grid if place >= end]
            reach = rng.choice(earlier[-3:]) if rng.random() < 0.3 else start
            lane.append(log.file(reach, rng.choice(later[:2]) if rng.random() < 0.2 else end))
        lanes.append(lane)
    files = _mixed(rng, lanes)
    for _ in range(rng.randint(0, 5)):
        files.insert(rng.randint(0, len(files)), _again(rng, rng.choice(files)))
    return files


def _mixed(rng: Random, lanes: list[list[bytes]]) -> list[bytes]:
    """The lanes as one: in order, one after the other, backwards, or anyhow."""
    how = rng.choice(("in order", "lane by lane", "backwards", "anyhow", "anyhow"))
    if how == "lane by lane":
        rng.shuffle(lanes)
        return [data for lane in lanes for data in lane]
    if how == "in order":
        lanes = [list(lane) for lane in lanes if lane]
        files = []
        while lanes:
            lane = rng.choice(lanes)
            files.append(lane.pop(0))
            lanes = [left for left in lanes if left]
        return files
    files = [data for lane in lanes for data in lane]
    if how == "backwards":
        return files[::-1]
    rng.shuffle(files)
    return files


def _again(rng: Random, data: bytes) -> bytes:
    """A file once more, whole or in some trouble."""
    how = rng.choice(("same", "unpacked", "torn", "torn unpacked", "damaged", "longer"))
    if how in ("unpacked", "torn unpacked"):
        data = _unpacked(data)
    if how in ("torn", "torn unpacked"):
        return data[: rng.randint(0, len(data))]
    if how == "damaged" and data:
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
    return data + rng.randbytes(rng.randint(1, 300)) if how == "longer" else data


def _unpacked(data: bytes) -> bytes:
    """As much of a packed file as there is; it may be one that was damaged before."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error:
        return data


# --- books --------------------------------------------------------------------------------------------


class Shelf:
    """One database that is set back to what it knew of the fleet, and need not outlive the machine."""

    def __init__(self, folder: Path, template: Path) -> None:
        shutil.copy(template, folder / "settlement.db")
        self.books = Books(folder, db.Database.open(folder / "settlement.db"))
        self._template = sqlite3.connect(template)
        self.books.database._engine.dispose()
        sa.event.listen(self.books.database._engine, "connect", _hasty)

    def fresh(self) -> Books:
        """The books as they were in the beginning."""
        with self.books.database._engine.connect() as connection:
            self._template.backup(connection.connection.driver_connection)
        return self.books

    def close(self) -> None:
        self._template.close()
        self.books.database.close()


def _hasty(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA synchronous=OFF")


def learn(folder: Path) -> Path:
    """A database that knows trust, plan, license and devices of the fleet."""
    books = Books.open(folder)
    books.learn(*(log.device for log in fleet()), plan=plan())
    books.database.close()
    return folder / "settlement.db"


def standing(books: Books) -> dict[str, Any]:
    """Everything that may not depend on the order in which files came."""
    with books.database.read() as connection:
        usage = billing.usage_of(connection, "L-1")
        ceilings = {
            device: epochs.totals(epochs.family(connection, "L-1", device))
            for device in {log.device.id for log in fleet()}
        }
    found: dict[str, Any] = {log.device.origin: books.log(log.device).stamp for log in fleet()}
    found |= {"roll-ups": books.rows(db.rollups), "usage": usage, "ceilings": ceilings}
    for log in fleet():
        reply = books.reply(log.device, now=ENDS - 5 * 86_400)  # while there are leases
        found[f"reply {log.device.origin}"] = _said(json.loads(reply.data))
    return found


def _said(reply: dict[str, Any]) -> dict[str, Any]:
    """What the acknowledgement in a reply says, lease included, but for the files and invoices it names."""
    payloads = [json.loads(base64.b64decode(envelope["payload"])) for envelope in reply["documents"]]
    (said,) = [payload for payload in payloads if payload["schema"] == "sealpack/acknowledgement/v1"]
    return {name: value for name, value in said.items() if name not in ("outcomes", "held", "statement")}


def drafts(books: Books) -> list[bytes]:
    """What every month would print."""
    made = [billing.bill(books.database, "L-1", month, None, draft=True) for month in MONTHS]
    return [data for one in made for data in (one.json, one.csv, one.html)]


def billed(books: Books) -> Counter[tuple[str, ...]]:
    """Minor units by what they are for, all documents together: net, tax and lines of months, and parties."""
    total: Counter[tuple[str, ...]] = Counter()
    for row in books.rows(db.invoices):
        value = json.loads(row["json"])
        total[row["period"], "net"] += _minor(value["net"])
        total[row["period"], "tax"] += _minor(value["tax"])
        for line in value["lines"]:
            name = row["period"], line["charge"], line["kind"], line["service_start"]
            total[name] += _minor(line["amount"])
            total[(*name, "breakage")] += _minor(line.get("breakage", "0"))
        for share in value["shares"]:
            total["party", share["party"]] += _minor(share["amount"])
    return Counter({key: amount for key, amount in total.items() if amount})


def _minor(text: str) -> int:
    return int(text.replace(".", ""))


# --- runs ---------------------------------------------------------------------------------------------


class Campaign:
    """The truth, and runs that are held against it."""

    def __init__(self, folder: Path) -> None:
        for name in ("template", "run"):
            (folder / name).mkdir()
        self.shelf = Shelf(folder / "run", learn(folder / "template"))
        books = self.shelf.fresh()
        for log in fleet():
            books.ingest(log.file(0, log.size), now=NOW)
        self.standing, self.drafts = standing(books), drafts(books)
        leases = sum("lease" in said for what, said in self.standing.items() if what.startswith("reply "))
        assert leases == 3, "each device has a lease, but for a log that another follows"
        used = Counter[str]()
        for (_, _, meter), amount in self.standing["usage"].items():
            used[meter] += amount
        assert used == total_used(), "the truth is not what the devices counted"
        for month in MONTHS:
            billing.bill(books.database, "L-1", month, date(2026, 12, 1))
        self.billed = billed(books)

    def close(self) -> None:
        self.shelf.close()

    def run(self, seed: int) -> list[str]:
        """What differs from the truth when one order of files has come."""
        rng = Random(seed)
        files = arrivals(rng)
        issuing = rng.random() < 0.5
        books = self.shelf.fresh()
        for data in files:
            books.ingest(data, now=NOW)
            if issuing and rng.random() < 0.25:
                self._issue(rng, books)
        found = standing(books)
        wrong = [what for what, value in self.standing.items() if found.get(what) != value]
        if rng.random() < 0.1 and not reconcile(books.database, NOW).ok:
            wrong.append("reconcile")
        if not issuing:
            return wrong + ([] if drafts(books) == self.drafts else ["drafts"])
        for month in MONTHS:
            billing.bill(books.database, "L-1", month, date(2026, 12, 1))
        self._correct(books)
        return wrong + self._wrong_money(books)

    def _issue(self, rng: Random, books: Books) -> None:
        if rng.random() < 0.3:
            self._correct(books)
            return
        try:
            billing.bill(books.database, "L-1", rng.choice(MONTHS), date(2026, 12, 1))
        except SealpackError as error:
            if error.code != "USAGE":
                raise

    def _correct(self, books: Books) -> None:
        corrections.correct(books.database, "L-1", date(2026, 12, 5))

    def _wrong_money(self, books: Books) -> list[str]:
        wrong = []
        if (found := billed(books)) != self.billed:
            keys = sorted(key for key in found.keys() | self.billed.keys() if found[key] != self.billed[key])
            wrong.append(f"billed: {[(key, found[key], self.billed[key]) for key in keys[:4]]}")
        if corrections.correct(books.database, "L-1", date(2026, 12, 5)):
            wrong.append("corrected twice")
        rows = books.rows(db.invoices)
        if [row["number"] for row in rows] != list(range(1, len(rows) + 1)):
            wrong.append("numbers")
        with books.database.read() as connection:
            balances = next(iter(ledger.trial_balance(connection).values()))
            if ledger.unbalanced(connection) or sum(balances.values()):
                wrong.append("ledger")
        owed = ledger.total(balances, ledger.RECEIVABLE) + ledger.total(balances, ledger.CREDIT)
        if owed != sum(row["total"] for row in rows) or ledger.total(balances, ledger.DEFERRED):
            wrong.append("owed or deferred")
        audit.verify(books.database)
        return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as told; print every seed that differs, and how far it is every minute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others count on")
    args = parser.parse_args(arguments)
    wrong, said = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sealpack-orders-") as folder:
        campaign = Campaign(Path(folder))
        begun = time.process_time()
        for done, seed in enumerate(range(args.seed, args.seed + args.runs), 1):
            if found := campaign.run(seed):
                wrong += 1
                print(f"seed {seed}: {'; '.join(found)}", flush=True)
            if time.monotonic() > said + 60:
                said = time.monotonic()
                print(f"{done:,} of {args.runs:,} runs, {wrong} differ", flush=True)
        campaign.close()
    cpu = time.process_time() - begun
    last = args.seed + args.runs - 1
    print(f"{args.runs:,} runs, seeds {args.seed} to {last}: {wrong} differ; {cpu:.0f} s processor")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""How long the console's server takes for each page, on the books that a large fleet's month leaves.

The registry, one small genuine file per machine, and roll-ups as so many receipts make them: a page reads no
receipts, so that is all it can be slowed by. Every page that links lead to is asked for in this process.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

BAR_MS = 200
CUSTOMERS = 20


@dataclass(frozen=True)
class Took:
    """One registered page: milliseconds of wall clock and of our processor, per request."""

    path: str
    size: int
    wall: list[float]
    cpu: list[float]

    @property
    def p50(self) -> float:
        """Of the wall clock."""
        return statistics.median(self.wall)


def fill(folder: Path, address: str, devices: int, receipts: int) -> Any:
    """A database with a month of usage of a fleet, invoiced, some of it paid."""
    from load import fleet, oracle
    from support import world

    from sealpack.settlement import billing, db, ingest, logs, receivables, registry, rollups
    from sealpack.settlement.audit import Actor

    database = db.Database.open(address)
    shape = fleet.Shape(CUSTOMERS, devices, receipts)
    machines = [
        fleet.Bulk(shape.license(n % CUSTOMERS), n, f"machine {n}").until(fleet.MONTH_MS).use()
        for n in range(devices)
    ]
    with database.write() as connection:
        trust = world.make_trust()
        registry.put_trust(connection, trust)
        registry.put_plan(connection, oracle.plan())
    oracle_lines = b"".join(machine.line() for machine in machines)
    oracle.learn(database, oracle_lines)
    for machine in machines:
        ingest.ingest(database, machine.export(), f"machine-{machine.number}.usage.gz", fleet.NOW)
    rng = random.Random(1)
    cells = [
        ("r1", fleet.MONTH_MS + day * fleet.DAY_MS + quarter * fleet.QUARTER_MS, status)
        for day in fleet.WORKDAYS
        for quarter in range(32, 32 + fleet.OFFICE_QUARTERS)
        for status in ("err", "ok")
    ]
    each = max(1, receipts * 2 // (devices * len(cells)))
    for machine in machines:
        amounts = {
            cell: [n := 1 + rng.randrange(2 * each), 0, n * 130, n * 250, n * 60]
            if cell[2] == "ok"
            else [1, 0, 40, 30, 0]
            for cell in cells
        }
        with database.write() as connection:
            log = logs.load(connection, machine.origin)
            assert log is not None
            routes = log.state.routes or {}
            rollups.store(connection, log.origin, log.license_id, routes, amounts, None)
    clerk = Actor("bench", fleet.NOW)
    billing.bill_all(database, date(2026, 10, 1), date(2026, 11, 2), actor=clerk)
    with database.read() as connection:
        open_ = receivables.standings(connection)
    for one in open_[::2]:
        receivables.pay(database, one.document.name, one.text(one.open), date(2026, 11, 3), "x", actor=clerk)
    return database


def measure(database: Any, rounds: int) -> Iterator[Took]:
    """Every page an admin can reach, an address of each registered path."""
    from load import fleet
    from support import clerk as clerks, crawl

    from sealpack.settlement.service.limits import Limits, Meter

    console = clerks.console_on(database, clock=lambda: fleet.NOW)
    console.service.meter = Meter(Limits(burst=10**9))
    clerks.add_user(database, "admin")
    clerk = clerks.Clerk(console)
    clerk.login("admin")

    class InProcess(crawl.Visitor):
        def get(self, address: str) -> tuple[int, str, str]:
            answer = clerk.http.get(address, follow_redirects=True)
            self.at = answer.url.raw_path.decode()
            return answer.status_code, answer.headers["content-type"].partition(";")[0], answer.text

    found = InProcess("").crawl(2)
    assert all("/zip?" in address for address in found.broken), found.broken  # no replies were made
    extra = ["/console/search?q=machine+77", "/console/search?q=L-7", *_more_usage()]
    pages = [addresses[0] for path, addresses in found.pages.items() if addresses and "/file/" not in path]
    for address in [*pages, *extra]:
        wall, cpu, size = [], [], 0
        for _ in range(rounds + 1):
            start, busy = time.perf_counter(), time.process_time()
            answer = clerk.http.get(address)
            wall.append((time.perf_counter() - start) * 1000)
            cpu.append((time.process_time() - busy) * 1000)
            assert answer.status_code in (200, 303), (address, answer.status_code)
            size = len(answer.content)
        yield Took(address, size, wall[1:], cpu[1:])


def _more_usage() -> list[str]:
    return [
        *(
            f"/console/usage?month=2026-10&by={by}"
            for by in ("time", "customer", "license", "model", "machine")
        ),
        "/console/usage?month=12",
        "/console/usage.csv?month=2026-10&by=machine",
    ]

"""Ingestion with every check, SQLite against PostgreSQL: a fleet of tests/load, its receipts per second."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One fleet taken in: seconds of wall clock, of our processor time and of the server's."""

    wall: float
    ours: float
    server: float
    invoice: float


def measure(folder: Path, receipts: int, workers: int) -> tuple[int, dict[str, Run]]:
    """Receipts, and what each database took; PostgreSQL only where it is installed."""
    from load import fleet
    from support import postgres

    shape = fleet.Shape(customers=10, devices=max(10, receipts // 10_000), receipts=receipts)
    truth = fleet.make(shape, folder / "fleet", workers)
    found = {"SQLite": _run(folder / "fleet", truth, str(folder / "settlement.db"), workers, None)}
    if (programs := postgres.binaries()) is not None:
        server = postgres.Server.make(programs)
        try:
            found["PostgreSQL"] = _run(folder / "fleet", truth, server.fresh(), workers, server)
        finally:
            server.remove()
    return truth.receipts, found


def _run(folder: Path, truth: object, address: str, workers: int, server: object) -> Run:
    from load import fleet, oracle

    from sealpack.settlement import db
    from sealpack.settlement.workers import ingest_files

    with db.Database.open(address) as database:
        oracle.learn(database, (folder / "registry.jsonl").read_bytes())
        paths = sorted((folder / "usage").iterdir())
        began, ours, its = time.perf_counter(), _ours(), _server(server)
        for _ in ingest_files(address, paths, fleet.NOW, workers):
            pass
        wall, ours, its = time.perf_counter() - began, _ours() - ours, _server(server) - its
        began = time.perf_counter()
        problems = oracle.wrong_invoices(database, truth)
        invoice = time.perf_counter() - began
        problems += oracle.wrong(database, truth)
    assert not problems, problems[:3]
    return Run(wall, ours, its, invoice)


def _ours() -> float:
    return sum(os.times()[:4])


def _server(server: object) -> float:
    """Processor seconds of all processes of a server, those that ended included."""
    process = getattr(server, "process", None)
    if process is None:
        return 0.0
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if process.pid in (int(stat.parent.name), int(fields[1])):  # backends have sessions of their own
            total += sum(map(int, fields[11:15]))
    return total / _TICKS

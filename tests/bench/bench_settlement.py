"""Settlement at scale: a month of a fleet of tests/load taken in, rated and invoiced, per database.

Every check is on, and what comes out is compared with the truth the fleet was made with. A fleet is kept in
the temporary folder under a name made of its shape and of the code that made it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CUSTOMERS = 20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One fleet taken in: seconds of wall clock, of our processor time and of the server's."""

    database: str
    workers: int
    wall: float
    ours: float
    server: float
    invoice: float
    invoice_cpu: float
    megabytes: float

    @property
    def cpu(self) -> float:
        """All processor seconds."""
        return self.ours + self.server


def fleet(receipts: int, devices: int, workers: int) -> tuple[Path, Any]:
    """The folder of such a fleet and what it must come to, made when it is not there yet."""
    from load import fleet as fleets

    made_by = hashlib.sha256(Path(fleets.__file__).read_bytes()).hexdigest()[:8]
    folder = Path(tempfile.gettempdir()) / f"sealpack-fleet-{devices}-{receipts}-{made_by}"
    truth = folder / "truth.json"  # written last
    if not truth.exists():
        shutil.rmtree(folder, ignore_errors=True)
        return folder, fleets.make(fleets.Shape(CUSTOMERS, devices, receipts), folder, workers)
    return folder, fleets.Truth.from_json(truth.read_text())


def limits(folder: Path, receipts: int) -> dict[str, float]:
    """Processor seconds for all receipts of what nobody can do without, from a sample of the files.

    Inflating, one SHA-256 over each line and `json.loads` of it: no tree, no checks, nothing stored. And the
    verifier alone, as `receipts verify` runs it.
    """
    from sealpack.format.usage_reader import verify_usage

    files = [path.read_bytes() for path in sorted((folder / "usage").glob("*-straight.*"))[:20]]
    plain = [zlib.decompress(data, wbits=31) for data in files]
    lines = [line for text in plain for line in text.split(b"\n") if line[-1:] == b"}"]
    bare = _seconds(lambda: [zlib.decompress(data, wbits=31) for data in files])
    bare += _seconds(lambda: [(hashlib.sha256(line).digest(), json.loads(line)) for line in lines])
    verified = _seconds(lambda: [verify_usage(data) for data in files])
    return {"inflate, SHA-256, json.loads": bare * receipts / len(lines),
            "receipts verify": verified * receipts / len(lines)}  # fmt: skip


def _seconds(work: Any) -> float:
    """Least processor time of three."""
    times = []
    for _ in range(3):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def measure(folder: Path, truth: Any, workers: list[int], address: str | None) -> Iterator[Run]:
    """SQLite and PostgreSQL in turn, the second where it is installed; or the database at `address` alone."""
    from support import postgres

    if address is not None:
        for count in workers:
            yield _run(folder, truth, address, count, None)
        return
    for count in workers:
        with tempfile.TemporaryDirectory() as place:
            yield _run(folder, truth, str(Path(place) / "settlement.db"), count, None)
    if (programs := postgres.binaries()) is not None:
        for count in workers:
            with _server(postgres, programs) as server:
                yield _run(folder, truth, server.fresh(), count, server)


@contextmanager
def _server(postgres: Any, programs: Path) -> Iterator[Any]:
    server = postgres.Server.make(programs)
    try:
        yield server
    finally:
        server.remove()


def _run(folder: Path, truth: Any, address: str, workers: int, server: Any) -> Run:
    from load import fleet as fleets, oracle

    from sealpack.settlement import db
    from sealpack.settlement.workers import ingest_files

    with db.Database.open(address) as database:
        oracle.learn(database, (folder / "registry.jsonl").read_bytes())
        paths = sorted((folder / "usage").iterdir())
        began, ours, its = time.perf_counter(), _ours(), _its(server)
        for _ in ingest_files(address, paths, fleets.NOW, workers):
            pass
        wall, ours, its = time.perf_counter() - began, _ours() - ours, _its(server) - its
        began, before = time.perf_counter(), _ours() + _its(server)
        problems = oracle.wrong_invoices(database, truth)
        invoice, cpu = time.perf_counter() - began, _ours() + _its(server) - before
        problems += oracle.wrong(database, truth)
        assert not problems, problems[:3]
        megabytes = _size(address, server) / 1e6
        return Run(database.kind, workers, wall, ours, its, invoice, cpu, megabytes)


def _size(address: str, server: Any) -> int:
    """Bytes on disk."""
    place = Path(server.folder) if server is not None else Path(address).parent
    if "://" in address and server is None:
        return 0
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def _ours() -> float:
    return sum(os.times()[:4])


def _its(server: Any) -> float:
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

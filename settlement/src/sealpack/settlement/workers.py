"""Ingestion by several processes: files of one device stay with one of them, in their order.

Source: specs/settlement-ingest.md, "Workers". Nothing here is needed for correctness: any number of
processes, of this or another call, may take any file at any time, and compare-and-set lets one of them win.
Keeping a device's files together saves judging them twice.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from sealpack.format.errors import SealpackError
from sealpack.format.usage_reader import UsageReader
from sealpack.settlement import db, ingest
from sealpack.settlement.outcomes import Outcome

_HEAD_BYTES = 1 << 17  # of a file, enough for its first line
_AHEAD = 4  # tasks given out per process
_database: db.Database | None = None  # of a worker process


@dataclass(frozen=True, slots=True)
class _Failure:
    """A :class:`SealpackError` on its way from a worker."""

    code: str
    message: str
    remedy: str


def ingest_files(address: str, paths: Sequence[Path], now: int, workers: int) -> Iterator[Outcome]:
    """:func:`ingest.ingest_file` of every path, by so many processes; outcomes as they come.

    Each process has a connection of its own. A failure that is about this side (STORE_*, TRUST_UNPINNED) ends
    the call; what was taken by then stays taken, and the same call again does the rest.
    """
    if workers == 1:
        with db.Database.open(address) as database:
            for path in paths:
                yield from ingest.ingest_file(database, path, now)
        return
    groups = iter(_by_device(paths))
    context = multiprocessing.get_context("spawn")  # a fork would inherit connections
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(address,)) as pool:
        running: set[Future[list[Outcome] | _Failure]] = set()
        try:
            while True:
                while len(running) < workers * _AHEAD and (group := next(groups, None)) is not None:
                    running.add(pool.submit(_take, group, now))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    found = future.result()
                    if isinstance(found, _Failure):
                        raise SealpackError(found.code, found.message, remedy=found.remedy)
                    yield from found
        finally:
            for future in running:
                future.cancel()


def _by_device(paths: Iterable[Path]) -> list[list[Path]]:
    """Paths of one device together, in their order; a file that names none alone."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_device_of(path) or str(path), []).append(path)
    return list(groups.values())


def _device_of(path: Path) -> str | None:
    """The device log family that a file's header names; a hint, nothing of it is believed."""
    try:
        with path.open("rb") as stream:
            return ingest.family(UsageReader(stream.read(_HEAD_BYTES)).header.origin)
    except (OSError, SealpackError):  # said in earnest when the file's turn comes
        return None


def _start(address: str) -> None:
    global _database
    _database = db.Database.open(address)


def _take(paths: list[Path], now: int) -> list[Outcome] | _Failure:
    """In a worker: the outcomes of one device's files."""
    assert _database is not None
    try:
        return [outcome for path in paths for outcome in ingest.ingest_file(_database, path, now)]
    except SealpackError as error:
        return _Failure(error.code, error.message, error.remedy)

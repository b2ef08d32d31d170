"""Stateless workers: each takes queued files of one device after the other, until it is stopped.

Source: specs/settlement-ingest.md, "Queue". Any number may run, on any machine that reaches the database and
the place of the raw files. A worker that is killed loses nothing: its claims run out.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ingest, work_queue
from sealpack.settlement.outcomes import Outcome

_IDLE_S = 1.0
_MAX_WAIT_S = 30.0
_WATCH_S = 0.5
Tell = Callable[[Outcome | SealpackError], None]


@dataclass(slots=True)
class Worker:
    """One worker. `stop` is looked at between files; `tell` hears of outcomes and of what went wrong."""

    database: db.Database
    tell: Tell
    clock: Callable[[], int]
    stop: Callable[[], bool] = lambda: False
    sleep: Callable[[float], None] = time.sleep
    lease_s: int = work_queue.LEASE_S
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def run(self, *, once: bool = False) -> None:
        """Work until stopped; with `once` until no file waits for anybody.

        What is about this side (STORE_*, STATE_LOCKED, TRUST_UNPINNED) is waited for, with `once` raised.
        """
        pause = _IDLE_S
        while not self.stop():
            try:
                busy = self._round()
                if not busy and once and not self._pending():
                    return
            except SealpackError as error:
                if once or not _is_ours(error):
                    raise
                self.tell(error)
                self.sleep(pause)
                pause = min(2 * pause, _MAX_WAIT_S)
                continue
            pause = _IDLE_S
            if not busy:
                self.sleep(_IDLE_S)

    def _pending(self) -> int:
        with self.database.read() as connection:
            return work_queue.pending(connection)

    def _round(self) -> bool:
        """Take one device's files; False when there were none to take."""
        digests = work_queue.claim(self.database, self.name, self.lease_s)
        for digest in digests:
            if self.stop():
                work_queue.give_back(self.database, self.name)
                break
            if work_queue.begin(self.database, self.name, digest, self.lease_s):
                self._decide(digest)
        return bool(digests)

    def _decide(self, digest: str) -> None:
        try:
            outcomes = ingest.resume(self.database, digest, self.clock())
        except SealpackError as error:
            if _is_ours(error):
                self._return(digest)
                raise
            self._fail(digest, error)
        except Exception as error:  # whatever it is, it is this file's: the others go on
            self._fail(digest, SealpackError("INTERNAL", f"{type(error).__name__}: {error}"))
        else:
            work_queue.done(self.database, digest)
            for outcome in outcomes:
                self.tell(outcome)

    def _return(self, digest: str) -> None:
        try:
            work_queue.give_back(self.database, self.name, digest)
        except SealpackError:  # the database is away: the claim runs out by itself
            return

    def _fail(self, digest: str, error: SealpackError) -> None:
        last = work_queue.fail(self.database, digest, f"{error.code}: {error.message}")
        how = "it is not tried again" if last else "it is tried again"
        self.tell(
            SealpackError(error.code, f"file {digest[:16]}: {error.message}; {how}", remedy=error.remedy)
        )


def _is_ours(error: SealpackError) -> bool:
    """Whether an error is about the database or the place of raw files, and passes by itself."""
    passing = ("STORE_IO", "STORE_FULL", "STORE_READONLY", "STATE_LOCKED", "TRUST_UNPINNED", "EXTRA_MISSING")
    return error.code in passing


# --- processes ----------------------------------------------------------------------------------------

Target = Callable[[str, int, bool], None]  # a worker's whole life: database, process id of the parent, once


def run_processes(target: Target, address: str, count: int, *, once: bool) -> int:
    """So many processes that each run `target`; one that is killed is started anew.

    Returns when all have ended by themselves: 0, or the exit status of one that failed. SIGTERM and SIGINT
    let each finish its file.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit connections

    def start() -> SpawnProcess:
        process = context.Process(target=target, args=(address, os.getpid(), once))
        process.start()
        return process

    told, status = False, 0
    with until_told() as stopped:
        running = [start() for _ in range(count)]
        while running:
            wait([process.sentinel for process in running], _WATCH_S)
            if stopped() and not told:
                told = True
                for process in running:
                    process.terminate()
            for process in [process for process in running if process.exitcode is not None]:
                running.remove(process)
                if (process.exitcode or 0) < 0 and not told:
                    time.sleep(_WATCH_S)  # when each dies at once, not as fast as they can
                    running.append(start())
                else:
                    status = status or max(process.exitcode or 0, 0)
    return status


@contextmanager
def until_told(parent: int | None = None) -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM or SIGINT came meanwhile, or the `parent` process is gone."""
    told: list[int] = []
    before = {n: signal.signal(n, lambda n, _: told.append(n)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(told) or (parent is not None and os.getppid() != parent)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

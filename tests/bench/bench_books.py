"""What keeping the books costs: admission, durable commits per call, and calls per second in high-rate mode.

Everything goes through the runtime's own functions on a device with a device-bound license that limits calls
per month and tokens for its term. The model is the tiniest there is, so that the books are what is measured.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_RUN = "import sys; sys.path[:0] = {paths!r}; import bench_books as b; b.child(*sys.argv[1:])"
PIXELS = 64


def prepare(folder: Path) -> None:
    """A device with the digits model, installed and licensed."""
    from bench_metered import _digits
    from support.site import Site, make_license
    from support.world import make_trust

    from sealpack.builder.demo import models
    from sealpack.format.license import BundleGrant, Quota

    models.make_digits_onnx(folder / "digits.onnx")
    site = Site(folder, {}, make_trust()).pin()
    site.install("digits", **_digits(folder))
    quota = (
        Quota("calls", "month", "device", 10**9, None, "deny"),
        Quota("tok_out", "term", "device", 10**9, None, "deny"),
    )
    site.activate(make_license(bundles=(BundleGrant("acme/digits"),), quota=quota))


@contextmanager
def opened(folder: Path, *, high_rate: bool = False) -> Iterator[Any]:
    """The runtime on that device."""
    import sealpack.runtime

    state = folder / "state"
    with sealpack.runtime.open("acme/digits", state=state, threads=1, high_rate=high_rate) as runtime:
        yield runtime


def pixels() -> dict[str, Any]:
    import numpy as np

    return {"pixels": np.zeros((1, PIXELS), np.float32)}


def admission(folder: Path, count: int = 3000) -> list[float]:
    """Seconds to admit a call: every check, warm, without the durable commit; each in its own millisecond.

    The call is given up at once, so nothing is written between two.
    """
    from sealpack.runtime.engines.base import Usage

    with opened(folder) as runtime:
        for _ in range(5):
            runtime.infer(pixels())
        found = []
        for _ in range(count):
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
            while time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000 == now:
                pass
            start = time.perf_counter()
            ticket = runtime._ledger.reserve(runtime._route, Usage(items=1), runtime._facts, streaming=False)
            found.append(time.perf_counter() - start)
            assert ticket.ahead, "not warm"
            runtime._ledger.release(ticket)
    return found


def commits(folder: Path) -> float | None:
    """fsync and fdatasync per metered call, as strace counts them; None without strace."""
    if shutil.which("strace") is None:
        return None
    syncs = [_syncs(folder, calls) for calls in (100, 600)]
    return (syncs[1] - syncs[0]) / 500


def _syncs(folder: Path, calls: int) -> int:
    trace = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(folder / "trace")]
    subprocess.run([*trace, *_child(folder, calls)], check=True, capture_output=True)
    return sum(int(n) for n in re.findall(r"(\d+)\s+f(?:data)?sync$", (folder / "trace").read_text(), re.M))


def child(folder: str, calls: str) -> None:
    """Make metered calls, in a process of its own."""
    with opened(Path(folder)) as runtime:
        for _ in range(int(calls)):
            runtime.infer(pixels())


def _child(folder: Path, calls: int) -> list[str]:
    here = Path(__file__).resolve().parent
    program = _RUN.format(paths=[str(here), str(here.parent)])
    return [sys.executable, "-c", program, str(folder), str(calls)]


def durable(folder: Path, rounds: int, calls: int = 200) -> tuple[list[float], list[float]]:
    """Seconds per metered call, against one durable insert of a receipt's size into SQLite."""
    feed, ours, peer = pixels(), [], []
    with opened(folder) as runtime, _plain_database(folder / "peer.db") as insert:
        for _ in range(rounds):
            ours.append(_each(lambda: runtime.infer(feed), calls))
            peer.append(_each(insert, calls))
    return ours, peer


@contextmanager
def _plain_database(path: Path) -> Iterator[Any]:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE receipts(n INTEGER PRIMARY KEY, record BLOB)")
    record = b"x" * 150
    yield lambda: db.execute("INSERT INTO receipts(record) VALUES(?)", (record,))
    db.close()


def high_rate(folder: Path, rounds: int, calls: int = 20_000) -> tuple[list[float], list[float]]:
    """Seconds per metered call in high-rate mode, receipts written; and of the bare session.run."""
    from bench_metered import _bare

    feed, ours, peer = pixels(), [], []
    bare = _bare(folder / "digits.onnx", "digits")
    with opened(folder, high_rate=True) as runtime:
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                runtime.infer(feed)
            runtime._ledger.flush()
            ours.append((time.perf_counter() - start) / calls)
            peer.append(_each(bare, calls))
    return ours, peer


def ledger_rate(folder: Path, rounds: int, calls: int = 20_000) -> list[float]:
    """Seconds per call of the books alone in high-rate mode: admission, hold, receipt, written."""
    from sealpack.runtime.engines.base import Usage

    used, found = Usage(items=1), []
    with opened(folder, high_rate=True) as runtime:
        books = runtime._ledger
        for _ in range(rounds):
            start = time.perf_counter()
            for _ in range(calls):
                ticket = books.reserve(runtime._route, used, runtime._facts, streaming=False)
                books.settle(ticket, "ok", used, ms=1, wait_ms=0)
            books.flush()
            found.append((time.perf_counter() - start) / calls)
    return found


def _each(call: Any, count: int) -> float:
    call()
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def percentiles(found: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    cuts = statistics.quantiles(found, n=100)
    return cuts[49], cuts[98]

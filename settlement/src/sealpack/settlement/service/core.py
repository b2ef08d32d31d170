"""What the routes of the service and the pages of the console share. Source: specs/service.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.to_thread

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ingest, work_queue
from sealpack.settlement.ack import Signers
from sealpack.settlement.service.limits import Limits, Meter
from sealpack.verifier.cli import support

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Service:
    """A database and who may ask it how much. Without `signers` no acknowledgement is made, only stored ones
    are given."""

    database: db.Database
    signers: Signers | None = None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], int] = support.now
    queue: bool = False  # uploads are kept, and decided by workers
    meter: Meter = field(init=False)
    uploading: int = 0
    _writers: anyio.CapacityLimiter = field(init=False)
    _readers: anyio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.meter = Meter(self.limits)
        self._writers = anyio.CapacityLimiter(self.limits.uploads)
        self._readers = anyio.CapacityLimiter(self.limits.readers)

    async def read(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """Do something in a thread, as many at a time as there are readers."""
        return await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._readers)

    async def write(self, work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
        """The same for what takes long."""
        return await anyio.to_thread.run_sync(partial(work, *args, **more), limiter=self._writers)

    async def query(self, work: Callable[..., T], *args: Any) -> T:
        """Call `work(connection, *args)` on one moment of the database."""
        return await self.read(self.look, work, *args)

    def look(self, work: Callable[..., T], *args: Any) -> T:
        """The same in this thread."""
        with self.database.read() as connection:
            return work(connection, *args)

    def finish(self) -> None:
        """Do what an earlier process left undone: files that were kept and never decided."""
        if self.queue:
            work_queue.add_undecided(self.database, self.clock())
            return
        try:
            ingest.release(self.database, self.clock())
        except SealpackError as error:
            if error.code != "TRUST_UNPINNED":  # nothing can be decided yet
                raise

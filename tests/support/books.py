"""Settlement with a vendor's registry, for tests: a database, and what one asks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format.keys import PrivateKey
from sealpack.settlement import ack, db, importing, ingest, logs, registry
from sealpack.settlement.ack import Reply, Signers
from sealpack.settlement.logs import Log
from sealpack.settlement.outcomes import Outcome
from sealpack.settlement.plan import Plan
from support import rating_plans, world
from support.device import Device, registry as registry_lines

NOW = world.T0 + 5 * 86_400
SIGNERS = Signers(world.SETTLEMENT)
CUSTOMERS = {
    "schema": "sealpack/customers/v1",
    "customers": [{"id": "hospital", "legal_name": "Hospital Nord gGmbH", "address": ["Am Kai 1", "Kiel"]}],
}


@dataclass
class Books:
    """A settlement database in a folder, or at the `url` of one on a server."""

    folder: Path
    database: db.Database
    url: str | None = None

    @classmethod
    def open(cls, folder: Path, url: str | None = None) -> Books:
        """An empty one."""
        return cls(folder, db.Database.open(url or folder / "settlement.db"), url)

    @property
    def address(self) -> str:
        """What `settle --db` takes."""
        return self.url or str(self.folder / "settlement.db")

    def learn(self, *devices: Device, plan: Plan | None = None) -> Books:
        """Import trust, a plan and the registry lines of devices."""
        trust = devices[0].trust if devices else world.make_trust()
        self.take("trust.json", trust.to_bytes())
        with self.database.write() as connection:
            registry.put_plan(connection, plan or rating_plans.make_plan())
        self.take("customers.json", json.dumps(CUSTOMERS).encode())
        if devices:
            self.take("registry.jsonl", registry_lines(*devices))
        return self

    def take(self, name: str, data: bytes) -> str:
        """Import a file with that content."""
        path = self.folder / name
        path.write_bytes(data)
        return importing.import_file(self.database, path)

    def ingest(self, data: bytes, name: str = "a.usage.gz", now: int = NOW) -> list[Outcome]:
        """Ingest a file; all outcomes."""
        return ingest.ingest(self.database, data, name, now)

    def code(self, data: bytes, now: int = NOW) -> str:
        """Ingest a file; its code."""
        return self.ingest(data, now=now)[0].code

    def log(self, device: Device) -> Log:
        """The device's log as settlement holds it."""
        with self.database.read() as connection:
            found = logs.load(connection, device.origin)
        assert found is not None
        return found

    def reply(self, device: Device, now: int = NOW, signers: Signers = SIGNERS) -> Reply:
        """The newest acknowledgement."""
        (found,) = ack.replies(self.database, signers, [device.origin], now)
        return found

    def rows(self, table: sa.Table) -> list[dict[str, Any]]:
        """Every row of a table, in the order of its key."""
        with self.database.read() as connection:
            found = connection.execute(sa.select(table).order_by(*table.primary_key.columns))
            return [dict(row._mapping) for row in found]

    def codes(self) -> list[str]:
        """The outcome codes of every stored file, sorted."""
        return sorted(row["code"] for row in self.rows(db.files))


def settlement_pem(folder: Path, key: PrivateKey = world.SETTLEMENT) -> Path:
    """The settlement key as a file."""
    path = folder / "settlement.pem"
    path.write_bytes(key.to_pem())
    return path

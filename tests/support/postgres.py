"""A PostgreSQL server for tests: its own folder, an unprivileged user, a unix socket and nothing else.

Durable as in production (fsync on), so that it can be killed and must still know everything.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.settlement import db, postgres

USER = "sealpack"


def binaries() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _unprivileged() -> dict[str, Any]:
    """How to start a program that refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@dataclass
class Server:
    """A server in a folder; `url(name)` is the address of a database in it."""

    folder: Path
    programs: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    _numbers: count[int] = field(default_factory=count)
    _idle: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, programs: Path, *options: str) -> Server:
        """A new cluster, running."""
        # Not under a test's own folder: nobody but its owner may enter that, and a socket's path is short.
        folder = Path(tempfile.mkdtemp(prefix="sealpack-pg-"))
        server = cls(folder, programs, options)
        who = _unprivileged()
        if who:
            os.chown(folder, who["user"], who["group"])
        try:
            server._run(
                "initdb", "-D", "data", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N"
            )
        except RuntimeError:
            shutil.rmtree(folder)
            raise
        server.start()
        return server

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.programs / program, *arguments], cwd=self.folder, capture_output=True, text=True,
            **_unprivileged(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr}")

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "on",
            "max_connections": "40",
            "shared_buffers": "64MB",
            "deadlock_timeout": "100ms",
        }
        given = [f"--{name}={value}" for name, value in settings.items()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", "data", *given, *self.options],
                cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **_unprivileged(),
            )  # fmt: skip
        engine = sa.create_engine(sa.make_url(self.url("postgres")).set(drivername=postgres.DRIVER))
        deadline = time.monotonic() + 60
        while True:
            try:
                engine.connect().close()
                engine.dispose()
                return
            except sa.exc.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill -9: the server and every process of it, at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self._ended()

    def stop(self) -> None:
        """Stop without waiting for clients."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self._ended()

    def _ended(self) -> None:
        assert self.process is not None
        self.process.wait()
        # Backends of a killed server notice it themselves; a new one refuses to start before they are gone.
        (self.folder / "data/postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop and forget everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def sql(self, name: str, *statements: str) -> None:
        """Run statements in a database, each for itself."""
        url = sa.make_url(self.url(name)).set(drivername=postgres.DRIVER)
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    def fresh(self) -> str:
        """The address of a new database with nothing in it."""
        name = f"t{next(self._numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    @contextmanager
    def lent(self) -> Iterator[str]:
        """A database with empty tables; much faster than a new one."""
        url = self._idle.pop() if self._idle else self.fresh()
        yield url
        name = sa.make_url(url).database or ""
        self.sql(name, "DELETE FROM about")  # a test may have left a version of its own, or dropped tables
        db.Database.open(url).close()
        self.sql(name, *(f"DELETE FROM {table.name}" for table in reversed(db.metadata.sorted_tables)))
        self._idle.append(url)

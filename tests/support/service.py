"""The settlement service for tests: a real server on a free port, and tokens to call it with."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from sealpack.settlement import db
from sealpack.settlement.audit import Actor
from sealpack.settlement.service import tokens
from sealpack.settlement.service.app import Service
from sealpack.settlement.service.server import Address, configure
from support.books import NOW

SCOPES = {"creator": "party:creator:acme", "device": "customer:hospital"}


def make_token(database: db.Database, role: str, scope: str | None = None, days: int | None = None) -> str:
    """A token of that role, called by role and scope."""
    scope = SCOPES.get(role, "") if scope is None else scope
    name = f"{role} {scope}".replace(":", "-").strip()
    return tokens.new(database, name, role, scope, days, actor=Actor("tests", NOW))


@contextmanager
def running(service: Service, address: Address | None = None) -> Iterator[str]:
    """The address of a server in a thread."""
    address = address or Address("127.0.0.1", 0)
    server = uvicorn.Server(configure(service, address))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http{'s' if address.certificate else ''}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

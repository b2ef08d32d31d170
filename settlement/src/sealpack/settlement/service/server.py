"""Running the service: one socket, uvicorn behind it, and a bound on how long a request's head may take.

Source: specs/service.md, "Running". uvicorn bounds the time between requests and the number of connections;
it waits for ever for the head of a request that trickles in, so that is bounded here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sealpack.format.errors import SealpackError
from sealpack.settlement import users
from sealpack.settlement.console import entry
from sealpack.settlement.console.app import Console
from sealpack.settlement.service.app import make_app
from sealpack.settlement.service.core import Service

CONNECTIONS = 256
_KEEP_ALIVE_S = 15
_GRACE_S = 30  # for what is running when the service is told to stop
_HEAD_BYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    certificate: str | None = None
    key: str | None = None
    behind_proxy: bool = False

    @property
    def is_secure(self) -> bool:
        """Whether browsers come over TLS."""
        return bool(self.certificate) or self.behind_proxy

    def check(self) -> None:
        """USAGE for an address that others reach while what is said can be read on the way."""
        if (self.certificate is None) != (self.key is None):
            raise SealpackError("USAGE", "--tls-cert and --tls-key go together")
        if not (is_loopback(self.host) or self.certificate or self.behind_proxy):
            raise SealpackError(
                "USAGE", f"{self.host} can be reached from elsewhere, and tokens would travel unencrypted",
                remedy="give --tls-cert and --tls-key, or --behind-proxy when a proxy in front does TLS",
            )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host; names other than localhost are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(service: Service, address: Address, tell: Any = print) -> None:
    """Listen until stopped by a signal. USAGE, IO_ERROR."""
    address.check()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    console = Console(service, address.is_secure, address.behind_proxy, _setup_code(service))
    config = configure(service, address, console)
    try:
        config.load()
    except OSError as error:  # certificate or key; ssl's errors are of this kind
        raise SealpackError("IO_ERROR", f"{address.certificate}: {error}") from None
    with _listen(address) as listener:
        service.finish()
        port = listener.getsockname()[1]
        shown = f"[{address.host}]" if ":" in address.host else address.host
        tell(f"sealpack: listening on {'https' if address.certificate else 'http'}://{shown}:{port}")
        if console.code:
            tell(f"sealpack: nobody can log in yet: open /console/ there; set-up code: {console.code}")
        uvicorn.Server(config).run(sockets=[listener])


def _setup_code(service: Service) -> str | None:
    """What the first admin must know, while there is no user."""
    with service.database.read() as connection:
        return None if users.any_there(connection) else entry.new_code()


def configure(service: Service, address: Address, console: Console | None = None) -> uvicorn.Config:
    """How uvicorn runs the service."""
    idle_s = service.limits.idle_s

    class Bounded(PatientProtocol):
        head_s = idle_s

    return uvicorn.Config(
        make_app(service, console), http=Bounded, ws="none", lifespan="off", log_config=None,
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S, h11_max_incomplete_event_size=_HEAD_BYTES,
        ssl_certfile=address.certificate, ssl_keyfile=address.key,
    )  # fmt: skip


class PatientProtocol(H11Protocol):
    """uvicorn's, patient for `head_s` seconds and no longer with the head of a request."""

    head_s = 30.0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head must come now."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A head that is whole ends the wait; the first piece of another begins one."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(self.head_s, self.transport.close)

    def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise SealpackError("IO_ERROR", f"{address.host} port {address.port}: {said}") from None

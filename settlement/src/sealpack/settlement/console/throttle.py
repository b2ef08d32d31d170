"""How often somebody may try a password. Source: specs/console.md, "Login".

Three counts run beside each other: of a name from an address, so that guessing ends soon; of an address, for
whoever tries many names; of a name, for whoever has many addresses. Only failures count.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from sealpack.format.errors import SealpackError

_REMEMBERED = 50_000
_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^]]*)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Rate:
    """So many failures at once, then one every so many seconds."""

    burst: int
    every_s: int


PAIR, ADDRESS, NAME = Rate(5, 60), Rate(30, 20), Rate(50, 30)


@dataclass(slots=True)
class Throttle:
    """Failures of the last minutes, in memory; a restart forgets them."""

    clock: Callable[[], float] = time.monotonic
    _failures: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def begin(self, name: str, address: str) -> None:
        """A try, which counts as failed until `succeeded` says otherwise.

        RATE_LIMITED says when to come again; the same for names that there are not.
        """
        now, keys = self.clock(), _keys(name, address)
        wait = max((self._count(key, rate, now) - rate.burst + 1) * rate.every_s for key, rate in keys)
        if wait > 0:
            seconds = max(1, round(wait))
            raise SealpackError(
                "RATE_LIMITED", f"too many tries; the next one may come in {seconds} s",
                remedy="wait, then try again", retry_after_s=seconds,
            )  # fmt: skip
        for key, rate in keys:
            self._failures[key] = (self._count(key, rate, now) + 1, now)
            self._failures.move_to_end(key)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Take back what `begin` counted."""
        now = self.clock()
        for key, rate in _keys(name, address):
            self._failures[key] = (max(0.0, self._count(key, rate, now) - 1), now)

    def _count(self, key: str, rate: Rate, now: float) -> float:
        count, at = self._failures.get(key, (0.0, now))
        return max(0.0, count - (now - at) / rate.every_s)


def _keys(name: str, address: str) -> tuple[tuple[str, Rate], ...]:
    name, address = name.strip().lower()[:64], _network(address)
    return (f"{name} from {address}", PAIR), (f"from {address}", ADDRESS), (f"{name} from", NAME)


def _network(address: str) -> str:
    """An address, or the network that one customer of a provider has. Some proxies say the port, too."""
    plain = _WITH_PORT.fullmatch(address)
    try:
        found = ipaddress.ip_address(plain["v6"] or plain["v4"] if plain else address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), 64), strict=False))

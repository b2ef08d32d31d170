"""The machine as the runtime sees it: clock readings, virtual machine or container, own digest."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sealpack.runtime.clock import Reading

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CPUINFO = Path("/proc/cpuinfo")


def reading() -> Reading:
    """Look at the clocks once: wall and time since boot in ms, and which boot this is."""
    wall = int(time.time() * 1000)
    return Reading(wall if wall >= 0 else None, uptime_ms(), boot_id())


def uptime_ms() -> int:
    """Milliseconds since the machine started, counting sleep where the system tells it."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


@cache
def boot_id() -> str:
    """A name for this boot of the machine."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Good to a few seconds, and only compared with itself.
        return f"started-{(time.time_ns() // 1_000_000 - uptime_ms()) // 10_000}"


def in_container() -> bool:
    """Whether this process runs in a container, as far as containers say so."""
    marks = ("/.dockerenv", "/run/.containerenv")
    return "container" in os.environ or any(Path(mark).exists() for mark in marks)


def in_virtual_machine() -> bool:
    """Whether the processor reports a hypervisor."""
    try:
        return " hypervisor" in _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False


def frozen() -> bool:
    """Whether this is the frozen executable."""
    return bool(getattr(sys, "frozen", False))


@cache
def runtime_version() -> str:
    """The installed version."""
    return version("sealpack")


@cache
def runtime_digest() -> str:
    """Hex SHA-256 that names this runtime: of the executable when frozen, else of its own sources."""
    if frozen():
        return hashlib.sha256(Path(sys.executable).read_bytes()).hexdigest()
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()

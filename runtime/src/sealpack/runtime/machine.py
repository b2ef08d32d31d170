"""The machine as the runtime sees it: clock readings, virtual machine or container, own digest.

What the system tells of itself is read below :data:`ROOT`, so that a folder can stand for any machine.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sealpack.runtime.clock import Reading

ROOT = Path("/")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_VARIABLE = "container"  # set by systemd-nspawn, podman and LXC
_MAX_BYTES = 1 << 16  # of a file in /proc or /sys; /proc/cpuinfo of many processors is longer than needed

# Makers and products of machines that are programs. Xen and Amazon also rent out real machines.
_VIRTUAL = re.compile(
    r"QEMU|\bKVM\b|VMware|VirtualBox|innotek|\bXen\b|Virtual Machine|Bochs|Parallels|\bbhyve\b|OpenStack"
    r"|Google Compute Engine|\bRHEV\b|oVirt|Nutanix AHV|Apple Virtualization|Firecracker|Cloud Hypervisor",
    re.IGNORECASE,
)
_CONTAINER = re.compile(
    r"\b(docker|containerd|containers/storage|kubepods|libpod|podman|crio|lxc|garden|buildkit)\b"
)


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


def told(name: str) -> str:
    """What a file below :data:`ROOT` says, without white space around it; "" when it cannot be read."""
    try:
        with (ROOT / name).open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace").strip().strip("\0")
    except OSError:
        return ""


def in_container() -> str:
    """What shows that this process runs in a container, as far as containers say so; "" for nothing."""
    return next(_container_marks(), "")


def _container_marks() -> Iterator[str]:
    for mark in (".dockerenv", "run/.containerenv"):
        if (ROOT / mark).exists():
            yield f"/{mark}"
    if manager := told("run/systemd/container"):
        yield f"/run/systemd/container says {manager[:40]}"
    if manager := os.environ.get(_VARIABLE, ""):
        yield f"the variable {_VARIABLE} is {manager[:40]!r}"
    if found := _CONTAINER.search(told("proc/1/cgroup")):
        yield f"/proc/1/cgroup names {found[0]}"
    for line in told("proc/1/mountinfo").splitlines():
        # A root made of layers alone is no sign: live and read-only systems have one too.
        if line.split(" ")[4:5] == ["/"] and (found := _CONTAINER.search(line)):
            yield f"the root file system is one of {found[0]}"


def in_virtual_machine() -> str:
    """What shows that the machine is a virtual one; "" for nothing."""
    return next(_virtual_marks(), "")


def _virtual_marks() -> Iterator[str]:
    if "control_d" in told("proc/xen/capabilities"):
        return  # the system that runs the others, on a real machine
    for name in ("sys_vendor", "product_name", "board_vendor", "bios_vendor"):
        value = told(f"sys/class/dmi/id/{name}")
        if _VIRTUAL.search(value):
            yield f"{name} is {value[:60]}"
    if kind := told("sys/hypervisor/type"):
        yield f"/sys/hypervisor/type is {kind[:40]}"
    if re.search(r"^flags\s*:.* hypervisor\b", told("proc/cpuinfo"), re.MULTILINE):
        yield "the processor reports a hypervisor"


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

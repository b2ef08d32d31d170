"""What the processor offers: thread count within the machine's and the cgroup's means, and AVX2.

Spinning threads on shared cores cost a factor of twenty and more, so the count is always explicit.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from sealpack.format.errors import SealpackError

_CGROUP2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP1 = Path("/sys/fs/cgroup/cpu")
MAX_THREADS = 1024
_CPUINFO = Path("/proc/cpuinfo")


def default_threads() -> int:
    """Physical cores less one, at least 1, never above the affinity mask or the cgroup quota."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = min(usable or 1, cgroup_cpus() or usable or 1)
    return max(1, min(physical_cores(_text(_CPUINFO)) - 1, limit))


def choose_threads(wanted: int | None) -> int:
    """The thread count to use: what was asked for, else the default."""
    if wanted is None:
        return default_threads()
    if not 1 <= wanted <= MAX_THREADS:
        raise SealpackError("USAGE", f"threads is {wanted}, not 1 to {MAX_THREADS}")
    return wanted


def physical_cores(cpuinfo: str) -> int:
    """Distinct (package, core) pairs in /proc/cpuinfo; the logical count where it says none."""
    cores = set()
    package = "0"
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            package = value.strip()
        elif key.strip() == "core id":
            cores.add((package, value.strip()))
    return len(cores) or os.cpu_count() or 1


def cgroup_cpus() -> int | None:
    """Whole CPUs the cgroup grants, rounded down but at least 1; None when unlimited."""
    quota, _, period = _text(_CGROUP2).partition(" ")
    if not period:
        quota = _text(_CGROUP1 / "cpu.cfs_quota_us")
        period = _text(_CGROUP1 / "cpu.cfs_period_us")
    try:
        granted = int(quota) // int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return max(1, granted) if int(quota) > 0 else None


def require_avx2() -> None:
    """CPU_UNSUPPORTED on an x86-64 processor without AVX2, instead of a crash by illegal opcode."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return
    flags = next((x for x in _text(_CPUINFO).splitlines() if x.startswith("flags")), None)
    if flags is not None and "avx2" not in flags.split():
        raise SealpackError("CPU_UNSUPPORTED", "this processor has no AVX2, the GGUF engine needs it")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def processor() -> tuple[str | None, int]:
    """The processor's name, where the system tells it, and its physical cores."""
    cpuinfo = _text(_CPUINFO)
    names = (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name"))
    return next(names, None) or None, physical_cores(cpuinfo)

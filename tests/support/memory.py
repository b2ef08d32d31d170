"""The peak resident memory of one process, and of one `sealpack` command.

Not `ru_maxrss`: on Linux that of a child begins with its parent's peak, which fork and exec hand on, so that
a large test process would speak for a small command. `VmHWM` is of the program that runs. Linux only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def peak() -> int:
    """The most bytes this process has had in memory since its program began."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def peak_of(*arguments: str) -> int:
    """Run `sealpack` with these arguments to a good end; its peak in bytes."""
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)
    return int(done.stderr.splitlines()[-1])


if __name__ == "__main__":
    from sealpack.verifier.cli.main import make_cli, run

    status = run(make_cli())
    print(peak(), file=sys.stderr)
    sys.exit(status)

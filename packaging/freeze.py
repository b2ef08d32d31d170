"""Freeze the customer's and the security team's executables with PyInstaller.

usage: freeze.py [--out dist] [--roots trust.json] [--only runtime|verify]

`dist/sealpack-runtime/` is a folder; `--roots` puts the trust file into it as `roots.json`: the only roots
a frozen runtime ever believes. `dist/sealpack-verify` is one file. Both need glibc at least as new as the
machine they are frozen on.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STRIPPED = ("libpython3", "_rust.abi3", "libllama", "libggml", "libcrypto", "libsqlite3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"))
    parser.add_argument("--roots", type=Path, help="trust file to put beside the runtime")
    parser.add_argument("--only", choices=("runtime", "verify"))
    args = parser.parse_args()
    if args.roots is not None and not args.roots.is_file():
        parser.error(f"{args.roots} does not exist")
    for name in ("verify", "runtime"):
        if args.only in (None, name):
            _freeze(f"sealpack-{name}", args.out)
    folder = args.out / "sealpack-runtime"
    if args.only != "verify":
        _link_twins(folder)
        _strip(folder)
        if args.roots is not None:
            shutil.copyfile(args.roots, folder / "roots.json")


def _freeze(name: str, out: Path) -> None:
    # A fixed hash seed and date make two builds of one tree the same bytes.
    environment = os.environ | {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "1767225600"}
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"]
        command += ["--distpath", str(out.absolute()), "--workpath", work]
        subprocess.run([*command, str(HERE / "frozen" / f"{name}.spec")], check=True, env=environment)


def _link_twins(folder: Path) -> None:
    """`lib*.so.0` becomes a link to the equal `lib*.so` beside it."""
    for twin in folder.glob("lib/llama_cpp/lib/lib*.so.0"):
        original = twin.with_name(twin.name.removesuffix(".0"))
        if not twin.is_symlink() and filecmp.cmp(twin, original, shallow=False):
            twin.unlink()
            twin.symlink_to(original.name)


def _strip(folder: Path) -> None:
    """Strip only libraries that survive it: wheels patched by patchelf do not."""
    if shutil.which("strip") is None:
        return
    for path in folder.rglob("*.so*"):
        if path.name.startswith(STRIPPED) and not path.is_symlink():
            subprocess.run(["strip", "--strip-unneeded", "-p", str(path)], check=True)


if __name__ == "__main__":
    main()

"""Writing test vectors: one folder per case, `case.json` and its input files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any


class Cases:
    """Collects cases of one format."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, bytes]] = {}

    def add(self, name: str, description: str, expect: str, files: dict[str, bytes], **more: Any) -> None:
        """One case; a file named `*.gz` is compressed here, so that vectors of bundles stay small."""
        if name in self.made:
            raise ValueError(f"case {name} is there already")
        case = {"description": description, "expect": expect, **more}
        packed = {n: gzip.compress(d, mtime=0) if n.endswith(".gz") else d for n, d in files.items()}
        self.made[name] = {"case.json": json.dumps(case, indent=2).encode() + b"\n", **packed}

    def write(self, folder: Path) -> None:
        """Write every case below `folder`."""
        for name, files in self.made.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file, data in files.items():
                (folder / name / file).write_bytes(data)

"""Write the bundle vectors: `python specs/vectors/bundle/generate.py [FOLDER]`; `--count` counts them.

Each case is `case.json` and `bundle.sealpack.gz`, gzip of a bundle to be verified, content and all: with
the public key in `key` (and the ML-DSA key in `mldsa_key`) where given, else with the case's own
`trust.json`, else with the one beside the cases. `group` is one of the seven below (specs/verification.md,
"Attack corpus"), `exit` the exit status, and `check`, where it stands, names the check that fails; `header`
is `whole` where only a reader of whole ONNX headers can see the fault. The cases are in `corpus/`, a module
per group; all keys are test keys.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import json
from collections import Counter
from typing import Any

from corpus import consistency, container, evidence, json_faults, model, signature, trust
from support import world
from support.vectors import Cases

from sealpack.format.errors import CODES
from sealpack.format.trust import Trust

GROUPS = {
    "container": container.cases,
    "signature": signature.cases,
    "json": json_faults.cases,
    "consistency": consistency.cases,
    "trust": trust.cases,
    "model": model.cases,
    "evidence": evidence.cases,
}


def collect() -> Cases:
    """Every case of every group."""
    cases = Cases()
    for group, make in GROUPS.items():

        def add(
            name: str,
            description: str,
            expect: str,
            data: bytes,
            trust: Trust | None = None,
            group: str = group,
            **more: Any,
        ) -> None:
            files = {"bundle.sealpack.gz": data}
            if trust is not None:
                files["trust.json"] = trust.to_bytes()
            status = 0 if expect == "ok" else CODES[expect].exit
            cases.add(name, description, expect, files, group=group, exit=status, **more)

        make(add)
    return cases


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file most of them are checked with."""
    collect().write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


def count() -> str:
    """How many cases each group has, and how many of them are good bundles."""
    cases = [json.loads(files["case.json"]) for files in collect().made.values()]
    found = Counter((case["group"], case["expect"] == "ok") for case in cases)
    rows = [(group, found[group, False], found[group, True]) for group in GROUPS]
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    lines = [
        f"{'group':<13}{'refused':>8}{'good':>6}",
        *(f"{g:<13}{bad:>8}{good:>6}" for g, bad, good in rows),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--count"]:
        print(count())
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""Write the terms vectors: `python specs/vectors/terms/generate.py [FOLDER]`.

Each case is `case.json` and `terms.json`, the bytes of a bundle's `license/terms.json`. `expect` is "ok"
or the code a reader raises; a good case also gives the terms digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from sealpack.format import canonical

GOOD: dict[str, Any] = {
    "schema": "sealpack/terms/v1",
    "spdx": "LicenseRef-acme-model",
    "text": "license/LICENSE.txt",
    "text_sha256": hashlib.sha256(b"Acme model license, test text.\n").hexdigest(),
    "title": "Acme model license",
    "allow": ["business"],
    "deny": ["redistribution"],
    "ack_required": True,
    "plan": {"id": "edge-pro", "version": 1},
}


def but(**members: Any) -> bytes:
    """The good terms with members replaced, or removed where the value is None."""
    changed = {key: value for key, value in {**GOOD, **members}.items() if value is not None}
    return canonical.dumps(changed)


CASES: dict[str, tuple[str, str, bytes]] = {
    "good": ("Every member.", "ok", but()),
    "least": (
        "Only what must be there.",
        "ok",
        canonical.dumps({k: GOOD[k] for k in ("schema", "spdx", "text", "text_sha256")}),
    ),
    "unknown-member": ("A member of a later version is ignored.", "ok", but(colour="blue")),
    "unknown-crit": ("A critical name nobody knows.", "DOC_CRIT", but(crit=["colour"])),
    "other-schema": ("Another document.", "DOC_SCHEMA", but(schema="sealpack/manifest/v1")),
    "no-spdx": ("The license is not named.", "DOC_SCHEMA", but(spdx=None)),
    "text-outside": ("The text must lie in license/.", "DOC_SCHEMA", but(text="license/../card.md")),
    "digest-upper-case": (
        "Digests are lower case.",
        "DOC_SCHEMA",
        but(text_sha256=str(GOOD["text_sha256"]).upper()),
    ),
    "allow-not-text": ("Uses are words.", "DOC_SCHEMA", but(allow=[1])),
    "ack-not-boolean": ("1 is not true.", "DOC_SCHEMA", but(ack_required=1)),
    "plan-version-0": ("Plan versions count from 1.", "DOC_SCHEMA", but(plan={"id": "p", "version": 0})),
    "too-many-uses": ("65 uses.", "DOC_SCHEMA", but(allow=[f"use-{n}" for n in range(65)])),
    "duplicate-key": (
        "One key twice.",
        "JSON_INVALID",
        but().replace(b'"ack_required":', b'"ack_required":false,"ack_required":'),
    ),
    "not-canonical": ("A space.", "JSON_INVALID", but().replace(b":true", b": true")),
    "newline-at-end": ("Trailing data.", "JSON_INVALID", but() + b"\n"),
    "cut-short": ("The last byte is missing.", "JSON_INVALID", but()[:-1]),
    "too-large": ("More than 64 KiB.", "JSON_LIMIT", but(colour="x" * 65536)),
}


def main(folder: Path) -> None:
    """Write every case below `folder`."""
    for name, (description, expect, data) in CASES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        case = {"description": description, "expect": expect}
        if expect == "ok":
            case["terms_digest"] = hashlib.sha256(data).hexdigest()
        (folder / name / "case.json").write_text(json.dumps(case, indent=2) + "\n")
        (folder / name / "terms.json").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

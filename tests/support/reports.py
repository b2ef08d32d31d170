"""Bundles and reports for the tests of report forms: one that says much, one that is hostile everywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from sealpack.format import canonical
from sealpack.format.container import MIMETYPE
from sealpack.format.terms import Terms
from sealpack.verifier.report import Report
from support import world
from support.world import BundleSpec

NOW = world.T0 + 86_400
ATTACK = "</style><script>alert(1)</script><img src=x onerror='a()'>"
HOSTILE = ATTACK + '"$body &lt; \x1b[2J\u202e\r\n[x](javascript:a)'
CARD = b"""---
license: apache-2.0
---
# Notes encoder

A **small** encoder, tuned on *public* data, see [the paper](https://example.org/p.pdf) and `model.onnx`.
![plot](https://example.org/plot.png)

- finds similar notes
- groups reports
  by ward
1. not for diagnosis

| task | score |
|---|---:|
| STS-B | 0.82 |

> the creator's own figures

---
```python
print("<b>")
```
"""
TEXT = b"Apache License 2.0\n"
SAID: dict[str, Any] = {
    "name": "Notes encoder",
    "description": "Sentence encoder for notes.",
    "intended_use": "Search by staff.",
    "support": "support@acme.example",
    "recertify_by": "2027-10-01",
}


def rich(card: bytes = CARD, said: dict[str, Any] = SAID, terms: dict[str, Any] | None = None) -> bytes:
    """A bundle with card, terms, SBOM of several components and unsigned evidence; `said` in its manifest."""
    model = world.tiny_gguf()
    own = Terms(
        "Apache-2.0",
        "license/LICENSE.txt",
        hashlib.sha256(TEXT).hexdigest(),
        "Apache License 2.0",
        ("commercial use",),
        ("diagnosis",),
        "Acme Models",
        True,
    )
    extra = {
        "card.md": ("card", "text/markdown", card),
        "license/LICENSE.txt": ("license-text", "text/plain", TEXT),
        "license/terms.json": ("license-terms", "application/json", replace(own, **terms or {}).to_bytes()),
        "sbom.cdx.json": ("sbom", "application/vnd.cyclonedx+json", json.dumps(sbom(model)).encode()),
        "evidence/own.json": ("evidence", "application/json", b'{"accuracy": 0.9}'),
    }
    spec = BundleSpec(bundle_id="acme/notes", model=model, extra=extra)
    members = spec.members()
    members["manifest.json"] = canonical.dumps(canonical.loads(members["manifest.json"]) | said)
    return world.pack({"mimetype": MIMETYPE, "META/model.sig": spec.sign(members), **members})


def sbom(model: bytes, word: str = "") -> dict[str, Any]:
    """A CycloneDX document; `word` is added to every name."""
    supplier = {"name": f"Acme Models GmbH{word}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"supplier": supplier},
        "components": [
            {
                "type": "machine-learning-model",
                "name": f"notes{word}",
                "supplier": supplier,
                "licenses": [{"license": {"id": f"Apache-2.0{word}"}}],
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(model).hexdigest()}],
                "pedigree": {"ancestors": [{"name": f"all-MiniLM{word}", "version": "2"}]},
            },
            {
                "type": "data",
                "name": f"Clinical-STS{word}",
                "licenses": [{"license": {"name": f"DUA{word}"}}],
            },
            {"type": f"library{word}", "name": "tokenizers", "licenses": [{"expression": f"MIT{word}"}]},
        ],
    }


def evidence_facts() -> dict[str, Any]:
    """Facts as a bundle with verified evidence and a proven tier has them."""
    return {
        "evidence": [
            {
                "name": "evidence/eval.json",
                "signed": True,
                "verified": True,
                "evaluator": "Lab (test)",
                "keyid": "ab" * 32,
                "task": "embedding",
                "data": {"name": "STS", "digest": "cd" * 32, "format": "jsonl", "rows": 20},
                "method": {"evaluated": 20},
                "metrics": [{"name": "accuracy", "value": "0.91", "n": 20, "baseline": "0.5"}],
                "issued_at": world.T0,
                "valid_until": world.T0 + 10,
            },
            {"name": "evidence/other.json", "signed": True, "verified": False},
            {"name": "evidence/own.json", "signed": False},
        ],
        "tier": {
            "claimed": "Verified",
            "proven": "Verified",
            "policies": [{"name": "sealpack", "version": 1, "sha256": "ef" * 32}],
            "gates": [{"id": "min_rows", "tier": "Verified", "ok": True, "detail": "20 of 10 rows"}],
        },
        "custom_operators": ["com.example"],
        "policy": {"name": "team", "sha256": "12" * 32},
        "post_quantum": {"bundle": True},
    }


def poisoned(report: Report) -> Report:
    """The same report with a hostile word in every text of every fact and check, and in the path."""
    return Report(
        f"{report.path}{HOSTILE}",
        [
            replace(c, detail=f"{c.detail}{HOSTILE}", expected=HOSTILE, found=f"x{HOSTILE}")
            for c in report.checks
        ],
        _poison(report.facts),
        report.verified_at,
    )


def _poison(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _poison(v, k) for k, v in value.items()} | ({HOSTILE: 1} if key == "types" else {})
    if isinstance(value, list):
        return [_poison(item) for item in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value

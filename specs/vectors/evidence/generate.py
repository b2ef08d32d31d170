"""Write the evidence vectors: `python specs/vectors/evidence/generate.py [FOLDER]`.

Each case is `case.json` and `evidence.json`, opened under the `trust.json` beside the cases or its own for
the bundle id `bundle_id`. Where the case has a `manifest.json`, the evidence must also fit that manifest.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import json
from typing import Any

from support import evidence as made, world
from support.evidence import ASSESSOR, GONE, IO, payload, sealed
from support.vectors import Cases
from support.world import CREATOR, LICENSER, STRANGER, T0

from sealpack.format import canonical, documents, dsse
from sealpack.format.dsse import Envelope, Signature

OPTIONAL = {
    "subject__bundle_id": GONE, "data__fields": GONE, "data__license": GONE, "data__source": GONE,
    "metrics__0__unit": GONE, "metrics__0__baseline": GONE, "metrics__1__baseline": GONE,
    "performance__peak_memory_bytes": GONE, "performance__load_us": GONE, "environment__cpu": GONE,
    "environment__cores": GONE, "method__metered": GONE, "method__context": GONE, "notes": GONE,
}  # fmt: skip


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()

    def add(name: str, description: str, expect: str, envelope: Envelope, **more: Any) -> None:
        files = {"evidence.json": envelope.to_bytes()}
        if "trust" in more:
            files["trust.json"] = more.pop("trust").to_bytes()
        if "manifest" in more:
            files["manifest.json"] = more.pop("manifest")
        cases.add(name, description, expect, files, **({"bundle_id": "acme/tiny"} | more))

    add("good", "Every member.", "ok", sealed())
    add("good-least", "Only what must be there.", "ok", sealed(**OPTIONAL))
    add("good-creator", "The creator's own key and name.", "ok", sealed(CREATOR, evaluator=world.ISSUER))
    add("unknown-member", "A member of a later version.", "ok", sealed(mood="good"))
    _fields(add)
    _signers(add)
    _subjects(add)
    cases.write(folder)
    (folder / "trust.json").write_bytes(made.trust().to_bytes())


def _fields(add: Any) -> None:
    latency = {"p50": 3, "p90": 2, "p99": 4}
    metric = payload()["metrics"][0]
    file = payload()["subject"]["files"][0]
    for name, description, path, member in (
        ("schema", "Evidence of another version.", "schema", "sealpack/evidence/v2"),
        ("no-evaluator", "Nobody evaluated.", "evaluator", GONE),
        ("ends-before", "It ends when it begins.", "valid_until", T0 - made.DAY),
        ("issued-9999", "Issued after the last day that has a date.", "issued_at", 253_402_300_800),
        ("issued-text", "A time that is text.", "issued_at", "2026-09-21"),
        ("kind", "A kind of model that is not evaluated.", "subject__kind", "agent"),
        ("no-files", "About no file.", "subject__files", []),
        ("files-twice", "A file twice.", "subject__files", [file, file]),
        ("file-outside", "A file outside payload.", "subject__files__0__name", "card.md"),
        ("file-name", "A path that climbs.", "subject__files__0__name", "payload/../card.md"),
        ("file-digest", "A digest in upper case.", "subject__files__0__sha256", "AB" * 32),
        ("io-digest", "No digest of the processing.", "subject__io_sha256", GONE),
        ("task", "An unknown task.", "task", "divination"),
        ("data-digest", "A short digest of the data.", "data__digest", "12"),
        ("data-format", "Data in a format that runs code.", "data__format", "pickle"),
        ("no-rows", "Data without a row.", "data__rows", 0),
        ("evaluated-more", "More rows evaluated than there are.", "method__evaluated", 2001),
        ("no-metrics", "No figure.", "metrics", []),
        ("metric-twice", "A figure twice.", "metrics", [metric, metric]),
        ("metric-number", "A figure that is a number.", "metrics__0__value", 3),
        ("metric-exponent", "A figure with an exponent.", "metrics__0__value", "3e2"),
        ("metric-nan", "A figure that is none.", "metrics__0__value", "NaN"),
        ("metric-zeros", "A figure with a leading zero.", "metrics__0__value", "03.5"),
        ("metric-n", "A figure over no case.", "metrics__0__n", 0),
        ("metric-name", "A name with a space.", "metrics__0__name", "bits per token"),
        ("metric-direction", "No direction.", "metrics__0__higher_is_better", GONE),
        ("metric-baseline", "A baseline with an exponent.", "metrics__0__baseline", "1e1"),
        ("latency-falls", "Percentiles that fall.", "performance__latency_us", latency),
        ("throughput", "A rate without a digit before the point.", "performance__throughput", ".5"),
        ("memory-zero", "A process without memory.", "performance__peak_memory_bytes", 0),
        ("threads", "No thread.", "environment__threads", 0),
        ("samples", "More samples passed than run.", "samples__passed", 4),
    ):
        add(f"field-{name}", description, _code(name), sealed(**{path: member}))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", sealed(crit=["oath"]))


def _code(name: str) -> str:
    return "CONTAINER_NAME" if name == "file-name" else "DOC_SCHEMA"


def _signers(add: Any) -> None:
    good = sealed()
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", sealed(STRANGER))
    add("licenser", "Signed by a key for licenses.", "SIG_KEY_ROLE", sealed(LICENSER, evaluator=world.ISSUER))
    add("for-another", "The creator speaks for the assessor.", "SIG_KEY_ROLE", sealed(CREATOR))
    add("other-bundle", "For a bundle outside the key's namespaces.", "SIG_NAMESPACE", sealed(),
        bundle_id="other/tiny")  # fmt: skip
    add("names-other-bundle", "It names a bundle outside the key's namespaces.", "SIG_NAMESPACE",
        sealed(subject__bundle_id="other/tiny"))  # fmt: skip
    flipped = Envelope(good.payload_type, good.payload.replace(b'"3.250000"', b'"1.250000"'), good.signatures)
    add("changed", "A figure was changed.", "SIG_INVALID", flipped)
    cut = Envelope(good.payload_type, good.payload, (Signature(ASSESSOR.keyid, b"\x30\x00"),))
    add("signature-der", "A signature that is not DER.", "SIG_MALFORMED", cut)
    two = documents.seal("evidence", payload(), ASSESSOR, CREATOR)
    add("two-signatures", "Two signatures.", "DSSE_INVALID", two)
    add("other-kind", "A lease.", "DOC_TYPE", documents.seal("lease", payload(), ASSESSOR))
    foreign = dsse.sign("application/vnd.in-toto+json", good.payload, ASSESSOR)
    add("foreign-kind", "A payload type of somebody else.", "DOC_TYPE", foreign)
    spaced = dsse.sign(good.payload_type, json.dumps(json.loads(good.payload)).encode(), ASSESSOR)
    add("not-canonical", "Signed with spaces.", "JSON_INVALID", spaced)
    revoked = {"keyid": ASSESSOR.keyid, "good": []}
    add("key-revoked", "The assessor's key was revoked.", "KEY_REVOKED", good,
        trust=made.trust(keys=[revoked]))  # fmt: skip
    add("key-revoked-good", "The key was revoked, this document stays good.", "ok", good,
        trust=made.trust(keys=[revoked | {"good": [good.digest]}]))  # fmt: skip


def _subjects(add: Any) -> None:
    plain = made.spec().members()["manifest.json"]
    words = {"payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n")}
    asset = {"payload/logo.txt": ("asset", "text/plain", b"*\n")}

    def manifest(**io: Any) -> bytes:
        value = canonical.loads(plain)
        return canonical.dumps(value | {"io": value["io"] | io})

    add("fits", "About the manifest's model.", "ok", sealed(), manifest=plain)
    add("fits-asset", "An asset is no part of what is evaluated.", "ok", sealed(),
        manifest=made.spec(extra=asset).members()["manifest.json"])  # fmt: skip
    add("fits-ports", "The engine's ports are informative.", "ok", sealed(), manifest=manifest(inputs=[]))
    for name, description, envelope, data in (
        ("model", "About another model.", sealed(subject__files__0__sha256="00" * 32), plain),
        ("vocabulary", "The bundle has a vocabulary that was not there.", sealed(),
         made.spec(extra=words).members()["manifest.json"]),
        ("name", "The model under another name.", sealed(subject__files__0__name="payload/net.gguf"), plain),
        ("kind", "The right bytes as another kind.", sealed(subject__kind="onnx"), plain),
        ("task", "Another task.", sealed(), manifest(task="embedding")),
        ("samples", "A sample more.", sealed(), manifest(samples=[*IO["samples"], made.SAMPLE])),
        ("post", "Labels that were not there.", sealed(),
         manifest(post={"kind": "labels", "output": "y", "labels": ["a"]})),
    ):  # fmt: skip
        add(f"misfit-{name}", description, "EVIDENCE_MISMATCH", envelope, manifest=data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

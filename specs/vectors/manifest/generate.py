"""Write the manifest vectors: `python specs/vectors/manifest/generate.py [FOLDER]`.

Each case is `case.json` and `manifest.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import json
from collections.abc import Callable
from typing import Any

from support import world
from support.vectors import Cases

from sealpack.format import canonical

MODEL = "payload/model.gguf"
EIGHT = [f"{i:064x}" for i in range(8)]
BOUND = {"metric": "mae", "max": "0.5"}
GOOD: dict[str, Any] = json.loads(world.BundleSpec(model=world.tiny_gguf(8)).members()["manifest.json"])


def of(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A file of a manifest."""
    found: dict[str, Any] = next(f for f in value["files"] if f["name"] == name)
    return found


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The good manifest, changed, written canonically."""
    value = json.loads(json.dumps(GOOD))
    change(value)
    return canonical.dumps(value)


def main(folder: Path) -> None:
    """Write one folder per case."""
    cases = Cases()

    def add(name: str, description: str, expect: str, data: bytes) -> None:
        cases.add(name, description, expect, {"manifest.json": data})

    def bad(name: str, description: str, change: Callable[[dict[str, Any]], Any]) -> None:
        add(name, description, "MANIFEST_INVALID", changed(change))

    add("good", "One GGUF model with its chunk table.", "ok", changed(lambda v: None))
    add("good-full", "Every optional member.", "ok", changed(lambda v: v.update(FULL)))
    add("unknown-member", "A member of a later version.", "ok", changed(lambda v: v.update(mood="good")))
    proof = {"quality_tier": "Verified", "tier_proof": {"policies": ["ab" * 32], "thresholds": [BOUND]}}
    add("good-proof", "A claim that says how it was proven.", "ok", changed(lambda v: v.update(proof)))
    bare = {"quality_tier": "Verified", "tier_proof": {"policies": EIGHT, "thresholds": []}}
    add("good-proof-bare", "Eight policies, no threshold.", "ok", changed(lambda v: v.update(bare)))
    _members(bad)
    _proof(bad)
    _files(bad)
    _io(add, bad)
    add(
        "crit-unknown",
        "It requires what this version does not know.",
        "DOC_CRIT",
        changed(lambda v: v.update(crit=["quantum"])),
    )
    for name in ("../up", "a//b", "/abs", "a/./b", "nul", "größe", "a\\b", "x."):
        stem = name.encode("ascii", "replace").hex()
        add(
            f"name-{stem}",
            f"The file name {name!r}.",
            "CONTAINER_NAME",
            changed(lambda v, name=name: of(v, "card.md").update(name=name)),
        )
    add("not-canonical", "Written with spaces.", "JSON_INVALID", json.dumps(GOOD).encode())
    add(
        "float",
        "A number with a fraction.",
        "JSON_INVALID",
        changed(lambda v: None).replace(b'"release_index":1', b'"release_index":1.5'),
    )
    add(
        "deep",
        "Nested too deep.",
        "JSON_LIMIT",
        changed(lambda v: v["io"].update(samples=json.loads("[" * 20 + "]" * 20))),
    )
    cases.write(folder)


FULL: dict[str, Any] = {
    "intended_use": "tests", "description": "a model", "support": "help@acme.test",
    "plan": {"id": "pro", "version": 1}, "recertify_by": "2027-01-01",
    "watermark": {"scheme": "lsb", "params_sha256": "0" * 64, "commitment": "1" * 64, "license_id": "L-1"},
    "crit": ["watermark"], "requires_features": ["batch"],
}  # fmt: skip


def _members(bad: Any) -> None:
    for name, description, members in (
        ("schema", "A manifest of another version.", {"schema": "sealpack/manifest/v2"}),
        ("bundle-id", "A bundle id in upper case.", {"bundle_id": "Acme/tiny"}),
        ("bundle-id-path", "A bundle id that climbs.", {"bundle_id": "acme/../tiny"}),
        ("version", "A version with a leading zero.", {"version": "01.0"}),
        ("version-text", "A version with letters.", {"version": "1.0-rc1"}),
        ("release-0", "Releases count from 1.", {"release_index": 0}),
        ("release-text", "A release as text.", {"release_index": "1"}),
        ("kind", "An unknown kind.", {"kind": "pickle"}),
        ("tier", "An unknown quality tier.", {"quality_tier": "Best"}),
        ("engine", "engine is text.", {"engine": "llama.cpp"}),
        ("recertify", "A date of another form.", {"recertify_by": "1.1.2027"}),
        ("recertify-calendar", "A day that no calendar has.", {"recertify_by": "2027-02-30"}),
        ("plan", "A plan without version.", {"plan": {"id": "pro"}}),
        ("watermark", "A mark without commitment.", {"watermark": {"scheme": "lsb"}}),
        ("name-long", "A name of 201 characters.", {"name": "n" * 201}),
        ("encryption", "Encryption without a scheme.", {"encryption": {"files": []}}),
        ("features", "A feature with a space.", {"requires_features": ["batch mode"]}),
    ):  # fmt: skip
        bad(f"member-{name}", description, lambda v, members=members: v.update(members))
    bad("member-missing", "No bundle id.", lambda v: v.pop("bundle_id"))


def _proof(bad: Any) -> None:
    for name, description, members in (
        ("text", "A proof that is text.", "by hand"),
        ("no-policies", "A proof without policies.", {"thresholds": [BOUND]}),
        ("policies-none", "A proof by no policy.", {"policies": []}),
        ("policies-nine", "Nine policies.", {"policies": [f"{i:064x}" for i in range(9)]}),
        ("policies-twice", "A policy twice.", {"policies": ["ab" * 32] * 2}),
        ("policy-digest", "A digest in upper case.", {"policies": ["AB" * 32]}),
        ("thresholds", "17 thresholds.", {"thresholds": [BOUND] * 17}),
        ("metric", "A threshold without metric.", {"thresholds": [{"max": "1"}]}),
        ("metric-name", "A metric with a space.", {"thresholds": [BOUND | {"metric": "bits per token"}]}),
        ("no-bound", "A threshold without bound.", {"thresholds": [{"metric": "mae"}]}),
        ("two-bounds", "A threshold with two bounds.", {"thresholds": [BOUND | {"min": "1"}]}),
        ("bound-number", "A bound that is a number.", {"thresholds": [BOUND | {"max": 1}]}),
        ("bound-exponent", "A bound with an exponent.", {"thresholds": [BOUND | {"max": "1e3"}]}),
        ("bound-zeros", "A bound with a leading zero.", {"thresholds": [BOUND | {"max": "01"}]}),
    ):  # fmt: skip
        whole = {"policies": ["ab" * 32]}
        value = whole | members if isinstance(members, dict) and name != "no-policies" else members
        bad(f"proof-{name}", description, lambda v, value=value: v.update(tier_proof=value))


def _files(bad: Any) -> None:
    chunks = of(GOOD, MODEL)["chunks"]
    for name, description, members in (
        ("role", "An unknown role.", {"role": "virus"}),
        ("media-type", "A media type with a line break.", {"media_type": "text/plain\n"}),
        ("size", "A negative size.", {"size": -1}),
        ("digest", "A digest in upper case.", {"sha256": "A" * 64}),
        ("chunk-size", "Chunks of another size.", {"chunks": chunks | {"chunk_size": 1 << 19}}),
        ("chunk-count", "A leaf too many.", {"chunks": chunks | {"count": 2}}),
        ("chunk-table", "A table outside chunks/.", {"chunks": chunks | {"table": "card.md"}}),
        ("size-large", "A size that needs more leaves.", {"size": (1 << 20) + 1}),
    ):  # fmt: skip
        bad(f"file-{name}", description, lambda v, members=members: of(v, MODEL).update(members))
    bad("file-no-chunks", "Payload without a chunk table.", lambda v: of(v, MODEL).pop("chunks"))
    bad("file-chunks-outside", "A chunk table of metadata.", lambda v: of(v, "card.md").update(chunks=chunks))
    bad("files-unsorted", "Files in another order.", lambda v: v["files"].reverse())
    bad("files-twice", "A file stands twice.", lambda v: v["files"].insert(0, v["files"][0]))
    bad("files-no-model", "No model.", lambda v: of(v, MODEL).update(role="asset"))
    bad("files-two-models", "Two models.", lambda v: of(v, "card.md").update(role="model"))
    bad(
        "files-table-missing",
        "The chunk table is not listed.",
        lambda v: v["files"].remove(of(v, chunks["table"])),
    )
    bad(
        "files-table-role",
        "A chunk table in another role.",
        lambda v: of(v, chunks["table"]).update(role="asset"),
    )
    bad(
        "files-table-unused",
        "A chunk table nobody uses.",
        lambda v: of(v, "card.md").update(role="chunk-table"),
    )


def _io(add: Any, bad: Any) -> None:
    sample = {"input": {"prompt": "2+2="}, "expect": {"text": "4"}}
    pre, post = (
        {"kind": "wordpiece", "vocab": "card.md"},
        {"kind": "labels", "output": "y", "labels": ["a", "b"]},
    )
    add(
        "good-io",
        "Pre- and post-processing with a sample.",
        "ok",
        changed(
            lambda v: v.update(io={"task": "classification", "pre": pre, "post": post, "samples": [sample]})
        ),
    )
    for name, description, io in (
        ("task", "An unknown task.", {"task": "prophecy"}),
        ("vocab", "A vocabulary that is not in the bundle.",
         {"task": "embedding", "pre": pre | {"vocab": "v.txt"}}),
        ("vocab-missing", "Word pieces without a vocabulary.",
         {"task": "embedding", "pre": {"kind": "wordpiece"}}),
        ("labels", "Labels without names.",
         {"task": "classification", "post": {"kind": "labels", "output": "y"}}),
        ("sample-none", "A sample that expects nothing.",
         {"task": "tensor", "samples": [sample | {"expect": {}}]}),
        ("sample-two", "A sample with two inputs.",
         {"task": "tensor", "samples": [sample | {"input": {"prompt": "a", "text": "b"}}]}),
        ("decimal", "A tolerance that is no decimal.",
         {"task": "embedding",
          "samples": [sample | {"expect": {"embedding": ["0.1"], "tolerance": "1e-3"}}]}),
    ):  # fmt: skip
        bad(f"io-{name}", description, lambda v, io=io: v.update(io=io))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

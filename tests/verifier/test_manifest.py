"""Manifest, statement and chunk tables: the properties behind single faults, which stand in the vectors."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import world
from support.world import BundleSpec

from sealpack.format import canonical, statement
from sealpack.format.chunks import CHUNK_SIZE, chunk_count, digest_blocks
from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef
from sealpack.format.manifest import Manifest
from sealpack.format.statement import Statement, subject_digest

VOCAB = {"payload/vocab.txt": ("vocabulary", "text/plain", b"[PAD]\n")}
GOOD = BundleSpec(extra=VOCAB).members()["manifest.json"]


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


# --- manifest -------------------------------------------------------------------------------------------


def changed(**members: Any) -> bytes:
    value = canonical.loads(GOOD) | members
    return canonical.dumps({k: v for k, v in value.items() if v is not None})


def with_files(change: Any) -> bytes:
    files = canonical.loads(GOOD)["files"]
    return changed(files=change(files) or files)


def file_named(files: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(f for f in files if f["name"] == name)


def test_what_is_read_is_written_again() -> None:
    manifest = Manifest.from_bytes(GOOD)
    assert manifest.to_bytes() == GOOD
    assert manifest.bundle_digest == hashlib.sha256(GOOD).hexdigest()
    assert manifest.model.name == "payload/model.gguf"
    assert [e.name for e in manifest.with_role("chunk-table")] == ["chunks/0.sha256c", "chunks/1.sha256c"]


def test_optional_members_are_read() -> None:
    full = changed(
        intended_use="Tests.",
        description="A small model.",
        support="help@acme.example",
        plan={"id": "edge-pro", "version": 3},
        recertify_by="2027-11-21",
    )
    manifest = Manifest.from_bytes(full)
    assert manifest.plan == PlanRef("edge-pro", 3)
    assert manifest.to_bytes() == full


def test_unknown_members_are_ignored_but_digested() -> None:
    later = changed(colour="blue")
    assert Manifest.from_bytes(later) == Manifest.from_bytes(GOOD)
    assert Manifest.from_bytes(later).bundle_digest == hashlib.sha256(later).hexdigest()


def test_the_vocabulary_must_be_in_the_bundle() -> None:
    pre = {"kind": "wordpiece", "vocab": "payload/vocab.txt"}
    io = {"task": "embedding", "pre": pre}
    assert Manifest.from_bytes(changed(io=io)).model_io.pre is not None
    missing = {"task": "embedding", "pre": pre | {"vocab": "payload/other.txt"}}
    assert code_of(Manifest.from_bytes, changed(io=missing)) == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    "change",
    [
        lambda files: files[::-1],
        lambda files: files + files[-1:],
        lambda files: [f for f in files if f["role"] != "model"],
        lambda files: [f for f in files if f["name"] != "chunks/0.sha256c"],
        lambda files: file_named(files, "card.md").update(role="model"),
        lambda files: file_named(files, "card.md").update(role="chunk-table"),
        lambda files: file_named(files, "card.md").update(chunks=files[-2]["chunks"]),
        lambda files: file_named(files, "payload/vocab.txt").pop("chunks"),
        lambda files: file_named(files, "payload/vocab.txt").update(size=CHUNK_SIZE + 1),
        lambda files: file_named(files, "payload/vocab.txt")["chunks"].update(count=2),
        lambda files: file_named(files, "payload/vocab.txt")["chunks"].update(chunk_size=CHUNK_SIZE * 2),
        lambda files: file_named(files, "payload/vocab.txt")["chunks"].update(table="chunks/0.sha256c"),
        lambda files: file_named(files, "payload/vocab.txt")["chunks"].update(table="card.md"),
        lambda files: file_named(files, "card.md").update(media_type="markdown"),
        lambda files: file_named(files, "card.md").update(size=-1),
    ],
)
def test_files_that_contradict_each_other(change: Any) -> None:
    assert code_of(Manifest.from_bytes, with_files(change)) == "MANIFEST_INVALID"


@pytest.mark.parametrize("name", ["../x", "a//b", "card.md/", "nul", "card\n.md"])
def test_names_are_checked_here_too(name: str) -> None:
    data = with_files(lambda files: file_named(files, "card.md").update(name=name))
    assert code_of(Manifest.from_bytes, data) == "CONTAINER_NAME"


# --- statement ------------------------------------------------------------------------------------------

DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAME = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,8}(/[a-zA-Z0-9._-]{1,4}){0,2}", fullmatch=True).filter(
    lambda name: "." not in name.split("/") and ".." not in name.split("/")
)
RESOURCES = st.dictionaries(NAME, DIGEST, max_size=8)


def said(resources: dict[str, str], **members: Any) -> Statement:
    given_ones: dict[str, Any] = {
        "bundle_id": "acme/tiny",
        "release_index": 1,
        "manifest_sha256": "0" * 64,
        "signed_at": world.T0,
    }
    return Statement(resources, **given_ones | members)


@given(RESOURCES)
def test_statement_round_trip(resources: dict[str, str]) -> None:
    made = said(resources)
    read = Statement.from_bytes(made.to_bytes())
    assert read == made and read.to_bytes() == made.to_bytes()


@given(RESOURCES, st.randoms())
def test_statement_does_not_depend_on_order(resources: dict[str, str], shuffle: Any) -> None:
    names = list(resources)
    shuffle.shuffle(names)
    assert said({n: resources[n] for n in names}).to_bytes() == said(resources).to_bytes()


def test_resources_are_ordered_as_paths_not_as_text() -> None:
    """As model_signing does: `a/b` before `a.b`, because `a` is shorter than `a.b`."""
    resources = {"a.b": "1" * 64, "a/b": "2" * 64, "a-b": "3" * 64}
    listed = canonical.loads(said(resources).to_bytes())["predicate"]["resources"]
    assert [r["name"] for r in listed] == ["a/b", "a-b", "a.b"]
    assert (
        subject_digest(resources) == hashlib.sha256(bytes.fromhex("2" * 64 + "3" * 64 + "1" * 64)).hexdigest()
    )


@settings(max_examples=60)
@given(RESOURCES.filter(bool), DIGEST)
def test_the_subject_covers_every_digest(resources: dict[str, str], other: str) -> None:
    value = canonical.loads(said(resources).to_bytes())
    first = value["predicate"]["resources"][0]
    if first["digest"] != other:
        first["digest"] = other
        assert code_of(Statement.from_bytes, canonical.dumps(value)) == "SIG_SUBJECT"


def test_bundles_are_signed_with_p256_only() -> None:
    assert code_of(statement.sign, said({}), world.SETTLEMENT) == "USAGE"


def test_signing_is_deterministic() -> None:
    assert statement.sign(said({"a": "1" * 64}), world.CREATOR) == statement.sign(
        said({"a": "1" * 64}), world.CREATOR
    )
    signed = canonical.loads(statement.sign(said({}), world.CREATOR))
    assert signed["verificationMaterial"]["publicKey"]["hint"] == world.CREATOR.keyid


# --- chunk tables ---------------------------------------------------------------------------------------


def blocks(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), CHUNK_SIZE):
        yield data[at : at + CHUNK_SIZE]


SIZES = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE, 17 * CHUNK_SIZE + 5]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 3])
def test_leaves_are_plain_digests_of_each_mebibyte(size: int, threads: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    found = digest_blocks(blocks(data), threads=threads)
    assert found.table == b"".join(hashlib.sha256(b).digest() for b in blocks(data))
    assert (found.size, found.crc, found.sha256) == (size, zlib.crc32(data), hashlib.sha256(data).hexdigest())
    assert found.count == chunk_count(size)
    leaves = digest_blocks(blocks(data), whole=False, threads=threads)
    assert (leaves.table, leaves.size, leaves.sha256) == (found.table, size, "")


def test_memory_stays_bounded_however_large_the_file() -> None:
    """At most the pending batches are alive: a source that is read far ahead would fill the memory."""
    alive: list[int] = []

    class Block(bytes):
        def __new__(cls) -> Block:
            alive.append(1)
            return super().__new__(cls, 1024)

        def __del__(self) -> None:
            alive.pop()

    most = 0

    def source() -> Iterator[bytes]:
        nonlocal most
        for _ in range(2000):
            yield Block()
            most = max(most, len(alive))

    digest_blocks(source(), threads=2)
    assert most < 200


def test_a_fault_of_the_source_is_passed_on() -> None:
    def source() -> Iterator[bytes]:
        yield bytes(CHUNK_SIZE)
        raise SealpackError("CONTAINER_TRUNCATED", "ends early")

    assert code_of(digest_blocks, source()) == "CONTAINER_TRUNCATED"

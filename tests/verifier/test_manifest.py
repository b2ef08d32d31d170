"""The manifest: strict, canonical, and consistent in itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from support import world
from support.world import BundleSpec

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef, version_key
from sealpack.format.manifest import KINDS, ROLES, TIERS, Manifest, Watermark

DATA = BundleSpec(model=world.tiny_gguf(8)).members()["manifest.json"]
GOOD = Manifest.from_bytes(DATA)


def code_of(value: dict[str, Any]) -> str:
    with pytest.raises(SealpackError) as caught:
        Manifest.from_bytes(canonical.dumps(value))
    return caught.value.code


def test_round_trip_and_digest() -> None:
    assert GOOD.to_bytes() == DATA
    assert GOOD.bundle_digest == hashlib.sha256(DATA).hexdigest()
    assert replace(GOOD, data=b"").bundle_digest == GOOD.bundle_digest
    assert GOOD.model.name == "payload/model.gguf"
    assert [e.name for e in GOOD.with_role("chunk-table")] == ["chunks/0.sha256c"]


def test_optional_members_round_trip() -> None:
    mark = Watermark("lsb", "0" * 64, "1" * 64, "L-1")
    full = replace(
        GOOD,
        intended_use="tests",
        description="a model",
        support="help@acme.test",
        plan=PlanRef("pro", 2),
        recertify_by="2027-01-01",
        watermark=mark,
        data=b"",
    )
    read = Manifest.from_bytes(full.to_bytes())
    assert read == full
    assert json.loads(full.to_bytes())["crit"] == ["watermark"]


def test_an_unknown_member_stays_in_the_digest() -> None:
    """A reader of this version keeps the bytes it read: the digest is of those."""
    data = canonical.dumps(json.loads(DATA) | {"mood": "good"})
    read = Manifest.from_bytes(data)
    assert read == GOOD
    assert read.bundle_digest == hashlib.sha256(data).hexdigest() != GOOD.bundle_digest


REQUIRED = (
    "schema",
    "bundle_id",
    "version",
    "release_index",
    "kind",
    "name",
    "quality_tier",
    "files",
    "engine",
    "io",
)


@pytest.mark.parametrize("member", REQUIRED)
def test_required_members(member: str) -> None:
    value = json.loads(DATA)
    del value[member]
    assert code_of(value) == "MANIFEST_INVALID"


@pytest.mark.parametrize("member", REQUIRED)
@pytest.mark.parametrize("wrong", [7, True, "x" * 5000, [], [1]])
def test_members_are_typed(member: str, wrong: Any) -> None:
    if (member, wrong) != ("release_index", 7):
        assert code_of(json.loads(DATA) | {member: wrong}) == "MANIFEST_INVALID"


@pytest.mark.parametrize("member", ["name", "role", "media_type", "size", "sha256"])
def test_required_members_of_a_file(member: str) -> None:
    value = json.loads(DATA)
    del value["files"][0][member]
    assert code_of(value) == "MANIFEST_INVALID"


@pytest.mark.parametrize(
    ("member", "allowed"), [("kind", KINDS), ("quality_tier", TIERS)], ids=["kind", "quality_tier"]
)
def test_words_are_spelled_one_way(member: str, allowed: tuple[str, ...]) -> None:
    for word in allowed:
        assert (
            getattr(Manifest.from_bytes(canonical.dumps(json.loads(DATA) | {member: word})), member) == word
        )
        assert code_of(json.loads(DATA) | {member: word.swapcase()}) == "MANIFEST_INVALID"


def test_roles_other_than_the_model_may_stand_often() -> None:
    for role in set(ROLES) - {"model", "chunk-table"}:
        value = json.loads(DATA)
        value["files"][0]["role"] = role  # card.md
        assert Manifest.from_bytes(canonical.dumps(value)).with_role(role)


@pytest.mark.parametrize("version", ["1", "1.2", "1.2.3", "1.2.3.4", "0", "0.0.1", "999999999"])
def test_versions(version: str) -> None:
    assert Manifest.from_bytes(canonical.dumps(json.loads(DATA) | {"version": version})).version == version


@pytest.mark.parametrize(
    "version", ["", "1.", ".1", "1..2", "01", "1.2.3.4.5", "v1", "1.0-rc", "１", "1234567890", "1\n"]
)
def test_versions_that_are_none(version: str) -> None:
    assert code_of(json.loads(DATA) | {"version": version}) == "MANIFEST_INVALID"


def test_versions_compare_by_number() -> None:
    ordered = ["0", "0.9", "1", "1.2", "1.2.1", "1.10", "2", "10"]
    assert sorted(ordered, key=version_key) == ordered
    assert version_key("1.2") == version_key("1.2.0") == version_key("1.2.0.0")


@pytest.mark.parametrize(
    "bundle_id", ["Acme/x", "/acme", "acme/", "acme//x", "acme/..", ".acme", "a" * 201, "ac me"]
)
def test_bundle_ids_that_are_none(bundle_id: str) -> None:
    assert code_of(json.loads(DATA) | {"bundle_id": bundle_id}) == "MANIFEST_INVALID"

"""The signed statement: model_signing's form, our members, resources in one order."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.world import CREATOR, SETTLEMENT, T0, BundleSpec

from sealpack.format import canonical, statement
from sealpack.format.errors import SealpackError
from sealpack.format.statement import Statement, subject_digest

MEMBERS = BundleSpec().members()
SIG = BundleSpec().sign(MEMBERS)


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


def made(**members: Any) -> Statement:
    resources = {"manifest.json": "ab" * 32, "mimetype": "cd" * 32}
    said: dict[str, Any] = {
        "resources": resources,
        "bundle_id": "acme/tiny",
        "release_index": 3,
        "manifest_sha256": "ab" * 32,
        "signed_at": T0,
    }
    return Statement(**said | members)


def test_round_trip() -> None:
    said = made(required_schemes=("ecdsa-p256-sha256",), min_keyring=2, min_revocations=7)
    assert Statement.from_bytes(said.to_bytes()) == said


name = st.from_regex(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,5}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,5}){0,3}", fullmatch=True
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(name, st.binary(min_size=32, max_size=32), min_size=1, max_size=8))
def test_any_resources_round_trip_in_one_order(files: dict[str, bytes]) -> None:
    resources = {n: d.hex() for n, d in files.items()}
    data = made(resources=resources).to_bytes()
    assert data == made(resources=dict(reversed(resources.items()))).to_bytes()
    assert Statement.from_bytes(data).resources == resources


def test_order_is_by_path_segments() -> None:
    """`a/b` before `a.b`, though `.` is the smaller character: the order model_signing hashes in."""
    resources = {"a.b": "00" * 32, "a/b": "11" * 32, "a": "22" * 32}
    listed = json.loads(made(resources=resources).to_bytes())["predicate"]["resources"]
    assert [r["name"] for r in listed] == ["a", "a/b", "a.b"]
    joined = bytes.fromhex("22" * 32 + "11" * 32 + "00" * 32)
    assert subject_digest(resources) == hashlib.sha256(joined).hexdigest()


def test_signing_is_deterministic_and_for_p256_only() -> None:
    assert BundleSpec().sign(MEMBERS) == SIG
    assert code_of(statement.sign, made(), SETTLEMENT) == "USAGE"
    assert code_of(statement.sign_mldsa, SIG, CREATOR) == "USAGE"  # the second signature is ML-DSA only
    envelope = statement.read_signature(statement.sign(made(), CREATOR))
    CREATOR.public.verify(envelope.signatures[0].sig, envelope.signed_bytes)
    assert Statement.from_bytes(envelope.payload) == made()


def test_the_signature_covers_every_entry_outside_meta() -> None:
    said = Statement.from_bytes(statement.read_signature(SIG).payload)
    assert set(said.resources) == {*MEMBERS, "mimetype"}
    for entry, data in MEMBERS.items():
        assert said.resources[entry] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("member", ["mediaType", "verificationMaterial", "dsseEnvelope"])
def test_every_member_of_the_signature_file_is_needed(member: str) -> None:
    value = json.loads(SIG)
    del value[member]
    assert code_of(statement.read_signature, canonical.dumps(value)) == "SIG_MALFORMED"


@pytest.mark.parametrize("member", ["_type", "subject", "predicateType", "predicate"])
def test_every_member_of_the_statement_is_needed(member: str) -> None:
    value = json.loads(made().to_bytes())
    del value[member]
    assert code_of(Statement.from_bytes, canonical.dumps(value)) in ("SIG_STATEMENT", "SIG_SUBJECT")


@pytest.mark.parametrize("member", list(json.loads(made().to_bytes())["predicate"]["x-sealpack"]))
def test_every_own_member_is_needed_and_typed(member: str) -> None:
    for replacement in (None, [], {}, True, -1):
        value = json.loads(made().to_bytes())
        own = value["predicate"]["x-sealpack"]
        own[member] = replacement
        if replacement is None:
            del own[member]
        if (member, replacement) == ("required_schemes", []):
            continue  # read, and refused by policy
        assert code_of(Statement.from_bytes, canonical.dumps(value)) == "SIG_STATEMENT"


def test_times_have_a_calendar_date() -> None:
    assert Statement.from_bytes(made(signed_at=statement.LAST_SECOND).to_bytes()).signed_at
    late = made(signed_at=statement.LAST_SECOND + 1).to_bytes()
    assert code_of(Statement.from_bytes, late) == "SIG_STATEMENT"

"""DSSE envelopes and parcels: signed bytes, one JSON form, nothing extra."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.world import CREATOR, LICENSER, SETTLEMENT

from sealpack.format import documents, dsse
from sealpack.format.documents import KINDS, Parcel
from sealpack.format.dsse import Envelope, Signature, b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

DOCUMENT = documents.seal("license", {"n": 1}, CREATOR)


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


def test_pae_is_that_of_the_dsse_specification() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert dsse.pae("größe", b"") == b"DSSEv1 7 gr\xc3\xb6\xc3\x9fe 0 "


@settings(deadline=None)
@given(
    st.tuples(st.text(max_size=9), st.binary(max_size=9)),
    st.tuples(st.text(max_size=9), st.binary(max_size=9)),
)
def test_pae_is_injective(a: tuple[str, bytes], b: tuple[str, bytes]) -> None:
    try:
        assert (dsse.pae(*a) == dsse.pae(*b)) == (a == b)
    except UnicodeEncodeError:
        return


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = b64encode(data)
    assert b64decode(text, "x") == data
    for other in (
        text.rstrip("="),
        text + "=",
        text + "\n",
        " " + text,
        base64.urlsafe_b64encode(data).decode(),
    ):
        if other != text:
            assert code_of(b64decode, other, "x") == "DSSE_INVALID"


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_that_decodes_is_the_one_spelling(text: str) -> None:
    try:
        data = b64decode(text, "x")
    except SealpackError as error:
        assert error.code == "DSSE_INVALID"
    else:
        assert b64encode(data) == text


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=100), st.sampled_from(KINDS))
def test_round_trip(payload: bytes, kind: str) -> None:
    made = dsse.sign(documents.payload_type(kind), payload, CREATOR, SETTLEMENT)
    read = Envelope.from_bytes(made.to_bytes())
    assert read == made and documents.kind_of(read) == kind
    keys = {k.keyid: k.public for k in (CREATOR, SETTLEMENT)}
    for signature in read.signatures:
        keys[signature.keyid].verify(signature.sig, read.signed_bytes)


def test_the_order_of_keys_does_not_matter() -> None:
    one = documents.seal("root", {"n": 1}, CREATOR, LICENSER, SETTLEMENT)
    assert one == documents.seal("root", {"n": 1}, SETTLEMENT, LICENSER, CREATOR)
    assert [s.keyid for s in one.signatures] == sorted(s.keyid for s in one.signatures)


def test_the_digest_names_the_payload_not_the_signatures() -> None:
    assert DOCUMENT.digest == documents.seal("license", {"n": 1}, LICENSER).digest
    assert DOCUMENT.digest != documents.seal("license", {"n": 2}, CREATOR).digest


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.sealpack.license",
        "application/vnd.sealpack.License+json",
        "application/vnd.sealpack.application/vnd.sealpack.license+json+json",
        "application/vnd.sealpack.unknown+json",
        "application/vnd.sealpack.+json",
        "license",
        "",
    ],
)
def test_kinds_are_spelled_one_way(kind: str) -> None:
    assert code_of(documents.kind_of, Envelope(kind, b"", (Signature("0" * 64, b""),))) == "DOC_TYPE"


def test_documents_say_which_kind_and_schema_they_are() -> None:
    assert documents.payload_fields(DOCUMENT, "license").integer("n") == 1
    assert code_of(documents.payload_fields, DOCUMENT, "lease") == "DOC_TYPE"
    other = dsse.sign(documents.payload_type("license"), b'{"schema":"sealpack/lease/v1"}', CREATOR)
    assert code_of(documents.payload_fields, other, "license") == "DOC_SCHEMA"
    bare = dsse.sign(documents.payload_type("license"), b"[]", CREATOR)
    assert code_of(documents.payload_fields, bare, "license") == "DOC_SCHEMA"
    with pytest.raises(ValueError, match="unknown document kind"):
        documents.payload_type("passport")


def test_a_document_has_a_size_limit() -> None:
    assert code_of(documents.seal, "license", {"n": "x" * LIMITS.document_bytes}, CREATOR) == "JSON_LIMIT"


def test_parcels() -> None:
    lease = documents.seal("lease", {"n": 2}, LICENSER)
    parcel = Parcel((DOCUMENT, lease, DOCUMENT))
    assert Parcel.from_bytes(parcel.to_bytes()) == parcel
    assert parcel.of_kind("license") == (DOCUMENT, DOCUMENT) and parcel.of_kind("root") == ()
    assert Parcel.from_bytes(DOCUMENT.to_bytes()) == Parcel((DOCUMENT,))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"schema": "sealpack/parcel/v2", "documents": []}, "DOC_SCHEMA"),
        ({"schema": "sealpack/parcel/v1"}, "DOC_SCHEMA"),
        ({"schema": "sealpack/parcel/v1", "documents": {}}, "DOC_SCHEMA"),
        ({"schema": "sealpack/parcel/v1", "documents": [1]}, "DSSE_INVALID"),
        ([], "DOC_SCHEMA"),
        ("text", "DOC_SCHEMA"),
        ({"payloadType": 1}, "DSSE_INVALID"),
    ],
)
def test_parcels_that_are_none(value: Any, code: str) -> None:
    assert (
        code_of(Parcel.from_bytes, json.dumps(value, separators=(",", ":"), sort_keys=True).encode()) == code
    )


def test_a_parcel_holds_only_our_documents() -> None:
    foreign = dsse.sign("application/vnd.in-toto+json", b"{}", CREATOR)
    assert code_of(Parcel.from_bytes, Parcel((DOCUMENT, foreign)).to_bytes()) == "DOC_TYPE"
    many = Parcel((Envelope(DOCUMENT.payload_type, b"", DOCUMENT.signatures),) * 1025)
    assert code_of(Parcel.from_bytes, many.to_bytes()) == "DOC_SCHEMA"

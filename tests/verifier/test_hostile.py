"""Whatever the bytes: readers return or raise a SealpackError, and a changed bundle is never good."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st
from support import world
from support.world import BundleSpec

from sealpack.format import canonical, documents, dsse, statement
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Lease
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import PublicKey
from sealpack.format.license import License
from sealpack.format.manifest import Manifest
from sealpack.format.statement import Statement
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.render.text import render

VECTORS = Path(__file__).parents[2] / "specs/vectors"
TRUST = world.make_trust()
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def vector(name: str, file: str) -> bytes:
    return (VECTORS / name / file).read_bytes()


def payload_of(data: bytes) -> bytes:
    return Envelope.from_bytes(data).payload


def parse_license(data: bytes) -> None:
    License.parse(Fields(canonical.loads(data), "license", "LIC_SCHEMA"))


LICENSE = vector("license/good-full", "license.json")
ACK = vector("acknowledgement/good-lease", "acknowledgement.json")
SIG = BundleSpec().sign(BundleSpec().members())
READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "envelope": (Envelope.from_bytes, LICENSE),
    "parcel": (Parcel.from_bytes, Parcel(TRUST.envelopes).to_bytes()),
    "trust": (Trust.load, TRUST.to_bytes()),
    "signature": (statement.read_signature, SIG),
    "statement": (Statement.from_bytes, statement.read_signature(SIG).payload),
    "manifest": (Manifest.from_bytes, BundleSpec().members()["manifest.json"]),
    "license": (parse_license, payload_of(LICENSE)),
    "terms": (Terms.from_bytes, vector("terms/good", "terms.json")),
    "container": (lambda data: BundleReader(io.BytesIO(data)), b""),
    "pem": (lambda data: PublicKey.from_pem(data.decode("latin-1")), world.CREATOR.public.pem.encode()),
}
READERS["container"] = (
    READERS["container"][0],
    gzip.decompress(vector("container/good", "bundle.sealpack.gz")),
)

edits = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(0, 40), st.binary(max_size=8)), min_size=1, max_size=4
)


def edited(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, drop, put in changes:
        at %= len(data) + 1
        data = data[:at] + put + data[at + drop :]
    return data


@pytest.mark.parametrize("name", READERS)
def test_the_unchanged_bytes_are_read(name: str) -> None:
    read, good = READERS[name]
    read(good)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(changes=edits)
def test_changed_bytes_never_end_in_another_error(name: str, changes: list[tuple[int, int, bytes]]) -> None:
    read, good = READERS[name]
    try:
        read(edited(good, changes))
    except SealpackError as error:
        assert error.message.isprintable()


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(data=st.binary(max_size=200))
def test_any_bytes_never_end_in_another_error(name: str, data: bytes) -> None:
    with pytest.raises(SealpackError):
        READERS[name][0](data)


# Values of every JSON type, put in every place of a signed payload: what a hostile but trusted signer can do.

anything = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**53) + 1, 2**53 - 1), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every member and item of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, member in inner for p in [(*path, key), *places(member, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def sealed(kind: str, value: Any, *keys: Any) -> Envelope:
    return dsse.sign(documents.payload_type(kind), canonical.dumps(value), *keys)


def root_of_trust(value: Any) -> None:
    Trust.from_envelopes(sealed("root", value, world.ROOT), *TRUST.envelopes[1:])


def keyring_of_trust(value: Any) -> None:
    root, _, lists = TRUST.envelopes
    Trust.from_envelopes(root, sealed("keyring", value, world.ROOT), lists)


def revocations_of_trust(value: Any) -> None:
    Trust.from_envelopes(*TRUST.envelopes[:2], sealed("revocations", value, world.ROOT))


SIGNED: dict[str, tuple[Callable[[Any], Any], bytes]] = {
    "root": (root_of_trust, TRUST.root.envelope.payload),
    "keyring": (keyring_of_trust, TRUST.keyring.envelope.payload),
    "revocations": (
        revocations_of_trust,
        world.make_revocations(
            keys=[{"keyid": "0" * 64, "good": ["1" * 64]}], floors=[{"bundle_id": "acme/x", "floor": 1}]
        ).payload,
    ),
    "license": (lambda v: parse_license(canonical.dumps(v)), payload_of(LICENSE)),
    "acknowledgement": (
        lambda v: Acknowledgement.open(sealed("acknowledgement", v, world.SETTLEMENT), TRUST),
        payload_of(ACK),
    ),
    "activation": (
        lambda v: Activation.open(sealed("activation", v, world.LICENSER), TRUST),
        payload_of(vector("activation/activation-good", "document.json")),
    ),
    "request": (
        lambda v: ActivationRequest.open(sealed("activation-request", v, world.SETTLEMENT)),
        payload_of(vector("activation/request-good", "document.json")),
    ),
    "lease": (
        lambda v: Lease.open(sealed("lease", v, world.SETTLEMENT), TRUST),
        payload_of(vector("activation/lease-good", "document.json")),
    ),
    "manifest": (
        lambda v: Manifest.from_bytes(canonical.dumps(v)),
        vector("manifest/good-io", "manifest.json"),
    ),
    "statement": (
        lambda v: Statement.from_bytes(canonical.dumps(v)),
        statement.read_signature(SIG).payload,
    ),
}


@pytest.mark.parametrize("name", SIGNED)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_value_in_any_place_is_read_or_refused(name: str, data: st.DataObject) -> None:
    read, payload = SIGNED[name]
    value = canonical.loads(payload)
    path = data.draw(st.sampled_from(places(value)))
    try:
        read(replaced(value, path, data.draw(anything)))
    except SealpackError as error:
        assert error.spec.exit in (3, 4)


# --- whole bundles ------------------------------------------------------------------------------------

GOOD = BundleSpec(model=world.tiny_gguf(8)).build()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD) - 1), bit=st.integers(0, 7))
@example(at=0, bit=0)
@example(at=len(GOOD) - 1, bit=7)
def test_one_flipped_bit_anywhere_is_not_authentic(at: int, bit: int, tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(GOOD[:at] + bytes([GOOD[at] ^ 1 << bit]) + GOOD[at + 1 :])
    report = verify_bundle(path, TRUST)
    assert not report.ok and report.exit_status == 3
    assert report.failures[0].code and render(report).startswith("FAIL")


@QUICK
@given(changes=edits)
def test_spliced_bundles_are_not_authentic(changes: list[tuple[int, int, bytes]], tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    data = edited(GOOD, changes)
    path.write_bytes(data)
    assert verify_bundle(path, TRUST).ok == (data == GOOD)

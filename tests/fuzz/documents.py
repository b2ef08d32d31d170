"""Targets: canonical JSON, DSSE, and the documents in it, each signed anew so that its content is reached."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from support import world

from fuzz.target import VECTORS, Target, mutate_json, vectors
from sealpack.format import canonical, documents, dsse, statement
from sealpack.format.activation import Activation, ActivationRequest, Lease, device_id
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import PrivateKey
from sealpack.format.license import License, open_license
from sealpack.format.manifest import Manifest
from sealpack.format.meet import narrower
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.reading import Reading
from sealpack.format.records import Registers
from sealpack.format.repair import Repair
from sealpack.format.statement import Statement
from sealpack.format.sublicense import grant, open_sublicense
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust

TRUST = world.make_trust()
DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
PARENT = open_license(
    Envelope.from_bytes((VECTORS / "sublicense/good-narrower/parent.json").read_bytes()), TRUST
)
SIGNERS = {"activation-request": DEVICE, "deactivation": DEVICE, "reading": DEVICE}
OPEN: dict[str, Callable[[Envelope], Any]] = {
    "activation-request": ActivationRequest.open,
    "activation": lambda envelope: Activation.open(envelope, TRUST),
    "lease": lambda envelope: Lease.open(envelope, TRUST),
    "deactivation": Deactivation.open,
    "repair": lambda envelope: Repair.open(envelope, TRUST),
    "epoch-token": lambda envelope: EpochToken.open(envelope, TRUST),
    "reading": Reading.open,
}


def sealed(kind: str, payload: bytes, *keys: PrivateKey) -> Envelope:
    """Any bytes as a signed document of `kind`."""
    return dsse.sign(documents.payload_type(kind), payload, *keys)


def run_canonical(data: bytes) -> None:
    """What is accepted is written again to the same bytes, and is what json makes of it."""
    value = canonical.loads(data)
    assert canonical.dumps(value) == data
    assert json.loads(data) == value


def run_dsse(data: bytes) -> None:
    """An accepted envelope is written to the same bytes; its kind is known or refused."""
    envelope = Envelope.from_bytes(data)
    assert envelope.to_bytes() == data
    assert Parcel.from_bytes(data).documents == (envelope,)


def run_parcel(data: bytes) -> None:
    """An accepted parcel is written to the same bytes, unless it was a bare envelope or had other members."""
    parcel = Parcel.from_bytes(data)
    assert Parcel.from_bytes(parcel.to_bytes()) == parcel


def run_signature(data: bytes) -> None:
    """The outer form of META/model.sig is closed: there is one spelling for an envelope."""
    envelope = statement.read_signature(data)
    inner = canonical.loads(data, max_bytes=1 << 22)["dsseEnvelope"]
    assert Envelope.from_dict(inner) == envelope


def run_statement(data: bytes) -> None:
    """A statement read from a payload says the same when written."""
    said = Statement.from_bytes(data)
    assert Statement.from_bytes(said.to_bytes()) == said


def run_license(data: bytes) -> None:
    """The input is a payload; signed by the licenser it opens, and says the same when written."""
    license = open_license(Envelope.from_bytes(sealed("license", data, world.LICENSER).to_bytes()), TRUST)
    again = documents.seal("license", license.to_dict(), world.LICENSER)
    assert open_license(again, TRUST) == license
    license.covers("acme/tiny", "1.2", "00" * 32)


def run_issued(data: bytes) -> None:
    """The input is the payload of what travels beside a license; signed by whom it must be, it opens.

    What it says is the same when written again, and a request's or a proof's device is that of its key.
    """
    kind = _kind(data)
    made = OPEN[kind](sealed(kind, data, SIGNERS.get(kind, world.LICENSER)))
    again = documents.seal(kind, made.to_dict(), SIGNERS.get(kind, world.LICENSER))
    assert OPEN[kind](again) == made
    assert kind not in ("activation-request", "deactivation") or made.device_id == device_id(DEVICE.public)


def _kind(data: bytes) -> str:
    value = canonical.loads(data)
    schema = value.get("schema") if isinstance(value, dict) else None
    for kind in OPEN:
        if schema == documents.schema_id(kind):
            return kind
    raise SealpackError("DOC_TYPE", "another schema")


def run_sublicense(data: bytes) -> None:
    """The input is a payload; signed by the delegate it opens below its parent, and never goes beyond it."""
    chain = open_sublicense(sealed("sublicense", data, DELEGATE), TRUST, PARENT)
    again = documents.seal("sublicense", chain.sublicense.to_dict(), DELEGATE)
    assert open_sublicense(again, TRUST, PARENT).license == chain.license
    assert narrower(chain.license, grant(PARENT))


def run_manifest(data: bytes) -> None:
    """A manifest says the same when written; what the runtime asks of it answers."""
    manifest = Manifest.from_bytes(data)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.model.role == "model"
    assert manifest.model_io.task
    assert manifest.encryption is None or manifest.encryption_header is not None


def run_terms(data: bytes) -> None:
    """Terms say the same when written."""
    said = Terms.from_bytes(data)
    assert Terms.from_bytes(said.to_bytes()) == said


def run_trust(data: bytes) -> None:
    """Three payloads, signed by the test root; or else a trust file as it is."""
    payloads = _members(data)
    if payloads is None or not {"root", "keyring", "revocations"} <= payloads.keys():
        trust = Trust.load(data)
    else:
        parts = [_signed_by_root(kind, payloads[kind]) for kind in ("root", "keyring", "revocations")]
        trust = Trust.from_envelopes(*parts)
    assert Trust.load(trust.to_bytes()) == trust


def run_trust_update(data: bytes) -> None:
    """[kind, payload] pairs, signed by the test root, taken over: nothing gets older, in any order."""
    pairs = canonical.loads(data)
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise SealpackError("DOC_SCHEMA", "not a list of pairs")
    known = [p for p in pairs if p[0] in ("root", "keyring", "revocations", "license")][:8]
    envelopes = [_signed_by_root(kind, payload) for kind, payload in known]
    updated = _updated(envelopes)
    backwards = _updated(envelopes[::-1])
    assert (updated is None) == (backwards is None)
    if updated is None:
        TRUST.update(envelopes)  # raises, for its code
        return
    assert backwards == updated
    assert updated.root.version >= TRUST.root.version
    if updated.root == TRUST.root:
        assert updated.keyring.version >= TRUST.keyring.version
        assert updated.revocations.version >= TRUST.revocations.version
    assert updated.update(envelopes) == updated


def _updated(envelopes: list[Envelope]) -> Trust | None:
    try:
        return TRUST.update(envelopes)
    except SealpackError:
        return None


def _signed_by_root(kind: str, payload: Any) -> Envelope:
    try:
        body = canonical.dumps(payload)
    except (ValueError, RecursionError):
        raise SealpackError("JSON_INVALID", "payload has no canonical form") from None
    return Envelope.from_bytes(sealed(kind, body, world.ROOT).to_bytes())


def _members(data: bytes) -> dict[str, Any] | None:
    try:
        value = canonical.loads(data)
    except SealpackError:
        return None
    return value if isinstance(value, dict) else None


# --- seeds ----------------------------------------------------------------------------------------------


def payloads_of(pattern: str) -> Iterator[bytes]:
    """The payloads of the vectors' envelopes, where they can be decoded at all."""
    for data in vectors(pattern):
        try:
            yield base64.b64decode(json.loads(data)["payload"])
        except (ValueError, KeyError, TypeError):
            continue


def seeds_signature() -> Iterator[bytes]:
    """A good signature, and the forms the bundle vectors spoil."""
    yield world.BundleSpec().sign(world.BundleSpec().members())


def seeds_statement() -> Iterator[bytes]:
    """The statement of the test bundle."""
    yield statement.read_signature(next(seeds_signature())).payload


def seeds_manifest() -> Iterator[bytes]:
    """Every manifest vector, and the test bundle's."""
    yield world.BundleSpec().members()["manifest.json"]
    yield from vectors("manifest/*/manifest.json")


def seeds_trust() -> Iterator[bytes]:
    """The vectors' files, and their payloads side by side."""
    for data in vectors("trust/*/trust.json"):
        yield data
        try:
            whole = json.loads(data)
            kinds = ("root", "keyring", "revocations")
            yield canonical.dumps({k: json.loads(base64.b64decode(whole[k]["payload"])) for k in kinds})
        except (ValueError, KeyError, TypeError):
            continue


def seeds_issued() -> Iterator[bytes]:
    """The activation vectors, and a meter reading."""
    yield from payloads_of("activation/*/document.json")
    point = Checkpoint("sealpack/usage/L-1/dev-1/0", 5, bytes(32))
    counted = Registers({("r1", "ok", "calls"): 7, ("r1", "lost", "ms"): 5})
    note = sign_checkpoint(point, DEVICE)
    made = Reading(DEVICE.public, point, note, counted, {"r1": (1, "ab" * 32)}, 1_790_000_000_000, 3)
    yield documents.seal("reading", made.to_dict(), DEVICE).payload


def seeds_trust_update() -> Iterator[bytes]:
    """Newer, older, equal and conflicting documents of every kind."""
    root, keyring, revocations = (json.loads(e.payload) for e in TRUST.envelopes)
    newer = {kind: value | {"version": 2} for kind, value in
             (("root", root), ("keyring", keyring), ("revocations", revocations))}  # fmt: skip
    yield canonical.dumps([])
    yield canonical.dumps([["root", root], ["keyring", keyring], ["revocations", revocations]])
    yield canonical.dumps([[kind, value] for kind, value in newer.items()])
    yield canonical.dumps([["root", newer["root"]], ["root", root], ["keyring", newer["keyring"]]])
    yield canonical.dumps([["keyring", keyring | {"issued_at": 1}]])
    yield canonical.dumps([["root", root | {"version": 3}], ["license", {}]])


def parse_only_license(data: bytes) -> License:
    """Used by the bounds tests: a license payload without its signature."""
    return License.parse(Fields(canonical.loads(data), "license", "LIC_SCHEMA"))


TARGETS = (
    Target("canonical", run_canonical, lambda: vectors("canonical-json/*/*.json"), mutate_json),
    Target("dsse", run_dsse, lambda: vectors("dsse/*/envelope.json"), mutate_json),
    Target("parcel", run_parcel, lambda: iter([Parcel(TRUST.envelopes).to_bytes()]), mutate_json),
    Target("signature", run_signature, seeds_signature, mutate_json),
    Target("statement", run_statement, seeds_statement, mutate_json),
    Target("license", run_license, lambda: payloads_of("license/*/license.json"), mutate_json),
    Target("issued", run_issued, seeds_issued, mutate_json),
    Target("sublicense", run_sublicense, lambda: payloads_of("sublicense/*/sublicense.json"), mutate_json),
    Target("manifest", run_manifest, seeds_manifest, mutate_json),
    Target("terms", run_terms, lambda: vectors("terms/*/terms.json"), mutate_json),
    Target("trust", run_trust, seeds_trust, mutate_json, max_len=16384),
    Target("trust-update", run_trust_update, seeds_trust_update, mutate_json, max_len=16384),
)

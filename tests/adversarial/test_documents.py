"""Documents of every kind, changed in every way: never believed, always a code, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
from support import world
from support.acts import refused
from support.site import T0, Site, make_license, seal_license

from adversarial.tools import WRONG_ROLE, Exhibit, dump, exhibits, members, offer, staged, take
from sealpack.format import canonical, documents, dsse
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.runtime import device, machine
from sealpack.runtime.clock import Reading

KINDS = (
    "root",
    "keyring",
    "revocations",
    "license",
    "activation",
    "lease",
    "acknowledgement",
    "activation-request",
    "evidence",
    "epoch-token",
    "repair",
    "deactivation",
    "sublicense",
    "reading",
)
UNSIGNED = {"DSSE_INVALID", "LIC_UNREADABLE", "JSON_INVALID", "DOC_TYPE", "SIG_MALFORMED"}
FORGED = {"SIG_INVALID", "SIG_KEY_UNKNOWN", "LIC_SIG_INVALID", "LIC_KEY_UNTRUSTED", "TRUST_THRESHOLD"}
# A request vouches for itself: with its key changed it does not fit its own signature, or is no key.
CHANGED = UNSIGNED | FORGED | {"KEY_MALFORMED", "DOC_SCHEMA", "TRUST_INVALID", "SUBLICENSE_INVALID"}
SENSELESS = {"JSON_INVALID", "JSON_LIMIT", "DOC_SCHEMA", "LIC_SCHEMA", "TRUST_INVALID", "SUBLICENSE_INVALID"}


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still, so that whatever moves the stored clock is a document."""
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + 10) * 1000, 5_000, "boot"))


def staged_exhibit(site: Site, kind: str) -> Exhibit:
    return exhibits(staged(site))[kind]


def accepted(site: Site, exhibit: Exhibit) -> bool:
    """Whether the document itself, unchanged, is good: else nothing was shown."""
    exhibit.read(exhibit.envelope)
    return not exhibit.imported or take(site, exhibit.parcel(exhibit.envelope.to_bytes()))


def test_every_kind_that_is_read_is_attacked(site: Site) -> None:
    assert set(exhibits(staged(site))) == set(KINDS) == set(documents.KINDS)


# --- bytes -------------------------------------------------------------------------------------------


def flips(data: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        yield data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def cuts(data: bytes, step: int) -> Iterator[bytes]:
    for end in range(0, len(data), step):
        yield data[:end]


def sweep(site: Site, kind: str, step: int) -> None:
    exhibit = staged_exhibit(site, kind)
    data, before = exhibit.envelope.to_bytes(), dump(site)
    found = {offer(site, exhibit, changed) for changed in flips(data, step)}
    assert found <= CHANGED
    assert {offer(site, exhibit, changed) for changed in cuts(data, step)} == {"JSON_INVALID"}
    assert dump(site) == before
    assert accepted(site, exhibit)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_all_flipped_bytes_and_cuts(site: Site, kind: str) -> None:
    sweep(site, kind, 31)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_byte_and_every_cut(site: Site, kind: str) -> None:
    sweep(site, kind, 1)


# --- kinds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_under_another_type(site: Site, kind: str) -> None:
    """The signature covers the type; and where the very signer retypes it, the schema says which it is."""
    exhibit = staged_exhibit(site, kind)
    before, payload = dump(site), exhibit.envelope.payload
    for other in documents.KINDS:
        if other == kind:
            continue
        name = documents.payload_type(other)
        renamed = replace(exhibit.envelope, payload_type=name)
        for made in (renamed, dsse.sign(name, payload, exhibit.signer)):
            assert offer(site, exhibit, made.to_bytes()) in CHANGED
    assert dump(site) == before
    assert accepted(site, exhibit)


@pytest.mark.parametrize("kind", KINDS)
def test_another_kinds_payload_under_this_type(site: Site, kind: str) -> None:
    """What each signer really signed, offered as a document of this kind and signed anew by its signer."""
    everything = exhibits(staged(site))
    exhibit, before = everything[kind], dump(site)
    name = documents.payload_type(kind)
    for other in KINDS:
        if other != kind:
            made = dsse.sign(name, everything[other].envelope.payload, exhibit.signer)
            assert offer(site, exhibit, made.to_bytes()) in CHANGED | {"DOC_SCHEMA", "LIC_SCHEMA"}
    assert dump(site) == before


# --- signers -----------------------------------------------------------------------------------------

NOT_YOURS = FORGED | {"SIG_KEY_ROLE", "SUBLICENSE_INVALID"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("who", ["stranger", "wrong role", "creator"])
def test_signed_by_somebody_else(site: Site, kind: str, who: str) -> None:
    exhibit, before = staged_exhibit(site, kind), dump(site)
    key = {"stranger": world.STRANGER, "wrong role": WRONG_ROLE, "creator": world.CREATOR}[who]
    forged = documents.seal(kind, members(exhibit.envelope), key)
    assert offer(site, exhibit, forged.to_bytes()) in NOT_YOURS
    borrowed = replace(
        forged, signatures=tuple(replace(s, keyid=exhibit.signer.keyid) for s in forged.signatures)
    )
    assert offer(site, exhibit, borrowed.to_bytes()) in FORGED
    assert dump(site) == before
    assert accepted(site, exhibit)


@pytest.mark.parametrize("kind", ["license", "activation", "lease", "acknowledgement"])
def test_signed_by_a_key_that_was_revoked(site: Site, kind: str) -> None:
    exhibit = staged_exhibit(site, kind)
    lists = world.make_revocations(2, keys=[{"keyid": exhibit.signer.keyid, "good": []}])
    site.take(Parcel((lists,)))
    before = dump(site)
    refused("KEY_REVOKED", lambda: take(site, exhibit.parcel(exhibit.envelope.to_bytes())))
    assert dump(site) == before


def test_a_keyring_of_revoked_hands_is_no_way_back(site: Site) -> None:
    """Revocations and keyring come from the root: the revoked key cannot list itself anew."""
    staged(site)
    site.take(Parcel((world.make_revocations(2, keys=[{"keyid": world.LICENSER.keyid, "good": []}]),)))
    before = dump(site)
    own = documents.seal("keyring", members(world.make_keyring(9)), world.LICENSER)
    older = world.make_revocations(1)
    for attempt in (Parcel((own,)), Parcel((older,)), Parcel((older, own))):
        assert not take(site, attempt.to_bytes())
        refused("KEY_REVOKED", lambda: site.take(Parcel((seal_license(make_license(seq=9)),))))
    assert dump(site) == before


# --- content -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_critical_name_nobody_knows(site: Site, kind: str) -> None:
    exhibit, before = staged_exhibit(site, kind), dump(site)
    said = members(exhibit.envelope)
    for crit in (["escrow"], ["ml-dsa-65", "escrow"], ["crit"], [""]):
        made = documents.seal(kind, said | {"crit": crit, "escrow": 1}, exhibit.signer)
        assert offer(site, exhibit, made.to_bytes()) in {
            "DOC_CRIT",
            "DOC_SCHEMA",
            "LIC_SCHEMA",
            "TRUST_INVALID",
        }
    made = documents.seal(kind, said | {"crit": ["escrow"], "escrow": 1}, exhibit.signer)
    assert offer(site, exhibit, made.to_bytes()) == "DOC_CRIT"
    assert dump(site) == before


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every integer in a JSON value."""
    if type(value) is int:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in inner:
        yield from places(member, (*path, key))


def raw_with(value: Any, path: tuple[Any, ...], text: bytes) -> bytes:
    """Canonical JSON of `value` with the raw `text` where `path` leads."""
    mark = "\0mark\0"
    return canonical.dumps(_put(value, path, mark)).replace(canonical.dumps(mark), text)


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(value[path[0]], path[1:], new)
    return copy


NUMBERS = (
    *(b"-1", b"-0", b"1.0", b"1e3", b"01", b"+1", b"0x10", b"NaN", b"Infinity", b"-Infinity", b"1_000"),
    *(b"9007199254740992", b"-9007199254740992", b"9" * 400, b"9" * 5000, b"null", b"true", b'"1"', b"[1]"),
    *(b"{}", b"\xd9\xa3", b""),
)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "evidence"])
def test_hostile_numbers_in_every_place(site: Site, kind: str) -> None:
    """Signed by the true signer: what a vendor's broken tool could send."""
    exhibit, before = staged_exhibit(site, kind), dump(site)
    payload = canonical.loads(exhibit.envelope.payload)
    name, tried = exhibit.envelope.payload_type, 0
    for path in places(payload):
        for text in NUMBERS:
            made = dsse.sign(name, raw_with(payload, path, text), exhibit.signer)
            code = offer(site, exhibit, made.to_bytes())
            assert code in SENSELESS, path
            tried += 1
    assert tried >= len(NUMBERS)
    assert dump(site) == before


def hostile_payloads(payload: bytes) -> dict[str, bytes]:
    value = payload.decode()
    return {
        "space": value.replace('":', '": ', 1).encode(),
        "byte order mark": b"\xef\xbb\xbf" + payload,
        "trailing newline": payload + b"\n",
        "two values": payload * 2,
        "member twice": (value[:-1] + ',"schema":"x"}').encode(),
        "members out of order": ('{"zz":1,' + value[1:]).encode(),
        "escaped letter": value.replace('"schema"', '"\\u0073chema"', 1).encode(),
        "lone surrogate": (value[:-1] + ',"zz":"\\ud800"}').encode(),
        "not UTF-8": payload[:-1] + b',"zz":"\xff"}',
        "deep": (value[:-1] + ',"zz":' + "[" * 5000 + "]" * 5000 + "}").encode(),
        "too deep by one": (value[:-1] + ',"zz":' + "[" * 16 + "]" * 16 + "}").encode(),
        "too large": (value[:-1] + ',"zz":"' + "x" * (256 << 10) + '"}').encode(),
        "array": b"[]",
        "text": b'"x"',
        "null": b"null",
        "nothing": b"",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_json_signed_by_the_true_signer(site: Site, kind: str) -> None:
    exhibit, before = staged_exhibit(site, kind), dump(site)
    codes = {
        what: offer(site, exhibit, dsse.sign(exhibit.envelope.payload_type, data, exhibit.signer).to_bytes())
        for what, data in hostile_payloads(exhibit.envelope.payload).items()
    }
    assert {what: code for what, code in codes.items() if code not in SENSELESS} == {}
    assert dump(site) == before


# --- numbers and order -------------------------------------------------------------------------------


def test_an_older_lease_and_another_body_under_one_number_add_nothing(site: Site) -> None:
    staged(site)
    name = device.name(device.key(site.home))
    good = site.lease(name, "L-1", 5, {"calls": 7})
    site.take(Parcel((good,)))
    before = dump(site)
    for seq, ceiling in ((5, 10**6), (4, 10**6), (1, 10**6)):
        assert not take(site, Parcel((site.lease(name, "L-1", seq, {"calls": ceiling}),)).to_bytes())
    assert dump(site) == before


@pytest.mark.parametrize("kind", ["keyring", "revocations"])
def test_older_trust_and_another_body_under_one_number(site: Site, kind: str) -> None:
    staged(site)
    make = {"keyring": world.make_keyring, "revocations": world.make_revocations}[kind]
    site.take(Parcel((make(3),)))
    before = dump(site)
    twin = documents.seal(kind, members(make(3)) | {"issued_at": T0 + 1}, world.ROOT)
    refused("TRUST_CONFLICT", lambda: take(site, Parcel((twin,)).to_bytes()))
    for old in (make(2), documents.seal(kind, members(make(1)) | {"issued_at": T0 + 1}, world.ROOT)):
        assert not take(site, Parcel((old,)).to_bytes())
    assert dump(site) == before


@pytest.mark.parametrize("order", list(permutations(("license", "activation", "lease"))))
def test_one_bad_document_spoils_its_parcel_wherever_it_stands(site: Site, order: tuple[str, ...]) -> None:
    """A parcel is taken whole or not at all."""
    site.pin()
    good = dict(
        zip(
            ("license", "activation", "lease"),
            site.reply(site.request(), make_license()).documents,
            strict=True,
        )
    )
    before = dump(site)
    for bad in order:
        broken = forged(good[bad], world.STRANGER)
        parcel = Parcel(tuple(broken if kind == bad else good[kind] for kind in order))
        with pytest.raises(Exception, match=r"error\[(LIC_KEY_UNTRUSTED|SIG_KEY_UNKNOWN)\]"):
            site.take(parcel)
        assert dump(site) == before
    assert take(site, Parcel(tuple(good[kind] for kind in order)).to_bytes())


def forged(envelope: Envelope, key: PrivateKey) -> Envelope:
    return documents.seal(documents.kind_of(envelope), members(envelope), key)

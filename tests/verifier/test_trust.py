"""Trust: who counts, who may sign what, and that it only moves forward."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from support import world
from support.world import ROOT, T0

from sealpack.format import canonical, documents, dsse
from sealpack.format.dsse import Envelope, Signature
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Keyring, Revocations, Root, Trust
from sealpack.format.words import fingerprint_words

A, B, C, D = (PrivateKey.from_scalar(0x1100 + n) for n in range(4))
ED = PrivateKey.from_seed(b"sealpack-test-root-key-ed25519-1")


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


def keyring(version: int, *signers: PrivateKey, entries: list[dict[str, Any]] | None = None) -> Envelope:
    given = [world.key_entry(world.CREATOR, ["bundle"])] if entries is None else entries
    payload = {"version": version, "issued_at": T0, "keys": given}
    return documents.seal("keyring", payload, *(signers or (ROOT,)))


def revocations(version: int, *signers: PrivateKey, **members: Any) -> Envelope:
    empty: dict[str, Any] = {k: [] for k in ("keys", "bundles", "licenses", "devices", "floors")}
    payload = {"version": version, "issued_at": T0} | empty | members
    return documents.seal("revocations", payload, *(signers or (ROOT,)))


def trust(root: Envelope | None = None, version: int = 1, *signers: PrivateKey) -> Trust:
    made = root or world.make_root()
    return Trust.from_envelopes(made, keyring(version, *signers), revocations(version, *signers))


def root_with(**members: Any) -> Envelope:
    """A root whose payload has members replaced, or removed where None; signed by the test root key."""
    payload = canonical.loads(world.make_root().payload) | members
    return dsse.sign(
        documents.payload_type("root"),
        canonical.dumps({k: v for k, v in payload.items() if v is not None}),
        ROOT,
    )


# --- root: keys and thresholds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "signers", "enough"),
    [
        (1, (A,), True),
        (2, (A,), False),
        (2, (A, B), True),
        (2, (C, B), True),
        (2, (A, D), False),
        (3, (A, B), False),
        (3, (A, B, C, D), True),
    ],
)
def test_a_root_needs_its_own_threshold(
    threshold: int, signers: tuple[PrivateKey, ...], enough: bool
) -> None:
    envelope = world.make_root(keys=(A, B, C), threshold=threshold, signers=signers)
    if enough:
        assert Root.parse(envelope).roles["root"][0] == threshold
    else:
        assert code_of(Root.parse, envelope) == "TRUST_THRESHOLD"


def test_one_key_counts_once_however_often_it_signs() -> None:
    envelope = world.make_root(keys=(A, B), threshold=2, signers=(A,))
    only = envelope.signatures[0]
    again = Signature(only.keyid, A.sign(envelope.signed_bytes))
    spoofed = Signature(B.keyid, only.sig)  # A's signature under B's keyid
    for extra in (again, spoofed):
        assert code_of(Root.parse, replace(envelope, signatures=(only, extra))) == "TRUST_THRESHOLD"


def test_a_second_spelling_of_a_key_is_no_second_key() -> None:
    """Another PEM text of the same point would have another keyid."""
    pem = ROOT.public.pem
    body = "".join(pem.splitlines()[1:-1])
    wrapped = "\n".join(body[i : i + 40] for i in range(0, len(body), 40))
    for spelling in (
        pem.replace("\n", "\r\n"),
        pem + "\n",
        " " + pem,
        pem.replace(body[:64] + "\n", body[:64]),
    ):
        assert code_of(Root.parse, root_with(keys=[pem, spelling])) == "KEY_MALFORMED"
    other = f"-----BEGIN PUBLIC KEY-----\n{wrapped}\n-----END PUBLIC KEY-----\n"
    assert code_of(Root.parse, root_with(keys=[pem, other])) == "KEY_MALFORMED"
    assert code_of(Root.parse, root_with(keys=[pem, pem])) == "TRUST_INVALID"


def test_invalid_signatures_beside_enough_valid_ones_do_no_harm() -> None:
    envelope = world.make_root(keys=(A, B), threshold=1, signers=(A,))
    noise = (Signature(B.keyid, b"junk"), Signature(D.keyid, D.sign(envelope.signed_bytes)))
    assert Root.parse(replace(envelope, signatures=(*noise, *envelope.signatures))).version == 1


def test_a_root_may_have_ed25519_keys() -> None:
    assert Root.parse(world.make_root(keys=(A, ED), threshold=2)).keys[1].scheme == "ed25519"


ROLES = ("root", "keyring", "revocations")
ROLE = {"threshold": 1, "keyids": [ROOT.keyid]}


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"schema": "sealpack/keyring/v1"}, "TRUST_INVALID"),
        ({"version": 0}, "TRUST_INVALID"),
        ({"version": "1"}, "TRUST_INVALID"),
        ({"version": True}, "TRUST_INVALID"),
        ({"version": None}, "TRUST_INVALID"),
        ({"keys": []}, "TRUST_INVALID"),
        ({"keys": [1]}, "TRUST_INVALID"),
        ({"keys": ["no key"]}, "KEY_MALFORMED"),
        ({"keys": [ROOT.public.pem] * 65}, "TRUST_INVALID"),
        ({"roles": {}}, "TRUST_INVALID"),
        ({"roles": {"root": ROLE, "keyring": ROLE}}, "TRUST_INVALID"),
        (
            {"roles": dict.fromkeys(ROLES, ROLE | {"threshold": 0})},
            "TRUST_INVALID",
        ),
        (
            {"roles": dict.fromkeys(ROLES, ROLE | {"threshold": 2})},
            "TRUST_INVALID",
        ),
        ({"roles": {key: {"threshold": 2, "keyids": [ROOT.keyid] * 2} for key in ROLES}}, "TRUST_INVALID"),
        (
            {"roles": {"root": ROLE, "keyring": {"threshold": 1, "keyids": [A.keyid]}, "revocations": ROLE}},
            "TRUST_INVALID",
        ),
        ({"crit": ["colour"]}, "DOC_CRIT"),
        ({"colour": "blue"}, ""),
    ],
)
def test_root_members(members: dict[str, Any], code: str) -> None:
    if code:
        assert code_of(Root.parse, root_with(**members)) == code
    else:
        assert Root.parse(root_with(**members)).version == 1


# --- keyring and revocations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"keyid": A.keyid}, "TRUST_INVALID"),
        ({"scheme": "ed25519"}, "TRUST_INVALID"),
        ({"scheme": "rsa"}, "TRUST_INVALID"),
        ({"roles": ["bundle", "king"]}, "TRUST_INVALID"),
        ({"namespaces": ["Acme"]}, "TRUST_INVALID"),
        ({"namespaces": ["acme/"]}, "TRUST_INVALID"),
        ({"namespaces": [""]}, "TRUST_INVALID"),
        ({"status": "gone"}, "TRUST_INVALID"),
        ({"pem": "x"}, "KEY_MALFORMED"),
        ({"issuer": 7}, "TRUST_INVALID"),
    ],
)
def test_keyring_entries(change: dict[str, Any], code: str) -> None:
    root = Root.parse(world.make_root())
    entry = world.key_entry(world.CREATOR, ["bundle"]) | change
    assert code_of(Keyring.parse, keyring(1, entries=[entry]), root) == code


def test_a_keyring_names_no_key_twice() -> None:
    entries = [world.key_entry(world.CREATOR, [role]) for role in ("bundle", "license")]
    assert (
        code_of(Keyring.parse, keyring(1, entries=entries), Root.parse(world.make_root())) == "TRUST_INVALID"
    )


@pytest.mark.parametrize(
    "members",
    [
        {"keys": [{"keyid": A.keyid, "good": []}, {"keyid": A.keyid, "good": ["0" * 64]}]},
        {"floors": [{"bundle_id": "acme/a", "floor": 3}, {"bundle_id": "acme/a", "floor": 1}]},
        {"floors": [{"bundle_id": "Acme", "floor": 1}]},
        {"bundles": ["abc"]},
        {"keys": [{"keyid": A.keyid}]},
    ],
)
def test_revocations_are_read_one_way(members: dict[str, Any]) -> None:
    root = Root.parse(world.make_root())
    assert code_of(Revocations.parse, revocations(1, **members), root) == "TRUST_INVALID"


def test_only_root_keys_make_keyrings_and_revocations() -> None:
    root = Root.parse(world.make_root())
    assert code_of(Keyring.parse, keyring(1, world.CREATOR), root) == "TRUST_THRESHOLD"
    assert code_of(Revocations.parse, revocations(1, world.CREATOR), root) == "TRUST_THRESHOLD"


def test_roles_have_their_own_keys() -> None:
    """A key that may sign the keyring may not sign revocations or the next root."""
    roles = {
        "root": {"threshold": 1, "keyids": [A.keyid]},
        "keyring": {"threshold": 1, "keyids": [B.keyid]},
        "revocations": {"threshold": 1, "keyids": [C.keyid]},
    }
    payload = {"version": 1, "keys": [k.public.pem for k in (A, B, C)], "roles": roles}
    root = Root.parse(documents.seal("root", payload, A))
    assert Keyring.parse(keyring(1, B), root).version == 1
    assert Revocations.parse(revocations(1, C), root).version == 1
    assert code_of(Keyring.parse, keyring(1, C), root) == "TRUST_THRESHOLD"
    assert code_of(Revocations.parse, revocations(1, A), root) == "TRUST_THRESHOLD"
    assert (
        code_of(root.accepts_next, documents.seal("root", payload | {"version": 2}, B)) == "TRUST_THRESHOLD"
    )


def test_kinds_are_not_exchanged() -> None:
    """A keyring's payload under the type of revocations, signed by the right key, is neither."""
    root = Root.parse(world.make_root())
    swapped = dsse.sign(documents.payload_type("revocations"), keyring(1).payload, ROOT)
    assert code_of(Revocations.parse, swapped, root) == "TRUST_INVALID"
    assert code_of(Keyring.parse, swapped, root) == "DOC_TYPE"


# --- may this key sign that? ----------------------------------------------------------------------------


def sealed(key: PrivateKey, **members: Any) -> Envelope:
    return documents.seal("license", {"n": 1} | members, key)


def test_signer_rules() -> None:
    t = world.make_trust()
    good = sealed(world.LICENSER)
    assert t.verify(good, "license", ["acme/minilm", "acme"]).issuer == world.ISSUER
    assert code_of(t.verify, good, "bundle") == "SIG_KEY_ROLE"
    assert code_of(t.verify, sealed(world.STRANGER), "license") == "SIG_KEY_UNKNOWN"
    assert code_of(t.verify, good, "license", ["acme/minilm", "acme2/x"]) == "SIG_NAMESPACE"
    assert t.verify(good, "license", issuer=world.ISSUER).key == world.LICENSER.public
    with pytest.raises(
        SealpackError, match=f"SIG_KEY_ROLE.*{re.escape(world.ISSUER)} may not speak for Beta"
    ):
        t.verify(good, "license", issuer="Beta")
    forged = replace(good, payload=good.payload.replace(b"1", b"2"))
    assert code_of(t.verify, forged, "license") == "SIG_INVALID"
    spoofed = replace(sealed(world.STRANGER), signatures=good.signatures)
    assert t.verify(spoofed, "license")  # the very same payload, signed by the licenser
    under = Signature(world.LICENSER.keyid, world.STRANGER.sign(good.signed_bytes))
    assert code_of(t.verify, replace(good, signatures=(under,)), "license") == "SIG_INVALID"
    two = documents.seal("license", {"n": 1}, world.LICENSER, world.STRANGER)
    assert code_of(t.verify, two, "license") == "DSSE_INVALID"


COVERED = [("acme", True), ("acme/a", True), ("acme/a/b", True), ("acme2", False), ("acm", False)]
COVERED += [("x/acme", False), ("acme-x", False), ("", False)]


@pytest.mark.parametrize(("name", "covered"), COVERED)
def test_namespaces_end_at_segments(name: str, covered: bool) -> None:
    entry = world.make_trust().keyring.entries[world.CREATOR.keyid]
    assert entry.covers(name) == covered


def test_a_revoked_key_is_refused_except_for_listed_digests() -> None:
    old, new = sealed(world.LICENSER), sealed(world.LICENSER, issued_at=1)  # the date is back-dated
    t = world.make_trust(keys=[{"keyid": world.LICENSER.keyid, "good": [old.digest]}])
    assert t.verify(old, "license").key == world.LICENSER.public
    assert code_of(t.verify, new, "license") == "KEY_REVOKED"
    changed = replace(old, payload=new.payload)
    assert code_of(t.verify, changed, "license") == "KEY_REVOKED"


# --- trust files ----------------------------------------------------------------------------------------


def test_trust_file_round_trip() -> None:
    t = world.make_trust()
    again = Trust.load(t.to_bytes())
    assert again == t and again.to_bytes() == t.to_bytes()
    assert again.root_digest == t.root.envelope.digest


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "sealpack/parcel/v1"},
        {"root": None},
        {"keyring": None},
        {"revocations": None},
    ],
)
def test_faulty_trust_files(change: dict[str, Any]) -> None:
    value = canonical.loads(world.make_trust().to_bytes()) | change
    data = canonical.dumps({k: v for k, v in value.items() if v is not None})
    assert code_of(Trust.load, data) in ("TRUST_INVALID", "DSSE_INVALID")


def test_trust_file_with_members_exchanged() -> None:
    value = canonical.loads(world.make_trust().to_bytes())
    value["keyring"], value["revocations"] = value["revocations"], value["keyring"]
    assert code_of(Trust.load, canonical.dumps(value)) == "DOC_TYPE"


# --- moving forward -------------------------------------------------------------------------------------

ROOT_1 = world.make_root(1, (A,))
ROOT_2 = world.make_root(2, (B,), signers=(A, B))
ROOT_3 = world.make_root(3, (C,), signers=(B, C))


def all_orders(*envelopes: Envelope) -> Iterable[tuple[Envelope, ...]]:
    return itertools.permutations(envelopes)


def test_newer_documents_are_taken_in_any_order() -> None:
    t = trust()
    for order in all_orders(keyring(2), keyring(3), revocations(2), revocations(1)):
        newer = t.update(order)
        assert (newer.keyring.version, newer.revocations.version) == (3, 2)
        assert newer.update(order) == newer


def test_older_documents_are_ignored_and_twins_are_a_conflict() -> None:
    t = trust(version=5)
    assert t.update([keyring(4), revocations(1)]) == t
    twin = keyring(5, entries=[])
    assert code_of(t.update, [twin]) == "TRUST_CONFLICT"
    assert code_of(t.update, [revocations(5, devices=["dev-x"])]) == "TRUST_CONFLICT"
    assert code_of(trust().update, [keyring(2), keyring(2, entries=[])]) == "TRUST_CONFLICT"


def test_documents_of_strangers_are_refused() -> None:
    assert code_of(trust().update, [keyring(9, world.STRANGER)]) == "TRUST_THRESHOLD"


def test_a_root_steps_with_both_thresholds() -> None:
    t = trust(ROOT_1, 1, A)
    assert t.update([ROOT_2]).root.version == 2
    for signers in ((A,), (B,)):
        assert code_of(t.update, [world.make_root(2, (B,), signers=signers)]) == "TRUST_THRESHOLD"
    t_two = Trust.from_envelopes(world.make_root(1, (A, B), 2), keyring(1, A, B), revocations(1, A, B))
    one_old = world.make_root(2, (C, D), 2, signers=(A, C, D))
    assert code_of(t_two.update, [one_old]) == "TRUST_THRESHOLD"
    both = world.make_root(2, (C, D), 2, signers=(A, B, C, D))
    assert t_two.update([both]).root.version == 2


def test_a_root_accepts_only_its_successor() -> None:
    root = Root.parse(ROOT_1)
    assert root.accepts_next(ROOT_2).version == 2
    skipping = world.make_root(3, (B,), signers=(A, B))
    for envelope in (ROOT_1, skipping):
        assert code_of(root.accepts_next, envelope) == "TRUST_ROLLBACK"


def test_roots_step_one_by_one_in_any_order() -> None:
    t = trust(ROOT_1, 1, A)
    for order in all_orders(ROOT_1, ROOT_2, ROOT_3, keyring(2, C), revocations(2, C)):
        newer = t.update(order)
        assert (newer.root.version, newer.keyring.version, newer.revocations.version) == (3, 2, 2)
    assert code_of(t.update, [ROOT_3]) == "TRUST_ROLLBACK"
    assert code_of(t.update, [world.make_root(1, (A,), signers=(A, B)), world.make_root(3, (C,))]) in (
        "TRUST_ROLLBACK",
        "TRUST_CONFLICT",
    )


def test_whoever_holds_an_older_root_follows_the_chain() -> None:
    newest = trust(ROOT_3, 2, C).after([ROOT_1, ROOT_2])
    assert newest.chain == (ROOT_1, ROOT_2, *newest.envelopes)
    assert Trust.load(newest.to_bytes()) == newest
    followed = trust(ROOT_1, 1, A).update(newest.chain)
    assert followed.root.digest == newest.root.digest and followed.chain == newest.chain


@pytest.mark.parametrize(
    "older",
    [(lambda: [ROOT_1]), (lambda: [ROOT_2, ROOT_1]), (lambda: [ROOT_2, ROOT_3]), (lambda: [keyring(2, C)])],
    ids=["gap", "backwards", "itself", "no root"],
)
def test_older_roots_that_do_not_lead_on(older: Callable[[], list[Envelope]]) -> None:
    assert code_of(trust(ROOT_3, 2, C).after, older()) == "TRUST_INVALID"


def test_another_root_of_the_same_version_is_a_conflict() -> None:
    assert code_of(trust(ROOT_1, 1, A).update, [world.make_root(1, (B,))]) == "TRUST_CONFLICT"


def test_what_an_old_bundle_carries_is_left_out_not_refused() -> None:
    """Roots have moved on twice since; the bundle's own trust documents were good when it was made."""
    now = Trust.from_envelopes(ROOT_3, keyring(4, C), revocations(4, C))
    assert now.update([ROOT_1, keyring(1, A), revocations(2, A)]) == now
    assert now.update([ROOT_2, keyring(3, B), ROOT_1]) == now
    assert code_of(now.update, [keyring(1, A)]) == "TRUST_THRESHOLD"  # nobody known vouches for it
    assert code_of(now.update, [ROOT_1, keyring(1, D)]) == "TRUST_THRESHOLD"
    assert code_of(now.update, [ROOT_1, keyring(9, A)]) == "TRUST_THRESHOLD"  # old keys, newer claim


def test_a_root_made_up_by_others_teaches_nothing() -> None:
    now = Trust.from_envelopes(ROOT_3, keyring(4, C), revocations(4, C))
    fake = world.make_root(1, (world.STRANGER,))
    entry = world.key_entry(world.STRANGER, ["bundle"])
    assert now.update([fake, keyring(1, world.STRANGER, entries=[entry])]) == now


def test_stolen_keys_cannot_block_the_way_with_a_high_version() -> None:
    """Fast-forward: version 2^53 - 1 under the old keys; a new root without them starts again."""
    stuck = trust(ROOT_1, 2**53 - 1, A)
    healed = stuck.update([ROOT_2, keyring(1, B), revocations(1, B)])
    assert (healed.keyring.version, healed.revocations.version) == (1, 1)
    one_by_one = stuck.update([ROOT_2]).update([keyring(1, B)]).update([revocations(1, B)])
    assert one_by_one == healed
    assert healed.update([ROOT_1, keyring(1, A)]) == healed


def test_versions_do_not_start_again_while_the_new_root_vouches() -> None:
    root_2 = world.make_root(2, (A, B), signers=(A, B))
    t = trust(ROOT_1, 7, A)
    assert t.update([root_2, keyring(1, B)]).keyring.version == 7


# --- words ----------------------------------------------------------------------------------------------


def test_fingerprint_words() -> None:
    assert fingerprint_words("7f000001", 2) == "lusab-babad"  # the known example of the encoding
    words = fingerprint_words(world.make_trust().root_digest).split("-")
    assert [len(w) for w in words] == [5] * 6
    seen = {fingerprint_words(f"{n:04x}", 1) for n in range(65536)}
    assert len(seen) == 65536


def test_a_new_root_brings_no_old_list_back() -> None:
    """A stays, B goes: what only B signed is vouched for no more, and what A signed long ago still is."""
    withdrawn = revocations(5, B, keys=[{"keyid": world.CREATOR.keyid, "good": []}])
    known = Trust.from_envelopes(world.make_root(keys=(A, B)), keyring(1, A), revocations(1, A)).update(
        [withdrawn]
    )
    plain = canonical.loads(world.make_root(2, (A, D), signers=(A, B, D)).payload) | {"issued_at": T0 + 1}
    following = documents.seal("root", {k: v for k, v in plain.items() if k != "schema"}, A, B, D)
    stepped = known.update([following, revocations(1, A)])
    assert stepped.root.version == 2 and stepped.revocations == known.revocations
    made_with_it = revocations(6, A, D, issued_at=T0 + 1)
    assert stepped.update([made_with_it]).revocations.version == 6
    blocked = known.update([revocations(2**53 - 1, B)])  # stolen keys cannot keep the way shut
    assert blocked.update([following, revocations(1, A), made_with_it]).revocations.version == 6


def test_the_known_root_is_checked_again_where_it_is_carried() -> None:
    """The same payload under a stranger's signature is no root, even though its content is known."""
    trust = world.make_trust()
    known = trust.root.envelope
    forged = dsse.sign(known.payload_type, known.payload, world.STRANGER)
    assert code_of(trust.update, [forged]) == "TRUST_THRESHOLD"


@pytest.mark.parametrize("order", [1, -1])
def test_an_update_does_not_depend_on_the_order_of_its_documents(order: int) -> None:
    trust = Trust.from_envelopes(world.make_root(), keyring(3), revocations(1))
    other = keyring(3, entries=[world.key_entry(world.LICENSER, ["license"])])
    assert code_of(trust.update, [keyring(4), other][::order]) == "TRUST_CONFLICT"

"""What a device takes in, refuses, and leaves alone: activations, licenses, acknowledgements, trust."""

from __future__ import annotations

import json
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import world
from support.acts import call
from support.site import T0, Site, make_license, seal_license

from sealpack.format import canonical, documents
from sealpack.format.activation import Ceiling, Lease
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, LeaseTerms
from sealpack.format.limits import LIMITS
from sealpack.format.merkle import leaf_hash, root_of
from sealpack.format.trust import Trust
from sealpack.runtime import anchors, device, imports, log, machine, receipts, sync
from sealpack.runtime.state import VERSION


def code_of(site: Site, *parcels: Parcel) -> str:
    """The code an import is refused with; nothing may have changed."""
    with site.state() as state, state.read() as db:
        before = "\n".join(db.iterdump())
    with pytest.raises(SealpackError) as caught:
        site.take(*parcels)
    with site.state() as state, state.read() as db:
        after = "\n".join(db.iterdump())
    assert after == before, "a refused import left something behind"
    return caught.value.code


def root_at(site: Site, size: int) -> str:
    """The root of the first log at a size, computed from the stored records alone."""
    with site.state() as state, state.read() as db:
        return root_of([leaf_hash(line) for line in log.leaves(db, 1, 0, size)]).hex()


def log_of(site: Site) -> log.Log:
    with site.state() as state, state.read() as db:
        return log.by_id(db, 1)


# --- activation --------------------------------------------------------------------------------------


def test_the_order_of_documents_does_not_matter(site: Site) -> None:
    site.pin()
    parcel = site.reply(site.request(), make_license())
    taken = site.take(Parcel(parcel.documents[::-1]))
    assert (taken.licenses, taken.activations, taken.leases) == (["L-1"], ["L-1"], ["L-1"])
    again = site.take(parcel)
    assert (again.count, again.known) == (0, 3)
    assert log_of(site).size == 1


def test_an_edited_license_is_refused(site: Site) -> None:
    site.pin()
    parcel = site.reply(site.request(), make_license())
    license, *rest = parcel.documents
    payload = canonical.loads(license.payload) | {"seq": 7}
    edited = replace(license, payload=canonical.dumps(payload))
    assert code_of(site, Parcel((edited, *rest))) == "LIC_SIG_INVALID"


def test_a_license_of_a_stranger_is_refused(site: Site) -> None:
    site.pin()
    strange = documents.seal("license", make_license().to_dict(), world.STRANGER)
    assert code_of(site, Parcel((strange,))) == "LIC_KEY_UNTRUSTED"


def test_an_activation_of_another_device_is_left(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", site.models, site.trust)
    other.folder.mkdir()
    other.pin()
    site.pin()
    taken = site.take(other.reply(other.request(), make_license()))
    assert taken.count == 0
    assert taken.others == 3


def test_an_activation_answers_one_request_once(site: Site) -> None:
    site.pin()
    request = site.request()
    never_made = replace(request, nonce="0" * 32)
    assert code_of(site, site.reply(never_made, make_license())) == "ACTIVATION_NONCE"
    site.take(site.reply(request, make_license()))
    assert code_of(site, site.reply(request, make_license(license_id="L-2"))) == "ACTIVATION_NONCE"


def test_an_activation_without_its_license_is_refused(site: Site) -> None:
    site.pin()
    _, activation, _ = site.reply(site.request(), make_license()).documents
    assert code_of(site, Parcel((activation,))) == "LIC_MISSING"


def test_a_newer_license_replaces_and_an_older_is_refused(site: Site) -> None:
    site.ready(make_license(seq=2))
    assert code_of(site, Parcel((seal_license(make_license(seq=1)),))) == "LIC_SUPERSEDED"
    assert code_of(site, Parcel((seal_license(make_license(seq=2, tier="x")),))) == "LIC_CONFLICT"
    assert site.take(Parcel((seal_license(make_license(seq=3)),))).licenses == ["L-1"]
    call(site)


def test_a_copied_license_does_not_run_on_another_device(site: Site, tmp_path: Path) -> None:
    """The database of an activated device, without its key."""
    site.ready()
    copy = Site(tmp_path / "copy", site.models, site.trust)
    copy.folder.mkdir()
    with site.state() as state, state.read() as db:
        dump = list(db.iterdump())
    home = copy.home
    thief = sqlite3.connect(home.database)
    thief.executescript("\n".join(dump))
    thief.execute(f"PRAGMA user_version={VERSION}")
    thief.close()
    (home.path / "secret").write_bytes((site.home.path / "secret").read_bytes())
    for path in site.home.store.iterdir():
        (home.store / path.name).write_bytes(path.read_bytes())
        (home.store / path.name).chmod(0o400)
    device.key(home, create=True)
    with pytest.raises(SealpackError) as caught:
        call(copy)
    assert caught.value.code == "DEVICE_MISMATCH"


def test_a_license_that_needs_a_tpm_is_not_pretended(site: Site) -> None:
    site.pin()
    assert code_of(site, site.reply(site.request(), make_license(devices=Devices("tpm")))) == "DOC_CRIT"


# --- acknowledgements --------------------------------------------------------------------------------


def test_an_acknowledgement_moves_the_export_on(site: Site) -> None:
    site.ready()
    call(site, 3)
    with site.state() as state:
        (first,) = receipts.export(state, site.folder)
        (again,) = receipts.export(state, site.folder)
    assert (first.start, first.end) == (again.start, again.end) == (0, log_of(site).size)
    assert first.path.read_bytes() == again.path.read_bytes(), "a lost stick costs nothing"
    ack = site.acknowledge(first.end, root_at(site, first.end), 1, statement="billed 1.00")
    taken = site.take(ack)
    assert taken.statements == ["billed 1.00"]
    with site.state() as state:
        assert receipts.export(state, site.folder) == [], "the acknowledgement itself is no news"
    call(site)
    with site.state() as state:
        (later,) = receipts.export(state, site.folder)
    assert later.start == first.end
    assert receipts.verify_file(later.path, 1 << 20).ok


def test_replaying_an_acknowledgement_changes_nothing(site: Site) -> None:
    site.ready()
    call(site)
    first = site.acknowledge(2, root_at(site, 2), 1)
    second = site.acknowledge(3, root_at(site, 3), 2)
    site.take(second)
    size = log_of(site).size
    taken = site.take(first, second)
    assert (taken.acknowledgements, taken.known) == ([], 2)
    assert (log_of(site).size, log_of(site).acked_size) == (size, 3)


@pytest.mark.parametrize(
    ("size", "root"), [(2, "00" * 32), (99, "00" * 32)], ids=["other receipts", "more than there are"]
)
def test_an_acknowledgement_of_another_history_is_a_fork(site: Site, size: int, root: str) -> None:
    site.ready()
    call(site)
    assert code_of(site, site.acknowledge(size, root, 1)) == "ACK_FORK"


def test_a_restored_settlement_asks_for_receipts_again(site: Site) -> None:
    """It knows less than it acknowledged, of this very log: the next export starts where it stands."""
    site.ready()
    call(site)
    site.take(site.acknowledge(4, root_at(site, 4), 7))
    assert code_of(site, site.acknowledge(2, "00" * 32, 1001)) == "ACK_FORK"
    assert log_of(site).acked_size == 4
    site.take(site.acknowledge(2, root_at(site, 2), 1001))
    assert (log_of(site).acked_size, log_of(site).acked.root.hex()) == (2, root_at(site, 2))
    with site.state() as state:
        (file,) = receipts.export(state, site.folder)
        assert file.start == 2 and receipts.verify_file(file.path, LIMITS.usage_file_bytes).ok


def test_two_acknowledgements_with_one_number_are_a_fork(site: Site) -> None:
    site.ready()
    call(site)
    site.take(site.acknowledge(2, root_at(site, 2), 1))
    assert code_of(site, site.acknowledge(3, root_at(site, 3), 1)) == "ACK_FORK"


def test_an_acknowledgement_signed_by_the_wrong_role_is_refused(site: Site) -> None:
    site.ready()
    good = site.acknowledge(1, root_at(site, 1), 1).documents[0]
    forged = documents.seal("acknowledgement", _members(good.payload), world.LICENSER)
    assert code_of(site, Parcel((forged,))) == "SIG_KEY_ROLE"


def _members(payload: bytes) -> dict[str, object]:
    members: dict[str, object] = canonical.loads(payload)
    del members["schema"]
    return members


def test_the_lease_in_an_acknowledgement_is_taken(site: Site) -> None:
    stale = LeaseTerms(required=True, max_age_s=3600, on_stale="deny")
    site.ready(make_license(lease=stale))
    with pytest.raises(SealpackError) as caught:
        call(site)
    assert caught.value.code == "LEASE_STALE"
    assert "sealpack sync" in caught.value.remedy
    name = device.name(device.key(site.home))
    lease = site.lease(name, "L-1", 2, {"calls": 5}, issued_at=T0 + 10**8)
    site.take(site.acknowledge(1, root_at(site, 1), 1, lease=lease))
    call(site)


# --- trust -------------------------------------------------------------------------------------------


def test_the_first_pin_decides(site: Site) -> None:
    site.pin()
    other = world.make_root(keys=(world.STRANGER,))
    strange = Trust.from_envelopes(
        other,
        documents.seal("keyring", {"version": 1, "issued_at": T0, "keys": []}, world.STRANGER),
        documents.seal("revocations", _members(world.make_revocations().payload), world.STRANGER),
    )
    with pytest.raises(SealpackError) as caught, site.state() as state:
        anchors.pin(state, strange)
    assert caught.value.code == "TRUST_CONFLICT"


def test_nothing_is_believed_before_a_pin(site: Site) -> None:
    with pytest.raises(SealpackError) as caught:
        site.install()
    assert caught.value.code == "TRUST_UNPINNED"


def test_newer_trust_is_taken_and_older_ignored(site: Site) -> None:
    site.pin()
    site.take(Parcel((world.make_revocations(version=3, licenses=["L-9"]),)))
    site.take(Parcel((world.make_revocations(version=2),)))
    with site.state() as state:
        assert anchors.load(state)[0].revocations.licenses == {"L-9"}


def test_a_new_root_is_followed_step_by_step(site: Site) -> None:
    site.ready()
    second = world.make_root(2, keys=(world.STRANGER,), signers=(world.ROOT, world.STRANGER))
    keyring = documents.seal("keyring", _members(world.make_keyring(2).payload), world.STRANGER)
    site.take(Parcel((keyring, second)))
    with site.state() as state:
        (trust,) = anchors.load(state)
    assert (trust.root.version, trust.keyring.version) == (2, 2)
    call(site)


def test_another_vendors_chain_is_left_alone(site: Site) -> None:
    site.pin()
    foreign = documents.seal("keyring", _members(world.make_keyring(9).payload), world.STRANGER)
    site.take(Parcel((foreign,)))
    with site.state() as state:
        assert anchors.load(state)[0].keyring.version == 1


def test_a_frozen_runtime_believes_only_its_own_roots_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pin()
    monkeypatch.setattr(machine, "frozen", lambda: True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "app" / "sealpack-runtime"))
    (tmp_path / "app").mkdir()
    with site.state() as state:
        with pytest.raises(SealpackError) as caught:
            anchors.load(state)
        assert caught.value.code == "FILE_MISSING", "what was pinned into the state does not count"
        roots = {"schema": anchors.ROOTS_SCHEMA, "roots": [json.loads(site.trust.to_bytes())]}
        (tmp_path / "app" / "roots.json").write_bytes(canonical.dumps(roots))
        assert [t.root_digest for t in anchors.load(state)] == [site.trust.root_digest]
        with pytest.raises(SealpackError) as caught:
            anchors.pin(state, site.trust)
        assert caught.value.code == "TRUST_CONFLICT"
        imports.take(state, [Parcel((world.make_revocations(version=2, licenses=["X"]),))])
        assert anchors.load(state)[0].revocations.licenses == {"X"}


# --- sync --------------------------------------------------------------------------------------------


def test_one_stick_visit(site: Site, tmp_path: Path) -> None:
    site.pin()
    site.install()
    stick = tmp_path / "stick"
    stick.mkdir()
    (stick / "ours.license").write_bytes(site.reply(site.request(), make_license()).to_bytes())
    (stick / "holiday.jpg").write_bytes(b"\xff\xd8not a document")
    (stick / "broken.ack").write_bytes(site.acknowledge(1, "00" * 32, 1).to_bytes())
    with site.state() as state:
        done = sync.visit(state, stick)
    assert done.taken.licenses == ["L-1"]
    assert list(done.refused) == ["broken.ack"]
    assert len(done.exported) == 1, "the new log introduces itself"
    (stick / "broken.ack").unlink()
    call(site)
    with site.state() as state:
        done = sync.visit(state, stick)
        assert (done.taken.count, done.taken.known, len(done.exported)) == (0, 3, 1)
    end = done.exported[0].end
    (stick / "reply.ack").write_bytes(site.acknowledge(end, root_at(site, end), 1).to_bytes())
    with site.state() as state:
        done = sync.visit(state, stick)
    assert (len(done.taken.acknowledgements), done.exported) == (1, [])


def test_local_receipts_stay_on_the_device(site: Site, tmp_path: Path) -> None:
    site.ready(make_license(receipts="local"))
    call(site)
    with site.state() as state:
        assert sync.visit(state, tmp_path).exported == []
        assert len(receipts.export(state, tmp_path)) == 1


def test_another_issuers_key_cannot_lease(site: Site) -> None:
    """Settlement keys bind to an issuer: an `ack` key of another one under the same root does not count."""
    stranger = site.ready_beside_another_issuer()
    name = device.name(device.key(site.home))
    lease = Lease("L-1", name, 0, 9, world.T0, None, (Ceiling("calls", 10**6),))
    assert code_of(site, Parcel((documents.seal("lease", lease.to_dict(), stranger),))) == "SIG_KEY_ROLE"

"""A state that was copied or set back, from the device through settlement and back to the device."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.acts import refused
from support.books import SIGNERS, Books
from support.site import INPUT, Site, make_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Lease
from sealpack.format.documents import Parcel
from sealpack.format.epoch_token import EpochToken
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.runtime import clones, log, receipts, rights, sync
from sealpack.settlement import ack, billing, epochs, ingest
from sealpack.settlement.reconcile import reconcile


@pytest.fixture(params=["enforce", "advisory"])
def enforcement(request: pytest.FixtureRequest) -> str:
    """An advisory license is no way around the identity of devices."""
    return str(request.param)


@pytest.fixture
def ready(site: Site, enforcement: str) -> Site:
    return site.ready(make_license(enforcement=enforcement))


@pytest.fixture
def books(ready: Site, tmp_path: Path) -> Books:
    """Settlement, which knows the license, its device and the build."""
    folder = tmp_path / "finance"
    folder.mkdir()
    found = Books.open(folder)
    found.take("trust.json", ready.trust.to_bytes())
    with ready.state() as state, state.read() as db:
        license, activation = (rights.stored(db, kind, "L-1") for kind in ("license", "activation"))
        digest = db.execute("SELECT bundle_digest FROM bundles").fetchone()[0]
    assert license is not None
    fact = BundleFact(digest, "acme/tiny", "1.0.0", 1, "Tiny")
    found.take("registry.jsonl", RegistryLine(license, activation, bundles=(fact,)).to_bytes() + b"\n")
    return found


def use(site: Site, calls: int = 1) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        for _ in range(calls):
            runtime.infer(INPUT)


def settle(books: Books, site: Site) -> list[str]:
    """One stick from a device to settlement and back; the codes of its files."""
    stick = Path(books.folder / f"stick-{time.monotonic_ns()}")
    stick.mkdir()
    now = int(time.time())
    with site.state() as state:
        exported = receipts.export(state, stick)
    outcomes = [o for e in exported for o in ingest.ingest_file(books.database, e.path, now)]
    for reply in ack.replies(books.database, SIGNERS, [o.origin for o in outcomes if o.origin], now):
        (stick / reply.name).write_bytes(reply.data)
    with site.state() as state:
        done = sync.visit(state, stick)
    assert not done.refused
    return [o.code for o in outcomes]


def newest(site: Site) -> log.Log:
    with site.state() as state, state.read() as db:
        found = log.find(db, "L-1")
    assert found is not None
    return found


def calls_billed(books: Books) -> int:
    with books.database.read() as connection:
        usage = billing.usage_of(connection, "L-1")
    return sum(amount for (_, _, meter), amount in usage.items() if meter == "calls")


def copied(site: Site, folder: Path) -> Site:
    """The same state on a second machine."""
    folder.mkdir()
    shutil.copytree(site.state_dir, folder / "state")
    return Site(folder, site.models, site.trust)


def token(site: Site, epoch: int) -> Parcel:
    with site.state() as state, state.read() as db:
        found = log.find(db, "L-1")
    assert found is not None
    made = EpochToken("L-1", found.origin.split("/")[3], epoch, world.T0)
    return Parcel((documents.seal("epoch-token", made.to_dict(), world.LICENSER),))


def test_a_copied_state_is_told_of_on_both_machines(
    ready: Site, books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(ready)
    twin = copied(ready, tmp_path / "twin")
    use(ready, 2)
    assert settle(books, ready) == ["OK"]
    use(ready)
    monkeypatch.setenv("SEALPACK_MARKS", str(tmp_path / "twin-marks"))  # another machine
    use(twin, 3)
    assert settle(books, twin) == ["H210"]
    error = refused("CLONE_SUSPECT", lambda: use(twin))
    assert error.spec.http == 409 and "two histories" in error.message
    assert "activate install" in error.remedy and "help@acme.example" in error.remedy
    monkeypatch.undo()
    use(ready)  # nobody has told this machine yet
    assert settle(books, ready) == ["H210"]
    refused("CLONE_SUSPECT", lambda: use(ready))
    assert calls_billed(books) == 3
    assert settle(books, ready) == ["H210"]
    refused("CLONE_SUSPECT", lambda: use(ready))
    leave = token(ready, 1)  # the vendor decides for this machine
    books.take("leave.license", leave.to_bytes())
    ready.take(leave)
    assert newest(ready).epoch == 1
    use(ready)
    assert settle(books, ready) == ["H210", "OK"]
    assert calls_billed(books) == 6
    use(ready)
    assert settle(books, ready)[-1] in ("OK", "W102")
    assert calls_billed(books) == 7
    assert reconcile(books.database, int(time.time())).ok


def test_a_restored_backup_goes_on_and_is_billed_once(ready: Site, books: Books, tmp_path: Path) -> None:
    use(ready)
    assert settle(books, ready) == ["OK"]
    backup = copied(ready, tmp_path / "backup")
    use(ready, 4)  # these receipts are lost
    shutil.rmtree(ready.state_dir)
    shutil.copytree(backup.state_dir, ready.state_dir)
    use(ready, 2)
    assert newest(ready).epoch == 1
    codes = settle(books, ready)
    assert "W151" in codes and not any(code[0] in "HR" for code in codes)
    assert calls_billed(books) == 7
    with ready.state() as state, state.read() as db:
        lease = rights.stored(db, "lease", "L-1")
    assert lease is not None
    assert Lease.open(lease, ready.trust).epoch == 1
    use(ready)
    assert set(settle(books, ready)) <= {"OK", "W103", "W101"}
    assert calls_billed(books) == 8
    with books.database.read() as connection:
        members = epochs.family(connection, "L-1", newest(ready).origin.split("/")[3])
    assert [m.epoch for m in members] == [0, 1] and epochs.totals(members)["calls"] == 8
    assert reconcile(books.database, int(time.time())).ok


# --- what the device makes of what it is told --------------------------------------------------------


def said(site: Site, ack_seq: int, **members: Any) -> Parcel:
    """Settlement's word about the log as it stands."""
    found = newest(site)
    return site.acknowledge(found.size, found.frontier.root.hex(), ack_seq, **members)


def suspect(site: Site) -> bool:
    with site.state() as state, state.read() as db:
        return clones.is_suspect(db, "L-1")


def test_a_later_word_ends_it_and_an_old_one_does_not_come_back(ready: Site) -> None:
    first = said(ready, 1, frozen=True, statement="two machines")
    taken = ready.take(first)
    assert (len(taken.acknowledgements), taken.statements) == (1, ["two machines"])
    assert suspect(ready)
    refused("CLONE_SUSPECT", lambda: use(ready))
    assert ready.take(first).known == 1 and suspect(ready)
    ready.take(said(ready, 2))
    assert not suspect(ready)
    use(ready)
    assert ready.take(first).known == 1 and not suspect(ready)


def test_another_history_is_remembered_and_nothing_else_is_taken(ready: Site) -> None:
    size = newest(ready).size
    theirs = ready.acknowledge(size + 3, "ab" * 32, 1, frozen=True)
    taken = ready.take(theirs)
    assert len(taken.acknowledgements) == 1 and suspect(ready)
    assert (newest(ready).size, newest(ready).acked_size) == (size, 0)
    refused("ACK_FORK", lambda: ready.take(ready.acknowledge(size + 3, "ab" * 32, 1)))


def test_the_word_about_another_log_of_this_device_counts(ready: Site) -> None:
    name = newest(ready).origin.split("/")[3]

    def word(epoch: int, device: str = name, license_id: str = "L-1") -> Parcel:
        origin = f"sealpack/usage/{license_id}/{device}/{epoch}"
        made = Acknowledgement(origin, license_id, device, epoch, 9, "ab" * 32, 1, world.T0, frozen=True)
        return Parcel((documents.seal("acknowledgement", made.to_dict(), world.SETTLEMENT),))

    assert ready.take(word(0, device="dev-" + "0" * 32)).others == 1
    assert ready.take(word(0, license_id="L-9")).others == 1
    assert not suspect(ready)
    assert len(ready.take(word(5)).acknowledgements) == 1
    assert suspect(ready)


def test_the_issuer_decides(ready: Site) -> None:
    frozen = said(ready, 1, frozen=True)
    ready.take(frozen)
    assert ready.take(token(ready, 1)).tokens == ["L-1"]
    assert not suspect(ready)
    assert ready.take(token(ready, 1)).known == 1


def test_tokens_for_others(ready: Site) -> None:
    elsewhere = EpochToken("L-1", "dev-" + "0" * 32, 1, world.T0)
    unknown = EpochToken("L-9", newest(ready).origin.split("/")[3], 1, world.T0)
    for made in (elsewhere, unknown):
        parcel = Parcel((documents.seal("epoch-token", made.to_dict(), world.LICENSER),))
        assert ready.take(parcel).others == 1
    ready.take(token(ready, 3))
    assert ready.take(token(ready, 2)).known == 1


def test_another_issuer_neither_freezes_nor_gives_leave(site: Site) -> None:
    stranger = site.ready_beside_another_issuer()
    name = newest(site).origin.split("/")[3]
    found = newest(site)
    ack_ = Acknowledgement(
        found.origin, "L-1", name, 0, found.size, found.frontier.root.hex(), 1, world.T0, frozen=True
    )
    for kind, made in (("acknowledgement", ack_), ("epoch-token", EpochToken("L-1", name, 1, world.T0))):
        parcel = Parcel((documents.seal(kind, made.to_dict(), stranger),))
        refused("SIG_KEY_ROLE", lambda parcel=parcel: site.take(parcel))  # type: ignore[misc]
    assert not suspect(site)

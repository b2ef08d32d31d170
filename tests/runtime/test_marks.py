"""The high-water mark: an older state is noticed, taken on once, and then no more."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import world
from support.acts import backup, call, events, refused, restore
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.documents import Parcel
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, Quota
from sealpack.format.records import Record
from sealpack.runtime import device, epochs, home, log, machine, marks, receipts, timekeeper
from sealpack.runtime.clock import Reading

TERM = (Quota("calls", "term", "device", 10, None, "deny"),)


def sidecar(site: Site) -> Path:
    return Path(os.environ["SEALPACK_MARKS"]) / device.name(device.key(site.home))


def logs(site: Site) -> list[log.Log]:
    with site.state() as state, state.read() as db:
        return log.every(db)


def found_in(site: Site, number: int) -> list[Record]:
    with site.state() as state, state.read() as db:
        return list(receipts.recent(db, number, 100_000))


def sound(site: Site) -> None:
    """Every log, register and counter fits."""
    for one in logs(site):
        with site.state() as state:
            assert receipts.verify_log(state, one.log) == []


def test_yesterdays_database_alone_begins_the_next_log(site: Site) -> None:
    site.ready(make_license(quota=TERM))
    call(site, 2)
    yesterday = backup(site)
    call(site, 4)
    (old,) = logs(site)
    restore(site, yesterday)
    call(site)
    before, after = logs(site)
    assert (before.epoch, after.epoch) == (0, 1)
    genesis = found_in(site, after.log)[0].body
    assert genesis["previous"] == {"origin": old.origin, "size": old.size, "root": old.frontier.root.hex()}
    ((carried),) = genesis["carried"].values()
    assert {meter: n for meter, n in carried.items() if meter != "ms"} == {"calls": 6, "items": 6}
    call(site, 3)
    error = refused("QUOTA_EXCEEDED", lambda: call(site))
    assert error.message.startswith("10 of 10 calls"), "six before, one and three after"
    sound(site)


def test_the_second_restore_under_one_lease_is_refused(site: Site) -> None:
    site.ready()
    call(site)
    yesterday = backup(site)
    call(site)
    restore(site, yesterday)
    call(site)
    restore(site, yesterday)
    error = refused("STATE_ROLLED_BACK", lambda: call(site))
    assert "had written 4 of log 1; one backup per lease" in error.message
    assert "epoch token for log 2 of dev-" in error.remedy
    with site.state() as state:
        refused("STATE_ROLLED_BACK", lambda: receipts.export(state, site.folder))
    assert len(logs(site)) == 1, "nothing was begun"


def test_even_when_the_backup_is_of_the_second_log(site: Site) -> None:
    site.ready()
    first = backup(site)
    call(site)
    restore(site, first)
    call(site)
    second = backup(site, "second")
    call(site)
    restore(site, second)
    refused("STATE_ROLLED_BACK", lambda: call(site))


def test_a_new_lease_for_the_new_log_allows_one_more(site: Site) -> None:
    site.ready()
    first = backup(site)
    call(site)
    restore(site, first)
    call(site)
    second = backup(site, "second")
    call(site)
    restore(site, second)
    name = device.name(device.key(site.home))
    lease = site.lease(name, "L-1", 2, {}, epoch=1)
    site.take(Parcel((lease,)))
    call(site)
    assert [one.epoch for one in logs(site)] == [0, 1, 2]
    sound(site)


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_epoch_token_says_which_log_may_begin(site: Site, epoch: int) -> None:
    site.ready()
    first = backup(site)
    call(site)
    restore(site, first)
    call(site)
    restore(site, first)
    token = EpochToken("L-1", device.name(device.key(site.home)), epoch, world.T0)
    site.take(Parcel((documents.seal("epoch-token", token.to_dict(), world.LICENSER),)))
    if epoch == 1:  # that one was begun already
        refused("STATE_ROLLED_BACK", lambda: call(site))
    else:
        call(site)
        assert logs(site)[-1].epoch == 2
        sound(site)


def test_after_a_year_one_more_is_allowed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    start = int(time.time() * 1000)
    now = {"wall": start, "up": 1_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    site.ready()
    first = backup(site)
    call(site)
    restore(site, first)
    call(site)
    now |= {"wall": start + epochs.AGAIN_MS - 1000, "up": 1_000 + epochs.AGAIN_MS - 1000}
    restore(site, first)
    refused("STATE_ROLLED_BACK", lambda: call(site))
    now |= {"wall": start + epochs.AGAIN_MS + 1000, "up": 1_000 + epochs.AGAIN_MS + 1000}
    call(site)
    assert [one.epoch for one in logs(site)] == [0, 2], "what the second state had is gone, and told"
    sound(site)


def test_with_the_sidecar_nobody_notices(site: Site) -> None:
    """As the design says: a whole machine put back is seen by settlement, as a fork."""
    site.ready()
    call(site)
    yesterday = backup(site)
    marks_too = site.folder / "marks"
    shutil.copytree(sidecar(site), marks_too)
    call(site, 3)
    restore(site, yesterday)
    shutil.rmtree(sidecar(site))
    shutil.copytree(marks_too, sidecar(site))
    call(site)
    assert [one.epoch for one in logs(site)] == [0]


def test_a_deleted_sidecar_is_told_in_the_log_and_made_again(site: Site) -> None:
    site.ready()
    call(site)
    assert events(site) == []
    shutil.rmtree(sidecar(site))
    call(site)
    assert events(site) == [epochs.MARK_MISSING]
    call(site)
    assert events(site) == [epochs.MARK_MISSING]
    (one,) = logs(site)
    mark = marks.read(site.home, one.origin, device.key(site.home).public)
    assert mark is not None
    assert (mark.epoch, mark.checkpoint.size) == (0, one.size)


@pytest.mark.parametrize("damage", ["mac", "body", "empty", "other key"])
def test_a_mark_that_this_device_did_not_make_does_not_count(site: Site, damage: str) -> None:
    site.ready()
    call(site)
    (one,) = logs(site)
    for path in sidecar(site).iterdir():
        head, _, body = path.read_bytes().partition(b"\n")
        if damage == "mac":
            path.write_bytes(b"0" * len(head) + b"\n" + body)
        elif damage == "body":
            path.write_bytes(head + b"\n" + body.replace(b'"epoch":0', b'"epoch":7'))
        elif damage == "empty":
            path.write_bytes(b"")
        else:
            mark = json.loads(body)
            mark["checkpoint"] = mark["checkpoint"].replace("L-1", "L-2")
            text = json.dumps(mark, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
            path.write_bytes(f"{marks._mac(site.home, text)}\n".encode() + text + b"\n")
    assert marks.read(site.home, one.origin, device.key(site.home).public) is None
    call(site)
    assert events(site) == [epochs.MARK_MISSING]


def test_a_torn_mark_leaves_the_one_before(site: Site) -> None:
    site.ready()
    call(site)
    (one,) = logs(site)
    newest = sidecar(site) / f"L-1.{one.size % 2}"
    newest.write_bytes(newest.read_bytes()[:100])
    mark = marks.read(site.home, one.origin, device.key(site.home).public)
    assert mark is not None
    assert 0 < mark.checkpoint.size < one.size
    call(site)
    assert events(site) == []


def test_a_place_that_cannot_be_written_stops_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.folder / "file").write_bytes(b"")
    monkeypatch.setenv("SEALPACK_MARKS", str(site.folder / "file" / "marks"))
    site.ready()
    call(site, 2)
    sound(site)


def test_without_a_place_no_mark_is_missed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "marks_path", lambda: None)
    site.ready()
    call(site, 2)
    call(site)
    assert events(site) == []


def test_marks_lie_in_the_users_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEALPACK_MARKS")
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert str(home.marks_path()) == "/somewhere/sealpack/marks"


def test_days_months_and_the_term_go_on_after_a_restore(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    noon = (world.T0 // 86_400 + 30) * 86_400_000 + 43_200_000
    now = {"wall": noon, "up": 1_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    limits = tuple(
        Quota("calls", window, "device", cap, None, "deny") for window, cap in (("day", 5), ("month", 9))
    )
    site.ready(make_license(quota=limits, term_s=100 * 86_400))
    old = backup(site)
    call(site, 4)
    for _ in range(2):
        now |= {"wall": now["wall"] + 86_400_000, "up": now["up"] + 86_400_000}
        call(site, 2)
    started = logs(site)[0].started
    restore(site, old)
    call(site)  # the third of this day, the ninth of this month
    error = refused("QUOTA_EXCEEDED", lambda: call(site))
    assert error.message.startswith("9 of 9 calls")
    assert logs(site)[-1].started == started == noon
    with site.state() as state, state.read() as db:
        clock = timekeeper.load(db)
    assert clock is not None
    assert clock.soft == now["wall"]
    sound(site)


def test_the_clock_does_not_come_back_with_an_old_database(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = int(time.time() * 1000)
    now = {"wall": start, "up": 1_000}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "boot"))
    site.ready(make_license(exp=start // 1000 + 86_400))
    old = backup(site)
    now |= {"wall": start + 2 * 86_400_000, "up": 1_000 + 2 * 86_400_000}
    refused("LIC_EXPIRED", lambda: call(site))
    restore(site, old)
    now |= {"wall": start + 1000, "up": 500}
    monkeypatch.setattr(machine, "reading", lambda: Reading(now["wall"], now["up"], "next boot"))
    refused("LIC_EXPIRED", lambda: call(site))


def test_what_was_held_when_the_backup_was_made_is_not_billed_again(site: Site) -> None:
    site.ready()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        for _ in range(3):
            runtime.infer(INPUT)
        during = backup(site)  # the next call is held ahead
    call(site)
    restore(site, during)
    call(site)
    with site.state() as state, state.read() as db:
        total = db.execute("SELECT used, reserved FROM counters WHERE period='term' AND meter='calls'")
        assert total.fetchone() == (5, 0)
    sound(site)


def test_a_license_that_binds_no_device_goes_on_once_too(site: Site) -> None:
    free = make_license(devices=Devices("none"), quota=TERM)
    site.pin()
    site.install("tiny")
    site.take(Parcel((seal_license(free),)))
    old = backup(site)
    call(site, 3)
    restore(site, old)
    call(site, 7)
    refused("QUOTA_EXCEEDED", lambda: call(site))
    restore(site, old)
    refused("STATE_ROLLED_BACK", lambda: call(site))


def test_nothing_appends_to_a_log_that_is_behind_its_mark(site: Site) -> None:
    """Whoever forgets to look is stopped where it would become a fork."""
    site.ready()
    old = backup(site)
    call(site)
    restore(site, old)
    (one,) = logs(site)
    with site.state() as state, pytest.raises(SealpackError) as caught, state.write() as db:
        log.Writer(db, one, device.key(site.home), timekeeper.observe(db))
    assert caught.value.code == "STATE_ROLLED_BACK"


def test_everything_deleted_is_a_new_device(site: Site) -> None:
    site.ready()
    call(site)
    shutil.rmtree(site.state_dir)
    missing = refused("STATE_MISSING", lambda: home.open_home(site.state_dir, create=False))
    assert "`sealpack trust pin trust.json` first" in missing.remedy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "frozen", lambda: True)  # which has its roots
        missing = refused("STATE_MISSING", lambda: home.open_home(site.state_dir, create=False))
    assert "`sealpack install BUNDLE` first" in missing.remedy
    site.pin()
    site.install("tiny")
    refused("LIC_MISSING", lambda: call(site))


def test_a_renewed_license_keeps_its_mark(site: Site) -> None:
    site.ready(make_license(quota=TERM))
    call(site, 2)
    old = backup(site)
    call(site, 2)
    restore(site, old)
    renewed = replace(make_license(quota=TERM), seq=2)
    site.activate(renewed)
    call(site, 6)
    refused("QUOTA_EXCEEDED", lambda: call(site))
    sound(site)


def test_after_a_restore_the_stick_goes_on_travelling(site: Site) -> None:
    """The log that another one followed is carried out as it stands; nothing is appended to it."""
    site.ready()
    call(site)
    yesterday = backup(site)
    call(site)
    restore(site, yesterday)
    call(site)
    stick = site.folder / "stick"
    stick.mkdir()
    for _ in range(2):
        with site.state() as state:
            done = receipts.export(state, stick)
        assert [(f.origin[-2:], f.start, f.end) for f in done] == [("/0", 0, 4), ("/1", 0, 6)]
    assert len(list(stick.glob("*.usage.gz"))) == 2
    for path in stick.glob("*.usage.gz"):
        assert receipts.verify_file(path, 1 << 20).ok
    sound(site)


def test_a_pipe_in_the_place_of_a_mark_is_not_waited_for(site: Site) -> None:
    site.ready()
    for path in sidecar(site).iterdir():
        path.unlink()
    for slot in (0, 1):
        os.mkfifo(sidecar(site) / f"L-1.{slot}")
    call(site, 2)
    sound(site)

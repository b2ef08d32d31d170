"""What setting the clock does at a site: through the database, admission, imports and several processes."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from support import world
from support.acts import events, refused
from support.clocks import Clocks
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import canonical, documents
from sealpack.format.activation import Lease
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import Devices, LeaseTerms, Quota
from sealpack.runtime import anchors, clock, device, home, log, machine, receipts, state, timekeeper
from sealpack.runtime.api import Runtime
from sealpack.runtime.clock import ClockState

T0 = world.T0
DAY = 86_400
YEAR = 365 * DAY


def open_runtime(site: Site, name: str = "tiny") -> Runtime:
    return sealpack.runtime.open(f"acme/{name}", state=site.state_dir, threads=1)


def stored(site: Site) -> ClockState:
    with site.state() as opened, opened.read() as db:
        found = timekeeper.load(db)
    assert found is not None
    return found


# --- dates -------------------------------------------------------------------------------------------


def test_the_edges_of_nbf_exp_and_grace_are_exact_to_the_second(site: Site, clocks: Clocks) -> None:
    nbf, exp, grace = T0 + 100, T0 + DAY, 50
    site.ready(make_license(nbf=nbf, exp=exp, grace_s=grace))
    clocks.at(nbf - 0.001)
    refused("LIC_NOT_YET_VALID", lambda: open_runtime(site))
    clocks.at(nbf)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        clocks.at(exp - 0.001)
        (early,) = runtime.infer(INPUT).warnings
        assert "license ends 2026-09-22" in early.message
        for inside in (exp, exp + grace - 0.001):
            clocks.at(inside)
            assert [w.code for w in runtime.infer(INPUT).warnings] == ["LIC_EXPIRED"]
        clocks.at(exp + grace)
        refused("LIC_EXPIRED", lambda: runtime.infer(INPUT))
    refused("LIC_EXPIRED", lambda: open_runtime(site))


def test_a_license_that_ends_in_the_middle_of_a_call_lets_the_call_end(site: Site, clocks: Clocks) -> None:
    site.pin()
    site.install("talk")
    site.activate(make_license(exp=T0 + 60))
    with open_runtime(site, "talk") as runtime:
        said = runtime.generate("the", max_tokens=4, on_text=lambda _: clocks.run(60))
        assert said.meters["tok_out"] == 4
        refused("LIC_EXPIRED", lambda: runtime.generate("the", max_tokens=4))
    with site.state() as opened:
        assert receipts.verify_log(opened, 1) == []
        with opened.read() as db:
            found = [r.body["status"] for r in receipts.recent(db, 1, 100) if r.kind == "u"]
    assert found == ["ok"]


@pytest.mark.parametrize("back", [3600, DAY, YEAR, T0 + DAY], ids=["an hour", "a day", "a year", "1970"])
def test_an_ended_license_does_not_come_back_with_an_old_date(site: Site, clocks: Clocks, back: int) -> None:
    site.ready(make_license(exp=T0 + DAY))
    clocks.at(T0 + DAY + 3600)
    refused("LIC_EXPIRED", lambda: open_runtime(site))
    clocks.wall = max(0, T0 + DAY - back)
    refused("LIC_EXPIRED", lambda: open_runtime(site))
    clocks.reboot()
    refused("LIC_EXPIRED", lambda: open_runtime(site))


def test_a_frozen_clock_ends_a_license_by_run_time(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(exp=T0 + DAY))
    frozen = clocks.wall
    for _ in range(24):
        with open_runtime(site):
            pass
        clocks.run(3600)
        clocks.wall = frozen
    refused("LIC_EXPIRED", lambda: open_runtime(site))


@pytest.mark.parametrize("wall", [2_147_483_648, 4_294_967_296], ids=["2038", "2106"])
def test_an_accidental_far_date_stops_only_until_it_is_put_right(
    site: Site, clocks: Clocks, wall: int
) -> None:
    lease = LeaseTerms(required=True, max_age_s=45 * DAY, on_stale="deny")
    site.ready(make_license(exp=T0 + YEAR, lease=lease))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        right = clocks.wall
        clocks.wall = wall
        clocks.up += 60
        refused("LIC_EXPIRED", lambda: runtime.infer(INPUT))
        clocks.wall = (right or 0) + 120
        clocks.up += 60
        assert runtime.infer(INPUT).warnings == ()
    assert events(site) == [clock.JUMP_PENDING, clock.JUMP_UNDONE]


def test_a_first_start_in_2038_does_not_make_a_term_without_end(site: Site, clocks: Clocks) -> None:
    clocks.wall = 2_147_483_648
    site.ready(make_license(term_s=DAY))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        clocks.wall = T0 + 60
        runtime.infer(INPUT)
        clocks.run(DAY)
        refused("LIC_EXPIRED", lambda: runtime.infer(INPUT))


@pytest.mark.parametrize("wall", [None, -1])
def test_an_unreadable_clock_refuses_until_it_can_be_read(
    site: Site, clocks: Clocks, wall: float | None
) -> None:
    site.ready()
    with open_runtime(site) as runtime:
        right, clocks.wall = clocks.wall, wall
        error = refused("CLOCK_UNREADABLE", lambda: runtime.infer(INPUT))
        assert (error.spec.exit, error.spec.http) == (1, 503)
        clocks.wall = right
        runtime.infer(INPUT)


def test_a_negative_system_clock_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: -0.5)
    assert machine.reading().wall is None


# --- allowances --------------------------------------------------------------------------------------


def test_next_months_quota_does_not_come_with_next_months_date(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(quota=(Quota("calls", "month", "device", 1, None, "deny"),)))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
        right = clocks.wall or 0
        for ahead in (29 * DAY, 60 * DAY, YEAR):
            clocks.wall = right + ahead
            refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
            clocks.reboot()
        clocks.wall = right
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))


def test_almost_the_budget_every_second_for_a_minute_opens_a_weeks_windows(
    site: Site, clocks: Clocks
) -> None:
    site.ready(make_license(quota=(Quota("calls", "day", "device", 1, None, "deny"),)))
    answered = 0
    with open_runtime(site) as runtime:
        for _ in range(60):
            try:
                runtime.infer(INPUT)
                answered += 1
            except SealpackError as error:
                assert error.code == "QUOTA_EXCEEDED"
            clocks.run(1)
            clocks.wall = (clocks.wall or 0) + 6.9 * DAY
    assert answered <= 1 + 7


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/New_York", "right/Europe/Berlin"])
def test_zones_daylight_saving_and_leap_seconds_do_not_move_windows(
    site: Site, clocks: Clocks, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        midnight = (T0 // DAY + 1) * DAY
        clocks.at(midnight - 1)
        site.ready(make_license(quota=(Quota("calls", "day", "device", 1, None, "deny"),)))
        with open_runtime(site) as runtime:
            runtime.infer(INPUT)
            clocks.run(0.999)
            refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
            clocks.run(0.001)
            runtime.infer(INPUT)
            clocks.wall = midnight - 1  # a leap second: the last one of the day once more
            refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert events(site) == []


BURST = """
import random, sys, time
from sealpack.format.errors import SealpackError
from sealpack.format.license import open_license
from sealpack.runtime import admission, anchors, device, home, machine, rights, state
from sealpack.runtime.clock import Reading, Times
from sealpack.runtime.engines.base import Usage
from sealpack.runtime.ledger import Ledger
from sealpack.runtime.owners import Owner

dice = random.Random(int(sys.argv[2]))
wall, steps = int(sys.argv[3]), (-3_600_000, 0, 1, 86_400_000 * 6, 86_400_000 * 29, -86_400_000 * 365)
machine.reading = lambda: Reading(wall + dice.choice(steps), machine.uptime_ms(), machine.boot_id())
with state.State(home.open_home(sys.argv[1])) as opened:
    with opened.read() as db:
        trusts = anchors.current(db)
        found = rights.read(db, "FREE", trusts)
    build = admission.Build("acme/tiny", "1.0.0", "ab" * 32, 1, "none", "cd" * 32, 0)
    route = {"license_id": "FREE", "seq": 1, "bundle_digest": "ab" * 32, "model_digest": "ef" * 32}
    lists, none = found.trust.revocations, Times(0, 0, 0)
    facts = admission.Facts(found.license, None, None, lists, "dev-x", build, none)
    owner = Owner(opened.home, "FREE")
    books = Ledger(opened, device.key(opened.home), owner)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(12):
        try:
            ticket = books.reserve(route, Usage(1, 1, 1), lambda *_: facts, streaming=False)
        except SealpackError as error:
            print(error.code, flush=True)
            continue
        books.settle(ticket, "ok", Usage(1, 1, 1), ms=1, wait_ms=0)
        print("ok", flush=True)
    owner.release()
"""


def test_eight_processes_while_the_clock_steps_get_no_more_than_the_budget_opens(tmp_path: Path) -> None:
    """96 calls at one call a day: at most today's and what seven days of budget reach."""
    daily = make_license(
        license_id="FREE",
        devices=Devices("none"),
        quota=(Quota("calls", "day", "device", 1, None, "deny"),),
    )
    site = Site(tmp_path, {}, world.make_trust()).pin()
    site.take(Parcel((seal_license(daily),)))
    now = stored(site).soft
    command = [sys.executable, "-c", textwrap.dedent(BURST), str(site.state_dir)]
    running = [
        subprocess.Popen(
            [*command, str(number), str(now)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(8)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    said = "".join(process.communicate("go\n", timeout=60)[0] for process in running).split()
    assert len(said) == 8 * 12
    assert set(said) <= {"ok", "QUOTA_EXCEEDED"}
    assert 1 <= said.count("ok") <= 1 + 7
    with site.state() as opened:
        assert receipts.verify_log(opened, 1) == []
        with opened.read() as db:
            times = [r.time_ms for r in receipts.recent(db, 1, 10_000)]
            books = log.registers(db, 1)
    assert times == sorted(times)
    assert books.total("calls") == said.count("ok")


# --- documents ---------------------------------------------------------------------------------------


def leases(site: Site) -> list[Parcel]:
    """Three leases, the one with the highest number dated before another."""
    name = device.name(device.key(site.home))
    dates = {2: T0 + 2 * DAY, 3: T0 + 9 * DAY, 4: T0 + 5 * DAY}
    return [Parcel((site.lease(name, "L-1", seq, {}, issued_at=date),)) for seq, date in dates.items()]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_in_which_leases_arrive_does_not_matter(
    site: Site, clocks: Clocks, order: tuple[int, ...]
) -> None:
    site.ready()
    parcels = leases(site)
    for number in (*order, *order):
        site.take(parcels[number])
    assert stored(site).hard == (T0 + 9 * DAY) * 1000


def test_a_lease_before_its_license_counts_once_the_license_is_here(site: Site, clocks: Clocks) -> None:
    free = make_license(license_id="L-9", devices=Devices("none"))
    site.ready()
    before = stored(site)
    name = device.name(device.key(site.home))
    site.take(Parcel((site.lease(name, "L-9", 1, {}, issued_at=T0 + 9 * DAY),)))
    assert stored(site) == before
    site.take(Parcel((seal_license(free),)))
    assert stored(site).hard == (T0 + 9 * DAY) * 1000


def test_nobody_but_the_licenses_issuer_moves_the_clock(site: Site, clocks: Clocks) -> None:
    stranger = site.ready_beside_another_issuer()
    before = stored(site)
    name = device.name(device.key(site.home))
    for license_id in ("L-1", "L-9"):
        lease = Lease(license_id, name, 0, 9, T0 + YEAR, None, ())
        parcel = Parcel((documents.seal("lease", lease.to_dict(), stranger),))
        if license_id == "L-1":
            refused("SIG_KEY_ROLE", lambda parcel=parcel: site.take(parcel))  # type: ignore[misc]
        else:
            site.take(parcel)
    assert stored(site) == before
    free = make_license(license_id="L-9", devices=Devices("none"))
    site.take(Parcel((seal_license(free),)))
    assert stored(site).hard == before.hard
    assert site.take(Parcel((site.lease(name, "L-9", 1, {}),))).leases == ["L-9"], "the stranger's is gone"


def test_a_lease_of_that_time_confirms_a_long_pause_at_once(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(nbf=T0))
    clocks.reboot()
    clocks.wall = T0 + 90 * DAY
    with open_runtime(site):
        pass
    assert stored(site).soft < (T0 + DAY) * 1000
    name = device.name(device.key(site.home))
    site.take(Parcel((site.lease(name, "L-1", 2, {}, issued_at=T0 + 89 * DAY),)))
    with open_runtime(site):
        pass
    assert stored(site).soft == (T0 + 90 * DAY) * 1000
    assert stored(site).pending_wall is None


def renew_root(site: Site, issued_at: int) -> None:
    undated = canonical.loads(world.make_root(version=2).payload, what="root")
    members = {name: value for name, value in undated.items() if name != "schema"}
    second = documents.seal("root", members | {"issued_at": issued_at}, world.ROOT)
    with site.state() as opened:
        anchors.pin(opened, site.trust.update([second]))


def test_a_clock_set_back_before_a_new_root_brings_no_ended_license_back(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(exp=T0 + DAY))
    clocks.at(T0 + 2 * DAY)
    refused("LIC_EXPIRED", lambda: open_runtime(site))
    clocks.wall = T0 + 60
    renew_root(site, T0)
    refused("LIC_EXPIRED", lambda: open_runtime(site))
    assert stored(site).hard == T0 * 1000


def test_a_new_root_takes_back_what_a_wrongly_dated_document_added(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(exp=T0 + DAY))
    name = device.name(device.key(site.home))
    site.take(Parcel((site.lease(name, "L-1", 2, {}, issued_at=T0 + 70 * YEAR),)))
    refused("LIC_EXPIRED", lambda: open_runtime(site))
    renew_root(site, T0)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)


# --- form --------------------------------------------------------------------------------------------

FIRST_CLOCK = """
CREATE TABLE clock(
  id INTEGER PRIMARY KEY CHECK(id = 1),
  hard INTEGER NOT NULL CHECK(hard >= 0),
  soft INTEGER NOT NULL CHECK(soft >= hard),
  budget INTEGER NOT NULL CHECK(budget >= 0),
  boot_id TEXT NOT NULL,
  monotonic INTEGER NOT NULL,
  pending_wall INTEGER,
  pending_run INTEGER NOT NULL CHECK(pending_run >= 0),
  behind INTEGER NOT NULL CHECK(behind IN (0, 1)),
  events TEXT NOT NULL
) STRICT;
"""


def test_a_database_of_the_first_version_keeps_its_clock(tmp_path: Path) -> None:
    place = home.open_home(tmp_path / "state")
    db = sqlite3.connect(place.database)
    db.executescript((Path(__file__).parent / "state-2.sql").read_text(encoding="utf-8"))
    db.executescript("DROP TABLE clock;" + FIRST_CLOCK + "PRAGMA user_version=1;")
    db.execute("INSERT INTO clock VALUES(1, 1000, 5000, 77, 'b', 9, 8000, 3, 0, '[[\"back\", -5]]')")
    db.commit()
    db.close()
    for _ in range(2):
        with state.State(place) as opened, opened.write() as db:
            found = timekeeper.load(db)
            assert found == ClockState(1000, 5000, 77, "b", 9, 8000, 3, own=5000, stage=clock.Stage.SETTLED)
            assert db.execute("PRAGMA user_version").fetchone() == (state.VERSION,)
    with state.State(place) as opened, opened.write() as db:
        assert [event.name for event in timekeeper.take_events(db)] == ["back"]


def test_every_clock_survives_the_database(tmp_path: Path) -> None:
    dice = random.Random(4)
    with state.State(home.open_home(tmp_path / "state")) as opened:
        for stage in clock.Stage:
            made = ClockState(
                dice.randrange(10**12),
                2**53 - 1,
                dice.randrange(clock.BUDGET_MS),
                "boot",
                dice.randrange(10**12),
                None if stage is clock.Stage.NEW else dice.randrange(2**53),
                dice.randrange(10**9),
                behind=stage is clock.Stage.TRIAL,
                own=dice.randrange(10**12),
                stage=stage,
            )
            with opened.write() as db:
                timekeeper.store(db, made)
            with opened.read() as db:
                assert timekeeper.load(db) == made
                assert timekeeper.load(db) != replace(made, own=made.own + 1)

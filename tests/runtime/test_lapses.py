"""Honest sites are never stranded: provisional use, break-glass, early warnings, advisory licenses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from support import world
from support.acts import events, refused
from support.clocks import Clocks
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import ClockRules, Devices, LeaseTerms, License, Provisional, Quota
from sealpack.runtime import lapses, overview, receipts, timekeeper
from sealpack.runtime.api import Runtime
from sealpack.runtime.cli.status import status

pytest.importorskip("onnxruntime")

T0 = world.T0
HOUR, DAY = 3_600, 86_400
WEEK = 7 * DAY


def kit(**members: Any) -> License:
    """A license that binds devices and lets an install begin before it is activated."""
    return make_license(**({"provisional": Provisional(10 * HOUR, 3)} | members))


def with_kit(site: Site, license: License | None = None) -> Site:
    site.pin()
    site.install()
    site.take(Parcel((seal_license(license or kit()),)))
    return site


def open_runtime(site: Site) -> Runtime:
    return sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1)


def call(site: Site) -> tuple[str, ...]:
    """One call by a runtime of its own; the codes of its warnings."""
    with open_runtime(site) as runtime:
        return tuple(w.code for w in runtime.infer(INPUT).warnings)


def shown(site: Site) -> dict[str, Any]:
    """What `sealpack status` says of the license."""
    with site.state() as opened:
        (license,) = overview.gather(opened)["licenses"]
    return dict(license)


# --- provisional ------------------------------------------------------------------------------------


def test_a_kit_runs_before_the_activation_and_its_log_goes_on_after_it(site: Site, clocks: Clocks) -> None:
    with_kit(site)
    assert shown(site)["provisional"] == {
        "calls": 3,
        "calls_left": 3,
        "s": 10 * HOUR,
        "s_left": 10 * HOUR,
    }
    clocks.run(DAY)  # it lies there for a day: nothing is used up before the first call
    assert [call(site) for _ in range(3)] == [("NOT_ACTIVATED",)] * 3
    found = refused("NOT_ACTIVATED", lambda: call(site))
    assert found.message == "provisional use ended: 3 of 3 calls are used"
    assert "sealpack activate request" in found.remedy and "help@acme.example" in found.remedy
    assert shown(site)["provisional"]["calls_left"] == 0
    site.activate(kit())
    assert call(site) == ()
    assert shown(site)["provisional"] is None
    with site.state() as opened, opened.read() as db:
        genesis, *rest = receipts.recent(db, 1, 1000)
        logs = db.execute("SELECT origin FROM logs").fetchall()
    assert "activation" not in genesis.body and len(logs) == 1
    assert sum(record.kind == "u" for record in rest) == 4


def test_provisional_time_is_counted_from_the_first_call_to_the_second(site: Site, clocks: Clocks) -> None:
    with_kit(site, kit(provisional=Provisional(10 * HOUR, 99)))
    call(site)
    clocks.run(10 * HOUR - 1)
    assert call(site) == ("NOT_ACTIVATED",)
    with open_runtime(site) as runtime:
        clocks.run(1)
        found = refused("NOT_ACTIVATED", lambda: runtime.infer(INPUT))
    assert found.message == "provisional use ended: 10 hours are over"
    refused("NOT_ACTIVATED", lambda: open_runtime(site))


def test_provisional_use_comes_once_whatever_is_imported_again_or_set_back(
    site: Site, clocks: Clocks
) -> None:
    with_kit(site, kit(provisional=Provisional(10 * HOUR, 99)))
    call(site)
    clocks.run(10 * HOUR)
    refused("NOT_ACTIVATED", lambda: call(site))
    site.take(Parcel((seal_license(kit(provisional=Provisional(10 * HOUR, 99))),)))
    refused("NOT_ACTIVATED", lambda: call(site))
    site.take(Parcel((seal_license(kit(seq=2, provisional=Provisional(10 * HOUR, 99))),)))
    refused("NOT_ACTIVATED", lambda: call(site))
    clocks.wall = T0
    refused("NOT_ACTIVATED", lambda: call(site))
    with site.state() as opened, opened.write() as db:  # as a repair would
        timekeeper.repair(db, T0)
    refused("NOT_ACTIVATED", lambda: call(site))


def test_a_first_wall_clock_far_ahead_gives_no_provisional_time_twice(site: Site, clocks: Clocks) -> None:
    clocks.wall = T0 + 400 * DAY
    with_kit(site, kit(provisional=Provisional(10 * HOUR, 99)))
    call(site)
    clocks.run(9 * HOUR)
    call(site)
    clocks.wall = T0 + DAY  # the first wall was on trial: soft follows it back
    call(site)
    clocks.run(HOUR)
    refused("NOT_ACTIVATED", lambda: call(site))


def test_a_license_for_other_devices_is_not_taken_for_provisional_use(site: Site, clocks: Clocks) -> None:
    site.pin()
    site.install()
    other = site.request()
    parcel = site.reply(other, kit())
    elsewhere = Site(site.folder / "other", site.models, site.trust)
    elsewhere.folder.mkdir()
    elsewhere.pin()
    elsewhere.install()
    taken = elsewhere.take(parcel)
    assert (taken.licenses, taken.others) == ([], 3)
    refused("LIC_MISSING", lambda: call(elsewhere))


def test_a_kit_rides_in_the_bundle(site: Site, clocks: Clocks) -> None:
    site.pin()
    site.install(meta={"META/license/L-1.json": seal_license(kit()).to_bytes()})
    assert call(site) == ("NOT_ACTIVATED",)


def test_a_lease_is_not_asked_for_before_the_activation(site: Site, clocks: Clocks) -> None:
    with_kit(site, kit(lease=LeaseTerms(required=True, on_stale="deny")))
    assert call(site) == ("NOT_ACTIVATED",)


def test_without_provisional_nothing_runs_before_the_activation(site: Site, clocks: Clocks) -> None:
    with_kit(site, make_license())
    refused("LIC_MISSING", lambda: call(site))


# --- break-glass ------------------------------------------------------------------------------------


def break_glass(site: Site, reason: str = "night shift, courier on strike", name: str | None = None) -> int:
    with site.state() as opened:
        return lapses.break_glass(opened, reason, name)[1]


LAPSED = [
    ("LIC_EXPIRED", {"exp": T0 + DAY}, {}),
    ("LEASE_STALE", {"lease": LeaseTerms(True, DAY, 0, "deny")}, {}),
    ("UNSETTLED_LIMIT", {}, {"calls": 0}),
]


@pytest.mark.parametrize(("code", "members", "ceilings"), LAPSED)
def test_break_glass_carries_a_site_for_seven_days_to_the_second(
    site: Site, clocks: Clocks, code: str, members: dict[str, Any], ceilings: dict[str, int]
) -> None:
    site.ready(make_license(**members), ceilings)
    clocks.run(2 * DAY)
    found = refused(code, lambda: call(site))
    assert code == "UNSETTLED_LIMIT" or "sealpack status --break-glass" in found.remedy
    assert break_glass(site) == WEEK * 1000
    assert call(site) == (code,)
    clocks.run(WEEK - 1)
    assert call(site) == (code,)
    assert break_glass(site, "again") == 1000  # goes on, begins nothing
    clocks.run(1)
    refused(code, lambda: call(site))
    used_up = refused("LEASE_STALE", lambda: break_glass(site))
    assert "lease 0.1" in used_up.message and "its 7 days are over" in used_up.message
    assert events(site).count("break-glass") == 1
    state = shown(site)["break_glass"]
    assert (state["reason"], state["left_s"]) == ("night shift, courier on strike", 0)


def test_what_break_glass_does_not_open(site: Site, clocks: Clocks) -> None:
    cap = Quota("calls", "term", "device", 1, 1, "bill")
    site.ready(make_license(exp=T0 + DAY, quota=(cap,)))
    clocks.run(DAY)
    break_glass(site)
    assert call(site) == ("LIC_EXPIRED", "QUOTA_EXCEEDED")
    refused("HARD_CAP", lambda: call(site))
    site.take(Parcel((world.make_revocations(2, licenses=["L-1"]),)))
    refused("LIC_REVOKED", lambda: call(site))


def test_break_glass_is_not_lengthened_by_clocks(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(exp=T0 + DAY))
    clocks.run(DAY)
    break_glass(site)
    assert clocks.wall is not None
    frozen = clocks.wall
    for _ in range(6):  # a wall that stands still does not stop the week
        clocks.up += DAY
        clocks.wall = frozen
        assert "LIC_EXPIRED" in call(site)
    with site.state() as opened, opened.write() as db:
        timekeeper.repair(db, int(frozen))  # nor does an honest repair give it back
    clocks.up += DAY
    refused("LIC_EXPIRED", lambda: call(site))


def test_the_next_lease_brings_the_next_glass(site: Site, clocks: Clocks) -> None:
    terms = LeaseTerms(True, DAY, 0, "deny")
    site.ready(make_license(lease=terms))
    clocks.run(2 * DAY)
    break_glass(site)
    name = shown(site) and call(site)
    assert name == ("LEASE_STALE",)
    clocks.run(WEEK)
    refused("LEASE_STALE", lambda: call(site))
    with site.state() as opened:
        device_id = overview.gather(opened)["device_id"]
    site.take(Parcel((site.lease(device_id, "L-1", 2, {}, issued_at=T0 + 9 * DAY),)))
    assert call(site) == ()
    clocks.run(2 * DAY)
    refused("LEASE_STALE", lambda: call(site))
    assert break_glass(site) == WEEK * 1000
    assert call(site) == ("LEASE_STALE",)


def test_without_a_lease_the_glass_is_the_license_numbers(site: Site, clocks: Clocks) -> None:
    free = make_license(devices=Devices("none"), exp=T0 + DAY)
    site.pin()
    site.install()
    site.take(Parcel((seal_license(free),)))
    clocks.run(DAY)
    break_glass(site)
    assert call(site) == ("LIC_EXPIRED",)
    clocks.run(WEEK)
    assert "license 1" in refused("LIC_EXPIRED", lambda: break_glass(site)).message
    site.take(Parcel((seal_license(replace(free, seq=2)),)))
    assert break_glass(site) == WEEK * 1000


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501])
def test_a_reason_is_one_readable_line(site: Site, clocks: Clocks, reason: str) -> None:
    site.ready()
    refused("USAGE", lambda: break_glass(site, reason))
    assert events(site) == []


def test_break_glass_says_for_which_license(site: Site, clocks: Clocks) -> None:
    site.pin()
    with site.state():
        pass
    site.request()
    refused("LIC_MISSING", lambda: break_glass(site))
    site.activate(make_license(exp=T0 + DAY))
    site.activate(make_license(license_id="L-2"))
    refused("USAGE", lambda: break_glass(site))
    refused("LIC_MISSING", lambda: break_glass(site, name="L-9"))
    assert break_glass(site, name="L-2") == WEEK * 1000


def test_break_glass_on_the_command_line(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(exp=T0 + DAY))
    clocks.run(DAY)
    args = ["--state", str(site.state_dir), "--break-glass", "courier on strike"]
    result = CliRunner().invoke(status, args)
    assert result.exit_code == 0, result.output
    assert "goes on for 7 days" in result.stderr
    assert "break-glass since" in result.stdout and "courier on strike" in result.stdout
    assert "courier" not in receipt_text(site)  # the reason stays with the site


def receipt_text(site: Site) -> str:
    with site.state() as opened, opened.read() as db:
        return repr(list(receipts.recent(db, 1, 1000)))


# --- early warnings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "before", "warned"), [(90, 31 * DAY, False), (90, 30 * DAY, True), (30, 10 * DAY, True)]
)
def test_a_license_says_early_that_it_will_end(
    site: Site, clocks: Clocks, days: int, before: int, warned: bool
) -> None:
    site.ready(make_license(nbf=T0, exp=T0 + days * DAY))
    assert call(site) == ()
    assert clocks.wall is not None
    clocks.run(T0 + days * DAY - before - clocks.wall)
    assert call(site) == (("LIC_EXPIRED",) if warned else ())
    standing = shown(site)["standing"][0]
    assert [w["code"] for w in standing["warnings"]] == (["LIC_EXPIRED"] if warned else [])


def test_a_lease_says_early_that_it_will_end(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(lease=LeaseTerms(True, 30 * DAY, None, "deny")))
    clocks.run(20 * DAY - 11)
    assert call(site) == ()
    clocks.run(1)
    assert call(site) == ("LEASE_STALE",)


# --- a clock that is behind -------------------------------------------------------------------------


def test_a_clock_set_back_denies_where_the_license_says_so(site: Site, clocks: Clocks) -> None:
    site.ready(make_license(clock=ClockRules("deny")))
    clocks.run(10 * DAY)
    assert call(site) == ()
    assert clocks.wall is not None
    clocks.wall -= DAY
    assert call(site) == ()  # up to 24 hours is nothing
    clocks.wall -= 1
    found = refused("CLOCK_BACK", lambda: call(site))
    assert found.message == "the clock is 24 hours behind known time, the license allows 24"
    assert "repair" in found.remedy
    clocks.wall += 1
    assert call(site) == ()


@pytest.mark.parametrize("rules", [None, ClockRules("continue")])
def test_elsewhere_it_warns(site: Site, clocks: Clocks, rules: ClockRules | None) -> None:
    site.ready(make_license(clock=rules))
    clocks.run(10 * DAY)
    call(site)
    assert clocks.wall is not None
    clocks.wall -= 2 * DAY
    assert call(site) == ("CLOCK_BACK",)


# --- advisory ---------------------------------------------------------------------------------------

ADVISORY: list[tuple[str, dict[str, Any], dict[str, int], float | None]] = [
    ("LIC_EXPIRED", {"exp": T0 + DAY}, {}, 2 * DAY),
    ("LIC_NOT_YET_VALID", {"nbf": T0 + 9 * DAY}, {}, DAY),
    ("UPDATE_NOT_COVERED", {"updates_until": T0 - 1}, {}, DAY),
    ("LEASE_STALE", {"lease": LeaseTerms(True, DAY, 0, "deny")}, {}, 2 * DAY),
    ("QUOTA_EXCEEDED", {"quota": (Quota("calls", "day", "device", 0, None, "deny"),)}, {}, DAY),
    ("HARD_CAP", {"quota": (Quota("calls", "term", "device", 0, 0, "bill"),)}, {}, DAY),
    ("UNSETTLED_LIMIT", {}, {"calls": 0}, DAY),
    ("CLOCK_BACK", {"clock": ClockRules("deny")}, {}, -3 * DAY),
    ("CLOCK_UNREADABLE", {}, {}, None),
]


@pytest.mark.parametrize(("code", "members", "ceilings", "seconds"), ADVISORY)
def test_an_advisory_license_never_denies_but_logs_and_bills(
    site: Site,
    clocks: Clocks,
    code: str,
    members: dict[str, Any],
    ceilings: dict[str, int],
    seconds: float | None,
) -> None:
    site.ready(make_license(enforcement="enforce", **members), ceilings)
    set_clocks(clocks, seconds)
    refused(code, lambda: call(site))
    site.take(Parcel((seal_license(make_license(seq=2, enforcement="advisory", **members)),)))
    assert [call(site) for _ in range(2)] == [(code,)] * 2
    event = f"advisory-{code.lower().replace('_', '-')}"
    assert events(site).count(event) == 1
    clocks.up += 60
    if clocks.wall is not None:
        clocks.wall += 60
    call(site)
    assert events(site).count(event) == 2
    with site.state() as opened, opened.read() as db:
        kinds = [r.kind for r in receipts.recent(db, 1, 1000)]
    assert kinds.count("u") == 3 and kinds.count("d") == 1  # the one refusal, before


def test_what_cannot_be_written_down_is_not_run(
    site: Site, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.ready(make_license(enforcement="advisory", exp=T0 + DAY))
    clocks.run(2 * DAY)

    def full(*_: object) -> None:
        raise SealpackError("STORE_FULL", "the disk is full")

    with open_runtime(site) as runtime:
        with monkeypatch.context() as broken:
            broken.setattr(lapses, "note_waived", full)
            refused("STORE_FULL", lambda: runtime.infer(INPUT))
        runtime.infer(INPUT)
    with site.state() as opened, opened.read() as db:
        assert lapses.calls(db, "L-1") == 1
        assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)


def set_clocks(clocks: Clocks, seconds: float | None) -> None:
    if seconds is None:
        clocks.wall = None
    elif seconds < 0:
        assert clocks.wall is not None
        clocks.wall += seconds
    else:
        clocks.run(seconds)


def test_an_advisory_kit_ends_all_the_same(site: Site, clocks: Clocks) -> None:
    with_kit(site, kit(enforcement="advisory"))
    for _ in range(3):
        call(site)
    refused("NOT_ACTIVATED", lambda: call(site))


# --- a call that is under way -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("LIC_EXPIRED", {"exp": T0 + 60}),
        ("LEASE_STALE", {"lease": LeaseTerms(True, 60, 0, "deny")}),
        ("NOT_ACTIVATED", {"provisional": Provisional(50, 9)}),
    ],
)
def test_what_ends_during_a_call_lets_the_call_end(
    site: Site, clocks: Clocks, code: str, members: dict[str, Any]
) -> None:
    site.pin()
    site.install("talk")
    if code == "NOT_ACTIVATED":
        site.take(Parcel((seal_license(make_license(**members)),)))
    else:
        site.activate(make_license(**members))
    with sealpack.runtime.open("acme/talk", state=site.state_dir, threads=1) as runtime:
        said = runtime.generate("the", max_tokens=4, on_text=lambda _: clocks.run(60))
        assert said.meters["tok_out"] == 4
        refused(code, lambda: runtime.generate("the", max_tokens=4))

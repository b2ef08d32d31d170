"""Calls: one too many, one too large, one too early to die, the wrong bundle, and leases again and again."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from support import world
from support.acts import refused
from support.site import INPUT, T0, Site, make_license

from adversarial.tools import child, line, open_runtime, say, statuses
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import BundleGrant, Devices, License, Quota, Rate
from sealpack.runtime import admission, anchors, device, receipts, store
from sealpack.runtime.admission import Build, Facts
from sealpack.runtime.clock import Times

MOST = 2**53 - 1


def quota(meter: str, cap: int) -> License:
    return make_license(quota=(Quota(meter, "term", "device", cap, None, "deny"),))


# --- which bundle ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "version", "code"),
    [
        (BundleGrant("acme/other"), "1.0.0", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tin"), "1.0.0", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny/x"), "1.0.0", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny", min_version="1.1"), "1.0.9", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny", max_version="1.9"), "1.10", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny", max_version="1.9"), "1.9.0.1", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny", "1.0", "2.0", "ab" * 32), "1.5", "BUNDLE_MISMATCH"),
        (BundleGrant("acme/tiny", "1.0", "1.9"), "1.9.0", None),
        (BundleGrant("acme/tiny", "1.0", "1.10"), "1.9", None),
    ],
)
def test_another_bundle_and_versions_outside_the_range(
    site: Site, grant: BundleGrant, version: str, code: str | None
) -> None:
    site.pin()
    site.install(version=version)
    site.activate(make_license(bundles=(grant,)))
    if code is not None:
        refused(code, lambda: open_runtime(site))
        refused(code, lambda: open_runtime(site, license="L-1"))
        return
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)


@pytest.mark.parametrize("how", ["written over", "replaced", "deleted", "replaced by an older release"])
def test_a_bundle_that_is_changed_after_it_was_loaded(site: Site, how: str) -> None:
    """What runs goes on with the weights that were verified; the next start looks again."""
    site.ready()
    other = site.install(version="0.9.0")
    with site.state() as state:
        found = store.find(state, "acme/tiny@1.0.0")
    path = found.path(site.home)
    with open_runtime(site, "tiny@1.0.0") as runtime:
        before = runtime.infer(INPUT).value
        if how == "written over":
            data = bytearray(path.read_bytes())
            data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            path.chmod(0o600)
            path.write_bytes(data)
        elif how == "deleted":
            path.unlink()
        else:
            source = other.path(site.home) if how != "replaced" else site.bundle(version="7.0.0")
            copy = path.with_name("copy")
            copy.write_bytes(source.read_bytes())
            copy.chmod(0o400)
            copy.replace(path)
        assert runtime.infer(INPUT).value == before
    refused("BUNDLE_INVALID", lambda: open_runtime(site, "tiny@1.0.0"))
    assert statuses(site) == ["ok", "ok"]


# --- how much ----------------------------------------------------------------------------------------


def test_one_call_more_than_may_run_at_once(site: Site) -> None:
    site.pin()
    site.install()
    site.install("talk")
    site.activate(make_license(limits=Rate(inflight=1)))
    codes: list[str] = []
    with open_runtime(site, "talk") as talking, open_runtime(site) as other:

        def second(_: str) -> None:
            try:
                other.infer(INPUT)
            except SealpackError as error:
                codes.append(error.code)

        talking.generate("the", max_tokens=2, on_text=second)
        other.infer(INPUT)
    assert codes == ["CONCURRENCY_LIMIT"] * 2
    assert statuses(site) == ["ok", "ok"]


def test_threads_and_processes_share_the_same_slots(site: Site) -> None:
    site.pin()
    site.install("talk")
    site.activate(make_license(limits=Rate(inflight=2)))
    code = (
        "runtime = open('acme/talk'); print('ready', flush=True)\n"
        "def hold(_):\n    print('holds', flush=True); sys.stdin.readline(); return False\n"
        "runtime.generate('the', max_tokens=1, on_text=hold); print('done', flush=True)\n"
    )
    with child(site, code) as first, child(site, code) as second, open_runtime(site, "talk") as third:
        assert [line(first), line(second), line(first), line(second)] == ["ready", "ready", "holds", "holds"]
        threads = [threading.Thread(target=lambda: refused_by_slots.append(_slot(third))) for _ in range(3)]
        refused_by_slots: list[str] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused_by_slots == ["CONCURRENCY_LIMIT"] * 3
        first.kill()  # the kernel frees a slot with its process
        first.wait()
        third.generate("the", max_tokens=1)
        say(second, "go on")
        assert line(second) == "done"
    assert sorted(statuses(site)) == ["aborted", "cancel", "ok"]


def _slot(runtime: object) -> str:
    try:
        runtime.generate("the", max_tokens=1)  # type: ignore[attr-defined]
    except SealpackError as error:
        return error.code
    return "ok"


def test_more_tokens_than_are_left(site: Site) -> None:
    """Refused before anything is computed, with what is left; exactly that much is answered."""
    site.pin()
    site.install("talk")
    site.activate(quota("tok_out", 10))
    with open_runtime(site, "talk") as runtime:
        runtime.generate("the", max_tokens=4)
        before = len(statuses(site))
        error = refused("QUOTA_EXCEEDED", lambda: runtime.generate("the", max_tokens=7))
        assert "ask for at most 6 tokens" in error.remedy
        assert len(statuses(site)) == before
        runtime.generate("the", max_tokens=6)
        refused("QUOTA_EXCEEDED", lambda: runtime.generate("the", max_tokens=1))
    with site.state() as state, state.read() as db:
        used = [r.body["meters"]["tok_out"] for r in receipts.recent(db, 1, 100) if r.kind == "u"]
    assert used == [4, 6]


BUILD = Build("acme/tiny", "1.0.0", "ab" * 32, 1, "none", "cd" * 32, 0)


@pytest.mark.parametrize("meter", ["calls", "tok_in", "tok_out", "items", "ms"])
@pytest.mark.parametrize("on_exceed", ["deny", "bill", "throttle", "warn"])
def test_counters_at_the_largest_number(meter: str, on_exceed: str) -> None:
    """Nothing wraps around: the last unit is admitted, the one behind it is not, at 2**53 - 1 too."""
    hard = MOST if on_exceed != "deny" else None
    license = replace(
        make_license(devices=Devices("none")), quota=(Quota(meter, "term", "device", MOST, hard, on_exceed),)
    )
    lists = world.make_trust().revocations
    facts = Facts(license, None, None, lists, "dev-x", BUILD, Times(T0 * 1000, T0 * 1000, 0))
    want = {"calls": 1, "tok_in": 1, "tok_out": 1, "items": 1}
    admission.admit(replace(facts, used={("term", meter): MOST - 1}), want)
    for used in (MOST, MOST + 1, 2**63 - 1):
        full = replace(facts, used={("term", meter): used})
        refused("HARD_CAP" if hard else "QUOTA_EXCEEDED", lambda full=full: admission.admit(full, want))  # type: ignore[misc]


def test_a_quota_of_the_largest_number_is_a_quota(site: Site) -> None:
    """Through the documents and the database, where 2**53 is no number any more."""
    site.ready(quota("calls", MOST), ceilings={"calls": MOST})
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    assert statuses(site) == ["ok"]


# --- leases ------------------------------------------------------------------------------------------


def test_a_lease_replayed_a_thousand_times_and_in_any_order(site: Site) -> None:
    """Ceilings are absolute: 1,000 imports of ten leases in any order leave what the newest one says."""
    site.ready()
    name, dice = device.name(device.key(site.home)), random.Random(5)
    leases = [Parcel((site.lease(name, "L-1", seq, {"calls": seq // 3}),)) for seq in range(2, 12)]
    answered = 0
    with open_runtime(site) as runtime:
        site.take(leases[-1])
        for number in range(1000):
            assert site.take(dice.choice(leases)).count == 0
            if number % 100 == 0:
                try:
                    runtime.infer(INPUT)
                    answered += 1
                except SealpackError as error:
                    assert error.code == "UNSETTLED_LIMIT"
    assert answered == 11 // 3
    assert statuses(site) == ["ok"] * answered


def test_everything_in_one_parcel_a_hundred_times(site: Site) -> None:
    site.pin()
    site.install()
    reply = site.reply(site.request(), quota("calls", 2), {"calls": 2})
    parcel = Parcel(reply.documents * 100)
    for _ in range(3):
        site.take(parcel, reply)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        site.take(parcel)
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    assert statuses(site) == ["ok", "ok"]


# --- everything gone ---------------------------------------------------------------------------------


def test_who_deletes_everything_has_nothing(site: Site) -> None:
    """The old reply is for a key that is gone; the vendor hears of the new one with the next request."""
    site.pin()
    site.install()
    reply = site.reply(site.request(), quota("calls", 1))
    site.take(reply)
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
    site.state_dir.rename(site.folder / "away")
    refused("NOT_INSTALLED", lambda: open_runtime(site))
    with site.state() as state:
        refused("TRUST_UNPINNED", lambda: anchors.load(state))
    site.pin()
    site.install()
    taken = site.take(reply)
    assert (taken.count, taken.others) == (0, 3)
    refused("LIC_MISSING", lambda: open_runtime(site))
    site.request()
    assert site.take(reply).count == 0


# --- kill -9 -----------------------------------------------------------------------------------------

KILLED = f"""
runtime = open('acme/tiny')
runtime.infer({INPUT!r})
session, where = runtime._session, sys.argv[1]
prepare = session.prepare
def killed(call):
    prepared = prepare(call)
    class Dying:
        bound = prepared.bound
        def run(self, on_token):
            if where == 'before':
                os.kill(os.getpid(), signal.SIGKILL)
            result = prepared.run(on_token)
            os.kill(os.getpid(), signal.SIGKILL)
            return result
    return Dying()
session.prepare = killed
print('ready', flush=True)
sys.stdin.readline()
runtime.infer({INPUT!r})
"""


@pytest.mark.parametrize("where", ["before", "after"])
def test_kill_after_the_reservation_and_before_the_receipt(site: Site, where: str) -> None:
    """Killed before the engine began, and after it ended: both are billed as aborted, and neither free."""
    site.ready(quota("calls", 3))
    with child(site, KILLED, where) as process:
        assert line(process) == "ready"
        say(process, "go")
        assert process.wait(60) == -9
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    assert statuses(site) == ["ok", "aborted", "ok"]


# --- races -------------------------------------------------------------------------------------------

RACE = f"""
ready, go = os.pipe(), os.pipe()
import sealpack.runtime.engines.onnx
for number in range(int(sys.argv[1])):  # imported once, forked for each
    if os.fork() == 0:
        os.close(go[1])
        runtime = open('acme/tiny')
        os.write(ready[1], b'x')
        os.read(go[0], 1)  # until the parent closes its end
        try:
            runtime.infer({INPUT!r}); said = 'ok'
        except SealpackError as error:
            said = error.code
        os.write(1, (said + chr(10)).encode())
        runtime.close()
        os._exit(0)
for number in range(int(sys.argv[1])):
    os.read(ready[0], 1)
os.close(go[1])
for number in range(int(sys.argv[1])):
    os.wait()
"""


@pytest.mark.parametrize("processes", [2, 16])
@pytest.mark.parametrize("units", [1, 3])
def test_processes_that_race_for_the_last_units(site: Site, processes: int, units: int) -> None:
    site.ready(quota("calls", units))
    with child(site, RACE, str(processes)) as parent:
        said = parent.communicate(timeout=300)[0].split()
    expected = min(units, processes)
    assert sorted(said) == ["QUOTA_EXCEEDED"] * (processes - expected) + ["ok"] * expected
    assert statuses(site) == ["ok"] * expected


def test_nothing_is_left_by_who_raced(site: Site) -> None:
    """The control: a single process gets the last unit, once, and no lock file stays."""
    site.ready(quota("calls", 1))
    with open_runtime(site) as runtime:
        runtime.infer(INPUT)
        refused("QUOTA_EXCEEDED", lambda: runtime.infer(INPUT))
    assert list(site.home.owners.iterdir()) == []

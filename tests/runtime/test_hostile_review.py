"""Found by reviewing the enforcement as an attacker, and as an honest site that is out of luck."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, T0, Site, make_license

import sealpack.runtime
from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.license import Quota
from sealpack.format.repair import Repair
from sealpack.runtime import (
    closing,
    device,
    lapses,
    log,
    machine,
    receipts,
)
from sealpack.runtime.api import Runtime
from sealpack.runtime.clock import Reading

pytest.importorskip("onnxruntime")

TERM = (Quota("calls", "term", "device", 10, None, "deny"),)


def open_runtime(site: Site, **options: Any) -> Runtime:
    return sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1, **options)


def call(site: Site, times: int = 1) -> None:
    with open_runtime(site) as runtime:
        for _ in range(times):
            runtime.infer(INPUT)


def call_of(site: Site, license_id: str) -> None:
    with open_runtime(site, license=license_id) as runtime:
        runtime.infer(INPUT)


def refused(code: str, act: Callable[[], object]) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


def backup(site: Site, name: str = "backup") -> Path:
    path = site.folder / name
    shutil.copytree(site.state_dir, path, ignore=shutil.ignore_patterns("*.lock"))
    return path


def restore(site: Site, copy: Path) -> None:
    """Put the database of a copy back; the marks stay where they are."""
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (site.state_dir / name).unlink(missing_ok=True)
        if (copy / name).exists():
            shutil.copy(copy / name, site.state_dir / name)


def logs(site: Site) -> list[log.Log]:
    with site.state() as state, state.read() as db:
        return log.every(db)


def counted(site: Site, meter: str = "calls") -> int:
    """What the term's counter says is used."""
    with site.state() as state, state.read() as db:
        row = db.execute("SELECT used FROM counters WHERE period='term' AND meter=?", (meter,)).fetchone()
    return 0 if row is None else int(row[0])


def billed(site: Site) -> list[tuple[str, int]]:
    """(status, calls) of every usage and lost record of the newest log, whose books must fit."""
    with site.state() as state:
        (newest,) = [one for one in logs(site)][-1:]
        assert receipts.verify_log(state, newest.log) == []
        with state.read() as db:
            found = [r for r in receipts.recent(db, newest.log, 100_000) if r.kind in "ul"]
    return [(r.body.get("status", "lost"), r.body["meters"]["calls"]) for r in found]


def holds(site: Site) -> int:
    with site.state() as state, state.read() as db:
        (count,) = db.execute("SELECT count(*) FROM reservations").fetchone()
    return int(count)


def repair_for(request: ActivationRequest, **members: Any) -> Envelope:
    values: dict[str, Any] = {
        "license_id": "L-1",
        "device_id": request.device_id,
        "request_digest": request.digest,
        "nonce": request.nonce,
        "issued_at": T0,
    }
    return documents.seal("repair", Repair(**(values | members)).to_dict(), world.LICENSER)


def token(site: Site, epoch: int) -> Envelope:
    made = EpochToken("L-1", device.name(device.key(site.home)), epoch, T0)
    return documents.seal("epoch-token", made.to_dict(), world.LICENSER)


# --- backups ------------------------------------------------------------------------------------------


def test_a_closed_device_is_not_opened_again_by_a_backup(site: Site) -> None:
    """The mark knows that the log was closed: a proof was given, the seat may be another's."""
    site.ready()
    call(site)
    before = backup(site)
    with site.state() as state:
        closing.close(state, "L-1")
    restore(site, before)
    refused("DEVICE_CLOSED", lambda: call(site))


def test_the_proof_counts_what_a_restored_backup_carried(site: Site) -> None:
    """Else a quota's part is handed on that was used: restore, then close."""
    site.ready(make_license(quota=TERM))
    call(site)
    before = backup(site)
    call(site, 4)
    restore(site, before)
    call(site)
    assert counted(site) == 6
    with site.state() as state:
        assert closing.close(state, "L-1").said.used["calls"] == 6


def rolled_back_for_good(site: Site) -> Path:
    """Restored twice under one lease."""
    site.ready(make_license(quota=TERM))
    call(site)
    before = backup(site)
    call(site, 4)
    restore(site, before)
    call(site)
    restore(site, before)
    refused("STATE_ROLLED_BACK", lambda: call(site))
    return before


def test_a_repair_of_clock_and_log_frees_a_device_that_was_set_back_twice(site: Site) -> None:
    rolled_back_for_good(site)
    request = site.request()
    site.take(Parcel((repair_for(request, epoch=2, now=T0),)))
    call(site)
    assert [one.epoch for one in logs(site)] == [0, 2]
    assert counted(site) == 7


def test_leave_after_a_fork_does_not_forget_what_the_mark_knows(site: Site) -> None:
    rolled_back_for_good(site)
    name = device.name(device.key(site.home))
    frozen = Acknowledgement(
        f"sealpack/usage/L-1/{name}/0", "L-1", name, 0, 99, "ab" * 32, 1, T0, frozen=True
    )
    site.take(Parcel((documents.seal("acknowledgement", frozen.to_dict(), world.SETTLEMENT),)))
    site.take(Parcel((token(site, 3),)))
    call(site)
    assert counted(site) == 7, "six before the second restore and this one"


def test_one_license_that_was_set_back_does_not_keep_anothers_usage_at_home(site: Site) -> None:
    rolled_back_for_good(site)
    site.activate(make_license(license_id="L-2"))
    with open_runtime(site, license="L-2") as runtime:
        runtime.infer(INPUT)
    with site.state() as state:
        done = receipts.export(state, site.folder, license_id="L-2")
        assert [one.license_id for one in done] == ["L-2"]
        (site.folder / "all").mkdir()
        refused("STATE_ROLLED_BACK", lambda: receipts.export(state, site.folder / "all"))
    assert len(list((site.folder / "all").glob("*.usage.gz"))) == 1, "written before the other one is told"


def test_a_license_that_is_no_longer_believed_keeps_no_usage_at_home(site: Site) -> None:
    """Neither its own nor another's: what was used before its key was revoked is billed all the same."""
    site.ready()
    site.activate(make_license(license_id="L-2"))
    for name in ("L-1", "L-2"):
        with open_runtime(site, license=name) as runtime:
            runtime.infer(INPUT)
    site.take(Parcel((world.make_revocations(2, keys=[{"keyid": world.LICENSER.keyid, "good": []}]),)))
    with pytest.raises(SealpackError) as caught, open_runtime(site, license="L-1") as runtime:
        runtime.infer(INPUT)
    assert caught.value.code == "KEY_REVOKED"
    with site.state() as state:
        done = receipts.export(state, site.folder)
    assert [one.license_id for one in done] == ["L-1", "L-2"]


def test_what_a_backup_held_stands_in_no_other_licenses_way(site: Site) -> None:
    """A server that ran when the backup was made held the next call ahead."""
    site.ready()
    site.activate(make_license(license_id="L-2"))
    with open_runtime(site, license="L-1") as runtime:
        for _ in range(3):
            runtime.infer(INPUT)
        assert holds(site) == 1
        before = backup(site)
    call_of(site, "L-1")
    restore(site, before)
    call_of(site, "L-2")
    with site.state() as state:
        closing.close(state, "L-2")
    call_of(site, "L-1")
    assert holds(site) == 0


def test_break_glass_does_not_come_again_with_a_backup(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + 10) * 1000, 5000, "boot"))
    site.ready(make_license(exp=T0 + 86_400))
    call(site)
    before = backup(site)
    with site.state() as state:
        lapses.break_glass(state, "night shift")
    days = [8 * 86_400]
    monkeypatch.setattr(machine, "reading", lambda: Reading((T0 + days[0]) * 1000, days[0] * 1000, "boot"))
    with site.state() as state:
        refused("LEASE_STALE", lambda: lapses.break_glass(state, "again"))
    restore(site, before)
    refused("LIC_EXPIRED", lambda: call(site))
    with site.state() as state:
        refused("LEASE_STALE", lambda: lapses.break_glass(state, "again"))

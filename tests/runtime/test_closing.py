"""A seat given back: the log ends, nothing runs after it, and the proof says so to whoever holds it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import confirmation, documents, records
from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.usage_reader import verify_usage
from sealpack.runtime import closing, device, log, overview, receipts, rights, sync
from sealpack.verifier.cli.main import make_cli, run


def code_of(call: Any, *arguments: Any, **members: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments, **members)
    return caught.value.code


def infer(site: Site) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)


def close(site: Site, license_id: str = "L-1") -> closing.Closed:
    with site.state() as state:
        return closing.close(state, license_id)


def kinds(site: Site) -> str:
    """The kinds of the newest log's records."""
    with site.state() as state, state.read() as db:
        found = log.find(db, "L-1")
        assert found is not None
        return "".join(records.parse_record(line).kind for line in log.leaves(db, found.log, 0, found.size))


def answer(site: Site, request: ActivationRequest, license: License | None = None, **members: Any) -> Parcel:
    """The vendor's reply, with members of the activation as told."""
    license = license or make_license()
    parcel = site.reply(request, license)
    made = replace(Activation.open(parcel.of_kind("activation")[0], site.trust), **members)
    sealed = documents.seal("activation", made.to_dict(), world.LICENSER)
    lease = site.lease(request.device_id, license.license_id, 1, {}, issued_at=made.issued_at)
    return Parcel((seal_license(license), sealed, lease))


def test_closing_ends_the_log_and_proves_it(site: Site) -> None:
    site.ready()
    infer(site)
    infer(site)
    closed = close(site)
    said = Deactivation.open(closed.proof)
    assert kinds(site).endswith("tex")
    with site.state() as state, state.read() as db:
        found = log.find(db, "L-1")
        assert found is not None
        assert (said.origin, said.size, said.root) == (found.origin, found.size, found.frontier.root.hex())
        assert rights.stored(db, "activation", "L-1") is None, "the wrapped keys stay behind"
        assert rights.stored(db, "lease", "L-1") is None
    assert said.device_id == device.name(device.key(site.home))
    assert said.used["calls"] == 2
    assert not closed.before
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []


def test_usage_goes_with_the_proof_as_often_as_asked(site: Site, tmp_path: Path) -> None:
    """Unsettled usage does not stand in the way, and a lost stick costs nothing."""
    site.ready()
    infer(site)
    said = close(site).said
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        with site.state() as state:
            (file,) = closing.export(state, folder, "L-1")
        report = verify_usage(file.path.read_bytes())
        assert (file.end, report.findings) == (said.size, ())
    assert close(site).said == said, "nothing was appended"


def test_acknowledged_to_the_end_there_is_nothing_left_to_carry(site: Site, tmp_path: Path) -> None:
    site.ready()
    infer(site)
    said = close(site).said
    site.take(site.acknowledge(said.size, said.root, 1))
    assert kinds(site).endswith("x"), "nothing follows the last record"
    with site.state() as state:
        assert closing.export(state, tmp_path, "L-1") == []


def test_a_close_with_everything_acknowledged_still_carries_its_end(site: Site, tmp_path: Path) -> None:
    site.ready()
    infer(site)
    with site.state() as state:
        (entry,) = receipts.export(state, tmp_path)
        with state.read() as db:
            found = log.by_id(db, 1)
    site.take(site.acknowledge(entry.end, found.frontier.root.hex(), 1))
    close(site)
    with site.state() as state:
        (file,) = closing.export(state, tmp_path, "L-1")
    assert (file.start, file.end) == (entry.end, close(site).said.size)


def test_closing_twice_gives_the_same_proof(site: Site) -> None:
    site.ready()
    first, second = close(site), close(site)
    assert first.proof.to_bytes() == second.proof.to_bytes()
    assert (first.before, second.before) == (False, True)


def test_nothing_runs_on_a_closed_license(site: Site) -> None:
    site.ready()
    close(site)
    before = kinds(site)
    with pytest.raises(SealpackError) as caught:
        infer(site)
    assert caught.value.code == "DEVICE_CLOSED"
    assert "activate request --license L-1" in caught.value.remedy
    assert kinds(site) == before, "a refusal after the last record is not noted"
    with site.state() as state:
        standing = overview.gather(state)["licenses"][0]["standing"]
    assert standing[0]["code"] == "DEVICE_CLOSED"


def test_a_running_process_is_refused_from_then_on(site: Site) -> None:
    site.ready()
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        runtime.infer(INPUT)
        close(site)
        assert code_of(runtime.infer, INPUT) == "DEVICE_CLOSED"
        assert code_of(runtime.infer, INPUT) == "DEVICE_CLOSED"
    assert kinds(site).endswith("x")


def test_a_call_that_runs_is_not_cut_off(site: Site) -> None:
    site.ready()
    site.install("talk")
    said: list[str] = []
    with sealpack.runtime.open("acme/talk", state=site.state_dir, threads=1) as runtime:
        inside, go = threading.Event(), threading.Event()

        def on_text(_piece: str) -> None:
            inside.set()
            assert go.wait(30)

        call = threading.Thread(target=lambda: runtime.generate("the", max_tokens=2, on_text=on_text))
        call.start()
        assert inside.wait(30)
        said.append(code_of(close, site))
        go.set()
        call.join()
    assert said == ["STATE_LOCKED"]
    assert close(site).said.used["tok_out"] == 2


def test_what_a_dead_process_left_is_billed_before_the_end(site: Site) -> None:
    site.ready()
    site.install("talk")
    code = (
        "import os, signal, sealpack.runtime as s\n"
        f"runtime = s.open('acme/talk', state={str(site.state_dir)!r}, threads=1)\n"
        "runtime.generate('the', max_tokens=40, on_text=lambda _: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert close(site).said.used["calls"] == 1
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []


@pytest.mark.parametrize("step", ["_end", "_prove", "forget", "keep", "commit"])
def test_killed_in_the_middle_it_is_closed_or_it_is_not(site: Site, step: str) -> None:
    """kill -9 before, between and after the statements of the one transaction."""
    site.ready()
    infer(site)
    before = kinds(site)
    module = {"forget": "rights", "keep": "rights"}.get(step, "closing")
    code = (
        "import os, signal\n"
        "from sealpack.runtime import closing, rights\n"
        "from sealpack.runtime.home import open_home\n"
        "from sealpack.runtime.state import State\n"
        "die = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"step = {step!r}\n"
        "if step != 'commit':\n"
        f"    real = getattr({module}, step)\n"
        "    def stop(*a, **k):\n"
        "        real(*a, **k); die()\n"
        f"    setattr({module}, step, stop)\n"
        f"closing.close(State(open_home({str(site.state_dir)!r})), 'L-1'); die()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60)
    assert done.returncode == -signal.SIGKILL
    if step == "commit":
        assert code_of(infer, site) == "DEVICE_CLOSED"
        assert close(site).before
    else:
        assert kinds(site) == before
        infer(site)
        assert not close(site).before


def test_a_full_disk_leaves_it_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.ready()
    infer(site)
    before = kinds(site)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(closing.rights, "keep", full)
        assert code_of(close, site) == "STORE_FULL"
    assert kinds(site) == before
    infer(site)


def test_what_has_no_seat_cannot_give_one_back(site: Site) -> None:
    site.pin()
    site.install()
    with site.state() as state:
        assert code_of(closing.choose, state, None) == "USAGE"
    site.take(Parcel((seal_license(make_license(devices=replace(make_license().devices, binding="none"))),)))
    assert code_of(close, site) == "NOT_ACTIVATED"
    assert code_of(close, site, "L-9") == "LIC_MISSING"


# --- what comes after ---------------------------------------------------------------------------------


def test_an_old_reply_does_not_open_it_again(site: Site, tmp_path: Path) -> None:
    site.pin()
    site.install()
    old = site.reply(site.request(), make_license())
    site.take(old)
    close(site)
    assert code_of(site.take, old) == "DEVICE_CLOSED"
    (tmp_path / "old.license").write_bytes(old.to_bytes())
    with site.state() as state:  # on a stick it is last visit's file
        assert sync.visit(state, tmp_path).refused == {}
    assert code_of(infer, site) == "DEVICE_CLOSED"
    # Nor does a new activation for the closed log, or one that answers the old request.
    assert code_of(site.take, answer(site, site.request())) == "DEVICE_CLOSED"
    spent = Activation.open(old.of_kind("activation")[0], site.trust)
    again = answer(site, site.request(), nonce=spent.nonce, request_digest=spent.request_digest, epoch=1)
    assert code_of(site.take, again) == "ACTIVATION_NONCE"
    foreign = answer(site, site.request(), nonce="ab" * 16, epoch=1)
    assert code_of(site.take, foreign) == "ACTIVATION_NONCE"


def test_a_new_request_begins_the_next_log(site: Site) -> None:
    site.ready()
    infer(site)
    first = close(site).said
    site.take(answer(site, site.request(), epoch=1))
    with site.state() as state, state.read() as db:
        assert [entry.epoch for entry in log.every(db)] == [0, 1]
    second = close(site).said
    assert (second.epoch, second.origin) == (1, first.origin.removesuffix("0") + "1")
    assert second.used["calls"] == 1, "what was used stays used"
    assert code_of(site.take, answer(site, site.request(), epoch=1)) == "DEVICE_CLOSED"


def test_a_restored_backup_runs_and_contradicts_its_own_proof(site: Site, tmp_path: Path) -> None:
    """Without its marks nothing can prevent it; the proof names a root that the restored log never has."""
    site.ready()
    infer(site)
    shutil.copytree(site.state_dir, tmp_path / "backup")
    said = close(site).said
    for file in site.state_dir.glob("state.db*"):
        file.unlink()
    for file in (tmp_path / "backup").glob("state.db*"):
        shutil.copy2(file, site.state_dir / file.name)
    shutil.rmtree(Path(os.environ["SEALPACK_MARKS"]) / device.name(device.key(site.home)))
    infer(site)
    with site.state() as state, state.read() as db:
        (restored,) = log.every(db)
        tree = Frontier().extend(leaf_hash(line) for line in log.leaves(db, restored.log, 0, restored.size))
    assert tree.root.hex() != said.root, "two histories under one identity"


def test_the_database_holds_no_wrapped_key_any_more(site: Site) -> None:
    site.ready()
    close(site)
    with sqlite3.connect(site.state_dir / "state.db") as db:
        stored = dict(db.execute("SELECT kind, count(*) FROM documents GROUP BY kind").fetchall())
    assert stored == {"license": 1, "deactivation": 1}


# --- renewal ------------------------------------------------------------------------------------------


def test_a_renewal_answers_the_same_request_again(site: Site) -> None:
    site.pin()
    site.install()
    request = site.request()
    old = site.reply(request, make_license())
    site.take(old)
    infer(site)
    renewed = make_license(seq=2, issued_at=world.T0 + 5)
    new = answer(site, request, renewed, issued_at=world.T0 + 5)
    taken = site.take(new)
    assert (taken.licenses, taken.activations, taken.leases) == (["L-1"], ["L-1"], ["L-1"])
    assert site.take(new).count == 0
    infer(site)
    with site.state() as state, state.read() as db:
        assert len(log.every(db)) == 1, "the log goes on"
    assert code_of(site.take, old) == "LIC_SUPERSEDED"
    # The same license again with another activation, an older one, and another log are replays.
    twice = answer(site, request, renewed, issued_at=world.T0 + 9)
    assert code_of(site.take, twice) == "ACTIVATION_NONCE"
    third = make_license(seq=3, issued_at=world.T0 + 9)
    assert code_of(site.take, answer(site, request, third, issued_at=world.T0 + 5)) == "ACTIVATION_NONCE"
    other = answer(site, request, third, issued_at=world.T0 + 9, epoch=1)
    assert code_of(site.take, other) == "ACTIVATION_NONCE"


def test_a_renewals_lease_counts_until_settlement_gives_one(site: Site) -> None:
    site.ready()
    me = device.name(device.key(site.home))

    def limit() -> int:
        with site.state() as state, state.read() as db:
            lease = rights.stored(db, "lease", "L-1")
        assert lease is not None
        return int(json.loads(lease.payload)["ceilings"][0]["limit"])

    site.take(Parcel((site.lease(me, "L-1", 1, {"calls": 7}, issued_at=world.T0 + 1),)))
    assert limit() == 7
    site.take(Parcel((site.lease(me, "L-1", 1, {"calls": 5}),)))
    assert limit() == 7
    site.take(Parcel((site.lease(me, "L-1", 2, {"calls": 9}),)))
    site.take(Parcel((site.lease(me, "L-1", 1, {"calls": 8}, issued_at=world.T0 + 9),)))
    assert limit() == 9


# --- the verb -----------------------------------------------------------------------------------------


def sealpack_at(site: Site, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    status = run(make_cli(), [*map(str, arguments), "--state", str(site.state_dir)])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_the_verb(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.pin()
    site.install()
    secret = "0f" * 16
    reply = tmp_path / "reply.license"
    parcel = answer(site, site.request(), confirmation=secret)
    reply.write_bytes(parcel.to_bytes())
    made = Activation.open(parcel.of_kind("activation")[0], site.trust)
    code = confirmation.code(secret, made.device_id, made.digest, site.trust.root_digest)
    assert f"confirm L-1 {code}" in sealpack_at(site, capsys, "activate", "install", reply)[1]
    assert f"confirm L-1 {code}" in sealpack_at(site, capsys, "activate", "status")[1]
    infer(site)
    out = tmp_path / "out" / "a.proof"
    out.parent.mkdir()
    status, said = sealpack_at(site, capsys, "activate", "close", "--out", out, "--format", "json")
    assert status == 0
    told = json.loads(said)
    assert told["license_id"] == "L-1"
    assert [Path(p).suffix for p in told["usage"]] == [".gz"]
    first = out.read_bytes()
    assert sealpack_at(site, capsys, "activate", "close", "--out", out)[0] == 2  # it is there
    status, said = sealpack_at(site, capsys, "activate", "close", "L-1", "--out", out, "--force")
    assert status == 0
    assert "license transfer" in said
    assert out.read_bytes() == first
    assert "closed on this machine" in sealpack_at(site, capsys, "activate", "status")[1]
    assert sealpack_at(site, capsys, "activate", "install", reply)[0] == 4

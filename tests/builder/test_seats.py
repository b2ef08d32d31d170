"""Seats that are given back, moved and renewed: no unit of a license-wide quota is ever handed out twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import T0, sealpack
from builder.test_licensing import TRUST, WHO, drafted, request
from support.world import LICENSER, SETTLEMENT, STRANGER, make_trust

from sealpack.builder import licensing, seats
from sealpack.builder.licensing import Issued
from sealpack.builder.presets import DAY
from sealpack.format import confirmation, documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Lease, device_id, log_origin
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Allowance, License, Quota
from sealpack.format.registry import RegistryLine
from sealpack.format.trust import Trust

ROOT = "ee" * 32
CAP = 1000
POOL = (Quota("calls", "term", "license", CAP, None, "deny"),)


def key(number: int) -> PrivateKey:
    return PrivateKey.from_seed(bytes([number]) * 32)


def name(number: int) -> str:
    return device_id(key(number).public)


def code_of(call: Any, *arguments: Any, **members: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments, **members)
    return caught.value.code


class Office:
    """An issuer with one license, its registry, and devices by number."""

    def __init__(self, **members: Any) -> None:
        self.issued = licensing.issue(drafted(**members), WHO)
        self.lines: list[RegistryLine] = [self.issued.line()]

    def activate(self, number: int, now: int = T0) -> Issued:
        got = licensing.activate(self.issued, WHO, request(number), now=now, lines=self.lines)
        self.lines.append(got.line())
        return got

    def proof(self, number: int, used: int = 0, signer: PrivateKey | None = None, **members: Any) -> Envelope:
        """What the device signs when it closes."""
        made = seats.of_license(self.lines, "L-1", TRUST)[name(number)].activation
        epoch = members.get("epoch", made.epoch)
        said = Deactivation(
            "L-1",
            key(number).public,
            epoch,
            log_origin("L-1", name(number), epoch),
            9,
            ROOT,
            made.digest,
            made.nonce,
            T0,
            {"calls": used} if used else {},
        )
        return documents.seal("deactivation", replace(said, **members).to_dict(), signer or key(number))

    def release(self, number: int, used: int = 0, now: int = T0, ack: bool = False, **members: Any) -> None:
        settled = self.acknowledgement(number) if ack else None
        _, line = licensing.release(
            self.proof(number, used, **members), TRUST, self.lines, now=now, acknowledgement=settled
        )
        self.lines.append(line)

    def acknowledgement(self, number: int, **members: Any) -> Envelope:
        """Settlement has the closed log to its end."""
        epoch = seats.of_license(self.lines, "L-1", TRUST)[name(number)].activation.epoch
        origin = log_origin("L-1", name(number), epoch)
        made = Acknowledgement(origin, "L-1", name(number), epoch, 9, ROOT, 1, T0)
        return documents.seal("acknowledgement", replace(made, **members).to_dict(), SETTLEMENT)


def ceiling(issued: Issued) -> int:
    """The calls that the lease of an activation allows."""
    assert issued.lease is not None
    (found,) = Lease.open(issued.lease, TRUST).ceilings
    return found.limit


def epoch(issued: Issued) -> int:
    assert issued.activation is not None
    return Activation.open(issued.activation, TRUST).epoch


def test_a_proof_frees_the_seat_at_once() -> None:
    office = Office(devices=1)
    office.activate(1)
    with pytest.raises(SealpackError) as caught:
        office.activate(2)
    assert caught.value.code == "DEVICE_LIMIT"
    assert f"{name(1)} since 2026-09-21" in caught.value.message
    assert "activate close L-1" in caught.value.remedy
    assert "license transfer --from" in caught.value.remedy
    assert "license renew L-1 --devices 2" in caught.value.remedy
    office.release(1)
    assert licensing.registered(office.lines, TRUST)[0].devices == ()
    office.activate(2)
    assert code_of(office.activate, 1) == "DEVICE_LIMIT"
    assert licensing.registered(office.lines, TRUST)[0].devices == (name(2),)


def test_a_device_that_closed_comes_back_with_the_next_log() -> None:
    office = Office(devices=1)
    assert epoch(office.activate(1)) == 0
    assert epoch(office.activate(1)) == 0, "asking again is not closing"
    office.release(1)
    back = office.activate(1)
    assert epoch(back) == 1
    assert back.lease is not None
    assert Lease.open(back.lease, TRUST).epoch == 1
    assert code_of(office.release, 1, epoch=0) == "EPOCH_MISMATCH"  # the old proof frees no new seat
    office.release(1, epoch=4)  # after restores a device may have begun logs by itself
    assert epoch(office.activate(1)) == 5


def test_proofs_that_free_nothing() -> None:
    office = Office(devices=2)
    office.activate(1)
    assert code_of(office.release, 1, signer=key(2)) == "SIG_INVALID"
    assert code_of(office.release, 1, activation="00" * 32) == "DEVICE_MISMATCH"
    other = office.proof(1, license_id="L-2", origin=log_origin("L-2", name(1), 0))
    assert code_of(licensing.release, other, TRUST, office.lines, now=T0) == "LIC_MISSING"
    second = Office(license_id="L-2")
    with_other = [*office.lines, *second.lines]
    assert code_of(licensing.release, other, TRUST, with_other, now=T0) == "DEVICE_MISMATCH"
    stranger = office.proof(1, device_key=key(3).public, origin=log_origin("L-1", name(3), 0), signer=key(3))
    assert code_of(licensing.release, stranger, TRUST, office.lines, now=T0) == "DEVICE_MISMATCH"


def test_acknowledgements_that_settle_nothing() -> None:
    office = Office(devices=1)
    office.activate(1)
    proof = office.proof(1)

    def release(**members: Any) -> None:
        ack = office.acknowledgement(1, **members)
        licensing.release(proof, TRUST, office.lines, now=T0, acknowledgement=ack)

    release()
    assert code_of(release, size=8) == "USAGE"
    assert code_of(release, origin=log_origin("L-1", name(2), 0)) == "USAGE"
    assert code_of(release, root="00" * 32) == "ACK_FORK"
    assert code_of(release, size=10) == "ACK_FORK"


def test_a_license_wide_part_stays_until_the_lease_ends() -> None:
    """A restored backup may use it until then; what it used by its own word stays used for ever."""
    office = Office(devices=1, quota=POOL)  # pro: leases of 45 days
    assert ceiling(office.activate(1)) == CAP
    office.release(1, used=400)
    with pytest.raises(SealpackError) as caught:
        office.activate(2, T0 + 45 * DAY - 1)
    assert caught.value.code == "UNSETTLED_LIMIT"
    assert f"{name(1)} holds 1,000 until 2026-11-05" in caught.value.message
    assert "--ack" in caught.value.remedy
    assert ceiling(office.activate(2, T0 + 45 * DAY)) == 600


def test_the_lease_of_a_license_without_an_end_never_ends() -> None:
    office = Office(devices=1, quota=POOL, preset="academic", ends=T0 + 9 * DAY, grace_s=0)
    office.activate(1)
    office.release(1, used=1)
    assert code_of(office.activate, 2, T0 + 9 * DAY - 1) == "UNSETTLED_LIMIT"
    assert ceiling(office.activate(2, T0 + 9 * DAY)) == CAP - 1
    forever = Office(devices=1, quota=POOL, preset="academic", ends=None, term_s=DAY)
    forever.activate(1)
    forever.release(1)
    with pytest.raises(SealpackError, match="without an end"):
        forever.activate(2, T0 + 10_000 * DAY)


def test_settled_the_rest_is_free_at_once_and_again_with_a_later_acknowledgement() -> None:
    office = Office(devices=1, quota=POOL)
    office.activate(1)
    office.release(1, used=400)
    assert code_of(office.activate, 2) == "UNSETTLED_LIMIT"
    office.release(1, used=400, now=T0 + DAY, ack=True)
    assert office.lines[-1].released_at == T0, "registering again does not move the lease's end"
    assert ceiling(office.activate(2)) == 600


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_back_and_forth_three_times_the_ceilings_stay_within_the_cap(devices: int) -> None:
    """At any time: what closed devices used, and all that the others may still reach, is at most the cap."""
    office = Office(devices=devices, quota=POOL)
    used = dict.fromkeys((1, 2), 0)
    allowed = dict.fromkeys((1, 2), 0)
    for other in range(3, 2 + devices):
        allowed[other] = ceiling(office.activate(other))
    here, there = 1, 2
    for _ in range(6):
        allowed[here] = ceiling(office.activate(here))
        assert sum(allowed.values()) <= CAP
        used[here] = min(allowed[here], used[here] + 60)
        office.release(here, used=used[here], ack=True, epoch=_epoch(office, here))
        allowed[here] = used[here]
        here, there = there, here
    assert used[1] == 180, "each time it goes on where it was"


def _epoch(office: Office, number: int) -> int:
    return seats.of_license(office.lines, "L-1", TRUST)[name(number)].activation.epoch


def test_a_replaced_device_gets_what_is_left_of_its_seat() -> None:
    office = Office(devices=2, quota=POOL)
    assert [ceiling(office.activate(n)) for n in (1, 2)] == [500, 500]
    office.release(1, used=400, ack=True)
    assert ceiling(office.activate(3)) == 100
    assert code_of(office.activate, 4) == "DEVICE_LIMIT"


def test_a_seat_given_by_a_revoked_key_still_counts() -> None:
    office = Office(devices=1)
    office.activate(1)
    revoked = make_trust(keys=[{"keyid": LICENSER.keyid, "good": [office.issued.envelope.digest]}])
    assert seats.of_license(office.lines, "L-1", revoked)[name(1)].closed is None
    stranger = RegistryLine(
        office.issued.envelope, documents.seal("activation", {"license_id": "L-1"}, STRANGER)
    )
    assert code_of(seats.of_license, [stranger], "L-1", TRUST) == "SIG_KEY_UNKNOWN"


def test_a_delegates_devices_have_seats_of_their_own() -> None:
    office = Office(devices=1)
    below = documents.seal("sublicense", {}, STRANGER)
    activation = documents.seal("activation", {"license_id": "S-1"}, STRANGER)
    office.lines.append(RegistryLine(office.issued.envelope, activation, sublicense=below))
    assert seats.of_license(office.lines, "L-1", TRUST) == {}
    assert licensing.registered(office.lines, TRUST)[0].devices == ()


# --- renewal ------------------------------------------------------------------------------------------


def next_of(office: Office, **members: Any) -> License:
    old = licensing.newest(office.lines, "L-1", TRUST).license
    return replace(old, seq=old.seq + 1, issued_at=T0 + DAY, **members)


def test_a_renewal_goes_to_every_active_device() -> None:
    office = Office(devices=3)
    before = {n: office.activate(n) for n in (1, 2, 3)}
    office.release(2)
    made = licensing.renew(next_of(office, order_ref="PO-7"), WHO, office.lines, now=T0 + DAY)
    assert [one.device_id for one in made] == sorted((name(1), name(3)))
    for one in made:
        number = 1 if one.device_id == name(1) else 3
        assert one.activation is not None
        assert before[number].activation is not None
        new, old = (Activation.open(e, TRUST) for e in (one.activation, before[number].activation))
        assert (new.nonce, new.request_digest, new.epoch) == (old.nonce, old.request_digest, old.epoch)
        assert (new.keys, new.confirmation) == (old.keys, old.confirmation)
        assert (new.license_digest, new.issued_at) == (one.license.digest, T0 + DAY)
        assert one.lease is not None
    assert (made[0].license.seq, made[0].license.order_ref) == (2, "PO-7")
    assert len(licensing.parcel_of(made, TRUST).of_kind("activation")) == 2
    office.lines += [one.line() for one in made]
    (listed,) = licensing.registered(office.lines, TRUST)
    assert (listed.license.seq, listed.devices) == (2, tuple(sorted((name(1), name(3)))))
    fewer = next_of(office, devices=replace(office.issued.license.devices, max=1))
    assert code_of(licensing.renew, fewer, WHO, office.lines, now=T0) == "DEVICE_LIMIT"


def test_a_renewal_keeps_every_part_and_hands_out_only_what_is_new() -> None:
    office = Office(devices=2, quota=POOL)
    for number in (1, 2):
        office.activate(number)
    seats_more = replace(office.issued.license.devices, max=4)
    made = licensing.renew(next_of(office, devices=seats_more), WHO, office.lines, now=T0 + DAY)
    assert [ceiling(one) for one in made] == [500, 500], "what was given stays given"
    office.lines += [one.line() for one in made]
    office.issued = made[0]
    assert code_of(office.activate, 3) == "UNSETTLED_LIMIT"
    more = (replace(POOL[0], cap=4 * CAP),)
    made = licensing.renew(next_of(office, quota=more), WHO, office.lines, now=T0 + 2 * DAY)
    assert [ceiling(one) for one in made] == [1000, 1000]
    office.lines += [one.line() for one in made]
    office.issued = made[0]
    assert [ceiling(office.activate(n)) for n in (3, 4)] == [1000, 1000]


def test_a_device_that_came_back_goes_on_after_a_renewal() -> None:
    """Its counters are of all its logs: a ceiling that forgets the closed ones would stop it at once."""
    allowance = (Allowance("calls", 100),)
    office = Office(devices=1, allowance=allowance)
    assert ceiling(office.activate(1)) == 100
    office.release(1, used=80)
    assert ceiling(office.activate(1)) == 180
    assert ceiling(office.activate(1)) == 180, "asked again"
    (made,) = licensing.renew(next_of(office), WHO, office.lines, now=T0 + DAY)
    assert ceiling(made) == 180
    office.lines.append(made.line())
    office.release(1, used=170, epoch=1)
    assert ceiling(office.activate(1)) == 270


def test_a_license_that_nobody_activated_is_renewed_alone() -> None:
    office = Office()
    (made,) = licensing.renew(next_of(office), WHO, office.lines, now=T0)
    assert (made.activation, made.license.seq) == (None, 2)
    assert code_of(licensing.newest, office.lines, "L-9", TRUST) == "LIC_MISSING"


# --- confirmation -------------------------------------------------------------------------------------


def test_a_code_names_its_device() -> None:
    office = Office(devices=3)
    given = {n: office.activate(n) for n in (1, 2)}
    activation = given[2].activation
    assert activation is not None
    made = Activation.open(activation, TRUST)
    assert made.confirmation is not None
    code = confirmation.code(made.confirmation, made.device_id, made.digest, TRUST.root_digest)
    seat, line = licensing.confirm("L-1", code.lower(), TRUST, office.lines, now=T0 + 7)
    assert seat.activation.device_id == name(2)
    again = RegistryLine.from_bytes(line.to_bytes())
    held = seats.of_license([*office.lines, again], "L-1", TRUST)
    assert (held[name(1)].confirmed, held[name(2)].confirmed) == (None, T0 + 7)
    elsewhere = confirmation.code(made.confirmation, made.device_id, made.digest, "00" * 32)
    for wrong in (elsewhere, "0000-0000-1", "hello"):
        assert code_of(licensing.confirm, "L-1", wrong, TRUST, office.lines, now=T0) == "CONFIRMATION_INVALID"


# --- as it is typed -----------------------------------------------------------------------------------


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(home)
    assert _issue("--devices", "1", "--license-id", "L-1") == 0
    capsys.readouterr()
    return home


def _issue(*more: str | Path) -> int:
    return sealpack(
        *("license", "issue", "--preset", "pro", "--bundle-id", "acme/x", "--customer", "Nord"), *more
    )


def asked(home: Path, number: int, folder: str = ".") -> Path:
    """An activation request in a file."""
    root = Trust.load((home / "trust/trust.json").read_bytes()).root_digest
    made = ActivationRequest(key(number).public, f"{number:032x}", T0, root, "test")
    path = home / folder / f"{number}.request"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(documents.seal("activation-request", made.to_dict(), key(number)).to_bytes())
    return path


def closed(home: Path, number: int, reply: Path) -> Path:
    """The proof of the device that a reply activated."""
    (sealed,) = Parcel.from_bytes(reply.read_bytes()).of_kind("activation")
    made = Activation.read(sealed)
    origin = log_origin("L-1", name(number), made.epoch)
    said = Deactivation(
        "L-1", key(number).public, made.epoch, origin, 9, ROOT, made.digest, made.nonce, T0, {"calls": 3}
    )
    path = home / f"{number}.proof"
    path.write_bytes(documents.seal("deactivation", said.to_dict(), key(number)).to_bytes())
    return path


def test_transfer_renew_and_confirm(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    existing = at_home / "licenses/L-1.license"
    first = at_home / "first.license"
    assert (
        sealpack("license", "issue", "--existing", existing, "--request", asked(at_home, 1), "--out", first)
        == 0
    )
    assert sealpack("license", "issue", "--existing", existing, "--request", asked(at_home, 2)) == 4
    assert "since" in capsys.readouterr().err
    proof = closed(at_home, 1, first)
    move = ("license", "transfer", "--from", proof, "--request", asked(at_home, 2), "--format", "json")
    assert sealpack(*move, "--out", at_home / "second.license") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["device_id"], told["new_device_id"], told["used"]) == (name(1), name(2), {"calls": 3})
    assert sealpack("license", "release", proof) == 0  # once more: nothing changes
    assert sealpack("license", "release", existing) == 3
    capsys.readouterr()
    assert sealpack("license", "renew", "L-1") == 2
    assert sealpack("license", "renew", "L-1", "--until", "2030-01-01", "--term-days", "3") == 2
    assert sealpack("license", "renew", "L-1", "--term-days", "30", "--devices", "2", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seq"], told["term_s"], told["active_devices"]) == (2, 30 * DAY, [name(2)])
    assert "exp" not in told
    changes = (
        "--until",
        "2030-01-01",
        "--grace-days",
        "3",
        "--quota",
        "calls=9/day",
        "--allowance",
        "calls=5",
    )
    more = ("--plan", "edge/2", "--order-ref", "PO-9", "--support", "help@acme.example")
    assert sealpack("license", "renew", "L-1", *changes, *more, "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seq"], told["grace_s"], told["quota"][0]["cap"]) == (3, 3 * DAY, 9)
    assert (told["plan"], told["order_ref"]) == ({"id": "edge", "version": 2}, "PO-9")
    assert told["devices"]["max"] == 2, "what is not given stays"
    (sealed,) = Parcel.from_bytes(Path(told["path"]).read_bytes()).of_kind("activation")
    made = Activation.read(sealed)
    assert made.confirmation is not None
    root = Trust.load((at_home / "trust/trust.json").read_bytes()).root_digest
    code = confirmation.code(made.confirmation, made.device_id, made.digest, root)
    for _ in range(2):
        assert sealpack("license", "confirm", "L-1", code) == 0
        assert f"confirmed {name(2)}" in capsys.readouterr().out
    assert (at_home / "licenses/registry.jsonl").read_text().count('"confirmed"') == 1
    wrong = ("license", "transfer", "--from", proof, "--request", asked(at_home, 3), "--existing")
    assert _issue("--license-id", "L-2") == 0
    assert sealpack(*wrong, at_home / "licenses/L-2.license") == 4


def test_a_folder_of_requests_is_answered_with_one_file(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2, 3):
        asked(at_home, number, "in")
    assert _issue("--license-id", "L-3", "--devices", "2", "--batch", at_home / "in") == 4
    assert not (at_home / "licenses/L-3.license").exists(), "all or none"
    capsys.readouterr()
    assert _issue("--license-id", "L-3", "--devices", "3", "--batch", at_home / "in", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["devices_activated"]) == {name(n) for n in (1, 2, 3)}
    parcel = Parcel.from_bytes(Path(told["path"]).read_bytes())
    assert len(parcel.of_kind("license")) == 1
    assert len(parcel.of_kind("activation")) == len(parcel.of_kind("lease")) == 3
    assert _issue("--license-id", "L-4", "--batch", at_home / "in", "--request", asked(at_home, 1)) == 2
    assert _issue("--license-id", "L-4", "--batch", at_home / "none") == 1
    (at_home / "empty").mkdir()
    assert _issue("--license-id", "L-4", "--batch", at_home / "empty") == 2


def test_revoking_is_the_trust_files_work(at_home: Path) -> None:
    root = at_home / "keys/root.pem"
    for target in ("L-1", name(1)):
        assert sealpack("license", "revoke", target, "--root-key", root) == 0
    revocations = Trust.load((at_home / "trust/trust.json").read_bytes()).revocations
    assert (revocations.licenses, revocations.devices) == ({"L-1"}, {name(1)})

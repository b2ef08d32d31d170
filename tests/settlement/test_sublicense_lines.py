"""Sub-licenses in settlement: what a delegate gave out is billed to the parent's customer, once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pytest
from support import rating_plans, world
from support.books import NOW, Books
from support.device import BUNDLE, T0, Device, make_license, seal_license

from sealpack.format import documents, records
from sealpack.format.activation import Activation, Ceiling, Lease
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Delegation, Devices, LeaseTerms, License, PlanRef, Quota
from sealpack.format.registry import RegistryLine
from sealpack.settlement import billing, db, evidence_check, evidence_pack, ingest, registry
from sealpack.settlement.reconcile import reconcile
from sealpack.verifier.cli.main import make_cli, run

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
OTHER = PrivateKey.from_seed(b"sealpack-test-delegate-of-others")
DAY = 86_400
SEPTEMBER, OCTOBER = date(2026, 9, 1), date(2026, 10, 1)


def parent(**members: Any) -> License:
    default = {"devices": Devices("key", 10), "delegation": Delegation((DELEGATE.public.pem,))}
    return make_license(**(default | members))


def seal_sub(
    above: License, name: str = "L-1.ward", key: PrivateKey = DELEGATE, seq: int = 1, **stated: Any
) -> Envelope:
    named = {"license_id": above.license_id, "seq": above.seq, "digest": seal_license(above).digest}
    own = {"license_id": name, "seq": seq, "issued_at": T0, "parent": named}
    return documents.seal("sublicense", {**stated, **own}, key)


@dataclass
class Below(Device):
    """A device under a sub-license. `license` is its name for the log; `above` and `stated` are what is."""

    above: License = field(default_factory=parent)
    delegate: PrivateKey = DELEGATE
    stated: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)  # what its activation says otherwise
    route: dict[str, Any] = field(default_factory=dict)  # what its route says besides

    def __post_init__(self) -> None:
        if self.license.license_id == "L-1":
            self.license = replace(self.license, license_id="L-1.ward")
        super().__post_init__()

    def start(self, **route: Any) -> None:
        super().start(**self.route, **route)

    @property
    def license_envelope(self) -> Envelope:
        return seal_sub(self.above, self.license.license_id, self.delegate, self.license.seq, **self.stated)

    @property
    def activation(self) -> Envelope:
        said = Activation.read(super().activation)
        return documents.seal("activation", replace(said, **self.told).to_dict(), self.delegate)

    def line(self, *bundles: Any) -> bytes:
        made = RegistryLine(seal_license(self.above), self.activation, sublicense=self.license_envelope)
        return made.to_bytes() + b"\n"


def named(name: str, number: int = 2, **members: Any) -> Below:
    return Below(make_license(license_id=f"L-1.{name}"), number, **members)


def settled(books: Books, own: Device, *devices: Below) -> Books:
    """The issuer's registry of `own`, and the delegate's."""
    books.learn(own)
    books.take("delegate.jsonl", b"".join(d.line() for d in devices))
    return books


def bill(books: Books, license_id: str = "L-1") -> dict[str, Any]:
    printed = billing.bill(books.database, license_id, SEPTEMBER, OCTOBER)
    found: dict[str, Any] = json.loads(printed.json)
    return found


def lease_of(books: Books, device: Device) -> Lease | None:
    (sealed,) = Parcel.from_bytes(books.reply(device).data).documents
    said = json.loads(sealed.payload)
    if "lease" not in said:
        return None
    return Lease.open(Envelope.from_dict(said["lease"], "lease"), world.make_trust())


def code_of(books: Books, name: str, data: bytes) -> str:
    before = [books.rows(table) for table in db.metadata.sorted_tables]
    with pytest.raises(SealpackError) as caught:
        books.take(name, data)
    assert [books.rows(table) for table in db.metadata.sorted_tables] == before
    return caught.value.code


def renewed(books: Books, license: License, name: str = "renewed.jsonl") -> None:
    books.take(name, RegistryLine(seal_license(license)).to_bytes() + b"\n")


# --- one invoice ----------------------------------------------------------------------------------------


def test_everything_below_a_license_is_one_invoice(books: Books) -> None:
    own = Device(parent()).work(30)
    ward, clinic = Below(number=2).work(20), named("clinic", 3).work(10)
    settled(books, own, ward, clinic)
    for device in (own, ward, clinic):
        assert books.code(device.export()) == "OK"
    with books.database.read() as connection:
        usage = billing.usage_of(connection, "L-1")
    assert sum(n for (_, _, meter), n in usage.items() if meter == "calls") == 60
    printed, skipped = billing.bill_all(books.database, SEPTEMBER, OCTOBER)
    assert ([p.license_id for p in printed], skipped) == (["L-1"], {})
    document = json.loads(printed[0].json)
    assert {e["origin"] for e in document["evidence"]} == {own.origin, ward.origin, clinic.origin}
    assert document["customer"]["name"] == "Hospital Nord gGmbH"
    assert reconcile(books.database, NOW).ok


def test_minimums_and_tiers_apply_once(books: Books) -> None:
    """The same usage under the license alone, and split over a sub-license, costs the same."""
    plan = rating_plans.make_plan(rating_plans.per_unit("0.01"), rating_plans.recurring("100"))
    own, ward = Device(parent()).work(30), Below(number=2).work(30)
    books.learn(own, plan=plan)
    books.take("delegate.jsonl", ward.line())
    for device in (own, ward):
        books.ingest(device.export())
    lines = bill(books)["lines"]
    assert [line["amount"] for line in lines if line["charge"] == "base"].count("100.00") == 1


def test_the_invoice_verb_tells_what_was_used_below(books: Books, capsys: pytest.CaptureFixture[str]) -> None:
    own, ward = Device(parent()).work(3), Below(number=2).until((T0 + DAY) * 1000).use(calls=1200)
    clinic = named("clinic", 3).until((T0 + 40 * DAY) * 1000).use()
    settled(books, own, ward, clinic)
    for device in (own, ward):
        books.ingest(device.export())
    books.ingest(clinic.export(), now=NOW + 40 * DAY)
    told = []
    for fmt in ("text", "json"):
        out = books.folder / "out"
        verb = ["settle", "--db", books.address, "invoice", "--period", "2026-09", "--out", str(out)]
        assert run(make_cli(), [*verb, "--format", fmt]) == 0
        told.append(capsys.readouterr().out)
    assert told[0].splitlines() == [
        "INV-000001  L-1",
        "  L-1.clinic: nothing used",
        "  L-1.ward: 1,200 calls, 31 ms, 7 tok_in, 12 tok_out",
    ]
    (said,) = json.loads(told[1])["invoices"]
    assert said["sublicenses"] == {
        "L-1.clinic": {},
        "L-1.ward": {"calls": 1200, "ms": 31, "tok_in": 7, "tok_out": 12},
    }


def test_a_sublicense_is_not_billed_alone(books: Books) -> None:
    ward = Below().work(3)
    settled(books, Device(parent(), number=9), ward)
    with pytest.raises(SealpackError, match=r"is billed with license L-1") as caught:
        bill(books, "L-1.ward")
    assert caught.value.code == "USAGE"


def test_a_license_whose_devices_are_all_the_delegates_is_billed(books: Books) -> None:
    ward = Below().work(3)
    books.learn()
    books.take("issuer.jsonl", RegistryLine(seal_license(parent()), bundles=(BUNDLE,)).to_bytes())
    books.take("delegate.jsonl", ward.line())
    assert books.code(ward.export()) == "OK"
    assert bill(books)["lines"]


def test_late_usage_below_concerns_the_parents_invoice(books: Books) -> None:
    own, ward = Device(parent()).work(3), Below(number=2).work(3)
    settled(books, own, ward)
    books.ingest(own.export())
    bill(books)
    assert books.code(ward.export()) == "W130"


def test_a_test_parent_is_not_billed(books: Books) -> None:
    trial = parent(environment="test", plan=None)
    ward = Below(make_license(license_id="L-1.ward", plan=None), above=trial).work(3)
    books.learn(Device(trial, number=9))
    books.take("delegate.jsonl", ward.line())
    assert books.code(ward.export()) == "W150"
    live = parent(seq=2, issued_at=T0 + 1)
    renewed(books, live)
    with books.database.read() as connection:
        assert billing.usage_of(connection, "L-1") == {}


# --- who may ----------------------------------------------------------------------------------------------


def test_usage_waits_for_the_delegates_registry(books: Books) -> None:
    own, ward = Device(parent()), Below(number=2).work(3)
    books.learn(own)
    assert books.code(ward.export()) == "H250"
    books.take("delegate.jsonl", ward.line())
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]


def test_the_activation_may_travel_in_the_usage_file(books: Books) -> None:
    ward = Below(number=2).work(3)
    books.learn(Device(parent()))
    line = RegistryLine(seal_license(ward.above), sublicense=ward.license_envelope)
    books.take("delegate.jsonl", line.to_bytes() + b"\n")
    assert books.code(ward.export()) == "OK"
    assert [row["license_id"] for row in books.rows(db.activations)] == ["L-1", "L-1.ward"]


def test_the_parents_issuer_may_activate_below(books: Books) -> None:
    ward = Below(number=2).work(3)
    books.learn(Device(parent()))
    activation = documents.seal("activation", Activation.read(ward.activation).to_dict(), world.LICENSER)
    parts = seal_license(ward.above), ward.license_envelope, activation
    assert books.take("ward.license", Parcel(parts).to_bytes()) == "1 license, 1 sublicense, 1 activation"
    assert books.code(ward.export()) == "OK"


@pytest.mark.parametrize(
    "lied",
    [
        Below(delegate=OTHER),
        Below(stated={"devices": {"max": 11}}),
        Below(told={"license_id": "L-1"}),
        Below(told={"license_id": "L-1.clinic"}),
        Below(told={"epoch": 1}),
    ],
    ids=["another key", "wider", "of the parent", "of another", "a further log"],
)
def test_what_no_delegate_may_sign_is_refused(books: Books, lied: Below) -> None:
    books.learn(Device(parent(), number=9))
    assert code_of(books, "d.jsonl", lied.line()) in ("SUBLICENSE_INVALID", "SIG_KEY_UNKNOWN")


def test_a_sublicense_alone_and_ids_that_are_taken(books: Books) -> None:
    books.learn()
    ward = Below()
    alone = Parcel((ward.license_envelope,)).to_bytes()
    assert code_of(books, "alone.license", alone) == "LIC_MISSING"
    books.take("delegate.jsonl", ward.line() * 2)
    again = RegistryLine(seal_license(ward.above), sublicense=seal_sub(ward.above, device_label="x"))
    assert code_of(books, "again.jsonl", again.to_bytes()) == "LIC_CONFLICT"
    own = RegistryLine(seal_license(make_license(license_id="L-1.ward", seq=2)))
    assert code_of(books, "own.jsonl", own.to_bytes()) == "LIC_CONFLICT"
    renewed(books, make_license(license_id="L-1.clinic"))
    clinic = RegistryLine(seal_license(ward.above), sublicense=seal_sub(ward.above, "L-1.clinic", seq=2))
    assert code_of(books, "clinic.jsonl", clinic.to_bytes()) == "LIC_CONFLICT"


@pytest.mark.parametrize(
    "revoked",
    [
        {"licenses": ["L-1"]},
        {"licenses": ["L-1.ward"]},
        {"keys": [{"keyid": DELEGATE.public.keyid, "good": []}]},
    ],
    ids=["parent", "sub-license", "delegate"],
)
def test_usage_under_what_was_revoked_is_held(books: Books, revoked: dict[str, Any]) -> None:
    ward = Below(number=2).work(3)
    settled(books, Device(parent()), ward)
    books.take("trust.json", world.make_trust(version=2, **revoked).to_bytes())
    assert books.code(ward.export()) == "H220"
    if "keys" in revoked:  # a registry only grows: what the key signed is left out and told
        assert "left out" in books.take("delegate.jsonl", named("clinic").line())


# --- when the parent changes ------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["usage", "withdrawal"])
def test_usage_before_the_delegation_ended_is_billed(books: Books, first: str) -> None:
    own, ward = Device(parent()), Below(number=2).work(3)
    settled(books, own, ward)
    over = parent(seq=2, issued_at=T0 + DAY, delegation=None)
    if first == "withdrawal":
        renewed(books, over)
    assert books.code(ward.export()) == "OK"
    assert (lease_of(books, ward) is None) == (first == "withdrawal")
    if first == "usage":
        renewed(books, over)
        assert lease_of(books, ward) is None
    start = ward.size
    ward.until((T0 + DAY) * 1000 + 15 * 60_000).use()
    assert books.code(ward.export(start)) == "H230"
    renewed(books, parent(seq=3, issued_at=T0 + 2 * DAY))
    assert [o.code for o in ingest.release(books.database, NOW)] == ["OK"]
    assert lease_of(books, ward) is not None


def test_a_renewed_parents_plan_and_terms_count_below(books: Books) -> None:
    """Routes that a device wrote under either version of the parent agree with the registry."""
    devices = [
        named(f"w{number}", number, route={"plan": {"id": "example", "version": number}}).use()
        for number in (1, 2, 3)
    ]
    settled(books, Device(parent(), number=9), *devices)
    renewed(books, parent(seq=2, issued_at=T0 + 5, plan=PlanRef("example", 2)))
    assert books.code(devices[0].export()) == "H250"
    with books.database.write() as connection:
        registry.put_plan(connection, replace(rating_plans.make_plan(), version=2))
    assert [books.code(device.export()) for device in devices] == ["OK", "OK", "H214"]


# --- leases -----------------------------------------------------------------------------------------------


def shared(cap: int = 1000) -> License:
    quota = Quota("calls", "term", "license", cap, None, "deny")
    return parent(quota=(quota,), lease=LeaseTerms(False, 30 * DAY))


def test_a_lease_is_the_devices_share_within_the_parents(books: Books) -> None:
    above = shared()  # 10 seats: 100 calls each
    sixty = {"meter": "calls", "window": "term", "scope": "device", "cap": 60, "on_exceed": "deny"}
    stated = {"quota": [sixty]}
    plain_, less = Below(number=2, above=above).use(), named("less", 3, above=above, stated=stated).use()
    lied = named("lied", 4, above=above, told={"shares": (Ceiling("calls", 900),)}).use()
    settled(books, Device(above), plain_, less, lied)
    found = {}
    for device in (plain_, less, lied):
        assert books.code(device.export()) == "OK"
        lease = lease_of(books, device)
        assert lease is not None
        assert (lease.lease_seq, lease.expires) == (2, NOW + 30 * DAY)
        found[device.license.license_id] = lease.ceilings
    assert found == {
        "L-1.ward": (Ceiling("calls", 100),),
        "L-1.less": (Ceiling("calls", 60),),
        "L-1.lied": (Ceiling("calls", 100),),
    }


def test_what_a_delegate_registers_of_a_closed_device_counts(books: Books) -> None:
    ward = Below(number=2).use()
    settled(books, Device(parent()), ward)
    ward.tally().put(records.CLOSED, reason="deactivated")
    said = Deactivation(
        "L-1.ward", ward.key.public, 0, ward.origin, ward.size, ward.frontier(ward.size).root.hex(),
        ward.activation.digest, Activation.read(ward.activation).nonce, T0, {"calls": 1},
    )  # fmt: skip
    sealed = documents.seal("deactivation", said.to_dict(), ward.key)
    line = RegistryLine(
        seal_license(ward.above), deactivation=sealed, released_at=NOW, sublicense=ward.license_envelope
    )
    books.take("released.jsonl", line.to_bytes() + b"\n")
    assert books.code(ward.export()) == "OK"
    assert lease_of(books, ward) is None


def test_a_narrower_parent_gives_a_new_lease(books: Books) -> None:
    ward = Below(number=2, above=shared()).use()
    settled(books, Device(shared()), ward)
    books.ingest(ward.export())
    first = books.reply(ward)
    assert books.reply(ward).data == first.data
    renewed(books, replace(shared(500), seq=2, issued_at=T0 + 1))
    lease = lease_of(books, ward)
    assert lease is not None
    assert lease.ceilings == (Ceiling("calls", 50),)


@pytest.mark.sqlite_only
def test_a_dispute_pack_of_both(books: Books) -> None:
    """The parent's invoice and a sub-license's log prove themselves, delegate's signatures included."""
    own, below = Device(parent()).work(20), named("ward").work(10)
    settled(books, own, below)
    for device in (own, below):
        assert books.ingest(device.export())[0].code == "OK"
    bill(books)
    with books.database.read() as connection:
        packs = [
            evidence_pack.for_invoice(connection, "INV-000001"),
            evidence_pack.for_log(connection, below.origin),
        ]
    whole, log = (evidence_check.check(data, world.make_trust()) for data in packs)
    assert whole.ok, whole
    assert log.ok, log
    assert whole.checks[2].detail.startswith("2 licenses and 2 activations")
    assert f"{own.size + below.size} receipts in 2 logs" in whole.checks[3].detail

"""A vendor's books after two months of business, for the console's tests and pictures.

Eight customers in five currencies, machines in every kind of trouble, invoices in every state. All of it is
made by the code that settlement runs on genuine files; the same call gives the same books.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sealpack.format import documents
from sealpack.format.activation import Activation
from sealpack.format.keys import PrivateKey
from sealpack.format.license import (
    Allowance,
    BundleGrant,
    Customer,
    Delegation,
    Devices,
    LeaseTerms,
    License,
    PlanRef,
    Quota,
)
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.settlement import ack, billing, db, importing, ingest, logs, payouts, receivables
from sealpack.settlement.ack import Signers
from sealpack.settlement.audit import Actor
from support import world
from support.device import Device, make_license, seal_license

DAY_S = 86_400
DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")


def at(text: str) -> int:
    """Unix seconds of a UTC time such as 2026-10-02T09:00."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


NOW = at("2026-11-21T10:00")


def _build(bundle_id: str, version: str, name: str) -> BundleFact:
    digest = hashlib.sha256(f"{bundle_id} {version}".encode()).hexdigest()
    return BundleFact(digest, bundle_id, version, 1, name)


CHEST = _build("acme/chest-xray", "2.1.0", "Chest X-ray")
SPEECH = _build("acme/speech", "1.4.2", "Ward dictation")
FORMS = _build("acme/forms", "3.0.0", "Forms reader")
BUILDS = (CHEST, SPEECH, FORMS)

SELLER = {
    "schema": "sealpack/seller/v1", "issuer": world.ISSUER, "legal_name": "Acme Models GmbH",
    "address": ["Speicherstraße 12", "20457 Hamburg"], "country": "DE", "tax_id": "DE987654321",
    "email": "billing@acme.example", "payment": "IBAN DE02 1203 0000 0000 2020 51, BIC BYLADEM1001",
    "payment_days": 30, "prefix": "ACME",
}  # fmt: skip


def _record(id: str, name: str, address: list[str], country: str, tax_id: str = "", **more: Any) -> Any:
    return {"id": id, "legal_name": name, "address": address, "country": country, "tax_id": tax_id,
            "email": f"accounts@{id}.example", **more}  # fmt: skip


_OUTSIDE = {"category": "O", "percent": "0", "reason": "Service supplied outside the EU"}
CUSTOMERS = {
    "schema": "sealpack/customers/v1",
    "customers": [
        _record("hospital-nord", "Hospital Nord gGmbH", ["Am Kai 1", "24103 Kiel"], "DE", "DE123456789",
                purchase_order="PO-2026-118", tax={"category": "S", "percent": "19"}),
        _record("praxis-ring", "Praxis am Ring Dr. Özdemir & Kollegen", ["Ringstraße 4", "10711 Berlin"],
                "DE", "DE222333444", tax={"category": "S", "percent": "19"}, payment_days=14),
        _record("harbor-bank", "Harbor Bank plc", ["1 Quayside", "London E14 5AB"], "GB", "GB123456789",
                tax=_OUTSIDE),
        _record("kisaragi", "Kisaragi Works K.K.", ["2-3 Minato", "Osaka 552-0021"], "JP", tax=_OUTSIDE),
        _record("gulf-energy", "Gulf Energy K.S.C.P.", ["Block 5, Shuwaikh", "Kuwait City"], "KW",
                tax=_OUTSIDE),
        _record("lakeside", "Lakeside Clinics Inc.", ["400 Shore Drive", "Madison, WI 53703"], "US",
                purchase_order="LC-7781", tax=_OUTSIDE),
        _record("old-mill", "Old Mill Foods Ltd", ["Mill Lane", "Cork T12"], "IE", "IE1234567T",
                tax={"category": "AE", "percent": "0", "reason": "Reverse charge"}),
    ],
}  # fmt: skip

_POOL = """
shares:
  base: net
  scope: [base, calls]
  pool:
    - {party: platform, take: [{up_to: "10000", bps: 3000}, {bps: 2000}], per: calendar_year}
    - {party: "creator:radiolab", rest: true}
"""
PLANS = {
    "edge-pro.yaml": """
plan: {id: edge-pro, version: 3, currency: USD, tz: UTC, grace_days: 10}
meters: {out: {field: tok_out, per: 1000, where: {status: [ok, cancel]}}}
charges:
  - {id: base, type: recurring, name: "Platform fee", amount: "99.00", when: advance, prorate: day}
  - {id: tok, type: usage, name: "Output tokens", meter: out, model: graduated,
     tiers: [{up_to: "1000", unit: "0.4000"}, {up_to: "5000", unit: "0.2500"}, {unit: "0.1500"}]}
commitments: [{id: min, kind: minimum, scope: [base, tok], amount: "500.00", per: period, prorate: day}]
""",
    "clinic.yaml": f"""
plan: {{id: clinic, version: 2, currency: EUR, tz: Europe/Berlin}}
meters: {{images: {{field: calls, where: {{status: [ok]}}}}}}
charges:
  - {{id: base, type: recurring, name: "Monthly fee", amount: "180.00", when: arrears, prorate: day}}
  - {{id: calls, type: usage, name: "Images read", meter: images, model: package,
     package: {{size: "100", price: "8.50", free: "500"}}}}
tax: {{category: S, percent: "19"}}
{_POOL}""",
    "works.yaml": """
plan: {id: works, version: 1, currency: JPY, tz: Asia/Tokyo}
meters: {calls: {field: calls}}
charges: [{id: calls, type: usage, name: "Forms read", meter: calls, model: per_unit, unit: "4.5"}]
""",
    "energy.yaml": """
plan: {id: energy, version: 1, currency: KWD, tz: Asia/Kuwait}
meters: {secs: {field: ms, per: 1000}}
charges:
  - {id: base, type: recurring, name: "Site fee", amount: "45.000", when: arrears}
  - {id: secs, type: usage, name: "Computing seconds", meter: secs, model: per_unit, unit: "0.0125"}
""",
}


@dataclass
class Machine(Device):
    """A device that runs one of the builds, in office hours."""

    build: BundleFact = FORMS

    def start(self, **route: Any) -> None:
        """As any device, with its own build."""
        super().start(**{"bundle_digest": self.build.bundle_digest} | route)

    def line(self, *bundles: BundleFact) -> bytes:
        """The registry line with the build's name."""
        return super().line(*(bundles or BUILDS))

    def days(self, first: str, last: str, load: int) -> Machine:
        """Work on the weekdays from one to another, about `load` calls an hour from 8 to 17."""
        rng = random.Random(f"{self.number} {first}")
        day, end = at(f"{first}T00:00"), at(f"{last}T00:00")
        while day <= end:
            if datetime.fromtimestamp(day, UTC).weekday() < 5:
                self._day(day, load, rng)
            day += DAY_S
        return self

    def _day(self, day: int, load: int, rng: random.Random) -> None:
        busy = load * rng.uniform(0.6, 1.3)
        for hour in range(8, 17):
            self.until((day + hour * 3600 + rng.randrange(1800)) * 1000)
            calls = max(1, round(busy * (0.4 if hour == 12 else 1) * rng.uniform(0.7, 1.3)))
            status = rng.choices(["ok", "err", "cancel"], [40, 1, 1])[0]
            meters = {"tok_in": (40, 90), "tok_out": (90, 260), "ms": (300, 900)}
            self.use(calls, status, **{name: calls * rng.randrange(*span) for name, span in meters.items()})
            if self.size % 40 < 2:
                self.tally()


@dataclass
class Ward(Machine):
    """A machine under a sub-license of `above`, which its delegate gave out."""

    above: License = field(default_factory=make_license)

    @property
    def license_envelope(self) -> Any:
        """The sub-license."""
        above = {"license_id": self.above.license_id, "seq": self.above.seq,
                 "digest": seal_license(self.above).digest}  # fmt: skip
        own = {"license_id": self.license.license_id, "seq": 1, "issued_at": world.T0, "parent": above}
        return documents.seal("sublicense", own, DELEGATE)

    @property
    def activation(self) -> Any:
        """Signed by the delegate."""
        return documents.seal("activation", Activation.read(super().activation).to_dict(), DELEGATE)

    def line(self, *bundles: BundleFact) -> bytes:
        """The registry line with both licenses."""
        made = RegistryLine(
            seal_license(self.above), self.activation, sublicense=self.license_envelope, bundles=BUILDS
        )
        return made.to_bytes() + b"\n"


_GRANTS = tuple(BundleGrant(build.bundle_id) for build in BUILDS)
_LEASE = LeaseTerms(True, 45 * DAY_S, 10 * DAY_S, "warn")


def _license(id: str, customer: str, name: str, plan: tuple[str, int], **more: Any) -> License:
    default = {"devices": Devices("key", 10), "lease": _LEASE, "support": "help@acme.example"}
    return make_license(license_id=id, customer=Customer(customer, name), plan=PlanRef(*plan),
                        bundles=_GRANTS, **(default | more))  # fmt: skip


LICENSES = {
    one.license_id: one
    for one in (
        _license("L-2026-001", "hospital-nord", "Hospital Nord", ("clinic", 2), exp=at("2027-09-21T00:00"),
                 quota=(Quota("calls", "month", "device", 5000, None, "bill"),)),
        _license("L-2026-002", "hospital-nord", "Hospital Nord", ("clinic", 2), environment="test"),
        _license("L-2026-003", "praxis-ring", "Praxis am Ring", ("clinic", 2), exp=at("2026-12-03T00:00"),
                 devices=Devices("key", 2)),
        _license("L-2026-004", "harbor-bank", "Harbor Bank", ("edge-pro", 3), exp=at("2027-01-12T00:00"),
                 lease=replace(_LEASE, allowance=(Allowance("calls", 25_000), Allowance("ms", 30_000_000)))),
        _license("L-2026-005", "kisaragi", "Kisaragi Works", ("works", 1), exp=at("2027-03-31T15:00")),
        _license("L-2026-006", "gulf-energy", "Gulf Energy", ("energy", 1), enforcement="advisory"),
        _license("L-2026-007", "lakeside", "Lakeside Clinics", ("edge-pro", 3), devices=Devices("key", 12),
                 delegation=Delegation((DELEGATE.public.pem,))),
        _license("L-2026-008", "old-mill", "Old Mill Foods", ("edge-pro", 3), exp=at("2026-11-07T00:00")),
        _license("L-2026-009", "uni-tartu", "University of Tartu", ("edge-pro", 3), environment="test",
                 lease=LeaseTerms()),
    )
}  # fmt: skip


def _machine(license_id: str, number: int, label: str, build: BundleFact) -> Machine:
    """One machine at the start of its log."""
    parent_id, _, below = license_id.partition(".")
    parent = LICENSES[parent_id]
    if not below:
        return Machine(parent, number, label, build=build)
    own = replace(parent, license_id=license_id, delegation=None)
    return Ward(own, number, label, build=build, above=parent)


@dataclass
class Office:
    """The books in a folder, and the files that a clerk could drop next."""

    folder: Path
    database: db.Database
    signers: Signers = field(default_factory=lambda: Signers(world.SETTLEMENT))
    machines: dict[str, Machine] = field(default_factory=dict)
    _files: int = 0

    def take(self, name: str, data: bytes) -> None:
        """Import a file."""
        path = self.folder / name
        path.write_bytes(data)
        importing.import_file(self.database, path)

    def ingest(self, machine: Device, when: str, start: int = 0, end: int | None = None) -> str:
        """A usage file of a machine arrives; its outcome."""
        return self.file(machine.export(start, end), machine, when)

    def file(self, data: bytes, machine: Device, when: str) -> str:
        """Bytes that came from a machine arrive under the name its runtime gave them."""
        label = (machine.label or "").replace(" ", "-")
        name = f"{machine.license.customer.id}-{label}-{when[:10]}.usage.gz"
        return ingest.ingest(self.database, data, name, at(when))[0].code

    def held(self, machine: Device) -> int:
        """How many receipts of a machine have come."""
        with self.database.read() as connection:
            log = logs.load(connection, machine.origin)
        return 0 if log is None else log.size

    def replies(self, when: str) -> None:
        """Acknowledgements for everything that came."""
        with self.database.read() as connection:
            origins = [row.origin for row in connection.execute(db.logs.select())]
        ack.replies(self.database, self.signers, origins, at(when))


def registry_files() -> dict[str, bytes]:
    """What finance is given before the first usage file: by file name, in the order of import."""
    machines = fleet()
    lines = b"".join(machine.line() for machine in machines.values())
    quiet = Machine(LICENSES["L-2026-009"], 900, "lab bench").line()
    return {
        "trust.json": world.make_trust().to_bytes(),
        "seller.json": json.dumps(SELLER).encode(),
        **{name: text.encode() for name, text in PLANS.items()},
        "customers.json": json.dumps(CUSTOMERS).encode(),
        "registry.jsonl": lines + quiet,
    }


def fleet() -> dict[str, Machine]:
    """Every machine by its label, at the start of its log."""
    rows = [
        ("L-2026-001", 101, "radiology 1", CHEST), ("L-2026-001", 102, "radiology 2", CHEST),
        ("L-2026-001", 103, "ward 3", SPEECH), ("L-2026-001", 104, "ward 4", SPEECH),
        ("L-2026-001", 105, "emergency", CHEST), ("L-2026-002", 201, "test bench", CHEST),
        ("L-2026-003", 301, "front desk", SPEECH), ("L-2026-003", 302, "x-ray room", CHEST),
        ("L-2026-004", 401, "branch 12", FORMS), ("L-2026-004", 402, "branch 14", FORMS),
        ("L-2026-004", 403, "back office", FORMS), ("L-2026-005", 501, "line 1", FORMS),
        ("L-2026-005", 502, "line 2", FORMS), ("L-2026-005", 503, "line 3", FORMS),
        ("L-2026-006", 601, "site A", SPEECH), ("L-2026-006", 602, "site B", SPEECH),
        ("L-2026-007.east", 701, "east clinic", CHEST), ("L-2026-007.west", 702, "west clinic", CHEST),
        ("L-2026-008", 801, "packing hall", FORMS), ("L-2026-008", 802, "cold store", FORMS),
    ]  # fmt: skip
    return {row[2]: _machine(*row) for row in rows}


_LOADS = {CHEST.bundle_id: 14, SPEECH.bundle_id: 40, FORMS.bundle_id: 90}
_CLERK = "mara.finance"


def make(folder: Path, address: str | None = None) -> Office:
    """Make the books in an empty folder (or at the URL of an empty database)."""
    office = Office(folder, db.Database.open(address or folder / "settlement.db"), machines=fleet())
    for name, data in registry_files().items():
        office.take(name, data)
    _september(office)
    _october(office)
    _november(office)
    return office


def _actor(when: str) -> Actor:
    return Actor(_CLERK, at(when))


def _work(office: Office, first: str, last: str, *without: str) -> list[Machine]:
    busy = [machine for label, machine in office.machines.items() if label not in without]
    for machine in busy:
        machine.days(first, last, _LOADS[machine.build.bundle_id])
    return busy


def _september(office: Office) -> None:
    for machine in _work(office, "2026-09-22", "2026-09-30", "cold store"):
        office.ingest(machine, "2026-10-02T09:12")
    office.replies("2026-10-02T10:00")
    billing.bill_all(office.database, date(2026, 9, 1), date(2026, 10, 5), actor=_actor("2026-10-05T11:00"))


def _october(office: Office) -> None:
    known = {label: machine.size for label, machine in office.machines.items()}
    gone = ("packing hall", "cold store")  # silent ones
    busy = _work(office, "2026-10-01", "2026-10-15", *gone)
    cuts = {machine.label: machine.size for machine in busy}
    office.machines["branch 14"].lose(calls=3, ms=1200)  # the power failed
    office.machines["branch 14"].start()
    before = office.machines["site B"].clone()  # somebody copied a disk
    _work(office, "2026-10-16", "2026-10-30", *gone)
    before.wait(9_000).days("2026-10-16", "2026-10-20", 25)
    late = ("ward 4", "line 2")
    for machine in busy:
        start = known[machine.label]
        if machine.label == "line 3":  # its first stick was lost
            office.ingest(machine, "2026-11-02T08:31", cuts["line 3"])
        elif machine.label not in (*late, "west clinic"):
            office.ingest(machine, "2026-11-02T08:30", start)
    office.ingest(before, "2026-11-02T08:44", known["site B"])  # fork
    office.ingest(office.machines["branch 12"], "2026-11-02T08:50", known["branch 12"])  # once more
    office.replies("2026-11-02T12:00")
    billing.bill_all(office.database, date(2026, 10, 1), date(2026, 11, 5), actor=_actor("2026-11-05T09:30"))
    for label in late:
        office.ingest(office.machines[label], "2026-11-12T15:02", known[label])
    _books(office)


def _books(office: Office) -> None:
    """What was paid, given back and given up."""
    base = office.database
    with base.read() as connection:
        found = receivables.standings(connection)
    mine: dict[tuple[str, str], receivables.Standing] = {
        (one.document.customer, one.document.period[:7]): one for one in found
    }

    def pay(customer: str, period: str, day: str, part: int = 100) -> None:
        one = mine[customer, period]
        amount = one.text(one.document.issued.total * part // 100)
        day_ = date.fromisoformat(day)
        receivables.pay(base, one.document.name, amount, day_, f"bank {day}", actor=_actor(f"{day}T10:00"))

    pay("praxis-ring", "2026-09", "2026-10-19", 40)
    pay("hospital-nord", "2026-09", "2026-10-28")
    pay("kisaragi", "2026-09", "2026-10-30")
    pay("lakeside", "2026-09", "2026-11-02")
    payouts.pay_out(base, date(2026, 11, 6), "SEPA 2026-11", actor=_actor("2026-11-06T10:00"))
    hospital = mine["hospital-nord", "2026-10"].document.name
    receivables.credit(base, hospital, "45.00", "Two days without support", date(2026, 11, 10),
                       actor=_actor("2026-11-10T14:20"))  # fmt: skip
    mill = mine["old-mill", "2026-09"].document.name
    receivables.write_off(base, mill, "The company was wound up", date(2026, 11, 16),
                          actor=_actor("2026-11-16T16:00"))  # fmt: skip
    pay("lakeside", "2026-10", "2026-11-18")
    pay("hospital-nord", "2026-10", "2026-11-20", 60)


def _november(office: Office) -> None:
    """The month that is running: some have sent, some have not, and some sent what cannot be taken."""
    known = {label: machine.size for label, machine in office.machines.items()}
    gone = ("packing hall", "cold store", "site B", "emergency", "line 3")
    busy = {machine.label: machine for machine in _work(office, "2026-11-02", "2026-11-19", *gone)}
    for label in ("radiology 1", "radiology 2", "ward 3", "front desk", "branch 12", "line 1", "site A",
                  "east clinic", "test bench"):  # fmt: skip
        office.ingest(busy[label], "2026-11-20T09:05", known[label])
    torn = busy["west clinic"]
    whole = torn.export(office.held(torn))
    office.file(whole[: len(whole) * 9 // 10], torn, "2026-11-20T09:06")
    stranger = Machine(replace(LICENSES["L-2026-006"], license_id="L-2026-044"), 990, "site C")
    office.file(stranger.days("2026-11-02", "2026-11-04", 10).export(), stranger, "2026-11-20T09:07")
    ingest.ingest(office.database, b"Dear Sir or Madam\n", "cover-letter.usage.gz", at("2026-11-20T09:08"))
    mill = office.machines["packing hall"]
    size = mill.size
    mill.days("2026-11-09", "2026-11-11", 50)  # after its license had ended
    office.ingest(mill, "2026-11-20T09:09", size)
    office.replies("2026-11-20T12:00")

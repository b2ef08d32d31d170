"""Checking a dispute pack by itself: no database of anybody, only a trust file that the reader has.

Source: specs/evidence-pack.md, "Checking". The pack is settled again from its first receipt in an empty
database that lives as long as the check, with the code that settles; so what agrees, agrees to the cent.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format import documents, tallies
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust
from sealpack.format.usage_reader import UsageReader, read_header
from sealpack.settlement import (
    billing,
    checks,
    corrections,
    db,
    evidence,
    evidence_pack,
    ingest,
    leases,
    logs,
    meter_readings,
    registry,
    stated,
    sublicenses,
)
from sealpack.settlement.contract import Contract
from sealpack.settlement.invoice import Issued
from sealpack.settlement.issuing import Document
from sealpack.settlement.logs import Log
from sealpack.settlement.outcomes import Outcome, Stopped
from sealpack.settlement.periods import Period
from sealpack.settlement.plan import Plan, Tax
from sealpack.settlement.printing import difference
from sealpack.settlement.results import PeriodResult


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked, and what was found."""

    name: str
    ok: bool
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"check": self.name, "ok": self.ok, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class PackReport:
    """The verdict on a pack. After a check that failed there are no more: they would rest on it."""

    about: dict[str, Any]
    sha256: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, schema sealpack/evidence-report/v1."""
        return {
            "schema": "sealpack/evidence-report/v1", "ok": self.ok, "about": self.about,
            "sha256": self.sha256, "checks": [check.to_dict() for check in self.checks],
        }  # fmt: skip


def check(data: bytes, trust: Trust) -> PackReport:
    """Check a pack under the reader's trust. Never raises for what the pack holds."""
    digest, about, done = hashlib.sha256(data).hexdigest(), {}, []
    try:
        manifest, files = evidence_pack.read(data)
        about = manifest["about"]
        done.append(Check("container", True, f"{len(files)} files, each as the manifest lists it"))
    except SealpackError as error:
        return PackReport({}, digest, (Check("container", False, error.message),))
    with (
        tempfile.TemporaryDirectory(prefix="sealpack-evidence-") as folder,
        db.Database.open(Path(folder) / "check.db") as database,
        database.write() as connection,
    ):
        for name, run in _Replay(manifest, files, trust, connection).steps():
            done.append(_checked(name, run))
            if not done[-1].ok:
                break
    return PackReport(about, digest, tuple(done))


def _kind_of(document: Issued) -> str:
    """What the document itself says it is. Goodwill has one line of its own, and only ever gives back."""
    if document.kind == "credit_note":
        goodwill = [(line.charge, line.kind) for line in document.lines] == [("credit", "credit")]
        return "credit" if goodwill and document.net <= 0 else "correction"
    return "late" if document.corrects else "invoice"


def _checked(name: str, run: Callable[[], str]) -> Check:
    try:
        return Check(name, True, run())
    except SealpackError as error:
        return Check(name, False, error.message)
    except Stopped as stop:
        return Check(name, False, stop.detail)
    except (LookupError, TypeError, ValueError) as error:
        return Check(name, False, f"the pack is malformed: {error!r}"[:300])


def _quantity(line: dict[str, Any]) -> str:
    guessed = f" ({int(line['estimated']):,} of them estimated, no evidence)" if "estimated" in line else ""
    return f"{line['charge']}: {int(line['raw']):,}{guessed}"


def _bad(problem: str) -> SealpackError:
    return SealpackError("PACK_INVALID", problem)


@dataclass
class _Replay:
    """One pack, settled again."""

    manifest: dict[str, Any]
    files: dict[str, bytes]
    trust: Trust
    connection: sa.Connection
    logs: dict[str, Log] = field(default_factory=dict)

    def steps(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """The checks of this kind of pack, in order."""
        kind = self.manifest["about"].get("kind")
        yield "trust", self._check_trust
        yield "documents", self._check_documents
        yield "receipts", self._check_logs
        yield "acknowledgements", self._check_acknowledgements
        if kind == "invoice":
            yield "invoice", self._check_invoice
            yield "quantities", self._check_quantities
            yield "amounts", self._check_amounts
        elif kind == "case":
            yield "case", self._check_case
        elif kind != "log":
            yield "kind", self._refuse_kind

    def _refuse_kind(self) -> str:
        raise _bad("it is about nothing that is known here")

    def _check_trust(self) -> str:
        """Follow the pack's trust from the reader's; what was revoked since is told, and judged as before."""
        newest = self.trust.update(Trust.load(self.files["trust.json"]).chain)
        revoked = newest.revocations
        self.trust = replace(
            newest,
            revocations=replace(revoked, keys={}, licenses=frozenset(), devices=frozenset()),
        )
        count = len(revoked.keys) + len(revoked.licenses) + len(revoked.devices)
        told = f"; {count} keys, licenses or devices were revoked by now" if count else ""
        return f"root {newest.root_digest[:16]}, keyring v{newest.keyring.version}{told}"

    def _named(self, folder: str) -> list[bytes]:
        return [self.files[name] for name in sorted(self.files) if name.startswith(f"{folder}/")]

    def _check_documents(self) -> str:
        """Licenses and activations, each signed by who may."""
        licenses = [sublicenses.read(data) for data in self._named("licenses")]
        activations = [Envelope.from_bytes(d, "activation") for d in self._named("activations")]
        registry.put_trust(self.connection, self.trust_as_file())
        for envelope in sorted(licenses, key=documents.kind_of):
            if documents.kind_of(envelope) == "license":
                registry.put_license(self.connection, envelope, self.trust)
            else:
                sublicenses.put(self.connection, envelope, self.trust)
        for envelope in activations:
            registry.put_activation(self.connection, envelope, self.trust)
        return f"{len(licenses)} licenses and {len(activations)} activations, signed by the vendor"

    def trust_as_file(self) -> Trust:
        """The trust with its revocations, as it is stored."""
        return Trust.from_envelopes(*self.trust.envelopes)

    def _check_logs(self) -> str:
        """Every receipt from the first on: signatures, tree, the rules of a log; size and root as stated."""
        for name in dict.fromkeys(use["file"] for use in self.manifest["usage"]):
            self._store_file(name)
        for use in self.manifest["usage"]:
            self._grow(use["origin"], use["file"])
        for use in self.manifest.get("stated", ()):
            self._state(use)
        for said in self.manifest["logs"]:
            log = self.logs.get(said["origin"])
            size, root = (log.size, log.frontier.root.hex()) if log else (0, "")
            if log is None or (size, root) != (said["size"], said["root"]):
                raise _bad(f"{said['origin']}: its files give {size} receipts, or another root than stated")
        if self.logs.keys() != {said["origin"] for said in self.manifest["logs"]}:
            raise _bad("it holds usage of a log that it does not state")
        older = self._date_activations()
        told = f"; {older} older activations are settlement's word" if older else ""
        total = sum(log.size for log in self.logs.values())
        return f"{total} receipts in {len(self.logs)} logs, under checkpoints that the devices signed{told}"

    def _store_file(self, name: str) -> None:
        data = self.files[name]
        evidence.add(self.connection, hashlib.sha256(data).hexdigest(), data, name, 0)
        carried = None if meter_readings.is_reading(data) else read_header(data).activation
        if carried is not None:
            # It may be older than the registry's, and so date the license's first day.
            with suppress(SealpackError):
                registry.put_activation(self.connection, Envelope.from_dict(carried), self.trust)

    def _grow(self, origin: str, name: str) -> None:
        data = self.files[name]
        header = read_header(data)
        identity = checks.identify(self.connection, header, self.trust)
        if identity.origin != origin:
            raise _bad(f"{name} is of log {identity.origin}")
        log = self.logs.get(origin) or Log.of(identity.activation, identity.epoch)
        reader = UsageReader(data, header.device_key, follow=False)
        growth = logs.follow(reader, log, lambda size: logs.root_at(self.connection, log, size))
        for finding in growth.checker.findings:
            raise _bad(f"{name}: {finding.message}")
        if growth.frontier.size <= log.size:
            raise _bad(f"{name} adds nothing to {log.size} receipts of {origin}")
        logs.lower(self.connection, log, growth)
        digest = hashlib.sha256(data).hexdigest()
        ingest.store(self.connection, Outcome(digest, name, "OK", "", origin=origin), log, growth)
        moved = logs.load(self.connection, origin)
        assert moved is not None  # it was stored just now
        self.logs[origin] = moved

    def _state(self, use: dict[str, Any]) -> None:
        """Take a file that speaks of a log beyond its receipts."""
        data = self.files[use["file"]]
        self._store_file(use["file"])
        reading = meter_readings.read(data) if meter_readings.is_reading(data) else None
        claim = meter_readings.claim(reading) if reading else read_header(data)
        identity = checks.identify(self.connection, claim, self.trust)
        if identity.origin != use["origin"]:
            raise _bad(f"{use['file']} is of log {identity.origin}")
        log = self.logs.setdefault(use["origin"], Log.of(identity.activation, identity.epoch))
        if reading is None:
            reader = tallies.open_reader(data, claim.device_key, follow=False)
            said = stated.state(self.connection, log, reader, use.get("used_ms"), across=True)
            for finding in said.growth.checker.findings:
                raise _bad(f"{use['file']}: {finding.message}")
        else:
            self._store_acknowledgements(log)
            said = meter_readings.state(self.connection, log, reading)
        stated.count(self.connection, log, said)
        stated.store(self.connection, hashlib.sha256(data).hexdigest(), log, said)

    def _store_acknowledgements(self, log: Log) -> None:
        """Readings are dated by what settlement had said before."""
        row = log.row()
        self.connection.execute(db.put(self.connection, db.logs).values(row).on_conflict_do_nothing())
        for data in self._named("acknowledgements"):
            envelope = Envelope.from_bytes(data, "acknowledgement", max_bytes=leases.MAX_ENVELOPE)
            said = Acknowledgement.open(envelope, self.trust)
            if said.origin == log.origin:
                ack = {"origin": said.origin, "ack_seq": said.ack_seq, "digest": envelope.digest, "basis": "",
                       "envelope": data}  # fmt: skip
                self.connection.execute(db.put(self.connection, db.acks).values(ack).on_conflict_do_nothing())

    def _date_activations(self) -> int:
        """First activations that are older than those at hand are settlement's word; how many."""
        table, count = db.activations, 0
        for said in self.manifest["activated"]:
            mine = (table.c.license_id == said["license"], table.c.device_id == said["device"])
            older = (*mine, table.c.first_at > said["first_at"])
            moved = sa.update(table).where(*older).values(first_at=said["first_at"])
            count += self.connection.execute(moved).rowcount
        return count

    def _check_acknowledgements(self) -> str:
        """What settlement acknowledged is a prefix of these logs, or of what came after."""
        count = 0
        for data in self._named("acknowledgements"):
            said = Acknowledgement.open(
                Envelope.from_bytes(data, "acknowledgement", max_bytes=leases.MAX_ENVELOPE), self.trust
            )
            log = self.logs.get(said.origin)
            if log is None:
                raise _bad(f"an acknowledgement is of {said.origin}, which is not in the pack")
            if said.size <= log.size and logs.root_at(self.connection, log, said.size).hex() != said.root:
                raise _bad(f"acknowledgement {said.ack_seq} of {said.origin} is of another history")
            count += 1
        return f"{count} acknowledgements fit the receipts"

    # --- an invoice -------------------------------------------------------------------------------

    def _invoice(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.files[f"invoices/{name}.json"])
        return value

    @property
    def _this(self) -> dict[str, Any]:
        return self._invoice(self.manifest["about"]["name"])

    def _kind(self) -> str:
        name = self.manifest["about"]["name"]
        kinds: dict[str, str] = {d["name"]: d["kind"] for d in self.manifest["documents"]}
        return kinds[name]

    def _check_invoice(self) -> str:
        """Number, sums, plan and evidence of every document."""
        plan = Plan.from_json(self.files["plan.json"])
        for said in self.manifest["documents"]:
            value = self._invoice(said["name"])
            read = Issued.of(value)
            if (value["number"], value["license"]) != (said["name"], self.manifest["license"]):
                raise _bad(f"{said['name']} is another document")
            if read.plan != (plan.id, plan.version, plan.digest):
                raise _bad(f"{said['name']} names another price plan")
            if (value["currency"], value["tz"]) != (plan.currency, plan.tz):
                raise _bad(f"{said['name']} is in another currency or zone than its plan")
            if said["kind"] != _kind_of(read):
                raise _bad(f"{said['name']} is no document of kind {said['kind']}")
            sums = (sum(line.amount for line in read.lines), read.net + sum(t.amount for t in read.taxes))
            if sums != (read.net, read.total) or any(tax.base != read.net for tax in read.taxes):
                raise _bad(f"{said['name']} does not add up")
        versions = registry.load_license_versions(self.connection, self.manifest["license"])
        if all(v.plan is None or (v.plan.id, v.plan.version) != (plan.id, plan.version) for v in versions):
            raise _bad(f"no license names price plan {plan.id} version {plan.version}")
        named = {(log["origin"], log["size"], log["root"]) for log in self.manifest["logs"]}
        if {(e["origin"], e["end"], e["root"]) for e in self._this["evidence"]} != named:
            raise _bad("the invoice rests on other receipts than those in the pack")
        beyond = {
            f"usage/{digest}.usage.gz" for e in self._this["evidence"] for digest in e.get("stated", ())
        }
        if beyond != {use["file"] for use in self.manifest.get("stated", ())}:
            raise _bad("the invoice rests on the running totals of other files than those in the pack")
        total = f"{self._this['currency']} {self._this['total']}"
        return f"{len(self.manifest['documents'])} documents add up, total {total}; plan {plan.digest[:16]}"

    def _rated(self) -> PeriodResult:
        """The period as these receipts rate, under the plan and the tax that the invoice names."""
        plan = Plan.from_json(self.files["plan.json"])
        original = Issued.of(self._invoice(self.manifest["documents"][0]["name"]))
        tax = next((Tax(t.category, t.rate, t.reason) for t in original.taxes), None)
        license = registry.load_license(self.connection, self.manifest["license"])
        if license is None:
            raise _bad("the license is not in the pack")
        first = date.fromisoformat(self._this["period_start"])
        period = Period.containing(first, plan.tz)
        if (str(period.first), str(period.last)) != (self._this["period_start"], self._this["period_end"]):
            raise _bad("the invoice is of no whole period")
        plans = self._plans()
        sold = Contract(self.connection, license, lambda month: plans.get(month.strftime("%Y-%m"), plan))
        guessed = {(one["license"], one["device"]) for one in self._this.get("estimates", ())}
        day = date.fromisoformat(self._this["date"]) if guessed else None
        now = billing.printed_periods(self.connection, sold, first, tax, day, guessed)[-1]
        if [one.to_dict() for one in now.estimates] != self._this.get("estimates", []):
            raise _bad("what it estimates for silent devices is not what the receipts of other months give")
        return now

    def _plans(self) -> dict[str, Plan]:
        """The plans of months that have another one than the invoice."""
        named = {said["month"]: said["digest"] for said in self.manifest.get("plans", [])}
        read = {name: Plan.from_json(self.files[f"plans/{name}.json"]) for name in set(named.values())}
        if any(plan.digest != name for name, plan in read.items()):
            raise _bad("a price plan is not the one that it is named after")
        return {month: read[digest] for month, digest in named.items()}

    def _check_quantities(self) -> str:
        """Base units on the invoice are those of the receipts."""
        if self._kind() != "invoice":
            return "of a document that adds to an invoice: compared as amounts, together with it"
        counted = {(line.charge, line.first.isoformat()): line.raw for line in self._rated().lines}
        shown = [line for line in self._this["lines"] if "raw" in line]
        for line in shown:
            raw = counted.get((line["charge"], line["service_start"]))
            if str(raw) != line["raw"]:
                raise _bad(f"{line['charge']}: the invoice says {line['raw']}, the receipts say {raw}")
        return "; ".join(map(_quantity, shown)) or "no charge by usage"

    def _check_amounts(self) -> str:
        """Lines, taxes and totals are what receipts and plan give."""
        kind = self._kind()
        if kind == "credit":
            return "a goodwill credit: not made of usage"
        now = self._rated()
        if kind == "invoice":
            places = now.plan.exponent
            lines = [line.to_dict(places) for line in now.lines]
            taxes = [tax.to_dict(places) for tax in now.taxes]
            if (lines, taxes) != (self._this["lines"], self._this["taxes"]):
                raise _bad(
                    f"rated again the period comes to {now.text(now.total)}, line by line not the same"
                )
            return "rated again from the receipts: every line and its working the same"
        held = corrections.Sum(tuple(self._family()))
        change = difference(held, corrections.as_issued(now))
        if change.lines or change.net or any(tax.amount for tax in change.taxes):
            both = f"{now.text(held.net)} net, rated again {now.text(now.net)}"
            raise _bad(f"all documents of the period come to {both}")
        return f"rated again from the receipts: all documents of the period come to {now.text(now.total)}"

    def _family(self) -> Iterable[Document]:
        for said in self.manifest["documents"]:
            if said["kind"] != "credit":
                value = self._invoice(said["name"])
                first, read = value["period_start"], Issued.of(value)
                yield Document(said["name"], said["kind"], "", value["license"], first, "", read)

    # --- a case -----------------------------------------------------------------------------------

    def _check_case(self) -> str:
        """What the held file is; of a fork, that one device signed both histories."""
        data, said = self.files["case/held.usage.gz"], self.manifest["case"]
        reading = meter_readings.read(data) if meter_readings.is_reading(data) else None
        claim = meter_readings.claim(reading) if reading else read_header(data)
        log = self.logs.get(claim.origin)
        if said["code"] == "H210" and log is not None:
            checks.identify(self.connection, claim, self.trust)
            return self._check_fork(data, log)
        if reading is not None:
            held = f"a meter reading of {claim.end} receipts, signed by the device"
        else:
            held = f"in the file {tallies.verify(data).accepted} receipts are signed and whole"
        return f"{said['code']}: {said['detail']}; {held}"

    def _check_fork(self, data: bytes, log: Log) -> str:
        try:
            self._continue(data, log)
        except Stopped as stop:
            if (stop.ours, stop.theirs) != (self.files["case/ours.note"], self.files["case/theirs.note"]):
                raise _bad("the kept checkpoints are not those of the log and of the held file") from None
            return f"the device signed two histories: {stop.detail}"
        raise _bad("the held file continues the log: nothing contradicts")

    def _continue(self, data: bytes, log: Log) -> None:
        """Hold a file against the log as it is; :class:`Stopped`."""
        if meter_readings.is_reading(data):
            meter_readings.state(self.connection, log, meter_readings.read(data))
            return
        reader = tallies.open_reader(data, follow=False)
        if isinstance(reader, tallies.TallyReader) or reader.header.start > log.size:
            stated.state(self.connection, log, reader, None, across=True)
            return
        growth = logs.follow(reader, log, lambda size: logs.root_at(self.connection, log, size))
        stated.check_receipts(self.connection, log, growth, data)

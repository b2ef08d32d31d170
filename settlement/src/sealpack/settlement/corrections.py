"""What came after a month was invoiced: rated again, and the difference issued as a document of its own.

Source: specs/rating.md section 10 and specs/settlement-ledger.md, "Corrections". An issued document never
changes. Every invoiced period of a license is rated again from its roll-ups, under the plan and the tax that
its invoice names; what that differs from all that was issued for the period is a further invoice or a credit
note, so that documents add up to what the period rates to now. Goodwill credits stand beside this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef
from sealpack.settlement import billing, db, invoice, issuing, registry
from sealpack.settlement.audit import NOBODY, Actor
from sealpack.settlement.invoice import Invoice
from sealpack.settlement.issuing import Document, Printed
from sealpack.settlement.periods import Period
from sealpack.settlement.plan import Plan, Tax
from sealpack.settlement.printing import Correction, difference
from sealpack.settlement.results import Line, PeriodResult, TaxLine
from sealpack.settlement.shares import Share

RATED = ("invoice", "late", "correction")  # what adds up to the rated truth; a `credit` is goodwill


@dataclass(frozen=True, slots=True)
class Sum:
    """Everything that was issued for one period, as printing compares it."""

    documents: tuple[Document, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for document in self.documents for line in document.issued.lines)

    @property
    def net(self) -> int:
        return sum(document.issued.net for document in self.documents)

    @property
    def taxes(self) -> tuple[TaxLine, ...]:
        found: dict[tuple[str, object], TaxLine] = {}
        for tax in (tax for document in self.documents for tax in document.issued.taxes):
            known = found.get((tax.category, tax.rate))
            base, amount = (known.base, known.amount) if known else (0, 0)
            found[tax.category, tax.rate] = replace(tax, base=tax.base + base, amount=tax.amount + amount)
        return tuple(found.values())

    @property
    def shares(self) -> tuple[Share, ...]:
        return _shares(*(document.issued.shares for document in self.documents))


def _shares(*parts: Mapping[str, int]) -> tuple[Share, ...]:
    total: dict[str, int] = {}
    for part in parts:
        for party, amount in part.items():
            total[party] = total.get(party, 0) + amount
    return tuple(Share(party, amount) for party, amount in total.items())


def correct_all(
    database: db.Database,
    issued: date | None,
    *,
    customer: str | None = None,
    draft: bool = False,
    actor: Actor = NOBODY,
) -> tuple[list[Printed], dict[str, str]]:
    """:func:`correct` for every license that was invoiced, of one customer or all.

    Returns what was issued, and for each license that could not be rated again the reason.
    """
    printed: list[Printed] = []
    skipped: dict[str, str] = {}
    columns = db.invoices.c
    query = sa.select(columns.license_id).distinct().order_by(columns.license_id)
    with database.read() as connection:
        where = () if customer is None else (columns.customer_id == customer,)
        names = list(connection.execute(query.where(*where)).scalars())
    for name in names:
        try:
            printed += correct(database, name, issued, draft=draft, actor=actor)
        except SealpackError as error:
            if error.spec.exit == 1:
                raise
            skipped[name] = error.message
    return printed, skipped


def correct(
    database: db.Database, license_id: str, issued: date | None, *, draft: bool = False, actor: Actor = NOBODY
) -> list[Printed]:
    """Issue what the invoiced periods of a license rate to now beyond, or below, what was issued for them.

    One document per period that changed, dated `issued`, the oldest period first; none when nothing did. A
    draft has no number and is not stored. REGISTRY_INVALID, PLAN_INVALID.
    """
    with database.write() as connection:
        license = registry.load_license(connection, license_id)
        if license is None:
            raise SealpackError("REGISTRY_INVALID", f"license {license_id} is not known here")
        return [
            _issue(connection, license, held, change, issued, draft, actor)
            for held, change in _changes(connection, license)
        ]


def _changes(connection: sa.Connection, license: License) -> list[tuple[Sum, Correction]]:
    """Per period that changed, what was issued and what is to be added; periods in order.

    Parties are settled over the license as a whole: where usage of one month moves the yearly tiers of the
    platform's part in later ones, the last document of this call carries that.
    """
    found: list[tuple[Sum, Correction]] = []
    owed: dict[str, int] = {}
    rated: dict[tuple[str, Tax | None], dict[date, PeriodResult]] = {}
    for held in _invoiced(connection, license.license_id):
        now = _rate_again(connection, license, held.documents[0], rated)
        # Which charge earned what is not printed: shares alone say who earned more.
        change = difference(held, replace(now, lines=tuple(replace(line, accrues=()) for line in now.lines)))
        for share in change.shares:
            owed[share.party] = owed.get(share.party, 0) + share.amount
        if not change.is_nothing:
            found.append((held, change))
            for share in change.shares:
                owed[share.party] -= share.amount
    if any(owed.values()) and found:
        held, change = found[-1]
        moved = _shares({share.party: share.amount for share in change.shares}, owed)
        found[-1] = held, replace(change, shares=moved)
    return found


def _invoiced(connection: sa.Connection, license_id: str) -> list[Sum]:
    """What was issued per period, the invoice itself first."""
    columns = db.invoices.c
    periods: dict[str, list[Document]] = {}
    for document in issuing.documents(connection, columns.license_id == license_id, columns.kind.in_(RATED)):
        periods.setdefault(document.period, []).append(document)
    return [Sum(tuple(periods[period])) for period in sorted(periods)]


def _rate_again(
    connection: sa.Connection,
    license: License,
    original: Document,
    rated: dict[tuple[str, Tax | None], dict[date, PeriodResult]],
) -> PeriodResult:
    """The period of an invoice as it rates now, under the plan and the tax that the invoice was made with."""
    plan = _plan_of(connection, original)
    taxes = original.issued.taxes
    tax = Tax(taxes[0].category, taxes[0].rate, taxes[0].reason) if taxes else None
    first = date.fromisoformat(original.period)
    key = plan.digest, tax
    if first not in rated.get(key, {}):
        last = Period.containing(_last_period(connection, license.license_id), plan.tz)
        results = billing.printed_periods(connection, license, plan, last, tax)
        rated[key] = {result.period.first: result for result in results}
    return rated[key][first]


def _last_period(connection: sa.Connection, license_id: str) -> date:
    query = sa.select(sa.func.max(db.invoices.c.period)).where(db.invoices.c.license_id == license_id)
    return date.fromisoformat(str(connection.execute(query).scalar()))


def _plan_of(connection: sa.Connection, original: Document) -> Plan:
    name, version, digest = original.issued.plan
    plan = registry.load_plan(connection, PlanRef(name, version))
    if plan is None or plan.digest != digest:
        raise SealpackError(
            "PLAN_INVALID", f"the plan of {original.name}, {name} version {version}, is not known here"
        )
    return plan


def _issue(
    connection: sa.Connection,
    license: License,
    held: Sum,
    change: Correction,
    issued: date | None,
    draft: bool,
    actor: Actor,
) -> Printed:
    kind = "correction" if change.is_credit else "late"
    month = f"{change.result.period.first:%B %Y}"
    if not change.lines:  # drawn from what was prepaid: the lines print nothing, and say how much was used
        used = tuple(replace(line, amount=0) for line in change.result.lines if line.raw is not None)
        change = replace(change, lines=used)

    def make(number: str) -> Invoice:
        payable = not change.is_credit
        header = billing.header(connection, license, number, issued, payable=payable)
        if change.is_credit:
            corrects, reason = _most_open(held), f"correction for {month}"
            return invoice.credit_note(change, header, corrects=corrects, reason=reason)
        reason = f"late usage for {month}"
        return invoice.further(change, header, corrects=held.documents[0].name, reason=reason)

    if draft:
        period = change.result.period.first
        return issuing.as_files(make(""), f"draft-{license.license_id}-{period:%Y-%m}-{kind}")
    return issuing.issue(connection, license, kind, make, actor)


def _most_open(held: Sum) -> str:
    """The invoice of the period a credit note is for: the largest, the earliest of these."""
    return max((d for d in held.documents if d.kind != "correction"), key=lambda d: d.issued.total).name

"""What came after a month was invoiced: rated again, and the difference issued as a document of its own.

Source: specs/rating.md section 10 and specs/settlement-ledger.md, "Corrections". An issued document never
changes. Every invoiced period of a license is rated again from its roll-ups, under the plan and the tax that
its invoice names; what that differs from all that was issued for the period is a further invoice or a credit
note, so that documents add up to what the period rates to now. Goodwill credits stand beside this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import License, PlanRef
from sealpack.settlement import approvals, audit, billing, db, invoice, issuing, registry
from sealpack.settlement.audit import NOBODY, Actor
from sealpack.settlement.contract import Contract
from sealpack.settlement.invoice import Invoice
from sealpack.settlement.issuing import Document, Printed
from sealpack.settlement.plan import Tax
from sealpack.settlement.printing import Correction, difference
from sealpack.settlement.results import BREAKAGE, Line, PeriodResult, TaxLine
from sealpack.settlement.shares import Share

Rated = dict[Tax | None, dict[date, PeriodResult]]  # per tax, by the first day of the period
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
    database: db.Database, license_id: str, issued: date | None, *, draft: bool = False,
    expect: str | None = None, actor: Actor = NOBODY,
) -> list[Printed]:  # fmt: skip
    """Issue what the invoiced periods of a license rate to now beyond, or below, what was issued for them.

    One document per period that changed, dated `issued`, the oldest period first; none when nothing did. A
    draft has no number and is not stored. `expect`: only if they have this :func:`digest`. REGISTRY_INVALID,
    PLAN_INVALID, CHANGED_MEANWHILE.
    """
    with database.write() as connection:
        license = _license(connection, license_id)
        changes = [_Change.of(license, *found) for found in _changes(connection, license, issued)]
        if expect not in (None, digest([change.document(connection, "", None) for change in changes])):
            raise SealpackError(
                "CHANGED_MEANWHILE", f"what is to be corrected for {license_id} is not what was looked at"
            )
        if draft:
            return [
                issuing.as_files(change.document(connection, "", issued), change.draft_name)
                for change in changes
            ]
        return [
            issuing.issue(connection, license, one.kind, partial(one.document, connection, day=issued), actor)
            for one in changes
        ]


def drafts(connection: sa.Connection, license_id: str, day: date | None = None) -> list[Invoice]:
    """What :func:`correct` would issue on a day; without one, without estimates."""
    license = _license(connection, license_id)
    changes = [_Change.of(license, *found) for found in _changes(connection, license, day)]
    return [change.document(connection, "", None) for change in changes]


def digest(documents: Sequence[Invoice]) -> str:
    """Of what corrections say, whenever they are printed; hex."""
    return audit.sha256("".join(approvals.digest(invoice.to_dict(one)) for one in documents).encode())


def _license(connection: sa.Connection, license_id: str) -> License:
    license = registry.load_license(connection, license_id)
    if license is None:
        raise SealpackError("REGISTRY_INVALID", f"license {license_id} is not known here")
    return license


def _changes(connection: sa.Connection, license: License, day: date | None) -> list[tuple[Sum, Correction]]:
    """Per period that changed, what was issued and what is to be added; periods in order.

    Parties are settled over the license as a whole: where usage of one month moves the yearly tiers of the
    platform's part in later ones, the last document of this call carries that. Where only they moved, there
    is one for the last month in which they did.
    """
    found: list[tuple[Sum, Correction]] = []
    moving: list[tuple[Sum, Correction]] = []
    owed: dict[str, int] = {}
    rated: Rated = {}
    for held in _invoiced(connection, license.license_id):
        now = _rate_again(connection, license, held.documents[0], rated, day)
        change = difference(held, as_issued(now))
        for share in change.shares:
            owed[share.party] = owed.get(share.party, 0) + share.amount
        if not change.is_nothing:
            found.append((held, change))
            for share in change.shares:
                owed[share.party] -= share.amount
        elif any(share.amount for share in change.shares):
            moving.append((held, replace(change, shares=())))
    if any(owed.values()):
        held, change = (found or moving)[-1]
        moved = _shares({share.party: share.amount for share in change.shares}, owed)
        found = [*found[:-1], (held, replace(change, shares=moved))]
    return found


def as_issued(now: PeriodResult) -> PeriodResult:
    """A period as a document can say it: which charge earned what is not printed, but for breakage."""
    lines = [line if line.kind == BREAKAGE else replace(line, accrues=()) for line in now.lines]
    return replace(now, lines=tuple(lines))


def _invoiced(connection: sa.Connection, license_id: str) -> list[Sum]:
    """What was issued per period, the invoice itself first."""
    columns = db.invoices.c
    periods: dict[str, list[Document]] = {}
    for document in issuing.documents(connection, columns.license_id == license_id, columns.kind.in_(RATED)):
        periods.setdefault(document.period, []).append(document)
    return [Sum(tuple(periods[period])) for period in sorted(periods)]


def _rate_again(
    connection: sa.Connection, license: License, original: Document, rated: Rated, day: date | None
) -> PeriodResult:
    """The period of an invoice as it rates now, under the plan and the tax that the invoice was made with."""
    _check_plan(connection, original)
    taxes = original.issued.taxes
    tax = Tax(taxes[0].category, taxes[0].rate, taxes[0].reason) if taxes else None
    if tax not in rated:
        last = _last_period(connection, license.license_id)
        results = billing.printed_periods(connection, Contract(connection, license), last, tax, day)
        rated[tax] = {result.period.first: result for result in results}
    return rated[tax][date.fromisoformat(original.period)]


def _last_period(connection: sa.Connection, license_id: str) -> date:
    query = sa.select(sa.func.max(db.invoices.c.period)).where(db.invoices.c.license_id == license_id)
    return date.fromisoformat(str(connection.execute(query).scalar()))


def _check_plan(connection: sa.Connection, original: Document) -> None:
    name, version, digest = original.issued.plan
    plan = registry.load_plan(connection, PlanRef(name, version))
    if plan is None or plan.digest != digest:
        raise SealpackError(
            "PLAN_INVALID", f"the plan of {original.name}, {name} version {version}, is not known here"
        )


@dataclass(frozen=True, slots=True)
class _Change:
    """A period that changed: what was issued for it, and what is to be added."""

    license: License
    held: Sum
    change: Correction

    @classmethod
    def of(cls, license: License, held: Sum, change: Correction) -> _Change:
        """Drawn from what was prepaid, lines print nothing: then they say how much was used."""
        if not change.lines:
            used = tuple(replace(line, amount=0) for line in change.result.lines if line.raw is not None)
            change = replace(change, lines=used)
        return cls(license, held, change)

    @property
    def kind(self) -> str:
        """correction | late."""
        return "correction" if self.change.is_credit else "late"

    @property
    def draft_name(self) -> str:
        """What its files are called while it has no number."""
        return f"draft-{self.license.license_id}-{self.change.result.period.first:%Y-%m}-{self.kind}"

    def document(self, connection: sa.Connection, number: str, day: date | None) -> Invoice:
        """The credit note or further invoice."""
        month = f"{self.change.result.period.first:%B %Y}"
        payable = not self.change.is_credit
        header = billing.header(connection, self.license, number, day, payable=payable)
        if self.change.is_credit:
            corrects, reason = _most_open(self.held), f"correction for {month}"
            return invoice.credit_note(self.change, header, corrects=corrects, reason=reason)
        moved = self.change.is_nothing
        reason = f"parts of the parties for {month}" if moved else f"late usage for {month}"
        return invoice.further(self.change, header, corrects=self.held.documents[0].name, reason=reason)


def _most_open(held: Sum) -> str:
    """The invoice of the period a credit note is for: the largest, the earliest of these."""
    return max((d for d in held.documents if d.kind != "correction"), key=lambda d: d.issued.total).name

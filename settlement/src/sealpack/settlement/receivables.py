"""What customers owe and pay: states of documents, goodwill credits, payments, refunds, write-offs.

Source: specs/settlement-ledger.md, "Payments" and "Goodwill". Balances are read from the ledger, never kept
beside it. Amounts are minor units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef
from sealpack.settlement import audit, billing, db, issuing, ledger, money, registry
from sealpack.settlement.audit import Actor
from sealpack.settlement.invoice import Header, Invoice
from sealpack.settlement.issuing import Document, Printed
from sealpack.settlement.ledger import Posting, Transaction
from sealpack.settlement.plan import Plan
from sealpack.settlement.results import Line, TaxLine
from sealpack.settlement.shares import Share

PAYING = ("payment", "apply")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a document stands; `paid` is what was paid on it and not given back by a credit note."""

    document: Document
    credited: int  # what credit notes for it come to, above zero
    paid: int
    open: int
    written_off: bool

    @property
    def due(self) -> int:
        """What is to be paid for it in all."""
        return self.document.issued.total - self.credited

    @property
    def state(self) -> str:
        """issued | partly paid | paid | credited | written off; credit notes are `issued`."""
        if self.document.issued.kind == "credit_note":
            return "issued"
        if self.written_off:
            return "written off"
        if self.open > 0:
            return "partly paid" if self.paid > 0 else "issued"
        return "credited" if self.credited and self.due <= 0 else "paid"

    def text(self, amount: int) -> str:
        """Minor units as a decimal string of the document's currency."""
        return money.amount_text(amount, money.exponent(self.document.issued.currency))

    def to_dict(self) -> dict[str, object]:
        """The JSON form: amounts as decimal strings."""
        issued, text = self.document.issued, self.text
        return {
            "number": issued.name, "kind": self.document.kind, "customer": self.document.customer,
            "license": self.document.license_id, "period": self.document.period[:7], "date": issued.date,
            **({"due": issued.due} if issued.due else {}),
            **({"corrects": issued.corrects} if issued.corrects else {}),
            "currency": issued.currency, "total": text(issued.total), "credited": text(self.credited),
            "paid": text(self.paid), "open": text(self.open), "state": self.state,
        }  # fmt: skip


def standings(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[Standing]:
    """Where every document stands, in the order in which they were issued; with `where`, of these."""
    documents = issuing.documents(connection, *where)
    columns = db.invoices.c
    names = sa.select(columns.name).where(*where)
    notes = connection.execute(
        sa.select(columns.corrects, sa.func.sum(columns.total).label("total"))
        .where(columns.total < 0, *([columns.corrects.in_(names)] if where else []))
        .group_by(columns.corrects)
    )
    credited = {row.corrects: -int(row.total) for row in notes}
    booked = _booked_on(connection, *([db.postings.c.document.in_(names)] if where else []))
    return [
        Standing(one, credited.get(one.name, 0), *booked.get(one.name, (0, 0, False))) for one in documents
    ]  # fmt: skip


def _booked_on(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> dict[str, tuple[int, int, bool]]:
    """What was paid and is open per document, and whether it was written off: as :func:`stand`, summed where
    the postings are."""
    head, leg = db.transactions.c, db.postings.c
    receivable = leg.account == ledger.RECEIVABLE
    given_back = (leg.account == ledger.CREDIT) & head.kind.in_(("credit", "correction"))
    paid = sa.case((receivable & head.kind.in_(PAYING), -leg.amount), (given_back, leg.amount), else_=0)
    lost = sa.case(((head.kind == "writeoff") & receivable, 1), else_=0)
    sums = (sa.func.sum(paid), sa.func.sum(sa.case((receivable, leg.amount), else_=0)), sa.func.max(lost))
    rows = connection.execute(
        sa.select(leg.document, *(one.label(f"sum{n}") for n, one in enumerate(sums)))
        .join(db.transactions, head.seq == leg.seq)
        .where(*where)
        .group_by(leg.document)
    )
    return {row.document: (int(row.sum0), int(row.sum1), bool(row.sum2)) for row in rows}


def stand(
    documents: Iterable[Document], transactions: Iterable[Transaction], credited: Mapping[str, int]
) -> list[Standing]:
    """Where documents stand when these transactions, and no later ones, are booked."""
    owing: dict[str, int] = defaultdict(int)
    paid: dict[str, int] = defaultdict(int)
    lost: set[str] = set()
    for transaction in transactions:
        for leg in transaction.postings:
            if leg.account == ledger.RECEIVABLE:
                owing[leg.document] += leg.amount
                if transaction.kind in PAYING:
                    paid[leg.document] -= leg.amount
            elif leg.account == ledger.CREDIT and transaction.kind in ("credit", "correction"):
                paid[leg.document] += leg.amount  # given back: the document was paid already
        if transaction.kind == "writeoff":
            lost.add(transaction.document)
    return [
        Standing(d, credited.get(d.name, 0), paid[d.name], owing[d.name], d.name in lost) for d in documents
    ]  # fmt: skip


def standing(connection: sa.Connection, name: str) -> Standing:
    """Where one document stands; INVOICE_UNKNOWN."""
    issuing.find(connection, name)
    return standings(connection, db.invoices.c.name == name)[0]


def events(connection: sa.Connection, name: str) -> int:
    """How often something was booked on a document: a form that was filled in says what it had seen."""
    columns = db.postings.c
    query = sa.select(sa.func.count(sa.distinct(columns.seq))).where(columns.document == name)
    return int(connection.execute(query).scalar() or 0)


def _look(connection: sa.Connection, name: str, seen: int | None) -> Standing:
    """Where a document stands; CHANGED_MEANWHILE when more was booked on it than was `seen`."""
    found = standing(connection, name)
    if seen not in (None, events(connection, name)):
        raise SealpackError("CHANGED_MEANWHILE", f"something was booked on {name} since it was looked at")
    return found


def _payable(connection: sa.Connection, name: str, seen: int | None) -> Standing:
    """An invoice that can be credited or paid; INVOICE_UNKNOWN, AMOUNT_INVALID for a credit note."""
    found = _look(connection, name, seen)
    if found.document.issued.kind == "credit_note":
        raise SealpackError("AMOUNT_INVALID", f"{name} is a credit note: nothing is to be paid for it")
    return found


def minor_units(text: str, currency: str) -> int:
    """An amount as typed, such as 12.50, in minor units; AMOUNT_INVALID unless it is one above zero."""
    places = money.exponent(currency)
    try:
        exact = money.parse_decimal(text) * 10**places
    except ValueError:
        raise SealpackError("AMOUNT_INVALID", f"{text!r} is not an amount such as 12.50") from None
    if exact.denominator != 1 or exact <= 0 or exact > 10**15:
        raise SealpackError(
            "AMOUNT_INVALID", f"{text} {currency} is no amount with {places} places above zero"
        )
    return int(exact)


def _limit(what: str, amount: int, limit: int, currency: str) -> None:
    if amount > limit:
        places = money.exponent(currency)
        raise SealpackError(
            "AMOUNT_INVALID",
            f"{what} {money.amount_text(amount, places)} {currency} is more than the "
            f"{money.amount_text(max(limit, 0), places)} that is left",
        )


# --- goodwill ---------------------------------------------------------------------------------------


def credit(
    database: db.Database, name: str, amount: str | None, reason: str, issued: date, *,
    seen: int | None = None, actor: Actor,
) -> Printed:  # fmt: skip
    """Issue a goodwill credit note of `amount` before tax for an invoice; all that is left without one.

    INVOICE_UNKNOWN; AMOUNT_INVALID for more than what earlier credit notes left, and of what was written off;
    CHANGED_MEANWHILE when `seen` is not :func:`events`, here and below.
    """
    if not reason.strip():
        raise SealpackError("USAGE", "a credit needs a reason")
    with database.write() as connection:
        now = _payable(connection, name, seen)
        if (
            now.written_off
        ):  # its parties bear no more of it: a credit would be taken from what others owe them
            raise SealpackError("AMOUNT_INVALID", f"{name} was written off: nothing is left of it to credit")
        found = now.document
        left = _left(connection, found)
        wanted = left.net if amount is None else minor_units(amount, found.issued.currency)
        _limit("a credit of", wanted, left.net, found.issued.currency)
        if wanted <= 0:
            raise SealpackError("AMOUNT_INVALID", f"nothing is left of {name} to credit")
        license = registry.load_license(connection, found.license_id)
        plan = registry.load_plan(connection, PlanRef(*found.issued.plan[:2]))
        if license is None or plan is None:
            raise SealpackError("PLAN_INVALID", f"the plan of {name} is not known here")

        def make(number: str) -> Invoice:
            header = billing.header(connection, license, number, issued, payable=False)
            return _goodwill(found, left, plan, wanted, reason, header)

        return issuing.issue(connection, license, "credit", make, actor)


@dataclass(frozen=True, slots=True)
class _Left:
    """What credit notes left of an invoice."""

    net: int
    tax: int
    shares: dict[str, int]


def left_net(connection: sa.Connection, name: str) -> int:
    """What of an invoice's net can still be credited; minor units."""
    return _left(connection, issuing.find(connection, name)).net


def _left(connection: sa.Connection, invoice: Document) -> _Left:
    notes = issuing.documents(connection, db.invoices.c.corrects == invoice.name, db.invoices.c.total < 0)
    said = [document.issued for document in (invoice, *notes)]
    shares: dict[str, int] = defaultdict(int)
    for one in said:
        for party, amount in one.shares.items():
            shares[party] += amount
    return _Left(sum(one.net for one in said), sum(one.tax for one in said), dict(shares))


def _goodwill(
    invoice: Document, left: _Left, plan: Plan, amount: int, reason: str, header: Header
) -> Invoice:
    """The note. The last part takes all the tax that is left, so that nothing stays behind by rounding.

    It is borne by those who earned the invoice, in proportion; by the platform where nobody did.
    """
    first = date.fromisoformat(invoice.period)
    last = max(line.last for line in invoice.issued.lines) if invoice.issued.lines else first
    line = Line(charge="credit", kind="credit", description=reason, amount=-amount, first=first, last=last)
    taxes: tuple[TaxLine, ...] = ()
    if invoice.issued.taxes:
        known = invoice.issued.taxes[0]
        exact = money.to_major(amount, plan.exponent) * known.rate
        part = min(left.tax, money.to_minor(exact, plan.exponent, plan.rounding))
        tax = left.tax if amount == left.net else part
        taxes = (TaxLine(known.category, known.rate, -amount, -tax, known.reason),)
    parties = ["platform", *(party for party in left.shares if party != "platform")]
    parts = money.allocate(amount, [max(0, left.shares.get(party, 0)) for party in parties])
    shares = tuple(Share(party, -part) for party, part in zip(parties, parts, strict=True) if part)
    return Invoice(
        kind="credit_note", header=header, plan=plan, first=first, last=last, lines=(line,), net=-amount,
        taxes=taxes, shares=shares, corrects=invoice.name, reason=reason,
    )  # fmt: skip


# --- payments ---------------------------------------------------------------------------------------


def pay(
    database: db.Database, name: str, amount: str, day: date, reference: str, *, seen: int | None = None,
    actor: Actor,
) -> Standing:  # fmt: skip
    """A payment for an invoice; what is more than open on it the customer has on account.

    INVOICE_UNKNOWN, AMOUNT_INVALID; PAYMENT_KNOWN for the same invoice, day, reference and amount again.
    """
    with database.write() as connection:
        found = _payable(connection, name, seen).document
        paid = minor_units(amount, found.issued.currency)
        legs = (Posting(ledger.CASH, paid), *ledger.settle(connection, found.customer, name, paid))
        _book(connection, found, "payment", day, reference, legs, paid, actor)
        return standing(connection, name)


def apply(
    database: db.Database, name: str, amount: str | None, day: date, *, seen: int | None = None, actor: Actor
) -> Standing:
    """Pay an invoice from what the customer has on account; as much as can be without an `amount`."""
    with database.write() as connection:
        now = _payable(connection, name, seen)
        found, currency = now.document, now.document.issued.currency
        held = ledger.on_account(connection, found.issuer, found.customer, currency)
        most = min(now.open, held)
        wanted = most if amount is None else minor_units(amount, currency)
        _limit("paying", wanted, most, currency)
        if wanted <= 0:
            raise SealpackError("AMOUNT_INVALID", f"{name} has nothing open, or nothing is on account for it")
        legs = (
            Posting(ledger.CREDIT, wanted, found.customer, name),
            Posting(ledger.RECEIVABLE, -wanted, found.customer, name),
        )
        count = len(_booked(connection, name, "apply"))
        _book(connection, found, "apply", day, f"account {count + 1}", legs, wanted, actor)
        return standing(connection, name)


def refund(
    database: db.Database, name: str, amount: str | None, day: date, reference: str, *,
    seen: int | None = None, actor: Actor,
) -> int:  # fmt: skip
    """Money back to the customer of a document, from what they have on account; minor units paid back."""
    with database.write() as connection:
        found = _look(connection, name, seen).document
        currency = found.issued.currency
        held = ledger.on_account(connection, found.issuer, found.customer, currency)
        wanted = held if amount is None else minor_units(amount, currency)
        _limit("a refund of", wanted, held, currency)
        if wanted <= 0:
            raise SealpackError("AMOUNT_INVALID", f"{found.customer} has nothing on account")
        legs = (Posting(ledger.CREDIT, wanted, found.customer, name), Posting(ledger.CASH, -wanted))
        _book(connection, found, "refund", day, reference, legs, wanted, actor)
        return wanted


def write_off(
    database: db.Database, name: str, reason: str, day: date, *, seen: int | None = None, actor: Actor
) -> Standing:
    """Give up what is open on an invoice. Parties get no more of it: they are paid of what customers pay."""
    if not reason.strip():
        raise SealpackError("USAGE", "a write-off needs a reason")
    with database.write() as connection:
        now = _payable(connection, name, seen)
        found = now.document
        if now.open <= 0:
            raise SealpackError("AMOUNT_INVALID", f"nothing is open on {name}")
        left = _left(connection, found)
        parties = [
            (party, share) for party, share in left.shares.items() if party != "platform" and share > 0
        ]
        lost = [(party, share - share * now.paid // now.due) for party, share in parties]
        if sum(amount for _, amount in lost) > now.open:  # much of it was drawn from what had been prepaid
            parts = money.allocate(now.open, [amount for _, amount in lost])
            lost = [(party, part) for (party, _), part in zip(lost, parts, strict=True)]
        legs = [Posting(ledger.PAYABLE, amount, party, name) for party, amount in lost]
        ours = now.open - sum(amount for _, amount in lost)
        legs.append(Posting(ledger.LOSS, ours, found.customer, name))
        legs.append(Posting(ledger.RECEIVABLE, -now.open, found.customer, name))
        _book(connection, found, "writeoff", day, "", tuple(legs), now.open, actor, reason)
        return standing(connection, name)


def _booked(connection: sa.Connection, name: str, kind: str) -> list[str]:
    columns = db.transactions.c
    query = sa.select(columns.id).where(columns.document == name, columns.kind == kind)
    return list(connection.execute(query).scalars())


def _book(
    connection: sa.Connection,
    document: Document,
    kind: str,
    day: date,
    reference: str,
    legs: tuple[Posting, ...],
    amount: int,
    actor: Actor,
    narration: str = "",
) -> None:
    currency = document.issued.currency
    shown = money.amount_text(amount, money.exponent(currency))
    booked = ledger.book(
        connection,
        Transaction(
            id=f"{kind}:{document.name}:{day}:{shown}:{reference}", issuer=document.issuer,
            day=day.isoformat(), kind=kind, document=document.name, currency=currency, postings=legs,
            reference=reference, narration=narration,
        ),
    )  # fmt: skip
    audit.note(
        connection, actor, kind, invoice=document.name, amount=f"{shown} {currency}", day=day.isoformat(),
        reference=reference, reason=narration, booked=booked,
    )  # fmt: skip

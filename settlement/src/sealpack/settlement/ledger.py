"""The double-entry ledger: what documents, payments and payouts do to the accounts.

Source: specs/settlement-ledger.md, "Ledger". Append-only; every transaction sums to zero and has an id made
of what happened, so nothing is booked twice. Amounts are minor units, debits above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, tables
from sealpack.settlement.invoice import Issued
from sealpack.settlement.plan import PLATFORM

RECEIVABLE = "receivable"  # per customer and document
CREDIT = "credit"  # what a customer has on account
CASH = "cash"
TAX = "tax"
REVENUE = "revenue"  # the platform's part
DEFERRED = "deferred"  # prepaid commitments that nobody has earned yet
PAYABLE = "payable"  # per party
LOSS = "loss"  # written off


@dataclass(frozen=True, slots=True)
class Posting:
    """One leg of a transaction."""

    account: str
    amount: int
    party: str = ""
    document: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What is booked together. `id` is unique for ever, `kind` says what happened."""

    id: str
    issuer: str
    day: str
    kind: str  # invoice late correction credit payment apply refund payout writeoff
    document: str
    currency: str
    postings: tuple[Posting, ...]
    reference: str = ""
    narration: str = ""


def book(connection: sa.Connection, transaction: Transaction) -> dict[str, str]:
    """Append a transaction; {id: digest}, as the audit trail names it. PAYMENT_KNOWN if it is there."""
    if sum(posting.amount for posting in transaction.postings):
        raise ValueError(f"{transaction.id} does not balance")
    table = tables.transactions.c
    if connection.execute(sa.select(table.seq).where(table.id == transaction.id)).first() is not None:
        raise SealpackError("PAYMENT_KNOWN", f"{transaction.id} is booked already")
    seq = (connection.execute(sa.select(sa.func.max(table.seq))).scalar() or 0) + 1
    head = {"seq": seq, "id": transaction.id, "issuer": transaction.issuer, "day": transaction.day,
            "kind": transaction.kind, "document": transaction.document, "reference": transaction.reference,
            "narration": transaction.narration, "currency": transaction.currency}  # fmt: skip
    connection.execute(sa.insert(tables.transactions).values(head))
    legs = [posting for posting in transaction.postings if posting.amount]
    rows = [
        {"seq": seq, "n": n, "account": leg.account, "party": leg.party, "document": leg.document,
         "amount": leg.amount}
        for n, leg in enumerate(legs)
    ]  # fmt: skip
    if rows:
        connection.execute(sa.insert(tables.postings), rows)
    stored = connection.execute(sa.select(tables.transactions).where(table.seq == seq)).one()
    return {transaction.id: audit.transaction_digest(connection, stored)}


def book_document(
    connection: sa.Connection, issuer: str, customer: str, kind: str, issued: Issued
) -> dict[str, str]:
    """Book an invoice or credit note.

    What is negative lowers what is open on the document it corrects; what that cannot take the customer has
    on account. Net that nobody earned yet is deferred, drawdown takes it back.
    """
    earned = sum(issued.shares.values())
    legs = [
        Posting(TAX, -issued.tax, document=issued.name),
        Posting(DEFERRED, earned - issued.net, customer, issued.name),
    ]
    for party, amount in issued.shares.items():
        account, whose = (REVENUE, "") if party == PLATFORM else (PAYABLE, party)
        legs.append(Posting(account, -amount, whose, issued.name))
    if issued.total >= 0:
        legs.append(Posting(RECEIVABLE, issued.total, customer, issued.name))
    else:
        legs += settle(connection, customer, issued.corrects, -issued.total)
    return book(
        connection,
        Transaction(
            id=f"document:{issued.name}", issuer=issuer, day=issued.date, kind=kind, document=issued.name,
            currency=issued.currency, postings=tuple(legs), narration=issued.reason,
        ),
    )  # fmt: skip


def settle(connection: sa.Connection, customer: str, document: str, amount: int) -> list[Posting]:
    """The credit side of money for a document: what is open on it first, the rest on account."""
    part = min(amount, max(0, open_on(connection, document)))
    return [
        Posting(RECEIVABLE, -part, customer, document),
        Posting(CREDIT, part - amount, customer, document),
    ]


def open_on(connection: sa.Connection, document: str) -> int:
    """What the customer still owes for a document."""
    columns = tables.postings.c
    query = sa.select(sa.func.sum(columns.amount)).where(
        columns.account == RECEIVABLE, columns.document == document
    )
    return int(connection.execute(query).scalar() or 0)


def on_account(connection: sa.Connection, issuer: str, customer: str, currency: str) -> int:
    """What a customer has on account with an issuer."""
    return -_sum(connection, issuer, currency, CREDIT, customer)


def owed(connection: sa.Connection, issuer: str, party: str, currency: str) -> int:
    """What was earned by a party and not paid out."""
    return -_sum(connection, issuer, currency, PAYABLE, party)


def _sum(connection: sa.Connection, issuer: str, currency: str, account: str, party: str) -> int:
    head, leg = tables.transactions.c, tables.postings.c
    query = (
        sa.select(sa.func.sum(leg.amount))
        .join(tables.transactions, head.seq == leg.seq)
        .where(head.issuer == issuer, head.currency == currency, leg.account == account, leg.party == party)
    )
    return int(connection.execute(query).scalar() or 0)


def trial_balance(connection: sa.Connection) -> dict[tuple[str, str], dict[tuple[str, str], int]]:
    """(issuer, currency) -> (account, party) -> balance. The balances of each sum to zero."""
    head, leg = tables.transactions.c, tables.postings.c
    query = (
        sa.select(head.issuer, head.currency, leg.account, leg.party, sa.func.sum(leg.amount).label("amount"))
        .join(tables.transactions, head.seq == leg.seq)
        .group_by(head.issuer, head.currency, leg.account, leg.party)
        .order_by(head.issuer, head.currency, leg.account, leg.party)
    )
    found: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    for row in connection.execute(query):
        found.setdefault((row.issuer, row.currency), {})[row.account, row.party] = int(row.amount)
    return found


def unbalanced(connection: sa.Connection) -> list[str]:
    """Ids of transactions that do not sum to zero: none, unless the database was changed by hand."""
    head, leg = tables.transactions.c, tables.postings.c
    query = (
        sa.select(head.id)
        .join(tables.postings, head.seq == leg.seq)
        .group_by(head.id)
        .having(sa.func.sum(leg.amount) != 0)
        .order_by(head.id)
    )
    return list(connection.execute(query).scalars())


def transactions(connection: sa.Connection) -> Iterable[Transaction]:
    """All of them, as booked."""
    legs: dict[int, list[Posting]] = {}
    for row in connection.execute(
        sa.select(tables.postings).order_by(tables.postings.c.seq, tables.postings.c.n)
    ):
        legs.setdefault(row.seq, []).append(Posting(row.account, row.amount, row.party, row.document))
    for row in connection.execute(sa.select(tables.transactions).order_by(tables.transactions.c.seq)).all():
        yield Transaction(
            id=row.id, issuer=row.issuer, day=row.day, kind=row.kind, document=row.document,
            currency=row.currency, postings=tuple(legs.get(row.seq, ())), reference=row.reference,
            narration=row.narration,
        )  # fmt: skip


def total(balances: Mapping[tuple[str, str], int], account: str) -> int:
    """The sum of an account over all parties."""
    return sum(amount for (name, _), amount in balances.items() if name == account)

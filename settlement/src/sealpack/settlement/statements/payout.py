"""A party's payout statement: what was earned, released and paid out between two moments of the ledger.

Source: specs/statements.md, "Payout statement". The ledger is append-only, so a statement up to a payout says
the same whenever it is made again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import issuing, ledger, money, parties, payouts, receivables
from sealpack.settlement.invoice import business_dict
from sealpack.settlement.issuing import Document
from sealpack.settlement.ledger import Transaction
from sealpack.settlement.payouts import Key
from sealpack.settlement.plan import PLATFORM
from sealpack.settlement.statements.files import Statement, named

SCHEMA = "sealpack/payout-statement/v1"
_DOCUMENTS = ("invoice", "late", "correction", "credit")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
Family = tuple[str, str]  # license, period


@dataclass(frozen=True, slots=True)
class _Account:
    """What a party has of one license and period at a moment, minor units."""

    earned: int = 0
    released: int = 0
    lost: int = 0

    @property
    def waiting(self) -> int:
        """Earned, and not yet paid for by the customer."""
        return self.earned - self.lost - self.released

    def __sub__(self, other: _Account) -> _Account:
        return _Account(self.earned - other.earned, self.released - other.released, self.lost - other.lost)


@dataclass(frozen=True, slots=True)
class _Moment:
    """A party's accounts when some transactions, and no others, are booked."""

    accounts: dict[Family, _Account]
    paid: int
    payable: int  # what the ledger says is owed

    @property
    def whole(self) -> _Account:
        """All licenses and periods together."""
        every = self.accounts.values()
        return _Account(
            sum(a.earned for a in every), sum(a.released for a in every), sum(a.lost for a in every)
        )

    @property
    def available(self) -> int:
        """Released and not paid out."""
        return self.whole.released - self.paid


def keys(connection: sa.Connection, party: str) -> list[Key]:
    """The (issuer, party, currency) of a party; USAGE when it never earned anything or is the platform."""
    if party == PLATFORM:
        raise SealpackError("USAGE", "the platform's part is its own: there is no statement of it")
    found = [payout.key for payout in payouts.payouts(connection) if payout.party == party]
    if not found:
        raise SealpackError(
            "USAGE", f"{party} has not earned anything here", remedy="see `sealpack settle payouts`"
        )
    return found


def of_payout(connection: sa.Connection, party: str, reference: str) -> list[Statement]:
    """The statement of each payout of that reference: from the payout before it up to it.

    USAGE when there is none.
    """
    booked = list(ledger.transactions(connection))
    documents = issuing.documents(connection)
    found = []
    for key in keys(connection, party):
        places = [n for n, transaction in enumerate(booked) if _pays(transaction, key)]
        for before, place in zip([-1, *places], places, strict=False):
            if booked[place].reference == reference:
                since = booked[before].day if before >= 0 else ""
                value = _statement(
                    connection,
                    key,
                    documents,
                    booked[: before + 1],
                    booked[: place + 1],
                    since,
                    booked[place].day,
                )
                found.append((_name(key, booked[place].day), value))
    if not found:
        raise SealpackError(
            "USAGE", f"{party} was paid nothing under reference {reference!r}",
            remedy="give --ref as it was given to `sealpack settle payouts --pay`",
        )  # fmt: skip
    return named(found)


def since_last(connection: sa.Connection, party: str, on: date) -> list[Statement]:
    """What happened since the last payout: what the next one will be of."""
    booked = list(ledger.transactions(connection))
    documents = issuing.documents(connection)
    found = []
    for key in keys(connection, party):
        last = max((n for n, transaction in enumerate(booked) if _pays(transaction, key)), default=-1)
        since = booked[last].day if last >= 0 else ""
        value = _statement(connection, key, documents, booked[: last + 1], booked, since, on.isoformat())
        found.append((_name(key, on.isoformat()), value))
    return named(found)


def of_days(connection: sa.Connection, party: str, first: date | None, last: date) -> list[Statement]:
    """What happened from a day to another, by the day things were booked for."""
    booked = list(ledger.transactions(connection))
    documents = issuing.documents(connection)
    since = first.isoformat() if first else ""
    before = [transaction for transaction in booked if transaction.day < since]
    until = [transaction for transaction in booked if transaction.day <= last.isoformat()]
    return named(
        [
            (
                _name(key, last.isoformat()),
                _statement(connection, key, documents, before, until, since, last.isoformat()),
            )
            for key in keys(connection, party)
        ]
    )


def _name(key: Key, day: str) -> str:
    return f"payout-{_UNSAFE.sub('-', key[1])}-{key[2]}-{day}"


def _pays(transaction: Transaction, key: Key) -> bool:
    issuer, party, currency = key
    return (
        transaction.kind == "payout"
        and (transaction.issuer, transaction.currency) == (issuer, currency)
        and any(leg.account == ledger.PAYABLE and leg.party == party for leg in transaction.postings)
    )


def _statement(
    connection: sa.Connection,
    key: Key,
    documents: Sequence[Document],
    before: Sequence[Transaction],
    until: Sequence[Transaction],
    since: str,
    to: str,
) -> dict[str, Any]:
    issuer, party, currency = key
    places = money.exponent(currency)

    def text(amount: int) -> str:
        return money.amount_text(amount, places)

    then, now = (_moment(key, documents, booked) for booked in (before, until))
    moved, start, end = now.whole - then.whole, then.whole, now.whole
    known = {transaction.id for transaction in before}
    paid = [t for t in until if t.id not in known and _pays(t, key)]
    return {
        "schema": SCHEMA, "issuer": issuer, "party": party, "currency": currency,
        "seller": business_dict(parties.load_seller(connection, issuer).business),
        **({"from": since} if since else {}), "to": to,
        "items": _items(key, documents, until, then, now, text),
        "payouts": [
            {"date": t.day, "reference": t.reference, "amount": text(_amount(t, party))} for t in paid
        ],
        "waiting": {
            "opening": text(start.waiting), "earned": text(moved.earned), "written_off": text(moved.lost),
            "released": text(moved.released), "closing": text(end.waiting),
        },
        "available": {
            "opening": text(then.available), "released": text(moved.released),
            "paid": text(now.paid - then.paid), "closing": text(now.available),
        },
        "payable": text(now.payable),
    }  # fmt: skip


def _amount(transaction: Transaction, party: str) -> int:
    return sum(
        leg.amount for leg in transaction.postings if leg.account == ledger.PAYABLE and leg.party == party
    )


def _moment(key: Key, documents: Sequence[Document], booked: Sequence[Transaction]) -> _Moment:
    """The accounts of a party: its parts of the documents booked by then, and what was lost of them."""
    issuer, party, currency = key
    known = {transaction.document for transaction in booked if transaction.kind in _DOCUMENTS}
    there = [document for document in documents if document.name in known]
    family = {document.name: (document.license_id, document.period) for document in documents}
    lost: dict[Family, int] = defaultdict(int)
    paid = payable = 0
    for transaction in booked:
        if (transaction.issuer, transaction.currency) == (issuer, currency):
            amount = _amount(transaction, party)
            payable -= amount
            paid += amount if transaction.kind == "payout" else 0
            if transaction.kind == "writeoff":
                lost[family[transaction.document]] += amount
    accounts = {
        (part.license_id, part.period): _Account(
            part.earned, part.released, lost.get((part.license_id, part.period), 0)
        )
        for part in payouts.parts(receivables.stand(there, booked, {}))
        if (part.issuer, part.party, part.currency) == key
    }
    return _Moment(accounts, paid, payable)


def _items(
    key: Key, documents: Sequence[Document], until: Sequence[Transaction], then: _Moment, now: _Moment,
    text: Callable[[int], str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Per license and period what moved, and what still waits; those where nothing does are left out."""
    booked = {transaction.document for transaction in until if transaction.kind in _DOCUMENTS}
    names: dict[Family, list[str]] = defaultdict(list)
    for document in documents:
        if document.name in booked and key[1] in document.issued.shares:
            names[document.license_id, document.period].append(document.name)
    items = []
    for family in sorted(now.accounts, key=lambda one: (one[1], one[0])):
        account = now.accounts[family]
        moved = account - then.accounts.get(family, _Account())
        if moved != _Account() or account.waiting:
            items.append(
                {
                    "license": family[0],
                    "period": family[1][:7],
                    "documents": names[family],
                    "earned": text(moved.earned),
                    "written_off": text(moved.lost),
                    "released": text(moved.released),
                    "waiting": text(account.waiting),
                }
            )
    return items

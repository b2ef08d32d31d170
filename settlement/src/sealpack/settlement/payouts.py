"""What parties are paid: their shares, as far as customers have paid for them.

Source: specs/settlement-ledger.md, "Payouts". Released to a party is, per license and period, its share times
what was paid over what is due, rounded down; all of it once all is paid. What was paid out too much, because
a credit note came later, is kept from the next payouts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, db, ledger, money, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.ledger import Posting, Transaction
from sealpack.settlement.plan import PLATFORM
from sealpack.settlement.receivables import Standing

Key = tuple[str, str, str]  # issuer, party, currency


@dataclass(frozen=True, slots=True)
class Payout:
    """Where a party stands with an issuer, minor units. `due` may be below zero after a credit note."""

    issuer: str
    party: str
    currency: str
    earned: int
    released: int
    paid: int

    @property
    def key(self) -> Key:
        """What tells it apart."""
        return self.issuer, self.party, self.currency

    @property
    def due(self) -> int:
        """What can be paid out now."""
        return self.released - self.paid

    def to_dict(self) -> dict[str, str]:
        """The JSON form: amounts as decimal strings."""
        places = money.exponent(self.currency)
        amounts = {"earned": self.earned, "released": self.released, "paid": self.paid, "due": self.due}
        texts = {name: money.amount_text(amount, places) for name, amount in amounts.items()}
        return {"issuer": self.issuer, "party": self.party, "currency": self.currency, **texts}


@dataclass(frozen=True, slots=True)
class Part:
    """What a party has of one license and period: earned in all, and what of it is released, minor units."""

    issuer: str
    party: str
    currency: str
    license_id: str
    period: str
    earned: int
    released: int


def payouts(connection: sa.Connection) -> list[Payout]:
    """Every party that earned something, the platform left out."""
    earned: dict[Key, int] = defaultdict(int)
    released: dict[Key, int] = defaultdict(int)
    for part in parts(receivables.standings(connection)):
        key = part.issuer, part.party, part.currency
        earned[key] += part.earned
        released[key] += part.released
    spent = _paid_out(connection)
    return [Payout(*key, earned[key], released[key], spent.get(key, 0)) for key in sorted(earned)]


def parts(standings: Iterable[Standing]) -> list[Part]:
    """What each party but the platform has of every license and period, as all documents stand."""
    families: dict[tuple[str, str], list[Standing]] = defaultdict(list)
    for standing in standings:
        families[standing.document.license_id, standing.document.period].append(standing)
    prepaid = _prepaid(families.values())
    found = []
    for (license_id, period), members in families.items():
        head = members[0].document
        shares: dict[str, int] = defaultdict(int)
        for member in members:
            for party, amount in member.document.issued.shares.items():
                shares[party] += amount
        paid, due = _family(members)
        issued = [member.document.issued for member in members]
        drawn = sum(shares.values()) > sum(one.net + one.breakage for one in issued)
        for party, share in shares.items():
            if party == PLATFORM:
                continue
            own = _part(share, paid, due)
            released = min(own, _part(share, *_ahead(prepaid[license_id], period))) if drawn else own
            found.append(
                Part(head.issuer, party, head.issued.currency, license_id, period, share, released)
            )  # fmt: skip
    return found


def _family(members: Iterable[Standing]) -> tuple[int, int]:
    """What was paid and what is due for one period of a license, all its documents together."""
    paid = due = 0
    for member in members:
        paid += member.paid
        due += member.document.issued.total
    return paid, due


def _prepaid(families: Iterable[list[Standing]]) -> dict[str, dict[str, tuple[int, int]]]:
    """Per license and period whose invoice bills a prepayment, what was paid for it and is due."""
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for members in families:
        lines = (line for member in members for line in member.document.issued.lines)
        if any(line.kind == "prepayment" for line in lines):
            head = members[0].document
            found[head.license_id][head.period] = _family(members)
    return found


def _ahead(prepaid: Mapping[str, tuple[int, int]], period: str) -> tuple[int, int]:
    """Paid and due of the newest prepayment that was billed by a period: what is drawn is drawn from it."""
    by_then = max((first for first in prepaid if first <= period), default="")
    return prepaid.get(by_then, (0, 0))


def _part(share: int, paid: int, due: int) -> int:
    """Of a share what goes with the money that came in. Rounded down, so that more is never released."""
    if paid >= due or share <= 0:
        return share
    return share * max(0, paid) // due


def _paid_out(connection: sa.Connection) -> dict[Key, int]:
    head, leg = db.transactions.c, db.postings.c
    query = (
        sa.select(head.issuer, leg.party, head.currency, sa.func.sum(leg.amount).label("amount"))
        .join(db.transactions, head.seq == leg.seq)
        .where(head.kind == "payout", leg.account == ledger.PAYABLE)
        .group_by(head.issuer, leg.party, head.currency)
    )
    return {(row.issuer, row.party, row.currency): int(row.amount) for row in connection.execute(query)}


def pay_out(
    database: db.Database,
    day: date,
    reference: str,
    *,
    party: str | None = None,
    minimum: str | None = None,
    expect: Mapping[Key, int] | None = None,
    actor: Actor,
) -> list[Payout]:
    """Book a payout of all that is due, to one party or to all; those below `minimum` wait.

    `expect`: to these alone, who must be due exactly that. Returns what was paid, each as it stood before.
    USAGE when the platform is named: it pays itself; CHANGED_MEANWHILE.
    """
    if party == PLATFORM:
        raise SealpackError("USAGE", "the platform's part is its own: it is not paid out")
    with database.write() as connection:
        made, known = [], payouts(connection)
        if expect is not None:
            known = [payout for payout in known if payout.key in expect]
            if {payout.key: payout.due for payout in known} != expect:
                raise SealpackError("CHANGED_MEANWHILE", "what is due is not what was looked at")
        for payout in known:
            least = 1 if minimum is None else receivables.minor_units(minimum, payout.currency)
            if payout.due >= least and party in (None, payout.party):
                _book(connection, payout, day, reference, actor)
                made.append(payout)
        return made


def _book(connection: sa.Connection, payout: Payout, day: date, reference: str, actor: Actor) -> None:
    shown = money.amount_text(payout.due, money.exponent(payout.currency))
    legs = (Posting(ledger.PAYABLE, payout.due, payout.party), Posting(ledger.CASH, -payout.due))
    booked = ledger.book(
        connection,
        Transaction(
            id=f"payout:{payout.issuer}:{payout.party}:{payout.currency}:{day}:{shown}:{reference}",
            issuer=payout.issuer, day=day.isoformat(), kind="payout", document="", currency=payout.currency,
            postings=legs, reference=reference,
        ),
    )  # fmt: skip
    audit.note(
        connection, actor, "payout", party=payout.party, amount=f"{shown} {payout.currency}",
        day=day.isoformat(), reference=reference, booked=booked,
    )  # fmt: skip

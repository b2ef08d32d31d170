"""What parties are paid: their shares, as far as customers have paid for them.

Source: specs/settlement-ledger.md, "Payouts". Released to a party is, per license and period, its share times
what was paid over what is due, rounded down; all of it once all is paid. What was paid out too much, because
a credit note came later, is kept from the next payouts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
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
    def due(self) -> int:
        """What can be paid out now."""
        return self.released - self.paid

    def to_dict(self) -> dict[str, str]:
        """The JSON form: amounts as decimal strings."""
        places = money.exponent(self.currency)
        amounts = {"earned": self.earned, "released": self.released, "paid": self.paid, "due": self.due}
        texts = {name: money.amount_text(amount, places) for name, amount in amounts.items()}
        return {"issuer": self.issuer, "party": self.party, "currency": self.currency, **texts}


def payouts(connection: sa.Connection) -> list[Payout]:
    """Every party that earned something, the platform left out."""
    earned: dict[Key, int] = defaultdict(int)
    released: dict[Key, int] = defaultdict(int)
    families: dict[tuple[str, str], list[Standing]] = defaultdict(list)
    for standing in receivables.standings(connection):
        families[standing.document.license_id, standing.document.period].append(standing)
    prepaid = _prepaid(families.values())
    for (license_id, _), members in families.items():
        head = members[0].document
        shares: dict[str, int] = defaultdict(int)
        for member in members:
            for party, amount in member.document.issued.shares.items():
                shares[party] += amount
        paid, due = _family(members)
        drawn = sum(shares.values()) > sum(member.document.issued.net for member in members)
        for party, share in shares.items():
            if party == PLATFORM:
                continue
            key = head.issuer, party, head.issued.currency
            earned[key] += share
            own = _part(share, paid, due)
            released[key] += min(own, _part(share, *prepaid[license_id])) if drawn else own
    spent = _paid_out(connection)
    return [Payout(*key, earned[key], released[key], spent.get(key, 0)) for key in sorted(earned)]


def _family(members: Iterable[Standing]) -> tuple[int, int]:
    """What was paid and what is due for one period of a license, all its documents together."""
    paid = due = 0
    for member in members:
        paid += member.paid
        due += member.document.issued.total
    return paid, due


def _prepaid(families: Iterable[list[Standing]]) -> dict[str, tuple[int, int]]:
    """Per license what was paid and is due for the periods whose invoice bills a prepayment."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for members in families:
        lines = (line for member in members for line in member.document.issued.lines)
        if any(line.kind == "prepayment" for line in lines):
            license_id = members[0].document.license_id
            paid, due = _family(members)
            before = found[license_id]
            found[license_id] = before[0] + paid, before[1] + due
    return found


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
    actor: Actor,
) -> list[Payout]:
    """Book a payout of all that is due, to one party or to all; those below `minimum` wait.

    Returns what was paid, each as it stood before. USAGE when the platform is named: it pays itself.
    """
    if party == PLATFORM:
        raise SealpackError("USAGE", "the platform's part is its own: it is not paid out")
    with database.write() as connection:
        made = []
        for payout in payouts(connection):
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

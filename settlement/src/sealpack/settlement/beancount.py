"""The ledger as beancount text, for the tools of plain-text accounting.

Source: specs/settlement-ledger.md, "Beancount". The same bytes for the same ledger; amounts keep their sign:
what we owe and earn is below zero.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from sealpack.settlement import ledger, money
from sealpack.settlement.ledger import Posting, Transaction

_ROOTS = {
    ledger.RECEIVABLE: "Assets", ledger.CASH: "Assets", ledger.CREDIT: "Liabilities",
    ledger.TAX: "Liabilities",
    ledger.DEFERRED: "Liabilities", ledger.PAYABLE: "Liabilities", ledger.REVENUE: "Income",
    ledger.LOSS: "Expenses",
}  # fmt: skip


def text(transactions: Iterable[Transaction]) -> str:
    """Accounts, opened on the first day they are used, then every transaction."""
    booked = [transaction for transaction in transactions if transaction.postings]
    opened: dict[str, str] = {}
    for transaction in booked:
        for leg in transaction.postings:
            name = account(transaction.issuer, leg)
            opened[name] = min(transaction.day, opened.get(name, transaction.day))
    lines = ['option "title" "Sealpack settlement"', ""]
    lines += [f"{day} open {name}" for name, day in sorted(opened.items())]
    for transaction in booked:
        lines += ["", *_transaction(transaction)]
    return "\n".join(lines) + "\n"


def account(issuer: str, leg: Posting) -> str:
    """The account's name: root, issuer, account, party."""
    parts = [_ROOTS[leg.account], _component(issuer), leg.account.capitalize()]
    return ":".join([*parts, _component(leg.party)] if leg.party else parts)


def _component(text: str) -> str:
    """Part of an account's name: what cannot stand there is replaced, a digest keeps names apart."""
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-")
    plain = plain[:1].upper() + plain[1:] or "X"
    if plain.lower() == text.lower() and (not text or text[0].isupper() or text[0].isdigit()):
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _transaction(transaction: Transaction) -> list[str]:
    places = money.exponent(transaction.currency)
    said = " ".join(part for part in (transaction.kind, transaction.document, transaction.narration) if part)
    lines = [f"{transaction.day} * {_string(said)}", f"  id: {_string(transaction.id)}"]
    if transaction.reference:
        lines.append(f"  reference: {_string(transaction.reference)}")
    for leg in transaction.postings:
        amount = money.amount_text(leg.amount, places)
        lines.append(f"  {account(transaction.issuer, leg)}  {amount} {transaction.currency}")
        if leg.document and leg.document != transaction.document:
            lines.append(f"    document: {_string(leg.document)}")
    return lines


def _string(text: str) -> str:
    escaped = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

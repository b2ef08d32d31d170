"""The side navigation: which pages stand in it, in which order. A page that there is not, or not for a role,
is left out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

HOME = "/console/"
ENTRIES = (
    ("Work", (
        ("Overview", HOME),
        ("Drop files", "/console/drop"),
        ("Files", "/console/files"),
        ("Cases", "/console/cases"),
        ("Replies", "/console/replies"),
    )),
    ("Billing", (
        ("Drafts", "/console/drafts"),
        ("Not billed", "/console/unbilled"),
        ("Invoices", "/console/invoices"),
        ("Payments", "/console/payments"),
        ("Open items", "/console/aging"),
        ("Statements", "/console/statements"),
        ("Payouts", "/console/payouts"),
        ("Ledger", "/console/ledger"),
        ("Exports", "/console/exports"),
    )),
    ("Register", (
        ("Customers", "/console/customers"),
        ("Licenses", "/console/licenses"),
        ("Machines", "/console/devices"),
        ("Plans", "/console/plans"),
        ("Usage", "/console/usage"),
    )),
    ("Settings", (
        ("First steps", "/console/start"),
        ("Access", "/console/access"),
        ("Audit trail", "/console/audit"),
    )),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A link; `here` for the page that is shown, or the one above it."""

    label: str
    path: str
    here: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Links under a heading."""

    label: str
    entries: tuple[Entry, ...]


def groups(seen: Collection[str], path: str) -> list[Group]:
    """The navigation of somebody who may see the pages `seen` and is at `path`."""
    known = [entry for _, entries in ENTRIES for _, entry in entries if entry in seen]
    above = [p for p in known if path == p or (p != HOME and path.startswith(f"{p}/"))]
    here = max(above, key=len, default=HOME if path == HOME else "")
    made = [
        Group(label, tuple(Entry(name, p, p == here) for name, p in entries if p in seen))
        for label, entries in ENTRIES
    ]
    return [group for group in made if group.entries]

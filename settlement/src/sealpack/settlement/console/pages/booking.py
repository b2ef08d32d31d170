"""What is booked on an invoice: a payment, a credit, what is on account, a refund, a write-off.

Source: specs/console.md, "Billing". Each is asked for on a form, told back in words with what it will change,
and booked once it is confirmed. A form says how much was booked when it was opened (`seen`), so that sent
twice, or late, it books nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from sealpack.format.errors import SealpackError
from sealpack.settlement import db, ledger, money, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.console.app import CLERKS, Console, Page
from sealpack.settlement.console.forms import text
from sealpack.settlement.console.inputs import day_of, today
from sealpack.settlement.console.pages.invoices import CRUMBS, LIST, path
from sealpack.settlement.console.paging import number_of
from sealpack.settlement.receivables import Standing
from sealpack.settlement.users import User


@dataclass(frozen=True, slots=True)
class Said:
    """What a form says; an empty amount means all there is."""

    amount: str
    day: date
    reference: str
    reason: str
    seen: int


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that can be booked: what its form asks for, and who does it. `most` says how much can be."""

    name: str
    title: str
    lead: str
    button: str
    fields: tuple[str, ...]  # of amount, reference, reason; the day is always asked
    most: str  # open | left | usable | account
    run: Callable[[db.Database, str, Said, Actor], object]
    done: str
    whole: bool = True  # whether an empty amount means all


def _pay(base: db.Database, name: str, said: Said, actor: Actor) -> object:
    return receivables.pay(base, name, said.amount, said.day, said.reference, seen=said.seen, actor=actor)


def _credit(base: db.Database, name: str, said: Said, actor: Actor) -> object:
    amount = said.amount or None
    return receivables.credit(base, name, amount, said.reason, said.day, seen=said.seen, actor=actor)


def _apply(base: db.Database, name: str, said: Said, actor: Actor) -> object:
    return receivables.apply(base, name, said.amount or None, said.day, seen=said.seen, actor=actor)


def _refund(base: db.Database, name: str, said: Said, actor: Actor) -> object:
    amount = said.amount or None
    return receivables.refund(base, name, amount, said.day, said.reference, seen=said.seen, actor=actor)


def _write_off(base: db.Database, name: str, said: Said, actor: Actor) -> object:
    return receivables.write_off(base, name, said.reason, said.day, seen=said.seen, actor=actor)


ACTS = {
    act.name: act
    for act in (
        Act("pay", "Record a payment", "What came in for this invoice. More than is open stays on the "
            "customer's account.", "Record the payment", ("amount", "reference"), "open", _pay,
            "The payment is recorded.", whole=False),
        Act("credit", "Credit", "A credit note takes back part of the invoice or all of it, with its tax. "
            "The parties that earned it bear their part.", "Issue the credit note", ("amount", "reason"),
            "left", _credit, "The credit note is issued."),
        Act("apply", "Pay from the account", "Use what the customer has on account for this invoice.",
            "Use it", ("amount",), "usable", _apply, "It is paid from what was on account."),
        Act("refund", "Refund", "Record that money was paid back to the customer, from what is on account.",
            "Record the refund", ("amount", "reference"), "account", _refund, "The refund is recorded."),
        Act("write-off", "Write off", "Give up what is open. The parties get no more of it.", "Write it off",
            ("reason",), "open", _write_off, "What was open is written off."),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """Where an invoice stands as a form shows it; minor units."""

    now: Standing
    on_account: int
    left: int
    events: int

    def most(self, act: Act) -> int:
        """The largest amount that can be booked without a remainder."""
        usable = min(self.now.open, self.on_account)
        limits = {"open": self.now.open, "left": self.left, "usable": usable, "account": self.on_account}
        return limits[act.most]


def _view(connection: sa.Connection, name: str) -> View:
    now = receivables.standing(connection, name)
    document = now.document
    held = ledger.on_account(connection, document.issuer, document.customer, document.issued.currency)
    is_note = document.issued.kind == "credit_note"
    left = 0 if is_note or now.written_off else receivables.left_net(connection, name)
    return View(now, held, left, receivables.events(connection, name))


async def get_form(console: Console, request: Request, user: User) -> Response:
    """The form, empty."""
    act = _act(request)
    view = await console.query(_view, request.path_params["number"])
    fields = {"amount": "", "date": today(console.now).isoformat(), "reference": "", "reason": "",
              "seen": str(view.events)}  # fmt: skip
    if not act.whole:
        fields["amount"] = view.now.text(max(0, view.now.open))
    return _ask(console, request, user, act, view, fields)


def _act(request: Request) -> Act:
    act = ACTS.get(request.path_params["act"])
    if act is None:
        raise SealpackError("NOT_FOUND", "there is no such page")
    return act


def _ask(
    console: Console, request: Request, user: User, act: Act, view: View, fields: dict[str, str],
    error: SealpackError | None = None,
) -> Response:  # fmt: skip
    name = view.now.document.name
    return console.render(
        request, user, "booking.html", error.spec.http if error else 200, act=act, view=view, fields=fields,
        error=error, crumbs=[*CRUMBS, (name, path(name))], here=path(name, f"/{act.name}"), back=path(name),
    )  # fmt: skip


async def post_form(console: Console, request: Request, user: User) -> Response:
    """Tell what it would change, or book it when that was confirmed."""
    act, name = _act(request), request.path_params["number"]
    form = await console.form(request)
    fields = {one: text(form, one, most=500, needed=False) for one in
              ("amount", "date", "reference", "reason", "seen")}  # fmt: skip
    view = await console.query(_view, name)
    try:
        said = _said(act, form, fields)
        effects = _effects(act, view, said)
        if form.get("confirmed") == "yes":
            await console.work(act.run, console.service.database, name, said, console.actor(user))
            return console.redirect(path(name), act.done)
    except SealpackError as error:
        if error.spec.exit == 1:
            raise
        if error.code == "CHANGED_MEANWHILE":
            return console.redirect(path(name), _TWICE)
        return _ask(console, request, user, act, view, fields, error)
    return console.render(
        request, user, "booking_review.html", act=act, view=view, fields=fields, effects=effects,
        crumbs=[*CRUMBS, (name, path(name))], here=path(name, f"/{act.name}"), back=path(name),
    )  # fmt: skip


_TWICE = ("Nothing was booked by this form: something else was booked on the invoice after it was opened, "
          "perhaps the same form sent twice. See what happened below.")  # fmt: skip


def _said(act: Act, form: FormData, fields: dict[str, str]) -> Said:
    """What a form says; FORM_INVALID names what is missing."""
    for name in act.fields:
        if name != "amount" or not act.whole:
            text(form, name, most=500)
    seen = number_of(fields["seen"])
    if seen is None:
        raise SealpackError("FORM_INVALID", "the form is not whole", remedy="open it again")
    return Said(fields["amount"].replace(",", ""), day_of(fields["date"]), fields["reference"],
                fields["reason"], seen)  # fmt: skip


def _effects(act: Act, view: View, said: Said) -> list[str]:
    """What will change, in words; AMOUNT_INVALID, CHANGED_MEANWHILE as the booking itself would say."""
    now = view.now
    currency, name = now.document.issued.currency, now.document.name
    if said.seen != view.events:
        raise SealpackError("CHANGED_MEANWHILE", f"something was booked on {name} since it was looked at")
    most = view.most(act)
    amount = receivables.minor_units(said.amount, currency) if said.amount else most

    def shown(minor: int) -> str:
        return f"{money.grouped(now.text(minor))} {currency}"

    if act.name != "pay" and (most <= 0 or amount > most):
        why = f"{shown(amount)} is more than the {shown(max(0, most))} that can be booked"
        raise SealpackError("AMOUNT_INVALID", why if most > 0 else f"there is nothing to book on {name}")
    if act.name == "pay" and now.document.issued.kind == "credit_note":
        raise SealpackError("AMOUNT_INVALID", f"{name} is a credit note: nothing is to be paid for it")
    return _told(act, view, amount, shown)


def _told(act: Act, view: View, amount: int, shown: Callable[[int], str]) -> list[str]:
    now, held = view.now, view.on_account
    over = max(0, amount - max(0, now.open))
    rest = shown(max(0, now.open) - amount + over)
    found: dict[str, list[str]] = {
        "pay": [f"{shown(amount)} was paid: {rest} stays open."],
        "apply": [f"{shown(amount)} is taken from the customer's account: {rest} stays open.",
                  f"{shown(held - amount)} stays on account."],
        "refund": [f"{shown(amount)} was paid back: {shown(held - amount)} stays on account."],
        "write-off": [f"{shown(now.open)} is given up; nothing stays open."],
        "credit": [f"A credit note of {shown(amount)} before tax is issued, with the next number."],
    }  # fmt: skip
    told = found[act.name]
    if act.name == "pay" and over:
        told.append(f"{shown(over)} is more than was open and stays on the customer's account.")
    if act.name == "credit":
        told.append(f"{shown(view.left - amount)} of the net can still be credited afterwards.")
        told += ["What was paid already goes to the customer's account."] if now.paid else []
    if act.name == "write-off":
        told.append("It cannot be credited or collected any more.")
    return told


PAGES = (
    Page("GET", LIST + "/{number}/{act}", CLERKS, get_form),
    Page("POST", LIST + "/{number}/{act}", CLERKS, post_form),
)

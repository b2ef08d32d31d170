"""The console's billing pages, without a browser: from a month's draft to money, and everything refused on
the way."""

from __future__ import annotations

import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support import console as support, office, postgres
from support.office import at

from sealpack.settlement import audit, corrections, db, drafts, receivables
from sealpack.settlement.audit import Actor
from sealpack.settlement.console.app import Console
from sealpack.settlement.console.pages import drafts as drafts_pages
from sealpack.settlement.service.app import make_app
from sealpack.settlement.service.core import Service

CALM = at("2026-12-20T09:00")  # November's days of grace are over
NOVEMBER = date(2026, 11, 1)
DRAFT = "/console/drafts/L-2026-004/2026-11"
_FORM = re.compile(r"<form(?=[^>]*method=\"post\")[^>]*action=\"([^\"]+)\"[^>]*>(.*?)</form>", re.S)
_HIDDEN = re.compile(r"<input type=\"hidden\" name=\"([^\"]+)\" value=\"([^\"]*)\">")


@dataclass
class Clerk:
    """Somebody at a browser without scripts."""

    http: TestClient
    base: db.Database
    text: str = ""
    status: int = 0
    fields: dict[str, dict[str, str]] = field(default_factory=dict)  # of the forms that were shown

    def go(self, path: str, status: int = 200) -> str:
        return self._saw(self.http.get(path), status)

    def _saw(self, answer: Any, status: int) -> str:
        self.status, self.text = answer.status_code, answer.text
        assert self.status == status, self.words
        for action, body in _FORM.findall(self.text):
            hidden = {unescape(k): unescape(v) for k, v in _HIDDEN.findall(body)}
            self.fields[action] = hidden
        return self.text

    def send(self, path: str, status: int = 200, **fields: Any) -> str:
        """Send a form that was shown, with what was typed; where it leads is followed."""
        return self._saw(self.http.post(path, data=self.fields[path] | fields), status)

    @property
    def words(self) -> str:
        """The page without its tags."""
        main = self.text.partition("<main")[2]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())

    def login(self, role: str) -> Clerk:
        self.go("/console/login")
        name = support.USERS[role][0]
        self.send("/console/login", name=name, password=support.PASSWORD)
        return self

    def standing(self, name: str) -> tuple[str, str]:
        with self.base.read() as connection:
            one = receivables.standing(connection, name)
        return one.state, one.text(one.open)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two months of business, and a user of each role."""
    folder = tmp_path_factory.mktemp("office")
    made = office.make(folder)
    support.add_users(made.database, office.NOW)
    made.database.close()
    return folder


@dataclass
class Desk:
    """A copy of the books, a clock, and who comes in."""

    base: db.Database
    now: int = CALM

    def clerk(self, role: str = "finance") -> Clerk:
        service = Service(self.base, clock=lambda: self.now)
        app = make_app(service, Console(service))
        return Clerk(TestClient(app, raise_server_exceptions=False), self.base).login(role)


@pytest.fixture
def desk(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(drafts_pages, "_SECONDS", 60.0)  # lists are whole, however slow the machine
    shutil.copytree(filled, tmp_path / "books")
    with db.Database.open(tmp_path / "books" / "settlement.db") as base:
        yield Desk(base)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Desk]:
    """A console on the first day."""
    with db.Database.open(tmp_path / "settlement.db") as base:
        support.add_users(base, office.NOW)
        yield Desk(base)


# --- from draft to money ------------------------------------------------------------------------------


def test_preview_approve_issue_pay_credit(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/drafts?month=2026-11")
    assert "Harbor Bank plc" in clerk.words and " draft " in clerk.words
    clerk.go(DRAFT)
    assert "Output tokens" in clerk.words and "Harbor Bank plc" in clerk.words
    total = re.search(r"Net, total [\d.,]+ USD , ([\d.,]+) USD", clerk.words)
    assert total is not None
    clerk.send(f"{DRAFT}/approve")
    assert "is approved for November 2026" in clerk.words and "Approved by user mara" in clerk.words
    clerk.send(f"{DRAFT}/issue", date="2026-12-20")
    assert "ACME-000016 is issued." in clerk.words
    assert total[1] in clerk.words
    assert clerk.standing("ACME-000016") == ("issued", total[1].replace(",", ""))
    clerk.go("/console/invoices/ACME-000016/pay")
    clerk.send("/console/invoices/ACME-000016/pay", amount="100.00", reference="bank 7", date="2026-12-20")
    assert "100.00 USD was paid" in clerk.words and clerk.standing("ACME-000016")[0] == "issued"
    clerk.send("/console/invoices/ACME-000016/pay")
    assert "The payment is recorded." in clerk.words and clerk.standing("ACME-000016")[0] == "partly paid"
    clerk.go("/console/invoices/ACME-000016/credit")
    clerk.send("/console/invoices/ACME-000016/credit", amount="", reason="moved", date="2026-12-20")
    assert "A credit note of" in clerk.words
    clerk.send("/console/invoices/ACME-000016/credit")
    assert "The credit note is issued." in clerk.words
    assert clerk.standing("ACME-000016") == ("credited", "0.00")
    assert "100.00 the customer has on account" in clerk.words
    clerk.go("/console/invoices/ACME-000016/refund")
    clerk.send("/console/invoices/ACME-000016/refund", reference="back 1", amount="", date="2026-12-20")
    clerk.send("/console/invoices/ACME-000016/refund")
    assert "The refund is recorded." in clerk.words and "on account" not in clerk.words.split("Kind")[0]
    with desk.base.read() as connection:
        mine = [e.what["verb"] for e in audit.entries(connection) if e.who == "user mara"]
    assert mine == ["approve", "issue", "payment", "issue", "refund"]
    for verb in ("approve", "issue", "payment", "refund"):
        assert verb in clerk.words.split("History")[-1]
    audit.verify(desk.base)


def test_sent_twice_it_happens_once(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go(DRAFT)
    issue = dict(clerk.fields[f"{DRAFT}/issue"])
    clerk.send(f"{DRAFT}/issue", date="2026-12-20")
    clerk.fields[f"{DRAFT}/issue"] = issue
    clerk.send(f"{DRAFT}/issue", date="2026-12-20")
    assert "ACME-000016 was issued before." in clerk.words
    for act, fields in (
        ("credit", {"amount": "10.00", "reason": "slow"}), ("pay", {"amount": "5.00", "reference": "r"})
    ):  # fmt: skip
        path = f"/console/invoices/ACME-000016/{act}"
        clerk.go(path)
        clerk.send(path, date="2026-12-20", **fields)
        confirmed = dict(clerk.fields[path])
        clerk.send(path)
        before = clerk.standing("ACME-000016")
        clerk.fields[path] = confirmed
        clerk.send(path)
        assert "Nothing was booked by this form" in clerk.words
        assert clerk.standing("ACME-000016") == before


def test_a_draft_that_changed_is_neither_approved_nor_issued(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go(DRAFT)
    seen = dict(clerk.fields[f"{DRAFT}/approve"])
    issue = dict(clerk.fields[f"{DRAFT}/issue"])
    with desk.base.write() as connection:
        connection.execute(
            db.customers.update()
            .where(db.customers.c.id == "harbor-bank")
            .values(document=b'{"id": "harbor-bank", "legal_name": "Harbor Bank SE"}')
        )
    clerk.fields[f"{DRAFT}/approve"], clerk.fields[f"{DRAFT}/issue"] = seen, issue
    for act in ("approve", "issue"):
        clerk.fields[f"{DRAFT}/{act}"] = {"approve": seen, "issue": issue}[act]
        clerk.send(f"{DRAFT}/{act}", 400, date="2026-12-20")
        assert "CHANGED_MEANWHILE" in clerk.words and "Harbor Bank SE" in clerk.words
    with desk.base.read() as connection:
        assert drafts.issued_as(connection, "L-2026-004", NOVEMBER) is None


def test_what_changed_since_the_approval_is_told(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go(DRAFT)
    clerk.send(f"{DRAFT}/approve")
    with desk.base.write() as connection:
        connection.execute(
            db.customers.update()
            .where(db.customers.c.id == "harbor-bank")
            .values(document=b'{"id": "harbor-bank", "legal_name": "Harbor Bank SE"}')
        )
    clerk.go(DRAFT)
    assert "changed since" in clerk.words
    told = clerk.words.split("What changed since it was approved")[1]
    assert "Harbor Bank plc, 1 Quayside, London E14 5AB" in told and "Harbor Bank SE" in told
    clerk.go("/console/drafts?month=2026-11")
    assert "approval lapsed" in clerk.words


def test_early_approval_and_taking_it_back(desk: Desk) -> None:
    desk.now = office.NOW
    clerk = desk.clerk()
    clerk.go(DRAFT)
    clerk.send(f"{DRAFT}/approve", 400)
    assert "is waited for until" in clerk.words
    clerk.send(f"{DRAFT}/approve", early="yes")
    assert "exactly as it stands here" in clerk.words
    clerk.send(f"{DRAFT}/withdraw", 400, reason=" ")
    clerk.send(f"{DRAFT}/withdraw", reason="too early")
    assert "is not approved any more" in clerk.words


def test_all_of_a_month(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/drafts/approve?month=2026-11")
    ticked = [unescape(v) for v in re.findall(r'name="draft" value="([^"]+)"', clerk.text)]
    assert len(ticked) == 7
    clerk.send("/console/drafts/approve", draft=ticked)
    assert "7 approved." in clerk.words
    clerk.go("/console/drafts/issue?month=2026-11")
    ticked = [unescape(v) for v in re.findall(r'name="draft" value="([^"]+)"', clerk.text)]
    form = dict(clerk.fields["/console/drafts/issue"])
    clerk.send("/console/drafts/issue", date="2026-12-20", draft=ticked[1:])
    assert "6 issued." in clerk.words
    clerk.fields["/console/drafts/issue"] = form
    clerk.send("/console/drafts/issue", date="2026-12-20", draft=ticked[1:])
    assert "Nothing was issued." in clerk.words
    clerk.go("/console/drafts?month=2026-11&state=approved")
    assert clerk.text.count("/console/drafts/L-2026-") == 1
    clerk.go("/console/drafts/approve?month=2026-11")
    assert "No draft of this month is ready" in clerk.words


def test_late_usage_is_shown_and_issued_once(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/unbilled")
    assert "late usage" in clerk.words and "L-2026-001" in clerk.words
    path = "/console/corrections/L-2026-001"
    clerk.go(path)
    assert "Late usage for October 2026" in clerk.words
    form = dict(clerk.fields[path])
    clerk.send(path, date="2026-12-20")
    assert "Issued: ACME-000016." in clerk.words and "There is nothing to correct." in clerk.words
    clerk.fields[path] = form
    clerk.send(path, 400, date="2026-12-20")
    assert "CHANGED_MEANWHILE" in clerk.words
    with desk.base.read() as connection:
        assert corrections.drafts(connection, "L-2026-001") == []


def test_payouts_are_told_then_booked_once(desk: Desk) -> None:
    clerk = desk.clerk()
    receivables.pay(desk.base, "ACME-000009", "1094.21", date(2026, 12, 1), "b", actor=Actor("x", CALM))
    clerk.go("/console/payouts")
    (value,) = (unescape(v) for v in re.findall(r'name="payout" value="([^"]+)"', clerk.text))
    clerk.send("/console/payouts", payout=value, reference="SEPA 12", date="2026-12-20")
    assert "was paid to creator:radiolab on 2026-12-20, reference SEPA 12" in clerk.words
    form = dict(clerk.fields["/console/payouts"])
    clerk.send("/console/payouts")
    assert "1 payout recorded." in clerk.words and "Nothing is due to anybody now." in clerk.words
    clerk.fields["/console/payouts"] = form
    clerk.send("/console/payouts", 400)
    assert "CHANGED_MEANWHILE" in clerk.words
    with desk.base.read() as connection:
        assert len([e for e in audit.entries(connection) if e.what["verb"] == "payout"]) == 2


def test_write_off_and_paying_from_the_account(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/invoices/ACME-000005/pay")
    clerk.send("/console/invoices/ACME-000005/pay", amount="100.000", reference="w", date="2026-12-01")
    assert "17.928 KWD is more than was open" in clerk.words
    clerk.send("/console/invoices/ACME-000005/pay")
    path = "/console/invoices/ACME-000012/apply"
    clerk.go(path)
    clerk.send(path, amount="", date="2026-12-20")
    assert "17.928 KWD is taken from the customer's account" in clerk.words
    clerk.send(path)
    assert clerk.standing("ACME-000012") == ("partly paid", "127.149")
    path = "/console/invoices/ACME-000012/write-off"
    clerk.go(path)
    clerk.send(path, reason="wound up", date="2026-12-20")
    assert "127.149 KWD is given up" in clerk.words
    clerk.send(path)
    assert clerk.standing("ACME-000012")[0] == "written off"
    assert "Record a payment" not in clerk.words


def test_the_same_on_postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: postgres.Server = request.getfixturevalue("server")
    with server.lent() as url:
        base = office.make(tmp_path, url).database
        support.add_users(base, office.NOW)
        clerk = Desk(base).clerk()
        for path in (
            "drafts?month=2026-11", "drafts?month=2026-11", "drafts/approve?month=2026-11", "unbilled",
            "unbilled", "invoices", "invoices?state=overdue&q=ACME", "invoices/ACME-000008", "payments",
            "aging",
            "statements", "statements/hospital-nord", "payouts", "payouts/creator:radiolab", "ledger",
            "exports/usage?month=2026-10", "corrections/L-2026-001",
        ):  # fmt: skip
            clerk.go(f"/console/{path}")
        clerk.go(DRAFT)
        clerk.send(f"{DRAFT}/approve")
        clerk.send(f"{DRAFT}/issue", date="2026-12-20")
        assert "ACME-000016 is issued." in clerk.words
        path = "/console/invoices/ACME-000016/credit"
        clerk.go(path)
        clerk.send(path, amount="10.00", reason="slow", date="2026-12-20")
        clerk.send(path)
        assert "The credit note is issued." in clerk.words
        base.close()


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "fields", "said"),
    [
        ("pay", {"amount": "12,5x"}, "is not an amount"),
        ("pay", {"amount": "-5"}, "AMOUNT_INVALID"),
        ("pay", {"amount": "1.234"}, "AMOUNT_INVALID"),
        ("pay", {"amount": "", "reference": "r"}, "amount is missing"),
        ("pay", {"amount": "1.00", "reference": ""}, "reference is missing"),
        ("pay", {"amount": "1.00", "date": "2026-13-01"}, "is no day"),
        ("credit", {"amount": "99999.00"}, "is more than the 1,967.13 USD"),
        ("credit", {"amount": "1.00", "reason": ""}, "reason is missing"),
        ("refund", {"amount": ""}, "there is nothing to book"),
        ("apply", {"amount": "1.00"}, "there is nothing to book"),
        ("write-off", {"reason": ""}, "reason is missing"),
    ],
)
def test_what_cannot_be_booked_is_told_on_the_form(
    desk: Desk, act: str, fields: dict[str, str], said: str
) -> None:
    clerk = desk.clerk()
    path = f"/console/invoices/ACME-000010/{act}"
    clerk.go(path)
    whole = {"amount": "1.00", "reference": "bank", "reason": "because", "date": "2026-12-20"} | fields
    for confirmed in ({}, {"confirmed": "yes"}):
        clerk.send(path, 400, **whole, **confirmed)
        assert said.lower() in clerk.words.lower()
        assert f'action="{path}"' in clerk.text, "the form is there again"
    assert clerk.standing("ACME-000010") == ("issued", "1967.13")


def test_the_same_payment_again_is_told(desk: Desk) -> None:
    clerk = desk.clerk()
    path = "/console/invoices/ACME-000010/pay"
    for status in (200, 400):
        clerk.go(path)
        clerk.send(path, amount="5.00", reference="bank 9", date="2026-12-20")
        clerk.send(path, status)
    assert "PAYMENT_KNOWN" in clerk.words


def test_a_credit_note_cannot_be_paid(desk: Desk) -> None:
    clerk = desk.clerk()
    path = "/console/invoices/ACME-000015/pay"
    clerk.go(path)
    clerk.send(path, 400, amount="1.00", reference="r", date="2026-12-20")
    assert "is a credit note" in clerk.words


@pytest.mark.parametrize("role", ["auditor", "creator"])
def test_who_may_not_change_anything(desk: Desk, role: str) -> None:
    clerk = desk.clerk(role)
    token = clerk.fields["/console/logout"]["csrf"]
    for path in (
        f"{DRAFT}/approve", f"{DRAFT}/issue", f"{DRAFT}/withdraw", "/console/drafts/approve",
        "/console/drafts/issue", "/console/invoices/ACME-000010/pay", "/console/corrections/L-2026-001",
        "/console/payouts", "/console/payments",
    ):  # fmt: skip
        clerk.fields[path] = {"csrf": token}
        clerk.send(path, 403)
        assert "ROLE_DENIED" in clerk.words
    clerk.go("/console/invoices/ACME-000010/pay", 403)


def test_an_auditor_sees_everything_and_no_buttons(desk: Desk) -> None:
    clerk = desk.clerk("auditor")
    for path in (DRAFT, "/console/invoices/ACME-000010", "/console/payouts", "/console/unbilled",
                 "/console/corrections/L-2026-001", "/console/payments", "/console/exports"):  # fmt: skip
        clerk.go(path)
        posting = re.findall(r'<form[^>]*method="post"[^>]*>', clerk.text)
        assert [form for form in posting if "logout" not in form and "stripe" not in form] == [], path


def test_a_creator_sees_its_own_statements_alone(desk: Desk) -> None:
    clerk = desk.clerk("creator")
    clerk.go("/console/payouts")
    assert "creator:radiolab" in clerk.words and "2,125.20" in clerk.words
    clerk.go("/console/payouts/creator:radiolab/file/json")
    clerk.go("/console/payouts/creator:other", 403)
    clerk.go("/console/payouts/creator:other/file/json", 403)
    for path in ("/console/invoices", "/console/drafts", "/console/aging", "/console/ledger",
                 "/console/statements/hospital-nord", "/console/exports/json?month=2026-10"):  # fmt: skip
        clerk.go(path, 403)


def test_a_form_of_another_session_changes_nothing(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go(DRAFT)
    clerk.fields[f"{DRAFT}/approve"]["csrf"] = "0" * 64
    clerk.send(f"{DRAFT}/approve", 400)
    assert "FORM_INVALID" in clerk.words
    with desk.base.read() as connection:
        assert connection.execute(db.approvals.select()).all() == []


@pytest.mark.parametrize(
    "path",
    [
        "/console/invoices/NONE-1", "/console/invoices/NONE-1/pay", "/console/invoices/NONE-1/file/pdf",
        "/console/invoices/ACME-000010/file/exe", "/console/invoices/ACME-000010/steal",
        "/console/drafts/L-NONE/2026-11", "/console/drafts/L-2026-004/2026-99",
        "/console/drafts?month=yesterday", "/console/aging?on=never", "/console/exports/exe?month=2026-10",
        "/console/exports/json?month=2019-01", "/console/payouts/nobody", "/console/corrections/L-NONE",
        "/console/invoices?after=%00", "/console/statements/nobody/file/pdf",
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_page_with_a_code(desk: Desk, path: str) -> None:
    clerk = desk.clerk()
    answer = clerk.http.get(path)
    assert 400 <= answer.status_code < 500, answer.text
    assert "<h1>" in answer.text and re.search(r"<code>[A-Z_]+</code>", answer.text)


# --- lists, files, the first day ------------------------------------------------------------------------


EMPTY = ("drafts", "unbilled", "invoices", "payments", "aging", "statements", "payouts", "ledger", "exports",
         "drafts/approve?month=2026-11", "drafts/issue?month=2026-11", "statements/nobody")  # fmt: skip


@pytest.mark.parametrize("path", EMPTY)
def test_on_the_first_day_every_page_says_what_to_do(empty: Desk, path: str) -> None:
    clerk = empty.clerk()
    clerk.go(f"/console/{path}")
    assert 'class="empty"' in clerk.text or path == "exports"


def test_filters_of_the_list(desk: Desk) -> None:
    clerk = desk.clerk()

    def shown(query: str) -> list[str]:
        clerk.go(f"/console/invoices?{query}")
        return re.findall(r">(ACME-\d+)</a></th>", clerk.text)

    assert len(shown("")) == 15
    assert shown("state=partly+paid") == ["ACME-000008", "ACME-000002"]
    assert shown("state=written+off") == ["ACME-000007"]
    assert shown("kind=credit") == ["ACME-000015"]
    assert shown("month=2026-09&customer=kisaragi") == ["ACME-000004"]
    assert shown("q=000012") == ["ACME-000012"] and shown("q=L-2026-006") == ["ACME-000012", "ACME-000005"]
    assert "ACME-000008" in shown("state=open") and "ACME-000004" not in shown("state=open")
    assert shown("q=nothing") == [] and "No document fits." in clerk.words


def test_files_are_what_was_stored(desk: Desk) -> None:
    clerk = desk.clerk()
    with desk.base.read() as connection:
        row = connection.execute(db.invoices.select().where(db.invoices.c.name == "ACME-000010")).one()
    for form in ("json", "csv", "html"):
        answer = clerk.http.get(f"/console/invoices/ACME-000010/file/{form}")
        assert answer.content == getattr(row, form)
        assert "ACME-000010" in answer.headers["content-disposition"]
    assert "sandbox" in clerk.http.get("/console/invoices/ACME-000010/file/html").headers[
        "content-security-policy"
    ]  # fmt: skip
    assert clerk.http.get("/console/invoices/ACME-000010/file/pdf").content.startswith(b"%PDF-")
    assert b"<Invoice" in clerk.http.get("/console/invoices/ACME-000010/file/xml").content
    assert clerk.http.get(f"{DRAFT}/file/json").json()["draft"] is True


def test_reading_a_draft_waits_for_nobody_who_writes(desk: Desk) -> None:
    clerk = desk.clerk("auditor")
    with desk.base.write():
        for form in ("html", "json", "csv", "pdf"):
            clerk.go(f"{DRAFT}/file/{form}")
    with desk.base.read() as connection:
        number = drafts.issued_as(connection, "L-2026-004", date(2026, 10, 1))
    issued = clerk.go(f"/console/invoices/{number}/file/json")
    assert number and clerk.go("/console/drafts/L-2026-004/2026-10/file/json") == issued


def test_exports_of_a_month(desk: Desk) -> None:
    clerk = desk.clerk()
    answer = clerk.http.get("/console/exports/json?month=2026-10")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"ACME-0000{n:02}.json" for n in (8, 9, 10, 11, 12, 13, 14, 15)]
    one = clerk.http.get("/console/exports/json?month=2026-10&customer=kisaragi")
    assert one.json()["number"] == "ACME-000011"
    for what in ("csv", "html", "ubl", "focus", "usage"):
        assert clerk.http.get(f"/console/exports/{what}?month=2026-10").status_code == 200
    assert b"Assets:" in clerk.http.get("/console/ledger/file/beancount").content
    assert clerk.http.get("/console/aging?format=csv").text.startswith("customer,issuer,currency")


def test_stripe_needs_a_map(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/exports")
    fields = clerk.fields["/console/exports/stripe"]
    said = {**fields, "what": "items", "month": "2026-10"}
    bad = clerk.http.post("/console/exports/stripe", data=said, files={"map": ("map.json", b"no")})
    assert bad.status_code == 400 and "<code>" in bad.text
    names = b'{"schema": "sealpack/stripe-map/v1", "customers": {"lakeside": "cus_1"}, "accounts": {}}'
    made = clerk.http.post("/console/exports/stripe", data=said, files={"map": ("map.json", names)})
    assert made.status_code == 200, made.text
    with zipfile.ZipFile(io.BytesIO(made.content)) as archive:
        assert archive.namelist() == ["invoice_items.ndjson", "REFUSED.txt"]
        assert b"cus_1" in archive.read("invoice_items.ndjson")


def test_statements_add_up(desk: Desk) -> None:
    clerk = desk.clerk()
    clerk.go("/console/statements/hospital-nord?from=2026-11-01&to=2026-11-30")
    assert "586.44" in clerk.words and "668.19" not in clerk.words
    saved = clerk.http.get("/console/statements/hospital-nord/file/json?to=2026-11-30")
    assert saved.json()["closing"] == "586.44"
    clerk.go("/console/payments?kind=payout")
    assert "SEPA 2026-11" in clerk.words and "bank 2026" not in clerk.words
    clerk.send("/console/payments", 400, number="ACME-9")
    assert "INVOICE_UNKNOWN" in clerk.words
    clerk.send("/console/payments", number="ACME-000010")
    assert "Record a payment: ACME-000010" in clerk.words


def test_lists_go_on_while_licenses_are_being_rated(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not rated in time is told, and there the next time."""
    monkeypatch.setattr(drafts_pages, "_SECONDS", -1.0)
    clerk = desk.clerk()
    clerk.go("/console/drafts?month=2026-11")
    assert "more licenses are being rated" in clerk.words and "Harbor Bank" not in clerk.words
    clerk.go("/console/drafts?month=2026-11")
    assert "being rated" not in clerk.words and "Harbor Bank" in clerk.words

"""Write the vectors of signed documents: `python specs/vectors/signed-document/generate.py [FOLDER]`.

Each case is `case.json` and `document.json`, checked with the `trust.json` in its folder or beside the cases.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from collections.abc import Callable
from typing import Any

from support import world
from support.vectors import Cases
from support.world import LICENSER, SETTLEMENT, STRANGER

from sealpack.format import canonical, documents, dsse
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust

Document = dict[str, Any]
SELLER = {"name": "Acme Models GmbH", "address": ["Ring 1", "10115 Berlin"], "tax_id": "DE123456789"}
CUSTOMER = {"name": "Hospital Nord gGmbH", "address": ["Am Kai 1", "24103 Kiel"]}
INVOICE: Document = {
    "schema": "sealpack/invoice/v1", "kind": "invoice", "draft": False, "number": "INV-000001",
    "date": "2026-10-01", "due": "2026-10-31", "seller": SELLER, "customer": CUSTOMER, "license": "L-1",
    "period_start": "2026-09-01", "period_end": "2026-09-30", "tz": "UTC", "currency": "EUR",
    "lines": [
        {"charge": "base", "kind": "charge", "description": "base: recurring", "service_start": "2026-09-01",
         "service_end": "2026-09-30", "amount": "99.00",
         "working": [{"step": "amount", "text": "recurring 99", "amount": "99"}]},
        {"charge": "tok", "kind": "charge", "description": "tok: 10,061 output tokens",
         "service_start": "2026-09-01", "service_end": "2026-09-30", "quantity": "10.061", "raw": "10061",
         "amount": "25.15",
         "working": [
             {"step": "usage", "text": "10,061 output tokens / 1,000 = 10.061", "quantity": "10.061"},
             {"step": "unit", "text": "10.061 × 2.5 = 25.1525", "quantity": "10.061", "unit": "2.5",
              "amount": "25.1525"},
             {"step": "round", "text": "25.1525 rounded once = 25.15", "amount": "25.15"},
         ]},
    ],
    "net": "124.15", "taxes": [{"category": "S", "percent": "19", "base": "124.15", "amount": "23.59"}],
    "tax": "23.59", "total": "147.74", "shares": [{"party": "platform", "amount": "124.15"}],
    "plan": {"id": "edge", "version": 1, "digest": "ab" * 32}, "evidence": [],
}  # fmt: skip
NOTE: Document = INVOICE | {
    "kind": "credit_note", "number": "INV-000002", "corrects": "INV-000001", "reason": "an outage",
    "lines": [
        {"charge": "credit", "kind": "credit", "description": "an outage", "service_start": "2026-09-01",
         "service_end": "2026-09-30", "amount": "-10.00", "working": []},
    ],
    "net": "-10.00", "taxes": [{"category": "S", "percent": "19", "base": "-10.00", "amount": "-1.91"}],
    "tax": "-1.91", "total": "-11.91", "shares": [{"party": "platform", "amount": "-10.00"}],
}  # fmt: skip
YEN: Document = INVOICE | {
    "currency": "JPY", "lines": [INVOICE["lines"][0] | {"amount": "1500"}], "net": "1500", "taxes": [],
    "tax": "0", "total": "1500", "shares": [],
}  # fmt: skip
PAYOUT: Document = {
    "schema": "sealpack/payout-statement/v1", "issuer": world.ISSUER, "party": "creator:acme",
    "currency": "EUR", "seller": SELLER, "from": "2026-10-01", "to": "2026-10-31",
    "items": [
        {"license": "L-1", "period": "2026-09", "documents": ["INV-000001"], "earned": "75.00",
         "written_off": "0.00", "released": "37.50", "waiting": "37.50"},
        {"license": "L-2", "period": "2026-08", "documents": ["INV-000003"], "earned": "0.00",
         "written_off": "5.00", "released": "20.00", "waiting": "0.00"},
    ],
    "payouts": [{"date": "2026-10-31", "reference": "p1", "amount": "57.00"}],
    "waiting": {"opening": "25.00", "earned": "75.00", "written_off": "5.00", "released": "57.50",
                "closing": "37.50"},
    "available": {"opening": "0.10", "released": "57.50", "paid": "57.00", "closing": "0.60"},
    "payable": "38.10",
}  # fmt: skip
ACCOUNT: Document = {
    "schema": "sealpack/customer-statement/v1", "issuer": world.ISSUER, "customer_id": "hospital",
    "currency": "EUR", "seller": SELLER, "customer": CUSTOMER, "to": "2026-10-31", "opening": "10.00",
    "items": [
        {"date": "2026-10-01", "what": "invoice", "document": "INV-000001", "reference": "",
         "amount": "147.74", "balance": "157.74"},
        {"date": "2026-10-09", "what": "payment", "document": "INV-000001", "reference": "b1",
         "amount": "-150.00", "balance": "7.74"},
    ],
    "closing": "7.74",
    "open": [{"number": "INV-000000", "date": "2026-09-01", "due": "2026-10-01", "total": "20.00",
              "open": "10.00", "days_overdue": 30}],
    "aging": {"not_due": "0.00", "days_1_30": "10.00", "days_31_60": "0.00", "days_61_90": "0.00",
              "over_90": "0.00"},
    "on_account": "2.26",
}  # fmt: skip
KINDS = {"invoice": INVOICE, "payout-statement": PAYOUT, "customer-statement": ACCOUNT}


def sealed(value: Document, key: PrivateKey = SETTLEMENT, kind: str | None = None) -> Envelope:
    """A document in its envelope; `kind` other than that of its schema makes a wrong one."""
    kind = kind or value["schema"].split("/")[1]
    return dsse.sign(f"application/vnd.sealpack.{kind}+json", canonical.dumps(value), key)


def changed(value: Document, change: Callable[[Document], object]) -> Document:
    """A copy with something done to it."""
    copied = copy.deepcopy(value)
    change(copied)
    return copied


def with_ack_only() -> Trust:
    """A vendor whose settlement key may acknowledge and no more."""
    keyring = world.make_keyring(entries=[world.key_entry(SETTLEMENT, ["ack"])])
    return Trust.from_envelopes(world.make_root(), keyring, world.make_revocations())


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()

    def add(name: str, description: str, expect: str, made: Envelope, trust: Trust | None = None) -> None:
        own = {"trust.json": trust.to_bytes()} if trust else {}
        cases.add(name, description, expect, {"document.json": made.to_bytes()} | own)

    add("good", "An invoice.", "ok", sealed(INVOICE))
    add("good-credit-note", "A credit note: its tax is what was left of the invoice's.", "ok", sealed(NOTE))
    add("good-yen", "Amounts without places, and no tax.", "ok", sealed(YEN))
    add("good-payout", "A payout statement.", "ok", sealed(PAYOUT))
    add("good-account", "A customer's statement of account.", "ok", sealed(ACCOUNT))
    _signatures(add)
    _documents(add)
    _sums(add)
    cases.write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


Add = Callable[..., None]


def _signatures(add: Add) -> None:
    good = sealed(INVOICE)
    other = good.payload.replace(b'"147.74"', b'"14.74"')
    add("changed", "The total was changed.", "SIG_INVALID",
        Envelope(good.payload_type, other, good.signatures))  # fmt: skip
    add("renamed", "An invoice signed as a statement: the type is signed too.", "SIG_INVALID",
        Envelope(sealed(PAYOUT).payload_type, good.payload, good.signatures))  # fmt: skip
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", sealed(INVOICE, STRANGER))
    add("licenser", "Signed by the license key.", "SIG_KEY_ROLE", sealed(INVOICE, LICENSER))
    add(
        "ack-only", "Signed by a key that may acknowledge and no more.", "SIG_KEY_ROLE", good, with_ack_only()
    )
    revoked = {"keyid": SETTLEMENT.keyid, "good": []}
    add("revoked", "The key was revoked.", "KEY_REVOKED", good, world.make_trust(keys=[revoked]))
    kept = revoked | {"good": [good.digest]}
    add("revoked-good", "The key was revoked, this document stays good.", "ok", good,
        world.make_trust(keys=[kept]))  # fmt: skip
    twice = Envelope(good.payload_type, good.payload, good.signatures * 2)
    add("twice", "Signed twice.", "DSSE_INVALID", twice)


def _documents(add: Add) -> None:
    lease = {"license_id": "L-1", "device_id": "dev-" + "0" * 32, "epoch": 0, "lease_seq": 1,
             "issued_at": world.T0, "ceilings": []}  # fmt: skip
    add("lease", "A lease.", "DOC_TYPE", documents.seal("lease", lease, SETTLEMENT))
    add(
        "mixed",
        "A payout statement under the type of an invoice.",
        "DOC_SCHEMA",
        sealed(PAYOUT, kind="invoice"),
    )
    loose = canonical.dumps(INVOICE).replace(b'"draft":', b'"draft": ')
    add(
        "not-canonical",
        "A space.",
        "JSON_INVALID",
        dsse.sign(sealed(INVOICE).payload_type, loose, SETTLEMENT),
    )
    draft = {key: value for key, value in INVOICE.items() if key != "number"} | {"draft": True}
    add("draft", "A draft: nothing was issued.", "DOC_SCHEMA", sealed(draft))
    add("no-number", "Issued, without a number.", "DOC_SCHEMA", sealed(draft | {"draft": False}))
    add("float", "An amount that is a number.", "DOC_SCHEMA", sealed(INVOICE | {"net": 124}))
    add("places", "Amounts with different places.", "DOC_SCHEMA", sealed(INVOICE | {"total": "147.740"}))
    add("exact", "A step that is divided by zero.", "DOC_SCHEMA", sealed(changed(
        INVOICE, lambda d: d["lines"][1]["working"][1].update(unit="1/0"))))  # fmt: skip


def _sums(add: Add) -> None:
    def wrong(name: str, description: str, value: Document, change: Callable[[Document], object]) -> None:
        add(f"sums-{name}", description, "SUMS_WRONG", sealed(changed(value, change)))

    wrong("line", "A line is a cent more.", INVOICE, lambda d: d["lines"][0].update(amount="99.01"))
    wrong("base", "More is taxed than there is.", INVOICE, lambda d: d["taxes"][0].update(base="124.16"))
    wrong("taxes", "The taxes come to another tax.", INVOICE, lambda d: d["taxes"][0].update(amount="23.58"))
    wrong("total", "The total is another.", INVOICE, lambda d: d.update(total="147.75"))

    def dearer(d: Document) -> None:
        d["taxes"][0]["amount"] = d["tax"] = "23.60"
        d["total"] = "147.75"

    wrong("rate", "19 % of 124.15 is 23.59.", INVOICE, dearer)
    wrong("working", "10.061 times 2.5 is 25.1525.", INVOICE,
          lambda d: d["lines"][1]["working"][1].update(amount="25.15"))  # fmt: skip
    wrong("sign", "A credit note that asks for money.", YEN, lambda d: d.update(kind="credit_note"))
    wrong("invoice-below", "An invoice below zero.", NOTE, lambda d: d.update(kind="invoice"))
    wrong(
        "payout-waiting",
        "What waits does not follow.",
        PAYOUT,
        lambda d: d["waiting"].update(closing="37.51"),
    )
    wrong("payout-forward", "What is carried forward does not follow.", PAYOUT,
          lambda d: d["available"].update(closing="0.61"))  # fmt: skip
    wrong("payout-released", "Two amounts were released.", PAYOUT,
          lambda d: d["available"].update(released="57.40", closing="0.50"))  # fmt: skip
    wrong("payout-paid", "The payouts come to something else.", PAYOUT,
          lambda d: d["payouts"][0].update(amount="57.01"))  # fmt: skip
    for name in ("earned", "written_off", "released", "waiting"):
        wrong(f"payout-items-{name.replace('_', '-')}", f"The items come to another {name}.", PAYOUT,
              lambda d, name=name: d["items"][0].update({name: "1.00"}))  # fmt: skip
    wrong("payout-payable", "More is payable.", PAYOUT, lambda d: d.update(payable="38.11"))
    wrong("account-balance", "A running balance.", ACCOUNT, lambda d: d["items"][0].update(balance="157.75"))
    wrong("account-closing", "The closing balance.", ACCOUNT, lambda d: d.update(closing="7.75"))
    wrong("account-open", "What is open by document and by age.", ACCOUNT,
          lambda d: d["open"][0].update(open="10.01"))  # fmt: skip
    wrong("account-held", "More on account.", ACCOUNT, lambda d: d.update(on_account="2.27"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

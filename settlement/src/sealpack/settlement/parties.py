"""Who bills and who is billed: the records finance keeps, as printed on invoices.

Source: specs/settlement-ingest.md, "Registry". A license says for whom it is by id and name; legal name,
address, tax treatment and payment terms are finance's to know and come in as files.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.values import IDENTIFIER, plain
from sealpack.settlement import audit, customer_table, db, money
from sealpack.settlement.audit import Actor
from sealpack.settlement.countries import COUNTRIES
from sealpack.settlement.currencies import EXPONENTS
from sealpack.settlement.invoice import Business
from sealpack.settlement.plan import TAX_CATEGORIES, ZERO_RATED, Tax
from sealpack.settlement.wording import CONTROL

CUSTOMERS_SCHEMA = "sealpack/customers/v1"
SELLER_SCHEMA = "sealpack/seller/v1"
PAYMENT_DAYS = 30
_PREFIX = r"[A-Z0-9][A-Z0-9-]{0,15}"
_COUNTRY = r"([A-Z]{2})?"
_CURRENCY = r"([A-Z]{3})?"
_NAME = r"(?s).*\S.*"  # not blank
_CODE = "REGISTRY_INVALID"

T = TypeVar("T")
P = TypeVar("P", "Customer", "Seller")


@dataclass(frozen=True, slots=True)
class TaxRule:
    """How a customer is taxed, instead of the plan's default. `percent` is a decimal string."""

    category: str
    percent: str
    reason: str = ""

    @classmethod
    def parse(cls, f: Fields) -> TaxRule:
        """Read one; REGISTRY_INVALID names the field."""
        rule = cls(
            f.choice("category", TAX_CATEGORIES),
            f.text("percent", max_len=20),
            f.text("reason", max_len=300, default=""),
        )
        try:
            percent = money.parse_decimal(rule.percent)
        except ValueError as error:
            raise f.fail("percent", str(error)) from None
        if percent > 100 or (percent and rule.category in ZERO_RATED):
            raise f.fail("percent", f"does not go with category {rule.category}")
        return rule

    @property
    def tax(self) -> Tax:
        """As rating takes it."""
        return Tax(self.category, money.parse_decimal(self.percent) / 100, self.reason)


@dataclass(frozen=True, slots=True)
class Customer:
    """Who is billed."""

    id: str
    legal_name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    purchase_order: str = ""
    tax: TaxRule | None = None
    payment_days: int | None = None
    country: str = ""  # ISO 3166-1 alpha-2
    currency: str = ""  # nothing is billed to them in another one

    @classmethod
    def parse(cls, f: Fields) -> Customer:
        """Read one record of a customers file; REGISTRY_INVALID names the field."""
        tax = f.sub("tax", default=None)
        return cls(
            f.text("id", pattern=IDENTIFIER),
            f.text("legal_name", pattern=_NAME, max_len=300),
            f.texts("address", max_items=8, default=()),
            f.text("tax_id", max_len=64, default=""),
            f.text("email", max_len=200, default=""),
            f.text("purchase_order", max_len=100, default=""),
            TaxRule.parse(tax) if tax is not None else None,
            f.integer("payment_days", hi=3650, default=None),
            f.text("country", pattern=_COUNTRY, default=""),
            f.text("currency", pattern=_CURRENCY, default=""),
        )

    @property
    def business(self) -> Business:
        """As printed."""
        return Business(self.legal_name, self.address, self.tax_id, self.email, self.country)


@dataclass(frozen=True, slots=True)
class Seller:
    """Who bills: the legal entity behind an issuer of licenses. `prefix` begins its invoice numbers."""

    issuer: str
    legal_name: str
    address: tuple[str, ...] = ()
    tax_id: str = ""
    email: str = ""
    payment: str = ""
    payment_days: int = PAYMENT_DAYS
    prefix: str = "INV"
    country: str = ""  # ISO 3166-1 alpha-2
    approval: bool = False  # whether only drafts that a person approved are issued

    @classmethod
    def parse(cls, f: Fields) -> Seller:
        """Read a seller file; REGISTRY_INVALID names the field."""
        return cls(
            f.text("issuer", max_len=200),
            f.text("legal_name", pattern=_NAME, max_len=300),
            f.texts("address", max_items=8, default=()),
            f.text("tax_id", max_len=64, default=""),
            f.text("email", max_len=200, default=""),
            f.text("payment", max_len=500, default=""),
            f.integer("payment_days", hi=3650, default=PAYMENT_DAYS),
            f.text("prefix", pattern=_PREFIX, default="INV"),
            f.text("country", pattern=_COUNTRY, default=""),
            f.boolean("approval", default=False),
        )

    @property
    def business(self) -> Business:
        """As printed."""
        return Business(self.legal_name, self.address, self.tax_id, self.email, self.country)


def put_customers(connection: sa.Connection, value: Any, what: str) -> str:
    """Take over every record of a customers file; a known id is replaced."""
    f = Fields(value, what, _CODE)
    f.schema(CUSTOMERS_SCHEMA)
    return _put_customers(connection, f.objects("customers", _customer, max_items=100_000), what)


def put_customer_table(connection: sa.Connection, data: bytes, what: str) -> str:
    """The same for a table (CSV)."""
    rows = customer_table.read(data, what)
    return _put_customers(connection, [_customer(Fields(row, where, _CODE)) for where, row in rows], what)


def _put_customers(connection: sa.Connection, found: Sequence[Customer], what: str) -> str:
    twice = [name for name, count in Counter(customer.id for customer in found).items() if count > 1]
    if twice:
        raise SealpackError(_CODE, f"{what} has customer {twice[0]} twice")
    for customer in found:
        _replace(connection, db.customers, db.customers.c.id, customer.id, customer)
    return f"{len(found)} customer{'s' * (len(found) != 1)}"


def _customer(f: Fields) -> Customer:
    found = Customer.parse(f)
    if found.currency and found.currency not in EXPONENTS:
        raise f.fail("currency", f"is {found.currency!r}, which is no currency of ISO 4217")
    return _reachable(f, found)


def _reachable(f: Fields, found: P) -> P:
    """Country and address are real ones, and texts can be printed. Records that are stored already are not
    looked at again."""
    for name, value in plain(found).items():
        if any(CONTROL.search(text) for text in _texts(value)):
            raise f.fail(name, "holds a character that cannot be printed")
    if found.country and found.country not in COUNTRIES:
        raise f.fail("country", f"is {found.country!r}, which is no country code of ISO 3166-1")
    if found.email and not re.fullmatch(r"[^@\s]+@[^@\s]+", found.email):
        raise f.fail("email", f"is {found.email[:60]!r}, which is no address")
    return found


def _texts(value: Any) -> list[str]:
    """Every text in a record's JSON."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def change_customer(connection: sa.Connection, record: Any, *, actor: Actor) -> Customer:
    """Take over one record as a person wrote it, and note that in the audit trail; REGISTRY_INVALID."""
    customer = _customer(Fields(record, "the record", _CODE))
    document = _replace(connection, db.customers, db.customers.c.id, customer.id, customer)
    audit.note(connection, actor, "customer", customer=customer.id, record=audit.sha256(document))
    return customer


def put_seller(connection: sa.Connection, value: Any, what: str) -> str:
    """Take over a seller file; a known issuer is replaced."""
    f = Fields(value, what, _CODE)
    f.schema(SELLER_SCHEMA)
    seller = _reachable(f, Seller.parse(f))
    _replace(connection, db.sellers, db.sellers.c.issuer, seller.issuer, seller)
    return f"seller {seller.legal_name}"


def _replace(
    connection: sa.Connection, table: sa.Table, key: sa.Column[Any], name: str, record: object
) -> bytes:
    document = json.dumps(plain(record)).encode()
    row = {key.name: name, "document": document}
    statement = db.put(connection, table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=[key.name], set_=row))
    return document


def load_customer(connection: sa.Connection, customer_id: str) -> Customer | None:
    """A customer's record, if one was imported."""
    return _load(connection, db.customers, db.customers.c.id, customer_id, Customer.parse)


def load_seller(connection: sa.Connection, issuer: str) -> Seller:
    """The issuer's record, or one made of its name alone."""
    found = _load(connection, db.sellers, db.sellers.c.issuer, issuer, Seller.parse)
    return found or Seller(issuer, issuer)


def _load(
    connection: sa.Connection, table: sa.Table, key: sa.Column[Any], name: str, parse: Callable[[Fields], T]
) -> T | None:
    row = connection.execute(sa.select(table.c.document).where(key == name)).first()
    return parse(Fields(json.loads(row.document), table.name, _CODE)) if row else None

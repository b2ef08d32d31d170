"""The tables of settlement's database.

Source: specs/settlement-ingest.md, "Storage", and specs/settlement-ledger.md.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from sealpack.format.records import METER_ORDER

metadata = sa.MetaData()
_INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # 64 bits either way
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # in the order of its bytes either way


def _table(name: str, *columns: Any, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, sqlite_strict=True, **options)


def _text(name: str, *more: Any, **options: Any) -> sa.Column[str]:
    return sa.Column(name, _TEXT, *more, nullable=options.pop("nullable", False), **options)


def _int(name: str, *more: Any, **options: Any) -> sa.Column[int]:
    """A whole number, never below zero."""
    check = sa.CheckConstraint(f'"{name}" >= 0')
    return sa.Column(name, _INTEGER, *more, check, nullable=options.pop("nullable", False), **options)


def _amount(name: str) -> sa.Column[int]:
    """Minor units of the row's currency, or base units of a meter; of either sign."""
    return sa.Column(name, _INTEGER, nullable=False)


def _blob(name: str, **options: Any) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=options.pop("nullable", False), **options)


def put(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows `on_conflict_do_*`, in the words of the connection's database."""
    words = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return words(table)


about = _table("about", _int("schema_version"))
trust = _table("trust", _text("anchor", primary_key=True), _blob("data"))
customers = _table("customers", _text("id", primary_key=True), _blob("document"))
plans = _table(
    "plans",
    _text("id", primary_key=True),
    _int("version", primary_key=True),
    _text("digest"),
    _blob("document"),
)
licenses = _table(
    "licenses",
    _text("license_id", primary_key=True),
    _int("seq"),
    _text("digest"),
    _text("customer_id"),
    _blob("envelope"),
)
# Every license document ever seen: a log's genesis may name an older one.
license_versions = _table(
    "license_versions", _text("digest", primary_key=True), _text("license_id"), _int("seq"), _blob("envelope")
)
# Which of these ids are sub-licenses, and of what.
sublicenses = _table(
    "sublicenses",
    _text("license_id", sa.ForeignKey("licenses.license_id"), primary_key=True),
    _text("parent_id", index=True),
)
bundles = _table(
    "bundles", _text("digest", primary_key=True), _text("bundle_id"), _text("version"), _text("name")
)
activations = _table(
    "activations",
    _text("license_id", primary_key=True),
    _text("device_id", primary_key=True),
    _text("digest"),
    _int("first_at"),  # the earliest activation of this device
    _int("issued_at"),  # the newest one, which is in `envelope`
    _text("device_label"),
    _blob("envelope"),
)
# Where raw uploads were told to go, one after the other: `database`, a folder, or s3://BUCKET/PREFIX.
stores = _table("stores", _int("number", primary_key=True), _text("location"), _int("since"))
# Uploads by digest, kept before anything is decided about them: `code` is absent until then.
files = _table(
    "files",
    _text("sha256", primary_key=True),
    _text("name"),
    _int("received_at"),
    _int("store", sa.ForeignKey("stores.number"), nullable=True),  # absent: their bytes are in `evidence`
    _text("code", nullable=True),
    _text("detail", nullable=True),
    _int("accepted", nullable=True),
    _text("origin", nullable=True, index=True),
    _text("license_id", nullable=True),
    _int("first", nullable=True),
    _int("last", nullable=True),
)
# Raw bytes that lie in the database itself.
evidence = _table("evidence", _text("sha256", sa.ForeignKey("files.sha256"), primary_key=True), _blob("data"))
# Files that wait for a worker. A family is what the logs of one device are called alike.
queue = _table(
    "queue",
    _text("sha256", sa.ForeignKey("files.sha256"), primary_key=True),
    _text("family"),
    _text("origin", nullable=True),  # as its header says
    _int("first", nullable=True),
    _int("last", nullable=True),
    _int("queued_at"),
    _int("tries"),  # that were begun
    _text("worker", nullable=True),
    _int("until", nullable=True),  # nobody else takes it before, by the database's clock
    _text("failed", nullable=True),  # why nobody tries again
)
sa.Index("queue_by_family", queue.c.family, queue.c.queued_at, queue.c.sha256)
logs = _table(
    "logs",
    _text("origin", primary_key=True),
    _text("license_id", sa.ForeignKey("licenses.license_id")),
    _text("device_id"),
    _int("epoch"),
    _int("size"),
    _text("root"),
    _blob("frontier"),
    _blob("state"),
    _blob("note"),
    _int("last_ms"),
    _int("frozen"),
)
segments = _table(
    "segments",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("first", primary_key=True),
    _int("last"),
    _text("sha256", sa.ForeignKey("files.sha256")),
)
# Device keys that accepted receipts handed the log over to, and where.
rotations = _table(
    "rotations",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("position", primary_key=True),
    _text("device_key"),
)
rollups = _table(
    "rollups",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _text("route", primary_key=True),
    _int("quarter_ms", primary_key=True),
    _text("status", primary_key=True),
    *(_int(meter) for meter in METER_ORDER),
    sqlite_with_rowid=False,
)
# Their sums per license and number of the license document, without devices: what invoices are made from.
license_usage = _table(
    "license_usage",
    _text("license_id", sa.ForeignKey("licenses.license_id"), primary_key=True),
    _int("quarter_ms", primary_key=True),
    _int("seq", primary_key=True),
    _text("status", primary_key=True),
    *(_amount(meter) for meter in METER_ORDER),
    sqlite_with_rowid=False,
)
# Their sums per local day, machine and build: what charts are made from.
daily = _table(
    "daily",
    _text("day", primary_key=True),
    _text("license_id", sa.ForeignKey("licenses.license_id"), primary_key=True),
    _text("device_id", primary_key=True),
    _int("epoch", primary_key=True),
    _text("build", primary_key=True),  # its digest; nothing where a statement does not name it
    _int("seq", primary_key=True),
    _text("status", primary_key=True),
    *(_int(meter) for meter in METER_ORDER),
    sa.Index("daily_by_device", "license_id", "device_id", "epoch"),
    sqlite_with_rowid=False,
)
# Files that say what was used in a log beyond its receipts, or instead of them: tally files, meter readings,
# and usage files behind a gap. `kind`: tallies | reading | receipts; a reading says nothing of `first_root`.
stated = _table(
    "stated",
    _text("sha256", sa.ForeignKey("files.sha256"), primary_key=True),
    _text("origin", sa.ForeignKey("logs.origin"), index=True),
    _text("kind"),
    _int("first"),
    _int("size"),
    _text("first_root", nullable=True),
    _text("root"),
    _blob("note"),
    _text("routes"),  # JSON: what they call the builds they count
)
# Their registers: what was used since the position before counts at `used_ms`; all of [since, position) does.
readings = _table(
    "readings",
    _text("sha256", sa.ForeignKey("stated.sha256"), primary_key=True),
    _int("position", primary_key=True),
    _int("since"),
    _int("used_ms"),
    _text("registers"),  # JSON, as in a tally
)
# What they say of times: receipts before `end` were used by then, those from `position` on not before.
reading_bounds = _table(
    "reading_bounds",
    _text("sha256", sa.ForeignKey("stated.sha256"), primary_key=True),
    _int("position", primary_key=True),  # of the record that says so
    _int("end"),
    _int("used_ms"),
    _int("floor_ms"),
)
# How far a log is known, when that is farther than its receipts: columns as in `logs`.
reaches = _table(
    "reaches",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("size"),
    _text("root"),
    _blob("frontier"),
    _blob("state"),
    _blob("note"),
    _int("last_ms"),
)
# What the first record of a later log says of the device's logs before it.
successions = _table(
    "successions",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("at_ms"),
    _text("license"),  # digest of the document it began under
    _text("previous_origin", nullable=True, index=True),
    _int("previous_size", nullable=True),
    _text("previous_root", nullable=True),
    _text("carried"),  # JSON: bundle digest -> meter -> total
)
# Leave to begin a further log, as issued.
epoch_tokens = _table(
    "epoch_tokens",
    _text("digest", primary_key=True),
    _text("license_id"),
    _text("device_id"),
    _int("epoch"),
    _blob("envelope"),
)
# Logs that a device ended, by its own signed proof: nothing can follow `size`.
deactivations = _table(
    "deactivations",
    _text("origin", primary_key=True),
    _text("license_id"),
    _text("device_id"),
    _int("epoch"),
    _int("size"),
    _text("root"),
    _int("closed_at"),
    _blob("envelope"),
)
# What waits for a person or for another file. A fork keeps both signed checkpoints.
cases = _table(
    "cases",
    _text("code", primary_key=True),
    _text("sha256", sa.ForeignKey("files.sha256"), primary_key=True),
    _text("origin"),
    _int("opened_at"),
    _int("closed_at", nullable=True),
    _text("detail"),
    _blob("ours", nullable=True),
    _blob("theirs", nullable=True),
)
# The number a case is called by, and what a person decided about it.
decisions = _table(
    "decisions",
    _int("number", primary_key=True),
    _text("code"),
    _text("sha256", sa.ForeignKey("files.sha256")),
    _text("verdict", nullable=True),  # accept | refuse
    _text("reason", nullable=True),
    _text("who", nullable=True),
    _int("at", nullable=True),
    _int("used_ms", nullable=True),  # of a gap that was closed: when what it swallowed was used
    sa.UniqueConstraint("code", "sha256"),
)
acks = _table(
    "acks",
    _text("origin", sa.ForeignKey("logs.origin"), primary_key=True),
    _int("ack_seq", primary_key=True),
    _text("digest"),
    _text("basis"),
    _blob("envelope"),
)
# Who bills, as printed: one legal entity per issuer of licenses, each with its own number series.
sellers = _table("sellers", _text("issuer", primary_key=True), _blob("document"))
# Every document of a number series. `kind`: invoice | late | correction | credit; there is one `invoice` per
# license and period, the others name in `corrects` the document they add to.
invoices = _table(
    "invoices",
    _text("issuer", primary_key=True),
    _int("number", primary_key=True),
    _text("name", unique=True),
    _text("license_id", sa.ForeignKey("licenses.license_id")),
    _text("period"),
    _text("kind"),
    _text("corrects", nullable=True),
    _text("customer_id"),
    _text("currency"),
    _text("issued"),
    _text("due"),
    _amount("net"),
    _amount("total"),
    _blob("json"),
    _blob("csv"),
    _blob("html"),
)
sa.Index(
    "invoices_one_per_period", invoices.c.license_id, invoices.c.period, unique=True,
    sqlite_where=invoices.c.kind == "invoice", postgresql_where=invoices.c.kind == "invoice",
)  # fmt: skip
# The draft a person approved for a license and period: it is issued while `digest` is that of what it says.
approvals = _table(
    "approvals",
    _text("license_id", sa.ForeignKey("licenses.license_id"), primary_key=True),
    _text("period", primary_key=True),
    _text("digest"),
    _blob("draft"),
    _text("who"),
    _int("at"),
)
# What was rated for lists, and the digest of all it was rated from. It may be emptied at any time.
rated = _table(
    "rated",
    _text("license_id", primary_key=True),
    _text("what", primary_key=True),  # draft:YYYY-MM | late
    _text("basis"),
    _blob("value"),
)
# The double-entry ledger: nothing is ever changed or removed. Postings of one transaction sum to zero.
transactions = _table(
    "transactions",
    _int("seq", primary_key=True),
    _text("id", unique=True),  # made of what happened, so that nothing is booked twice
    _text("issuer"),
    _text("day"),
    _text("kind"),
    _text("document"),
    _text("reference"),
    _text("narration"),
    _text("currency"),
)
postings = _table(
    "postings",
    _int("seq", sa.ForeignKey("transactions.seq"), primary_key=True),
    _int("n", primary_key=True),
    _text("account"),
    _text("party"),
    _text("document", index=True),
    _amount("amount"),  # debit above zero, credit below
)
# Who changed what, each row chained to the one before by its digest.
audit = _table(
    "audit",
    _int("seq", primary_key=True),
    _int("at"),
    _text("who"),
    _text("what"),  # canonical JSON
    _text("previous"),
    _text("digest", unique=True),
)
# Backups that this database was restored from: what was acknowledged after `made_at` is not known here.
restores = _table("restores", _int("number", primary_key=True), _int("made_at"), _int("at"), _int("next_ack"))
# Who may use the service: of a token only its digest is kept.
tokens = _table(
    "tokens",
    _text("id", primary_key=True),
    _text("name", unique=True),
    _text("role"),
    _text("scope"),  # customer:ID | license:ID | party:NAME | nothing
    _text("digest"),
    _int("created_at"),
    _int("expires_at", nullable=True),
    _int("revoked_at", nullable=True),
)
# Who may log in to the console. `password` is scrypt with its parameters.
users = _table(
    "users",
    _int("id", primary_key=True),
    _text("name", unique=True),
    _text("role"),
    _text("scope"),  # party:NAME | nothing
    _text("password"),
    _int("created_at"),
    _int("disabled_at", nullable=True),
)
# Who is logged in: of what the browser holds only a digest is kept.
sessions = _table(
    "sessions",
    _text("digest", primary_key=True),
    _int("user_id", sa.ForeignKey("users.id"), index=True),
    _int("created_at"),
    _int("seen_at"),
    _int("expires_at"),
)
# What somebody dropped on the console at one time, and what became of each file, as JSON.
drops = _table("drops", _int("id", primary_key=True), _int("at"), _text("who"), _blob("document"))

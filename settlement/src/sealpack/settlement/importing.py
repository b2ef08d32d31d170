"""`settle import`: files of any kind that finance is given, alone, in folders and in zips.

Source: specs/settlement-ingest.md, "Registry". What a file is is told by what it holds; it is taken whole
or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sealpack.format import registry as registry_format
from sealpack.format.documents import PARCEL_SCHEMA, Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.trust import TRUST_SCHEMA, Trust
from sealpack.settlement import audit, customer_table, db, parties, plan_yaml, registry
from sealpack.settlement.audit import Actor
from sealpack.settlement.plan import load_plan

MAX_BYTES = 256 << 20
SCHEMAS = (
    TRUST_SCHEMA, PARCEL_SCHEMA, registry_format.SCHEMA, parties.CUSTOMERS_SCHEMA, parties.SELLER_SCHEMA,
)  # fmt: skip
PLAN = "plan"
TABLE = "customer table"
# In the order in which they need each other: what is imported together is imported so.
KINDS = (
    TRUST_SCHEMA, parties.SELLER_SCHEMA, parties.CUSTOMERS_SCHEMA, TABLE, PLAN, registry_format.SCHEMA,
    PARCEL_SCHEMA,
)  # fmt: skip
_OURS = re.compile(rb'^schema: *["\']?(sealpack/(?:customers|seller)/v1)\b', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Found:
    """A file to import. One that was `asked` for by name is settlement's, or an error; others may be left."""

    name: str
    data: bytes
    asked: bool


@dataclass(frozen=True, slots=True)
class Brought:
    """What files brought, each by name and in words, and the names of those that are not settlement's."""

    imported: tuple[tuple[str, str], ...]
    left: tuple[str, ...]


def import_all(database: db.Database, files: Iterable[Found]) -> Brought:
    """Import files in the order of KINDS, each whole. The first fault ends it; what came before it stays."""
    ranked: list[tuple[int, Found]] = []
    left: list[str] = []
    for found in files:
        kind = kind_of(found.data, found.name)
        if kind or found.asked:
            ranked.append((KINDS.index(kind) if kind else len(KINDS), found))
        else:
            left.append(found.name)
    ranked.sort(key=lambda one: one[0])
    done = [(found.name, import_data(database, found.data, found.name)) for _, found in ranked]
    return Brought(tuple(done), tuple(left))


def import_file(database: db.Database, path: Path) -> str:
    """Take in a trust file, `*.license` parcel, registry, plan (YAML), customers or seller file (JSON, YAML),
    or a table of customers (CSV).

    Returns what it brought, in words. REGISTRY_INVALID, PLAN_INVALID, TRUST_UNPINNED and every error of a
    signed document.
    """
    return import_data(database, read_bounded(path, MAX_BYTES), path.name)


def import_data(database: db.Database, data: bytes, name: str, actor: Actor | None = None) -> str:
    """The same for a file's bytes; with an `actor` it stands in the audit trail."""
    kind = kind_of(data, name)
    if kind == PLAN:
        put = partial(registry.put_plan, plan=load_plan(data, what=name))
    else:
        put = partial(_put, data=data, name=name, kind=kind)
    with database.write() as connection:
        brought = put(connection)
        if actor is not None:
            audit.note(connection, actor, "import", file=audit.sha256(data), name=name, brought=brought)
    return brought


def kind_of(data: bytes, name: str) -> str:
    """One of KINDS, by what a file holds; empty for what settlement does not import."""
    if is_plan(name):
        said = _OURS.search(data)
        return said[1].decode() if said else PLAN
    if name.lower().endswith((".ack", ".request")):
        return ""
    if data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return TABLE if customer_table.is_table(data) else ""
    schema = schema_of(data)
    return schema if schema in SCHEMAS else ""


def is_plan(name: str) -> bool:
    """Whether a file of that name is YAML: a plan, unless it says that it is something else."""
    return Path(name).suffix.lower() in (".yaml", ".yml")


def schema_of(data: bytes) -> str:
    """The `schema` of a JSON file's first value; empty for anything else."""
    try:
        return _first_value(data, "")[0]
    except SealpackError:
        return ""


def _put(connection: sa.Connection, data: bytes, name: str, kind: str) -> str:
    if kind == TABLE:
        return parties.put_customer_table(connection, data, name)
    if is_plan(name):
        schema, value, rest = kind, plan_yaml.load(data, what=name), False
    else:
        schema, value, rest = _first_value(data, name)
    if schema == TRUST_SCHEMA:
        return registry.put_trust(connection, Trust.load(data))
    if schema == PARCEL_SCHEMA:
        return registry.put_documents(connection, Parcel.from_bytes(data, name).documents)
    if schema == registry_format.SCHEMA:
        return _put_lines(connection, data, name)
    if rest:
        raise SealpackError("REGISTRY_INVALID", f"{name} goes on after its JSON")
    if schema == parties.CUSTOMERS_SCHEMA:
        return parties.put_customers(connection, value, name)
    if schema == parties.SELLER_SCHEMA:
        return parties.put_seller(connection, value, name)
    raise SealpackError("REGISTRY_INVALID", f"{name}: nothing settlement takes ({schema or 'no schema'})")


def _first_value(data: bytes, name: str) -> tuple[str, Any, bool]:
    """The `schema` of a file's first JSON value, the value, and whether more follows.

    A bare envelope counts as a parcel. REGISTRY_INVALID for a key twice and for half of a surrogate pair.
    """
    try:
        text = data.decode("utf-8-sig").strip()
        value, end = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise SealpackError("REGISTRY_INVALID", f"{name} is not JSON, YAML or CSV settlement knows") from None
    if not isinstance(value, dict):
        return "", value, end < len(text)
    schema = PARCEL_SCHEMA if "payloadType" in value else str(value.get("schema", ""))[:100]
    return schema, value, end < len(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _put_lines(connection: Any, data: bytes, name: str) -> str:
    trust = registry.load_trust(connection)
    taken = [registry.put_line(connection, line, trust) for line in registry_format.read_lines(data, name)]
    told = f"{len(taken)} registry line{'s' * (len(taken) != 1)}"
    left = taken.count(False)
    return f"{told}; what a revoked key signed in {left} of them was left out" if left else told

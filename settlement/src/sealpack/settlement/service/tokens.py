"""Tokens of the service: who may call, in which role, about whom.

Source: specs/service.md, "Tokens". A token is 256 random bits behind a public id. The database keeps its
SHA-256 alone, which is enough for a secret that nobody can guess; tokens are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, checks, db
from sealpack.settlement.audit import Actor

ROLES = ("finance", "admin", "creator", "auditor", "device")
SCOPES = {
    "creator": ("party",),
    "device": ("license", "customer"),
}  # these speak for somebody, the others for all
_FORM = re.compile(r"sealpack_([0-9a-f]{8})_[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Caller:
    """Who holds a token. `scope` is empty, or a kind and a name joined by a colon."""

    id: str
    name: str
    role: str
    scope: str

    def speaks_for(self, kind: str) -> str | None:
        """The party, license or customer that a scope of this kind names."""
        found, _, name = self.scope.partition(":")
        return name if found == kind else None

    def licenses(self, connection: sa.Connection) -> sa.ColumnElement[bool] | None:
        """What picks the rows of `licenses` that the caller may know of; None: all."""
        if (license_id := self.speaks_for("license")) is not None:
            return db.licenses.c.license_id == license_id
        if (customer := self.speaks_for("customer")) is not None:
            return db.licenses.c.customer_id == customer
        return None if not self.scope else sa.false()

    def may_know(self, connection: sa.Connection, license_id: str | None) -> bool:
        """Whether what concerns this license concerns the caller."""
        mine = self.licenses(connection)
        if mine is None:
            return True
        query = sa.select(db.licenses.c.license_id).where(mine, db.licenses.c.license_id == license_id)
        return connection.execute(query).first() is not None


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is listed: everything but the secret, which is not kept."""

    caller: Caller
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def state(self, now: int) -> str:
        """valid | expired | revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "valid"


def new(
    database: db.Database, name: str, role: str, scope: str = "", days: int | None = None, *, actor: Actor
) -> str:
    """Make a token; its text is told here and never again. USAGE."""
    _check(name, role, scope)
    id = secrets.token_hex(4)
    text = f"sealpack_{id}_{secrets.token_hex(32)}"
    row = {"id": id, "name": name, "role": role, "scope": scope, "digest": _digest(text),
           "created_at": actor.at, "expires_at": None if days is None else actor.at + days * _DAY_S,
           "revoked_at": None}  # fmt: skip
    with database.write() as connection:
        if connection.execute(sa.select(db.tokens.c.id).where(db.tokens.c.name == name)).first():
            raise SealpackError("USAGE", f"there is a token {name} already")
        connection.execute(sa.insert(db.tokens).values(row))
        audit.note(connection, actor, "token", token=name, role=role, scope=scope)
    return text


def _check(name: str, role: str, scope: str) -> None:
    if not _NAME.fullmatch(name):
        raise SealpackError("USAGE", f"{name!r} is no name for a token: up to 64 letters, digits and . _ @ -")
    kind, _, whom = scope.partition(":")
    kinds = SCOPES.get(role, ("",))
    if kind not in kinds or bool(kind) != bool(whom):
        needed = " or ".join(f"--{kind}" for kind in kinds if kind) or "nobody: it is for all"
        raise SealpackError("USAGE", f"role {role} speaks for {needed}")


def revoke(database: db.Database, name: str, *, actor: Actor) -> Token:
    """End a token, from the next call on; again is the same. NOT_FOUND."""
    columns = db.tokens.c
    with database.write() as connection:
        live = (columns.name == name, columns.revoked_at.is_(None))
        ended = connection.execute(sa.update(db.tokens).where(*live).values(revoked_at=actor.at))
        row = connection.execute(sa.select(db.tokens).where(columns.name == name)).first()
        if row is None:
            raise SealpackError(
                "NOT_FOUND", f"there is no token {name}", remedy="see `sealpack settle token list`"
            )
        if ended.rowcount:
            audit.note(connection, actor, "revoke-token", token=name)
    return _token(row)


def listed(connection: sa.Connection) -> list[Token]:
    """Every token that was ever made, by name."""
    return [_token(row) for row in connection.execute(sa.select(db.tokens).order_by(db.tokens.c.name))]


def identify(connection: sa.Connection, text: str, now: int) -> Caller:
    """Who holds this token; TOKEN_INVALID, which does not tell why."""
    form = _FORM.fullmatch(text)
    row = form and connection.execute(sa.select(db.tokens).where(db.tokens.c.id == form[1])).first()
    known = row.digest if row else _digest("")  # compared all the same
    right = hmac.compare_digest(known, _digest(text))
    if not (row and right) or _token(row).state(now) != "valid":
        raise SealpackError("TOKEN_INVALID", "the token is unknown, expired or revoked")
    return _token(row).caller


def _token(row: sa.Row[tuple[object, ...]]) -> Token:
    caller = Caller(row.id, row.name, row.role, row.scope)
    return Token(caller, row.created_at, row.expires_at, row.revoked_at)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def origin_concerns(caller: Caller, connection: sa.Connection, origin: str | None) -> bool:
    """Whether a log, named by its origin, concerns the caller."""
    return caller.may_know(connection, checks.license_id_of(origin) if origin else None)

"""Users of the console: who may log in, in which role, and how passwords are kept.

Source: specs/console.md, "Users". A password is kept as scrypt with its parameters beside it, so that they
can be raised; whoever tries a name that there is not waits as long as anybody else. Names are lower case.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from dataclasses import dataclass

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, tables
from sealpack.settlement.audit import Actor
from sealpack.settlement.db import Database

ROLES = ("finance", "admin", "auditor", "creator")
MIN_PASSWORD, MAX_PASSWORD = 12, 200  # characters
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_PARTY = re.compile(r"party:[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a password costs: scrypt's n = 2**ln, r and p; 128 MiB and about 0.3 s as given."""

    ln: int = 17
    r: int = 8
    p: int = 1


COST = Cost()


@dataclass(frozen=True, slots=True)
class User:
    """Who is logged in. `scope` is empty, or `party:NAME` for a creator."""

    id: int
    name: str
    role: str
    scope: str = ""

    @property
    def party(self) -> str | None:
        """The party of the price plans whose statements a creator may see."""
        return self.scope.removeprefix("party:") or None

    def actor(self, now: int) -> Actor:
        """As the audit trail names the user."""
        return Actor(f"user {self.name}", now)


@dataclass(frozen=True, slots=True)
class Account:
    """A user as the list shows it, without the password; times in Unix seconds."""

    user: User
    created_at: int
    disabled_at: int | None

    @property
    def state(self) -> str:
        """active | disabled."""
        return "active" if self.disabled_at is None else "disabled"


# --- passwords ----------------------------------------------------------------------------------------


def hashed(password: str, cost: Cost | None = None) -> str:
    """`scrypt$ln$r$p$salt$hash`, the last two in hex."""
    cost = cost or COST
    salt = secrets.token_bytes(16)
    return f"scrypt${cost.ln}${cost.r}${cost.p}${salt.hex()}${_scrypt(password, salt, cost).hex()}"


def is_right(stored: str | None, password: str) -> bool:
    """Whether it is the password; without a stored one the same work is done, and the answer is no."""
    _, ln, r, p, salt, digest = (stored or _nobody()).split("$")
    made = _scrypt(password, bytes.fromhex(salt), Cost(int(ln), int(r), int(p)))
    return hmac.compare_digest(made, bytes.fromhex(digest)) and stored is not None


def _nobody() -> str:
    """What a name that there is not is compared with."""
    return f"scrypt${COST.ln}${COST.r}${COST.p}${'00' * 16}${'00' * 32}"


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    text = unicodedata.normalize("NFC", password)[:MAX_PASSWORD].encode("utf-8", "surrogatepass")
    room = 130 * cost.r * ((1 << cost.ln) + cost.p) + (1 << 20)
    return hashlib.scrypt(text, salt=salt, n=1 << cost.ln, r=cost.r, p=cost.p, maxmem=room, dklen=32)


def check_password(name: str, password: str) -> None:
    """USAGE for a password that is too short or is the name."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise SealpackError("USAGE", f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if len(set(password)) < 5 or (name in password.lower() and len(password) < len(name) + 8):
        raise SealpackError("USAGE", "the password is too easy to guess", remedy="take some unrelated words")


# --- users --------------------------------------------------------------------------------------------


def any_there(connection: sa.Connection) -> bool:
    """Whether somebody was ever made a user."""
    return connection.execute(sa.select(tables.users.c.id).limit(1)).first() is not None


def add(
    database: Database, name: str, role: str, scope: str, password: str, *, actor: Actor, first: bool = False
) -> User:
    """Make a user; USAGE when the name is taken or something is not as it must be.

    With `first` only while there is none at all.
    """
    name = name.strip().lower()
    _check(name, role, scope)
    check_password(name, password)
    stored, columns = hashed(password), tables.users.c
    with database.write() as connection:
        if first and any_there(connection):
            raise SealpackError("USAGE", "there is a user already", remedy="log in")
        if connection.execute(sa.select(columns.id).where(columns.name == name)).first():
            raise SealpackError("USAGE", f"there is a user {name} already", remedy="take another name")
        last = connection.execute(sa.select(sa.func.max(columns.id))).scalar() or 0
        row = {"id": last + 1, "name": name, "role": role, "scope": scope, "password": stored,
               "created_at": actor.at, "disabled_at": None}  # fmt: skip
        connection.execute(sa.insert(tables.users).values(row))
        audit.note(connection, actor, "user", user=name, role=role, scope=scope)
    return User(last + 1, name, role, scope)


def _check(name: str, role: str, scope: str) -> None:
    if not _NAME.fullmatch(name):
        raise SealpackError("USAGE", f"{name!r} is no user name: up to 64 letters, digits and . _ @ -")
    if role not in ROLES:
        raise SealpackError("USAGE", f"{role[:40]!r} is no role: {', '.join(ROLES)}")
    if bool(scope) != (role == "creator") or (scope and not _PARTY.fullmatch(scope)):
        raise SealpackError("USAGE", "a creator, and nobody else, speaks for a party of the price plans")


def find(connection: sa.Connection, name: str) -> tuple[User, str] | None:
    """A user who may log in, and the stored password."""
    columns = tables.users.c
    row = connection.execute(
        sa.select(tables.users).where(columns.name == name.strip().lower(), columns.disabled_at.is_(None))
    ).first()
    return (_user(row), row.password) if row else None


def listed(connection: sa.Connection) -> list[Account]:
    """Every user, by name."""
    rows = connection.execute(sa.select(tables.users).order_by(tables.users.c.name))
    return [Account(_user(row), row.created_at, row.disabled_at) for row in rows]


def _user(row: sa.Row[tuple[object, ...]]) -> User:
    return User(row.id, row.name, row.role, row.scope)


def disable(database: Database, name: str, *, actor: Actor) -> None:
    """End a user and every session; again is the same. NOT_FOUND; USAGE for the last admin."""
    columns = tables.users.c
    with database.write() as connection:
        row = _named(connection, name)
        if row.disabled_at is not None:
            return
        others = (columns.role == "admin", columns.disabled_at.is_(None), columns.id != row.id)
        if row.role == "admin" and not connection.execute(sa.select(columns.id).where(*others)).first():
            raise SealpackError("USAGE", f"{row.name} is the last admin", remedy="make another one first")
        _change(connection, row, disabled_at=actor.at)
        audit.note(connection, actor, "disable-user", user=row.name)


def enable(database: Database, name: str, *, actor: Actor) -> None:
    """Let a disabled user log in again, with the password there was. NOT_FOUND."""
    with database.write() as connection:
        row = _named(connection, name)
        if row.disabled_at is not None:
            _change(connection, row, disabled_at=None)
            audit.note(connection, actor, "enable-user", user=row.name)


def set_password(database: Database, name: str, password: str, *, actor: Actor) -> None:
    """Give a user another password; every session of the user ends. NOT_FOUND, USAGE."""
    check_password(name.strip().lower(), password)
    stored = hashed(password)
    with database.write() as connection:
        row = _named(connection, name)
        _change(connection, row, password=stored)
        audit.note(connection, actor, "password", user=row.name)


def _named(connection: sa.Connection, name: str) -> sa.Row[tuple[object, ...]]:
    name = name.strip().lower()
    row = connection.execute(sa.select(tables.users).where(tables.users.c.name == name)).first()
    if row is None:
        raise SealpackError("NOT_FOUND", f"there is no user {name}", remedy="see `sealpack settle user list`")
    return row


def _change(connection: sa.Connection, row: sa.Row[tuple[object, ...]], **values: object) -> None:
    """Change a user, whose sessions end with it."""
    connection.execute(sa.update(tables.users).where(tables.users.c.id == row.id).values(**values))
    connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.user_id == row.id))

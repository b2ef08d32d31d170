"""Sessions: who is logged in, from the login to the logout, or until idle or old.

Source: specs/console.md, "Sessions". The browser holds 256 random bits, the database their SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import sqlalchemy as sa

from sealpack.format.errors import SealpackError
from sealpack.settlement import tables
from sealpack.settlement.db import Database
from sealpack.settlement.users import User

IDLE_S = 3600
LONGEST_S = 12 * 3600
TOUCH_S = 60  # a session's last use is noted no more often
_CONCERN = "sessions"


def new_token() -> str:
    """What a browser is given."""
    return secrets.token_urlsafe(32)


def csrf(token: str) -> str:
    """What the forms of that browser carry; the token cannot be told from it."""
    return hmac.digest(token.encode(), b"sealpack/console/csrf", "sha256").hex()


def begin(database: Database, user: User, now: int, stored: str | None = None) -> str:
    """Log a user in: the token of a new session. Those that are over are forgotten.

    `stored`: the password that was compared, as it is kept. LOGIN_INVALID when the user was disabled or given
    another one while that took its time.
    """
    token, columns, who = new_token(), tables.sessions.c, tables.users.c
    row = {"digest": _digest(token), "user_id": user.id, "created_at": now, "seen_at": now,
           "expires_at": now + LONGEST_S}  # fmt: skip
    over = (columns.expires_at <= now) | (columns.seen_at <= now - IDLE_S)
    with database.write(_CONCERN) as connection:
        kept = connection.execute(
            sa.select(who.password).where(who.id == user.id, who.disabled_at.is_(None))
        ).scalar()
        if kept is None or stored not in (None, kept):
            raise SealpackError("LOGIN_INVALID", "name or password is wrong")
        connection.execute(sa.delete(tables.sessions).where(over))
        connection.execute(sa.insert(tables.sessions).values(row))
    return token


def user_of(connection: sa.Connection, token: str, now: int) -> tuple[User, int] | None:
    """Who has this session, and when it was last noted as used; None when there is none that is good."""
    said, who = tables.sessions.c, tables.users.c
    row = connection.execute(
        sa.select(who.id, who.name, who.role, who.scope, said.seen_at)
        .join(tables.users, who.id == said.user_id)
        .where(
            said.digest == _digest(token), said.expires_at > now, said.seen_at > now - IDLE_S,
            who.disabled_at.is_(None),
        )
    ).first()  # fmt: skip
    return (User(row.id, row.name, row.role, row.scope), row.seen_at) if row else None


def touch(database: Database, token: str, now: int) -> None:
    """Note that a session was used."""
    this = tables.sessions.c.digest == _digest(token)
    with database.write(_CONCERN) as connection:
        connection.execute(sa.update(tables.sessions).where(this).values(seen_at=now))


def end(database: Database, token: str) -> None:
    """Log out."""
    with database.write(_CONCERN) as connection:
        connection.execute(sa.delete(tables.sessions).where(tables.sessions.c.digest == _digest(token)))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()

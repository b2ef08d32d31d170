"""Replies to carry back: the newest acknowledgements of some logs, alone or as a zip.

Source: specs/service.md, "Replies".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable

import sqlalchemy as sa

from sealpack.settlement import ack, db
from sealpack.settlement.ack import Reply
from sealpack.settlement.service.core import Service


def origins(connection: sa.Connection, *where: sa.ColumnElement[bool]) -> list[str]:
    """The logs of the licenses that `where` picks."""
    query = (
        sa.select(db.logs.c.origin)
        .join(db.licenses, db.licenses.c.license_id == db.logs.c.license_id)
        .where(*where)
        .order_by(db.logs.c.origin)
    )
    return list(connection.execute(query).scalars())


async def replies(service: Service, names: list[str], *, make: bool) -> list[Reply]:
    """The newest acknowledgement of each log; with `make`, made now where there is something new to say and
    this service has settlement's key."""
    if service.signers is None or not make:
        return await service.read(ack.newest, service.database, names)
    return await service.write(ack.replies, service.database, service.signers, names, service.clock())


def zipped(found: Iterable[Reply]) -> bytes:
    """Replies as the files of a zip, the same bytes for the same replies."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for reply in found:
            archive.writestr(zipfile.ZipInfo(reply.name), reply.data)
    return body.getvalue()

"""The HTTP service: routes, who may call them, and how failures are told.

Source: specs/service.md. Reading the network is this module's alone; all work is done in threads by the code
that the verbs use. Every answer is JSON, a parcel or a zip; every refusal a problem (specs/errors.md).
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sealpack.format.errors import SealpackError, printable
from sealpack.settlement import db
from sealpack.settlement.console.app import Console
from sealpack.settlement.console.routes import console_routes
from sealpack.settlement.service import openapi, replies, tokens, uploads, views
from sealpack.settlement.service.core import Service as Service
from sealpack.settlement.service.limits import Limits
from sealpack.settlement.service.receiving import pieces
from sealpack.settlement.service.tokens import ROLES, Caller

Handler = Callable[["Service", Request, Caller], Awaitable[Response]]

OFFICE = ("finance", "admin", "auditor")
PARCEL, ZIP, PROBLEM = "application/json", "application/zip", "application/problem+json"
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 20  # of an upload, written at once
_LOG = logging.getLogger("sealpack.service")


# --- uploads ------------------------------------------------------------------------------------------


async def post_file(service: Service, request: Request, caller: Caller) -> Response:
    """Take one usage file, or a zip of them."""
    if service.uploading >= service.limits.uploads * 4:
        raise SealpackError("CONCURRENCY_LIMIT", f"{service.uploading} uploads are running")
    name = printable(request.query_params.get("name", "upload"))[:255]
    service.uploading += 1
    try:
        with tempfile.NamedTemporaryFile(prefix="sealpack-upload-") as spool:
            await _receive(request, spool, service.limits)
            taken = await service.write(
                uploads.take,
                service.database,
                Path(spool.name),
                name,
                caller,
                service.limits,
                service.clock(),
                later=service.queue,
            )
    finally:
        service.uploading -= 1
    return JSONResponse(taken.to_dict(), 200 if taken.decided else 202)


async def _receive(request: Request, spool: IO[bytes], limits: Limits) -> None:
    """Write the body to disk."""
    piece = bytearray()
    async for data in pieces(request, limits, limits.zip_bytes, partial(uploads.max_bytes, limits=limits)):
        piece += data
        if len(piece) >= _PIECE:
            await anyio.to_thread.run_sync(spool.write, bytes(piece))
            piece.clear()
    spool.write(piece)
    spool.flush()


async def get_file(service: Service, request: Request, caller: Caller) -> Response:
    """How a file stands that was uploaded before, by the SHA-256 of its bytes."""
    digest = request.path_params["digest"]

    def look(connection: sa.Connection) -> dict[str, Any] | None:
        found = uploads.stored(connection, digest) if _DIGEST.fullmatch(digest) else None
        concerned = found and tokens.origin_concerns(caller, connection, found.get("origin"))
        return found if concerned else None

    found = await service.query(look)
    if found is None:
        raise SealpackError("NOT_FOUND", "no such file was received", remedy="send it: POST /v1/files")
    return JSONResponse(found)


# --- replies ------------------------------------------------------------------------------------------


async def get_reply(service: Service, request: Request, caller: Caller) -> Response:
    """The newest acknowledgement of a log by its origin, as a parcel; of a license's logs, as a zip."""
    name = request.path_params["of"]
    if name.startswith("sealpack/usage/"):
        known = await service.query(partial(tokens.origin_concerns, caller), name) if _plain(name) else False
        found = await replies.replies(service, [name], make=_may_make(caller)) if known else []
        if not found:
            raise _no_reply(name)
        return Response(found[0].data, media_type=PARCEL, headers=_named(found[0].name))
    return await _zipped(service, caller, db.licenses.c.license_id == name, name)


async def get_replies(service: Service, request: Request, caller: Caller) -> Response:
    """The newest acknowledgement of every log of a customer, in one zip."""
    customer = request.query_params.get("customer")
    if not customer:
        raise SealpackError("USAGE", "say whose replies: ?customer=ID")
    return await _zipped(service, caller, db.licenses.c.customer_id == customer, customer)


async def _zipped(service: Service, caller: Caller, which: sa.ColumnElement[bool], name: str) -> Response:
    def origins(connection: sa.Connection) -> list[str]:
        mine = caller.licenses(connection)
        return replies.origins(connection, which, *([] if mine is None else [mine]))

    names = await service.query(origins) if _plain(name) else []
    found = await replies.replies(service, names, make=_may_make(caller))
    if not found:
        raise _no_reply(name)
    return Response(replies.zipped(found), media_type=ZIP, headers=_named("replies.zip"))


def _may_make(caller: Caller) -> bool:
    """An auditor changes nothing."""
    return caller.role != "auditor"


def _no_reply(name: str) -> SealpackError:
    return SealpackError("NOT_FOUND", f"there is no reply for {name} yet", remedy="upload usage first")


def _plain(text: str) -> bool:
    """Whether a database can be asked for it."""
    return text.isprintable()


def _named(name: str) -> Mapping[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


# --- lists --------------------------------------------------------------------------------------------


def _listed(show: Callable[..., dict[str, Any]]) -> Handler:
    """A route that gives one page."""

    async def handler(service: Service, request: Request, _caller: Caller) -> Response:
        said = request.query_params
        return JSONResponse(await service.query(show, said.get("limit"), said.get("after")))

    return handler


async def get_cases(service: Service, request: Request, _caller: Caller) -> Response:
    """One page of cases."""
    said = request.query_params
    page = partial(views.cases, service.database, said.get("limit"), said.get("after"), said.get("state"))
    return JSONResponse(await service.read(page))


async def get_statements(service: Service, _request: Request, caller: Caller) -> Response:
    """What parties earned."""
    return JSONResponse(await service.query(views.statements, caller))


# --- the application ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A route behind a token, and the roles that may call it."""

    method: str
    path: str
    roles: tuple[str, ...]
    handler: Handler


CALLS = (
    Call("POST", "/v1/files", ("finance", "admin", "device"), post_file),
    Call("GET", "/v1/files/{digest}", (*OFFICE, "device"), get_file),
    Call("GET", "/v1/replies", (*OFFICE, "device"), get_replies),
    Call("GET", "/v1/replies/{of:path}", (*OFFICE, "device"), get_reply),
    Call("GET", "/v1/cases", OFFICE, get_cases),
    Call("GET", "/v1/invoices", OFFICE, _listed(views.invoices)),
    Call("GET", "/v1/customers", OFFICE, _listed(views.customers)),
    Call("GET", "/v1/licenses", OFFICE, _listed(views.licenses)),
    Call("GET", "/v1/devices", OFFICE, _listed(views.devices)),
    Call("GET", "/v1/statements", (*OFFICE, "creator"), get_statements),
    Call("GET", "/v1/audit", ("admin", "auditor"), _listed(views.trail)),
)
assert all(set(call.roles) <= set(ROLES) for call in CALLS)


def make_app(service: Service, console: Console | None = None) -> Starlette:
    """The ASGI application: the API, and the console for people."""
    served = [Route(call.path, _guarded(service, call), methods=[call.method]) for call in CALLS]

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "live"}, headers=_HEADERS)

    async def ready(_request: Request) -> Response:
        await service.query(lambda connection: connection.execute(sa.select(db.about)).one())
        return JSONResponse({"status": "ready"}, headers=_HEADERS)

    async def described(_request: Request) -> Response:
        return JSONResponse(openapi.document(), headers=_HEADERS)

    opened = {"/v1/health/live": live, "/v1/health/ready": ready, "/openapi.json": described}
    served += [Route(path, endpoint, methods=["GET"]) for path, endpoint in opened.items()]
    served += console_routes(console or Console(service))
    handlers: Mapping[Any, Any] = {
        SealpackError: _refused, HTTPException: _unknown, ClientDisconnect: _gone, Exception: _failed
    }  # fmt: skip
    app = Starlette(routes=served, exception_handlers=handlers)
    app.router.redirect_slashes = False  # it would send callers to whatever host they named
    return app


def _guarded(service: Service, call: Call) -> Callable[[Request], Awaitable[Response]]:
    """A call for those who hold a token of one of its roles, and not too often."""

    async def endpoint(request: Request) -> Response:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise SealpackError("TOKEN_INVALID", "no token: Authorization: Bearer TOKEN is missing")
        caller = await service.query(lambda c: tokens.identify(c, text.strip(), service.clock()))
        service.meter.count(caller.id)
        if caller.role not in call.roles:
            raise SealpackError("ROLE_DENIED", f"role {caller.role} may not {call.method} {call.path}")
        response = await call.handler(service, request, caller)
        response.headers.update(_HEADERS)
        return response

    return endpoint


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, SealpackError)
    problem = error.to_problem()
    if error.spec.exit == 1:  # about this side: its words may name files, servers and users
        problem["detail"] = error.spec.title
    headers = dict(_HEADERS)
    if "retry_after" in problem:
        headers["Retry-After"] = str(problem["retry_after"])
    if problem["status"] == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.method == "POST":  # a body that nobody reads to its end
        headers["Connection"] = "close"
    if problem["status"] >= 500:
        _LOG.error("%s %s: %s", request.method, printable(request.url.path), error)
    return JSONResponse(problem, problem["status"], headers, PROBLEM)


async def _unknown(request: Request, _error: Exception) -> Response:
    """A path or a method that there is not."""
    return await _refused(
        request, SealpackError("NOT_FOUND", f"there is no {request.method} {request.url.path[:200]}")
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    """Whoever called has hung up in the middle of an upload; nobody reads this."""
    return Response(status_code=400)


async def _failed(request: Request, _error: Exception) -> Response:
    """A fault of ours: told without anything of what it was about; the server logs it."""
    return await _refused(request, SealpackError("INTERNAL", "the service failed", remedy="see its log"))

"""The service's description for programs: an OpenAPI 3.1 document, written by hand.

Source: specs/service.md. A test compares it with the routes and their roles, and answers with its schemas.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_MONEY: Json = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
_SHA256: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_TIME: Json = {"type": "integer", "description": "Unix seconds"}


def _object(required: Json, optional: Json | None = None) -> Json:
    members = {**required, **(optional or {})}
    return {
        "type": "object",
        "required": list(required),
        "properties": members,
        "additionalProperties": False,
    }


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _page(name: str) -> Json:
    return _object({"items": {"type": "array", "items": _ref(name)}}, {"next": _TEXT})


_LOG = _object({"origin": _TEXT, "size": _COUNT, "last_ms": _COUNT, "frozen": {"type": "boolean"}})
SCHEMAS: dict[str, Json] = {
    "Problem": _object(
        {"type": _TEXT, "title": _TEXT, "status": _COUNT, "detail": _TEXT, "code": _TEXT, "remedy": _TEXT,
         "ref": _TEXT},
        {"retry_after": _COUNT, "support": _TEXT},
    ),
    "File": _object(
        {"file": _TEXT, "sha256": {"anyOf": [_SHA256, {"const": ""}]}},
        {"received_at": _TIME, "code": _TEXT, "meaning": _TEXT, "detail": _TEXT, "accepted": _COUNT,
         "origin": _TEXT, "from": _COUNT, "to": _COUNT, "flags": {"type": "array", "items": _TEXT},
         "state": {"enum": ["waiting", "failed"]}},
    ),
    "Uploaded": _object(
        {"schema": {"const": "sealpack/uploaded/v1"}, "files": {"type": "array", "items": _ref("File")},
         "left": {"type": "array", "items": _TEXT}}
    ),
    "Case": _object(
        {"number": _COUNT, "code": _TEXT, "state": {"enum": ["open", "accepted", "refused", "settled"]},
         "meaning": _TEXT, "detail": _TEXT, "file": _TEXT, "sha256": _SHA256, "origin": _TEXT,
         "opened_at": _TIME, "closed_at": {"type": ["integer", "null"]},
         "can": {"type": "array", "items": _TEXT}},
        {"next": _TEXT, "verdict": _TEXT, "reason": _TEXT, "who": _TEXT, "decided_at": _TIME, "ours": _TEXT,
         "theirs": _TEXT},
    ),
    "Invoice": _object(
        {"number": _TEXT, "kind": _TEXT, "issuer": _TEXT, "customer": _TEXT, "license_id": _TEXT,
         "period": _TEXT, "currency": _TEXT, "issued": _TEXT, "due": _TEXT, "net": _MONEY, "total": _MONEY},
        {"corrects": _TEXT},
    ),
    # As in the customers file, specs/schemas/customers.json.
    "Customer": {
        "type": "object", "required": ["id", "legal_name"], "properties": {"id": _TEXT, "legal_name": _TEXT},
    },
    "License": _object(
        {"license_id": _TEXT, "seq": _COUNT, "customer": _TEXT, "customer_name": _TEXT, "issuer": _TEXT,
         "tier": _TEXT, "billing": _TEXT, "environment": _TEXT, "nbf": _TIME, "digest": _SHA256},
        {"devices_max": _COUNT, "parent": _TEXT, "exp": _TIME, "plan": _TEXT},
    ),
    "Device": _object(
        {"license_id": _TEXT, "device_id": _TEXT, "label": _TEXT, "first_at": _TIME, "issued_at": _TIME},
        {"log": _LOG},
    ),
    "Statement": _object(
        {"issuer": _TEXT, "party": _TEXT, "currency": _TEXT, "earned": _MONEY, "released": _MONEY,
         "paid": _MONEY, "due": _MONEY}
    ),
    "Entry": _object(
        {"seq": _COUNT, "at": _TIME, "who": _TEXT, "what": {"type": "object"}, "previous": _SHA256,
         "digest": _SHA256}
    ),
    "Statements": _object({"items": {"type": "array", "items": _ref("Statement")}}),
    "Status": _object({"status": {"enum": ["live", "ready"]}}),
}  # fmt: skip
_PAGED = ("Case", "Invoice", "Customer", "License", "Device", "Entry")
SCHEMAS |= {f"{name}Page": _page(name) for name in _PAGED}

_PROBLEM: Json = {
    "description": "Refused, or failed; `code` is explained in docs/errors.md",
    "content": {"application/problem+json": {"schema": _ref("Problem")}},
}
_BINARY: Json = {"type": "string", "format": "binary"}
_PAGING = [
    {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    },
    {"name": "after", "in": "query", "schema": _TEXT, "description": "The `next` of the page before"},
]


def _parameter(name: str, where: str, description: str, required: bool = True, **schema: Any) -> Json:
    return {
        "name": name, "in": where, "required": required, "description": description,
        "schema": {**_TEXT, **schema},
    }  # fmt: skip


def _call(
    id: str, summary: str, content: dict[str, Json], roles: str, later: bool = False, **more: Any
) -> Json:
    """An operation; `roles` are those that may call it, none for everybody; `later`: it may answer 202."""
    who = {"security": [{"token": []}], "x-roles": roles.split()} if roles else {"security": []}
    kept = {"202": {"description": "Kept, and not decided yet", "content": content}} if later else {}
    answers = {"200": {"description": "OK", "content": content}, **kept, "default": _PROBLEM}
    return {"operationId": id, "summary": summary, **who, **more, "responses": answers}


def _json(name: str) -> dict[str, Json]:
    return {"application/json": {"schema": _ref(name)}}


_OFFICE = "finance admin auditor"
_ZIP = {"application/zip": {"schema": _BINARY}}


def _list(id: str, summary: str, name: str, roles: str = _OFFICE, *more: Json) -> Json:
    return {"get": _call(id, summary, _json(f"{name}Page"), roles, parameters=[*_PAGING, *more])}


PATHS: dict[str, Json] = {
    "/v1/files": {
        "post": _call(
            "uploadFile", "Take one usage file, or a zip of them", _json("Uploaded"), "finance admin device",
            True,
            parameters=[_parameter("name", "query", "What people call the file", False, maxLength=255)],
            requestBody={"required": True, "content": {
                "application/gzip": {"schema": _BINARY}, "application/zip": {"schema": _BINARY},
                "application/octet-stream": {"schema": _BINARY},
            }},
        )
    },
    "/v1/files/{digest}": {
        "get": _call(
            "getFile", "How an uploaded file stands", _json("File"), f"{_OFFICE} device",
            parameters=[_parameter("digest", "path", "SHA-256 of its bytes", pattern="^[0-9a-f]{64}$")],
        )
    },
    "/v1/replies": {
        "get": _call(
            "getReplies", "The newest acknowledgement of every log of a customer", _ZIP, f"{_OFFICE} device",
            parameters=[_parameter("customer", "query", "Customer id")],
        )
    },
    "/v1/replies/{of}": {
        "get": _call(
            "getReply", "The newest acknowledgement of a log (a parcel), or of each log of a license (a zip)",
            {"application/json": {"schema": {"type": "object"}}, **_ZIP}, f"{_OFFICE} device",
            parameters=[_parameter("of", "path", "Origin of a log, with its slashes; or a license id")],
        )
    },
    "/v1/cases": _list(
        "listCases", "What waits for a person, or did", "Case", _OFFICE,
        _parameter("state", "query", "Only these", False, enum=["open", "accepted", "refused", "settled"]),
    ),
    "/v1/invoices": _list("listInvoices", "Invoices, corrections and credit notes", "Invoice"),
    "/v1/customers": _list("listCustomers", "Customer records", "Customer"),
    "/v1/licenses": _list("listLicenses", "The newest document of every license", "License"),
    "/v1/devices": _list("listDevices", "Activated devices and their newest logs", "Device"),
    "/v1/statements": {
        "get": _call("listStatements", "What parties earned", _json("Statements"), f"{_OFFICE} creator")
    },
    "/v1/audit": _list("listAudit", "The audit trail", "Entry", "admin auditor"),
    "/v1/health/live": {"get": _call("live", "The process answers", _json("Status"), "")},
    "/v1/health/ready": {"get": _call("ready", "The database answers", _json("Status"), "")},
    "/openapi.json": {"get": _call("describe", "This document", {"application/json": {"schema": {}}}, "")},
}  # fmt: skip


def document() -> Json:
    """The whole description."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sealpack settlement", "version": "1", "license": {"name": "Apache-2.0"}},
        "paths": PATHS,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }

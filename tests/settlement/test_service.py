"""The HTTP service: what it takes, what it shows to whom, and what hostile callers get."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from support.books import NOW, SIGNERS, Books
from support.device import Device
from support.rating_plans import make_plan, recurring
from support.service import make_token

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import jsonschema
from starlette.testclient import TestClient

from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.settlement import audit, billing, cases, db, evidence
from sealpack.settlement.reconcile import reconcile
from sealpack.settlement.service import openapi, tokens
from sealpack.settlement.service.app import CALLS, Service, make_app

DAY = 86_400
PLACES = {"{digest}": "0" * 64, "{of:path}": "L-1"}
PAGED = ("cases", "invoices", "customers", "licenses", "devices", "audit")


class Client:
    """Calls the service in this process, in a role."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._http = TestClient(make_app(service), raise_server_exceptions=False)
        self._tokens: dict[str, str] = {}

    def token(self, role: str) -> str:
        """A token of that role, the same one every time."""
        if role not in self._tokens:
            self._tokens[role] = make_token(self.service.database, role)
        return self._tokens[role]

    def __call__(self, method: str, path: str, role: str = "", status: int = 200, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token(role)}"} if role else {}
        headers |= more.pop("headers", {})
        answer = self._http.request(method, path, headers=headers, **more)
        assert answer.status_code == status, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        if status != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            jsonschema.validate(answer.json(), openapi.SCHEMAS["Problem"])
            assert answer.json()["status"] == status
        return answer

    def get(self, path: str, role: str = "finance", status: int = 200, **more: Any) -> Any:
        """GET; the JSON that came."""
        return self("GET", path, role, status, **more).json()

    def post(self, data: Any, name: str = "a.usage.gz", role: str = "device", status: int = 200) -> Any:
        """Upload; the JSON that came."""
        return self("POST", "/v1/files", role, status, content=data, params={"name": name}).json()


@pytest.fixture
def client(books: Books) -> Iterator[Client]:
    """A service on empty books, with settlement's key."""
    yield Client(Service(books.database, SIGNERS, clock=lambda: NOW))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return body.getvalue()


def worked(number: int = 1, calls: int = 3) -> Device:
    return Device(number=number).use(calls)


# --- uploads ----------------------------------------------------------------------------------------


def test_a_usage_file_is_taken_once_and_answered_alike(books: Books, client: Client) -> None:
    device = worked()
    books.learn(device)
    data = device.export()
    first = client.post(data)
    assert first == client.post(data, name="other name")
    (told,) = first["files"]
    assert (told["code"], told["accepted"], told["origin"]) == ("OK", device.size, device.origin)
    assert told["sha256"] == sha256(data) and told["file"] == "a.usage.gz"
    assert client.get(f"/v1/files/{sha256(data)}", "device") == told
    assert books.log(device).size == device.size
    jsonschema.validate(first, _resolved("Uploaded"))


def test_what_is_held_is_told_and_set_free_later(books: Books, client: Client) -> None:
    device = worked()
    cut = device.size
    device.use(4)
    books.learn(device)
    late, early = device.export(cut), device.export(0, cut)
    assert client.post(late)["files"][0]["code"] == "H201"
    (case,) = client.get("/v1/cases?state=open")["items"]
    assert (case["code"], case["number"]) == ("H201", 1)
    jsonschema.validate(client.get("/v1/cases"), _resolved("CasePage"))
    assert client.post(early)["files"][0]["code"] == "OK"
    assert client.get(f"/v1/files/{sha256(late)}")["code"] == "OK"
    assert client.get("/v1/cases?state=open")["items"] == []
    client.get("/v1/cases?state=closed", status=400)


def test_a_zip_is_taken_file_by_file(books: Books, client: Client) -> None:
    one, two = worked(1), worked(2)
    books.learn(one, two)
    body = zipped({
        "../../etc/one.usage.gz": one.export(), "dir\\two.usage.gz": two.export(),
        "x/summary.html": b"<p>hello", "folder/": b"", "broken.usage.gz": b"no usage",
    })  # fmt: skip
    told = client.post(body, "all.zip")
    assert {f["file"]: f["code"] for f in told["files"]} == {
        "one.usage.gz": "OK", "two.usage.gz": "OK", "broken.usage.gz": "R301"
    }  # fmt: skip
    assert told["left"] == ["summary.html"]
    assert told == client.post(body, "all.zip")


def test_every_upload_stands_in_the_audit_trail_once(books: Books, client: Client) -> None:
    device = worked()
    books.learn(device)
    data = device.export()
    client.post(data), client.post(data)
    found = client.get("/v1/audit", "auditor")["items"]
    assert [e["what"]["verb"] for e in found] == ["token", "upload", "token"]
    assert (found[1]["who"], found[1]["what"]["file"]) == ("token device customer-hospital", sha256(data))
    assert audit.verify(books.database)[0] == 3


def test_a_file_that_was_kept_and_never_decided_is_decided_at_the_start(books: Books, client: Client) -> None:
    device = worked()
    digest = evidence.keep(books.database, device.export(), "a", NOW)
    client.service.finish()  # without trust nothing can be decided
    books.learn(device)
    assert "code" not in client.get(f"/v1/files/{digest}")
    client.service.finish()
    assert client.get(f"/v1/files/{digest}")["code"] == "OK"


# --- replies ----------------------------------------------------------------------------------------


def test_replies_of_a_log_a_license_and_a_customer(books: Books, client: Client) -> None:
    one, two = worked(1), worked(2)
    books.learn(one, two)
    client.get(f"/v1/replies/{one.origin}", "device", 404)
    client.post(zipped({"1.usage.gz": one.export(), "2.usage.gz": two.export()}))
    assert client.get(f"/v1/replies/{one.origin}", "auditor", 404)["code"] == "NOT_FOUND"  # none was made yet
    answer = client("GET", f"/v1/replies/{one.origin}", "device")
    (envelope,) = Parcel.from_bytes(answer.content, "reply").of_kind("acknowledgement")
    said = Acknowledgement.open(envelope, one.trust)
    assert (said.origin, said.size) == (one.origin, one.size)
    assert answer.headers["content-disposition"].endswith('-1.ack"')
    assert client("GET", f"/v1/replies/{one.origin}", "auditor").content == answer.content
    for path in ("/v1/replies/L-1", "/v1/replies?customer=hospital"):
        body = client("GET", path, "device").content
        assert body == client("GET", path, "device").content
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            assert answer.content in [archive.read(name) for name in archive.namelist()]
            assert len(archive.namelist()) == 2
    for path in ("/v1/replies/L-2", "/v1/replies?customer=else", "/v1/replies/L%00"):
        client.get(path, "device", 404)
    client.get("/v1/replies/sealpack/usage/%00/x/0", "device", 404)
    client.get("/v1/replies", "device", 400)


def test_a_device_token_sees_its_own_alone(books: Books, client: Client) -> None:
    device = worked()
    books.learn(device)
    data = device.export()
    client.post(data)
    others = {"license:L-2": 404, "customer:clinic": 404, "license:L-1": 200}
    for scope, status in others.items():
        client._tokens["device"] = make_token(books.database, "device", scope)
        for path in (f"/v1/files/{sha256(data)}", f"/v1/replies/{device.origin}", "/v1/replies/L-1",
                     "/v1/replies?customer=hospital"):  # fmt: skip
            client("GET", path, "device", status)


def test_another_customers_file_is_held_and_its_sender_learns_nothing(books: Books, client: Client) -> None:
    """H240: content decides whose usage it is, and the sender is never billed."""
    device = worked()
    books.learn(device)
    client._tokens["device"] = make_token(books.database, "device", "customer:clinic")
    data = device.export()
    (told,) = client.post(data)["files"]
    assert set(told) == {"file", "sha256", "code", "meaning"} and told["code"] == "H240"
    assert client.post(data)["files"] == [told]  # once more, and nothing more is told
    client("GET", f"/v1/files/{sha256(data)}", "device", 404)
    assert books.rows(db.logs) == [] and books.rows(db.license_usage) == []
    (case,) = cases.cases(books.database)
    assert (case.code, case.state, case.can) == ("H240", "open", ["accept", "refuse"])
    (freed,) = cases.decide(
        books.database, case.number, "accept", "their integrator", actor=audit.Actor("eva", NOW)
    )[1]
    assert (freed.code, freed.license_id) == ("OK", "L-1")  # billed to whom its content names
    assert reconcile(books.database, NOW).ok


def test_the_same_file_from_whom_it_concerns_is_taken(books: Books, client: Client) -> None:
    device = worked()
    books.learn(device)
    stranger = client._tokens["device"] = make_token(books.database, "device", "license:L-2")
    data = device.export()
    assert client.post(data)["files"][0]["code"] == "H240"
    client._tokens["device"] = make_token(books.database, "device", "customer:hospital")
    assert client.post(data)["files"][0]["code"] == "OK"
    assert [case.state for case in cases.cases(books.database)] == ["settled"]
    client._tokens["device"] = stranger
    assert client.post(data)["files"][0]["code"] == "H240"  # a replay of what is settled
    assert books.codes() == ["OK"] and books.log(device).size == device.size


# --- who may do what --------------------------------------------------------------------------------


def test_every_route_and_every_role(books: Books, client: Client) -> None:
    """Allowed or ROLE_DENIED, as the table of the specification says; never anything for a caller without."""
    books.learn(worked())
    for call in CALLS:
        path = call.path
        for place, value in PLACES.items():
            path = path.replace(place, value)
        for role in tokens.ROLES:
            answer = client._http.request(
                call.method, path, headers={"Authorization": f"Bearer {client.token(role)}"}
            )
            allowed = role in call.roles
            assert (answer.status_code == 403) is not allowed, (call.path, role, answer.text)
            assert allowed or answer.json()["code"] == "ROLE_DENIED"
            assert answer.status_code < 500
        for header in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer x"}):
            refused = client._http.request(call.method, path, headers=header)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"


def test_the_matrix_is_the_one_that_was_written_down() -> None:
    described = {
        (method.upper(), path): operation.get("x-roles", [])
        for path, operations in openapi.document()["paths"].items()
        for method, operation in operations.items()
        if operation["security"]
    }
    assert described == {(c.method, c.path.replace(":path", "")): list(c.roles) for c in CALLS}


def test_tokens_end(books: Books, client: Client) -> None:
    known = make_token(books.database, "finance", days=1)
    with books.database.read() as connection:
        caller = tokens.identify(connection, known, NOW)
        assert (caller.role, caller.scope) == ("finance", "")
        bad = [
            known[:-1] + ("0" if known[-1] != "0" else "1"),
            known.upper(),
            "",
            "sealpack_00000000_" + "0" * 64,
        ]
        for text, at in [*((text, NOW) for text in bad), (known, NOW + DAY)]:
            with pytest.raises(SealpackError, match="TOKEN_INVALID"):
                tokens.identify(connection, text, at)
        kept = str(books.rows(db.tokens))
        assert known not in kept and known[-64:] not in kept
    ended = tokens.revoke(books.database, "finance", actor=audit.Actor("x", NOW))
    assert (
        ended.state(NOW) == "revoked"
        and tokens.revoke(books.database, "finance", actor=audit.NOBODY) == ended
    )
    client.get("/v1/cases", "", 401, headers={"Authorization": f"Bearer {known}"})
    with pytest.raises(SealpackError, match="NOT_FOUND"):
        tokens.revoke(books.database, "nobody", actor=audit.NOBODY)


@pytest.mark.parametrize(
    ("name", "role", "scope"),
    [
        ("", "finance", ""), ("a\nb", "finance", ""), ("a", "finance", "license:L-1"), ("a", "device", ""),
        ("a", "device", "license:"), ("a", "device", "party:x"), ("a", "creator", "customer:x"),
    ],
)  # fmt: skip
def test_tokens_that_make_no_sense(books: Books, name: str, role: str, scope: str) -> None:
    with pytest.raises(SealpackError, match="USAGE"):
        tokens.new(books.database, name, role, scope, actor=audit.NOBODY)
    assert books.rows(db.tokens) == []


def test_a_name_is_used_once(books: Books) -> None:
    make_token(books.database, "admin")
    with pytest.raises(SealpackError, match="there is a token admin already"):
        make_token(books.database, "admin")


# --- pages ------------------------------------------------------------------------------------------


def _resolved(name: str) -> dict[str, Any]:
    document = openapi.document()
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_pages_follow_each_other(books: Books, client: Client) -> None:
    devices = [worked(number) for number in range(1, 6)]
    books.learn(*devices)
    seen, after = [], ""
    while True:
        page = client.get("/v1/devices", params={"limit": 2, "after": after})
        jsonschema.validate(page, _resolved("DevicePage"))
        seen += [item["device_id"] for item in page["items"]]
        after = page.get("next")
        if not after:
            break
    assert seen == sorted(device.id for device in devices)
    client.post(devices[0].export())
    (with_log,) = [d for d in client.get("/v1/devices")["items"] if "log" in d]
    assert with_log["log"]["size"] == devices[0].size


def test_lists_are_as_described(books: Books, client: Client) -> None:
    books.learn(worked())
    for name, page in (("licenses", "License"), ("customers", "Customer"), ("audit", "Entry"),
                       ("cases", "Case"), ("invoices", "Invoice")):  # fmt: skip
        found = client.get(f"/v1/{name}", "admin")
        jsonschema.validate(found, _resolved(f"{page}Page"))
        assert found["items"] or name in ("cases", "invoices")
    assert client.get("/v1/licenses")["items"][0]["customer"] == "hospital"


@pytest.mark.parametrize("name", PAGED)
def test_pages_that_cannot_be(books: Books, client: Client, name: str) -> None:
    tricks = ["x", "e30=", base64.b64encode(b"[[]]").decode(), base64.b64encode(b"[true, 1]").decode(),
              base64.b64encode(b'["\\u0000", "a"]').decode(), base64.b64encode(b"[1e400, 1]").decode(),
              base64.b64encode(b"[99999999999999999999]").decode(), base64.b64encode(b'["\\ud800"]').decode(),
              "\ud7ff", "W10=" * 1000]  # fmt: skip
    for after in tricks:
        assert client.get(f"/v1/{name}", "admin", 400, params={"after": after})["code"] == "USAGE"
    for limit in ("0", "501", "-1", "1.5", "\u0663", "9" * 5000, "x"):
        client.get(f"/v1/{name}", "admin", 400, params={"limit": limit})
    client.get(f"/v1/{name}", "admin", params={"limit": "500"})


def test_a_creator_sees_its_own_statement_and_finance_all(books: Books, client: Client) -> None:
    shares = {
        "scope": ["base"],
        "pool": [{"party": "platform", "bps": 3000}, {"party": "creator:acme", "bps": 4500},
                 {"party": "creator:b", "rest": True}],
    }  # fmt: skip
    books.learn(worked(), plan=make_plan(recurring("100.01", when="arrears"), shares=shares))
    for month in (9, 10):
        billing.bill(books.database, "L-1", date(2026, month, 1), date(2026, month + 1, 1))
    seen = client.get("/v1/statements")["items"]
    assert [one["party"] for one in seen] == ["creator:acme", "creator:b"]
    assert client.get("/v1/statements", "creator")["items"] == seen[:1]
    jsonschema.validate(client.get("/v1/statements"), _resolved("Statements"))
    client._tokens["creator"] = make_token(books.database, "creator", "party:creator:c")
    assert client.get("/v1/statements", "creator")["items"] == []
    first = client.get("/v1/invoices", params={"limit": 1})
    second = client.get("/v1/invoices", params={"after": first["next"]})
    for page in (first, second):
        jsonschema.validate(page, _resolved("InvoicePage"))
    assert [(one["total"], one["currency"]) for one in first["items"] + second["items"]] == [
        ("100.01", "USD")
    ] * 2
    assert "next" not in second


def test_pages_of_cases(books: Books, client: Client) -> None:
    devices = [worked(number) for number in range(1, 4)]
    books.learn(*devices)
    for device in devices:
        size = device.size
        client.post(device.use(1).export(size))
    first = client.get("/v1/cases", params={"limit": 2})
    second = client.get("/v1/cases", params={"limit": 2, "after": first["next"]})
    assert [case["number"] for case in first["items"] + second["items"]] == [1, 2, 3]
    assert "next" not in second

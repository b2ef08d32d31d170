"""The HTTP service against those who mean it harm: sizes, bombs, names, speed, many at once; how it runs."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.books import NOW, SIGNERS, Books, settlement_pem
from support.device import Device
from support.service import make_token, running
from support.tls import make_certificate

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import requests
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.settlement import audit, db, ingest
from sealpack.settlement.outcomes import Outcome
from sealpack.settlement.reconcile import reconcile
from sealpack.settlement.service import openapi, server, uploads
from sealpack.settlement.service.app import Service, make_app
from sealpack.settlement.service.limits import Limits, Meter
from sealpack.settlement.service.server import Address
from sealpack.verifier.cli.main import make_cli, run

SMALL = Limits(
    file_bytes=20_000, zip_bytes=100_000, zip_entries=5, zip_unpacked_bytes=60_000, idle_s=0.5,
    head_start_s=1.0, bytes_per_s=100_000,
)  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Books]:
    """Books in a file: what is asked here does not depend on the kind of database."""
    made = Books.open(tmp_path)
    yield made
    made.database.close()


def call(service: Service, data: Any, status: int, role: str = "device") -> dict[str, Any]:
    """Upload in this process; the problem or the answer."""
    token = make_token(service.database, role)
    client = TestClient(make_app(service), raise_server_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"}
    answer = client.post("/v1/files", content=data, params={"name": "a.usage.gz"}, headers=headers)
    assert answer.status_code == status, answer.text
    with service.database.write() as connection:
        connection.execute(db.tokens.delete())
    found: dict[str, Any] = answer.json()
    return found


def zip_of(files: list[tuple[str, bytes]], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", packing) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return body.getvalue()


# --- zips -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (zip_of([("a.usage.gz", bytes(50_000)), ("b.usage.gz", bytes(50_000))]), 413, "REQUEST_TOO_LARGE"),
        (zip_of([(f"{n}.usage.gz", b"") for n in range(6)]), 413, "REQUEST_TOO_LARGE"),
        (zip_of([(f"{n:0200}", b"") for n in range(40)]), 413, "REQUEST_TOO_LARGE"),  # its directory
        (b"PK\x03\x04" + bytes(30), 415, "UPLOAD_INVALID"),
        (b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 4000, 9999, 0), 415, "UPLOAD_INVALID"),
        (b"PK\x03\x04" + b"PK\x06\x07" + bytes(16) + b"PK\x05\x06" + bytes(18), 415, "UPLOAD_INVALID"),
    ],
)  # fmt: skip
def test_zips_that_are_refused_as_a_whole(own: Books, body: bytes, status: int, code: str) -> None:
    own.learn(Device())
    service = Service(own.database, limits=SMALL, clock=lambda: NOW)
    assert call(service, body, status)["code"] == code
    assert own.rows(db.files) == []


def test_a_zip_whose_entries_are_no_good(own: Books) -> None:
    """Each is told of, the good one is taken, and nothing is written where a name points to."""
    device = Device().use(2)
    own.learn(device)
    body = bytearray(zip_of([("/etc/a.usage.gz", bytes(30_000)), ("b.usage.gz", b"x" * 500)]))
    at = body.rindex(b"PK\x01\x02")
    body[at + 8] |= 1  # the second says that it is encrypted
    limits = Limits(file_bytes=20_000)
    told = call(Service(own.database, limits=limits, clock=lambda: NOW), bytes(body), 200)
    assert [(f["file"], f["code"]) for f in told["files"]] == [("a.usage.gz", "R305"), ("b.usage.gz", "R301")]
    broken = bytearray(zip_of([("a.usage.gz", device.export())]))
    broken[60] ^= 255
    told = call(Service(own.database, clock=lambda: NOW), bytes(broken), 200)
    assert told["files"][0]["code"] == "R301" and own.rows(db.files) == []
    strange = zip_of([("..", b"x"), ("\x1b[2J.usage.gz", device.export())])
    told = call(Service(own.database, clock=lambda: NOW), strange, 200)
    assert told["files"][0]["file"] == "\\x1b[2J.usage.gz" and told["left"] == [".."]


def test_an_entry_that_unpacks_to_more_than_it_says(tmp_path: Path) -> None:
    """Half a GiB of zeros that claims to be 100 bytes is never in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    body = bytearray(zip_of([("a.usage.gz", packed)], packing=zipfile.ZIP_STORED))
    at = body.rindex(b"PK\x01\x02")
    for where in (8, at + 10):
        struct.pack_into("<H", body, where, zipfile.ZIP_DEFLATED)
    for where in (22, at + 24):
        struct.pack_into("<L", body, where, 100)
    tracemalloc.start()
    ((name, found),) = uploads.entries(io.BytesIO(body), "x.zip", Limits())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(found, Outcome) and (name, found.code) == ("a.usage.gz", "R301")
    assert peak < 10 << 20


# --- sizes and speed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"<!doctype html><p>hello", b"", b"\x1f\x8bno gzip", b"{}\n"])
def test_what_is_no_usage_is_refused_and_not_kept(own: Books, data: bytes) -> None:
    client = TestClient(make_app(Service(own.database, clock=lambda: NOW)))
    headers = {"Authorization": f"Bearer {make_token(own.database, 'admin')}"}
    answer = client.post("/v1/files", content=data, params={"name": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "UPLOAD_INVALID")
    assert own.rows(db.files) == []


def test_more_than_the_limit_is_cut_off(own: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of 1 GiB without a stated length: refused at the limit, then closed, nothing left on disk."""
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    token = make_token(own.database, "device")
    sent = 0

    def stream() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1024):
            sent += 1 << 20
            yield bytes(1 << 20)

    with running(Service(own.database, clock=lambda: NOW)) as url:
        headers = {"Authorization": f"Bearer {token}"}
        try:
            answer = requests.post(f"{url}/v1/files", data=stream(), headers=headers, timeout=60)
            assert (answer.status_code, answer.json()["code"]) == (413, "REQUEST_TOO_LARGE")
        except requests.ConnectionError:  # closed while it was still sending
            pass
        assert 64 << 20 < sent < 128 << 20
        said = {**headers, "Content-Length": str(1 << 40)}
        with socket.create_connection(url_address(url)) as connection:
            head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
            connection.sendall(f"POST /v1/files HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode())
            assert read_all(connection).startswith(b"HTTP/1.1 413 ")
    assert list(spool.iterdir()) == [] and own.rows(db.files) == []


def url_address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side closes; not for ever."""
    connection.settimeout(20)
    found = b""
    while data := connection.recv(65536):
        found += data
    return found


def test_slow_callers_are_let_go(own: Books) -> None:
    """A head that trickles, a body that stops, a body that trickles."""
    token = make_token(own.database, "device")
    with running(Service(own.database, limits=SMALL, clock=lambda: NOW)) as url:
        began = time.monotonic()
        with socket.create_connection(url_address(url)) as idle:
            assert read_all(idle) == b""
        with socket.create_connection(url_address(url)) as connection:
            connection.sendall(b"GET /v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            found = b""
            while b'"live"' not in found:
                found += connection.recv(4096)
            connection.sendall(b"GET /v1")
            assert read_all(connection) == b""  # the rest of the second head never came
        head = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 9000"
        post = f"POST /v1/files HTTP/1.1\r\n{head}\r\n\r\n"
        with socket.create_connection(url_address(url)) as connection:
            connection.sendall(post.encode() + b"x")
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"UPLOAD_SLOW" in answer
        with socket.create_connection(url_address(url)) as connection:
            connection.sendall(post.encode())
            stop = threading.Event()

            def trickle() -> None:
                while not stop.wait(0.1):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

            thread = threading.Thread(target=trickle)
            thread.start()
            try:
                answer = read_all(connection)
            except ConnectionResetError:  # closed while bytes of ours were on their way
                answer = b"HTTP/1.1 408 "
            stop.set()
            thread.join()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 15
        assert requests.get(f"{url}/v1/health/ready", timeout=5).json() == {"status": "ready"}


def test_a_caller_that_hangs_up_leaves_nothing(own: Books) -> None:
    token = make_token(own.database, "device")
    service = Service(own.database, clock=lambda: NOW)
    with running(service) as url:
        with socket.create_connection(url_address(url)) as connection:
            connection.sendall(
                f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
                "Content-Length: 9000\r\n\r\nabc".encode()
            )
        deadline = time.monotonic() + 10
        while service.uploading and time.monotonic() < deadline:
            time.sleep(0.02)
        assert service.uploading == 0
    assert own.rows(db.files) == []


def test_calls_are_counted_per_token() -> None:
    now = [0.0]
    meter = Meter(Limits(calls_per_s=2.0, burst=3), clock=lambda: now[0])
    for _ in range(3):
        meter.count("a")
    with pytest.raises(SealpackError) as refused:
        meter.count("a")
    assert refused.value.to_problem()["status"] == 429 and refused.value.to_problem()["retry_after"] >= 1
    meter.count("b")
    now[0] = 0.5
    meter.count("a")
    with pytest.raises(SealpackError, match="RATE_LIMITED"):
        meter.count("a")
    for number in range(10_001):
        meter.count(f"other {number}")
    assert len(meter._left) == 10_000


def test_too_many_calls_and_too_many_uploads(own: Books) -> None:
    service = Service(own.database, limits=Limits(burst=1, calls_per_s=0.001), clock=lambda: NOW)
    client = TestClient(make_app(service))
    headers = {"Authorization": f"Bearer {make_token(own.database, 'finance')}"}
    assert client.get("/v1/cases", headers=headers).status_code == 200
    refused = client.get("/v1/cases", headers=headers)
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 1
    busy = Service(own.database, clock=lambda: NOW)
    busy.uploading = 16
    assert call(busy, b"x", 429)["code"] == "CONCURRENCY_LIMIT"


# --- faults -------------------------------------------------------------------------------------------


def test_faults_of_ours_tell_nothing(own: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    own.learn(Device())
    monkeypatch.setattr(ingest, "ingest", broken)
    problem = call(Service(own.database, clock=lambda: NOW), Device().export(), 500)
    assert problem["code"] == "INTERNAL" and "secret" not in json.dumps(problem)


def test_a_database_that_is_full_is_told_and_may_be_tried_again(
    own: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SealpackError("STORE_FULL", "settlement database: database or disk is full")

    monkeypatch.setattr(ingest, "ingest", full)
    problem = call(Service(own.database, clock=lambda: NOW), Device().export(), 507)
    assert (problem["code"], problem["retry_after"]) == ("STORE_FULL", 60)


def test_what_the_database_says_is_not_for_callers(own: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise SealpackError("STORE_IO", "settlement database: no route to db.internal for user sealpack")

    service = Service(own.database)
    monkeypatch.setattr(own.database, "read", gone)
    for path, headers in (("/v1/health/ready", {}), ("/v1/cases", {"Authorization": "Bearer x"})):
        answer = TestClient(make_app(service)).get(path, headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["code"] == "STORE_IO" and "internal" not in answer.text
    assert TestClient(make_app(service)).get("/v1/health/live").status_code == 200


def test_killed_in_the_middle_nothing_that_was_answered_is_lost(own: Books, tmp_path: Path) -> None:
    """Killed while many upload; started again and sent again, everything is settled exactly once."""
    devices = [Device(number=number) for number in range(1, 7)]
    files = []
    for device in devices:
        for _ in range(6):
            start = 0 if not files or files[-1][0] is not device else device.size
            files.append((device, device.use(2).export(start)))
    own.learn(*devices)
    headers = {"Authorization": f"Bearer {make_token(own.database, 'device')}"}
    answered: list[str] = []

    def upload(url: str, mine: list[bytes]) -> None:
        for data in mine:
            try:
                found = requests.post(f"{url}/v1/files", data=data, headers=headers, timeout=30).json()
            except requests.RequestException:
                return
            answered.append(found["files"][0]["sha256"])

    with started(tmp_path) as (process, url):
        rows = [[data for one, data in files if one is device] for device in devices]
        threads = [threading.Thread(target=upload, args=(url, row)) for row in rows]
        for thread in threads:
            thread.start()
        while len(answered) < 8:
            time.sleep(0.005)
        process.kill()
        for thread in threads:
            thread.join()
    assert {*answered} <= {row["sha256"] for row in own.rows(db.files) if row["code"]}
    assert len(answered) < len(files)
    with started(tmp_path) as (_, url):
        upload(url, [data for _, data in files])
    assert [own.log(device).size for device in devices] == [device.size for device in devices]
    assert {*own.codes()} == {"OK"}
    assert reconcile(own.database, NOW).ok
    audit.verify(own.database)


@contextmanager
def started(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`settle serve` in a process of its own, and its address; what it says is in serve.log."""
    verb = ["settle", "--db", str(folder / "settlement.db"), "serve", "--port", "0", *words]
    log = folder / "serve.log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "sealpack.verifier", *verb], stderr=stream)
    try:
        while (found := re.search(r"listening on (\S+)\n", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1"), ("GET", "/v1/cases/"),
     ("GET", "/v2/files"), ("DELETE", "/v1/files"), ("GET", "/v1/files/../cases/x"),
     ("GET", "/docs"), ("PATCH", "/v1/health/live"), ("GET", "/v1/%1b[2J")],
)  # fmt: skip
def test_what_there_is_not(own: Books, method: str, path: str) -> None:
    answer = TestClient(make_app(Service(own.database))).request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_description_is_valid_and_open(own: Books) -> None:
    answer = TestClient(make_app(Service(own.database))).get("/openapi.json")
    assert answer.json() == openapi.document()
    validate(answer.json())


# --- running ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "settlement.example"])
def test_an_open_address_needs_tls_or_a_proxy(host: str) -> None:
    with pytest.raises(SealpackError, match="USAGE"):
        Address(host, 0).check()
    Address(host, 0, behind_proxy=True).check()
    Address(host, 0, "cert.pem", "key.pem").check()


def test_addresses_of_this_machine() -> None:
    for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"):
        Address(host, 0).check()
    with pytest.raises(SealpackError, match="--tls-cert and --tls-key"):
        Address("::1", 0, "cert.pem").check()


def test_a_taken_port_and_a_certificate_that_is_none(own: Books, tmp_path: Path) -> None:
    service = Service(own.database)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SealpackError, match="IO_ERROR"):
        server.serve(service, Address("127.0.0.1", taken.getsockname()[1]))
    (tmp_path / "x.pem").write_text("nothing")
    with pytest.raises(SealpackError, match="IO_ERROR"):
        server.serve(service, Address("::1", 0, str(tmp_path / "x.pem"), str(tmp_path / "x.pem")))


def test_over_tls(own: Books, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    address = Address("127.0.0.1", 0, str(certificate), str(key))
    with running(Service(own.database), address) as url:
        assert url.startswith("https:")
        assert requests.get(f"{url}/v1/health/live", verify=str(certificate), timeout=10).status_code == 200


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """token new, list, revoke; serve until it is told to stop."""
    database = str(tmp_path / "settlement.db")

    def settle(*words: str, status: int = 0) -> str:
        got = run(make_cli(), ["settle", "--db", database, *words])
        out, err = capsys.readouterr()
        assert got == status, out + err
        return str(out)

    text = settle(
        "token", "new", "ward 3", "--role", "device", "--customer", "hospital", "--days", "9"
    ).strip()
    assert text.startswith("sealpack_")
    settle("token", "new", "x", "--role", "device", "--customer", "a", "--license", "b", status=2)
    settle("token", "new", "office", "--role", "finance")
    assert text not in (listed := settle("token", "list")) and "customer:hospital" in listed
    settle("token", "revoke", "office")
    rows = json.loads(settle("token", "list", "--format", "json"))["tokens"]
    assert [(row["name"], row["state"]) for row in rows] == [("office", "revoked"), ("ward 3", "valid")]
    settle("serve", "--host", "0.0.0.0", status=2)

    own = Books.open(tmp_path).learn(Device())
    own.database.close()
    with started(tmp_path, "--key", str(settlement_pem(tmp_path))) as (process, url):
        headers = {"Authorization": f"Bearer {text}"}
        answer = requests.post(f"{url}/v1/files", data=Device().use(1).export(), headers=headers, timeout=30)
        assert answer.json()["files"][0]["code"] == "OK"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
    log = (tmp_path / "serve.log").read_text()
    assert "POST /v1/files" in log and text not in log and "Traceback" not in log


def test_keys_before_and_after_the_first_trust_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service is started with its keys on the first day; keys of somebody else are told at once."""
    key = settlement_pem(tmp_path)
    with started(tmp_path, "--key", str(key)) as (_, url):
        assert requests.get(f"{url}/v1/health/ready", timeout=10).status_code == 200
    assert "no trust file is imported yet" in (tmp_path / "serve.log").read_text()

    Books.open(tmp_path).learn(Device()).database.close()
    settlement_pem(tmp_path, PrivateKey.generate("ed25519"))
    database = str(tmp_path / "settlement.db")
    assert run(make_cli(), ["settle", "--db", database, "serve", "--port", "0", "--key", str(key)]) != 0
    assert "SIG_KEY_UNKNOWN" in capsys.readouterr().err


def test_many_upload_the_same_and_other_files_at_once(books: Books) -> None:
    """Each file is settled exactly once, whoever else is uploading it."""
    devices = [Device(number=number).use(number) for number in range(1, 5)]
    books.learn(*devices)
    token = make_token(books.database, "device")
    answers: list[tuple[str, Any]] = []

    def push(url: str, data: bytes) -> None:
        for _ in range(2):
            headers = {"Authorization": f"Bearer {token}"}
            answer = requests.post(f"{url}/v1/files", data=data, headers=headers, timeout=60)
            answers.append((answer.json()["files"][0]["sha256"], answer.json()))

    with running(Service(books.database, SIGNERS, Limits(burst=1000), clock=lambda: NOW)) as url:
        threads = [threading.Thread(target=push, args=(url, d.export())) for d in devices for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 24 and len({json.dumps(found) for _, found in answers}) == 4
    assert [books.log(device).size for device in devices] == [device.size for device in devices]
    uploads = [row for row in books.rows(db.audit) if '"upload"' in row["what"]]
    assert len(uploads) == 4


def test_without_the_extra(
    own: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert run(make_cli(), ["settle", "--db", str(tmp_path / "settlement.db"), "serve"]) == 2
    assert "pip install 'sealpack[service]'" in capsys.readouterr().err

"""Pushing usage over a network: to the real service, and to servers that break in every way there is."""

from __future__ import annotations

import hashlib
import http.server
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, Site, make_license, seal_license
from support.tls import make_certificate

pytest.importorskip("requests")

import sealpack.runtime
from sealpack.format.errors import SealpackError
from sealpack.format.license import PlanRef
from sealpack.runtime import push as pushing, receipts
from sealpack.runtime.push import TRIES, Line, push
from sealpack.verifier.cli.main import make_cli, run

HTML = b"<!doctype html><title>Sign in to the hotel</title>"
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def site(tmp_path: Path, tiny_models: dict[str, Path]) -> Site:
    """A device with some usage."""
    made = Site(tmp_path, tiny_models, world.make_trust()).ready()
    use(made)
    return made


def use(site: Site, calls: int = 2) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        for _ in range(calls):
            runtime.infer(INPUT)


def use_as(site: Site, license_id: str) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, license=license_id) as runtime:
        runtime.infer(INPUT)


def problem(code: str, **facts: Any) -> Answer:
    error = SealpackError(code, "no", **facts)
    body = error.to_problem()
    return body["status"], {"Content-Type": "application/problem+json"}, json.dumps(body).encode()


@dataclass
class Server:
    """A settlement service made of answers: `before` ones first, then a good one."""

    before: list[Answer | str] = field(default_factory=list)
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    reply: Callable[[str], bytes | None] = lambda _origin: None
    url: str = ""

    def answer(self, method: str, path: str, body: bytes) -> Answer | str:
        self.seen.append((method, path, body))
        if self.before:
            return self.before.pop(0)
        if method == "POST":
            digest = hashlib.sha256(body).hexdigest()
            self.files[digest] = "OK"
            row = {"sha256": digest, "code": "OK", "meaning": "accepted"}
            return 200, {}, json.dumps({"schema": "sealpack/uploaded/v1", "files": [row]}).encode()
        kind, _, name = path.removeprefix("/v1/").partition("/")
        if kind == "files" and name in self.files:
            row = {"sha256": name, "code": self.files[name], "meaning": "accepted"}
            return 200, {}, json.dumps(row).encode()
        if kind == "replies" and (data := self.reply(name)):
            return 200, {}, data
        return problem("NOT_FOUND")


@contextmanager
def serving(server: Server, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """The server on a free port. An answer "drop" closes the connection, "cut" stops in the middle."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.heads.append(dict(self.headers))
            answer = server.answer(self.command, self.path, body)
            if isinstance(answer, str):
                if answer == "cut":
                    self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"sha256"')
                self.close_connection = True
                return
            status, headers, data = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _do

        def log_message(self, *_: object) -> None:
            """Nothing."""

    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        found.socket = tls.wrap_socket(found.socket, server_side=True)
    server.url = f"http{'s' if tls else ''}://127.0.0.1:{found.server_address[1]}"
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        found.shutdown()
        thread.join()
        found.server_close()


@dataclass
class Naps:
    """Instead of sleeping."""

    taken: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


def pushed(site: Site, server: Server, naps: Naps | None = None, **more: Any) -> pushing.Done:
    with site.state() as state:
        return push(state, Line(server.url, **more), sleep=naps or Naps())


def refusal(site: Site, server: Server, naps: Naps | None = None, **more: Any) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        pushed(site, server, naps, **more)
    return caught.value


def acknowledging(site: Site) -> Callable[[str], bytes | None]:
    """Settlement's reply for everything that the log holds now."""
    with site.state() as state:
        (entry,) = receipts.pending(state)
        size, root = entry.log.size, entry.log.frontier.root.hex()
    return lambda origin: site.acknowledge(size, root, 1).to_bytes() if origin == entry.log.origin else None


def pending(site: Site) -> int:
    with site.state() as state:
        return sum(entry.news for entry in receipts.pending(state))


# --- good days --------------------------------------------------------------------------------------


def test_usage_goes_out_and_the_reply_comes_in(site: Site) -> None:
    with serving(Server()) as server:
        first = pushed(site, server, token="t0ken")
        (one,) = first.pushed
        assert (one.code, one.sent, first.taken.count) == ("OK", True, 0)
        again = pushed(site, server)  # nothing new, not acknowledged yet: the same file, not sent again
        assert [p.sent for p in again.pushed] == [False]
        assert [method for method, _, _ in server.seen].count("POST") == 1
        server.reply = acknowledging(site)
        done = pushed(site, server)
        assert len(done.taken.acknowledgements) == 1
        assert pending(site) == 0
        assert pushed(site, server).pushed == []
    assert server.heads[0]["Authorization"] == "Bearer t0ken"


def test_nothing_but_usage_files_is_sent(site: Site) -> None:
    with serving(Server()) as server:
        pushed(site, server)
    sent = [(method, path, body) for method, path, body in server.seen if body]
    assert [(method, path.partition("?")[0]) for method, path, _ in sent] == [("POST", "/v1/files")]
    with site.state() as state:
        (file,) = receipts.export(state, site.folder, reason="sync", all_logs=False)
    assert sent[0][2] == file.path.read_bytes()
    for head in server.heads:
        assert set(head) <= {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection", "Content-Type",
                             "Content-Length"}  # fmt: skip
        assert head["User-Agent"] == "sealpack"


def test_receipts_that_stay_on_the_machine_stay(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    made = Site(tmp_path, tiny_models, world.make_trust()).ready(make_license(receipts="local"))
    use(made)
    with serving(Server()) as server:
        assert pushed(made, server).pushed == []
    assert server.seen == []


def test_the_environment_decides_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = site.folder / "netrc"
    netrc.write_text("default login eve password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(Server()) as server:
        assert len(pushed(site, server).pushed) == 1
    assert not any("Authorization" in head for head in server.heads)


def test_a_proxy_is_used_when_it_is_named(site: Site) -> None:
    with serving(Server()) as server, site.state() as state:
        line = Line("http://settlement.invalid", proxy=server.url, insecure_http=True)
        assert len(push(state, line, sleep=Naps()).pushed) == 1
    assert server.seen[0][1].startswith("http://settlement.invalid/v1/files/")


def test_a_license_that_is_stopped_stops_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.activate(make_license(license_id="L-2"))
    use_as(site, "L-2")
    export = receipts.export

    def stopped(state: Any, folder: Path, *, license_id: str, **more: Any) -> list[receipts.Exported]:
        if license_id == "L-1":
            raise SealpackError("STATE_ROLLED_BACK", "set back too often")
        return export(state, folder, license_id=license_id, **more)

    monkeypatch.setattr(receipts, "export", stopped)
    with serving(Server()) as server:
        done = pushed(site, server)
    assert [p.file.license_id for p in done.pushed] == ["L-2"]
    assert {name: error.code for name, error in done.refused.items()} == {"L-1": "STATE_ROLLED_BACK"}


# --- bad lines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    ["drop", "cut", (500, {}, HTML), (502, {}, HTML), problem("STORE_FULL"), problem("STATE_LOCKED"),
     problem("RATE_LIMITED", retry_after_s=3), problem("UPLOAD_SLOW"), (429, {}, b"")],
    ids=["drop", "cut", "500", "502", "507", "503", "429", "408", "429 bare"],
)  # fmt: skip
@pytest.mark.parametrize("good", range(3), ids=["asking", "sending", "fetching"])
def test_trouble_that_passes_is_sat_out(site: Site, trouble: Answer | str, good: int) -> None:
    """Wherever it happens, everything arrives in the end, and once."""

    class Late(Server):
        def answer(self, method: str, path: str, body: bytes) -> Answer | str:
            if len(self.seen) == good:
                self.before = [trouble] * 2
            return super().answer(method, path, body)

    naps = Naps()
    with serving(Late()) as server:
        server.reply = lambda _origin: None
        done = pushed(site, server, naps)
        assert [p.code for p in done.pushed] == ["OK"] and len(naps.taken) == 2
        server.reply = acknowledging(site)
        pushed(site, server)
    assert pending(site) == 0


@pytest.mark.parametrize("trouble", ["drop", "cut", (503, {}, b"")])
@pytest.mark.parametrize("good", range(3), ids=["asking", "sending", "fetching"])
def test_trouble_that_lasts_is_told_and_nothing_is_lost(site: Site, trouble: Answer | str, good: int) -> None:
    before = pending(site)
    naps = Naps()

    class Late(Server):
        def answer(self, method: str, path: str, body: bytes) -> Answer | str:
            if len(self.seen) == good:
                self.before = [trouble] * TRIES
            return super().answer(method, path, body)

    with serving(Late()) as server:
        error = refusal(site, server, naps)
        assert (error.code, error.spec.exit) == ("PUSH_UNREACHABLE", 1) and "nothing was lost" in error.remedy
        assert len(naps.taken) == TRIES - 1 and naps.taken == sorted(naps.taken)
        assert pending(site) >= before
        server.reply = acknowledging(site)
        assert [p.code for p in pushed(site, server).pushed] == ["OK"]
    assert pending(site) == 0


def test_nobody_answers(site: Site) -> None:
    with serving(Server()) as server:
        pass
    assert refusal(site, server).code == "PUSH_UNREACHABLE"


def test_what_a_server_asks_for_is_waited_within_reason(site: Site) -> None:
    naps = Naps()
    asked = ["7", "100000", "Wed, 21 Oct 2026 07:28:00 GMT", "-1"]
    answers: list[Answer | str] = [(503, {"Retry-After": text}, b"") for text in asked]
    with serving(Server(answers)) as server:
        pushed(site, server, naps)
    for nap, low in zip(naps.taken, (7, 60, 4, 8), strict=True):
        assert low <= nap <= low * 1.25


@pytest.mark.parametrize(
    "answer",
    [(200, {}, HTML), (200, {}, b"[]"), (200, {}, b"{}"), (200, {}, b'{"sha256":"0","code":"OK"}'),
     (200, {}, b'{"code":1}'), (200, {}, b"[" * 5000), (200, {}, b" " * (1 << 20) + b"{}"), (204, {}, b""),
     (302, {"Location": "http://192.0.2.1/"}, b""), (404, {}, HTML), (418, {}, b"")],
    ids=["html", "list", "empty", "other file", "odd code", "deep", "long", "204", "redirect", "404", "418"],
)  # fmt: skip
def test_what_is_no_settlement_service_is_told_at_once(site: Site, answer: Answer) -> None:
    before = pending(site)
    naps = Naps()
    with serving(Server([answer])) as server:
        error = refusal(site, server, naps)
    assert (error.code, naps.taken, len(server.seen)) == ("PUSH_ANSWER", [], 1)
    assert pending(site) >= before


@pytest.mark.parametrize(("status", "code"), [(401, "TOKEN_INVALID"), (403, "ROLE_DENIED")])
def test_a_token_that_is_no_good(site: Site, status: int, code: str) -> None:
    for answer in (problem(code), (status, {}, HTML)):
        with serving(Server([answer])) as server:
            error = refusal(site, server)
        assert (error.code, error.spec.exit, len(server.seen)) == ("PUSH_REFUSED", 4, 1)


@pytest.mark.parametrize("answer", [problem("REQUEST_TOO_LARGE"), (413, {}, HTML), problem("UPLOAD_INVALID")])
def test_a_file_that_is_refused_does_not_stop_the_rest(site: Site, answer: Answer) -> None:
    with serving(Server([problem("NOT_FOUND"), answer])) as server:
        done = pushed(site, server)
        assert [error.code for error in done.refused.values()] == ["PUSH_REFUSED"]
        assert server.seen[-1][1].startswith("/v1/replies/")
        assert [p.code for p in pushed(site, server).pushed] == ["OK"]


def test_replies_that_are_none_or_for_others(site: Site) -> None:
    with serving(Server()) as server:
        server.reply = lambda _origin: HTML
        assert refusal(site, server).code == "PUSH_ANSWER"
        server.reply = lambda _origin: b" " * (5 << 20)
        assert refusal(site, server).code == "PUSH_ANSWER"
        server.reply = lambda _origin: site.acknowledge(1, "ab" * 32, 1).to_bytes()
        done = pushed(site, server)
        assert next(iter(done.refused.values())).spec.exit != 1 and done.taken.count == 0
    assert pending(site) > 0


# --- addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "settlement.example", "ftp://x", "https://", "https://eve@x", "https://x/?a", "https://x/#a", "http://[x",
     "https://x:99999", "http://settlement.example", "http://192.0.2.1", "https://.", "https://a..b",
     "https://\u2028", "https://[::1%25x", "https://" + "a" * 70 + ".example", "https://*.example"],
)  # fmt: skip
def test_addresses_that_are_not_used(site: Site, url: str) -> None:
    with site.state() as state, pytest.raises(SealpackError, match="USAGE"):
        push(state, Line(url), sleep=Naps())


@pytest.mark.parametrize("proxy", ["http://", "://", "http://[x", "http:///x", "x y"])
def test_proxies_that_are_none(site: Site, proxy: str) -> None:
    with site.state() as state, pytest.raises(SealpackError) as caught:
        push(state, Line("https://settlement.example", proxy=proxy), sleep=Naps())
    assert caught.value.code in ("USAGE", "PUSH_UNREACHABLE")


def test_plain_http_only_where_nobody_listens() -> None:
    for url in (
        "http://127.0.0.1:1",
        "http://localhost/a",
        "http://[::1]:1",
        "https://settlement.example/base",
    ):
        Line(url).check()
    Line("http://settlement.example", insecure_http=True).check()
    with pytest.raises(SealpackError, match="USAGE"):
        Line("http://127.0.0.1:1", proxy="http://proxy.example").check()


def test_a_certificate_nobody_vouches_for(site: Site, tls: tuple[Path, str]) -> None:
    """Told at once, with what to do; with --ca it is taken."""
    certificate, url = tls
    naps = Naps()
    with site.state() as state:
        with pytest.raises(SealpackError, match="PUSH_UNREACHABLE") as caught:
            push(state, Line(url), sleep=naps)
        assert "--ca" in caught.value.remedy and naps.taken == []
        assert len(push(state, Line(url, ca=certificate), sleep=naps).pushed) == 1
        nothing = site.folder / "nothing.pem"
        nothing.write_text("nothing")
        with pytest.raises(SealpackError, match="PUSH_UNREACHABLE"):
            push(state, Line(url, ca=nothing), sleep=naps)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A server with a certificate of its own making."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(Server(), context) as server:
        yield certificate, server.url


def test_the_verb(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    token = site.folder / "token"
    token.write_text("t0ken\n")

    def receipts_push(*words: str, status: int) -> str:
        got = run(make_cli(), ["receipts", "push", *words, "--state", str(site.state_dir)])
        out, err = capsys.readouterr()
        assert got == status, out + err
        return str(out + err)

    with serving(Server([problem("NOT_FOUND"), problem("REQUEST_TOO_LARGE")])) as server:
        assert "PUSH_REFUSED" in receipts_push(server.url, status=5)
        found = json.loads(
            receipts_push(server.url, "--token-file", str(token), "--format", "json", status=0)
        )
        assert [f["code"] for f in found["files"]] == ["OK"]
        server.files = {digest: "H201" for digest in server.files}
        assert "H201" in receipts_push(server.url, status=5)
        server.reply = acknowledging(site)
        assert "imported 1 document" in receipts_push(server.url, status=5)
        assert "nothing to send" in receipts_push(server.url, status=0)
    receipts_push("http://settlement.example", status=2)
    assert server.heads[-1].get("Authorization") is None


# --- the real service -------------------------------------------------------------------------------


def test_from_the_device_to_settlement_and_back(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    """One verb: what was used is settled, and the next lease is here."""
    pytest.importorskip("uvicorn")
    from support import rating_plans
    from support.books import SIGNERS, Books
    from support.service import make_token, running

    from sealpack.format.registry import BundleFact, RegistryLine
    from sealpack.settlement import db, registry
    from sealpack.settlement.service.app import Service

    now = int(time.time())
    site = Site(tmp_path, tiny_models, world.make_trust()).pin()
    build = site.install()
    drafted = make_license(plan=PlanRef("example", 1), issued_at=now - 3600)
    site.activate(drafted, {"calls": 1000})
    use(site, 5)
    books = Books.open(tmp_path)
    books.take("trust.json", site.trust.to_bytes())
    with books.database.write() as connection:
        registry.put_plan(connection, rating_plans.make_plan())
    fact = BundleFact(build.bundle_digest, "acme/tiny", build.version, 1, "Tiny")
    books.take("registry.jsonl", RegistryLine(seal_license(drafted), bundles=(fact,)).to_bytes() + b"\n")
    token = make_token(books.database, "device", "license:L-1")
    before = pending(site)
    with running(Service(books.database, SIGNERS)) as url, site.state() as state:
        done = push(state, Line(url, token))
        assert [(p.code, p.sent) for p in done.pushed] == [("OK", True)] and before
        assert len(done.taken.acknowledgements) == len(done.taken.leases) == 1
        again = push(state, Line(url, token))
        assert (again.pushed, again.taken.count) == ([], 0)
        with pytest.raises(SealpackError, match="TOKEN_INVALID"):
            use(site)
            push(state, Line(url, token[:-1]))
    assert sum(row["calls"] for row in books.rows(db.rollups)) == 5
    books.database.close()


def test_a_service_that_decides_later_is_waited_for(site: Site) -> None:
    kept = [json.dumps({"sha256": "x", "state": "waiting"}).encode()]
    server, naps = Server(), Naps()

    def later(method: str, path: str, body: bytes) -> Answer | str:
        server.seen.append((method, path, body))
        if method == "POST":
            digest = hashlib.sha256(body).hexdigest()
            kept[0] = json.dumps({"sha256": digest, "state": "waiting"}).encode()
            return 202, {}, b'{"files":[' + kept[0] + b"]}"
        asked = [m for m, p, _ in server.seen if m == "GET" and p.startswith("/v1/files/")]
        if not path.startswith("/v1/files/") or len(asked) == 1:
            return problem("NOT_FOUND")
        row = json.loads(kept[0])
        return (
            200,
            {},
            json.dumps(row if len(asked) < 4 else row | {"code": "OK", "meaning": "accepted"}).encode(),
        )

    server.answer = later  # type: ignore[method-assign]
    with serving(server):
        done = pushed(site, server, naps)
    assert [(p.code, p.sent, p.is_kept) for p in done.pushed] == [("OK", True, False)]
    assert naps.taken == [1.0, 2.0, 4.0]


def test_a_service_that_does_not_decide_in_time_still_has_the_file(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()

    def never(method: str, path: str, body: bytes) -> Answer | str:
        server.seen.append((method, path, body))
        digest = hashlib.sha256(body).hexdigest() if body else path.rpartition("/")[2]
        row = {"sha256": digest, "state": "failed"}
        if method == "POST":
            return 202, {}, json.dumps({"files": [row]}).encode()
        posted = any(m == "POST" for m, _, _ in server.seen)
        return (200, {}, json.dumps(row).encode()) if posted and "/files/" in path else problem("NOT_FOUND")

    server.answer = never  # type: ignore[method-assign]
    with serving(server):
        push_it = ["receipts", "push", server.url, "--state", str(site.state_dir), "--wait", "0"]
        assert run(make_cli(), push_it) == 0
        assert capsys.readouterr().out.startswith("kept  receipts 0 to ")
        assert run(make_cli(), push_it) == 0
    assert [m for m, _, _ in server.seen].count("POST") == 1  # the second time it is only asked after
    assert pending(site)


# --- without ----------------------------------------------------------------------------------------


def test_nobody_who_does_not_push_loads_a_network_library() -> None:
    code = (
        "import sys, sealpack.runtime, sealpack.runtime.push, sealpack.runtime.cli.receipts\n"
        "sys.exit(any(name in sys.modules for name in ('requests', 'urllib3', 'http.client')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_without_the_library(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with site.state() as state, pytest.raises(SealpackError, match="EXTRA_MISSING"):
        push(state, Line("https://settlement.example"))


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX-Other: 1", "ß\u2028"])
def test_a_token_that_is_more_than_a_token(site: Site, token: str) -> None:
    with serving(Server()) as server:
        assert refusal(site, server, token=token).code == "USAGE"
    assert server.seen == []

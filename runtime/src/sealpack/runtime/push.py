"""Bringing usage to the settlement service over a network: the one module of the runtime that uses one.

Source: specs/service.md, "Pushing". It runs only when its verb is called. What leaves the machine are usage
files, as `sync` would put them on a stick, their digests and the names of their logs. Receipts stay in the
state until an acknowledgement says that they were settled, so a push that breaks anywhere is simply done
again: the usage file is then the same one, and the service is asked for it by digest before it is sent.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.runtime import imports, receipts
from sealpack.runtime.imports import Taken
from sealpack.runtime.receipts import Exported
from sealpack.runtime.state import State
from sealpack.runtime.sync import merge

if TYPE_CHECKING:
    import requests

TRIES = 6
_WAIT_S = 1.0  # before the second try, doubled for each one after
_MAX_WAIT_S = 60.0  # also for what a server asks for
_CONNECT_S, _READ_S = 20.0, 120.0
_ANSWER_S = 300.0  # for a whole answer, however slowly it trickles
_ANSWER_BYTES = 1 << 20
_AGAIN = (408, 425, 429, 500, 502, 503, 504, 507)
_THIS_FILE = (400, 413, 415)  # a refusal of one file, which says nothing of the others
_TOKEN = re.compile(r"[!-~]{1,512}")
_SAID = 200  # characters of a service's words that are shown
WAIT_S = 120.0  # for a service that keeps files and decides them later
_MAX_POLL_S = 15.0
_KEPT = "the service has it and decides later"


@dataclass(frozen=True, slots=True)
class Line:
    """How to reach the service: its address, a token, and how the way there is secured."""

    url: str
    token: str | None = None
    ca: Path | None = None
    proxy: str | None = None
    insecure_http: bool = False
    private: bool = False  # send running totals, no single call

    def check(self) -> None:
        """USAGE for an address or token that is none, or an address where others could read along."""
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise SealpackError(
                "USAGE", "what is given as a token is none", remedy="give a file with --token-file"
            )
        try:
            found = urlsplit(self.url)
            host, _ = found.hostname, found.port
        except ValueError:
            host = None
        odd = not host or found.scheme not in ("http", "https") or "@" in found.netloc
        if odd or found.query or found.fragment:
            raise SealpackError("USAGE", "the address must be like https://settlement.example")
        plain = found.scheme == "http" and not (_is_loopback(host or "") and self.proxy is None)
        if plain and not self.insecure_http:
            raise SealpackError(
                "USAGE", f"http to {host} can be read on the way, the token too",
                remedy="give an https address, or --insecure-http if you know that nobody listens",
            )  # fmt: skip

    @property
    def host(self) -> str:
        """Whom we talk to, for messages."""
        return urlsplit(self.url).netloc


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Pushed:
    """One usage file that the service has, and what it made of it; no `code` while it only keeps it."""

    file: Exported
    digest: str
    code: str
    meaning: str
    sent: bool  # False: the service had it from an earlier try

    @property
    def is_kept(self) -> bool:
        """Whether the service has it and will decide later."""
        return not self.code

    @property
    def is_accepted(self) -> bool:
        """Whether nobody needs to look at it."""
        return self.code[:1] in ("O", "W")


@dataclass(slots=True)
class Done:
    """What a push did. `refused` maps names of files and logs to why they were not taken."""

    pushed: list[Pushed] = field(default_factory=list)
    taken: Taken = field(default_factory=Taken)
    refused: dict[str, SealpackError] = field(default_factory=dict)


def push(
    state: State, line: Line, *, wait_s: float = WAIT_S, sleep: Callable[[float], None] = time.sleep
) -> Done:
    """Export what is pending, upload it, and import the replies to every log.

    Files are sent even when one of them is refused. A service that decides later is waited for, `wait_s`
    seconds in all; what it has not decided then it still has. USAGE, PUSH_UNREACHABLE, PUSH_REFUSED (for the
    token), PUSH_ANSWER; EXTRA_MISSING; everything that `receipts.export` raises.
    """
    line.check()
    done = Done()
    with _Service(line, sleep) as service, tempfile.TemporaryDirectory(prefix="sealpack-push-") as folder:
        for file in _export(state, Path(folder), done, private=line.private):
            try:
                done.pushed.append(_upload(service, file))
            except SealpackError as error:
                if error.facts.get("status") not in _THIS_FILE:
                    raise
                done.refused[file.path.name] = error
        done.pushed = _await(service, done.pushed, wait_s)
        for origin in _origins(state, done.pushed):
            _fetch(service, state, origin, done)
    return done


def _export(state: State, folder: Path, done: Done, *, private: bool) -> list[Exported]:
    """Usage files of every license; one whose log nobody may go on with stops no other one's."""
    names = dict.fromkeys(
        e.license.license_id for e in receipts.pending(state) if e.license.receipts == "required"
    )
    files = []
    for name in names:
        try:
            files += receipts.export(
                state, folder, license_id=name, reason="sync", all_logs=False, private=private
            )
        except SealpackError as error:
            if error.code not in ("STATE_ROLLED_BACK", "DEVICE_CLOSED"):
                raise
            done.refused[name] = error
    return files


def _origins(state: State, pushed: Iterable[Pushed]) -> list[str]:
    """Logs that may have an answer: those whose receipts are to be settled, and those just sent."""
    required = [e.log.origin for e in receipts.pending(state) if e.license.receipts == "required"]
    return list(dict.fromkeys([*required, *(p.file.origin for p in pushed)]))


def _upload(service: _Service, file: Exported) -> Pushed:
    """Send a file unless the service has it and has decided about it."""
    data = read_bounded(file.path, LIMITS.usage_file_bytes)
    digest = hashlib.sha256(data).hexdigest()
    known = service.json("GET", f"v1/files/{digest}", missing_ok=True)
    sent = known is None or (known.get("sha256") == digest and not {"code", "state"} & known.keys())
    if sent:
        answer = service.json("POST", f"v1/files?name={quote(file.path.name)}", data) or {}
        rows = answer.get("files")
        known = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    assert known is not None
    return _told(service, file, digest, known, sent)


def _told(service: _Service, file: Exported, digest: str, known: dict[str, Any], sent: bool) -> Pushed:
    """What the service says of a file: what it decided, or that it keeps it."""
    later = known.get("state") in ("waiting", "failed")
    code, meaning = known.get("code", "" if later else None), known.get("meaning", "")
    if known.get("sha256") != digest or not isinstance(code, str) or not isinstance(meaning, str):
        raise service.strange("it does not tell what became of the file")
    return Pushed(file, digest, code[:8], meaning[:_SAID] if code else _KEPT, sent)


def _await(service: _Service, pushed: list[Pushed], wait_s: float) -> list[Pushed]:
    """Ask again for what is only kept, less often each time."""
    pause, waited = _WAIT_S, 0.0
    while any(p.is_kept for p in pushed) and waited < wait_s:
        pause = min(pause, wait_s - waited, _MAX_POLL_S)
        service.pause(pause)
        waited, pause = waited + pause, 2 * pause
        pushed = [_look(service, p) if p.is_kept else p for p in pushed]
    return pushed


def _look(service: _Service, pushed: Pushed) -> Pushed:
    known = service.json("GET", f"v1/files/{pushed.digest}", missing_ok=True) or {}
    return _told(service, pushed.file, pushed.digest, known, pushed.sent)


def _fetch(service: _Service, state: State, origin: str, done: Done) -> None:
    """Import the newest reply to a log, where there is one."""
    data = service.call("GET", f"v1/replies/{quote(origin)}", limit=LIMITS.parcel_bytes, missing_ok=True)
    if data is None:
        return
    try:
        parcel = Parcel.from_bytes(data, "reply")
    except SealpackError:
        raise service.strange("it sends no reply") from None
    try:
        merge(done.taken, imports.take(state, [parcel]))
    except SealpackError as error:
        if error.code in ("LIC_SUPERSEDED", "DEVICE_CLOSED"):  # told before; `sync` passes over it, too
            done.taken.known += 1
            return
        if error.spec.exit == 1:
            raise
        done.refused[origin] = error


class _Service:
    """The settlement service as seen from here: tries again where that may help, believes nothing else."""

    def __init__(self, line: Line, sleep: Callable[[float], None]) -> None:
        try:
            import requests
        except ModuleNotFoundError:
            raise SealpackError(
                "EXTRA_MISSING", "pushing needs requests, which is not installed",
                remedy="pip install 'sealpack[runtime]'",
            ) from None  # fmt: skip
        self._errors = requests.exceptions
        self._line, self._sleep = line, sleep
        self._session = _session(requests.Session(), line)

    def __enter__(self) -> _Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def pause(self, seconds: float) -> None:
        """Wait."""
        self._sleep(seconds)

    def json(
        self, method: str, path: str, body: bytes | None = None, *, missing_ok: bool = False
    ) -> dict[str, Any] | None:
        """The JSON object that is answered; PUSH_ANSWER when it is none."""
        data = self.call(method, path, body, missing_ok=missing_ok)
        if data is None:
            return None
        found = _object(data)
        if found is None:
            raise self.strange("it answers with something else than JSON")
        return found

    def call(
        self, method: str, path: str, body: bytes | None = None, *, limit: int = _ANSWER_BYTES,
        missing_ok: bool = False,
    ) -> bytes | None:  # fmt: skip
        """The body of a good answer; None for what is not there, where that may be.

        PUSH_UNREACHABLE after the last try, PUSH_REFUSED, PUSH_ANSWER.
        """
        wait = _WAIT_S
        for tries in range(1, TRIES + 1):
            try:
                status, headers, data = self._once(method, path, body, limit)
            except ValueError as error:  # requests' own for addresses are of this kind, as are urllib3's
                raise SealpackError("USAGE", self._said(error)) from None
            except self._errors.SSLError as error:
                remedy = "check the address; --ca FILE names the certificate of your own authority"
                raise SealpackError("PUSH_UNREACHABLE", self._said(error), remedy=remedy) from None
            except self._errors.RequestException as error:
                why, pause = _reason(error), wait
            else:
                if status in (200, 202):
                    return data
                problem = _problem(headers, data)
                if status == 404 and missing_ok and problem.get("code") == "NOT_FOUND":
                    return None
                if status not in _AGAIN:
                    raise self._refused(status, problem)
                why = f"answer {status}: {problem.get('detail') or 'no reason given'}"
                pause = _asked(headers) or wait
            if tries < TRIES:
                self._sleep(min(pause, _MAX_WAIT_S) * random.uniform(1.0, 1.25))
            wait *= 2
        raise SealpackError("PUSH_UNREACHABLE", f"{self._line.host} after {TRIES} tries: {why}"[: 2 * _SAID])

    def _once(self, method: str, path: str, body: bytes | None, limit: int) -> tuple[int, Any, bytes]:
        """One exchange: status, headers, body; a body that was cut or is too slow is a connection error."""
        url = f"{self._line.url.rstrip('/')}/{path}"
        started = time.monotonic()
        with self._session.request(
            method, url, data=body, timeout=(_CONNECT_S, _READ_S), allow_redirects=False, stream=True
        ) as answer:
            found = bytearray()
            for piece in answer.iter_content(65_536):
                found += piece
                if len(found) > limit:
                    raise self.strange(f"its answer is longer than {limit:,} bytes")
                if time.monotonic() - started > _READ_S + _ANSWER_S:
                    raise self._errors.ReadTimeout("the answer takes too long")
            said = answer.headers.get("Content-Length", "")
            if said.isdigit() and "Content-Encoding" not in answer.headers and len(found) != int(said[:12]):
                raise self._errors.ConnectionError("the answer was cut off")
            return answer.status_code, answer.headers, bytes(found)

    def _refused(self, status: int, problem: dict[str, Any]) -> SealpackError:
        """What is told for a status that trying again does not change."""
        if 400 <= status < 500 and problem:
            said = f"{problem.get('code')}: {problem.get('detail')}"[:_SAID]
            return SealpackError("PUSH_REFUSED", f"{self._line.host} says {said}", status=status)
        if status in (401, 403, 413):  # proxies, too, say this, in words for people
            return SealpackError("PUSH_REFUSED", f"{self._line.host} answers {status}", status=status)
        where = " and points elsewhere, where nothing is sent" if 300 <= status < 400 else ""
        return self.strange(f"it answers {status}{where}")

    def _said(self, error: Exception) -> str:
        return f"{self._line.host}: {_reason(error)}"[:_SAID]

    def strange(self, why: str) -> SealpackError:
        """An answer that no settlement service gives."""
        return SealpackError("PUSH_ANSWER", f"{self._line.host}: {why}")


def _session(session: requests.Session, line: Line) -> requests.Session:
    """A session that takes nothing from the environment: neither proxies nor passwords of a .netrc."""
    session.trust_env = False
    said = {"User-Agent": "sealpack", "Accept-Encoding": "identity", "Content-Type": "application/gzip"}
    session.headers.update(said)
    if line.token is not None:
        session.headers["Authorization"] = f"Bearer {line.token}"
    if line.ca is not None:
        session.verify = str(line.ca)
    if line.proxy is not None:
        session.proxies = {"http": line.proxy, "https": line.proxy}
    return session


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _problem(headers: Any, data: bytes) -> dict[str, Any]:
    """A problem document, as far as it is one."""
    if not headers.get("Content-Type", "").startswith("application/problem+json"):
        return {}
    return _object(data) or {}


def _asked(headers: Any) -> float | None:
    """Seconds that a server asks to wait; dates are left to our own patience."""
    said = headers.get("Retry-After", "")
    return float(said[:6]) if said.isascii() and said.isdigit() else None


def _reason(error: Exception) -> str:
    """In a few words: the innermost reason, not the whole chain."""
    words = " ".join(str(error).split())
    return words.rpartition(": ")[2].strip("\"')( ") or type(error).__name__

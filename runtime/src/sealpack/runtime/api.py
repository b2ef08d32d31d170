"""The Python API, which the command line itself uses.

>>> runtime = sealpack.runtime.open("acme/minilm")          # doctest: +SKIP
>>> runtime.embed(["hello"]).value["embeddings"][0][:2]     # doctest: +SKIP

Opening checks the license before one byte of the model is parsed. Every call is admitted, reserved,
computed and receipted; an answer is returned only after its receipt is durable.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.io import ModelIo
from sealpack.format.keys import PrivateKey
from sealpack.format.manifest import Manifest
from sealpack.format.records import COST_CENTRE
from sealpack.runtime import (
    admission,
    anchors,
    clones,
    closing,
    device,
    epochs,
    holds,
    imports,
    lapses,
    log,
    rights,
    site_codes,
    store,
    timekeeper,
    unlock,
)
from sealpack.runtime.admission import Build, Facts, Verdict, Warning
from sealpack.runtime.engines import choose
from sealpack.runtime.engines.base import Call, Description, Embed, Generate, Infer, Options, Session, Usage
from sealpack.runtime.holds import PROGRESS_TOKENS, Receipt
from sealpack.runtime.home import open_home
from sealpack.runtime.ledger import MAX_BLOCK, Ledger, Ticket
from sealpack.runtime.log import Log
from sealpack.runtime.owners import Owner
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import State
from sealpack.runtime.store import OpenBundle
from sealpack.runtime.timekeeper import Moment

OnText = Callable[[str], bool | None]
_COST_CENTRE_RULE = "1 to 64 letters, digits, spaces or ._/-"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave: `value` is JSON-ready, `receipt` is what was written about it."""

    value: dict[str, Any]
    receipt: Receipt
    warnings: tuple[Warning, ...] = ()

    @property
    def meters(self) -> Mapping[str, int]:
        """What was used: calls, tok_in, tok_out, ms, items."""
        return self.receipt.meters


def open(
    bundle_id: str,
    *,
    state: str | os.PathLike[str] | None = None,
    license: str | None = None,
    threads: int | None = None,
    context: int | None = None,
    environment: str | None = None,
    high_rate: bool = False,
) -> Runtime:
    """Open an installed bundle for use.

    `bundle_id` is an id (newest release), `id@version` or a bundle digest; `state` the state directory;
    `license` a license id where several apply; `threads` and `context` (tokens) as the engine takes them.
    `environment`, `live` or `test`, refuses a license of the other kind (ENV_MISMATCH).
    With `high_rate`, receipts of short calls are written together, some 100 ms later at most: an answer may
    precede its receipt, and a power cut costs up to 1 % of the quota that is left, at most 1,000 calls.
    Raises the first check that fails, in the order of specs/runtime-state.md.
    """
    if context is not None and context < 1:
        raise SealpackError("USAGE", f"context is {context}, not 1 token or more")
    if environment not in (None, "live", "test"):
        raise SealpackError("USAGE", f"environment is {environment!r}, not live or test")
    database = State(open_home(state))
    try:
        options = Options(threads, context)
        return Runtime(database, bundle_id, license, options, environment, high_rate=high_rate)
    except BaseException:
        database.close()
        raise


class Runtime:
    """A loaded, licensed model. Safe to use from several threads; calls run one at a time.

    Open it in the process that uses it: it does not survive a fork.
    """

    def __init__(
        self,
        state: State,
        bundle_id: str,
        license: str | None,
        options: Options,
        environment: str | None = None,
        *,
        high_rate: bool = False,
    ) -> None:
        """Use :func:`open`."""
        self._state = state
        self._environment = environment
        self._high_rate = high_rate
        self._books = contextlib.ExitStack()
        self._books.callback(state.close)
        self._bundle: OpenBundle | None = None
        self._session: Session | None = None
        self._turn = threading.RLock()
        self._running = False
        self._machine = device.Surroundings(state.home)
        found = store.find(state, bundle_id)
        self._bundle = store.open_installed(state, found)
        try:
            self._open(self._bundle, license)
            self._session = choose.load(self._bundle.model(self._input_key(self._bundle)), options)
        except BaseException:
            self._close()
            raise

    def _open(self, bundle: OpenBundle, license: str | None) -> None:
        self._build = rights.build_of(bundle.installed)
        self._rights = self._choose(bundle, license)
        self._key = self._device_key()
        license_id = self._rights.license.license_id
        self._ledger = Ledger(
            self._state,
            self._key,
            Owner(self._state.home, license_id),
            block=MAX_BLOCK if self._high_rate else 1,
        )
        self._books.callback(self._ledger.close)
        self._route = _route(bundle, self._rights)
        if epochs.is_due(self._state, self._key, license_id):
            with self._state.write() as db:
                epochs.catch_up(db, self._key, self._rights, timekeeper.observe(db))
        with self._state.read() as db:
            self._fingerprint = rights.fingerprint(db, license_id)
            found = log.find(db, license_id)
            if found is not None:
                holds.check(db, found, self._key.public)
            holds.tidy(db, self._state.home)
        self.standing = self._stand()

    def _choose(self, bundle: OpenBundle, license: str | None) -> Rights:
        """The installed license that applies, else one that rides in the bundle.

        That one binds no device, or lets an install begin before it is activated.
        """
        try:
            return installed_rights(self._state, self._build, license, self._environment)
        except SealpackError as error:
            carried = bundle.licenses()
            if error.code not in ("LIC_MISSING", "BUNDLE_MISMATCH") or not carried:
                raise
        imports.take(self._state, [Parcel(carried)])
        return installed_rights(self._state, self._build, license, self._environment)

    def _device_key(self) -> PrivateKey:
        """This device's key, before anything is signed with it: a copied state has another one or none."""
        activation = self._rights.activation
        key = device.key(self._state.home, create=activation is None)
        if activation is not None and activation.device_id != device.name(key):
            raise admission.refusal(
                self._rights.license,
                "DEVICE_MISMATCH",
                f"license is for device {activation.device_id}, this is {device.name(key)}",
            )
        return key

    def _input_key(self, bundle: OpenBundle) -> bytes | None:
        """What opens an encrypted bundle; asked for when the license's own checks have passed."""
        if bundle.manifest.encryption is None:
            return None
        rights, digest = self._rights, bundle.installed.bundle_digest
        held = rights.activation.keys if rights.activation else ()
        if all(key.bundle_digest != digest for key in held):
            by_code = site_codes.input_key(self._state, rights.license, digest)
            if by_code is not None:
                return by_code
        return unlock.input_key(self._state.home, rights.activation, digest)

    def _stand(self) -> Verdict:
        """The checks that can be made before the model is loaded; a refusal is noted in the log."""
        with self._state.write() as db:
            moment = timekeeper.observe(db)
            found = log.find(db, self._rights.license.license_id)
            facts = self._facts(db, found, moment)
            device.note_drift(db, found, self._key, facts.hardware, moment)
        try:
            return admission.check_standing(facts)
        except SealpackError as error:
            self._ledger.deny(error)
            raise

    def _facts(self, db: sqlite3.Connection, found: Log | None, moment: Moment) -> Facts:
        self._refresh(db)
        refusal = closing.refusal(db, self.license_id)
        if refusal is not None:
            raise refusal
        facts = facts_of(db, self._rights, self._build, device.name(self._key), found, moment, self._machine)
        return replace(facts, environment=self._environment)

    def _refresh(self, db: sqlite3.Connection) -> None:
        """Take over documents that another process imported since."""
        license_id = self._rights.license.license_id
        now = rights.fingerprint(db, license_id)
        if now != self._fingerprint:
            self._rights = rights.read(db, license_id, anchors.current(db))
            self._fingerprint = now

    @property
    def license_id(self) -> str:
        """The license that applies."""
        return self._rights.license.license_id

    @property
    def features(self) -> tuple[str, ...]:
        """The words of the license's `features`."""
        return self._rights.license.features

    def require(self, *features: str) -> None:
        """FEATURE_NOT_LICENSED unless the license has all these words, which are the vendor's own."""
        admission.require_features(self._rights.license, features, "the application")

    def describe(self) -> Description:
        """What is loaded."""
        return self._loaded().describe()

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self._opened().manifest

    @property
    def io(self) -> ModelIo:
        """How the model is fed and read, with the bundle's own samples."""
        return self._opened().io

    def _opened(self) -> OpenBundle:
        if self._bundle is None:
            raise _closed()
        return self._bundle

    def _loaded(self) -> Session:
        if self._session is None:
            raise _closed()
        return self._session

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: OnText | None = None,
        cost_centre: str | None = None,
    ) -> Answer:
        """Continue `prompt`. `on_text` gets each piece as it is produced.

        False from `on_text` ends the call, and so does an exception; either way it is receipted as cancelled
        and what was produced is counted.
        """
        call = Generate(prompt, max_tokens, temperature, seed)
        return self.run(call, on_text=on_text, cost_centre=cost_centre)

    def embed(self, texts: Sequence[str], *, cost_centre: str | None = None) -> Answer:
        """One embedding per text, under `embeddings`."""
        return self.run(Embed(tuple(texts)), cost_centre=cost_centre)

    def infer(self, inputs: Mapping[str, Any], *, cost_centre: str | None = None) -> Answer:
        """Run the model on named arrays (nested lists of numbers)."""
        return self.run(Infer(inputs), cost_centre=cost_centre)

    def run(self, call: Call, *, on_text: OnText | None = None, cost_centre: str | None = None) -> Answer:
        """Admit, reserve, compute and receipt one call."""
        arrived = time.monotonic_ns()
        if cost_centre is not None and not re.fullmatch(COST_CENTRE, cost_centre):
            raise SealpackError(
                "INPUT_INVALID",
                f"cost centre {cost_centre[:80]!r} is not {_COST_CENTRE_RULE}",
                remedy="choose another name",
            )
        with self._my_turn():
            # Refused input costs nothing: it is refused before anything is reserved.
            prepared = self._loaded().prepare(call)
            streaming = isinstance(call, Generate)
            ticket = self._ledger.reserve(self._route, prepared.bound, self._facts, streaming=streaming)
            self._wait(ticket)
            meter = _Meter(self._ledger, ticket, on_text, arrived)
            try:
                result = prepared.run(meter.on_token if streaming else None)
            except BaseException as error:
                self._failed(error, meter, prepared.bound, cost_centre)
                raise
            status = "cancel" if result.cancelled else "ok"
            receipt = meter.settle(status, result.used, cost_centre)
        return Answer(result.value, receipt, ticket.verdict.warnings)

    @contextlib.contextmanager
    def _my_turn(self) -> Iterator[None]:
        """One call at a time. A call from within `on_text` would wait for itself: USAGE."""
        with self._turn:
            if self._running:
                raise SealpackError(
                    "USAGE",
                    "the runtime is in use by the call that on_text belongs to",
                    remedy="return from on_text first, or open a second runtime",
                )
            self._running = True
            try:
                yield
            finally:
                self._running = False

    def _wait(self, ticket: Ticket) -> None:
        """What throttling asks for. Who gives up while waiting has used nothing.

        What an advisory license let pass is written down before.
        """
        try:
            lapses.note_waived(self._state, self._key, self.license_id, ticket.verdict)
            if ticket.verdict.delay_ms:  # even sleeping for no time takes longer than a small call
                time.sleep(ticket.verdict.delay_ms / 1000)
        except BaseException:
            self._ledger.release(ticket)
            raise

    def _failed(self, error: BaseException, meter: _Meter, bound: Usage, cost_centre: str | None) -> None:
        """Receipt a call that broke off: what the caller stopped is a cancel, anything else an error."""
        stopped = meter.stopped or isinstance(error, KeyboardInterrupt)
        used = Usage(bound.tok_in, meter.produced, bound.items)
        meter.settle("cancel" if stopped else "err", used, cost_centre)

    def close(self) -> None:
        """Free the model and the state, after the call that runs. Closing twice is harmless."""
        with self._my_turn():
            self._close()

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._bundle is not None:
            self._bundle.close()
            self._bundle = None
        self._books.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _closed() -> SealpackError:
    return SealpackError("USAGE", "this runtime is closed", remedy="open it again")


class _Meter:
    """Measures one running call and makes a stream's progress durable."""

    def __init__(self, ledger: Ledger, ticket: Ticket, on_text: OnText | None, arrived: int) -> None:
        self._ledger, self._ticket, self._on_text = ledger, ticket, on_text
        self._began = time.monotonic_ns()
        self._wait_ms = (self._began - arrived) // 1_000_000
        self.produced = 0
        self.stopped = False  # by an exception of the caller's own

    def on_token(self, piece: str, produced: int) -> bool:
        self.produced = produced
        if produced % PROGRESS_TOKENS == 0:
            self._ledger.progress(self._ticket, produced, self._ms())
        if self._on_text is None:
            return True
        try:
            return self._on_text(piece) is not False
        except BaseException:
            self.stopped = True
            raise

    def _ms(self) -> int:
        return -(-(time.monotonic_ns() - self._began) // 1_000_000)  # rounded up: nothing is free

    def settle(self, status: str, used: Usage, cost_centre: str | None) -> Receipt:
        return self._ledger.settle(self._ticket, status, used, self._ms(), self._wait_ms, cost_centre)


def facts_of(
    db: sqlite3.Connection,
    found: Rights,
    build: Build,
    device_id: str,
    history: Log | None,
    moment: Moment,
    surroundings: device.Surroundings,
) -> Facts:
    """What admission looks at for a license and a build on this machine."""
    license = found.license
    accepted = db.execute(
        "SELECT 1 FROM terms WHERE license_id=? AND terms_digest=?",
        (license.license_id, license.use.terms_digest),
    ).fetchone()
    glass = lapses.glass(db, found)
    return Facts(
        license,
        found.activation,
        found.lease,
        found.trust.revocations,
        device_id,
        build,
        moment.times,
        epoch=history.epoch if history else 0,
        started=history.started if history else None,
        terms_accepted=accepted is not None,
        clone_suspect=clones.is_suspect(db, license.license_id),
        virtual_machine=surroundings.virtual_machine,
        container=surroundings.container,
        hardware=surroundings.compare(db, license, found.activation),
        key_store=surroundings.key_store,
        root_version=found.trust.root.version,
        calls=lapses.calls(db, license.license_id),
        first_use=lapses.provisional(db, license.license_id),
        glass=glass.spent if glass else None,
    )


def installed_rights(
    state: State, build: Build, wanted: str | None, environment: str | None = None
) -> Rights:
    with state.read() as db:
        trusts = anchors.current(db)
        names = rights.license_ids(db) if wanted is None else [wanted]
        return rights.choose(rights.standing(db, names, trusts), build, wanted, environment)


def _route(bundle: OpenBundle, found: Rights) -> dict[str, Any]:
    """What a usage record's route stands for: license, build, model, tokenizer, terms and plan."""
    license = found.license
    tokenizer = bundle.role_digest("tokenizer", "vocabulary")
    return {
        "license_id": license.license_id,
        "seq": license.seq,
        "bundle_digest": bundle.installed.bundle_digest,
        "model_digest": bundle.manifest.model.sha256,
        "terms": license.use.terms_digest,
        **({"tokenizer_digest": tokenizer} if tokenizer else {}),
        **({"plan": {"id": license.plan.id, "version": license.plan.version}} if license.plan else {}),
    }

"""What attacks need: a dump of the state, refusals, other processes, documents of every kind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support import evidence, world
from support.site import T0, Site, make_license, seal_license

import sealpack.runtime
from sealpack.format import canonical, documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, Lease, log_origin
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import open_evidence
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Delegation, Devices, open_license
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.reading import Reading
from sealpack.format.records import Registers
from sealpack.format.repair import Repair
from sealpack.format.trust import Trust
from sealpack.runtime import device, log, receipts, rights
from sealpack.runtime.api import Runtime

WRONG_ROLE = PrivateKey.from_scalar(0x1005)  # in the keyring of :func:`trust`, with a role nothing here needs

DELEGATE = PrivateKey.from_seed(b"sealpack-test-adversarial-deleg.")


def open_runtime(site: Site, name: str = "tiny", **options: Any) -> Runtime:
    """A runtime for one of the site's bundles."""
    return sealpack.runtime.open(f"acme/{name}", state=site.state_dir, threads=1, **options)


def dump(site: Site, *, clock: bool = True) -> str:
    """Everything the database says, as SQL; without the clock where time goes on meanwhile."""
    with site.state() as state, state.read() as db:
        return "\n".join(
            line for line in db.iterdump() if clock or not line.startswith('INSERT INTO "clock"')
        )


def statuses(site: Site) -> list[str]:
    """The statuses of all calls; the log must be whole and nothing may be held any more."""
    with site.state() as state:
        assert receipts.verify_log(state, 1) == []
        with state.read() as db:
            assert db.execute("SELECT coalesce(sum(reserved), 0) FROM counters").fetchone() == (0,)
            found = [r for r in receipts.recent(db, 1, 100_000) if r.kind == "u"]
    return [record.body["status"] for record in found]


def members(envelope: Envelope) -> dict[str, Any]:
    """The payload without its schema, to be changed and signed again."""
    payload: dict[str, Any] = canonical.loads(envelope.payload)
    return {name: value for name, value in payload.items() if name != "schema"}


@contextlib.contextmanager
def child(site: Site, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Python code in a process beside us, with `open(name)` for the site's bundles; killed at the end."""
    prelude = (
        "import os, signal, sys, sealpack.runtime as s\n"
        "from sealpack.format.errors import SealpackError\n"
        f"def open(name): return s.open(name, state={str(site.state_dir)!r}, threads=1)\n"
    )
    command = [sys.executable, "-c", prelude + code, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: subprocess.Popen[str], text: str) -> None:
    """Send a process a line."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


# --- documents of every kind -------------------------------------------------------------------------


@dataclass(frozen=True)
class Exhibit:
    """A good document, who may sign it, and how its reader and a device take it.

    `companions` go into the same parcel; a document that devices do not import has `imported` False.
    """

    envelope: Envelope
    signer: PrivateKey
    read: Callable[[Envelope], object]
    companions: tuple[Envelope, ...] = ()
    imported: bool = True

    def parcel(self, data: bytes) -> bytes:
        """The parcel file with `data` in the place of the document."""
        rest = b"".join(b"," + other.to_bytes() for other in self.companions)
        return b'{"documents":[' + data + rest + b'],"schema":"sealpack/parcel/v1"}'


def trust() -> Trust:
    """The vendor's trust, with an assessor and a key whose role signs none of the exhibits."""
    entries = [
        world.key_entry(world.CREATOR, ["bundle"]),
        world.key_entry(world.LICENSER, ["license"]),
        world.key_entry(world.SETTLEMENT, ["settlement", "ack"]),
        world.key_entry(evidence.ASSESSOR, ["evidence"]) | {"issuer": evidence.ASSESSOR_NAME},
        world.key_entry(WRONG_ROLE, ["witness"]),
    ]
    return Trust.from_envelopes(
        world.make_root(), world.make_keyring(entries=entries), world.make_revocations()
    )


def staged(site: Site) -> Site:
    """A device activated for L-1 under :func:`trust`, without any bundle."""
    site.trust = trust()
    site.pin()
    site.activate()
    return site


def exhibits(site: Site) -> dict[str, Exhibit]:
    """A good new document of every kind for a :func:`staged` device. A new kind is one entry here."""
    believed = site.trust
    root, keyring, revocations = believed.envelopes
    request = device_request(site)
    answered = site.reply(ActivationRequest.open(request), make_license(license_id="L-2"))
    license, activation, _ = answered.documents
    name = device.name(device.key(site.home))
    with site.state() as state, state.read() as db:
        first = log.by_id(db, 1)
    newer = make_license(seq=2)
    return {
        "root": Exhibit(
            world.make_root(2), world.ROOT, lambda e: Trust.from_envelopes(e, keyring, revocations)
        ),
        "keyring": Exhibit(
            documents.seal("keyring", members(keyring) | {"version": 2}, world.ROOT),
            world.ROOT,
            lambda e: Trust.from_envelopes(root, e, revocations),
        ),
        "revocations": Exhibit(
            world.make_revocations(2), world.ROOT, lambda e: Trust.from_envelopes(root, keyring, e)
        ),
        "license": Exhibit(seal_license(newer), world.LICENSER, lambda e: open_license(e, believed)),
        "activation": Exhibit(
            activation, world.LICENSER, lambda e: Activation.open(e, believed, world.ISSUER), (license,)
        ),
        "lease": Exhibit(
            site.lease(name, "L-1", 5, {"calls": 7}),
            world.SETTLEMENT,
            lambda e: Lease.open(e, believed, world.ISSUER),
        ),
        "acknowledgement": Exhibit(
            site.acknowledge(first.size, first.frontier.root.hex(), 1).documents[0],
            world.SETTLEMENT,
            lambda e: Acknowledgement.open(e, believed, world.ISSUER),
        ),
        "activation-request": Exhibit(request, device.key(site.home), ActivationRequest.open, imported=False),
        "evidence": Exhibit(
            evidence.sealed(), evidence.ASSESSOR, lambda e: open_evidence(e, believed), imported=False
        ),
    } | later_exhibits(site, believed)


def later_exhibits(site: Site, believed: Trust) -> dict[str, Exhibit]:
    """What came after the first kinds: leave for a further log, repairs, closed seats, sub-licenses."""
    key, name = device.key(site.home), device.name(device.key(site.home))
    asked = ActivationRequest.open(device_request(site))
    repair = Repair("L-1", name, asked.digest, asked.nonce, T0 + 5, now=T0 + 5)
    closed = Deactivation(
        "L-1", key.public, 0, log_origin("L-1", name, 0), 2, "ab" * 32, "cd" * 32, "ef" * 16, T0, {"calls": 1}
    )
    parent = make_license(
        license_id="L-3", devices=Devices("key", 10), delegation=Delegation((DELEGATE.public.pem,))
    )
    above = seal_license(parent)
    stated = {"license_id": "L-3", "seq": 1, "digest": above.digest}
    below = documents.seal(
        "sublicense", {"license_id": "L-3.ward", "seq": 1, "issued_at": T0, "parent": stated}, DELEGATE
    )
    answer = Activation("L-3.ward", below.digest, name, asked.device_key, asked.digest, asked.nonce, T0)
    return {
        "epoch-token": Exhibit(
            documents.seal("epoch-token", EpochToken("L-1", name, 1, T0).to_dict(), world.SETTLEMENT),
            world.SETTLEMENT,
            lambda e: EpochToken.open(e, believed, world.ISSUER),
        ),
        "repair": Exhibit(
            documents.seal("repair", repair.to_dict(), world.LICENSER),
            world.LICENSER,
            lambda e: Repair.open(e, believed, world.ISSUER),
        ),
        "deactivation": Exhibit(
            documents.seal("deactivation", closed.to_dict(), key), key, Deactivation.open, imported=False
        ),
        "reading": Exhibit(
            documents.seal("reading", reading(key, log_origin("L-1", name, 0)).to_dict(), key),
            key,
            Reading.open,
            imported=False,
        ),
        "sublicense": Exhibit(
            below,
            DELEGATE,
            lambda e: rights.chain(e, above, [believed]),
            (above, documents.seal("activation", answer.to_dict(), DELEGATE)),
        ),
    }


def reading(key: PrivateKey, origin: str) -> Reading:
    """What the meters of a log show, signed."""
    point = Checkpoint(origin, 5, bytes(32))
    registers = Registers({("r1", "ok", "calls"): 7})
    return Reading(
        key.public, point, sign_checkpoint(point, key), registers, {"r1": (1, "ab" * 32)}, T0 * 1000
    )


def device_request(site: Site) -> Envelope:
    """A signed activation request of this device."""
    with site.state() as state:
        return device.request(state, site.trust, T0)


def take(site: Site, data: bytes) -> bool:
    """Import a parcel file; whether anything in it was taken over."""
    taken = site.take(Parcel.from_bytes(data))
    return bool(taken.count or taken.trust)


def offer(site: Site, exhibit: Exhibit, data: bytes) -> str:
    """Hand changed bytes to the reader and to the device: the reader's code; neither may accept them."""
    with pytest.raises(SealpackError) as caught:
        exhibit.read(Envelope.from_bytes(data))
    if exhibit.imported:
        with contextlib.suppress(SealpackError):
            assert not take(site, exhibit.parcel(data)), "a device took over a changed document"
    return caught.value.code

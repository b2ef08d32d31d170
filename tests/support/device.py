"""A device that lives in memory: it keeps a genuine log and writes genuine usage files.

What a runtime does with a database, a clock and a disk, this does with a list, so that settlement's tests
can have any device, in any trouble, in milliseconds. Keys are test keys.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sealpack.format import documents, records
from sealpack.format.activation import Activation, device_id, log_origin
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, Customer, Devices, License, PlanRef, Use
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.reading import Reading
from sealpack.format.records import Registers
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.format.tallies import write_tallies
from sealpack.format.trust import Trust
from sealpack.format.usage import BLOCK_LEAVES, Block, UsageHeader, write_usage
from support import world

T0 = world.T0
BUNDLE = BundleFact(hashlib.sha256(b"test bundle").hexdigest(), "acme/tiny", "1.0.0", 1, "Tiny")
MODEL = hashlib.sha256(b"test model").hexdigest()
RUNTIME = hashlib.sha256(b"test runtime").hexdigest()


def make_license(**members: Any) -> License:
    """A metered license of the vendor for `BUNDLE`, under price plan example/1; fields as told."""
    default = License(
        license_id="L-1",
        seq=1,
        issued_at=T0,
        issuer=world.ISSUER,
        customer=Customer("hospital", "Hospital Nord"),
        bundles=(BundleGrant("acme/tiny"),),
        use=Use("11" * 32),
        devices=Devices("key"),
        tier="commercial",
        billing="metered",
        support="help@acme.example",
        plan=PlanRef("example", 1),
    )
    return replace(default, **members)


def seal_license(license: License) -> Envelope:
    """Sign a license as the vendor does."""
    return documents.seal("license", license.to_dict(), world.LICENSER)


@dataclass
class Device:
    """One activated machine and its log under one license; begins with genesis and boot records."""

    license: License = field(default_factory=make_license)
    number: int = 1
    label: str | None = "ward 3"
    epoch: int = 0
    now_ms: int = T0 * 1000
    trust: Trust = field(default_factory=world.make_trust)
    leaves: list[bytes] = field(default_factory=list)
    registers: Registers = field(default_factory=Registers)
    boot: int = 0
    key: PrivateKey = field(init=False)
    first_key: PrivateKey = field(init=False)
    handovers: dict[int, PrivateKey] = field(default_factory=dict)  # block end -> the key before
    activated: int | None = None  # the log that the activation names; this one when None
    before: dict[str, Any] = field(default_factory=dict)  # `previous` and `carried` of the first record

    def __post_init__(self) -> None:
        self.key = self.first_key = PrivateKey.from_seed(
            hashlib.sha256(b"test device %d" % self.number).digest()
        )
        self.put(
            records.GENESIS,
            origin=self.origin,
            device=self.key.public.pem,
            license=self.license_envelope.digest,
            activation=self.activation.digest,
            root=self.trust.root_digest,
            epoch=self.epoch,
            **self.before,
        )
        self.start()

    # --- who it is --------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The device's name."""
        return device_id(self.first_key.public)

    @property
    def origin(self) -> str:
        """The name of its log."""
        return log_origin(self.license.license_id, self.id, self.epoch)

    @property
    def license_envelope(self) -> Envelope:
        """The signed license."""
        return seal_license(self.license)

    @property
    def activation(self) -> Envelope:
        """What the vendor answered this device."""
        made = Activation(
            license_id=self.license.license_id,
            license_digest=self.license_envelope.digest,
            device_id=self.id,
            device_key=self.first_key.public,
            request_digest="22" * 32,
            nonce="33" * 16,
            issued_at=T0,
            epoch=self.epoch if self.activated is None else self.activated,
            device_label=self.label,
        )
        return documents.seal("activation", made.to_dict(), world.LICENSER)

    def line(self, *bundles: BundleFact) -> bytes:
        """The registry line of the license with this device's activation."""
        made = RegistryLine(self.license_envelope, self.activation, bundles=bundles or (BUNDLE,))
        return made.to_bytes() + b"\n"

    def parcel(self) -> bytes:
        """The `*.license` file the device was activated with."""
        return Parcel((*self.trust.envelopes, self.license_envelope, self.activation)).to_bytes()

    # --- what it does -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Receipts so far."""
        return len(self.leaves)

    def put(self, kind: str, **members: Any) -> None:
        """Append one record of any kind, true or not."""
        record = records.make(
            kind,
            position=members.pop("position", self.size),
            boot=members.pop("boot", max(self.boot, 1)),
            time_ms=members.pop("time_ms", self.now_ms),
            skew_ms=0,
            uptime_ms=members.pop("uptime_ms", self.now_ms - T0 * 1000 + 1),
            **members,
        )
        self.registers.add(record)
        self.leaves.append(records.encode(record))

    def start(self, **route: Any) -> None:
        """A runtime starts: the boot record with the one route, its members as told."""
        self.boot += 1
        entry = {
            "license_id": self.license.license_id,
            "seq": self.license.seq,
            "bundle_digest": BUNDLE.bundle_digest,
            "model_digest": MODEL,
        } | route
        self.put(
            records.BOOT,
            nonce=f"{self.boot:032x}",
            runtime={"version": "0.2.0", "digest": RUNTIME},
            routes={"r1": entry},
        )

    def wait(self, ms: int) -> Device:
        """Let time pass."""
        self.now_ms += ms
        return self

    def until(self, time_ms: int) -> Device:
        """Let time pass up to an instant, UTC ms."""
        self.now_ms = max(self.now_ms, time_ms)
        return self

    def use(self, calls: int = 1, status: str = "ok", **meters: int) -> Device:
        """One usage record, `calls` calls of the same kind in it."""
        counted = {"calls": calls, "tok_in": 7, "tok_out": 12, "ms": 31} | meters
        self.put(records.USAGE, route="r1", status=status, meters=counted, wait_ms=0)
        return self

    def spend(self, cost_centre: str, tok_out: int) -> Device:
        """One usage record that names a cost centre."""
        meters = {"calls": 1, "tok_out": tok_out}
        self.put(
            records.USAGE, route="r1", status="ok", meters=meters, wait_ms=0, cost_centre=cost_centre
        )  # fmt: skip
        return self

    def work(self, count: int, step_ms: int = 60_000) -> Device:
        """`count` usage records, one every `step_ms`, no two alike, with the tallies a runtime writes."""
        for _ in range(count):
            self.wait(step_ms).use(tok_out=1 + self.size % 97, status="err" if self.size % 11 == 0 else "ok")
            if self.size % 50 == 0:
                self.tally()
        return self

    def tally(self) -> Device:
        """Write the registers down."""
        self.put(records.TALLY, registers=self.registers.to_tally())
        return self

    def lose(self, **meters: int) -> Device:
        """An unclean stop destroyed a reservation."""
        self.put(records.LOST, route="r1", meters=meters or {"calls": 1, "ms": 400})
        return self

    def rotate(self, number: int) -> Device:
        """Hand the log over to another key; the block that says so carries both signatures."""
        following = PrivateKey.from_seed(hashlib.sha256(b"test device %d" % number).digest())
        self.put(records.ROTATED, device=following.public.pem, reason="scheduled")
        self.handovers[self.size] = self.key
        self.key = following
        return self

    def clone(self) -> Device:
        """A copy of the whole machine, as it is now: from here on two logs have one identity."""
        return copy.deepcopy(self)

    def restored(self, **before: Any) -> Device:
        """The next log, begun because this one's database was set back: what its mark said, or as told."""
        carried = dict(self.before.get("carried", {}).get(BUNDLE.bundle_digest, {}))
        for (_, _, meter), amount in self.registers.totals.items():
            carried[meter] = carried.get(meter, 0) + amount
        root = self.frontier(self.size).root.hex()
        said = {
            "previous": {"origin": self.origin, "size": self.size, "root": root},
            **({"carried": {BUNDLE.bundle_digest: carried}} if carried else {}),
        }
        return Device(
            self.license,
            self.number,
            self.label,
            self.epoch + 1,
            self.now_ms,
            self.trust,
            activated=self.epoch if self.activated is None else self.activated,
            before={name: member for name, member in (said | before).items() if member is not None},
        )

    # --- what leaves it ---------------------------------------------------------------------------

    def frontier(self, size: int) -> Frontier:
        """The tree over the first `size` receipts."""
        return Frontier().extend(map(leaf_hash, self.leaves[:size]))

    def export(self, start: int = 0, end: int | None = None, **header: Any) -> bytes:
        """The usage file with receipts [start, end), in blocks of at most 256."""
        stream = io.BytesIO()
        write_usage(stream, self.header(start, end, **header), self.blocks(start, end))
        return stream.getvalue()

    def tallies(self, start: int = 0, end: int | None = None, **header: Any) -> bytes:
        """The tally file with receipts [start, end): totals and proofs, no single call."""
        stream = io.BytesIO()
        stop = self.size if end is None else end
        keys = [self.key_at(start)] + ([self.key_at(stop)] if stop in self.handovers else [])
        write_tallies(stream, self.header(start, end, **header), self.leaves[start:stop], keys)
        return stream.getvalue()

    def reading(self, size: int | None = None, **members: Any) -> bytes:
        """The meter reading of the first `size` receipts, as a document; members as told."""
        stop = self.size if size is None else size
        registers, used_at = Registers(), 0
        for leaf in self.leaves[:stop]:
            registers.add(record := records.parse_record(leaf))
            used_at = record.time_ms if record.kind in (records.USAGE, records.LOST) else used_at
        checkpoint = Checkpoint(self.origin, stop, self.frontier(stop).root)
        note = sign_checkpoint(checkpoint, self.key_at(stop))
        default = Reading(
            self.key_at(stop).public, checkpoint, note, registers,
            {"r1": (self.license.seq, BUNDLE.bundle_digest)}, used_at,
        )  # fmt: skip
        made = replace(default, **members)
        sealed = documents.seal("reading", made.to_dict(), self.key_at(stop))
        return Parcel((sealed,)).to_bytes()

    def header(self, start: int = 0, end: int | None = None, **members: Any) -> UsageHeader:
        """The header of such a file."""
        default = UsageHeader(
            origin=self.origin,
            file_seq=1,
            start=start,
            end=self.size if end is None else end,
            reason="manual",
            opened=T0 * 1000,
            last=self.now_ms,
            lost=0,
            frontier=self.frontier(start),
            device_key=self.key_at(start).public,
            runtime_version="0.2.0",
            runtime_digest=RUNTIME,
            activation=self.activation.to_dict(),
        )
        return replace(default, **members)

    def key_at(self, size: int) -> PrivateKey:
        """The key that signs the first checkpoint after `size` receipts."""
        return next((old for end, old in sorted(self.handovers.items()) if size < end), self.key)

    def blocks(self, start: int = 0, end: int | None = None) -> list[Block]:
        """Signed blocks, cut where the position is a multiple of 256 and after a key rotation."""
        stop = self.size if end is None else end
        cuts = {*range(start - start % BLOCK_LEAVES + BLOCK_LEAVES, stop, BLOCK_LEAVES), stop}
        cuts |= {end for end in self.handovers if start < end < stop}
        made, before = [], start
        for cut in sorted(cuts):
            made.append(self.block(before, cut))
            before = cut
        return made

    def block(self, start: int, end: int) -> Block:
        """One signed block."""
        root = self.frontier(end).root
        keys = [self.key_at(start)] + ([self.key_at(end)] if end in self.handovers else [])
        note = sign_checkpoint(Checkpoint(self.origin, end, root), *keys)
        return Block(tuple(self.leaves[start:end]), note)


def registry(*devices: Device, bundles: Iterable[BundleFact] = (BUNDLE,)) -> bytes:
    """A registry file with a line for each device."""
    return b"".join(device.line(*bundles) for device in devices)

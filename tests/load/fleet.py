"""Fleets of devices from a seed: genuine logs and usage files in all the trouble that sticks have.

Receipts are written as bytes, hashed and signed in bulk; nothing of settlement is used, so the truth that
comes with the files owes nothing to the code that is tested with them.
"""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.device import T0, Device, make_license, registry as registry_lines

from sealpack.format.license import Customer, Devices, License
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.records import Registers
from sealpack.format.usage import BLOCK_LEAVES, CHECKPOINT_PREFIX

QUARTER_MS = 900_000
DAY_MS = 86_400_000
MONTH = datetime(2026, 10, 1, tzinfo=UTC)
MONTH_MS = int(MONTH.timestamp()) * 1000
NOW = int(datetime(2026, 11, 3, tzinfo=UTC).timestamp())
OFFICE_QUARTERS = 36  # from 08:00 to 17:00 UTC
WORKDAYS = [day for day in range(30) if (MONTH.weekday() + day) % 7 < 5]
USAGE = (
    b'{"b":%d,"k":"u","meters":{"calls":1,"ms":%d,"tok_in":%d,"tok_out":%d},"n":%d,"route":"r1",'
    b'"status":"%s","t":%d,"u":%d,"v":1,"w":0,"wait_ms":0}'
)
_STARTED_MS = T0 * 1000 - 1  # uptimes go on from what :class:`Device` writes
TAKEN = "taken"  # a file that ends accepted, whatever its flags

# What happens to a device's files, and how often.
TROUBLES = {"straight": 8, "shuffled": 4, "again": 3, "torn": 2, "torn_and_sent_again": 2, "gap": 1,
            "fork": 1, "set_back": 2, "rotated": 1, "lost": 1}  # fmt: skip


@dataclass
class Truth:
    """What settlement must know at the end: per log size and root, per license totals, per file code."""

    logs: dict[str, tuple[int, str]] = field(default_factory=dict)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)  # license -> meter -> amount
    files: dict[str, str] = field(default_factory=dict)  # name -> code, or TAKEN
    receipts: int = 0  # that are settled

    def add(self, other: Truth) -> None:
        """Join what another part of the fleet must give."""
        self.logs |= other.logs
        self.files |= other.files
        self.receipts += other.receipts
        for license_id, meters in other.totals.items():
            self.totals[license_id] = dict(Counter(self.totals.get(license_id, {})) + Counter(meters))

    def settle(self, device: Bulk, size: int | None = None) -> None:
        """So many receipts of a log are settled; all of them when not told."""
        size = device.size if size is None else size
        self.logs[device.origin] = (size, device.frontier(size).root.hex())
        self.receipts += size
        self.bill(device.license.license_id, device.used(size))

    def bill(self, license_id: str, meters: Counter[str]) -> None:
        """Amounts that the license is billed."""
        self.totals[license_id] = dict(Counter(self.totals.get(license_id, {})) + meters)

    def to_json(self) -> str:
        """The text that :meth:`from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """What :meth:`to_json` wrote."""
        said = json.loads(text)
        said["logs"] = {origin: (size, root) for origin, (size, root) in said["logs"].items()}
        return cls(**said)


class Bulk(Device):
    """A device that works fast: a tree kept per block, usage records written as bytes."""

    def frontier(self, size: int) -> Frontier:
        """The tree over the first `size` receipts; complete blocks are hashed once."""
        known: list[Frontier] = self.__dict__.setdefault("_blocks", [Frontier()])
        while len(known) <= size // BLOCK_LEAVES:
            start = known[-1].size
            known.append(known[-1].extend(map(leaf_hash, self.leaves[start : start + BLOCK_LEAVES])))
        before = known[size // BLOCK_LEAVES]
        return before.extend(map(leaf_hash, self.leaves[before.size : size]))

    def month(self, receipts: int, rng: random.Random) -> Bulk:
        """About so many records over the month's office hours, with the tallies a runtime writes."""
        quarters = [(day, quarter) for day in WORKDAYS for quarter in range(32, 32 + OFFICE_QUARTERS)]
        per = max(1, min(receipts, receipts // len(quarters) + 1))
        busy = sorted(rng.sample(quarters, min(len(quarters), max(1, receipts // per))))
        left = receipts
        for at, (day, quarter) in enumerate(busy):
            count = min(left, per) if at + 1 < len(busy) else left
            self._quarter(MONTH_MS + day * DAY_MS + quarter * QUARTER_MS, count, rng)
            left -= count
        return self

    def _quarter(self, start_ms: int, count: int, rng: random.Random) -> None:
        step, leaves, totals = max(1, QUARTER_MS // (count + 1)), self.leaves, self.registers.totals
        said = 0
        for _ in range(count):
            self.now_ms = max(self.now_ms, start_ms) + step
            dice = rng.getrandbits(24)
            ms, tok_in, tok_out = 20 + (dice & 0xFF), 1 + (dice >> 8 & 0x1FF), 1 + (dice >> 17)
            status = "ok" if dice % 29 else "err"
            leaves.append(
                USAGE % (self.boot, ms, tok_in, tok_out, len(leaves), status.encode(), self.now_ms,
                         self.now_ms - _STARTED_MS)
            )  # fmt: skip
            for meter, amount in (("calls", 1), ("ms", ms), ("tok_in", tok_in), ("tok_out", tok_out)):
                key = ("r1", status, meter)
                totals[key] = totals.get(key, 0) + amount
            said += 1
            if said == 250:
                self.tally()
                said = 0
        self.tally()

    def restored(self, **before: Any) -> Bulk:
        """As of any device, and as fast."""
        later = super().restored(**before)
        return Bulk(**{f.name: getattr(later, f.name) for f in fields(Device) if f.init} | {"boot": 0,
                    "leaves": [], "registers": Registers(), "now_ms": self.now_ms})  # fmt: skip

    def used(self, size: int) -> Counter[str]:
        """What the first `size` receipts meter, read from the receipts themselves if not all."""
        if size == self.size:
            total: Counter[str] = Counter()
            for (_, _, meter), amount in self.registers.totals.items():
                total[meter] += amount
            return total
        found: Counter[str] = Counter()
        for leaf in self.leaves[:size]:
            found.update(json.loads(leaf).get("meters", {}))
        return found


# --- trouble ------------------------------------------------------------------------------------------------

File = tuple[bytes, str]  # bytes, what becomes of them


def files_of(device: Bulk, receipts: int, trouble: str, rng: random.Random, truth: Truth) -> list[File]:
    """A month's files of a device, in the order in which they arrive; what is settled goes to `truth`."""
    if trouble == "fork":
        return _fork(device, receipts, rng, truth)
    if trouble == "set_back":
        return _set_back(device, receipts, rng, truth)
    device.month(receipts // 2, rng)
    if trouble == "rotated":
        device.rotate(device.number + 1_000_000)
    if trouble == "lost":
        device.lose(calls=1, ms=400)
        device.start()
    _on(device, receipts - receipts // 2)
    cuts = sorted(rng.sample(range(3, device.size), min(2, device.size - 3)))
    if trouble == "straight":
        truth.settle(device)
        return [(device.export(), TAKEN)]
    parts = [device.export(a, b) for a, b in zip([0, *cuts], [*cuts, device.size], strict=True)]
    if trouble == "gap":
        truth.settle(device, cuts[0])
        return [(parts[0], TAKEN), *((part, "H201") for part in parts[2:])]
    if trouble.startswith("torn"):
        return _torn(device, rng, truth, again=trouble != "torn")
    truth.settle(device)
    files = [(part, TAKEN) for part in parts]
    if trouble == "shuffled":
        rng.shuffle(files)
    elif trouble == "again":
        files.insert(1, files[0])
        files.append((device.export(max(0, cuts[0] - 300)), TAKEN))
    return files


def _on(device: Bulk, receipts: int) -> None:
    """More work, after what the month brought: on its last days, one second apart."""
    start = max(device.now_ms, MONTH_MS + 28 * DAY_MS)
    rng = random.Random(device.number)
    for begin in range(0, receipts, 500):
        device._quarter(start + begin // 500 * QUARTER_MS, min(500, receipts - begin), rng)


def _torn(device: Bulk, rng: random.Random, truth: Truth, *, again: bool) -> list[File]:
    whole = device.export()
    torn = whole[: rng.randrange(len(whole) // 2, len(whole) - 1)]
    kept = survivors(torn)
    code = TAKEN if kept else "R301"
    truth.settle(device, device.size if again else kept)
    if not (again or kept):
        del truth.logs[device.origin]
    return [(torn, code), *([(whole, TAKEN)] if again else [])]


def survivors(torn: bytes) -> int:
    """How many receipts stand before the last whole checkpoint line of a file from position 0."""
    plain = zlib.decompressobj(wbits=31).decompress(torn)
    count = found = 0
    for line in plain.split(b"\n")[1:-1]:
        if line.startswith(CHECKPOINT_PREFIX):
            found = count
        else:
            count += 1
    return found


def _fork(device: Bulk, receipts: int, rng: random.Random, truth: Truth) -> list[File]:
    device.month(receipts // 2, rng)
    other = device.clone()
    other.__dict__.pop("_blocks", None)
    size = device.size
    _on(device, receipts - receipts // 2)
    other.wait(7)
    _on(other, 40)
    truth.settle(device)
    return [(device.export(), TAKEN), (other.export(rng.randrange(size)), "H210")]


def _set_back(device: Bulk, receipts: int, rng: random.Random, truth: Truth) -> list[File]:
    """The first log's end never comes: it is billed from what the next one carries over."""
    device.month(receipts // 2, rng)
    later = device.wait(60_000).restored()
    _on(later, receipts - receipts // 2)
    came = rng.randrange(3, device.size)
    truth.settle(device, came)
    truth.settle(later)
    truth.bill(device.license.license_id, device.used(device.size) - device.used(came))
    files = [(device.export(0, came), TAKEN), (later.export(), TAKEN)]
    rng.shuffle(files)
    return files


# --- fleets -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A fleet: so many customers with a license each, devices in all, receipts in all."""

    customers: int = 3
    devices: int = 30
    receipts: int = 12_000
    seed: int = 1

    def license(self, number: int) -> License:
        """The license of a customer."""
        return make_license(
            license_id=f"L-{number}", customer=Customer(f"customer-{number}", f"Customer {number}"),
            devices=Devices("key", self.devices),
        )  # fmt: skip


def make(shape: Shape, folder: Path, processes: int = 1) -> Truth:
    """Write registry, usage files and truth.json into an empty folder; the same shape, the same bytes."""
    (folder / "usage").mkdir(parents=True)
    truth, lines = Truth(), []
    todo = [(shape, number, folder) for number in range(shape.devices)]
    for line, part in _map(todo, processes):
        lines.append(line)
        truth.add(part)
    (folder / "registry.jsonl").write_bytes(b"".join(lines))
    (folder / "truth.json").write_text(truth.to_json())
    return truth


def _map(todo: list[tuple[Shape, int, Path]], processes: int) -> Iterator[tuple[bytes, Truth]]:
    if processes == 1:
        yield from map(_device, todo)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_device, todo, chunksize=4)


def _device(task: tuple[Shape, int, Path]) -> tuple[bytes, Truth]:
    """One device: its files on disk, its registry line, its part of the truth."""
    shape, number, folder = task
    rng = random.Random(shape.seed * 1_000_003 + number)
    device = Bulk(shape.license(number % shape.customers), number, f"machine {number}")
    device.until(MONTH_MS)
    truth = Truth()
    receipts = max(8, shape.receipts // shape.devices)
    (trouble,) = rng.choices(list(TROUBLES), list(TROUBLES.values()))
    line = registry_lines(device)
    # Names say when a file arrives: the device's own order, spread between those of the others.
    at = 0.0
    for n, (data, code) in enumerate(files_of(device, receipts, trouble, rng, truth)):
        at += rng.random()
        name = f"{at:08.5f}-{number:05}-{n}-{trouble}.usage.gz"
        (folder / "usage" / name).write_bytes(data)
        truth.files[name] = code
    return line, truth

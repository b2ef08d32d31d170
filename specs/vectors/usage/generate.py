"""Write the usage file vectors: `python specs/vectors/usage/generate.py [FOLDER]`.

Each case is `case.json` and `usage.gz` (in some cases not gzipped at all). A reader verifies the file
for device key `device`; `expect` is "ok" or the code of the first finding, `accepted` the number of
receipts under valid checkpoints, which count whatever else is wrong. Blocks are short here so that the
files are; a real writer closes one every 256 receipts.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sealpack.format import canonical, records
from sealpack.format.activation import device_id, log_origin
from sealpack.format.keys import PrivateKey
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.usage import Block, UsageHeader, checkpoint_line, trailer_line, write_usage

DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
DEVICE_2 = PrivateKey.from_seed(b"sealpack test vector device key2")
STRANGER = PrivateKey.from_seed(b"sealpack test vector other key!!")
ORIGIN = log_origin("test-license", device_id(DEVICE.public), 0)
DIGESTS = {
    name: hashlib.sha256(b"test " + name.encode()).hexdigest() for name in ("license", "model", "root")
}
ROUTE = {
    "license_id": "test-license",
    "seq": 1,
    "bundle_digest": DIGESTS["model"],
    "model_digest": DIGESTS["model"],
}
RUNTIME = {"version": "0.2.0", "digest": hashlib.sha256(b"test runtime").hexdigest()}
START_MS = 1_790_000_000_000
BLOCK = 4


@dataclass
class Log:
    """A device's log, written one record at a time."""

    leaves: list[bytes] = field(default_factory=list)
    registers: records.Registers = field(default_factory=records.Registers)
    boot: int = 1

    def put(self, kind: str, **members: Any) -> None:
        at = len(self.leaves)
        head = {
            "position": at,
            "boot": self.boot,
            "time_ms": START_MS + 900 * at,
            "skew_ms": 0,
            "uptime_ms": 60_000 + 900 * at,
        }
        record = records.make(kind, **{**head, **members})
        self.registers.add(record)
        self.leaves.append(records.encode(record))

    def start(self, routes: dict[str, Any] | None = None) -> None:
        members = {
            "origin": ORIGIN,
            "device": DEVICE.public.pem,
            "license": DIGESTS["license"],
            "root": DIGESTS["root"],
        }
        self.put(records.GENESIS, **members, epoch=0)
        self.put_boot(routes)

    def put_boot(self, routes: dict[str, Any] | None = None) -> None:
        nonce = f"{self.boot:032x}"
        self.put(
            records.BOOT, nonce=nonce, runtime=RUNTIME, routes={"r1": ROUTE} if routes is None else routes
        )

    def use(self, tokens: int = 12, **more: Any) -> None:
        meters = {"calls": 1, "tok_in": 7, "tok_out": tokens, "ms": 31}
        self.put(records.USAGE, **{"route": "r1", "status": "ok", "meters": meters, "wait_ms": 0, **more})

    def tally(self) -> None:
        self.put(records.TALLY, registers=self.registers.to_tally())


def usual() -> Log:
    """Eleven receipts of every common kind, in three blocks."""
    log = Log()
    log.start()
    for tokens in (12, 90, 4):
        log.use(tokens)
    log.use(0, status="err", meters={})
    log.tally()
    log.use(33, cost_centre="ward-3")
    log.put(records.DENIED, code="QUOTA_EXCEEDED", minute=START_MS // 60_000)
    log.tally()
    log.put(records.EXPORTED, file_seq=1, **{"from": 0, "to": 11, "reason": "manual"})
    return log


def header(leaves: list[bytes], start: int = 0, frontier: Frontier | None = None) -> UsageHeader:
    lost = sum(b'"k":"l"' in leaf for leaf in leaves[start:])
    tree = Frontier().extend(map(leaf_hash, leaves[:start])) if frontier is None else frontier
    last = START_MS + 900 * (len(leaves) - 1)
    times = {"opened": START_MS + 900 * start, "last": last}
    return UsageHeader(
        ORIGIN, 1, start, len(leaves), "manual", **times, lost=lost, frontier=tree, device_key=DEVICE.public,
        runtime_version=RUNTIME["version"], runtime_digest=RUNTIME["digest"],
    )  # fmt: skip


def blocks(leaves: list[bytes], start: int = 0, size: int = BLOCK, *keys: PrivateKey) -> list[Block]:
    """Cut and sign; every block is signed by all of `keys`."""
    made = []
    tree = Frontier().extend(map(leaf_hash, leaves[:start]))
    for at in range(start, len(leaves), size):
        part = tuple(leaves[at : at + size])
        tree = tree.extend(map(leaf_hash, part))
        made.append(
            Block(part, sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root), *(keys or (DEVICE,))))
        )
    return made


def pack(head: UsageHeader, body: list[Block]) -> bytes:
    stream = io.BytesIO()
    write_usage(stream, head, body)
    return stream.getvalue()


def zipped(plain: bytes) -> bytes:
    return gzip.compress(plain, mtime=0)


def file_of(log: Log, start: int = 0) -> bytes:
    return pack(header(log.leaves, start), blocks(log.leaves, start))


def raw_file(leaves: list[bytes], *, note: Callable[[Block], bytes] | None = None, **options: Any) -> bytes:
    """A file with a right trailer around anything, also around what the writer would refuse."""
    head = options.get("head") or header(leaves)
    lines = [head.to_line()]
    for block in options.get("body") or blocks(leaves):
        lines += [*block.leaves, checkpoint_line(note(block) if note else block.note)]
    plain = b"".join(line + b"\n" for line in lines)
    return zipped(plain + trailer_line(len(leaves), hashlib.sha256(plain).hexdigest()) + b"\n")


Case = tuple[dict[str, Any], bytes]


def good_cases() -> dict[str, Case]:
    made: dict[str, Case] = {}
    log = usual()

    def add(name: str, description: str, accepted: int, data: bytes) -> None:
        made[name] = ({"description": description, "expect": "ok", "accepted": accepted}, data)

    add("good", "A whole log from its genesis on.", 11, file_of(log))
    add("good-continued", "Receipts 4 to 11 of the same log.", 7, file_of(log, 4))
    add("good-unpacked", "The same file, already gunzipped.", 11, gzip.decompress(file_of(log)))
    log = usual()
    log.boot = 2
    log.put_boot({"r1": ROUTE, "r2": {**ROUTE, "license_id": "test-license-2"}})
    log.put(records.LOST, route="r1", meters={"calls": 1, "ms": 400})
    log.tally()
    add("good-after-a-crash", "A second boot, a lost record, a second route.", 14, file_of(log))
    log, body = rotation()
    add(
        "good-rotation",
        "The device changes its key; both sign the block that says so.",
        12,
        pack(header(log.leaves), body),
    )
    return made


def rotation(*signers: PrivateKey) -> tuple[Log, list[Block]]:
    log = usual()
    log.put(records.ROTATED, device=DEVICE_2.public.pem, reason="scheduled")
    handover = blocks(log.leaves, 8, BLOCK, *(signers or (DEVICE, DEVICE_2)))
    return log, [*blocks(log.leaves[:8]), *handover]


def damaged_cases() -> dict[str, Case]:
    """Files that were cut, changed or added to on their way."""
    made: dict[str, Case] = {}
    leaves, good = usual().leaves, file_of(usual())
    plain = gzip.decompress(good)
    lines = plain.splitlines(keepends=True)

    def bad(name: str, description: str, expect: str, accepted: int, data: bytes) -> None:
        made[name] = ({"description": description, "expect": expect, "accepted": accepted}, data)

    second = plain.index(b'{"checkpoint"', plain.index(b'{"checkpoint"') + 1)
    bad("torn", "The stick was pulled: the gzip stream ends early.", "USAGE_TORN", 4, good[: len(good) - 400])
    bad("torn-in-a-block", "Unpacked and cut inside the second block.", "USAGE_TORN", 4, plain[: second - 10])
    bad(
        "torn-between-blocks", "Ends right behind a checkpoint.", "USAGE_TORN", 4, zipped(b"".join(lines[:6]))
    )
    bad("torn-trailer", "Only the trailer is missing.", "USAGE_TORN", 11, zipped(b"".join(lines[:-1])))
    bad("torn-header", "Ends inside the header.", "USAGE_TORN", 0, zipped(lines[0][:100]))
    bad("empty", "No bytes at all.", "USAGE_TORN", 0, b"")
    bad(
        "gzip-checksum", "The gzip check sum is wrong.", "USAGE_TORN", 11, good[:-8] + b"\0\0\0\0" + good[-4:]
    )
    bad("not-a-usage-file", "Some text.", "USAGE_HEADER", 0, b"a shopping list\n")
    bad("trailing-bytes", "Bytes behind the gzip stream.", "USAGE_TRAILING", 11, good + b"more")
    bad(
        "trailing-member",
        "A second gzip stream behind the first.",
        "USAGE_TRAILING",
        11,
        good + zipped(b"more\n"),
    )
    bad("trailing-line", "A line behind the trailer.", "USAGE_TRAILING", 11, zipped(plain + lines[1]))
    bad("trailing-part-line", "Half a line behind the trailer.", "USAGE_TRAILING", 11, zipped(plain + b"{"))

    def change(at: int, *now: bytes) -> bytes:
        return zipped(b"".join([*lines[:at], *now, *lines[at + 1 :]]))

    leaf = lines[7]
    bad(
        "leaf-flipped",
        "One token more in one receipt.",
        "RECEIPT_TREE",
        4,
        change(7, leaf.replace(b"7", b"8", 1)),
    )
    bad("leaf-dropped", "One receipt is gone.", "RECEIPT_TREE", 4, change(7))
    bad("leaf-doubled", "One receipt stands twice.", "RECEIPT_TREE", 4, change(7, leaf, leaf))
    swapped = b"".join([*lines[:7], lines[8], lines[7], *lines[9:]])
    bad("leaves-swapped", "Two receipts changed places.", "RECEIPT_TREE", 4, zipped(swapped))
    loose = b"".join([*lines[:-2], lines[-1]])
    bad(
        "checkpoint-dropped", "The last receipts stand under no checkpoint.", "RECEIPT_TREE", 8, zipped(loose)
    )
    bad(
        "checkpoint-doubled",
        "A checkpoint that closes an empty block.",
        "RECEIPT_TREE",
        4,
        change(5, lines[5], lines[5]),
    )
    bad(
        "checkpoint-malformed",
        "A checkpoint line with a second member.",
        "CHECKPOINT_INVALID",
        0,
        change(5, lines[5].replace(b"}", b',"x":1}')),
    )
    bad("trailer-count", "The trailer says one receipt fewer.", "USAGE_MISMATCH", 11, _trailer(lines, 10))
    bad(
        "trailer-digest",
        "The trailer's digest is of other bytes.",
        "USAGE_MISMATCH",
        11,
        _trailer(lines, 11, "0" * 64),
    )
    bad("line-oversize", "A line of 16 MiB in 16 kB.", "USAGE_LIMIT", 0, zipped(lines[0] + b"a" * (16 << 20)))
    many = [b'{"n":%d}' % n for n in range(257)]
    bad(
        "block-oversize",
        "257 receipts under one checkpoint.",
        "USAGE_LIMIT",
        0,
        raw_file(many, body=blocks(many, 0, 257)),
    )
    short = gzip.decompress(raw_file(leaves[:8], head=header(leaves)))
    bad("header-announces-more", "Fewer receipts than the header says.", "USAGE_MISMATCH", 8, zipped(short))
    return made


def _trailer(lines: list[bytes], count: int, digest: str | None = None) -> bytes:
    plain = b"".join(lines[:-1])
    return zipped(plain + trailer_line(count, digest or hashlib.sha256(plain).hexdigest()) + b"\n")


def forged_cases() -> dict[str, Case]:
    """Files that someone made, some with the device's own key."""
    made: dict[str, Case] = {}
    leaves = usual().leaves

    def bad(name: str, description: str, expect: str, accepted: int, data: bytes) -> None:
        made[name] = ({"description": description, "expect": expect, "accepted": accepted}, data)

    def signed(name: str, description: str, expect: str, accepted: int, build: Callable[[Log], None]) -> None:
        log = Log()
        log.start()
        log.use()
        log.use()
        build(log)
        bad(name, description, expect, accepted, raw_file(log.leaves))

    wrong = sign_checkpoint(Checkpoint(ORIGIN, 4, bytes(32)), DEVICE)
    bad(
        "root-wrong",
        "A signed root that the receipts do not give.",
        "RECEIPT_TREE",
        0,
        raw_file(leaves, note=lambda b: wrong),
    )
    bad(
        "signature-wrong",
        "Checkpoints signed by a stranger.",
        "CHECKPOINT_INVALID",
        0,
        raw_file(leaves, body=blocks(leaves, 0, BLOCK, STRANGER)),
    )
    bad(
        "signature-flipped",
        "A signature with another end.",
        "CHECKPOINT_INVALID",
        0,
        raw_file(leaves, note=lambda b: b.note[:-6] + b"AAAA=\n"),
    )
    stranger = replace(header(leaves), device_key=STRANGER.public)
    bad(
        "other-device",
        "A whole file of another device key.",
        "USAGE_KEY",
        0,
        raw_file(leaves, head=stranger, body=blocks(leaves, 0, BLOCK, STRANGER)),
    )
    other_log = replace(header(leaves), origin=ORIGIN[:-1] + "1")
    bad(
        "other-log",
        "Checkpoints of another log than the header names.",
        "RECEIPT_TREE",
        0,
        raw_file(leaves, head=other_log),
    )
    tree = Frontier(4, (leaf_hash(b"another past"),))
    bad(
        "frontier-wrong",
        "A frontier of another tree.",
        "RECEIPT_TREE",
        0,
        pack(header(leaves, 4, tree), blocks(leaves, 4)),
    )
    plain = gzip.decompress(file_of(usual(), 4))
    short = plain.replace(
        canonical.dumps({"frontier": header(leaves, 4).frontier.to_hex()})[1:-1], b'"frontier":[]'
    )
    bad("frontier-short", "A frontier without its hash.", "USAGE_HEADER", 0, zipped(short))
    log, body = rotation(DEVICE)
    bad(
        "rotation-old-key-only",
        "A new key that did not sign.",
        "CHECKPOINT_INVALID",
        8,
        pack(header(log.leaves), body),
    )
    log, body = rotation(DEVICE_2)
    bad(
        "rotation-new-key-only",
        "A new key that the old one did not sign for.",
        "CHECKPOINT_INVALID",
        8,
        pack(header(log.leaves), body),
    )

    def put(leaf: bytes) -> Callable[[Log], None]:
        return lambda log: log.leaves.append(leaf)

    use = leaves[2].replace(b'"n":2', b'"n":4')
    for name, description, leaf in (
        ("record-spaced", "A record with a space in it.", use.replace(b":", b": ", 1)),
        ("record-unordered", "Members out of order.", b'{"v":1,' + use[1:].replace(b',"v":1', b"")),
        ("record-doubled-member", "A member twice.", b'{"b":1,' + use[1:]),
        ("record-float", "A number with a point.", use.replace(b'"ms":31', b'"ms":31.0')),
        ("record-huge-number", "2^53.", use.replace(b'"ms":31', b'"ms":9007199254740992')),
        ("record-negative-meter", "A meter below 0.", use.replace(b'"ms":31', b'"ms":-31')),
        ("record-zero-meter", "A meter of 0 that is written out.", use.replace(b'"ms":31', b'"ms":0')),
        ("record-prompt", "A member that no record has.", use.replace(b'"n":4', b'"n":4,"prompt":"x"')),
        ("record-unknown-kind", "A kind that does not exist.", use.replace(b'"k":"u"', b'"k":"z"')),
        ("record-version", "A version to come.", use.replace(b'"v":1', b'"v":2')),
    ):
        signed(name, f"{description} The device signed it.", "RECEIPT_INVALID", 4, put(leaf))

    def low_tally(log: Log) -> None:
        log.put(records.TALLY, registers={"r1": {"ok": {"calls": 1, "ms": 31, "tok_in": 7, "tok_out": 12}}})

    def high_tally(log: Log) -> None:
        log.put(records.TALLY, registers={"r1": {"ok": {"calls": 3, "ms": 93, "tok_in": 21, "tok_out": 36}}})

    signed("tally-low", "A tally below its receipts.", "RECEIPT_TALLY", 5, low_tally)
    signed("tally-high", "A tally above its receipts.", "RECEIPT_TALLY", 5, high_tally)
    signed("position-skipped", "A number left out.", "RECEIPT_ORDER", 5, lambda log: log.use(position=5))
    signed(
        "uptime-backwards",
        "The machine's uptime falls within a boot.",
        "RECEIPT_ORDER",
        5,
        lambda log: log.use(uptime_ms=5),
    )
    signed("boot-backwards", "An earlier boot follows.", "RECEIPT_ORDER", 6, _boot_backwards)
    signed("boot-unsaid", "A new boot without its record.", "RECEIPT_ORDER", 5, lambda log: log.use(boot=2))
    signed("genesis-again", "A second genesis.", "RECEIPT_ORDER", 6, lambda log: log.start())
    signed("after-the-end", "A record behind the closing one.", "RECEIPT_ORDER", 6, _use_after_close)
    signed(
        "route-unknown",
        "Usage of a route that was never declared.",
        "RECEIPT_ROUTE",
        5,
        lambda log: log.use(route="r9"),
    )
    signed(
        "route-changed",
        "A route that means another license now.",
        "RECEIPT_ROUTE",
        5,
        lambda log: log.put_boot({"r1": {**ROUTE, "seq": 2}}),
    )
    signed("route-dropped", "A route that is gone.", "RECEIPT_ROUTE", 5, lambda log: log.put_boot({}))
    return made


def _boot_backwards(log: Log) -> None:
    log.boot = 3
    log.put_boot()
    log.use(boot=2)


def _use_after_close(log: Log) -> None:
    log.put(records.CLOSED, reason="transferred")
    log.use()


def cases() -> dict[str, Case]:
    """Return (case.json, file) by folder name."""
    made = good_cases() | damaged_cases() | forged_cases()
    for case, _ in made.values():
        case["device"] = DEVICE.public.pem
    return made


def main(folder: Path) -> None:
    """Write one folder per case."""
    for name, (case, data) in cases().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "case.json").write_text(json.dumps(case, indent=2) + "\n")
        (folder / name / "usage.gz").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

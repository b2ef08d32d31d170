"""Write the tally file vectors: `python specs/vectors/tallies/generate.py [FOLDER]`.

Each case is `case.json` and `tallies.gz`. A reader verifies the file for device key `device`;
`expect` is "ok" or the code of the first finding, `accepted` the number of receipts under valid checkpoints.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from support.device import Device

from sealpack.format import canonical, records, tallies
from sealpack.format.keys import PrivateKey
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import Checkpoint, sign_checkpoint
from sealpack.format.usage import TALLIES_SCHEMA, checkpoint_line, trailer_line

made: dict[str, tuple[dict[str, Any], bytes]] = {}


def usual() -> Device:
    """Eighteen receipts: calls in two quarters of an hour, a lost one, a refusal, an export."""
    device = Device().tally()
    for count in range(7):
        device.wait(60_000).use(tok_out=count + 1)
    device.wait(900_000).tally().use(status="err").lose()
    device.put(records.DENIED, code="QUOTA_EXCEEDED", minute=1)
    device.tally()
    device.put(records.EXPORTED, file_seq=1, reason="manual", **{"from": 0, "to": device.size + 1})
    return device.tally()


def lines_of(device: Device, start: int = 0) -> list[bytes]:
    """What stands for its receipts."""
    return [line for line, _ in tallies.lines(device.frontier(start), device.leaves[start:])]


def signed(device: Device, lines: Iterable[bytes], **checkpoint: Any) -> bytes:
    """A file of one block with any lines; the tree is as they say."""
    lines = list(lines)
    tree = Frontier()
    for line in lines:
        hidden = line.startswith(tallies.HIDDEN_PREFIX)
        tree = tallies.unhide(tree, line) if hidden else tree.append(leaf_hash(line))
    return whole(device, lines, tree.size, **{"root": tree.root, **checkpoint})


def whole(
    device: Device, lines: list[bytes], size: int, *, root: bytes, key: PrivateKey | None = None
) -> bytes:
    head = replace(device.header(0, size), schema=TALLIES_SCHEMA)
    note = sign_checkpoint(Checkpoint(device.origin, size, root), key or device.key)
    plain = b"".join(line + b"\n" for line in (head.to_line(), *lines, checkpoint_line(note)))
    return gzip.compress(plain + trailer_line(size, hashlib.sha256(plain).hexdigest()) + b"\n", mtime=0)


def case(name: str, description: str, expect: str, accepted: int, data: bytes, device: Device) -> None:
    key = device.first_key.public.pem
    value = {"description": description, "expect": expect, "accepted": accepted, "device": key}
    made[name] = value, data


def good() -> None:
    device = usual()
    case("good", "A whole log from its genesis on.", "ok", device.size, device.tallies(), device)
    case(
        "good-continued", "The same log from receipt 5 on.", "ok", device.size - 5, device.tallies(5), device
    )
    plain = gzip.decompress(device.tallies())
    case("good-unpacked", "The same file, already gunzipped.", "ok", device.size, plain, device)
    turned = usual().rotate(2)
    case("good-rotation", "The device changes its key; both sign the block that says so.", "ok", turned.size,
         turned.tallies(), turned)  # fmt: skip


def bad() -> None:
    device = usual()
    lines = lines_of(device)
    at = next(i for i, line in enumerate(lines) if line.startswith(tallies.HIDDEN_PREFIX))
    hidden = json.loads(lines[at])["hidden"]

    def with_hidden(name: str, description: str, value: Any) -> None:
        changed = [*lines[:at], canonical.dumps(value), *lines[at + 1 :]]
        root = device.frontier(device.size).root
        case(name, description, "RECEIPT_TREE", 0, whole(device, changed, device.size, root=root), device)

    with_hidden("hidden-none", "A run of no receipt.", {"hidden": {"count": 0, "roots": []}})
    with_hidden(
        "hidden-more", "A run with a root too many.", {"hidden": {**hidden, "roots": hidden["roots"] * 2}}
    )
    with_hidden("hidden-longer", "A run longer than its roots.", {"hidden": {**hidden, "count": 100}})
    with_hidden("hidden-member", "A hidden line with a second member.", {"hidden": hidden, "x": 1})
    other = [hashlib.sha256(root.encode()).hexdigest() for root in hidden["roots"]]
    with_hidden(
        "hidden-other", "Other roots than the signed tree has.", {"hidden": {**hidden, "roots": other}}
    )

    def of(
        name: str, description: str, expect: str, build: Callable[[Device], None], *, counts: bool
    ) -> None:
        changed = Device().tally().use()
        build(changed)
        data = signed(changed, lines_of(changed))
        case(name, description, expect, changed.size if counts else 0, data, changed)

    def falls(changed: Device) -> None:
        changed.tally()
        changed.registers = records.Registers()
        changed.tally()

    def undeclared(changed: Device) -> None:
        changed.put(records.TALLY, registers={"r9": {"ok": {"calls": 1}}})

    def skipped(changed: Device) -> None:
        registers = changed.registers.to_tally()
        changed.put(records.TALLY, position=changed.size + 1, registers=registers)

    of("tally-falls", "A tally below the one before it.", "RECEIPT_TALLY", falls, counts=True)
    of(
        "route-unknown",
        "A tally of a route that was never declared.",
        "RECEIPT_ROUTE",
        undeclared,
        counts=True,
    )
    of(
        "position-skipped",
        "A record with another number than its place.",
        "RECEIPT_ORDER",
        skipped,
        counts=True,
    )
    shown = Device().tally().use()
    case(
        "shown-usage", "A single call stands in it.", "RECEIPT_INVALID", 0, signed(shown, shown.leaves), shown
    )
    stranger = PrivateKey.from_seed(b"sealpack test vector other key!!")
    root = device.frontier(device.size).root
    forged = whole(device, lines, device.size, root=root, key=stranger)
    case("signature-wrong", "A checkpoint signed by a stranger.", "CHECKPOINT_INVALID", 0, forged, device)
    torn = gzip.decompress(device.tallies())[:-200]
    case("torn", "Cut inside its only block.", "USAGE_TORN", 0, torn, device)


def main(folder: Path) -> None:
    good()
    bad()
    for name, (value, data) in made.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        text = json.dumps(value, indent=1, sort_keys=True) + "\n"
        (folder / name / "case.json").write_text(text)
        (folder / name / "tallies.gz").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""Targets: usage files, their records, checkpoints."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from support.device import Device

from fuzz.target import Target, mutate_json, vectors
from sealpack.format import note, records, tallies
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import Checkpoint
from sealpack.format.usage import (
    BLOCK_LEAVES,
    CHECKPOINT_PREFIX,
    TALLIES_SCHEMA,
    TRAILER_PREFIX,
    checkpoint_line,
    trailer_line,
)
from sealpack.format.usage_reader import verify_usage

_NO_LEAF = (CHECKPOINT_PREFIX, TRAILER_PREFIX)


@cache
def device() -> Device:
    """A device with a short log that holds every kind of record."""
    made = Device().use().use(status="err").lose().tally()
    made.put(records.DENIED, code="QUOTA_EXCEEDED", minute=1)
    made.put(records.CLOCK, event="set-back", delta_ms=-5)
    made.put(records.ACKNOWLEDGED, digest="11" * 32, ack_seq=1, size=2, server_time=1)
    made.put(records.EXPORTED, file_seq=1, reason="manual", **{"from": 0, "to": 3})
    made.start()
    made.use().tally()
    made.put(records.CLOSED, reason="deactivated")
    return made


def run_usage(data: bytes) -> str | None:
    """The verdict never raises, can be written down, and accepts no more than the file announces."""
    report = verify_usage(data)
    json.dumps(report.to_dict(), ensure_ascii=False).encode()
    assert report.ok or report.findings or report.torn
    if report.header is not None:
        assert report.accepted >= 0
        assert not report.ok or report.accepted == report.header.count
        assert verify_usage(data, report.header.device_key) == report
    if report.ok and data.startswith(b"\x1f\x8b"):
        assert verify_usage(gzip.decompress(data)).ok
    return report.findings[0].code if report.findings else None


def run_tallies(data: bytes) -> str | None:
    """The verdict as of a usage file; and the lines signed anew as a block, to reach every check."""
    report = tallies.verify(data)
    json.dumps(report.to_dict(), ensure_ascii=False).encode()
    assert report.ok or report.findings or report.torn
    assert report.header is None or report.accepted >= 0
    plain = _unpacked(data) or b""
    kept = [line for line in plain.split(b"\n")[1:64] if line and not line.startswith(_NO_LEAF)]
    tree = Frontier()
    for line in kept:
        tree = (
            tallies.unhide(tree, line)
            if line.startswith(tallies.HIDDEN_PREFIX)
            else tree.append(leaf_hash(line))
        )
    owner = device()
    head = replace(owner.header(0, tree.size), schema=TALLIES_SCHEMA).to_line() + b"\n"
    signed = note.sign_checkpoint(Checkpoint(owner.origin, tree.size, tree.root), owner.first_key)
    body = head + b"".join(line + b"\n" for line in kept) + checkpoint_line(signed) + b"\n"
    again = tallies.verify(body + trailer_line(tree.size, hashlib.sha256(body).hexdigest()) + b"\n")
    assert again.accepted in (0, tree.size)
    assert all(count > 0 for count in again.growth.totals.values())
    found = again.findings or report.findings
    return found[0].code if found else None


def _unpacked(data: bytes) -> bytes | None:
    try:
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError, ValueError, zlib.error):
        return None


def mutate_usage(data: bytes, chance: random.Random) -> bytes | None:
    """A line changed, dropped, doubled or moved, inside the compression or without it."""
    plain = _unpacked(data)
    if plain is None:
        return None
    lines = plain.split(b"\n")
    at = chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            lines.pop(at)
        case 1:
            lines.insert(at, lines[at])
        case 2:
            lines.insert(chance.randrange(len(lines)), lines.pop(at))
        case _:
            lines[at] = mutate_json(lines[at], chance) or lines[at][: chance.randint(0, len(lines[at]))]
    out = b"\n".join(lines)
    return gzip.compress(out, mtime=0) if chance.random() < 0.5 else out


def run_records(data: bytes) -> str | None:
    """Lines as the leaves of a log: signed as a device signs them, so that every rule of a log is reached."""
    owner = device()
    leaves = [
        line for line in data.split(b"\n")[:64] if not line.startswith((b'{"checkpoint":', b'{"trailer":'))
    ]
    for leaf in leaves:
        _record(leaf)
    after = Frontier().extend(map(leaf_hash, leaves))
    head = owner.header(0, len(leaves)).to_line() + b"\n"
    signed = note.sign_checkpoint(Checkpoint(owner.origin, after.size, after.root), owner.first_key)
    body = head + b"".join(leaf + b"\n" for leaf in leaves) + checkpoint_line(signed) + b"\n"
    report = verify_usage(body + trailer_line(len(leaves), hashlib.sha256(body).hexdigest()) + b"\n")
    assert report.accepted in (0, len(leaves))
    json.dumps(report.to_dict(), ensure_ascii=False).encode()
    assert all(count > 0 for count in report.growth.totals.values())
    assert len(leaves) <= BLOCK_LEAVES
    return report.findings[0].code if report.findings else None


def _record(leaf: bytes) -> None:
    """A line that parses is the one spelling of its record."""
    try:
        record = records.parse_record(leaf)
    except records.SealpackError as error:
        assert error.code == "RECEIPT_INVALID"
        return
    assert records.encode(record) == leaf


def mutate_records(data: bytes, chance: random.Random) -> bytes | None:
    """One line's JSON changed, or lines dropped, doubled, moved."""
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    if chance.random() < 0.7:
        lines[at] = mutate_json(lines[at], chance) or lines[at]
    else:
        lines.insert(chance.randrange(len(lines)), lines.pop(at) if chance.random() < 0.5 else lines[at])
    return b"\n".join(lines)


def run_note(data: bytes) -> None:
    """A note as it is; and its text signed anew, which opens exactly when the text is a checkpoint."""
    key = device().first_key
    try:
        note.signer_ids(data)
        note.open_checkpoint(data, key.public)
    except note.SealpackError as error:
        assert error.code == "CHECKPOINT_INVALID"
    text = data.decode("utf-8", "replace").partition("\n\n")[0] + "\n"
    checkpoint = Checkpoint.from_text(text)
    assert checkpoint.text == text
    signed = note.sign_checkpoint(checkpoint, key)
    assert note.open_checkpoint(signed, key.public) == checkpoint
    cosigned = note.cosign(signed, "witness.example/w", key, 5)
    assert note.open_cosignature(cosigned, "witness.example/w", key.public).checkpoint == checkpoint


def seeds_usage() -> Iterator[bytes]:
    """Genuine files, packed and not, and the vectors."""
    yield device().export()
    yield gzip.decompress(device().export())
    for data in vectors("usage/*/usage.gz"):
        if len(data) <= 1 << 16:
            yield data


def seeds_tallies() -> Iterator[bytes]:
    """A genuine tally file, packed and not, its second half, and a usage file, which is none."""
    yield device().tallies()
    yield gzip.decompress(device().tallies())
    yield gzip.decompress(device().tallies(5))
    yield gzip.decompress(device().export())


TARGETS = (
    Target("usage", run_usage, seeds_usage, mutate_usage, max_len=1 << 16),
    Target("tallies", run_tallies, seeds_tallies, mutate_usage, max_len=1 << 16),
    Target("records", run_records, lambda: iter([b"\n".join(device().leaves)]), mutate_records),
    Target("note", run_note, lambda: vectors("checkpoint/*/note")),
)

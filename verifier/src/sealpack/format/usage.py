"""The usage file a device exports and settlement ingests.

Source: specs/usage-export.md. Gzipped lines: a header, the receipts as stored, a signed checkpoint after
at most 256 of them, a trailer. Header and trailer are hints for people and for early refusals; a receipt
counts only when it stands before a checkpoint that is signed by the device and whose root its leaves
give. So a file is worth whatever prefix of it arrives: a torn stick yields every whole block.

Here is the form and its writer; :mod:`sealpack.format.usage_reader` reads it.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from sealpack.format import canonical
from sealpack.format.activation import ORIGIN
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import ED25519, PrivateKey, PublicKey
from sealpack.format.limits import LIMITS
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import Checkpoint, sign_checkpoint

SCHEMA = "sealpack/usage/v1"
TALLIES_SCHEMA = "sealpack/tallies/v1"  # the same without single calls: see `tallies`
BLOCK_LEAVES = 256  # the most receipts one checkpoint closes
FILE_LEAVES = 1 << 20  # a writer starts another file here, far below every reader's limit
CHECKPOINT_PREFIX = b'{"checkpoint":'
TRAILER_PREFIX = b'{"trailer":'
_HEADER_DEPTH = 8


@dataclass(frozen=True, slots=True)
class UsageHeader:
    """The first line. Everything but the device key is a hint; that one the signatures prove.

    The file holds the receipts `start` (the last size settlement acknowledged) up to, not including,
    `end`. `opened` and `last` are the times of the first and last, UTC ms; `lost` counts lost records.
    """

    origin: str
    file_seq: int
    start: int
    end: int
    reason: str
    opened: int
    last: int
    lost: int
    frontier: Frontier  # of the tree at `start`
    device_key: PublicKey  # signs the first checkpoint
    runtime_version: str
    runtime_digest: str
    activation: dict[str, Any] | None = None  # DSSE envelope; absent on a self-made identity
    schema: str = SCHEMA  # or TALLIES_SCHEMA: single calls stand behind hashes

    @property
    def count(self) -> int:
        """How many receipts the whole file holds."""
        return self.end - self.start

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        members: dict[str, Any] = {
            "schema": self.schema,
            "origin": self.origin,
            "file_seq": self.file_seq,
            "from": self.start,
            "to": self.end,
            "reason": self.reason,
            "opened": self.opened,
            "last": self.last,
            "count": self.count,
            "lost": self.lost,
            "frontier": self.frontier.to_hex(),
            "device": self.device_key.pem,
            "runtime": {"version": self.runtime_version, "digest": self.runtime_digest},
        }
        if self.activation is not None:
            members["activation"] = self.activation
        return members

    def to_line(self) -> bytes:
        """The canonical line, without its newline."""
        return canonical.dumps(self.to_dict())

    @classmethod
    def from_line(cls, line: bytes) -> UsageHeader:
        """Read a header line; USAGE_HEADER when it is none."""
        try:
            return cls._read(
                canonical.loads(
                    line, max_bytes=LIMITS.usage_line_bytes, max_depth=_HEADER_DEPTH, what="usage header"
                )
            )
        except SealpackError as error:
            raise SealpackError("USAGE_HEADER", error.message) from None

    @classmethod
    def _read(cls, value: Any) -> UsageHeader:
        f = Fields(value, "usage header", "USAGE_HEADER")
        schema = f.choice("schema", (SCHEMA, TALLIES_SCHEMA))
        f.crit(())
        start, runtime = f.integer("from"), f.sub("runtime")
        key = PublicKey.from_pem(f.text("device"))
        if key.scheme != ED25519:
            raise f.fail("device", "is not an Ed25519 key")
        header = cls(
            origin=f.text("origin", pattern=ORIGIN),
            file_seq=f.integer("file_seq", lo=1),
            start=start,
            end=f.integer("to", lo=start),
            reason=f.text("reason", pattern=r"[a-z][a-z0-9-]{0,31}"),
            opened=f.integer("opened"),
            last=f.integer("last"),
            lost=f.integer("lost"),
            frontier=Frontier.from_hex(start, f.texts("frontier", max_items=53)),
            device_key=key,
            runtime_version=runtime.text("version", max_len=64),
            runtime_digest=runtime.digest("digest"),
            activation=f.raw("activation") if "activation" in f else None,
            schema=schema,
        )
        if f.integer("count") != header.count:
            raise f.fail("count", f"is not {header.count}, the distance from `from` to `to`")
        return header


@dataclass(frozen=True, slots=True)
class Block:
    """Up to 256 receipts as stored, and the signed checkpoint (note bytes) after the last."""

    leaves: tuple[bytes, ...]
    note: bytes


def sign_blocks(frontier: Frontier, origin: str, leaves: Iterable[bytes], key: PrivateKey) -> Iterator[Block]:
    """Cut receipts into blocks where the log's index is a multiple of 256, and sign each.

    `frontier` is the tree before the first of `leaves`. A block with a key rotation needs both keys: give
    :func:`write_usage` the checkpoint stored at that commit instead.
    """
    pending: list[bytes] = []
    for leaf in leaves:
        pending.append(leaf)
        if (frontier.size + len(pending)) % BLOCK_LEAVES == 0:
            frontier, block = _close(frontier, origin, pending, key)
            yield block
            pending = []
    if pending:
        yield _close(frontier, origin, pending, key)[1]


def _close(frontier: Frontier, origin: str, leaves: list[bytes], key: PrivateKey) -> tuple[Frontier, Block]:
    after = frontier.extend(map(leaf_hash, leaves))
    note = sign_checkpoint(Checkpoint(origin, after.size, after.root), key)
    return after, Block(tuple(leaves), note)


def write_usage(stream: BinaryIO, header: UsageHeader, blocks: Iterable[Block]) -> None:
    """Write a usage file; the same arguments give the same bytes.

    Raises USAGE_MISMATCH when the blocks hold another number of receipts than the header says, and
    USAGE_LIMIT for a block or line that readers refuse. Nothing is verified: a device writes what it has.
    """
    digest, count = hashlib.sha256(), 0
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as out:

        def put(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        put(header.to_line() + b"\n")
        for block in blocks:
            put(_block_lines(block))
            count += len(block.leaves)
        if count != header.count:
            raise SealpackError("USAGE_MISMATCH", f"header says {header.count} receipts, not {count}")
        out.write(trailer_line(count, digest.hexdigest()) + b"\n")


def _block_lines(block: Block) -> bytes:
    if not 0 < len(block.leaves) <= BLOCK_LEAVES:
        raise SealpackError("USAGE_LIMIT", f"block of {len(block.leaves)} receipts")
    longest = max(map(len, block.leaves))
    if longest > LIMITS.usage_line_bytes:
        raise SealpackError("USAGE_LIMIT", f"receipt of {longest} bytes")
    return b"\n".join((*block.leaves, checkpoint_line(block.note), b""))


def checkpoint_line(note: bytes) -> bytes:
    """Return the line that carries a checkpoint note."""
    return canonical.dumps({"checkpoint": note.decode("utf-8")})


def trailer_line(count: int, digest: str) -> bytes:
    """Return the last line: the number of receipts and the hex SHA-256 of every byte before it."""
    return canonical.dumps({"trailer": {"count": count, "sha256": digest}})


def parse_checkpoint_line(line: bytes) -> bytes:
    """Return the note bytes of a checkpoint line; CHECKPOINT_INVALID when it is none."""
    try:
        f = Fields(canonical.loads(line, what="checkpoint line"), "checkpoint line")
        if set(f.keys()) != {"checkpoint"}:
            raise f.fail("checkpoint", "does not stand alone")
        return f.text("checkpoint", max_len=LIMITS.usage_line_bytes).encode("utf-8")
    except SealpackError as error:
        raise SealpackError("CHECKPOINT_INVALID", error.message) from None


def parse_trailer_line(line: bytes) -> tuple[int, str]:
    """Return (count, sha256) of a trailer line; USAGE_MISMATCH when it is none."""
    try:
        f = Fields(canonical.loads(line, what="trailer line"), "trailer line").sub("trailer")
        return f.integer("count"), f.digest("sha256")
    except SealpackError as error:
        raise SealpackError("USAGE_MISMATCH", error.message) from None

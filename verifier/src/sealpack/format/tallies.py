"""The privacy form of a usage file: running totals leave the site, single calls stay behind hashes.

Source: specs/usage-export.md, "Tally files". The lines of a usage file, but usage, lost and denied records do
not stand in it: a run of them is one line with the roots of the subtrees it falls into. The tree still comes
out at the signed root, which proves (RFC 6962) every record that does stand there, at its place, and that the
tree at `to` extends the tree at `from`.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from sealpack.format import canonical, records
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.logcheck import LogState
from sealpack.format.merkle import MAX_SIZE, Frontier, leaf_hash, root_of, subtrees
from sealpack.format.note import Checkpoint, open_checkpoint, sign_checkpoint
from sealpack.format.records import Record, parse_record
from sealpack.format.runs import parse_leaves
from sealpack.format.usage import (
    BLOCK_LEAVES,
    TALLIES_SCHEMA,
    UsageHeader,
    checkpoint_line,
    parse_checkpoint_line,
    trailer_line,
)
from sealpack.format.usage_reader import UsageReader, UsageReport, VerifiedBlock, read_header, verify_usage

HIDDEN_PREFIX = b'{"hidden":'
HIDDEN = (records.USAGE, records.LOST, records.DENIED)  # kinds that stay at the site
FILE_LINES = 1 << 17  # a writer starts another file before the next tally
_MAX_ROOTS = 128


@dataclass(frozen=True, slots=True)
class TallyBlock(VerifiedBlock):
    """A proved block of a tally file: `leaves` are its lines, `records` those that are shown.

    `positions` are theirs; `ends` are the trees behind each line, where another tree can be compared.
    """

    positions: tuple[int, ...]
    ends: tuple[Frontier, ...]


# --- writing ----------------------------------------------------------------------------------------


def lines(tree: Frontier, leaves: Iterable[bytes]) -> Iterator[tuple[bytes, Frontier]]:
    """Yield the lines that stand for receipts behind `tree`, each with the tree after it."""
    run: list[bytes] = []
    for leaf in leaves:
        if parse_record(leaf).kind in HIDDEN:
            run.append(leaf_hash(leaf))
            continue
        if run:
            tree, line = _hide(tree, run)
            yield line, tree
            run = []
        tree = tree.append(leaf_hash(leaf))
        yield leaf, tree
    if run:
        tree, line = _hide(tree, run)
        yield line, tree


def _hide(tree: Frontier, run: Sequence[bytes]) -> tuple[Frontier, bytes]:
    """The tree after hidden leaf hashes, and the line that stands for them."""
    at, roots = 0, []
    for height in subtrees(tree.size, tree.size + len(run)):
        roots.append(root_of(run[at : at + (1 << height)]))
        at += 1 << height
        tree = tree.append_subtree(height, roots[-1])
    hidden = {"count": len(run), "roots": [root.hex() for root in roots]}
    return tree, canonical.dumps({"hidden": hidden})


def write_tallies(
    stream: BinaryIO, header: UsageHeader, leaves: Iterable[bytes], keys: Sequence[PrivateKey]
) -> None:
    """Write a tally file of the receipts from `header.start` on; the same arguments give the same bytes.

    `keys` is the device's key; also the next one where the last of `leaves` hands the log over.
    """
    header = replace(header, schema=TALLIES_SCHEMA)
    digest, tree = hashlib.sha256(), header.frontier
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as out:

        def put(line: bytes) -> None:
            digest.update(line + b"\n")
            out.write(line + b"\n")

        def close() -> None:
            put(checkpoint_line(sign_checkpoint(Checkpoint(header.origin, tree.size, tree.root), *keys)))

        put(header.to_line())
        pending = 0
        for line, after in lines(header.frontier, leaves):
            put(line)
            tree = after
            pending += 1
            if pending == BLOCK_LEAVES:
                close()
                pending = 0
        if pending:
            close()
        if tree.size != header.end:
            raise SealpackError(
                "USAGE_MISMATCH", f"header says {header.count} receipts, not {tree.size - header.start}"
            )
        out.write(trailer_line(header.count, digest.hexdigest()) + b"\n")


# --- reading ----------------------------------------------------------------------------------------


class TallyReader(UsageReader):
    """One pass over the blocks of a tally file; as :class:`UsageReader`, for what is shown in it."""

    schema = TALLIES_SCHEMA

    def _prove(self, leaves: list[bytes], line: bytes) -> TallyBlock:
        before = self.frontier
        note = parse_checkpoint_line(line)
        checkpoint = open_checkpoint(note, self._key)
        ends: list[Frontier] = []
        shown: list[tuple[int, bytes]] = []
        tree = before
        for leaf in leaves:
            if leaf.startswith(HIDDEN_PREFIX):
                tree = unhide(tree, leaf)
            else:
                shown.append((tree.size, leaf))
                tree = tree.append(leaf_hash(leaf))
            ends.append(tree)
        self._compare(checkpoint, tree, empty=not leaves)
        parsed = tuple(record for position, leaf in shown for record in parse_leaves((leaf,), position))
        self._rotate(note, parsed)
        for record, (position, _) in zip(parsed, shown, strict=True):
            if not isinstance(record, Record) or record.kind in HIDDEN:
                raise SealpackError("RECEIPT_INVALID", "a record stands in it that a tally file hides")
            self._check_genesis(record)
            if self._follows:
                self._checker.skip(position)
                self._checker.follow(record)
        if self._follows:
            self._checker.skip(tree.size)
        self.frontier, self.last_checkpoint = tree, checkpoint
        positions = tuple(position for position, _ in shown)
        return TallyBlock(before, tree, tuple(leaves), parsed, checkpoint, note, positions, tuple(ends))


def unhide(tree: Frontier, line: bytes) -> Frontier:
    """The tree after the receipts that a hidden line stands for; RECEIPT_TREE."""
    try:
        f = Fields(canonical.loads(line, what="hidden line"), "hidden line", "RECEIPT_TREE")
        if set(f.keys()) != {"hidden"}:
            raise f.fail("hidden", "does not stand alone")
        said = f.sub("hidden")
        count = said.integer("count", lo=1, hi=MAX_SIZE - tree.size)
        roots = said.texts("roots", max_items=_MAX_ROOTS, pattern=r"[0-9a-f]{64}")
    except SealpackError as error:
        raise SealpackError("RECEIPT_TREE", error.message) from None
    heights = subtrees(tree.size, tree.size + count)
    if len(heights) != len(roots):
        raise SealpackError(
            "RECEIPT_TREE", f"{count} hidden receipts are {len(heights)} subtrees, not {len(roots)}"
        )
    for height, root in zip(heights, roots, strict=True):
        tree = tree.append_subtree(height, bytes.fromhex(root))
    return tree


def open_reader(data: bytes, device_key: PublicKey | None = None, *, follow: bool = True) -> UsageReader:
    """The reader of a usage file in either form; errors as :class:`UsageReader`."""
    form = TallyReader if read_header(data).schema == TALLIES_SCHEMA else UsageReader
    return form(data, device_key, follow=follow)


def verify(data: bytes, device_key: PublicKey | None = None, *, state: LogState | None = None) -> UsageReport:
    """:func:`verify_usage` of a usage file in either form."""
    try:
        form = TallyReader if read_header(data).schema == TALLIES_SCHEMA else UsageReader
    except SealpackError:
        form = UsageReader
    return verify_usage(data, device_key, state=state, form=form)

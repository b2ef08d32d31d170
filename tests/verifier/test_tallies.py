"""Tally files: totals and proofs in place of single calls, on both ends."""

from __future__ import annotations

import gzip
import io

import pytest
from support.device import Device

from sealpack.format import tallies
from sealpack.format.errors import SealpackError
from sealpack.format.merkle import Frontier
from sealpack.format.usage import SCHEMA, TALLIES_SCHEMA
from sealpack.format.usage_reader import UsageReader


def device(calls: int = 600) -> Device:
    return Device().work(calls).tally()


def test_a_tally_file_shows_no_call_and_the_same_tree() -> None:
    own = device()
    reader = tallies.open_reader(own.tallies())
    shown = [record.kind for block in reader for record in block.records]
    assert {"u", "l", "d"}.isdisjoint(shown) and "t" in shown
    assert reader.frontier == own.frontier(own.size)
    assert type(tallies.open_reader(own.export())) is UsageReader
    report = tallies.verify(own.tallies(), own.key.public)
    assert report.ok and report.to_dict()["tallies"] is True
    assert "tallies" not in tallies.verify(own.export(), own.key.public).to_dict()


def test_calls_at_the_end_are_hidden_too() -> None:
    own = Device().use(3)
    (block,) = tallies.open_reader(own.tallies())
    assert block.after == own.frontier(own.size) and block.leaves[-1].startswith(tallies.HIDDEN_PREFIX)


def test_many_lines_are_cut_into_blocks() -> None:
    own = Device()
    for _ in range(300):
        own.use().tally()
    blocks = list(tallies.open_reader(own.tallies()))
    assert len(blocks) == 3 and blocks[-1].after == own.frontier(own.size)


def test_exactly_one_block_has_one_checkpoint() -> None:
    own = Device()
    while len(list(tallies.lines(Frontier(), own.leaves))) < 256:
        own.tally()
    (block,) = tallies.open_reader(own.tallies())
    assert block.checkpoint.size == own.size


def test_blocks_can_be_read_without_following_the_log() -> None:
    own = device(40)
    reader = tallies.open_reader(own.tallies(), follow=False)
    assert [block.after.size for block in reader] == [own.size] and not reader.findings


def test_a_header_that_counts_otherwise_is_not_written() -> None:
    own = device(40)
    with pytest.raises(SealpackError, match="USAGE_MISMATCH"):
        tallies.write_tallies(io.BytesIO(), own.header(0, own.size + 1), own.leaves, [own.key])


def test_what_has_no_header_is_reported() -> None:
    report = tallies.verify(b"not usage at all")
    assert not report.ok and report.accepted == 0


@pytest.mark.parametrize(
    "line",
    [
        b'{"hidden":{"count":1,"roots":[]}}',
        b'{"hidden":{"count":0,"roots":[]}}',
        b'{"hidden":1}',
        b'{"hidden":{',
        b'{"hidden":{"count":1,"roots":[]},"x":1}',
    ],
)
def test_lines_that_hide_nothing(line: bytes) -> None:
    with pytest.raises(SealpackError, match="RECEIPT_TREE"):
        tallies.unhide(Frontier(), line)


def test_no_subtree_begins_in_the_middle() -> None:
    with pytest.raises(ValueError, match="begins at 1"):
        Frontier().append(bytes(32)).append_subtree(3, bytes(32))


def test_a_call_that_stands_there_after_all() -> None:
    """A line that the privacy form hides is refused, not taken."""
    own = device(3)
    with_calls = gzip.decompress(own.export()).replace(SCHEMA.encode(), TALLIES_SCHEMA.encode())
    report = tallies.verify(with_calls, own.key.public)
    assert report.findings[0].code == "RECEIPT_INVALID"

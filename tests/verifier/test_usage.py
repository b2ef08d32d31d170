"""Usage files: what the writer promises, and that any damage leaves a true prefix."""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import canonical, limits, records, usage_reader
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.logcheck import MAX_FINDINGS, Finding, LogState
from sealpack.format.merkle import Frontier, leaf_hash, root_of
from sealpack.format.note import Checkpoint, open_checkpoint, sign_checkpoint
from sealpack.format.records import Registers, encode, make
from sealpack.format.usage import Block, UsageHeader, sign_blocks, write_usage
from sealpack.format.usage_reader import UsageReader, read_header, verify_usage

DEVICE = PrivateKey.from_seed(b"sealpack test usage device key 1")
OTHER = PrivateKey.from_seed(b"sealpack test usage device key 2")
ORIGIN = "sealpack/usage/lic-test/dev-test/0"
DIGEST = "cd" * 32
ROUTE = {"license_id": "lic-test", "seq": 1, "bundle_digest": DIGEST, "model_digest": DIGEST}
RUNTIME = {"version": "0.2.0", "digest": DIGEST}


def write_log(size: int) -> Iterator[bytes]:
    """A log of `size` receipts: genesis, boot, usage, and a tally at every 100th."""
    registers = Registers()

    def record(kind: str, at: int, **members: Any) -> bytes:
        head = {"position": at, "boot": 1, "time_ms": 1_790_000_000_000 + at, "skew_ms": 0, "uptime_ms": at}
        made = make(kind, **head, **members)
        registers.add(made)
        return encode(made)

    yield record("g", 0, origin=ORIGIN, device=DEVICE.public.pem, license=DIGEST, root=DIGEST, epoch=0)
    yield record("b", 1, nonce="ab" * 16, runtime=RUNTIME, routes={"r1": ROUTE})
    for at in range(2, size):
        if at % 100 == 0:
            yield record("t", at, registers=registers.to_tally())
        else:
            meters = {"calls": 1, "tok_out": at % 7, "ms": 20}
            yield record("u", at, route="r1", status="ok", meters=meters, wait_ms=0)


@cache
def log(size: int) -> tuple[bytes, ...]:
    return tuple(write_log(size))


def head_of(leaves: tuple[bytes, ...], start: int = 0) -> UsageHeader:
    return UsageHeader(
        origin=ORIGIN,
        file_seq=1,
        start=start,
        end=len(leaves),
        reason="manual",
        opened=0,
        last=0,
        lost=0,
        frontier=Frontier().extend(map(leaf_hash, leaves[:start])),
        device_key=DEVICE.public,
        runtime_version="0.2.0",
        runtime_digest=DIGEST,
        activation={"payload": "e30=", "payloadType": "test", "signatures": []},
    )


@cache
def file_of(size: int, start: int = 0) -> bytes:
    leaves = log(size)
    header = head_of(leaves, start)
    stream = io.BytesIO()
    write_usage(stream, header, sign_blocks(header.frontier, ORIGIN, leaves[start:], DEVICE))
    return stream.getvalue()


def codes(data: bytes) -> list[str]:
    return [finding.code for finding in verify_usage(data, DEVICE.public).findings]


def test_a_whole_file_is_accepted_whole() -> None:
    report = verify_usage(file_of(700), DEVICE.public)
    assert report.ok and report.complete and not report.torn
    assert (report.accepted, report.size) == (700, 700)
    assert report.root == root_of([leaf_hash(leaf) for leaf in log(700)]).hex()
    expected = Registers()
    for leaf in log(700):
        expected.add(records.parse_record(leaf))
    assert report.growth == expected
    assert report.state is not None and report.state.registers == expected
    assert report.to_dict()["growth"] == expected.to_tally()


def test_the_header_is_read_back() -> None:
    assert read_header(file_of(700)) == head_of(log(700))
    assert read_header(file_of(700, 300)) == head_of(log(700), 300)


def test_writing_again_gives_the_same_bytes() -> None:
    again = io.BytesIO()
    header = head_of(log(700))
    write_usage(again, header, sign_blocks(Frontier(), ORIGIN, log(700), DEVICE))
    assert again.getvalue() == file_of(700)
    assert again.getvalue()[4:8] == bytes(4)  # no modification time


@given(st.integers(1, 600))
@settings(max_examples=20, deadline=None)
def test_blocks_are_cut_at_multiples_of_256_of_the_log(start: int) -> None:
    leaves = log(600)[start:]
    blocks = list(sign_blocks(head_of(log(600), start).frontier, ORIGIN, leaves, DEVICE))
    assert tuple(leaf for block in blocks for leaf in block.leaves) == leaves
    ends = [open_checkpoint(block.note, DEVICE.public).size for block in blocks]
    assert ends == [end for end in (256, 512) if end > start] + ([600] if start < 600 else [])


def test_a_log_of_whole_blocks_has_no_empty_one_behind_them() -> None:
    blocks = list(sign_blocks(Frontier(), ORIGIN, log(512), DEVICE))
    assert [len(block.leaves) for block in blocks] == [256, 256]


def test_two_halves_are_one_log() -> None:
    first = verify_usage(_cut(700, 300), DEVICE.public)
    assert first.ok and first.state is not None
    second = verify_usage(file_of(700, 300), DEVICE.public, state=first.state)
    whole = verify_usage(file_of(700), DEVICE.public)
    assert second.ok
    assert (second.size, second.root, second.state) == (whole.size, whole.root, whole.state)
    sums = first.growth.copy()
    for (route, status, meter), count in second.growth.totals.items():
        sums.charge(route, status, {meter: count})
    assert sums == whole.growth


def _cut(size: int, end: int) -> bytes:
    stream = io.BytesIO()
    header = head_of(log(size)[:end])
    write_usage(stream, header, sign_blocks(Frontier(), ORIGIN, log(size)[:end], DEVICE))
    return stream.getvalue()


def test_state_survives_its_json_form_and_is_left_unchanged() -> None:
    state = verify_usage(_cut(700, 300), DEVICE.public).state
    assert state is not None
    again = LogState.from_dict(state.to_dict())
    assert again == state
    verify_usage(file_of(700, 300), DEVICE.public, state=again)
    assert again == state


def test_what_a_state_does_not_know_is_not_written() -> None:
    unknown = LogState(300)
    assert unknown.to_dict() == {"position": 300, "uptime_ms": 0, "closed": False}
    assert LogState.from_dict(unknown.to_dict()) == unknown


def test_known_registers_show_what_a_file_alone_cannot() -> None:
    """The first tally of a later file is believed, unless the reader knows the registers before it."""
    state = verify_usage(_cut(700, 300), DEVICE.public).state
    assert state is not None and state.registers is not None
    state.registers.charge("r1", "ok", {"calls": 1})
    assert verify_usage(file_of(700, 300), DEVICE.public).ok
    report = verify_usage(file_of(700, 300), DEVICE.public, state=state)
    assert [finding.code for finding in report.findings] == ["RECEIPT_TALLY"]
    assert report.accepted == 400


def test_a_state_of_another_size_is_not_used() -> None:
    state = verify_usage(_cut(700, 200), DEVICE.public).state
    assert verify_usage(file_of(700, 300), DEVICE.public, state=state).ok


def test_findings_say_where_they_are_when_they_know() -> None:
    assert Finding("USAGE_TORN", "ends").to_dict() == {"code": "USAGE_TORN", "message": "ends"}
    known = Finding("RECEIPT_ORDER", "moved", 7).to_dict()
    assert known == {"code": "RECEIPT_ORDER", "message": "moved", "position": 7}


def test_each_tally_that_differs_is_reported_once() -> None:
    leaves = list(log(700))
    del leaves[150]
    numbers = enumerate(leaves[150:], 150)
    wrong = leaves[:150] + [leaf.replace(b'"n":%d,' % (at + 1), b'"n":%d,' % at) for at, leaf in numbers]
    stream = io.BytesIO()
    write_usage(stream, head_of(tuple(wrong)), sign_blocks(Frontier(), ORIGIN, wrong, DEVICE))
    report = verify_usage(stream.getvalue(), DEVICE.public)
    assert [(finding.code, finding.position) for finding in report.findings] == [("RECEIPT_TALLY", 199)]
    assert report.accepted == 699


def test_a_reader_that_does_not_follow_proves_the_same_blocks() -> None:
    state = verify_usage(_cut(700, 300), DEVICE.public).state
    assert state is not None and state.registers is not None
    state.registers.charge("r1", "ok", {"calls": 1})  # a tally will differ
    told = UsageReader(file_of(700, 300), DEVICE.public, state=state)
    untold = UsageReader(file_of(700, 300), DEVICE.public, state=state, follow=False)
    assert list(told) == list(untold) and untold.complete
    assert (len(told.findings), untold.findings, untold.state) == (1, (), state)


def test_blocks_tell_the_tree_in_front_of_them() -> None:
    tree = Frontier()
    for block in UsageReader(file_of(700), DEVICE.public):
        assert block.before == tree
        tree = tree.extend(map(leaf_hash, block.leaves))
        assert block.after == tree
        assert (block.checkpoint.size, block.checkpoint.root) == (tree.size, tree.root)
        assert [record.position for record in block.records] == list(range(block.before.size, tree.size))
    assert tree.size == 700


# --- damage -------------------------------------------------------------------------------------------


def assert_true_prefix(data: bytes) -> int:
    """Whatever the bytes are, what is accepted is the beginning of the log, in whole blocks."""
    try:
        reader = UsageReader(data, DEVICE.public)
    except SealpackError as error:
        assert error.code in {"USAGE_HEADER", "USAGE_TORN", "USAGE_LIMIT", "USAGE_KEY"}
        return 0
    taken: list[bytes] = []
    for block in reader:
        taken += block.leaves
    assert tuple(taken) == log(700)[: len(taken)]
    assert len(taken) in (0, 256, 512, 700)
    assert reader.complete == (not reader.findings)
    assert all(finding.code in CODES for finding in reader.findings)
    return len(taken)


@given(st.integers(0, len(file_of(700)) - 1))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere(length: int) -> None:
    data = file_of(700)[:length]
    accepted = assert_true_prefix(data)
    report = verify_usage(data, DEVICE.public)
    assert report.torn and not report.ok and report.accepted == accepted
    assert codes(data) == ["USAGE_TORN"]


def test_a_longer_cut_never_holds_less() -> None:
    data = file_of(700)
    accepted = [assert_true_prefix(data[:length]) for length in range(0, len(data), 97)]
    assert accepted == sorted(accepted)
    assert set(accepted) >= {0, 256, 512}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_with_one_changed_byte(data: st.DataObject) -> None:
    changed = bytearray(file_of(700))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    assert_true_prefix(bytes(changed))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_an_unpacked_file_with_one_changed_byte(data: st.DataObject) -> None:
    changed = bytearray(gzip.decompress(file_of(700)))
    header = changed.index(b"\n")
    at = data.draw(st.integers(header + 1, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    assert_true_prefix(bytes(changed))
    assert not verify_usage(bytes(changed), DEVICE.public).ok


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_end_in_a_report(data: bytes) -> None:
    for given_bytes in (data, b"\x1f\x8b" + data, gzip.compress(data)):
        report = verify_usage(given_bytes)
        assert not report.ok and report.accepted == 0 and report.findings


def test_blocks_before_damage_in_the_middle_of_a_read_are_kept() -> None:
    """zlib gives nothing of the call that meets the damage; the reader goes on byte by byte."""
    data = bytearray(file_of(700))
    data[-8:-4] = b"\0\0\0\0"
    report = verify_usage(bytes(data), DEVICE.public)
    assert report.accepted == 700 and report.torn


# --- bounds -------------------------------------------------------------------------------------------


def test_a_bomb_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(limits.LIMITS, usage_plain_bytes=80_000)
    monkeypatch.setattr(usage_reader, "LIMITS", small)
    report = verify_usage(file_of(700), DEVICE.public)
    assert [finding.code for finding in report.findings] == ["USAGE_LIMIT"]
    assert report.accepted == 256


def test_an_oversize_file_is_not_even_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_reader, "LIMITS", replace(limits.LIMITS, usage_file_bytes=1000))
    assert codes(file_of(700)) == ["USAGE_LIMIT"]


def test_an_endless_line_stops_at_the_limit() -> None:
    bomb = gzip.compress(b"a" * (64 << 20), 1)
    assert codes(bomb) == ["USAGE_LIMIT"]


# --- identity and the writer's own checks ---------------------------------------------------------------


def test_without_a_key_the_file_must_be_of_one_piece() -> None:
    assert verify_usage(file_of(700)).ok
    stream = io.BytesIO()
    write_usage(stream, head_of(log(700)), sign_blocks(Frontier(), ORIGIN, log(700), OTHER))
    report = verify_usage(stream.getvalue())
    assert [finding.code for finding in report.findings] == ["CHECKPOINT_INVALID"]


def test_another_devices_file_is_refused() -> None:
    report = verify_usage(file_of(700), OTHER.public)
    assert [finding.code for finding in report.findings] == ["USAGE_KEY"]
    assert report.accepted == 0


def test_what_is_no_usage_file_has_a_report_without_a_log() -> None:
    assert verify_usage(b"junk").to_dict() == {
        "schema": "sealpack/usage-report/v1",
        "ok": False,
        "accepted": 0,
        "torn": True,
        "complete": False,
        "growth": {},
        "findings": [{"code": "USAGE_TORN", "message": "usage file ends before its header does"}],
    }


@pytest.mark.parametrize(
    "trailer", [b'{"trailer":{"count":700}}', b'{"trailer":7}', b'{"trailer":{"count":-1,"sha256":"x"}}']
)
def test_a_trailer_that_says_nothing(trailer: bytes) -> None:
    lines = gzip.decompress(file_of(700)).splitlines(keepends=True)
    assert lines[-1].startswith(b'{"trailer":')
    report = verify_usage(b"".join(lines[:-1]) + trailer + b"\n", DEVICE.public)
    assert [finding.code for finding in report.findings] == ["USAGE_MISMATCH"]
    assert report.accepted == 700 and not report.complete


def test_genesis_must_be_of_the_header() -> None:
    header = replace(head_of(log(700)), device_key=OTHER.public)
    stream = io.BytesIO()
    write_usage(stream, header, sign_blocks(Frontier(), ORIGIN, log(700), OTHER))
    report = verify_usage(stream.getvalue(), OTHER.public)
    assert [finding.code for finding in report.findings] == ["USAGE_KEY"]


def test_genesis_must_be_of_the_log_the_header_names() -> None:
    genesis = log(700)[0].replace(ORIGIN.encode(), ORIGIN.encode()[:-1] + b"1")
    leaves = (genesis, *log(700)[1:])
    stream = io.BytesIO()
    write_usage(stream, head_of(leaves), sign_blocks(Frontier(), ORIGIN, leaves, DEVICE))
    report = verify_usage(stream.getvalue(), DEVICE.public)
    assert [(finding.code, finding.position) for finding in report.findings] == [("USAGE_HEADER", 0)]


def test_findings_of_one_file_are_bounded() -> None:
    """Every block begins with a genesis record of another log and key; twenty say as much as thirty."""
    foreign = {"origin": ORIGIN[:-1] + "1", "device": OTHER.public.pem}
    frontier, blocks = Frontier(), []
    for at in range(30):
        head = {"position": at, "boot": 1, "time_ms": at, "skew_ms": 0, "uptime_ms": at}
        leaf = encode(make("g", **head, **foreign, license=DIGEST, root=DIGEST, epoch=0))
        frontier = frontier.extend([leaf_hash(leaf)])
        note = sign_checkpoint(Checkpoint(ORIGIN, frontier.size, frontier.root), DEVICE)
        blocks.append(Block((leaf,), note))
    stream = io.BytesIO()
    write_usage(stream, head_of(tuple(leaf for block in blocks for leaf in block.leaves)), blocks)
    report = verify_usage(stream.getvalue(), DEVICE.public)
    codes = Counter(finding.code for finding in report.findings)
    assert (report.accepted, codes["USAGE_HEADER"], codes["USAGE_KEY"]) == (30, 10, 10)
    assert codes["RECEIPT_ORDER"] == MAX_FINDINGS and len(report.findings) == 2 * MAX_FINDINGS


def written(header: UsageHeader, *blocks: Block) -> str:
    with pytest.raises(SealpackError) as caught:
        write_usage(io.BytesIO(), header, blocks)
    return caught.value.code


def test_the_writer_refuses_what_readers_would() -> None:
    header = head_of(log(300))
    first, second = sign_blocks(Frontier(), ORIGIN, log(300), DEVICE)
    assert written(header, first) == "USAGE_MISMATCH"
    assert written(header, first, second, second) == "USAGE_MISMATCH"
    assert written(header, Block(log(300), second.note)) == "USAGE_LIMIT"
    assert written(header, Block((), second.note)) == "USAGE_LIMIT"
    assert written(header, Block((b"a" * 70_000,), second.note)) == "USAGE_LIMIT"


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "sealpack/usage/v2"},
        {"crit": ["new"]},
        {"count": 1},
        {"to": 0, "from": 5},
        {"from": -1},
        {"file_seq": 0},
        {"frontier": ["00" * 32]},
        {"device": "no key"},
        {"device": PrivateKey.from_scalar(7).public.pem},  # P-256 signs no usage
        {"origin": "two words"},
        {"reason": "Because!"},
        {"runtime": {}},
    ],
)
def test_headers_that_cannot_be(change: dict[str, Any]) -> None:
    line = canonical.dumps({**head_of(log(700)).to_dict(), **change})
    with pytest.raises(SealpackError, match="USAGE_HEADER"):
        UsageHeader.from_line(line)

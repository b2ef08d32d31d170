"""The container: one byte layout, whatever is changed is refused, and hostile directories cost little."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import container
from sealpack.format.container import MIMETYPE, BundleReader, Item, Member, lay_out, write_bundle
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

MODEL = "payload/model.gguf"


def pack(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    write_bundle(out, [Member.of_bytes(n, d) for n, d in entries.items()])
    return out.getvalue()


def small(**more: bytes) -> dict[str, bytes]:
    return {"mimetype": MIMETYPE, "manifest.json": b"{}", "card.md": b"# Card\n", **more}


def refusal(data: bytes) -> str:
    with pytest.raises(SealpackError) as caught:
        BundleReader(io.BytesIO(data))
    return caught.value.code


def code_of(items: list[Item]) -> str:
    with pytest.raises(SealpackError) as caught:
        lay_out(items)
    return caught.value.code


# --- what is written is read ----------------------------------------------------------------------------

SEGMENT = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True).filter(
    lambda s: not container._DEVICES.fullmatch(s.lower()) and s.lower() not in ("meta", "payload")
)
NAMES = st.builds(
    lambda front, parts: front + "/".join(parts),
    st.sampled_from(["", "payload/"]),
    st.lists(SEGMENT, min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.binary(max_size=200), max_size=6))
def test_round_trip(entries: dict[str, bytes]) -> None:
    try:
        data = pack({"mimetype": MIMETYPE, **entries})
    except SealpackError as error:
        assert error.code == "CONTAINER_DUPLICATE"  # a name met as file and folder, or in two cases
        return
    reader = BundleReader(io.BytesIO(data))
    assert {n: reader.read(n) for n in reader.names} == {"mimetype": MIMETYPE, **entries}
    assert all(p.data_at % 65536 == 0 for n, p in reader.entries.items() if n.startswith("payload/"))
    assert pack({n: reader.read(n) for n in reader.names}) == data
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert z.testzip() is None
        assert [i.filename for i in z.infolist()] == list(reader.entries)


def card_size_for(gap: int) -> int:
    """The card's size that leaves `gap` bytes before the payload would be aligned without an extra."""
    before = sum(30 + len(n) + 20 + len(d) for n, d in small().items()) - len(b"# Card\n")
    header = 30 + len(MODEL) + 20
    return (-(before + header) - gap) % 65536


GAPS = [(0, False), (1, True), (2, True), (3, True), (4, False), (5, False), (40_000, False)]
GAPS += [(65_514, False), (65_515, False), (65_516, True), (65_520, True), (65_535, True)]


@pytest.mark.parametrize(("gap", "padded"), GAPS)
def test_unreachable_gaps_get_a_pad(gap: int, padded: bool) -> None:
    data = pack(small(**{"card.md": bytes(card_size_for(gap)), MODEL: b"GGUF"}))
    reader = BundleReader(io.BytesIO(data))
    assert ("META/pad.0" in reader.entries) == padded
    assert reader.entries[MODEL].data_at % 65536 == 0
    assert "META/pad.0" not in reader.names and "META/pad.0" not in reader.signed_names
    extra = len(reader.entries[MODEL].header) - 30 - len(MODEL) - 20
    assert extra == 0 if gap == 0 else padded or extra == gap
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        assert z.testzip() is None


def test_after_every_pad_the_payload_can_be_aligned() -> None:
    """Whatever the number of the pad and the gap before it, one pad is enough."""
    for name in ("META/pad.0", "META/pad.10", "META/pad.4095"):
        for gap in (1, 2, 3, *range(65_516, 65_536)):
            left = (gap - (30 + len(name) + 20 + 64)) % 65536
            assert left == 0 or 4 <= left <= 65_515, (name, gap)


def test_many_pads_are_numbered() -> None:
    """Empty payload entries of a chosen name length each leave a gap that needs a pad."""
    entries = small(**{f"payload/{n}": bytes(65536 - 58 - 2) for n in "abc"})
    reader = BundleReader(io.BytesIO(pack(entries)))
    pads = [n for n in reader.entries if container.is_pad(n)]
    assert pads == [f"META/pad.{n}" for n in range(len(pads))] and len(pads) >= 2


# --- whatever is changed is refused ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> bytes:
    """A container with a pad, an aligned payload behind it, another payload, and short metadata."""
    return pack(small(**{"card.md": bytes(card_size_for(2)), MODEL: b"GGUF", "payload/vocab.txt": b"x"}))


def structural(data: bytes) -> Iterator[int]:
    """Offsets of every byte that is not content: headers, pads, directory, end records, mimetype."""
    reader = BundleReader(io.BytesIO(data))
    at = 0
    for name, place in reader.entries.items():
        yield from range(place.header_at, place.data_at)
        if name == "mimetype" or container.is_pad(name):
            yield from range(place.data_at, place.data_at + place.item.size)
        at = place.data_at + place.item.size
    yield from range(at, len(data))


def test_every_structural_byte_counts(good: bytes) -> None:
    """One changed bit in any structural byte is a CONTAINER_* refusal; alignment zeros are sampled."""
    offsets = list(structural(good))
    zeros = [at for at in offsets if at > 2000 and not any(good[at - 8 : at + 8])]
    chosen = sorted(set(offsets) - set(zeros)) + zeros[:: max(1, len(zeros) // 200)]
    assert len(chosen) > 900
    changed = bytearray(good)
    for at in chosen:
        changed[at] ^= 1 << at % 8
        assert refusal(bytes(changed)).startswith("CONTAINER_"), at
        changed[at] = good[at]


def test_every_truncation_is_refused(good: bytes) -> None:
    for length in (*range(0, 400), *range(400, len(good), 997), *range(len(good) - 400, len(good))):
        assert refusal(good[:length]) in ("CONTAINER_TRUNCATED", "CONTAINER_TAIL"), length


def test_every_cut_at_the_front_is_refused(good: bytes) -> None:
    for start in (*range(1, 300), 65536):
        assert refusal(good[start:]).startswith("CONTAINER_"), start


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_spliced_bytes_are_refused(good: bytes, at: int, drop: int, put: bytes) -> None:
    """Bytes taken out and others put in: the same length in content is fine, all else is not."""
    at %= len(good)
    drop %= 9
    changed = good[:at] + put + good[at + drop :]
    if changed == good:
        return
    try:
        reader = BundleReader(io.BytesIO(changed))
    except SealpackError as error:
        assert error.code.startswith("CONTAINER_")
        return
    assert len(changed) == len(good)
    assert list(reader.entries) == list(BundleReader(io.BytesIO(good)).entries)


def test_content_is_checked_when_it_is_read(good: bytes) -> None:
    place = BundleReader(io.BytesIO(good)).entries["manifest.json"]
    changed = bytearray(good)
    changed[place.data_at] ^= 1
    reader = BundleReader(io.BytesIO(bytes(changed)))
    with pytest.raises(SealpackError) as caught:
        reader.read("manifest.json")
    assert caught.value.code == "CONTAINER_CRC"
    with pytest.raises(SealpackError) as caught:
        reader.read("manifest.json", 1)
    assert caught.value.code == "CONTAINER_LIMIT"


def test_a_file_cut_while_it_is_read(good: bytes) -> None:
    file = io.BytesIO(good)
    reader = BundleReader(file)
    file.truncate(70_000)
    with pytest.raises(SealpackError) as caught:
        list(reader.blocks("payload/vocab.txt"))
    assert caught.value.code == "CONTAINER_TRUNCATED"


# --- hostile directories cost little --------------------------------------------------------------------


def directory_only(items: list[Item], total: int = 0) -> bytes:
    """End records and a directory for entries that are not there, behind `total` zero bytes."""
    central = b"".join(container._central_header(container.Placed(i, 0, b"")) for i in items)
    end = container._closing([], 0)[:24] + struct.pack("<4Q", len(items), len(items), len(central), total)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, total + len(central), 1)
    return bytes(total) + central + end + locator + container._closing([], 0)[76:]


def test_a_directory_of_aligned_ghosts_needs_little_memory() -> None:
    """4000 payload entries, each said to need an alignment field of 64 KiB: 256 MB if laid out blindly."""
    items = [Item("mimetype", 35, 0), *(Item(f"payload/{n:05}", 0, 0) for n in range(4000))]
    data = directory_only(items)
    tracemalloc.start()
    try:
        assert refusal(data) == "CONTAINER_DIRECTORY"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_sizes_beyond_the_file(size: int) -> None:
    items = [Item("mimetype", size, 0), Item("manifest.json", size, 0), Item(MODEL, size, 0)]
    assert refusal(directory_only(items)) == "CONTAINER_DIRECTORY"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_directory_bytes_are_a_refusal(garbage: bytes) -> None:
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 3 << 8 | 45, 45, 0, 0, 1, 1, len(garbage), 0)
    tail = struct.pack("<4sIQI", b"PK\6\7", 0, len(garbage), 1)
    tail += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert refusal(garbage + end + tail).startswith("CONTAINER_")


# --- the writer refuses what the reader would -----------------------------------------------------------


BAD_NAMES = [
    "",
    "/x",
    "a//b",
    "a/",
    "./a",
    "a/..",
    "..",
    "a\\b",
    "a b",
    "caf\u00e9",
    "a\n",
    "nul",
    "a.",
    "a./b",
]
BAD_NAMES += ["Lpt9.txt", "x/CON", "a\0b", "\u212a", "n" * 201, "~", "a:b"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_are_refused(name: str) -> None:
    assert code_of([Item(name, 0, 0)]) == "CONTAINER_NAME"
    with pytest.raises(SealpackError) as caught:
        pack({"mimetype": MIMETYPE, name: b""})
    assert caught.value.code == "CONTAINER_NAME"


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "a/b/c", "...a", "n" * 200, "console", "com10", ".hidden"])
def test_names_that_are_fine(name: str) -> None:
    assert BundleReader(io.BytesIO(pack({"mimetype": MIMETYPE, name: b"x"}))).read(name) == b"x"


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["a", "a"], "CONTAINER_DUPLICATE"),
        (["A", "a"], "CONTAINER_DUPLICATE"),
        (["a", "a/b"], "CONTAINER_DUPLICATE"),
        (["A/x", "a"], "CONTAINER_DUPLICATE"),
        (["b", "a"], "CONTAINER_ORDER"),
        (["manifest.json", "mimetype"], "CONTAINER_ORDER"),
        (["payload/a", "manifest.json"], "CONTAINER_ORDER"),
        (["META/trust/root.10.json", "META/trust/root.9.json"], "CONTAINER_ORDER"),
        (["META/notes"], "CONTAINER_META"),
        (["Meta/notes"], "CONTAINER_META"),
        (["META/pad.0"], "CONTAINER_META"),
        (["META/trust/root.json"], "CONTAINER_META"),
        (["META/license/.hidden.json"], "CONTAINER_META"),
    ],
)
def test_entries_that_do_not_go_together(names: list[str], code: str) -> None:
    assert code_of([Item(n, 0, 0) for n in names]) == code


def test_too_many_entries() -> None:
    assert code_of([Item(f"e{n:05}", 0, 0) for n in range(LIMITS.entries + 1)]) == "CONTAINER_LIMIT"


def test_a_directory_over_its_limit() -> None:
    items = [Item(f"{n:0200}", 0, 0) for n in range(LIMITS.entries)]
    assert code_of(items) == "CONTAINER_LIMIT"


@pytest.mark.parametrize("grown", [b"12", b"1234", b"999"])
def test_a_member_that_changes_while_it_is_written(grown: bytes) -> None:
    member = Member("a", 3, zlib.crc32(b"123"), lambda: io.BytesIO(grown))
    with pytest.raises(SealpackError) as caught:
        write_bundle(io.BytesIO(), [Member.of_bytes("mimetype", MIMETYPE), member])
    assert caught.value.code == "IO_ERROR"


def test_payloads_stay_where_they_were_written_beforehand() -> None:
    """A builder streams payloads to their offsets first, and the directory around them afterwards."""
    entries = small(**{MODEL: b"GGUF" * 1000, "payload/vocab.txt": b"a\nb\n"})
    members = [Member.of_bytes(name, data) for name, data in entries.items()]
    offsets = container.data_offsets(members)
    assert offsets == {n: p.data_at for n, p in BundleReader(io.BytesIO(pack(entries))).entries.items()}
    out = io.BytesIO()
    for name in (MODEL, "payload/vocab.txt"):
        out.seek(offsets[name])
        out.write(entries[name])
    unread = [replace(m, open=lambda: io.BytesIO(b"other")) if m.name == MODEL else m for m in members]
    write_bundle(out, unread, {MODEL: offsets[MODEL], "payload/vocab.txt": 7})  # 7: it was put elsewhere
    assert out.getvalue() == pack(entries)

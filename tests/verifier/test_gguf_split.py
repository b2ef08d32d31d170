"""Split GGUF models: the parts as one file, and parts that are not one model."""

from __future__ import annotations

import hashlib
import io
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import gguf_split
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import read_gguf_header
from sealpack.format.gguf_split import PartDigest, SplitGguf, SplitName, files_of, read_split, require_first
from sealpack.format.limits import LIMITS

U16, U32, I32, STRING = 2, 4, 5, 8
Tensor = tuple[str, int, bytes]  # name, type number, values


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: int | str) -> bytes:
    code = {U16: "<H", U32: "<I", I32: "<i"}.get(kind)
    stored = text(str(value)) if code is None else struct.pack(code, value)
    return text(key) + struct.pack("<I", kind) + stored


def gguf(pairs: list[bytes], tensors: list[Tensor], *, align: int = 32, version: int = 3) -> bytes:
    """One file, as llama-gguf-split and the gguf package write it."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, kind, values in tensors:
        count = len(values) // {0: 4, 1: 2}[kind]
        head += text(name) + struct.pack("<IQIQ", 1, count, kind, len(data))
        data += values + bytes(-len(values) % align)
    return head + bytes(-len(head) % align) + data


TENSORS: list[list[Tensor]] = [
    [("a", 0, bytes(range(36))), ("b", 1, b"\1\2" * 20)],
    [("c", 0, b"\3" * 64)],
    [("d", 1, b"\4\5" * 3), ("e", 0, b"\6" * 100)],
]
FACTS = [
    pair("general.architecture", STRING, "llama"),
    pair("general.name", STRING, "Three parts"),
    pair("llama.context_length", U32, 64),
]


def marks(number: int, count: int = 3, total: int = 5) -> list[bytes]:
    """The split.* key-values of a part."""
    return [
        pair("split.no", U16, number),
        pair("split.count", U16, count),
        pair("split.tensors.count", I32, total),
    ]


def parts_of(facts: list[bytes] = FACTS, tensors: list[list[Tensor]] = TENSORS) -> list[bytes]:
    """The three files; the split.* keys of the first stand among the others."""
    total = sum(map(len, tensors))
    first = facts[:1] + marks(0, len(tensors), total) + facts[1:]
    later = [gguf(marks(n, len(tensors), total), t) for n, t in enumerate(tensors[1:], 1)]
    return [gguf(first, tensors[0]), *later]


def stored(folder: Path, parts: list[bytes], prefix: str = "net") -> Path:
    """Write the parts under their names; the first one's path."""
    for number, data in enumerate(parts, 1):
        (folder / f"{prefix}-{number:05d}-of-{len(parts):05d}.gguf").write_bytes(data)
    return folder / f"{prefix}-00001-of-{len(parts):05d}.gguf"


def opened(path: Path) -> SplitGguf:
    require_first(path)
    with path.open("rb") as file:
        header = read_gguf_header(file, what=path.name)
    found = read_split(path, header)
    assert found is not None
    return found


def merged(split: SplitGguf) -> tuple[bytes, list[PartDigest]]:
    told: list[PartDigest] = []
    with split.open(told.append) as file:
        return file.read(), told


def refused(path: Path) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        opened(path)
    return caught.value


def test_the_parts_are_the_file_they_were_split_from(tmp_path: Path) -> None:
    split = opened(stored(tmp_path, parts_of()))
    data, told = merged(split)
    assert data == gguf(FACTS, [tensor for part in TENSORS for tensor in part])
    assert split.size == len(data)
    assert split.header == read_gguf_header(io.BytesIO(data))
    files = sorted(tmp_path.iterdir())
    assert told == [
        PartDigest(f.name, len(b := f.read_bytes()), hashlib.sha256(b).hexdigest()) for f in files
    ]
    assert [(p.name, p.size) for p in split.unread] == [(p.name, p.size) for p in told]
    assert {p.sha256 for p in split.unread} == {"0" * 64}
    assert merged(split) == (data, told)  # as often as it is wanted


def test_it_is_read_in_pieces_of_any_size(tmp_path: Path) -> None:
    split = opened(stored(tmp_path, parts_of()))
    whole = merged(split)[0]
    for step in (1, 7, 1 << 20):
        with split.open() as file:
            assert b"".join(iter(lambda: file.read(step), b"")) == whole  # noqa: B023
            assert file.readable() and not file.seekable()


def test_a_stream_that_is_left_closes_its_part(tmp_path: Path) -> None:
    split = opened(stored(tmp_path, parts_of()))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with split.open() as file:
        file.read(30)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_first_parts_alignment_counts(tmp_path: Path) -> None:
    facts = [*FACTS, pair("general.alignment", U32, 128)]
    parts = parts_of(facts)
    parts[0] = gguf(facts + marks(0), TENSORS[0], align=128)
    data, _ = merged(opened(stored(tmp_path, parts)))
    assert data == gguf(facts, [tensor for part in TENSORS for tensor in part], align=128)


def test_a_first_part_without_tensors(tmp_path: Path) -> None:
    tensors = [[], *TENSORS]
    data, _ = merged(opened(stored(tmp_path, parts_of(tensors=tensors))))
    assert data == gguf(FACTS, [tensor for part in tensors for tensor in part])


def test_parts_without_any_tensor(tmp_path: Path) -> None:
    split = opened(stored(tmp_path, parts_of(tensors=[[], []])))
    assert merged(split)[0] == gguf(FACTS, []) and split.size == split.header.data_offset


def test_later_parts_may_repeat_the_first(tmp_path: Path) -> None:
    parts = parts_of()
    parts[1] = gguf(FACTS + marks(1), TENSORS[1])
    assert merged(opened(stored(tmp_path, parts)))[0] == merged(opened(stored(tmp_path, parts_of())))[0]


def test_whole_models_are_not_split(tmp_path: Path) -> None:
    for number, marked in enumerate(([], marks(0, 1), [pair("split.count", STRING, "three")])):
        path = tmp_path / f"whole{number}.gguf"
        path.write_bytes(gguf(FACTS + marked, TENSORS[0]))
        with path.open("rb") as file:
            assert read_split(path, read_gguf_header(file)) is None


def test_names() -> None:
    name = SplitName.parse("a-b-00002-of-00010.gguf")
    assert name == SplitName("a-b", 2, 10) and name.part(7) == "a-b-00007-of-00010.gguf"
    for other in ("-00001-of-00002.gguf", "a-1-of-2.gguf", "a-00001-of-00002.GGUF", "a.gguf"):
        assert SplitName.parse(other) is None


def test_files_by_name(tmp_path: Path) -> None:
    first = stored(tmp_path, parts_of())
    assert [f.name[4:9] for f in files_of(first)] == ["00001", "00002", "00003"]
    (tmp_path / "net-00002-of-00003.gguf").unlink()
    assert [f.name[4:9] for f in files_of(first)] == ["00001", "00003"]
    assert files_of(tmp_path / "net-00003-of-00003.gguf") == (tmp_path / "net-00003-of-00003.gguf",)
    assert files_of(tmp_path / "net.gguf") == (tmp_path / "net.gguf",)


def test_a_later_part_is_not_where_one_begins(tmp_path: Path) -> None:
    stored(tmp_path, parts_of())
    error = refused(tmp_path / "net-00002-of-00003.gguf")
    assert error.code == "MODEL_UNKNOWN"
    assert "net-00001-of-00003.gguf" in str(error.remedy)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first = stored(tmp_path, parts_of())
    (tmp_path / "net-00002-of-00003.gguf").unlink()
    error = refused(first)
    assert (error.code, "missing: net-00002-of-00003.gguf" in error.message) == ("MODEL_MISSING", True)


def test_of_many_missing_parts_some_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net-00001-of-00100.gguf"
    path.write_bytes(gguf(FACTS + marks(0, 100), TENSORS[0]))
    error = refused(path)
    assert error.code == "MODEL_MISSING"
    assert error.message.endswith("net-00005-of-00100.gguf, net-00006-of-00100.gguf and 94 more")


def test_a_part_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(parts_of()[0])
    error = refused(path)
    assert (error.code, "one of 3 parts" in error.message) == ("MODEL_UNKNOWN", True)


SECOND = TENSORS[1]


@pytest.mark.parametrize(
    ("number", "data", "code", "says"),
    [
        (0, gguf(FACTS + marks(0, 4), TENSORS[0]), "MODEL_UNSAFE", "split.count is 4, not 3"),
        (0, gguf(FACTS + marks(1), TENSORS[0]), "MODEL_UNSAFE", "split.no is 1, not 0"),
        (0, gguf(FACTS + marks(0)[1:], TENSORS[0]), "MODEL_UNSAFE", "split.no is None, not 0"),
        (0, gguf(FACTS + marks(0)[:2], TENSORS[0]), "MODEL_UNSAFE", "'split.tensors.count' is not what"),
        (1, gguf(marks(1, 4), SECOND), "MODEL_UNSAFE", "'split.count' is not what the first part says"),
        (1, gguf(marks(2), SECOND), "MODEL_UNSAFE", "split.no is 2, not 1"),
        (1, parts_of()[2], "MODEL_UNSAFE", "split.no is 2, not 1"),  # a part given twice
        (1, gguf(marks(1, 3, 6), SECOND), "MODEL_UNSAFE", "'split.tensors.count' is not what"),
        (1, gguf([], SECOND), "MODEL_UNSAFE", "split.no is None"),
        (
            1,
            gguf([pair("general.architecture", STRING, "bloom"), *marks(1)], SECOND),
            "MODEL_UNSAFE",
            "'general.architecture' is not what the first part says",
        ),
        (1, gguf([pair("extra", U32, 1), *marks(1)], SECOND), "MODEL_UNSAFE", "'extra' is not what"),
        (
            1,
            gguf([pair("general.alignment", U32, 64), *marks(1)], SECOND, align=64),
            "MODEL_UNSAFE",
            "'general.alignment' is not what",
        ),
        (1, gguf(marks(1), SECOND, version=2), "MODEL_UNSAFE", "GGUF version 2, the first part has 3"),
        (1, gguf(marks(1), TENSORS[0][:1]), "MODEL_UNSAFE", "tensor 'a' is in an earlier part too"),
        (1, gguf(marks(1), [*SECOND, ("f", 0, b"1234")]), "MODEL_UNSAFE", "hold 6 tensors"),
        (1, gguf(marks(1), []), "MODEL_UNSAFE", "split.tensors.count is 5, its 3 parts hold 4 tensors"),
        (
            1,
            gguf(marks(1), [("c", 0, b"1234"), ("f", 0, b"5678")], align=16) + bytes(64),
            "MODEL_UNSAFE",
            "not aligned",
        ),
        (1, gguf(marks(1), [("c", 0, b"1234"), ("f", 0, b"")]), "MODEL_UNSAFE", "has sizes [0]"),
        (1, gguf(marks(1), SECOND)[:-1], "MODEL_TRUNCATED", "cut short"),
        (1, gguf(marks(1), [])[:-1], "MODEL_TRUNCATED", "cut short"),
        (1, b"PK\3\4not a model", "MODEL_UNKNOWN", "not a GGUF file"),
        (1, b"", "MODEL_UNKNOWN", "not a GGUF file"),
    ],
)
def test_parts_that_are_not_one_model(tmp_path: Path, number: int, data: bytes, code: str, says: str) -> None:
    parts = parts_of()
    parts[number] = data
    error = refused(stored(tmp_path, parts))
    assert (error.code, says in error.message) == (code, True), error.message


def test_no_count_of_tensors_at_all(tmp_path: Path) -> None:
    parts = [gguf(FACTS + marks(0)[:2], TENSORS[0]), *(gguf(marks(n)[:2], TENSORS[n]) for n in (1, 2))]
    error = refused(stored(tmp_path, parts))
    assert (error.code, "split.tensors.count is None" in error.message) == ("MODEL_UNSAFE", True)


@pytest.mark.parametrize("places", [(64, 0), (0, 128)], ids=["swapped", "gap"])
def test_tensors_that_do_not_follow_each_other(tmp_path: Path, places: tuple[int, int]) -> None:
    """Aligned and apart, but not as the table lists them: engines refuse such a file."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 3) + b"".join(marks(1))
    for name, at in zip("cf", places, strict=True):
        head += text(name) + struct.pack("<IQIQ", 1, 16, 0, at)
    parts = parts_of()
    parts[1] = head + bytes(-len(head) % 32) + bytes(256)
    error = refused(stored(tmp_path, parts))
    assert (error.code, "does not follow the one before it" in error.message) == ("MODEL_UNSAFE", True)


def test_bounds_hold_for_the_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored(tmp_path, parts_of())
    monkeypatch.setattr(gguf_split, "LIMITS", replace(LIMITS, model_tensors=4))
    assert "more than 4 tensors" in refused(first).message
    monkeypatch.setattr(gguf_split, "LIMITS", replace(LIMITS, model_header_bytes=200))
    assert "longer than 200 bytes" in refused(first).message


def test_long_key_values_are_compared_and_copied_block_by_block(tmp_path: Path) -> None:
    long = pair("tokenizer.chat_template", STRING, "ab" * (2 << 20))
    other = pair("tokenizer.chat_template", STRING, "ab" * ((2 << 20) - 1) + "xx")
    parts = parts_of([*FACTS, long])
    parts[1] = gguf([long, *marks(1)], SECOND)
    data, _ = merged(opened(stored(tmp_path, parts)))
    assert data == gguf([*FACTS, long], [tensor for part in TENSORS for tensor in part])
    parts[1] = gguf([other, *marks(1)], SECOND)
    assert "'tokenizer.chat_template'" in refused(stored(tmp_path, parts)).message


@pytest.mark.parametrize("part", [1, 2, 3])
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data.replace(b"split.no", b"split.ON"),
        lambda data: data[:20],
    ],
    ids=["shorter", "longer", "header", "cut"],
)
def test_a_part_that_changes_meanwhile(tmp_path: Path, part: int, change: Any) -> None:
    split = opened(stored(tmp_path, parts_of()))
    path = tmp_path / f"net-0000{part}-of-00003.gguf"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(SealpackError, match="changed while it was read") as caught:
        merged(split)
    assert caught.value.code == "IO_ERROR"


def test_a_part_that_goes_away(tmp_path: Path) -> None:
    split = opened(stored(tmp_path, parts_of()))
    (tmp_path / "net-00003-of-00003.gguf").unlink()
    with pytest.raises(SealpackError) as caught:
        merged(split)
    assert caught.value.code == "FILE_MISSING"


class _Broken(io.BytesIO):
    """A file on a medium that fails after its beginning."""

    name = "net.gguf"

    def read(self, count: int | None = -1, /) -> bytes:
        if self.tell() >= 24 and count != 0:
            raise OSError(5, "Input/output error")
        return super().read(count)


def test_a_medium_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stored(tmp_path, parts_of())
    split = opened(first)
    with monkeypatch.context() as patch:
        patch.setattr(gguf_split, "_opened", lambda path: _Broken(path.read_bytes()))
        with pytest.raises(SealpackError) as caught:
            merged(split)
        assert caught.value.code == "IO_ERROR"
    with pytest.raises(SealpackError) as caught:
        list(gguf_split._run(_Broken(bytes(2 << 20)), (0, 2 << 20)))
    assert caught.value.code == "IO_ERROR"


VALUES = st.integers(1, 40).map(lambda n: bytes(n * 4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(VALUES, max_size=4), min_size=2, max_size=5))
def test_any_split_is_undone(tmp_path_factory: pytest.TempPathFactory, values: list[list[bytes]]) -> None:
    tensors = [[(f"t{n}.{i}", 0, v) for i, v in enumerate(part)] for n, part in enumerate(values)]
    folder = tmp_path_factory.mktemp("split")
    split = opened(stored(folder, parts_of(tensors=tensors)))
    assert merged(split)[0] == gguf(FACTS, [tensor for part in tensors for tensor in part])


def test_opening_is_what_the_os_says(tmp_path: Path) -> None:
    with pytest.raises(SealpackError) as caught:
        gguf_split._opened(tmp_path / "none.gguf")
    assert caught.value.code == "FILE_MISSING"
    file: BinaryIO
    with gguf_split._opened(stored(tmp_path, parts_of())) as file:
        assert file.read(4) == b"GGUF"

"""GGUF headers: a real model, and bytes that no honest writer makes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import gguf_header
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import GgufHeader, Summary, read_gguf_header
from sealpack.format.gguf_types import FILE_TYPES, TENSOR_TYPES
from sealpack.format.limits import LIMITS
from sealpack.format.model_header import read_model_header, sniff_model

TINYLM = Path(__file__).parents[2] / "builder/src/sealpack/builder/demo/data/tinylm-q8_0.gguf"

U32, STRING, ARRAY, BOOL = 4, 8, 9, 7


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, sizes: list[int], kind: int, offset: int) -> bytes:
    row = text(name) + struct.pack("<I", len(sizes))
    return row + struct.pack(f"<{len(sizes)}Q", *sizes) + struct.pack("<IQ", kind, offset)


ARCHITECTURE = pair("general.architecture", STRING, text("toy"))
PAIRS = [
    ARCHITECTURE,
    pair("general.name", STRING, text("Tiny ⚙")),
    pair("toy.context_length", U32, struct.pack("<I", 64)),
    pair("general.tags", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("b")),
    pair("tokenizer.ggml.add_bos_token", BOOL, b"\x01"),
]
INFOS = [info("a", [64, 2], 8, 0), info("b", [3], 0, 160)]  # 136 bytes of Q8_0, 12 of F32
WEIGHTS = 172


def gguf(
    pairs: list[bytes] = PAIRS,
    infos: list[bytes] = INFOS,
    weights: int = WEIGHTS,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    tensors, metadata = counts or (len(infos), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, metadata)
    head += b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(range(256))[:weights]


def read(data: bytes) -> GgufHeader:
    return read_gguf_header(io.BytesIO(data))


def test_everything_a_small_file_says() -> None:
    header = read(gguf())
    assert (header.version, header.alignment) == (3, 32)
    assert (header.architecture, header.name, header.license) == ("toy", "Tiny ⚙", None)
    assert header.context_length == 64
    assert header.metadata["general.tags"] == ("a", "b")
    assert header.metadata["tokenizer.ggml.add_bos_token"] is True
    assert header.quantization == "Q8_0"  # no general.file_type: most bytes decide
    assert header.parameter_count == 131
    a, b = header.tensors
    assert (a.name, a.shape, a.dtype, a.offset, a.nbytes) == ("a", (2, 64), "Q8_0", header.data_offset, 136)
    assert (b.name, b.shape, b.dtype, b.offset, b.nbytes) == ("b", (3,), "F32", a.offset + 160, 12)
    assert gguf()[b.offset : b.offset + b.nbytes] == bytes(range(160, 172))


def test_version_2_is_read_alike() -> None:
    old, new = read(gguf(version=2)), read(gguf())
    assert (old.metadata, old.tensors) == (new.metadata, new.tensors)


def test_the_declared_file_type_names_the_quantisation() -> None:
    kind = pair("general.file_type", U32, struct.pack("<I", 15))
    assert read(gguf([ARCHITECTURE, kind])).quantization == "Q4_K_M"


def test_a_model_inside_another_file_reads_the_same() -> None:
    data = gguf()
    wrapped = io.BytesIO(b"x" * 777 + data + b"GGUF after the end")
    assert read_gguf_header(wrapped, 777, len(data)) == read(data)


def test_short_arrays_are_told_whole() -> None:
    layers = pair("toy.layers", ARRAY, struct.pack("<IQ3I", U32, 3, 7, 0, 9))
    flags = pair("toy.flags", ARRAY, struct.pack("<IQ", BOOL, 2) + b"\x01\x00")
    metadata = read(gguf([ARCHITECTURE, layers, flags])).metadata
    assert (metadata["toy.layers"], metadata["toy.flags"]) == ((7, 0, 9), (True, False))


def test_long_values_are_told_by_their_length() -> None:
    tokens = struct.pack("<IQ", STRING, 65) + text("t") * 65
    scores = struct.pack("<IQ", 6, 1000) + bytes(4000)
    pairs = [ARCHITECTURE, pair("tokens", ARRAY, tokens), pair("scores", ARRAY, scores)]
    pairs.append(pair("embedded", STRING, text(b"x" * (1 << 20) + b"y")))
    metadata = read(gguf(pairs)).metadata
    assert metadata["tokens"] == Summary("[STRING]", 65)
    assert metadata["scores"] == Summary("[FLOAT32]", 1000)
    assert metadata["embedded"] == Summary("STRING", (1 << 20) + 1)


def test_the_real_model_reads_as_its_own_library_reads_it() -> None:
    library = pytest.importorskip("gguf")
    with TINYLM.open("rb") as file:
        assert sniff_model(file) == "gguf"
        header = read_model_header(file)
    assert isinstance(header, GgufHeader)
    assert (header.architecture, header.name, header.license) == ("llama", "tinylm", "apache-2.0")
    assert (header.context_length, header.quantization) == (256, "Q8_0")
    assert header.parameter_count == 2164800
    theirs = library.GGUFReader(TINYLM).tensors
    assert [(t.name, list(reversed(t.shape)), t.dtype, t.offset, t.nbytes) for t in header.tensors] == [
        (t.name, list(t.shape), t.tensor_type.name, t.data_offset, t.n_bytes) for t in theirs
    ]


def test_tables_agree_with_the_library() -> None:
    constants = pytest.importorskip("gguf.constants")
    sizes = constants.GGML_QUANT_SIZES
    theirs = {kind.value: (kind.name, *sizes[kind]) for kind in sizes}
    assert theirs.items() <= TENSOR_TYPES.items()
    names = {k.value: k.name for k in constants.LlamaFileType if k.name != "GUESSED"}
    told = {number: name.split("_", 1)[1].removesuffix("_MOE") for number, name in names.items()}
    assert told.items() <= FILE_TYPES.items()


def test_weights_are_not_read() -> None:
    class Counting(io.BytesIO):
        amount = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.amount += len(data)
            return data

    file = Counting(gguf() + bytes(5 << 20))
    read_gguf_header(file)
    assert file.amount <= 1 << 16


def nested_array() -> bytes:
    inner = struct.pack("<IQ", U32, 1) + bytes(4)
    return pair("n", ARRAY, struct.pack("<IQ", ARRAY, 1) + inner)


HUGE = struct.pack("<Q", 1 << 63)
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "MODEL_UNKNOWN"),
    "another-file": (lambda: b"PK\x03\x04" + bytes(60), "MODEL_UNKNOWN"),
    "version-1": (lambda: gguf(version=1), "MODEL_UNKNOWN"),
    "version-4": (lambda: gguf(version=4), "MODEL_UNKNOWN"),
    "big-endian": (lambda: gguf(version=3 << 24), "MODEL_UNKNOWN"),
    "tensor-count-huge": (lambda: gguf(counts=(1 << 62, 5)), "MODEL_UNSAFE"),
    "pair-count-huge": (lambda: gguf(counts=(2, 1 << 62)), "MODEL_UNSAFE"),
    "key-length-huge": (lambda: gguf([HUGE + b"key"]), "MODEL_TRUNCATED"),
    "key-length-over-bound": (
        lambda: gguf([ARCHITECTURE, pair("k" * 1025, U32, bytes(4))]),
        "MODEL_UNSAFE",
    ),
    "string-length-huge": (lambda: gguf([pair("s", STRING, HUGE)]), "MODEL_TRUNCATED"),
    "array-count-huge": (
        lambda: gguf([pair("s", ARRAY, struct.pack("<I", U32) + HUGE)]),
        "MODEL_TRUNCATED",
    ),
    "string-array-count-huge": (
        lambda: gguf([pair("s", ARRAY, struct.pack("<I", STRING) + HUGE)]),
        "MODEL_UNSAFE",
    ),
    "array-of-arrays": (lambda: gguf([nested_array()]), "MODEL_UNSAFE"),
    "value-type-unknown": (lambda: gguf([pair("s", 99, bytes(8))]), "MODEL_UNSAFE"),
    "truth-value-2": (lambda: gguf([pair("s", BOOL, b"\x02")]), "MODEL_UNSAFE"),
    "key-twice": (lambda: gguf([ARCHITECTURE, ARCHITECTURE]), "MODEL_UNSAFE"),
    "key-not-utf8": (
        lambda: gguf([text(b"\xff") + struct.pack("<I", U32) + bytes(4)]),
        "MODEL_UNSAFE",
    ),
    "no-architecture": (lambda: gguf(PAIRS[1:]), "MODEL_UNSAFE"),
    "alignment-zero": (
        lambda: gguf([*PAIRS, pair("general.alignment", U32, bytes(4))]),
        "MODEL_UNSAFE",
    ),
    "alignment-48": (
        lambda: gguf([*PAIRS, pair("general.alignment", U32, struct.pack("<I", 48))]),
        "MODEL_UNSAFE",
    ),
    "alignment-a-string": (
        lambda: gguf([*PAIRS, pair("general.alignment", STRING, text("32"))]),
        "MODEL_UNSAFE",
    ),
    "five-dimensions": (lambda: gguf(infos=[info("a", [1] * 5, 0, 0)]), "MODEL_UNSAFE"),
    "dimensions-overflow": (
        lambda: gguf(infos=[info("a", [1 << 40] * 4, 0, 0)]),
        "MODEL_TRUNCATED",
    ),
    "size-zero": (lambda: gguf(infos=[info("a", [0], 0, 0)]), "MODEL_UNSAFE"),
    "broken-block": (lambda: gguf(infos=[info("a", [33], 8, 0)]), "MODEL_UNSAFE"),
    "tensor-type-unknown": (lambda: gguf(infos=[info("a", [32], 4, 0)]), "MODEL_UNSAFE"),
    "tensor-unaligned": (lambda: gguf(infos=[info("a", [1], 0, 8)]), "MODEL_UNSAFE"),
    "tensor-past-the-end": (lambda: gguf(infos=[info("a", [1], 0, 1 << 40)]), "MODEL_TRUNCATED"),
    "tensors-overlap": (
        lambda: gguf(infos=[info("a", [40], 0, 0), info("b", [1], 0, 128)]),
        "MODEL_UNSAFE",
    ),
    "tensor-twice": (
        lambda: gguf(infos=[info("a", [1], 0, 0), info("a", [1], 0, 32)]),
        "MODEL_UNSAFE",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_have_a_verdict(name: str) -> None:
    make, code = HOSTILE[name]
    with pytest.raises(SealpackError) as caught:
        read(make())
    assert caught.value.code == code


def test_every_cut_is_noticed() -> None:
    data = gguf()
    for length in range(len(data)):
        with pytest.raises(SealpackError) as caught:
            read(data[:length])
        assert caught.value.code == ("MODEL_UNKNOWN" if length < 8 else "MODEL_TRUNCATED")


def test_a_window_past_the_end_of_the_file_is_noticed() -> None:
    data = gguf()
    with pytest.raises(SealpackError, match="cut short"):
        read_gguf_header(io.BytesIO(data), 10, len(data))


def only_named_errors(read_it: Callable[[io.BytesIO], Any], data: bytes) -> None:
    try:
        read_it(io.BytesIO(data))
    except SealpackError as error:
        assert error.code in {"MODEL_UNKNOWN", "MODEL_TRUNCATED", "MODEL_UNSAFE"}


@settings(max_examples=300, deadline=2000)
@given(st.integers(0, 2**31), st.integers(0, 7), st.integers(0, 2**31))
def test_a_flipped_bit_and_a_cut_never_surprise(place: int, bit: int, keep: int) -> None:
    data = bytearray(gguf())
    data[place % len(data)] ^= 1 << bit
    only_named_errors(read_gguf_header, bytes(data))
    only_named_errors(read_model_header, bytes(data[: keep % len(data)]))


@settings(max_examples=300, deadline=2000)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic_never_surprise(rest: bytes) -> None:
    only_named_errors(read_gguf_header, b"GGUF\x03\x00\x00\x00" + rest)
    only_named_errors(read_gguf_header, b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + rest)


@settings(max_examples=25, deadline=2000)
@given(st.integers(0, 20000), st.integers(0, 255))
def test_a_changed_byte_in_the_real_header_never_surprises(place: int, value: int) -> None:
    data = bytearray(TINYLM.read_bytes())
    data[place] = value
    only_named_errors(read_gguf_header, bytes(data))


def test_a_header_longer_than_any_model_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    long = [*PAIRS, pair("toy.scores", ARRAY, struct.pack("<IQ", 0, 5000) + bytes(5000))]
    monkeypatch.setattr(gguf_header, "LIMITS", replace(LIMITS, model_header_bytes=6000))
    assert read(gguf(long)).metadata["toy.scores"] == Summary("[UINT8]", 5000)
    monkeypatch.setattr(gguf_header, "LIMITS", replace(LIMITS, model_header_bytes=5000))
    with pytest.raises(SealpackError, match=r"MODEL_UNSAFE.*header is longer than 5000 bytes"):
        read(gguf(long))

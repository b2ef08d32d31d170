"""A GGUF model published in several files, read as the one file it was split from.

An engine maps one run of bytes, so the parts become one model: the first part's key-values without
`split.*`, one tensor table, the tensors part by part. The result follows from the parts alone and is never
held: it is a stream of known size. Source: specs/config.md, "Split GGUF models"; llama.cpp's naming rule.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.format.gguf_header import MAGIC, GgufHeader, GgufPart, read_gguf_part
from sealpack.format.gguf_types import TENSOR_TYPES
from sealpack.format.limits import LIMITS
from sealpack.format.tensors import TensorRef

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)
_NUMBER, _COUNT, _TENSORS = "split.no", "split.count", "split.tensors.count"
_PREAMBLE = 24  # bytes: magic, version, tensor count, key-value count
_TYPE_NUMBERS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
_BLOCK = 1 << 20
_NAMED = 5  # missing parts named in a message

Run = tuple[int, int]  # bytes [start, end) of a file


@dataclass(frozen=True, slots=True)
class SplitName:
    """A file name of llama.cpp's rule; parts count from 1 here, from 0 in `split.no`."""

    prefix: str
    number: int
    count: int

    @classmethod
    def parse(cls, name: str) -> SplitName | None:
        """None for a name that says nothing of parts."""
        found = _NAME.fullmatch(name)
        return None if found is None else cls(found["prefix"], int(found["number"]), int(found["count"]))

    def part(self, number: int) -> str:
        """The name of another part."""
        return f"{self.prefix}-{number:05d}-of-{self.count:05d}.gguf"


@dataclass(frozen=True, slots=True)
class PartDigest:
    """One part as it was published; `sha256` in hex, zeros before it was read."""

    name: str
    size: int
    sha256: str = "0" * 64


@dataclass(frozen=True, slots=True)
class _Part:
    """One part, checked; `head` is the SHA-256 of its bytes before `data_offset`."""

    path: Path
    size: int
    data_offset: int
    head: bytes
    tensors: tuple[TensorRef, ...]


Told = Callable[[PartDigest], None]


@dataclass(frozen=True, slots=True)
class SplitGguf:
    """The one model that the parts are: its header, as of a file of `size` bytes, and where they lie."""

    header: GgufHeader
    size: int
    parts: tuple[_Part, ...]
    kept: tuple[Run, ...]  # the first part's key-values that stay

    @property
    def unread(self) -> tuple[PartDigest, ...]:
        """The parts before their digests are known."""
        return tuple(PartDigest(part.path.name, part.size) for part in self.parts)

    def open(self, told: Told = lambda _: None) -> BinaryIO:
        """The merged model as a stream; `told` is called with each part once it was read to its end.

        Reading raises IO_ERROR when a part is no longer what was checked.
        """
        return io.BufferedReader(_Stream(self._blocks(told)), _BLOCK)

    def _blocks(self, told: Told) -> Generator[bytes, None, None]:
        with _PartFile(self.parts[0]) as file:
            yield self._preamble()
            for start, end in self.kept:
                file.skip(start)
                yield from file.upto(end)
            file.end_of_header()
            yield from self._table()
            yield from self._data(file)
            told(file.finish())
        for part in self.parts[1:]:
            with _PartFile(part) as file:
                file.end_of_header()
                yield from self._data(file)
                told(file.finish())

    def _preamble(self) -> bytes:
        return MAGIC + struct.pack("<IQQ", self.header.version, len(self.header.tensors), len(self.kept))

    def _table(self) -> Iterator[bytes]:
        """The tensor table and the bytes that align what follows."""
        at = _PREAMBLE + sum(end - start for start, end in self.kept)
        for tensor in self.header.tensors:
            row = _row(tensor, tensor.offset - self.header.data_offset)
            at += len(row)
            yield row
        yield bytes(self.header.data_offset - at)

    def _data(self, file: _PartFile) -> Iterator[bytes]:
        for tensor in file.part.tensors:
            file.skip(tensor.offset)
            yield from file.upto(tensor.offset + tensor.nbytes)
            yield bytes(-tensor.nbytes % self.header.alignment)


def _row(tensor: TensorRef, offset: int) -> bytes:
    """A tensor's row of the table; sizes stand innermost first."""
    name = tensor.name.encode()
    sizes = tensor.shape[::-1]
    head = struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return head + struct.pack("<IQ", _TYPE_NUMBERS[tensor.dtype], offset)


class _Stream(io.RawIOBase):
    """Blocks as a file that is read from its beginning to its end."""

    def __init__(self, blocks: Generator[bytes, None, None]) -> None:
        self._blocks = blocks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        while not self._left:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._left = memoryview(block)
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._blocks.close()
        super().close()


class _PartFile:
    """A part that is read once from end to end, hashed meanwhile, and held against what was checked."""

    def __init__(self, part: _Part) -> None:
        self.part = part
        self._digest = hashlib.sha256()
        self._at = 0

    def __enter__(self) -> _PartFile:
        self._file = _opened(self.part.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def upto(self, end: int) -> Iterator[bytes]:
        """The bytes from where the last call ended."""
        while self._at < end:
            block = self._read(min(_BLOCK, end - self._at))
            if not block:
                raise self._changed()
            self._digest.update(block)
            self._at += len(block)
            yield block

    def skip(self, end: int) -> None:
        """Hash what does not go into the merged model."""
        for _ in self.upto(end):
            pass

    def end_of_header(self) -> None:
        """Read on to the tensors; the header must be the one that was checked."""
        self.skip(self.part.data_offset)
        if self._digest.copy().digest() != self.part.head:
            raise self._changed()

    def finish(self) -> PartDigest:
        """Read what is left."""
        self.skip(self.part.size)
        if self._read(1):
            raise self._changed()
        return PartDigest(self.part.path.name, self.part.size, self._digest.hexdigest())

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            raise io_error(error, self.part.path, "read") from None

    def _changed(self) -> SealpackError:
        return SealpackError("IO_ERROR", f"{self.part.path} changed while it was read")


def require_first(path: Path) -> None:
    """MODEL_UNKNOWN when the name says that another part comes first, as llama.cpp wants it too."""
    name = SplitName.parse(path.name)
    if name is not None and name.count > 1 and name.number != 1:
        raise SealpackError(
            "MODEL_UNKNOWN",
            f"{path.name} is a later part of a model",
            remedy=f"give its first part: {name.part(1)}",
        )


def files_of(path: Path) -> tuple[Path, ...]:
    """`path`, and the parts after it that are there, by name alone: what a progress bar needs."""
    name = SplitName.parse(path.name)
    if name is None or name.number != 1:
        return (path,)
    later = (path.with_name(name.part(number)) for number in range(2, name.count + 1))
    return (path, *(part for part in later if part.is_file()))


def read_split(path: Path, header: GgufHeader) -> SplitGguf | None:
    """The model whose first part is at `path`, all parts found and checked; None when it is not split.

    `header` is the one of `path`. MODEL_UNKNOWN (the name does not follow the rule), MODEL_MISSING (a part),
    MODEL_UNSAFE (parts that contradict each other), and what reading a part's header raises.
    """
    count = header.integer(_COUNT) or 1
    if count <= 1:
        return None
    paths = _find(path, count)
    first, said = _first(paths[0])
    parts = [first]
    known = {tensor.name for tensor in first.tensors}
    for number, later in enumerate(paths[1:], 1):
        part = _later(later, number, first, said)
        _no_name_twice(part, known)
        parts.append(part)
    stated = said.header.integer(_TENSORS)
    if stated != len(known):
        raise _unsafe(path, f"{_TENSORS} is {stated}, its {count} parts hold {len(known)} tensors")
    return _merged(tuple(parts), said)


def _find(path: Path, count: int) -> list[Path]:
    name = SplitName.parse(path.name)
    if name is None:
        raise SealpackError(
            "MODEL_UNKNOWN",
            f"{path.name} is one of {count} parts of a model, but is not named like one",
            remedy=f"name the parts NAME-00001-of-{count:05d}.gguf and so on, in one folder",
        )
    if name.count != count:
        raise _unsafe(path, f"{_COUNT} is {count}, not {name.count} as its name says")
    paths = [path.with_name(name.part(number)) for number in range(1, count + 1)]
    missing = [each.name for each in paths if not each.is_file()]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise SealpackError(
            "MODEL_MISSING",
            f"{path.name} is one of {count} parts; missing: {', '.join(missing[:_NAMED])}{more}",
            remedy="put all parts of the model into one folder",
        )
    return paths


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise io_error(error, path, "read") from None


def _first(path: Path) -> tuple[_Part, GgufPart]:
    with _opened(path) as file:
        found = read_gguf_part(file, path.name)
        return _checked(path, file, found, 0), found


def _later(path: Path, number: int, first: _Part, said: GgufPart) -> _Part:
    """A later part: it may say again what the first one said, and nothing else but its number."""
    with _opened(path) as file, _opened(first.path) as other:
        found = read_gguf_part(file, path.name)
        part = _checked(path, file, found, number)
        if found.header.version != said.header.version:
            raise _unsafe(
                path, f"GGUF version {found.header.version}, the first part has {said.header.version}"
            )
        for key, run in found.pairs.items():
            if key != _NUMBER and not _same(file, run, other, said.pairs.get(key)):
                raise _unsafe(path, f"{key!r} is not what the first part says")
    return part


def _same(file: BinaryIO, run: Run, other: BinaryIO, there: Run | None) -> bool:
    """Whether two runs of bytes are equal."""
    if there is None or run[1] - run[0] != there[1] - there[0]:
        return False
    pairs = zip(_run(file, run), _run(other, there), strict=True)
    return all(ours == theirs for ours, theirs in pairs)


def _run(file: BinaryIO, run: Run) -> Iterator[bytes]:
    try:
        for at in range(run[0], run[1], _BLOCK):
            file.seek(at)
            yield file.read(min(_BLOCK, run[1] - at))
    except OSError as error:
        raise io_error(error, file.name, "read") from None


def _checked(path: Path, file: BinaryIO, found: GgufPart, number: int) -> _Part:
    """What one part must be by itself."""
    header = found.header
    if header.integer(_NUMBER) != number:
        raise _unsafe(path, f"{_NUMBER} is {header.integer(_NUMBER)}, not {number} as its name says")
    _in_order(path, header)
    digest = hashlib.sha256()
    for block in _run(file, (0, header.data_offset)):
        digest.update(block)
    size = file.seek(0, io.SEEK_END)
    if size < header.data_offset:  # no tensor, and not padded to its end
        raise SealpackError("MODEL_TRUNCATED", f"{path.name} is cut short before {header.data_offset}")
    return _Part(path, size, header.data_offset, digest.digest(), header.tensors)


def _in_order(path: Path, header: GgufHeader) -> None:
    """Engines refuse tensors that do not follow each other as the table lists them."""
    at = header.data_offset
    for tensor in header.tensors:
        if tensor.offset != at:
            raise _unsafe(path, f"tensor {tensor.name!r} does not follow the one before it")
        at += _padded(tensor.nbytes, header.alignment)


def _no_name_twice(part: _Part, known: set[str]) -> None:
    for tensor in part.tensors:
        if tensor.name in known:
            raise _unsafe(part.path, f"tensor {tensor.name!r} is in an earlier part too")
        known.add(tensor.name)
    if len(known) > LIMITS.model_tensors:
        raise _unsafe(part.path, f"the parts hold more than {LIMITS.model_tensors} tensors")


def _merged(parts: tuple[_Part, ...], said: GgufPart) -> SplitGguf:
    """Lay the parts' tensors out one after another behind one header."""
    first = said.header
    kept = tuple(run for key, run in said.pairs.items() if not key.startswith("split."))
    listed = [tensor for part in parts for tensor in part.tensors]
    head = _PREAMBLE + sum(end - start for start, end in kept) + sum(len(_row(t, 0)) for t in listed)
    if head > LIMITS.model_header_bytes:
        raise _unsafe(parts[0].path, f"the merged header is longer than {LIMITS.model_header_bytes} bytes")
    data = _padded(head, first.alignment)
    tensors = tuple(_placed(listed, data, first.alignment))
    size = _padded(tensors[-1].offset + tensors[-1].nbytes, first.alignment) if tensors else data
    metadata = {key: value for key, value in first.metadata.items() if not key.startswith("split.")}
    return SplitGguf(GgufHeader(first.version, first.alignment, data, metadata, tensors), size, parts, kept)


def _placed(tensors: Iterable[TensorRef], at: int, alignment: int) -> Iterator[TensorRef]:
    for t in tensors:
        yield TensorRef(t.name, t.shape, t.dtype, t.file, at, t.nbytes)
        at += _padded(t.nbytes, alignment)


def _padded(count: int, alignment: int) -> int:
    return -(-count // alignment) * alignment


def _unsafe(path: Path, detail: str) -> SealpackError:
    return SealpackError("MODEL_UNSAFE", f"{path.name}: {detail}")

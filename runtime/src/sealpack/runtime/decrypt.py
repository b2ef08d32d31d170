"""Encrypted payload, opened into memory while it is read.

Source: specs/encryption.md, "Opening a file". The commitment is compared before any chunk is touched; then no
plain byte comes from stored bytes whose signed leaf was not compared, nor from a chunk whose tag is wrong.
Leaves are read and hashed by other threads ahead of the reader, in private memory: what was hashed is what is
opened. At most `_BEHIND + _AHEAD` leaves of ciphertext and one of plain bytes are held.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from sealpack.format import chunks
from sealpack.format.chunked import STORED_CHUNK, FileCipher, chunk_at, chunk_count, stored_size
from sealpack.format.chunks import LEAF_SIZE
from sealpack.format.encryption import CHUNK_SIZE, PREFIX_SIZE
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.runtime import secret_memory

ReadInto = Callable[[int, memoryview], None]  # fills the whole view from that stored offset, or raises
_LEAF = chunks.CHUNK_SIZE
_AHEAD = 6  # leaves read and hashed before they are asked for
_BEHIND = 2  # and kept after: who reads through a buffer comes back for what it threw away
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An encrypted file as it is stored: its name, plain size, signed leaves, and how to read it."""

    name: str
    plain_size: int
    table: bytes
    read_into: ReadInto

    @property
    def size(self) -> int:
        """Stored bytes."""
        return stored_size(self.plain_size)


class DecryptedFile:
    """The plain bytes of an encrypted file. One thread reads at a time; others wait.

    Errors: CHUNK_MISMATCH (a leaf is not the signed one), DIGEST_MISMATCH (a tag does not fit),
    MANIFEST_MISMATCH (the file begins otherwise than its header says), and what reading raises.
    """

    def __init__(self, stored: StoredFile, cipher: FileCipher) -> None:
        """Compare size and prefix with the header's; nothing is decrypted yet."""
        self._stored, self._cipher = stored, cipher
        if len(stored.table) != chunks.chunk_count(stored.size) * LEAF_SIZE:
            raise SealpackError("CHUNK_MISMATCH", f"{stored.name}: the chunk table has another size")
        head = bytearray(PREFIX_SIZE)
        stored.read_into(0, memoryview(head))
        if bytes(head) != cipher.prefix:
            raise SealpackError("MANIFEST_MISMATCH", f"{stored.name} has another salt or key commitment")
        self._leaves: dict[int, Future[memoryview]] = {}
        self._spare: list[memoryview] = []
        self._plain = secret_memory.allocate(min(_LEAF, stored.plain_size))
        self._held = -1  # the segment that `_plain` holds
        self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(min(chunks.cores(), _MOST_THREADS), "sealpack-leaves")

    @property
    def name(self) -> str:
        """The entry's name."""
        return self._stored.name

    @property
    def size(self) -> int:
        """Plain bytes."""
        return self._stored.plain_size

    def close(self) -> None:
        """Wipe what is held; reading ends."""
        self._pool.shutdown(cancel_futures=True)
        with self._turn:
            self._leaves.clear()
            self._spare.clear()
            secret_memory.wipe(self._plain)

    def read_into(self, offset: int, view: memoryview) -> int:
        """Fill `view` with plain bytes from `offset` on, as far as there are any; how many."""
        wanted = max(0, min(len(view), self.size - offset))
        with self._turn:
            done = 0
            while done < wanted:
                done += self._some(offset + done, view[done:wanted])
        return wanted

    def read_some(self, offset: int, view: memoryview) -> int:
        """As :meth:`read_into`, but as few bytes as are cheap to give: streams ask again."""
        wanted = max(0, min(len(view), self.size - offset))
        with self._turn:
            return self._some(offset, view[:wanted]) if wanted else 0

    def check_all(self) -> None:
        """Open every chunk that was not, the last and possibly empty one too."""
        with self._turn:
            self._segment(self._segment_of(chunk_count(self.size) - 1))

    def to_bytes(self) -> bytes:
        """All of it, in one piece of memory."""
        buffer = io.BytesIO()
        if self.size:  # grown at once, and not copied when its value is taken
            buffer.seek(self.size - 1)
            buffer.write(b"\0")
            with buffer.getbuffer() as view:
                self.read_into(0, view)
        self.check_all()
        return buffer.getvalue()

    def to_memory(self) -> memoryview:
        """All of it in anonymous memory that is not dumped."""
        memory = memoryview(secret_memory.allocate(self.size))[: self.size]
        self.read_into(0, memory)
        self.check_all()
        return memory.toreadonly()

    def to_memory_file(self) -> int:
        """All of it in a sealed memory file, whose descriptor the caller closes; OSError without those."""
        descriptor = secret_memory.memory_file("sealpack", self.size)
        try:
            for at in range(0, self.size, _LEAF):
                block = bytearray(min(_LEAF, self.size - at))
                self.read_into(at, memoryview(block))
                os.pwrite(descriptor, block, at)
            self.check_all()
            secret_memory.seal(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _some(self, offset: int, view: memoryview) -> int:
        """Some bytes, at most to the end of a segment; a whole one is opened where it is wanted."""
        number = self._segment_of(offset // CHUNK_SIZE)
        start, end = self._plain_range(number)
        count = min(end - offset, len(view))
        if offset == start and count == end - start and number != self._held:
            self._open(number, view[:count])
        else:
            view[:count] = self._segment(number)[offset - start : offset - start + count]
        return count

    def _segment(self, number: int) -> memoryview:
        """The plain bytes of the chunks that begin in leaf `number`, held until another one is asked for."""
        start, end = self._plain_range(number)
        plain = memoryview(self._plain)[: end - start]
        if number != self._held:
            self._held = -1
            self._open(number, plain)
            self._held = number
        return plain

    def _segment_of(self, chunk: int) -> int:
        return chunk_at(chunk) // _LEAF

    def _first_chunk(self, number: int) -> int:
        """The first chunk that begins in leaf `number`."""
        return min(-(-max(number * _LEAF - PREFIX_SIZE, 0) // STORED_CHUNK), chunk_count(self.size))

    def _plain_range(self, number: int) -> tuple[int, int]:
        first, after = self._first_chunk(number), self._first_chunk(number + 1)
        return first * CHUNK_SIZE, min(after * CHUNK_SIZE, self.size)

    def _open(self, number: int, out: memoryview) -> None:
        """Open the chunks that begin in leaf `number` into `out`."""
        self._prefetch(number)
        base, leaf = number * _LEAF, self._leaves[number].result()
        first, after = self._first_chunk(number), self._first_chunk(number + 1)
        begin = chunk_at(first) - base
        whole = min((_LEAF - begin) // STORED_CHUNK, self.size // CHUNK_SIZE - first)
        end = whole * CHUNK_SIZE
        self._cipher.open_run(first, leaf[begin:], out[:end])
        for chunk in range(first + whole, after):  # one that ends in the next leaf, or the last and short one
            at, stop = chunk_at(chunk), min(chunk_at(chunk + 1), self._stored.size)
            sealed = bytes(leaf[at - base : stop - base])
            if stop > base + _LEAF:
                sealed += self._leaves[number + 1].result()[: stop - base - _LEAF]
            self._cipher.open_into(chunk, sealed, out[end : end + CHUNK_SIZE])
            end += CHUNK_SIZE

    def _prefetch(self, number: int) -> None:
        """Let the leaves from `number` on be read, and take back the memory of those before."""
        end = min(number + _AHEAD, chunks.chunk_count(self._stored.size))
        window = range(max(number - _BEHIND, 0), end)
        for passed in [n for n in self._leaves if n not in window]:
            future = self._leaves.pop(passed)
            if not future.cancel() and future.exception() is None:
                self._spare.append(future.result())
        for wanted in range(number, end):
            if wanted not in self._leaves:
                buffer = self._spare.pop() if self._spare else memoryview(bytearray(_LEAF))
                self._leaves[wanted] = self._pool.submit(self._leaf, wanted, buffer)

    def _leaf(self, number: int, buffer: memoryview) -> memoryview:
        """Stored leaf `number`, read and compared with the signed one."""
        at = number * _LEAF
        leaf = buffer[: min(_LEAF, self._stored.size - at)]
        try:
            self._stored.read_into(at, leaf)
        except OSError as error:
            raise io_error(error, self._stored.name, "read") from None
        signed = self._stored.table[number * LEAF_SIZE : (number + 1) * LEAF_SIZE]
        if hashlib.sha256(leaf).digest() != signed:
            raise SealpackError("CHUNK_MISMATCH", f"{self._stored.name}: chunk {number} was changed")
        return buffer


class PlainStream(io.RawIOBase):
    """A decrypted file as a seekable binary stream, for readers of model headers."""

    def __init__(self, file: DecryptedFile) -> None:
        """Begin at the start; closing the stream leaves `file` open."""
        self._file, self._at = file, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill `buffer` as far as there are bytes."""
        count = self._file.read_some(self._at, memoryview(buffer).cast("B"))  # type: ignore[arg-type]
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, as every stream does."""
        self._at = max(0, {0: 0, 1: self._at, 2: self._file.size}[whence] + offset)
        return self._at

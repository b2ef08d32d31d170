"""The key of an encrypted build, and payload that is encrypted while it is read.

Source: specs/encryption.md. Key and salts come from the system's generator for every build; a build that is
made again to be compared takes them from its record (:mod:`sealpack.builder.build_record`). Plain bytes are
read from where they are and never written anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from sealpack.builder.content import Content
from sealpack.format import chunked
from sealpack.format.chunked import FileCipher
from sealpack.format.chunks import CHUNK_SIZE
from sealpack.format.encryption import EncryptedFile
from sealpack.format.gguf_split import PartDigest, Told

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True, slots=True)
class BuildKey:
    """What a build is encrypted with: the input key, and a salt for each file."""

    input_key: bytes = field(repr=False)
    salts: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def fresh(cls) -> BuildKey:
        """For a new build."""
        return cls(chunked.new_input_key())

    def covering(self, names: Iterable[str]) -> BuildKey:
        """With a salt for each of `names`: those it has, and fresh ones."""
        return replace(self, salts={name: self.salts.get(name) or chunked.new_salt() for name in names})

    def encrypted(self, content: Content, name: str, bundle_id: str, release_index: int) -> EncryptedContent:
        """`content` as it is stored under `name`, which must have a salt."""
        entry = EncryptedFile(name, content.size, self.salts[name].hex(), "")
        context = entry.context(bundle_id, release_index)
        cipher = FileCipher.derive(self.input_key, self.salts[name], context)
        return EncryptedContent(content, replace(entry, commitment=cipher.commitment.hex()), cipher)


@dataclass(frozen=True, slots=True)
class EncryptedContent:
    """The ciphertext of a payload file; `entry` is its line in the manifest's header."""

    plain: Content
    entry: EncryptedFile
    cipher: FileCipher

    @property
    def size(self) -> int:
        return self.entry.stored_size

    @property
    def parts(self) -> tuple[PartDigest, ...]:
        return self.plain.parts

    def open(self, told: Told = lambda _: None) -> BinaryIO:
        return io.BufferedReader(_Stream(self._pieces(told)), CHUNK_SIZE)

    def _pieces(self, told: Told) -> Generator[bytes, None, None]:
        with self.plain.open(told) as file:
            yield from chunked.encrypted(self.cipher, iter(partial(file.read, CHUNK_SIZE), b""))

    def __str__(self) -> str:
        return str(self.plain)


class _Stream(io.RawIOBase):
    """Pieces as a stream; closing it closes what they come from."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view):
            if not self._rest:
                self._rest = memoryview(next(self._pieces, b""))
                if not self._rest:
                    break
            count = min(len(self._rest), len(view) - done)
            view[done : done + count] = self._rest[:count]
            self._rest, done = self._rest[count:], done + count
        return done

    def close(self) -> None:
        self._pieces.close()
        super().close()

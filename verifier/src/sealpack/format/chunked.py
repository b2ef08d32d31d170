"""The bytes of an encrypted file: derivation, chunks, and where each lies.

Source: specs/encryption.md, "Stored file", "Derivation" and "Chunk k". Pure: whoever reads stored bytes must
compare their signed leaves as well, because every licensee of a build holds its key.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sealpack.format.encryption import AEAD, CHUNK_SIZE, PREFIX_SIZE, SCHEME, TAG_SIZE, EncryptedFile
from sealpack.format.errors import SealpackError

KEY_SIZE = 32  # of an input key, bytes
SALT_SIZE = 24
STORED_CHUNK = CHUNK_SIZE + TAG_SIZE
_NONCE_SIZE, _COMMITMENT_SIZE = 12, 32


def new_input_key() -> bytes:
    """The key of one build: from the system's generator, never derived."""
    return secrets.token_bytes(KEY_SIZE)


def new_salt() -> bytes:
    """The salt of one file of one build."""
    return secrets.token_bytes(SALT_SIZE)


def stored_size(plain_size: int) -> int:
    """Bytes of the stored file for `plain_size` plain ones."""
    return PREFIX_SIZE + plain_size + chunk_count(plain_size) * TAG_SIZE


def chunk_count(plain_size: int) -> int:
    """Chunks of a file of `plain_size` bytes: the last one is always short, and may be empty."""
    return plain_size // CHUNK_SIZE + 1


def chunk_at(number: int) -> int:
    """Offset of a chunk in the stored file, bytes."""
    return PREFIX_SIZE + number * STORED_CHUNK


@dataclass(frozen=True, slots=True)
class FileCipher:
    """The derived key of one file: encrypts and opens its chunks by their number."""

    salt: bytes
    commitment: bytes
    _box: AESGCM = field(repr=False)
    _base: int = field(repr=False)  # nonce of chunk 0, big-endian

    @classmethod
    def derive(cls, input_key: bytes, salt: bytes, context: bytes) -> FileCipher:
        """From the build's input key, the file's salt and :meth:`EncryptedFile.context`."""
        info = f"{SCHEME}+{AEAD}".encode("ascii") + b"\0" + salt + context
        size = KEY_SIZE + _NONCE_SIZE + _COMMITMENT_SIZE
        out = HKDFExpand(hashes.SHA256(), size, info).derive(input_key)
        key, nonce, commitment = out[:32], out[32:44], out[44:]
        return cls(salt, commitment, AESGCM(key), int.from_bytes(nonce, "big"))

    @classmethod
    def open(cls, input_key: bytes, entry: EncryptedFile, bundle_id: str, release_index: int) -> FileCipher:
        """For reading `entry`; KEY_UNWRAP unless the key is the one it commits to."""
        made = cls.derive(input_key, bytes.fromhex(entry.salt), entry.context(bundle_id, release_index))
        if not hmac.compare_digest(made.commitment, bytes.fromhex(entry.commitment)):
            raise SealpackError("KEY_UNWRAP", f"the key is not the one that {entry.name} was encrypted with")
        return made

    @property
    def prefix(self) -> bytes:
        """What a stored file begins with."""
        return self.salt + self.commitment

    def encrypt(self, number: int, piece: bytes | memoryview) -> bytes:
        """Chunk `number` of the plain bytes `piece`."""
        return self._box.encrypt(self._nonce(number), piece, None)

    def open_into(self, number: int, chunk: bytes | memoryview, out: memoryview) -> None:
        """Open a chunk into `out`, which is as long as its plain bytes; DIGEST_MISMATCH."""
        try:
            self._box.decrypt_into(self._nonce(number), chunk, None, out)
        except (InvalidTag, ValueError):
            raise SealpackError("DIGEST_MISMATCH", f"encrypted chunk {number} does not open") from None

    def open_run(self, number: int, stored: memoryview, out: memoryview) -> None:
        """Open whole chunks that lie one after another, from `number` on; DIGEST_MISMATCH."""
        decrypt, base, at = self._box.decrypt_into, self._base, 0
        try:
            for place in range(0, len(out), CHUNK_SIZE):  # 64 times per MiB: nothing here that need not be
                nonce = (base ^ number).to_bytes(_NONCE_SIZE, "big")
                decrypt(nonce, stored[at : at + STORED_CHUNK], None, out[place : place + CHUNK_SIZE])
                number, at = number + 1, at + STORED_CHUNK
        except (InvalidTag, ValueError):
            raise SealpackError("DIGEST_MISMATCH", f"encrypted chunk {number} does not open") from None

    def _nonce(self, number: int) -> bytes:
        return (self._base ^ number).to_bytes(_NONCE_SIZE, "big")


def encrypted(cipher: FileCipher, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The stored file of a plain stream, piece by piece. Every block but the last holds whole pieces."""
    yield cipher.prefix
    number, rest = 0, b""
    for block in blocks:
        if rest:
            raise ValueError(f"a block before the last one is not a multiple of {CHUNK_SIZE} bytes")
        view, whole = memoryview(block), len(block) // CHUNK_SIZE
        for at in range(0, whole * CHUNK_SIZE, CHUNK_SIZE):
            yield cipher.encrypt(number, view[at : at + CHUNK_SIZE])
            number += 1
        rest = bytes(view[whole * CHUNK_SIZE :])
    yield cipher.encrypt(number, rest)

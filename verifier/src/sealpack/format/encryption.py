"""The `encryption` member of a manifest, and the wrapped key that opens it.

Source: specs/encryption.md. Here are only the formats, strictly read: which files are encrypted, how large
they are when opened, the commitment to their key, and what a wrapped key is bound to. Nothing here encrypts
or decrypts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sealpack.format import canonical
from sealpack.format.dsse import b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.limits import LIMITS
from sealpack.format.values import plain

SCHEME = "c2sp.org/chunked-encryption@v1"
AEAD = "AEAD_AES_256_GCM"
KEM = "MLKEM768_X25519"
CHUNK_SIZE = 16384
TAG_SIZE = 16
PREFIX_SIZE = 24 + 32  # salt, commitment
WRAPPED_SIZE = 1120 + 32 + TAG_SIZE  # encapsulated key, the 32-byte key, its tag
WRAP_LABEL = b"sealpack/wrapped-key/v1\0"
_SALT = r"[0-9a-f]{48}"


@dataclass(frozen=True, slots=True)
class EncryptedFile:
    """One encrypted payload file: entry name, plain size in bytes, hex salt and key commitment."""

    name: str
    plain_size: int
    salt: str
    commitment: str

    @classmethod
    def parse(cls, f: Fields) -> EncryptedFile:
        """Read one; no other members are allowed."""
        _closed(f, {"name", "plain_size", "salt", "commitment"})
        return cls(
            f.text("name", pattern=r"payload/.+", max_len=LIMITS.entry_name_bytes),
            f.integer("plain_size", hi=1 << 52),
            f.text("salt", pattern=_SALT, max_len=48),
            f.digest("commitment"),
        )

    @property
    def stored_size(self) -> int:
        """Bytes of the stored file: salt, commitment, and every chunk with its tag."""
        chunks = self.plain_size // CHUNK_SIZE + 1  # the last one is always short, and may be empty
        return PREFIX_SIZE + self.plain_size + chunks * TAG_SIZE

    def context(self, bundle_id: str, release_index: int) -> bytes:
        """What the file's key is derived for, so that no file can stand in another's place."""
        return canonical.dumps({"bundle_id": bundle_id, "path": self.name, "release_index": release_index})


@dataclass(frozen=True, slots=True)
class EncryptionHeader:
    """Which payload files of a bundle are encrypted; one input key opens all of them."""

    files: tuple[EncryptedFile, ...]

    @classmethod
    def parse(cls, f: Fields) -> EncryptionHeader:
        """Read one strictly: unknown schemes, unknown members, unsorted names and repeated salts fail."""
        _closed(f, {"scheme", "aead", "chunk_size", "files"})
        f.choice("scheme", (SCHEME,))
        f.choice("aead", (AEAD,))
        f.integer("chunk_size", lo=CHUNK_SIZE, hi=CHUNK_SIZE)
        files = f.objects("files", EncryptedFile.parse, max_items=LIMITS.entries)
        names = [entry.name for entry in files]
        if not names or names != sorted(set(names)):
            raise f.fail("files", "is empty, unsorted, or names a file twice")
        if len({entry.salt for entry in files}) != len(files):
            raise f.fail("files", "uses one salt twice")
        return cls(files)

    def to_dict(self) -> dict[str, Any]:
        """The manifest member."""
        return {"scheme": SCHEME, "aead": AEAD, "chunk_size": CHUNK_SIZE, "files": plain(self.files)}

    def check(self, sizes: Mapping[str, int], required: Collection[str], code: str) -> None:
        """Compare with the manifest: `sizes` of its files as stored, and which must be encrypted."""
        for entry in self.files:
            if sizes.get(entry.name) != entry.stored_size:
                raise SealpackError(code, f"encrypted file {entry.name} is missing or has another size")
        plain_ones = set(required) - {entry.name for entry in self.files}
        if plain_ones:
            raise SealpackError(code, f"{min(plain_ones)} is not encrypted, but the bundle says it is")


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A bundle's input key for one device: a member of an activation's `keys`."""

    bundle_digest: str
    enc_ct: bytes

    @classmethod
    def parse(cls, f: Fields) -> WrappedKey:
        """Read one; the ciphertext has exactly the length its KEM and a 32-byte key give."""
        _closed(f, {"bundle_digest", "kem", "enc_ct"})
        f.choice("kem", (KEM,))
        data = b64decode(f.text("enc_ct", max_len=2 * WRAPPED_SIZE), f"{f.what}.enc_ct", f.code)
        if len(data) != WRAPPED_SIZE:
            raise f.fail("enc_ct", f"has {len(data)} bytes, not {WRAPPED_SIZE}")
        return cls(f.digest("bundle_digest"), data)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return {"bundle_digest": self.bundle_digest, "kem": KEM, "enc_ct": b64encode(self.enc_ct)}

    def info(self, license_id: str, device_id: str) -> bytes:
        """The HPKE `info`: a key wrapped for one bundle, license and device opens for no other."""
        bound = {"bundle_digest": self.bundle_digest, "license_id": license_id, "device_id": device_id}
        return WRAP_LABEL + canonical.dumps(bound)


def _closed(f: Fields, members: set[str]) -> None:
    extra = set(f.keys()) - members
    if extra:
        raise f.fail(min(extra), "is not known here")

"""The key of an encrypted bundle, and the files that it opens.

Source: specs/encryption.md. An activation holds the key, wrapped for this device's HPKE key and bound to
bundle, license and device. It is unwrapped each time a runtime opens, and never written anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import partial

from sealpack.format.activation import Activation
from sealpack.format.chunked import FileCipher
from sealpack.format.container import BundleReader
from sealpack.format.encryption import EncryptedFile
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import FileEntry, Manifest
from sealpack.runtime import device, secret_memory
from sealpack.runtime.decrypt import DecryptedFile, StoredFile
from sealpack.runtime.home import Home

_NO_KEY = "send a new `sealpack activate request` to the vendor and ask for the key of this build"


def input_key(home: Home, activation: Activation | None, bundle_digest: str) -> bytes:
    """The input key of one build; KEY_UNWRAP, DEVICE_KEY_MISSING.

    `activation` is the verified one of the license that applies.
    """
    held = activation.keys if activation is not None else ()
    wrapped = next((key for key in held if key.bundle_digest == bundle_digest), None)
    if activation is None or wrapped is None:
        raise SealpackError(
            "KEY_UNWRAP",
            f"bundle {bundle_digest[:16]} is encrypted, and the activation holds no key for it",
            remedy=_NO_KEY,
        )
    return device.hpke_key(home).unwrap(wrapped, activation.license_id, activation.device_id)


def decrypted(bundle: BundleReader, manifest: Manifest, input_key: bytes | None) -> dict[str, DecryptedFile]:
    """The encrypted files of an open bundle by name, each to be closed; none when it is not encrypted.

    Every key commitment is compared before the first chunk is touched. From the first on, this process makes
    no core dumps and other processes of the user cannot look into it. KEY_UNWRAP and the codes of
    :class:`DecryptedFile`.
    """
    header = manifest.encryption_header
    if header is None:
        return {}
    if input_key is None:
        raise SealpackError("KEY_UNWRAP", f"{manifest.bundle_id} is encrypted, and there is no key for it")
    secret_memory.protect_process()
    named = (manifest.bundle_id, manifest.release_index)
    ciphers = {entry.name: FileCipher.open(input_key, entry, *named) for entry in header.files}
    entries = {entry.name: entry for entry in manifest.files}
    with contextlib.ExitStack() as opened:
        files = {}
        for file in header.files:
            stored = _stored(bundle, entries[file.name], file)
            files[file.name] = opened.enter_context(
                contextlib.closing(DecryptedFile(stored, ciphers[file.name]))
            )
        opened.pop_all()
        return files


def _stored(bundle: BundleReader, entry: FileEntry, file: EncryptedFile) -> StoredFile:
    """The file with its signed leaves; CHUNK_MISMATCH."""
    assert entry.chunks is not None  # the manifest has them for every payload file
    table = bundle.read(entry.chunks.table, LIMITS.chunk_table_bytes)
    if hashlib.sha256(table).hexdigest() != entry.chunks.sha256:
        raise SealpackError("CHUNK_MISMATCH", f"{entry.chunks.table} is not what was signed")
    return StoredFile(file.name, file.plain_size, table, partial(bundle.read_into, file.name))

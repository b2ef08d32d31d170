"""Encrypted bundles, made by hand: a plain spec's weights are replaced by their ciphertext."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

from sealpack.format import canonical, chunked
from sealpack.format.chunked import FileCipher
from sealpack.format.container import MIMETYPE
from sealpack.format.encryption import EncryptedFile, EncryptionHeader
from support.world import BundleSpec, pack

INPUT_KEY = hashlib.sha256(b"sealpack TEST build key").digest()
Change = Callable[[dict[str, bytes]], None]


def salt_of(name: str) -> bytes:
    """A test salt; real ones are random."""
    return hashlib.sha256(b"sealpack TEST salt of " + name.encode()).digest()[:24]


def encrypt(spec: BundleSpec, name: str, plain: bytes, key: bytes = INPUT_KEY) -> tuple[EncryptedFile, bytes]:
    """The header's entry of a file and its stored bytes."""
    entry = EncryptedFile(name, len(plain), salt_of(name).hex(), "00" * 32)
    cipher = FileCipher.derive(key, salt_of(name), entry.context(spec.bundle_id, spec.release_index))
    return (
        dataclasses.replace(entry, commitment=cipher.commitment.hex()),
        b"".join(chunked.encrypted(cipher, [plain])),
    )


class EncryptedSpec(BundleSpec):
    """A spec whose model and model data are encrypted under `INPUT_KEY` when it is built."""

    key_used: bytes = INPUT_KEY
    change: Change | None = None  # of the stored files, before they are hashed and signed

    def members(self) -> dict[str, bytes]:
        plain = {self.model_name: self.model} | {
            name: data for name, (role, _, data) in self.extra.items() if role == "model-data"
        }
        made = {name: encrypt(self, name, data, self.key_used) for name, data in plain.items()}
        stored = {name: data for name, (_, data) in made.items()}
        if self.change is not None:
            self.change(stored)
        spec = BundleSpec(
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(BundleSpec)}
            | {
                "model": stored[self.model_name],
                "extra": {
                    name: (role, media, stored.get(name, data))
                    for name, (role, media, data) in self.extra.items()
                },
            }
        )
        members = spec.members()
        header = EncryptionHeader(tuple(made[name][0] for name in sorted(made)))
        value: dict[str, Any] = canonical.loads(members["manifest.json"])
        value |= {"encryption": header.to_dict(), "crit": ["encryption"]}
        return members | {"manifest.json": canonical.dumps(value)}


def repacked(spec: BundleSpec, change: Change) -> bytes:
    """A signed bundle, whose members are changed after it was signed."""
    members = spec.members()
    signature = spec.sign(members)
    change(members)
    return pack({"mimetype": MIMETYPE, "META/model.sig": signature, **members})

"""Key derivation and the commitment a manifest carries. Source: specs/watermark.md sections 3, 7.

Standard library only, so that the commitment can be checked anywhere.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

DOMAIN = "sealpack/watermark/v1"


def length_prefixed(*parts: bytes | str) -> bytes:
    """Return each part behind its length as 8 bytes big-endian; text is UTF-8.

    No two lists of parts give the same bytes, so fields cannot be shifted into each other.
    """
    raw = (part.encode() if isinstance(part, str) else part for part in parts)
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


def derive(key: bytes, label: str, *parts: bytes | str) -> bytes:
    """HMAC-SHA-256 of the length-prefixed label and parts: one 32-byte key per purpose."""
    message = length_prefixed(f"{DOMAIN}/{label}", *parts)
    return hmac.digest(key, message, "sha256")


def model_key(root: bytes, clean_digest: str) -> bytes:
    """K_model, bound to the clean model's digest (hex)."""
    return derive(root, "model", bytes.fromhex(clean_digest))


def licensee_key(model: bytes, licensee: str, bundle_id: str) -> bytes:
    """K_lic, the secret of one licensee's carrier in one bundle."""
    return derive(model, "licensee", licensee, bundle_id)


def tensor_key(licensee: bytes, purpose: str, tensor: str) -> bytes:
    """The key of one tensor's stream; `purpose` is "signs" or "dither"."""
    return derive(licensee, purpose, tensor)


def commitment(
    *,
    licensee_key: bytes,
    license_id: str,
    bundle_id: str,
    clean_digest: str,
    marked_digest: str,
    params_digest: str,
    randomness: bytes,
) -> str:
    """Hex SHA-256 that binds a mark without revealing anything of it; digests are hex.

    `randomness` (32 bytes, from the vault) hides the rest, so the commitment cannot be guessed at.
    """
    data = length_prefixed(
        DOMAIN,
        licensee_key,
        license_id,
        bundle_id,
        bytes.fromhex(clean_digest),
        bytes.fromhex(marked_digest),
        bytes.fromhex(params_digest),
        randomness,
    )
    return hashlib.sha256(data).hexdigest()


def model_digest(files: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """The digest of a model from its files' names and hex SHA-256.

    One file: its own SHA-256. Several: the SHA-256 of lines "digest, two spaces, name", sorted by
    name; external data by its path relative to the model file, the model file itself by "".
    """
    pairs = sorted(dict(files).items())
    if len(pairs) == 1:
        return pairs[0][1]
    lines = "".join(f"{digest}  {name}\n" for name, digest in pairs)
    return hashlib.sha256(lines.encode()).hexdigest()

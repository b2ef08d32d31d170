"""What every place of raw usage files holds to: bytes are those of their digest, or nothing is given.

Source: specs/settlement-ingest.md, "Storage".
"""

from __future__ import annotations

import hashlib

from sealpack.format.errors import SealpackError


def checked(digest: str, data: bytes) -> bytes:
    """The data, when it has that digest; STORE_CORRUPT."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise SealpackError("STORE_CORRUPT", f"the stored file {digest[:16]} was changed")
    return data


def gone(digest: str, where: str) -> SealpackError:
    """What is told of a file that is not where it should be."""
    return SealpackError("STORE_CORRUPT", f"the stored file {digest[:16]} is gone from {where}")

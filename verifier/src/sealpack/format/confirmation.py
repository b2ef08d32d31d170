"""The short code that says over the telephone which activation arrived on which device.

Source: specs/activation.md, "Confirmation code". Nine characters of Crockford's base32, the last one a check
character: what is heard wrongly is told apart from what is of no device.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import re

from sealpack.format import canonical
from sealpack.format.errors import SealpackError

SECRET = r"[0-9a-f]{32}"
_LABEL = b"sealpack/confirmation/v1\0"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHECK = 37  # Crockford's modulus; codes whose check character were none of the alphabet are passed over
_HEARD = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})


def code(secret: str, device_id: str, activation: str, root: str) -> str:
    """The code of an activation (its digest) on a device that believes `root` (its digest).

    `secret` is the activation's, in hex.

    >>> code("00" * 16, "dev-" + "1" * 32, "2" * 64, "3" * 64)
    '2PKJ-AASP-3'
    """
    said = canonical.dumps({"activation": activation, "device_id": device_id, "root": root})
    key = bytes.fromhex(secret)
    numbers = (
        int.from_bytes(hmac.digest(key, _LABEL + bytes([n]) + said, hashlib.sha256)[:5], "big")
        for n in itertools.count()
    )
    number = next(n for n in numbers if n % _CHECK < len(_ALPHABET))
    text = "".join(_ALPHABET[number >> shift & 31] for shift in range(35, -1, -5))
    return f"{text[:4]}-{text[4:]}-{_ALPHABET[number % _CHECK]}"


def heard(text: str) -> str:
    """A code as somebody typed it, in the form of :func:`code`; CONFIRMATION_INVALID when it is none.

    >>> heard("2pkj aasp 3")
    '2PKJ-AASP-3'
    """
    plain = text.upper().translate(_HEARD)
    if not re.fullmatch(f"[{_ALPHABET}]{{9}}", plain):
        raise SealpackError("CONFIRMATION_INVALID", f"{text[:40]!r} is not a code like 2PKJ-AASP-3")
    number = sum(_ALPHABET.index(char) << 5 * place for place, char in enumerate(reversed(plain[:8])))
    if _ALPHABET.index(plain[8]) != number % _CHECK:
        raise SealpackError("CONFIRMATION_INVALID", f"{text[:40]!r} has a typing error: it fits no code")
    return f"{plain[:4]}-{plain[4:8]}-{plain[8]}"

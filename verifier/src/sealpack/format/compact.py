"""Documents made small enough for codes that a camera reads: base64 and hex undone, then deflated.

Source: specs/qr.md, section "Compact form". Signed documents are JSON in base64 in JSON, and deflate finds
nothing in base64. So the text is unwrapped first: what was base64 or hex leaves the text and stands as bytes
behind it. Any reader puts back exactly the bytes there were; nothing here is trusted or checked.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from dataclasses import dataclass, field

from sealpack.format.compact_words import WORDS
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

# Marks in the text. Canonical JSON holds no byte below 0x20, so they cannot be meant literally.
BEGIN, END, BASE64, HEX = 1, 2, 3, 4
DEPTH = 4  # base64 texts inside each other: an acknowledgement holds a lease's envelope

# A whole JSON string, a line of a PEM, the hex of a device id; shorter runs are words as often as base64.
_RUN = re.compile(
    rb'(?:(?<=")|(?<=\\n))(?:[A-Za-z0-9+/]{4}){6,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(?="|\\n)'
    rb'|(?<=-)(?:[0-9a-f]{2}){12,}(?=")'
)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_HEX = re.compile(rb"(?:[0-9a-f]{2})+")
_TOKEN = re.compile(rb"[^\x00-\x1f]+|[\x01\x02]|[\x03\x04][\x00-\xff]{2}")


def shrink(document: bytes) -> bytes:
    """The compact form of canonical JSON; ValueError for bytes that cannot be canonical JSON."""
    if _CONTROL.search(document):
        raise ValueError("not canonical JSON: it holds control characters")
    blobs: list[bytes] = []
    text = _unwrap(document, blobs, 0)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, WORDS)
    # Flushed between the two, since words and random bytes want codes of their own.
    parts = coder.compress(len(text).to_bytes(4) + text), coder.flush(zlib.Z_SYNC_FLUSH)
    return b"".join((*parts, coder.compress(b"".join(blobs)), coder.flush()))


def restore(data: bytes) -> bytes:
    """The document of a compact form; QR_DIGEST when it is none, QR_LIMIT when it grows over the bound."""
    plain = _inflate(data)
    size = int.from_bytes(plain[:4])
    if size > len(plain) - 4:
        raise _broken()
    return _Restorer(plain[4 + size :]).run(plain[4 : 4 + size])


def _unwrap(text: bytes, blobs: list[bytes], depth: int) -> bytes:
    """`text` with marks where base64 and hex stood; what they meant is added to `blobs`."""

    def replaced(match: re.Match[bytes]) -> bytes:
        run = match[0]
        is_hex = _HEX.fullmatch(run) is not None
        data = bytes.fromhex(run.decode()) if is_hex else base64.b64decode(run)
        if not is_hex and base64.b64encode(data) != run:
            return run
        if not is_hex and depth < DEPTH and _is_text(data):
            return bytes([BEGIN]) + _unwrap(data, blobs, depth + 1) + bytes([END])
        if len(data) > 0xFFFF:
            return run
        blobs.append(data)
        return bytes([HEX if is_hex else BASE64]) + len(data).to_bytes(2)

    return _RUN.sub(replaced, text)


def _is_text(data: bytes) -> bool:
    return data[:1] == b"{" and _CONTROL.search(data) is None


def _inflate(data: bytes) -> bytes:
    limit = LIMITS.document_bytes + 4  # no form of the text is longer than the text
    coder = zlib.decompressobj(-15, WORDS)
    try:
        plain = coder.decompress(data, limit + 1)
    except zlib.error:
        raise _broken() from None
    if len(plain) > limit:
        raise _too_large()
    if not coder.eof or coder.unused_data or coder.unconsumed_tail:
        raise _broken()
    return plain


@dataclass(slots=True)
class _Restorer:
    """Puts the blobs back into the text. `open` holds the text outside and inside every open mark."""

    blobs: bytes
    used: int = 0
    open: list[bytearray] = field(default_factory=lambda: [bytearray()])

    def run(self, text: bytes) -> bytes:
        """The document; QR_DIGEST unless marks and blobs fit each other exactly."""
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise _broken()
            self._take(token[0])
            at = token.end()
        if len(self.open) != 1 or self.used != len(self.blobs):
            raise _broken()
        return bytes(self.open[0])

    def _take(self, token: bytes) -> None:
        mark = token[0]
        if mark == BEGIN:
            if len(self.open) > DEPTH:
                raise _broken()
            self.open.append(bytearray())
        elif mark == END:
            if len(self.open) == 1:
                raise _broken()
            self._add(base64.b64encode(self.open.pop()))
        elif mark == BASE64:
            self._add(base64.b64encode(self._blob(token)))
        elif mark == HEX:
            self._add(binascii.hexlify(self._blob(token)))
        else:
            self._add(token)

    def _blob(self, token: bytes) -> bytes:
        begin, self.used = self.used, self.used + int.from_bytes(token[1:])
        if self.used > len(self.blobs):
            raise _broken()
        return self.blobs[begin : self.used]

    def _add(self, data: bytes) -> None:
        self.open[-1] += data
        if len(self.open[-1]) > LIMITS.document_bytes:
            raise _too_large()


def _broken() -> SealpackError:
    return SealpackError("QR_DIGEST", "the codes do not join to a document")


def _too_large() -> SealpackError:
    return SealpackError("QR_LIMIT", f"the codes hold more than {LIMITS.document_bytes} bytes")

"""Documents as QR codes: a document becomes the texts of one code or several, and comes back from them.

Source: specs/qr.md. A code's text is letters and digits only, so that it survives phones, keyboard-wedge
scanners and their layouts. Frames may come in any order and any number of times. This checks that all of a
document arrived whole; who signed it is checked by whoever opens the document.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from sealpack.format import compact
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

PREFIX = "SEALPACK1"
_HEAD = 14  # bytes before the piece: transfer 8, number 1, count 1, CRC-32 4
_FRAME = re.compile(rf"{PREFIX}([0-9A-V]+)")
_SPACE = re.compile(r"[ \t\r\n\v\f]+")

# Letters and digits that QR versions 1 to 40 take at error correction level M (ISO/IEC 18004, table 7).
CAPACITY = (
    20, 38, 61, 90, 122, 154, 178, 221, 262, 311, 366, 419, 483, 528, 600, 656, 734, 816, 909, 970,
    1035, 1134, 1248, 1326, 1451, 1542, 1637, 1732, 1839, 1994, 2113, 2238, 2369, 2506, 2632, 2780,
    2894, 3054, 3220, 3391,
)  # fmt: skip
LARGEST = 34  # the largest version written: larger ones are hard on cheap cameras


@dataclass(frozen=True, slots=True)
class Frame:
    """One code. `transfer` is the same in all codes of a document; `number` counts from 1 to `count`."""

    transfer: bytes
    number: int
    count: int
    piece: bytes

    @classmethod
    def parse(cls, text: str) -> Frame:
        """Read a scanned text; QR_FRAME for one that is damaged or not ours, QR_LIMIT for one too long."""
        if len(text) > 2 * LIMITS.qr_frame_chars:
            raise SealpackError("QR_LIMIT", "the scanned text is longer than any code")
        found = _FRAME.fullmatch(_SPACE.sub("", text).upper())
        if found is None:
            raise SealpackError("QR_FRAME", f"{text.strip()[:20]!r} is not the text of a sealpack code")
        if len(found[0]) > LIMITS.qr_frame_chars:
            raise SealpackError("QR_LIMIT", "the scanned text is longer than any code")
        data = _decode(found[1])
        frame = cls(data[:8], data[8], data[9], data[_HEAD:])
        if data[10:_HEAD] != frame._check() or not 1 <= frame.number <= frame.count or not frame.piece:
            raise _damaged()
        return frame

    def text(self) -> str:
        """The text of the code."""
        data = self._named() + self._check() + self.piece
        return PREFIX + base64.b32hexencode(data).decode().rstrip("=")

    def _named(self) -> bytes:
        return self.transfer + bytes((self.number, self.count))

    def _check(self) -> bytes:
        return zlib.crc32(self._named() + self.piece).to_bytes(4)


def _decode(text: str) -> bytes:
    """Bytes of unpadded base32hex; QR_FRAME unless this is the one way to write them."""
    try:
        data = base64.b32hexdecode(text + "=" * (-len(text) % 8))
    except ValueError:
        raise _damaged() from None
    if len(data) <= _HEAD or base64.b32hexencode(data).decode().rstrip("=") != text:
        raise _damaged()
    return data


def _damaged() -> SealpackError:
    return SealpackError("QR_FRAME", "the text of this code is damaged")


def transfer_id(document: bytes) -> bytes:
    """What all codes of a document share: the first 8 bytes of its SHA-256."""
    return hashlib.sha256(document).digest()[:8]


def frames(document: bytes, version: int = LARGEST) -> tuple[str, ...]:
    """The texts that carry canonical JSON in the fewest codes of at most `version`, about equal in size.

    QR_LIMIT when they are more than 255, or the document is larger than a document may be.
    """
    if len(document) > LIMITS.document_bytes:
        raise SealpackError("QR_LIMIT", f"{len(document)} bytes are too much for codes")
    data = compact.shrink(document)
    room = (CAPACITY[version - 1] - len(PREFIX)) * 5 // 8 - _HEAD
    count = -(-len(data) // room)
    if count > LIMITS.qr_frames:
        raise SealpackError("QR_LIMIT", f"this takes {count} codes of version {version}, too many")
    size = -(-len(data) // count)
    name = transfer_id(document)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return tuple(Frame(name, n, len(pieces), piece).text() for n, piece in enumerate(pieces, 1))


def smallest_version(texts: Iterable[str]) -> int:
    """The QR version that holds each of the texts at level M."""
    longest = max(map(len, texts))
    return next(version for version, room in enumerate(CAPACITY, 1) if room >= longest)


@dataclass(slots=True)
class Collector:
    """Gathers frames of one transfer; a frame that is refused changes nothing."""

    _first: Frame | None = None
    _pieces: dict[int, bytes] = field(default_factory=dict)

    def add(self, text: str) -> Frame:
        """Take a scanned text; QR_FRAME, QR_LIMIT, or QR_MIXED when it belongs to another document."""
        frame = Frame.parse(text)
        first = self._first or frame
        if (frame.transfer, frame.count) != (first.transfer, first.count):
            raise SealpackError("QR_MIXED", "this code belongs to another document than the first one")
        if self._pieces.setdefault(frame.number, frame.piece) != frame.piece:
            raise SealpackError("QR_MIXED", f"two different codes are number {frame.number}")
        self._first = first
        return frame

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers not seen yet; empty when complete, and before the first frame."""
        count = self._first.count if self._first else 0
        return tuple(n for n in range(1, count + 1) if n not in self._pieces)

    @property
    def complete(self) -> bool:
        """True when every frame is here."""
        return self._first is not None and not self.missing

    def document(self) -> bytes:
        """The document; QR_MISSING, QR_LIMIT, or QR_DIGEST when the frames join to something else."""
        if self._first is None:
            raise SealpackError("QR_MISSING", "no code was scanned")
        if self.missing:
            raise SealpackError(
                "QR_MISSING",
                f"{_numbers(self.missing)} of {self._first.count} missing",
                missing=list(self.missing),
            )
        document = compact.restore(b"".join(self._pieces[n] for n in sorted(self._pieces)))
        if transfer_id(document) != self._first.transfer:
            raise SealpackError("QR_DIGEST", "the codes do not join to the document they name")
        return document


def _numbers(numbers: tuple[int, ...]) -> str:
    """`code 2 is`, `codes 2, 5 to 9 are`."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    text = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in runs)
    return f"code {text}" if len(numbers) == 1 else f"codes {text}"


def join(texts: Iterable[str]) -> bytes:
    """The document of scanned texts in any order; blank ones are passed over. Errors name the line."""
    collector = Collector()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            collector.add(text)
        except SealpackError as error:
            message = f"line {number}: {error.message}"
            raise SealpackError(error.code, message, remedy=error.remedy, **error.facts) from None
    return collector.document()

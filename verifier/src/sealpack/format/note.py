"""Checkpoints: what a device signs about its log, in a form public tools can check.

Source: specs/checkpoint.md. A checkpoint is a C2SP signed note whose text is three lines: the log's
origin, its size, and its root in base64. The device signs it with Ed25519 under the origin as key name
(signature type 0x01). Settlement adds a C2SP witness cosignature (type 0x04) that says when it saw the
log at that size.

Every failure, malformed or forged, is CHECKPOINT_INVALID. There is no way to read a checkpoint without
checking a signature on it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sealpack.format.dsse import b64decode, b64encode
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey, PublicKey
from sealpack.format.merkle import HASH_BYTES, MAX_SIZE

ED25519_NOTE = 0x01
COSIGNATURE = 0x04

NOTE_BYTES = 8000
SIGNATURES = 16
_KEY_ID_BYTES = 4
_ED25519_BYTES = 64
_TIME_BYTES = 8
_MAX_TIME = 2**53 - 1

_NAME = re.compile(r"[!-*,-~]{1,400}")  # visible ASCII; a note key name holds no space and no plus
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log at one moment: its origin, how many leaves it has, and their root (32 raw bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.origin):
            raise _invalid(f"origin {self.origin[:60]!r} is not a log name")
        if not 0 <= self.size <= MAX_SIZE:
            raise _invalid(f"size {self.size} is out of range")
        if len(self.root) != HASH_BYTES:
            raise _invalid("root is not 32 bytes")

    @property
    def text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Read note text of exactly three lines (no extension lines)."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise _invalid("text is not three lines")
        origin, size, root = lines[:3]
        if not _SIZE.fullmatch(size):
            raise _invalid(f"size {size[:20]!r} is not a decimal number")
        return cls(origin, int(size), b64decode(root, "checkpoint root", "CHECKPOINT_INVALID"))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified witness statement: at `time` (Unix seconds) this was the newest tree it had seen."""

    checkpoint: Checkpoint
    time: int


@dataclass(frozen=True, slots=True)
class _Line:
    name: str
    key_id: bytes
    signature: bytes


def key_id(name: str, kind: int, key: PublicKey) -> bytes:
    """Return the four bytes that pick a key in a note: SHA-256(name || LF || kind || raw key)[:4]."""
    return hashlib.sha256(name.encode() + bytes([0x0A, kind]) + key.raw()).digest()[:_KEY_ID_BYTES]


def sign_checkpoint(checkpoint: Checkpoint, *keys: PrivateKey) -> bytes:
    """Return the signed note: one signature per key, two where a checkpoint covers a key rotation."""
    text = checkpoint.text.encode("ascii")
    name = checkpoint.origin
    lines = [_line(name, key_id(name, ED25519_NOTE, key.public) + key.sign(text)) for key in keys]
    if not lines:
        raise ValueError("a checkpoint is signed by at least one key")
    return text + b"\n" + b"".join(lines)


def open_checkpoint(note: bytes, *keys: PublicKey) -> Checkpoint:
    """Verify a checkpoint that *all* of `keys` must have signed, and return it.

    Signatures of other keys are ignored, as the note format requires (a witness may have added some).
    """
    if not keys:
        raise ValueError("a checkpoint is opened with at least one key")
    text, lines = _parse(note)
    checkpoint = Checkpoint.from_text(text)
    for key in keys:
        message = text.encode("ascii")
        signature = _find(lines, checkpoint.origin, key_id(checkpoint.origin, ED25519_NOTE, key))
        _verify(key, signature, message, _ED25519_BYTES)
    return checkpoint


def signer_ids(note: bytes) -> tuple[tuple[str, str], ...]:
    """Return (key name, hex key id) of each signature: hints for a message, verified by nothing."""
    return tuple((line.name, line.key_id.hex()) for line in _parse(note)[1])


def cosign(note: bytes, name: str, key: PrivateKey, time: int) -> bytes:
    """Return `note` with a witness cosignature added, made at `time` (Unix seconds).

    The caller has opened the note and knows that its tree extends the newest one seen before.
    """
    if not _NAME.fullmatch(name) or not 0 <= time <= _MAX_TIME:
        raise ValueError("cosignature needs a key name without spaces and a time from 0 on")
    text, lines = _parse(note)
    if len(lines) == SIGNATURES:
        raise _invalid(f"note already has {SIGNATURES} signatures")
    stamp = time.to_bytes(_TIME_BYTES, "big")
    signature = key.sign(_cosigned(text, time))
    return note + _line(name, key_id(name, COSIGNATURE, key.public) + stamp + signature)


def open_cosignature(note: bytes, name: str, key: PublicKey) -> Cosignature:
    """Verify the cosignature of witness (`name`, `key`) on a checkpoint and return both."""
    text, lines = _parse(note)
    blob = _find(lines, name, key_id(name, COSIGNATURE, key))
    if len(blob) != _TIME_BYTES + _ED25519_BYTES:
        raise _invalid("cosignature is not 72 bytes")
    time = int.from_bytes(blob[:_TIME_BYTES], "big")
    if time > _MAX_TIME:
        raise _invalid("cosignature time is out of range")
    _verify(key, blob[_TIME_BYTES:], _cosigned(text, time), _ED25519_BYTES)
    return Cosignature(Checkpoint.from_text(text), time)


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _line(name: str, blob: bytes) -> bytes:
    return f"— {name} {b64encode(blob)}\n".encode()


def _parse(note: bytes) -> tuple[str, list[_Line]]:
    """Split a note into its text (with the final newline) and its signature lines."""
    if len(note) > NOTE_BYTES:
        raise _invalid(f"note is {len(note)} bytes, the limit is {NOTE_BYTES}")
    try:
        whole = note.decode("utf-8")
    except UnicodeDecodeError:
        raise _invalid("note is not UTF-8") from None
    if _CONTROL.search(whole):
        raise _invalid("note holds a control character")
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise _invalid("note has no signature block")
    lines = [_parse_line(line) for line in tail[:-1].split("\n")]
    if len(lines) > SIGNATURES:
        raise _invalid(f"note has {len(lines)} signatures, the limit is {SIGNATURES}")
    return text + "\n", lines


def _parse_line(line: str) -> _Line:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.fullmatch(parts[1]):
        raise _invalid("signature line is malformed")
    blob = b64decode(parts[2], "note signature", "CHECKPOINT_INVALID")
    if len(blob) <= _KEY_ID_BYTES:
        raise _invalid("signature is empty")
    return _Line(parts[1], blob[:_KEY_ID_BYTES], blob[_KEY_ID_BYTES:])


def _find(lines: list[_Line], name: str, wanted: bytes) -> bytes:
    """Return the one signature by (name, key id)."""
    found = [line.signature for line in lines if line.name == name and line.key_id == wanted]
    if len(found) != 1:
        count = "no signature" if not found else f"{len(found)} signatures"
        raise _invalid(f"note has {count} by key {wanted.hex()} of {name[:100]}")
    return found[0]


def _verify(key: PublicKey, signature: bytes, message: bytes, length: int) -> None:
    if len(signature) != length:
        raise _invalid(f"signature is {len(signature)} bytes, not {length}")
    try:
        key.verify(signature, message)
    except SealpackError:
        raise _invalid(f"signature by key {key.keyid[:16]} does not verify") from None


def _invalid(problem: str) -> SealpackError:
    return SealpackError("CHECKPOINT_INVALID", f"checkpoint: {problem}")

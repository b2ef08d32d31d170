"""A protobuf writer of a dozen lines, for ONNX files that no library would write."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """A number as it stands in a message, negative ones in ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes | str, length: int | None = None) -> bytes:
    """A field that is bytes or a message; `length` is stated instead of the true one."""
    raw = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(raw) if length is None else length) + raw

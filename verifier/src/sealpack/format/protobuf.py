"""Walk the fields of an untrusted protobuf message in a file, without a schema compiler.

Only the wire format: field numbers, varints, and the place of length-delimited fields, whose
content is not read until asked for. Source: the Protocol Buffers encoding guide. Stricter than
most decoders in one point: groups, long out of use, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sealpack.format.window import ByteWindow

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 1 << 23  # in one file
_MAX_KEPT_BYTES = 64 << 20  # of text held in memory
_WORD = (1 << 64) - 1


class Span(NamedTuple):
    """Content of a length-delimited field: bytes [begin, end) of the window."""

    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


class Field(NamedTuple):
    """One field: `value` is a varint's unsigned value, else 0; its bytes are [begin, end)."""

    number: int
    wire: int
    value: int
    begin: int
    end: int

    @property
    def span(self) -> Span:
        return Span(self.begin, self.end)


class Message(dict[int, list[Field]]):
    """Fields of one message by number."""

    def one(self, number: int) -> Field | None:
        return self[number][0] if number in self else None

    def all(self, number: int) -> list[Field]:
        return self.get(number, [])


class Wire:
    """A protobuf reader over a window; all errors name the file through the window."""

    def __init__(self, window: ByteWindow) -> None:
        self.window = window
        self.whole = Span(0, window.size)
        self._fields = 0
        self._kept = 0

    def fields(self, span: Span) -> Iterator[Field]:
        """The fields of the message in `span`, in file order.

        Raises MODEL_TRUNCATED when a field reaches past the file, MODEL_UNSAFE when it reaches
        past its own message or is no field at all.
        """
        at = span.begin
        while at < span.end:
            field = Field(*self._next(at, span.end))
            yield field
            at = field.end

    def message(
        self,
        span: Span,
        single: frozenset[int],
        many: frozenset[int] = frozenset(),
        most: int = 1 << 14,
    ) -> Message:
        """The wanted fields by number, at most `most` of each; all others are stepped over.

        A `single` field that appears twice is refused: decoders would merge the two, and what
        they then see is not what a reader of either one saw.
        """
        found = Message()
        at, end = span
        while at < end:
            parts = self._next(at, end)
            number, at = parts[0], parts[4]
            if number in many:
                fields = found.setdefault(number, [])
                if len(fields) == most:
                    raise self.window.unsafe(f"field {number} appears more than {most} times")
                fields.append(Field(*parts))
            elif number in single:
                if number in found:
                    raise self.window.unsafe(f"field {number} appears twice")
                found[number] = [Field(*parts)]
        return found

    def text(self, field: Field, most: int = 4096) -> str:
        """A UTF-8 string of at most `most` bytes."""
        span = self.content(field)
        if span.size > most:
            raise self.window.unsafe(f"text of {span.size} bytes is more than we keep")
        self.keep(span.size)
        try:
            return self.window.take(span.begin, span.size).decode()
        except UnicodeDecodeError as error:
            raise self.window.unsafe(f"text at {span.begin} is not UTF-8") from error

    def keep(self, size: int) -> None:
        """Count `size` bytes of text that the caller holds; MODEL_UNSAFE when it is too much in all."""
        self._kept += size
        if self._kept > _MAX_KEPT_BYTES:
            raise self.window.unsafe(f"names and texts are more than {_MAX_KEPT_BYTES} bytes")

    def content(self, field: Field) -> Span:
        """Where a length-delimited field's content lies; any other wire type is refused."""
        if field.wire != LENGTH:
            raise self._wrong(field)
        return field.span

    def unsigned(self, field: Field) -> int:
        if field.wire != VARINT:
            raise self._wrong(field)
        return field.value

    def signed(self, field: Field) -> int:
        """An int32 or int64: two's complement in 64 bits."""
        value = self.unsigned(field)
        return value - (1 << 64) if value >> 63 else value

    def signed_list(self, field: Field, most: int) -> list[int]:
        """One element, or a packed run of them; at most `most`."""
        if field.wire == VARINT:
            return [self.signed(field)]
        values, at, end = [], field.span.begin, self.content(field).end
        while at < end:
            value, at = self._varint(at, end)
            values.append(value - (1 << 64) if value >> 63 else value)
            if len(values) > most:
                raise self.window.unsafe(f"a list has more than {most} elements")
        return values

    def _next(self, at: int, end: int) -> tuple[int, int, int, int, int]:
        """The parts of a `Field`; plain, since most fields are only stepped over."""
        self._fields += 1
        if self._fields > _MAX_FIELDS:
            raise self.window.unsafe(f"has more than {_MAX_FIELDS} fields")
        tag, body = self._varint(at, end)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise self.window.unsafe(f"field number {number} at {at} is not valid")
        if wire == VARINT:
            value, stop = self._varint(body, end)
            return number, wire, value, body, stop
        if wire == LENGTH:
            size, body = self._varint(body, end)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise self.window.unsafe(f"wire type {wire} at {at} is not valid")
        return number, wire, 0, body, self._inside(body + size, end)

    def _inside(self, stop: int, end: int) -> int:
        if stop <= end:
            return stop
        if stop > self.window.size:
            raise self.window.cut(f"a field ends at {stop}, the file at {self.window.size}")
        raise self.window.unsafe(f"a field ends at {stop}, its message at {end}")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The value in the low 64 bits, and where the next byte is."""
        most = end - at if end - at < 10 else 10
        buffer, index = self.window.near(at, most)
        if most and buffer[index] < 0x80:  # nearly all of them
            return buffer[index], at + 1
        value = 0
        for place in range(most):
            byte = buffer[index + place]
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value & _WORD, at + place + 1
        if most < 10:
            self._inside(at + most + 1, end)
        raise self.window.unsafe(f"number at {at} is longer than 64 bits")

    def _wrong(self, field: Field) -> Exception:
        return self.window.unsafe(f"field {field.number} at {field.span.begin} has wire type {field.wire}")

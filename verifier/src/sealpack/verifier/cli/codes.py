"""QR codes at the edge: pictures and terminal drawings of frames, and scanned text or pictures read back.

Source: specs/qr.md and docs/activation.md. Drawing needs segno, which the builder's and the runtime's extras
bring. Reading scanned text needs nothing; reading pictures needs zxing-cpp and Pillow, the extra `qr-scan`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shutil
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealpack.format import qr
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded
from sealpack.format.limits import LIMITS
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from PIL.Image import Image
    from segno import QRCode

STDIO = "-"
PICTURES = (".png", ".svg")
QUIET = 4  # modules of white around a code: what the standard asks for
_TERMINAL_QUIET = 2  # screens are dark around it, and rows are few
_SMALLEST = 6  # the version for a terminal of 80 x 24
_MANY = 4  # codes, from which on a larger window is worth the trouble
_SCALE = 8  # pixels a module
_DELAY_MS = 1000  # of each picture of an animation
_MAX_PIXELS = 64 << 20
_MAX_FILE = 32 << 20
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_SCANNED = re.compile(rb"(?im)^[ \t]*(?:\xef\xbb\xbf)?" + qr.PREFIX.encode())
_BLACK_ON_WHITE, _RESET = "\x1b[38;5;16m\x1b[48;5;231m", "\x1b[0m"


# --- drawing ------------------------------------------------------------------------------------------


def require_segno(extra: str) -> None:
    """EXTRA_MISSING when codes cannot be drawn; `extra` is the caller's, which brings what draws them."""
    support.require_extra(extra, "segno")


def require_blocks() -> None:
    """USAGE when standard output cannot hold the characters that codes are drawn with."""
    try:
        " ▄▀█".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        raise SealpackError(
            "USAGE", "codes cannot be drawn in this terminal's character set", remedy="give --qr FILE.png"
        ) from None


def make(text: str, version: int) -> QRCode:
    """The code of a frame's text, error correction level M."""
    import segno

    return segno.make_qr(text, version=version, error="m", mode="alphanumeric", boost_error=False)


def pictures(texts: Sequence[str], suffix: str) -> list[bytes]:
    """One PNG or SVG (by `suffix`) for each text, all of one size."""
    version = qr.smallest_version(texts)
    return [_picture(make(text, version), suffix.removeprefix(".")) for text in texts]


def _picture(code: QRCode, kind: str) -> bytes:
    out = io.BytesIO()
    code.save(out, kind=kind, scale=_SCALE, border=QUIET)
    return out.getvalue()


def animated(images: Sequence[bytes]) -> bytes:
    """The PNGs, all of one size, as one animated PNG that never ends; its still picture is the first one."""
    shown = [list(_chunks(image)) for image in images]
    (_, header), *_ = shown[0]
    out = bytearray(_PNG + _chunk(b"IHDR", header) + _chunk(b"acTL", struct.pack(">II", len(images), 0)))
    sequence = 0
    for number, chunks in enumerate(shown):
        control = struct.pack(">I8s8xHHBB", sequence, header[:8], _DELAY_MS, 1000, 0, 0)
        out += _chunk(b"fcTL", control)
        sequence += 1
        for data in (body for kind, body in chunks if kind == b"IDAT"):
            if number == 0:
                out += _chunk(b"IDAT", data)
            else:
                out += _chunk(b"fdAT", struct.pack(">I", sequence) + data)
                sequence += 1
    return bytes(out + _chunk(b"IEND", b""))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk of a PNG made here."""
    at = len(_PNG)
    while at < len(png):
        size = int.from_bytes(png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)


def require_picture(name: str) -> None:
    """USAGE unless `name` says which kind of picture to write."""
    if Path(name).suffix.lower() not in PICTURES:
        raise SealpackError("USAGE", f"{name} is neither a .png nor a .svg file")


def targets(path: Path, count: int, *, force: bool) -> list[Path]:
    """Where `count` codes go: `path`; several to `NAME-1of3.png` ... and, animated, to `path` itself.

    OUTPUT_EXISTS when one is there and may not be replaced.
    """
    paths = [path]
    if count > 1:
        numbered = [path.with_name(f"{path.stem}-{n}of{count}{path.suffix}") for n in range(1, count + 1)]
        paths = [path, *numbered] if path.suffix.lower() == ".png" else numbered
    for target in paths:
        support.refuse_existing(str(target), force)
    return paths


def save(path: Path, texts: Sequence[str], *, force: bool) -> list[Path]:
    """Write pictures of the frames to their :func:`targets`, all or none."""
    paths = targets(path, len(texts), force=force)
    images = pictures(texts, path.suffix.lower())
    if len(paths) > len(images):
        images = [animated(images), *images]
    with contextlib.ExitStack() as undo:
        for target, image in zip(paths, images, strict=True):
            atomic_write(target, image, replace=force)
            undo.callback(target.unlink, missing_ok=True)
        undo.pop_all()
    return paths


def drawing(code: QRCode, *, coloured: bool) -> str:
    """The code in half blocks, two rows of modules a line, right on a dark screen without colours.

    With `coloured`, black on white is said to the terminal, so that it is right on any.
    """
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=_TERMINAL_QUIET)]
    rows.append([False] * len(rows[0]))  # the side of a code is odd
    ink = coloured  # which modules are drawn in the text's colour: the dark ones, or the light ones
    lines = [
        "".join(" ▄▀█"[2 * (upper == ink) + (lower == ink)] for upper, lower in zip(*pair, strict=True))
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]
    return "\n".join(f"{_BLACK_ON_WHITE}{line}{_RESET}" if coloured else line for line in lines)


def terminal_version(columns: int, lines: int) -> int:
    """The largest version whose drawing fits a terminal, a line left for words; never below 6."""
    side = min(columns, 2 * (lines - 1)) - 2 * _TERMINAL_QUIET
    return max(_SMALLEST, min(qr.LARGEST, (side - 17) // 4))


def show(document: bytes) -> None:
    """Draw a document on stdout; on a terminal one code at a time, as large as it has room for."""
    on_terminal = sys.stdout.isatty()
    size = shutil.get_terminal_size() if on_terminal else os.terminal_size((200, 100))
    texts = qr.frames(document, terminal_version(*size))
    version = qr.smallest_version(texts)
    coloured = on_terminal and not os.environ.get("NO_COLOR")
    for number, text in enumerate(texts, 1):
        click.echo(drawing(make(text, version), coloured=coloured), color=coloured)
        if len(texts) > 1:
            support.note(f"code {number} of {len(texts)}")
        if number == 1 and len(texts) > _MANY:
            support.note("a larger window, or --qr FILE.png, needs fewer codes")
        if number < len(texts) and on_terminal and sys.stdin.isatty():
            _wait_for_key()


def _wait_for_key() -> None:
    """Not click.pause: that goes on when somebody wants to stop."""
    support.note("press a key for the next code")
    try:
        click.getchar()
    except EOFError:
        raise click.Abort from None


# --- reading ------------------------------------------------------------------------------------------


def read_document(names: Sequence[str]) -> tuple[bytes, str]:
    """The bytes of a parcel and what to call it: from its file, from scanned codes or pictures of codes.

    `-` is standard input. One name may be the parcel itself; several must all be scans of one document.
    """
    found = [_read(name) for name in names]
    label = "standard input" if names[0] == STDIO else names[0]
    if len(found) == 1 and not found[0].texts:
        return found[0].data, label
    return _join(found), label


@dataclass(frozen=True, slots=True)
class _Read:
    """What one name held: the frame texts in it, or none and then its bytes as they are."""

    name: str
    data: bytes
    texts: list[str]


def _read(name: str) -> _Read:
    if name == STDIO and sys.stdin.isatty():
        return _Read(name, b"", _typed())
    data = _bounded_stdin() if name == STDIO else read_bounded(name, _MAX_FILE)
    if data.startswith((_PNG, _JPEG)):
        return _Read(name, data, _decoded(name, data))
    if len(data) > LIMITS.parcel_bytes:
        raise SealpackError("JSON_LIMIT", f"{name} is larger than {LIMITS.parcel_bytes} bytes")
    return _Read(name, data, _lines(data) if _SCANNED.search(data) else [])


def _bounded_stdin() -> bytes:
    data = sys.stdin.buffer.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise SealpackError("JSON_LIMIT", f"standard input is larger than {_MAX_FILE} bytes")
    return data


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8-sig", "backslashreplace").splitlines()


def _join(found: Sequence[_Read]) -> bytes:
    """The document of all scans together; errors name the file and line."""
    collector = qr.Collector()
    for read in found:
        if not read.texts:
            raise SealpackError("QR_FRAME", f"{read.name} holds no scanned codes")
        for number, text in enumerate(read.texts, 1):
            if text.strip():
                _add(collector, text, f"{read.name}, line {number}")
    return collector.document()


def _add(collector: qr.Collector, text: str, where: str) -> None:
    try:
        collector.add(text)
    except SealpackError as error:
        raise SealpackError(error.code, f"{where}: {error.message}", remedy=error.remedy) from None


def _typed() -> list[str]:
    """Texts that a scanner types here, until all have come; a refused one is told and forgotten."""
    support.note("scan the codes now, in any order; Ctrl-D gives up")
    collector, texts = qr.Collector(), []
    while not collector.complete:
        line = sys.stdin.readline(2 * LIMITS.qr_frame_chars)
        if not line:
            break
        if not line.strip():
            continue
        try:
            frame = collector.add(line)
        except SealpackError as error:
            support.note(f"not taken: {error.message}")
            continue
        texts.append(line)
        support.note(f"code {frame.number} of {frame.count} read, {len(collector.missing)} to go")
    if not texts:
        raise SealpackError("QR_MISSING", "no code was scanned")
    return texts


def _decoded(name: str, data: bytes) -> list[str]:
    """The texts of our codes in a picture, all pictures of an animation; QR_PICTURE when there are none."""
    if not all(map(importlib.util.find_spec, ("zxingcpp", "PIL"))):
        raise SealpackError(
            "EXTRA_MISSING",
            f"{name} is a picture, and there is no decoder for pictures",
            remedy="scan the code and give its text, or pip install 'sealpack[qr-scan]'",
        )
    try:
        texts = {text: None for image in _images(name, data) for text in _codes(image)}
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow raises for broken files
        raise SealpackError("QR_PICTURE", f"{name} cannot be read as a picture") from None
    if not texts:
        raise SealpackError("QR_PICTURE", f"{name} shows no sealpack code that can be read")
    return list(texts)


def _images(name: str, data: bytes) -> Iterator[Image]:
    """Every picture of a PNG or JPEG file; QR_LIMIT before the pixels of too large a one are made."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))  # reads the header only
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise SealpackError("QR_LIMIT", f"{name} has too many pixels") from None
    with image:
        if image.width * image.height > _MAX_PIXELS:
            raise SealpackError("QR_LIMIT", f"{name} has more than {_MAX_PIXELS} pixels")
        count = getattr(image, "n_frames", 1)
        if count > LIMITS.qr_frames:
            raise SealpackError("QR_LIMIT", f"{name} has {count} pictures, more than {LIMITS.qr_frames}")
        for number in range(count):
            image.seek(number)
            yield image


def _codes(image: Image) -> Iterator[str]:
    """Texts of the codes in one picture that are ours; a wall may have others."""
    import zxingcpp

    wanted = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCode)
    for code in zxingcpp.read_barcodes(image.convert("L"), formats=wanted):
        if code.text.startswith(qr.PREFIX):
            yield code.text

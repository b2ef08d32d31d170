"""Write the qr vectors: `python specs/vectors/qr/generate.py [FOLDER]`.

Each case is `case.json` and `scanned.txt`, the texts as a scanner types them, one a line; `document.json` is
what they join to. `words.bin` beside the cases is what deflate may refer to. Most cases hold deflate's stored
blocks, which every implementation writes alike; the request is what one zlib made of it.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from typing import Any

from support.vectors import Cases

from sealpack.format import qr
from sealpack.format.compact_words import WORDS
from sealpack.format.qr import Frame

PLAIN = b'{"a":"b"}'
NESTED = b'{"hex":"' + b"ab" * 32 + b'","payload":"' + base64.b64encode(b'{"text":"wrapped once"}') + b'"}'
NESTED_TEXT = b'{"hex":"\4\0 ","payload":"\1{"text":"wrapped once"}\2"}'
REQUEST = Path(__file__).parents[1] / "activation" / "request-good" / "document.json"
# Compact forms as zlib 1.2.13 wrote them: of REQUEST; of 300,000 zeros; of a text with three hex marks
# for 65,535 zeros each, which unpacks to less than a document and grows to more.
REQUEST_FORM = bytes.fromhex(
    "6260608cc11d1f96061040cb7801565f290a86e4073ea4ec1dace10f000000ffff33d032606563d64e2d605664986ffe2ee5"
    "e579c99a35df66e527cb242e9650aa146b7eca25b162296f5bf5b37f350c824ac62ea169e51d3357ed3e73f7ddffd504c0c5"
    "89febfce2dab59eaf6e1bc720183eaec25499358f4f4a5f3cd0a7b272db0f91764b6eda2260b9fe68629b55ca9ff741b39f6"
    "f9ed95ac600ae9cf554f95d1c957b0cf6badbd774b69dfffa997a7cd7c3461da3c4df737e9e1ecda81ca4f580f0afeeb6301"
    "00"
)

BOMB = bytes.fromhex("edc1010d000000c2a0f74f6d0f0714") + bytes(290) + bytes.fromhex("fc18")
GROWN = (
    bytes.fromhex("edc2310d00201004b01f30808593811b7410b4c34070d1a655d5576646da396f7601")
    + bytes(189)
    + bytes.fromhex("c07701")
)


def stored(data: bytes) -> bytes:
    """Deflate without compression: one stored block, the last one."""
    return b"\1" + len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little") + data


def form(text: bytes, blobs: bytes = b"") -> bytes:
    """A compact form without compression."""
    return stored(len(text).to_bytes(4) + text + blobs)


def cut(document: bytes, data: bytes, count: int) -> list[str]:
    """`data` in `count` frames that say they are `document`."""
    size = -(-len(data) // count)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    name = qr.transfer_id(document)
    return [Frame(name, n, count, piece).text() for n, piece in enumerate(pieces, 1)]


def main(folder: Path) -> None:
    """Write one folder per case, and the words."""
    cases = Cases()

    def add(name: str, description: str, expect: str, lines: list[str], document: bytes = b"") -> None:
        files = {"scanned.txt": "".join(f"{line}\n" for line in lines).encode()}
        cases.add(name, description, expect, files | ({"document.json": document} if document else {}))

    one = cut(PLAIN, form(PLAIN), 1)
    three = cut(NESTED, form(NESTED_TEXT, b"\xab" * 32), 3)
    add("one", "One code.", "ok", one, PLAIN)
    add("three", "Three codes, base64 and hex undone.", "ok", three, NESTED)
    add("any-order", "In another order, one of them twice.", "ok", [three[2], *three[:2], three[2]], NESTED)
    add("request", "An activation request, deflated with the words.", "ok",
        cut(REQUEST.read_bytes(), REQUEST_FORM, 1), REQUEST.read_bytes())  # fmt: skip
    add("lower-case", "A scanner that types lower-case letters.", "ok", [one[0].lower()], PLAIN)
    add("white-space", "Blanks and tabs inside, blank lines between.", "ok",
        ["", f"  {three[0][:30]} {three[0][30:]}\t", " ", *three[1:]], NESTED)  # fmt: skip
    _frames(add, one[0], three)
    _joined(add, three)
    cases.write(folder)
    (folder / "words.bin").write_bytes(WORDS)


def _frames(add: Any, one: str, three: list[str]) -> None:
    name = qr.transfer_id(PLAIN)
    add("empty", "No codes at all.", "QR_MISSING", [])
    add("cut-short", "The last two characters are missing.", "QR_FRAME", [one[:-2]])
    add("changed", "One character is another.", "QR_FRAME", [one[:20] + chr(ord(one[20]) ^ 1) + one[21:]])
    add("other-prefix", "Another version of the text.", "QR_FRAME", [one.replace("SEALPACK1", "SEALPACK2")])
    add("alphabet", "A letter that base32hex has not.", "QR_FRAME", [one[:20] + "W" + one[21:]])
    add("padding", "With the padding that is left out.", "QR_FRAME", [one + "="])
    add("trailing-bits", "The last character has bits that mean nothing.", "QR_FRAME", [_trailing(one)])
    add("number-zero", "Number 0 of 1.", "QR_FRAME", [Frame(name, 0, 1, b"x").text()])
    add("number-above-count", "Number 2 of 1.", "QR_FRAME", [Frame(name, 2, 1, b"x").text()])
    add("no-piece", "A frame without a piece.", "QR_FRAME", [Frame(name, 1, 1, b"").text()])
    add("foreign", "A code of something else among them.", "QR_FRAME", [three[0], "https://acme.example/"])
    add("too-long", "Longer than any code.", "QR_LIMIT", [Frame(name, 1, 1, b"x" * 3000).text()])
    add("missing", "The second of three is missing.", "QR_MISSING", [three[0], three[2]])
    add("mixed", "Codes of two documents.", "QR_MIXED", [one, three[0]])
    add("other-count", "The same document cut otherwise.", "QR_MIXED",
        [three[0], cut(NESTED, form(NESTED_TEXT, b"\xab" * 32), 2)[1]])  # fmt: skip
    first = Frame.parse(three[0])
    twin = Frame(first.transfer, 1, 3, first.piece[:-1] + b"?").text()
    add("same-number", "Two codes with one number and other content.", "QR_MIXED", [three[0], twin])


def _trailing(text: str) -> str:
    """`text` with its last character one higher: the same bytes to a reader that is not strict."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def _joined(add: Any, three: list[str]) -> None:
    def joined(name: str, description: str, data: bytes, expect: str = "QR_DIGEST") -> None:
        add(name, description, expect, cut(PLAIN, data, 1))

    joined("other-document", "Joins to another document than it names.", form(b'{"a":"c"}'))
    joined("not-deflate", "No deflate stream.", b"\xff" * 20)
    joined("deflate-cut", "The deflate stream ends early.", form(PLAIN)[:-1])
    joined("deflate-trailing", "Bytes after the deflate stream.", form(PLAIN) + b"\0")
    joined("no-size", "Less than a size.", stored(b"\0\0\0"))
    joined("size", "The text is longer than what there is.", stored((10).to_bytes(4) + PLAIN))
    joined("unopened", "An end without a beginning.", form(b'{"a":"\2"}'))
    joined("unclosed", "A beginning without an end.", form(b'{"a":"\1"}'))
    joined("deep", "Five texts inside each other.", form(b"\1" * 5 + PLAIN + b"\2" * 5))
    joined("unknown-mark", "A control character that is no mark.", form(b'{"a":"\5"}'))
    joined("no-blob", "Base64 of bytes that are not there.", form(b'{"a":"\3\0\x04"}', b"abc"))
    joined("blob-left", "Bytes that no mark takes.", form(PLAIN, b"x"))
    joined("mark-cut", "A mark without its length.", form(b"{}\3"))
    joined("bomb", "A stream that unpacks to more than a document.", BOMB, "QR_LIMIT")
    joined("grown", "Hex that grows to more than a document.", GROWN, "QR_LIMIT")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

"""Write the canonical-json vectors: `python specs/vectors/canonical-json/generate.py [FOLDER]`.

Each case is `case.json` and `input.json`, the bytes to be read; `max_bytes` and `max_depth` where given.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from support.vectors import Cases

GOOD: dict[str, tuple[str, bytes]] = {
    "empty-object": ("An empty object.", b"{}"),
    "sorted-keys": ("Keys in UTF-16 order: U+10000 before U+FFFF.", '{"\U00010000":1,"\uffff":2}'.encode()),
    "escapes": (
        "The short escapes, lower-case \\u for other controls, nothing else.",
        b'{"a":"\\b\\t\\n\\f\\r\\"\\\\\\u001f/"}' + b"",
    ),
    "largest-integers": ("2^53 - 1 and its negative.", b"[9007199254740991,-9007199254740991]"),
    "depth-16": ("Nested as deep as allowed.", b"[" * 16 + b"]" * 16),
    "unicode": ("Text is UTF-8, not escaped.", '{"name":"Größe 模型"}'.encode()),
}
INVALID: dict[str, tuple[str, bytes]] = {
    "duplicate-key": ("A key stands twice.", b'{"a":1,"a":1}'),
    "duplicate-key-escaped": ("A key stands twice, once escaped.", b'{"a":1,"\\u0061":1}'),
    "float": ("A number with a fraction.", b'{"a":1.5}'),
    "float-integral": ("1.0 is not an integer here.", b'{"a":1.0}'),
    "exponent": ("1e3 is not an integer here.", b'{"a":1e3}'),
    "exponent-overflow": ("1e999.", b'{"a":1e999}'),
    "nan": ("NaN.", b'{"a":NaN}'),
    "infinity": ("-Infinity.", b'{"a":-Infinity}'),
    "null": ("null.", b'{"a":null}'),
    "above-2-53": ("2^53.", b'{"a":9007199254740992}'),
    "below-2-53": ("-2^53.", b'{"a":-9007199254740992}'),
    "very-long-integer": ("An integer of 5000 digits.", b'{"a":' + b"9" * 5000 + b"}"),
    "minus-zero": ("-0.", b'{"a":-0}'),
    "leading-zero": ("01.", b'{"a":01}'),
    "byte-order-mark": ("A BOM stands first.", b'\xef\xbb\xbf{"a":1}'),
    "utf-16": ("UTF-16 text.", '{"a":1}'.encode("utf-16-le")),
    "lone-surrogate": ("A lone surrogate, escaped.", b'{"a":"\\ud800"}'),
    "lone-surrogate-key": ("A lone surrogate in a key.", b'{"\\udfff":1}'),
    "surrogate-bytes": ("A surrogate as three bytes.", b'{"a":"\xed\xa0\x80"}'),
    "bad-utf-8": ("A byte that no UTF-8 has.", b'{"a":"\xff"}'),
    "overlong-utf-8": ("An overlong slash.", b'{"a":"\xc0\xaf"}'),
    "trailing-data": ("A second value follows.", b'{"a":1}{}'),
    "trailing-newline": ("A newline follows.", b'{"a":1}\n'),
    "white-space": ("A space.", b'{"a": 1}'),
    "unsorted-keys": ("Keys in another order.", b'{"b":1,"a":1}'),
    "escaped-slash": ("An escape nobody needs.", b'{"a":"\\/"}'),
    "upper-case-escape": ("\\u001F for \\u001f.", b'{"a":"\\u001F"}'),
    "control-character": ("A raw newline in a string.", b'{"a":"\n"}'),
    "single-quotes": ("Other quotes.", b"{'a':1}"),
    "comment": ("A comment.", b'{"a":1/**/}'),
    "trailing-comma": ("A comma too many.", b'{"a":[1,]}'),
    "empty": ("No bytes at all.", b""),
    "cut-short": ("The last brace is missing.", b'{"a":1'),
}


def main(folder: Path) -> None:
    """Write one folder per case."""
    cases = Cases()
    for name, (description, data) in GOOD.items():
        cases.add(name, description, "ok", {"input.json": data})
    for name, (description, data) in INVALID.items():
        cases.add(name, description, "JSON_INVALID", {"input.json": data})
    cases.add("depth-17", "One level too deep.", "JSON_LIMIT", {"input.json": b"[" * 17 + b"]" * 17})
    cases.add("depth-unclosed", "100 levels that never close.", "JSON_LIMIT", {"input.json": b"[" * 100})
    cases.add("too-large", "One byte over the limit.", "JSON_LIMIT", {"input.json": b'"aaaa"'}, max_bytes=5)
    cases.add(
        "brackets-in-text",
        "Brackets in a string are no depth.",
        "ok",
        {"input.json": b'{"a":"' + b"[" * 40 + b'\\"{"}'},
    )
    cases.write(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

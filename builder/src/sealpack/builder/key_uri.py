"""`pkcs11:` URIs (RFC 7512): which key on which token, and where its module and its PIN are.

Source: specs/keys.md, section "Tokens". A PIN never stands in a URI: `pin-value` is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote, unquote_to_bytes

from sealpack.format.errors import SealpackError

SCHEME = "pkcs11:"
_PATH = ("token", "manufacturer", "model", "serial", "object", "id", "type")
_QUERY = ("module-path", "pin-source")
_MAX_URI = 4096
_ESCAPES = re.compile(r"(?:[^%\x00-\x20\x7f-\U0010ffff]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class KeyUri:
    """The attributes of one URI; what is None is not asked for."""

    token: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    object: str | None = None
    id: bytes | None = None
    module_path: Path | None = None
    pin_source: Path | None = None

    @classmethod
    def parse(cls, text: str) -> KeyUri:
        """Read a URI; KEY_URI. The message never repeats a value: it may be a PIN."""
        if len(text) > _MAX_URI or not text.startswith(SCHEME) or not _ESCAPES.fullmatch(text):
            raise _wrong("is not written as RFC 7512 asks: percent-encode spaces and what is not ASCII")
        path, _, query = text.removeprefix(SCHEME).partition("?")
        given = _attributes(path, ";", _PATH) | _attributes(query, "&", _QUERY)
        if given.pop("type", b"private") != b"private":
            raise _wrong("names an object that is no private key (type)")
        key_id = given.pop("id", None)
        files = {name.replace("-", "_"): _file(name, given.pop(name)) for name in _QUERY if name in given}
        return cls(id=key_id, **files, **{name: _text(name, value) for name, value in given.items()})  # type: ignore[arg-type]

    def __str__(self) -> str:
        """Token and object as a URI, without module and PIN file."""
        names = ("token", "manufacturer", "model", "serial", "object")
        parts = [f"{name}={quote(value, safe='')}" for name in names if (value := getattr(self, name))]
        if self.id is not None:
            parts.append("id=" + "".join(f"%{byte:02X}" for byte in self.id))
        return SCHEME + ";".join(parts)


def is_uri(key: str | PurePath) -> bool:
    """Whether a key argument names a key on a token, not a file."""
    return isinstance(key, str) and key[: len(SCHEME)].lower() == SCHEME


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if name == "pin-value":
            raise SealpackError(
                "KEY_URI",
                "a key URI must not hold the PIN (pin-value): other users can read a command line",
                remedy="change that PIN if the line was recorded; use pin-source or SEALPACK_PIN",
            )
        if not equals or not value or name in found or name not in known:
            raise _wrong(f"has an attribute that is unknown, empty or there twice: {name[:40]}")
        found[name] = unquote_to_bytes(value)
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(f"has a value that is not UTF-8: {name}") from None


def _file(name: str, value: bytes) -> Path:
    text = _text(name, value)
    path = Path(text.removeprefix("file://").removeprefix("file:"))
    if "\0" in text or not path.is_absolute():
        raise _wrong(f"needs an absolute file name in {name}")
    return path


def _wrong(problem: str) -> SealpackError:
    return SealpackError("KEY_URI", f"key URI {problem}")

"""A second reader of Sealpack's formats, in one file, with Python's standard library only.

It was written from the pages in specs/ and shares no code with the program. Where the two disagree about a
bundle or a vector, one of them, or a page, is wrong. It is slow and simple on purpose: read it beside the
pages, each section below names its own.

    python specs/check/sealpack_check.py verify BUNDLE --trust trust.json
    python specs/check/sealpack_check.py verify BUNDLE --key creator.pub.pem
    python specs/check/sealpack_check.py vectors specs/vectors

Exit status: 0 pass, 3 not authentic or not intact, 4 authentic but withdrawn, 1 a vector disagrees,
2 not a valid call.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import functools
import gzip
import hashlib
import hmac
import itertools
import json
import math
import re
import struct
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, AnyStr

KIB, MIB = 1 << 10, 1 << 20
MAX = 2**53 - 1
METERS = ("calls", "tok_in", "tok_out", "ms", "items")
WITHDRAWN = {"KEY_REVOKED", "BUNDLE_REVOKED", "BUNDLE_FLOOR", "LIC_REVOKED"}  # exit 4, the others 3


class Fail(Exception):
    """The input is refused; `code` is one of docs/errors.md (specs/errors.md)."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def need(condition: object, code: str, text: str = "") -> None:
    """Refuse with `code` unless the condition holds."""
    if not condition:
        raise Fail(code, text)


def matched(pattern: AnyStr, text: AnyStr, code: str, why: str = "") -> re.Match[AnyStr]:
    """The match of the whole text, or refused."""
    found = re.fullmatch(pattern, text)
    if found is None:
        raise Fail(code, why)
    return found


def sha256(*parts: bytes | memoryview) -> bytes:
    """SHA-256 of the parts, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


# --- canonical JSON: specs/canonical-json.md ----------------------------------------------------------------


def dump_json(value: Any) -> bytes:
    """The one spelling of a value: RFC 8785, names in UTF-16 order."""
    return json.dumps(_sorted(value), ensure_ascii=False, separators=(",", ":")).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return {name: _sorted(value[name]) for name in names}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def load_json(data: bytes, limit: int = 256 * KIB, depth: int = 16) -> Any:
    """Read strictly, in the order of the page: size, depth, syntax, then the spelling."""
    need(len(data) <= limit, "JSON_LIMIT", f"{len(data)} bytes")
    need(_depth(data) <= depth, "JSON_LIMIT", "nested too deep")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_once, parse_float=_no, parse_constant=_no, parse_int=_integer
        )
        same = dump_json(value) == data
    except (ValueError, RecursionError) as error:
        raise Fail("JSON_INVALID", str(error)) from None
    need(same and not _holds_null(value), "JSON_INVALID", "not the canonical spelling")
    return value


def _depth(data: bytes) -> int:
    """The deepest nesting, by counting brackets outside strings."""
    now = deepest = 0
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', data, re.DOTALL):
        now += 1 if mark in b"[{" else -1 if mark in b"]}" else 0
        deepest = max(deepest, now)
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _no(text: str) -> Any:
    raise ValueError(f"{text} is not an integer")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX:
        raise ValueError("an integer out of range")
    return int(text)


def _holds_null(value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(_holds_null(item) for item in inside)


# --- reading members: specs/canonical-json.md, "Reading members", and specs/schemas -------------------------
#
# The tables of the pages stand in specs/schemas as JSON Schemas; what those use of JSON Schema is little.

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


class Wrong(Exception):
    """A member is missing, of the wrong type or out of range; the argument is its path."""


@functools.cache
def load_schema(name: str) -> dict[str, Any]:
    return dict(json.loads((SCHEMAS / f"{name}.json").read_text("utf-8")))


def fits(name: str, value: Any, code: str) -> None:
    """Check a value against specs/schemas/NAME.json; what does not fit is an error with this code."""
    schema = load_schema(name)
    try:
        check(schema, value, name, schema.get("$defs", {}))
    except Wrong as wrong:
        raise Fail(code, f"{wrong} is missing or wrong") from None


def check(schema: dict[str, Any], value: Any, path: str, defs: dict[str, Any]) -> None:
    """Raise Wrong unless the value is as the schema says."""

    def good(inner: dict[str, Any]) -> bool:
        return _good(inner, value, path, defs)

    if "$ref" in schema:
        check(defs[schema["$ref"].removeprefix("#/$defs/")], value, path, defs)
    if "if" in schema:
        check(schema.get("then" if good(schema["if"]) else "else", {}), value, path, defs)
    wrong = (
        ("type" in schema and type(value) is not TYPES[schema["type"]])
        or ("const" in schema and not same(value, schema["const"]))
        or ("enum" in schema and not any(same(value, one) for one in schema["enum"]))
        or ("not" in schema and good(schema["not"]))
        or ("oneOf" in schema and sum(map(good, schema["oneOf"])) != 1)
    )
    if wrong:
        raise Wrong(path)
    if type(value) in BY_TYPE:
        BY_TYPE[type(value)](schema, value, path, defs)


def _good(schema: dict[str, Any], value: Any, path: str, defs: dict[str, Any]) -> bool:
    try:
        check(schema, value, path, defs)
    except Wrong:
        return False
    return True


def same(a: Any, b: Any) -> bool:
    """Equal as JSON: 1 is not true."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def in_range(schema: dict[str, Any], number: int, low: str, high: str, path: str) -> None:
    if not schema.get(low, number) <= number <= schema.get(high, number):
        raise Wrong(path)


def check_text(schema: dict[str, Any], value: str, path: str, _defs: Any) -> None:
    """Texts that no schema bounds have at most 4,096 characters (specs/limits.md)."""
    bound = {"maxLength": 4096} if "type" in schema and "pattern" not in schema else {}
    in_range(bound | schema, len(value), "minLength", "maxLength", path)
    pattern = schema.get("pattern", "")
    if not re.search(pattern.replace("$", r"\Z"), value):
        if pattern.startswith("^-----BEGIN PUBLIC KEY"):
            raise Fail("KEY_MALFORMED", path)
        raise Wrong(path)


def check_integer(schema: dict[str, Any], value: int, path: str, _defs: Any) -> None:
    in_range(schema, value, "minimum", "maximum", path)


def check_array(schema: dict[str, Any], value: list[Any], path: str, defs: Any) -> None:
    in_range(schema, len(value), "minItems", "maxItems", path)
    for i, item in enumerate(value):
        check(schema.get("items", {}), item, f"{path}[{i}]", defs)
    if schema.get("uniqueItems") and len({json.dumps(item, sort_keys=True) for item in value}) < len(value):
        raise Wrong(path)
    if "contains" in schema and not any(_good(schema["contains"], item, path, defs) for item in value):
        raise Wrong(path)


def check_object(schema: dict[str, Any], value: dict[str, Any], path: str, defs: Any) -> None:
    in_range(schema, len(value), "minProperties", "maxProperties", path)
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name in schema.get("required", []):
        if name not in value:
            raise Wrong(f"{path}.{name}")
    for name, item in value.items():
        check(schema.get("propertyNames", {}), name, path, defs)
        if name not in known and others is False:
            raise Wrong(f"{path}.{name}")
        check(known.get(name, others), item, f"{path}.{name}", defs)


BY_TYPE: dict[type, Callable[..., None]] = {
    str: check_text,
    int: check_integer,
    list: check_array,
    dict: check_object,
}


def load_object(
    data: bytes, name: str, code: str, limit: int = 256 * KIB, crit: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Canonical JSON that says it is of this schema and has nothing in `crit` that is unknown here."""
    value = load_json(data, limit)
    need(isinstance(value, dict) and value.get("schema") == f"sealpack/{name}/v1", code, f"no {name}")
    names = value.get("crit", [])
    need(isinstance(names, list) and all(isinstance(n, str) for n in names), code, f"{name}.crit")
    need(set(names) <= set(crit), "DOC_CRIT", f"{name} requires {names}")
    return dict(value)


def read_object(data: bytes, name: str, code: str, limit: int = 256 * KIB) -> dict[str, Any]:
    """The same, and every member is as in specs/schemas/NAME.json."""
    value = load_object(data, name, code, limit)
    fits(name, value, code)
    return value


def read_base64(value: Any, code: str) -> bytes:
    """Standard alphabet with padding, in the one spelling of its bytes."""
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        raise Fail(code, "not base64") from None
    need(base64.b64encode(data).decode() == value, code, "not the one spelling in base64")
    return data


# --- keys and signatures: specs/keys.md ---------------------------------------------------------------------

P256_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
P256_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)
ED_P = 2**255 - 19
ED_L = 2**252 + 27742317777372353535851937790883648493
ED_D = -121665 * pow(121666, -1, ED_P) % ED_P
ECDSA, ED25519, ML_DSA = "ecdsa-p256-sha256", "ed25519", "ml-dsa-65"
SPKI = {  # the DER in front of the raw key (P-256: an uncompressed point on a named curve), the key's length
    ECDSA: (bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"), 64),
    ED25519: (bytes.fromhex("302a300506032b6570032100"), 32),
    ML_DSA: (bytes.fromhex("308207b2300b0609608648016503040312038207a100"), 1952),
}
Point = tuple[int, ...]


@dataclass(frozen=True)
class Key:
    """A public key: its scheme, its PEM text, and the bytes behind the DER."""

    scheme: str
    pem: str
    raw: bytes

    @property
    def keyid(self) -> str:
        return keyid_of(self.pem)


def keyid_of(pem: str) -> str:
    return sha256(pem.encode()).hex()


def read_key(pem: str) -> Key:
    """The one PEM spelling of a key of the three schemes."""
    bad = "KEY_MALFORMED"
    need(isinstance(pem, str) and len(pem) <= 4096, bad)
    body = matched("-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n", pem, bad)[1]
    lines = body.split("\n")
    need(all(len(line) == 64 for line in lines[:-1]) and 0 < len(lines[-1]) <= 64, bad, "line lengths")
    der = read_base64("".join(lines), bad)
    for scheme, (prefix, length) in SPKI.items():
        raw = der[len(prefix) :]
        if der.startswith(prefix) and len(raw) == length:
            need(scheme != ECDSA or _on_p256(raw), bad, "not a point of the curve")
            return Key(scheme, pem, raw)
    raise Fail(bad, "neither P-256 nor Ed25519 nor ML-DSA-65")


def verify_signature(key: Key, signature: bytes, message: bytes) -> None:
    """SIG_MALFORMED or SIG_INVALID, unless it is the key's signature."""
    if key.scheme == ED25519:
        need(_ed25519(key.raw, signature, message), "SIG_INVALID")
    elif key.scheme == ML_DSA:
        need(len(signature) == 3309, "SIG_MALFORMED", "not 3,309 bytes")
        need(_mldsa65(key.raw, signature, message), "SIG_INVALID")
    else:
        r, s = _der_pair(signature)
        need(0 < r < P256_N and 0 < s < P256_N, "SIG_MALFORMED", "r or s out of range")
        need(_ecdsa(key.raw, r, s, message), "SIG_INVALID")


def _der_pair(data: bytes) -> tuple[int, int]:
    """Strict DER: SEQUENCE of two non-negative INTEGERs in their shortest form."""
    bad = "SIG_MALFORMED"
    match = matched(rb"(?s)\x30(.)\x02(.)(.*)", data, bad, "not DER")
    need(len(data) <= 72 and match[1][0] == len(data) - 2, bad, "not DER")
    first, rest = match[3][: match[2][0]], match[3][match[2][0] :]
    need(len(rest) > 2 and rest[0] == 2 and rest[1] == len(rest) - 2, bad, "not DER")
    for number in (first, rest[2:]):
        need(number and number[0] < 128, bad, "not DER")
        need(number[0] or number == b"\0" or number[1] >= 128, bad, "not the shortest form")
    need(len(first) == match[2][0], bad, "not DER")
    return int.from_bytes(first), int.from_bytes(rest[2:])


def _on_p256(raw: bytes) -> bool:
    x, y = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    return max(x, y) < P256_P and (y * y - x**3 + 3 * x - P256_B) % P256_P == 0


def _p256_add(a: Point, b: Point) -> Point:
    """Complete addition in projective coordinates for a = -3 (Renes, Costello, Batina 2015, eq. 1)."""
    (x1, y1, z1), (x2, y2, z2), p, b3 = a, b, P256_P, 3 * P256_B
    xy, xz, yz = x1 * y2 + x2 * y1, (x1 * z2 + x2 * z1) % p, (y1 * z2 + y2 * z1) % p
    xx, yy, zz = x1 * x2 % p, y1 * y2 % p, z1 * z2 % p
    minus, plus = yy + 3 * xz - b3 * zz, yy - 3 * xz + b3 * zz
    three, other = 3 * xx - 3 * zz, -3 * xx + b3 * xz - 9 * zz
    return (xy * minus - yz * other) % p, (plus * minus + three * other) % p, (yz * plus + xy * three) % p


def _ed_add(a: Point, b: Point) -> Point:
    """Addition in extended coordinates, complete as well (RFC 8032, section 5.1.4)."""
    (x1, y1, z1, t1), (x2, y2, z2, t2), p = a, b, ED_P
    left, right = (y1 - x1) * (y2 - x2) % p, (y1 + x1) * (y2 + x2) % p
    c, d = 2 * t1 * t2 * ED_D % p, 2 * z1 * z2 % p
    e, f, g, h = right - left, d - c, d + c, right + left
    return e * f % p, g * h % p, f * g % p, e * h % p


def _two_multiples(a: int, p: Point, b: int, q: Point, add: Callable[..., Point], zero: Point) -> Point:
    """a·p + b·q, both numbers bit by bit from the top."""
    choices, total = (None, p, q, add(p, q)), zero
    for i in reversed(range(256)):
        total = add(total, total)
        chosen = choices[(a >> i & 1) + 2 * (b >> i & 1)]
        total = add(total, chosen) if chosen else total
    return total


def _ecdsa(raw: bytes, r: int, s: int, message: bytes) -> bool:
    public = (int.from_bytes(raw[:32]), int.from_bytes(raw[32:]), 1)
    w, e = pow(s, -1, P256_N), int.from_bytes(sha256(message))
    x, _, z = _two_multiples(e * w % P256_N, P256_G, r * w % P256_N, public, _p256_add, (0, 1, 0))
    return z != 0 and x * pow(z, -1, P256_P) % P256_P % P256_N == r


def _ed_point(raw: bytes) -> Point | None:
    """Decode a point (RFC 8032, section 5.1.3)."""
    number = int.from_bytes(raw, "little")
    y, sign, p = number & (1 << 255) - 1, number >> 255, ED_P
    square = (y * y - 1) * pow(ED_D * y * y + 1, -1, p) % p
    x = pow(square, (p + 3) // 8, p)
    x = x if (x * x - square) % p == 0 else x * pow(2, (p - 1) // 4, p) % p
    if y >= p or (x * x - square) % p or (x == 0 and sign):
        return None
    x = x if x & 1 == sign else p - x
    return x, y, 1, x * y % p


ED_B = _ed_point((4 * pow(5, -1, ED_P) % ED_P).to_bytes(32, "little"))


def _ed25519(raw: bytes, signature: bytes, message: bytes) -> bool:
    public, s = _ed_point(raw), int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or s >= ED_L or public is None or ED_B is None:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + raw + message).digest(), "little") % ED_L
    x, y, z, _ = _two_multiples(s, ED_B, ED_L - h, public, _ed_add, (0, 1, 1, 0))
    x, y = x * pow(z, -1, ED_P) % ED_P, y * pow(z, -1, ED_P) % ED_P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


# --- ML-DSA-65: FIPS 204, verification of pure ML-DSA with the empty context --------------------------------
#
# Numbers in brackets are those of the standard's algorithms. Polynomials are lists of 256 integers.

Q, GAMMA1, GAMMA2, BETA, TAU, OMEGA = 8380417, 1 << 19, 261888, 196, 49, 55
ROWS, COLUMNS = 6, 5  # of the matrix A
ZETAS = [pow(1753, int(f"{i:08b}"[::-1], 2), Q) for i in range(256)]


def _mldsa65(public: bytes, signature: bytes, message: bytes) -> bool:
    """Verify [3, 8]: does the commitment that the signature gives hash to its challenge?"""
    commitment, response, hints = signature[:48], signature[48:3248], _unpack_hints(signature[3248:])
    z = [GAMMA1 - number for number in _unpack(response, 20)]
    if hints is None or max(map(abs, z)) >= GAMMA1 - BETA:
        return False
    z_hat, c_hat = [_ntt(z[at : at + 256]) for at in range(0, len(z), 256)], _ntt(_sample_in_ball(commitment))
    t1 = [number << 13 for number in _unpack(public[32:], 10)]
    packed = b""
    for row in range(ROWS):
        t1_hat = _ntt(t1[256 * row : 256 * row + 256])
        total = [-c * t for c, t in zip(c_hat, t1_hat, strict=True)]
        for column in range(COLUMNS):
            a_hat = _reject_ntt(public[:32] + bytes([column, row]))
            total = [x + a * y for x, a, y in zip(total, a_hat, z_hat[column], strict=True)]
        w1 = [_use_hint(i in hints[row], number) for i, number in enumerate(_inverse_ntt(total))]
        packed += bytes(low | high << 4 for low, high in zip(w1[::2], w1[1::2], strict=True))
    mu = _shake256(_shake256(public, 64) + b"\0\0" + message, 64)  # pure, context of no bytes
    return _shake256(mu + packed, 48) == commitment


def _shake256(data: bytes, length: int) -> bytes:
    return hashlib.shake_256(data).digest(length)


def _unpack(data: bytes, width: int) -> list[int]:
    """Numbers of `width` bits, lowest bit first [16, 18, 19]."""
    number, mask = int.from_bytes(data, "little"), (1 << width) - 1
    return [number >> at & mask for at in range(0, 8 * len(data), width)]


def _unpack_hints(data: bytes) -> list[set[int]] | None:
    """The places of each row's hints [21]; None when they are not in their one encoding."""
    places, ends = data[:OMEGA], [0, *data[OMEGA:]]
    if ends != sorted(ends) or ends[-1] > OMEGA or any(places[ends[-1] :]):
        return None
    rows = [list(places[first:end]) for first, end in itertools.pairwise(ends)]
    return [set(row) for row in rows] if all(row == sorted(set(row)) for row in rows) else None


def _use_hint(hint: bool, number: int) -> int:
    """Decompose [36] and UseHint [40]."""
    high, low = divmod(number, 2 * GAMMA2)
    if low > GAMMA2:
        high, low = high + 1, low - 2 * GAMMA2
    if high == 16:
        high, low = 0, low - 1
    return (high + (1 if low > 0 else -1)) % 16 if hint else high


# The two streams below are cut where fewer numbers than needed come once in far more than 2^128 tries.
def _sample_in_ball(seed: bytes) -> list[int]:
    """The challenge: 49 coefficients that are 1 or -1 [29]."""
    stream = _shake256(seed, 1024)
    signs, places, c = int.from_bytes(stream[:8], "little"), iter(stream[8:]), [0] * 256
    for i in range(256 - TAU, 256):
        j = next(place for place in places if place <= i)
        c[i], c[j] = c[j], 1 - 2 * (signs >> (i + TAU - 256) & 1)
    return c


def _reject_ntt(seed: bytes) -> list[int]:
    """One polynomial of A [14, 30, 32]."""
    numbers = (number & 0x7FFFFF for number in _unpack(hashlib.shake_128(seed).digest(1023), 24))
    return [number for number in numbers if number < Q][:256]


def _ntt(w: list[int]) -> list[int]:
    """[41]"""
    w, m = list(w), 0
    for length in (128, 64, 32, 16, 8, 4, 2, 1):
        for start in range(0, 256, 2 * length):
            m += 1
            for j in range(start, start + length):
                t = ZETAS[m] * w[j + length]
                w[j], w[j + length] = (w[j] + t) % Q, (w[j] - t) % Q
    return w


def _inverse_ntt(w: list[int]) -> list[int]:
    """[42]"""
    w, m = list(w), 256
    for length in (1, 2, 4, 8, 16, 32, 64, 128):
        for start in range(0, 256, 2 * length):
            m -= 1
            for j in range(start, start + length):
                low, high = w[j], w[j + length]
                w[j], w[j + length] = (low + high) % Q, ZETAS[m] * (high - low) % Q
    return [number * 8347681 % Q for number in w]


# --- envelopes and documents: specs/dsse.md, specs/documents.md ---------------------------------------------

KINDS = (
    *("root", "keyring", "revocations", "license", "activation-request", "activation", "lease"),
    *("acknowledgement", "evidence", "epoch-token", "sublicense", "repair", "deactivation"),
)


@dataclass(frozen=True)
class Envelope:
    """A payload, its type, and signatures as (keyid, bytes)."""

    type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    @property
    def signed(self) -> bytes:
        kind = self.type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    @property
    def digest(self) -> str:
        return sha256(self.payload).hex()


def to_envelope(value: Any, code: str = "DSSE_INVALID") -> Envelope:
    """A closed object of three members, its signatures closed objects of two."""
    need(
        isinstance(value, dict) and value.keys() == {"payload", "payloadType", "signatures"}, code, "members"
    )
    kind, listed = value["payloadType"], value["signatures"]
    need(isinstance(kind, str) and len(kind) <= 200, code, "payloadType")
    need(isinstance(listed, list) and 1 <= len(listed) <= 64, code, "signatures")
    for one in listed:
        need(isinstance(one, dict) and one.keys() == {"keyid", "sig"}, code, "signature")
        need(isinstance(one["keyid"], str) and re.fullmatch("[0-9a-f]{64}", one["keyid"]), code, "keyid")
    signatures = tuple((one["keyid"], read_base64(one["sig"], code)) for one in listed)
    return Envelope(kind, read_base64(value["payload"], code), signatures)


def read_envelope(data: bytes) -> Envelope:
    return to_envelope(load_json(data, 512 * KIB))


def of_kind(envelope: Envelope, kind: str) -> Envelope:
    need(envelope.type == f"application/vnd.sealpack.{kind}+json", "DOC_TYPE", envelope.type)
    return envelope


def read_parcel(data: bytes) -> list[Envelope]:
    """A parcel, or one envelope as a parcel of one."""
    value = load_json(data, 4 * MIB)
    if isinstance(value, dict) and "payload" in value:
        return [to_envelope(value)]
    listed = value.get("documents") if isinstance(value, dict) else None
    found = [to_envelope(document) for document in listed] if isinstance(listed, list) else []
    for envelope in found:
        need(
            envelope.type in [f"application/vnd.sealpack.{k}+json" for k in KINDS], "DOC_TYPE", envelope.type
        )
    fits("parcel", value, "DOC_SCHEMA")
    return found


# --- trust: specs/trust.md ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doc:
    """A root, keyring or revocations document: its envelope and what it says."""

    kind: str
    envelope: Envelope
    body: dict[str, Any]

    @property
    def version(self) -> int:
        return int(self.body["version"])


def unique(values: Iterable[Any], what: str) -> None:
    values = list(values)
    need(len(set(values)) == len(values), "TRUST_INVALID", f"{what} twice")


@dataclass(frozen=True)
class Pair:
    """A key, the ML-DSA key that signs beside it if there is one, and the schemes that must have signed."""

    key: Key
    beside: Key | None
    schemes: frozenset[str]

    def verify_second(self, signature: bytes | None, message: bytes, required: bool = False) -> None:
        """The signature of the key beside: never unchecked, and there where something requires it."""
        if signature is None:
            need(not required and ML_DSA not in self.schemes, "SIG_SCHEME", "no ML-DSA signature")
        else:
            need(self.beside, "SIG_SCHEME", "no ML-DSA key for the signature")
            assert self.beside is not None
            verify_signature(self.beside, signature, message)

    def signed(self, envelope: Envelope) -> bool:
        """Did both keys sign?"""
        return _has_signed(self.key, envelope) and (not self.beside or _has_signed(self.beside, envelope))


def _has_signed(key: Key, envelope: Envelope) -> bool:
    for keyid, signature in envelope.signatures:
        if keyid == key.keyid:
            try:
                verify_signature(key, signature, envelope.signed)
            except Fail:
                continue
            return True
    return False


def read_pair(value: Any) -> Pair:
    """A PEM text or an object with `pem` and maybe `mldsa_pem` and `schemes`."""
    value = {"pem": value} if isinstance(value, str) else value
    key = read_key(value["pem"])
    beside = read_key(value["mldsa_pem"]) if "mldsa_pem" in value else None
    good = key.scheme == ECDSA and beside.scheme == ML_DSA if beside else key.scheme != ML_DSA
    need(good, "TRUST_INVALID", "not an ECDSA key and an ML-DSA key beside it")
    schemes = frozenset(value.get("schemes", [key.scheme]))
    possible = {key.scheme, ML_DSA} if beside else {key.scheme}
    need(key.scheme in schemes and schemes <= possible, "TRUST_INVALID", "schemes")
    return Pair(key, beside, schemes)


def read_trust_doc(envelope: Envelope) -> Doc:
    """One of the three documents, checked by itself; who signed it is another question."""
    kind = envelope.type.removeprefix("application/vnd.sealpack.").removesuffix("+json")
    need(kind in ("root", "keyring", "revocations"), "DOC_TYPE", envelope.type)
    crit = () if kind == "revocations" else (ML_DSA,)
    body = load_object(envelope.payload, kind, "TRUST_INVALID", crit=crit)
    fits(kind, body, "TRUST_INVALID")
    if kind == "revocations":
        unique((entry["keyid"] for entry in body["keys"]), "key")
        unique((entry["bundle_id"] for entry in body["floors"]), "bundle")
        return Doc(kind, envelope, body)
    pairs = [read_pair(entry) for entry in body["keys"]]
    keyids = [pair.key.keyid for pair in pairs]
    unique([*keyids, *(pair.beside.keyid for pair in pairs if pair.beside)], "key")
    for role in body.get("roles", {}).values() if kind == "root" else ():
        unique(role["keyids"], "keyid")
        need(set(role["keyids"]) <= set(keyids), "TRUST_INVALID", "a role names a key that is not here")
        need(role["threshold"] <= len(role["keyids"]), "TRUST_INVALID", "threshold above the keys")
    for entry, pair in zip(body["keys"], pairs, strict=True) if kind == "keyring" else ():
        stated = (entry["keyid"], entry["scheme"])
        need(stated == (pair.key.keyid, pair.key.scheme), "TRUST_INVALID", "keyid or scheme")
    return Doc(kind, envelope, body)


def vouches(root: Doc, role: str, envelope: Envelope) -> bool:
    """Did enough distinct keys of the root's role sign it? (Counting)"""
    named = root.body["roles"][role]
    pairs = [pair for pair in map(read_pair, root.body["keys"]) if pair.key.keyid in named["keyids"]]
    return sum(pair.signed(envelope) for pair in pairs) >= int(named["threshold"])


@dataclass(frozen=True)
class Trust:
    """Root, keyring and revocations that were verified together."""

    root: Doc
    keyring: Doc
    revocations: Doc

    def entry(self, keyid: str, roles: Iterable[str], digest: str) -> dict[str, Any]:
        """The keyring entry of a key that has one of the roles and may have signed this document."""
        entry = self.entry_named(keyid)
        need(set(roles) & set(entry["roles"]), "SIG_KEY_ROLE", keyid)
        both = {keyid_of(entry[member]) for member in ("pem", "mldsa_pem") if member in entry}
        for revoked in self.revocations.body["keys"]:
            need(revoked["keyid"] not in both or digest in revoked["good"], "KEY_REVOKED", keyid)
        return entry

    def entry_named(self, keyid: str) -> dict[str, Any]:
        entries = [entry for entry in self.keyring.body["keys"] if entry["keyid"] == keyid]
        need(entries, "SIG_KEY_UNKNOWN", keyid)
        return dict(entries[0])

    def open(self, envelope: Envelope, roles: Iterable[str], names: Iterable[str] = ()) -> dict[str, Any]:
        """May this key sign this document in this role for these names? And did it? The keyring entry."""
        mldsa = {keyid_of(e["mldsa_pem"]) for e in self.keyring.body["keys"] if "mldsa_pem" in e}
        firsts = [one for one in envelope.signatures if one[0] not in mldsa]
        seconds = [one for one in envelope.signatures if one[0] in mldsa]
        need(len(firsts) == 1 and len(seconds) <= 1, "DSSE_INVALID", "not the signatures of one entry")
        entry = self.entry(firsts[0][0], roles, envelope.digest)
        need(covers_names(entry, names), "SIG_NAMESPACE", str(list(names)))
        pair = read_pair(entry)
        beside = pair.beside.keyid if pair.beside else ""
        need(all(keyid == beside for keyid, _ in seconds), "DSSE_INVALID", "another entry's ML-DSA key")
        verify_signature(pair.key, firsts[0][1], envelope.signed)
        pair.verify_second(seconds[0][1] if seconds else None, envelope.signed)
        return entry


def covers_names(entry: dict[str, Any], names: Iterable[str]) -> bool:
    """Does every name equal one of the key's namespaces or continue it with a slash?"""
    spaces = entry["namespaces"]
    return all(any(name == s or name.startswith(s + "/") for s in spaces) for name in names)


def load_trust(data: bytes) -> Trust:
    """A trust file: the root by its own signatures, the others by the root's."""
    value, kinds = load_object(data, "trust", "TRUST_INVALID", 4 * MIB), ("root", "keyring", "revocations")
    need(set(kinds) <= value.keys(), "TRUST_INVALID", "a document is missing")
    parts, older = [to_envelope(value[kind]) for kind in kinds], value.get("roots", [])
    need(isinstance(older, list) and len(older) <= 64, "TRUST_INVALID", "roots")
    steps = [*map(to_envelope, older), parts[0]]
    docs = [read_trust_doc(of_kind(part, kind)) for part, kind in zip(parts, kinds, strict=True)]
    for doc in docs:
        need(vouches(docs[0], doc.kind, doc.envelope), "TRUST_THRESHOLD", doc.kind)
    try:
        check_steps([read_trust_doc(of_kind(step, "root")) for step in steps])
    except Fail as fail:
        raise Fail("TRUST_INVALID", f"the roots do not lead on: {fail}") from None
    return Trust(*docs)


def check_steps(roots: list[Doc]) -> None:
    """Each root holds by itself, and the one before it vouches for it."""
    for root in roots:
        need(vouches(root, "root", root.envelope), "TRUST_THRESHOLD", f"root {root.version}")
    for known, root in itertools.pairwise(roots):
        need(root.version == known.version + 1, "TRUST_ROLLBACK", f"root {root.version}")
        need(vouches(known, "root", root.envelope), "TRUST_THRESHOLD", f"root {root.version}")


def update_trust(known: Trust, envelopes: Iterable[Envelope]) -> Trust:
    """Take over what is newer (Update, steps 1 to 4)."""
    docs = sorted(map(read_trust_doc, envelopes), key=lambda doc: doc.version)
    root = known.root
    for doc in [d for d in docs if d.kind == "root"]:
        if doc.version == root.version:
            need(doc.envelope.digest == root.envelope.digest, "TRUST_CONFLICT", "root")
        need(vouches(doc, "root", doc.envelope), "TRUST_THRESHOLD", "root")
        if doc.version > root.version:
            need(doc.version == root.version + 1, "TRUST_ROLLBACK", f"root {doc.version}")
            need(vouches(root, "root", doc.envelope), "TRUST_THRESHOLD", "root")
            root = doc
    older = [known.root, *(d for d in docs if d.kind == "root")]
    keyring = _newest(root, older, known.keyring, [d for d in docs if d.kind == "keyring"])
    lists = [d for d in docs if d.kind == "revocations"]
    return Trust(root, keyring, _newest(root, older, known.revocations, lists))


def _newest(root: Doc, older: list[Doc], known: Doc, docs: list[Doc]) -> Doc:
    """Steps 2 to 4 for documents of one kind, lowest version first."""
    newest: Doc | None = known if vouches(root, known.kind, known.envelope) else None
    for doc in docs:
        if vouches(root, doc.kind, doc.envelope):
            if newest is None and doc.body["issued_at"] < root.body.get("issued_at", 0):
                continue
            if newest is not None and doc.version == newest.version:
                need(doc.envelope.digest == newest.envelope.digest, "TRUST_CONFLICT", doc.kind)
            newest = doc if newest is None or doc.version > newest.version else newest
    newest = newest or known
    same_as, highest = {known.envelope.digest, newest.envelope.digest}, max(known.version, newest.version)
    for doc in docs:
        if not vouches(root, doc.kind, doc.envelope):
            proven = any(vouches(old, doc.kind, doc.envelope) for old in older)
            old_news = doc.version < highest or doc.envelope.digest in same_as
            need(proven and old_news, "TRUST_THRESHOLD", doc.kind)
    return newest


# --- license, activation, lease, acknowledgement, terms, registry line: the pages of those names ------------


def open_license(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    """specs/license.md, Opening: signature, members, then namespaces and issuer."""
    of_kind(envelope, "license")
    renamed = {
        "SIG_KEY_UNKNOWN": "LIC_KEY_UNTRUSTED",
        "SIG_KEY_ROLE": "LIC_KEY_UNTRUSTED",
        "SIG_INVALID": "LIC_SIG_INVALID",
        "SIG_MALFORMED": "LIC_SIG_INVALID",
        "DSSE_INVALID": "LIC_UNREADABLE",
    }
    try:
        entry = trust.open(envelope, ["license"])
    except Fail as fail:
        raise Fail(renamed.get(fail.code, fail.code), str(fail)) from None
    body = read_object(envelope.payload, "license", "LIC_SCHEMA")
    need(not {"exp", "term_s"} <= body.keys(), "LIC_SCHEMA", "an end and a term")
    need("exp" not in body or body["exp"] > body.get("nbf", 0), "LIC_SCHEMA", "exp before nbf")
    for quota in body.get("quota", []):
        need(quota.get("hard_cap", quota["cap"]) >= quota["cap"], "LIC_SCHEMA", "hard_cap below cap")
    check_delegation(body)
    named = covers_names(entry, [bundle["id"] for bundle in body["bundles"]])
    need(named and entry["issuer"] == body["issuer"], "LIC_KEY_UNTRUSTED", "namespace or issuer")
    return dict(body)


def version_key(version: str) -> list[int]:
    """Numbers, without trailing zeros."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


def license_covers(body: dict[str, Any], bundle_id: str, version: str, digest: str) -> bool:
    """specs/license.md, Covering."""
    return any(
        entry["id"] == bundle_id
        and entry.get("bundle_digest", digest) == digest
        and version_key(entry.get("min_version", version)) <= version_key(version)
        and version_key(version) <= version_key(entry.get("max_version", version))
        for entry in body["bundles"]
    )


def check_delegation(body: dict[str, Any]) -> None:
    """specs/sublicense.md, Format."""
    given = body.get("delegation", {})
    need(not given or body["devices"]["binding"] != "none", "LIC_SCHEMA", "delegation without a binding")
    for pem in given.get("keys", []):
        try:
            need(read_key(pem).scheme != ML_DSA, "LIC_SCHEMA", "an ML-DSA delegate")
        except Fail:
            raise Fail("LIC_SCHEMA", "delegation.keys") from None
    for wrapped in given.get("bundle_keys", []):
        need(len(read_base64(wrapped["enc_ct"], "LIC_SCHEMA")) == 1168, "LIC_SCHEMA", "enc_ct")


def open_sublicense(envelope: Envelope, trust: Trust, parent: dict[str, Any], digest: str) -> dict[str, Any]:
    """specs/sublicense.md, Opening: the license that counts. `digest` is that of the parent's payload."""
    bad = "SUBLICENSE_INVALID"
    sub = read_object(of_kind(envelope, "sublicense").payload, "sublicense", bad)
    above, _, name = sub["license_id"].rpartition(".")
    need(above == sub["parent"]["license_id"] and name, bad, "license_id")
    keys = {keyid_of(pem): pem for pem in parent.get("delegation", {}).get("keys", [])}
    keyid = envelope.signatures[0][0] if len(envelope.signatures) == 1 else ""
    need(keyid in keys, bad, "not by a delegate")
    need(all(entry["keyid"] != keyid for entry in trust.keyring.body["keys"]), bad, "a key of the keyring")
    payload = sha256(envelope.payload).hex()
    for revoked in trust.revocations.body["keys"]:
        need(revoked["keyid"] != keyid or payload in revoked["good"], "KEY_REVOKED", keyid)
    verify_signature(read_key(keys[keyid]), envelope.signatures[0][1], envelope.signed)
    need(sub["parent"]["license_id"] == parent["license_id"], bad, "another parent")
    older = sub["parent"]["seq"] < parent["seq"]
    same_one = sub["parent"]["digest"] == digest and sub["parent"]["seq"] <= parent["seq"]
    need(older or same_one, bad, "another version of the parent")
    granted = whole({k: v for k, v in parent.items() if k not in ("delegation", "site_keys")})
    granted["quota"] = shared_out(granted)
    seats = [granted["devices"].get("max"), parent["delegation"].get("max_devices")]
    limit_to(granted["devices"], "max", seats)
    own = ("schema", "license_id", "seq", "issued_at", "parent", "crit")
    said = {k: v for k, v in sub.items() if k not in own}
    stated = put_over(granted, said) | {"license_id": sub["license_id"], "seq": sub["seq"]}
    fits("license", stated | {"schema": "sealpack/license/v1"}, bad)
    need("exp" not in stated or stated["exp"] > stated["nbf"], bad, "exp before nbf")
    for rule in stated["quota"]:
        need(rule.get("hard_cap", rule["cap"]) >= rule["cap"], bad, "hard_cap below cap")
    stated = whole(stated)
    both: dict[str, Any] = {}
    for member in dict.fromkeys([*granted, *stated]):
        side = granted if member in UPPER else stated
        left = side.get(member) if member in UPPER + LOWER else met(member, granted, stated)
        both |= {} if left is None else {member: left}
    for member in said if same_one else ():
        unlike = member in UPPER and stated.get(member) != granted.get(member)
        lost = member not in UPPER + LOWER and not alike(member, both, stated, granted)
        need(not unlike and not lost, bad, f"{member} is wider")
    return both


UPPER = (
    *("issuer", "issued_at", "tier", "billing", "environment", "watermark", "plan"),
    *("issued_under", "site_keys"),
)
LOWER = ("license_id", "seq", "customer", "support", "device_label", "order_ref", "schema", "crit")
PAST_CAP = ("warn", "bill", "throttle", "deny")
STRICTER = {
    "enforcement": ("advisory", "enforce"),
    "receipts": ("none", "local", "required"),
    "binding": ("none", "key", "key+fp", "tpm"),
    "on_stale": ("warn", "throttle", "deny"),
    "on_back": ("continue", "deny"),
}


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """A license with the values of what it leaves out, where those are not "unlimited"."""
    body = {"environment": "live", "enforcement": "enforce", "nbf": 0, "grace_s": 0, "features": [],
            "quota": [], "receipts": "required", "limits": {}} | body  # fmt: skip
    body["use"] = {"allow": [], "deny": [], "ack_required": False} | body["use"]
    body["devices"] = {"vm": True, "container": True} | body["devices"]
    stale = "deny" if "lease" in body else "warn"
    body["lease"] = {"required": False, "on_stale": stale, "allowance": []} | body.get("lease", {})
    return body | ({"clock": {"on_back": "continue"} | body["clock"]} if "clock" in body else {})


def limit_to(place: dict[str, Any], name: str, values: Iterable[int | None]) -> None:
    """The least of the numbers there are; nothing is unlimited."""
    held = [value for value in values if value is not None]
    if held:
        place[name] = min(held)


def shared_out(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Quotas as one device keeps them."""
    seats = body["devices"].get("max") or 1
    made = []
    for rule in body["quota"]:
        if (rule["scope"], rule["window"]) == ("license", "term"):
            parts = {name: rule[name] // seats for name in ("cap", "hard_cap") if name in rule}
            rule = rule | {"scope": "device"} | parts
        made.append(rule)
    return made


def put_over(granted: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """Opening, step 5: the stated members in place of those granted."""
    made = dict(granted)
    for name, value in said.items():
        nested = name in ("use", "devices", "limits", "lease", "provisional", "clock")
        both = nested and isinstance(value, dict) and isinstance(granted.get(name), dict)
        made[name] = granted[name] | value if both else value
    for name, other in (("exp", "term_s"), ("term_s", "exp")):
        if name in said:
            made.pop(other, None)
    made["quota"] = beside(granted["quota"], made["quota"], ("meter", "window"))
    if isinstance(made["lease"], dict):
        inherited, stated = granted["lease"]["allowance"], made["lease"].get("allowance")
        made["lease"] = made["lease"] | {"allowance": beside(inherited, stated, ("meter",))}
    return made


def beside(granted: list[Any], stated: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(stated, list) or not all(isinstance(rule, dict) for rule in stated):
        return stated
    about = [[rule.get(name) for name in names] for rule in stated]
    return [*stated, *(rule for rule in granted if [rule[name] for name in names] not in about)]


def keeps(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether a quota that is kept keeps the other too."""

    def end(rule: dict[str, Any]) -> float:
        found = rule["cap"] if rule["on_exceed"] == "deny" else rule.get("hard_cap")
        return float("inf") if found is None else found

    counted = all(a[name] == b[name] for name in ("meter", "window", "scope"))
    past = PAST_CAP.index(a["on_exceed"]) >= PAST_CAP.index(b["on_exceed"])
    return counted and past and a["cap"] <= b["cap"] and end(a) <= end(b)


def spelled(version: str | None) -> str | None:
    return None if version is None else ".".join(map(str, version_key(version))) or "0"


def grant_of(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any] | None:
    """What both grants cover."""
    digests = {g["bundle_digest"] for g in (a, b) if "bundle_digest" in g}
    if a["id"] != b["id"] or len(digests) > 1:
        return None
    made: dict[str, Any] = {"id": a["id"]}
    for name, pick in (("min_version", max), ("max_version", min)):
        bounds = [str(spelled(g[name])) for g in (a, b) if name in g]
        if bounds:
            made[name] = pick(bounds, key=version_key)
    for digest in digests:
        made["bundle_digest"] = digest
    low, high = made.get("min_version"), made.get("max_version")
    return None if low and high and version_key(low) > version_key(high) else made


def met(member: str, a: dict[str, Any], b: dict[str, Any]) -> Any:
    """The Meet table of specs/sublicense.md; None is an absent member."""
    x, y = a.get(member), b.get(member)
    made: dict[str, Any] = {}
    if member == "bundles":
        both = [grant_of(above, below) for below in y for above in x]
        return [g for i, g in enumerate(both) if g is not None and g not in both[:i]]
    if member == "use":
        allow = y["allow"] if "any" in x["allow"] else x["allow"]
        if "any" not in x["allow"] and "any" not in y["allow"]:
            allow = [word for word in y["allow"] if word in x["allow"]]
        deny = list(dict.fromkeys([*x["deny"], *y["deny"]]))
        return x | {"allow": allow, "deny": deny, "ack_required": x["ack_required"] or y["ack_required"]}
    if member == "devices":
        both_say = {name: x[name] and y[name] for name in ("vm", "container")}
        limit_to(made, "max", [x.get("max"), y.get("max")])
        return both_say | made | {"binding": max(x["binding"], y["binding"], key=STRICTER["binding"].index)}
    if member == "limits":
        spread = [{"burst": rate["qps"]} | rate if "qps" in rate else rate for rate in (x, y)]
        for name in ("qps", "burst", "inflight", "processes"):
            limit_to(made, name, [rate.get(name) for rate in spread])
        return made
    if member == "quota":
        kept: list[dict[str, Any]] = []
        for rule in [*shared_out(a), *shared_out(b)]:
            if not any(keeps(other, rule) for other in kept):
                kept = [*(other for other in kept if not keeps(rule, other)), rule]
        return kept
    if member == "lease":
        made = {"required": x["required"] or y["required"]}
        limit_to(made, "max_age_s", [x.get("max_age_s"), y.get("max_age_s")])
        warned = [lease["warn_s"] for lease in (x, y) if "warn_s" in lease]
        made |= {"warn_s": max(warned)} if warned else {}
        made["on_stale"] = max(x["on_stale"], y["on_stale"], key=STRICTER["on_stale"].index)
        amounts: dict[str, int] = {}
        for entry in [*x["allowance"], *y["allowance"]]:
            amounts[entry["meter"]] = min(entry["amount"], amounts.get(entry["meter"], entry["amount"]))
        return made | {"allowance": [{"meter": m, "amount": n} for m, n in amounts.items()]}
    if member == "provisional":
        return None if x is None or y is None else {name: min(x[name], y[name]) for name in ("s", "calls")}
    if member == "features":
        return [word for word in y if word in x]
    if member == "clock":
        denies = [one for one in (y, x) if one is not None and one.get("on_back") == "deny"]
        return denies[0] if denies else (y if x is None else x)
    if member in STRICTER:
        return max(x, y, key=STRICTER[member].index)
    if member == "nbf":
        return max(x, y)
    held = [value for value in (x, y) if value is not None]  # exp, term_s, grace_s, updates_until
    return min(held) if held else None


def alike(member: str, both: dict[str, Any], stated: dict[str, Any], granted: dict[str, Any]) -> bool:
    """Whether the meet took nothing from what was stated: then that was not wider."""
    again = met(member, stated, stated)
    found = both.get(member)
    if member == "bundles":
        return all(g is None or g in found for g in (grant_of(one, one) for one in stated["bundles"]))
    if member == "use":
        same_terms = all(
            stated["use"].get(n) == granted["use"].get(n) for n in ("terms_digest", "spdx", "attribution")
        )
        sets = [{n: set(use[n]) for n in ("allow", "deny")} for use in (found, again)]
        return same_terms and sets[0] == sets[1] and found["ack_required"] == again["ack_required"]
    if member == "quota":
        return all(any(keeps(own, rule) for own in shared_out(stated)) for rule in shared_out(granted))
    if member == "lease":
        order = [sorted(lease["allowance"], key=lambda e: e["meter"]) for lease in (found, again)]
        return order[0] == order[1] and all(
            found.get(n) == again.get(n) for n in ("required", "max_age_s", "warn_s", "on_stale")
        )
    return bool(found == again)


def device_id_of(key: Key) -> str:
    return "dev-" + sha256(key.raw).hex()[:32]


def open_request(envelope: Envelope) -> str:
    """specs/activation.md: a request proves that its sender holds the key inside. The device id."""
    of_kind(envelope, "activation-request")
    body = read_object(envelope.payload, "activation-request", "DOC_SCHEMA")
    key = read_key(body["device_key"])
    need(key.scheme == "ed25519" and len(envelope.signatures) == 1, "DOC_SCHEMA", "not one Ed25519 key")
    verify_signature(key, envelope.signatures[0][1], envelope.signed)
    need(envelope.signatures[0][0] == key.keyid, "SIG_KEY_UNKNOWN", "keyid")
    return device_id_of(key)


def open_activation(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    trust.open(of_kind(envelope, "activation"), ["license"])
    body = read_object(envelope.payload, "activation", "DOC_SCHEMA")
    builds = [wrapped["bundle_digest"] for wrapped in body.get("keys", [])]
    need(len(set(builds)) == len(builds), "DOC_SCHEMA", "two keys for one build")
    for wrapped in body.get("keys", []):
        need(len(read_base64(wrapped["enc_ct"], "DOC_SCHEMA")) == 1168, "DOC_SCHEMA", "enc_ct")
    key = read_key(body["device_key"])
    need(key.scheme == "ed25519", "DOC_SCHEMA", "device_key")
    need(device_id_of(key) == body["device_id"], "DEVICE_MISMATCH", body["device_id"])
    return dict(body)


def open_repair(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    """specs/activation.md, repair: it says at least one thing."""
    trust.open(of_kind(envelope, "repair"), ["license"])
    body = read_object(envelope.payload, "repair", "DOC_SCHEMA")
    need({"now", "epoch", "fingerprint"} & body.keys(), "DOC_SCHEMA", "it repairs nothing")
    return dict(body)


def confirmation_code(secret: str, device: str, activation: str, root: str) -> str:
    """specs/activation.md, Confirmation code."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    said = dump_json({"activation": activation, "device_id": device, "root": root})
    for n in range(256):
        label = b"sealpack/confirmation/v1\0" + bytes([n])
        number = int.from_bytes(hmac.digest(bytes.fromhex(secret), label + said, "sha256")[:5], "big")
        if number % 37 < 32:
            break
    text = "".join(alphabet[number // 32**place % 32] for place in range(7, -1, -1))
    return f"{text[:4]}-{text[4:]}-{alphabet[number % 37]}"


def open_deactivation(envelope: Envelope) -> str:
    """specs/activation.md: the key inside ended its own log. The device id."""
    of_kind(envelope, "deactivation")
    body = read_object(envelope.payload, "deactivation", "DOC_SCHEMA")
    key = read_key(body["device_key"])
    need(key.scheme == "ed25519" and len(envelope.signatures) == 1, "DOC_SCHEMA", "not one Ed25519 key")
    verify_signature(key, envelope.signatures[0][1], envelope.signed)
    need(envelope.signatures[0][0] == key.keyid, "SIG_KEY_UNKNOWN", "keyid")
    device = device_id_of(key)
    origin = f"sealpack/usage/{body['license_id']}/{device}/{body['epoch']}"
    need(body["origin"] == origin, "DOC_SCHEMA", "origin")
    return device


def open_lease(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    trust.open(of_kind(envelope, "lease"), ["ack", "license"])
    return read_object(envelope.payload, "lease", "DOC_SCHEMA")


def open_token(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    trust.open(of_kind(envelope, "epoch-token"), ["ack", "license"])
    return read_object(envelope.payload, "epoch-token", "DOC_SCHEMA")


def open_acknowledgement(envelope: Envelope, trust: Trust) -> dict[str, Any]:
    """specs/acknowledgement.md: verified, its trust documents taken, the lease verified by itself."""
    trust.open(of_kind(envelope, "acknowledgement"), ["ack"])
    body = load_object(envelope.payload, "acknowledgement", "DOC_SCHEMA")
    for inner in envelopes_in(body, "trust", "lease"):
        to_envelope(inner)
    fits("acknowledgement", body, "DOC_SCHEMA")
    trust = update_trust(trust, map(to_envelope, body.get("trust", [])))
    if "lease" in body:
        open_lease(to_envelope(body["lease"]), trust)
    return dict(body)


def read_terms(data: bytes) -> dict[str, Any]:
    return read_object(data, "terms", "DOC_SCHEMA", 64 * KIB)


def read_registry_line(data: bytes) -> dict[str, Any]:
    line = load_object(data, "registry-line", "REGISTRY_INVALID", MIB, ("sublicense",))
    names = ("license", "activation", "lease", "deactivation", "acknowledgement", "sublicense")
    for inner in envelopes_in(line, *names):
        to_envelope(inner)
    fits("registry-line", line, "REGISTRY_INVALID")
    need(("deactivation" in line) == ("released_at" in line), "REGISTRY_INVALID", "released_at")
    return line


def envelopes_in(value: dict[str, Any], *names: str) -> Iterator[Any]:
    """The members of these names, lists unfolded: they are read as envelopes before the rest is checked."""
    for member in (value[name] for name in names if name in value):
        yield from member if isinstance(member, list) else [member]


# --- container: specs/container.md --------------------------------------------------------------------------

MIMETYPE = b"application/vnd.sealpack.bundle+zip"
ALIGN, PAD = 65536, bytes(64)
PAD_NAME = re.compile(r"META/pad\.(0|[1-9][0-9]*)")
META_NAMES = (  # the closed list, in order; what a pattern's group holds orders names of one rank
    r"META/model\.sig",
    r"META/model\.mldsa65\.sig",
    r"META/trust/root\.([1-9][0-9]*)\.json",
    r"META/trust/keyring\.json",
    r"META/trust/revocations\.json",
    r"META/license/([A-Za-z0-9][A-Za-z0-9._-]{0,127})\.json",
)
DEVICE_NAMES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """A file in the archive: where its header and its data begin, and how long both are."""

    name: str
    size: int
    crc: int
    at: int = 0
    gap: int = 0  # bytes of the alignment extra

    @property
    def data_at(self) -> int:
        return self.at + 50 + len(self.name) + self.gap

    def _fixed(self) -> bytes:
        return struct.pack("<HHHHHI", 45, 0, 0, 0, 0x21, self.crc) + b"\xff" * 8

    def local_header(self) -> bytes:
        head = b"PK\3\4" + self._fixed() + struct.pack("<HH", len(self.name), 20 + self.gap)
        extra = struct.pack("<HHQQ", 1, 16, self.size, self.size)
        filler = struct.pack("<HH", 0xD935, self.gap - 4) + bytes(self.gap - 4) if self.gap else b""
        return head + self.name.encode() + extra + filler

    def central_header(self) -> bytes:
        head = b"PK\1\2" + struct.pack("<H", 0x032D) + self._fixed() + struct.pack("<HH", len(self.name), 28)
        tail = struct.pack("<HHQQQ", 1, 24, self.size, self.size, self.at)
        return head + struct.pack("<HHHII", 0, 0, 0, 0x81A40000, 0xFFFFFFFF) + self.name.encode() + tail


def check_name(name: str) -> None:
    """Names that every file system takes, and takes as the same file."""
    good = len(name) <= 200 and re.fullmatch("[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*", name)
    need(good, "CONTAINER_NAME", repr(name))
    for segment in name.split("/"):
        need(not segment.endswith(".") and not DEVICE_NAMES.fullmatch(segment), "CONTAINER_NAME", name)


def rank(name: str) -> tuple[int, int, bytes]:
    """What entries are ordered by; anything else that looks like META is refused."""
    if name == "mimetype":
        return 0, 0, b""
    for number, pattern in enumerate(META_NAMES, 1):
        if match := re.fullmatch(pattern, name):
            return number, int(match[1]) if number == 3 else 0, name.encode()
    need(name.lower() != "meta" and not name.lower().startswith("meta/"), "CONTAINER_META", name)
    return 10 if name.startswith("payload/") else 8 + (name != "manifest.json"), 0, name.encode()


def check_names(names: list[str]) -> None:
    """Step 3: names, uniqueness in any case, places in META, order, no file that is a folder too."""
    for name in names:
        check_name(name)
    lower = [name.lower() for name in names]
    need(len(set(lower)) == len(names), "CONTAINER_DUPLICATE")
    ranks = [rank(name) for name in names]
    need(ranks == sorted(ranks), "CONTAINER_ORDER")
    folders = {name[:i] for name in lower for i, char in enumerate(name) if char == "/"}
    need(not folders & set(lower), "CONTAINER_DUPLICATE")


def lay_out(files: Iterable[tuple[str, int, int]]) -> tuple[list[Entry], int]:
    """The one layout of these names, sizes and CRCs, and where the directory begins."""
    entries: list[Entry] = []
    at = pads = 0
    for name, size, crc in files:
        gap = -(at + 50 + len(name)) % ALIGN if name.startswith("payload/") else 0
        if 0 < gap < 4 or gap > 65515:
            entries.append(Entry(f"META/pad.{pads}", 64, zlib.crc32(PAD), at))
            at, pads = entries[-1].data_at + 64, pads + 1
            gap = -(at + 50 + len(name)) % ALIGN
        entries.append(Entry(name, size, crc, at, gap))
        at = entries[-1].data_at + size
    return entries, at


def end_records(count: int, size: int, at: int) -> bytes:
    """The 98 bytes behind the directory."""
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x032D, 45, 0, 0, count, count, size, at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    return record + locator + b"PK\5\6" + bytes(4) + b"\xff" * 12 + bytes(2)


def walk_directory(directory: bytes) -> Iterator[tuple[str, int, int]]:
    """Name, size and CRC of each central header; every other byte is compared later."""
    at = 0
    while at < len(directory):
        need(directory[at : at + 4] == b"PK\1\2" and at + 46 <= len(directory), "CONTAINER_DIRECTORY")
        crc, length = struct.unpack_from("<I8xH", directory, at + 16)
        extra = directory[at + 46 + length : at + 74 + length]
        name = directory[at + 46 : at + 46 + length]
        need(len(extra) == 28 and name.isascii(), "CONTAINER_DIRECTORY", "cut short, or a name not ASCII")
        yield name.decode(), struct.unpack_from("<Q", extra, 4)[0], crc
        at += 74 + length


class Bundle:
    """A container whose every structural byte is as computed."""

    def __init__(self, data: bytes) -> None:
        """Reading, steps 1 to 5."""
        need(len(data) >= 98, "CONTAINER_TRUNCATED", f"{len(data)} bytes")
        end = data[-98:]
        need((end[:4], end[56:60], end[76:80]) == (b"PK\6\6", b"PK\6\7", b"PK\5\6"), "CONTAINER_TAIL")
        size, at = struct.unpack_from("<QQ", end, 40)
        need(size <= MIB, "CONTAINER_LIMIT", "directory")
        need(at + size + 98 == len(data), "CONTAINER_TAIL", "sizes do not add up")
        found = list(walk_directory(data[at:-98]))
        need(len(found) <= 4096, "CONTAINER_LIMIT", "entries")
        files = [file for file in found if not PAD_NAME.fullmatch(file[0])]
        check_names([name for name, _, _ in files])
        entries, total = lay_out(files)
        need(total == at, "CONTAINER_DIRECTORY", "the entries do not fill the file")
        wanted = b"".join(entry.central_header() for entry in entries)
        wanted += end_records(len(entries), len(wanted), at)
        need(wanted == data[at:], "CONTAINER_DIRECTORY", "not the one directory of these entries")
        self.data, self.entries = data, {entry.name: entry for entry in entries}
        for entry in entries:
            need(data[entry.at : entry.data_at] == entry.local_header(), "CONTAINER_HEADER", entry.name)
        need("mimetype" in self.entries and self.entries["mimetype"].size == 35, "CONTAINER_TAIL", "mimetype")
        need(self.read("mimetype") == MIMETYPE, "CONTAINER_TAIL", "mimetype")
        for entry in entries:
            need(not PAD_NAME.fullmatch(entry.name) or self.read(entry.name) == PAD, "CONTAINER_META")

    def names(self) -> set[str]:
        """Every entry outside META."""
        return {name for name in self.entries if not name.startswith("META/")}

    def stored(self, name: str) -> memoryview:
        entry = self.entries[name]
        return memoryview(self.data)[entry.data_at : entry.data_at + entry.size]

    def read(self, name: str, limit: int = 16 * MIB) -> bytes:
        """A small entry, whole, its CRC compared."""
        need(self.entries[name].size <= limit, "CONTAINER_LIMIT", name)
        data = bytes(self.stored(name))
        need(zlib.crc32(data) == self.entries[name].crc, "CONTAINER_CRC", name)
        return data


# --- manifest: specs/manifest.md, its encryption header: specs/encryption.md, "Header" ----------------------


def read_manifest(data: bytes) -> dict[str, Any]:
    """Members, then the rules between them."""
    bad = "MANIFEST_INVALID"
    body = load_object(data, "manifest", bad, 16 * MIB, ("encryption", "watermark"))
    check_file_names(body)
    fits("manifest", body, bad)
    present = {"encryption", "watermark"} & body.keys()
    need(sorted(present) == sorted(body.get("crit", [])), bad, "crit is not what is present")
    names = [entry["name"] for entry in body["files"]]
    need(names == sorted(set(names)), bad, "files unsorted or repeated")
    need(not {"manifest.json", "mimetype"} & set(names), bad, "files lists what it must not")
    need(sum(entry["role"] == "model" for entry in body["files"]) == 1, bad, "not exactly one model")
    check_tables(body["files"])
    pre = body["io"].get("pre", {})
    need("vocab" not in pre or pre["vocab"] in names, bad, "io.pre.vocab is no file")
    if "recertify_by" in body:
        check_date(body["recertify_by"])
    if "encryption" in body:
        check_encryption(body["encryption"], body["files"])
    return body


def check_file_names(value: Any) -> None:
    """Names in a list `files` are entry names: looked at before the rest, as their code is another."""
    for file in objects_in(value.get("files")) if isinstance(value, dict) else ():
        if isinstance(file.get("name"), str):
            check_name(file["name"])


def check_date(value: str) -> None:
    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        raise Fail("MANIFEST_INVALID", "recertify_by") from None


def check_tables(files: list[dict[str, Any]]) -> None:
    """Each payload file has its table, chunks/N.sha256c by name order, and no other table is there."""
    by_name, tables = {entry["name"]: entry for entry in files}, set()
    for number, entry in enumerate(entry for entry in files if "chunks" in entry):
        chunks = entry["chunks"]
        table = by_name.get(chunks["table"], {"role": ""})
        tables.add(chunks["table"])
        good = table["role"] == "chunk-table" and chunks["table"] == f"chunks/{number}.sha256c"
        need(good and chunks["count"] == -(-entry["size"] // MIB), "MANIFEST_INVALID", entry["name"])
    listed = {entry["name"] for entry in files if entry["role"] == "chunk-table"}
    need(tables == listed, "MANIFEST_INVALID", "tables and chunks differ")


def check_encryption(header: Any, files: list[dict[str, Any]] | None) -> None:
    """The header by itself, and against the manifest's files when they are given."""
    bad = "MANIFEST_INVALID"
    defs = load_schema("manifest")["$defs"]
    try:
        check(defs["encryption"], header, "encryption", defs)
    except Wrong as wrong:
        raise Fail(bad, str(wrong)) from None
    names, salts = ([one[key] for one in header["files"]] for key in ("name", "salt"))
    need(names == sorted(set(names)) and len(set(salts)) == len(salts), bad, "names or salts")
    if files is not None:
        sizes = {entry["name"]: entry["size"] for entry in files}
        for one in header["files"]:
            plain = one["plain_size"]
            need(sizes.get(one["name"]) == 56 + plain + 16 * (plain // 16384 + 1), bad, one["name"])
        weights = {entry["name"] for entry in files if entry["role"] in ("model", "model-data")}
        need(weights <= set(names), bad, "weights left plain")


# --- signature: specs/signature.md --------------------------------------------------------------------------


def open_signature(bundle: Bundle, trust: Trust | None, given: Pair | None) -> tuple[dict[str, Any], Key]:
    """Steps 1 to 7: the statement, after its signatures were verified, and the key of the first."""
    need("META/model.sig" in bundle.entries, "SIG_MISSING")
    envelope = read_model_sig(bundle.read("META/model.sig", 4 * MIB))
    need(envelope.type == "application/vnd.in-toto+json", "SIG_STATEMENT", envelope.type)
    keyid, signature = envelope.signatures[0]
    entry = trust.entry(keyid, ["bundle"], envelope.digest) if trust else None
    pair = read_pair(entry) if entry else given
    assert pair is not None
    need(pair.key.keyid == keyid, "SIG_KEY_UNKNOWN", keyid)
    need(pair.key.scheme == ECDSA, "SIG_SCHEME", pair.key.scheme)
    verify_signature(pair.key, signature, envelope.signed)
    statement = read_statement(envelope.payload)
    own = statement["predicate"]["x-sealpack"]
    schemes = set(own["required_schemes"])
    need({ECDSA} <= schemes <= {ECDSA, ML_DSA}, "SIG_SCHEME", str(schemes))
    name = "META/model.mldsa65.sig"
    second = bundle.read(name) if name in bundle.entries else None
    pair.verify_second(second, envelope.signed, ML_DSA in schemes)
    if trust and entry:
        need(covers_names(entry, [own["bundle_id"]]), "SIG_NAMESPACE", own["bundle_id"])
        need(own["min_keyring"] <= trust.keyring.version, "TRUST_ROLLBACK", "keyring")
        need(own["min_revocations"] <= trust.revocations.version, "TRUST_ROLLBACK", "revocations")
    return statement, pair.key


def read_model_sig(data: bytes) -> Envelope:
    """Exactly the members of the page; certificate and log are refused with everything else."""
    value = load_json(data, 4 * MIB)
    names = {"dsseEnvelope", "mediaType", "verificationMaterial"}
    need(isinstance(value, dict) and value.keys() == names, "SIG_MALFORMED", "members")
    envelope = to_envelope(value["dsseEnvelope"], "SIG_MALFORMED")
    need(len(envelope.signatures) == 1, "SIG_MALFORMED", "not exactly one signature")
    material = {"publicKey": {"hint": envelope.signatures[0][0]}, "tlogEntries": []}
    need(value["verificationMaterial"] == material, "SIG_MALFORMED", "verificationMaterial")
    media = "application/vnd.dev.sigstore.bundle.v0.3+json"
    need(value["mediaType"] == media, "SIG_MALFORMED", "mediaType")
    return envelope


def read_statement(payload: bytes) -> dict[str, Any]:
    """Step 4: the members, the resources in path order, the subject."""
    value = load_json(payload, 4 * MIB)
    need(isinstance(value, dict), "SIG_STATEMENT", "no object")
    stand_in = [{"name": "x", "digest": {"sha256": "0" * 64}}]  # the subject is compared below, exactly
    fits("signature", {**value, "subject": stand_in}, "SIG_STATEMENT")
    resources, own = value["predicate"]["resources"], value["predicate"]["x-sealpack"]
    paths = [one["name"].encode().split(b"/") for one in resources]
    distinct = len({tuple(path) for path in paths}) == len(paths)
    need(paths == sorted(paths) and distinct, "SIG_RESOURCES", "unsorted or repeated")
    digest = sha256(*(bytes.fromhex(one["digest"]) for one in resources)).hex()
    need(value.get("subject") == [{"name": own["bundle_id"], "digest": {"sha256": digest}}], "SIG_SUBJECT")
    return dict(value)


# --- verification: specs/verification.md --------------------------------------------------------------------


def given_pair(pem: str, mldsa_pem: str | None = None) -> Pair:
    """What a user gives without a trust file: one key, or two that both must have signed."""
    both = {} if mldsa_pem is None else {"mldsa_pem": mldsa_pem, "schemes": [ECDSA, ML_DSA]}
    return read_pair({"pem": pem, **both})


def verify_bundle(data: bytes, trust: Trust | None, given: Pair | None = None) -> dict[str, Any]:
    """Steps 1 to 12: the manifest of a good bundle, or the first failure."""
    bundle = Bundle(data)
    trust = take_carried_trust(bundle, trust)
    statement, key = open_signature(bundle, trust, given)
    manifest = open_manifest(bundle, statement)
    digest = sha256(bundle.read("manifest.json")).hex()
    if trust is not None:
        check_revocation(manifest, digest, trust)
    check_licenses(bundle, manifest, digest, trust)
    check_content(bundle, manifest["files"])
    sbom = check_sbom(bundle, manifest["files"])
    check_terms(bundle, manifest)
    check_model(bundle, manifest)
    if trust is not None:
        proofs = check_evidence(bundle, manifest, trust)
        signed_at = statement["predicate"]["x-sealpack"]["signed_at"]
        check_tier(bundle, Claim(manifest, trust.entry_named(key.keyid), signed_at, proofs, sbom))
    return manifest


def take_carried_trust(bundle: Bundle, trust: Trust | None) -> Trust | None:
    """Step 2: kind and version as the names say, then the update of specs/trust.md."""
    carried, names = [], [name for name in bundle.entries if name.startswith("META/trust/")]
    need(sum(bundle.entries[name].size for name in names) <= 4 * MIB, "CONTAINER_LIMIT", "META/trust")
    for name in names:
        envelope = read_envelope(bundle.read(name))
        kind, version, *_ = name.removeprefix("META/trust/").split(".")
        need(envelope.type == f"application/vnd.sealpack.{kind}+json", "CONTAINER_META", name)
        if kind == "root":
            stated = load_object(envelope.payload, kind, "TRUST_INVALID", crit=(ML_DSA,)).get("version")
            need(type(stated) is int and stated >= 0, "TRUST_INVALID", "version")
            need(stated == int(version), "CONTAINER_META", name)
        carried.append(envelope)
    return trust and update_trust(trust, carried)


def open_manifest(bundle: Bundle, statement: dict[str, Any]) -> dict[str, Any]:
    """Step 4, in the order of the page."""
    own = statement["predicate"]["x-sealpack"]
    signed = {one["name"]: one["digest"] for one in statement["predicate"]["resources"]}
    need("manifest.json" in bundle.entries, "MANIFEST_MISMATCH", "no manifest.json")
    data = bundle.read("manifest.json")
    digest = sha256(data).hex()
    need(own["manifest_sha256"] == digest == signed.get("manifest.json"), "DIGEST_MISMATCH", "manifest.json")
    manifest = read_manifest(data)
    for member in ("bundle_id", "release_index"):
        need(manifest[member] == own[member], "MANIFEST_MISMATCH", member)
    files = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
    files |= {"manifest.json": digest, "mimetype": sha256(MIMETYPE).hex()}
    need(signed == files, "SIG_RESOURCES", "signed files are not the manifest's")
    need(bundle.names() == files.keys(), "SIG_RESOURCES", "files in the container are not the signed ones")
    for entry in manifest["files"]:
        size = bundle.entries[entry["name"]].size
        need(size == entry["size"], "MANIFEST_MISMATCH", f"size of {entry['name']}")
    return manifest


def check_revocation(manifest: dict[str, Any], digest: str, trust: Trust) -> None:
    """Step 5."""
    lists = trust.revocations.body
    need(digest not in lists["bundles"], "BUNDLE_REVOKED", digest)
    for floor in lists["floors"]:
        same_id = floor["bundle_id"] == manifest["bundle_id"]
        need(not same_id or manifest["release_index"] >= floor["floor"], "BUNDLE_FLOOR", str(floor))


def check_licenses(bundle: Bundle, manifest: dict[str, Any], digest: str, trust: Trust | None) -> None:
    """Step 6."""
    for name in (name for name in bundle.entries if name.startswith("META/license/")):
        need(trust, "SIG_KEY_UNKNOWN", "a license cannot be verified with a key alone")
        assert trust is not None
        body = open_license(read_envelope(bundle.read(name)), trust)
        need(name == f"META/license/{body['license_id']}.json", "CONTAINER_META", name)
        covered = license_covers(body, manifest["bundle_id"], manifest["version"], digest)
        marked_for = manifest.get("watermark", body)["license_id"]
        need(covered and marked_for == body["license_id"], "CONTAINER_META", f"{name} is for another build")
        need(body["license_id"] not in trust.revocations.body["licenses"], "LIC_REVOKED", name)


def check_content(bundle: Bundle, files: list[dict[str, Any]]) -> None:
    """Step 7: files outside payload/ first; then leaves, whole digest and CRC of the others."""
    for entry in sorted(files, key=lambda entry: (entry["name"].startswith("payload/"), entry["name"])):
        name, data = entry["name"], bundle.stored(entry["name"])
        if "chunks" in entry:
            table = bundle.read(entry["chunks"]["table"], 64 * MIB)
            good = (
                sha256(table).hex() == entry["chunks"]["sha256"]
                and len(table) == 32 * entry["chunks"]["count"]
            )
            need(good, "CHUNK_MISMATCH", f"table of {name}")
            leaves = b"".join(sha256(data[at : at + MIB]) for at in range(0, len(data), MIB))
            need(leaves == table, "CHUNK_MISMATCH", name)
        else:
            bundle.read(name, (64 if entry["role"] == "chunk-table" else 16) * MIB)
        need(sha256(data).hex() == entry["sha256"], "DIGEST_MISMATCH", name)
        need(zlib.crc32(data) == bundle.entries[name].crc, "CONTAINER_CRC", name)


def _finite(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError("a number no reader can hold")
    return float(text)


def check_sbom(bundle: Bundle, files: list[dict[str, Any]]) -> dict[str, Any]:
    """Step 8: the document."""
    bad = "SBOM_INVALID"
    names = [entry["name"] for entry in files if entry["role"] == "sbom"]
    need(len(names) == 1, bad, "not exactly one")
    try:
        value = json.loads(
            bundle.read(names[0]).decode(),
            object_pairs_hook=_once,
            parse_float=_finite,
            parse_constant=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise Fail(bad, str(error)) from None
    need(isinstance(value, dict) and value.get("bomFormat") == "CycloneDX", bad, "not CycloneDX")
    version = value.get("specVersion")
    need(isinstance(version, str), bad, "specVersion")
    matched(r"[0-9]{1,3}\.[0-9]{1,3}", version, bad, "specVersion")
    model = next(entry["sha256"] for entry in files if entry["role"] == "model")
    try:
        kind = "machine-learning-model"
        models = [one for one in value["components"] if one.get("type") == kind]
        hashes = [h["content"] for one in models for h in one.get("hashes", []) if h["alg"] == "SHA-256"]
    except (KeyError, TypeError, AttributeError):
        raise Fail(bad, "components are not as in CycloneDX") from None
    need(model in hashes, bad, "does not name the model")
    return dict(value)


def check_terms(bundle: Bundle, manifest: dict[str, Any]) -> None:
    """Step 9; specs/terms.md, Algorithm."""
    texts = {f["name"]: f["sha256"] for f in manifest["files"] if f["role"] == "license-text"}
    for entry in manifest["files"]:
        if entry["role"] == "license-terms":
            need(entry["name"] == "license/terms.json", "TERMS_MISMATCH", entry["name"])
            terms = read_terms(bundle.read(entry["name"]))
            need(texts.get(terms["text"]) == terms["text_sha256"], "TERMS_MISMATCH", "text")
            need(terms.get("plan") == manifest.get("plan"), "TERMS_MISMATCH", "plan")


# --- model: specs/verification.md, "model" (the formats themselves: GGUF v3, ONNX's protobuf) ---------------

GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGML_BLOCKS = {  # tensor type: numbers in a block, bytes in a block
    **{0: (1, 4), 1: (1, 2), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 30: (1, 2)},
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 20: (32, 18)},
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 21: (256, 110), 22: (256, 82)},
    **{
        23: (256, 136),
        29: (256, 56),
        34: (256, 54),
        35: (256, 66),
        39: (32, 17),
        40: (64, 36),
        41: (128, 18),
    },
}


def check_model(bundle: Bundle, manifest: dict[str, Any]) -> None:
    """Step 10: the header is well formed and of the stated kind; the weights are not looked at."""
    entry = next(entry for entry in manifest["files"] if entry["role"] == "model")
    if "encryption" in manifest:  # its header cannot be read without a key, but what commits to the key can
        for one in manifest["encryption"]["files"]:
            head = bytes(bundle.stored(one["name"])[:56]).hex()
            need(head == one["salt"] + one["commitment"], "MANIFEST_MISMATCH", one["name"])
        return
    data = bundle.stored(entry["name"])
    gguf = bytes(data[:8]) in (b"GGUF\2\0\0\0", b"GGUF\3\0\0\0")
    kind = "gguf" if gguf else "onnx" if looks_like_onnx(data) else "unknown"
    need(kind == manifest["kind"], "MANIFEST_MISMATCH", f"the model is {kind}")
    try:
        if kind == "gguf":
            check_gguf(data)
        else:
            sizes = {f["name"]: f["size"] for f in manifest["files"] if f["role"] == "model-data"}
            Onnx(data, entry["name"].rpartition("/")[0], sizes).model()
    except (struct.error, IndexError):
        raise Fail("MODEL_TRUNCATED", entry["name"]) from None
    except (ValueError, RecursionError) as error:
        raise Fail("MODEL_UNSAFE", str(error)) from None


@dataclass
class Cursor:
    """Little-endian numbers from a buffer, one after another."""

    data: memoryview
    at: int = 0

    def number(self, form: str) -> int:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return int(value)

    def skip(self, count: int) -> int:
        """Step over bytes that must be there; where they begin."""
        need(self.at + count <= len(self.data), "MODEL_TRUNCATED")
        self.at += count
        return self.at - count

    def text(self, most: int) -> str:
        length = self.number("Q")
        at = self.skip(length)
        need(length <= most, "MODEL_UNSAFE", "text too long")
        return bytes(self.data[at : at + length]).decode()


def read_gguf_value(cursor: Cursor, kind: int) -> Any:
    """A number, a text, or None for what is only stepped over; arrays hold no arrays."""
    if kind == 9:
        inner, count = cursor.number("I"), cursor.number("Q")
        need(inner == 8 or inner in GGUF_SIZES, "MODEL_UNSAFE", f"array of type {inner}")
        if inner != 8:
            cursor.skip(GGUF_SIZES[inner] * count)
            return None
        need(count <= 1 << 23, "MODEL_UNSAFE", "too many texts")
        for _ in range(count):
            cursor.skip(cursor.number("Q"))
        return None
    if kind == 8:
        return cursor.text(MIB)
    need(kind in GGUF_SIZES, "MODEL_UNSAFE", f"value type {kind}")
    at = cursor.skip(GGUF_SIZES[kind])
    value = int.from_bytes(cursor.data[at : cursor.at], "little")
    need(kind != 7 or value < 2, "MODEL_UNSAFE", "truth value")
    return value


def check_gguf(data: memoryview) -> None:
    """Key-values and the table of tensors; each aligned, inside the file, on its own."""
    cursor, values = Cursor(data, 8), {}
    tensors, pairs = cursor.number("Q"), cursor.number("Q")
    need(tensors <= 1 << 20 and pairs <= 1 << 16, "MODEL_UNSAFE", "too many tensors or key-values")
    for _ in range(pairs):
        key = cursor.text(1024)
        need(key not in values, "MODEL_UNSAFE", f"{key} twice")
        values[key] = read_gguf_value(cursor, cursor.number("I"))
    align = values.get("general.alignment", 32)
    good = isinstance(align, int) and 0 < align <= MIB and align & align - 1 == 0
    need(good and isinstance(values.get("general.architecture"), str), "MODEL_UNSAFE", "general.*")
    found = [read_gguf_tensor(cursor) for _ in range(tensors)]
    need(len({name for name, _, _ in found}) == len(found), "MODEL_UNSAFE", "two tensors of one name")
    start, end = -(-cursor.at // align) * align, 0
    for name, offset, size in sorted(found, key=lambda one: one[1]):
        need(offset % align == 0 and offset >= end, "MODEL_UNSAFE", f"{name} not aligned, or overlaps")
        end = offset + size
        need(start + end <= len(data), "MODEL_TRUNCATED", name)


def read_gguf_tensor(cursor: Cursor) -> tuple[str, int, int]:
    """Name, offset and size in bytes."""
    name, dims = cursor.text(1024), cursor.number("I")
    need(dims <= 4, "MODEL_UNSAFE", "dimensions")
    sizes = [cursor.number("Q") for _ in range(dims)]
    kind, offset = cursor.number("I"), cursor.number("Q")
    need(kind in GGML_BLOCKS, "MODEL_UNSAFE", f"tensor type {kind}")
    numbers, size = GGML_BLOCKS[kind]
    need(0 not in sizes and (sizes or [1])[0] % numbers == 0, "MODEL_UNSAFE", f"sizes of {name}")
    return name, offset, math.prod(sizes) // numbers * size


VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types
MODEL_FIELDS = {1: VARINT, 5: VARINT} | dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20, 25, 26), LENGTH)
BITS = {  # of a number of each ONNX data type; texts have none
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    **{8: 0, 15: 128, 21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6},
}


@dataclass(frozen=True)
class Field:
    """A field of a protobuf message: its number if it is a varint, else where its bytes are."""

    wire: int
    number: int
    first: int
    last: int

    def integer(self) -> int:
        need(self.wire == VARINT, "MODEL_UNSAFE", "wire type")
        return self.number - (self.number >> 63 << 64)


class Onnx:
    """The header of an ONNX model, with every rule of specs/verification.md, "ONNX"."""

    def __init__(self, data: memoryview, folder: str = "", sizes: dict[str, int] | None = None) -> None:
        self.data, self.folder, self.sizes = data, folder, sizes or {}
        self.counts = {"fields": 1 << 23, "nodes": 1 << 20, "tensors": 1 << 20, "text": 64 * MIB}  # left

    def spend(self, what: str, count: int = 1) -> None:
        self.counts[what] -= count
        need(self.counts[what] >= 0, "MODEL_UNSAFE", f"too many {what}")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for i, byte in enumerate(self.data[at : min(at + 10, end)]):
            value |= (byte & 127) << 7 * i
            if byte < 128:
                return value & (1 << 64) - 1, at + i + 1
        self.inside(at + 10 if at + 10 <= end else end + 1, end)
        raise Fail("MODEL_UNSAFE", "a number of more than 10 bytes")

    def inside(self, last: int, end: int) -> int:
        need(last <= len(self.data), "MODEL_TRUNCATED", "a field behind the file")
        need(last <= end, "MODEL_UNSAFE", "a field behind its message")
        return last

    def fields(self, first: int, end: int) -> Iterator[tuple[int, Field]]:
        """Every field of the message in these bytes."""
        at = first
        while at < end:
            self.spend("fields")
            tag, at = self.varint(at, end)
            wire, value, size = tag & 7, 0, {FIXED64: 8, FIXED32: 4}.get(tag & 7, 0)
            need(0 < tag >> 3 < 1 << 29, "MODEL_UNSAFE", "field number")
            begin = at
            if wire == VARINT:
                value, at = self.varint(at, end)
            elif wire == LENGTH:
                size, begin = self.varint(at, end)
            else:
                need(size, "MODEL_UNSAFE", "wire type")
            at = at if wire == VARINT else self.inside(begin + size, end)
            yield tag >> 3, Field(wire, value, begin, at)

    def message(self, field: Field | None, once: str, many: str = "") -> dict[int, list[Field]]:
        """The fields with these numbers; of `once` at most one each, of `many` at most 16,384."""
        single = {int(n): 1 for n in once.split()}
        most = single | {int(n): 1 << 14 for n in many.split()}
        found: dict[int, list[Field]] = {}
        for number, inner in self.fields(*(self.span(field) if field else (0, len(self.data)))):
            if number in most:
                found.setdefault(number, []).append(inner)
                need(len(found[number]) <= most[number], "MODEL_UNSAFE", f"field {number} too often")
        return found

    def span(self, field: Field) -> tuple[int, int]:
        need(field.wire == LENGTH, "MODEL_UNSAFE", "wire type")
        return field.first, field.last

    def text(self, fields: list[Field] | None, most: int = 4096) -> str:
        if not fields:
            return ""
        first, last = self.span(fields[0])
        need(last - first <= most, "MODEL_UNSAFE", "text too long")
        self.spend("text", last - first)
        return bytes(self.data[first:last]).decode()

    def pairs(self, fields: list[Field]) -> dict[str, str]:
        """Names and values, each name once."""
        found: dict[str, str] = {}
        for one in fields:
            pair = self.message(one, "1 2")
            name = self.text(pair.get(1))
            need(name not in found, "MODEL_UNSAFE", f"{name} twice")
            found[name] = self.text(pair.get(2), 4 * MIB)
        return found

    def model(self) -> None:
        model = self.message(None, "1 2 3 4 5 7", "8 14 20 25")
        need(7 in model and 8 in model, "MODEL_TRUNCATED", "no graph or no operator set")
        self.graph(model[7][0], "", 0)
        for function in model.get(25, []):
            self.function(function)
        for training in model.get(20, []):
            for graphs in self.message(training, "1 2").values():
                self.graph(graphs[0], "training/", 1)
        for number in (2, 3, 4):
            self.text(model.get(number))
        for number in (1, 5):
            _ = [field.integer() for field in model.get(number, [])]
        domains = set()
        for opset in model[8]:
            members = self.message(opset, "1 2")
            domain = self.text(members.get(1)) or "ai.onnx"
            need(domain not in domains, "MODEL_UNSAFE", f"operator set {domain} twice")
            domains.add(domain)
            _ = [field.integer() for field in members.get(2, [])]
        self.pairs(model.get(14, []))

    def graph(self, field: Field, scope: str, depth: int) -> None:
        need(depth <= 16, "MODEL_UNSAFE", "graphs nested too deep")
        names: set[str] = set()
        ports = {11: 1 << 14, 12: 1 << 14}
        for number, inner in self.fields(*self.span(field)):
            if number == 1:
                self.node(inner, scope, depth)
            elif number == 2:
                self.text([inner])
            elif number in (5, 15):
                name = self.tensor(inner, scope) if number == 5 else self.sparse(inner, scope)
                need(name and name not in names, "MODEL_UNSAFE", f"initializer {name!r}")
                names.add(name)
            elif number in ports:
                ports[number] -= 1
                need(ports[number] >= 0, "MODEL_UNSAFE", "too many inputs or outputs")
                self.port(inner)

    def node(self, field: Field, scope: str, depth: int) -> None:
        self.spend("nodes")
        node = self.message(field, "3 4 7", "2 5")
        operator, _ = self.text(node.get(4)), self.text(node.get(7))
        if 5 in node:
            name = self.text(node.get(3)) or (self.text(node[2]) if 2 in node else operator)
            for attribute in node[5]:
                self.attribute(attribute, scope + name, depth)

    def attribute(self, field: Field, owner: str, depth: int) -> None:
        found = self.message(field, "1 5 6 22", "10 11 23")
        if found.keys() <= {1}:
            return
        scope = f"{owner}.{self.text(found.get(1))}/"
        need(len(scope) <= 8192, "MODEL_UNSAFE", "names of nested graphs too long")
        for tensor in found.get(5, []) + found.get(10, []):
            self.tensor(tensor, scope)
        for sparse in found.get(22, []) + found.get(23, []):
            self.sparse(sparse, scope)
        for graph in found.get(6, []) + found.get(11, []):
            self.graph(graph, scope, depth + 1)

    def function(self, field: Field) -> None:
        found = self.message(field, "1 10", "7 11")
        name = f"{self.text(found.get(10))}::{self.text(found.get(1))}"
        for node in found.get(7, []):
            self.node(node, f"{name}/", 1)
        for attribute in found.get(11, []):
            self.attribute(attribute, name, 1)

    def port(self, field: Field) -> None:
        """An input or output: of at most one type, of a known number type, each size a number or a name."""
        port = self.message(field, "1 2")
        self.text(port.get(1))
        kinds = self.message(port[2][0], "1 4 5 7 8 9") if 2 in port else {}
        need(len(kinds) <= 1, "MODEL_UNSAFE", "two types")
        for kind in (kinds[number][0] for number in (1, 8) if number in kinds):
            tensor = self.message(kind, "1 2")
            for field in tensor.get(1, []):
                need(field.integer() in BITS or field.integer() == 0, "MODEL_UNSAFE", "data type")
            for size in self.message(tensor[2][0], "", "1").get(1, []) if 2 in tensor else []:
                dimension = self.message(size, "1 2")
                need(len(dimension) < 2, "MODEL_UNSAFE", "a size and a name")
                known = [number.integer() >= 0 for number in dimension.get(1, [])]
                if known != [True]:
                    self.text(dimension.get(2))

    def sparse(self, field: Field, scope: str) -> str:
        halves = self.message(field, "1 2")
        need(halves.keys() == {1, 2}, "MODEL_UNSAFE", "half of a sparse tensor")
        name = self.tensor(halves[1][0], scope)
        self.tensor(halves[2][0], f"{scope}{name}.indices/")
        return name

    def tensor(self, field: Field, scope: str) -> str:
        """Its values are in one place and as many as its sizes say. Its name."""
        tensor = self.message(field, "2 3 8 9 14", "1 4 5 6 7 10 11 13")
        name = self.text(tensor.get(8))
        self.spend("text", len(scope))
        kind = [number.integer() for number in tensor.get(2, [])]
        need(kind and kind[0] in BITS, "MODEL_UNSAFE", "data type")
        sizes = [size for one in tensor.get(1, []) for size in self.integers(one)]
        need(len(sizes) <= 64 and all(0 <= n <= 1 << 48 for n in sizes), "MODEL_UNSAFE", f"sizes of {name}")
        need(3 not in tensor, "MODEL_UNSAFE", "segments")
        self.spend("tensors")
        bits, count = BITS[kind[0]], math.prod(sizes)
        length = (count * bits + 7) // 8
        external = self.external(tensor, name, length)
        places = [number for number in (4, 5, 6, 7, 9, 10, 11) if number in tensor]
        stored = [one for number in places for one in tensor[number]]
        have = sum(one.last - one.first for one in stored)
        need(len(places) <= (0 if external else 1), "MODEL_UNSAFE", f"{name} has values in two places")
        need(bits or not (external or 9 in tensor), "MODEL_UNSAFE", "texts as bytes")
        if 9 in tensor:
            self.span(tensor[9][0])
            need(have == length, "MODEL_UNSAFE", f"length of {name}")
        elif not external:
            enough = count == len(stored) if not bits else count <= 4 * have
            need(enough, "MODEL_UNSAFE", f"{name} has fewer values than its sizes say")
        return name

    def integers(self, field: Field) -> list[int]:
        """One number, or numbers packed into bytes."""
        if field.wire == VARINT:
            return [field.integer()]
        numbers, (at, end) = [], self.span(field)
        while at < end:
            number, at = self.varint(at, end)
            numbers.append(number - (number >> 63 << 64))
            need(len(numbers) <= 64, "MODEL_UNSAFE", "too many sizes")
        return numbers

    def external(self, tensor: dict[int, list[Field]], name: str, length: int) -> bool:
        """Are the values in another file? If so in one of role model-data beside the model."""
        said = self.pairs(tensor.get(13, []))
        path = said.get("location")
        if path is not None:
            good = len(path) <= 1024 and not {"", ".", ".."} & set(path.split("/"))
            need(good, "MODEL_UNSAFE", f"path of {name}")
            matched(r'[^\x00-\x1f\x7f\\:*?"<>|]*', path, "MODEL_UNSAFE", f"path of {name}")
        if [number.integer() for number in tensor.get(14, [])] != [1]:
            return False
        need(path is not None, "MODEL_UNSAFE", f"{name} is nowhere")
        for number in (said.get("offset", "0"), said.get("length", "0")):
            matched("[0-9]{1,15}", number, "MODEL_UNSAFE", f"numbers of {name}")
        need(int(said.get("length", length)) == length, "MODEL_UNSAFE", f"length of {name}")
        there = self.sizes.get(f"{self.folder}/{path}", -1)
        need(int(said.get("offset", 0)) + length <= there, "MODEL_UNSAFE", f"{name} is not in {path}")
        return True


def looks_like_onnx(data: memoryview) -> bool:
    """Are the outermost fields those of a model with an IR version, as far as the file goes?"""
    version = False
    try:
        for number, field in Onnx(data).fields(0, len(data)):
            if MODEL_FIELDS.get(number, field.wire if number > 26 else -1) != field.wire:
                return False
            version |= number == 1 and 0 < field.number < 256
    except Fail as fail:
        return version and fail.code == "MODEL_TRUNCATED"
    return version


# --- evidence: specs/evidence.md ----------------------------------------------------------------------------


def open_evidence(envelope: Envelope, trust: Trust, bundle_id: str) -> dict[str, Any]:
    """Opening: signature, members, and whether the key may speak for evaluator and bundle."""
    of_kind(envelope, "evidence")
    entry = trust.open(envelope, ["evidence"], [bundle_id])
    bad = "DOC_SCHEMA"
    body = load_object(envelope.payload, "evidence", bad)
    check_file_names(body.get("subject"))
    fits("evidence", body, bad)
    names = [file["name"] for file in body["subject"]["files"]]
    need(names == sorted(set(names)), bad, "files unsorted or repeated")
    metrics = [metric["name"] for metric in body["metrics"]]
    need(len(set(metrics)) == len(metrics), bad, "a metric twice")
    need(body["issued_at"] < body["valid_until"], bad, "valid_until")
    latency = [body["performance"]["latency_us"][rank] for rank in ("p50", "p90", "p99")]
    need(latency == sorted(latency), bad, "latency falls")
    need(body["method"]["evaluated"] <= body["data"]["rows"], bad, "more rows than there are")
    need(body["samples"]["passed"] <= body["samples"]["total"], bad, "samples")
    named = [body["subject"]["bundle_id"]] if "bundle_id" in body["subject"] else []
    need(covers_names(entry, named), "SIG_NAMESPACE", str(named))
    need(entry["issuer"] == body["evaluator"], "SIG_KEY_ROLE", "another evaluator")
    return body


def fits_bundle(body: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Fitting: is it about this manifest's files and processing?"""
    roles, subject, io = (
        ("model", "model-data", "tokenizer", "vocabulary", "labels"),
        body["subject"],
        manifest["io"],
    )
    files = [{"name": f["name"], "sha256": f["sha256"]} for f in manifest["files"] if f["role"] in roles]
    said = [{"name": f["name"], "sha256": f["sha256"]} for f in subject["files"]]
    processing = {name: io[name] for name in ("task", "pre", "post", "samples") if name in io}
    same_io = sha256(dump_json(processing)).hex() == subject["io_sha256"]
    return said == files and same_io and subject["kind"] == manifest["kind"]


@dataclass(frozen=True)
class Proof:
    """Evidence in a bundle: what it says, and who signed it."""

    body: dict[str, Any]
    keyid: str
    issuer: str


def check_evidence(bundle: Bundle, manifest: dict[str, Any], trust: Trust) -> list[Proof]:
    """Step 11: every file of the role that is a document opens and fits."""
    proofs = []
    for name in (
        f["name"] for f in manifest["files"] if f["role"] == "evidence" and f["name"] != TIER_POLICY
    ):
        data = bytes(bundle.stored(name))
        try:
            value = json.loads(data) if len(data) <= 512 * KIB else None
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "payloadType" in value:
            envelope = read_envelope(data)
            body = open_evidence(envelope, trust, manifest["bundle_id"])
            need("encryption" in manifest or fits_bundle(body, manifest), "EVIDENCE_MISMATCH", name)
            keys = [keyid for keyid, _ in envelope.signatures]
            entry = next(e for e in trust.keyring.body["keys"] if e["keyid"] in keys)
            proofs.append(Proof(body, entry["keyid"], entry["issuer"]))
    return proofs


# --- quality tiers: specs/tiers.md --------------------------------------------------------------------------

TIERS = ("Experimental", "Verified", "Enterprise-Ready")
TIER_POLICY = "evidence/tier-policy.toml"
PUBLISHED = [Path(__file__).resolve().parents[2] / "verifier/src/sealpack/verifier/tiers.toml"]


@dataclass(frozen=True)
class Claim:
    """What a tier is judged by: the manifest, the signer's keyring entry, when it signed, evidence, SBOM."""

    manifest: dict[str, Any]
    signer: dict[str, Any]
    signed_at: int
    proofs: list[Proof]
    sbom: dict[str, Any]


def check_tier(bundle: Bundle, claim: Claim) -> None:
    """Step 12: skipped without a failure when nothing can be judged."""
    manifest = claim.manifest
    rank, proof = TIERS.index(manifest["quality_tier"]), manifest.get("tier_proof")
    if not rank or proof is None or "encryption" in manifest:
        return
    own = {sha256(data).hex(): data for data in (path.read_bytes() for path in PUBLISHED if path.exists())}
    held = {f["sha256"]: f["name"] for f in manifest["files"] if f["role"] == "evidence"}
    if not set(proof["policies"]) <= own.keys() | held.keys() or not set(proof["policies"]) & own.keys():
        return
    for digest in proof["policies"]:
        policy = read_tier_policy(own[digest] if digest in own else bundle.read(held[digest]))
        for tier in TIERS[1 : rank + 1]:
            gates = policy["tiers"][tier]
            evidence = any(meets_evidence_gates(gates, policy["metrics"], one, claim) for one in claim.proofs)
            need(evidence and meets_bundle_gates(gates, claim), "TIER_UNPROVEN", tier)


def read_tier_policy(data: bytes) -> dict[str, Any]:
    """A closed file: a misspelt gate would stand open."""
    bad = "TIER_UNPROVEN"
    need(len(data) <= 64 * KIB, bad, "policy too large")
    try:
        policy = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Fail(bad, str(error)) from None
    fits("tier-policy", policy, bad)
    return policy


def meets_evidence_gates(gates: dict[str, Any], metrics: dict[str, Any], proof: Proof, claim: Claim) -> bool:
    """The gates that one document must meet together."""
    body, signer, age = proof.body, claim.signer, claim.signed_at - proof.body["issued_at"]
    samples, other_key = len(claim.manifest["io"].get("samples", [])), proof.keyid != signer["keyid"]
    other_issuer = other_key and proof.issuer != signer["issuer"]
    evaluators = {"any": True, "separate-key": other_key, "other-issuer": other_issuer}
    figures = {"latency": "latency_us", "memory": "peak_memory_bytes", "load": "load_us"}
    thresholds = claim.manifest["tier_proof"].get("thresholds", [])
    measured = {metric["name"]: metric for metric in body["metrics"]}
    judged = [(one["metric"], *judge_threshold(one, measured.get(one["metric"]))) for one in thresholds]
    counted = {name for name, _, counts in judged if counts and name in metrics.get(body["task"], [])}
    return (
        evaluators[gates["evaluator"]]
        and 0 <= age <= gates["max_age_days"] * 86400
        and claim.signed_at < body["valid_until"]
        and body["method"]["evaluated"] >= gates["min_rows"]
        and len(counted) >= gates["min_thresholds"]
        and all(met for _, met, _ in judged)
        and body["samples"]["passed"] == body["samples"]["total"] == samples >= gates["min_samples"]
        and all(figures[name] in body["performance"] for name in gates.get("measured", []))
    )


def judge_threshold(threshold: dict[str, str], metric: dict[str, Any] | None) -> tuple[bool, bool]:
    """Is it met, on the side that means better; and does it count: is the stated baseline worse?"""
    if metric is None:
        return False, False
    sign = 1 if "min" in threshold else -1
    bound, value = sign * Decimal(threshold["min" if sign > 0 else "max"]), sign * Decimal(metric["value"])
    met = value >= bound and metric["higher_is_better"] == (sign > 0)
    return met, "baseline" in metric and sign * Decimal(metric["baseline"]) < bound


def meets_bundle_gates(gates: dict[str, Any], claim: Claim) -> bool:
    """The gates that speak of the bundle itself."""
    manifest = claim.manifest
    signed = datetime.datetime.fromtimestamp(claim.signed_at, datetime.UTC).date()
    have = {role: any(f["role"] == role for f in manifest["files"]) for role in ("card", "license-terms")}
    have |= {name: bool(manifest.get(name, "").strip()) for name in ("intended_use", "support")}
    due = datetime.date.fromisoformat(manifest.get("recertify_by", "0001-01-01"))
    have["recertify_by"] = 0 < (due - signed).days <= gates["max_age_days"]
    present, applicable = sbom_completeness(claim.sbom, manifest) if "min_sbom_percent" in gates else (0, 0)
    enough = 100 * present >= gates.get("min_sbom_percent", 0) * applicable
    return enough and all(have[name] for name in gates.get("require", []))


# --- completeness: specs/sbom.md, "Completeness" ------------------------------------------------------------

Object = dict[str, Any]


def sbom_completeness(sbom: Object, manifest: Object) -> tuple[int, int]:
    """How many of the minimum elements are present, and how many apply. The table is the page's."""
    page = (Path(__file__).resolve().parents[1] / "sbom.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (`.*`) \| *(waivable)? \|$", page, re.MULTILINE)
    components = objects_in(sbom.get("components"))
    bundles = [
        one for metadata in objects_in(sbom.get("metadata")) for one in objects_in(metadata.get("component"))
    ]
    scopes = {
        "document": [sbom],
        "bundle": bundles,
        "model": [one for one in components if one.get("type") == "machine-learning-model"],
        "dataset": [one for one in components if one.get("type") == "data"],
    }
    asked = questions(sbom, manifest, scopes["model"])
    waived = {
        one["name"].removeprefix("sealpack:not-applicable:")
        for bundle in bundles
        for one in objects_in(bundle.get("properties"))
        if str(one.get("name")).startswith("sealpack:not-applicable:") and says(one.get("value"))
    }
    present = applicable = 0
    for name, scope, places, waivable in rows:
        paths = re.findall("`([^`]+)`", places)
        there = bool(scopes[scope]) and all(
            any(has(one, path, asked) for path in paths) for one in scopes[scope]
        )
        present += there
        applicable += there or not (waivable and name in waived)
    return present, applicable


def objects_in(value: Any) -> list[Object]:
    """An object, or those of a list."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def says(value: Any) -> bool:
    """A text that is not blank, a number, a list or object with members."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) or bool(value.strip() if isinstance(value, str) else value)


def has(thing: Object, path: str, asked: dict[str, Callable[[Object], bool]]) -> bool:
    return asked[path](thing) if path in asked else any(map(says, at_place(thing, path)))


def at_place(value: Any, path: str) -> Iterator[Any]:
    """Every value at a place; lists are gone through, `list[tag]` picks of its members."""
    match = matched(r"(\w+)(?:\[(!?)([^]*]+)(\*?)\])?(?:\.(.+))?", path, "OTHER_RESULT", path)
    name, negated, tag, prefix, rest = match.groups()
    for thing in objects_in(value):
        member = thing.get(name)
        if tag:
            member = [one for one in objects_in(member) if is_tagged(one, tag, prefix) != bool(negated)]
        if rest:
            yield from at_place(member, rest)
        else:
            yield member


def is_tagged(thing: Object, tag: str, prefix: str) -> bool:
    found = next((thing[name] for name in ("type", "alg", "name") if name in thing), None)
    return found.startswith(tag) if prefix and isinstance(found, str) else bool(found == tag)


def questions(sbom: Object, manifest: Object, models: list[Object]) -> dict[str, Callable[[Object], bool]]:
    """The four questions that are no places."""
    digest = next(entry["sha256"] for entry in manifest["files"] if entry["role"] == "model")
    rows = [row for row in at_place(sbom, "dependencies.dependsOn") if isinstance(row, list)]
    refs = [ref for row in rows for ref in row]
    refs += [ref for one in models for ref in at_place(one, "modelCard.modelParameters.datasets.ref")]

    def names_model(thing: Object) -> bool:
        stated = [one for one in at_place(thing, "hashes[SHA-256].content") if isinstance(one, str)]
        return digest in stated if len(models) == 1 else bool(stated)

    return {
        "@signed": lambda _: True,  # whatever comes this far is signed
        "@model-digest": names_model,
        "@dataset-used": lambda thing: isinstance(thing.get("bom-ref"), str) and thing["bom-ref"] in refs,
        "@vulnerabilities": lambda _: isinstance(sbom.get("vulnerabilities"), list),
    }


# --- tree: specs/receipts.md, "Tree"; proofs as in RFC 6962 -------------------------------------------------


def leaf_hash(record: bytes) -> bytes:
    return sha256(b"\0", record)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1", left, right)


def tree_root(hashes: list[bytes]) -> bytes:
    """The root by definition."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256()
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return node_hash(tree_root(hashes[:half]), tree_root(hashes[half:]))


@dataclass
class Frontier:
    """The roots of the perfect subtrees of a tree, largest first; enough to append."""

    size: int
    roots: list[bytes]

    def __post_init__(self) -> None:
        need(self.size.bit_count() == len(self.roots), "RECEIPT_TREE", "frontier of another size")

    def append(self, leaf: bytes) -> None:
        carry = self.size
        while carry & 1:
            leaf, carry = node_hash(self.roots.pop(), leaf), carry >> 1
        self.roots.append(leaf)
        self.size += 1

    def join(self, height: int, root: bytes) -> None:
        """Append 2^height leaves, by the root over them."""
        carry = self.size >> height
        while carry & 1:
            root, carry = node_hash(self.roots.pop(), root), carry >> 1
        self.roots.append(root)
        self.size += 1 << height

    def root(self) -> bytes:
        if not self.roots:
            return sha256()
        return functools.reduce(lambda right, left: node_hash(left, right), reversed(self.roots))


def inclusion_root(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    """The root that an inclusion proof gives, by the recursion of RFC 6962, section 2.1.1, read backwards."""
    if size == 1:
        need(not proof, "RECEIPT_TREE", "proof too long")
        return leaf
    need(proof, "RECEIPT_TREE", "proof too short")
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        return node_hash(inclusion_root(leaf, index, half, proof[:-1]), proof[-1])
    return node_hash(proof[-1], inclusion_root(leaf, index - half, size - half, proof[:-1]))


def consistency_roots(
    old: int, new: int, proof: list[bytes], old_root: bytes, whole: bool = True
) -> tuple[bytes, bytes]:
    """Both roots that a consistency proof gives: RFC 6962, section 2.1.2, SUBPROOF read backwards."""
    if old == new:
        need(len(proof) == (0 if whole else 1), "RECEIPT_TREE", "proof length")
        return (old_root, old_root) if whole else (proof[0], proof[0])
    need(proof, "RECEIPT_TREE", "proof too short")
    half, last = 1 << (new - 1).bit_length() - 1, proof[-1]
    if old <= half:
        one, two = consistency_roots(old, half, proof[:-1], old_root, whole)
        return one, node_hash(two, last)
    one, two = consistency_roots(old - half, new - half, proof[:-1], old_root, False)
    return node_hash(last, one), node_hash(last, two)


# --- checkpoints: specs/checkpoint.md -----------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoint:
    """A note: what its text says, and its signature lines as (name, bytes)."""

    origin: str
    size: int
    root: bytes
    text: bytes
    lines: tuple[tuple[str, bytes], ...]


def read_note(note: bytes) -> Checkpoint:
    """The form; nothing is believed yet."""
    bad = "CHECKPOINT_INVALID"
    try:
        decoded = note.decode()
    except ValueError:
        raise Fail(bad, "not UTF-8") from None
    control = any((ord(c) < 32 and c != "\n") or ord(c) == 127 for c in decoded)
    need(len(note) <= 8000 and not control and decoded.endswith("\n"), bad, "size, controls or end")
    body, blank, signatures = decoded.rpartition("\n\n")
    match = matched(r"([!-*,-~]{1,400})\n(0|[1-9][0-9]{0,15})\n(.*)", body, bad, "text")
    lines = [matched(r"— ([^ +]+) ([^ ]+)", line, bad, "line") for line in signatures.split("\n")[:-1]]
    need(blank and 1 <= len(lines) <= 16, bad, "lines")
    size, root = int(match[2]), read_base64(match[3], bad)
    need(size <= MAX and len(root) == 32, bad, "size or root")
    pairs = tuple((line[1], read_base64(line[2], bad)) for line in lines)
    need(all(len(data) > 4 for _, data in pairs), bad, "signature line")
    return Checkpoint(match[1], size, root, (body + "\n").encode(), pairs)


def signature_by(point: Checkpoint, name: str, kind: int, key: Key) -> bytes:
    """What the one line of this name and key id holds."""
    need(key.scheme == "ed25519", "CHECKPOINT_INVALID", "not an Ed25519 key")
    keyid = sha256(name.encode(), b"\n", bytes([kind]), key.raw)[:4]
    found = [data[4:] for line, data in point.lines if line == name and data[:4] == keyid]
    need(len(found) == 1, "CHECKPOINT_INVALID", "not exactly one line of this key")
    return found[0]


def open_checkpoint(note: bytes, keys: Iterable[Key]) -> Checkpoint:
    """The checkpoint, signed by every given device key."""
    point = read_note(note)
    for key in keys:
        signature = signature_by(point, point.origin, 1, key)
        need(_ed25519(key.raw, signature, point.text), "CHECKPOINT_INVALID", "signature")
    return point


def open_cosignature(note: bytes, name: str, key: Key) -> int:
    """The time at which the witness signed."""
    point = read_note(note)
    data = signature_by(point, name, 4, key)
    time = int.from_bytes(data[:8])
    signed = b"cosignature/v1\ntime %d\n%s" % (time, point.text)
    good = len(data) == 72 and time <= MAX and _ed25519(key.raw, data[8:], signed)
    need(good, "CHECKPOINT_INVALID", "cosignature")
    return time


# --- receipts and usage files: specs/receipts.md, specs/usage-export.md -------------------------------------

LINE, FILE, PLAIN, BLOCK = 64 * KIB, 64 * MIB, 1 << 30, 256


def read_record(line: bytes) -> dict[str, Any]:
    """One record: canonical, and of its kind as in specs/schemas/receipt-record.json."""
    try:
        record = load_json(line, LINE)
        fits("receipt-record", record, "RECEIPT_INVALID")
        if "device" in record:
            need(read_key(record["device"]).scheme == "ed25519", "RECEIPT_INVALID", "device")
    except Fail as fail:
        raise Fail("RECEIPT_INVALID", str(fail)) from None
    return dict(record)


@dataclass
class Log:
    """What is known of a log while its records go by, and the breaches of its rules."""

    position: int
    boot: int = 0
    uptime: int = 0
    closed: bool = False
    routes: dict[str, Any] | None = None
    registers: dict[tuple[str, str, str], int] | None = None
    breaches: list[str] = field(default_factory=list)

    def follow(self, record: dict[str, Any]) -> None:
        """Rules 1 to 4."""
        kind = record["k"]
        wrong = record["n"] != self.position or (kind == "g") != (self.position == 0) or self.closed
        self.closed |= kind == "x"
        self.position += 1
        if self.boot:
            wrong |= record["b"] < self.boot or (record["b"] > self.boot and kind != "b")
            wrong |= record["b"] == self.boot and record["u"] < self.uptime
        self.boot, self.uptime = record["b"], record["u"]
        if wrong:
            self.breaches.append("RECEIPT_ORDER")
        if kind == "b":
            self.declare(record["routes"])
        elif kind in "ul":
            self.count(record["route"], record.get("status", "lost"), record["meters"])
        elif kind == "t":
            self.compare(record["registers"])

    def declare(self, routes: dict[str, Any]) -> None:
        if any(routes.get(name) != entry for name, entry in (self.routes or {}).items()):
            self.breaches.append("RECEIPT_ROUTE")
        self.routes = {**routes, **(self.routes or {})}

    def count(self, route: str, status: str, meters: dict[str, int]) -> None:
        if self.routes is not None and route not in self.routes:
            self.breaches.append("RECEIPT_ROUTE")
        if self.registers is not None:
            for meter, number in meters.items():
                key = (route, status, meter)
                self.registers[key] = self.registers.get(key, 0) + number

    def compare(self, stated: dict[str, Any]) -> None:
        flat = {(r, s, m): n for r, of in stated.items() for s, ms in of.items() for m, n in ms.items()}
        if self.registers is not None and flat != self.registers:
            self.breaches.append("RECEIPT_TALLY")
        self.registers = flat


class Usage:
    """Reading a usage file: `codes` of the findings in order, and how many receipts count."""

    schema = "usage"

    def __init__(self, data: bytes, device: Key | None = None) -> None:
        self.codes: list[str] = []
        self.accepted = 0
        self.behind = False  # bytes behind the gzip stream
        self.plain = hashlib.sha256()
        self.done = False  # the trailer was read
        try:
            self.read(data, device)
        except Fail as fail:
            self.codes.append(fail.code)

    def lines(self, data: bytes) -> Iterator[bytes]:
        """Whole lines without LF; Fail when they end in any other way than a stream's good end."""
        need(len(data) <= FILE, "USAGE_LIMIT", "file")
        rest, total = b"", 0
        for piece in self.pieces(data):
            total += len(piece)
            need(total <= PLAIN, "USAGE_LIMIT", "unpacked")
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                need(len(line) <= LINE, "USAGE_LIMIT", "line")
                yield line
            need(len(rest) <= LINE, "USAGE_LIMIT", "line")
        need(not rest, "USAGE_TRAILING" if self.done else "USAGE_TORN", "part of a line")

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Step 1: unpack, 64 KiB at a time; what unpacks before damage is used."""
        if not data.startswith(b"\x1f\x8b"):
            yield data
            return
        stream = zlib.decompressobj(wbits=31)
        for at in range(0, len(data), 4 * KIB):
            part, before = data[at : at + 4 * KIB], stream.copy()
            try:
                yield stream.decompress(part)
            except zlib.error:  # again byte by byte, for the bytes in front of the damage
                yield from self.until_damage(before, part)
            if stream.eof:
                self.behind = len(stream.unused_data) > 0 or at + 4 * KIB < len(data)
                return
        raise Fail("USAGE_TORN", "ends early")

    def until_damage(self, stream: Any, part: bytes) -> Iterator[bytes]:
        for at in range(len(part)):
            try:
                yield stream.decompress(part[at : at + 1])
            except zlib.error as error:
                raise Fail("USAGE_TORN", str(error)) from None

    def read(self, data: bytes, device: Key | None) -> None:
        """Steps 2 to 7."""
        lines = self.lines(data)
        first = next(lines, None)
        need(first is not None, "USAGE_TORN", "no header")
        assert first is not None
        self.take_header(first, device)
        block: list[bytes] = []
        for line in lines:
            need(not self.done, "USAGE_TRAILING", "a line behind the trailer")
            if line.startswith(b'{"trailer":'):
                self.done = True
                self.codes.extend(self.check_trailer(line, block))
            elif line.startswith(b'{"checkpoint":'):
                self.take_block(block, line)
                block = []
            else:
                block.append(line)
                need(len(block) <= BLOCK, "USAGE_LIMIT", "block")
            self.plain.update(line + b"\n")
        need(self.done, "USAGE_TORN", "no trailer")
        need(not self.behind, "USAGE_TRAILING", "bytes behind the stream")

    def take_header(self, line: bytes, device: Key | None) -> None:
        """Steps 2 and 3."""
        bad = "USAGE_HEADER"
        try:
            head = load_object(line, self.schema, bad, LINE)
            fits("usage-header", {**head, "schema": "sealpack/usage/v1"}, bad)
            self.key = read_key(head["device"])
            self.tree = Frontier(head["from"], [bytes.fromhex(one) for one in head["frontier"]])
        except Fail as fail:
            raise Fail(bad, str(fail)) from None
        need(head["count"] == head["to"] - head["from"] and self.key.scheme == "ed25519", bad, "range or key")
        need(device is None or device == self.key, "USAGE_KEY", "another device")
        self.head, self.log = head, Log(head["from"])
        if head["from"] == 0:
            self.log.routes, self.log.registers = {}, {}
        self.plain.update(line + b"\n")

    def take_block(self, block: list[bytes], line: bytes) -> None:
        """Steps 4 and 5."""
        try:
            value = load_json(line, LINE)
            form = value.keys() == {"checkpoint"} and isinstance(value["checkpoint"], str)
        except Fail:
            form = False
        need(form, "CHECKPOINT_INVALID", "line")
        note = value["checkpoint"].encode()
        point = open_checkpoint(note, [self.key])
        need(block, "RECEIPT_TREE", "empty block")
        tree = Frontier(self.tree.size, list(self.tree.roots))
        for record in block:
            self.grow(tree, record)
        stated = (point.origin, point.size, point.root)
        need(stated == (self.head["origin"], tree.size, tree.root()), "RECEIPT_TREE", f"at {tree.size}")
        records = list(self.records(block))
        following = [read_key(record["device"]) for _, record in records if record["k"] == "r"]
        open_checkpoint(note, following)
        for _, one in records[:1]:
            self.check_genesis(one)
        self.accepted += tree.size - self.tree.size
        self.tree, self.key = tree, [self.key, *following][-1]
        for at, one in records:
            self.follow(at, one)
        self.codes.extend(self.log.breaches)
        self.log.breaches.clear()

    def grow(self, tree: Frontier, line: bytes) -> None:
        tree.append(leaf_hash(line))

    def records(self, block: list[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every record with its place."""
        yield from enumerate(map(read_record, block), self.tree.size)

    def follow(self, at: int, record: dict[str, Any]) -> None:
        self.log.follow(record)

    def check_genesis(self, record: dict[str, Any]) -> None:
        if record["k"] == "g" and self.tree.size == 0:
            need(record["origin"] == self.head["origin"], "USAGE_HEADER", "origin of the genesis")
            need(record["device"] == self.key.pem, "USAGE_KEY", "device of the genesis")

    def check_trailer(self, line: bytes, block: list[bytes]) -> Iterator[str]:
        """Step 6."""
        if block:
            yield "RECEIPT_TREE"
        try:
            value = load_json(line, LINE)
            fits("usage-trailer", value, "USAGE_MISMATCH")
        except Fail:
            yield "USAGE_MISMATCH"
            return
        stated = value["trailer"]
        read = self.accepted + len(block)
        if (stated["count"], stated["sha256"]) != (read, self.plain.hexdigest()) or read < self.head["count"]:
            yield "USAGE_MISMATCH"


class Tallies(Usage):
    """Reading a tally file: specs/usage-export.md, "Tally files"."""

    schema = "tallies"

    def grow(self, tree: Frontier, line: bytes) -> None:
        if not line.startswith(b'{"hidden":'):
            tree.append(leaf_hash(line))
            return
        try:
            value = load_json(line, LINE)
            need(value.keys() == {"hidden"}, "RECEIPT_TREE", "members")
            count, roots = (
                value["hidden"]["count"],
                [bytes.fromhex(root) for root in value["hidden"]["roots"]],
            )
            need(isinstance(count, int) and count > 0, "RECEIPT_TREE", "count")
        except (Fail, KeyError, TypeError, ValueError):
            raise Fail("RECEIPT_TREE", "hidden line") from None
        end = tree.size + count
        for root in roots:
            height = 0
            while tree.size % (2 << height) == 0 and tree.size + (2 << height) <= end:
                height += 1
            need(tree.size < end, "RECEIPT_TREE", "too many roots")
            tree.join(height, root)
        need(tree.size == end, "RECEIPT_TREE", "too few roots")

    def records(self, block: list[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        tree = Frontier(self.tree.size, list(self.tree.roots))
        for line in block:
            if not line.startswith(b'{"hidden":'):
                record = read_record(line)
                need(record["k"] not in "uld", "RECEIPT_INVALID", "a record that is hidden")
                yield tree.size, record
            self.grow(tree, line)

    def follow(self, at: int, record: dict[str, Any]) -> None:
        self.log.position = at
        if record["k"] == "t" and self.log.registers is not None:
            stated = {
                (r, s, m): n
                for r, of in record["registers"].items()
                for s, ms in of.items()
                for m, n in ms.items()
            }
            if self.log.routes is not None and any(key[0] not in self.log.routes for key in stated):
                self.log.breaches.append("RECEIPT_ROUTE")
            if any(stated.get(key, 0) < count for key, count in self.log.registers.items()):
                self.log.breaches.append("RECEIPT_TALLY")
            self.log.registers = None  # what lies between two tallies is hidden
        self.log.follow(record)


# --- vectors: specs/vectors ---------------------------------------------------------------------------------

Case = dict[str, Any]


def agree(condition: object, text: str) -> None:
    """A good vector states a result too; another one is a disagreement."""
    need(condition, "OTHER_RESULT", text)


def trust_of(folder: Path) -> Trust:
    own = folder / "trust.json"
    return load_trust((own if own.exists() else folder.parent / "trust.json").read_bytes())


def case_bytes(folder: Path, name: str) -> bytes:
    data = (folder / name).read_bytes()
    return gzip.decompress(data) if name == "bundle.sealpack.gz" else data


def case_canonical(folder: Path, case: Case) -> None:
    load_json(case_bytes(folder, "input.json"), case.get("max_bytes", 256 * KIB), case.get("max_depth", 16))


def case_dsse(folder: Path, case: Case) -> None:
    envelope = read_envelope(case_bytes(folder, "envelope.json"))
    verify_signature(read_key(case["key"]), envelope.signatures[0][1], envelope.signed)


def case_bundle(folder: Path, case: Case) -> None:
    given = given_pair(case["key"], case.get("mldsa_key")) if "key" in case else None
    verify_bundle(case_bytes(folder, "bundle.sealpack.gz"), None if given else trust_of(folder), given)


def case_evidence(folder: Path, case: Case) -> None:
    body = open_evidence(
        read_envelope(case_bytes(folder, "evidence.json")), trust_of(folder), case["bundle_id"]
    )
    if (folder / "manifest.json").exists():
        need(fits_bundle(body, read_manifest(case_bytes(folder, "manifest.json"))), "EVIDENCE_MISMATCH")


def case_trust(folder: Path, case: Case) -> None:
    trust = trust_of(folder)
    if (folder / "update.json").exists():
        trust = update_trust(trust, read_parcel(case_bytes(folder, "update.json")))
    if (folder / "document.json").exists():
        trust.open(read_envelope(case_bytes(folder, "document.json")), [case["role"]], case.get("names", ()))
    versions = [trust.root.version, trust.keyring.version, trust.revocations.version]
    agree(case.get("versions", versions) == versions, f"versions {versions}")


def case_license(folder: Path, case: Case) -> None:
    body = open_license(read_envelope(case_bytes(folder, "license.json")), trust_of(folder))
    covered = [license_covers(body, *build) for build in case.get("covers", [])]
    agree(covered == case.get("covered", []), f"covered {covered}")


def case_sublicense(folder: Path, case: Case) -> None:
    trust, above = trust_of(folder), read_envelope(case_bytes(folder, "parent.json"))
    parent = open_license(above, trust)
    sub = read_envelope(case_bytes(folder, "sublicense.json"))
    found = open_sublicense(sub, trust, parent, sha256(above.payload).hex())
    found.pop("schema", None)
    agree(case.get("license", found) == found, f"license {found}")


def case_activation(folder: Path, case: Case) -> None:
    envelope = read_envelope(case_bytes(folder, "document.json"))
    if case["kind"] == "activation-request":
        agree(open_request(envelope) == case["device_id"], "device id")
    elif case["kind"] == "activation":
        body = open_activation(envelope, trust_of(folder))
        if "code" in case:
            digest = sha256(envelope.payload).hex()
            code = confirmation_code(body["confirmation"], body["device_id"], digest, case["root"])
            agree(code == case["code"], code)
    elif case["kind"] == "deactivation":
        agree(open_deactivation(envelope) == case["device_id"], "device id")
    elif case["kind"] == "epoch-token":
        open_token(envelope, trust_of(folder))
    elif case["kind"] == "repair":
        open_repair(envelope, trust_of(folder))
    else:
        open_lease(envelope, trust_of(folder))


def case_terms(folder: Path, case: Case) -> None:
    data = case_bytes(folder, "terms.json")
    read_terms(data)
    agree(case.get("terms_digest", sha256(data).hex()) == sha256(data).hex(), "digest")


def case_registry(folder: Path, case: Case) -> None:
    data = case_bytes(folder, "line.json")
    read_registry_line(data)
    agree(case.get("sha256", sha256(data).hex()) == sha256(data).hex(), "digest")


def case_checkpoint(folder: Path, case: Case) -> None:
    note = case_bytes(folder, "note")
    point = open_checkpoint(note, map(read_key, case["keys"]))
    read = {"origin": point.origin, "size": point.size, "root": point.root.hex()}
    agree(case.get("checkpoint", read) == read, "text")
    if witness := case.get("cosigner"):
        agree(open_cosignature(note, witness["name"], read_key(witness["key"])) == witness["time"], "time")


def case_merkle(_folder: Path, case: Case) -> None:
    proof = [bytes.fromhex(one) for one in case.get("proof", [])]
    if case["check"] == "roots":
        hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in case["leaves"]]
        for size, (root, frontier) in enumerate(zip(case["roots"], case["frontiers"], strict=True)):
            given = Frontier(size, [bytes.fromhex(one) for one in frontier])
            agree(root == tree_root(hashes[:size]).hex() == given.root().hex(), f"root of {size}")
    elif case["check"] == "inclusion":
        leaf, index, size = leaf_hash(bytes.fromhex(case["leaf"])), case["index"], case["size"]
        need(0 <= index < size, "RECEIPT_TREE", "index")
        need(inclusion_root(leaf, index, size, proof).hex() == case["root"], "RECEIPT_TREE")
    else:
        check_consistency(case["old"], case["new"], proof)


def check_consistency(old: Case, new: Case, proof: list[bytes]) -> None:
    need(old["size"] <= new["size"], "RECEIPT_TREE", "shrinks")
    if old["size"] == 0:
        need(not proof and old["root"] == sha256().hex(), "RECEIPT_TREE")
        return
    one, two = consistency_roots(old["size"], new["size"], proof, bytes.fromhex(old["root"]))
    need((one.hex(), two.hex()) == (old["root"], new["root"]), "RECEIPT_TREE")


def case_usage(folder: Path, case: Case) -> None:
    usage = Usage(case_bytes(folder, "usage.gz"), read_key(case["device"]))
    agree(usage.accepted == case["accepted"], f"{usage.accepted} accepted, {usage.codes}")
    need(not usage.codes, usage.codes[0] if usage.codes else "")


def case_tallies(folder: Path, case: Case) -> None:
    tallies = Tallies(case_bytes(folder, "tallies.gz"), read_key(case["device"]))
    agree(tallies.accepted == case["accepted"], f"{tallies.accepted} accepted, {tallies.codes}")
    need(not tallies.codes, tallies.codes[0] if tallies.codes else "")


CASES: dict[str, Callable[[Path, Case], object]] = {
    "acknowledgement": lambda folder, _: open_acknowledgement(
        read_envelope(case_bytes(folder, "acknowledgement.json")), trust_of(folder)
    ),
    "activation": case_activation,
    "bundle": case_bundle,
    "canonical-json": case_canonical,
    "checkpoint": case_checkpoint,
    "container": lambda folder, _: Bundle(case_bytes(folder, "bundle.sealpack.gz")),
    "dsse": case_dsse,
    "encryption": lambda folder, _: check_encryption(load_json(case_bytes(folder, "header.json")), None),
    "evidence": case_evidence,
    "license": case_license,
    "sublicense": case_sublicense,
    "manifest": lambda folder, _: read_manifest(case_bytes(folder, "manifest.json")),
    "merkle": case_merkle,
    "registry-line": case_registry,
    "terms": case_terms,
    "trust": case_trust,
    "usage": case_usage,
    "tallies": case_tallies,
}


def run_case(folder: Path) -> tuple[str, str]:
    """The code a case expects and the one found here."""
    case = json.loads((folder / "case.json").read_bytes())
    try:
        CASES[folder.parent.name](folder, case)
    except Fail as fail:
        return case["expect"], fail.code
    return case["expect"], "ok"


def vector_cases(vectors: Path) -> Iterator[Path]:
    """The cases of every format that is read here; of encryption only the header, the rest needs AES."""
    for name in CASES:
        cases = sorted(path.parent for path in (vectors / name).glob("*/case.json"))
        yield from (case for case in cases if name != "encryption" or (case / "header.json").exists())


def run_vectors(vectors: Path) -> int:
    """Print counts per folder and every disagreement; 0 when there is none."""
    counts: dict[str, list[int]] = {}
    for folder in vector_cases(vectors):
        expected, found = run_case(folder)
        row = counts.setdefault(folder.parent.name, [0, 0, 0])
        agreed = found not in ("ok", "OTHER_RESULT") if expected != "ok" else found == "ok"
        row[0 if expected == found else 1 if agreed else 2] += 1
        if expected != found:
            print(f"{'other code' if agreed else 'DISAGREES'}: {folder}: {expected} expected, {found} found")
    for name, (same_code, other_code, disagree) in counts.items():
        print(f"{name:16} {same_code:4} same, {other_code} with another code, {disagree} disagree")
    for name in sorted(path.name for path in vectors.iterdir() if path.is_dir() and path.name not in CASES):
        print(f"{name:16} not read here")
    return int(not counts or any(row[2] for row in counts.values()))


# --- command line -------------------------------------------------------------------------------------------


def run_verify(path: Path, trust: Path | None, key: Path | None, mldsa_key: Path | None) -> int:
    """Print PASS or FAIL and the code."""
    try:
        belief = load_trust(trust.read_bytes()) if trust else None
        pems = [file.read_bytes().decode("ascii", "replace") for file in (key, mldsa_key) if file]
        manifest = verify_bundle(path.read_bytes(), belief, given_pair(*pems) if key else None)
    except Fail as fail:
        print(f"FAIL  {path}  {fail}")
        return 4 if fail.code in WITHDRAWN else 3
    print(
        f"PASS  {path}  {manifest['bundle_id']} {manifest['version']} (release {manifest['release_index']})"
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="check Sealpack bundles and vectors a second way")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verify = verbs.add_parser("verify", help="verify one bundle")
    verify.add_argument("bundle", type=Path)
    whom = verify.add_mutually_exclusive_group(required=True)
    whom.add_argument("--trust", type=Path, help="trust file")
    whom.add_argument("--key", type=Path, help="the creator's public key alone")
    verify.add_argument("--mldsa-key", type=Path, help="the ML-DSA key beside --key")
    verbs.add_parser("vectors", help="run every vector").add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    if given.verb == "vectors":
        return run_vectors(given.folder)
    if given.mldsa_key and not given.key:
        parser.error("--mldsa-key stands beside --key")
    return run_verify(given.bundle, given.trust, given.key, given.mldsa_key)


if __name__ == "__main__":
    sys.exit(main())

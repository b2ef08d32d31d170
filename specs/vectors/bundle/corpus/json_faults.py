"""Faults of JSON, in every member of a bundle that is JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from support.world import CREATOR, LICENSER, ROOT, BundleSpec, make_keyring, make_revocations, make_root

from corpus.base import LICENSE, MEMBERS, SIG, STATEMENT, Add, packed, resigned, restated, sigstore, terms_for
from sealpack.format import canonical, dsse, statement

Spell = Callable[[bytes], bytes]


def _member(text: str) -> Spell:
    """One more member, first in the outermost object; its name sorts before every other."""
    return lambda data: b'{"!":' + text.encode("utf-8", "surrogatepass") + b"," + data[1:]


def _twice(data: bytes) -> bytes:
    """The first member of the object a second time."""
    name, value = next(iter(json.loads(data).items()))
    pair = json.dumps(name).encode() + b":" + canonical.dumps(value)
    return b"{" + pair + b"," + data[1:]


# name, what it is, the bytes, JSON_INVALID unless told; only canonical readers refuse those after the bar
SPELLINGS: tuple[tuple[str, str, Spell, str], ...] = (
    ("duplicate-key", "A name stands twice.", _twice, "JSON_INVALID"),
    ("float", "A number with a fraction.", _member("1.0"), "JSON_INVALID"),
    ("exponent", "A number too large for a float.", _member("1e999"), "JSON_INVALID"),
    ("nan", "Not a number.", _member("NaN"), "JSON_INVALID"),
    ("big-integer", "2^53.", _member(str(2**53)), "JSON_INVALID"),
    ("long-integer", "A number of 5,000 digits.", _member("9" * 5000), "JSON_INVALID"),
    ("null", "null.", _member("null"), "JSON_INVALID"),
    ("deep", "100,000 arrays in one another.", _member("[" * 100_000), "JSON_LIMIT"),
    ("bom", "A byte order mark.", lambda d: b"\xef\xbb\xbf" + d, "JSON_INVALID"),
    ("utf-16", "Another encoding.", lambda d: d.decode().encode("utf-16"), "JSON_INVALID"),
    ("not-utf-8", "A byte that is no UTF-8.", lambda d: _member('"X"')(d).replace(b"X", b"\xff", 1),
     "JSON_INVALID"),
    ("surrogate", "Half of a surrogate pair, escaped.", _member('"\\ud800"'), "JSON_INVALID"),
    ("surrogate-raw", "Half of a surrogate pair in UTF-8.", _member('"\ud800"'), "JSON_INVALID"),
    ("trailing", "Data after the end.", lambda d: d + b"{}", "JSON_INVALID"),
    ("newline", "A line end after the end.", lambda d: d + b"\n", "JSON_INVALID"),
    ("space", "A space.", lambda d: d.replace(b":", b": ", 1), "JSON_INVALID"),
    ("escaped", "A letter written as an escape.", lambda d: _member('"\\u0061"')(d), "JSON_INVALID"),
    ("array", "An array around it.", lambda d: b"[" + d + b"]", ""),
    ("cut", "The last byte is missing.", lambda d: d[:-1], "JSON_INVALID"),
    ("empty", "No bytes.", lambda d: b"", "JSON_INVALID"),
    ("unsorted", "Names in another order.", lambda d: d[:-1] + b',"!":0}', "JSON_INVALID"),
    ("comment", "A comment.", lambda d: b"/**/" + d, "JSON_INVALID"),
)  # fmt: skip


def _manifest(data: bytes) -> bytes:
    """A manifest of any bytes, rightly signed."""
    return restated(MEMBERS | {"manifest.json": data})


def _statement(data: bytes) -> bytes:
    return packed(sig=sigstore(dsse.sign(statement.PAYLOAD_TYPE, data, CREATOR)))


def _license(data: bytes) -> bytes:
    kind = "application/vnd.sealpack.license+json"
    return packed(license__L_1_json=dsse.sign(kind, data, LICENSER).to_bytes())


def _revocations(data: bytes) -> bytes:
    kind = "application/vnd.sealpack.revocations+json"
    return packed(trust__revocations_json=dsse.sign(kind, data, ROOT).to_bytes())


def _terms(data: bytes) -> bytes:
    text = ("license-text", "text/plain", b"text")
    terms = ("license-terms", "application/json", data)
    return BundleSpec(model=MODEL, extra={"license/terms.json": terms, "license/LICENSE": text}).build()


def _sbom(data: bytes) -> bytes:
    return resigned({"sbom.cdx.json": data})


MODEL = MEMBERS["payload/model.gguf"]
TERMS = terms_for(hashlib.sha256(b"text").hexdigest())
PLAIN_LICENSE = canonical.dumps({"schema": "sealpack/license/v1", **LICENSE})

# member -> how a bundle with these bytes is made, the good bytes, the code of an array, the spellings taken
PLACES: tuple[tuple[str, Callable[[bytes], bytes], bytes, str, str], ...] = (
    ("manifest", _manifest, MEMBERS["manifest.json"], "MANIFEST_INVALID", "*"),
    ("sig", lambda d: packed(sig=d), SIG, "SIG_MALFORMED", "*"),
    ("statement", _statement, canonical.dumps(STATEMENT), "SIG_STATEMENT", "*"),
    ("license", _license, PLAIN_LICENSE,
        "LIC_SCHEMA", "duplicate-key float big-integer deep surrogate trailing cut empty array"),
    ("license-outer", lambda d: packed(license__L_1_json=d), dsse.sign(
        "application/vnd.sealpack.license+json", PLAIN_LICENSE, LICENSER).to_bytes(), "DSSE_INVALID",
     "duplicate-key nan deep bom trailing empty array"),
    ("keyring-outer", lambda d: packed(trust__keyring_json=d), make_keyring(2).to_bytes(), "DSSE_INVALID",
     "duplicate-key float deep space trailing cut empty array"),
    ("revocations", _revocations, make_revocations(2).payload, "TRUST_INVALID",
     "duplicate-key float big-integer deep bom surrogate trailing unsorted empty array"),
    ("root-outer", lambda d: packed(trust__root_2_json=d), make_root(2, (ROOT,)).to_bytes(), "DSSE_INVALID",
     "duplicate-key exponent deep utf-16 empty array"),
    ("terms", _terms, TERMS,
        "DOC_SCHEMA",
     "duplicate-key float nan big-integer deep bom surrogate trailing cut empty unsorted array"),
)  # fmt: skip


def cases(add: Add) -> None:
    """The whole group."""
    for member, make, good, shape, taken in PLACES:
        for name, description, spell, code in SPELLINGS:
            if taken == "*" or name in taken.split():
                add(f"json-{member}-{name}", f"{member}: {description}", code or shape, make(spell(good)))
    _limits(add)
    _sboms(add)


def _limits(add: Add) -> None:
    pad = '"' + "x" * (4 << 20) + '"'
    add(
        "json-sig-size",
        "META/model.sig of more than 4 MiB.",
        "CONTAINER_LIMIT",
        packed(sig=_member(pad)(SIG)),
    )
    big = '"' + "x" * (17 << 20) + '"'
    data = _manifest(_member(big)(MEMBERS["manifest.json"]))
    add("json-manifest-size", "A manifest of more than 16 MiB.", "CONTAINER_LIMIT", data)
    document = '"' + "x" * (256 << 10) + '"'
    add("json-license-size", "A license of more than 256 KiB.", "JSON_LIMIT",
        _license(_member(document)(PLAIN_LICENSE)))  # fmt: skip
    add("json-terms-size", "Terms of more than 64 KiB.", "JSON_LIMIT", _terms(_member(document)(TERMS)))


def _sboms(add: Add) -> None:
    good = json.loads(MEMBERS["sbom.cdx.json"])
    text = MEMBERS["sbom.cdx.json"]
    for case, description, data in (
        ("sbom-not-json", "The SBOM is no JSON.", b"<bom/>"),
        ("sbom-duplicate-key", "A key of the SBOM stands twice.", b'{"bomFormat":"x",' + text[1:]),
        ("sbom-spdx", "Another format.", json.dumps(good | {"bomFormat": "SPDX"}).encode()),
        ("sbom-deep", "An SBOM nested 100000 levels.", b"[" * 100_000),
        ("sbom-shape", "components is a number.", json.dumps(good | {"components": 1}).encode()),
    ):
        add(case, description, "SBOM_INVALID", _sbom(data))
    odd = {
        "cut": ("The SBOM is cut short.", text[:-2]), "empty": ("No bytes.", b""),
        "bom": ("A byte order mark.", b"\xef\xbb\xbf" + text), "array": ("An array.", b"[" + text + b"]"),
        "utf-16": ("Another encoding.", text.decode().encode("utf-16")),
        "trailing": ("Data after the end.", text + b"{}"),
        "long-integer": ("A number of 5,000 digits.", _member("9" * 5000)(text)),
        "inner-duplicate": ("A name stands twice in a component.",
                            text.replace(b'"name": "m"', b'"name": "m", "name": "n"')),
        "objects-deep": ("100,000 objects in one another.", b'{"a":' * 100_000),
        "string": ("The SBOM is a string.", b'"CycloneDX"'), "null": ("The SBOM is null.", b"null"),
        "no-components": ("No components.", json.dumps({**good, "components": []}).encode()),
        "component-null": ("A component is null.", json.dumps({**good, "components": [None]}).encode()),
        "hashes-text": ("hashes is a text.", _with_hashes(good, "x")),
        "hash-array": ("A hash's content is an array.",
                       _with_hashes(good, [{"alg": "SHA-256", "content": []}])),
        "hash-other": ("The digest under another algorithm.", _with_hashes(
            good, [{"alg": "SHA-1", "content": good["components"][0]["hashes"][0]["content"]}])),
        "component-kind": ("The digest is that of a library.", json.dumps(
            {**good, "components": [{**good["components"][0], "type": "library"}]}).encode()),
        "version-none": ("No specVersion.", json.dumps(
            {k: v for k, v in good.items() if k != "specVersion"}).encode()),
        "version-surrogate": ("specVersion is half of a surrogate pair.",
                              text.replace(b'"1.6"', b'"\\ud800"')),
        "version-terminal": ("specVersion clears the screen.", text.replace(b'"1.6"', b'"\\u001b[2J"')),
        "version-object": ("specVersion is an object.", text.replace(b'"1.6"', b"{}")),
        "constant": ("A number that is none.", _member("NaN")(text)),
        "infinite": ("A number too large for a float.", _member("1e999")(text)),
    }  # fmt: skip
    for name, (description, data) in odd.items():
        add(f"json-sbom-{name}", f"sbom: {description}", "SBOM_INVALID", _sbom(data))


def _with_hashes(good: dict[str, object], hashes: object) -> bytes:
    (component,) = good["components"]  # type: ignore[misc,attr-defined]
    return json.dumps({**good, "components": [{**component, "hashes": hashes}]}).encode()  # type: ignore[has-type]

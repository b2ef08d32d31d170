"""Our own checks of a CycloneDX document: what its JSON schema lets through.

Source: specs/sbom.md, section "Checks". Standard library and the shared canonical reader only, so
that the rules can be read beside the specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sealpack.format import canonical
from sealpack.format.errors import SealpackError
from sealpack.format.limits import LIMITS

HASH_CHARS = {
    "MD5": 32,
    "SHA-1": 40,
    "SHA-256": 64,
    "SHA-384": 96,
    "SHA-512": 128,
    "SHA3-256": 64,
    "SHA3-384": 96,
    "SHA3-512": 128,
    "BLAKE2b-256": 64,
    "BLAKE2b-384": 96,
    "BLAKE2b-512": 128,
    "BLAKE3": 64,
}
# An operand of an SPDX expression; WITH, AND, OR and parentheses are handled by the walk below.
_OPERAND = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?[A-Za-z0-9.-]+\+?")


def invalid(message: str) -> SealpackError:
    """The one error of SBOM handling."""
    return SealpackError("SBOM_INVALID", f"sbom: {message}")


def check(data: bytes) -> dict[str, Any]:
    """Return the parsed SBOM; SBOM_INVALID on anything of ours it breaks."""
    try:
        bom = canonical.loads(data, max_bytes=LIMITS.metadata_entry_bytes, what="sbom.cdx.json")
    except SealpackError as error:
        raise invalid(error.message) from None
    if not isinstance(bom, dict) or bom.get("bomFormat") != "CycloneDX":
        raise invalid("not a CycloneDX document")
    _check_refs(bom)
    for path, node in _objects(bom, "$"):
        _check_hash(path, node)
        _check_model_card(path, node)
        if "expression" in node and path.rsplit(".", 1)[-1].startswith("licenses["):
            check_expression(node["expression"], path)
    return bom


def check_expression(text: object, path: str) -> None:
    """Refuse a license expression that is not one by SPDX's grammar."""
    tokens = re.findall(r"[()]|[^\s()]+", text) if isinstance(text, str) else []
    rest = _expression(tokens)
    if rest is None or rest:
        raise invalid(f"{path}: {text!r} is not a license expression")


def _expression(tokens: list[str]) -> list[str] | None:
    """Consume `term ((AND|OR) term)*`; the tokens left, or None when there is no term."""
    rest = _term(tokens)
    while rest and rest[0] in ("AND", "OR"):
        rest = _term(rest[1:])
    return rest


def _term(tokens: list[str]) -> list[str] | None:
    if not tokens:
        return None
    if tokens[0] == "(":
        rest = _expression(tokens[1:])
        return rest[1:] if rest and rest[0] == ")" else None
    if tokens[0] in ("AND", "OR", "WITH") or not _OPERAND.fullmatch(tokens[0]):
        return None
    rest = tokens[1:]
    if rest[:1] == ["WITH"]:
        return rest[2:] if len(rest) > 1 and _OPERAND.fullmatch(rest[1]) else None
    return rest


def _objects(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for key, member in value.items():
            yield from _objects(member, f"{path}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _objects(member, f"{path}[{index}]")


def _check_hash(path: str, node: dict[str, Any]) -> None:
    if set(node) != {"alg", "content"}:
        return
    expected = HASH_CHARS.get(node["alg"])
    if expected is None or not re.fullmatch(rf"[0-9a-f]{{{expected}}}", str(node["content"])):
        raise invalid(f"{path}: content is not a lower-case {node['alg']} digest")


def _check_model_card(path: str, node: dict[str, Any]) -> None:
    if "modelCard" in node and node.get("type") != "machine-learning-model":
        raise invalid(f"{path}: a modelCard stands on a component of type {node.get('type')!r}")


def _check_refs(bom: dict[str, Any]) -> None:
    defined: set[str] = set()
    for path, node in _objects(bom, "$"):
        ref = node.get("bom-ref")
        if ref is None:
            continue
        if ref in defined:
            raise invalid(f"{path}: bom-ref {ref!r} is used twice")
        defined.add(ref)
    for path, ref in _references(bom):
        if ref not in defined and not str(ref).startswith("urn:cdx:"):
            raise invalid(f"{path}: refers to {ref!r}, which is nowhere defined")
    _check_dependencies(bom)


def _references(bom: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for path, node in _objects(bom, "$"):
        if "ref" in node:
            yield path, node["ref"]
        for key in ("dependsOn", "provides", "assemblies", "dependencies"):
            for ref in node.get(key, ()):
                if isinstance(ref, str):
                    yield f"{path}.{key}", ref
        for key in ("algorithmRef", "signatureAlgorithmRef", "subjectPublicKeyRef"):
            if key in node:
                yield f"{path}.{key}", node[key]


def _check_dependencies(bom: dict[str, Any]) -> None:
    """Every component has exactly one row, so that "no row" never has to be guessed at."""
    rows = [row["ref"] for row in bom.get("dependencies", ())]
    if len(set(rows)) != len(rows):
        raise invalid("dependencies name a component twice")
    main = bom.get("metadata", {}).get("component")
    components = [*bom.get("components", ()), *([main] if main else ())]
    missing = {c.get("bom-ref") for c in components} - set(rows)
    if missing:
        raise invalid(f"dependencies lack a row for {', '.join(sorted(map(str, missing)))}")

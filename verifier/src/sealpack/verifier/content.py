"""Looks into files that are already known to be the signed ones: SBOM, terms, model headers.

Source: specs/verification.md, "Content". Each look compares what one file says with what the manifest
says, and returns a line for the report.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from sealpack.format.container import MIMETYPE, BundleReader
from sealpack.format.encryption import PREFIX_SIZE
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import GgufHeader
from sealpack.format.manifest import FileEntry, Manifest
from sealpack.format.model_header import read_model_header
from sealpack.format.onnx_header import OnnxHeader
from sealpack.format.terms import ENTRY_NAME, Terms
from sealpack.verifier import excerpts
from sealpack.verifier.completeness import assess

MIMETYPE_SHA256 = hashlib.sha256(MIMETYPE).hexdigest()
Look = Callable[[BundleReader, Manifest, dict[str, Any]], str]


def read(bundle: BundleReader, entry: FileEntry) -> bytes:
    """A file outside payload once more, and still the signed one: the bundle may be written to meanwhile."""
    data = bundle.read(entry.name)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        told = f"{entry.name} changed while it was read"
        raise SealpackError("DIGEST_MISMATCH", told, expected=entry.sha256, found=found)
    return data


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no number")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice")
    return members


def sbom(bundle: BundleReader, manifest: Manifest, facts: dict[str, Any]) -> str:
    """The SBOM is CycloneDX and its model component has the digest of the bundle's model."""
    entries = manifest.with_role("sbom")
    if len(entries) != 1:
        raise SealpackError("SBOM_INVALID", f"the bundle has {len(entries)} SBOMs, exactly 1 is expected")
    try:
        document = json.loads(
            read(bundle, entries[0]).decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_float=_number,
            parse_constant=_number,
        )
        components = document["components"]
        models = [c for c in components if c.get("type") == "machine-learning-model"]
        hashes = {h["content"] for c in models for h in c.get("hashes", []) if h["alg"] == "SHA-256"}
        if document["bomFormat"] != "CycloneDX":
            raise ValueError("not CycloneDX")
        version = document["specVersion"]
        if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", version):
            raise ValueError("specVersion is not a version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SealpackError("SBOM_INVALID", f"{entries[0].name} cannot be read: {error}") from None
    if manifest.model.sha256 not in hashes:
        raise SealpackError("SBOM_INVALID", "no SBOM model component has the model's SHA-256")
    counted = {"format": f"CycloneDX {version}", "components": len(components)}
    facts["sbom"] = counted | excerpts.sbom(document)
    facts["completeness"] = assess(document, manifest).to_dict()
    return f"CycloneDX {version}, {len(components)} components, names the model by its digest"


def card(bundle: BundleReader, manifest: Manifest) -> dict[str, Any]:
    """The fact `card`: the first model card's text; nothing is judged."""
    cards = manifest.with_role("card")
    return {"card": excerpts.card(cards[0].name, read(bundle, cards[0]))} if cards else {}


def terms(bundle: BundleReader, manifest: Manifest, facts: dict[str, Any]) -> str:
    """The machine-readable terms name the legal text that is in the bundle."""
    entries = {e.name: e for e in manifest.with_role("license-terms")}
    if not entries:
        return "no machine-readable terms"
    if set(entries) != {ENTRY_NAME}:
        raise SealpackError("TERMS_MISMATCH", f"terms stand in {', '.join(entries)}, not {ENTRY_NAME}")
    said = Terms.from_bytes(read(bundle, entries[ENTRY_NAME]))
    texts = {e.name: e.sha256 for e in manifest.with_role("license-text")}
    if texts.get(said.text) != said.text_sha256:
        raise SealpackError("TERMS_MISMATCH", f"the terms speak of another text than {said.text}")
    if said.plan != manifest.plan:
        raise SealpackError("TERMS_MISMATCH", "terms and manifest name different price plans")
    facts["license_terms"] = excerpts.terms(said)
    return f"{said.spdx}, text {said.text}"


def _check_commitments(bundle: BundleReader, manifest: Manifest) -> None:
    """Every encrypted file begins with the salt and the key commitment that the manifest states."""
    header = manifest.encryption_header
    for file in header.files if header else ():
        head = bytearray(PREFIX_SIZE)
        bundle.read_into(file.name, 0, memoryview(head))
        if head.hex() != file.salt + file.commitment:
            raise SealpackError("MANIFEST_MISMATCH", f"{file.name} has another salt or key commitment")


def model(bundle: BundleReader, manifest: Manifest, facts: dict[str, Any]) -> str:
    """The model's header is well formed, of the kind stated, and reaches for no file outside payload."""
    entry = manifest.model
    if manifest.encryption is not None:
        _check_commitments(bundle, manifest)
        return "encrypted: the header cannot be read without a key"
    sizes = {e.name: e.size for e in manifest.with_role("model-data")}
    header = model_header(bundle.file, bundle.entries[entry.name].data_at, entry, manifest.kind, sizes)
    facts["custom_operators"] = sorted(header.custom_domains) if isinstance(header, OnnxHeader) else []
    return f"{manifest.kind} header well formed, {len(header.tensors)} tensors"


class Sized(Protocol):
    """A file's name in the bundle and its size in bytes, decrypted where it is encrypted."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int: ...


def model_header(
    file: BinaryIO, at: int, entry: Sized, kind: str, data_sizes: Mapping[str, int]
) -> GgufHeader | OnnxHeader:
    """The header of the model at offset `at`; `data_sizes` are those of the `model-data` files by name.

    MANIFEST_MISMATCH when it is no model of `kind`, MODEL_UNSAFE, MODEL_TRUNCATED.
    """
    try:
        header = read_model_header(file, at, entry.size, entry.name)
    except SealpackError as error:
        if error.code != "MODEL_UNKNOWN":
            raise
        raise SealpackError("MANIFEST_MISMATCH", f"not a {kind} model: {error.message}") from None
    found = "gguf" if isinstance(header, GgufHeader) else "onnx"
    if found != kind:
        raise SealpackError("MANIFEST_MISMATCH", f"{entry.name} is {found}, the manifest says {kind}")
    if isinstance(header, OnnxHeader):
        folder = entry.name.rpartition("/")[0]
        for name, needed in header.external_files.items():
            if data_sizes.get(f"{folder}/{name}", -1) < needed:
                raise SealpackError("MODEL_UNSAFE", f"{entry.name} reads {name}, which is missing or short")
    return header


LOOKS: tuple[tuple[str, Look], ...] = (("sbom", sbom), ("terms", terms), ("model", model))

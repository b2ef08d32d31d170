"""Looks into files that are already known to be the signed ones: SBOM, terms, model headers.

Source: specs/verification.md, "Content". Each look compares what one file says with what the manifest
says, and returns a line for the report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from sealpack.format.container import MIMETYPE, BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.manifest import Manifest

MIMETYPE_SHA256 = hashlib.sha256(MIMETYPE).hexdigest()
Look = Callable[[BundleReader, Manifest, dict[str, Any]], str]


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
        document = json.loads(bundle.read(entries[0].name), object_pairs_hook=_no_duplicates)
        components = document["components"]
        models = [c for c in components if c.get("type") == "machine-learning-model"]
        hashes = {h["content"] for c in models for h in c.get("hashes", []) if h["alg"] == "SHA-256"}
        if document["bomFormat"] != "CycloneDX":
            raise ValueError("not CycloneDX")
        version = str(document["specVersion"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SealpackError("SBOM_INVALID", f"{entries[0].name} cannot be read: {error}") from None
    if manifest.model.sha256 not in hashes:
        raise SealpackError("SBOM_INVALID", "no SBOM model component has the model's SHA-256")
    facts["sbom"] = {"format": f"CycloneDX {version}", "components": len(components)}
    return f"CycloneDX {version}, {len(components)} components, names the model by its digest"


LOOKS: tuple[tuple[str, Look], ...] = (("sbom", sbom),)

"""The documents a bundle carries beside its payload: legal text, terms, card, evidence.

Source: specs/terms.md and specs/manifest.md (`files`). Evidence is carried byte for byte as given.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sealpack.builder.config import Config
from sealpack.builder.spdx import check_license_id, known_id
from sealpack.builder.tier import policy_bytes
from sealpack.builder.toml_table import invalid
from sealpack.format.errors import SealpackError
from sealpack.format.files import read_bounded
from sealpack.format.license import PlanRef
from sealpack.format.limits import LIMITS
from sealpack.format.terms import ENTRY_NAME, Terms
from sealpack.verifier.tiers import POLICY_NAME

TEXT_NAME = "license/LICENSE.txt"
_EVIDENCE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,150}\.json")


def terms(config: Config, model_license: str | None = None) -> Terms:
    """The machine-readable terms; the SPDX id falls back to what the model file states."""
    section = config.license
    spdx = section.spdx or model_license
    if spdx is None:
        raise invalid("license.spdx", "is missing, and the model file states no license")
    if section.spdx is None:
        spdx = known_id(spdx) or spdx
    else:
        check_license_id(section.spdx)
    plan = section.terms.plan
    return Terms(
        spdx=spdx,
        text=TEXT_NAME,
        text_sha256=hashlib.sha256(_legal_text(config)).hexdigest(),
        title=section.terms.title,
        allow=section.terms.allow,
        deny=section.terms.deny,
        attribution=section.terms.attribution,
        ack_required=section.terms.ack_required,
        plan=PlanRef(plan["id"], plan["version"]) if plan else None,
    )


def _legal_text(config: Config) -> bytes:
    path = config.license.text
    if path is None:
        raise invalid("license.text", "is missing: name the file with the full legal text")
    data = read_bounded(path, LIMITS.metadata_entry_bytes)
    if not data.strip():
        raise SealpackError("CONFIG_INVALID", f"license text {path} is empty")
    return data


def metadata(config: Config, terms: Terms) -> Iterator[tuple[str, str, bytes]]:
    """(entry name, role, content) of every document but the SBOM and the manifest."""
    yield TEXT_NAME, "license-text", _legal_text(config)
    yield ENTRY_NAME, "license-terms", terms.to_bytes()
    if config.card is not None:
        yield "card.md", "card", _text(config.card)
    for path in config.evidence.files:
        yield f"evidence/{_evidence_name(path)}", "evidence", _json(path)
    policy = policy_bytes(config.evidence)
    if policy is not None:
        yield POLICY_NAME, "evidence", policy


def _text(path: Path) -> bytes:
    data = read_bounded(path, LIMITS.metadata_entry_bytes)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise SealpackError("CONFIG_INVALID", f"{path} is not UTF-8 text") from None
    return data


def _evidence_name(path: Path) -> str:
    if not _EVIDENCE_NAME.fullmatch(path.name):
        raise SealpackError("CONFIG_INVALID", f"evidence file {path.name!r} must be named like results.json")
    return path.name


def _json(path: Path) -> bytes:
    data = read_bounded(path, LIMITS.metadata_entry_bytes)
    try:
        json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SealpackError("CONFIG_INVALID", f"evidence {path} is not JSON: {error}") from None
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members

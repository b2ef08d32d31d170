"""A signed in-toto Simple Verification Result: what a verifier vouches for, in one small file.

Source: specs/report.md, "SVR". The subject is the bundle's `manifest.json`, by its SHA-256: the manifest
binds every other file, so the digest stands for the bundle. Only a bundle that passed has one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from sealpack.format import canonical, dsse
from sealpack.format.errors import SealpackError, printable
from sealpack.format.keys import ECDSA, Signer
from sealpack.format.statement import PAYLOAD_TYPE, STATEMENT_TYPE
from sealpack.format.values import utc_instant
from sealpack.verifier.report import Report, tool

PREDICATE_TYPE = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER_ID = "https://sealpack.example/verifier/v1"  # raised when the properties change their meaning
_CHECKS = {
    "container": "SEALPACK_CONTAINER_CANONICAL",
    "trust": "SEALPACK_TRUST_CHAIN_OK",
    "signature": "SEALPACK_SIGNATURE_OK",
    "manifest": "SEALPACK_MANIFEST_OK",
    "revocation": "SEALPACK_NOT_REVOKED",
    "licenses": "SEALPACK_LICENSES_OK",
    "sbom": "SEALPACK_SBOM_OK",
}
_MODES = {"full": "FULL", "leaves": "LEAVES", "sample": "SAMPLED"}


def render(report: Report, key: Signer, verifier_id: str = VERIFIER_ID) -> str:
    """The DSSE envelope as canonical JSON text, signed with an ECDSA P-256 key.

    USAGE for a key of another scheme or a report without a time. The report must have passed: the first
    failure is raised otherwise.
    """
    if key.scheme != ECDSA:
        raise SealpackError("USAGE", f"a verification result is signed with {ECDSA}, not {key.scheme}")
    payload = canonical.dumps(statement(report, verifier_id))
    return dsse.sign(PAYLOAD_TYPE, payload, key).to_bytes().decode("ascii")


def statement(report: Report, verifier_id: str = VERIFIER_ID) -> dict[str, Any]:
    """The in-toto statement about a bundle that passed."""
    report.raise_first()
    if report.verified_at is None or not report.ok:
        raise SealpackError("USAGE", "a verification result needs a verification and its time")
    facts = report.facts
    verifier: dict[str, Any] = {"id": verifier_id, "version": {tool()["name"]: tool()["version"]}}
    if policy := facts.get("policy"):
        verifier["policy"] = {"name": policy["name"], "digest": {"sha256": policy["sha256"]}}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": f"{printable(PurePath(report.path).name)}/manifest.json",
                "digest": {"sha256": facts["bundle_digest"]},
                "annotations": {"bundle_id": facts["bundle_id"], "version": facts["version"]},
            }
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "verifier": verifier,
            "timeCreated": utc_instant(report.verified_at),
            "properties": sorted(set(_properties(report))),
        },
    }


def _properties(report: Report) -> Iterator[str]:
    facts = report.facts
    for check in report.checks:
        if check.status == "pass" and check.id in _CHECKS:
            yield _CHECKS[check.id]
    yield f"SEALPACK_CONTENT_{_MODES[facts['content_mode']]}"
    if facts.get("post_quantum", {}).get("bundle"):
        yield "SEALPACK_PQ_SIGNATURE_OK"
    if "license_terms" in facts:
        yield "SEALPACK_TERMS_OK"
    if "custom_operators" in facts:  # only a header that was read has this fact
        yield "SEALPACK_MODEL_HEADER_OK"
    verified = [document for document in facts.get("evidence", ()) if document.get("verified")]
    if any(document["valid_until"] > (report.verified_at or 0) for document in verified):
        yield "SEALPACK_EVIDENCE_VERIFIED"
    proven = facts.get("tier", {}).get("proven", "Experimental")
    if proven != "Experimental":
        yield f"SEALPACK_TIER_{proven.upper().replace('-', '_')}_PROVEN"
    if "policy" in facts:
        yield "SEALPACK_POLICY_MET"

"""Evidence and quality tier of a bundle: what is signed, whether it fits, what it proves.

Source: specs/verification.md, "evidence" and "tier". Runs after content, on files that are known to be
the signed ones. Evidence that is a signed document must verify and be about this very model; other JSON is
the creator's word and shown as such.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import Evidence, is_document, open_evidence
from sealpack.format.manifest import Manifest
from sealpack.format.trust import Trust
from sealpack.format.values import plain, utc_day
from sealpack.verifier import content, tiers
from sealpack.verifier.report import Report
from sealpack.verifier.tiers import Gate, Proof, Standing, TierPolicy


def check(bundle: BundleReader, manifest: Manifest, trust: Trust | None, report: Report) -> tuple[Proof, ...]:
    """Verify and report the bundle's evidence; the documents that hold. Fact `evidence`.

    Raises the error of the first document that does not hold.
    """
    facts: list[dict[str, Any]] = []
    report.facts["evidence"] = facts
    documents = {n: d for n, d in _documents(bundle, manifest).items() if n != tiers.POLICY_NAME}
    proofs = []
    for name, data in documents.items():
        if not is_document(data):
            facts.append({"name": name, "signed": False})
        elif trust is None:
            facts.append({"name": name, "signed": True, "verified": False})
        else:
            proofs.append(read(name, Envelope.from_bytes(data, name), trust, manifest.bundle_id))
            check_subject(proofs[-1], manifest)
            facts.append(_fact(proofs[-1]))
    if documents:
        report.passed("evidence", _line(proofs, facts))
    return tuple(proofs)


def _documents(bundle: BundleReader, manifest: Manifest) -> dict[str, bytes]:
    return {entry.name: content.read(bundle, entry) for entry in manifest.with_role("evidence")}


def read(name: str, envelope: Envelope, trust: Trust, bundle_id: str) -> Proof:
    """Verify one document, by a key that may speak for `bundle_id`; errors name the file."""
    try:
        evidence, entry = open_evidence(envelope, trust, bundle_id)
    except SealpackError as error:
        raise SealpackError(error.code, f"{name}: {error.message}", remedy=error.remedy) from None
    return Proof(name, evidence, entry.issuer, entry.key.keyid, envelope.digest)


def check_subject(proof: Proof, manifest: Manifest) -> None:
    """EVIDENCE_MISMATCH unless the document is about the manifest's model.

    What is inside an encrypted file cannot be compared without a key: such a bundle's tier is not judged.
    """
    if manifest.encryption is not None:
        return
    try:
        proof.evidence.check_subject(manifest.kind, manifest.files, manifest.io)
    except SealpackError as error:
        raise SealpackError(error.code, f"{proof.name}: {error.message}") from None


def _fact(proof: Proof) -> dict[str, Any]:
    said = proof.evidence
    members: dict[str, Any] = plain(said, leave_out=("subject",))
    known = {"name": proof.name, "signed": True, "verified": True, "keyid": proof.keyid}
    return known | {"digest": proof.digest} | members


def _line(proofs: list[Proof], facts: list[dict[str, Any]]) -> str:
    parts = [_told(proof.evidence) for proof in proofs]
    unchecked = sum(fact["signed"] for fact in facts) - len(proofs)
    if unchecked:
        parts.append(f"{unchecked} signed, not checked without a trust file")
    stated = sum(not fact["signed"] for fact in facts)
    if stated:
        parts.append(f"{stated} unsigned, as stated")
    return "; ".join(parts)


def _told(evidence: Evidence) -> str:
    figures = ", ".join(f"{m.name} {m.value}" for m in evidence.metrics[:3])
    due = utc_day(evidence.valid_until)
    return (
        f"{figures} on {evidence.method.evaluated} rows of {evidence.data.name}, "
        f"by {evidence.evaluator}, valid until {due}"
    )


def check_tier(
    bundle: BundleReader,
    manifest: Manifest,
    trust: Trust | None,
    proofs: tuple[Proof, ...],
    report: Report,
) -> None:
    """Judge the tier the manifest claims, as of the signing time. Fact `tier`.

    TIER_UNPROVEN when the manifest says how it was proven and that does not hold.
    """
    claimed = manifest.quality_tier
    told: dict[str, Any] = {"claimed": claimed, "proven": tiers.BASE, "policies": [], "gates": []}
    report.facts["tier"] = told
    if claimed == tiers.BASE:
        return
    policies, doubt = _policies(_documents(bundle, manifest), manifest, trust)
    if doubt:
        report.skipped("tier", f"{claimed} is claimed, not proven: {doubt}")
        return
    standing = _standing(manifest, proofs, report.facts)
    gates = tiers.judge(policies, claimed, standing)
    told |= {
        "proven": tiers.highest(policies, standing),
        "policies": [policy.to_dict() for policy in policies],
        "gates": [gate.to_dict() for gate in gates],
    }
    missing = [gate for gate in gates if not gate.ok]
    if missing:
        raise unproven(claimed, missing)
    names = ", ".join(f"{policy.name} v{policy.version}" for policy in policies)
    report.passed("tier", f"{claimed}, proven by {len(gates)} gates of policy {names}")


def unproven(tier: str, missing: list[Gate]) -> SealpackError:
    """TIER_UNPROVEN, naming each gate that is not met and, as remedy, how to meet it."""
    asked: dict[tuple[str, str], list[str]] = {}
    for gate in missing:  # tiers ask for much the same: each gate is told once
        asked.setdefault((gate.id, gate.detail), []).append(gate.tier)
    what = "; ".join(f"{name} ({', '.join(by)}): {detail}" for (name, detail), by in asked.items())
    how = "; ".join(dict.fromkeys(gate.remedy for gate in missing if gate.remedy))
    return SealpackError(
        "TIER_UNPROVEN",
        f"{tier} is not proven: {what}",
        remedy=f"{how}; or claim a lower tier",
        gates=[gate.to_dict() for gate in missing],
    )


def _policies(
    documents: dict[str, bytes], manifest: Manifest, trust: Trust | None
) -> tuple[tuple[TierPolicy, ...], str]:
    """The policies the manifest says it was proven by, or why nothing can be judged."""
    if manifest.tier_proof is None:
        return (), "the manifest does not say how"
    if trust is None:
        return (), "evidence is not checked without a trust file"
    if manifest.encryption is not None:
        return (), "the model is encrypted, and evidence speaks of what is inside"
    own = {policy.sha256: policy for policy in tiers.published()}
    carried = {hashlib.sha256(data).hexdigest(): (name, data) for name, data in documents.items()}
    named = manifest.tier_proof.policies
    for digest in named:
        if digest not in own and digest not in carried:
            return (), f"this version does not know the tier policy {digest[:16]}"
    if not any(digest in own for digest in named):
        return (), "no published tier policy is named"
    return tuple(own.get(digest) or _carried(*carried[digest]) for digest in named), ""


def _carried(name: str, data: bytes) -> TierPolicy:
    """The creator's own policy; one that nobody can read proves nothing."""
    return TierPolicy.from_bytes(data, name, "TIER_UNPROVEN")


def _standing(manifest: Manifest, proofs: tuple[Proof, ...], facts: dict[str, Any]) -> Standing:
    signer, sbom = facts["signer"], facts["completeness"]
    proof = manifest.tier_proof
    return Standing(
        manifest,
        (signer["issuer"], signer["keyid"]),
        facts["signed_at"],
        proofs,
        (sbom["present"], sbom["applicable"]),
        proof.thresholds if proof else (),
    )

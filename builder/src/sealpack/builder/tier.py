"""The quality tier a build can prove, and the refusal of a claim it cannot.

Source: specs/tiers.md. The judgement is the verifier's own (:mod:`sealpack.verifier.tiers`), made on the
manifest as it will be signed, so that what is stamped here passes there. It is made before the payload is
hashed, because the manifest's size decides where payload stands; that the evidence is about this very
payload is checked when the digests are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sealpack.builder.config import Config
from sealpack.builder.sections import EvidenceSection
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import io_digest, is_document
from sealpack.format.files import read_bounded
from sealpack.format.manifest import Manifest, TierProof
from sealpack.format.trust import Trust
from sealpack.verifier import completeness, evidence, tiers
from sealpack.verifier.tiers import Proof, Standing, TierPolicy


def policy_bytes(section: EvidenceSection) -> bytes | None:
    """The creator's own policy file, which rides along so that anybody can judge by it."""
    path = section.tier_policy
    return None if path is None else read_bounded(path, tiers.MAX_POLICY_BYTES)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the creator asks for and can show.

    `wanted` None means the highest tier that can be proven; `unread` tells that there is signed evidence
    but no trust file to check it by; `signer` is (issuer, keyid) of the bundle's key.
    """

    wanted: str | None
    policies: tuple[TierPolicy, ...]
    section: EvidenceSection
    signer: tuple[str, str]
    signed_at: int
    proofs: tuple[Proof, ...]
    unread: bool

    def stamp(self, manifest: Manifest, sbom: bytes) -> Manifest:
        """`manifest` with its tier; TIER_UNPROVEN names each gate that is not met."""
        if self.wanted == tiers.BASE:
            return manifest
        standing = self._standing(manifest, sbom)
        tier = self.wanted or tiers.highest(self.policies, standing)
        missing = [gate for gate in tiers.judge(self.policies, tier, standing) if not gate.ok]
        if missing and self.unread:
            raise SealpackError(
                "TIER_UNPROVEN",
                f"{tier} is not proven: without a trust file nobody can say who signed the evidence",
                remedy="give --trust, or trust.file in sealpack.toml",
            )
        if missing:
            self._check_processing(manifest)
            raise evidence.unproven(tier, missing)
        if tier == tiers.BASE:
            return manifest
        proof = TierProof(tuple(policy.sha256 for policy in self.policies), self.section.thresholds)
        return replace(manifest, quality_tier=tier, tier_proof=proof)

    def _standing(self, manifest: Manifest, sbom: bytes) -> Standing:
        found = completeness.assess(json.loads(sbom), manifest)
        score = found.present, found.applicable
        return Standing(manifest, self.signer, self.signed_at, self.proofs, score, self.section.thresholds)

    def _check_processing(self, manifest: Manifest) -> None:
        """EVIDENCE_MISMATCH for a document made with another `io`: its gates would send people astray."""
        for proof in self.proofs:
            if proof.evidence.subject.io_sha256 != io_digest(manifest.io):
                raise SealpackError(
                    "EVIDENCE_MISMATCH",
                    f"{proof.name}: it was made with other processing, labels or samples",
                )

    def check_subjects(self, manifest: Manifest) -> None:
        """EVIDENCE_MISMATCH when a document is about other files than the manifest's."""
        for proof in self.proofs:
            evidence.check_subject(proof, manifest)


def read_claim(
    config: Config,
    keyid: str,
    signed_at: int,
    trust: Trust | None,
    enclosed: Iterable[tuple[str, str, bytes]],
) -> Claim:
    """Read policies and evidence; `enclosed` are (name, role, content) of the bundle's documents.

    CONFIG_INVALID for a policy that is none; any error of a document that no verifier would take.
    """
    signed = {n: data for n, role, data in enclosed if role == "evidence" and is_document(data)}
    envelopes = {name: Envelope.from_bytes(data, name) for name, data in signed.items()}
    proofs: tuple[Proof, ...] = ()
    issuer = ""
    if trust is not None:
        issuer = trust.entry(keyid, "bundle", "").issuer
        proofs = tuple(evidence.read(n, e, trust, config.bundle.id) for n, e in envelopes.items())
    return Claim(
        config.bundle.quality_tier,
        _policies(config.evidence),
        config.evidence,
        (issuer, keyid),
        signed_at,
        proofs,
        bool(signed) and trust is None,
    )


def _policies(section: EvidenceSection) -> tuple[TierPolicy, ...]:
    """The newest published policy, and the creator's own beside it."""
    own = policy_bytes(section)
    newest = tiers.published()[-1:]
    return newest if own is None else (*newest, TierPolicy.from_bytes(own, str(section.tier_policy)))

"""Evidence that rides along and tiers that are claimed by it: what does not hold, and what is not proven.

Every case has the trust file of the module: the creator may sign bundles and evidence, an assessor of
another name evidence. A claim that cannot be judged is no failure (specs/tiers.md): such bundles are good.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from support import evidence as made, world
from support.evidence import ASSESSOR, DAY, FULL, GONE, PUBLISHED, claim, sealed
from support.world import CREATOR, LICENSER, STRANGER, T0

from corpus.base import Add, terms_for
from sealpack.format import canonical, documents
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import EncryptedFile, EncryptionHeader
from sealpack.verifier import tiers

OWN = b"""\
schema = "sealpack/tier-policy/v1"
name = "own"
version = 1
[metrics]
text-generation = ["exact_match"]
[tiers.Verified]
evaluator = "%s"
min_rows = %d
min_thresholds = 1
min_samples = 0
max_age_days = 1000
[tiers.Enterprise-Ready]
evaluator = "any"
min_rows = 1
min_thresholds = 1
min_samples = 0
max_age_days = 1000
"""
MISSPELT = OWN.replace(b"min_rows", b"min_row")
MATCH = {"metric": "exact_match", "min": "0.5"}
BITS = {"metric": "bits_per_token", "max": "4"}


def cases(add: Add) -> None:
    """The whole group."""
    trust = made.trust()

    def case(name: str, description: str, expect: str, data: bytes, check: str = "", **more: Any) -> None:
        told = {"check": check} if check else {}
        add(name, description, expect, data, more.pop("trust", trust), **told, **more)

    _documents(case)
    _claims(case)
    _gates(case)
    _enterprise(case)
    _policies(case)


def bundle(*evidence: bytes, extra: dict[str, Any] | None = None, **manifest: Any) -> bytes:
    """A signed bundle with these documents and members of its manifest."""
    return made.bundle(made.spec(*evidence, extra=extra or {}), **(FULL | manifest))


def said(key: Any = ASSESSOR, **members: Any) -> bytes:
    """The test evidence, changed, as it rides along."""
    return sealed(key, **members).to_bytes()


def _documents(case: Add) -> None:
    """Evidence itself, in bundles that claim nothing."""
    good = sealed()
    case("evidence-good", "Signed evidence about this model.", "ok", bundle(good.to_bytes()))
    case(
        "evidence-stated", "Evidence nobody signed is the creator's word.", "ok", bundle(b'{"accuracy":"1"}')
    )
    changed = Envelope(good.payload_type, good.payload.replace(b'"3.250000"', b'"1.250000"'), good.signatures)
    lease = documents.seal("lease", made.payload(), ASSESSOR)
    for name, description, code, data in (
        ("other-model", "Evidence about another model.", "EVIDENCE_MISMATCH",
         said(subject__files__0__sha256="00" * 32)),
        ("other-file", "Evidence about a file that is not there.", "EVIDENCE_MISMATCH",
         said(subject__files__0__name="payload/net.gguf")),
        ("other-samples", "Evidence made with other samples.", "EVIDENCE_MISMATCH",
         said(subject__io_sha256="00" * 32)),
        ("other-kind", "Evidence about these bytes as ONNX.", "EVIDENCE_MISMATCH",
         said(subject__kind="onnx")),
        ("other-bundle", "Evidence for a bundle outside the key's namespaces.", "SIG_NAMESPACE",
         said(subject__bundle_id="other/tiny")),
        ("no-role", "Signed by a key that may not sign evidence.", "SIG_KEY_ROLE",
         said(LICENSER, evaluator=world.ISSUER)),
        ("stranger", "Signed by nobody the keyring lists.", "SIG_KEY_UNKNOWN", said(STRANGER)),
        ("for-another", "The creator signs in the assessor's name.", "SIG_KEY_ROLE", said(CREATOR)),
        ("changed", "A figure was changed after the signature.", "SIG_INVALID", changed.to_bytes()),
        ("not-evidence", "A document of another kind.", "DOC_TYPE", lease.to_bytes()),
        ("crit", "It requires what this version does not know.", "DOC_CRIT", said(crit=["oath"])),
        ("float", "A figure with an exponent.", "DOC_SCHEMA", said(metrics__0__value="3e2")),
        ("not-canonical", "An envelope with a space.", "JSON_INVALID",
         good.to_bytes().replace(b'"payloadType"', b'"payloadType" ')),
        ("no-signature", "An object with payloadType and nothing else.", "DSSE_INVALID",
         canonical.dumps({"payloadType": good.payload_type})),
        ("second", "The second of two documents is about another model.", "EVIDENCE_MISMATCH", None),
    ):  # fmt: skip
        held = (data,) if data else (good.to_bytes(), said(subject__files__0__sha256="00" * 32))
        case(f"evidence-{name}", description, code, bundle(*held), "evidence")
    revoked = {"keyid": ASSESSOR.keyid, "good": []}
    case("evidence-key-revoked", "The assessor's key was revoked.", "KEY_REVOKED", bundle(good.to_bytes()),
         "evidence", trust=made.trust(keys=[revoked]))  # fmt: skip
    case("evidence-key-revoked-good", "The key was revoked, this document stays good.", "ok",
         bundle(good.to_bytes()), trust=made.trust(keys=[revoked | {"good": [good.digest]}]))  # fmt: skip


def _claims(case: Add) -> None:
    """Claims as a whole: proven, not proven, not to be judged."""
    good, own = said(), said(CREATOR, evaluator=world.ISSUER)
    case("tier-verified", "Verified, proven by an assessor.", "ok", bundle(good, **claim("Verified")))
    case("tier-verified-own", "Verified, proven by the creator's own key.", "ok",
         bundle(own, **claim("Verified")))  # fmt: skip
    case("tier-best", "The one of two documents that meets every gate is enough.", "ok",
         bundle(said(method__evaluated=99), good, **claim("Verified")))  # fmt: skip
    case("tier-no-proof", "A claim that does not say how it was proven.", "ok",
         bundle(quality_tier="Enterprise-Ready"))  # fmt: skip
    case("tier-encrypted", "A claim for a model nobody can see without a key.", "ok", _encrypted(good))
    case("tier-experimental", "A proof without a claim is not looked at.", "ok",
         bundle(**claim("Experimental")))  # fmt: skip
    for name, description, data in (
        ("no-evidence", "A claim with a proof and no evidence.", bundle(**claim("Verified"))),
        ("stated", "A claim by evidence nobody signed.", bundle(b'{"accuracy":"1"}', **claim("Verified"))),
        ("thresholds-absent", "The proof has no member thresholds.",
         bundle(good, quality_tier="Verified", tier_proof={"policies": [PUBLISHED]})),
        ("enterprise", "Verified is proven, Enterprise-Ready is claimed.",
         bundle(good, **claim("Enterprise-Ready"))),
        ("enterprise-own", "Enterprise-Ready by the creator's own evidence.",
         bundle(own, **claim("Enterprise-Ready"))),
        ("split", "Two documents that meet every gate only together.",
         bundle(said(method__evaluated=99), said(valid_until=T0), **claim("Verified"))),
    ):  # fmt: skip
        case(f"tier-{name}", description, "TIER_UNPROVEN", data, "tier")


def _encrypted(evidence: bytes) -> bytes:
    entry = EncryptedFile("payload/model.gguf", 100, "00" * 24, "11" * 32)
    stored = bytes.fromhex(entry.salt) + bytes.fromhex(entry.commitment)
    spec = made.spec(evidence, model=stored + bytes(entry.stored_size - len(stored)))
    header = {"encryption": EncryptionHeader((entry,)).to_dict(), "crit": ["encryption"]}
    return made.bundle(spec, **FULL, **claim("Verified"), **header)


def _gates(case: Add) -> None:
    """Each gate of Verified at its bound, on both sides."""

    def both(name: str, ok: str, bad: str, met: dict[str, Any], unmet: dict[str, Any]) -> None:
        case(f"tier-{name}-at", ok, "ok", _claimed(**met))
        case(f"tier-{name}", bad, "TIER_UNPROVEN", _claimed(**unmet), "tier")

    both("age", "Evidence 365 days old at the signing.", "A second more.",
         {"issued_at": T0 - 365 * DAY}, {"issued_at": T0 - 365 * DAY - 1})  # fmt: skip
    both("future", "Evidence of the second of the signing.", "Evidence made after the signing.",
         {"issued_at": T0}, {"issued_at": T0 + 1})  # fmt: skip
    both("expired", "Valid for one second more.", "Evidence that ended when the bundle was signed.",
         {"valid_until": T0 + 1}, {"valid_until": T0})  # fmt: skip
    both("rows", "100 rows.", "99 rows.", {"method__evaluated": 100}, {"method__evaluated": 99})
    both("bound", "Exactly as declared.", "A millionth more than declared.",
         {"bounds": [BITS | {"max": "3.25"}]}, {"bounds": [BITS | {"max": "3.249999"}]})  # fmt: skip
    both("baseline", "A bound a millionth better than the baseline.", "A bound that the baseline reaches.",
         {"bounds": [BITS | {"max": "7.999999"}]}, {"bounds": [BITS | {"max": "8"}]})  # fmt: skip
    both("baseline-min", "A bound above the baseline.", "A bound that everything reaches.",
         {"bounds": [MATCH | {"min": "0.000001"}]}, {"bounds": [MATCH | {"min": "0.0"}]})  # fmt: skip
    both("other-bounds", "A bound without meaning beside one that counts.", "One bound of two is missed.",
         {"bounds": [BITS, MATCH | {"min": "-1"}]}, {"bounds": [BITS, MATCH | {"min": "0.76"}]})  # fmt: skip
    both("unlisted", "A metric of no list beside a listed one, both reached.", "Only a metric of no list.",
         {"metrics__1__name": "charm", "bounds": [BITS, MATCH | {"metric": "charm"}]},
         {"metrics__1__name": "charm", "bounds": [MATCH | {"metric": "charm"}]})  # fmt: skip
    both("samples", "One sample, run and passed.", "One of three samples failed.",
         {"io": 1}, {"samples__passed": 2})  # fmt: skip
    for name, description, members in (
        ("no-bounds", "No threshold is declared.", {"bounds": []}),
        ("no-baseline", "The evidence states no baseline.", {"metrics__0__baseline": GONE}),
        ("wrong-side", "A bound on the wrong side.", {"bounds": [{"metric": "bits_per_token", "min": "1"}]}),
        ("not-measured", "A bound for what was not measured.", {"bounds": [BITS | {"metric": "perplexity"}]}),
        ("no-samples", "A bundle without samples.", {"io": 0}),
        ("fewer-samples", "Evidence about fewer samples than there are.",
         {"samples": {"passed": 2, "total": 2}}),
        ("no-use", "No intended use.", {"manifest": {"intended_use": " \n"}}),
        ("no-card", "No model card.", {"manifest": {}, "card": False}),
    ):  # fmt: skip
        case(f"tier-{name}", description, "TIER_UNPROVEN", _claimed(**members), "tier")


def _claimed(
    bounds: list[dict[str, str]] | None = None,
    io: int | None = None,
    manifest: dict[str, Any] | None = None,
    card: bool = True,
    **members: Any,
) -> bytes:
    """Verified is claimed; `io` is the number of samples, the other members change the evidence."""
    spec = made.spec()
    if io is not None:
        spec.io = made.IO | {"samples": [made.SAMPLE] * io}
        members |= {"subject__io_sha256": made.io_digest(spec.io), "samples": {"passed": io, "total": io}}
    spec.extra[made.NAME] = ("evidence", "application/json", said(**members))
    if not card:
        spec.extra["card.md"] = ("asset", "text/markdown", b"# Tiny\n")
    return made.bundle(spec, **(FULL | claim("Verified", bounds) | (manifest or {})))


def _enterprise(case: Add) -> None:
    """Each gate that Enterprise-Ready adds, at its bound."""

    def bad(name: str, description: str, **changes: Any) -> None:
        case(f"tier-enterprise-{name}", description, "TIER_UNPROVEN", _ready(**changes), "tier")

    case("tier-enterprise-good", "Enterprise-Ready: 35 of 50 elements of an SBOM, 1,000 rows, three samples.",
         "ok", _ready())  # fmt: skip
    case("tier-enterprise-day", "Re-certification is due the day after the signing.", "ok",
         _ready(manifest={"recertify_by": "2026-09-22"}))  # fmt: skip
    bad("sbom", "34 of 50 elements of an SBOM.", sbom=_rich_sbom("description"))
    bad("rows", "999 rows.", method__evaluated=999)
    bad("creator", "Evidence by the creator's own key.", key=CREATOR, evaluator=world.ISSUER)
    bad("samples", "Two samples.", io=2)
    bad("memory", "The memory was not measured.", performance__peak_memory_bytes=GONE)
    bad("load", "The time to load was not measured.", performance__load_us=GONE)
    bad("support", "No support address.", manifest={"support": ""})
    bad("terms", "No license terms.", terms=False)
    bad("today", "Re-certification is due on the day of signing.", manifest={"recertify_by": "2026-09-21"})
    bad(
        "late", "Re-certification is due 366 days after the signing.", manifest={"recertify_by": "2027-09-22"}
    )
    bad("no-day", "No day of re-certification.", manifest={"recertify_by": GONE})


def _ready(
    sbom: bytes | None = None,
    io: int = 3,
    manifest: dict[str, Any] | None = None,
    terms: bool = True,
    key: Any = ASSESSOR,
    **members: Any,
) -> bytes:
    """Enterprise-Ready is claimed, and proven unless something is changed."""
    spec = made.spec()
    spec.io = made.IO | {"samples": [made.SAMPLE] * io}
    spec.extra["sbom.cdx.json"] = ("sbom", "application/vnd.cyclonedx+json", sbom or _rich_sbom())
    if terms:
        text = b"text"
        said_terms = terms_for(hashlib.sha256(text).hexdigest())
        spec.extra["license/terms.json"] = ("license-terms", "application/json", said_terms)
        spec.extra["license/LICENSE"] = ("license-text", "text/plain", text)
    changes = {"method__evaluated": 1000, "samples": {"passed": io, "total": io}} | members
    data = said(key, subject__io_sha256=made.io_digest(spec.io), **changes)
    spec.extra[made.NAME] = ("evidence", "application/json", data)
    day = {"recertify_by": "2027-09-21"}
    stated = FULL | claim("Enterprise-Ready") | day | (manifest or {})
    return made.bundle(spec, **{name: value for name, value in stated.items() if value is not GONE})


def _rich_sbom(without: str = "") -> bytes:
    """An SBOM with 35 of the 50 minimum elements; `without` is a member of its model."""

    def properties(*names: str) -> list[dict[str, str]]:
        return [{"name": f"sealpack:{name}", "value": "x"} for name in names]

    bundle = {
        "type": "application", "name": "tiny", "version": "1.0.0", "supplier": {"name": "Acme"},
        "properties": properties(
            "built-at", "data-flow", "data-usage", "io:task", "intended-use", "security-control"
        ),
    }  # fmt: skip
    model = {
        "type": "machine-learning-model", "name": "m", "purl": "pkg:generic/m@1", "version": "1",
        "properties": properties("model-date"), "supplier": {"name": "Acme"}, "description": "a model",
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(world.tiny_gguf()).hexdigest()}],
        "modelCard": {
            "modelParameters": {"modelArchitecture": "llama", "approach": {"type": "supervised"}},
            "properties": properties("model:context-length"),
        },
        "licenses": [{"license": {"id": "MIT"}}],
        "externalReferences": [{"type": "documentation", "url": "card.md"}],
    }  # fmt: skip
    model.pop(without, None)
    return json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {
            "timestamp": "2026-09-21T00:00:00Z", "component": bundle, "authors": [{"name": "Acme"}],
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "hand", "version": "1"}]},
        },
        "components": [model, {"type": "library", "name": "engine"}, {"type": "device", "name": "CPU"}],
        "dependencies": [{"ref": "tiny", "dependsOn": ["m"]}],
    }).encode()  # fmt: skip


def _policies(case: Add) -> None:
    """Policies: unknown, of one's own, weaker and stricter, broken."""
    good, bounds = said(), [BITS, MATCH]

    def held(
        policy: bytes,
        evidence: bytes = good,
        published: bool = True,
        bounds: list[dict[str, str]] = bounds,
        name: str = tiers.POLICY_NAME,
    ) -> bytes:
        own = hashlib.sha256(policy).hexdigest()
        names = (PUBLISHED, own) if published else (own,)
        extra = {name: ("evidence", "application/toml", policy)}
        return bundle(evidence, extra=extra, **claim("Verified", bounds, *names))

    case("policy-unknown", "A policy nobody knows beside the published one.", "ok",
         bundle(good, **claim("Verified", None, PUBLISHED, "ab" * 32)))  # fmt: skip
    case("policy-alone", "Only a policy of one's own.", "ok", held(OWN % (b"any", 1), published=False))
    case("policy-alone-unmet", "Only a policy of one's own, which is not met either.", "ok",
         held(OWN % (b"any", 9999), published=False))  # fmt: skip
    case("policy-alone-not-toml", "Only a policy of one's own, which nobody can read.", "ok",
         held(b"x = [", published=False))  # fmt: skip
    case("policy-own", "A stricter policy of one's own, met.", "ok", held(OWN % (b"other-issuer", 1250)))
    case("policy-lax", "A policy weaker than the published one, which is met.", "ok", held(OWN % (b"any", 1)))
    two = OWN.replace(b"thresholds = 1", b"thresholds = 2").replace(b'= ["', b'= ["bits_per_token", "')
    case("policy-own-metrics", "A policy of one's own asks for two metrics.", "ok", held(two % (b"any", 1)))
    own = said(CREATOR, evaluator=world.ISSUER)
    for name, description, data in (
        ("own-metrics-one", "A policy of one's own asks for two metrics: two bounds of one are one.",
         held(two % (b"any", 1), bounds=[BITS, BITS | {"max": "5"}])),
        ("own-name", "A stricter policy of one's own rides along under another name.",
         held(OWN % (b"any", 1251), name="evidence/gates.toml")),
        ("own-rows", "A stricter policy of one's own asks for one row more.", held(OWN % (b"any", 1251))),
        ("own-evaluator", "A stricter policy of one's own asks for another key.",
         held(OWN % (b"separate-key", 1), own)),
        ("lax-unmet", "A weaker policy does not loosen the published one.",
         held(OWN % (b"any", 1), said(method__evaluated=99))),
        ("misspelt", "A policy with a gate nobody knows.", held(MISSPELT % (b"any", 1))),
        ("not-toml", "A policy that is not TOML.", held(b"x = [")),
    ):  # fmt: skip
        case(f"policy-{name}", description, "TIER_UNPROVEN", data, "tier")

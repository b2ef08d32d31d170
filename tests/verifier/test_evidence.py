"""Evidence and quality tiers as the verifier judges them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import evidence as made, world
from support.evidence import ASSESSOR_NAME, DAY, FULL, MET, NAME, PUBLISHED, claim, sealed

from sealpack.format import canonical, dsse
from sealpack.format.encryption import EncryptedFile, EncryptionHeader
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import is_document, open_evidence
from sealpack.format.manifest import Manifest, Threshold
from sealpack.verifier import tiers
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.report import Report
from sealpack.verifier.tiers import TierPolicy

TRUST = made.trust()
PUBLISHED_V1 = "368d02508671fe92a8e91cf6a271ae3112badb1af09bf4462540ec5a7eeda93f"
GOOD = sealed().to_bytes()
TEXT = Path(tiers.__file__).with_name("tiers.toml").read_text(encoding="utf-8")


def verify(folder: Path, *evidence: bytes, extra: dict[str, Any] | None = None, **manifest: Any) -> Report:
    path = folder / "x.sealpack"
    path.write_bytes(made.bundle(made.spec(*evidence, extra=extra or {}), **manifest))
    return verify_bundle(path, TRUST)


def line(report: Report, check: str) -> tuple[str, str]:
    (only,) = [c for c in report.checks if c.id == check]
    return only.status, only.detail


def missing(report: Report) -> set[str]:
    """The gates that are not met, of a bundle that failed for its tier alone."""
    (failure,) = report.failures
    assert (failure.id, failure.code) == ("tier", "TIER_UNPROVEN")
    return {f"{g['tier']}/{g['id']}" for g in report.facts["tier"]["gates"] if not g["ok"]}


# --- evidence -------------------------------------------------------------------------------------------


def test_signed_evidence_is_verified_and_shown(tmp_path: Path) -> None:
    report = verify(tmp_path, GOOD)
    assert report.ok
    status, detail = line(report, "evidence")
    assert status == "pass" and "bits_per_token 3.250000" in detail and "1250 rows of letters" in detail
    (fact,) = report.facts["evidence"]
    assert fact["name"] == NAME and fact["signed"] and fact["verified"]
    assert fact["keyid"] == made.ASSESSOR.keyid and fact["evaluator"] == ASSESSOR_NAME
    assert fact["valid_until"] == world.T0 + 364 * DAY and fact["data"]["digest"] == "12" * 32
    assert report.facts["tier"] == {
        "claimed": "Experimental",
        "proven": "Experimental",
        "policies": [],
        "gates": [],
    }


@pytest.mark.parametrize(
    "data",
    [
        b'{"accuracy": 0.97}',
        b"[1]",
        b"not JSON at all",
        b"[" * 100_000,
        b'{"payloadType":1}' + b" " * (1 << 20),
    ],
    ids=["object", "array", "text", "deep", "large"],
)
def test_other_files_are_the_creators_word(tmp_path: Path, data: bytes) -> None:
    assert not is_document(data)
    report = verify(tmp_path, data)
    assert report.ok and line(report, "evidence") == ("pass", "1 unsigned, as stated")
    assert report.facts["evidence"] == [{"name": NAME, "signed": False}]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sealed(world.STRANGER).to_bytes(), "SIG_KEY_UNKNOWN"),
        (sealed(world.LICENSER, evaluator=world.ISSUER).to_bytes(), "SIG_KEY_ROLE"),
        (sealed(world.CREATOR).to_bytes(), "SIG_KEY_ROLE"),
        (sealed(subject__bundle_id="other/tiny").to_bytes(), "SIG_NAMESPACE"),
        (sealed(subject__files__0__sha256="00" * 32).to_bytes(), "EVIDENCE_MISMATCH"),
        (sealed(subject__io_sha256="00" * 32).to_bytes(), "EVIDENCE_MISMATCH"),
        (sealed(metrics__0__value="3e2").to_bytes(), "DOC_SCHEMA"),
        (GOOD.replace(b'"payloadType"', b'"payloadType" '), "JSON_INVALID"),
        (canonical.dumps({"payloadType": "x"}), "DSSE_INVALID"),
        (dsse.sign("application/vnd.in-toto+json", b"{}", world.CREATOR).to_bytes(), "DOC_TYPE"),
    ],
)
def test_a_document_that_does_not_hold_fails_the_bundle(tmp_path: Path, data: bytes, code: str) -> None:
    report = verify(tmp_path, data)
    (failure,) = report.failures
    assert (failure.id, failure.code) == ("evidence", code)
    assert NAME in failure.detail


def test_a_document_is_written_as_it_was_read() -> None:
    said = made.payload()
    read, entry = open_evidence(sealed(), TRUST)
    assert read.to_dict() == said and entry.issuer == read.evaluator
    without = {name: member for name, member in said.items() if name != "notes"}
    assert open_evidence(sealed(notes=made.GONE), TRUST)[0].to_dict() == without


def test_a_revoked_assessor_is_refused_but_for_the_listed(tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(made.bundle(made.spec(GOOD)))
    revoked = {"keyid": made.ASSESSOR.keyid, "good": []}
    report = verify_bundle(path, made.trust(keys=[revoked]))
    assert (report.failures[0].code, report.exit_status) == ("KEY_REVOKED", 4)
    assert verify_bundle(path, made.trust(keys=[revoked | {"good": [sealed().digest]}])).ok


def test_without_a_trust_file_nothing_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.sealpack"
    path.write_bytes(made.bundle(made.spec(GOOD, b"{}"), **claim("Verified"), **FULL))
    report = verify_bundle(path, key=world.CREATOR.public)
    assert report.ok
    assert line(report, "evidence")[1] == "1 signed, not checked without a trust file; 1 unsigned, as stated"
    assert line(report, "tier")[0] == "skip"
    assert report.facts["tier"]["proven"] == "Experimental"
    assert {"name": NAME, "signed": True, "verified": False} in report.facts["evidence"]


# --- tiers ----------------------------------------------------------------------------------------------


def test_a_proven_claim(tmp_path: Path) -> None:
    report = verify(tmp_path, GOOD, **claim("Verified"), **FULL)
    assert report.ok, report.failures
    assert line(report, "tier") == ("pass", "Verified, proven by 7 gates of policy sealpack v1")
    told = report.facts["tier"]
    assert told["proven"] == "Verified" and told["policies"][0]["sha256"] == PUBLISHED
    assert [g["id"] for g in told["gates"]] == [
        *("evidence", "age", "rows", "metric", "samples", "card", "intended_use"),
    ]


def test_a_claim_that_says_not_how_is_shown_as_such(tmp_path: Path) -> None:
    report = verify(tmp_path, quality_tier="Enterprise-Ready")
    assert report.ok
    assert line(report, "tier") == (
        "skip",
        "Enterprise-Ready is claimed, not proven: the manifest does not say how",
    )


@pytest.mark.parametrize(
    ("policies", "reason"),
    [(["ab" * 32], "does not know"), ([PUBLISHED, "ab" * 32], "does not know")],
)
def test_a_policy_nobody_knows_proves_nothing(tmp_path: Path, policies: list[str], reason: str) -> None:
    report = verify(tmp_path, GOOD, **claim("Verified", None, *policies), **FULL)
    assert report.ok
    status, detail = line(report, "tier")
    assert status == "skip" and reason in detail
    assert report.facts["tier"]["proven"] == "Experimental"


def at(**members: Any) -> bytes:
    return sealed(**members).to_bytes()


@pytest.mark.parametrize(
    ("evidence", "thresholds", "manifest", "gates"),
    [
        (b"{}", MET, {}, {"Verified/evidence"}),
        (at(issued_at=world.T0 + 1), MET, {}, {"Verified/age"}),
        (at(issued_at=world.T0 - 365 * DAY), MET, {}, set()),
        (at(issued_at=world.T0 - 365 * DAY - 1), MET, {}, {"Verified/age"}),
        (at(valid_until=world.T0), MET, {}, {"Verified/age"}),
        (at(method__evaluated=100), MET, {}, set()),
        (at(method__evaluated=99), MET, {}, {"Verified/rows"}),
        (at(), [], {}, {"Verified/metric"}),
        (at(), [{"metric": "bits_per_token", "max": "3.25"}], {}, set()),
        (at(), [{"metric": "bits_per_token", "max": "3.249999"}], {}, {"Verified/metric"}),
        (at(), [{"metric": "bits_per_token", "min": "1"}], {}, {"Verified/metric"}),
        (at(), [{"metric": "exact_match", "min": "0.750"}], {}, set()),
        (at(), [*MET, {"metric": "exact_match", "min": "0.76"}], {}, {"Verified/metric"}),
        (at(), [{"metric": "bits_per_token", "max": "7.999999"}], {}, set()),
        (at(), [{"metric": "bits_per_token", "max": "8"}], {}, {"Verified/metric"}),
        (at(), [{"metric": "exact_match", "min": "0.000001"}], {}, set()),
        (at(), [{"metric": "exact_match", "min": "0"}], {}, {"Verified/metric"}),
        (at(), [*MET, {"metric": "exact_match", "min": "0"}], {}, set()),
        (at(metrics__0__baseline=made.GONE), MET, {}, {"Verified/metric"}),
        (at(), [{"metric": "perplexity", "max": "9"}], {}, {"Verified/metric"}),
        (at(metrics__0__name="charm"), [{"metric": "charm", "max": "9"}], {}, {"Verified/metric"}),
        (at(samples__passed=2), MET, {}, {"Verified/samples"}),
        (at(samples={"passed": 2, "total": 2}), MET, {}, {"Verified/samples"}),
        (at(), MET, {"intended_use": " "}, {"Verified/intended_use"}),
    ],
)
def test_each_gate_of_verified(
    tmp_path: Path,
    evidence: bytes,
    thresholds: list[dict[str, str]],
    manifest: dict[str, Any],
    gates: set[str],
) -> None:
    report = verify(tmp_path, evidence, **claim("Verified", thresholds), **(FULL | manifest))
    if not gates:
        assert report.ok, report.failures
        return
    assert missing(report) == gates
    assert report.exit_status == 4
    assert all("remedy" in g for g in report.facts["tier"]["gates"] if not g["ok"])


def test_the_gates_of_enterprise_ready(tmp_path: Path) -> None:
    """Everything of Verified, and an SBOM that no test bundle has: exactly what is missing is named."""
    report = verify(tmp_path, GOOD, **claim("Enterprise-Ready"), **FULL)
    assert missing(report) == {"Enterprise-Ready/sbom", "Enterprise-Ready/license-terms"}
    assert report.facts["tier"]["proven"] == "Verified"
    own = sealed(
        world.CREATOR,
        evaluator=world.ISSUER,
        performance__peak_memory_bytes=made.GONE,
        performance__load_us=made.GONE,
        issued_at=world.T0 - 366 * DAY,
        method__evaluated=999,
    ).to_bytes()
    report = verify(tmp_path, own, **claim("Enterprise-Ready"), intended_use="tests")
    wanted = {"evidence", "age", "rows", "memory", "load", "sbom", "support", "recertify_by", "license-terms"}
    assert missing(report) == {"Verified/age"} | {f"Enterprise-Ready/{gate}" for gate in wanted}


@pytest.mark.parametrize(
    ("day", "met"), [("2026-09-21", False), ("2026-09-22", True), ("2027-09-21", True), ("2027-09-22", False)]
)
def test_recertification_is_due_within_a_year_of_the_day_of_signing(
    tmp_path: Path, day: str, met: bool
) -> None:
    dated = FULL | {"recertify_by": day}
    report = verify(tmp_path, GOOD, **claim("Enterprise-Ready"), **dated)
    assert ("Enterprise-Ready/recertify_by" not in missing(report)) == met


def test_bounds_of_one_metric_count_once() -> None:
    policy = TierPolicy.from_bytes(TEXT.replace("min_thresholds = 1 ", "min_thresholds = 2 ").encode())
    evidence, entry = open_evidence(sealed(), TRUST, "acme/tiny")
    manifest = Manifest.from_bytes(made.spec().members()["manifest.json"])
    proof = tiers.Proof(NAME, evidence, entry.issuer, entry.key.keyid, sealed().digest)
    signer = (world.ISSUER, world.CREATOR.keyid)
    for second, met in (("bits_per_token", False), ("perplexity", False), ("exact_match", True)):
        bound = Threshold(second, min="0.5") if met else Threshold(second, max="5")
        bounds = (Threshold("bits_per_token", max="4"), bound)
        standing = tiers.Standing(manifest, signer, world.T0, (proof,), (35, 50), bounds)
        found = {gate.id: gate.ok for gate in tiers.judge((policy,), "Verified", standing)}
        assert found["metric"] == met


def test_the_best_document_counts(tmp_path: Path) -> None:
    few = at(method__evaluated=3, valid_until=world.T0)
    assert verify(tmp_path, few, b"{}", GOOD, **claim("Verified"), **FULL).ok
    assert verify(tmp_path, GOOD, few, **claim("Verified"), **FULL).ok
    assert missing(verify(tmp_path, few, **claim("Verified"), **FULL)) == {"Verified/age", "Verified/rows"}


def test_a_policy_of_the_creators_own_binds_too(tmp_path: Path) -> None:
    strict = TEXT.replace("min_rows = 100 ", "min_rows = 1251 ").replace('name = "sealpack"', 'name = "acme"')
    own = TierPolicy.from_bytes(strict.encode())
    extra = {tiers.POLICY_NAME: ("evidence", "application/toml", strict.encode())}
    both = claim("Verified", None, PUBLISHED, own.sha256)
    assert missing(verify(tmp_path, GOOD, extra=extra, **both, **FULL)) == {"Verified/rows"}
    more = at(method__evaluated=1251)
    report = verify(tmp_path, more, extra=extra, **both, **FULL)
    assert report.ok and "policy sealpack v1, acme v1" in line(report, "tier")[1]
    assert len(report.facts["evidence"]) == 1  # the policy is no evidence
    alone = claim("Verified", None, own.sha256)
    status, detail = line(verify(tmp_path, more, extra=extra, **alone, **FULL), "tier")
    assert status == "skip" and "no published tier policy" in detail
    junk = {tiers.POLICY_NAME: ("evidence", "application/toml", b"x = [")}
    digest = hashlib.sha256(b"x = [").hexdigest()
    report = verify(tmp_path, more, extra=junk, **claim("Verified", None, PUBLISHED, digest), **FULL)
    assert report.failures[0].code == "TIER_UNPROVEN"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (("min_rows = 100 ", "min_row = 100 "), "min_row"),
        (("min_rows = 100 ", "min_rows = 0 "), "min_rows"),
        (("min_rows = 100 ", "min_rows = 2.5 "), "min_rows"),
        (('"any" ', '"anybody" '), "evaluator"),
        (("[tiers.Verified]", "[tiers.Golden]"), "Golden"),
        (('"latency", "memory"', '"latency", "mood"'), "mood"),
        (("min_thresholds = 1  ", "min_thresholds = 0  "), "min_thresholds"),
        (("tier-policy/v1", "tier-policy/v2"), "schema"),
        (("tensor = [", "sculpture = ["), "sculpture"),
        (("version = 1", "version = "), "TOML"),
    ],
)
def test_policies_are_read_strictly(change: tuple[str, str], place: str) -> None:
    assert change[0] in TEXT
    with pytest.raises(SealpackError) as caught:
        TierPolicy.from_bytes(TEXT.replace(change[0], change[1], 1).encode())
    assert caught.value.code == "CONFIG_INVALID" and place in caught.value.message
    with pytest.raises(SealpackError, match="larger"):
        TierPolicy.from_bytes(b"#" * (tiers.MAX_POLICY_BYTES + 1))


def test_the_published_policy_is_never_edited() -> None:
    """Its digest stands in signed manifests: a change is a new file with the next version."""
    (first,) = tiers.published()
    assert (first.version, first.sha256) == (1, PUBLISHED_V1)


def test_the_page_shows_the_published_gates() -> None:
    page = (Path(__file__).parents[2] / "specs/tiers.md").read_text(encoding="utf-8")
    verified, ready = (tiers.published()[-1].tiers[name] for name in tiers.TIERS[1:])
    for key in ("max_age_days", "min_rows", "min_thresholds", "min_samples"):
        assert f"| `{key}` | {getattr(verified, key)} | {getattr(ready, key)} |" in page
    assert f"| `evaluator` | `{verified.evaluator}` | `{ready.evaluator}` |" in page
    assert f"| `min_sbom_percent` | – | {ready.min_sbom_percent} |" in page and not verified.min_sbom_percent


def test_every_gate_met_is_the_highest_tier() -> None:
    spec = made.spec(GOOD, extra={"license/terms.json": ("license-terms", "application/json", b"{}")})
    value = canonical.loads(spec.members()["manifest.json"]) | FULL
    manifest = Manifest.from_bytes(canonical.dumps(value))
    evidence, entry = open_evidence(sealed(), TRUST, "acme/tiny")
    proof = tiers.Proof(NAME, evidence, entry.issuer, entry.key.keyid, sealed().digest)
    signer = (world.ISSUER, world.CREATOR.keyid)
    bounds = (Threshold("bits_per_token", max="4"),)
    good = tiers.Standing(manifest, signer, world.T0, (proof,), (35, 50), bounds)
    assert tiers.highest(tiers.published(), good) == "Enterprise-Ready"
    assert tiers.highest(tiers.published(), replace(good, sbom=(34, 50))) == "Verified"
    same_house = replace(good, signer=(ASSESSOR_NAME, world.CREATOR.keyid))
    assert tiers.highest(tiers.published(), same_house) == "Verified"
    assert tiers.highest(tiers.published(), replace(good, proofs=())) == "Experimental"


def test_what_is_encrypted_is_not_judged(tmp_path: Path) -> None:
    """Evidence speaks of the plain model, whose digest nobody sees without a key."""
    entry = EncryptedFile("payload/model.gguf", 100, "00" * 24, "11" * 32)
    stored = bytes.fromhex(entry.salt) + bytes.fromhex(entry.commitment)
    spec = made.spec(GOOD, model=stored + bytes(entry.stored_size - len(stored)))
    header = {"encryption": EncryptionHeader((entry,)).to_dict(), "crit": ["encryption"]}
    path = tmp_path / "x.sealpack"
    path.write_bytes(made.bundle(spec, **claim("Verified"), **FULL, **header))
    report = verify_bundle(path, TRUST)
    assert report.ok, report.failures
    assert line(report, "evidence")[0] == "pass"
    status, detail = line(report, "tier")
    assert status == "skip" and "encrypted" in detail
    assert report.facts["tier"]["proven"] == "Experimental"

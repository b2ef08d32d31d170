"""What a team lets in: rules over the facts of a bundle that is already known to be good.

Source: specs/policy.md. Evaluating is pure: a policy, facts of a report and one `now` in, a finding per rule
out. A fact that is not there never meets a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sealpack.format.errors import SealpackError
from sealpack.format.manifest import TIERS
from sealpack.format.values import utc_day
from sealpack.verifier import spdx
from sealpack.verifier.completeness import NOT_APPLICABLE, PRESENT
from sealpack.verifier.policy_file import (
    MODES,
    BundleRules,
    EvidenceRules,
    LicenseRules,
    Policy,
    SbomRules,
    SignerRules,
    TierRules,
    load,
)
from sealpack.verifier.report import Report

__all__ = ["Finding", "Policy", "apply", "evaluate", "load"]

DAY = 86_400
CLOCK_SKEW = DAY  # a stated time may lie this far ahead of `now`


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, compared. `rule` is its place in the policy file."""

    rule: str
    ok: bool
    detail: str


def apply(report: Report, policy: Policy, now: int) -> None:
    """Add a line `policy.<rule>` per rule to the report of a good bundle; one skipped line otherwise.

    A rule that is not met fails with POLICY_DENIED. `now` is Unix seconds. Fact `policy`.
    """
    if not report.ok:
        report.skipped("policy", "not evaluated: the bundle did not pass")
        return
    report.facts["policy"] = {"name": policy.name, "sha256": policy.sha256}
    for found in list(evaluate(policy, report.facts, now)):
        name = f"policy.{found.rule}"
        if found.ok:
            report.passed(name, found.detail)
        else:
            report.failed(name, SealpackError("POLICY_DENIED", found.detail))


def evaluate(policy: Policy, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    """Compare every rule that the policy has with a report's facts, in the order of the specification."""
    yield from _check_signer(policy.signer, facts, now)
    yield from _check_bundle(policy.bundle, facts, now)
    if policy.digests is not None:
        mode = facts.get("content_mode")
        ok = mode in MODES and MODES.index(mode) >= MODES.index(policy.digests)
        yield Finding("content.digests", ok, f"digests checked: {mode or 'none'}; needed: {policy.digests}")
    yield from _check_license(policy.license, facts)
    yield from _check_tier(policy.tier, facts)
    yield from _check_evidence(policy.evidence, facts, now)
    yield from _check_sbom(policy.sbom, facts)


def _check_signer(rules: SignerRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    signer = facts.get("signer", {})
    if rules.issuers is not None:
        issuer = signer.get("issuer") if "trust" in facts else None  # without a keyring nobody names one
        yield _among("signer.issuers", "issuer", issuer, rules.issuers)
    if rules.keyids is not None:
        yield _among("signer.keyids", "key", signer.get("keyid"), rules.keyids)
    if rules.post_quantum:
        ok = facts.get("post_quantum", {}).get("bundle") is True
        told = "there is one that verified" if ok else "there is none that verified"
        yield Finding("signer.post_quantum", ok, f"an ML-DSA signature of the bundle: {told}")
    if rules.max_age_days is not None:
        ok, told = _young("signed", facts.get("signed_at"), rules.max_age_days, now)
        yield Finding("signer.max_age_days", ok, told)


def _among(rule: str, what: str, found: Any, allowed: Sequence[str]) -> Finding:
    told = found if isinstance(found, str) else "not known"
    return Finding(rule, found in allowed, f"{what}: {told}; allowed: {', '.join(allowed)}")


def _young(what: str, at: Any, days: int, now: int) -> tuple[bool, str]:
    """Whether `at` is at most `days` ago, and no more than CLOCK_SKEW ahead."""
    if not isinstance(at, int):
        return False, f"{what}: not known"
    age = now - at
    told = (
        f"{what} {utc_day(at)}, {age // DAY} days ago" if age >= 0 else f"{what} {utc_day(at)}, in the future"
    )
    return -CLOCK_SKEW <= age <= days * DAY, f"{told}; allowed: {days} days"


def _check_bundle(rules: BundleRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    bundle_id = facts.get("bundle_id")
    if rules.ids is not None:
        ok = isinstance(bundle_id, str) and any(_covers(name, bundle_id) for name in rules.ids)
        yield Finding("bundle.ids", ok, f"id: {bundle_id or 'not known'}; allowed: {', '.join(rules.ids)}")
    if rules.kinds is not None:
        yield _among("bundle.kinds", "kind", facts.get("kind"), rules.kinds)
    if rules.min_release:
        yield _release(rules.min_release, bundle_id, facts.get("release_index"))
    if rules.max_bytes is not None:
        size = facts.get("size")
        ok = isinstance(size, int) and size <= rules.max_bytes
        yield Finding("bundle.max_bytes", ok, f"{size} bytes; allowed: {rules.max_bytes}")
    yield from _state("encrypted", rules.encrypted, facts)
    yield from _state("watermark", rules.watermark, facts)
    if rules.custom_operators == "forbidden":
        yield _operators(facts.get("custom_operators"))
    if rules.recertification != "any":
        yield _recertification(rules.recertification, facts.get("recertify_by"), now)


def _covers(namespace: str, bundle_id: str) -> bool:
    return bundle_id == namespace or bundle_id.startswith(f"{namespace}/")


def _release(floors: Mapping[str, int], bundle_id: Any, release: Any) -> Finding:
    floor = floors.get(bundle_id) if isinstance(bundle_id, str) else 0
    if floor is None:
        return Finding("bundle.min_release", True, f"release {release}; none is asked for {bundle_id}")
    ok = isinstance(release, int) and isinstance(bundle_id, str) and release >= floor
    return Finding("bundle.min_release", ok, f"release {release}; at least {floor} is needed")


def _state(what: str, wanted: str, facts: Mapping[str, Any]) -> Iterator[Finding]:
    if wanted != "any":
        found: Any = facts.get(what)
        told = {True: "yes", False: "no"}.get(found, "not known")
        yield Finding(f"bundle.{what}", found is (wanted == "required"), f"{what}: {told}; {wanted}")


def _operators(domains: Any) -> Finding:
    rule = "bundle.custom_operators"
    if not isinstance(domains, list):
        return Finding(rule, False, "the model's header was not read, so its operators are not known")
    told = f"the model needs operators of {', '.join(domains)}" if domains else "no custom operators"
    return Finding(rule, not domains, told)


def _recertification(wanted: str, due: Any, now: int) -> Finding:
    """The day itself is still in time."""
    rule = "bundle.recertification"
    if not isinstance(due, str):
        return Finding(rule, wanted != "required", "no date is stated")
    return Finding(rule, utc_day(now) <= due, f"due by {due}, today is {utc_day(now)}")


def _check_license(rules: LicenseRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """A license that is denied is not one that may be chosen to meet `allowed`."""
    stated = facts.get("license_terms", {}).get("spdx")
    told = f"license: {stated or 'no machine-readable terms'}"
    allowed = {name.casefold() for name in rules.allowed or ()}
    denied = {name.casefold() for name in rules.denied or ()}

    def is_free(license: str) -> bool:
        whole = license.casefold()
        return not {whole, whole.partition(" with ")[0]} & denied

    if rules.allowed is not None:
        ok = bool(stated) and spdx.permitted(stated, lambda n: n.casefold() in allowed and is_free(n))
        yield Finding("license.allowed", ok, f"{told}; allowed: {', '.join(rules.allowed)}")
    if rules.denied is not None:
        ok = bool(stated) and spdx.permitted(stated, is_free)
        yield Finding("license.denied", ok, f"{told}; denied: {', '.join(rules.denied)}")


def _check_tier(rules: TierRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    if rules.minimum is None:
        return
    how = "proven" if rules.proven else "claimed"
    found = facts.get("tier", {}).get(how)
    ok = found in TIERS and TIERS.index(found) >= TIERS.index(rules.minimum)
    yield Finding("tier.minimum", ok, f"tier {how}: {found or 'none'}; at least {rules.minimum} is needed")


def _check_evidence(rules: EvidenceRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    """Documents that verified, each once, narrowed by each rule: the last one sees what meets all before."""
    verified = [fact for fact in facts.get("evidence", ()) if fact.get("verified") is True]
    left = list({fact["digest"]: fact for fact in verified if "digest" in fact}.values())
    if rules.evaluators is not None:
        allowed = rules.evaluators
        told = f"by {', '.join(allowed)}"
        left, found = _narrowed("evaluators", left, told, lambda d: d.get("evaluator") in allowed)
        yield found
    if rules.max_age_days is not None:
        days = rules.max_age_days
        told = f"at most {days} days old"
        left, found = _narrowed(
            "max_age_days", left, told, lambda d: _young("", d.get("issued_at"), days, now)[0]
        )
        yield found
    if rules.unexpired:
        left, found = _narrowed("unexpired", left, "valid now", lambda d: _holds(d, now))
        yield found
    if rules.tasks is not None:
        yield _each("tasks", rules.tasks, [d.get("task") for d in left])
    if rules.metrics is not None:
        yield _each("metrics", rules.metrics, [m["name"] for d in left for m in d.get("metrics", ())])
    if rules.minimum is not None:
        told = f"{len(left)} evidence documents count; {rules.minimum} needed"
        yield Finding("evidence.minimum", len(left) >= rules.minimum, told)


def _holds(document: Mapping[str, Any], now: int) -> bool:
    issued_at, valid_until = document.get("issued_at"), document.get("valid_until")
    if not isinstance(issued_at, int) or not isinstance(valid_until, int):
        return False
    return issued_at - CLOCK_SKEW <= now < valid_until


def _narrowed(
    rule: str, documents: list[Any], told: str, keep: Callable[[Mapping[str, Any]], bool]
) -> tuple[list[Any], Finding]:
    left = [document for document in documents if keep(document)]
    detail = f"{len(left)} of {len(documents)} evidence documents are {told}"
    return left, Finding(f"evidence.{rule}", bool(left), detail)


def _each(rule: str, wanted: Sequence[str], found: Sequence[Any]) -> Finding:
    missing = [name for name in wanted if name not in found]
    told = f"missing: {', '.join(missing)}" if missing else f"all there: {', '.join(wanted)}"
    return Finding(f"evidence.{rule}", not missing, f"{rule} of the evidence, {told}")


def _check_sbom(rules: SbomRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    completeness = facts.get("completeness", {})
    clusters = {cluster["id"]: cluster for cluster in completeness.get("clusters", ())}
    status = {e["id"]: e["status"] for cluster in clusters.values() for e in cluster["elements"]}
    if rules.minimum_percent is not None:
        yield _score("sbom.minimum_percent", "SBOM", completeness, rules.minimum_percent)
    for name, percent in rules.clusters.items():
        yield _score(f"sbom.clusters.{name}", f"SBOM, {name}", clusters.get(name, {}), percent)
    if rules.required is not None:
        missing = [name for name in rules.required if status.get(name) != PRESENT]
        told = f"missing: {', '.join(missing)}" if missing else f"all there: {', '.join(rules.required)}"
        yield Finding("sbom.required", not missing, f"SBOM elements, {told}")
    if rules.max_not_applicable is not None:
        waived = [name for name, said in status.items() if said == NOT_APPLICABLE]
        ok = bool(status) and len(waived) <= rules.max_not_applicable
        named = f" ({', '.join(waived)})" if waived else ""
        told = f"SBOM: {len(waived)} elements declared not applicable{named}"
        yield Finding("sbom.max_not_applicable", ok, f"{told}; allowed: {rules.max_not_applicable}")


def _score(rule: str, what: str, scored: Mapping[str, Any], percent: int) -> Finding:
    present, applicable = scored.get("present"), scored.get("applicable")
    if not isinstance(present, int) or not isinstance(applicable, int):
        return Finding(rule, False, "the SBOM's completeness is not known")
    ok = present * 100 >= percent * applicable
    return Finding(rule, ok, f"{what}: {present} of {applicable} elements; at least {percent} % is needed")

"""What a team lets in: rules over the facts of a bundle that is already known to be good.

Source: specs/policy.md. A policy is a TOML file, read strictly; evaluating it is pure: facts of a report
and one `now` in, a finding per rule out. A fact that is not there never satisfies a rule.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.files import read_bounded
from sealpack.format.io import TASKS
from sealpack.format.manifest import KINDS, TIERS
from sealpack.format.trust import NAMESPACE
from sealpack.verifier import spdx
from sealpack.verifier.completeness import NOT_APPLICABLE, PRESENT
from sealpack.verifier.completeness_elements import CLUSTERS, ELEMENTS
from sealpack.verifier.report import Report

SCHEMA = "sealpack/policy/v1"
MAX_POLICY_BYTES = 256 * 1024
DAY = 86_400
CLOCK_SKEW = DAY  # a stated time may lie this far ahead of `now`
STATES = ("required", "forbidden", "any")
MODES = ("sample", "leaves", "full")  # weakest first
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignerRules:
    """[signer]: who may have signed, how, and how long ago."""

    issuers: tuple[str, ...] | None = None
    keyids: tuple[str, ...] | None = None
    post_quantum: bool = False
    max_age_days: int | None = None


@dataclass(frozen=True, slots=True)
class BundleRules:
    """[bundle]: what the bundle may be. `min_release` maps bundle ids to release indexes; sizes in bytes."""

    ids: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    min_release: Mapping[str, int] = field(default_factory=dict)
    max_bytes: int | None = None
    encrypted: str = "any"
    watermark: str = "any"
    custom_operators: str = "any"
    recertification: str = "any"


@dataclass(frozen=True, slots=True)
class LicenseRules:
    """[license]: SPDX ids, compared without regard to case; a denied id denies it `WITH` exceptions too."""

    allowed: tuple[str, ...] | None = None
    denied: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TierRules:
    """[tier]: the lowest tier let in, as claimed or as proven."""

    minimum: str | None = None
    proven: bool = False


@dataclass(frozen=True, slots=True)
class EvidenceRules:
    """[evidence]: only documents that verified count; each rule narrows what the next one sees."""

    evaluators: tuple[str, ...] | None = None
    max_age_days: int | None = None
    unexpired: bool = False
    tasks: tuple[str, ...] | None = None
    metrics: tuple[str, ...] | None = None
    minimum: int | None = None


@dataclass(frozen=True, slots=True)
class SbomRules:
    """[sbom]: completeness in whole percent of the elements that apply, overall and per cluster."""

    minimum_percent: int | None = None
    clusters: Mapping[str, int] = field(default_factory=dict)
    required: tuple[str, ...] | None = None
    max_not_applicable: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, compared. `rule` is its place in the policy file."""

    rule: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy file; `sha256` is that of its bytes."""

    name: str
    sha256: str
    signer: SignerRules = field(default_factory=SignerRules)
    bundle: BundleRules = field(default_factory=BundleRules)
    digests: str | None = None
    license: LicenseRules = field(default_factory=LicenseRules)
    tier: TierRules = field(default_factory=TierRules)
    evidence: EvidenceRules = field(default_factory=EvidenceRules)
    sbom: SbomRules = field(default_factory=SbomRules)

    @classmethod
    def from_bytes(cls, data: bytes, what: str = "policy") -> Policy:
        """Read a policy file strictly; POLICY_INVALID names the place."""
        try:
            value = tomllib.loads(data.decode("utf-8"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise SealpackError("POLICY_INVALID", f"{what} is not TOML: {error}") from None
        top = _Reader(Fields(value, what, "POLICY_INVALID"))
        top.fields.schema(SCHEMA)
        made = cls(
            name=top.take("name", top.fields.text("name", max_len=200)),
            sha256=hashlib.sha256(data).hexdigest(),
            signer=top.section("signer", _signer, SignerRules()),
            bundle=top.section("bundle", _bundle, BundleRules()),
            digests=top.section("content", _content, None),
            license=top.section("license", _license, LicenseRules()),
            tier=top.section("tier", _tier, TierRules()),
            evidence=top.section("evidence", _evidence, EvidenceRules()),
            sbom=top.section("sbom", _sbom, SbomRules()),
        )
        top.close({"schema"})
        if not made.rules():
            raise SealpackError("POLICY_INVALID", f"{what} has no rule: it would let everything in")
        return made

    def rules(self) -> tuple[str, ...]:
        """The rules it has, by place."""
        return tuple(finding.rule for finding in evaluate(self, {}, 0))


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file; FILE_MISSING, IO_ERROR or POLICY_INVALID."""
    try:
        data = read_bounded(path, MAX_POLICY_BYTES)
    except SealpackError as error:
        if error.code != "JSON_LIMIT":
            raise
        raise SealpackError("POLICY_INVALID", error.message) from None
    return Policy.from_bytes(data, os.fspath(path))


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
        yield Finding("content.digests", ok, f"checked: {mode or 'nothing'}; needed: {policy.digests}")
    yield from _check_license(policy.license, facts)
    yield from _check_tier(policy.tier, facts)
    yield from _check_evidence(policy.evidence, facts, now)
    yield from _check_sbom(policy.sbom, facts)


# --- reading ----------------------------------------------------------------------------------------


class _Reader:
    """One table of the file, which in the end must have no key that nobody asked for."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.known: set[str] = set()

    def take(self, key: str, value: T) -> T:
        """`value`, read from `key`, which is known from now on."""
        self.known.add(key)
        return value

    def section(self, key: str, read: Callable[[_Reader], T], absent: T) -> T:
        """A sub-table, read by `read` and closed; `absent` when it is not there."""
        self.known.add(key)
        sub = self.fields.sub(key, default=None)
        if sub is None:
            return absent
        reader = _Reader(sub)
        value = read(reader)
        reader.close()
        return value

    def close(self, also: frozenset[str] | set[str] = frozenset()) -> None:
        """Refuse unknown keys."""
        known = self.known | also
        for key in self.fields.keys():  # noqa: SIM118 - not a dict
            if key not in known:
                raise self.fields.fail(key, f"is not a known rule; known here: {', '.join(sorted(known))}")

    def texts(
        self, key: str, *, pattern: str | None = None, among: Sequence[str] = ()
    ) -> tuple[str, ...] | None:
        """A list of strings that is not empty, or None when absent."""
        values = self.fields.texts(key, default=None, max_items=1000, pattern=pattern or r"\S(.*\S)?")
        self.known.add(key)
        if values is None:
            return None
        if not values:
            raise self.fields.fail(key, "is empty: leave it out to allow all")
        unknown = [value for value in values if among and value not in among]
        if unknown:
            raise self.fields.fail(key, f"names {unknown[0]!r}; known: {', '.join(among)}")
        return values

    def integer(self, key: str, *, lo: int = 0, hi: int = 2**53 - 1) -> int | None:
        """An integer, or None when absent."""
        return self.take(key, self.fields.integer(key, lo=lo, hi=hi, default=None))

    def flag(self, key: str) -> bool:
        """true or false; absent is false."""
        return self.take(key, self.fields.boolean(key, default=False))

    def choice(self, key: str, allowed: Sequence[str]) -> str | None:
        """One of `allowed`, or None when absent."""
        return self.take(key, self.fields.choice(key, allowed, default=None))

    def integers(self, key: str, *, keys: str, lo: int, hi: int = 2**53 - 1) -> dict[str, int]:
        """A table from names that match `keys` to integers; absent is empty."""
        self.known.add(key)
        sub = self.fields.sub(key, default=None)
        if sub is None:
            return {}
        Fields({"names": list(sub.keys())}, sub.what, sub.code).texts("names", pattern=keys)
        return {name: sub.integer(name, lo=lo, hi=hi) for name in sub.keys()}  # noqa: SIM118


def _signer(r: _Reader) -> SignerRules:
    return SignerRules(
        issuers=r.texts("issuers"),
        keyids=r.texts("keyids", pattern=DIGEST.pattern),
        post_quantum=r.flag("post_quantum"),
        max_age_days=r.integer("max_age_days"),
    )


def _bundle(r: _Reader) -> BundleRules:
    return BundleRules(
        ids=r.texts("ids", pattern=NAMESPACE.pattern),
        kinds=r.texts("kinds", among=KINDS),
        min_release=r.integers("min_release", keys=NAMESPACE.pattern, lo=1),
        max_bytes=r.integer("max_bytes", lo=1),
        encrypted=r.choice("encrypted", STATES) or "any",
        watermark=r.choice("watermark", STATES) or "any",
        custom_operators=r.choice("custom_operators", ("forbidden", "any")) or "any",
        recertification=r.choice("recertification", ("required", "not-overdue", "any")) or "any",
    )


def _content(r: _Reader) -> str | None:
    return r.choice("digests", MODES)


def _license(r: _Reader) -> LicenseRules:
    return LicenseRules(r.texts("allowed"), r.texts("denied"))


def _tier(r: _Reader) -> TierRules:
    rules = TierRules(r.choice("minimum", TIERS), r.flag("proven"))
    if rules.proven and rules.minimum is None:
        raise r.fields.fail("proven", "needs minimum beside it")
    return rules


def _evidence(r: _Reader) -> EvidenceRules:
    return EvidenceRules(
        evaluators=r.texts("evaluators"),
        max_age_days=r.integer("max_age_days"),
        unexpired=r.flag("unexpired"),
        tasks=r.texts("tasks", among=TASKS),
        metrics=r.texts("metrics", pattern=r"[a-z0-9][a-z0-9_]{0,63}"),
        minimum=r.integer("minimum", lo=1),
    )


def _sbom(r: _Reader) -> SbomRules:
    return SbomRules(
        minimum_percent=r.integer("minimum_percent", hi=100),
        clusters=r.integers("clusters", keys="|".join(CLUSTERS), lo=0, hi=100),
        required=r.texts("required", among=[element.id for element in ELEMENTS]),
        max_not_applicable=r.integer("max_not_applicable"),
    )


# --- comparing --------------------------------------------------------------------------------------


def _check_signer(rules: SignerRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    signer = facts.get("signer", {})
    if rules.issuers is not None:
        yield _among("signer.issuers", signer.get("issuer"), rules.issuers)
    if rules.keyids is not None:
        yield _among("signer.keyids", signer.get("keyid"), rules.keyids)
    if rules.post_quantum:
        ok = facts.get("post_quantum", {}).get("bundle") is True
        told = "there is one that verified" if ok else "there is none that verified"
        yield Finding("signer.post_quantum", ok, f"an ML-DSA signature of the bundle: {told}")
    if rules.max_age_days is not None:
        ok, told = _young("signed", facts.get("signed_at"), rules.max_age_days, now)
        yield Finding("signer.max_age_days", ok, told)


def _among(rule: str, found: Any, allowed: Sequence[str]) -> Finding:
    told = found if isinstance(found, str) else "nothing"
    return Finding(rule, found in allowed, f"found: {told}; allowed: {', '.join(allowed)}")


def _young(what: str, at: Any, days: int, now: int) -> tuple[bool, str]:
    """Whether `at` is at most `days` ago, and no more than CLOCK_SKEW ahead."""
    if not isinstance(at, int):
        return False, f"{what}: not known"
    age = now - at
    told = f"{what} {_day(at)}, {age // DAY} days ago" if age >= 0 else f"{what} {_day(at)}, in the future"
    return -CLOCK_SKEW <= age <= days * DAY, f"{told}; allowed: {days} days"


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def _check_bundle(rules: BundleRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    bundle_id = facts.get("bundle_id")
    if rules.ids is not None:
        ok = isinstance(bundle_id, str) and any(_covers(name, bundle_id) for name in rules.ids)
        yield Finding("bundle.ids", ok, f"found: {bundle_id or 'nothing'}; allowed: {', '.join(rules.ids)}")
    if rules.kinds is not None:
        yield _among("bundle.kinds", facts.get("kind"), rules.kinds)
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
        yield Finding(f"bundle.{what}", found is (wanted == "required"), f"{told}; {wanted}")


def _operators(domains: Any) -> Finding:
    rule = "bundle.custom_operators"
    if not isinstance(domains, list):
        return Finding(rule, False, "the model's header was not read, so its operators are not known")
    told = f"the model needs operators of {', '.join(domains)}" if domains else "none"
    return Finding(rule, not domains, told)


def _recertification(wanted: str, due: Any, now: int) -> Finding:
    """The day itself is still in time."""
    rule = "bundle.recertification"
    if not isinstance(due, str):
        return Finding(rule, wanted != "required", "no date is stated")
    return Finding(rule, _day(now) <= due, f"due by {due}, today is {_day(now)}")


def _check_license(rules: LicenseRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """A license that is denied is not one that may be chosen to meet `allowed`."""
    stated = facts.get("license_terms", {}).get("spdx")
    told = stated or "no machine-readable terms"
    allowed = {name.casefold() for name in rules.allowed or ()}
    denied = {name.casefold() for name in rules.denied or ()}

    def is_free(license: str) -> bool:
        whole = license.casefold()
        return not {whole, whole.partition(" with ")[0]} & denied

    if rules.allowed is not None:
        ok = bool(stated) and spdx.permitted(stated, lambda n: n.casefold() in allowed and is_free(n))
        yield Finding("license.allowed", ok, f"found: {told}; allowed: {', '.join(rules.allowed)}")
    if rules.denied is not None:
        ok = bool(stated) and spdx.permitted(stated, is_free)
        yield Finding("license.denied", ok, f"found: {told}; denied: {', '.join(rules.denied)}")


def _check_tier(rules: TierRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    if rules.minimum is None:
        return
    how = "proven" if rules.proven else "claimed"
    found = facts.get("tier", {}).get(how)
    ok = found in TIERS and TIERS.index(found) >= TIERS.index(rules.minimum)
    yield Finding("tier.minimum", ok, f"{how}: {found or 'nothing'}; at least {rules.minimum} is needed")


def _check_evidence(rules: EvidenceRules, facts: Mapping[str, Any], now: int) -> Iterator[Finding]:
    """Documents that verified, narrowed by each rule: what the last one sees meets all before it."""
    left = [fact for fact in facts.get("evidence", ()) if fact.get("verified") is True]
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
        left, found = _narrowed("unexpired", left, "still valid", lambda d: d.get("valid_until", 0) > now)
        yield found
    if rules.tasks is not None:
        yield _each("tasks", rules.tasks, [d.get("task") for d in left])
    if rules.metrics is not None:
        yield _each("metrics", rules.metrics, [m["name"] for d in left for m in d.get("metrics", ())])
    if rules.minimum is not None:
        told = f"{len(left)} documents count; {rules.minimum} needed"
        yield Finding("evidence.minimum", len(left) >= rules.minimum, told)


def _narrowed(
    rule: str, documents: list[Any], told: str, keep: Callable[[Mapping[str, Any]], bool]
) -> tuple[list[Any], Finding]:
    left = [document for document in documents if keep(document)]
    detail = f"{len(left)} of {len(documents)} signed documents are {told}"
    return left, Finding(f"evidence.{rule}", bool(left), detail)


def _each(rule: str, wanted: Sequence[str], found: Sequence[Any]) -> Finding:
    missing = [name for name in wanted if name not in found]
    told = f"missing: {', '.join(missing)}" if missing else f"all there: {', '.join(wanted)}"
    return Finding(f"evidence.{rule}", not missing, told)


def _check_sbom(rules: SbomRules, facts: Mapping[str, Any]) -> Iterator[Finding]:
    completeness = facts.get("completeness", {})
    clusters = {cluster["id"]: cluster for cluster in completeness.get("clusters", ())}
    status = {e["id"]: e["status"] for cluster in clusters.values() for e in cluster["elements"]}
    if rules.minimum_percent is not None:
        yield _score("sbom.minimum_percent", completeness, rules.minimum_percent)
    for name, percent in rules.clusters.items():
        yield _score(f"sbom.clusters.{name}", clusters.get(name, {}), percent)
    if rules.required is not None:
        missing = [name for name in rules.required if status.get(name) != PRESENT]
        told = f"missing: {', '.join(missing)}" if missing else f"all there: {', '.join(rules.required)}"
        yield Finding("sbom.required", not missing, told)
    if rules.max_not_applicable is not None:
        waived = [name for name, said in status.items() if said == NOT_APPLICABLE]
        ok = bool(status) and len(waived) <= rules.max_not_applicable
        named = f" ({', '.join(waived)})" if waived else ""
        told = f"{len(waived)} declared not applicable{named}; allowed: {rules.max_not_applicable}"
        yield Finding("sbom.max_not_applicable", ok, told)


def _score(rule: str, scored: Mapping[str, Any], percent: int) -> Finding:
    present, applicable = scored.get("present"), scored.get("applicable")
    if not isinstance(present, int) or not isinstance(applicable, int):
        return Finding(rule, False, "the SBOM's completeness is not known")
    ok = present * 100 >= percent * applicable
    return Finding(rule, ok, f"{present} of {applicable} elements; at least {percent} % is needed")

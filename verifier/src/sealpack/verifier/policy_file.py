"""A policy file: which rules there are, and the strict reading of them.

Source: specs/policy.md, "Format". An unknown key is an error: a misspelt rule must not be an open door.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sealpack.format.errors import SealpackError
from sealpack.format.fields import DIGEST, Fields
from sealpack.format.files import read_bounded
from sealpack.format.io import TASKS
from sealpack.format.manifest import KINDS, TIERS
from sealpack.format.trust import NAMESPACE
from sealpack.verifier.completeness_elements import CLUSTERS, ELEMENTS

SCHEMA = "sealpack/policy/v1"
MAX_POLICY_BYTES = 256 * 1024
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
        if made == cls(made.name, made.sha256):
            raise SealpackError("POLICY_INVALID", f"{what} has no rule: it would let everything in")
        return made


def load(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file; FILE_MISSING, IO_ERROR or POLICY_INVALID."""
    try:
        data = read_bounded(path, MAX_POLICY_BYTES)
    except SealpackError as error:
        if error.code != "JSON_LIMIT":
            raise
        raise SealpackError("POLICY_INVALID", error.message) from None
    return Policy.from_bytes(data, os.fspath(path))


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

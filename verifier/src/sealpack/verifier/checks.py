"""The checks of a bundle, cheap ones first.

Source: specs/verification.md. Order: container, signature, trust, manifest, consistency, licenses and
trust documents that ride along, then content. A failed structural step ends the run (what follows would
speak of bytes nobody vouches for); content failures are all collected.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from sealpack.format import documents
from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.files import io_error
from sealpack.format.keys import PublicKey
from sealpack.format.license import License, open_license
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.statement import Statement
from sealpack.format.trust import ROOT_ROLES, KeyEntry, Trust
from sealpack.format.words import fingerprint_words
from sealpack.verifier import content, evidence, hashing
from sealpack.verifier.hashing import Mode, Progress
from sealpack.verifier.report import Report
from sealpack.verifier.signature import GivenKeys, check_signature


@dataclass(slots=True)
class Verified:
    """What a good bundle turned out to be; for the runtime's install."""

    manifest: Manifest
    statement: Statement
    trust: Trust | None
    licenses: tuple[License, ...]


def verify_bundle(
    path: str | os.PathLike[str],
    trust: Trust | None = None,
    *,
    key: PublicKey | None = None,
    mldsa_key: PublicKey | None = None,
    leaves_only: bool = False,
    sample: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Check the bundle at `path` against a trust file or one public key, and report every check.

    With `trust`, signer, role, namespace, revocations and floors are checked too; with `key` alone only
    that this key signed, and `mldsa_key` too where it is given; a bundle that has an ML-DSA signature is
    not passed without a key for it.

    `leaves_only` skips the sequential whole-file digests of payload (the chunk tables are complete
    integrity by themselves); `sample` hashes that many chunks of each payload file, chosen at random,
    which is *not* complete. `progress(n)` is called with bytes hashed.
    Never raises for a bad bundle; USAGE when neither trust nor key is given, or two modes are.
    """
    return inspect_bundle(
        path, trust, key=key, mldsa_key=mldsa_key, leaves_only=leaves_only, sample=sample, progress=progress
    )[0]


def inspect_bundle(
    path: str | os.PathLike[str],
    trust: Trust | None = None,
    *,
    key: PublicKey | None = None,
    mldsa_key: PublicKey | None = None,
    leaves_only: bool = False,
    sample: int | None = None,
    progress: Progress | None = None,
) -> tuple[Report, Verified | None]:
    """:func:`verify_bundle`, with the parsed values of a bundle that passed."""
    given = GivenKeys(key, mldsa_key) if key is not None else None
    if trust is None and given is None:
        raise SealpackError("USAGE", "say whom you trust: a trust file or the creator's public key")
    mode = Mode.of(leaves_only, sample)
    report = Report(os.fspath(path))
    run = _Run(report, trust, given)
    try:
        with BundleReader.open(path) as bundle:
            report.passed("container", f"{len(bundle.names)} entries, {bundle.size} bytes, canonical layout")
            run.envelope(bundle)
            run.contents(bundle, mode, progress or (lambda _: None))
    except SealpackError as error:
        if error.spec.exit in (1, 2):
            raise
        report.failed(run.step, error)
    except OSError as error:  # a disk that fails while we read
        raise io_error(error, path, "read") from None
    return report, run.result() if report.ok else None


class _Run:
    """One verification. `step` names the check being made, for the failure line."""

    def __init__(self, report: Report, trust: Trust | None, given: GivenKeys | None) -> None:
        self.report, self.trust, self.given = report, trust, given
        self.step = "container"
        self.statement: Statement
        self.manifest: Manifest
        self.licenses: list[License] = []

    def result(self) -> Verified:
        return Verified(self.manifest, self.statement, self.trust, tuple(self.licenses))

    def envelope(self, bundle: BundleReader) -> None:
        """Everything but content: signature, trust, manifest, consistency, what rides in META."""
        self._carried_trust(bundle)
        self._signature(bundle)
        self._manifest(bundle)
        self._revocations()
        self._licenses(bundle)

    def _carried_trust(self, bundle: BundleReader) -> None:
        self.step = "trust"
        names = [n for n in bundle.entries if n.startswith("META/trust/")]
        total = sum(bundle.entries[n].item.size for n in names)
        if total > LIMITS.parcel_bytes:  # nobody has vouched for them: read no more than of a trust file
            told = f"trust documents of {total} bytes, limit {LIMITS.parcel_bytes}"
            raise SealpackError("CONTAINER_LIMIT", told)
        carried = [_trust_member(bundle, n) for n in names]
        if self.trust is None:
            self.report.skipped("trust", "no trust file given: only the one public key is checked")
            return
        before = self.trust
        self.trust = before.update(carried)
        self.report.passed(
            "trust",
            f"root {self.trust.root_digest[:16]} v{self.trust.root.version}, keyring "
            f"v{self.trust.keyring.version}, revocations v{self.trust.revocations.version}"
            + (" (newer ones came with the bundle)" if self.trust != before else ""),
        )
        self.report.facts["trust"] = {
            "root": {
                "version": self.trust.root.version,
                "digest": self.trust.root_digest,
                "words": fingerprint_words(self.trust.root_digest),
            },
            "keyring": {"version": self.trust.keyring.version, "issued_at": self.trust.keyring.issued_at},
            "revocations": {
                "version": self.trust.revocations.version,
                "issued_at": self.trust.revocations.issued_at,
            },
            "updated": self.trust != before,
        }

    def _signature(self, bundle: BundleReader) -> None:
        self.step = "signature"
        whom = self.trust if self.trust is not None else self.given
        assert whom is not None
        signed = check_signature(bundle, whom)
        self.statement = signed.statement
        self.report.passed("signature", str(signed))
        self.report.facts |= {
            "signer": _signer(signed.entry),
            "signed_at": self.statement.signed_at,
            "post_quantum": {
                "bundle": signed.post_quantum,
                **{r: self.trust is not None and self.trust.root.post_quantum(r) for r in ROOT_ROLES},
            },
        }

    def _manifest(self, bundle: BundleReader) -> None:
        self.step = "manifest"
        said = self.statement
        if "manifest.json" not in bundle.entries:
            raise SealpackError("MANIFEST_MISMATCH", "there is no manifest.json")
        data = bundle.read("manifest.json")
        digest = hashlib.sha256(data).hexdigest()
        if digest != said.manifest_sha256 or digest != said.resources.get("manifest.json"):
            raise SealpackError(
                "DIGEST_MISMATCH",
                "manifest.json is not the one that was signed",
                expected=said.manifest_sha256,
                found=digest,
            )
        self.manifest = Manifest.from_bytes(data)
        if (self.manifest.bundle_id, self.manifest.release_index) != (said.bundle_id, said.release_index):
            raise SealpackError("MANIFEST_MISMATCH", "manifest and signature name different releases")
        self._names(bundle)
        m = self.manifest
        self.report.facts |= {
            "bundle_id": m.bundle_id,
            "version": m.version,
            "release_index": m.release_index,
            "bundle_digest": digest,
            "kind": m.kind,
            "name": m.name,
            **{k: v for k in ("intended_use", "description", "support") if (v := getattr(m, k))},
            "quality_tier": m.quality_tier,
            "size": bundle.size,
            **({"recertify_by": m.recertify_by} if m.recertify_by else {}),
            "watermark": m.watermark is not None,
            "encrypted": m.encryption is not None,
            "files": [{"name": e.name, "role": e.role, "size": e.size, "sha256": e.sha256} for e in m.files],
        }
        self.report.passed(
            "manifest",
            f"{m.bundle_id} {m.version}, {len(m.files)} files, all signed",
            expected=said.manifest_sha256,
            found=digest,
        )

    def _names(self, bundle: BundleReader) -> None:
        listed = {e.name: e.sha256 for e in self.manifest.files}
        own = {"manifest.json": self.statement.manifest_sha256, "mimetype": content.MIMETYPE_SHA256}
        if self.statement.resources != listed | own:
            raise SealpackError("SIG_RESOURCES", "signed resources and manifest files are not the same")
        if set(bundle.signed_names) != set(self.statement.resources):
            raise SealpackError("SIG_RESOURCES", "the bundle's entries are not the signed ones")
        for entry in self.manifest.files:
            if bundle.entries[entry.name].item.size != entry.size:
                raise SealpackError("MANIFEST_MISMATCH", f"{entry.name} has another size than stated")

    def _revocations(self) -> None:
        if self.trust is None:
            return
        self.step = "revocation"
        lists, m = self.trust.revocations, self.manifest
        if m.bundle_digest in lists.bundles:
            raise SealpackError("BUNDLE_REVOKED", f"{m.bundle_id} {m.version} was withdrawn")
        floor = lists.floors.get(m.bundle_id, 0)
        if m.release_index < floor:
            told = f"release {m.release_index} is below the floor {floor}"
            raise SealpackError(
                "BUNDLE_FLOOR",
                told,
                expected=f"release {floor} or newer",
                found=f"release {m.release_index}",
            )
        self.report.passed("revocation", f"not withdrawn, floor {floor}")

    def _licenses(self, bundle: BundleReader) -> None:
        names = [n for n in bundle.entries if n.startswith("META/license/")]
        if not names:
            return
        self.step = "licenses"
        if self.trust is None:
            raise SealpackError("SIG_KEY_UNKNOWN", "licenses ride along; give a trust file to check them")
        for name in names:
            license = open_license(_envelope(bundle, name), self.trust)
            if name != f"META/license/{license.license_id}.json":
                raise SealpackError("CONTAINER_META", f"{name} holds license {license.license_id}")
            self._license_fits(license, name)
            self.licenses.append(license)
        self.report.passed("licenses", ", ".join(li.license_id for li in self.licenses))

    def _license_fits(self, license: License, name: str) -> None:
        m = self.manifest
        marked_for_another = m.watermark is not None and m.watermark.license_id != license.license_id
        if marked_for_another or not license.covers(m.bundle_id, m.version, m.bundle_digest):
            raise SealpackError("CONTAINER_META", f"{name} is for another bundle")
        if self.trust is not None and license.license_id in self.trust.revocations.licenses:
            raise SealpackError("LIC_REVOKED", f"license {license.license_id} was revoked")

    def contents(self, bundle: BundleReader, mode: Mode, progress: Progress) -> None:
        """Hash every file, then look into the ones whose content speaks of others."""
        self.step = "content"
        found = hashing.check_content(bundle, self.manifest.files, mode, progress)
        self.report.facts |= found.facts
        for error in found.failures:
            self.report.failed("content", error)
        if found.failures:
            return
        self.report.passed("content", found.detail)
        self.report.facts |= content.card(bundle, self.manifest)
        for self.step, look in content.LOOKS:
            if self.step == "model" and not found.complete:  # nothing is parsed that is not verified
                self.report.skipped("model", "sampled: the header is read only when all bytes were checked")
                continue
            self.report.passed(self.step, look(bundle, self.manifest, self.report.facts))
        self.step = "evidence"
        proofs = evidence.check(bundle, self.manifest, self.trust, self.report)
        self.step = "tier"
        evidence.check_tier(bundle, self.manifest, self.trust, proofs, self.report)


def _signer(entry: KeyEntry) -> dict[str, Any]:
    """Whose key signed, and what else the keyring says of that key."""
    return entry.summary() | {
        "words": fingerprint_words(entry.key.keyid),
        "roles": sorted(entry.roles),
        "namespaces": list(entry.namespaces),
        "status": entry.status,
    }


def _trust_member(bundle: BundleReader, name: str) -> Envelope:
    """A trust document whose kind, and version if it is a root, are those its name states."""
    envelope = _envelope(bundle, name)
    stem = name.removeprefix("META/trust/").removesuffix(".json")
    kind, _, version = stem.partition(".")
    if envelope.payload_type != documents.payload_type(kind):
        raise SealpackError("CONTAINER_META", f"{name} holds another kind of document")
    if version and documents.payload_fields(envelope, kind, "TRUST_INVALID").integer("version") != int(
        version
    ):
        raise SealpackError("CONTAINER_META", f"{name} holds another version")
    return envelope


def _envelope(bundle: BundleReader, name: str) -> Envelope:
    return Envelope.from_bytes(bundle.read(name, 2 * LIMITS.document_bytes), name)

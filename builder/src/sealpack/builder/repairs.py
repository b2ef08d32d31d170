"""What an issuer does for a site in need: repair documents, and site codes for kits.

Source: specs/activation.md, "repair", and specs/encryption.md, "Site key". Pure: keys, trust, records and
`now` are passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sealpack.builder.build_record import BuildRecord
from sealpack.builder.licensing import Issuer
from sealpack.format import documents
from sealpack.format.activation import ActivationRequest
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.repair import Repair
from sealpack.format.site_key import MAX_SITE_KEYS, SiteKey, new_code


def repair(
    license: License,
    issuer: Issuer,
    request: ActivationRequest,
    issued_at: int,
    *,
    now: int | None = None,
    epoch: int | None = None,
    fingerprint: bool = False,
) -> Envelope:
    """A signed repair for the asking device, read back as it would; times in Unix seconds.

    USAGE when it would repair nothing, or the request does not say what is asked for.
    """
    if fingerprint and request.fingerprint is None:
        raise SealpackError("USAGE", f"the request of {request.device_id} tells no hardware")
    made = Repair(
        license.license_id,
        request.device_id,
        request.digest,
        request.nonce,
        issued_at,
        now,
        epoch,
        request.fingerprint if fingerprint else None,
    )
    if not made.says_something:
        raise SealpackError("USAGE", "a repair of what? give --now, --epoch or --fingerprint")
    envelope = documents.seal("repair", made.to_dict(), *issuer.signers)
    Repair.open(envelope, issuer.trust, license.issuer)
    return envelope


def with_site_keys(license: License, records: Iterable[BuildRecord]) -> tuple[License, str]:
    """A license that carries the keys of these builds under a fresh code, and the code.

    USAGE without a record or with too many; BUNDLE_MISMATCH for a record of another build.
    """
    builds = {record.bundle_digest: record for record in records}
    if not 0 < len(builds) <= MAX_SITE_KEYS:
        raise SealpackError(
            "USAGE", f"a site code opens 1 to {MAX_SITE_KEYS} encrypted builds, not {len(builds)}: see --seal"
        )
    for record in builds.values():
        record.check_license(license)
    code = new_code()
    keys = tuple(
        SiteKey.seal(code, record.key.input_key, digest, license.license_id)
        for digest, record in sorted(builds.items())
    )
    return replace(license, site_keys=keys), code

"""Keys of encrypted builds that a site code opened.

Source: specs/encryption.md, "Site key". The code is typed once: the key it opens is wrapped for this
device's own key and kept so, the code is kept nowhere.
"""

from __future__ import annotations

import sqlite3

from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.license import License
from sealpack.format.site_key import SiteKey, read_code
from sealpack.runtime import device
from sealpack.runtime.rights import Rights
from sealpack.runtime.state import State


def enter(state: State, license: License, code: str) -> tuple[str, ...]:
    """Open every build of a license that has a site key; their digests. KEY_UNWRAP, nothing kept then."""
    code = read_code(code)
    if not license.site_keys:
        raise SealpackError(
            "KEY_UNWRAP",
            f"license {license.license_id} takes no site code",
            remedy="run `sealpack activate request --out FILE` and send the file to the vendor",
        )
    name = device.name(device.key(state.home, create=True))
    own = device.hpke_key(state.home, create=True).public
    wrapped = []
    for locked in license.site_keys:
        key = locked.open(code, license.license_id)
        wrapped.append(own.wrap(key, locked.bundle_digest, license.license_id, name))
    with state.write() as db:
        for made in wrapped:
            db.execute(
                "INSERT OR REPLACE INTO site_keys VALUES(?,?,?)",
                (license.license_id, made.bundle_digest, made.enc_ct),
            )
    return tuple(made.bundle_digest for made in wrapped)


def input_key(state: State, license: License, bundle_digest: str) -> bytes | None:
    """The input key of a build that was opened by its code; None when the license has none for it.

    KEY_UNWRAP when the code was not entered yet, or on another device.
    """
    locked = _site_key(license, bundle_digest)
    if locked is None:
        return None
    with state.read() as db:
        row = db.execute(
            "SELECT enc_ct FROM site_keys WHERE license_id=? AND bundle_digest=?",
            (license.license_id, bundle_digest),
        ).fetchone()
    if row is None:
        raise _not_entered(license, bundle_digest)
    name = device.name(device.key(state.home))
    wrapped = WrappedKey(bundle_digest, row[0])
    return device.hpke_key(state.home).unwrap(wrapped, license.license_id, name)


def require_entered(db: sqlite3.Connection, found: Rights, bundle_digest: str) -> None:
    """KEY_UNWRAP for a build that only a site code opens here, while that was not entered."""
    license, held = found.license, found.activation.keys if found.activation else ()
    if _site_key(license, bundle_digest) is None or any(key.bundle_digest == bundle_digest for key in held):
        return
    row = db.execute(
        "SELECT 1 FROM site_keys WHERE license_id=? AND bundle_digest=?", (license.license_id, bundle_digest)
    ).fetchone()
    if row is None:
        raise _not_entered(license, bundle_digest)


def _not_entered(license: License, bundle_digest: str) -> SealpackError:
    return SealpackError(
        "KEY_UNWRAP",
        f"bundle {bundle_digest[:16]} is encrypted, and its site code was not entered yet",
        remedy=f"run `sealpack activate site-code --license {license.license_id}` and type the code",
    )


def _site_key(license: License, bundle_digest: str) -> SiteKey | None:
    return next((key for key in license.site_keys or () if key.bundle_digest == bundle_digest), None)

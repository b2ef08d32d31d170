"""Answering a device's request: the one way in which an issuer and a delegate do it.

Source: specs/activation.md, "Issuing". Whose seat it is and which keys go along is theirs to say.
"""

from __future__ import annotations

import secrets
from typing import Any

from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPublicKey
from sealpack.format.license import License


def check(request: ActivationRequest, license: License) -> None:
    """LEASE_MISMATCH for a request for another license, USAGE for keys in files under one bound to a TPM."""
    if request.license_id not in (None, license.license_id):
        raise SealpackError(
            "LEASE_MISMATCH", f"the request asks for {request.license_id}, not {license.license_id}"
        )
    if license.devices.binding == "tpm" and request.key_store != "tpm":
        raise SealpackError(
            "USAGE",
            f"license {license.license_id} is bound to a TPM, {request.device_id} keeps its keys in files",
            remedy="issue a license with --binding key+fp, or ask for a request from a machine with a TPM",
        )


def hpke_key(request: ActivationRequest) -> HybridPublicKey:
    """What keys of encrypted bundles are wrapped for; USAGE for a request that brings none."""
    if request.hpke_key is None:
        raise SealpackError(
            "USAGE",
            f"device {request.device_id} sent no key to wrap the keys of encrypted bundles for",
            remedy="update sealpack on the device and ask for a new `activate request`",
        )
    return request.hpke_key


def activation(
    license: License,
    request: ActivationRequest,
    keys: tuple[WrappedKey, ...],
    now: int,
    *,
    secret: str | None = None,
    **more: Any,
) -> Activation:
    """What answers the request under the license at `now`, Unix seconds; `more` are further members.

    `secret` (hex) is for the confirmation code, random when it is not given.
    """
    return Activation(
        license_id=license.license_id,
        license_digest=license.digest,
        device_id=request.device_id,
        device_key=request.device_key,
        request_digest=request.digest,
        nonce=request.nonce,
        issued_at=now,
        device_label=request.device_label or license.device_label,
        keys=keys,
        confirmation=secret or secrets.token_hex(16),
        fingerprint=request.fingerprint,
        **more,
    )

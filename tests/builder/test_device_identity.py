"""Issuing to a device: its fingerprint is repeated, and what it cannot be held to is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from builder.conftest import T0
from support.world import ISSUER, LICENSER, make_trust

from sealpack.builder import licensing
from sealpack.builder.licensing import Issued, Issuer, Offer
from sealpack.builder.presets import DAY
from sealpack.format import documents
from sealpack.format.activation import Activation, ActivationRequest
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, Customer
from sealpack.format.terms import Terms

TRUST = make_trust()
WHO = Issuer(LICENSER, TRUST)
TERMS = Terms("MIT", "license/LICENSE.txt", "0" * 64)
OFFER = Offer("pro", "L-1", Customer("nord", "Hospital Nord"), (BundleGrant("acme/x"),), TERMS, ends=T0 + DAY)
PARTS = "28af194d3a5672744f36d6a8"


def request(**members: Any) -> ActivationRequest:
    key = PrivateKey.from_seed(b"\1" * 32)
    made = ActivationRequest(key.public, "ab" * 16, T0, TRUST.root_digest, "test", **members)
    return ActivationRequest.open(documents.seal("activation-request", made.to_dict(), key))


def issue(binding: str, **members: Any) -> Issued:
    license = licensing.draft(replace(OFFER, binding=binding), ISSUER, T0)
    return licensing.activate(licensing.issue(license, WHO), WHO, request(**members), now=T0)


def test_the_activation_repeats_the_fingerprint() -> None:
    issued = issue("key+fp", fingerprint=PARTS, key_store="file")
    assert issued.activation is not None and issued.holds_hardware
    opened = Activation.open(issued.activation, TRUST)
    assert (opened.fingerprint, opened.nonce) == (PARTS, "ab" * 16)


def test_a_request_of_an_older_runtime_is_answered_and_said() -> None:
    issued = issue("key+fp")
    assert issued.activation is not None and not issued.holds_hardware
    assert Activation.open(issued.activation, TRUST).fingerprint is None
    assert not issue("key+fp", fingerprint="28af194d5000000060000000").holds_hardware, "a board alone"
    assert issue("key").holds_hardware, "nothing was asked for"


@pytest.mark.parametrize("store", [None, "file"])
def test_a_license_bound_to_a_tpm_needs_keys_in_one(store: str | None) -> None:
    assert issue("tpm", key_store="tpm", fingerprint=PARTS).device_id
    with pytest.raises(SealpackError, match="keeps its keys in files") as caught:
        issue("tpm", key_store=store)
    assert caught.value.code == "USAGE"

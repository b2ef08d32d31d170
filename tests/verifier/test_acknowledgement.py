"""Acknowledgements: what settlement signs is what a device reads, with or without a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import world

from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Lease, device_id
from sealpack.format.keys import PrivateKey

TRUST = world.make_trust()
DEVICE = device_id(PrivateKey.from_seed(b"sealpack-test-ack-device-0000001").public)
ACK = Acknowledgement("sealpack/usage/L-1/d/0", "L-1", DEVICE, 0, 512, "5" * 64, 1, world.T0)
LEASE = documents.seal(
    "lease", Lease("L-1", DEVICE, 0, 2, world.T0, world.T0 + 60, ()).to_dict(), world.SETTLEMENT
)


@pytest.mark.parametrize(
    "said",
    [ACK, replace(ACK, lease=LEASE, frozen=True), replace(ACK, trust=TRUST.envelopes, previous="6" * 64)],
)
def test_round_trip(said: Acknowledgement) -> None:
    envelope = documents.seal("acknowledgement", said.to_dict(), world.SETTLEMENT)
    assert Acknowledgement.open(envelope, TRUST) == replace(said, digest=envelope.digest)
    assert ("lease" in said.to_dict()) == (said.lease is not None)

"""What a device signs itself names the key it introduces: one spelling of each document, not many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support import world
from support.device import Device

from sealpack.format import documents
from sealpack.format.activation import ActivationRequest, device_id, log_origin
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.note import sign_checkpoint
from sealpack.format.reading import Reading

DEVICE = PrivateKey.from_seed(b"sealpack-test-signing-device-001")
NAME = device_id(DEVICE.public)
REQUEST = ActivationRequest(DEVICE.public, "0" * 32, world.T0, "1" * 64, "sealpack 0.3.0", None, None)
CLOSED = Deactivation(
    "L-1", DEVICE.public, 0, log_origin("L-1", NAME, 0), 2, "2" * 64, "3" * 64, "4" * 32, world.T0
)


READING = Reading.open(Parcel.from_bytes(Device(number=7).use(3).reading()).documents[0])
READING = replace(READING, device_key=DEVICE.public, note=sign_checkpoint(READING.checkpoint, DEVICE))


@pytest.mark.parametrize(
    ("kind", "made", "read"),
    [
        ("activation-request", REQUEST, ActivationRequest.open),
        ("deactivation", CLOSED, Deactivation.open),
        ("reading", READING, Reading.open),
    ],
)
def test_another_name_beside_a_good_signature(kind: str, made: Any, read: Callable[[Envelope], Any]) -> None:
    good = documents.seal(kind, made.to_dict(), DEVICE)
    assert read(good) == made
    (signature,) = good.signatures
    renamed = replace(good, signatures=(replace(signature, keyid=world.STRANGER.keyid),))
    with pytest.raises(SealpackError) as caught:
        read(renamed)
    assert caught.value.code == "SIG_KEY_UNKNOWN"

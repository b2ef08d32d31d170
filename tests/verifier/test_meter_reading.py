"""Meter readings: what one says, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from support.device import Device

from sealpack.format import documents
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.reading import Reading
from sealpack.format.records import MAX_ROUTES


def device() -> Device:
    return Device().use(3).use(2, status="err").tally()


def taken(data: bytes) -> Reading:
    (envelope,) = Parcel.from_bytes(data).documents
    return Reading.open(envelope)


def payload(**members: Any) -> dict[str, Any]:
    return taken(device().reading()).to_dict() | members


def code(said: dict[str, Any]) -> str:
    with pytest.raises(SealpackError) as caught:
        Reading.open(documents.seal("reading", said, device().key))
    return caught.value.code


@pytest.mark.parametrize("ack_seq", [0, 4])
def test_what_a_reading_says(ack_seq: int) -> None:
    own = device()
    found = taken(own.reading(ack_seq=ack_seq))
    assert found.checkpoint.size == own.size and found.ack_seq == ack_seq
    assert found.registers.totals["r1", "err", "calls"] == 2
    again = Reading.open(documents.seal("reading", found.to_dict(), own.key))
    assert again == found and ("ack_seq" in found.to_dict()) == bool(ack_seq)


CALLS = {"calls": 1}


@pytest.mark.parametrize(
    "registers",
    [
        {"r1": {}},
        {"r1": {"ok": {}}},
        {"r1": {"maybe": CALLS}},
        {"r1": {"ok": {"gold": 1}}},
        {"r1": {"ok": {"calls": 0}}},
        {"r2": {"ok": CALLS}},
        {"R 1": {"ok": CALLS}},
        {f"r{n}": {"ok": CALLS} for n in range(MAX_ROUTES + 1)},
    ],
)
def test_registers_that_are_none(registers: dict[str, Any]) -> None:
    assert code(payload(registers=registers)) == "DOC_SCHEMA"


def test_a_checkpoint_of_another_key() -> None:
    other = Device(number=2).use(3)
    assert code(payload(checkpoint=taken(other.reading()).note.decode())) == "CHECKPOINT_INVALID"


def test_two_signatures() -> None:
    sealed = documents.seal("reading", payload(), device().key, Device(number=2).key)
    with pytest.raises(SealpackError, match="DOC_SCHEMA"):
        Reading.open(sealed)

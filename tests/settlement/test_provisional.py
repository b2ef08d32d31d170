"""Usage before the activation: a log that began without one is settled and billed once there is one."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from support import world
from support.books import NOW, Books
from support.device import BUNDLE, T0, Device, make_license

from sealpack.format import documents, records
from sealpack.format.activation import Activation
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.license import Provisional
from sealpack.format.registry import RegistryLine
from sealpack.settlement import billing

DAY = 86_400
LATER = T0 + 20 * DAY  # in October


class Kit(Device):
    """A device that began before it was activated, and was activated in the next month."""

    def put(self, kind: str, **members: Any) -> None:
        if kind == records.GENESIS:
            members["activation"] = None
        super().put(kind, **members)

    @property
    def activation(self) -> Envelope:
        made = Activation.open(super().activation, world.make_trust())
        value = made.to_dict() | {"issued_at": LATER}
        return documents.seal("activation", value, world.LICENSER)

    @property
    def license_line(self) -> bytes:
        """What the registry has of it before the activation."""
        return RegistryLine(self.license_envelope, bundles=(BUNDLE,)).to_bytes() + b"\n"


def kit(**members: Any) -> Kit:
    license = make_license(provisional=Provisional(48 * 3600, 1000), **members)
    return Kit(license=license)


def test_a_log_that_began_without_an_activation_is_taken_once_there_is_one(books: Books) -> None:
    device = kit().work(30)
    books.learn()
    books.take("license.jsonl", device.license_line)
    early = device.export(activation=None)
    assert books.code(early) == "R302"  # nobody knows the device yet
    books.take("registry.jsonl", device.line())
    (outcome,) = books.ingest(early)
    assert (outcome.code, outcome.accepted) == ("OK", device.size)
    assert "activation" not in records.parse_record(device.leaves[0]).body
    device.wait(20 * DAY * 1000).work(5)
    assert books.code(device.export(outcome.accepted), NOW + 30 * DAY) == "OK"
    assert books.log(device).state.registers == device.registers


def test_the_activation_in_the_file_is_enough(books: Books) -> None:
    device = kit().work(3)
    books.learn()
    books.take("license.jsonl", device.license_line)
    assert books.code(device.export()) == "OK"


@pytest.mark.parametrize("provisional", [True, False])
def test_what_ran_before_the_activation_is_billed_when_it_ran(books: Books, provisional: bool) -> None:
    device = kit() if provisional else Kit(license=make_license())
    for _ in range(4):
        device.wait(60_000).use(calls=10)
    device.tally()
    books.learn(device)
    assert books.code(device.export()) == "OK"

    def september() -> Any:
        made = billing.bill(books.database, "L-1", date(2026, 9, 1), date(2026, 11, 5), draft=True)
        return json.loads(made.json)

    if provisional:
        assert [line["raw"] for line in september()["lines"]] == ["48"]
    else:
        with pytest.raises(SealpackError, match="starts on 2026-10-"):
            september()

"""What an issuer can tell of a fingerprint: the kinds of its parts."""

from __future__ import annotations

import pytest

from sealpack.format.activation import names_machine


@pytest.mark.parametrize(
    ("fingerprint", "enough"),
    [
        (None, False),
        ("28af194d", False),
        ("4000000140000002", False),  # two network cards are one kind
        ("28af194d500000006000000070000000", False),
        ("28af194df0000000", False),
        ("28af194d3a567274", True),
        ("1000000040000000", True),
    ],
)
def test_two_kinds_that_differ_from_machine_to_machine_are_enough(
    fingerprint: str | None, enough: bool
) -> None:
    assert names_machine(fingerprint) is enough

"""Proofs of closing, confirmation codes, parts of a license-wide quota. Single faults: the vectors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import world
from support.device import make_license, seal_license

from sealpack.format import confirmation, documents
from sealpack.format.activation import Activation, Ceiling, device_id, log_origin
from sealpack.format.deactivation import Deactivation
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.leasing import ceilings, next_lease
from sealpack.format.license import Allowance, LeaseTerms, Quota
from sealpack.format.registry import Confirmed, RegistryLine

DEVICE = PrivateKey.from_seed(b"sealpack-test-closing-device-001")
ID = device_id(DEVICE.public)
SAID = Deactivation(
    "L-1",
    DEVICE.public,
    2,
    log_origin("L-1", ID, 2),
    9,
    "ab" * 32,
    "cd" * 32,
    "0" * 32,
    world.T0,
    {"calls": 3},
)
CODE = confirmation.code("00" * 16, "dev-" + "1" * 32, "2" * 64, "3" * 64)


def test_a_proof_reads_as_it_was_written() -> None:
    sealed = documents.seal("deactivation", SAID.to_dict(), DEVICE)
    opened = Deactivation.open(sealed)
    assert opened == SAID
    assert (opened.device_id, opened.digest) == (ID, sealed.digest)


def test_an_activation_carries_secret_and_parts() -> None:
    made = Activation(
        "L-1", "1" * 64, ID, DEVICE.public, "2" * 64, "0" * 32, world.T0,
        shares=(Ceiling("calls", 600),), confirmation="0f" * 16,
    )  # fmt: skip
    sealed = documents.seal("activation", made.to_dict(), world.LICENSER)
    assert Activation.open(sealed, world.make_trust()) == Activation.read(sealed) == made
    assert "shares" not in replace(made, shares=()).to_dict(), "as earlier versions wrote it"


@pytest.mark.parametrize("text", ["2PKJ-AASP-3", "2pkjaasp3", " 2pkj aasp 3", "2PKJ-AASP-3 "])
def test_a_code_as_people_type_it(text: str) -> None:
    assert confirmation.heard(text) == CODE == "2PKJ-AASP-3"


def test_letters_that_look_like_digits_are_those_digits() -> None:
    number = 0
    text = f"{number:08}0"
    assert confirmation.heard(text.replace("0", "o")) == "0000-0000-0"
    assert confirmation.heard("ooooooo1i") == confirmation.heard("0000000Ll") == "0000-0001-1"


def test_every_wrong_character_and_every_swap_is_noticed() -> None:
    plain = CODE.replace("-", "")
    for place in range(9):
        for char in "0123456789ABCDEFGHJKMNPQRSTVWXYZ":
            if char != plain[place]:
                with pytest.raises(SealpackError) as caught:
                    confirmation.heard(plain[:place] + char + plain[place + 1 :])
                assert caught.value.code == "CONFIRMATION_INVALID"
    for place in range(7):
        if plain[place] != plain[place + 1]:
            swapped = plain[:place] + plain[place + 1] + plain[place] + plain[place + 2 :]
            with pytest.raises(SealpackError, match="typing error"):
                confirmation.heard(swapped)


@pytest.mark.parametrize("text", ["", "2PKJ-AASP", "2PKJ-AASP-33", "2PKJ-AASU-3", "２PKJ-AASP-3"])
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(SealpackError, match="not a code like"):
        confirmation.heard(text)


def test_each_of_its_inputs_changes_the_code() -> None:
    base = ["00" * 16, ID, "2" * 64, "3" * 64]
    others = ["01" * 16, "dev-" + "0" * 32, "4" * 64, "5" * 64]
    codes = {confirmation.code(*base)}
    codes |= {confirmation.code(*base[:n], other, *base[n + 1 :]) for n, other in enumerate(others)}
    assert len(codes) == 5


def test_parts_of_an_activation_take_the_place_of_the_equal_ones() -> None:
    pool = Quota("calls", "term", "license", 1000, None, "deny")
    own = Quota("items", "term", "device", 50, None, "deny")
    license = make_license(
        quota=(pool, own),
        devices=replace(make_license().devices, max=4),
        lease=LeaseTerms(allowance=(Allowance("tok_out", 9),)),
    )
    shares = (Ceiling("calls", 600), Ceiling("items", 1))
    assert ceilings(license, {}) == (Ceiling("calls", 250), Ceiling("tok_out", 9), Ceiling("items", 50))
    given = ceilings(license, {"tok_out": 1}, shares)
    assert given == (Ceiling("calls", 600), Ceiling("tok_out", 10), Ceiling("items", 50))
    lease = next_lease(license, ID, 0, 1, world.T0, {}, shares=shares)
    assert lease.ceilings[0] == Ceiling("calls", 600)


def test_registry_lines_of_a_seat() -> None:
    license = seal_license(make_license())
    proof = documents.seal("deactivation", SAID.to_dict(), DEVICE)
    for line in (
        RegistryLine(license, deactivation=proof, released_at=world.T0),
        RegistryLine(license, confirmed=Confirmed("1" * 64, world.T0)),
    ):
        assert RegistryLine.from_bytes(line.to_bytes()) == line
    with pytest.raises(SealpackError, match="released_at"):
        RegistryLine.from_bytes(RegistryLine(license, deactivation=proof).to_bytes())

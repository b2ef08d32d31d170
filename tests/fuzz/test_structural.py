"""Good bundles damaged structurally: never a pass, never an error without a code."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import structural
from sealpack.verifier.checks import verify_bundle


@pytest.fixture(params=structural.GOOD)
def base(request: pytest.FixtureRequest) -> bytes:
    return structural.GOOD[request.param]()


def test_the_bundles_are_good_and_raw_zips_of_them_too(tmp_path: Path, base: bytes) -> None:
    path = tmp_path / "good.sealpack"
    path.write_bytes(base)
    assert verify_bundle(path, structural.trust_file()).ok
    assert structural.raw(structural.entries_of(base)) == base
    assert structural.relaid(structural.entries_of(base)) == base


def test_the_carrying_bundle_has_everything_that_can_ride_along() -> None:
    names = {name for name, _ in structural.entries_of(structural.carrying_bundle())}
    assert {"META/trust/keyring.json", "META/license/L-1.json"} <= names
    assert b"META/pad.0" in structural.carrying_bundle()


def test_a_sample_of_all_damage_is_refused(tmp_path: Path, base: bytes) -> None:
    run = structural.sample(tmp_path / "x.sealpack", base, structural.other_bundle())
    assert run.accepted == []
    assert run.cases > 1500
    # the damage reaches both layers
    assert {"CONTAINER_TAIL", "CONTAINER_HEADER", "CONTAINER_CRC", "SIG_INVALID", "DIGEST_MISMATCH"} <= set(
        run.codes
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_damage_is_refused(tmp_path: Path, base: bytes) -> None:
    run = structural.everything(tmp_path / "x.sealpack", base, structural.other_bundle())
    assert run.accepted == []
    assert run.cases > 500_000

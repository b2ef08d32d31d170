"""Site codes: their spelling, and the keys they open."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from support.site import make_license, seal_license
from support.world import make_trust

from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.license import ClockRules, License, open_license
from sealpack.format.site_key import SiteKey, new_code, read_code

CODE = "01234-56789-ABCDE-FGHDQ"
KEY = hashlib.sha256(b"sealpack TEST build key").digest()
DIGEST, LICENSE = "ab" * 32, "L-1"
N = 1 << 15
SALT = bytes(range(16))
# Of specs/encryption.md, "Site key".
SEALED = "44ebaab29d29753eb427c6af79c7bc6004dbb91d2b4c7874ab3331b89e2d9fe667186bf7c33fa78c84681da1a452c3d0"


def locked(code: str = CODE) -> SiteKey:
    return SiteKey.seal_with(code, KEY, DIGEST, LICENSE, SALT, N)


def refusal(act: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        act()
    return caught.value.code


def test_the_example_of_the_page() -> None:
    assert read_code(CODE) == CODE
    assert locked() == SiteKey(DIGEST, N, SALT.hex(), SEALED)
    assert locked().open(CODE, LICENSE) == KEY


def test_new_codes_are_random_and_read_back() -> None:
    codes = {new_code() for _ in range(20)}
    assert len(codes) == 20
    assert all(read_code(code) == code and len(code) == 23 for code in codes)


@pytest.mark.parametrize(
    "typed",
    [
        CODE.lower(),
        CODE.replace("-", ""),
        f"  {CODE.replace('-', ' ')}\n",
        "O" + CODE[1:],
        CODE[0] + "I" + CODE[2:],
        CODE[0] + "l" + CODE[2:],
    ],
)
def test_how_people_type_it(typed: str) -> None:
    assert read_code(typed) == CODE


@pytest.mark.parametrize(
    "typed", ["", CODE[:-1], CODE + "0", "U" + CODE[1:], "1" + CODE[1:], CODE[:-1] + "0", "é" + CODE[1:]]
)
def test_slips_are_named_before_any_work(typed: str) -> None:
    with pytest.raises(SealpackError) as caught:
        locked().open(typed, LICENSE)
    assert caught.value.code == "KEY_UNWRAP"
    assert "four groups of five" in caught.value.remedy


def test_a_site_key_opens_for_one_code_license_and_build_only() -> None:
    found = SiteKey.seal(CODE, KEY, DIGEST, LICENSE, n=N)
    assert found.salt != SiteKey.seal(CODE, KEY, DIGEST, LICENSE, n=N).salt
    assert found.open(CODE.lower(), LICENSE) == KEY
    assert refusal(lambda: found.open(new_code(), LICENSE)) == "KEY_UNWRAP"
    assert refusal(lambda: found.open(CODE, "L-2")) == "KEY_UNWRAP"
    assert refusal(lambda: replace(found, bundle_digest="cd" * 32).open(CODE, LICENSE)) == "KEY_UNWRAP"
    assert refusal(lambda: replace(found, sealed="00" * 48).open(CODE, LICENSE)) == "KEY_UNWRAP"


GOOD = {"bundle_digest": DIGEST, "n": N, "salt": "00" * 16, "sealed": "00" * 48}


@pytest.mark.parametrize(
    "members",
    [
        {"bundle_digest": "ab"},
        {"n": 1 << 14},
        {"n": 1 << 18},
        {"n": N + 1},
        {"salt": "00" * 15},
        {"sealed": "00" * 47},
        {"sealed": None},
    ],
)
def test_what_is_no_site_key(members: dict[str, Any]) -> None:
    assert SiteKey.parse(Fields(GOOD, "site key")) == SiteKey(**GOOD)  # type: ignore[arg-type]
    assert refusal(lambda: SiteKey.parse(Fields(GOOD | members, "site key"))) == "DOC_SCHEMA"


def test_a_license_carries_site_keys_and_a_clock_rule() -> None:
    for rules in (ClockRules("deny"), ClockRules("continue")):
        license = make_license(site_keys=(locked(),), clock=rules)
        assert open_license(seal_license(license), make_trust()) == license
    bare = make_license().to_dict()
    assert "clock" not in bare and "site_keys" not in bare
    assert License.parse(Fields(bare | {"clock": {}}, "license")).clock == ClockRules("continue")
    for wrong in ({"clock": {"on_back": "stop"}}, {"clock": []}, {"site_keys": [GOOD] * 17}):
        assert refusal(lambda w=wrong: License.parse(Fields(bare | w, "license"))) == "DOC_SCHEMA"

"""The repair document: who may sign it, and what it must say."""

from __future__ import annotations

from typing import Any

import pytest
from support import world

from sealpack.format import documents
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.repair import Repair

MEMBERS: dict[str, Any] = {
    "license_id": "L-1",
    "device_id": "dev-" + "0" * 32,
    "request_digest": "ef" * 32,
    "nonce": "0" * 32,
    "issued_at": world.T0,
    "now": world.T0,
}
TRUST = world.make_trust()


def opened(key: PrivateKey = world.LICENSER, issuer: str | None = None, **members: Any) -> Repair:
    payload = {k: v for k, v in (MEMBERS | members).items() if v is not None}
    return Repair.open(documents.seal("repair", payload, key), TRUST, issuer)


def test_a_round_trip() -> None:
    made = opened(epoch=2, fingerprint="a0123456", issuer=world.ISSUER)
    assert made.to_dict() == MEMBERS | {"epoch": 2, "fingerprint": "a0123456"}
    assert made.digest
    for alone in ({"epoch": 0}, {"fingerprint": "a0123456"}):
        assert opened(now=None, **alone).now is None


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("DOC_SCHEMA", {"now": None}),
        ("DOC_SCHEMA", {"now": -1}),
        ("DOC_SCHEMA", {"device_id": "ward"}),
        ("DOC_SCHEMA", {"nonce": "00"}),
        ("DOC_SCHEMA", {"fingerprint": "a"}),
        ("DOC_CRIT", {"crit": ["clears"]}),
        ("SIG_KEY_ROLE", {"key": world.SETTLEMENT}),
        ("SIG_KEY_UNKNOWN", {"key": world.STRANGER}),
        ("SIG_KEY_ROLE", {"issuer": "Other Models (test)"}),
    ],
)
def test_what_is_no_repair(code: str, members: dict[str, Any]) -> None:
    with pytest.raises(SealpackError) as caught:
        opened(**members)
    assert caught.value.code == code


def test_another_kind() -> None:
    lease = documents.seal("lease", MEMBERS, world.LICENSER)
    with pytest.raises(SealpackError) as caught:
        Repair.open(lease, TRUST)
    assert caught.value.code == "DOC_TYPE"

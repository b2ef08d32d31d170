"""Epoch tokens: leave to begin a further log, from the license's own issuer alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import world

from sealpack.format import documents
from sealpack.format.epoch_token import EpochToken
from sealpack.format.errors import SealpackError

TRUST = world.make_trust()
TOKEN = EpochToken("L-1", "dev-" + "0" * 32, 2, world.T0)


@pytest.mark.parametrize("key", [world.LICENSER, world.SETTLEMENT])
@pytest.mark.parametrize("token", [TOKEN, replace(TOKEN, reason="the disk was replaced")])
def test_what_is_signed_is_what_is_read(token: EpochToken, key: world.PrivateKey) -> None:
    envelope = documents.seal("epoch-token", token.to_dict(), key)
    assert EpochToken.open(envelope, TRUST, world.ISSUER) == token
    assert EpochToken.open(envelope, TRUST).digest == envelope.digest
    assert ("reason" in token.to_dict()) == (token.reason is not None)


def test_another_issuer_gives_no_leave() -> None:
    envelope = documents.seal("epoch-token", TOKEN.to_dict(), world.SETTLEMENT)
    with pytest.raises(SealpackError, match="SIG_KEY_ROLE"):
        EpochToken.open(envelope, TRUST, "Other Models (test)")

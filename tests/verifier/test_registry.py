"""Registry lines: written once, read strictly, errors named by line (specs/registry-line.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import world
from support.device import BUNDLE, T0, make_license, seal_license

from sealpack.format import canonical, documents
from sealpack.format.activation import Activation, Lease, device_id
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.registry import MAX_LINE_BYTES, RegistryLine, read_lines
from sealpack.format.values import plain

DEVICE = PrivateKey.from_seed(b"sealpack-test-registry-device-01")
ID = device_id(DEVICE.public)
LICENSE = seal_license(make_license())
ACTIVATION = documents.seal(
    "activation",
    Activation("L-1", "1" * 64, ID, DEVICE.public, "2" * 64, "0" * 32, T0).to_dict(),
    world.LICENSER,
)
LEASE = documents.seal("lease", Lease("L-1", ID, 0, 1, T0, None, ()).to_dict(), world.LICENSER)
BUNDLE_DICT = plain(BUNDLE)
WHOLE = RegistryLine(LICENSE, ACTIVATION, LEASE, (BUNDLE,))


@pytest.mark.parametrize("line", [WHOLE, RegistryLine(LICENSE), RegistryLine(LICENSE, lease=LEASE)])
def test_round_trip(line: RegistryLine) -> None:
    assert RegistryLine.from_bytes(line.to_bytes()) == line


def test_lines_of_a_file_in_their_order() -> None:
    lines = [WHOLE, RegistryLine(LICENSE)]
    data = b"\n\n".join(line.to_bytes() for line in lines) + b"\n"
    assert list(read_lines(data)) == lines
    assert list(read_lines(b"\n")) == []


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"license": None}, "REGISTRY_INVALID", "license is missing"),
        ({"license": ACTIVATION.to_dict()}, "REGISTRY_INVALID", "license is of kind activation"),
        ({"activation": LEASE.to_dict()}, "REGISTRY_INVALID", "activation is of kind lease"),
        ({"lease": LICENSE.to_dict()}, "REGISTRY_INVALID", "lease is of kind license"),
        ({"lease": {}}, "DSSE_INVALID", "lease"),
        ({"schema": "sealpack/registry-line/v2"}, "REGISTRY_INVALID", "schema"),
        ({"crit": ["escrow"]}, "DOC_CRIT", "escrow"),
        ({"bundles": None}, "REGISTRY_INVALID", "bundles is missing"),
        ({"bundles": [{}]}, "REGISTRY_INVALID", "bundle_digest"),
        ({"bundles": [{**BUNDLE_DICT, "release_index": 0}]}, "REGISTRY_INVALID", "release_index"),
        ({"bundles": [BUNDLE_DICT] * 257}, "REGISTRY_INVALID", "256"),
    ],
)
def test_a_faulty_line_is_named(change: dict[str, Any], code: str, told: str) -> None:
    value = json.loads(WHOLE.to_bytes()) | change
    faulty = canonical.dumps({k: v for k, v in value.items() if v is not None})
    with pytest.raises(SealpackError, match=f"{code}.*registry line 2.*{told}"):
        list(read_lines(WHOLE.to_bytes() + b"\n" + faulty + b"\n"))


@pytest.mark.parametrize("line", [b"x", b"[]", b'{"a":1,"a":2}', b" {}", b'"' + b"x" * MAX_LINE_BYTES + b'"'])
def test_a_line_that_is_no_json_object_is_a_fault_of_the_registry(line: bytes) -> None:
    with pytest.raises(SealpackError, match=r"REGISTRY_INVALID.*site line 1"):
        list(read_lines(line, "site"))

"""Write the acknowledgement vectors: `python specs/vectors/acknowledgement/generate.py [FOLDER]`.

Each case is `case.json` and `acknowledgement.json`, opened with the `trust.json` beside the cases; so is the
lease inside.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

from typing import Any

from support import world
from support.vectors import Cases
from support.world import LICENSER, SETTLEMENT, STRANGER, T0

from sealpack.format import canonical, documents, dsse
from sealpack.format.activation import device_id, log_origin
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PrivateKey

DEVICE = PrivateKey.from_seed(b"sealpack test vector device key!")
ID = device_id(DEVICE.public)
LEASE: dict[str, Any] = {
    "license_id": "L-1", "device_id": ID, "epoch": 0, "lease_seq": 2, "issued_at": T0, "ceilings": [],
}  # fmt: skip
ACK: dict[str, Any] = {
    "origin": log_origin("L-1", ID, 0),
    "license_id": "L-1",
    "device_id": ID,
    "epoch": 0,
    "size": 3,
    "root": "ab" * 32,
    "ack_seq": 1,
    "server_time": T0,
    "outcomes": [{"sha256": "cd" * 32, "code": "OK", "accepted": 3}],
    "held": [{"start": 3, "end": 5, "code": "H101", "detail": "receipts are missing"}],
    "statement": "3 calls settled",
    "trust": [],
}


def sealed(key: PrivateKey = SETTLEMENT, **members: Any) -> Envelope:
    """An acknowledgement with other members (None: removed)."""
    value = {"schema": "sealpack/acknowledgement/v1"} | ACK | members
    body = canonical.dumps({k: v for k, v in value.items() if v is not None})
    return dsse.sign(documents.payload_type("acknowledgement"), body, key)


def main(folder: Path) -> None:
    """Write one folder per case, and the trust file."""
    cases = Cases()

    def add(name: str, description: str, expect: str, envelope: Envelope) -> None:
        cases.add(name, description, expect, {"acknowledgement.json": envelope.to_bytes()})

    lease = documents.seal("lease", LEASE, SETTLEMENT).to_dict()
    trust = [e.to_dict() for e in world.make_trust().envelopes]
    add("good", "Three leaves settled, two held.", "ok", sealed())
    add(
        "good-lease",
        "With the next lease and the newest trust documents.",
        "ok",
        sealed(lease=lease, trust=trust),
    )
    add("frozen", "Two histories were signed under this log's name.", "ok", sealed(frozen=True))
    add("frozen-text", "Frozen is said in words.", "DOC_SCHEMA", sealed(frozen="yes"))
    add("second", "It names the one before.", "ok", sealed(ack_seq=2, previous="ef" * 32, prune_below=3))
    forged = documents.seal("lease", LEASE, STRANGER).to_dict()
    add("lease-forged", "The lease inside is a stranger's.", "SIG_KEY_UNKNOWN", sealed(lease=forged))
    add("lease-text", "The lease inside is no envelope.", "DSSE_INVALID", sealed(lease="lease"))
    add("trust-text", "A trust document that is no envelope.", "DSSE_INVALID", sealed(trust=["x"]))
    add("stranger", "Signed by a stranger.", "SIG_KEY_UNKNOWN", sealed(STRANGER))
    add("licenser", "Signed by the license key.", "SIG_KEY_ROLE", sealed(LICENSER))
    good = sealed()
    changed = good.payload.replace(b'"size":3', b'"size":4')
    add(
        "changed",
        "The size was changed.",
        "SIG_INVALID",
        Envelope(good.payload_type, changed, good.signatures),
    )
    for name, description, members in (
        ("seq-0", "ack_seq starts at 1.", {"ack_seq": 0}),
        ("root", "A root of another length.", {"root": "ab"}),
        ("device", "A device id of another form.", {"device_id": "ward-1"}),
        ("outcome", "An outcome of another form.", {"outcomes": [ACK["outcomes"][0] | {"code": "FINE"}]}),
        ("held", "A held range without its end.", {"held": [{"start": 1, "code": "H101"}]}),
        ("size", "A negative size.", {"size": -1}),
        ("trust-many", "More trust documents than allowed.", {"trust": trust * 6}),
    ):  # fmt: skip
        add(f"field-{name}", description, "DOC_SCHEMA", sealed(**members))
    add("crit", "It requires what this version does not know.", "DOC_CRIT", sealed(crit=["x"]))
    add("kind", "A lease.", "DOC_TYPE", documents.seal("lease", LEASE, SETTLEMENT))
    cases.write(folder)
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)

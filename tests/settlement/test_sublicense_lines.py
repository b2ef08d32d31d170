"""What settlement takes of a delegate's registry: the parent, and nothing the delegate signed."""

from __future__ import annotations

from support import world
from support.books import Books
from support.device import T0, make_license, seal_license

from sealpack.format import documents
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Delegation, Devices
from sealpack.format.registry import RegistryLine
from sealpack.settlement import db, registry

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")


def test_a_delegates_line_makes_its_parent_known_and_activates_nothing(books: Books) -> None:
    parent = make_license(devices=Devices("key", 5), delegation=Delegation((DELEGATE.public.pem,)))
    above = seal_license(parent)
    named = {"license_id": parent.license_id, "seq": parent.seq, "digest": above.digest}
    own = {"license_id": f"{parent.license_id}.ward", "seq": 1, "issued_at": T0, "parent": named}
    sub = documents.seal("sublicense", own, DELEGATE)
    activation = documents.seal("activation", {"license_id": own["license_id"]}, DELEGATE)
    line = RegistryLine(above, activation, sublicense=sub)
    books.take("trust.json", world.make_trust().to_bytes())
    books.take("registry.jsonl", line.to_bytes() + b"\n")
    with books.database.read() as connection:
        assert registry.load_license(connection, parent.license_id) is not None
        assert registry.load_license(connection, f"{parent.license_id}.ward") is None
    assert books.rows(db.activations) == []

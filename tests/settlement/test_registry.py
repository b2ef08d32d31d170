"""What settlement lets in: trust pinned once, and nothing it does not vouch for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support import rating_plans, world
from support.books import CUSTOMERS, Books
from support.device import BUNDLE, T0, Device, make_license, seal_license

from sealpack.format import documents
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.license import BundleGrant
from sealpack.format.registry import RegistryLine
from sealpack.format.trust import Trust
from sealpack.settlement import db, importing, parties, registry


def refused(books: Books, name: str, data: bytes) -> str:
    before = {
        table.name: books.rows(table) for table in db.metadata.sorted_tables if table.primary_key.columns
    }
    with pytest.raises(SealpackError) as caught:
        books.take(name, data)
    after = {
        table.name: books.rows(table) for table in db.metadata.sorted_tables if table.primary_key.columns
    }
    assert after == before
    return caught.value.code


# --- trust ------------------------------------------------------------------------------------------


def test_the_first_trust_file_is_pinned(books: Books) -> None:
    trust = world.make_trust()
    assert books.take("trust.json", trust.to_bytes()) == f"pinned root {trust.root_digest[:16]}"
    assert books.take("trust.json", trust.to_bytes()) == "trust: keyring v1, revocations v1"


def test_another_root_is_refused(books: Books) -> None:
    books.take("trust.json", world.make_trust().to_bytes())
    other = world.make_root(keys=(world.ROOT, world.STRANGER))
    foreign = world.Trust.from_envelopes(other, world.make_keyring(), world.make_revocations())
    assert refused(books, "trust.json", foreign.to_bytes()) == "TRUST_CONFLICT"


def test_newer_trust_is_taken_and_older_ignored(books: Books) -> None:
    old = world.make_trust()
    new = world.Trust.from_envelopes(world.make_root(), world.make_keyring(3), world.make_revocations(2))
    for trust in (old, new, old):
        books.take("trust.json", trust.to_bytes())
    with books.database.read() as connection:
        known = registry.load_trust(connection)
    assert (known.keyring.version, known.revocations.version) == (3, 2)


def test_trust_that_travels_in_a_parcel_counts(books: Books) -> None:
    books.take("trust.json", world.make_trust().to_bytes())
    newer = world.make_revocations(2, devices=["dev-" + "0" * 32])
    books.take("news.license", Parcel((newer,)).to_bytes())
    with books.database.read() as connection:
        assert registry.load_trust(connection).revocations.version == 2


def test_nothing_signed_comes_in_before_trust(books: Books) -> None:
    assert refused(books, "registry.jsonl", Device().line()) == "TRUST_UNPINNED"
    assert refused(books, "ward.license", Device().parcel()) == "TRUST_UNPINNED"


# --- licenses ---------------------------------------------------------------------------------------


def test_a_registry_line_brings_license_activation_and_bundle(books: Books) -> None:
    device = Device()
    books.learn()
    assert books.take("registry.jsonl", device.line() * 2) == "2 registry lines"
    assert [row["license_id"] for row in books.rows(db.licenses)] == ["L-1"]
    (activation,) = books.rows(db.activations)
    assert (activation["device_id"], activation["device_label"]) == (device.id, "ward 3")
    assert [row["digest"] for row in books.rows(db.bundles)] == [BUNDLE.bundle_digest]


def test_a_registry_outlives_the_keys_that_signed_in_it(books: Books) -> None:
    """What a revoked key signed is left out and told; the lines before and after it are taken."""
    first, lost, half = (Device(make_license(license_id=f"L-{n}"), number=n) for n in (1, 2, 3))
    good = [first.license_envelope.digest, first.activation.digest, half.license_envelope.digest]
    key = {"keyid": world.LICENSER.keyid, "good": sorted(good)}
    books.learn()
    books.take("trust.json", Trust.from_envelopes(
        world.make_root(), world.make_keyring(), world.make_revocations(2, keys=[key])
    ).to_bytes())  # fmt: skip
    data = lost.line() + half.line() + first.line()
    told = "3 registry lines; what a revoked key signed in 2 of them was left out"
    assert books.take("registry.jsonl", data) == books.take("registry.jsonl", data) == told
    assert sorted(row["license_id"] for row in books.rows(db.licenses)) == ["L-1", "L-3"]
    assert [row["license_id"] for row in books.rows(db.activations)] == ["L-1"]
    assert refused(books, "lost.license", Parcel((lost.license_envelope,)).to_bytes()) == "KEY_REVOKED"
    stranger = documents.seal("license", make_license().to_dict(), world.STRANGER)
    line = RegistryLine(stranger).to_bytes() + b"\n"
    assert refused(books, "registry.jsonl", first.line() + line) == "LIC_KEY_UNTRUSTED"


def test_a_license_file_brings_license_and_activation(books: Books) -> None:
    books.learn()
    assert books.take("ward.license", Device().parcel()) == "1 license, 1 activation"
    assert len(books.rows(db.activations)) == 1


def test_a_bare_document(books: Books) -> None:
    books.learn()
    assert books.take("x.json", seal_license(make_license()).to_bytes()) == "1 license"


def test_the_newest_license_counts_and_older_ones_are_kept(books: Books) -> None:
    books.learn()
    for seq in (2, 1, 3, 2):
        envelope = seal_license(make_license(seq=seq))
        books.take("l.license", Parcel((envelope,)).to_bytes())
    assert [row["seq"] for row in books.rows(db.licenses)] == [3]
    assert sorted(row["seq"] for row in books.rows(db.license_versions)) == [1, 2, 3]


def test_two_licenses_with_one_number(books: Books) -> None:
    books.learn()
    books.take("l.license", Parcel((seal_license(make_license()),)).to_bytes())
    other = Parcel((seal_license(make_license(grace_s=7)),)).to_bytes()
    assert refused(books, "l.license", other) == "LIC_CONFLICT"


def foreign(kind: str) -> documents.Envelope:
    return documents.seal(kind, make_license().to_dict(), world.STRANGER)


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (foreign("license"), "LIC_KEY_UNTRUSTED"),
        (foreign("activation"), "SIG_KEY_UNKNOWN"),
        (documents.seal("license", make_license().to_dict(), world.CREATOR), "LIC_KEY_UNTRUSTED"),
        (seal_license(make_license(bundles=(BundleGrant("other/model"),))), "LIC_KEY_UNTRUSTED"),
        (replace(seal_license(make_license()), payload=b"{}"), "LIC_SIG_INVALID"),
    ],
)
def test_documents_the_trust_does_not_vouch_for(
    books: Books, envelope: documents.Envelope, code: str
) -> None:
    books.learn()
    good = Device().license_envelope
    assert refused(books, "x.license", Parcel((good, envelope)).to_bytes()) == code


def test_a_bad_line_undoes_the_good_ones_before_it(books: Books) -> None:
    books.learn()
    assert refused(books, "registry.jsonl", Device().line() + b'{"schema":"x"}\n') == "REGISTRY_INVALID"


# --- plans and parties ------------------------------------------------------------------------------

PLAN = b"""
plan: {id: edge, version: 1, currency: USD, tz: UTC}
meters: {m: {field: tok_out, per: 1000}}
charges:
  - {id: tok, type: usage, meter: m, model: per_unit, unit: "0.04"}
"""


def test_a_plan_and_its_version_never_change(books: Books) -> None:
    assert books.take("plan.yaml", PLAN) == "plan edge version 1"
    assert books.take("plan.yml", PLAN + b"# only a remark\n") == "plan edge version 1"
    assert refused(books, "plan.yaml", PLAN.replace(b"0.04", b"0.05")) == "PLAN_INVALID"
    assert books.take("plan.yaml", PLAN.replace(b"version: 1", b"version: 2")) == "plan edge version 2"
    assert len(books.rows(db.plans)) == 2


def test_a_plan_from_another_test_reads_back(books: Books) -> None:
    books.learn()
    with books.database.read() as connection:
        plan = registry.load_plan(connection, make_license().plan)  # type: ignore[arg-type]
    assert plan == rating_plans.make_plan()


def customers(**members: Any) -> bytes:
    record = CUSTOMERS["customers"][0] | members  # type: ignore[operator,call-overload]
    return json.dumps({"schema": "sealpack/customers/v1", "customers": [record]}).encode()


def test_a_customer_is_replaced_by_a_newer_record(books: Books) -> None:
    books.take("c.json", customers())
    books.take("c.json", customers(legal_name="Klinik", email="a@b.example", note="ignored"))
    with books.database.read() as connection:
        found = parties.load_customer(connection, "hospital")
        assert parties.load_customer(connection, "other") is None
    assert found == parties.Customer("hospital", "Klinik", ("Am Kai 1", "Kiel"), "", "a@b.example")


@pytest.mark.parametrize(
    "members",
    [
        {"id": "no spaces allowed"},
        {"legal_name": 7},
        {"address": "one line"},
        {"payment_days": -1},
        {"tax": {"category": "S", "percent": "20,5"}},
        {"tax": {"category": "S", "percent": "101"}},
        {"tax": {"category": "AE", "percent": "20"}},
        {"tax": {"category": "nonsense", "percent": "0"}},
        {"tax": {"percent": "20"}},
    ],
)
def test_customers_that_make_no_sense(books: Books, members: dict[str, Any]) -> None:
    assert refused(books, "c.json", customers(**members)) == "REGISTRY_INVALID"


def test_a_seller_without_a_record_is_called_as_in_the_license(books: Books) -> None:
    with books.database.read() as connection:
        seller = parties.load_seller(connection, "Acme")
    assert (seller.legal_name, seller.prefix, seller.payment_days) == ("Acme", "INV", 30)


SELLER = {"schema": "sealpack/seller/v1", "issuer": "A", "legal_name": "Acme AG"}
SCHEMA = Path(__file__).parents[2] / "specs/schemas/seller.json"


@pytest.mark.parametrize(
    ("members", "good"),
    [
        ({}, True),
        ({"address": ["a"] * 8, "payment": "IBAN", "payment_days": 3650, "prefix": "AC-2026"}, True),
        ({"unknown": None}, True),
        ({"prefix": "../x"}, False),
        ({"prefix": "-"}, False),
        ({"legal_name": " "}, False),
        ({"address": ["a"] * 9}, False),
        ({"payment_days": 3651}, False),
        ({"issuer": 7}, False),
    ],
)
def test_a_seller_file_and_its_schema(books: Books, members: dict[str, Any], good: bool) -> None:
    record = SELLER | members
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert schema.is_valid(record) == good
    data = json.dumps(record).encode()
    if good:
        assert books.take("s.json", data) == "seller Acme AG"
    else:
        assert refused(books, "s.json", data) == "REGISTRY_INVALID"


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[1]", b'{"schema":"x/y"}', b"{" * 100_000, b"not: yaml"]
)
def test_files_that_are_nothing_of_ours(books: Books, data: bytes) -> None:
    assert refused(books, "what.txt", data) == "REGISTRY_INVALID"


def test_a_file_that_is_not_there(books: Books) -> None:
    with pytest.raises(SealpackError) as caught:
        importing.import_file(books.database, books.folder / "none.json")
    assert caught.value.code == "FILE_MISSING"


def test_first_activation_is_remembered_whatever_comes_later(books: Books) -> None:
    device = Device()
    books.learn(device)
    payload = json.loads(device.activation.payload)
    for at in (T0 + 500, T0 - 500):
        again = {k: v for k, v in payload.items() if k != "schema"} | {"issued_at": at}
        envelope = documents.seal("activation", again, world.LICENSER)
        books.take("a.license", Parcel((envelope,)).to_bytes())
    (row,) = books.rows(db.activations)
    assert (row["first_at"], row["issued_at"]) == (T0 - 500, T0 + 500)

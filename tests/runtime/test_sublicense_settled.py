"""From the license to the invoice: issuer, delegate, a device that is never online, and settlement."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support import rating_plans, world
from support.books import SIGNERS, Books
from support.site import INPUT, Site, make_license

import sealpack.runtime
from sealpack.builder import licensing, sublicensing
from sealpack.builder.licensing import Issuer
from sealpack.builder.sublicensing import Delegate
from sealpack.format.keys import PrivateKey
from sealpack.format.license import Allowance, Customer, Devices, LeaseTerms, PlanRef
from sealpack.format.registry import BundleFact, RegistryLine
from sealpack.runtime import sync
from sealpack.settlement import billing, registry, stick

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")


def call(site: Site, times: int) -> None:
    with sealpack.runtime.open("acme/tiny", state=site.state_dir, threads=1) as runtime:
        for _ in range(times):
            runtime.infer(INPUT)


def test_usage_of_a_delegates_device_is_on_the_parents_one_invoice(site: Site, tmp_path: Path) -> None:
    now = int(time.time())
    # The issuer sells to the group, which may hand on; settlement gets the issuer's registry.
    drafted = make_license(
        customer=Customer("group", "Hospital Group"),
        devices=Devices("key", 3),
        plan=PlanRef("example", 1),
        lease=LeaseTerms(allowance=(Allowance("calls", 5),)),
        issued_at=now - 3600,
    )
    issuer = Issuer(world.LICENSER, site.trust)
    issued = licensing.issue(sublicensing.delegated(drafted, [DELEGATE.public]), issuer)
    site.pin()
    build = site.install()
    fact = BundleFact(build.bundle_digest, "acme/tiny", build.version, 1, "Tiny")
    # The delegate answers the device's request, alone and offline.
    delegate = Delegate(DELEGATE, issued.envelope, site.trust)
    customer = {"id": "ward-3", "name": "Ward 3"}
    given = sublicensing.sublicense(delegate, "ward", {"customer": customer}, now=now - 60)
    given = sublicensing.activate(given, delegate, site.request(), now=now - 60)
    stick_folder = tmp_path / "stick"
    stick_folder.mkdir()
    (stick_folder / "ward.license").write_bytes(given.parcel(site.trust).to_bytes())
    with site.state() as state:
        assert sync.visit(state, stick_folder).taken.licenses == ["L-1.ward"]
    call(site, 5)
    with site.state() as state:
        sync.visit(state, stick_folder)
    # Settlement has the issuer's registry, then the delegate's; then the stick comes.
    books = Books.open(tmp_path)
    books.take("trust.json", site.trust.to_bytes())
    with books.database.write() as connection:
        registry.put_plan(connection, rating_plans.make_plan(rating_plans.recurring("100")))
    books.take("registry.jsonl", RegistryLine(issued.envelope, bundles=(fact,)).to_bytes() + b"\n")
    assert books.take("sublicenses.jsonl", given.line.to_bytes() + b"\n") == "1 registry line"
    told = stick.sync(books.database, stick_folder, SIGNERS, now + 60)
    assert {o.code for o in told.outcomes} <= {"OK", "W103"}  # the earlier export lies there too
    month = datetime.fromtimestamp(now, UTC).date().replace(day=1)
    (printed,), skipped = billing.bill_all(books.database, month, month + timedelta(days=40))
    document = json.loads(printed.json)
    assert (printed.license_id, skipped) == ("L-1", {})
    assert document["customer"]["name"] == "Hospital Group"
    assert [e["origin"].split("/")[2] for e in document["evidence"]] == ["L-1.ward"]
    with books.database.read() as connection:
        used = billing.usage_of(connection, "L-1")
    assert sum(amount for (_, _, meter), amount in used.items() if meter == "calls") == 5
    # The acknowledgement brings the next lease: the device goes on.
    with site.state() as state:
        assert len(sync.visit(state, stick_folder).taken.acknowledgements) == 1
    call(site, 5)
    books.database.close()

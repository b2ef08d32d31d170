"""A license in plain words: every member is said or listed as not said, the numbers are right."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from support import world

from sealpack.format.encryption import WrappedKey
from sealpack.format.errors import CODES
from sealpack.format.license import (
    Allowance,
    BundleGrant,
    ClockRules,
    Customer,
    Delegation,
    Devices,
    IssuedUnder,
    LeaseTerms,
    License,
    PlanRef,
    Provisional,
    Quota,
    Rate,
    Use,
)
from sealpack.format.site_key import SiteKey
from sealpack.verifier import license_words

DAY = 86400
T0 = world.T0
FULL = License(
    license_id="L-1",
    seq=1,
    issued_at=T0,
    issuer=world.ISSUER,
    customer=Customer("hospital", "Hospital Nord"),
    bundles=(BundleGrant("acme/tiny", "1.0", "1.9", "22" * 32),),
    use=Use("11" * 32, "LicenseRef-acme", ("business",), ("resale",), "by Acme", True),
    devices=Devices("key", 2, False, True),
    tier="pro",
    billing="committed",
    support="help@acme.example",
    device_label="ward 3",
    order_ref="PO-7",
    nbf=T0,
    exp=T0 + 365 * DAY,
    grace_s=14 * DAY,
    updates_until=T0 + 100 * DAY,
    features=("batch",),
    provisional=Provisional(3600, 10),
    limits=Rate(1, 2, 3, 4),
    quota=(Quota("calls", "term", "license", 1000, 1250, "bill"),),
    lease=LeaseTerms(True, 45 * DAY, 15 * DAY, "deny", (Allowance("calls", 500),)),
    watermark="hidden",
    plan=PlanRef("edge-pro", 1),
    issued_under=IssuedUnder(1, 3),
    clock=ClockRules("deny"),
    site_keys=(SiteKey("33" * 32, 1 << 16, "44" * 16, "55" * 48),),
    delegation=Delegation((world.CREATOR.public.pem,), 20, (WrappedKey("66" * 32, b"77"),)),
    parent_id="L-0",
)
OTHER = {  # another allowed value for members that are words of a list
    "binding": "tpm",
    "billing": "metered",
    "environment": "test",
    "enforcement": "advisory",
    "meter": "items",
    "window": "month",
    "scope": "device",
    "on_exceed": "throttle",
    "on_stale": "warn",
    "receipts": "local",
    "watermark": "no",
    "on_back": "continue",
}


def page(license: License) -> str:
    return license_words.to_text(license)


def mutants(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every member of a dataclass and of those within, each with one other value."""
    for field in dataclasses.fields(value):
        name, member = f"{path}{field.name}", getattr(value, field.name)
        if dataclasses.is_dataclass(member):
            inner: Iterator[tuple[str, Any]] = mutants(member, f"{name}.")
        elif isinstance(member, tuple) and member and dataclasses.is_dataclass(member[0]):
            yield name, replace(value, **{field.name: ()})
            inner = ((n, (m,)) for n, m in mutants(member[0], f"{name}."))
        else:
            yield name, replace(value, **{field.name: changed(field.name, member)})
            continue
        yield from ((n, replace(value, **{field.name: m})) for n, m in inner)


def changed(name: str, member: Any) -> Any:
    if name in OTHER:
        return OTHER[name]
    if isinstance(member, bool):
        return not member
    if isinstance(member, int):
        return member + DAY
    if isinstance(member, str):
        return f"{member}9"
    if member is None:
        return 30 * DAY
    return (*member, *member)


def test_every_member_is_said_or_listed_as_not_said() -> None:
    """A new member of License fails here until the page says it, or NOT_SAID says why it does not."""
    unsaid = set()
    base = page(FULL)
    found = {}
    for name, license in mutants(FULL):
        if name == "term_s":
            license = replace(license, exp=None)
        found[name] = license
        if page(license) == base:
            unsaid.add(name)
    assert {"customer.name", "quota.hard_cap", "lease.allowance.amount", "delegation.max_devices"} < set(
        found
    )
    listed = {n for n in found if any(f"{n}.".startswith(f"{no}.") for no in license_words.NOT_SAID)}
    assert unsaid == listed
    assert {n.split(".")[0] for n in license_words.NOT_SAID} <= {n.split(".")[0] for n in found}


def test_every_member_of_every_part_is_looked_at() -> None:
    """FULL leaves nothing at its default but what cannot stand together."""
    names = {name for name, _ in mutants(FULL)}
    alone = {"environment", "enforcement", "term_s", "receipts", "digest"}  # default kept, or instead of exp
    for field in dataclasses.fields(License):
        assert getattr(FULL, field.name) not in ((), None) or field.name in alone, field.name
        assert any(n == field.name or n.startswith(f"{field.name}.") for n in names)


def test_the_numbers_are_worked_out() -> None:
    text = page(FULL)
    assert "of 1,100 calls, 1,000 are included and 100 are billed" in text
    assert "What goes past 1,250 is refused (HARD_CAP)." in text
    assert "Each of the 2 machines may use 625 of 1,250." in text
    assert "15 days before that it warns." in text
    assert "For 14 days after that it goes on with a warning, until 2027-10-05 14:13 UTC." in text
    assert "Between two settlements 500 calls on each machine." in text


@pytest.mark.parametrize(
    ("quota", "said"),
    [
        (Quota("calls", "day", "device", 1000, None, "deny"),
         "1,000 calls a day (UTC) on each machine. What goes past 1,000 is refused until the next day begins "
         "at 00:00 UTC (QUOTA_EXCEEDED)."),
        (Quota("calls", "day", "device", 1000, 2000, "deny"), "A hard cap of 2,000 stands beside it."),
        (Quota("tok_out", "month", "device", 10, 10, "bill"),
         "of 10 output tokens, 10 are included and 0 are billed. What goes past 10 is refused until the"),
        (Quota("items", "term", "device", 1, None, "throttle"), "Past 1 each call waits one second first."),
        (Quota("ms", "month", "license", 7, None, "warn"),
         "7 milliseconds of computing a calendar month (UTC) for all machines together. Past 7 calls go on "
         "with a warning. A machine knows its own use only: the sum is made when usage is settled."),
    ],
)  # fmt: skip
def test_quotas(quota: Quota, said: str) -> None:
    assert said in page(replace(FULL, quota=(quota,)))


PLAIN = replace(
    FULL,
    devices=Devices("none"),
    exp=None,
    nbf=0,
    grace_s=0,
    updates_until=None,
    features=(),
    provisional=None,
    limits=Rate(),
    quota=(),
    lease=LeaseTerms(),
    receipts="none",
    watermark=None,
    plan=None,
    clock=None,
    site_keys=None,
    delegation=None,
    parent_id=None,
    use=Use("11" * 32),
    order_ref=None,
    device_label=None,
    support=None,
    bundles=(BundleGrant("acme/a"), BundleGrant("acme/b", "1.0"), BundleGrant("acme/c", None, "2.0")),
)


@pytest.mark.parametrize(
    ("license", "said"),
    [
        (PLAIN, "It has no end."),
        (PLAIN, "It begins at once."),
        (PLAIN, "acme/a in every version."),
        (PLAIN, "acme/b 1.0 and later."),
        (PLAIN, "acme/c up to 2.0."),
        (PLAIN, "Any number of machines."),
        (PLAIN, "Virtual machines and containers may be used."),
        (PLAIN, "No quota"),
        (PLAIN, "Nothing has to be settled"),
        (PLAIN, "No receipts are asked for"),
        (PLAIN, "the license names no other contact"),
        (replace(PLAIN, grace_s=DAY), "A time of grace of 1 day is stated, and has no end to follow."),
        (replace(PLAIN, term_s=DAY + 7200), "It ends 1 day 2 hours after the first call on a machine."),
        (replace(PLAIN, term_s=0), "It ends 0 seconds after"),
        (
            replace(PLAIN, term_s=5, grace_s=60),
            "For 1 minute after that it goes on with a warning. Then calls",
        ),
        (replace(PLAIN, exp=10**15), "It ends on second 1000000000000000 since 1970."),
        (replace(PLAIN, exp=9), "After that calls are refused (LIC_EXPIRED); there is no time of grace."),
        (replace(PLAIN, exp=9, enforcement="advisory"), "After that calls go on with a warning"),
        (replace(PLAIN, limits=Rate(qps=1)), "At most 1 call a second; more is refused; trying"),
        (replace(PLAIN, limits=Rate(burst=2)), "A burst of 2 calls is stated without a rate"),
        (replace(PLAIN, receipts="required"), "Nothing stops without it."),
        (replace(PLAIN, lease=LeaseTerms(True)), "Each machine needs a lease from the issuer"),
        (
            replace(PLAIN, lease=LeaseTerms(False, None, None, "deny", (Allowance("calls", 1),))),
            "1 call on each",
        ),
        (replace(PLAIN, lease=LeaseTerms(False, DAY)), "it is agreed to settle every 1 day"),
        (replace(PLAIN, lease=LeaseTerms(True, 3 * DAY, None, "throttle")), "1 day before that it warns."),
        (
            replace(PLAIN, lease=LeaseTerms(True, DAY, 0, "throttle")),
            "Later each call waits one second first",
        ),
        (replace(FULL, devices=Devices("key", None)), "A machine knows its own use only"),
        (replace(FULL, delegation=Delegation(("x", "y"))), "with 2 keys, for any number of machines"),
        (
            replace(FULL, devices=Devices("key", 1, False, False)),
            "Not in virtual machines and not in containers.",
        ),
        (replace(FULL, enforcement="advisory"), "Past 1,250 calls go on with a warning."),
        (replace(FULL, enforcement="advisory"), "Later calls go on with a warning (LEASE_STALE)."),
    ],
)
def test_what_is_said(license: License, said: str) -> None:
    assert said in page(license)


def test_codes_on_the_page_exist() -> None:
    named = set(re.findall(r"\(([A-Z_]{6,})\)", page(FULL) + page(PLAIN)))
    assert named and named <= set(CODES)


HOSTILE = replace(
    FULL, customer=Customer("x", "<b>A*b</b> \x1b[31m\n`code` |"), order_ref="a`b", license_id="<x>"
)


def test_names_from_a_document_are_text_in_every_form() -> None:
    assert page(HOSTILE).isprintable() is False and "\x1b" not in page(HOSTILE)
    markdown = license_words.to_markdown(HOSTILE)
    assert r"\<b\>A\*b\</b\>" in markdown and r"Your order: a\`b." in markdown
    assert "`sealpack status`" in markdown
    shown = license_words.to_html(HOSTILE)
    assert "&lt;b&gt;" in shown and "<b>" not in shown

    seen: set[str] = set()

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.add(tag)
            assert not {name for name, _ in attrs} & {"src", "href", "onload"}

    Tags().feed(shown)
    assert seen == {"html", "meta", "title", "style", "h1", "h2", "ul", "li"}


def test_all_forms_say_the_same() -> None:
    value = license_words.to_dict(FULL)
    assert value["schema"] == "sealpack/license-words/v1"
    for section in value["sections"]:
        assert section["lines"]
        for line in section["lines"]:
            assert line in page(FULL)
    assert page(FULL) == page(replace(FULL)), "the same license, the same page"
    assert license_words.to_html(FULL).count("<li>") == sum(len(s["lines"]) for s in value["sections"])
    assert license_words.to_markdown(FULL).count("\n- ") == license_words.to_html(FULL).count("<li>")


# --- what a license says about trust ----------------------------------------------------------------------


def test_what_a_document_was_issued_under() -> None:
    assert IssuedUnder.of(world.make_trust(version=3)) == IssuedUnder(1, 3)
    known = [(1, 2), (1, 3), (1, 4), (2, 1)]
    assert [IssuedUnder(1, 3).is_newer_than(*k) for k in known] == [True, False, False, False]
    assert [IssuedUnder(2, 1).is_newer_than(*k) for k in known] == [True, True, True, False]

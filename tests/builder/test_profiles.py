"""Presets against the design's table, row by row; a project's own profiles; both in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack

from sealpack.builder import config, profiles
from sealpack.builder.presets import DAY, PRESETS, Preset
from sealpack.format.errors import SealpackError
from sealpack.format.license import (
    Allowance,
    ClockRules,
    LeaseTerms,
    Provisional,
    Quota,
    Rate,
)

Capture = pytest.CaptureFixture[str]
ORDER = ("open_source", "free_dev", "academic", "pro", "commercial", "enterprise")
MINIMAL = '[bundle]\nid = "acme/m"\nversion = "1.0"\n'


def row(value: Any) -> tuple[Any, ...]:
    """One row of the design's table: a value for each preset, in its order."""
    return tuple(value(PRESETS[name]) for name in ORDER)


def test_the_table_of_presets_row_by_row() -> None:
    assert tuple(PRESETS) == ORDER
    business = ("business",)
    everything = ("business", "affiliates", "unlimited-deployment")
    assert row(lambda p: p.allow) == (
        ("any",),
        ("evaluation",),
        ("research",),
        business,
        business,
        everything,
    )
    assert row(lambda p: p.binding) == ("none", "none", "key", "key+fp", "key+fp", "key")
    assert row(lambda p: p.devices) == (None, None, 10, 2, None, None), "N and unlimited come with the order"
    assert row(lambda p: p.term) == ("forever", "first-start", "year", "year", "year", "contract")
    assert row(lambda p: p.term_s) == (None, 30 * DAY, None, None, None, None)
    assert row(lambda p: p.grace_s // DAY) == (0, 0, 30, 14, 30, 60)
    assert row(lambda p: (p.limits.qps, p.limits.burst, p.limits.inflight)) == (
        (None, None, None),
        (1, 2, 1),
        (5, None, 2),
        (10, None, 4),
        (None, None, None),
        (None, None, None),
    )
    assert row(lambda p: p.quota) == (
        (),
        (Quota("calls", "day", "device", 1000, None, "deny"),),
        (Quota("calls", "month", "device", 100_000, None, "throttle"),),
        (),
        (),
        (),
    )
    assert row(lambda p: (p.over, p.hard_percent))[3:] == (("bill", 125), ("bill", None), ("warn", None))
    assert row(lambda p: p.lease.max_age_s and p.lease.max_age_s // DAY) == (None, None, None, 45, 90, 400)
    assert row(lambda p: p.lease.required) == (False, False, False, True, True, True)
    assert row(lambda p: p.watermark) == ("no", "visible", "hidden", "hidden", "hidden", "optional")
    assert row(lambda p: p.receipts) == ("local", "local", "required", "required", "required", "required")


def test_open_source_asks_for_attribution() -> None:
    """The table's "attribution required" is the terms' attribution, which every license repeats."""
    assert PRESETS["open_source"].allow == ("any",)
    assert PRESETS["open_source"].lease == LeaseTerms()


# --- profiles ---------------------------------------------------------------------------------------------

FULL = """
[license.profiles.clinic]
base = "pro"
without = ["quota"]
allow = ["care"]
deny = ["research"]
binding = "key"
devices = 5
vm = false
container = false
term = "first-start"
term_days = 100
grace_days = 3
qps = 20
burst = 40
inflight = 8
processes = 3
quota = ["calls=1000/month", "tok_out=5/day,warn"]
over = "bill"
hard_percent = 200
settle_days = 30
warn_days = 7
on_stale = "warn"
allowance = ["calls=50"]
watermark = "no"
billing = "metered"
receipts = "local"
provisional = {hours = 48, calls = 100}
on_back = "deny"
"""


def one(text: str) -> Preset:
    return config.parse(MINIMAL + "[license.profiles.own]\n" + text, Path()).license.profiles["own"]


def test_a_profile_overrides_every_value() -> None:
    found = config.parse(MINIMAL + FULL, Path()).license.profiles
    assert found == {
        "clinic": Preset(
            allow=("care",),
            deny=("research",),
            binding="key",
            devices=5,
            vm=False,
            container=False,
            term="first-start",
            term_s=100 * DAY,
            grace_s=3 * DAY,
            limits=Rate(20, 40, 8, 3),
            quota=(
                Quota("calls", "month", "device", 1000, 2000, "bill"),
                Quota("tok_out", "day", "device", 5, None, "warn"),
            ),
            over="bill",
            hard_percent=200,
            lease=LeaseTerms(True, 30 * DAY, 7 * DAY, "warn", (Allowance("calls", 50),)),
            watermark="no",
            billing="metered",
            receipts="local",
            provisional=Provisional(48 * 3600, 100),
            clock=ClockRules("deny"),
        )
    }


@pytest.mark.parametrize("base", PRESETS)
def test_a_profile_that_says_nothing_is_its_preset(base: str) -> None:
    assert one(f'base = "{base}"') == PRESETS[base]


@pytest.mark.parametrize("name", ["devices", "limits", "quota", "hard_percent", "lease"])
def test_what_a_profile_drops(name: str) -> None:
    base = {"quota": "academic"}.get(name, "pro")
    made = one(f'base = "{base}"\nwithout = ["{name}"]')
    assert getattr(made, name) in (None, (), Rate(), LeaseTerms())
    assert getattr(PRESETS[base], name) != getattr(made, name)


def test_terms_of_a_profile() -> None:
    assert one('base = "free_dev"\nterm = "year"').term_s is None
    assert one('base = "pro"\nterm = "first-start"\nterm_days = 5').term_s == 5 * DAY
    assert one('base = "pro"\nsettle_days = 9').lease == LeaseTerms(True, 9 * DAY, 3 * DAY, "deny")
    assert one('base = "pro"\non_stale = "throttle"').lease.on_stale == "throttle"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("devices = 2", "license.profiles.own.base is missing"),
        ('base = "gold"', "license.profiles.own.base 'gold' is not one of open_source"),
        ('base = "pro"\nqps = -1', "license.profiles.own.qps must be"),
        ('base = "pro"\nspeed = 1', "license.profiles.own.speed is not a known key"),
        ('base = "pro"\nwithout = ["term"]', "license.profiles.own.without 'term' is not one of"),
        ('base = "pro"\nquota = ["calls"]', "license.profiles.own.quota quota 'calls' is not like"),
        ('base = "pro"\nallowance = ["miles=1"]', "license.profiles.own.allowance allowance 'miles=1'"),
        ('base = "pro"\nterm = "first-start"', "license.profiles.own.term_days stands exactly with"),
        ('base = "pro"\nterm_days = 5', "license.profiles.own.term_days stands exactly with"),
        ('base = "academic"\nwarn_days = 5', "license.profiles.own.warn_days needs settle_days"),
        ('base = "academic"\non_stale = "warn"', "license.profiles.own.on_stale needs settle_days"),
        ('base = "pro"\nprovisional = {hours = 1}', "license.profiles.own.provisional.calls is missing"),
        ('base = "pro"\nprovisional = {calls = 1}', "license.profiles.own.provisional.hours is missing"),
    ],
)
def test_what_makes_no_sense(text: str, place: str) -> None:
    with pytest.raises(SealpackError) as caught:
        one(text)
    assert caught.value.code == "CONFIG_INVALID"
    assert caught.value.message.startswith(place)


@pytest.mark.parametrize("name", ["pro", '"two words"', f'"{"x" * 65}"'])
def test_names_of_profiles(name: str) -> None:
    with pytest.raises(SealpackError) as caught:
        config.parse(f'{MINIMAL}[license.profiles.{name}]\nbase = "pro"\n', Path())
    assert caught.value.code == "CONFIG_INVALID"


# --- the command line -------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, capsys: Capture) -> Path:
    folder = tmp_path / "project"
    sealpack("init", folder, "--publisher", "acme")
    path = folder / "sealpack.toml"
    path.write_text(path.read_text() + FULL)
    capsys.readouterr()
    return folder


def issued(project: Path, capsys: Capture, *options: str) -> dict[str, Any]:
    given = (
        "--project",
        project,
        "--bundle-id",
        "acme/my-model",
        "--customer",
        "Hospital",
        "--format",
        "json",
    )
    sealpack("license", "issue", *given, *options)
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def test_presets_are_listed_with_the_projects_own(project: Path, capsys: Capture) -> None:
    sealpack("license", "presets", "--project", project)
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["preset", *ORDER, "clinic"]
    sealpack("license", "presets", "clinic", "--project", project)
    said = capsys.readouterr().out
    assert "  past a quota's cap      bill, hard cap 200 %\n" in said
    assert "  before activation       100 calls in 48 hours\n" in said
    sealpack("license", "presets", "pro", "--project", project, "--format", "json")
    value = json.loads(capsys.readouterr().out)
    assert (value["name"], value["devices"], value["limits"]) == ("pro", 2, {"qps": 10, "inflight": 4})
    sealpack("license", "presets", "--project", project, "--format", "json")
    assert list(json.loads(capsys.readouterr().out)["presets"]) == [*ORDER, "clinic"]
    assert sealpack("license", "presets", "gold", "--project", project) == 2
    assert "unknown preset 'gold'" in capsys.readouterr().err


def test_presets_need_no_project(tmp_path: Path, capsys: Capture) -> None:
    sealpack("license", "presets", "--project", tmp_path)
    assert "clinic" not in capsys.readouterr().out


def test_issue_takes_a_profile(project: Path, capsys: Capture) -> None:
    made = issued(project, capsys, "--preset", "clinic")
    assert made["tier"] == "clinic"
    assert made["devices"] == {"binding": "key", "max": 5, "vm": False, "container": False}
    assert made["term_s"] == 100 * DAY
    assert made["provisional"] == {"s": 48 * 3600, "calls": 100}
    assert made["clock"] == {"on_back": "deny"}
    assert made["issued_under"] == {"root": 1, "revocations": 1}


def test_every_option_of_issue_that_overrides_a_preset(project: Path, capsys: Capture) -> None:
    options = (
        "--qps 7 --burst 8 --inflight 9 --processes 2 --no-vm --no-container --lease-days 30 --on-stale warn"
    )
    made = issued(project, capsys, "--preset", "pro", *options.split(), "--feature", "batch")
    assert made["limits"] == {"qps": 7, "burst": 8, "inflight": 9, "processes": 2}
    assert made["devices"] == {"binding": "key+fp", "max": 2, "vm": False, "container": False}
    assert made["lease"] == {
        "required": True,
        "max_age_s": 30 * DAY,
        "warn_s": 10 * DAY,
        "on_stale": "warn",
        "allowance": [],
    }
    assert made["features"] == ["batch"]
    allowed = issued(project, capsys, "--preset", "clinic", "--vm", "--container", "--lease-days", "0")
    assert allowed["devices"]["vm"] and allowed["devices"]["container"]
    assert allowed["lease"]["required"] is False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--preset academic --on-stale warn", "give --lease-days with --on-stale"),
        ("--preset pro --feature Batch!", "feature 'Batch!' does not fit"),
    ],
)
def test_options_that_make_no_sense(project: Path, capsys: Capture, options: str, said: str) -> None:
    given = ("--project", project, "--bundle-id", "acme/my-model", "--customer", "Hospital")
    assert sealpack("license", "issue", *given, *options.split()) == 2
    assert said in capsys.readouterr().err


def test_an_allowance_without_a_lease_is_kept(project: Path, capsys: Capture) -> None:
    """`--allowance` alone means: no more than that before usage is settled."""
    lease = issued(project, capsys, "--preset", "academic", "--allowance", "calls=9")["lease"]
    assert lease == {"required": False, "on_stale": "deny", "allowance": [{"meter": "calls", "amount": 9}]}


def test_terms_of_a_license_in_words(project: Path, capsys: Capture) -> None:
    made = issued(project, capsys, "--preset", "pro", "--license-id", "L-9", "--allowance", "calls=50")
    for name in ("L-9", made["path"]):
        sealpack("license", "terms", name, "--project", project)
        said = capsys.readouterr().out
        assert "License L-9, number 1, of the kind pro: for Hospital (hospital)." in said
        assert "Between two settlements 50 calls on each machine." in said
    sealpack("license", "terms", "L-9", "--project", project, "--format", "json")
    assert json.loads(capsys.readouterr().out)["schema"] == "sealpack/license-words/v1"
    sealpack("license", "terms", "L-9", "--project", project, "--format", "md", "--lang", "en")
    assert capsys.readouterr().out.startswith("# License L-9\n")
    page = project / "terms.html"
    sealpack("license", "terms", "L-9", "--project", project, "--format", "html", "--out", page)
    assert page.read_text().startswith("<!doctype html>")
    assert sealpack("license", "terms", "L-9", "--project", project, "--out", page) == 2
    assert sealpack("license", "terms", "L-8", "--project", project) == 4
    assert "L-8 is no file, and no license of" in capsys.readouterr().err


def test_find_names_what_there_is() -> None:
    with pytest.raises(SealpackError) as caught:
        profiles.find("gold", profiles.known({}))
    assert caught.value.remedy == "see `sealpack license presets`"

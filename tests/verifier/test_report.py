"""What a report holds and how it is told as text and JSON: warnings, what was not checked, comparisons."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from support import reports, world
from support.reports import NOW

from sealpack.format import parts
from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust
from sealpack.format.words import fingerprint_words
from sealpack.verifier import excerpts
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli import main as cli
from sealpack.verifier.render import text, wording
from sealpack.verifier.render.text import render
from sealpack.verifier.report import ORDER, Report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that says much, a damaged copy, and whom to trust."""
    made = tmp_path_factory.mktemp("report")
    good = reports.rich()
    at = good.index(b"groups reports")
    (made / "good.sealpack").write_bytes(good)
    (made / "bad.sealpack").write_bytes(good[:at] + b"G" + good[at + 1 :])
    (made / "trust.json").write_bytes(world.make_trust().to_bytes())
    (made / "creator.pem").write_text(world.CREATOR.public.pem)
    return made


def report_on(folder: Path, name: str = "good.sealpack", now: int = NOW, **how: Any) -> Report:
    """A report with a time."""
    report = verify_bundle(folder / name, *(() if "key" in how else (world.make_trust(),)), **how)
    report.verified_at = now
    return report


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    status = cli.run(cli.make_cli(), [str(a) for a in arguments])
    done = capsys.readouterr()
    assert "Traceback" not in done.out + done.err
    return status, done.out, done.err


# --- facts ----------------------------------------------------------------------------------------------


def test_facts_name_who_signed_and_who_vouches(folder: Path) -> None:
    found = report_on(folder).to_dict()
    trust = world.make_trust()
    assert found["signer"] == {
        "issuer": world.ISSUER,
        "keyid": world.CREATOR.keyid,
        "scheme": "ecdsa-p256-sha256",
        "words": fingerprint_words(world.CREATOR.keyid),
        "roles": ["bundle"],
        "namespaces": ["acme"],
        "status": "active",
    }
    assert found["trust"] == {
        "root": {"version": 1, "digest": trust.root_digest, "words": fingerprint_words(trust.root_digest)},
        "keyring": {"version": 1, "issued_at": world.T0},
        "revocations": {"version": 1, "issued_at": world.T0},
        "updated": False,
    }
    assert (found["verified_at"], found["tool"]["name"]) == (NOW, "sealpack")


def test_facts_of_sbom_terms_and_card(folder: Path) -> None:
    facts = report_on(folder).facts
    assert facts["sbom"] == {
        "format": "CycloneDX 1.6",
        "components": 3,
        "types": {"data": 1, "library": 1, "machine-learning-model": 1},
        "licenses": ["Apache-2.0", "DUA", "MIT"],
        "suppliers": ["Acme Models GmbH"],
        "datasets": ["Clinical-STS"],
        "base_models": ["all-MiniLM 2"],
    }
    assert facts["license_terms"]["allow"] == ["commercial use"]
    assert facts["license_terms"]["ack_required"] is True
    assert facts["card"] == {"name": "card.md", "text": reports.CARD.decode(), "truncated": False}
    assert {name: facts[name] for name in reports.SAID} == reports.SAID


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"components": None},
        {"components": [1, {"type": 5, "name": [], "licenses": {}, "supplier": "x", "pedigree": 1}]},
        {"components": [{"type": "machine-learning-model", "pedigree": {"ancestors": [{"name": 7}]}}]},
        {"metadata": [], "components": [{"licenses": [{"license": "MIT"}, {}]}]},
    ],
)
def test_an_sbom_of_any_shape_has_an_excerpt(document: dict[str, Any]) -> None:
    found = excerpts.sbom(document)
    assert set(found) == {"types", "licenses", "suppliers", "datasets", "base_models"}
    assert not found["licenses"] and not found["base_models"]


def test_excerpts_are_bounded() -> None:
    many = [{"type": "data", "name": f"{i:04d}" + "x" * 1000} for i in range(500)]
    found = excerpts.sbom({"components": many})
    assert len(found["datasets"]) == excerpts.MAX_ITEMS
    assert {len(name) for name in found["datasets"]} == {excerpts.MAX_TEXT}
    assert found["types"] == {"data": 500}
    card = excerpts.card("card.md", b"\xff" + b"a" * 100_000)
    assert len(card["text"]) == excerpts.MAX_CARD and card["truncated"] and card["text"][0] == "\ufffd"


# --- checks ---------------------------------------------------------------------------------------------


def test_a_comparison_is_told_in_values(folder: Path) -> None:
    report = report_on(folder)
    (manifest,) = (c for c in report.checks if c.id == "manifest")
    assert manifest.expected == manifest.found == report.facts["bundle_digest"]
    assert manifest.to_dict()["expected"] == manifest.expected
    assert "expected" not in report.checks[0].to_dict()


def test_a_failure_tells_both_values(folder: Path) -> None:
    floor = [{"bundle_id": "acme/notes", "floor": 3}]
    report = verify_bundle(folder / "good.sealpack", world.make_trust(floors=floor))
    (failure,) = report.failures
    assert (failure.expected, failure.found) == ("release 3 or newer", "release 1")
    assert failure.to_dict()["found"] == "release 1"
    shown = render(report)
    assert "expected  release 3 or newer" in shown and "found     release 1" in shown


def test_what_was_not_reached_is_named(folder: Path) -> None:
    bad = report_on(folder, "bad.sealpack")
    assert bad.unreached == ["sbom", "terms", "model", "evidence"]  # no tier is claimed
    assert "not checked: sbom, terms, model, evidence" in render(bad)
    assert report_on(folder).unreached == []
    key_only = report_on(folder, key=world.CREATOR.public)
    assert key_only.unreached == ["revocation"] and [c.id for c in key_only.skips] == ["trust"]
    assert Report("x").unreached == list(ORDER)


# --- warnings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"content_sample": {"leaves": 1, "of": 9}}, ["content-sampled"]),
        ({"tier": {"claimed": "Verified", "proven": "Experimental"}}, ["tier-unproven"]),
        ({"tier": {"claimed": "Verified", "proven": "Verified"}}, []),
        ({"custom_operators": []}, []),
        ({"custom_operators": ["a\x1b"]}, ["custom-operators"]),
        ({"recertify_by": "2026-09-21"}, ["recertification-overdue"]),
        ({"recertify_by": "2026-09-22"}, []),  # NOW is that day: still in time
        ({"evidence": [{"name": "e", "verified": True, "valid_until": NOW}]}, ["evidence-expired"]),
        ({"evidence": [{"name": "e", "verified": True, "valid_until": NOW + 1}]}, []),
        ({"evidence": [{"name": "e", "signed": False}]}, []),
    ],
)
def test_warnings(facts: dict[str, Any], expected: list[str]) -> None:
    report = Report("b", facts=facts, verified_at=NOW)
    report.passed("container", "fine")
    assert [w.id for w in report.warnings] == expected
    assert all(w.detail.isprintable() for w in report.warnings)
    assert report.to_dict()["warnings"] == [{"id": w.id, "detail": w.detail} for w in report.warnings]
    assert report.exit_status == 0
    report.failed("content", SealpackError("DIGEST_MISMATCH", "x"))
    assert report.warnings == []  # nothing to weigh: it failed


def test_without_a_time_nothing_is_overdue() -> None:
    report = Report("b", facts={"recertify_by": "1999-01-01"})
    report.passed("container", "fine")
    assert report.warnings == [] and "verified_at" not in report.to_dict()


# --- text -----------------------------------------------------------------------------------------------


def test_text_tells_all_in_80_columns(folder: Path) -> None:
    report = report_on(folder)
    report.path = "good.sealpack"
    shown = text.render(report)
    for line in shown.split("\n"):
        assert len(line) <= 80 or re.fullmatch(r"\s*\S+\s+sha256:[0-9a-f]{64}", line), line
    for told in (
        "PASS  good.sealpack",
        "acme/notes 1.0.0 (release 1)",
        f"{world.ISSUER}, 2026-09-21 14:13 UTC (as stated)",
        fingerprint_words(world.CREATOR.keyid),
        fingerprint_words(world.make_trust().root_digest),
        "Apache-2.0, Apache License 2.0",
        "due by 2027-10-01",
        "minimum elements for AI",
    ):
        assert told in shown
    assert all(f"ok   {c.id}" in shown for c in report.checks if c.status == "pass")


def test_text_of_hostile_facts_is_printable(folder: Path) -> None:
    report = report_on(folder)
    report.facts |= reports.evidence_facts()
    shown = text.render(reports.poisoned(report))
    assert all(line.isprintable() for line in shown.split("\n"))


def test_since_when_a_key_is_trusted(folder: Path) -> None:
    entry = world.key_entry(world.CREATOR, ["bundle"]) | {"since": world.T0}
    keyring = world.make_keyring(entries=[entry])
    trust = Trust.from_envelopes(world.make_root(), keyring, world.make_revocations())
    assert "since 2026-09-21; active" in render(verify_bundle(folder / "good.sealpack", trust))


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes(count: int, told: str) -> None:
    assert wording.size(count) == told


def test_a_second_beyond_the_calendar() -> None:
    assert wording.instant(2**53 - 1) == f"second {2**53 - 1}"


# --- command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["text", "json", "sarif", "html"])
@pytest.mark.parametrize(("name", "status"), [("good.sealpack", 0), ("bad.sealpack", 3)])
def test_output_goes_to_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fmt: str, name: str, status: int
) -> None:
    out = tmp_path / "report"
    given = ("verify", folder / name, "--trust", folder / "trust.json", "--format", fmt, "-o", out)
    found, printed, err = call(capsys, *given)
    assert (found, printed) == (status, "")
    assert (err == "") == (status == 0)
    first = out.read_bytes()
    assert first.endswith(b"\n") and b"\x1b" not in first
    found, _, err = call(capsys, *given)
    assert found == 2 and "OUTPUT_EXISTS" in err and out.read_bytes() == first
    assert call(capsys, *given, "--force")[0] == status
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_output_never_replaces_an_input(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, trust = folder / "good.sealpack", folder / "trust.json"
    for target in (bundle, trust):
        before = target.read_bytes()
        status, _, err = call(capsys, "verify", bundle, "--trust", trust, "-o", target, "--force")
        assert status == 2 and "error[USAGE]" in err and target.read_bytes() == before


def test_output_never_replaces_a_part(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = parts.split(folder / "good.sealpack", tmp_path)
    (part,) = (path for path, _ in parts.PartList.load(listed).parts)
    before = part.read_bytes()
    given = ("verify", listed, "--trust", folder / "trust.json", "-o", part, "--force")
    status, _, err = call(capsys, *given)
    assert status == 2 and "error[USAGE]" in err and part.read_bytes() == before


def test_output_where_nothing_can_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ("verify", folder / "good.sealpack", "--trust", folder / "trust.json")
    status, _, err = call(capsys, *good, "-o", folder / "none" / "x")
    assert status == 1 and "error[FILE_MISSING]" in err


def test_json_is_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ("verify", folder / "good.sealpack", "--trust", folder / "trust.json", "--format", "json")
    _, out, _ = call(capsys, *good)
    found = json.loads(out)
    known = report_on(folder, now=found["verified_at"]).to_dict()
    assert found == json.loads(json.dumps(known))


# --- wording --------------------------------------------------------------------------------------------


def test_json_holds_no_character_that_steers_a_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"name": "a\x9b31mb\u202ec\U000e0041", "support": "\x7f\x85", "description": "Grüße, 模型"}
    (tmp_path / "h").write_bytes(reports.rich(said=said))
    for verb, trust in (("verify", ["--trust", folder / "trust.json"]), ("inspect", [])):
        status, out, _ = call(capsys, verb, tmp_path / "h", *trust, "--format", "json")
        assert status == 0 and all(line.isprintable() for line in out.split("\n"))
        assert "Grüße, 模型" in out
        found = json.loads(out)
        assert said.items() <= found.get("manifest", found).items()


def test_a_hostile_file_name(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The name is chosen by whoever made the stick; it may be no text at all."""
    path = tmp_path / os.fsdecode(b"x\xff\x1b[31m\xc2\x9b2J.sealpack")
    path.write_bytes(b"junk")
    for form in ("text", "json", "sarif", "html"):
        status, out, err = call(capsys, "verify", path, "--trust", folder / "trust.json", "--format", form)
        assert status == 3 and "CONTAINER_TRUNCATED" in err
        assert all(line.isprintable() for line in (out + err).split("\n")), form


def passed(**facts: Any) -> Report:
    """A report that passed, with nothing but these facts."""
    report = Report("b.sealpack", facts=facts, verified_at=NOW)
    report.passed("container", "fine")
    return report


def test_text_of_a_report_without_facts() -> None:
    report = passed()
    assert render(report).split("\n")[:2] == ["PASS  b.sealpack", "  ok   container  fine"]


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "authentic and intact"),
        ({"content_mode": "leaves"}, "authentic and intact"),
        ({"content_mode": "sample"}, "authentic; content sampled, not complete"),
    ],
)
def test_headlines(facts: dict[str, Any], told: str) -> None:
    assert wording.headline(passed(**facts)) == told
    assert wording.headline(Report("b")) == "nothing was checked"


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "not stated"),
        ({"quality_tier": "Verified"}, "Verified"),
        ({"quality_tier": "Experimental", "tier": {"claimed": "Experimental"}}, "Experimental"),
        ({"quality_tier": "Verified", "tier": {"proven": "Verified"}}, "Verified, proven"),
        (
            {"quality_tier": "Enterprise-Ready", "tier": {"proven": "Verified"}},
            "Enterprise-Ready claimed, Verified proven",
        ),
    ],
)
def test_tiers(facts: dict[str, Any], told: str) -> None:
    assert wording.tier_line(facts) == told


def test_license_and_recertification() -> None:
    assert wording.license_line({}) == "no machine-readable terms"
    assert wording.license_line({"license_terms": {"spdx": "MIT"}}) == "MIT"
    assert wording.recertification(passed()) == "no date stated"
    assert wording.recertification(passed(recertify_by="2026-01-01")) == "due by 2026-01-01 (overdue)"


def test_both_keys_of_a_hybrid_signer(folder: Path) -> None:
    facts = report_on(folder).facts | {"post_quantum": {"bundle": True}}
    facts["signer"] = facts["signer"] | {"mldsa_keyid": "ab" * 32}
    rows = dict(wording.who(facts))
    assert rows["signature"] == "ECDSA P-256 and ML-DSA-65 (post-quantum)"
    assert rows["ML-DSA key"] == "ab" * 32
    assert dict(wording.who({"trust": facts["trust"]})).keys() == {"root", "keyring"}

"""Policy files: each rule at its boundary both ways, strict reading, and the command line."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.world import T0, BundleSpec

from sealpack.format.errors import SealpackError
from sealpack.format.terms import Terms
from sealpack.verifier import policy as policies
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli import main as cli
from sealpack.verifier.policy import DAY, Finding, Policy, evaluate
from sealpack.verifier.policy_file import MAX_POLICY_BYTES
from sealpack.verifier.report import Report

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/policy-example.toml"
NOW = T0 + 100 * DAY
KEYID = "ab" * 32


def evidence(**members: Any) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()
    return {
        "digest": digest,
        "name": "evidence/a.json", "signed": True, "verified": True, "evaluator": "Lab", "issued_at": T0,
        "valid_until": NOW + 1, "task": "classification", "metrics": [{"name": "accuracy", "value": "0.9"}],
    } | members  # fmt: skip


FACTS: dict[str, Any] = {
    "trust": {"updated": False},
    "signer": {"issuer": "Acme Models", "keyid": KEYID, "scheme": "ecdsa-p256-sha256"},
    "signed_at": T0,
    "post_quantum": {"bundle": True},
    "bundle_id": "acme/tiny/edge",
    "release_index": 4,
    "kind": "gguf",
    "size": 1000,
    "encrypted": False,
    "watermark": True,
    "custom_operators": [],
    "recertify_by": "2026-12-30",
    "content_mode": "leaves",
    "license_terms": {"spdx": "Apache-2.0"},
    "tier": {"claimed": "Enterprise-Ready", "proven": "Verified"},
    "evidence": [evidence(), evidence(name="evidence/b.json", evaluator="Acme", metrics=[])],
    "completeness": {
        "present": 3,
        "applicable": 4,
        "clusters": [
            {"id": "models", "present": 1, "applicable": 3, "elements": [
                {"id": "model-name", "status": "present"}, {"id": "model-license", "status": "absent"},
                {"id": "model-version", "status": "absent"}]},
            {"id": "kpi", "present": 2, "applicable": 2, "elements": [
                {"id": "security-metrics", "status": "not-applicable"}]},
        ],
    },
}  # fmt: skip


def policy(rules: str) -> Policy:
    return Policy.from_bytes(f'schema = "sealpack/policy/v1"\nname = "test"\n{rules}\n'.encode())


def findings(rules: str, facts: dict[str, Any] | None = None, now: int = NOW) -> list[Finding]:
    return list(evaluate(policy(rules), FACTS if facts is None else facts, now))


def finding(rules: str, facts: dict[str, Any] | None = None, now: int = NOW) -> Finding:
    (only,) = findings(rules, facts, now)
    return only


def with_fact(name: str, value: Any) -> dict[str, Any]:
    return copy.deepcopy(FACTS) | {name: value}


# rule, as TOML; what meets it; what just does not
BOUNDARIES = [
    ("signer", 'issuers = ["X", "Acme Models"]', 'issuers = ["acme models"]'),
    ("signer", f'keyids = ["{KEYID}"]', f'keyids = ["{"ac" * 32}"]'),
    ("signer", "max_age_days = 100", "max_age_days = 99"),
    ("bundle", 'ids = ["acme"]', 'ids = ["acm"]'),
    ("bundle", 'ids = ["acme/tiny"]', 'ids = ["acme/tin"]'),
    ("bundle", 'ids = ["acme/tiny/edge"]', 'ids = ["acme/tiny/edge/more"]'),
    ("bundle", 'kinds = ["onnx", "gguf"]', 'kinds = ["onnx"]'),
    ("bundle", 'min_release = {"acme/tiny/edge" = 4}', 'min_release = {"acme/tiny/edge" = 5}'),
    ("bundle", "max_bytes = 1000", "max_bytes = 999"),
    ("bundle", 'encrypted = "forbidden"', 'encrypted = "required"'),
    ("bundle", 'watermark = "required"', 'watermark = "forbidden"'),
    ("content", 'digests = "sample"', 'digests = "full"'),
    ("content", 'digests = "leaves"', 'digests = "full"'),
    ("license", 'allowed = ["mit", "apache-2.0"]', 'allowed = ["Apache"]'),
    ("license", 'denied = ["MIT"]', 'denied = ["APACHE-2.0"]'),
    ("tier", 'minimum = "Enterprise-Ready"', 'minimum = "Enterprise-Ready"\nproven = true'),
    ("tier", 'minimum = "Verified"\nproven = true', 'minimum = "Enterprise-Ready"\nproven = true'),
    ("evidence", 'evaluators = ["Lab"]', 'evaluators = ["lab"]'),
    ("evidence", "max_age_days = 100", "max_age_days = 99"),
    ("evidence", 'tasks = ["classification"]', 'tasks = ["classification", "embedding"]'),
    ("evidence", 'metrics = ["accuracy"]', 'metrics = ["accuracy", "f1_macro"]'),
    ("evidence", "minimum = 2", "minimum = 3"),
    ("sbom", "minimum_percent = 75", "minimum_percent = 76"),
    ("sbom", "clusters = {models = 33}", "clusters = {models = 34}"),
    ("sbom", 'required = ["model-name"]', 'required = ["model-name", "model-license"]'),
    ("sbom", 'required = ["model-name"]', 'required = ["security-metrics"]'),
    ("sbom", "max_not_applicable = 1", "max_not_applicable = 0"),
]


def test_nobody_vouches_for_a_name_without_a_keyring() -> None:
    """With `--key` the facts have no trust; what stands for an issuer then is no issuer's name."""
    told = {"signer": {"issuer": "the given public key", "keyid": KEYID}}
    (found,) = evaluate(policy('[signer]\nissuers = ["the given public key"]'), told, NOW)
    assert not found.ok and "not known" in found.detail


@pytest.mark.parametrize(("section", "good", "bad"), BOUNDARIES)
def test_every_rule_at_its_boundary(section: str, good: str, bad: str) -> None:
    met, missed = finding(f"[{section}]\n{good}"), finding(f"[{section}]\n{bad}")
    assert (met.ok, missed.ok) == (True, False)
    assert met.rule.startswith(f"{section}.") and met.detail and missed.detail
    assert bad.split(" ")[0] in missed.rule or missed.rule == "tier.minimum"


@pytest.mark.parametrize(
    ("rule", "fact", "good", "bad"),
    [
        ("[signer]\npost_quantum = true", "post_quantum", {"bundle": True}, {"bundle": False}),
        ('[bundle]\ncustom_operators = "forbidden"', "custom_operators", [], ["acme.ops"]),
        ('[bundle]\nrecertification = "required"', "recertify_by", "2026-12-30", "2026-12-29"),
        ('[bundle]\nrecertification = "not-overdue"', "recertify_by", "2026-12-30", "2026-12-29"),
        ("[evidence]\nunexpired = true", "evidence", [evidence()], [evidence(valid_until=NOW)]),
        ("[evidence]\nunexpired = true", "evidence", [evidence(issued_at=NOW + DAY)],
         [evidence(issued_at=NOW + DAY + 1, valid_until=NOW + 9 * DAY)]),
        ("[evidence]\nminimum = 2", "evidence", [evidence(), evidence(metrics=[])],
         [evidence(), evidence() | {"name": "evidence/again.json"}]),
        ("[evidence]\nminimum = 1", "evidence", [evidence()], [evidence(verified=False)]),
        ("[evidence]\nunexpired = true", "evidence", [evidence()], [evidence(valid_until=None)]),
        ("[signer]\nmax_age_days = 0", "signed_at", NOW, NOW - 1),
        ("[signer]\nmax_age_days = 0", "signed_at", NOW + DAY, NOW + DAY + 1),
        ("[evidence]\nmax_age_days = 5", "evidence", [evidence(issued_at=NOW + DAY)],
         [evidence(issued_at=NOW + DAY + 1)]),
        ('[bundle]\nencrypted = "required"', "encrypted", True, False),
        ('[bundle]\nwatermark = "forbidden"', "watermark", False, True),
        ('[content]\ndigests = "full"', "content_mode", "full", "sample"),
    ],
)  # fmt: skip
def test_facts_at_the_boundary_of_a_rule(rule: str, fact: str, good: Any, bad: Any) -> None:
    assert finding(rule, with_fact(fact, good)).ok
    assert not finding(rule, with_fact(fact, bad)).ok


def test_the_day_of_re_certification_is_counted_in_utc() -> None:
    midnight = 1_798_588_800  # 2026-12-30 00:00 UTC
    rule = '[bundle]\nrecertification = "required"'
    assert finding(rule, with_fact("recertify_by", "2026-12-29"), midnight - 1).ok
    assert not finding(rule, with_fact("recertify_by", "2026-12-29"), midnight).ok


def test_a_bundle_without_a_date_is_only_not_overdue() -> None:
    facts = {name: value for name, value in FACTS.items() if name != "recertify_by"}
    assert finding('[bundle]\nrecertification = "not-overdue"', facts).ok
    assert not finding('[bundle]\nrecertification = "required"', facts).ok


def test_a_release_of_another_bundle_is_not_checked() -> None:
    assert finding('[bundle]\nmin_release = {"acme/tiny" = 9}').ok


def test_evidence_rules_narrow_what_the_next_ones_see() -> None:
    facts = with_fact("evidence", [evidence(metrics=[]), evidence(evaluator="Acme")])
    rules = '[evidence]\nevaluators = ["{}"]\nmetrics = ["accuracy"]'
    assert [f.ok for f in findings(rules.format("Lab"), facts)] == [True, False]
    assert [f.ok for f in findings(rules.format("Acme"), facts)] == [True, True]
    both = [evidence(evaluator="Acme"), evidence(issued_at=T0 - DAY)]
    rules = '[evidence]\nevaluators = ["Lab"]\nmax_age_days = 100\nminimum = 1'
    assert [f.ok for f in findings(rules, with_fact("evidence", both))] == [True, False, False]


ALL_RULES = """
[signer]
issuers = ["x"]
keyids = ["KEYID"]
post_quantum = true
max_age_days = 1
[bundle]
ids = ["x"]
kinds = ["onnx"]
min_release = {x = 1}
max_bytes = 1
encrypted = "forbidden"
watermark = "forbidden"
custom_operators = "forbidden"
recertification = "required"
[content]
digests = "sample"
[license]
allowed = ["x"]
denied = ["x"]
[tier]
minimum = "Experimental"
[evidence]
evaluators = ["x"]
max_age_days = 1
unexpired = true
tasks = ["tensor"]
metrics = ["x"]
minimum = 1
[sbom]
minimum_percent = 0
clusters = {models = 0}
required = ["model-name"]
max_not_applicable = 100
""".replace("KEYID", KEYID)


def test_a_fact_that_is_not_there_meets_no_rule() -> None:
    found = findings(ALL_RULES, {})
    assert len(found) == 26 and [f.rule for f in found if f.ok] == []


def test_any_and_false_are_no_rules() -> None:
    rules = 'encrypted = "any"\nwatermark = "any"\ncustom_operators = "any"\nrecertification = "any"'
    assert [f.rule for f in findings(f"[signer]\nmax_age_days = 100\n[bundle]\n{rules}")] == [
        "signer.max_age_days"
    ]
    with pytest.raises(SealpackError, match="has no rule"):
        policy(f"[signer]\npost_quantum = false\n[bundle]\n{rules}")


@pytest.mark.parametrize(
    ("spdx", "allowed", "denied", "verdicts"),
    [
        ("MIT OR GPL-3.0-only", '["MIT"]', '["GPL-3.0-only"]', [True, True]),
        ("MIT AND GPL-3.0-only", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", '["Apache-2.0", "MIT"]', '["MIT"]', [False, True]),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", '["MIT", "BSD-3-Clause"]', '["ISC"]', [True, True]),
        ("MIT OR Apache-2.0", '["MIT"]', '["MIT"]', [False, True]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", '["GPL-2.0-only"]', '["MIT"]', [False, True]),
        ("GPL-2.0-only WITH Classpath-exception-2.0",
         '["gpl-2.0-only with classpath-exception-2.0"]', '["GPL-2.0-only"]', [False, False]),
        ("GPL-2.0-only WITH Classpath-exception-2.0",
         '["gpl-2.0-only with classpath-exception-2.0"]', '["GPL-2.0-or-later"]', [True, True]),
        ("LicenseRef-acme", '["LicenseRef-acme"]', '["MIT"]', [True, True]),
        ("MIT OR", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("MIT Apache-2.0", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("(MIT", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("MIT, Apache-2.0", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("MIT WITH", '["MIT"]', '["GPL-3.0-only"]', [False, False]),
        ("(" * 100 + "MIT" + ")" * 100, '["MIT"]', '["GPL-3.0-only"]', [False, False]),
    ],
)  # fmt: skip
def test_license_expressions(spdx: str, allowed: str, denied: str, verdicts: list[bool]) -> None:
    rules = f"[license]\nallowed = {allowed}\ndenied = {denied}"
    assert [f.ok for f in findings(rules, with_fact("license_terms", {"spdx": spdx}))] == verdicts


# --- reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[signer]\nissuer = ['x']", "policy.signer.issuer is not a known rule"),
        ("[signers]\nissuers = ['x']", "policy.signers is not a known rule"),
        ("max_bytes = 1", "policy.max_bytes is not a known rule"),
        ("[signer]\nissuers = []", "policy.signer.issuers is empty"),
        ("[signer]\nissuers = 'x'", "policy.signer.issuers is not an array"),
        ("[signer]\nissuers = [1]", "policy.signer.issuers[0]"),
        ("[signer]\nissuers = ['']", "policy.signer.issuers[0]"),
        ("[signer]\nkeyids = ['AB']", "policy.signer.keyids[0]"),
        ("[signer]\npost_quantum = 1", "policy.signer.post_quantum is not true or false"),
        ("[signer]\nmax_age_days = -1", "policy.signer.max_age_days is -1"),
        ("[signer]\nmax_age_days = 1.5", "policy.signer.max_age_days is not an integer"),
        ("[signer]\nmax_age_days = true", "policy.signer.max_age_days is not an integer"),
        ("signer = 1", "policy.signer is not an object"),
        ("[bundle]\nids = ['Acme']", "policy.bundle.ids[0]"),
        ("[bundle]\nids = ['acme/']", "policy.bundle.ids[0]"),
        ("[bundle]\nkinds = ['onxx']", "policy.bundle.kinds names 'onxx'"),
        ("[bundle]\nmin_release = 3", "policy.bundle.min_release is not an object"),
        ("[bundle]\nmin_release = {'acme/tiny' = 0}", "policy.bundle.min_release.acme/tiny is 0"),
        ("[bundle]\nmin_release = {'A' = 1}", "policy.bundle.min_release"),
        ("[bundle]\nmax_bytes = 0", "policy.bundle.max_bytes is 0"),
        ("[bundle]\nencrypted = 'yes'", "policy.bundle.encrypted is 'yes'"),
        ("[bundle]\ncustom_operators = 'required'", "policy.bundle.custom_operators is 'required'"),
        ("[bundle]\nrecertification = 'forbidden'", "policy.bundle.recertification is 'forbidden'"),
        ("[content]\ndigests = 'any'", "policy.content.digests is 'any'"),
        ("[tier]\nminimum = 'verified'", "policy.tier.minimum is 'verified'"),
        ("[tier]\nproven = true", "policy.tier.proven needs minimum"),
        ("[evidence]\ntasks = ['chat']", "policy.evidence.tasks names 'chat'"),
        ("[evidence]\nmetrics = ['Accuracy']", "policy.evidence.metrics[0]"),
        ("[evidence]\nminimum = 0", "policy.evidence.minimum is 0"),
        ("[sbom]\nminimum_percent = 101", "policy.sbom.minimum_percent is 101"),
        ("[sbom]\nclusters = {model = 1}", "policy.sbom.clusters"),
        ("[sbom]\nclusters = {models = 101}", "policy.sbom.clusters.models is 101"),
        ("[sbom]\nrequired = ['model']", "policy.sbom.required names 'model'"),
        ("", "policy has no rule"),
        ("[signer]", "policy has no rule"),
        ("[signer", "policy is not TOML"),
        ("schema = 'x'", "policy is not TOML"),
    ],
)
def test_a_faulty_policy_is_refused_by_its_place(text: str, place: str) -> None:
    with pytest.raises(SealpackError) as caught:
        policy(text)
    assert caught.value.code == "POLICY_INVALID"
    assert caught.value.message.startswith(place)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b'name = "x"\n[tier]\nminimum = "Verified"', "policy.schema is missing"),
        (b'schema = "sealpack/policy/v2"\nname = "x"', "policy.schema is"),
        (b'schema = "sealpack/policy/v1"\n[tier]\nminimum = "Verified"', "policy.name is missing"),
        (b"\xff", "policy is not TOML"),
        (b"x = " + b"[" * 100_000, "policy is not TOML"),
    ],
)
def test_a_file_that_is_no_policy(data: bytes, place: str) -> None:
    with pytest.raises(SealpackError) as caught:
        Policy.from_bytes(data)
    assert (caught.value.code, caught.value.message[: len(place)]) == ("POLICY_INVALID", place)


# --- the report -------------------------------------------------------------------------------------------


LICENSE = b"Test license.\n"
TERMS = Terms("MIT OR Apache-2.0", "license/LICENSE.txt", hashlib.sha256(LICENSE).hexdigest())
SPEC = BundleSpec(
    extra={
        "license/LICENSE.txt": ("license-text", "text/plain", LICENSE),
        "license/terms.json": ("license-terms", "application/json", TERMS.to_bytes()),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle, a broken one, the trust file, and policies."""
    folder = tmp_path_factory.mktemp("policy")
    made = SPEC.build()
    (folder / "good.sealpack").write_bytes(made)
    at = made.index(b"GGUF", 65536) + 1000
    (folder / "bad.sealpack").write_bytes(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :])
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())
    (folder / "creator.pem").write_text(world.CREATOR.public.pem)
    head = 'schema = "sealpack/policy/v1"\nname = "house rules"\n'
    for name, rules in {
        "lax": f'[signer]\nissuers = ["{world.ISSUER}"]\n[bundle]\ncustom_operators = "forbidden"\n'
        f'max_bytes = {len(made)}\n[license]\nallowed = ["MIT"]\n[content]\ndigests = "leaves"',
        "small": f"[bundle]\nmax_bytes = {len(made) - 1}\nids = ['acme']",
        "full": '[content]\ndigests = "full"',
        "tier": '[tier]\nminimum = "Verified"\n[sbom]\nminimum_percent = 90',
        "typo": "[bundle]\nmax_byte = 1",
    }.items():
        (folder / f"{name}.toml").write_text(head + rules)
    (folder / "large.toml").write_bytes(b"#" * (MAX_POLICY_BYTES + 1))
    return folder


def call(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; names of files in `folder` are written `@name`."""
    given = [str(folder / a[1:]) if a.startswith("@") else a for a in arguments]
    done = cli.run(cli.make_cli(), given), *capsys.readouterr()
    assert "Traceback" not in done[1] + done[2]
    return done


TRUSTED = ("--trust", "@trust.json")


def test_a_bundle_that_the_policy_lets_in(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, folder, "verify", "@good.sealpack", *TRUSTED, "--policy", "@lax.toml")
    assert (status, err) == (0, "") and out.startswith("PASS")
    for rule in ("signer.issuers", "bundle.custom_operators", "bundle.max_bytes", "license.allowed"):
        assert f"ok   policy.{rule}" in out


@pytest.mark.parametrize(
    ("name", "more", "denied"),
    [
        ("small", TRUSTED, ["policy.bundle.max_bytes"]),
        ("full", (*TRUSTED, "--leaves"), ["policy.content.digests"]),
        ("tier", TRUSTED, ["policy.tier.minimum", "policy.sbom.minimum_percent"]),
        ("lax", ("--key", "@creator.pem"), ["policy.signer.issuers"]),
    ],
)
def test_a_good_bundle_that_the_policy_keeps_out(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, more: tuple[str, ...], denied: list[str]
) -> None:
    given = ("verify", "@good.sealpack", *more, "--policy", f"@{name}.toml")
    status, out, err = call(capsys, folder, *given)
    assert status == 4 and "[POLICY_DENIED]" in out
    assert err.startswith("sealpack: error[POLICY_DENIED]: ") and err.count("\n") == 1
    status, out, _ = call(capsys, folder, *given, "--format", "json")
    report = json.loads(out)
    assert status == 4 and report["verdict"] == "fail"
    assert [c["id"] for c in report["checks"] if c["status"] == "fail"] == denied
    assert {c.get("code") for c in report["checks"] if c["status"] == "fail"} == {"POLICY_DENIED"}
    data = (folder / f"{name}.toml").read_bytes()
    assert report["policy"] == {"name": "house rules", "sha256": hashlib.sha256(data).hexdigest()}


def test_rules_are_not_compared_with_a_bad_bundle(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("verify", "@bad.sealpack", *TRUSTED, "--policy", "@small.toml", "--format", "json")
    status, out, _ = call(capsys, folder, *given)
    report = json.loads(out)
    assert status == 3 and "policy" not in report
    assert [c for c in report["checks"] if c["id"].startswith("policy")] == [
        {"id": "policy", "status": "skip", "detail": "not evaluated: the bundle did not pass"}
    ]


@pytest.mark.parametrize(
    ("name", "code", "status", "told"),
    [
        ("@typo.toml", "POLICY_INVALID", 2, "typo.toml.bundle.max_byte is not a known rule"),
        ("@large.toml", "POLICY_INVALID", 2, "is larger than"),
        ("@trust.json", "POLICY_INVALID", 2, "is not TOML"),
        ("@none.toml", "FILE_MISSING", 1, "none.toml"),
    ],
)
def test_a_policy_that_cannot_be_read(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, code: str, status: int, told: str
) -> None:
    found, out, err = call(capsys, folder, "verify", "@good.sealpack", *TRUSTED, "--policy", name)
    assert (found, out) == (status, "")
    assert err.startswith(f"sealpack: error[{code}]: ") and told in err and err.count("\n") == 1


def test_after_a_sample_the_operators_are_not_known(folder: Path) -> None:
    report = verify_bundle(folder / "good.sealpack", world.make_trust(), sample=1)
    if report.facts["content_mode"] == "sample":  # a tiny payload is hashed whole
        assert "custom_operators" not in report.facts
    rules = '[bundle]\ncustom_operators = "forbidden"'
    policies.apply(report, policy(rules), NOW)
    assert report.ok == ("custom_operators" in report.facts)


def test_apply_counts_from_the_given_time(folder: Path) -> None:
    for late, ok in ((0, True), (1, False)):
        report = verify_bundle(folder / "good.sealpack", world.make_trust())
        policies.apply(report, policy("[signer]\nmax_age_days = 7"), T0 + 7 * DAY + late)
        assert (report.ok, report.exit_status) == (ok, 0 if ok else 4)


def test_an_empty_report_is_not_a_good_bundle() -> None:
    report = Report("x")
    policies.apply(report, policy("[signer]\nmax_age_days = 7"), NOW)
    assert [c.status for c in report.checks] == ["skip"] and "policy" not in report.facts


# --- the example ------------------------------------------------------------------------------------------


def example_facts() -> dict[str, Any]:
    """Facts of a bundle that the example lets in, by a hair."""
    facts = copy.deepcopy(FACTS)
    clusters = [
        {"id": "metadata", "present": 10, "applicable": 10, "elements": [
            {"id": name, "status": "present"}
            for name in ("model-license", "model-hash-value", "vulnerability-referencing")]},
        {"id": "models", "present": 8, "applicable": 10, "elements": []},
    ]  # fmt: skip
    return facts | {
        "bundle_id": "acme/triage",
        "size": 8_000_000_000,
        "content_mode": "full",
        "license_terms": {"spdx": "LicenseRef-acme-edge OR AGPL-3.0-only"},
        "evidence": [evidence(evaluator="Ward Test Laboratory")],
        "completeness": {"present": 35, "applicable": 50, "clusters": clusters},
    }


WORSE: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("signer.issuers", lambda f: f["signer"].update(issuer="Acme")),
    ("signer.max_age_days", lambda f: f.update(signed_at=NOW - 731 * DAY)),
    ("bundle.ids", lambda f: f.update(bundle_id="acmex/triage")),
    ("bundle.kinds", lambda f: f.update(kind="agent")),
    ("bundle.min_release", lambda f: f.update(release_index=3)),
    ("bundle.max_bytes", lambda f: f.update(size=8_000_000_001)),
    ("bundle.custom_operators", lambda f: f.update(custom_operators=["x"])),
    ("bundle.recertification", lambda f: f.update(recertify_by="2026-12-29")),
    ("content.digests", lambda f: f.update(content_mode="leaves")),
    ("license.allowed", lambda f: f.update(license_terms={"spdx": "ISC"})),
    ("tier.minimum", lambda f: f["tier"].update(proven="Experimental")),
    ("evidence.metrics", lambda f: f["evidence"][0].update(metrics=[])),
    ("evidence.tasks", lambda f: f["evidence"][0].update(task="tensor")),
    ("sbom.minimum_percent", lambda f: f["completeness"].update(present=34)),
    ("sbom.clusters.models", lambda f: f["completeness"]["clusters"][1].update(present=7)),
    ("sbom.required", lambda f: f["completeness"]["clusters"][0]["elements"].pop()),
]


def test_the_example_lets_in_what_meets_it() -> None:
    found = list(evaluate(policies.load(EXAMPLE), example_facts(), NOW))
    assert [f for f in found if not f.ok] == [] and len(found) == 22


@pytest.mark.parametrize(("rule", "change"), WORSE, ids=[rule for rule, _ in WORSE])
def test_the_example_keeps_out_what_misses_one_rule(
    rule: str, change: Callable[[dict[str, Any]], object]
) -> None:
    facts = example_facts()
    change(facts)
    found = [f.rule for f in evaluate(policies.load(EXAMPLE), facts, NOW) if not f.ok]
    assert found == [rule]


def test_the_page_names_every_rule() -> None:
    page = (ROOT / "specs/policy.md").read_text()
    for rule in (found.rule for found in findings(ALL_RULES, {})):
        assert f"`{rule}`" in page or rule == "sbom.clusters.models", rule

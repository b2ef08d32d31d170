"""The builder stamps the tier it can prove, and refuses a claim it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import T0, Builder, sealpack
from support.evidence import DAY

from sealpack.builder import config
from sealpack.builder.describe import io_member, read_model
from sealpack.format import documents
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import io_digest
from sealpack.format.files import read_bounded
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust
from sealpack.verifier import tiers, verify_bundle

Capture = pytest.CaptureFixture[str]
IO = """
[io]
task = "tensor"
samples = [{input = {inputs = {x = [[1]]}}, expect = {label = "a"}}]
"""
DECLARED = 'thresholds = [{metric = "mae", max = "0.5"}]'


@pytest.fixture
def project(home: Path) -> Path:
    """A project whose configuration meets every gate but the evidence."""
    text = (home / "sealpack.toml").read_text()
    text = text.replace('# intended_use = "..."', 'intended_use = "tests"')
    text = text.replace("files = []", f'files = ["evidence/e.json"]\n{DECLARED}')
    text = text.replace("[io]  ", IO + "\n# ")
    (home / "sealpack.toml").write_text(text)
    return home


def evidence(project: Path, model: Path, key: PrivateKey | None = None, **members: Any) -> Path:
    """Evidence about `model` fed as the project says, signed by its bundle key, in its folder."""
    import hashlib

    found = config.load(project / "sealpack.toml")
    io = io_member(read_model(model).description, found.io, set())
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    kind = model.suffix[1:]
    payload: dict[str, Any] = {
        "evaluator": "acme",
        "issued_at": T0 - DAY,
        "valid_until": T0 + 300 * DAY,
        "subject": {
            "kind": kind,
            "files": [{"name": f"payload/model.{kind}", "sha256": digest}],
            "io_sha256": io_digest(io),
        },
        "task": "tensor",
        "data": {"name": "d", "digest": "00" * 32, "format": "csv", "rows": 400},
        "metrics": [{"name": "mae", "value": "0.25", "n": 400, "higher_is_better": False,
                     "baseline": "2.5"}],
        "performance": {"calls": 400, "latency_us": {"p50": 1, "p90": 2, "p99": 3}, "throughput": "9.5"},
        "environment": {"engine": "e", "engine_version": "1", "sealpack": "1", "os": "x", "arch": "y",
                        "threads": 1},
        "method": {"evaluated": 400, "seed": 0, "batch": 1, "warmup": 0},
        "samples": {"passed": 1, "total": 1},
    }  # fmt: skip
    key = key or PrivateKey.load(project / "keys/bundle.pem")
    path = project / "evidence/e.json"
    path.write_bytes(documents.seal("evidence", payload | members, key).to_bytes())
    return path


def built(build: Builder, project: Path, model: Path, out: Path, **order: Any) -> Any:
    return build(model, out, config=config.load(project / "sealpack.toml"), **order)


def claimed(project: Path, tier: str) -> None:
    """Ask for a tier in sealpack.toml."""
    path = project / "sealpack.toml"
    path.write_text(path.read_text().replace("# quality_tier", f'quality_tier = "{tier}"\n# was'))


def test_the_highest_tier_that_is_proven_is_stamped(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path, trust: Trust
) -> None:
    evidence(project, onnx_model)
    made = built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert made.manifest.quality_tier == "Verified"
    assert made.manifest.tier_proof.policies == (tiers.published()[-1].sha256,)
    assert made.manifest.tier_proof.thresholds[0].max == "0.5"
    report = verify_bundle(made.path, trust)
    assert report.ok, report.failures
    assert report.facts["tier"]["proven"] == "Verified"
    again = built(build, project, onnx_model, tmp_path / "y.sealpack")
    assert again.path.read_bytes() == made.path.read_bytes()


def test_less_may_be_claimed(build: Builder, project: Path, onnx_model: Path, tmp_path: Path) -> None:
    evidence(project, onnx_model)
    claimed(project, "Experimental")
    made = built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert made.manifest.quality_tier == "Experimental" and made.manifest.tier_proof is None


@pytest.mark.parametrize("tier", ["Verified", "Enterprise-Ready"])
def test_a_claim_without_evidence_is_refused(
    build: Builder, home: Path, onnx_model: Path, tmp_path: Path, tier: str
) -> None:
    assert built(build, home, onnx_model, tmp_path / "e.sealpack").manifest.quality_tier == "Experimental"
    claimed(home, tier)
    with pytest.raises(SealpackError) as caught:
        built(build, home, onnx_model, tmp_path / "x.sealpack")
    error = caught.value
    assert error.code == "TIER_UNPROVEN" and error.spec.exit == 4
    assert "there is no signed evidence" in error.message and "sealpack evaluate" in error.remedy
    assert {gate["id"] for gate in error.facts["gates"]} >= {"evidence", "intended_use"}
    assert not list(tmp_path.glob("*x.sealpack*"))


def test_each_missing_gate_is_named_with_what_to_do(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path
) -> None:
    evidence(project, onnx_model, method={"evaluated": 99, "seed": 0, "batch": 1, "warmup": 0})
    made = built(build, project, onnx_model, tmp_path / "e.sealpack")
    assert made.manifest.quality_tier == "Experimental"
    claimed(project, "Enterprise-Ready")
    with pytest.raises(SealpackError) as caught:
        built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert "rows (Verified): 99 rows evaluated, 100 needed" in caught.value.message
    assert "set bundle.support" in caught.value.remedy
    assert "have it evaluated by somebody else" in caught.value.remedy


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"evaluator": "somebody"}, "SIG_KEY_ROLE"),
        ({"task": "divination"}, "DOC_SCHEMA"),
        ({"subject": {"kind": "onnx", "files": [{"name": "payload/model.onnx", "sha256": "00" * 32}],
                      "io_sha256": "00" * 32}}, "EVIDENCE_MISMATCH"),
    ],
)  # fmt: skip
def test_evidence_no_verifier_would_take_is_refused(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path, members: dict[str, Any], code: str
) -> None:
    evidence(project, onnx_model, **members)
    for tier in (None, "Experimental"):
        if tier:
            claimed(project, tier)
        with pytest.raises(SealpackError) as caught:
            built(build, project, onnx_model, tmp_path / "x.sealpack")
        assert caught.value.code == code
        assert not list(tmp_path.glob("*x.sealpack*"))


def test_a_key_without_the_role_proves_nothing(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path
) -> None:
    evidence(project, onnx_model, PrivateKey.load(project / "keys/license.pem"))
    with pytest.raises(SealpackError) as caught:
        built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert caught.value.code == "SIG_KEY_ROLE"


def test_without_a_trust_file_nothing_is_proven(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path
) -> None:
    evidence(project, onnx_model)
    made = built(build, project, onnx_model, tmp_path / "e.sealpack", trust=None)
    assert made.manifest.quality_tier == "Experimental"
    claimed(project, "Verified")
    with pytest.raises(SealpackError, match="without a trust file") as caught:
        built(build, project, onnx_model, tmp_path / "x.sealpack", trust=None)
    assert caught.value.code == "TIER_UNPROVEN"


def test_a_stricter_policy_of_ones_own(
    project: Path, onnx_model: Path, trust: Trust, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    evidence(project, onnx_model)
    text = Path(tiers.__file__).with_name("tiers.toml").read_text()
    lax = text.replace("min_rows = 100 ", "min_rows = 1 ").replace('"intended_use"]', "]").replace(", ]", "]")
    for name, content in (("strict", text.replace("min_rows = 100 ", "min_rows = 401 ")), ("lax", lax)):
        Path(f"{name}.toml").write_text(content)
    order = (onnx_model, "--signed-at", str(T0), "--format", "json")
    assert sealpack("build", *order, "--tier-policy", "strict.toml", "--out", "s.sealpack") == 0
    assert json.loads(capsys.readouterr().out)["quality_tier"] == "Experimental"
    assert sealpack("build", *order, "--tier-policy", "strict.toml", "--tier", "Verified",
                    "--out", "t.sealpack") == 4  # fmt: skip
    assert "400 rows evaluated, 401 needed" in capsys.readouterr().out
    assert not Path("t.sealpack").exists()
    assert sealpack("build", *order, "--tier-policy", "lax.toml", "--out", "l.sealpack") == 0
    capsys.readouterr()
    report = verify_bundle("l.sealpack", trust)
    assert report.ok and len(report.facts["tier"]["policies"]) == 2
    assert len(report.facts["evidence"]) == 1
    few = {"evaluated": 10, "seed": 0, "batch": 1, "warmup": 0}
    evidence(project, onnx_model, method=few)  # the lax policy does not loosen the published one
    assert sealpack("build", *order, "--tier-policy", "lax.toml", "--out", "m.sealpack") == 0
    assert json.loads(capsys.readouterr().out)["quality_tier"] == "Experimental"
    Path("bad.toml").write_text("x = [")
    assert sealpack("build", *order, "--tier-policy", "bad.toml", "--out", "b.sealpack") == 2
    assert "bad.toml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("threshold", "place"),
    [
        ('{metric = "mae"}', "thresholds[0].min"),
        ('{metric = "mae", min = "1", max = "2"}', "thresholds[0].min"),
        ('{metric = "mae", max = 0.5}', "thresholds[0].max"),
        ('{metric = "mae", max = "1e3"}', "thresholds[0].max"),
        ('{metric = "M A E", max = "1"}', "thresholds[0].metric"),
        ('{max = "1"}', "thresholds[0].metric"),
        ('{metric = "mae", max = "1", mood = "x"}', "thresholds[0].mood"),
    ],
)
def test_thresholds_are_read_strictly(home: Path, threshold: str, place: str) -> None:
    text = (
        (home / "sealpack.toml").read_text().replace("files = []", f"files = []\nthresholds = [{threshold}]")
    )
    with pytest.raises(SealpackError) as caught:
        config.parse(text, home)
    assert caught.value.code == "CONFIG_INVALID" and f"evidence.{place}" in caught.value.message


def test_evaluate_build_and_verify_as_a_creator_does(
    project: Path, onnx_model: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The verbs together: figures from the real engine, a tier from the figures, and an assessor's."""
    pytest.importorskip("onnxruntime")
    np = pytest.importorskip("numpy")
    monkeypatch.chdir(project)
    text = Path("sealpack.toml").read_text().replace(IO, '\n[io]\ntask = "tensor"\n')
    Path("sealpack.toml").write_text(text)
    weights = np.random.default_rng(7).standard_normal((256, 256), np.float32)
    inputs = np.random.default_rng(8).standard_normal((30, 256), np.float32)
    np.savez("rows.npz", input=inputs, target=inputs @ weights)
    order = ("evaluate", onnx_model, "--data", "rows.npz", "--key", "keys/bundle.pem", "--threads", "1")
    assert sealpack(*order, "--out", "evidence/e.json") == 0
    envelope = Envelope.from_bytes(read_bounded("evidence/e.json", 1 << 20))
    assert json.loads(envelope.payload)["evaluator"] == "acme"
    assert sealpack("build", onnx_model, "--tier", "Verified", "--out", "x.sealpack") == 4
    assert "0 of 0 samples passed, 1 needed" in capsys.readouterr().err
    assert sealpack("build", onnx_model, "--out", "x.sealpack") == 0
    assert verify_bundle("x.sealpack", trust).ok


def test_evidence_of_another_processing_is_named_before_its_gates(
    build: Builder, project: Path, onnx_model: Path, tmp_path: Path
) -> None:
    evidence(project, onnx_model, method={"evaluated": 9, "seed": 0, "batch": 1, "warmup": 0})
    claimed(project, "Verified")
    with pytest.raises(SealpackError, match="9 rows evaluated") as caught:
        built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert caught.value.code == "TIER_UNPROVEN"
    assert caught.value.message.count("9 rows evaluated") == 1
    path = project / "sealpack.toml"
    path.write_text(path.read_text().replace('label = "a"', 'label = "b"'))
    with pytest.raises(SealpackError, match="other processing") as caught:
        built(build, project, onnx_model, tmp_path / "x.sealpack")
    assert caught.value.code == "EVIDENCE_MISMATCH"

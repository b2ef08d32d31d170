"""docs/verifying.md, command by command, on a bundle that its strict example policy lets in."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builder.conftest import sealpack

from sealpack.builder.project import create
from sealpack.format.dsse import Envelope
from sealpack.format.keys import PublicKey
from sealpack.verifier.report import ORDER

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "verifying.md").read_text()
BUNDLE = "triage-1.0.0.sealpack"
ROWS = 120
Capture = pytest.CaptureFixture[str]
Outcome = Callable[..., tuple[int, str, str]]
SETTINGS = {
    'id = "acme/my-model"': 'id = "acme/triage"',
    "release_index = 1": "release_index = 4",
    '# description = "..."': 'description = "Which of two scores is larger."',
    '# intended_use = "..."': 'intended_use = "Trying the commands of a page."',
    '# support = "help': 'support = "help',
    "# recertify_by = 2027-12-31": "recertify_by = 2099-12-31",
    'spdx = "LicenseRef-acme-model"': 'spdx = "Apache-2.0"',
    '# task = "embedding"': 'task = "classification" #',
    '# post = {kind = "embedding", output = "sentence_embedding"}': """
post = {kind = "labels", output = "scores", labels = ["a", "b"]}
samples = [{input = {inputs = {x = [[1, 0]]}}, expect = {label = "a"}}]
""",
    "# thresholds = [": "thresholds = [",
    "# approach": "approach",
    "# model_date": "model_date",
    "# [sbom.security]": "[sbom.security]",
    '# compliance = ["..."]': 'compliance = ["none"]',
    "# policy_url": "policy_url",
    "# advisories_url": "advisories_url",
    '# datasets = [{name = "..."': 'datasets = [{description = "d", content = "vectors", name = "pairs"',
}


def classifier(path: Path) -> None:
    """An ONNX file that says which of two numbers is larger."""
    np, onnx = pytest.importorskip("numpy"), pytest.importorskip("onnx")
    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = h.make_graph(
        [h.make_node("MatMul", ["x", "w"], ["scores"])],
        "triage",
        [h.make_tensor_value_info("x", kind, ["n", 2])],
        [h.make_tensor_value_info("scores", kind, ["n", 2])],
        [onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")],
    )
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8), path)


def vendor(folder: Path) -> None:
    """Build and evaluate the bundle as the vendor does, in the project `folder`."""
    made = create(folder, publisher="acme", name="Acme", now=1_790_000_000)
    text = (made.folder / "sealpack.toml").read_text()
    for old, new in SETTINGS.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "sealpack.toml").write_text(text)
    classifier(folder / "triage.onnx")
    rows = ({"x": [i % 2, 1 - i % 2], "label": "ba"[i % 2]} for i in range(ROWS))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ("--config", folder / "sealpack.toml")
    measured = ("--data", folder / "rows.jsonl", "--key", folder / "keys/bundle.pem", "--out")
    assert sealpack("evaluate", folder / "triage.onnx", *config, *measured, folder / "evidence/e.json") == 0
    (folder / "sealpack.toml").write_text(text.replace("files = []", 'files = ["evidence/e.json"]'))
    assert sealpack("build", folder / "triage.onnx", *config, "--out", folder / BUNDLE) == 0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vendor's side."""
    folder = tmp_path_factory.mktemp("vendor") / "acme"
    vendor(folder)
    return folder


@pytest.fixture
def desk(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What lies before the security team, which works in this folder: the files the page names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(project / BUNDLE, BUNDLE)
    shutil.copy(project / "trust/trust.json", "trust.json")
    shutil.copy(project / "keys/bundle.pub.pem", "creator.pub.pem")
    example = (DOCS / "policy-example.toml").read_text()
    Path("policy.toml").write_text(example.replace("Acme Models", "acme"))
    Path("stick").mkdir()
    assert sealpack("export", BUNDLE, "--parts", "stick") == 0
    return tmp_path


@pytest.fixture
def outcome(capsys: Capture) -> Outcome:
    """Exit status, stdout and stderr of a `sealpack` call."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = sealpack(*arguments)
        return status, *capsys.readouterr()

    return call


def section(title: str) -> str:
    parts = re.split(r"^## (?:\d\. )?(.*)\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]


def commands(text: str = PAGE) -> list[list[str]]:
    """Every indented line: a command each."""
    return [shlex.split(line) for line in re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)]


def rows(text: str) -> dict[str, list[str]]:
    """Name in the first column -> the other cells, of the page's tables whose names stand in backticks."""
    lines = re.findall(r"^\| `?([^|`]+)`? \| (.*) \|$", text, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in lines}


def outside(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a tool that is not ours; model_signing stands beside this interpreter."""
    tool = Path(sys.executable).with_name("model_signing") if command[0] == "model_signing" else command[0]
    return subprocess.run([tool, *command[1:]], capture_output=True, text=True, check=False)


def test_every_command_of_the_page_does_what_it_says(desk: Path, capsys: Capture) -> None:
    found = commands()
    assert [words[0] for words in found].count("sealpack") == len(found) - 3 == 13
    said = {}
    for words in found:
        if words[0] == "sealpack":
            assert sealpack(*words[1:]) == 0, (words, capsys.readouterr().err)
        else:
            done = outside(*words)
            assert done.returncode == 0, done.stderr
            said[words[0]] = done.stdout
    report = json.loads((desk / "report.json").read_text())
    assert report["verdict"] == "pass" and report["quality_tier"] == "Verified"
    assert said["sha256sum"].split()[0] == report["signer"]["keyid"]
    assert (desk / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((desk / "report.sarif").read_text())["version"] == "2.1.0"
    team = PublicKey.from_pem((desk / "team.pub.pem").read_text())
    signed = Envelope.from_bytes((desk / "triage.svr").read_bytes().rstrip(b"\n"))
    team.verify(signed.signatures[0].sig, signed.signed_bytes)
    payload = json.loads(signed.payload)
    manifest = hashlib.sha256((desk / "m/manifest.json").read_bytes()).hexdigest()
    assert payload["subject"][0]["digest"] == {"sha256": manifest}
    assert payload["predicate"]["verifier"]["id"] == "https://hospital.example/security"


def test_every_check_has_its_row_in_the_order_they_are_made() -> None:
    told = list(rows(section("Verify")))
    checks = told[told.index(ORDER[0]) :]
    assert [name for name in checks if name != "licenses"] == list(ORDER)


def test_exit_statuses(desk: Path, outcome: Outcome) -> None:
    """3, 4, 1 and 2 mean what the page says, and each refusal says in one line what to do next."""
    call = ("verify", BUNDLE, "--trust", "trust.json")
    whole = Path(BUNDLE).read_bytes()
    flipped = bytearray(whole)
    flipped[-400] ^= 1
    Path("policy.toml").write_text(
        'schema = "sealpack/policy/v1"\nname = "n"\n[signer]\nissuers = ["other"]\n'
    )
    Path("typo.toml").write_text('schema = "sealpack/policy/v1"\nname = "n"\n[signer]\nissuer = ["acme"]\n')
    Path("flipped.sealpack").write_bytes(flipped)
    for status, code, arguments in (
        (3, "[A-Z]+_[A-Z]+", ("verify", "flipped.sealpack", *call[2:])),
        (4, "POLICY_DENIED", (*call, "--policy", "policy.toml")),
        (1, "FILE_MISSING", ("verify", "none.sealpack", *call[2:])),
        (2, "POLICY_INVALID", (*call, "--policy", "typo.toml")),
        (3, "JSON_INVALID", ("verify", BUNDLE, "--trust", "creator.pub.pem")),
        (3, "KEY_MALFORMED", ("verify", BUNDLE, "--key", "trust.json")),
    ):
        found, _, told = outcome(*arguments)
        assert found == status, told
        assert re.fullmatch(rf"sealpack: error\[{code}\]: .+; next: .+\n", told), told


def test_a_sample_is_no_decision(desk: Path, outcome: Outcome) -> None:
    """The example policy asks for every byte; a refused bundle gets a report, and no signed result."""
    call = ("verify", BUNDLE, "--trust", "trust.json", "--policy", "policy.toml", "--sample", "64")
    status, _, told = outcome(*call, "--format", "html", "-o", "sampled.html")
    assert status == 4 and "policy.content.digests" in told and Path("sampled.html").exists()
    assert sealpack("key", "new", "team.pem") == 0
    assert outcome(*call, "--format", "svr", "--sign-key", "team.pem", "-o", "sampled.svr")[0] == 4
    assert not Path("sampled.svr").exists()


def test_outside_tools_know_no_withdrawal(project: Path, desk: Path, outcome: Outcome) -> None:
    """The first two lines of the table are one verdict; the third is Sealpack's alone."""
    unpack, check, _ = commands(section("Ask tools we did not write"))
    assert outside(*unpack).returncode == 0
    root = ("--root-key", str(project / "keys/root.pem"))
    assert sealpack("trust", "revoke", "--trust", "trust.json", "--bundle", BUNDLE, *root) == 0
    status, _, told = outcome("verify", BUNDLE, "--trust", "trust.json")
    assert status == 4 and "BUNDLE_REVOKED" in told
    _, shown, _ = outcome("trust", "show", "trust.json")
    assert "  bundle   " in shown
    assert outside(*check).returncode == 0
    with Path("m/payload/model.onnx").open("ab") as model:
        model.write(b"x")
    assert outside(*check).returncode != 0

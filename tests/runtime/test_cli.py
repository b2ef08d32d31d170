"""The customer verbs as people and scripts meet them: words, JSON, exit statuses, nothing half-written."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.site import INPUT, Site, make_license

import sealpack.runtime
from sealpack.format.activation import ActivationRequest
from sealpack.format.documents import Parcel
from sealpack.format.license import Quota, Use
from sealpack.format.terms import Terms
from sealpack.verifier.cli.main import make_cli, run

TEXT = b"You may use this.\n"


class Shell:
    """Runs verbs against one site."""

    def __init__(self, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        self.site, self._capsys = site, capsys
        self.err = ""

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        """Stdout of a verb, after checking its exit status; stderr is in `err`."""
        got = run(make_cli(), [*map(str, arguments), "--state", str(self.site.state_dir)])
        out, self.err = self._capsys.readouterr()
        assert got == status, self.err
        assert "Traceback" not in self.err
        return out

    def json(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """The JSON result of a verb."""
        result: dict[str, Any] = json.loads(self(*arguments, "--format", "json", status=status))
        assert result["schema"].startswith("sealpack/")
        return result


@pytest.fixture
def shell(site: Site, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(site, capsys)


def pinned(shell: Shell) -> Path:
    trust = shell.site.folder / "trust.json"
    trust.write_bytes(shell.site.trust.to_bytes())
    shell("trust", "pin", trust, "--yes")
    return trust


def test_from_pin_to_export(shell: Shell) -> None:
    site = shell.site
    pinned(shell)
    assert shell("install", site.bundle()).startswith("installed acme/tiny 1.0.0")
    shell("run", "acme/tiny", "--text", "x", status=4)
    assert "error[LIC_MISSING]" in shell.err
    request = site.folder / "request.json"
    shell("activate", "request", "--out", request, "--label", "ward 3")
    asked = ActivationRequest.open(Parcel.from_bytes(request.read_bytes()).documents[0])
    assert asked.device_label == "ward 3"
    reply = site.folder / "reply.license"
    reply.write_bytes(site.reply(asked, make_license()).to_bytes())
    assert "license L-1 for Hospital Nord" in shell("activate", "install", reply)
    assert "nothing new" in shell("activate", "install", reply)
    assert shell.json("activate", "status")["device_id"] == asked.device_id
    data = site.folder / "input.json"
    data.write_text(json.dumps(INPUT))
    assert shell("run", "acme/tiny", "--input", data) == "b 0.9997\n"
    assert shell.err.startswith("metered: calls 1, ms ")
    answer = shell.json("run", "acme/tiny", "--input", data)
    assert answer["answer"]["labels"][0]["label"] == "b"
    assert answer["meters"]["items"] == 1
    files = shell.json("receipts", "export", "--out", site.folder / "out")["files"]
    assert len(files) == 1
    assert "whole and valid" in shell("receipts", "verify", files[0]["path"])
    assert "signed and complete" in shell("receipts", "verify")
    assert "call ok: calls 1" in shell("receipts", "list")
    assert len(list((site.folder / "out").glob("*.summary.*"))) == 2


def test_a_parcel_of_newer_trust_says_what_became_newer(shell: Shell) -> None:
    pinned(shell)
    parcel = shell.site.folder / "update.parcel"
    parcel.write_bytes(Parcel((world.make_keyring(2), world.make_revocations(3))).to_bytes())
    told = shell("activate", "install", parcel)
    assert told == "trust is newer now: keyring version 2, revocations version 3\n"
    assert "nothing new" in shell("activate", "install", parcel)
    parcel.write_bytes(Parcel((world.make_revocations(4),)).to_bytes())
    result = shell.json("activate", "install", parcel)
    assert result["trust"] == [{"kind": "revocations", "version": 4}] and result["licenses"] == []
    parcel.write_bytes(Parcel((world.make_revocations(2),)).to_bytes())  # older: left alone
    assert shell.json("activate", "install", parcel)["trust"] == []
    stick = shell.site.folder / "stick"
    stick.mkdir()
    (stick / "update.parcel").write_bytes(Parcel((world.make_keyring(5),)).to_bytes())
    (stick / "update.license").write_bytes(Parcel((world.make_keyring(5),)).to_bytes())
    assert "trust is newer now: keyring version 5\n" in shell("sync", stick)


def test_pin_shows_the_words_and_waits_for_a_yes(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = shell.site.folder / "trust.json"
    trust.write_bytes(shell.site.trust.to_bytes())
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    shell("trust", "pin", trust, status=130)
    assert "root fingerprint: " in shell.err
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    shell("trust", "pin", trust, status=2)
    assert "give --yes" in shell.err
    shell("install", shell.site.bundle(), status=4)
    assert "error[TRUST_UNPINNED]" in shell.err


def test_a_generated_text_is_shown_and_metered(shell: Shell) -> None:
    shell.site.ready()
    shell.site.install("talk")
    out = shell("run", "acme/talk", "--prompt", "the", "--max-tokens", "5", "--threads", "1")
    assert out.endswith("\n")
    assert "tok_in 2, tok_out 5" in shell.err
    answer = shell.json("run", "acme/talk", "--prompt", "the", "--max-tokens", "5")
    assert answer["answer"]["text"] == out[:-1]


def test_embeddings_are_printed_one_a_line(shell: Shell) -> None:
    shell.site.ready()
    shell.site.install("words")
    out = shell("run", "acme/words", "--text", "hello", "--text", "world")
    assert [len(json.loads(line)) for line in out.splitlines()] == [4, 4]


def test_quota_reached_in_the_customers_words(shell: Shell) -> None:
    shell.site.ready(make_license(quota=(Quota("calls", "term", "device", 1, None, "deny"),)))
    data = shell.site.folder / "input.json"
    data.write_text(json.dumps(INPUT))
    shell("run", "acme/tiny", "--input", data)
    shell("run", "acme/tiny", "--input", data, status=4)
    assert shell.err == (
        "sealpack: error[QUOTA_EXCEEDED]: 1 of 1 call is used for this license; "
        "next: ask the vendor for more; support: help@acme.example\n"
    )
    refused = shell.json("run", "acme/tiny", "--input", data, status=4)
    assert (refused["code"], refused["facts"]["license_id"]) == ("QUOTA_EXCEEDED", "L-1")
    (quota,) = shell.json("status")["licenses"][0]["quota"]
    assert (quota["used"], quota["limit"], quota["left"]) == (1, 1, 0)


def test_status_tells_what_may_run_and_what_to_do(shell: Shell) -> None:
    shell("status", status=4)
    assert "error[STATE_MISSING]" in shell.err
    site = shell.site.ready(make_license(exp=world.T0 + 1000, nbf=world.T0))
    text = shell("status")
    assert "may not run: LIC_EXPIRED" in text
    assert "next: ask the vendor for a new license file, then `sealpack activate install FILE`" in text
    assert "support  help@acme.example" in text
    assert shell.json("status")["device_id"] == site.request().device_id


def test_a_file_for_another_machine_is_told(shell: Shell, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", shell.site.models, shell.site.trust)
    other.folder.mkdir()
    reply = other.folder / "reply.license"
    asked = other.pin().request()
    reply.write_bytes(other.reply(asked, make_license()).to_bytes())
    pinned(shell)
    shell("activate", "install", reply, status=4)
    assert f"error[DEVICE_MISMATCH]: the file is for {asked.device_id}" in shell.err


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"not json", 3, "JSON_INVALID"), (b"{}", 3, "DOC_SCHEMA"), (None, 1, "FILE_MISSING")],
)
def test_files_that_are_no_documents(shell: Shell, content: bytes | None, status: int, code: str) -> None:
    pinned(shell)
    path = shell.site.folder / "reply.license"
    if content is not None:
        path.write_bytes(content)
    shell("activate", "install", path, status=status)
    assert f"error[{code}]" in shell.err


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_broken_bundle_leaves_nothing_in_the_store(shell: Shell, cut: int) -> None:
    pinned(shell)
    path = shell.site.bundle()
    path.write_bytes(path.read_bytes()[:cut])
    shell("install", path, status=3)
    assert "error[CONTAINER_" in shell.err
    assert list(shell.site.home.store.iterdir()) == []


def test_a_changed_payload_byte_leaves_nothing_in_the_store(shell: Shell) -> None:
    pinned(shell)
    path = shell.site.bundle()
    data = bytearray(path.read_bytes())
    data[data.index(shell.site.models["classifier"].read_bytes()) + 20] ^= 1
    path.write_bytes(data)
    shell("install", path, status=3)
    assert f"{path}: payload/model.onnx: chunk 0 was changed" in shell.err
    assert list(shell.site.home.store.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--prompt", "a", "--text", "b"], ["--text", "a", "--input", "-"]])
def test_run_takes_exactly_one_input(shell: Shell, arguments: list[str]) -> None:
    shell("run", "acme/tiny", *arguments, status=2)
    assert "error[USAGE]" in shell.err


@pytest.mark.parametrize(
    ("name", "hint"), [("tiny", "--input FILE"), ("words", "--text TEXT"), ("talk", "--prompt TEXT")]
)
def test_run_without_an_input_says_what_the_bundle_takes(shell: Shell, name: str, hint: str) -> None:
    shell.site.pin()
    shell.site.install(name)
    shell("run", f"acme/{name}", status=2)
    assert f"next: acme/{name} does " in shell.err
    assert hint in shell.err


def test_status_leads_through_the_first_steps(shell: Shell) -> None:
    assert shell.site.home.path.is_dir()
    assert "next     run `sealpack trust pin trust.json`" in shell("status")
    shell.site.pin()
    assert "next     run `sealpack install BUNDLE`" in shell("status")
    shell.site.install()
    assert "next     run `sealpack activate request" in shell("status")
    shell.site.activate(make_license(quota=(Quota("calls", "month", "device", 1, None, "deny"),)))
    text = shell("status")
    assert "quota    1 of 1 call left this month (UTC)" in text
    assert "acme/tiny 1.0.0 may run" in text
    assert "off by" not in text
    assert "next" not in text
    with sealpack.runtime.open("acme/tiny", state=shell.site.state_dir) as runtime:
        runtime.infer(INPUT)
    assert "may not run: QUOTA_EXCEEDED" in shell("status"), "a quota that is used up is told"


@pytest.mark.parametrize("verb", ["list", "export"])
def test_receipts_of_a_license_that_is_not_here_are_told(shell: Shell, verb: str) -> None:
    shell.site.ready()
    shell("receipts", verb, "--license", "L-9", status=4)
    assert "error[LIC_MISSING]" in shell.err


def test_a_request_given_as_a_reply_is_told(shell: Shell) -> None:
    shell.site.pin()
    request = shell.site.folder / "request.json"
    shell("activate", "request", "--out", request)
    shell("activate", "install", request, status=3)
    assert "error[DOC_TYPE]" in shell.err


def test_a_label_that_no_issuer_could_read_is_refused(shell: Shell) -> None:
    shell.site.pin()
    request = shell.site.folder / "request.json"
    shell("activate", "request", "--out", request, "--label", "x" * 101, status=2)
    assert "longer than 100 characters" in shell.err
    assert not request.exists()


def test_input_that_is_no_json_is_told(shell: Shell) -> None:
    shell.site.ready()
    data = shell.site.folder / "input.json"
    data.write_text("nope")
    shell("run", "acme/tiny", "--input", data, status=2)
    assert "error[INPUT_INVALID]" in shell.err


def test_a_request_does_not_replace_a_file(shell: Shell) -> None:
    pinned(shell)
    path = shell.site.folder / "request.json"
    path.write_text("keep me")
    shell("activate", "request", "--out", path, status=2)
    assert path.read_text() == "keep me"


def test_selftest_runs_the_samples_as_metered_calls(shell: Shell) -> None:
    shell.site.ready()
    result = shell.json("selftest", "acme/tiny")
    assert [s["ok"] for s in result["samples"]] == [True, True]
    records = shell.json("receipts", "list")["logs"][0]["records"]
    assert [r.get("cost_centre") for r in records if r["kind"] == "u"] == ["selftest"] * 2


def test_selftest_says_which_answer_differs(shell: Shell) -> None:
    shell.site.ready()
    wrong = {"input": {"prompt": "the", "max_tokens": 3}, "expect": {"text": "something else"}}
    shell.site.install("talk", io={"task": "text-generation", "samples": [wrong]})
    out = shell("selftest", "acme/talk", status=1)
    assert "DIFFERS: expected 'something else', found '" in out


def test_selftest_without_a_license_runs_nothing(shell: Shell) -> None:
    shell.site.pin()
    shell.site.install()
    shell("selftest", "acme/tiny", status=4)
    assert "error[LIC_MISSING]" in shell.err


def test_terms_are_shown_accepted_and_then_the_bundle_runs(shell: Shell) -> None:
    terms = Terms("MIT", "license/LICENSE.txt", hashlib.sha256(TEXT).hexdigest(), allow=("research",))
    model_extra = shell.site._tiny()["extra"]
    shell.site.pin().install(
        extra={
            **model_extra,
            "license/LICENSE.txt": ("license-text", "text/plain", TEXT),
            "license/terms.json": ("license-terms", "application/json", terms.to_bytes()),
        }
    )
    shell.site.activate(make_license(use=Use(terms.digest, ack_required=True)))
    data = shell.site.folder / "input.json"
    data.write_text(json.dumps(INPUT))
    shell("run", "acme/tiny", "--input", data, status=4)
    assert "sealpack terms accept" in shell.err
    said = shell("terms", "show", "acme/tiny")
    assert "You may use this." in said
    assert "for Hospital Nord (hospital)." in said, "the license in plain words comes first"
    shown = json.loads(shell("terms", "show", "acme/tiny", "--license", "L-1", "--format", "json"))
    assert shown["license"]["schema"] == "sealpack/license-words/v1"
    shell("terms", "show", "acme/tiny", "--license", "L-2", status=4)
    shell("terms", "accept", "acme/tiny")
    shell("run", "acme/tiny", "--input", data)


def test_other_terms_than_the_license_names_cannot_be_accepted(shell: Shell) -> None:
    terms = Terms("MIT", "license/LICENSE.txt", hashlib.sha256(TEXT).hexdigest())
    extra = {
        **shell.site._tiny()["extra"],
        "license/LICENSE.txt": ("license-text", "text/plain", TEXT),
        "license/terms.json": ("license-terms", "application/json", terms.to_bytes()),
    }
    shell.site.pin().install(extra=extra)
    shell.site.activate(replace(make_license(), use=Use("00" * 32, ack_required=True)))
    shell("terms", "accept", "acme/tiny", status=3)
    assert "error[TERMS_MISMATCH]" in shell.err
    shell.site.activate(make_license(license_id="L-2"))
    shown = json.loads(shell("terms", "show", "acme/tiny", "--format", "json"))
    assert "license" not in shown and shown["text"], "of two licenses none is chosen, the text is there"


def test_sync_says_it_in_a_few_lines(shell: Shell, tmp_path: Path) -> None:
    shell.site.ready()
    stick = tmp_path / "stick"
    stick.mkdir()
    out = shell("sync", stick).splitlines()
    assert out == [
        "imported 0 documents (0 known, 0 for others, 0 refused)",
        "exported 4 receipts in 1 file",
        f"next: carry {stick} to the vendor; with the reply `sealpack sync {stick}` again",
    ]
    (stick / "bad.ack").write_bytes(shell.site.acknowledge(1, "00" * 32, 1).to_bytes())
    shell("sync", stick, status=5)
    assert "bad.ack: error[ACK_FORK]" in shell.err
    shell("sync", tmp_path / "nowhere", status=1)


def test_sync_tells_what_is_not_what_its_name_says(shell: Shell, tmp_path: Path) -> None:
    shell.site.ready()
    (tmp_path / "torn.license").write_bytes(shell.site.acknowledge(1, "00" * 32, 1).to_bytes()[:-9])
    (tmp_path / "notes.txt").write_text("nothing of ours")
    shell("sync", tmp_path, status=5)
    assert "torn.license: error[" in shell.err and "notes.txt" not in shell.err


def test_receipts_that_stay_are_not_to_be_carried(shell: Shell) -> None:
    shell.site.ready(replace(make_license(), receipts="local"))
    said = shell("status")
    assert "they stay on this machine" in said and "to carry" not in said

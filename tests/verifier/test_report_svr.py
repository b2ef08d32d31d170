"""The Simple Verification Result: its fields, its signature by two implementations, and who gets none."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support import reports, world
from support.reports import NOW

from sealpack.format import dsse
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ED25519, PrivateKey
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli import main as cli
from sealpack.verifier.render import svr
from sealpack.verifier.report import Report

KEY = world.STRANGER  # a verifier is nobody of the vendor's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good and a bad bundle, trust, the verifier's key plain and encrypted."""
    made = tmp_path_factory.mktemp("svr")
    good = reports.rich()
    (made / "good.sealpack").write_bytes(good)
    (made / "bad.sealpack").write_bytes(good[:-1])
    (made / "trust.json").write_bytes(world.make_trust().to_bytes())
    (made / "key.pem").write_bytes(KEY.to_pem())
    (made / "locked.pem").write_bytes(KEY.to_pem(b"open sesame"))
    (made / "passphrase").write_text("open sesame\n")
    (made / "wrong").write_text("open barley\n")
    (made / "ed.pem").write_bytes(PrivateKey.from_seed(b"s" * 32).to_pem())
    (made / "public.pem").write_text(KEY.public.pem)
    return made


def report_on(folder: Path, **how: Any) -> Report:
    report = verify_bundle(folder / "good.sealpack", world.make_trust(), **how)
    report.verified_at = NOW
    return report


def call(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run verify with svr; names of files in `folder` are written `@name`."""
    given = [str(folder / a[1:]) if a.startswith("@") else a for a in arguments]
    status = cli.run(cli.make_cli(), ["verify", *given, "--format", "svr"])
    done = capsys.readouterr()
    assert "Traceback" not in done.out + done.err
    return status, done.out, done.err


def test_the_statement(folder: Path) -> None:
    report = report_on(folder)
    said = svr.statement(report)
    with zipfile.ZipFile(folder / "good.sealpack") as bundle:  # what anybody can compute from the bundle
        digest = hashlib.sha256(bundle.read("manifest.json")).hexdigest()
    assert said == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "good.sealpack/manifest.json",
                "digest": {"sha256": digest},
                "annotations": {"bundle_id": "acme/notes", "version": "1.0.0"},
            }
        ],
        "predicateType": "https://in-toto.io/attestation/svr/v0.1",
        "predicate": {
            "verifier": {"id": svr.VERIFIER_ID, "version": {"sealpack": report.to_dict()["tool"]["version"]}},
            "timeCreated": "2026-09-22T14:13:20Z",
            "properties": [
                "SEALPACK_CONTAINER_CANONICAL",
                "SEALPACK_CONTENT_FULL",
                "SEALPACK_MANIFEST_OK",
                "SEALPACK_MODEL_HEADER_OK",
                "SEALPACK_NOT_REVOKED",
                "SEALPACK_SBOM_OK",
                "SEALPACK_SIGNATURE_OK",
                "SEALPACK_TERMS_OK",
                "SEALPACK_TRUST_CHAIN_OK",
            ],
        },
    }


def test_properties_say_no_more_than_was_checked(folder: Path) -> None:
    def properties(report: Report) -> set[str]:
        report.verified_at = NOW
        return set(svr.statement(report)["predicate"]["properties"])

    full = properties(report_on(folder))
    assert properties(report_on(folder, leaves_only=True)) ^ full == {
        "SEALPACK_CONTENT_FULL",
        "SEALPACK_CONTENT_LEAVES",
    }
    key_only = properties(verify_bundle(folder / "good.sealpack", key=world.CREATOR.public))
    assert full - key_only == {"SEALPACK_TRUST_CHAIN_OK", "SEALPACK_NOT_REVOKED"}
    more = report_on(folder)
    more.facts |= reports.evidence_facts() | {"content_mode": "sample"}
    del more.facts["custom_operators"], more.facts["license_terms"]  # header and terms not read
    assert "SEALPACK_EVIDENCE_VERIFIED" not in properties(more)  # it has expired
    more.facts["evidence"][0]["valid_until"] = NOW + 1
    assert properties(more) - full == {
        "SEALPACK_CONTENT_SAMPLED",
        "SEALPACK_EVIDENCE_VERIFIED",
        "SEALPACK_POLICY_MET",
        "SEALPACK_PQ_SIGNATURE_OK",
        "SEALPACK_TIER_VERIFIED_PROVEN",
    }
    assert full - properties(more) == {
        "SEALPACK_CONTENT_FULL",
        "SEALPACK_MODEL_HEADER_OK",
        "SEALPACK_TERMS_OK",
    }
    assert svr.statement(more)["predicate"]["verifier"]["policy"] == {
        "name": "team",
        "digest": {"sha256": "12" * 32},
    }


def test_our_dsse_verifies_it_and_notices_a_change(folder: Path) -> None:
    text = svr.render(report_on(folder), KEY)
    assert svr.render(report_on(folder), KEY) == text  # deterministic signatures
    envelope = Envelope.from_bytes(text.encode())
    (signature,) = envelope.signatures
    assert (envelope.payload_type, signature.keyid) == ("application/vnd.in-toto+json", KEY.keyid)
    KEY.public.verify(signature.sig, envelope.signed_bytes)
    changed = dsse.pae(envelope.payload_type, envelope.payload.replace(b"_FULL", b"_FUL1"))
    with pytest.raises(SealpackError, match="does not verify"):
        KEY.public.verify(signature.sig, changed)


def test_openssl_verifies_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.svr"
    given = ("@good.sealpack", "--trust", "@trust.json", "--sign-key", "@key.pem", "-o", str(out))
    assert call(capsys, folder, *given) == (0, "", "")
    document = json.loads(out.read_text())
    payload, kind = base64.b64decode(document["payload"]), document["payloadType"]
    message = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signatures"][0]["sig"]))
    command = [
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        folder / "public.pem",
        "-signature",
        "signature",
        "message",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK"
    (tmp_path / "message").write_bytes(message + b" ")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification failure" in done.stdout + done.stderr and done.returncode != 0


def test_an_encrypted_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("@good.sealpack", "--trust", "@trust.json", "--sign-key", "@locked.pem")
    status, out, _ = call(capsys, folder, *given, "--passphrase-file", "@passphrase")
    assert status == 0 and Envelope.from_bytes(out.strip().encode()).signatures[0].keyid == KEY.keyid
    status, out, err = call(capsys, folder, *given, "--passphrase-file", "@wrong")
    assert (status, out) == (2, "") and "KEY_UNREADABLE" in err and "barley" not in err


def test_who_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("@good.sealpack", "--trust", "@trust.json", "--sign-key", "@key.pem")
    _, out, _ = call(capsys, folder, *given, "--verifier-id", "https://hospital.example/security")
    said = json.loads(Envelope.from_bytes(out.strip().encode()).payload)
    assert said["predicate"]["verifier"]["id"] == "https://hospital.example/security"


def test_a_bad_bundle_gets_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.svr"
    given = ("@bad.sealpack", "--trust", "@trust.json", "--sign-key", "@key.pem")
    status, printed, err = call(capsys, folder, *given, "-o", str(out))
    assert (status, printed) == (3, "") and "error[CONTAINER_T" in err and not out.exists()
    status, printed, _ = call(capsys, folder, *given)
    assert (status, printed) == (3, "")
    report = verify_bundle(folder / "bad.sealpack", world.make_trust())
    report.verified_at = NOW
    with pytest.raises(SealpackError) as caught:
        svr.render(report, KEY)
    assert caught.value.code.startswith("CONTAINER_T")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", "USAGE"),
        ("--sign-key @none.pem", "FILE_MISSING"),
        ("--sign-key @public.pem", "KEY_UNREADABLE"),
        ("--sign-key @ed.pem", "KEY_UNREADABLE"),
        ("--sign-key @locked.pem", "USAGE"),  # no terminal to ask on
        ("--sign-key @key.pem --verifier-id hospital", "USAGE"),
    ],
)
def test_wrong_calls(folder: Path, capsys: pytest.CaptureFixture[str], options: str, code: str) -> None:
    status, out, err = call(capsys, folder, "@good.sealpack", "--trust", "@trust.json", *options.split())
    assert status in (1, 2) and out == "" and f"error[{code}]" in err


def test_a_sign_key_belongs_to_svr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["verify", "x", "--key", "y", "--sign-key", str(folder / "key.pem")]
    assert cli.run(cli.make_cli(), given) == 2
    assert "belong to --format svr" in capsys.readouterr().err


def test_what_cannot_be_signed(folder: Path) -> None:
    report = report_on(folder)
    with pytest.raises(SealpackError, match="is signed with"):
        svr.render(report, PrivateKey.generate(ED25519))
    report.verified_at = None
    with pytest.raises(SealpackError, match="its time"):
        svr.render(report, KEY)

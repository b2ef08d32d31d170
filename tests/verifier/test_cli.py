"""The command line of the verifier: results, exit statuses, errors, help."""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from support import world
from support.world import BundleSpec

from sealpack.format import documents
from sealpack.format.documents import Parcel
from sealpack.format.errors import CODES
from sealpack.format.trust import Trust
from sealpack.format.words import fingerprint_words
from sealpack.verifier.cli import main as cli

SEALPACK = Path(sys.executable).with_name("sealpack")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle, trust file, keys, and some faulty files."""
    folder = tmp_path_factory.mktemp("cli")
    good = BundleSpec().build()
    (folder / "good.sealpack").write_bytes(good)
    (folder / "flipped.sealpack").write_bytes(good[:-200] + bytes([good[-200] ^ 1]) + good[-199:])
    at = good.index(b"GGUF", 65536) + 1000
    (folder / "payload.sealpack").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    (folder / "cut.sealpack").write_bytes(good[:5000])
    (folder / "unsigned.sealpack").write_bytes(
        world.pack({"mimetype": world.MIMETYPE} | BundleSpec().members())
    )
    (folder / "trust.json").write_bytes(world.make_trust().to_bytes())
    (folder / "revoked.json").write_bytes(
        world.make_trust(keys=[{"keyid": world.CREATOR.keyid, "good": []}]).to_bytes()
    )
    (folder / "creator.pem").write_text(world.CREATOR.public.pem)
    (folder / "stranger.pem").write_text(world.STRANGER.public.pem)
    (folder / "parcel.license").write_bytes(Parcel(world.make_trust().envelopes).to_bytes())
    (folder / "text.txt").write_text("not a bundle\n")
    (folder / "deep.json").write_text("[" * 100_000)
    return folder


def call(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr; names of files in `folder` are written `@name`."""
    given = [str(folder / a[1:]) if a.startswith("@") else a for a in arguments]
    status = cli.run(cli.make_cli(), given)
    done = capsys.readouterr()
    assert "Traceback" not in done.out + done.err
    return status, done.out, done.err


# --- verify ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("--trust", "@trust.json"), ("--key", "@creator.pem")])
@pytest.mark.parametrize("leaves", [(), ("--leaves",)])
def test_a_good_bundle_passes(
    files: Path, capsys: pytest.CaptureFixture[str], how: tuple[str, ...], leaves: tuple[str, ...]
) -> None:
    status, out, err = call(capsys, files, "verify", "@good.sealpack", *how, *leaves)
    assert (status, err) == (0, "")
    assert out.startswith("PASS") and "acme/tiny 1.0.0" in out and "FAIL" not in out


@pytest.mark.parametrize(
    ("name", "how", "code", "status"),
    [
        ("flipped.sealpack", "--trust @trust.json", "CONTAINER_DIRECTORY", 3),
        ("payload.sealpack", "--trust @trust.json", "CHUNK_MISMATCH", 3),
        ("payload.sealpack", "--key @creator.pem", "CHUNK_MISMATCH", 3),
        ("cut.sealpack", "--trust @trust.json", "CONTAINER_TAIL", 3),
        ("unsigned.sealpack", "--trust @trust.json", "SIG_MISSING", 3),
        ("text.txt", "--trust @trust.json", "CONTAINER_TRUNCATED", 3),
        ("good.sealpack", "--key @stranger.pem", "SIG_KEY_UNKNOWN", 3),
        ("good.sealpack", "--trust @revoked.json", "KEY_REVOKED", 4),
    ],
)
def test_a_bad_bundle_is_refused_with_its_code(
    files: Path, capsys: pytest.CaptureFixture[str], name: str, how: str, code: str, status: int
) -> None:
    found, out, err = call(capsys, files, "verify", f"@{name}", *how.split())
    assert found == status
    assert out.startswith("FAIL") and f"[{code}]" in out and "next: " in out
    assert err.startswith(f"sealpack: error[{code}]: ") and err.count("\n") == 1
    found, out, _ = call(capsys, files, "verify", f"@{name}", *how.split(), "--format", "json")
    report = json.loads(out)
    assert found == status
    assert (report["schema"], report["verdict"]) == ("sealpack/report/v1", "fail")
    assert [c["code"] for c in report["checks"] if c["status"] == "fail"] == [code]


@pytest.mark.parametrize(
    ("arguments", "code", "status"),
    [
        ("verify @good.sealpack", "USAGE", 2),
        ("verify @good.sealpack --trust @trust.json --key @creator.pem", "USAGE", 2),
        ("verify --trust @trust.json", "USAGE", 2),
        ("verify @good.sealpack --trust @trust.json --no-such-option", "USAGE", 2),
        ("verify @good.sealpack --trust @trust.json --format yaml", "USAGE", 2),
        ("no-such-verb", "USAGE", 2),
        ("verify @none.sealpack --trust @trust.json", "FILE_MISSING", 1),
        ("verify @good.sealpack --trust @none.json", "FILE_MISSING", 1),
        ("verify @good.sealpack --key @none.pem", "FILE_MISSING", 1),
        ("verify @. --trust @trust.json", "USAGE", 2),
        ("verify @good.sealpack --trust @text.txt", "JSON_INVALID", 3),
        ("verify @good.sealpack --trust @deep.json", "JSON_LIMIT", 3),
        ("verify @good.sealpack --trust @parcel.license", "TRUST_INVALID", 3),
        ("verify @good.sealpack --key @trust.json", "KEY_MALFORMED", 3),
        ("inspect @text.txt", "DOC_TYPE", 3),
        ("inspect @deep.json", "DOC_TYPE", 3),
        ("inspect @cut.sealpack", "CONTAINER_TAIL", 3),
        ("inspect @none", "FILE_MISSING", 1),
        ("trust show @text.txt", "JSON_INVALID", 3),
        ("trust show @none", "FILE_MISSING", 1),
    ],
)
def test_what_cannot_be_done_is_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: str, status: int
) -> None:
    found, out, err = call(capsys, files, *arguments.split())
    assert (found, out) == (status, "")
    assert err.startswith(f"sealpack: error[{code}]: ") and "; next: " in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("verify @good.sealpack --trust @none.json", "FILE_MISSING"),
        ("verify @good.sealpack", "USAGE"),
        ("inspect @text.txt", "DOC_TYPE"),
        ("trust show @text.txt", "JSON_INVALID"),
    ],
)
def test_errors_as_json(files: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: str) -> None:
    status, out, err = call(capsys, files, *arguments.split(), "--format", "json")
    error = json.loads(out)
    assert (error["schema"], error["code"], error["exit"]) == ("sealpack/error/v1", code, status)
    assert error["detail"] in err and error["remedy"] in err


def test_json_names_everything_of_a_good_bundle(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, files, "verify", "@good.sealpack", "--trust", "@trust.json", "--format", "json")
    report = json.loads(out)
    assert report["verdict"] == "pass"
    assert {c["status"] for c in report["checks"]} == {"pass"}
    assert (report["bundle_id"], report["version"], report["release_index"]) == ("acme/tiny", "1.0.0", 1)
    assert report["signer"] == {
        "issuer": world.ISSUER,
        "keyid": world.CREATOR.keyid,
        "scheme": "ecdsa-p256-sha256",
        "words": fingerprint_words(world.CREATOR.keyid),
        "roles": ["bundle"],
        "namespaces": ["acme"],
        "status": "active",
    }
    assert report["trust"]["root"]["words"] == fingerprint_words(world.make_trust().root_digest)
    assert [f["name"] for f in report["files"]] == [
        "card.md",
        "chunks/0.sha256c",
        "payload/model.gguf",
        "sbom.cdx.json",
    ]


# --- inspect, trust show --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["good.sealpack", "payload.sealpack", "unsigned.sealpack"])
def test_inspect_believes_nothing(files: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, _ = call(capsys, files, "inspect", f"@{name}")
    assert status == 0 and out.startswith("not verified")
    _, out, _ = call(capsys, files, "inspect", f"@{name}", "--format", "json")
    found = json.loads(out)
    assert (found["schema"], found["verified"], found["kind"]) == ("sealpack/inspect/v1", False, "bundle")
    assert found["manifest"]["bundle_id"] == "acme/tiny"
    assert (found["signature"] is None) == (name == "unsigned.sealpack")


@pytest.mark.parametrize("name", ["trust.json", "parcel.license"])
def test_inspect_shows_documents(files: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    _, out, _ = call(capsys, files, "inspect", f"@{name}", "--format", "json")
    found = json.loads(out)["documents"]
    assert [d["kind"] for d in found] == ["root", "keyring", "revocations"]
    assert found[0]["signed_by"] == [world.ROOT.keyid]


def test_trust_show(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = world.make_trust()
    status, out, _ = call(capsys, files, "trust", "show", "@trust.json")
    assert status == 0 and trust.root_digest in out and world.ISSUER in out
    _, out, _ = call(capsys, files, "trust", "show", "@trust.json", "--format", "json")
    shown = json.loads(out)
    assert shown["root"]["digest"] == trust.root_digest
    assert shown["root"]["words"] in call(capsys, files, "trust", "show", "@trust.json")[1]
    assert {k["keyid"] for k in shown["keyring"]["keys"]} == set(trust.keyring.entries)


def test_trust_show_tells_thresholds_by_role_where_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(world.make_trust().to_bytes())
    assert (
        "  1 of 1 root keys must sign every change\n" in call(capsys, tmp_path, "trust", "show", str(path))[1]
    )
    one = {"threshold": 1, "keyids": [world.ROOT.keyid]}
    two = {"threshold": 1, "keyids": [world.ROOT.keyid, world.STRANGER.keyid]}
    pems = [world.ROOT.public.pem, world.STRANGER.public.pem]
    roles = {"root": two, "keyring": one, "revocations": one}
    root = documents.seal("root", {"version": 1, "keys": pems, "roles": roles}, world.ROOT)
    mixed = Trust.from_envelopes(root, world.make_keyring(), world.make_revocations())
    path.write_bytes(mixed.to_bytes())
    out = call(capsys, tmp_path, "trust", "show", str(path))[1]
    assert "root: 1 of 2 root keys, keyring: 1 of 1 root keys, revocations: 1 of 1 root keys\n" in out


# --- help, colour, the real process ---------------------------------------------------------------------


def test_help_is_grouped_by_reader(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, files, "--help")
    assert (status, err) == (0, "")
    headings = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings[-5:] == ["Creators", "Customers", "Security teams", "Finance", "Anyone"]
    assert out.index("Security teams:") < out.index("  verify ") < out.index("Finance:")


def test_only_allowed_verbs_exist(capsys: pytest.CaptureFixture[str]) -> None:
    customer = cli.make_cli(["verify", "inspect"], name="sealpack-verify")
    assert cli.run(customer, ["--help"]) == 0
    out = capsys.readouterr().out
    assert "verify" in out and "Creators" not in out and "build" not in out
    assert cli.run(customer, ["build"]) == 2
    assert "error[USAGE]" in capsys.readouterr().err


def test_no_arguments_is_help_and_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.make_cli(), []) == 2
    done = capsys.readouterr()
    assert done.out == "" and done.err.startswith("Usage: sealpack")


def test_an_internal_fault_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr("sealpack.verifier.cli.support.load_trust", fail)
    assert cli.run(cli.make_cli(), ["trust", "show", "x"]) == 1
    assert capsys.readouterr().err.startswith("sealpack: error[INTERNAL]: ZeroDivisionError: a fault; next: ")
    assert cli.run(cli.make_cli(), ["-v", "trust", "show", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sealpack.verifier.cli.support.load_trust", interrupt)
    assert cli.run(cli.make_cli(), ["trust", "show", "x"]) == 130
    assert capsys.readouterr().err.endswith("sealpack: interrupted\n")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.bin"), "no space left on device (out.bin)"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (TimeoutError(), "timeouterror"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("sealpack.verifier.cli.support.load_trust", fail)
    assert cli.run(cli.make_cli(), ["trust", "show", "x"]) == CODES["IO_ERROR"].exit
    done = capsys.readouterr()
    assert done.out == "" and done.err.startswith(f"sealpack: error[IO_ERROR]: {line}; next: ")


def test_a_file_click_cannot_open_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    @click.command
    def command() -> None:
        raise click.FileError("plan.yaml", "permission denied")

    assert cli.run(command, []) == 2
    told = capsys.readouterr().err
    assert told.startswith("sealpack: error[USAGE]: ") and "plan.yaml" in told and "permission denied" in told


@pytest.mark.parametrize("write", [click.echo, print], ids=["written at once", "kept in a buffer"])
def test_a_reader_that_went_away_ends_the_command(
    write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a message nor a second fault when the interpreter flushes what is left."""

    @click.command
    def command() -> None:
        write("nobody reads this")

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe, Path(os.devnull).open("w") as sink:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:  # click ends the process itself where it meets the fault
            sys.exit(cli.run(command, []))
        sys.stdout.flush()
        os.dup2(sink.fileno(), writer)  # for what a test's own `with` flushes
    monkeypatch.undo()
    assert ended.value.code == 1
    assert capfd.readouterr() == ("", "")


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("sealpack.verifier.__main__")  # and does nothing when only imported
    monkeypatch.setattr(sys, "argv", ["sealpack", "--version"])
    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy's: it was imported just now
        runpy.run_module("sealpack.verifier", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sealpack, version {importlib.metadata.version('sealpack')}\n"


# --- verbs of parts that are not there ------------------------------------------------------------------


@pytest.fixture
def partly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs whose module, or whose library, is not installed; and one that is."""
    modules = {"verify": "sealpack.verifier.cli.verify:verify", "run": "sealpack.nowhere.cli:run"}
    modules["settle"] = "library_nobody_has:settle"
    points = {name: EntryPoint(name, module, "sealpack.verbs") for name, module in modules.items()}
    monkeypatch.setattr(cli, "_verbs", lambda group: points)


@pytest.mark.usefixtures("partly")
def test_a_packaging_may_leave_a_part_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.make_cli(), ["run", "x"]) == 2
    assert "error[USAGE]: No such command 'run'" in capsys.readouterr().err
    assert cli.run(cli.make_cli(["verify", "run"]), ["--help"]) == 0
    out = capsys.readouterr().out
    assert "\n  verify " in out and "\n  run " not in out


@pytest.mark.usefixtures("partly")
def test_a_missing_library_is_named_with_the_way_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.make_cli(), ["settle"]) == CODES["EXTRA_MISSING"].exit
    told = capsys.readouterr().err
    assert told.startswith("sealpack: error[EXTRA_MISSING]: `settle` needs library_nobody_has")
    assert "next: pip install 'sealpack[all]'" in told


def test_verbs_of_a_verb_are_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.make_cli(), ["trust", "--help"]) == 0
    out = capsys.readouterr().out
    assert "\nCommands:\n" in out and "Creators:" not in out
    assert all(f"\n  {verb} " in out for verb in ("show", "pin", "rotate", "revoke"))


def process(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SEALPACK), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **env},
        check=False,
        timeout=60,
    )


def test_the_installed_command(files: Path) -> None:
    good = process("verify", str(files / "good.sealpack"), "--trust", str(files / "trust.json"), NO_COLOR="1")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("PASS") and "\x1b" not in good.stdout
    bad = process("verify", str(files / "payload.sealpack"), "--key", str(files / "creator.pem"))
    assert bad.returncode == 3 and "error[CHUNK_MISMATCH]" in bad.stderr and "Traceback" not in bad.stderr


def test_a_closed_pipe_is_no_fault(files: Path) -> None:
    command = f"'{SEALPACK}' verify --help | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr


def test_a_bundle_from_a_pipe_is_refused_not_hung(files: Path) -> None:
    command = f"cat '{files}/good.sealpack' | '{SEALPACK}' verify /dev/stdin --trust '{files}/trust.json'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("sealpack: error[IO_ERROR]: ")

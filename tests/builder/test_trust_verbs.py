"""`sealpack trust add`, `rotate` and `revoke`, from the command line to what a device believes."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack

from sealpack.builder import keyfiles, trust_changes, trust_files
from sealpack.builder.trust_changes import Withdrawal
from sealpack.format import canonical, documents
from sealpack.format.documents import Parcel
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ED25519, PrivateKey
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle

Capture = pytest.CaptureFixture[str]
DAY = 86_400
BUNDLE = "bundles/my-model-1.0.0.sealpack"


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a project of the publisher `acme`."""
    monkeypatch.chdir(home)
    return home


def new_key(name: str, scheme: str = ECDSA) -> PrivateKey:
    key = PrivateKey.generate(scheme)
    keyfiles.write_pair(Path(f"keys/{name}.pem"), key)
    return key


def keyid(name: str) -> str:
    return keyfiles.load_public(Path(f"keys/{name}.pub.pem")).keyid


def now_trust(path: str = "trust/trust.json") -> Trust:
    return Trust.load(Path(path).read_bytes())


def change(*arguments: str | Path, root: str = "root") -> int:
    return sealpack("trust", *arguments, "--root-key", f"keys/{root}.pem")


def refused(capsys: Capture, code: str, *arguments: str | Path, root: str = "root") -> str:
    """The message of a refusal with `code`; no file in trust/ may have changed."""
    before = {p.name: p.read_bytes() for p in Path("trust").iterdir()}
    capsys.readouterr()
    assert change(*arguments, "--format", "json", root=root) in (2, 3)
    assert {p.name: p.read_bytes() for p in Path("trust").iterdir()} == before
    error: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert error["code"] == code, error
    return str(error["detail"])


def verified(capsys: Capture, bundle: str = BUNDLE, trust: str = "trust/trust.json") -> tuple[int, list[str]]:
    """Exit status of `verify` and the codes of what failed."""
    capsys.readouterr()
    status = sealpack("verify", bundle, "--trust", trust, "--format", "json")
    report = json.loads(capsys.readouterr().out)
    return status, [check["code"] for check in report["checks"] if check.get("code")]


# --- add ---------------------------------------------------------------------------------------------


def test_add_takes_issuer_and_namespaces_of_the_others(project: Path, capsys: Capture) -> None:
    key = new_key("second")
    assert change("add", "--key", "keys/second.pub.pem", "--role", "bundle", "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    entry = now_trust().keyring.entries[key.keyid]
    assert (entry.issuer, entry.namespaces, entry.roles) == ("acme", ("acme",), {"bundle"})
    assert said["before"] == {"root": 1, "keyring": 1, "revocations": 1}
    assert said["after"] == {"root": 1, "keyring": 2, "revocations": 1}
    assert [k["keyid"] for k in said["keys"]] == [key.keyid]
    parcel = Parcel.from_bytes(Path(said["parcel"]).read_bytes())
    assert parcel.documents == now_trust().envelopes


def test_add_with_its_own_issuer_and_namespaces(project: Path, capsys: Capture) -> None:
    key = new_key("lab", ECDSA)
    names = ["--issuer", "Lab", "--namespace", "acme/lab", "--namespace", "lab"]
    assert change("add", "--key", "keys/lab.pub.pem", "--role", "evidence", *names) == 0
    assert f"added key {key.keyid[:16]}" in capsys.readouterr().out
    entry = now_trust().keyring.entries[key.keyid]
    assert (entry.issuer, entry.namespaces) == ("Lab", ("acme/lab", "lab"))
    new_key("third")
    third = ("add", "--key", "keys/third.pub.pem", "--role", "bundle")
    assert "--issuer" in refused(capsys, "USAGE", *third)
    assert change(*third, "--issuer", "acme") == 0
    assert now_trust().keyring.version == 3


def test_keys_that_may_not_be_added(project: Path, capsys: Capture) -> None:
    new_key("dev", ED25519)
    add = ("add", "--role", "bundle", "--key")
    assert "already" in refused(capsys, "USAGE", *add, "keys/bundle.pub.pem")
    assert "root key" in refused(capsys, "USAGE", *add, "keys/root.pub.pem")
    assert "ecdsa" in refused(capsys, "USAGE", *add, "keys/dev.pub.pem")
    both = ("add", "--key", "keys/dev.pub.pem", "--role", "ack", "--role", "witness")
    assert "witness" in refused(capsys, "USAGE", *both)
    new_key("odd")
    odd = (*add, "keys/odd.pub.pem", "--namespace", "Not/Allowed")
    refused(capsys, "TRUST_INVALID", *odd)
    refused(capsys, "KEY_UNREADABLE", *add, "keys/odd.pem")


# --- rotate a key ------------------------------------------------------------------------------------


def test_a_lost_key_is_replaced_and_its_bundles_stay_good(
    project: Path, gguf_model: Path, capsys: Capture
) -> None:
    assert sealpack("build", gguf_model) == 0
    old, key = now_trust().keyring.entries[keyid("bundle")], new_key("bundle2")
    rotate = ("rotate", "--key", old.key.keyid[:12], "--with", "keys/bundle2.pub.pem")
    assert change(*rotate) == 0
    entries = now_trust().keyring.entries
    assert entries[old.key.keyid].status == "retired"
    new = entries[key.keyid]
    assert (new.roles, new.namespaces, new.issuer, new.status) == (
        old.roles,
        old.namespaces,
        "acme",
        "active",
    )
    assert verified(capsys) == (0, [])
    assert sealpack("build", gguf_model, "--key", "keys/bundle2.pem", "--out", "b2.sealpack") == 0
    assert verified(capsys, "b2.sealpack") == (0, [])
    new_key("bundle3")
    assert "retired" in refused(capsys, "USAGE", *rotate[:-1], "keys/bundle3.pub.pem")


def test_rotate_asks_for_one_thing(project: Path, capsys: Capture) -> None:
    new_key("a")
    refused(capsys, "USAGE", "rotate")
    refused(capsys, "USAGE", "rotate", "--key", keyid("bundle"))
    refused(
        capsys,
        "USAGE",
        *("rotate", "--key", keyid("bundle"), "--with", "keys/a.pub.pem", "--new-root", "keys/a.pem"),
    )
    refused(
        capsys,
        "USAGE",
        *("rotate", "--key", keyid("bundle"), "--with", "keys/a.pub.pem", "--threshold", "2"),
    )
    assert "no key" in refused(capsys, "USAGE", "rotate", "--key", "0" * 64, "--with", "keys/a.pub.pem")
    refused(capsys, "USAGE", "rotate", "--key", "", "--with", "keys/a.pub.pem")  # begins every key id


# --- rotate the root ---------------------------------------------------------------------------------


def test_bundles_carry_the_root_step_to_whoever_pinned_the_old_root(
    project: Path, gguf_model: Path, capsys: Capture
) -> None:
    assert sealpack("build", gguf_model, "--out", "old.sealpack") == 0
    Path("pinned.json").write_bytes(Path("trust/trust.json").read_bytes())
    key = new_key("root2")
    assert change("rotate", "--new-root", "keys/root2.pem") == 0
    assert "new root's words" in capsys.readouterr().err
    trust = now_trust()
    assert (trust.root.version, [k.keyid for k in trust.root.keys]) == (2, [key.keyid])
    assert set(trust.keyring.entries) == set(now_trust("pinned.json").keyring.entries)
    assert sealpack("build", gguf_model, "--out", "new.sealpack") == 0
    for bundle in ("old.sealpack", "new.sealpack"):
        for pinned in ("pinned.json", "trust/trust.json"):
            assert verified(capsys, bundle, pinned) == (0, [])
    new_key("late")
    late = ("add", "--key", "keys/late.pub.pem", "--role", "bundle")
    refused(capsys, "TRUST_THRESHOLD", *late)  # the old root key is no longer good for anything
    assert change(*late, root="root2") == 0


def test_a_device_follows_three_roots_with_the_last_parcel(
    project: Path, tmp_path: Path, capsys: Capture
) -> None:
    anchors = pytest.importorskip("sealpack.runtime.anchors")
    from sealpack.runtime.cli.common import open_state

    state = ("--state", tmp_path / "state")
    assert sealpack("trust", "pin", "trust/trust.json", "--yes", *state) == 0
    for old, new in (("root", "root2"), ("root2", "root3")):
        new_key(new)
        assert change("rotate", "--new-root", f"keys/{new}.pem", root=old) == 0
    assert change("revoke", "--license", "L-1", root="root3") == 0
    assert sealpack("activate", "install", "trust/update-3.parcel", *state) == 0
    assert sealpack("activate", "install", "trust/update-1.parcel", *state) != 0  # never written
    with open_state(str(tmp_path / "state")) as opened:
        (newest,) = anchors.load(opened)
    assert newest == now_trust()
    assert newest.root.version == 3
    assert newest.revocations.licenses == {"L-1"}
    assert "not at hand" not in capsys.readouterr().err


def test_a_key_is_not_named_by_a_digit_or_two(project: Path, capsys: Capture) -> None:
    named = keyid("bundle")
    assert change("revoke", "--key", named[:7]) == 2
    assert "at least 8 digits" in capsys.readouterr().err
    assert change("revoke", "--key", named[:8]) == 0


def test_lost_steps_are_told(project: Path, capsys: Capture) -> None:
    """A trust file of 0.2.0 holds one step; whoever lost its parcels leaves older machines behind."""
    said = []
    for old, new in (("root", "root2"), ("root2", "root3"), ("root3", "root4")):
        new_key(new)
        capsys.readouterr()
        assert change("rotate", "--new-root", f"keys/{new}.pem", "--format", "json", root=old) == 0
        out, err = capsys.readouterr()
        said.append((json.loads(out)["root"]["follows_from"], "not at hand" in err))
        if new == "root3":
            Path("trust/update-2.parcel").unlink()
            Path("trust/update-3.parcel").unlink()
            newest = json.loads(Path("trust/trust.json").read_text())
            assert len(newest.pop("roots")) == 2
            Path("trust/trust.json").write_bytes(canonical.dumps(newest))
    assert said == [(1, False), (1, False), (2, True)]


def test_a_bundle_brings_a_device_three_roots_forward(project: Path, gguf_model: Path) -> None:
    """A machine that pinned the first root and saw nothing since verifies and installs the newest bundle."""
    first = now_trust()
    for old, new in (("root", "root2"), ("root2", "root3"), ("root3", "root4")):
        new_key(new)
        assert change("rotate", "--new-root", f"keys/{new}.pem", root=old) == 0
    assert [documents.kind_of(e) for e in now_trust().older] == ["root"] * 3
    assert sealpack("build", gguf_model, "--out", "b.sealpack") == 0
    report, verified = inspect_bundle("b.sealpack", first)
    assert report.ok, report.to_dict()
    assert verified is not None and verified.trust == now_trust() and len(verified.trust.older) == 3
    assert sealpack("verify", "b.sealpack", "--trust", "trust/trust.json") == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda roots: roots[1:] + roots[:1],
        lambda roots: roots[:-1],
        lambda roots: [roots[0], roots[0], *roots[1:]],
        lambda roots: [{**roots[0], "payloadType": "application/vnd.sealpack.keyring+json"}, roots[1]],
        lambda roots: ["x"],
        lambda roots: roots * 40,
    ],
    ids=["order", "gap", "twice", "kind", "type", "many"],
)
def test_older_roots_must_lead_on(project: Path, damage: Callable[[list[Any]], list[Any]]) -> None:
    for old, new in (("root", "root2"), ("root2", "root3")):
        new_key(new)
        assert change("rotate", "--new-root", f"keys/{new}.pem", root=old) == 0
    members = json.loads(Path("trust/trust.json").read_text())
    members["roots"] = damage(members["roots"])
    with pytest.raises(SealpackError) as caught:
        Trust.load(canonical.dumps(members))
    assert caught.value.code in ("TRUST_INVALID", "DSSE_INVALID")


def test_roots_with_thresholds(project: Path, capsys: Capture) -> None:
    a, b = new_key("a"), new_key("b")
    new = ("rotate", "--threshold", "2", "--new-root", "keys/a.pem", "--new-root")
    refused(capsys, "TRUST_THRESHOLD", *new, "keys/b.pub.pem")  # listed, but nobody signs with it
    refused(capsys, "USAGE", *new[:-1], "--threshold", "3")
    refused(capsys, "USAGE", *new, "keys/a.pub.pem")
    refused(capsys, "USAGE", *new, "keys/license.pem")
    assert change(*new, "keys/b.pem") == 0
    root = now_trust().root
    assert root.roles["keyring"] == (2, {a.keyid, b.keyid})
    withdraw = ("revoke", "--license", "L-1")
    refused(capsys, "TRUST_THRESHOLD", *withdraw, root="a")
    refused(capsys, "TRUST_THRESHOLD", *withdraw, "--root-key", "keys/a.pem", root="a")  # one key twice
    refused(capsys, "TRUST_THRESHOLD", *withdraw, "--root-key", "keys/root.pem", root="a")
    assert change(*withdraw, "--root-key", "keys/b.pem", root="a") == 0
    kept = ("rotate", "--new-root", "keys/a.pub.pem", "--new-root", "keys/c.pub.pem")  # b goes, c comes
    new_key("c")
    both = ("--root-key", "keys/b.pem")
    refused(capsys, "TRUST_THRESHOLD", *kept, *both, root="a")
    assert change(*kept, *both, "--threshold", "1", root="a") == 0
    assert now_trust().root.version == 3


def test_encrypted_root_keys_each_with_its_passphrase(project: Path, capsys: Capture) -> None:
    for name in ("one", "two"):
        keyfiles.write_pair(Path(f"keys/{name}.pem"), PrivateKey.generate(ECDSA), name.encode())
        Path(f"{name}.txt").write_text(name + "\n")
    new = ("rotate", "--threshold", "2", "--new-root", "keys/one.pem", "--new-root", "keys/two.pem")
    first = ("--passphrase-file", "one.txt")
    assert "two.pem" in refused(capsys, "KEY_UNREADABLE", *new, *first)
    assert change(*new, *first, "--passphrase-file", "two.txt") == 0
    assert now_trust().root.roles["root"][0] == 2


# --- revoke ------------------------------------------------------------------------------------------


def test_a_revoked_bundle_is_refused(project: Path, gguf_model: Path, capsys: Capture) -> None:
    assert sealpack("build", gguf_model) == 0
    digest = trust_files.bundle_digest(Path(BUNDLE))
    assert change("revoke", "--bundle", digest) == 0
    assert verified(capsys) == (4, ["BUNDLE_REVOKED"])
    assert "already" in refused(capsys, "USAGE", "revoke", "--bundle", BUNDLE)  # the file names it too


def test_a_floor_refuses_older_releases_and_only_rises(
    project: Path, gguf_model: Path, capsys: Capture
) -> None:
    assert sealpack("build", gguf_model) == 0
    assert change("revoke", "--floor", "acme/my-model=1") == 0
    assert verified(capsys) == (0, [])
    assert change("revoke", "--floor", "acme/my-model=2", "--floor", "acme/other=7") == 0
    assert verified(capsys) == (4, ["BUNDLE_FLOOR"])
    assert "cannot go down" in refused(capsys, "USAGE", "revoke", "--floor", "acme/my-model=1")
    assert now_trust().revocations.floors == {"acme/my-model": 2, "acme/other": 7}


def test_what_a_revoked_key_signed_is_refused_but_for_what_stays_good(
    project: Path, gguf_model: Path, capsys: Capture
) -> None:
    for name in ("good", "bad"):
        title = ("--name", name) if name == "good" else ()
        assert sealpack("build", gguf_model, "--out", f"{name}.sealpack", *title) == 0
    assert change("revoke", "--key", keyid("bundle"), "--good", "good.sealpack") == 0
    assert "1 of its documents stay good" in capsys.readouterr().out
    assert verified(capsys, "good.sealpack") == (0, [])
    assert verified(capsys, "bad.sealpack") == (4, ["KEY_REVOKED"])
    bundle_key = now_trust().keyring.entries[keyid("bundle")].key
    (digest,) = trust_files.signed_by(Path("bad.sealpack"), bundle_key)
    assert change("revoke", "--key", keyid("bundle"), "--good", digest) == 0
    assert verified(capsys, "bad.sealpack") == (0, [])
    assert verified(capsys, "good.sealpack") == (0, [])  # nothing leaves a list
    assert sealpack("build", gguf_model, "--out", "later.sealpack") == 4


def test_good_finds_documents_inside_documents(tmp_path: Path) -> None:
    key, other = PrivateKey.generate(ED25519), PrivateKey.generate(ED25519)
    lease = documents.seal("lease", {"n": 1}, key)
    ack = documents.seal("acknowledgement", {"lease": lease.to_dict()}, key)
    foreign = documents.seal("license", {"n": 2}, other)
    path = tmp_path / "reply"
    path.write_bytes(Parcel((ack, foreign)).to_bytes())
    assert trust_files.signed_by(path, key.public) == {ack.digest, lease.digest}
    with pytest.raises(SealpackError, match="nothing signed by"):
        trust_files.signed_by(path, PrivateKey.generate(ED25519).public)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--key", "zz"],
        ["--bundle", "none.sealpack"],
        ["--license", "no such id"],
        ["--device", "dev-1"],
        ["--floor", "acme/x"],
        ["--floor", "acme/x=-1"],
        ["--floor", "Acme=1"],
        ["--license", "L", "--good", "ab" * 32],
        ["--key", "BUNDLE", "--key", "LICENSE", "--good", "ab" * 32],
        ["--key", "BUNDLE", "--good", "trust/trust.json"],
    ],
)
def test_typing_errors_are_refused(project: Path, capsys: Capture, arguments: list[str]) -> None:
    ids = {"BUNDLE": keyid("bundle"), "LICENSE": keyid("license")}
    before = Path("trust/trust.json").read_bytes()
    assert change("revoke", *(ids.get(a, a) for a in arguments)) in (1, 2)
    err = capsys.readouterr().err
    assert "error[USAGE]" in err or "error[FILE_MISSING]" in err
    assert Path("trust/trust.json").read_bytes() == before
    assert not list(Path("trust").glob("*.parcel"))


# --- versions, conflicts, what is carried over -------------------------------------------------------


def test_two_changes_of_one_version_contradict(project: Path, capsys: Capture) -> None:
    """The same trust file changed on two computers: whoever saw one change refuses the other."""
    original = Path("trust/trust.json").read_bytes()
    assert change("revoke", "--license", "L-1") == 0
    seen = now_trust()
    Path("trust/trust.json").write_bytes(original)  # an old backup put back
    detail = refused(capsys, "TRUST_ROLLBACK", "revoke", "--license", "L-2")
    assert "older than the parcel" in detail
    Path("trust/update-1.parcel").rename("elsewhere.parcel")
    assert change("revoke", "--license", "L-2") == 0
    with pytest.raises(SealpackError) as caught:
        seen.update(now_trust().envelopes)
    assert caught.value.code == "TRUST_CONFLICT"
    Path("elsewhere.parcel").rename("trust/update-1.parcel")
    refused(capsys, "TRUST_CONFLICT", "revoke", "--license", "L-3")


def test_unknown_members_are_carried_over_and_time_does_not_go_back(trust: Trust, home: Path) -> None:
    root = PrivateKey.load(home / "keys/root.pem")
    payload = trust_changes._payload(trust.revocations) | {"version": 2, "later": {"a": 1}}
    extended = trust.update([documents.seal("revocations", payload, root)])
    made = trust_changes.revoke(extended, [root], Withdrawal(devices=frozenset({"dev-" + "a" * 32})), now=DAY)
    said = trust_changes._payload(made.revocations)
    assert (said["later"], said["version"]) == ({"a": 1}, 3)
    assert made.revocations.issued_at == trust.revocations.issued_at > DAY


def test_a_full_disk_changes_nothing(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = Path("trust/trust.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert change("revoke", "--license", "L-1") == 1
    assert "STORE_FULL" in capsys.readouterr().err
    assert [(p.name, p.read_bytes()) for p in Path("trust").iterdir()] == [("trust.json", before)]


def test_the_recovery_sheet_names_verbs_that_exist(project: Path, capsys: Capture) -> None:
    sheet = " ".join(Path("recovery-sheet.html").read_text().split())
    for verb in ("add", "rotate", "revoke", "show"):
        assert sealpack("trust", verb, "--help") == 0
    assert "sealpack trust rotate --key KEYID --with keys/NEW.pub.pem --root-key keys/root.pem" in sheet
    assert "sealpack trust revoke --key KEYID --good FILE --root-key keys/root.pem" in sheet
    assert "sealpack trust rotate --new-root keys/NEW.pem --root-key keys/root.pem" in sheet


# --- what is told -------------------------------------------------------------------------------------


def test_show_names_what_is_withdrawn_and_how_many_sign(project: Path, capsys: Capture) -> None:
    withdrawn = ("--key", keyid("bundle"), "--floor", "acme/my-model=3", "--license", "L-1")
    assert change("revoke", *withdrawn[:2]) == 0
    assert change("revoke", *withdrawn[2:]) == 0
    capsys.readouterr()
    assert sealpack("trust", "show", "trust/trust.json") == 0
    shown = capsys.readouterr().out
    assert "1 of 1 root keys must sign every change" in shown
    assert re.search(rf"{keyid('bundle')[:16]} .*\(revoked\)", shown)
    assert re.search(rf"{keyid('license')[:16]} .*\(active\)", shown)
    assert (
        f"  key      {keyid('bundle')}\n  license  L-1\n  floor    acme/my-model: release 3 or newer" in shown
    )


def test_the_first_key_of_an_issuer_needs_a_namespace(project: Path, capsys: Capture) -> None:
    new_key("ward")
    told = ("add", "--key", "keys/ward.pub.pem", "--role", "evidence", "--issuer", "Ward Lab")
    assert "Ward Lab has no key in the keyring yet" in refused(capsys, "USAGE", *told)
    assert change(*told, "--namespace", "acme") == 0


def test_no_remedy_names_an_option_that_the_verb_has_not(project: Path, capsys: Capture) -> None:
    assert sealpack("key", "new", "keys/bundle.pem") == 2
    assert sealpack("init", project, "--publisher", "acme") == 2
    init = ("trust", "init", "trust/trust.json", "--publisher", "acme", "--root", "keys/root.pem")
    assert sealpack(*init) == 2
    told = capsys.readouterr().err
    assert told.count("error[OUTPUT_EXISTS]") == 3 and "--force" not in told

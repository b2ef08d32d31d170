"""The delegate's side: seats, shares, re-wrapped keys, and the command line from license to device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import sealpack
from support import world
from support.site import Site, make_license
from support.world import LICENSER, T0

from sealpack.builder import keyfiles, license_files, licensing, sublicensing
from sealpack.builder.build_record import BuildRecord
from sealpack.builder.encrypt import BuildKey
from sealpack.builder.licensing import Issuer
from sealpack.builder.sublicensing import Delegate, Given
from sealpack.format import documents
from sealpack.format.acknowledgement import Acknowledgement
from sealpack.format.activation import Activation, ActivationRequest, log_origin
from sealpack.format.deactivation import Deactivation
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.hybrid import HybridPrivateKey
from sealpack.format.keys import PrivateKey
from sealpack.format.license import BundleGrant, Devices, License, Quota
from sealpack.format.registry import RegistryLine
from sealpack.format.trust import Trust
from sealpack.runtime import device, rights, unlock

DELEGATE = PrivateKey.from_seed(b"sealpack-test-delegate-of-a-lic-")
HYBRID = HybridPrivateKey.from_seed(b"\7" * 32)
TRUST = world.make_trust()
DIGEST = "ab" * 32
RECORD = BuildRecord(DIGEST, "acme/tiny", "1.0", 1, BuildKey(b"\1" * 32, {}))


def parent(records: tuple[BuildRecord, ...] = (), **members: Any) -> License:
    default: dict[str, Any] = {
        "devices": Devices("key", 10),
        "quota": (Quota("calls", "term", "license", 1000, None, "deny"),),
    }
    drafted = make_license(**(default | members))
    return sublicensing.delegated(
        drafted, [DELEGATE.public], max_devices=2, hybrid=HYBRID.public, records=records
    )


def delegate(license: License | None = None, hybrid: HybridPrivateKey | None = None) -> Delegate:
    issued = licensing.issue(license or parent(), Issuer(LICENSER, TRUST))
    return Delegate(DELEGATE, issued.envelope, TRUST, hybrid)


def request(n: int = 1, **members: Any) -> ActivationRequest:
    key = PrivateKey.from_seed(bytes([n]) * 32)
    hpke = HybridPrivateKey.from_seed(bytes([n]) * 32).public
    return ActivationRequest(
        **({"device_key": key.public, "nonce": f"{n:032x}", "created": T0, "root_digest": TRUST.root_digest,
            "runtime": "test", "hpke_key": hpke, "digest": "0" * 64} | members)
    )  # fmt: skip


def code_of(use: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        use()
    return str(caught.value.code)


def test_a_delegate_gives_a_share_and_no_more() -> None:
    who = delegate()
    given = sublicensing.sublicense(who, "ward", {}, now=T0)
    given = sublicensing.activate(given, who, request(), now=T0)
    assert given.activation is not None
    assert given.lease is not None
    lease = given.chain.open_lease(given.lease)
    assert [(c.meter, c.limit) for c in lease.ceilings] == [("calls", 100)]  # ten seats share 1000
    kinds = [e.payload_type for e in given.parcel(TRUST).documents]
    assert sum("sublicense" in kind for kind in kinds) == 1


def test_seats_are_counted_over_all_sublicenses() -> None:
    who, lines = delegate(), []
    for n, name in ((1, "a"), (2, "b")):
        given = sublicensing.sublicense(who, name, {}, now=T0)
        given = sublicensing.activate(given, who, request(n), now=T0, lines=lines)
        lines.append(RegistryLine.from_bytes(given.line.to_bytes()))
    third = sublicensing.sublicense(who, "c", {}, now=T0)
    assert (
        code_of(lambda: sublicensing.activate(third, who, request(3), now=T0, lines=lines)) == "DEVICE_LIMIT"
    )
    again = sublicensing.sublicense(who, "a", {"devices": {"max": 1}}, now=T0, seq=2)
    sublicensing.activate(again, who, request(1), now=T0, lines=lines)  # the device keeps its seat
    assert (
        code_of(lambda: sublicensing.activate(again, who, request(2), now=T0, lines=lines)) == "DEVICE_LIMIT"
    )
    assert sublicensing.next_seq(lines, "L-1.a") == 2
    assert sublicensing.next_seq(lines, "L-1.new") == 1


def proof_of(given: Given, number: int, **members: Any) -> Envelope:
    """The device ends its log: two records, one call."""
    assert given.activation is not None
    key = PrivateKey.from_seed(bytes([number]) * 32)
    made = Activation.read(given.activation)
    origin = log_origin(made.license_id, made.device_id, 0)
    told = Deactivation(
        made.license_id, key.public, 0, origin, 2, "ab" * 32, made.digest, made.nonce, T0 + 9, {"calls": 1}
    )
    return documents.seal("deactivation", replace(told, **members).to_dict(), key)


def settled(proof: Envelope, **members: Any) -> Envelope:
    """Settlement has that log to its end."""
    said = Deactivation.open(proof)
    ack = Acknowledgement(
        said.origin, said.license_id, said.device_id, 0, said.size, said.root, 1, T0 + 20, (), ()
    )
    return documents.seal("acknowledgement", replace(ack, **members).to_dict(), world.SETTLEMENT)


def test_a_closed_devices_seat_is_the_delegates_again() -> None:
    who = delegate()
    lines: list[RegistryLine] = []

    def give(number: int, name: str) -> Given:
        given = sublicensing.sublicense(who, name, {}, now=T0)
        return sublicensing.activate(given, who, request(number), now=T0, lines=lines)

    first, second = give(1, "a"), give(2, "b")
    lines += [first.line, second.line]
    assert code_of(lambda: give(3, "c")) == "DEVICE_LIMIT"
    proof = proof_of(first, 1)
    assert sublicensing.release(proof, TRUST, [], now=T0 + 10) is None
    found = sublicensing.release(proof, TRUST, lines, now=T0 + 10)
    assert found is not None
    said, line = found
    assert (said.license_id, line.released_at, line.sublicense) == ("L-1.a", T0 + 10, first.sublicense)
    lines.append(RegistryLine.from_bytes(line.to_bytes()))
    give(3, "c")
    later = sublicensing.release(proof, TRUST, lines, now=T0 + 30, acknowledgement=settled(proof))
    assert later is not None
    assert later[1].released_at == T0 + 10  # as it was registered first
    assert (
        code_of(
            lambda: sublicensing.release(
                proof, TRUST, lines, now=T0, acknowledgement=settled(proof, root="cd" * 32)
            )
        )
        == "ACK_FORK"
    )
    for strange in (proof_of(first, 1, activation="cd" * 32), proof_of(first, 3)):
        assert code_of(lambda strange=strange: sublicensing.release(strange, TRUST, lines, now=T0)) in (
            "DEVICE_MISMATCH",
            "DOC_SCHEMA",
        )


def test_names_requests_and_wider_members_are_checked() -> None:
    who = delegate()
    assert code_of(lambda: sublicensing.sublicense(who, "a.b", {}, now=T0)) == "USAGE"
    assert code_of(lambda: sublicensing.sublicense(who, "a", {"grace_s": 1}, now=T0)) == "SUBLICENSE_INVALID"
    given = sublicensing.sublicense(who, "a", {}, now=T0)
    asked = request(license_id="L-1")
    assert code_of(lambda: sublicensing.activate(given, who, asked, now=T0)) == "LEASE_MISMATCH"
    revoked = Delegate(DELEGATE, who.parent, world.make_trust(licenses=["L-1"]))
    assert code_of(lambda: sublicensing.sublicense(revoked, "a", {}, now=T0)) == "LIC_REVOKED"


def test_keys_are_rewrapped_for_the_device_and_this_sublicense_alone() -> None:
    who = delegate(parent((RECORD,)), HYBRID)
    given = sublicensing.sublicense(who, "ward", {}, now=T0)
    given = sublicensing.activate(given, who, request(), now=T0)
    assert given.activation is not None
    made = given.chain.open_activation(given.activation)
    (key,) = made.keys
    machine = HybridPrivateKey.from_seed(bytes([1]) * 32)
    assert machine.unwrap(key, "L-1.ward", made.device_id) == b"\1" * 32
    for license_id, name in (("L-1", made.device_id), ("L-1.other", made.device_id), ("L-1.ward", "dev-0")):
        assert code_of(lambda i=license_id, n=name: machine.unwrap(key, i, n)) == "KEY_UNWRAP"
    # What the license holds opens for nobody but the delegate.
    bare = who.license.delegation
    assert bare is not None
    assert code_of(lambda: machine.unwrap(bare.bundle_keys[0], "L-1", made.device_id)) == "KEY_UNWRAP"


def test_keys_go_only_where_both_sides_can() -> None:
    words = BundleGrant("acme/words", bundle_digest="cd" * 32)
    license = parent((RECORD,), bundles=(BundleGrant("acme/tiny", bundle_digest=DIGEST), words))
    who = delegate(license)
    whole = sublicensing.sublicense(who, "a", {}, now=T0)
    assert code_of(lambda: sublicensing.activate(whole, who, request(), now=T0)) == "USAGE"
    other = delegate(license, HybridPrivateKey.from_seed(b"\x08" * 32))
    assert code_of(lambda: sublicensing.activate(whole, other, request(), now=T0)) == "KEY_UNWRAP"
    mine = delegate(license, HYBRID)
    bare = request(hpke_key=None)
    assert code_of(lambda: sublicensing.activate(whole, mine, bare, now=T0)) == "USAGE"
    stated = {"bundles": [{"id": "acme/words", "bundle_digest": "cd" * 32}]}
    part = sublicensing.sublicense(mine, "b", stated, now=T0)
    given = sublicensing.activate(part, mine, request(), now=T0)
    assert given.activation is not None
    assert Activation.read(given.activation).keys == ()


def test_too_many_builds_and_strange_records_are_refused() -> None:
    many = tuple(BuildRecord(f"{n:064x}", "acme/tiny", "1.0", 1, RECORD.key) for n in range(65))
    assert code_of(lambda: parent(many)) == "USAGE"
    strange = BuildRecord(DIGEST, "other/x", "1.0", 1, RECORD.key)
    assert code_of(lambda: parent((strange,))) == "BUNDLE_MISMATCH"


def test_hybrid_key_files(tmp_path: Path) -> None:
    private, public = keyfiles.write_hybrid(tmp_path / "it.hpke", HYBRID)
    assert private.stat().st_mode & 0o777 == 0o600
    assert keyfiles.load_hybrid(private).seed == HYBRID.seed
    assert keyfiles.load_hybrid_public(public).data == HYBRID.public.data
    assert code_of(lambda: keyfiles.write_hybrid(tmp_path / "it.hpke", HYBRID)) == "OUTPUT_EXISTS"
    assert code_of(lambda: keyfiles.load_hybrid(public)) == "KEY_UNREADABLE"


# --- the command line, down to a device ------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    code = sealpack(*arguments)
    out = capsys.readouterr()
    return code, out.out + out.err


def issue(capsys: pytest.CaptureFixture[str], home: Path, out: Path, *more: str | Path) -> tuple[int, str]:
    return run(
        capsys, "license", "issue", "--project", home, "--preset", "academic", "--customer", "Group",
        "--license-id", "L-1", "--bundle-id", "acme/tiny", "--until", "2099-01-31", "--out", out, *more,
    )  # fmt: skip


def test_from_license_to_device_on_the_command_line(
    capsys: pytest.CaptureFixture[str], home: Path, trust: Trust, tmp_path: Path
) -> None:
    keyfiles.write_pair(tmp_path / "it.pem", DELEGATE)
    above = tmp_path / "parent.license"
    code, told = issue(capsys, home, above, "--delegate", tmp_path / "it.pub.pem", "--delegate-devices", "2")
    assert code == 0, told
    site = Site(tmp_path, {}, trust).pin()
    asked = tmp_path / "request"
    with site.state() as state:
        asked.write_bytes(Parcel((device.request(state, trust, T0),)).to_bytes())
    members = tmp_path / "members.json"
    members.write_text(json.dumps({"limits": {"qps": 2}}))
    arguments: tuple[str | Path, ...] = (
        "license", "sub", "--parent", above, "--trust", home / "trust/trust.json", "--key",
        tmp_path / "it.pem", "--name", "ward", "--until", "2098-01-31", "--devices", "1", "--quota",
        "calls=50/term,deny", "--customer", "Ward 3", "--support", "it@group.example", "--device-label", "w3",
        "--members", members,
    )  # fmt: skip
    code, told = run(capsys, *arguments, "--request", asked)
    assert code == 0, told
    assert "L-1.ward number 1, below L-1" in told
    taken = site.take(Parcel.from_bytes((tmp_path / "L-1.ward.license").read_bytes()))
    assert taken.licenses == ["L-1.ward"]
    (line,) = license_files.read_registry(tmp_path / "sublicenses.jsonl")
    assert line.sublicense is not None
    proof, state = tmp_path / "w3.proof", site.state_dir
    code, told = run(capsys, "activate", "close", "L-1.ward", "--state", state, "--out", proof)
    assert code == 0, told
    mine = ("--trust", home / "trust/trust.json", "--registry", tmp_path / "sublicenses.jsonl")
    code, told = run(capsys, "license", "release", proof, *mine)
    assert (code, "of L-1.ward is closed" in told) == (0, True), told
    assert license_files.read_registry(tmp_path / "sublicenses.jsonl")[1].released_at is not None
    code, told = run(capsys, *arguments, "--force")
    assert (code, "number 2" in told) == (0, True), told
    code, told = run(capsys, *arguments, "--force", "--quota", "calls=100001/month,throttle")
    assert (code, "sublicense.quota is wider" in told) == (4, True), told
    for text in ("[1.5]", "[]", "{"):
        members.write_text(text)
        assert run(capsys, *arguments, "--force")[0] == 2
    reply = tmp_path / "L-1.ward.license"
    code, told = run(capsys, *arguments[:2], "--parent", asked, *arguments[4:])
    assert (code, reply.exists()) == (3, True), told


def test_the_keys_of_an_encrypted_build_reach_a_device_through_its_delegate(
    capsys: pytest.CaptureFixture[str], home: Path, trust: Trust, tmp_path: Path
) -> None:
    keyfiles.write_pair(tmp_path / "it.pem", DELEGATE)
    code, told = run(capsys, "license", "delegate-key", tmp_path / "it.hpke")
    assert code == 0, told
    (tmp_path / "words").write_text("correct horse battery\n")
    RECORD.write(tmp_path / "tiny.seal", "correct horse battery")
    above = tmp_path / "parent.license"
    seal: tuple[str | Path, ...] = (
        "--seal", tmp_path / "tiny.seal", "--seal-passphrase-file", tmp_path / "words"
    )  # fmt: skip
    hpke = "--delegate-hpke", tmp_path / "it.hpke.pub"
    assert issue(capsys, home, above, *hpke)[0] == 2  # whose key is it?
    code, told = issue(capsys, home, above, "--delegate", tmp_path / "it.pub.pem", *hpke, *seal)
    assert code == 0, told
    site = Site(tmp_path, {}, trust).pin()
    with site.state() as state:
        asked = Parcel((device.request(state, trust, T0),))
    (tmp_path / "request").write_bytes(asked.to_bytes())
    code, told = run(
        capsys, "license", "sub", "--parent", above, "--trust", home / "trust/trust.json", "--key",
        tmp_path / "it.pem", "--hpke-key", tmp_path / "it.hpke", "--name", "ward", "--request",
        tmp_path / "request", "--out", tmp_path / "reply",
    )  # fmt: skip
    assert code == 0, told
    site.take(Parcel.from_bytes((tmp_path / "reply").read_bytes()))
    with site.state() as state, state.read() as db:
        found = rights.read(db, "L-1.ward", [trust])
    assert unlock.input_key(site.home, found.activation, DIGEST) == b"\1" * 32

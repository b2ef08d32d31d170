"""ML-DSA-65: keys and signatures against another implementation, and bundles with two signatures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from hypothesis import given, settings, strategies as st
from support import world
from support.mldsa import CREATOR_MLDSA, ROOT_MLDSA, STRANGER_MLDSA
from support.world import CREATOR, LICENSER, ROOT, T0, BundleSpec

from sealpack.format import documents
from sealpack.format.errors import SealpackError
from sealpack.format.keys import ECDSA, ML_DSA, PrivateKey, PublicKey, Signer
from sealpack.format.root import Root
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli.main import make_cli, run
from sealpack.verifier.report import Report
from sealpack.verifier.signature import GivenKeys

KEY = PrivateKey.from_seed(CREATOR_MLDSA.seed, ML_DSA)
HYBRID = BundleSpec(mldsa_key=CREATOR_MLDSA)
MESSAGE = b"message"


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(SealpackError) as caught:
        call(*arguments)
    return caught.value.code


def hybrid_trust(since: int | None = None) -> Trust:
    entry = world.key_entry(CREATOR, ["bundle"], mldsa=CREATOR_MLDSA)
    entry |= {} if since is None else {"since": since}
    return Trust.from_envelopes(world.make_root(), world.make_keyring(1, [entry]), world.make_revocations())


# --- keys and signatures -------------------------------------------------------------------------------


def test_the_other_implementation_has_the_same_key_and_accepts_the_same_signatures() -> None:
    assert KEY.public == CREATOR_MLDSA.public and KEY.scheme == KEY.public.scheme == ML_DSA
    ours, theirs = KEY.sign(MESSAGE), CREATOR_MLDSA.sign(MESSAGE)
    assert len(ours) == len(theirs) == 3309
    assert CREATOR_MLDSA.verifies(ours, MESSAGE) and not CREATOR_MLDSA.verifies(ours, b"other")
    KEY.public.verify(theirs, MESSAGE)
    assert code_of(KEY.public.verify, theirs, b"other") == "SIG_INVALID"
    assert code_of(STRANGER_MLDSA.public.verify, ours, MESSAGE) == "SIG_INVALID"


def test_signatures_are_hedged_and_only_the_empty_context_counts() -> None:
    assert KEY.sign(MESSAGE) != KEY.sign(MESSAGE)
    assert code_of(KEY.public.verify, CREATOR_MLDSA.sign(MESSAGE, b"ctx"), MESSAGE) == "SIG_INVALID"


def test_a_second_spelling_of_the_key_is_refused() -> None:
    pem = KEY.public.pem
    assert PublicKey.from_pem(pem) == KEY.public
    lines = pem.splitlines()
    one_line = "\n".join([lines[0], "".join(lines[1:-1]), lines[-1], ""])
    for other in (pem[:-1], pem + "\n", " " + pem, pem.replace("\n", "\r\n"), one_line):
        assert code_of(PublicKey.from_pem, other) == "KEY_MALFORMED"


@pytest.mark.parametrize("kind", [mldsa.MLDSA44PrivateKey, mldsa.MLDSA87PrivateKey])
def test_other_parameter_sets_are_refused(kind: Any) -> None:
    key = kind.from_seed_bytes(bytes(32))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, info).decode()
    assert code_of(PublicKey.from_pem, pem) == "KEY_MALFORMED"


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=80) | st.binary(min_size=3309, max_size=3309))
def test_any_bytes_are_no_signature(signature: bytes) -> None:
    expected = "SIG_INVALID" if len(signature) == 3309 else "SIG_MALFORMED"
    assert code_of(KEY.public.verify, signature, MESSAGE) == expected


SIGNED = CREATOR_MLDSA.sign(MESSAGE)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3308), st.integers(0, 7))
def test_any_flipped_bit_fails(at: int, bit: int) -> None:
    changed = SIGNED[:at] + bytes([SIGNED[at] ^ 1 << bit]) + SIGNED[at + 1 :]
    assert code_of(KEY.public.verify, changed, MESSAGE) == "SIG_INVALID"


def test_a_cryptography_without_ml_dsa_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UnsupportedAlgorithm("ML-DSA-65 is not supported by this backend.")

    monkeypatch.setattr(mldsa.MLDSA65PrivateKey, "generate", missing)
    assert code_of(PrivateKey.generate, ML_DSA) == "EXTRA_MISSING"


def test_whoever_has_the_members_is_a_signer() -> None:
    """A key that never leaves its device signs like one in memory."""

    class Token:
        public, keyid, scheme = LICENSER.public, LICENSER.keyid, ECDSA

        def sign(self, message: bytes) -> bytes:
            return LICENSER.sign(message)

    token: Signer = Token()
    assert documents.seal("license", {"n": 1}, token) == documents.seal("license", {"n": 1}, LICENSER)


# --- roots -----------------------------------------------------------------------------------------------

A, B, C = (PrivateKey.from_scalar(0x1200 + n) for n in range(3))


@pytest.mark.parametrize(
    ("pairs", "threshold", "claimed"),
    [(0, 1, False), (0, 3, False), (1, 1, False), (1, 2, False), (1, 3, True), (2, 1, False), (2, 2, True)],
)
def test_a_root_is_post_quantum_when_no_threshold_is_met_without(
    pairs: int, threshold: int, claimed: bool
) -> None:
    beside: dict[str, Signer] = {
        key.keyid: m for key, m in zip((A, B)[:pairs], (ROOT_MLDSA, STRANGER_MLDSA), strict=False)
    }
    root = Root.parse(world.make_root(1, (A, B, C), threshold, mldsa=beside))
    assert root.post_quantum("keyring") is claimed
    assert set(root.mldsa) == set(beside)


# --- bundles: what the report says. Faults: specs/vectors/bundle/hybrid-* -------------------------------


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "x.sealpack"
    path.write_bytes(HYBRID.build())
    return path


def post_quantum(report: Report) -> list[str]:
    assert report.ok, report.failures
    return [name for name, claimed in report.facts["post_quantum"].items() if claimed]


def test_the_report_claims_what_was_signed_so(bundle: Path, tmp_path: Path) -> None:
    report = verify_bundle(bundle, hybrid_trust(since=T0 - 5))
    assert post_quantum(report) == ["bundle"]
    signer = report.facts["signer"]
    assert (signer["keyid"], signer["mldsa_keyid"]) == (CREATOR.keyid, CREATOR_MLDSA.keyid)
    assert (signer["scheme"], signer["since"]) == (ECDSA, T0 - 5)
    signature = next(c for c in report.checks if c.id == "signature")
    assert signature.detail.startswith("ECDSA P-256 and ML-DSA-65 by ")
    plain = tmp_path / "plain.sealpack"
    plain.write_bytes(BundleSpec().build())
    report = verify_bundle(plain, world.make_trust())
    assert post_quantum(report) == [] and "since" not in report.facts["signer"]


def test_a_root_of_pairs_is_claimed_too(bundle: Path) -> None:
    root = world.make_root(mldsa={ROOT.keyid: ROOT_MLDSA})

    def signed(envelope: documents.Envelope) -> documents.Envelope:
        return documents.dsse.sign(envelope.payload_type, envelope.payload, ROOT, ROOT_MLDSA)

    rings = (e for e in hybrid_trust().envelopes[1:])
    trust = Trust.from_envelopes(root, *map(signed, rings))
    assert post_quantum(verify_bundle(bundle, trust)) == ["bundle", "root", "keyring", "revocations"]


def test_keys_without_a_trust_file(bundle: Path) -> None:
    both = verify_bundle(bundle, key=CREATOR.public, mldsa_key=CREATOR_MLDSA.public)
    assert post_quantum(both) == ["bundle"]
    alone = verify_bundle(bundle, key=CREATOR.public)
    assert [c.code for c in alone.failures] == ["SIG_SCHEME"]
    assert "--mldsa-key" in str(alone.failures[0].remedy)
    with pytest.raises(SealpackError, match="ecdsa"):
        GivenKeys(CREATOR.public, CREATOR.public)


def cli(*arguments: str | Path) -> int:
    return run(make_cli(), list(map(str, arguments)))


def test_verify_on_the_command_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, second = tmp_path / "k.pub.pem", tmp_path / "k.mldsa.pub.pem"
    key.write_text(CREATOR.public.pem)
    second.write_text(CREATOR_MLDSA.public.pem)
    assert cli("verify", bundle, "--key", key, "--mldsa-key", second, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["post_quantum"]["bundle"] is True
    assert cli("verify", bundle, "--key", key) == 3
    assert "--mldsa-key FILE" in capsys.readouterr().out
    trust = tmp_path / "trust.json"
    trust.write_bytes(hybrid_trust().to_bytes())
    assert cli("verify", bundle, "--trust", trust) == 0
    assert cli("verify", bundle, "--trust", trust, "--mldsa-key", second) == 2
    assert cli("verify", bundle, "--key", key, "--mldsa-key", key) == 2
    assert cli("verify", bundle, "--key", key, "--mldsa-key", tmp_path / "none") == 1
    capsys.readouterr()
    assert cli("trust", "show", trust) == 0
    assert f"{ECDSA}+{ML_DSA}" in capsys.readouterr().out

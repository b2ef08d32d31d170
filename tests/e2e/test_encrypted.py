"""An encrypted language model from the creator's command line to the customer's answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import scan

ROOT = Path(__file__).resolve().parents[2]
TINYLM = ROOT / "builder/src/sealpack/builder/demo/data/tinylm-q8_0.gguf"


def test_from_build_to_answer(sealpack, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("llama_cpp")
    project, state, other = (tmp_path / name for name in ("project", "state", "other"))
    bundle, words, reply = tmp_path / "e.sealpack", tmp_path / "words", tmp_path / "l.license"
    words.write_text("correct horse battery staple\n")

    def good(*arguments: object, where: Path | None = None) -> str:
        done = sealpack(*arguments, state=where, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    trust = project / "trust/trust.json"
    good("init", "--publisher", "acme", project)
    config = ("--config", project / "sealpack.toml")
    good("build", TINYLM, *config, "--encrypt", "--seal-passphrase-file", words, "--out", bundle)
    assert "encrypted" in good("verify", bundle, "--trust", trust)
    for place in (state, other):
        good("trust", "pin", trust, "--yes", where=place)
        good("install", bundle, where=place)
    request = tmp_path / "request.json"
    good("activate", "request", "--out", request, where=state)
    license = ("license", "issue", "--project", project, "--preset", "commercial", "--until", "2090-01-01")
    license = (*license, "--customer", "Nord", "--bundle", bundle, "--request", request, "--out", reply)
    good(*license, "--seal", tmp_path / "e.seal", "--seal-passphrase-file", words)
    good("activate", "install", reply, where=state)
    run = ("run", "acme/my-model", "--prompt", "THE SOFTWARE IS PROVIDED", "--max-tokens", "8")
    assert '"AS IS" WITHOUT WARRANTY' in good(*run, where=state)

    sealpack("activate", "install", reply, state=other)  # is for another device
    refused = sealpack(*run, state=other)
    assert refused.returncode == 4 and "error[LIC_MISSING]" in refused.stderr
    weights = TINYLM.read_bytes()
    assert not scan.found([weights[-4096:-4000], weights[:64]], [tmp_path], [])

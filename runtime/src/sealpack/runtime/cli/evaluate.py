"""`sealpack evaluate`: run a model on labelled data and write signed evidence."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import license_option, state_option
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.format.evidence import Evidence, Metric
    from sealpack.format.keys import PrivateKey
    from sealpack.format.trust import Trust
    from sealpack.runtime.evaluation.data import Data
    from sealpack.runtime.evaluation.subject import Loaded, Project

_FILE = click.Path(dir_okay=False)
_MEASURES = (
    "classification",
    "regression",
    "triplets",
    "retrieval",
    "similarity",
    "completion",
    "perplexity",
)


@click.command(short_help="Measure a model on labelled data; write signed evidence.")
@click.argument("model")
@click.option("--data", "data_file", type=_FILE, required=True, help="Labelled data: .jsonl, .csv or .npz.")
@click.option("--key", "key_file", type=_FILE, required=True, help="Private key with the role evidence.")
@support.passphrase_option
@click.option("--out", type=_FILE, required=True, help="Where the evidence goes.")
@click.option("--trust", "trust_file", type=_FILE, help="Trust file [default: trust.file of sealpack.toml].")
@click.option("--evaluator", help="Who evaluates [default: the key's owner in the trust file].")
@click.option(
    "--config", "config_file", type=_FILE, help="Its [io] and [[files]] [default: sealpack.toml here]."
)
@click.option("--task", type=click.Choice(_MEASURES), help="What to measure [default: by model and data].")
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate that many rows, drawn by the seed.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), default=0, show_default=True)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Rows in a call.")
@click.option("--warmup", type=click.IntRange(0, 1000), default=1, show_default=True, help="Calls before.")
@click.option("--valid-days", type=click.IntRange(1, 3650), default=365, show_default=True)
@click.option("--data-name", help="What the data is called [default: its file name].")
@click.option("--data-license", help="License of the data.")
@click.option("--data-source", help="Where the data comes from.")
@click.option("--notes", help="A remark that is signed with it.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: physical cores less one.")
@click.option("--context", type=click.IntRange(min=2), help="Tokens (GGUF).")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@license_option
@state_option
@support.format_option
def evaluate(model: str, out: str, force: bool, fmt: str, **options: Any) -> None:
    """Run MODEL on labelled data with the runtime's engines, and write signed evidence.

    MODEL is a model file (its sealpack.toml says how it is fed), a bundle file (verified under --trust; your
    key must be listed there for evidence), or the id of an installed bundle (licensed and metered as always).
    """
    support.require_extra("runtime", "numpy")
    from sealpack.format.files import atomic_write
    from sealpack.runtime.evaluation import data, subject

    support.refuse_existing(out, force)
    kind = subject.kind_of(model)
    config = options["config_file"]
    project = subject.read_project(Path(config) if config else None) if kind == "model" else None
    trust = _trust(options["trust_file"], project)
    key = _key(options)
    evaluator = _evaluator(options["evaluator"], trust, key)
    rows = data.read(Path(options["data_file"]))
    with _opened(kind, model, project, trust, key, options) as loaded:
        evidence = _measured(loaded, rows, evaluator, options)
    sealed = _sealed(evidence, key, trust)
    atomic_write(out, sealed.to_bytes(), replace=force)
    result = {"schema": "sealpack/evaluate-result/v1", "path": out, "digest": sealed.digest}
    support.emit({**result, "evidence": evidence.to_dict()}, _text(out, evidence), fmt)


def _trust(given: str | None, project: Project | None) -> Trust | None:
    found = given or (project.trust if project is not None else None)
    if found is None:
        return None
    trust: Trust = support.load_trust(found)
    return trust


def _key(options: dict[str, Any]) -> PrivateKey:
    from sealpack.format.keys import PrivateKey

    needed = b"ENCRYPTED" in _head(options["key_file"])
    secret = support.passphrase(options["passphrase_file"], prompt="Passphrase for the key", required=needed)
    return PrivateKey.load(options["key_file"], secret)


def _head(path: str) -> bytes:
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        return file.read(100)
    return b""


def _evaluator(given: str | None, trust: Trust | None, key: PrivateKey) -> str:
    if trust is None:
        if not given:
            raise SealpackError("USAGE", "say who evaluates: give --trust, or --evaluator NAME")
        return given
    issuer = trust.entry(key.keyid, "evidence", "").issuer
    if given not in (None, issuer):
        raise SealpackError("USAGE", f"the key belongs to {issuer}, not to {given}")
    return issuer


@contextlib.contextmanager
def _opened(
    kind: str,
    model: str,
    project: Project | None,
    trust: Trust | None,
    key: PrivateKey,
    options: dict[str, Any],
) -> Iterator[Loaded]:
    from sealpack.runtime.engines.base import Options
    from sealpack.runtime.evaluation import subject

    how = Options(options["threads"], options["context"])
    if project is not None:
        opened = subject.open_model(Path(model), project, how)
    elif kind == "bundle":
        opened = subject.open_bundle(Path(model), trust, key.public, how)
    else:
        opened = subject.open_installed(
            model, state=options["state_dir"], license=options["license_id"], options=how
        )
    with opened as loaded:
        yield loaded


def _measured(loaded: Loaded, rows: Data, evaluator: str, options: dict[str, Any]) -> Evidence:
    from sealpack.runtime.evaluation import measure

    plan = measure.Plan(
        evaluator, support.now(), options["valid_days"], options["task"], options["limit"], options["seed"],
        options["batch"], options["warmup"], options["data_name"], options["data_license"],
        options["data_source"], options["notes"],
    )  # fmt: skip
    total = min(options["limit"] or len(rows.rows), len(rows.rows))
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=total, label="evaluating", file=sys.stderr, hidden=hidden) as bar:
        return measure.evaluate(loaded, rows, plan, bar.update)


def _sealed(evidence: Evidence, key: PrivateKey, trust: Trust | None) -> Any:
    """The signed document, read back as every verifier will read it."""
    from sealpack.format import documents
    from sealpack.format.evidence import KIND, Evidence, open_evidence

    envelope = documents.seal(KIND, evidence.to_dict(), key)
    if trust is None:
        Evidence.parse(documents.payload_fields(envelope, KIND, "USAGE"))
    else:
        open_evidence(envelope, trust)
    return envelope


def _baseline(metric: Metric) -> str:
    return "" if metric.baseline is None else f", baseline {metric.baseline}"


def _text(out: str, evidence: Evidence) -> str:
    said, speed = evidence.data, evidence.performance
    p = speed.latency_us
    lines = [
        f"evidence  {out}, by {evidence.evaluator}",
        f"data      {said.name}: {evidence.method.evaluated:,} of {said.rows:,} rows",
        *(f"{m.name:<18}{m.value} (n = {m.n:,}{_baseline(m)})" for m in evidence.metrics),
        f"samples   {evidence.samples.passed} of {evidence.samples.total} as expected",
        f"latency   p50 {p.p50:,} us, p90 {p.p90:,} us, p99 {p.p99:,} us; {speed.throughput} items/s",
        f"memory    peak {speed.peak_memory_bytes or 0:,} bytes; loaded in {speed.load_us or 0:,} us",
    ]
    return "\n".join(lines)

"""`sealpack run`: one metered call on an installed bundle."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from sealpack.format.errors import SealpackError
from sealpack.runtime.cli.common import license_option, open_state, state_option, warn
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.runtime.api import Answer, Runtime

_MAX_INPUT = 64 << 20  # bytes of an input file


@click.command(short_help="Run an installed bundle once.")
@click.argument("bundle_id")
@click.option("--prompt", help="Text to continue (text generation).")
@click.option("--text", "texts", multiple=True, help="Text to embed; may be repeated.")
@click.option(
    "--input",
    "input_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help="JSON file with inputs by name, or - for stdin; for text tasks, the text itself.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 10), default=0.0, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Default: physical cores less one.")
@click.option("--cost-centre", help="Stands in the receipt, for your own accounts.")
@click.option("--require-live", is_flag=True, help="Refuse a test license: for machines in earnest use.")
@license_option
@state_option
@support.format_option
def run(
    bundle_id: str,
    prompt: str | None,
    texts: tuple[str, ...],
    input_file: str | None,
    threads: int | None,
    require_live: bool,
    license_id: str | None,
    state_dir: str | None,
    fmt: str,
    **options: Any,
) -> None:
    """Run BUNDLE_ID once: the answer goes to stdout, one line of metering to stderr."""
    import sealpack.runtime

    if sum((prompt is not None, bool(texts), input_file is not None)) != 1:
        raise _give_one(bundle_id, state_dir)
    data = None if input_file is None else _read(input_file)
    kind = "live" if require_live else None
    with sealpack.runtime.open(
        bundle_id, state=state_dir, license=license_id, threads=threads, environment=kind
    ) as runtime:
        warn(runtime.standing.warnings)
        answer = _call(runtime, prompt, texts, data, options, stream=fmt == "text")
        _print(answer, fmt)
        warn(tuple(w for w in answer.warnings if w not in runtime.standing.warnings))
    used = ", ".join(f"{meter} {count}" for meter, count in answer.meters.items() if count)
    support.note(f"metered: {used}; receipt {answer.receipt.position}")


def _give_one(bundle_id: str, state_dir: str | None) -> SealpackError:
    """The refusal of a call without an input, or with several: says what this bundle takes."""
    from sealpack.runtime import store
    from sealpack.runtime.engines.base import OPTIONS, takes

    remedy = None
    with contextlib.suppress(SealpackError), open_state(state_dir) as state:
        bundle = store.open_installed(state, store.find(state, bundle_id))
        with contextlib.closing(bundle):
            remedy = (
                f"{bundle_id} does {bundle.io.task}: `sealpack run {bundle_id} {OPTIONS[takes(bundle.io)]}`"
            )
    return SealpackError("USAGE", "give exactly one of --prompt, --text, --input", remedy=remedy)


def _read(path: str) -> bytes:
    if path == "-":
        data = sys.stdin.buffer.read(_MAX_INPUT + 1)
    else:
        with support.existing(path).open("rb") as file:
            data = file.read(_MAX_INPUT + 1)
    if len(data) > _MAX_INPUT:
        raise SealpackError("REQUEST_TOO_LARGE", f"{path} is larger than {_MAX_INPUT} bytes")
    return data


def _call(
    runtime: Runtime,
    prompt: str | None,
    texts: tuple[str, ...],
    data: bytes | None,
    options: dict[str, Any],
    *,
    stream: bool,
) -> Answer:
    from sealpack.runtime.engines.base import Embed, Generate, Infer, takes

    centre = options["cost_centre"]
    if data is not None and (wanted := takes(runtime.io)) != "inputs":
        text = data.decode("utf-8", "replace")
        prompt, texts = (text, ()) if wanted == "prompt" else (None, (text,))
    if prompt is not None:
        call = Generate(prompt, options["max_tokens"], options["temperature"], options["seed"])
        return runtime.run(call, on_text=_show if stream else None, cost_centre=centre)
    if texts:
        return runtime.run(Embed(texts), cost_centre=centre)
    return runtime.run(Infer(_inputs(data or b"")), cost_centre=centre)


def _show(piece: str) -> None:
    click.echo(piece, nl=False)
    sys.stdout.flush()


def _inputs(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SealpackError("INPUT_INVALID", f"the input is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise SealpackError("INPUT_INVALID", "the input is not a JSON object of inputs by name")
    return value


def _print(answer: Answer, fmt: str) -> None:
    result = {
        "schema": "sealpack/answer/v1",
        "answer": answer.value,
        "meters": dict(answer.meters),
        "status": answer.receipt.status,
        "receipt": {"origin": answer.receipt.origin, "n": answer.receipt.position},
    }
    support.emit(result, _text(answer.value), fmt)


def _text(value: dict[str, Any]) -> str:
    """The answer for people. A generated text was shown while it came."""
    if "text" in value:
        return ""
    if "labels" in value:
        return "\n".join(f"{entry['label']} {entry['probability']:.4f}" for entry in value["labels"])
    if "embeddings" in value:
        return "\n".join(json.dumps([round(x, 6) for x in vector]) for vector in value["embeddings"])
    return json.dumps(value["outputs"])

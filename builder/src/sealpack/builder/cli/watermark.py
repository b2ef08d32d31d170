"""`sealpack vault` and `sealpack watermark`: keep the marks' keys, and find a mark in a leaked file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

if TYPE_CHECKING:
    from sealpack.builder.watermark.detect import Score, Verdict
    from sealpack.builder.watermark.vault import Vault

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(dir_okay=False)
_SHOWN = 5  # licensees listed in text; JSON has all


def _passphrase_option(command: F) -> F:
    return click.option(
        "--passphrase-file",
        type=_FILE,
        envvar="SEALPACK_VAULT_PASSPHRASE_FILE",
        show_envvar=True,
        help="File whose first line opens the vault.",
    )(command)


@click.group(short_help="Make and look at a watermark vault.")
def vault() -> None:
    """Make and look at a watermark vault, the encrypted file that holds the marks' keys."""


@vault.command(short_help="Make a vault.")
@click.argument("path", type=_FILE)
@_passphrase_option
@support.format_option
def new(path: str, passphrase_file: str | None, fmt: str) -> None:
    """Make the vault PATH with a fresh root key. Keep it and its passphrase: nothing replaces them."""
    from sealpack.builder.watermark.vault import Vault

    made = Vault.create(Path(path), _passphrase(passphrase_file, confirm=True))
    text = f"vault    {path}\nnext     back it up; without it no mark can be found"
    support.emit(_summary(made), text, fmt)


@vault.command(short_help="List the marked copies a vault knows.")
@click.argument("path", type=_FILE)
@_passphrase_option
@support.format_option
def show(path: str, passphrase_file: str | None, fmt: str) -> None:
    """List the models and marked copies in the vault PATH; keys are never printed."""
    summary = _summary(_open(path, passphrase_file))
    lines = [f"vault    {path}: {len(summary['models'])} models, {len(summary['marks'])} marked copies"]
    for mark in summary["marks"]:
        day = time.strftime("%Y-%m-%d", time.gmtime(mark["time"]))
        lines.append(
            f"{day}  {mark['licensee']}  license {mark['license_id']}  {mark['bundle_id']}"
            f"  marked {mark['marked'][:16]}"
        )
    support.emit(summary, "\n".join(lines), fmt)


@click.group(short_help="Find whose mark a model file carries.")
def watermark() -> None:
    """Find whose mark a model file carries."""


@watermark.command(short_help="Say whose copy a file is, and how sure that is.")
@click.argument("suspect", type=_FILE)
@click.option(
    "--vault", "vault_path", type=_FILE, required=True, help="The vault the copies were marked with."
)
@click.option("--original", type=_FILE, help="The clean model file: makes the test far stronger.")
@_passphrase_option
@support.format_option
def detect(
    suspect: str, vault_path: str, original: str | None, passphrase_file: str | None, fmt: str
) -> None:
    """Test SUSPECT, an ONNX or GGUF file, for the mark of every licensee in the vault."""
    support.require_extra("builder", "numpy", "onnx", "gguf")
    from sealpack.builder.watermark import detect as detector

    opened = _open(vault_path, passphrase_file)
    verdict = detector.detect(Path(suspect), opened, Path(original) if original else None)
    support.emit(verdict.to_dict(), _text(verdict), fmt)


def _open(path: str, passphrase_file: str | None) -> Vault:
    from sealpack.builder.watermark.vault import Vault

    return Vault.open(support.existing(path), _passphrase(passphrase_file))


def _passphrase(path: str | None, *, confirm: bool = False) -> str:
    line = support.passphrase(path, prompt="Vault passphrase", confirm=confirm) or b""
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise SealpackError("KEY_UNREADABLE", "the vault passphrase is not UTF-8 text") from None


def _summary(vault: Vault) -> dict[str, Any]:
    """What may be shown of a vault: no keys, no samples, no randomness."""
    return {
        "schema": "sealpack/vault-summary/v1",
        "models": [
            {"digest": m.digest, "files": list(m.files), "tensors": len(m.tensors), "weights": m.weights}
            for m in vault.models.values()
        ],
        "marks": [
            {
                "license_id": m.license_id,
                "licensee": m.licensee,
                "bundle_id": m.bundle_id,
                "model": m.model,
                "marked": m.marked,
                "commitment": m.commitment,
                "time": m.time,
            }
            for m in vault.marks
        ],
    }


def _text(verdict: Verdict) -> str:
    head = [
        f"suspect    {verdict.suspect}",
        f"structure  {verdict.structure}: {verdict.matched_tensors} of {verdict.all_tensors} marked tensors,"
        f" {verdict.matched_weights} of {verdict.all_weights} weights",
    ]
    if verdict.scores:
        head.append(f"test       {verdict.method}; p-values corrected for {verdict.tested} licensees")
        head += [f"  {_line(score)}" for score in verdict.scores[:_SHOWN]]
    limits = ["limits", *(f"  - {limit}" for limit in verdict.limits)]
    return "\n".join([*head, *_conclusion(verdict), *limits])


def _line(score: Score) -> str:
    return f"{score.licensee}  license {', '.join(score.license_ids)}  z {score.z:.1f}  {_p(score.log10_p)}"


def _p(log10_p: float) -> str:
    if log10_p <= -30:
        return "p < 1e-30"
    return f"p {10**log10_p:.2g}"


def _conclusion(verdict: Verdict) -> list[str]:
    if verdict.structure == "not matched":
        return [
            "verdict    structure not matched: no marked tensor was found in this file,",
            "           which does not say that it was not made from yours",
        ]
    if not verdict.named:
        return ["verdict    no licensee is named: no mark stands out from chance"]
    return [
        f"verdict    carries the mark of {score.licensee} (license {', '.join(score.license_ids)}),"
        f" {_p(score.log10_p)}"
        for score in verdict.named
    ]

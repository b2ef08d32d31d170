"""`sealpack selftest`: run a bundle's own samples."""

from __future__ import annotations

from dataclasses import asdict

import click

from sealpack.runtime.cli.common import license_option, state_option
from sealpack.runtime.words import plural
from sealpack.verifier.cli import support


@click.command(short_help="Run a bundle's own samples and compare the answers.")
@click.argument("bundle_id")
@click.option("--threads", type=click.IntRange(min=1), help="Default: physical cores less one.")
@license_option
@state_option
@support.format_option
def selftest(
    bundle_id: str, threads: int | None, license_id: str | None, state_dir: str | None, fmt: str
) -> int:
    """Run the samples that the creator put into BUNDLE_ID and compare each answer.

    Each sample is an ordinary call: it needs a license, counts against it, and is receipted under the
    cost centre `selftest`. Exit status 1 when an answer differs.
    """
    import sealpack.runtime
    from sealpack.runtime import samples

    with sealpack.runtime.open(bundle_id, state=state_dir, license=license_id, threads=threads) as runtime:
        engine = runtime.describe()
        outcomes = samples.run_all(runtime)
    good = all(outcome.ok for outcome in outcomes)
    result = {
        "schema": "sealpack/selftest/v1",
        "ok": good,
        "engine": {"name": engine.engine, "version": engine.version, "threads": engine.threads},
        "samples": [asdict(outcome) for outcome in outcomes],
    }
    lines = [f"{engine.engine} {engine.version}, {plural(engine.threads, 'thread')}"]
    for outcome in outcomes:
        verdict = "ok" if outcome.ok else f"DIFFERS: expected {outcome.expected}, found {outcome.found}"
        lines.append(f"{outcome.what}: {verdict}")
    if not outcomes:
        lines.append("the bundle has no samples; it was loaded, and nothing was run")
    support.emit(result, "\n".join(lines), fmt)
    return 0 if good else 1

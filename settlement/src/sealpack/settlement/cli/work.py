"""`sealpack settle work` and `queue`: decide files that are kept and wait."""

from __future__ import annotations

import json

import click

from sealpack.format.errors import SealpackError
from sealpack.settlement.cli import common
from sealpack.verifier.cli import support


@click.command(short_help="Decide queued usage files, in any number of processes.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="So many processes."
)
@click.option("--once", is_flag=True, help="End when no file waits any more.")
@support.format_option
def work(workers: int, once: bool, fmt: str) -> int:
    """Take queued files, each device's together, and say what became of each, until stopped.

    Run it as often and on as many machines as there is work: they share it by the database. One that is
    killed gives its files back; a file that cannot be decided is tried 5 times, then `settle queue` names it.
    With --format json each outcome is one object on a line.
    """
    with common.open_database():  # says at once what is wrong
        from sealpack.settlement import queue_worker
    target = _text if fmt == "text" else _json
    return queue_worker.run_processes(target, common.address(), workers, once=once)


@click.command(short_help="List files that wait for a worker, or that none could decide.")
@click.option("--retry", is_flag=True, help="Let files be tried again that were given up.")
@support.format_option
def queue(retry: bool, fmt: str) -> int:
    """List every file in the queue: waiting, working, failed. Exit status 5 when one has failed."""
    with common.open_database() as database:
        from sealpack.settlement import work_queue

        freed = work_queue.retry(database) if retry else 0
        with database.read() as connection:
            jobs = work_queue.jobs(connection)
    result = {
        "schema": "sealpack/settle-queue/v1", "retried": freed, "jobs": [job.to_dict() for job in jobs]
    }  # fmt: skip
    lines = [f"{j.state:<7}  {j.name}" + (f": {j.detail}" if j.detail else "") for j in jobs]
    support.emit(result, "\n".join(lines) or "nothing", fmt)
    return 5 if any(job.state == "failed" for job in jobs) else 0


def _text(address: str, parent: int, once: bool) -> None:
    _run(address, parent, once, "text")


def _json(address: str, parent: int, once: bool) -> None:
    _run(address, parent, once, "json")


def _run(address: str, parent: int, once: bool, fmt: str) -> None:
    """The life of one worker process."""
    from sealpack.settlement.db import Database
    from sealpack.settlement.outcomes import Outcome
    from sealpack.settlement.queue_worker import Worker, until_told

    def tell(said: Outcome | SealpackError) -> None:
        if isinstance(said, SealpackError):
            support.note(f"sealpack: error[{said.code}]: {said.message}; next: {said.remedy}")
        else:
            click.echo(said.to_text() if fmt == "text" else json.dumps(said.to_dict()))

    try:
        with until_told(parent) as stopped, Database.open(address) as database:
            Worker(database, tell, support.now, stopped).run(once=once)
    except SealpackError as error:
        tell(error)
        raise SystemExit(error.spec.exit) from None

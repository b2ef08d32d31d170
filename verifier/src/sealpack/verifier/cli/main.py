"""The `sealpack` command: verbs found by entry point, loaded when called; errors and exit statuses.

Source: docs/cli.md. The verifier's entry point imports no other part: each part registers its verbs in
the entry-point group `sealpack.verbs`.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli.support import Session, json_text

READERS: dict[str, tuple[str, ...]] = {
    "Creators": ("init", "build", "key", "license", "vault", "watermark", "export", "import"),
    "Customers": ("install", "activate", "terms", "run", "status", "selftest", "receipts", "sync"),
    "Security teams": ("verify", "inspect", "trust"),
    "Finance": ("settle",),
    "Anyone": ("demo", "evaluate"),
}
CUSTOMER_VERBS = (*READERS["Customers"], "verify", "inspect", "trust")


@cache
def _verbs(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


class VerbGroup(click.Group):
    """A group whose commands are entry points of `group`, optionally only those in `allowed`."""

    def __init__(
        self, *args: Any, group: str = "sealpack.verbs", allowed: Iterable[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._group = group
        self._allowed = None if allowed is None else frozenset(allowed)

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = _verbs(self._group)
        return [name for name in names if self._allowed is None or name in self._allowed]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        try:
            command: click.Command = _verbs(self._group)[cmd_name].load()
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("sealpack"):
                return None  # a packaging that leaves a part out
            raise SealpackError(
                "EXTRA_MISSING", f"`{cmd_name}` needs {error.name}", remedy="pip install 'sealpack[all]'"
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self._group != "sealpack.verbs":
            return super().format_commands(ctx, formatter)
        for reader, names in READERS.items():
            rows = [
                (name, command.get_short_help_str(70))
                for name in names
                if (command := self.get_command(ctx, name)) is not None
            ]
            if rows:
                with formatter.section(reader):
                    formatter.write_dl(rows)
        return None


def make_cli(allowed: Iterable[str] | None = None, name: str = "sealpack") -> click.Group:
    """The top command with the given verbs, or all."""

    @click.group(
        cls=VerbGroup, name=name, allowed=allowed, context_settings={"help_option_names": ["-h", "--help"]}
    )
    @click.version_option(version("sealpack"), prog_name=name)
    @click.option("-v", "--verbose", is_flag=True, help="Show tracebacks of internal faults.")
    @click.pass_obj
    def cli(session: Session, verbose: bool) -> None:
        """Build, verify, run and settle licensed AI model bundles, without a network."""
        session.verbose = verbose

    return cli


def run(cli: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; every failure becomes one line on stderr."""
    session = Session()
    color = False if os.environ.get("NO_COLOR") else None
    try:
        result = cli.main(args=arguments, prog_name=cli.name, standalone_mode=False, obj=session, color=color)
        sys.stdout.flush()
    except SealpackError as error:
        return _report(error, session)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        hint = f"see `{error.ctx.command_path} --help`" if error.ctx else None
        message = error.format_message().rstrip(".")
        return _report(SealpackError("USAGE", message, remedy=hint), session)
    except click.ClickException as error:
        return _report(SealpackError("USAGE", error.format_message()), session)
    except (click.Abort, KeyboardInterrupt):
        click.echo("sealpack: interrupted", err=True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = (error.strerror or type(error).__name__).lower()
        return _report(SealpackError("IO_ERROR", f"{reason}{where}"), session, error)
    except Exception as error:
        return _report(SealpackError("INTERNAL", f"{type(error).__name__}: {error}"), session, error)
    return result if isinstance(result, int) else 0


def _report(error: SealpackError, session: Session, cause: BaseException | None = None) -> int:
    if session.verbose and cause is not None:
        traceback.print_exception(cause)
    if session.format == "json":
        click.echo(json_text(error.to_dict()))
    click.echo(
        _wrapped(error) if sys.stderr.isatty() else f"sealpack: {error}; next: {error.remedy}", err=True
    )
    return error.spec.exit


def _wrapped(error: SealpackError) -> str:
    """The line for people: each step on lines of its own, broken between words."""
    width = max(40, shutil.get_terminal_size().columns)
    step, *more = error.remedy.split("; ")
    texts = (f"sealpack: {error}", f"  next: {step}", *(f"        {text}" for text in more))
    wrapped = (
        textwrap.wrap(text, width, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)
        for text in texts
    )
    return "\n".join(line for lines in wrapped for line in lines)


def main() -> None:
    """Entry point of `sealpack`."""
    sys.exit(run(make_cli()))

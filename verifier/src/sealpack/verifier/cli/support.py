"""What every verb's command line shares: output, missing extras, passphrases, progress.

Source: docs/cli.md. A result goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_write, read_bounded

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Session:
    """What `main` needs to know of the call: set by options while click parses."""

    format: str = "text"
    verbose: bool = False


def session() -> Session:
    """The session of the running command."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    return found if isinstance(found, Session) else Session()


def _remember(_context: click.Context, _param: click.Parameter, value: str) -> str:
    session().format = value
    return value


def formats(*choices: str) -> Callable[[F], F]:
    """`--format`, one of `choices`, the first by default; passed as `fmt`."""
    return click.option(
        "--format",
        "fmt",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        callback=_remember,
        is_eager=True,
        help="How to print the result.",
    )


def format_option(command: F) -> F:
    """`--format text|json`, passed as `fmt`."""
    return formats("text", "json")(command)


def emit(result: dict[str, Any], text: str, fmt: str) -> None:
    """Print the result: `text` for people, or `result` as one JSON object."""
    click.echo(json_text(result) if fmt == "json" else text)


def for_screen(text: str) -> str:
    """Indented lines broken between words where somebody reads them on a terminal."""
    if not sys.stdout.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns)
    lines = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
        lines += wrapped if line.startswith("  ") else [line]
    return "\n".join(lines)


def json_text(value: Any) -> str:
    """Indented JSON in which characters that steer a terminal, or hide, are written as escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def refuse_existing(output: str | None, force: bool) -> None:
    """OUTPUT_EXISTS when `output` is there and may not be replaced: told before the work, not after it."""
    if output is not None and not force and os.path.lexists(output):
        raise SealpackError("OUTPUT_EXISTS", f"{output} already exists")


def write_result(text: str, output: str | None, force: bool) -> None:
    """Print `text`, or write it with a last newline to the file `output`, whole or not at all."""
    data = f"{text}\n".encode("utf-8", "backslashreplace")  # a path may hold bytes that are no text
    if output is None:
        click.echo(data.decode(), nl=False)
    else:
        atomic_write(output, data, replace=force)


def note(message: str) -> None:
    """A remark on stderr."""
    click.echo(message, err=True)


def require_extra(extra: str, *modules: str) -> None:
    """EXTRA_MISSING unless every module can be imported, with the pip command that brings them."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise SealpackError(
            "EXTRA_MISSING",
            f"this needs {', '.join(missing)}, which is not installed",
            remedy=f"pip install 'sealpack[{extra}]'",
        )


def now() -> int:
    """The one reading of the clock an operation makes, Unix seconds; CLOCK_UNREADABLE if nonsense."""
    value = int(time.time())
    if value < 0:
        raise SealpackError("CLOCK_UNREADABLE", f"the system clock says {value}")
    return value


def passphrase(
    path: str | None,
    *,
    prompt: str,
    confirm: bool = False,
    required: bool = True,
    option: str = "--passphrase-file",
) -> bytes | None:
    """A passphrase from the file that `option` names (first line), else asked for on a terminal.

    Never a flag's value.
    """
    if path is not None:
        line = read_bounded(path, 4096).split(b"\n", 1)[0].rstrip(b"\r")
        if not line:
            what = "passphrase" if option.endswith("passphrase-file") else prompt.lower()
            raise SealpackError(
                "KEY_UNREADABLE", f"{path} holds no {what}", remedy=f"give a file with {option}"
            )
        return line
    if not required:
        return None
    if not sys.stdin.isatty():
        raise SealpackError("USAGE", f"{prompt.lower()} needed: give {option}")
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer.encode()


def passphrase_option(command: F) -> F:
    """`--passphrase-file FILE`."""
    return click.option(
        "--passphrase-file",
        type=click.Path(dir_okay=False),
        envvar="SEALPACK_PASSPHRASE_FILE",
        help="File whose first line is the passphrase.",
    )(command)


def load_trust(path: str | os.PathLike[str]) -> Any:
    """The :class:`Trust` in a trust file; the errors of :meth:`Trust.load` name the file."""
    from sealpack.format.limits import LIMITS
    from sealpack.format.trust import Trust

    data = read_bounded(path, LIMITS.parcel_bytes)
    try:
        return Trust.load(data)
    except SealpackError as error:
        remedy = "give the vendor's trust file (trust.json)" if error.code == "JSON_INVALID" else error.remedy
        raise SealpackError(error.code, f"{os.fspath(path)}: {error.message}", remedy=remedy) from None


class Bar:
    """A progress bar on a terminal's stderr with rate and time left; silent elsewhere. Counts bytes."""

    def __init__(self, label: str, total: int) -> None:
        hidden = not sys.stderr.isatty() or total < 256 << 20
        self._bar: Any = click.progressbar(
            length=total, label=label, file=sys.stderr, hidden=hidden, show_percent=True, item_show_func=_rate
        )
        self._done = self._shown = 0
        self._began = self._drawn = time.monotonic()

    def __enter__(self) -> Bar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._draw()
        self._bar.__exit__(*error)

    def update(self, count: int) -> None:
        """`count` more bytes are done; drawn ten times a second at most."""
        self._done += count
        if time.monotonic() - self._drawn >= 0.1:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        rate = self._done / max(self._drawn - self._began, 1e-3)
        self._bar.update(self._done - self._shown, rate)
        self._shown = self._done


def _rate(rate: float | None) -> str | None:
    return None if rate is None else f"{rate / 1e6:.0f} MB/s"


def progress_bar(label: str, total: int) -> Bar:
    """A :class:`Bar`; use as a context manager and call `.update(n)`."""
    return Bar(label, total)


def existing(path: str) -> Path:
    """`path` as a Path; FILE_MISSING unless it exists."""
    found = Path(path)
    if not found.exists():
        raise SealpackError("FILE_MISSING", f"{path} does not exist")
    return found

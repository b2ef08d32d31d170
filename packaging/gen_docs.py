"""Write docs/errors.md and docs/cli.md from the code: `python packaging/gen_docs.py [FOLDER]`.

The error table comes from `sealpack.format.errors.CODES`, the command line reference from `--help` of
every command. Both are the same on every machine: the help is wrapped at 100 columns, whatever the terminal.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click

from sealpack.format.errors import CODES, SealpackError
from sealpack.verifier.cli.main import make_cli
from sealpack.verifier.cli.support import Session

WIDTH = 100
EXITS = {
    1: ("could not do the job", "A disk, a file, the clock or a fault of ours. Nothing half-done is left."),
    2: ("not a valid call", "The call, a file you wrote or the installation has to be changed."),
    3: ("not authentic or not intact", "The bytes are not what somebody you trust has signed."),
    4: (
        "authentic but not permitted",
        "The files are good; the license, device, a limit or your policy says no.",
    ),
}
GENERATED = "<!-- Written by packaging/gen_docs.py; do not edit. -->"
ERRORS_HEAD = f"""{GENERATED}
# Error codes

A code is a stable string: the same in the terminal, in JSON, over HTTP and in tests. On the command line an
error reads `sealpack: error[CODE]: what happened; next: what to do`, with the exit status given here; with
`--format json` the same is one object on stdout (specs/errors.md). Over HTTP it is a problem document
(RFC 9457) with the status given here.

Exit 0 means done, exit 5 finished although some input was refused (the result says which), exit 130
interrupted.
"""
CLI_HEAD = f"""{GENERATED}
# Command line

What every command's `--help` says. Results go to stdout, everything else to stderr; `--format json` prints
one object. What the exit statuses mean and what to do about each error: docs/errors.md.
"""
COLUMNS = "| code | exit | HTTP | title | what to do next |\n|---|---|---|---|---|"


def errors_page() -> str:
    """docs/errors.md."""
    parts = [ERRORS_HEAD]
    for status, (title, sense) in EXITS.items():
        parts += [f"\n## Exit {status}: {title}\n\n{sense}\n", COLUMNS]
        rows = sorted((code, row) for code, row in CODES.items() if row.exit == status)
        parts += [f"| `{c}` | {r.exit} | {r.http} | {_cell(r.title)} | {_cell(r.remedy)} |" for c, r in rows]
    missing = {row.exit for row in CODES.values()} - set(EXITS)
    if missing:
        raise ValueError(f"no section for exit status {min(missing)}")
    known = tomllib.loads((Path(__file__).parent / "codes.toml").read_text(encoding="utf-8"))
    if set(known) != set(CODES):
        raise ValueError(f"packaging/codes.toml lacks or has too many: {sorted(set(known) ^ set(CODES))}")
    parts += ["\n## Each code\n\nThe examples are messages of test runs.", *map(_code, sorted(known.items()))]
    return "\n".join(parts) + "\n"


def _code(entry: tuple[str, dict[str, str]]) -> str:
    """One code: when it occurs, and what a test run said; the anchor is the code in lower case."""
    code, row = entry
    spec = CODES[code]
    numbers = f"Exit {spec.exit}, HTTP {spec.http}."
    return f"\n### {code}\n\n{row['when']} {numbers}\n\n    sealpack: {row['example']}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def cli_page() -> str:
    """docs/cli.md."""
    parts = [CLI_HEAD]
    for path, text in helps(make_cli(), "sealpack"):
        parts.append(f"\n{'#' * min(path.count(' ') + 2, 4)} {path}\n\n```text\n{text}\n```")
    return "\n".join(parts) + "\n"


def helps(
    command: click.Command, path: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """The help of a command and of everything below it, depth first, by name."""
    context = click.Context(
        command,
        parent=parent,
        info_name=path.rpartition(" ")[2],
        obj=Session(),
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )
    with context:
        yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()
        if isinstance(command, click.Group):
            for name in sorted(command.list_commands(context)):
                child = _child(command, context, name)
                if child is not None:
                    yield from helps(child, f"{path} {name}", context)


def _child(group: click.Group, context: click.Context, name: str) -> click.Command | None:
    """A sub-command; None for a part that is left out of this installation."""
    try:
        return group.get_command(context, name)
    except SealpackError as error:
        if error.code != "EXTRA_MISSING":
            raise
        raise SystemExit(f"gen_docs: {error}; {error.remedy}") from None


PAGES = {"errors.md": errors_page, "cli.md": cli_page}


def main(folder: Path) -> None:
    """Write every page into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        (folder / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs")

"""The table of codes: problem documents, and that every command it tells people to type exists."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sealpack.format.errors import CODES, SealpackError
from sealpack.verifier.cli.main import make_cli, run
from sealpack.verifier.cli.support import Session

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / part / "src" for part in ("verifier", "builder", "runtime", "settlement")]
COMMAND = re.compile(r"`(sealpack [^`]+)`")
NOT_COMMANDS = {  # a list of verbs; a call whose option is a value
    "sealpack license release|transfer|renew|confirm|revoke",
    "sealpack license sub|delegate-key",
    "sealpack run X X",
}


# --- problem documents ------------------------------------------------------------------------------------


def test_a_problem_says_what_happened_what_to_do_and_whom_to_call() -> None:
    error = SealpackError("LIC_EXPIRED", "license L-1 ended", support="help@acme.example", path="/secret")
    assert error.to_problem() == {
        "type": "urn:sealpack:error:LIC_EXPIRED",
        "title": "license has ended",
        "status": 402,
        "detail": "license L-1 ended",
        "code": "LIC_EXPIRED",
        "remedy": CODES["LIC_EXPIRED"].remedy,
        "ref": "docs/errors.md#lic_expired",
        "support": "help@acme.example",
    }


@pytest.mark.parametrize(
    ("code", "facts", "wait"),
    [
        ("RATE_LIMITED", {}, 1),
        ("RATE_LIMITED", {"retry_after_s": 7}, 7),
        ("QUOTA_EXCEEDED", {"retry_after_s": 3600}, 3600),
        ("STATE_LOCKED", {}, 5),
        ("STORE_FULL", {}, 60),
        ("LIC_EXPIRED", {}, None),
    ],
)
def test_when_trying_again_is_worth_it(code: str, facts: dict[str, int], wait: int | None) -> None:
    assert SealpackError(code, "x", **facts).to_problem().get("retry_after") == wait


# --- on a terminal ----------------------------------------------------------------------------------------


def fails(remedy: str) -> click.Command:
    @click.command()
    def verb() -> None:
        raise SealpackError(
            "LEASE_STALE", "usage was due to be settled by 2026-11-06 15:47 UTC", remedy=remedy
        )

    return verb


STEPS = (
    "run `sealpack sync DIR` and send the files to the vendor; if that takes too long, wait; "
    "support: a@b.example"
)


def test_a_terminal_gets_each_step_on_lines_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert run(fails(STEPS), []) == 4
    assert capsys.readouterr().err.splitlines() == [
        "sealpack: error[LEASE_STALE]: usage was due to be settled by",
        "          2026-11-06 15:47 UTC",
        "  next: run `sealpack sync DIR` and send the files to the",
        "          vendor",
        "        if that takes too long, wait",
        "        support: a@b.example",
    ]


def test_elsewhere_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails(STEPS), []) == 4
    assert capsys.readouterr().err == (
        f"sealpack: error[LEASE_STALE]: usage was due to be settled by 2026-11-06 15:47 UTC; next: {STEPS}\n"
    )


# --- what people are told to type -------------------------------------------------------------------------


def told() -> Iterator[tuple[str, str]]:
    """Every `sealpack ...` in a text of the program, f-string values as X, with its file."""
    for source in SOURCES:
        for path in sorted(source.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                text = None
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    text = node.value
                elif isinstance(node, ast.JoinedStr):
                    parts = (v.value if isinstance(v, ast.Constant) else "X" for v in node.values)
                    text = "".join(map(str, parts))
                for command in COMMAND.findall(text or ""):
                    yield " ".join(command.split()), path.name


def takes_value(parameter: click.Parameter | None) -> bool:
    return isinstance(parameter, click.Option) and not parameter.is_flag


def check(command: str) -> None:
    """Every word names a verb, an option of it or a value; raises AssertionError."""
    words = shlex.split(command.replace("...", "X"))[1:]
    context = click.Context(make_cli(), info_name="sealpack", obj=Session())
    while words and isinstance(context.command, click.Group) and not words[0].startswith("-"):
        name = words.pop(0)
        with context:
            found = context.command.get_command(context, name)
        assert found is not None, f"{command}: there is no {name}"
        context = click.Context(found, parent=context, info_name=name, obj=Session())
    parameters = {option: p for p in context.command.params for option in (*p.opts, *p.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word in parameters or word in ("--help", "-h"), f"{command}: there is no {word}"
    room = sum(isinstance(p, click.Argument) for p in context.command.params)
    given = [word for word, before in zip(words, ["", *words], strict=False)
             if not word.startswith("-") and not takes_value(parameters.get(before))]  # fmt: skip
    many = any(isinstance(p, click.Argument) and p.nargs != 1 for p in context.command.params)
    assert many or len(given) <= room, f"{command}: takes {room} arguments"


def test_every_command_that_people_are_told_to_type_exists() -> None:
    commands = {command: name for command, name in told() if command not in NOT_COMMANDS}
    assert len(commands) > 40
    wrong = []
    for command, name in sorted(commands.items()):
        try:
            check(command)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert wrong == []


@pytest.mark.parametrize(
    "command",
    [
        "sealpack fly",
        "sealpack sync --fast",
        "sealpack activate pray",
        "sealpack status now",
        "sealpack sync A B",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(AssertionError):
        check(command)


@pytest.mark.parametrize("code", CODES)
def test_remedies_read_as_a_next_step(code: str) -> None:
    """One line, lower case, no full stop: it stands after `next: `; commands are complete."""
    row = CODES[code]
    for text in (row.title, row.remedy):
        assert text and text.isprintable() and not text.endswith(".")
    assert row.remedy[0].islower() or row.remedy.split()[0].isupper(), row.remedy
    for command in COMMAND.findall(row.remedy):
        words = command.split()
        required = {
            "install": "BUNDLE",
            "accept": "BUNDLE",
            "show": "BUNDLE",
            "sync": "DIR",
            "request": "--out",
        }
        for verb, wanted in required.items():
            if words[-1] == verb:
                pytest.fail(f"{code}: `{command}` lacks its {wanted}")

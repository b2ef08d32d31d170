"""What every verb shares: passphrases, the clock, missing libraries, the session."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the person at the terminal will type unseen, in order."""
    typed: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda *_: typed.pop(0))
    return typed


def test_a_passphrase_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "p"
    for data in (b"open sesame", b"open sesame\n", b"open sesame\r\nand a remark\n"):
        path.write_bytes(data)
        assert support.passphrase(str(path), prompt="Passphrase") == b"open sesame"
    for data in (b"", b"\nopen sesame\n", b"\r\n"):
        path.write_bytes(data)
        with pytest.raises(SealpackError, match=r"KEY_UNREADABLE.*holds no passphrase"):
            support.passphrase(str(path), prompt="Passphrase")


def test_a_passphrase_is_asked_for_only_where_it_is_needed_and_somebody_sits(
    answers: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert support.passphrase(None, prompt="Passphrase", required=False) is None
    answers.append("grün")
    assert support.passphrase(None, prompt="Passphrase") == "grün".encode()
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(sys, "stdin", io.StringIO("piped\n"))
    with pytest.raises(SealpackError, match=r"USAGE.*vault passphrase needed: give --passphrase-file"):
        support.passphrase(None, prompt="Vault passphrase")


def test_a_new_passphrase_is_typed_twice_alike(
    answers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    answers += ["one", "other", "third", "third"]
    assert support.passphrase(None, prompt="Passphrase", confirm=True) == b"third"
    assert answers == [] and "do not match" in capsys.readouterr().err


def test_a_clock_before_1970_is_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_790_000_000.9)
    assert support.now() == 1_790_000_000
    monkeypatch.setattr("time.time", lambda: -86_400.0)
    with pytest.raises(SealpackError, match=r"CLOCK_UNREADABLE.*-86400"):
        support.now()


def test_missing_libraries_are_all_named() -> None:
    support.require_extra("runtime", "json", "click")
    with pytest.raises(SealpackError, match=r"EXTRA_MISSING.*needs lib_one, lib_two, which") as caught:
        support.require_extra("runtime", "lib_one", "json", "lib_two")
    assert caught.value.remedy == "pip install 'sealpack[runtime]'"


def test_outside_a_command_there_is_a_session_too() -> None:
    assert support.session() == support.Session("text", False)


def test_indented_lines_are_broken_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "Who and what\n  - one two three four five six seven eight nine ten\nas it is, however long it is"
    assert support.for_screen(page) == page
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    assert support.for_screen(page) == page.replace("seven eight", "seven\n    eight")

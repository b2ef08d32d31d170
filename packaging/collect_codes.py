"""Take each code's example in packaging/codes.toml from a run of its test: `collect_codes.py`.

A message in docs/errors.md is one that the program said. Each table of codes.toml has `when` (for people),
`test` (the pytest id that shows the code) and `example` (written here, the rest is kept). Codes whose test
said nothing are named, and keep what they have.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealpack.format import errors, logcheck

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "packaging" / "codes.toml"
_TEMPORARY = re.compile(r"/[^\s:,'\"`]*?/pytest-of-[^/]+/pytest-\d+/[^/\s:,'\"`]+|" + re.escape(str(ROOT)))


class Recorder:
    """A pytest plugin that keeps the first message of every code in each test."""

    def __init__(self) -> None:
        self.said: dict[tuple[str, str], str] = {}
        self._test: str | None = None

    def record(self, code: str, message: str, remedy: str) -> None:
        """Called for every error that is made, and every finding in a log."""
        if self._test is not None:
            self.said.setdefault((self._test, code), f"error[{code}]: {message}; next: {remedy}")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Errors that are made from here on belong to this test."""
        self._test = item.nodeid
        try:
            return (yield)
        finally:
            self._test = None


def collect(tests: list[str]) -> dict[tuple[str, str], str]:
    """Run the tests; (test, code) -> the line that a person would have read."""
    recorder = Recorder()
    raised, found = errors.SealpackError.__init__, logcheck.Finding.__init__

    def on_error(self: errors.SealpackError, *args: Any, **kwargs: Any) -> None:
        raised(self, *args, **kwargs)
        recorder.record(self.code, self.message, self.remedy)

    def on_finding(self: logcheck.Finding, *args: Any, **kwargs: Any) -> None:
        found(self, *args, **kwargs)
        if self.code in errors.CODES:
            recorder.record(self.code, self.message, errors.CODES[self.code].remedy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(errors.SealpackError, "__init__", on_error)
        patch.setattr(logcheck.Finding, "__init__", on_finding)
        pytest.main(["-q", "--no-header", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *tests], [recorder])
    return recorder.said


def is_of(nodeid: str, test: str) -> bool:
    """Whether a pytest id is the one named, or one of its cases."""
    return nodeid == test or nodeid.startswith(f"{test}[")


def write(table: dict[str, dict[str, str]]) -> None:
    """codes.toml, sorted by code."""
    head = "# `example` comes from a run of `test`, by collect_codes.py; the rest is written by hand.\n"
    parts = [head]
    for code in sorted(table):
        rows = (
            f"{key} = {json.dumps(table[code][key], ensure_ascii=False)}"
            for key in ("when", "test", "example")
        )
        parts.append("\n".join((f"[{code}]", *rows, "")))
    TABLE.write_text("\n".join(parts), encoding="utf-8")


def main() -> int:
    """Refresh every example; 1 when a code was not said by its test."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    said = collect(sorted({row["test"] for row in table.values()}))
    missing = []
    for code, row in table.items():
        line = next(
            (line for (test, c), line in said.items() if c == code and is_of(test, row["test"])), None
        )
        if line is None:
            missing.append(code)
        else:
            row["example"] = _TEMPORARY.sub("DIR", line)
    write(table)
    for code in missing:
        print(f"{code}: {table[code]['test']} did not say it", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())

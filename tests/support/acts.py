"""What tests of the runtime do again and again: be refused, call, put a state back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sealpack.runtime
from sealpack.format.errors import SealpackError
from sealpack.runtime import receipts
from support.site import INPUT, Site


def refused(code: str, act: Callable[[], object]) -> SealpackError:
    """The refusal with that code."""
    with pytest.raises(SealpackError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


def call(site: Site, times: int = 1) -> None:
    """Open the tiny bundle, call it, close it."""
    with sealpack.runtime.open("acme/tiny", state=site.state_dir) as runtime:
        for _ in range(times):
            runtime.infer(INPUT)


def backup(site: Site, name: str = "backup") -> Path:
    """A copy of the state as it stands, without what only living processes hold."""
    path = site.folder / name
    shutil.copytree(site.state_dir, path, ignore=shutil.ignore_patterns("*.lock"))
    return path


def restore(site: Site, copy: Path) -> None:
    """Put the database of a copy back; the marks stay where they are."""
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (site.state_dir / name).unlink(missing_ok=True)
        if (copy / name).exists():
            shutil.copy(copy / name, site.state_dir / name)


def events(site: Site, number: int = 1) -> list[str]:
    """The names of the clock and device events in a log."""
    with site.state() as state, state.read() as db:
        return [r.body["event"] for r in receipts.recent(db, number, 100_000) if r.kind == "c"]

"""`sealpack verify` hands a dispute pack to the part that can rate usage again, where that is installed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import click
import pytest

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import verify as module


@pytest.fixture
def pack(tmp_path: Path) -> str:
    """A file that begins as dispute packs do."""
    path = tmp_path / "dispute.zip"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(module._PACK_NAME.decode(), "{}")
    return str(path)


def run(*arguments: str, settle: click.Command | None = None) -> Any:
    """The verb under a root that has `settle`, or has not."""
    root = click.Group("sealpack", commands={"verify": module.verify})
    if settle is not None:
        root.add_command(settle, "settle")
    return root.main(["verify", *arguments], standalone_mode=False)


def told(arguments: list[str], settle: click.Command | None = None) -> SealpackError:
    with pytest.raises(SealpackError) as caught:
        run(*arguments, settle=settle)
    return caught.value


def test_settlement_checks_it(pack: str) -> None:
    seen: list[tuple[str, str, str]] = []
    settle = click.Group("settle")

    @settle.command("check-evidence")
    @click.argument("file")
    @click.option("--trust", "trust_file")
    @click.option("--format", "fmt")
    def check(file: str, trust_file: str, fmt: str) -> int:
        seen.append((file, trust_file, fmt))
        return 3

    assert run(pack, "--trust", "trust.json", settle=settle) == 3
    assert seen == [(pack, "trust.json", "text")]


def test_without_settlement_the_part_is_named(pack: str) -> None:
    for settle in (None, click.Command("settle")):
        error = told([pack, "--trust", "trust.json"], settle)
        assert error.code == "EXTRA_MISSING"
        assert "sealpack[settlement]" in error.remedy


@pytest.mark.parametrize("more", [[], ["--trust", "t.json", "--format", "svr"]])
def test_a_pack_needs_a_trust_file_and_has_two_forms(pack: str, more: list[str]) -> None:
    assert told([pack, *more]).message == "a dispute pack is verified with --trust FILE, as text or json"


def test_a_verb_without_a_root_has_no_settlement_either(pack: str) -> None:
    with pytest.raises(SealpackError) as caught:
        module.verify.main([pack, "--trust", "trust.json"], standalone_mode=False)
    assert caught.value.code == "EXTRA_MISSING"

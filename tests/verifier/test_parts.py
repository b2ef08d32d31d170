"""Split media: parts, their list, and what a bad stick does to them (specs/parts.md)."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.world import BundleSpec, make_trust, tiny_gguf

from sealpack.format import parts
from sealpack.format.errors import SealpackError
from sealpack.format.parts import LIST_SUFFIX, MIN_PART, PartList
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli.main import make_cli, run

SIZE = 3 * MIN_PART + 4321


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "m.bin"
    path.write_bytes(bytes(range(251)) * (SIZE // 251 + 1))
    return path


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def code_of(path: Path) -> str:
    with pytest.raises(SealpackError) as caught:
        b"".join(PartList.load(path).blocks())
    return caught.value.code


def test_standard_tools_check_and_join(whole: Path, stick: Path) -> None:
    listed = parts.split(whole, stick, MIN_PART)
    sizes = [p.stat().st_size for p in sorted(stick.glob("m.bin.0*"))]
    assert sizes == [MIN_PART] * 3 + [whole.stat().st_size - 3 * MIN_PART]
    subprocess.run(["sha256sum", "--strict", "-c", listed.name], cwd=stick, check=True, capture_output=True)
    subprocess.run("cat m.bin.0?? > joined", shell=True, cwd=stick, check=True)
    assert (stick / "joined").read_bytes() == whole.read_bytes()
    assert b"".join(PartList.load(listed).blocks()) == whole.read_bytes()


def test_a_file_that_fits_is_one_part(whole: Path, stick: Path) -> None:
    listed = parts.split(whole, stick)
    assert [path.name for path, _ in PartList.load(listed).parts] == ["m.bin.001"]


def test_the_joined_stream_seeks_and_reads_across_parts(whole: Path, stick: Path) -> None:
    data = whole.read_bytes()
    with PartList.load(parts.split(whole, stick, MIN_PART)).open() as file:
        for at in (0, MIN_PART - 3, MIN_PART, 2 * MIN_PART - 1, len(data) - 2, len(data)):
            file.seek(at)
            assert file.read(7) == data[at : at + 7]
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read() == data[-5:]
        file.seek(0)
        assert file.read() == data
        file.seek(10)
        assert file.seek(5, 1) == 15
        with pytest.raises(ValueError, match="negative"):
            file.raw.seek(-1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: (s / "m.bin.002").unlink(), "FILE_MISSING"),
        (lambda s: (s / "m.bin.002").write_bytes(bytes(MIN_PART)), "DIGEST_MISMATCH"),
        (lambda s: (s / "m.bin.004").write_bytes(b""), "DIGEST_MISMATCH"),
    ],
)
def test_the_bad_part_is_named(whole: Path, stick: Path, change, code: str) -> None:  # type: ignore[no-untyped-def]
    listed = parts.split(whole, stick, MIN_PART)
    change(stick)
    assert code_of(listed) == code


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [line.replace("m.bin", "../m.bin") for line in lines],
        lambda lines: [line.replace("m.bin", "n.bin") for line in lines],
        lambda lines: [line.upper() for line in lines],
        lambda lines: [line.replace("  ", " *") for line in lines],
        lambda lines: [],
        lambda lines: [*lines, "# a remark"],
        lambda lines: [lines[0]] * 1000,
    ],
)
def test_a_list_that_names_anything_else_is_refused(whole: Path, stick: Path, edit) -> None:  # type: ignore[no-untyped-def]
    listed = parts.split(whole, stick, MIN_PART)
    lines = listed.read_text().splitlines()
    listed.write_text("".join(line + "\n" for line in edit(lines)))
    assert code_of(listed) == "PARTS_INVALID"


@pytest.mark.parametrize("size", [MIN_PART - 1, 1, 0])
def test_parts_too_small(whole: Path, stick: Path, size: int) -> None:
    with pytest.raises(SealpackError) as caught:
        parts.split(whole, stick, size)
    assert caught.value.code == "USAGE"


@pytest.mark.parametrize("size", [0, 1000 * MIN_PART])
def test_files_that_make_no_or_too_many_parts(tmp_path: Path, stick: Path, size: int) -> None:
    path = tmp_path / "n.bin"
    with path.open("wb") as file:
        file.truncate(size)
    with pytest.raises(SealpackError) as caught:
        parts.split(path, stick, MIN_PART)
    assert caught.value.code == "USAGE" and list(stick.iterdir()) == []


@pytest.mark.parametrize("name", ["my model.bin", "möbel.bin", "n" * 201])
def test_a_name_that_no_list_holds_is_refused_before_anything_is_written(
    tmp_path: Path, stick: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SealpackError) as caught:
        parts.split(tmp_path / name, stick)
    assert caught.value.code == "USAGE" and list(stick.iterdir()) == []


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"]
)
def test_a_part_that_is_no_file_is_not_waited_for(whole: Path, stick: Path, make) -> None:  # type: ignore[no-untyped-def]
    """A stick may hold names of things that block, or that never end."""
    listed = parts.split(whole, stick, MIN_PART)
    (stick / "m.bin.004").unlink()
    make(stick / "m.bin.004")
    assert code_of(listed) == "IO_ERROR"
    with pytest.raises(SealpackError, match="IO_ERROR"):
        PartList.load(listed).open()


def test_nothing_stays_when_a_part_is_in_the_way(whole: Path, stick: Path) -> None:
    (stick / "m.bin.003").write_bytes(b"mine")
    with pytest.raises(SealpackError) as caught:
        parts.split(whole, stick, MIN_PART)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert [p.name for p in stick.iterdir()] == ["m.bin.003"]
    (stick / "m.bin.003").unlink()
    parts.split(whole, stick, MIN_PART)
    with pytest.raises(SealpackError) as caught:
        parts.split(whole, stick, MIN_PART)
    assert caught.value.code == "OUTPUT_EXISTS"
    assert len(list(stick.iterdir())) == 5


def test_bundles_travel_in_parts(tmp_path: Path, stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = tmp_path / "b.sealpack"
    bundle.write_bytes(BundleSpec(model=tiny_gguf(600_000)).build())
    assert run(make_cli(), ["export", "b.sealpack", "--parts", "stick", "--part-size", "1MiB"]) == 0
    listed = stick / f"b.sealpack{LIST_SUFFIX}"
    report = verify_bundle(listed, make_trust())
    assert report.ok, report.failures
    assert run(make_cli(), ["import", str(listed)]) == 2  # b.sealpack is there
    assert run(make_cli(), ["import", str(listed), "--out", "joined"]) == 0
    assert (tmp_path / "joined").read_bytes() == bundle.read_bytes()
    spoiled = stick / "b.sealpack.002"
    spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"\0")
    assert verify_bundle(listed, make_trust()).exit_status == 3
    assert run(make_cli(), ["import", str(listed), "--out", "again"]) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.sealpack", "joined", "stick"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "m.bin"],
        ["export", "m.bin", "--parts", "stick", "--part-size", "2 GB"],
        ["export", "m.bin", "--parts", "stick", "--part-size", "0"],
        ["import", "m.bin"],
    ],
)
def test_calls_that_mean_nothing(
    whole: Path, stick: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(whole.parent)
    assert run(make_cli(), arguments) == 2
    assert list(stick.iterdir()) == []


def test_the_folder_must_be_there(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole.parent)
    assert run(make_cli(), ["export", "m.bin", "--parts", "nowhere"]) == 1
    shutil.rmtree(whole.parent / "stick", ignore_errors=True)


def test_a_whole_file_or_its_parts_give_the_same_bytes(whole: Path, stick: Path) -> None:
    listed = parts.split(whole, stick, MIN_PART)
    assert b"".join(parts.whole_blocks(whole)) == b"".join(parts.whole_blocks(listed)) == whole.read_bytes()
    (stick / "m.bin.001").write_bytes(bytes(MIN_PART))
    with pytest.raises(SealpackError, match=r"DIGEST_MISMATCH.*m\.bin\.001"):
        b"".join(parts.whole_blocks(listed))


def test_a_stick_that_fails_while_it_is_read(
    whole: Path, stick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worn(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    listed = parts.split(whole, stick, MIN_PART)
    monkeypatch.setattr(parts, "open_regular", lambda path: Worn())
    with pytest.raises(SealpackError, match="IO_ERROR"):
        b"".join(parts.whole_blocks(whole))
    assert code_of(listed) == "IO_ERROR"


def test_closing_the_joined_stream_closes_every_part_once(whole: Path, stick: Path) -> None:
    file = PartList.load(parts.split(whole, stick, MIN_PART)).open()
    joined = file.raw  # type: ignore[attr-defined]
    file.close()
    assert all(part.closed for _, part in joined._files)
    joined.close()  # again: nothing to do
    with pytest.raises(ValueError, match="closed"):
        file.read()

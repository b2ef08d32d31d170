"""Hashing content: the modes, what each finds, and files that change or fail while they are read."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support import world
from support.world import BundleSpec

from sealpack.format import chunks
from sealpack.format.chunks import CHUNK_SIZE, LEAF_SIZE, ReadInto
from sealpack.format.container import BundleReader
from sealpack.format.errors import SealpackError
from sealpack.format.manifest import FileEntry
from sealpack.verifier import hashing
from sealpack.verifier.checks import verify_bundle
from sealpack.verifier.cli import main as cli, support
from sealpack.verifier.hashing import FULL, LEAVES, SAMPLE, Mode
from sealpack.verifier.report import Report

TRUST = world.make_trust()
MODEL = world.tiny_gguf(6 * CHUNK_SIZE // 4)  # 6 MiB and a header: 7 chunks
VOCABULARY = bytes(range(256)) * (3 * CHUNK_SIZE // 256)
MODES: list[dict[str, Any]] = [{}, {"leaves_only": True}, {"sample": 6}]


@pytest.fixture(scope="module")
def spec() -> BundleSpec:
    return BundleSpec(model=MODEL, extra={"payload/vocab.txt": ("vocabulary", "text/plain", VOCABULARY)})


@pytest.fixture(scope="module")
def good(spec: BundleSpec) -> bytes:
    return spec.build()


@pytest.fixture
def path(good: bytes, tmp_path: Path) -> Path:
    found = tmp_path / "x.sealpack"
    found.write_bytes(good)
    return found


@pytest.fixture(params=[1, 8], ids=["one file at a time", "files side by side"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One core and eight; on eight both payload files are hashed at a time."""
    monkeypatch.setattr(chunks, "cores", lambda: request.param)
    monkeypatch.setattr(hashing, "_LARGE", CHUNK_SIZE)
    return int(request.param)


def data_at(path: Path, name: str) -> int:
    with BundleReader.open(path) as bundle:
        return bundle.entries[name].data_at


def flip(path: Path, name: str, *offsets: int) -> None:
    base = data_at(path, name)
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(base + offset)
            byte = file.read(1)[0]
            file.seek(base + offset)
            file.write(bytes([byte ^ 1]))


def failures(report: Report) -> list[tuple[str | None, str]]:
    return [(c.code, c.detail) for c in report.failures]


# --- what each mode finds -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "facts"),
    [
        ({}, {"content_mode": FULL}),
        ({"leaves_only": True}, {"content_mode": LEAVES}),
        ({"sample": 2}, {"content_mode": SAMPLE, "content_sample": {"leaves": 4, "of": 10}}),
        ({"sample": 3}, {"content_mode": SAMPLE, "content_sample": {"leaves": 6, "of": 10}}),
        ({"sample": 7}, {"content_mode": LEAVES}),  # all of all files is no sample
        ({"sample": 10**9}, {"content_mode": LEAVES}),
    ],
)
def test_the_report_names_the_mode(
    path: Path, machine: int, mode: dict[str, Any], facts: dict[str, Any]
) -> None:
    seen: list[int] = []
    report = verify_bundle(path, TRUST, progress=seen.append, **mode)
    assert report.ok
    assert {k: v for k, v in report.facts.items() if k.startswith("content_")} == facts
    checks = {c.id: c for c in report.checks}
    sampled = facts["content_mode"] == SAMPLE
    assert ("sampled: not complete integrity" in checks["content"].detail) == sampled
    assert checks["model"].status == ("skip" if sampled else "pass")
    if not sampled:
        assert sum(seen) == len(MODEL) + len(VOCABULARY)


def test_the_changed_chunk_of_each_file_is_named(path: Path, machine: int) -> None:
    flip(path, "payload/model.gguf", 4 * CHUNK_SIZE + 5, 6 * CHUNK_SIZE + 1)
    flip(path, "payload/vocab.txt", 2 * CHUNK_SIZE)
    expected = [
        ("CHUNK_MISMATCH", "payload/model.gguf: chunk 4 was changed"),
        ("CHUNK_MISMATCH", "payload/vocab.txt: chunk 2 was changed"),
    ]
    assert failures(verify_bundle(path, TRUST)) == expected
    assert failures(verify_bundle(path, TRUST, leaves_only=True)) == expected
    assert failures(verify_bundle(path, TRUST, sample=7)) == expected


def test_a_leaf_that_is_wrong_while_the_whole_digest_is_right(spec: BundleSpec, tmp_path: Path) -> None:
    """The signer's own table is wrong in leaf 3: tools that know no leaves would be content."""
    real = world.digest_blocks

    def wrong(blocks: list[bytes]) -> chunks.Digests:
        found = real(blocks)
        table = bytearray(found.table)
        if found.count == 7:
            table[3 * LEAF_SIZE] ^= 1
        return dataclasses.replace(found, table=bytes(table))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "digest_blocks", wrong)
        data = spec.build()
    path = tmp_path / "x.sealpack"
    path.write_bytes(data)
    for mode in ({}, {"leaves_only": True}, {"sample": 7}):
        report = verify_bundle(path, TRUST, **mode)
        assert failures(report) == [("CHUNK_MISMATCH", "payload/model.gguf: chunk 3 was changed")]


def test_a_table_that_is_not_the_signed_one(path: Path) -> None:
    with BundleReader.open(path) as bundle:
        manifest_table = next(n for n in bundle.names if n.startswith("chunks/"))
    flip(path, manifest_table, 40)
    for mode in MODES:
        assert verify_bundle(path, TRUST, **mode).failures[0].code == "CONTAINER_CRC"


# --- samples --------------------------------------------------------------------------------------------


def test_a_sample_reads_that_many_chunks_chosen_anew_each_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[str, tuple[int, ...]]] = []
    real = chunks.leaves_at

    def recorded(read_into: ReadInto, size: int, indices: Any, **options: Any) -> bytes:
        chosen.append(("model" if size == len(MODEL) else "vocabulary", tuple(indices)))
        return real(read_into, size, indices, **options)

    monkeypatch.setattr(chunks, "leaves_at", recorded)
    for _ in range(40):  # 1 in 21 ** 39 that they are all the same
        assert verify_bundle(path, TRUST, sample=2).ok
    models = [indices for name, indices in chosen if name == "model"]
    assert all(len(set(i)) == 2 and list(i) == sorted(i) and max(i) < 7 for i in models)
    assert len(set(models)) > 1
    assert {len(i) for name, i in chosen if name == "vocabulary"} == {2}


def test_a_sample_does_not_look_at_other_chunks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage it did not hit passes, damage it hit is named, and small files are always hashed."""

    class Fixed:
        def sample(self, population: range, count: int) -> list[int]:
            return [population[-2], population[0]][:count]

    monkeypatch.setattr(hashing.secrets, "SystemRandom", Fixed)  # type: ignore[attr-defined]
    flip(path, "payload/model.gguf", 4 * CHUNK_SIZE)
    assert verify_bundle(path, TRUST, sample=2).ok
    flip(path, "payload/model.gguf", 5 * CHUNK_SIZE)
    flip(path, "card.md", 1)
    codes = [c for c, _ in failures(verify_bundle(path, TRUST, sample=2))]
    assert codes == ["CONTAINER_CRC", "CHUNK_MISMATCH"]


@pytest.mark.parametrize(("leaves_only", "sample"), [(True, 3), (False, 0), (False, -1)])
def test_modes_that_make_no_sense(path: Path, leaves_only: bool, sample: int) -> None:
    with pytest.raises(SealpackError) as caught:
        verify_bundle(path, TRUST, leaves_only=leaves_only, sample=sample)
    assert caught.value.code == "USAGE"


def test_an_empty_file_has_nothing_to_sample() -> None:
    assert Mode.of(sample=1).over([]).name == LEAVES


# --- while it is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=["full", "leaves", "sample"])
def test_a_file_cut_short_while_it_is_hashed(path: Path, machine: int, mode: dict[str, Any]) -> None:
    """A report, not a crash: a mapped file would have ended the process with SIGBUS."""
    end = data_at(path, "payload/model.gguf") + CHUNK_SIZE // 2
    report = verify_bundle(path, TRUST, progress=lambda _: os.truncate(path, end), **mode)
    assert report.exit_status == 3
    assert ("CONTAINER_TRUNCATED", "payload/vocab.txt ends early") in failures(report)


def failing(at: int, error: Callable[[], BaseException]) -> Callable[..., None]:
    real = BundleReader.read_into

    def read_into(self: BundleReader, name: str, offset: int, view: memoryview) -> None:
        if name.startswith("payload/") and offset + len(view) > at:
            raise error()
        real(self, name, offset, view)

    return read_into


@pytest.mark.parametrize("mode", MODES, ids=["full", "leaves", "sample"])
def test_a_disk_that_fails_midway(
    path: Path, machine: int, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        BundleReader, "read_into", failing(CHUNK_SIZE, lambda: OSError(5, "Input/output error"))
    )
    with pytest.raises(SealpackError) as caught:
        verify_bundle(path, TRUST, **mode)
    assert caught.value.code == "IO_ERROR" and "x.sealpack" in caught.value.message


@pytest.mark.parametrize("mode", MODES, ids=["full", "leaves", "sample"])
def test_an_interrupt_ends_it(path: Path, machine: int, mode: dict[str, Any]) -> None:
    seen = 0

    def progress(_: int) -> None:
        nonlocal seen
        seen += 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_bundle(path, TRUST, progress=progress, **mode)
    assert seen <= 8


def test_when_one_file_fails_no_other_is_read_to_its_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "cores", lambda: 8)
    monkeypatch.setattr(hashing, "_LARGE", CHUNK_SIZE)
    checks, told, real = [], [], BundleReader.read_into

    class Check(hashing._Check):
        def failures(self, files: Sequence[FileEntry]) -> Iterator[SealpackError]:
            checks.append(self)
            return super().failures(files)

    def read_into(self: BundleReader, name: str, offset: int, view: memoryview) -> None:
        if name == "payload/model.gguf":
            raise OSError(5, "Input/output error")
        if name == "payload/vocab.txt":
            deadline = time.monotonic() + 30
            while not checks[0]._stopped and time.monotonic() < deadline:
                time.sleep(0.001)
        real(self, name, offset, view)

    monkeypatch.setattr(hashing, "_Check", Check)
    monkeypatch.setattr(BundleReader, "read_into", read_into)
    with pytest.raises(SealpackError, match="IO_ERROR"):
        verify_bundle(path, TRUST, progress=told.append)
    assert checks[0]._stopped and told == []


# --- command line ---------------------------------------------------------------------------------------


def call(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    trust = path.with_name("trust.json")
    trust.write_bytes(TRUST.to_bytes())
    status = cli.run(cli.make_cli(), ["verify", str(path), "--trust", str(trust), *options])
    done = capsys.readouterr()
    assert "Traceback" not in done.out + done.err
    return status, done.out, done.err


def test_sample_on_the_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(path, capsys, "--sample", "2")
    assert status == 0 and "4 of 10 chunk leaves match; sampled: not complete integrity" in " ".join(
        out.split()
    )
    status, out, _ = call(path, capsys, "--sample", "2", "--format", "json")
    assert json.loads(out)["content_sample"] == {"leaves": 4, "of": 10}
    for wrong in (("--sample", "0"), ("--sample", "x"), ("--sample", "2", "--leaves")):
        status, out, _ = call(path, capsys, *wrong)
        assert (status, out) == (2, ""), wrong


def test_a_failing_disk_is_exit_1(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        BundleReader, "read_into", failing(CHUNK_SIZE, lambda: OSError(5, "Input/output error"))
    )
    status, out, err = call(path, capsys)
    assert (status, out) == (1, "") and "error[IO_ERROR]" in err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_has_rate_and_time_left_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(support.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    for stream, total, shown in ((Terminal(), 1 << 30, True), (io.StringIO(), 1 << 30, False),
                                 (Terminal(), 1 << 20, False)):  # fmt: skip
        monkeypatch.setattr(support.sys, "stderr", stream)  # type: ignore[attr-defined]
        with support.progress_bar("hashing", total) as bar:
            now[0] += 0.5
            bar.update(total // 2)
        assert ("1074 MB/s" in stream.getvalue() and "50%" in stream.getvalue()) == shown
        assert bool(stream.getvalue()) == shown

"""Every vector of the tree, the checkpoint and the usage file; and that the generators still make them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sealpack.format import merkle, tallies
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.keys import PublicKey
from sealpack.format.merkle import Frontier, leaf_hash
from sealpack.format.note import open_checkpoint, open_cosignature
from sealpack.format.records import encode, parse_record
from sealpack.format.usage_reader import UsageReader, verify_usage

SPECS = Path(__file__).parents[2] / "specs"
FORMATS = ("merkle", "checkpoint", "usage", "tallies")


def folders(name: str) -> list[Path]:
    return sorted(path.parent for path in (SPECS / "vectors" / name).glob("*/case.json"))


def cases(name: str) -> Any:
    return pytest.mark.parametrize("folder", folders(name), ids=lambda folder: folder.name)


def load(folder: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((folder / "case.json").read_text())
    assert case["description"] and (case["expect"] == "ok" or case["expect"] in CODES)
    return case


def outcome(run: Any, *arguments: Any) -> str:
    try:
        run(*arguments)
    except SealpackError as error:
        return error.code
    return "ok"


# --- merkle -------------------------------------------------------------------------------------------


def check_merkle(case: dict[str, Any]) -> None:
    if case["check"] == "roots":
        hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in case["leaves"]]
        for size, (root, frontier) in enumerate(zip(case["roots"], case["frontiers"], strict=True)):
            assert merkle.root_of(hashes[:size]).hex() == root
            assert Frontier.from_hex(size, frontier).root.hex() == root
        return
    proof = [bytes.fromhex(node) for node in case["proof"]]
    if case["check"] == "inclusion":
        leaf, root = leaf_hash(bytes.fromhex(case["leaf"])), bytes.fromhex(case["root"])
        merkle.verify_inclusion(leaf, case["index"], case["size"], proof, root)
        return
    old, new = case["old"], case["new"]
    old_root, new_root = bytes.fromhex(old["root"]), bytes.fromhex(new["root"])
    merkle.verify_consistency(old["size"], old_root, new["size"], new_root, proof)


@cases("merkle")
def test_merkle(folder: Path) -> None:
    case = load(folder)
    assert outcome(check_merkle, case) == case["expect"]


# --- checkpoint ---------------------------------------------------------------------------------------


def check_checkpoint(case: dict[str, Any], note: bytes) -> None:
    point = open_checkpoint(note, *map(PublicKey.from_pem, case["keys"]))
    if "checkpoint" in case:
        assert {"origin": point.origin, "size": point.size, "root": point.root.hex()} == case["checkpoint"]
    if "cosigner" in case:
        cosigner = case["cosigner"]
        made = open_cosignature(note, cosigner["name"], PublicKey.from_pem(cosigner["key"]))
        assert (made.checkpoint, made.time) == (point, cosigner["time"])


@cases("checkpoint")
def test_checkpoint(folder: Path) -> None:
    case = load(folder)
    assert outcome(check_checkpoint, case, (folder / "note").read_bytes()) == case["expect"]


# --- usage --------------------------------------------------------------------------------------------


@cases("usage")
def test_usage(folder: Path) -> None:
    case = load(folder)
    data = (folder / "usage.gz").read_bytes()
    report = verify_usage(data, PublicKey.from_pem(case["device"]))
    assert ("ok" if report.ok else report.findings[0].code) == case["expect"]
    assert report.accepted == case["accepted"]
    assert (report.size is None) == (case["accepted"] == 0)


@cases("tallies")
def test_tallies(folder: Path) -> None:
    case = load(folder)
    data = (folder / "tallies.gz").read_bytes()
    report = tallies.verify(data, PublicKey.from_pem(case["device"]))
    assert ("ok" if report.ok else report.findings[0].code) == case["expect"]
    assert report.accepted == case["accepted"]
    assert verify_usage(data).findings[0].code == "USAGE_HEADER"  # it is no usage file


def _schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((SPECS / f"schemas/{name}.json").read_text()))


@pytest.mark.parametrize("name", [f.name for f in folders("usage") if f.name.startswith("good")])
def test_good_usage_fits_the_schemas(name: str) -> None:
    data = (SPECS / "vectors/usage" / name / "usage.gz").read_bytes()
    plain = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    lines = plain.splitlines()
    _schema("usage-header").validate(json.loads(lines[0]))
    _schema("usage-trailer").validate(json.loads(lines[-1]))
    for block in UsageReader(data):
        for leaf, record in zip(block.leaves, block.records, strict=True):
            _schema("receipt-record").validate(json.loads(leaf))
            assert encode(parse_record(leaf)) == leaf == encode(record)


# --- generators ---------------------------------------------------------------------------------------


def content(path: Path) -> bytes:
    """The bytes, or what they unpack to: another zlib may pack the same bytes differently."""
    data = path.read_bytes()
    try:
        return gzip.decompress(data)
    except (OSError, EOFError):
        return b"" if data.startswith(b"\x1f\x8b") else data


@pytest.mark.parametrize("name", FORMATS)
def test_generator_writes_exactly_these_cases(name: str, tmp_path: Path) -> None:
    script = SPECS / "vectors" / name / "generate.py"
    spec = importlib.util.spec_from_file_location(f"generate_{name}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up
        spec.loader.exec_module(module)
        module.main(tmp_path)
    made = {path.relative_to(tmp_path): content(path) for path in tmp_path.glob("*/*")}
    kept = {
        path.relative_to(script.parent): content(path)
        for folder in folders(name)
        for path in folder.iterdir()
    }
    assert made == kept


# --- the examples in the specs ------------------------------------------------------------------------


def indented(page: str) -> str:
    text = (SPECS / page).read_text()
    return "".join(line[4:] + "\n" for line in text.splitlines() if line.startswith("    "))


def test_spec_examples_are_vectors() -> None:
    plain = gzip.decompress((SPECS / "vectors/usage/good/usage.gz").read_bytes())
    lines = plain.decode().splitlines()
    assert lines[3] in indented("receipts.md") and len(lines[3]) == 153
    assert leaf_hash(lines[3].encode()).hex() in indented("receipts.md")
    assert "\n".join(lines[-2:]) in indented("usage-export.md")
    text, _, signatures = (SPECS / "vectors/checkpoint/cosigned/note").read_text().partition("\n\n")
    assert text in indented("checkpoint.md") and signatures in indented("checkpoint.md")

"""Every vector of the core formats, read by the code; and that the generators still make them."""

from __future__ import annotations

import gzip
import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sealpack.format import canonical, dsse
from sealpack.format.container import BundleReader
from sealpack.format.dsse import Envelope
from sealpack.format.errors import CODES, SealpackError
from sealpack.format.keys import PublicKey

VECTORS = Path(__file__).parents[2] / "specs/vectors"
Check = Callable[[Path, dict[str, Any]], None]


def canonical_json(folder: Path, case: dict[str, Any]) -> None:
    data = (folder / "input.json").read_bytes()
    value = canonical.loads(data, max_bytes=case["max_bytes"])
    assert canonical.dumps(value) == data


def dsse_envelope(folder: Path, case: dict[str, Any]) -> None:
    envelope = Envelope.from_bytes((folder / "envelope.json").read_bytes())
    for signature, pem in zip(envelope.signatures, case["keys"], strict=True):
        PublicKey.from_pem(pem).verify(signature.sig, envelope.signed_bytes)
    if "pae" in case:
        assert envelope.signed_bytes == case["pae"].encode()
        assert dsse.pae(envelope.payload_type, envelope.payload) == envelope.signed_bytes


def container(folder: Path, case: dict[str, Any]) -> None:
    data = gzip.decompress((folder / "bundle.gz").read_bytes())
    reader = BundleReader(io.BytesIO(data))
    found = [{"name": n, "size": p.item.size, "data_at": p.data_at} for n, p in reader.entries.items()]
    assert found == case["entries"]
    assert all(p.data_at % 65536 == 0 for n, p in reader.entries.items() if n.startswith("payload/"))


CHECKS: dict[str, Check] = {
    "canonical-json": canonical_json,
    "container": container,
    "dsse": dsse_envelope,
}
CASES = [(name, path.parent) for name in CHECKS for path in sorted((VECTORS / name).glob("*/case.json"))]


@pytest.mark.parametrize(("name", "folder"), CASES, ids=[f"{name}-{folder.name}" for name, folder in CASES])
def test_case(name: str, folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    assert case["description"] and (case["expect"] == "ok" or case["expect"] in CODES)
    try:
        CHECKS[name](folder, case)
        outcome = "ok"
    except SealpackError as error:
        outcome = error.code
    assert outcome == case["expect"], case["description"]


def contents(folder: Path) -> dict[Path, bytes]:
    """Files by relative name; compressed ones by what is in them, for zlib may change."""
    return {
        path.relative_to(folder): gzip.decompress(data) if path.suffix == ".gz" else data
        for path in folder.glob("*/*")
        if path.is_file() and path.parent.name != "__pycache__"
        for data in (path.read_bytes(),)
    }


@pytest.mark.parametrize("name", CHECKS)
def test_generator_still_makes_them(name: str, tmp_path: Path) -> None:
    runpy.run_path(str(VECTORS / name / "generate.py"))["main"](tmp_path)
    made, kept = contents(tmp_path), contents(VECTORS / name)
    assert sorted(made) == sorted(kept)
    assert [path for path in made if made[path] != kept[path]] == []

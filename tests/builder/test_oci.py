"""Bundles as OCI image layouts: read by a standard tool, and back to the same bytes (specs/oci.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builder.conftest import Builder, sealpack
from support.world import BundleSpec, tiny_gguf

from sealpack.builder import oci
from sealpack.format.errors import SealpackError
from sealpack.format.trust import Trust
from sealpack.verifier.checks import verify_bundle


@pytest.fixture
def bundle(build: Builder, external_model: Path, tmp_path: Path) -> Path:
    return build(external_model, tmp_path / "b.sealpack").path


def artifact(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    return json.loads(blob(layout, index["manifests"][0]["digest"]).read_text())  # type: ignore[no-any-return]


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


def test_out_and_back_to_the_same_bytes(bundle: Path, tmp_path: Path, trust: Trust) -> None:
    layout = tmp_path / "layout"
    assert sealpack("export", bundle, "--oci", layout) == 0
    assert sealpack("import", "--oci", layout, "--out", tmp_path / "again.sealpack") == 0
    assert (tmp_path / "again.sealpack").read_bytes() == bundle.read_bytes()
    assert verify_bundle(tmp_path / "again.sealpack", trust).ok
    for path in (layout / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_the_layers_are_the_files_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    oci.export(bundle, tmp_path / "layout")
    said = artifact(tmp_path / "layout")
    types = {layer["annotations"][oci.FILEPATH]: layer["mediaType"] for layer in said["layers"]}
    assert types["payload/model.onnx"] == types["payload/weights/net.bin"] == oci.WEIGHT_TYPE
    assert types["card.md"] == types["META/model.sig"] == oci.DOC_TYPE
    assert types["chunks/0.sha256c"] == oci.WEIGHT_CONFIG_TYPE
    assert not [name for name in types if "pad" in name]
    config = json.loads(blob(tmp_path / "layout", said["config"]["digest"]).read_text())
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["config"]["format"] == "onnx" and config["modelfs"]["type"] == "layers"
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in said["layers"]]
    assert config["descriptor"]["createdAt"].endswith("Z") and config["descriptor"]["licenses"]


def test_a_standard_tool_reads_it(bundle: Path, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    digest = oci.export(bundle, tmp_path / "layout")
    source = f"oci:{tmp_path / 'layout'}"
    raw = subprocess.run(["skopeo", "inspect", "--raw", source], check=True, capture_output=True).stdout
    assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == digest
    copied = f"oci:{tmp_path / 'copied'}:again"
    copy = [
        "skopeo",
        "--insecure-policy",
        "--tmpdir",
        str(tmp_path),
        "copy",
        "--preserve-digests",
        source,
        copied,
    ]
    subprocess.run(copy, check=True, capture_output=True)
    again = oci.restore(tmp_path / "copied", tmp_path / "again.sealpack")
    assert again.read_bytes() == bundle.read_bytes()


def test_parts_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = Path("b.sealpack")
    whole.write_bytes(BundleSpec(model=tiny_gguf(600_000)).build())
    assert sealpack("export", whole, "--parts", ".", "--part-size", "1MiB") == 0
    assert sealpack("export", "b.sealpack.parts.sha256", "--oci", "layout") == 0
    assert oci.restore(Path("layout"), Path("again")).read_bytes() == whole.read_bytes()


def _edit(layout: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the artifact and name it rightly, as a hostile registry could."""
    index = json.loads((layout / "index.json").read_text())
    value = artifact(layout)
    change(value)
    data = json.dumps(value).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(data)}
    (layout / "index.json").write_text(json.dumps(index))


def _layer(name: str) -> Callable[[dict[str, Any]], None]:
    def rename(value: dict[str, Any]) -> None:
        value["layers"][3]["annotations"][oci.FILEPATH] = name

    return rename


def _drop(name: str) -> Callable[[dict[str, Any]], None]:
    def drop(value: dict[str, Any]) -> None:
        value["layers"] = [x for x in value["layers"] if x["annotations"][oci.FILEPATH] != name]

    return drop


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _endless(folder: Path) -> Callable[[dict[str, Any]], object]:
    """A blob that never ends, of a size that nobody waits for."""

    def change(value: dict[str, Any]) -> None:
        layer = value["layers"][0]
        layer.update(size=1 << 50)
        _replaced(blob(folder, layer["digest"]), lambda path: path.symlink_to("/dev/zero"))

    return change


FAULTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / "index.json").unlink(), "FILE_MISSING"),
    (lambda d: (d / "index.json").write_text("[]"), "OCI_INVALID"),
    (lambda d: (d / "index.json").write_text("{"), "OCI_INVALID"),
    (lambda d: (d / "index.json").write_text("[" * 100_000), "OCI_INVALID"),
    (lambda d: (d / "index.json").write_text('{"manifests": []}'), "OCI_INVALID"),
    (lambda d: _edit(d, lambda v: v.update(artifactType="application/x")), "OCI_INVALID"),
    (lambda d: _edit(d, lambda v: v.update(layers=v["layers"] * 2)), "OCI_INVALID"),
    (lambda d: _edit(d, lambda v: v["layers"][0].pop("annotations")), "OCI_INVALID"),
    (lambda d: _edit(d, lambda v: v["layers"][0].update(digest="sha256:../../x")), "OCI_INVALID"),
    (lambda d: _edit(d, lambda v: v["layers"][0].update(size=1)), "DIGEST_MISMATCH"),
    (lambda d: _edit(d, lambda v: v["layers"][0].update(size=1 << 40)), "DIGEST_MISMATCH"),
    (lambda d: _edit(d, lambda v: v["layers"][0].update(digest="sha256:" + "0" * 64)), "FILE_MISSING"),
    (lambda d: _edit(d, _layer("../escape")), "CONTAINER_NAME"),
    (lambda d: _edit(d, _layer("/etc/passwd")), "CONTAINER_NAME"),
    (lambda d: _edit(d, _layer("META/stray")), "CONTAINER_META"),
    (lambda d: _edit(d, _drop("manifest.json")), "OCI_INVALID"),
    (lambda d: _edit(d, _drop("mimetype")), "CONTAINER_TAIL"),
    (lambda d: blob(d, artifact(d)["layers"][2]["digest"]).write_bytes(b"other"), "DIGEST_MISMATCH"),
    (lambda d: blob(d, artifact(d)["layers"][2]["digest"]).unlink(), "FILE_MISSING"),
    (lambda d: _replaced(d / "index.json", os.mkfifo), "IO_ERROR"),
    (lambda d: _replaced(blob(d, artifact(d)["layers"][2]["digest"]), os.mkfifo), "IO_ERROR"),
    (lambda d: _edit(d, _endless(d)), "IO_ERROR"),
]


@pytest.mark.parametrize(("fault", "code"), FAULTS)
def test_hostile_layouts(bundle: Path, tmp_path: Path, fault: Callable[[Path], object], code: str) -> None:
    layout = tmp_path / "layout"
    oci.export(bundle, layout)
    fault(layout)
    with pytest.raises(SealpackError) as caught:
        oci.restore(layout, tmp_path / "out.sealpack")
    assert caught.value.code == code
    assert not [p for p in tmp_path.iterdir() if "out.sealpack" in p.name]


def test_nothing_is_overwritten_or_left(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = tmp_path / "layout"
    layout.mkdir()
    (layout / "mine").write_text("x")
    with pytest.raises(SealpackError) as caught:
        oci.export(bundle, layout)
    assert caught.value.code == "OUTPUT_EXISTS"
    (layout / "mine").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(oci, "_put", full)
        with pytest.raises(SealpackError) as caught:
            oci.export(bundle, layout)
    assert caught.value.code == "STORE_FULL"
    assert list(layout.iterdir()) == [] and not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    oci.export(bundle, layout)
    existing = tmp_path / "out"
    existing.write_text("mine")
    with pytest.raises(SealpackError) as caught:
        oci.restore(layout, existing)
    assert caught.value.code == "OUTPUT_EXISTS" and existing.read_text() == "mine"


def test_the_default_name(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    oci.export(bundle, tmp_path / "layout")
    assert sealpack("import", "--oci", "layout") == 0
    assert len(list(tmp_path.glob("*-*.sealpack"))) == 1


@pytest.mark.parametrize("arguments", [[], ["a.parts.sha256", "--oci", "x"], ["--oci", "nowhere"]])
def test_import_needs_one_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sealpack("import", *arguments) in (1, 2)

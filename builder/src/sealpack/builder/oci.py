"""A bundle as an OCI image layout, for registries and the tools around them; and back.

Source: specs/oci.md. Every entry outside the alignment pads becomes one raw layer of a CNCF ModelPack
artifact, under its name in the bundle. The manifest already states each file's SHA-256, which is what an
OCI blob is named by, so payload is copied without being hashed. Nothing is trusted on the way back: blobs
are hashed, the bundle is laid out anew, and it is worth what its own signature says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sealpack.format import statement
from sealpack.format.container import BundleReader, Member, check_name, order_key, write_bundle
from sealpack.format.errors import SealpackError
from sealpack.format.fields import Fields
from sealpack.format.files import atomic_writer, io_error, open_regular
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import WEIGHT_ROLES, FileEntry, Manifest
from sealpack.format.statement import Statement
from sealpack.format.terms import Terms
from sealpack.format.values import utc_instant

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MODEL_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"
FILEPATH = "org.cncf.model.filepath"
REF_NAME = "org.opencontainers.image.ref.name"
_DOCUMENTS = ("license-text", "license-terms", "sbom", "card", "evidence")
_OCI_DIGEST = r"sha256:[0-9a-f]{64}"
_MAX_JSON = 8 << 20  # bytes of an index or manifest
_BLOCK = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Blob:
    """What an OCI descriptor says of one entry."""

    name: str  # in the bundle
    media_type: str
    size: int  # bytes
    sha256: str  # hex

    def to_dict(self) -> dict[str, Any]:
        """The descriptor."""
        return _descriptor(self.media_type, self.sha256, self.size) | {"annotations": {FILEPATH: self.name}}

    @classmethod
    def parse(cls, f: Fields) -> Blob:
        """Read a layer's descriptor; OCI_INVALID."""
        name = f.sub("annotations").text(FILEPATH, max_len=LIMITS.entry_name_bytes)
        check_name(name)
        order_key(name)  # a name that may stand in a bundle
        digest = f.text("digest", pattern=_OCI_DIGEST)
        return cls(name, f.text("mediaType", max_len=200), f.integer("size"), digest.removeprefix("sha256:"))


def export(path: Path, folder: Path, progress: Progress = lambda _: None) -> str:
    """Write the bundle at `path` as an image layout into the new folder `folder`; the manifest's OCI digest.

    Only the container's structure and the manifest are read, nothing is verified. OUTPUT_EXISTS when the
    folder is there and not empty; after a failure nothing is left of it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SealpackError("OUTPUT_EXISTS", f"{folder} already exists", remedy="choose a new folder")
    with BundleReader.open(path) as bundle, _new_folder(folder) as made:
        manifest = Manifest.from_bytes(bundle.read("manifest.json"))
        blobs = [_blob(bundle, name, manifest) for name in bundle.names]
        (made / "blobs/sha256").mkdir(parents=True)
        for blob in blobs:
            _copy_out(bundle, blob, made / "blobs/sha256" / blob.sha256)
            progress(blob.size)
        config = _put(made, _config(bundle, manifest, blobs))
        artifact = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": MODEL_TYPE,
            "config": _descriptor(CONFIG_TYPE, *config),
            "layers": [blob.to_dict() for blob in blobs],
        }
        digest, size = _put(made, artifact)
        described = _descriptor(MANIFEST_TYPE, digest, size) | {
            "artifactType": MODEL_TYPE,
            "annotations": {REF_NAME: re.sub(r"[^A-Za-z0-9._-]", "-", manifest.version)},
        }
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [described]}
        (made / "index.json").write_bytes(_json(index))
        (made / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return f"sha256:{digest}"


def restore(
    folder: Path, out: Path | None, *, overwrite: bool = False, progress: Progress = lambda _: None
) -> Path:
    """Make the bundle of an image layout again at `out`, without one under the model's name, here.

    OCI_INVALID, DIGEST_MISMATCH (a blob is not what its name says), FILE_MISSING, OUTPUT_EXISTS, and the
    codes of a container that is none. Nothing is trusted by this: verify the bundle.
    """
    layers = _layers(folder)
    members = [_member(folder, blob, progress) for blob in layers]
    named = next((m for m in members if m.name == "manifest.json"), None)
    if named is None:
        raise SealpackError("OCI_INVALID", f"{folder} was not made from a bundle: no manifest.json in it")
    with named.open() as file:
        manifest = Manifest.from_bytes(file.read(LIMITS.metadata_entry_bytes))
    target = out or Path(f"{manifest.bundle_id.rsplit('/', 1)[-1]}-{manifest.version}.sealpack")
    with atomic_writer(target, replace=overwrite) as file:
        write_bundle(file, members)
        file.flush()
        BundleReader(file)  # what we write must be what every reader accepts
    return target


def _blob(bundle: BundleReader, name: str, manifest: Manifest) -> Blob:
    entry = next((e for e in manifest.files if e.name == name), None)
    if entry is None:  # META, manifest.json and mimetype are small
        data = bundle.read(name, LIMITS.metadata_entry_bytes)
        return Blob(name, DOC_TYPE, len(data), hashlib.sha256(data).hexdigest())
    if entry.size != bundle.entries[name].item.size:
        raise SealpackError("MANIFEST_MISMATCH", f"{name} has another size than stated")
    return Blob(name, _media_type(entry), entry.size, entry.sha256)


def _media_type(entry: FileEntry) -> str:
    if entry.role in WEIGHT_ROLES:
        return WEIGHT_TYPE
    return DOC_TYPE if entry.role in _DOCUMENTS else WEIGHT_CONFIG_TYPE


def _copy_out(bundle: BundleReader, blob: Blob, target: Path) -> None:
    """Copy an entry to a file of its own; in the kernel where it can, which may share the bytes."""
    if target.exists():  # the same content under another name
        return
    with target.open("wb") as out:
        try:
            _copy_range(bundle.file.fileno(), out.fileno(), bundle.entries[blob.name].data_at, blob.size)
        except OSError:  # parts of split media, or two file systems that cannot
            out.seek(0)
            out.writelines(bundle.blocks(blob.name))


def _copy_range(source: int, target: int, at: int, left: int) -> None:
    while left:
        copied = os.copy_file_range(source, target, left, at)
        if not copied:
            raise SealpackError("CONTAINER_TRUNCATED", "the bundle was cut short while it was read")
        at, left = at + copied, left - copied


def _config(bundle: BundleReader, manifest: Manifest, blobs: list[Blob]) -> dict[str, Any]:
    """The ModelPack configuration: what the manifest says, nothing guessed."""
    envelope = statement.read_signature(bundle.read(statement.SIG_NAME, LIMITS.signature_bytes))
    signed_at = Statement.from_bytes(envelope.payload).signed_at
    terms = manifest.with_role("license-terms")
    spdx = Terms.from_bytes(bundle.read(terms[0].name)).spdx if terms else None
    technical = {
        "format": manifest.kind,
        "architecture": manifest.engine.get("architecture"),
        "quantization": manifest.engine.get("quantization") or manifest.engine.get("dtype"),
    }
    return {
        "descriptor": {
            "createdAt": utc_instant(signed_at),
            "name": manifest.bundle_id,
            "title": manifest.name,
            "version": manifest.version,
            **({"description": manifest.description} if manifest.description else {}),
            **({"licenses": [spdx]} if spdx else {}),
        },
        "config": {key: value for key, value in technical.items() if value},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{blob.sha256}" for blob in blobs]},
    }


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _put(folder: Path, value: dict[str, Any]) -> tuple[str, int]:
    data = _json(value)
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs/sha256" / digest).write_bytes(data)
    return digest, len(data)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@contextlib.contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that becomes `target` only when the block ends without an error."""
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield made
            made.chmod(0o755)
            made.replace(target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise io_error(error, target, "write") from None


def _layers(folder: Path) -> list[Blob]:
    index = _read(folder / "index.json")
    found = index.objects("manifests", lambda f: f, max_items=64)
    models = [f for f in found if f.text("mediaType", max_len=200) == MANIFEST_TYPE]
    if len(models) != 1:
        raise SealpackError("OCI_INVALID", f"{folder} holds {len(models)} artifacts, not one")
    digest = models[0].text("digest", pattern=_OCI_DIGEST).removeprefix("sha256:")
    path = folder / "blobs/sha256" / digest
    artifact = _read(path, digest)
    if artifact.text("artifactType", default="", max_len=200) != MODEL_TYPE:
        raise SealpackError("OCI_INVALID", f"{folder} does not hold a model artifact")
    layers = artifact.objects("layers", Blob.parse, max_items=LIMITS.entries)
    if len({blob.name for blob in layers}) != len(layers):
        raise SealpackError("OCI_INVALID", f"{folder} has one file name twice")
    return list(layers)


def _read(path: Path, digest: str | None = None) -> Fields:
    with open_regular(path) as file:
        data = file.read(_MAX_JSON + 1)
    if len(data) > _MAX_JSON:
        raise SealpackError("OCI_INVALID", f"{path} is larger than {_MAX_JSON} bytes")
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise SealpackError("DIGEST_MISMATCH", f"{path.name} is not what its name says")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise SealpackError("OCI_INVALID", f"{path} is not JSON") from None
    return Fields(value, path.name, "OCI_INVALID")


def _member(folder: Path, blob: Blob, progress: Progress) -> Member:
    path = folder / "blobs/sha256" / blob.sha256
    digest, crc, size = hashlib.sha256(), 0, 0
    try:
        with open_regular(path) as file:
            while size <= blob.size and (block := file.read(_BLOCK)):
                digest.update(block)
                crc = zlib.crc32(block, crc)
                size += len(block)
                progress(len(block))
    except OSError as error:
        raise io_error(error, path, "read") from None
    if size != blob.size or digest.hexdigest() != blob.sha256:
        raise SealpackError("DIGEST_MISMATCH", f"the blob of {blob.name} is not what its name says")
    return Member(blob.name, size, crc, _opener(path))


def _opener(path: Path) -> Callable[[], BinaryIO]:
    return lambda: open_regular(path)

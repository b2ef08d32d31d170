"""`sealpack export` and `import`: a bundle in the forms it travels in."""

from __future__ import annotations

import re
from pathlib import Path

import click

from sealpack.format.errors import SealpackError
from sealpack.verifier.cli import support

_UNITS = {"": 1, "MB": 10**6, "GB": 10**9, "MiB": 1 << 20, "GiB": 1 << 30}


@click.command(short_help="Write a bundle as an OCI image layout, or as parts for small media.")
@click.argument("bundle", type=click.Path(dir_okay=False))
@click.option("--oci", "oci_dir", type=click.Path(file_okay=False), help="New folder for an image layout.")
@click.option(
    "--parts",
    "parts_dir",
    type=click.Path(file_okay=False),
    help="Folder for numbered parts, e.g. the stick.",
)
@click.option("--part-size", help="Largest part, e.g. 2GB or 650MiB [default: what FAT32 can hold].")
@support.format_option
def export(bundle: str, oci_dir: str | None, parts_dir: str | None, part_size: str | None, fmt: str) -> None:
    """Write BUNDLE in another form; the bundle itself stays as it is.

    --oci makes an OCI image layout with a ModelPack artifact, which registry tools can copy and push.
    --parts makes NAME.001, NAME.002, ... and NAME.parts.sha256, for sticks that stop at 4 GiB; `cat` or
    `copy /b` joins them, and so do `sealpack import` and `sealpack install`.
    """
    if (oci_dir is None) == (parts_dir is None) or (oci_dir and part_size):
        raise SealpackError("USAGE", "say how to export: --oci DIR, or --parts DIR")
    source = support.existing(bundle)
    if oci_dir is not None:
        _export_oci(source, Path(oci_dir), fmt)
    else:
        _export_parts(source, _folder(str(parts_dir)), part_size, fmt)


def _export_oci(source: Path, folder: Path, fmt: str) -> None:
    from sealpack.builder import oci

    with support.progress_bar("copying", source.stat().st_size) as bar:
        digest = oci.export(source, folder, bar.update)
    result = {"schema": "sealpack/exported/v1", "oci": str(folder), "digest": digest}
    support.emit(result, f"wrote {folder}, artifact {digest}", fmt)


def _export_parts(source: Path, folder: Path, part_size: str | None, fmt: str) -> None:
    from sealpack.format import parts

    with support.progress_bar("splitting", source.stat().st_size) as bar:
        size = _bytes(part_size) if part_size else parts.FAT32_PART
        made = parts.split(source, folder, size, bar.update)
    names = [path.name for path, _ in parts.PartList.load(made).parts]
    result = {"schema": "sealpack/exported/v1", "list": str(made), "parts": names}
    support.emit(result, f"wrote {len(names)} parts, listed in {made}", fmt)


@click.command("import", short_help="Make a bundle from what `export` wrote.")
@click.argument("source", type=click.Path(), required=False)
@click.option("--oci", "oci_dir", type=click.Path(file_okay=False), help="Folder of an image layout.")
@click.option("--out", type=click.Path(dir_okay=False), help="Bundle file [default: its name, here].")
@click.option("--force", is_flag=True, help="Replace an existing output.")
@support.format_option
def import_(source: str | None, oci_dir: str | None, out: str | None, force: bool, fmt: str) -> None:
    """Make the bundle of an image layout (--oci DIR) again, or of the parts that SOURCE lists.

    SOURCE is the list of the parts, NAME.parts.sha256. Nothing is trusted by this: verify the file
    afterwards.
    """
    if (source is None) == (oci_dir is None):
        raise SealpackError("USAGE", "say what to import: NAME.parts.sha256, or --oci DIR")
    if oci_dir is not None:
        from sealpack.builder import oci

        target = oci.restore(_folder(oci_dir), Path(out) if out else None, overwrite=force)
    else:
        target = _join(Path(str(source)), out, force)
    size = target.stat().st_size
    result = {"schema": "sealpack/imported/v1", "path": str(target), "bytes": size}
    support.emit(result, f"wrote {target}, {size} bytes; verify it now", fmt)


def _join(source: Path, out: str | None, force: bool) -> Path:
    from sealpack.format import parts
    from sealpack.format.files import atomic_writer

    if not parts.is_list(source):
        raise SealpackError("USAGE", f"{source} is not a list of parts (NAME{parts.LIST_SUFFIX})")
    listed = parts.PartList.load(support.existing(str(source)))
    target = Path(out or listed.name)
    with atomic_writer(target, replace=force) as file:
        file.writelines(listed.blocks())
    return target


def _folder(path: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise SealpackError("FILE_MISSING", f"folder {path} does not exist")
    return folder


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]{0,14})(|MB|GB|MiB|GiB)", text)
    if not found:
        raise SealpackError("USAGE", f"size {text!r} is not a number of bytes, MB, MiB, GB or GiB")
    return int(found[1]) * _UNITS[found[2]]

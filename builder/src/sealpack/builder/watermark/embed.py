"""Mark one licensee's copy of a model, in place and tensor by tensor. Source: specs/watermark.md section 5.

The clean files are only read; each output is a copy with some weights moved, of the same size and
layout, and appears under its name only when it is complete and its mark is recorded in the vault.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sealpack.builder.watermark import keys, layer, match, stream
from sealpack.builder.watermark.params import MIN_WEIGHTS, Params, choose_alpha
from sealpack.builder.watermark.records import Mark, MarkedTensor, ModelRecord
from sealpack.builder.watermark.vault import Vault
from sealpack.builder.watermark.weights import STORED, Raw, decode, float_weights, map_tensor
from sealpack.format import files
from sealpack.format.errors import SealpackError
from sealpack.format.tensors import TensorRef

BLOCK = 1 << 20  # weights held as float32 at a time
_DROPPED = {"F16": 13, "BF16": 16}  # float32 mantissa bits the short type has no room for
_COPY_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class _Clean:
    """The clean model: its files by the name a TensorRef uses, its digest, its markable tensors."""

    paths: dict[str, Path]
    digest: str
    refs: dict[str, TensorRef]

    def map(self, name: str) -> Raw:
        """A tensor's stored values, read-only and 2-D; BF16 appears as uint16."""
        ref = self.refs[name]
        raw: Raw = map_tensor(self.paths[""], ref, STORED[ref.dtype])
        return raw


def mark_model(
    vault: Vault,
    sources: Sequence[Path],
    outputs: Sequence[Path],
    refs: Iterable[TensorRef],
    *,
    licensee: str,
    license_id: str,
    bundle_id: str,
    now: int,
    replace: bool = False,
) -> Mark:
    """Write a marked copy of a model and record it in the vault.

    `sources[0]` is the model file, the others its external data; `outputs` name the copies in the
    same order; `refs` is the model's tensor table. `now` is Unix seconds. A copy made before for the
    same model, licensee, bundle and license is made again byte for byte from its sealed record.

    Raises WATERMARK_UNSUITABLE when no tensor can carry a mark, OUTPUT_EXISTS, DIGEST_MISMATCH when
    a sealed record no longer leads to the same bytes, STATE_LOCKED, and the codes of file access.
    """
    clean = _open_clean(sources, refs)
    k_model = keys.model_key(vault.root, clean.digest)
    k_lic = keys.licensee_key(k_model, licensee, bundle_id)
    model = vault.models.get(clean.digest) or _describe(clean, k_model)
    names = {"licensee": licensee, "bundle_id": bundle_id, "license_id": license_id}
    before = vault.find(model=clean.digest, **names)
    params = before.params if before else _new_params(model, k_lic)
    with contextlib.ExitStack() as stack:
        copies = _copy_all(stack, clean, outputs, replace)
        for tensor in model.tensors:
            _mark_tensor(clean, copies, tensor, k_lic, params.strength_b)
        marked = _digest({name: _file_digest(file) for name, file in copies.items()})
        if before is not None:
            _same_as_before(before, marked)
            return before
        mark = _seal(k_lic, clean.digest, marked, params, now, **names)
        vault.add(model, mark)
        vault.save()
    return mark


def suitable(refs: Iterable[TensorRef]) -> tuple[tuple[TensorRef, ...], str]:
    """The tensors large and plain enough for a mark, and, when there is none, why."""
    listed = tuple(refs)
    matrices = [ref for ref in listed if len(ref.shape) == 2 and ref.count >= MIN_WEIGHTS]
    floats = tuple(ref for ref in matrices if ref.dtype in STORED)
    if floats:
        return floats, ""
    if matrices:
        kinds = ", ".join(sorted({ref.dtype for ref in matrices}))
        return (), f"its matrices are {kinds}; this version marks F32, F16 and BF16 only"
    return (), f"it has no matrix of at least {MIN_WEIGHTS} weights"


def _open_clean(sources: Sequence[Path], refs: Iterable[TensorRef]) -> _Clean:
    folder = sources[0].parent
    names = ["", *(source.relative_to(folder).as_posix() for source in sources[1:])]
    paths = dict(zip(names, sources, strict=True))
    floats, reason = suitable(refs)
    if not floats:
        raise SealpackError("WATERMARK_UNSUITABLE", f"{sources[0]} cannot carry a mark: {reason}")
    digests = {}
    for name, path in paths.items():
        with _opened(path) as file:
            digests[name] = _file_digest(file)
    return _Clean(paths, _digest(digests), _first_of_each_name(floats))


def _first_of_each_name(refs: Iterable[TensorRef]) -> dict[str, TensorRef]:
    """Constants of nameless nodes may share a name; detection reads the first, so it is marked."""
    named: dict[str, TensorRef] = {}
    for ref in refs:
        named.setdefault(ref.name, ref)
    return named


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise files.io_error(error, path, "read") from None


def _file_digest(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while part := file.read(_COPY_BYTES):
        digest.update(part)
    return digest.hexdigest()


def _digest(digests: dict[str, str]) -> str:
    return keys.model_digest(digests)


def _new_params(model: ModelRecord, k_lic: bytes) -> Params:
    salt = keys.derive(k_lic, "salt")[:16].hex()
    return Params(choose_alpha(model.weights), model.weights, salt)


def _seal(k_lic: bytes, clean: str, marked: str, params: Params, now: int, **names: str) -> Mark:
    randomness = secrets.token_bytes(32)
    commitment = keys.commitment(
        licensee_key=k_lic,
        license_id=names["license_id"],
        bundle_id=names["bundle_id"],
        clean_digest=clean,
        marked_digest=marked,
        params_digest=params.digest,
        randomness=randomness,
    )
    return Mark(
        **names,
        model=clean,
        marked=marked,
        params=params,
        randomness=randomness,
        commitment=commitment,
        time=now,
    )


def _same_as_before(before: Mark, marked: str) -> None:
    if before.marked != marked:
        raise SealpackError(
            "DIGEST_MISMATCH",
            f"the vault records {before.marked} for this copy, this build made {marked}",
            remedy="mark with the version of sealpack that made the first copy",
        )


# --- the tensors of a clean model -----------------------------------------------------------------


def _describe(clean: _Clean, k_model: bytes) -> ModelRecord:
    """Sample every markable tensor, drop tables that only look like weights, find tied copies."""
    kept: list[MarkedTensor] = []
    for ref in clean.refs.values():
        raw = clean.map(ref.name)
        tied = _find_tied(clean, kept, ref, raw)
        if tied is not None:
            kept.append(tied)
            continue
        values = match.sample(k_model, ref.name, float_weights(ref.name, raw, ref.dtype))
        if len(np.unique(values[values != 0])) >= match.MIN_DISTINCT:
            kept.append(_tensor(ref, match.pack(values)))
    if not kept:
        raise SealpackError(
            "WATERMARK_UNSUITABLE",
            f"{clean.paths['']} cannot carry a mark: its matrices are empty or constant tables",
        )
    names = tuple(name or path.name for name, path in clean.paths.items())
    return ModelRecord(clean.digest, names, tuple(kept))


def _tensor(ref: TensorRef, sample: bytes) -> MarkedTensor:
    return MarkedTensor(ref.name, ref.shape[0], ref.shape[1], ref.dtype, sample)


def _find_tied(clean: _Clean, kept: list[MarkedTensor], ref: TensorRef, raw: Raw) -> MarkedTensor | None:
    """The same weights stored twice must carry one mark: two would show each other."""
    for other in kept:
        if other.tied_to is not None or other.dtype != ref.dtype:
            continue
        theirs = clean.map(other.name)
        for turned in (False, True):
            view = theirs.T if turned else theirs
            if view.shape == raw.shape and _equal(view, raw):
                rows, columns = ref.shape
                return MarkedTensor(ref.name, rows, columns, ref.dtype, b"", other.name, turned)
    return None


def _equal(one: Raw, other: Raw) -> bool:
    if one[:1].tobytes() != other[:1].tobytes():
        return False
    return all(one[rows].tobytes() == other[rows].tobytes() for rows in _blocks(one.shape[0], one.shape[1]))


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut whole rows into slices of about BLOCK weights."""
    step = max(1, BLOCK // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


# --- writing --------------------------------------------------------------------------------------


def _copy_all(
    stack: contextlib.ExitStack, clean: _Clean, outputs: Sequence[Path], replace: bool
) -> dict[str, BinaryIO]:
    copies = {}
    for (name, source), output in zip(clean.paths.items(), outputs, strict=True):
        copy = stack.enter_context(files.atomic_writer(output, replace=replace))
        with _opened(source) as file:
            shutil.copyfileobj(file, copy, _COPY_BYTES)
        copy.flush()
        copies[name] = copy
    return copies


def _mark_tensor(
    clean: _Clean,
    copies: dict[str, BinaryIO],
    tensor: MarkedTensor,
    k_lic: bytes,
    strength: float,
) -> None:
    target = _writable(clean, copies, tensor.name)
    if tensor.tied_to is not None:
        first = _writable(clean, copies, tensor.tied_to)
        _repeat(first.T if tensor.transposed else first, target)
        return
    for rows in _blocks(tensor.rows, tensor.columns):
        span = rows.start * tensor.columns, rows.stop * tensor.columns
        target[rows] = mark_rows(target[rows], tensor, k_lic, span, strength)
    target.flush()


def _writable(clean: _Clean, copies: dict[str, BinaryIO], name: str) -> np.memmap[Any, Any]:
    ref = clean.refs[name]
    shape = (ref.shape[0], ref.shape[1])
    return np.memmap(copies[ref.file], STORED[ref.dtype], "r+", ref.offset, shape)


def _repeat(marked: Raw, target: np.memmap[Any, Any]) -> None:
    for rows in _blocks(*target.shape):
        target[rows] = marked[rows]
    target.flush()


def mark_rows(raw: Raw, tensor: MarkedTensor, k_lic: bytes, span: tuple[int, int], strength: float) -> Raw:
    """Mark whole rows of one tensor as stored; `span` is their flat range. Same shape and type."""
    values = decode(raw, tensor.dtype)
    bits = stream.sign_bits(keys.tensor_key(k_lic, "signs", tensor.name), *span)
    marked = layer.add_mark(values, bits, strength)
    if tensor.dtype == "F32":
        return marked
    noise = stream.noise_bytes(keys.tensor_key(k_lic, "dither", tensor.name), *span)
    short = layer.round_noisily(marked, noise, _DROPPED[tensor.dtype])
    if tensor.dtype == "BF16":
        stored: Raw = (short >> 16).astype(np.uint16)
    else:
        with np.errstate(over="ignore"):
            stored = short.view(np.float32).astype(np.float16)
    moved = (marked != values) & np.isfinite(decode(stored, tensor.dtype))
    return np.where(moved, stored, raw)

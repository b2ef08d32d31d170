"""What the vault remembers: clean models and the copies marked from them.

Source: specs/watermark.md section 6. Plain values with a JSON form; nothing here touches a file.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from sealpack.builder.watermark import keys
from sealpack.builder.watermark.params import Params
from sealpack.format.fields import Fields

_BASE64_MAX = 1 << 29


@dataclass(frozen=True, slots=True)
class MarkedTensor:
    """One tensor of a clean model, as a suspect is matched against it.

    `sample` is 256 signed bytes at keyed positions (match.py), `tied_to` names an earlier tensor
    with the same content, whose mark this one repeats (transposed if `transposed`).
    """

    name: str
    rows: int
    columns: int
    dtype: str
    sample: bytes
    tied_to: str | None = None
    transposed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        value: dict[str, Any] = {
            "name": self.name,
            "rows": self.rows,
            "columns": self.columns,
            "dtype": self.dtype,
            "sample": base64.b64encode(self.sample).decode(),
        }
        if self.tied_to is not None:
            value |= {"tied_to": self.tied_to, "transposed": self.transposed}
        return value

    @classmethod
    def from_fields(cls, fields: Fields) -> MarkedTensor:
        """Read the JSON form; VAULT_INVALID."""
        return cls(
            name=fields.text("name", max_len=65536),
            rows=fields.integer("rows", lo=1),
            columns=fields.integer("columns", lo=1),
            dtype=fields.choice("dtype", ("F32", "F16", "BF16")),
            sample=base64_bytes(fields, "sample"),
            tied_to=fields.text("tied_to", max_len=65536, default=None),
            transposed=fields.boolean("transposed", default=False),
        )


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A clean model that copies were marked from: hex digest, file names, tensors."""

    digest: str
    files: tuple[str, ...]
    tensors: tuple[MarkedTensor, ...]

    @property
    def weights(self) -> int:
        """How many weights carry a mark of their own (a tied copy repeats one)."""
        return sum(t.rows * t.columns for t in self.tensors if t.tied_to is None)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "digest": self.digest,
            "files": list(self.files),
            "tensors": [tensor.to_dict() for tensor in self.tensors],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> ModelRecord:
        """Read the JSON form; VAULT_INVALID."""
        return cls(
            digest=fields.digest("digest"),
            files=fields.texts("files"),
            tensors=fields.objects("tensors", MarkedTensor.from_fields, max_items=1 << 20),
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """One marked copy: the sealed record that makes its build repeatable and its mark findable.

    Digests are hex; `randomness` is the commitment's 32 bytes; `time` is Unix seconds.
    """

    license_id: str
    licensee: str
    bundle_id: str
    model: str
    marked: str
    params: Params
    randomness: bytes
    commitment: str
    time: int

    @property
    def member(self) -> dict[str, str]:
        """The manifest's `watermark` member: nothing in it helps to find or remove the mark."""
        return {
            "scheme": keys.DOMAIN,
            "params_sha256": self.params.digest,
            "commitment": self.commitment,
            "license_id": self.license_id,
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "license_id": self.license_id,
            "licensee": self.licensee,
            "bundle_id": self.bundle_id,
            "model": self.model,
            "marked": self.marked,
            "params": self.params.to_dict(),
            "params_sha256": self.params.digest,
            "r": self.randomness.hex(),
            "commitment": self.commitment,
            "time": self.time,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Mark:
        """Read the JSON form; VAULT_INVALID, also when params and their digest disagree."""
        params = Params.from_dict(fields.raw("params"), f"{fields.what}.params")
        if fields.digest("params_sha256") != params.digest:
            raise fields.fail("params_sha256", "is not the digest of params")
        return cls(
            license_id=fields.text("license_id", max_len=200),
            licensee=fields.text("licensee", max_len=200),
            bundle_id=fields.text("bundle_id", max_len=200),
            model=fields.digest("model"),
            marked=fields.digest("marked"),
            params=params,
            randomness=bytes.fromhex(fields.digest("r")),
            commitment=fields.digest("commitment"),
            time=fields.integer("time"),
        )


def base64_bytes(fields: Fields, key: str) -> bytes:
    """Read a strict base64 member."""
    text = fields.text(key, max_len=_BASE64_MAX)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise fields.fail(key, "is not base64") from None

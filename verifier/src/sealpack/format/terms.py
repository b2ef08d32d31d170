"""The machine-readable terms of a bundle, `license/terms.json`.

Source: specs/terms.md. The terms restate what the legal text says so that a machine can show it; they
grant nothing by themselves. A license names them by `terms_digest`, the SHA-256 of these very bytes,
and they name the legal text by its digest, so one digest stands for both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from sealpack.format import canonical
from sealpack.format.fields import Fields
from sealpack.format.license import PlanRef
from sealpack.format.values import plain

SCHEMA = "sealpack/terms/v1"
ENTRY_NAME = "license/terms.json"
MAX_BYTES = 64 * 1024
_TEXT_NAME = r"license/[A-Za-z0-9._-]{1,100}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be done with a bundle, as declared. `text` is the entry that holds the legal text."""

    spdx: str
    text: str
    text_sha256: str
    title: str | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    attribution: str | None = None
    ack_required: bool = False
    plan: PlanRef | None = None
    data: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> Terms:
        """Read `license/terms.json` strictly; DOC_SCHEMA names the field."""
        f = Fields(canonical.loads(data, max_bytes=MAX_BYTES, what="terms"), "terms")
        f.schema(SCHEMA)
        f.crit(())
        plan = f.sub("plan", default=None)
        return cls(
            spdx=f.text("spdx", max_len=200),
            text=f.text("text", pattern=_TEXT_NAME),
            text_sha256=f.digest("text_sha256"),
            title=f.text("title", max_len=200, default=None),
            allow=f.texts("allow", default=(), max_items=64),
            deny=f.texts("deny", default=(), max_items=64),
            attribution=f.text("attribution", max_len=1000, default=None),
            ack_required=f.boolean("ack_required", default=False),
            plan=PlanRef.parse(plan) if plan else None,
            data=data,
        )

    def to_bytes(self) -> bytes:
        """The canonical bytes; absent members are left out."""
        members: dict[str, Any] = plain(self, leave_out=("data",))
        return canonical.dumps({"schema": SCHEMA, **members})

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the bytes: a license's `use.terms_digest`."""
        return hashlib.sha256(self.data or self.to_bytes()).hexdigest()

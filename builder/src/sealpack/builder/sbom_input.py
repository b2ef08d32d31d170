"""What the SBOM is made of, gathered before anything is written. Source: specs/sbom.md, "Content"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealpack.builder.model import ModelDescription
from sealpack.builder.sections import BundleSection, SbomSection
from sealpack.format.gguf_split import PartDigest
from sealpack.format.keys import PublicKey
from sealpack.format.manifest import FileEntry


@dataclass(frozen=True, slots=True)
class SbomInput:
    """Everything the SBOM states. `license_expression` is SPDX or a LicenseRef; times in seconds."""

    bundle: BundleSection
    model: ModelDescription
    files: tuple[FileEntry, ...]
    sbom: SbomSection
    signed_at: int
    keys: tuple[PublicKey, ...]
    task: str | None = None
    license_expression: str | None = None
    license_id: str | None = None
    licensee: str | None = None
    marked: bool = False
    encrypted: bool = False
    merged_from: tuple[PartDigest, ...] = ()
    io: Mapping[str, Any] = field(default_factory=dict)

    def of_role(self, *roles: str) -> tuple[FileEntry, ...]:
        """The files with one of `roles`, in their order."""
        return tuple(fact for fact in self.files if fact.role in roles)

"""Is this bundle what these inputs give? A build again, compared instead of written.

Source: specs/container.md, "Reproducing". No private key is needed: everything outside META is made again
and compared byte for byte, the signature is checked with the public key, and since entries have exactly
one layout, equal entries mean equal files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sealpack.builder.assemble import BuildOrder, contents
from sealpack.format import canonical
from sealpack.format.container import BundleReader, Member
from sealpack.format.limits import LIMITS
from sealpack.format.statement import SIG_NAME, Statement
from sealpack.verifier.signature import GivenKeys, check_signature

_SHOWN = 20  # differing JSON members named per file


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a rebuild gave: how many entries were compared, and each difference in words."""

    bundle_digest: str
    signed_at: int
    entries: int
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether the inputs give this bundle."""
        return not self.differences


def check(order: BuildOrder, path: Path) -> Comparison:
    """Build `order` again and compare it with the bundle at `path`, whose signing time is taken over.

    `order.key` and `order.mldsa_key` may be anything with the public keys. Raises what opening the bundle,
    checking its signature and building raise; differences are returned.
    """
    with BundleReader.open(path) as bundle, tempfile.TemporaryDirectory() as scratch:
        said = _said(bundle, order)
        again = dataclasses.replace(order, signed_at=said.signed_at)
        with contents(again, Path(scratch)) as (_, members):
            found = tuple(_differences(bundle, members, said))
        digest = _sha256(bundle.blocks("manifest.json")) if "manifest.json" in bundle.entries else ""
        return Comparison(digest, said.signed_at, len(bundle.signed_names), found)


def _said(bundle: BundleReader, order: BuildOrder) -> Statement:
    second = None if order.mldsa_key is None else order.mldsa_key.public
    return check_signature(bundle, GivenKeys(order.key.public, second)).statement


def _differences(bundle: BundleReader, members: list[Member], said: Statement) -> Iterator[str]:
    """Entries against what is made again, and the signed digests against the entries."""
    ours = {member.name: member for member in members}
    theirs = set(bundle.signed_names)
    yield from (f"{name}: only in the bundle" for name in sorted(theirs - set(ours)))
    yield from (f"{name}: not in the bundle" for name in sorted(set(ours) - theirs))
    found = {name: _sha256(bundle.blocks(name)) for name in sorted(theirs)}
    for name in sorted(theirs & set(ours)):
        yield from _compare(bundle, ours[name], found[name])
    if said.manifest_sha256 != said.resources.get("manifest.json"):
        yield f"{SIG_NAME}: names another manifest.json than it signs"
    for name in sorted(found.keys() | said.resources.keys()):
        if found.get(name) != said.resources.get(name):
            yield f"{SIG_NAME}: signs another {name}"


def _compare(bundle: BundleReader, member: Member, found: str) -> Iterator[str]:
    with member.open() as file:
        if found == _sha256(iter(partial(file.read, 1 << 20), b"")):
            return
    if not member.name.endswith(".json"):
        size = bundle.entries[member.name].item.size
        yield f"{member.name}: other content ({size} bytes in the bundle, {member.size} made again)"
        return
    with member.open() as file:
        made = canonical.loads(file.read(), max_bytes=LIMITS.metadata_entry_bytes)
    there = canonical.loads(bundle.read(member.name), max_bytes=LIMITS.metadata_entry_bytes)
    paths = list(_paths(there, made, ""))
    yield from (f"{member.name}: {path}" for path in paths[:_SHOWN])
    if len(paths) > _SHOWN:
        yield f"{member.name}: and {len(paths) - _SHOWN} more"


def _sha256(blocks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _paths(there: Any, made: Any, path: str) -> Iterator[str]:
    """Where two JSON values differ, with both values."""
    if isinstance(there, dict) and isinstance(made, dict):
        for key in sorted(set(there) | set(made)):
            yield from _paths(there.get(key), made.get(key), f"{path}.{key}" if path else key)
    elif isinstance(there, list) and isinstance(made, list) and len(there) == len(made):
        for index, (a, b) in enumerate(zip(there, made, strict=True)):
            yield from _paths(a, b, f"{path}[{index}]")
    elif there != made:
        yield f"{path} is {_brief(there)} in the bundle, {_brief(made)} made again"


def _brief(value: Any) -> str:
    text = "absent" if value is None else canonical.dumps(value).decode("utf-8")
    return text if len(text) <= 60 else text[:57] + "..."

"""From a model file and a configuration to one sealed, signed bundle.

Source: specs/container.md, specs/manifest.md, specs/signature.md. Payload is streamed once, hashed while
it is written to its place; memory does not grow with the model. The same model, configuration, key and
`signed_at` (and vault record, when the copy is marked, or build record, when it is encrypted) give the same
bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sealpack.builder import build_record, enclosures, signing, tier
from sealpack.builder.config import Config
from sealpack.builder.content import Content, FileContent, blocks
from sealpack.builder.describe import ModelFile, io_member, read_model
from sealpack.builder.encrypt import BuildKey, EncryptedContent
from sealpack.builder.sections import ExtraFile
from sealpack.format import chunks, statement
from sealpack.format.chunks import CHUNK_SIZE
from sealpack.format.container import MIMETYPE, Member, check_name, data_offsets, write_bundle
from sealpack.format.dsse import Envelope
from sealpack.format.encryption import EncryptedFile, EncryptionHeader
from sealpack.format.errors import SealpackError
from sealpack.format.files import atomic_writer, io_error
from sealpack.format.gguf_split import PartDigest
from sealpack.format.keys import ECDSA, ML_DSA, PublicKey, Signer
from sealpack.format.license import open_license
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import WEIGHT_ROLES, ChunkRef, FileEntry, Manifest, Watermark
from sealpack.format.model_header import read_model_header
from sealpack.format.statement import Statement
from sealpack.format.terms import Terms
from sealpack.format.trust import Trust

if TYPE_CHECKING:
    from sealpack.builder.watermark.vault import Vault

MODEL_NAMES = {"onnx": "payload/model.onnx", "gguf": "payload/model.gguf"}
MEDIA_TYPES = {
    ".onnx": "application/vnd.onnx",
    ".gguf": "application/vnd.gguf",
    ".cdx.json": "application/vnd.cyclonedx+json",
    ".json": "application/json",
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".csv": "text/csv",
    ".toml": "application/toml",
}
SBOM_NAME = "sbom.cdx.json"
DEFAULT_TIER = "Experimental"


@dataclass(frozen=True, slots=True)
class MarkOrder:
    """For whom the copy is marked; `now` (Unix seconds) is only kept in the vault."""

    vault: Vault
    licensee: str
    license_id: str
    now: int


@dataclass(frozen=True, slots=True)
class Encryption:
    """With which key to encrypt the weights, and the file and passphrase that keep it; None: it is kept."""

    key: BuildKey
    record: Path | None = None
    passphrase: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """Everything a build depends on. `signed_at` is Unix seconds and goes into the signature."""

    config: Config
    model: Path
    key: Signer
    signed_at: int
    mldsa_key: Signer | None = None
    trust: Trust | None = None
    licenses: tuple[Envelope, ...] = ()
    mark: MarkOrder | None = None
    encryption: Encryption | None = None
    progress: Callable[[int], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that was written."""

    path: Path
    size: int
    manifest: Manifest
    keyid: str
    warnings: tuple[str, ...] = ()

    @property
    def bundle_digest(self) -> str:
        """Hex SHA-256 of the manifest."""
        return self.manifest.bundle_digest


@dataclass(frozen=True, slots=True)
class _Source:
    """One payload file before it has digests."""

    name: str
    role: str
    media_type: str
    content: Content


@dataclass(frozen=True, slots=True)
class _Hashed:
    """One payload file with its digests, and the published files it was merged from with theirs."""

    source: _Source
    digests: chunks.Digests
    merged_from: tuple[PartDigest, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """One entry outside META: what the manifest says of it, and how to read it."""

    entry: FileEntry
    member: Member


def build(order: BuildOrder, out: Path, *, overwrite: bool = False) -> Built:
    """Write the bundle to `out`, whole or not at all, and before it the record of an encrypted build.

    MODEL_*, CONFIG_INVALID, FILE_MISSING, SBOM_INVALID, WATERMARK_UNSUITABLE, SIG_NAMESPACE,
    OUTPUT_EXISTS; `overwrite` allows an existing `out` to be replaced, but never a record.
    """
    if order.key.scheme != ECDSA:
        raise SealpackError("KEY_UNREADABLE", "bundles are signed with an ECDSA P-256 key")
    if order.mldsa_key is not None and order.mldsa_key.scheme != ML_DSA:
        raise SealpackError("KEY_UNREADABLE", f"the ML-DSA key is of scheme {order.mldsa_key.scheme}")
    if out.exists() and not overwrite:
        raise SealpackError("OUTPUT_EXISTS", f"{out} already exists")
    if order.encryption is not None and order.encryption.record is not None:
        build_record.check_absent(order.encryption.record)
    _check_signer(order)
    facts = _gather(order)
    with _marked(facts, out) as (weights, watermark), contextlib.ExitStack() as kept:
        recipe = _Recipe(facts, weights, watermark)
        with atomic_writer(out, replace=overwrite) as file:
            manifest = _write(recipe, file)
            size = file.tell()
            kept.callback(_keep(facts, manifest))
        kept.pop_all()
    return Built(out, size, manifest, order.key.keyid, facts.model.warnings)


def _keep(facts: _Facts, manifest: Manifest) -> Callable[[], None]:
    """Write the record before the bundle appears: none is out whose key is lost. What undoes it."""
    asked = facts.order.encryption
    if asked is None or asked.record is None or facts.key is None:
        return lambda: None
    build_record.BuildRecord.of(manifest, facts.key).write(asked.record, asked.passphrase)
    return partial(asked.record.unlink, missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Facts:
    """An order with everything that can be said and refused before gigabytes are hashed."""

    order: BuildOrder
    model: ModelFile
    io: dict[str, Any]
    terms: Terms
    enclosed: tuple[_Part, ...]
    claim: tier.Claim
    key: BuildKey | None = None  # with a salt for every file that it encrypts


def _gather(order: BuildOrder) -> _Facts:
    model = read_model(order.model)
    _check_kind(order.config, model)
    payload = _payload(order.config, model, model.contents)
    names = {source.name for source in payload}
    terms = enclosures.terms(order.config, model.description.license)
    given = tuple(enclosures.metadata(order.config, terms))
    enclosed = tuple(_metadata_part(*each) for each in given)
    io = io_member(model.description, order.config.io, names)
    claim = tier.read_claim(order.config, order.key.keyid, order.signed_at, order.trust, given)
    return _Facts(order, model, io, terms, enclosed, claim, _key(order, payload))


def _key(order: BuildOrder, payload: list[_Source]) -> BuildKey | None:
    """The build's key with its salts. A tier that nobody can judge without a key is not claimed."""
    if order.encryption is None:
        return None
    wanted = order.config.bundle.quality_tier
    if wanted not in (None, DEFAULT_TIER):
        raise SealpackError(
            "TIER_UNPROVEN",
            f"{wanted} is not proven: evidence speaks of what is inside an encrypted model",
            remedy="claim no tier for the encrypted build; evidence may still ride along",
        )
    return order.encryption.key.covering(s.name for s in payload if s.role in WEIGHT_ROLES)


def _check_kind(config: Config, model: ModelFile) -> None:
    wanted = config.bundle.kind
    if wanted is not None and wanted != model.description.format:
        raise SealpackError(
            "CONFIG_INVALID", f"bundle.kind is {wanted}, {model.path.name} is {model.description.format}"
        )


def _check_signer(order: BuildOrder) -> None:
    """A bundle that its own trust file would refuse is not worth hashing gigabytes for."""
    if order.trust is None:
        if order.licenses:
            raise SealpackError("USAGE", "licenses can only ride in a bundle together with a trust file")
        return
    try:
        entry = order.trust.entry(order.key.keyid, "bundle", "")
    except SealpackError as error:
        remedy = "list it first: `sealpack trust add --key NAME.pub.pem --role bundle`"
        raise SealpackError(
            error.code, error.message, remedy=remedy if error.code == "SIG_KEY_UNKNOWN" else None
        ) from None
    signing.signers(entry, order.key, order.mldsa_key)
    if not entry.covers(order.config.bundle.id):
        raise SealpackError("SIG_NAMESPACE", f"the key may not sign for {order.config.bundle.id}")


@contextlib.contextmanager
def _marked(facts: _Facts, out: Path) -> Iterator[tuple[tuple[Content, ...], Watermark | None]]:
    """The weights to pack: the clean ones, or marked copies that live as long as the block."""
    order, model = facts.order, facts.model
    if order.mark is None:
        yield model.contents, None
        return
    from sealpack.builder.watermark.embed import mark_model

    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent)
    except OSError as error:
        raise io_error(error, out, "write") from None
    with folder as made:
        clean, parts = _clean_files(model, Path(made))
        names = [path.relative_to(clean[0].parent) for path in clean]
        copies = tuple(Path(made) / "marked" / name for name in names)
        for copy in copies:
            copy.parent.mkdir(parents=True, exist_ok=True)
        mark = mark_model(
            order.mark.vault,
            clean,
            copies,
            model.tensors,
            licensee=order.mark.licensee,
            license_id=order.mark.license_id,
            bundle_id=order.config.bundle.id,
            now=order.mark.now,
        )
        weights, *others = copies
        yield (FileContent(weights, parts), *map(FileContent, others)), Watermark(**mark.member)


def _clean_files(model: ModelFile, scratch: Path) -> tuple[tuple[Path, ...], tuple[PartDigest, ...]]:
    """The clean weights as files: marking needs them in place, so parts are merged into `scratch` first."""
    if model.split is None:
        return (model.path, *model.external), ()
    merged, parts = scratch / "merged.gguf", list[PartDigest]()
    with atomic_writer(merged) as file:
        for block in blocks(model.contents[0], model.split.size, lambda _: None, parts.append):
            file.write(block)
    return (merged,), tuple(parts)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """Everything but the digests of the payload: given those, what the bundle consists of."""

    facts: _Facts
    weights: tuple[Content, ...]  # to pack for the model and its data
    watermark: Watermark | None

    @property
    def sources(self) -> list[_Source]:
        """Payload files in name order, as they are stored."""
        clean = _payload(self.facts.order.config, self.facts.model, self.weights)
        return [self._stored(source) for source in clean]

    def _stored(self, source: _Source) -> _Source:
        key, bundle = self.facts.key, self.facts.order.config.bundle
        if key is None or source.role not in WEIGHT_ROLES:
            return source
        content = key.encrypted(source.content, source.name, bundle.id, bundle.release_index)
        return replace(source, content=content)

    def members(self, hashed: list[_Hashed]) -> tuple[Manifest, list[Member]]:
        """The manifest, and all entries but those of META."""
        parts = [part for pair in _numbered(hashed) for part in pair] + list(self.facts.enclosed)
        merged_from = tuple(part for each in hashed for part in each.merged_from)
        parts.append(_sbom_part(self.facts, parts, merged_from))
        contents = [each.source.content for each in hashed]
        encrypted = tuple(c.entry for c in contents if isinstance(c, EncryptedContent))
        manifest = _manifest(self.facts, parts, self.watermark, encrypted)
        members = [part.member for part in parts]
        members += [Member.of_bytes("mimetype", MIMETYPE), Member.of_bytes("manifest.json", manifest.data)]
        return manifest, members


@contextlib.contextmanager
def contents(order: BuildOrder, scratch: Path) -> Iterator[tuple[Manifest, list[Member]]]:
    """What a build of `order` would put into its bundle outside META; nothing is signed.

    A marked copy is made in the folder `scratch` and lives as long as the block. Codes as of :func:`build`.
    """
    facts = _gather(order)
    with _marked(facts, scratch / "check") as (weights, watermark):
        recipe = _Recipe(facts, weights, watermark)
        yield recipe.members([_hash(source, order.progress) for source in recipe.sources])


def _write(recipe: _Recipe, file: BinaryIO) -> Manifest:
    """Write the bundle in one pass over the payload.

    Where payload stands depends on the sizes of what comes before it, and sizes are known before digests
    are: so payload is hashed while it is written to its place, and the rest is written around it.
    """
    order = recipe.facts.order
    expected = [_unhashed(source) for source in recipe.sources]
    manifest, members = recipe.members(expected)
    riding = _riding(order)
    offsets = data_offsets([*members, *_signatures(_unsigned(order), manifest), *riding])
    offsets = {each.source.name: offsets[each.source.name] for each in expected}
    with _loading("jsonschema.validators"):
        hashed = [_pour(each, file, offsets[each.source.name], order.progress) for each in expected]
    manifest, members = recipe.members(hashed)
    if manifest.encryption is None:
        recipe.facts.claim.check_subjects(manifest)
    _check(members, order, manifest)
    # What we merge must be what every reader accepts; of an encrypted model that is seen when it is opened.
    if recipe.facts.model.split is not None and manifest.encryption is None:
        model = manifest.model
        read_model_header(file, offsets[model.name], model.size, model.name)
    write_bundle(file, [*members, *_signatures(order, manifest), *riding], offsets)
    return manifest


def _check(members: list[Member], order: BuildOrder, manifest: Manifest) -> None:
    """What can only be refused once digests are known, and before anything is signed."""
    from sealpack.builder import sbom

    sbom.validate(next(m for m in members if m.name == SBOM_NAME).open().read())
    for envelope in order.licenses:
        assert order.trust is not None  # _check_signer
        license = open_license(envelope, order.trust)
        if manifest.encryption is not None:
            build_record.check_binding(license, manifest.bundle_id)
        if not license.covers(manifest.bundle_id, manifest.version, manifest.bundle_digest):
            raise SealpackError("BUNDLE_MISMATCH", f"license {license.license_id} is for another bundle")


def _unhashed(source: _Source) -> _Hashed:
    """Digests of the right form for content that was not read yet."""
    size = source.content.size
    digests = chunks.Digests(size, 0, "0" * 64, bytes(chunks.chunk_count(size) * chunks.LEAF_SIZE))
    return _Hashed(source, digests, source.content.parts)


def _hash(source: _Source, progress: Callable[[int], None]) -> _Hashed:
    told: list[PartDigest] = []
    digests = chunks.digest_blocks(blocks(source.content, source.content.size, progress, told.append))
    return _Hashed(source, digests, tuple(told))


def _pour(expected: _Hashed, file: BinaryIO, at: int, progress: Callable[[int], None]) -> _Hashed:
    """Copy payload of the expected size to offset `at` of the bundle, and hash what is written there."""
    file.seek(at)
    told: list[PartDigest] = []

    def written() -> Iterator[bytes]:
        for block in blocks(expected.source.content, expected.digests.size, progress, told.append):
            file.write(block)
            yield block

    return _Hashed(expected.source, chunks.digest_blocks(written()), tuple(told))


@dataclass(frozen=True, slots=True)
class Blank:
    """Signs with zeros, as many as a signature mostly has: for knowing where things will stand."""

    public: PublicKey

    @property
    def keyid(self) -> str:
        return self.public.keyid

    @property
    def scheme(self) -> str:
        return self.public.scheme

    def sign(self, message: bytes) -> bytes:
        return bytes({ECDSA: 71, ML_DSA: 3309}[self.scheme])


def _unsigned(order: BuildOrder) -> BuildOrder:
    second = order.mldsa_key
    return replace(
        order, key=Blank(order.key.public), mldsa_key=None if second is None else Blank(second.public)
    )


@contextlib.contextmanager
def _loading(module: str) -> Iterator[None]:
    """Import `module` beside the block: the SBOM's schema validator takes as long as hashing a gigabyte."""
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(importlib.import_module, module)
        yield
        loaded.result()


def _payload(config: Config, model: ModelFile, weights: tuple[Content, ...]) -> list[_Source]:
    """Payload files in name order; `weights` are to be packed for the model and its data."""
    name = MODEL_NAMES[model.description.format]
    sources = [_Source(name, "model", MEDIA_TYPES[Path(name).suffix], weights[0])]
    for clean, packed in zip(model.external, weights[1:], strict=True):
        relative = clean.relative_to(model.path.parent).as_posix()
        sources.append(_Source(f"payload/{relative}", "model-data", "application/octet-stream", packed))
    sources += [_extra(extra) for extra in config.files]
    for source in sources:
        check_name(source.name)
    return sorted(sources, key=lambda source: source.name)


def _extra(extra: ExtraFile) -> _Source:
    if not extra.path.is_file():
        raise SealpackError("FILE_MISSING", f"{extra.path} does not exist")
    media_type = extra.media_type or media_type_of(extra.name)
    return _Source(f"payload/{extra.name}", extra.role, media_type, FileContent(extra.path))


def media_type_of(name: str) -> str:
    """A media type from the file name's ending."""
    endings = (kind for ending, kind in MEDIA_TYPES.items() if name.lower().endswith(ending))
    return next(endings, "application/octet-stream")


def _numbered(hashed: list[_Hashed]) -> Iterator[tuple[_Part, _Part]]:
    """Each payload file with its chunk table, numbered in name order."""
    for number, each in enumerate(hashed):
        source, digests = each.source, each.digests
        table_name = f"chunks/{number}.sha256c"
        if len(digests.table) > LIMITS.chunk_table_bytes:
            raise SealpackError("CONTAINER_LIMIT", f"{source.content} is too large")
        table = _metadata_part(table_name, "chunk-table", digests.table)
        reference = ChunkRef(table_name, CHUNK_SIZE, digests.count, table.entry.sha256)
        entry = FileEntry(
            source.name, source.role, source.media_type, digests.size, digests.sha256, reference
        )
        yield _Part(entry, Member(source.name, digests.size, digests.crc, source.content.open)), table


def _metadata_part(name: str, role: str, data: bytes) -> _Part:
    if role != "chunk-table" and len(data) > LIMITS.metadata_entry_bytes:
        raise SealpackError("CONTAINER_LIMIT", f"{name} is larger than {LIMITS.metadata_entry_bytes} bytes")
    entry = FileEntry(name, role, media_type_of(name), len(data), hashlib.sha256(data).hexdigest())
    return _Part(entry, Member.of_bytes(name, data))


def _sbom_part(facts: _Facts, parts: list[_Part], merged_from: tuple[PartDigest, ...]) -> _Part:
    from sealpack.builder import sbom
    from sealpack.builder.sbom_input import SbomInput

    order = facts.order
    entries = [p.entry for p in parts if p.entry.role != "chunk-table"]
    given = SbomInput(
        bundle=order.config.bundle,
        model=facts.model.description,
        files=tuple(sorted(entries, key=lambda entry: entry.name)),
        sbom=order.config.sbom,
        signed_at=order.signed_at,
        keys=tuple(key.public for key in (order.key, order.mldsa_key) if key is not None),
        task=facts.io["task"],
        io=facts.io,
        license_expression=facts.terms.spdx,
        license_id=order.mark.license_id if order.mark else None,
        licensee=order.mark.licensee if order.mark else None,
        marked=order.mark is not None,
        encrypted=facts.key is not None,
        merged_from=merged_from,
    )
    return _metadata_part(SBOM_NAME, "sbom", sbom.build(given))


def _manifest(
    facts: _Facts,
    parts: list[_Part],
    watermark: Watermark | None,
    encrypted: tuple[EncryptedFile, ...],
) -> Manifest:
    bundle, described = facts.order.config.bundle, facts.model.description
    made = Manifest(
        bundle_id=bundle.id,
        version=bundle.version,
        release_index=bundle.release_index,
        kind=described.format,
        name=(bundle.name or described.name or bundle.id.rsplit("/", 1)[-1])[:200],
        quality_tier=DEFAULT_TIER,  # until evidence has proven more
        files=tuple(sorted((part.entry for part in parts), key=lambda entry: entry.name)),
        engine=facts.model.engine,
        io=facts.io,
        intended_use=bundle.intended_use or "",
        description=(bundle.description or described.description or "")[:4096],
        support=bundle.support,
        plan=facts.terms.plan,
        recertify_by=bundle.recertify_by,
        requires_features=bundle.requires_features or None,
        watermark=watermark,
        encryption=EncryptionHeader(encrypted).to_dict() if encrypted else None,
    )
    if not encrypted:
        with next(part for part in parts if part.entry.role == "sbom").member.open() as sbom:
            made = facts.claim.stamp(made, sbom.read())
    data = made.to_bytes()
    Manifest.from_bytes(data)  # what we write must be what every reader accepts
    return replace(made, data=data)


def _signatures(order: BuildOrder, manifest: Manifest) -> list[Member]:
    """META/model.sig, and META/model.mldsa65.sig over the same bytes where there is a key for it."""
    resources = {entry.name: entry.sha256 for entry in manifest.files}
    resources["mimetype"] = hashlib.sha256(MIMETYPE).hexdigest()
    resources["manifest.json"] = manifest.bundle_digest
    stated: dict[str, Any] = {}
    if order.mldsa_key is not None:  # said inside the signature, so that nobody can take it away
        stated["required_schemes"] = (ECDSA, ML_DSA)
    if order.trust is not None:
        stated |= {
            "min_keyring": order.trust.keyring.version,
            "min_revocations": order.trust.revocations.version,
        }
    said = Statement(
        resources,
        manifest.bundle_id,
        manifest.release_index,
        manifest.bundle_digest,
        order.signed_at,
        **stated,
    )
    signature = statement.sign(said, order.key)
    members = [Member.of_bytes(statement.SIG_NAME, signature)]
    if order.mldsa_key is not None:
        second = statement.sign_mldsa(signature, order.mldsa_key)
        members.append(Member.of_bytes(statement.MLDSA_NAME, second))
    return members


def _riding(order: BuildOrder) -> list[Member]:
    """Trust documents and licenses that ride along, outside the signature."""
    if order.trust is None:
        return []
    *roots, keyring, revocations = order.trust.chain
    first = order.trust.root.version - len(order.trust.older)
    members = [
        *(Member.of_bytes(f"META/trust/root.{n}.json", r.to_bytes()) for n, r in enumerate(roots, first)),
        Member.of_bytes("META/trust/keyring.json", keyring.to_bytes()),
        Member.of_bytes("META/trust/revocations.json", revocations.to_bytes()),
    ]
    for envelope in order.licenses:
        license = open_license(envelope, order.trust)
        members.append(Member.of_bytes(f"META/license/{license.license_id}.json", envelope.to_bytes()))
    return members

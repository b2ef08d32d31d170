"""`sealpack inspect`: what a file says, without believing it."""

from __future__ import annotations

import json
from typing import Any

import click

from sealpack.format import billing, canonical, documents, statement
from sealpack.format.container import BundleReader
from sealpack.format.documents import Parcel
from sealpack.format.dsse import Envelope
from sealpack.format.errors import SealpackError, printable
from sealpack.format.fields import Fields
from sealpack.format.files import read_bounded
from sealpack.format.limits import LIMITS
from sealpack.format.manifest import Manifest
from sealpack.format.trust import ROOT_ROLES, TRUST_SCHEMA
from sealpack.verifier.cli import support
from sealpack.verifier.completeness import Completeness, assess
from sealpack.verifier.completeness_elements import STANDARD

WARNING = "not verified: this is what the file says of itself"


@click.command(short_help="Show what a file says (not verified).")
@click.argument("file", type=click.Path(dir_okay=False))
@support.format_option
def inspect(file: str, fmt: str) -> None:
    """Show what FILE (a bundle, license, request, reply, trust file or signed invoice) says.

    Nothing is verified.
    """
    with support.existing(file).open("rb") as stream:
        head = stream.read(4)
    found, completeness = _bundle(file) if head == b"PK\3\4" else (_documents(file), None)
    result = {"schema": "sealpack/inspect/v1", "verified": False, **found}
    lines = [WARNING, *json.dumps(found, indent=2, ensure_ascii=False).split("\n")]
    if completeness is not None:
        result["completeness"] = completeness.to_dict()
        lines += [f"SBOM completeness: {STANDARD}", *completeness.lines()]
    support.emit(result, "\n".join(map(printable, lines)), fmt)


def _bundle(file: str) -> tuple[dict[str, Any], Completeness | None]:
    """What the bundle's structure, signature and manifest say, and how complete its SBOM is."""
    with BundleReader.open(file) as bundle:
        entries = [{"name": n, "size": p.item.size, "offset": p.data_at} for n, p in bundle.entries.items()]
        manifest = None
        if "manifest.json" in bundle.entries:
            bound = LIMITS.metadata_entry_bytes
            manifest = canonical.loads(bundle.read("manifest.json"), max_bytes=bound, what="manifest.json")
        signature = None
        if "META/model.sig" in bundle.entries:
            envelope = statement.read_signature(bundle.read("META/model.sig", LIMITS.signature_bytes))
            said = canonical.loads(envelope.payload, max_bytes=LIMITS.signature_bytes, what="statement")
            own = Fields(said, "statement", "SIG_STATEMENT").sub("predicate").sub("x-sealpack")
            members = {name: own.raw(name) for name in own.keys()}  # noqa: SIM118 - not a dict
            signature = {"keyid": envelope.signatures[0].keyid, **members}
        completeness = _completeness(bundle, signature is not None)
    found = {"kind": "bundle", "entries": entries, "signature": signature, "manifest": manifest}
    return found, completeness


def _completeness(bundle: BundleReader, signed: bool) -> Completeness | None:
    """How complete the SBOM is; None when the bundle has no readable one."""
    try:
        manifest = Manifest.from_bytes(bundle.read("manifest.json"))
        (entry,) = manifest.with_role("sbom")
        return assess(json.loads(bundle.read(entry.name)), manifest, signed=signed)
    except (SealpackError, KeyError, ValueError, RecursionError):
        return None


def _signed(data: bytes, file: str) -> dict[str, Any]:
    """A signed invoice or statement."""
    envelope = Envelope.from_bytes(data, file, max_bytes=LIMITS.parcel_bytes)
    kind = billing.TYPES.get(envelope.payload_type, "document")
    payload = canonical.loads(envelope.payload, max_bytes=LIMITS.parcel_bytes, what=kind)
    return {"kind": kind, "signed_by": [s.keyid for s in envelope.signatures], "payload": payload}


def _documents(file: str) -> dict[str, Any]:
    data = read_bounded(file, LIMITS.parcel_bytes)
    if billing.is_signed(data):
        return _signed(data, file)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise SealpackError("DOC_TYPE", f"{file} is not a bundle and not a sealpack document") from None
    if isinstance(value, dict) and value.get("schema") == TRUST_SCHEMA:
        envelopes = tuple(Envelope.from_dict(value.get(kind), kind) for kind in ROOT_ROLES)
    else:
        envelopes = Parcel.from_bytes(data, file).documents
    return {
        "kind": "documents",
        "documents": [
            {
                "kind": documents.kind_of(e),
                "signed_by": [s.keyid for s in e.signatures],
                "payload": canonical.loads(e.payload, what=documents.kind_of(e)),
            }
            for e in envelopes
        ],
    }

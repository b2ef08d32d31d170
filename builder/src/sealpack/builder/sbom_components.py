"""The components of the SBOM: bundle, model, files, data sets, libraries, algorithms and keys.

Source: specs/sbom.md, "Content". Every function takes the facts and returns a cyclonedx-python-lib value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from urllib.parse import quote

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.component import Component, ComponentScope, ComponentType, Pedigree
from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity
from cyclonedx.model.crypto import (
    AlgorithmProperties,
    CryptoAssetType,
    CryptoFunction,
    CryptoPrimitive,
    CryptoProperties,
    RelatedCryptoMaterialProperties,
    RelatedCryptoMaterialState,
    RelatedCryptoMaterialType,
)
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from packageurl import PackageURL

from sealpack.builder import sbom_system
from sealpack.builder.sbom_check import invalid
from sealpack.builder.sbom_input import SbomInput
from sealpack.builder.sections import Dataset
from sealpack.builder.spdx import is_expression, known_id
from sealpack.format.keys import ECDSA, ML_DSA, PublicKey
from sealpack.format.manifest import FileEntry

ENGINE_LIBRARIES = {
    "onnx": ("onnxruntime", "numpy"),
    "gguf": ("llama-cpp-python", "numpy"),
}
CORE_LIBRARIES = ("click", "cryptography", "rfc8785")
_MLDSA_KEY_BITS = 1952 * 8


def supplier(given: SbomInput) -> OrganizationalEntity:
    """Who answers for the bundle."""
    sbom = given.sbom
    contact = sbom.contact or given.bundle.support
    return OrganizationalEntity(
        name=sbom.supplier or given.bundle.id.split("/")[0],
        urls=[XsUri(sbom.supplier_url)] if sbom.supplier_url else None,
        contacts=[_contact(contact)] if contact else None,
    )


def _contact(text: str) -> OrganizationalContact:
    is_mail = re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None
    return OrganizationalContact(email=text) if is_mail else OrganizationalContact(name=text)


def tool_component() -> Component:
    """The sealpack that builds."""
    return Component(
        name="sealpack", version=_version(), type=ComponentType.APPLICATION, bom_ref="tool:sealpack"
    )


def _version() -> str:
    return metadata.version("sealpack")


def bundle_component(given: SbomInput) -> Component:
    """The bundle itself, the subject of the SBOM."""
    bundle = given.bundle
    return Component(
        type=ComponentType.APPLICATION,
        bom_ref="bundle",
        name=bundle.id,
        version=bundle.version,
        description=bundle.description,
        supplier=supplier(given),
        licenses=_licenses(given.license_expression, given),
        external_references=[
            *_references(given, ("license-text", "license-terms")),
            *_link(ExternalReferenceType.SECURITY_CONTACT, given.sbom.security.policy_url),
            *_link(ExternalReferenceType.ADVISORIES, given.sbom.security.advisories_url),
        ],
        properties=_properties(
            ("sealpack:release-index", bundle.release_index),
            ("sealpack:quality-tier", bundle.quality_tier),
            ("sealpack:intended-use", bundle.intended_use),
            ("sealpack:recertify-by", bundle.recertify_by),
            ("sealpack:license-id", given.license_id),
            *sbom_system.facts(given),
        ),
    )


def model_component(given: SbomInput) -> Component:
    """The model, without its model card."""
    model, bundle = given.model, given.bundle
    weights = given.of_role("model")[0]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        name=model.name or bundle.name or bundle.id.rsplit("/", 1)[-1],
        version=model.version or bundle.version,
        description=model.description or bundle.description,
        supplier=supplier(given),
        hashes=[_sha256(weights)],
        licenses=_licenses(model.license or given.license_expression, given),
        purl=_model_purl(given, weights),
        pedigree=pedigree(given),
        external_references=[*_references(given, ("card", "evidence")), *_merged_from(given)],
        authors=[OrganizationalContact(name=model.author)] if model.author else None,
        properties=_properties(
            ("sealpack:file", weights.name),
            ("sealpack:bytes", weights.size),
            ("sealpack:model-date", given.sbom.model_date),
        ),
    )


def _model_purl(given: SbomInput, weights: FileEntry) -> PackageURL:
    if given.sbom.purl is not None:
        return _purl(given.sbom.purl)
    namespace, _, name = given.bundle.id.rpartition("/")
    return PackageURL(
        type="generic",
        namespace=namespace,
        name=name,
        version=given.bundle.version,
        qualifiers={"checksum": f"sha256:{weights.sha256}"},
    )


def _purl(text: str) -> PackageURL:
    try:
        return PackageURL.from_string(text)
    except ValueError as error:
        raise invalid(f"{text!r} is not a package URL: {error}") from None


def pedigree(given: SbomInput) -> Pedigree | None:
    """The base model: the declared one, else those the file names."""
    ancestors = [*_declared_ancestor(given), *_named_ancestors(given)]
    if not ancestors:
        return None
    notes = "marked for one licensee; see formulation" if given.marked else None
    return Pedigree(ancestors=ancestors[:1] if given.sbom.base_model else ancestors, notes=notes)


def _declared_ancestor(given: SbomInput) -> list[Component]:
    base = given.sbom.base_model
    if base is None:
        return []
    reference = _link(ExternalReferenceType.DISTRIBUTION, base.url)
    return [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref="base:0",
            name=base.name,
            version=base.version,
            purl=_purl(base.purl) if base.purl else None,
            licenses=_licenses(base.license, None),
            external_references=reference,
        )
    ]


def _named_ancestors(given: SbomInput) -> list[Component]:
    return [
        Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"base:{index}",
            name=base.name,
            version=base.version,
            supplier=OrganizationalEntity(name=base.organization) if base.organization else None,
            external_references=_link(ExternalReferenceType.DISTRIBUTION, base.url),
        )
        for index, base in enumerate(given.model.base_models)
    ]


def _link(kind: ExternalReferenceType, url: str | None) -> list[ExternalReference]:
    return [ExternalReference(type=kind, url=XsUri(url))] if url else []


_REFERENCE_TYPES = {
    "card": ExternalReferenceType.MODEL_CARD,
    "evidence": ExternalReferenceType.EVIDENCE,
    "license-text": ExternalReferenceType.LICENSE,
    "license-terms": ExternalReferenceType.OTHER,
}


def _references(given: SbomInput, roles: tuple[str, ...]) -> list[ExternalReference]:
    return [
        ExternalReference(type=_REFERENCE_TYPES[fact.role], url=XsUri(fact.name), hashes=[_sha256(fact)])
        for fact in given.of_role(*roles)
    ]


def _merged_from(given: SbomInput) -> list[ExternalReference]:
    """The published files of a split model, so that the merged one can be traced to them."""
    return [
        ExternalReference(
            type=ExternalReferenceType.OTHER,
            url=XsUri(quote(part.name)),
            comment=f"part {number} of {len(given.merged_from)} of the split model, {part.size} bytes",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)],
        )
        for number, part in enumerate(given.merged_from, 1)
    ]


def other_payload(given: SbomInput) -> list[FileEntry]:
    """Payload files beside the model itself."""
    return [f for f in given.files if f.name.startswith("payload/") and f.role != "model"]


def file_component(fact: FileEntry) -> Component:
    """One payload file."""
    return Component(
        type=ComponentType.FILE,
        bom_ref=f"file:{fact.name}",
        name=fact.name,
        hashes=[_sha256(fact)],
        properties=_properties(("sealpack:role", fact.role), ("sealpack:bytes", fact.size)),
    )


def datasets(given: SbomInput) -> list[Dataset]:
    """Declared data sets first, then those the model names."""
    declared = {d.name for d in given.sbom.datasets}
    named = [Dataset(name, "training") for name in given.model.datasets if name not in declared]
    return [*given.sbom.datasets, *named]


def dataset_component(index: int, dataset: Dataset) -> Component:
    """One data set, without its `data` member."""
    return Component(
        type=ComponentType.DATA,
        bom_ref=f"data:{index}",
        name=dataset.name,
        description=dataset.description,
        licenses=_licenses(dataset.license, None),
        external_references=_link(ExternalReferenceType.DISTRIBUTION, dataset.url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=dataset.sha256)] if dataset.sha256 else None,
        properties=_properties(
            ("sealpack:use", dataset.use),
            ("sealpack:dataset:content", dataset.content),
            ("sealpack:dataset:provenance", dataset.provenance),
            ("sealpack:dataset:statistics", dataset.statistics),
        ),
    )


def runtime_component(given: SbomInput) -> Component:
    """What runs the model; not carried in the bundle."""
    version = _version()
    return Component(
        type=ComponentType.APPLICATION,
        bom_ref="runtime",
        name="sealpack-runtime",
        version=version,
        scope=ComponentScope.REQUIRED,
        licenses=[DisjunctiveLicense(id="Apache-2.0")],
        purl=PackageURL(type="pypi", name="sealpack", version=version),
        properties=_properties(
            ("sealpack:carried", "no"), ("sealpack:hardware", sbom_system.hardware(given))
        ),
    )


def library_component(name: str) -> Component:
    """A library of the runtime, with the versions this sealpack asks for."""
    requirement = _requirement(name)
    exact = re.fullmatch(r"==([A-Za-z0-9.]+)", requirement)
    version = exact.group(1) if exact else None
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=f"lib:{name}",
        name=name,
        version=version,
        scope=ComponentScope.REQUIRED,
        purl=PackageURL(type="pypi", name=name, version=version),
        properties=_properties(("sealpack:requirement", requirement or None), ("sealpack:carried", "no")),
    )


def _requirement(name: str) -> str:
    """The version range this sealpack asks for, as its own package metadata states it."""
    for line in metadata.requires("sealpack") or ():
        found = re.match(rf"{re.escape(name)}\s*([^;\s]*)", line)
        if found and not re.match(r"[A-Za-z0-9._-]", line[len(name) : len(name) + 1]):
            return found.group(1)
    return ""


def crypto_components(keys: tuple[PublicKey, ...]) -> list[Component]:
    """The algorithms and the public keys."""
    signature = CryptoProperties(
        asset_type=CryptoAssetType.ALGORITHM,
        algorithm_properties=AlgorithmProperties(
            primitive=CryptoPrimitive.SIGNATURE,
            parameter_set_identifier="256",
            curve="P-256",
            crypto_functions=[CryptoFunction.SIGN, CryptoFunction.VERIFY],
            classical_security_level=128,
            nist_quantum_security_level=0,
        ),
        oid="1.2.840.10045.4.3.2",
    )
    digest = CryptoProperties(
        asset_type=CryptoAssetType.ALGORITHM,
        algorithm_properties=AlgorithmProperties(
            primitive=CryptoPrimitive.HASH,
            parameter_set_identifier="256",
            crypto_functions=[CryptoFunction.DIGEST],
            classical_security_level=128,
        ),
        oid="2.16.840.1.101.3.4.2.1",
    )
    algorithm = _crypto("crypto:ecdsa-p256-sha256", "ECDSA-P256-SHA256", signature)
    found = [algorithm, _crypto("crypto:sha-256", "SHA-256", digest)]
    found += [_key_component(key, algorithm, 256) for key in keys if key.scheme == ECDSA]
    for key in keys:
        if key.scheme == ML_DSA:
            second = _mldsa_algorithm()
            found += [second, _key_component(key, second, _MLDSA_KEY_BITS)]
    return found


def _mldsa_algorithm() -> Component:
    properties = CryptoProperties(
        asset_type=CryptoAssetType.ALGORITHM,
        algorithm_properties=AlgorithmProperties(
            primitive=CryptoPrimitive.SIGNATURE,
            parameter_set_identifier="65",
            crypto_functions=[CryptoFunction.SIGN, CryptoFunction.VERIFY],
            classical_security_level=192,
            nist_quantum_security_level=3,
        ),
        oid="2.16.840.1.101.3.4.3.18",
    )
    return _crypto("crypto:ml-dsa-65", "ML-DSA-65", properties)


def _key_component(key: PublicKey, algorithm: Component, bits: int) -> Component:
    material = RelatedCryptoMaterialProperties(
        type=RelatedCryptoMaterialType.PUBLIC_KEY,
        id=key.keyid,
        state=RelatedCryptoMaterialState.ACTIVE,
        algorithm_ref=algorithm.bom_ref,
        size=bits,
        format="PEM",
    )
    properties = CryptoProperties(
        asset_type=CryptoAssetType.RELATED_CRYPTO_MATERIAL,
        related_crypto_material_properties=material,
    )
    return _crypto(f"key:{key.keyid}", "bundle signing key", properties)


def _crypto(ref: str, name: str, properties: CryptoProperties) -> Component:
    return Component(
        type=ComponentType.CRYPTOGRAPHIC_ASSET, bom_ref=ref, name=name, crypto_properties=properties
    )


def _sha256(fact: FileEntry) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=fact.sha256)


def _properties(*facts: tuple[str, object]) -> Iterable[Property]:
    return [Property(name=name, value=str(value)) for name, value in facts if value is not None]


def _licenses(text: str | None, given: SbomInput | None) -> list[License]:
    """SPDX id, SPDX expression, or a named license; anything else a model file says is a name."""
    if text is None:
        return []
    known = known_id(text)
    if known is not None:
        return [DisjunctiveLicense(id=known)]
    if " " in text and is_expression(text):
        return [LicenseExpression(text)]
    full = given.of_role("license-text")[:1] if given is not None else ()
    return [DisjunctiveLicense(name=text, url=XsUri(full[0].name) if full else None)]

"""How much of the minimum elements of an SBOM for AI a bundle's SBOM has, per cluster.

Source: specs/sbom.md, "Completeness". Pure: the parsed SBOM and the manifest in, results out. What is
said is not judged, only whether something is said; a document of any shape gives a result, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from sealpack.format.manifest import Manifest
from sealpack.verifier.completeness_elements import CLUSTERS, ELEMENTS, STANDARD, Element

PRESENT, ABSENT, NOT_APPLICABLE = "present", "absent", "not-applicable"
WAIVER = "sealpack:not-applicable:"

_STEP = re.compile(r"([A-Za-z]+)(?:\[(!?)([^\]*]+)(\*?)\])?")
_TAGS = ("type", "alg", "name")  # what `list[tag]` compares: the first that an object has
_COUNTED = 1000  # of more objects than this it is only said that one lacks an element
_PATH_DOT = re.compile(r"\.(?![^\[]*\])")


@dataclass(frozen=True, slots=True)
class ElementResult:
    """One element's status. `place` was looked at; `note` says how to fill it, or why it is waived."""

    id: str
    title: str
    status: str
    place: str
    note: str = ""

    def to_dict(self) -> dict[str, str]:
        """The JSON form."""
        told = {"id": self.id, "title": self.title, "status": self.status, "place": self.place}
        return told | ({"note": self.note} if self.note else {})


@dataclass(frozen=True, slots=True)
class ClusterResult:
    """One cluster: its elements and its score, `present` of `applicable`."""

    id: str
    title: str
    elements: tuple[ElementResult, ...]

    @property
    def present(self) -> int:
        """How many elements are there."""
        return sum(e.status == PRESENT for e in self.elements)

    @property
    def applicable(self) -> int:
        """How many elements count."""
        return sum(e.status != NOT_APPLICABLE for e in self.elements)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "id": self.id,
            "title": self.title,
            "present": self.present,
            "applicable": self.applicable,
            "elements": [element.to_dict() for element in self.elements],
        }


@dataclass(frozen=True, slots=True)
class Completeness:
    """The results of all clusters."""

    clusters: tuple[ClusterResult, ...]

    @property
    def present(self) -> int:
        """How many elements are there."""
        return sum(c.present for c in self.clusters)

    @property
    def applicable(self) -> int:
        """How many elements count."""
        return sum(c.applicable for c in self.clusters)

    def to_dict(self) -> dict[str, Any]:
        """The fact `completeness` of a report."""
        return {
            "standard": STANDARD,
            "present": self.present,
            "applicable": self.applicable,
            "clusters": [cluster.to_dict() for cluster in self.clusters],
        }

    def summary(self) -> str:
        """One line: the whole score and each cluster's."""
        each = ", ".join(f"{c.id} {c.present}/{c.applicable}" for c in self.clusters)
        return f"{self.present} of {self.applicable} minimum elements ({each})"

    def lines(self) -> list[str]:
        """A line per cluster, and one per element that is not there."""
        lines = []
        for cluster in self.clusters:
            lines.append(f"{cluster.title:<28}{cluster.present} of {cluster.applicable}")
            missing = (e for e in cluster.elements if e.status != PRESENT)
            lines += [f"  {e.status:<15} {e.title}: {e.note}" for e in missing]
        return lines


def assess(document: Any, manifest: Manifest, *, signed: bool = True) -> Completeness:
    """The completeness of the parsed CycloneDX `document` of the bundle with `manifest`.

    `signed` says whether a signature covers the manifest, and with it the SBOM it names.
    """
    sbom = _Sbom.of(document, manifest, signed)
    results = {cluster: [_result(e, sbom) for e in ELEMENTS if e.cluster == cluster] for cluster in CLUSTERS}
    return Completeness(
        tuple(ClusterResult(name, CLUSTERS[name], tuple(found)) for name, found in results.items())
    )


@dataclass(frozen=True, slots=True)
class _Sbom:
    """The document, taken apart once.

    `objects` has the objects of each scope, `used` the refs that something depends on or a model card names.
    """

    document: dict[str, Any]
    manifest: Manifest
    signed: bool
    objects: dict[str, list[dict[str, Any]]]
    waived: dict[str, str]
    used: frozenset[str]

    @classmethod
    def of(cls, document: Any, manifest: Manifest, signed: bool) -> _Sbom:
        whole = document if isinstance(document, dict) else {}
        components = list(_objects(whole.get("components")))
        bundle = [b for m in _objects(whole.get("metadata")) for b in _objects(m.get("component"))]
        objects = {
            "document": [whole],
            "bundle": bundle,
            "model": [c for c in components if c.get("type") == "machine-learning-model"],
            "dataset": [c for c in components if c.get("type") == "data"],
        }
        properties = [p for b in bundle for p in _objects(b.get("properties"))]
        waived = {
            str(p["name"]).removeprefix(WAIVER): str(p["value"])
            for p in properties
            if str(p.get("name")).startswith(WAIVER) and _filled(p.get("value"))
        }
        return cls(whole, manifest, signed, objects, waived, _used(whole, objects["model"]))


def _result(element: Element, sbom: _Sbom) -> ElementResult:
    place = " | ".join(element.paths)
    objects = sbom.objects[element.scope]
    lack = (not any(_says(o, path, sbom) for path in element.paths) for o in objects)
    lacking = sum(lack) if len(objects) <= _COUNTED else int(any(lack))
    if objects and not lacking:
        return ElementResult(element.id, element.title, PRESENT, place)
    if element.waivable and element.id in sbom.waived:
        return ElementResult(element.id, element.title, NOT_APPLICABLE, place, sbom.waived[element.id])
    several = f" ({lacking} of {len(objects)} lack it)" if 1 < len(objects) <= _COUNTED else ""
    return ElementResult(element.id, element.title, ABSENT, place, element.hint + several)


def _says(thing: dict[str, Any], path: str, sbom: _Sbom) -> bool:
    if path.startswith("@"):
        return _QUESTIONS[path](thing, sbom)
    steps = _steps(path)
    return steps[0].name in thing and any(_filled(value) for value in _walk(thing, steps))


@dataclass(frozen=True, slots=True)
class _Step:
    """One member on a path; of a list only the members with the tag (or, negated, without it)."""

    name: str
    tag: str
    negated: bool
    prefix: bool

    def picks(self, thing: dict[str, Any]) -> bool:
        """Whether an object of the list is meant."""
        found = next((thing[key] for key in _TAGS if key in thing), None)
        same = found.startswith(self.tag) if self.prefix and isinstance(found, str) else found == self.tag
        return same != self.negated


@cache
def _steps(path: str) -> tuple[_Step, ...]:
    found = [_STEP.fullmatch(part) for part in _PATH_DOT.split(path)]
    return tuple(_Step(m[1], m[3] or "", bool(m[2]), bool(m[4])) for m in found if m is not None)


def _walk(value: Any, steps: tuple[_Step, ...]) -> Iterator[Any]:
    """Every value at a path; lists on the way are gone through."""
    if not steps:
        yield value
        return
    for thing in _objects(value):
        member = thing.get(steps[0].name)
        if steps[0].tag:
            member = [m for m in _objects(member) if steps[0].picks(m)]
        yield from _walk(member, steps[1:])


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    elif isinstance(value, list):
        yield from (member for member in value if isinstance(member, dict))


def _filled(value: Any) -> bool:
    """Whether something is said: a text that is not blank, a number, a list or object with members."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, list | dict):
        return bool(value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_signed(_thing: dict[str, Any], sbom: _Sbom) -> bool:
    return sbom.signed and bool(sbom.manifest.with_role("sbom"))


def _has_model_digest(thing: dict[str, Any], sbom: _Sbom) -> bool:
    """A digest of this model; the bundle's one must be the manifest's."""
    stated = set(_texts(_walk(thing, _steps("hashes[SHA-256].content"))))
    only = len(sbom.objects["model"]) == 1
    return sbom.manifest.model.sha256 in stated if only else bool(stated)


def _is_used(thing: dict[str, Any], sbom: _Sbom) -> bool:
    ref = thing.get("bom-ref")
    return isinstance(ref, str) and ref in sbom.used


def _used(document: dict[str, Any], models: list[dict[str, Any]]) -> frozenset[str]:
    rows = _walk(document, _steps("dependencies.dependsOn"))
    listed = (ref for row in rows if isinstance(row, list) for ref in row)
    named = (ref for m in models for ref in _walk(m, _steps("modelCard.modelParameters.datasets.ref")))
    return frozenset(_texts(listed)) | frozenset(_texts(named))


def _texts(values: Iterator[Any]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str))


def _lists_vulnerabilities(_thing: dict[str, Any], sbom: _Sbom) -> bool:
    """An empty list says that none is known; that is an answer too."""
    return isinstance(sbom.document.get("vulnerabilities"), list)


_QUESTIONS: dict[str, Callable[[dict[str, Any], _Sbom], bool]] = {
    "@signed": _is_signed,
    "@model-digest": _has_model_digest,
    "@dataset-used": _is_used,
    "@vulnerabilities": _lists_vulnerabilities,
}

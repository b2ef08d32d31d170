"""What signed files say, cut down to what a report shows: SBOM, terms, model card.

Source: specs/report.md, "Facts". Total functions: a document of any shape gives an excerpt, never an
error, and no excerpt is longer than the bounds below, however long the file is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from sealpack.format.terms import Terms

MAX_ITEMS = 200  # names in a list
MAX_TEXT = 300  # characters of a name
MAX_CARD = 64 * 1024  # characters of a model card


def sbom(document: dict[str, Any]) -> dict[str, Any]:
    """Components by type, licenses, suppliers, datasets and base models of a CycloneDX document."""
    components = list(_objects(document.get("components")))
    models = [c for c in components if c.get("type") == "machine-learning-model"]
    types = Counter(_texts((c.get("type") for c in components), unique=False))
    return {
        "types": dict(sorted(types.items())[:MAX_ITEMS]),
        "licenses": _texts(name for c in components for name in _licenses(c)),
        "suppliers": _texts(_suppliers(document, components)),
        "datasets": _texts(c.get("name") for c in components if c.get("type") == "data"),
        "base_models": _texts(name for model in models for name in _ancestors(model)),
    }


def terms(said: Terms) -> dict[str, Any]:
    """The machine-readable terms, without the plan; absent members are left out."""
    members = {
        "spdx": said.spdx,
        "digest": said.digest,
        "text": said.text,
        "title": said.title,
        "allow": list(said.allow),
        "deny": list(said.deny),
        "attribution": said.attribution,
        "ack_required": said.ack_required,
    }
    return {name: value for name, value in members.items() if value not in (None, [])}


def card(name: str, data: bytes) -> dict[str, Any]:
    """A model card's text, as it stands; what is not UTF-8 is replaced."""
    text = data.decode("utf-8", "replace")
    return {"name": name, "text": text[:MAX_CARD], "truncated": len(text) > MAX_CARD}


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(values: Iterable[Any], *, unique: bool = True) -> list[str]:
    """The strings among `values`, cut to size; each once and sorted unless told otherwise."""
    found = [value[:MAX_TEXT] for value in values if isinstance(value, str) and value]
    return sorted(set(found))[:MAX_ITEMS] if unique else found


def _licenses(component: dict[str, Any]) -> Iterator[Any]:
    for choice in _objects(component.get("licenses")):
        license = _object(choice.get("license"))
        yield choice.get("expression") or license.get("id") or license.get("name")


def _suppliers(document: dict[str, Any], components: list[dict[str, Any]]) -> Iterator[Any]:
    for part in (_object(document.get("metadata")), *components):
        for role in ("supplier", "manufacturer"):
            yield _object(part.get(role)).get("name")


def _ancestors(model: dict[str, Any]) -> Iterator[Any]:
    for ancestor in _objects(_object(model.get("pedigree")).get("ancestors")):
        name, version = ancestor.get("name"), ancestor.get("version")
        yield f"{name} {version}" if isinstance(name, str) and isinstance(version, str) else name

"""Strict YAML for price plans: the part of YAML in which nothing can be misread.

Source: specs/plan.md section 2. Mappings with string keys, sequences, strings, whole numbers and
true/false. Refused, with line and column: unquoted decimals, dates, on/off/yes/no, empty values,
octal or hex numbers, the same key twice, anchors, aliases, merge keys, tags, several documents.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml

from sealpack.format.errors import SealpackError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,14})")
_BOOLEANS = {"true": True, "false": False}


def load(data: bytes, *, what: str = "plan") -> Any:
    """Parse one strict YAML document into dict, list, str, int and bool; PLAN_INVALID otherwise."""
    if len(data) > MAX_BYTES:
        _refuse(what, f"is larger than the limit of {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        _check_events(text, what)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError:
        _refuse(what, "is not UTF-8 text")
    except yaml.YAMLError as error:
        _refuse(what, f"is not YAML: {_first_line(error)}")
    if node is None:
        _refuse(what, "is empty")
    return _value(node, what)


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem}{_at(mark) if mark else ''}"


def _at(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})"


def _refuse(what: str, problem: str) -> NoReturn:
    raise SealpackError("PLAN_INVALID", f"{what} {problem}")


def _check_events(text: str, what: str) -> None:
    """Refuse what the node tree no longer shows, and bound the depth before anything recurses."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _at(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            _refuse(what, f"uses an anchor or alias{place}")
        if getattr(event, "tag", None):
            _refuse(what, f"uses a tag{place}")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                _refuse(what, f"holds more than one document{place}")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            _refuse(what, f"is nested deeper than {MAX_DEPTH}{place}")


def _value(node: yaml.Node, what: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, what)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, what) for item in node.value]
    return _scalar(node, what)


def _mapping(node: yaml.MappingNode, what: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _at(key_node.start_mark)
        if key_node.tag != f"{_TAG}str":
            _refuse(what, f"has a key that is not a string{place}; quote it")
        if key_node.value in result:
            _refuse(what, f"has the key {key_node.value!r} twice{place}")
        result[key_node.value] = _value(value_node, what)
    return result


def _scalar(node: yaml.Node, what: str) -> str | int | bool:
    text: str = node.value
    kind = node.tag.removeprefix(_TAG)
    if kind == "str":
        return text
    if kind == "int" and _INTEGER.fullmatch(text):
        return int(text)
    if kind == "bool" and text in _BOOLEANS:
        return _BOOLEANS[text]
    name = {"float": "an unquoted decimal", "null": "an empty value", "timestamp": "a date"}.get(
        kind, "an unquoted value"
    )
    _refuse(what, f"has {name} {text[:40]!r}{_at(node.start_mark)}; quote it as a string")

"""Canonical JSON: what is written is read, and nothing else is. Single faults stand in the vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format import canonical
from sealpack.format.canonical import MAX_INT
from sealpack.format.errors import SealpackError

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.one_of(st.booleans(), st.integers(-MAX_INT, MAX_INT), text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def code_of(data: bytes, **limits: int) -> str:
    with pytest.raises(SealpackError) as caught:
        canonical.loads(data, **limits)
    return caught.value.code


@settings(deadline=None)
@given(values)
def test_round_trip(value: Any) -> None:
    data = canonical.dumps(value)
    assert canonical.loads(data) == value == json.loads(data)
    assert canonical.dumps(canonical.loads(data)) == data


@settings(deadline=None)
@given(st.dictionaries(text, st.integers(0, 9), min_size=2, max_size=6))
def test_members_stand_in_utf_16_order(value: dict[str, int]) -> None:
    shuffled = dict(reversed(value.items()))
    assert canonical.dumps(shuffled) == canonical.dumps(value)
    assert list(canonical.loads(canonical.dumps(value))) == sorted(value, key=lambda k: k.encode("utf-16-be"))


@settings(deadline=None)
@given(values)
def test_every_other_spelling_is_refused(value: Any) -> None:
    data = canonical.dumps(value)
    for other in (
        json.dumps(value, indent=1).encode(),
        json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode(),
        b" " + data,
        data + b"\n",
        b"\xef\xbb\xbf" + data,
        data + b" " + data,
    ):
        if other != data:
            with pytest.raises(SealpackError) as caught:
                canonical.loads(other)
            assert caught.value.code == "JSON_INVALID"


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_that_are_read_are_what_would_be_written(data: bytes) -> None:
    try:
        value = canonical.loads(data)
    except SealpackError as error:
        assert error.code in ("JSON_INVALID", "JSON_LIMIT")
    else:
        assert canonical.dumps(value) == data


@pytest.mark.parametrize("number", [MAX_INT, -MAX_INT, 0, 1])
def test_the_range_of_integers(number: int) -> None:
    assert canonical.loads(b"%d" % number) == number


@pytest.mark.parametrize(
    "number",
    [MAX_INT + 1, -MAX_INT - 1, 10**16, 10**4000],
    ids=["above", "below", "17 digits", "4001 digits"],
)
def test_integers_outside_the_range(number: int) -> None:
    with pytest.raises(ValueError, match="integer outside"):
        canonical.dumps([number])
    assert code_of(b"%d" % number) == "JSON_INVALID"


@pytest.mark.parametrize(
    "value", [1.0, float("nan"), float("inf"), None, b"x", {1: 2}, {"a": {"b": [0, None]}}]
)
def test_values_without_an_encoding(value: Any) -> None:
    with pytest.raises(ValueError, match=r"\$"):
        canonical.dumps(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}])
def test_lone_surrogates_have_no_encoding(value: Any) -> None:
    with pytest.raises(ValueError):
        canonical.dumps(value)


def test_the_message_says_where_and_keeps_to_one_line() -> None:
    with pytest.raises(SealpackError, match=r"\$\.a\[1\]: integer outside") as caught:
        canonical.loads(b'{"a":[1,9007199254740993]}', what="license")
    assert caught.value.message.startswith("license is not canonical JSON")
    with pytest.raises(SealpackError) as caught:
        canonical.loads(b'{"\\u001b[31m\\ud800\\n":9007199254740993}')
    assert caught.value.message.isprintable()


def test_limits_are_inclusive() -> None:
    assert canonical.loads(b'"aa"', max_bytes=4) == "aa"
    assert code_of(b'"aaa"', max_bytes=4) == "JSON_LIMIT"
    assert canonical.loads(b"[[]]", max_depth=2) == [[]]
    assert code_of(b"[[[]]]", max_depth=2) == "JSON_LIMIT"


def test_depth_counts_brackets_outside_text_only() -> None:
    data = canonical.dumps(['[{"\\' * 50])
    assert canonical.loads(data, max_depth=1) == ['[{"\\' * 50]


def test_a_deep_document_costs_no_more_than_its_length() -> None:
    assert code_of(b"[" * 200_000) == "JSON_LIMIT"
    assert code_of(b'{"a":' * 200_000, max_bytes=1 << 20) == "JSON_LIMIT"

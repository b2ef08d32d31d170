"""Names that people read in file names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from sealpack.format.values import readable


@pytest.mark.parametrize(
    ("texts", "name"),
    [
        (("Klinikum Süd, Station 3",), "klinikum-sud-station-3"),
        (("ΑΒΓ", "病院", "ward 7"), "ward-7"),  # the first that has a word
        (("../../etc/passwd",), "etc-passwd"),
        (("a" * 39 + " b",), "a" * 39),  # no hyphen stays at the end
        (("...", ""), "x"),
        ((), "x"),
    ],
)
def test_names_people_recognise(texts: tuple[str, ...], name: str) -> None:
    assert readable(*texts) == name


@given(st.lists(st.text()))
def test_every_file_system_takes_the_name(texts: list[str]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", readable(*texts))
    assert len(readable(*texts)) <= 40

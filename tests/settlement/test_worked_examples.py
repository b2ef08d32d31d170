"""The worked examples, cent for cent, by the package and by the oracle."""

from __future__ import annotations

import pytest
from support import worked_examples
from support.worked_examples import EXAMPLES, Example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.case)
def test_example(example: Example) -> None:
    assert worked_examples.by_package(example) == example.expected
    assert worked_examples.by_oracle(example) == example.expected

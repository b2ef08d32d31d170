"""The table of comparisons, small."""

from __future__ import annotations

import pytest
from support import rating_dice

from load import comparison


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert comparison.main(["--plans", "60", "--receipts", "6000"]) == 0
    printed = capsys.readouterr().out
    assert printed.rstrip().endswith("0 differences")
    for told in ("charge usage graduated", "minimum and tax", "totals per license and meter"):
        assert told in printed


def test_a_difference_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating_dice, "by_oracle", lambda _: [])
    assert comparison.compare_plans(3, 0)[1] == 3
    assert "seed 2 differs" in capsys.readouterr().out

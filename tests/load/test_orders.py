"""Whatever order, duplication or damage a fleet's files arrive in, the books are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from load import orders
from load.orders import Campaign


@pytest.mark.timeout(20_000)
@pytest.mark.parametrize("runs", [15, pytest.param(10_000, marks=pytest.mark.slow)])
def test_any_order_gives_the_same_books(tmp_path: Path, runs: int) -> None:
    campaign = Campaign(tmp_path)
    assert {seed: wrong for seed in range(1, runs + 1) if (wrong := campaign.run(seed))} == {}


def test_the_last_receipt_missing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign, logs = Campaign(tmp_path), orders.fleet()
    for missing in logs:
        files = [log.file(0, log.size - (log is missing)) for log in logs]
        monkeypatch.setattr(orders, "arrivals", lambda _, files=files: files)
        for seed in (1, 2, 3):
            assert campaign.run(seed)

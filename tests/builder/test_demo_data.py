"""The demo's evaluation data is enough for the tier that the demo shows, and says what it is."""

from __future__ import annotations

import json
import tomllib
from importlib import resources

import pytest

from sealpack.builder.demo import story
from sealpack.verifier import tiers

PROJECT = resources.files("sealpack.builder.demo") / "data" / "project"
MODELS = ("minilm", "tinylm")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (PROJECT / f"{name}-eval.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", MODELS)
def test_there_are_enough_rows_and_no_text_stands_twice(name: str) -> None:
    needed = tiers.published()[-1].tiers["Verified"].min_rows
    texts = [text for row in rows(name) for text in row.values()]
    assert len(rows(name)) >= needed and len(set(texts)) == len(texts)


def test_pairs_do_not_share_their_words() -> None:
    """A pair that repeats itself would be found by its words alone."""
    for row in rows("minilm"):
        query, positive = (set(row[key].lower().rstrip(".?").split()) for key in ("query", "positive"))
        assert len(query & positive) / len(query | positive) < 0.5, row


@pytest.mark.parametrize("name", MODELS)
def test_a_bound_is_declared_of_a_metric_that_counts(name: str) -> None:
    declared = tomllib.loads((PROJECT / f"{name}.toml").read_text())
    counted = tiers.published()[-1].metrics[declared["io"]["task"]]
    assert {bound["metric"] for bound in declared["evidence"]["thresholds"]} & set(counted)


def test_notes_and_cards_say_what_was_evaluated_on_what() -> None:
    for name in MODELS:
        card = (PROJECT / f"{name}-card.md").read_text()
        assert "Evaluation: none" not in card and "Experimental" not in card
    assert f"{len(rows('minilm'))} pairs" in story.NOTES["minilm"]
    assert f"{len(rows('minilm'))} pairs" in (PROJECT / "minilm-card.md").read_text()
    assert "on which the model was trained" in story.NOTES["tinylm"]
    assert "on which it was trained" in " ".join((PROJECT / "tinylm-card.md").read_text().split())

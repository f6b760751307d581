"""Texts -> batches for the encoder: splitting, tokenizing, words mask; ours beside gliner's prepare and collate steps.

"Seen" words are answered by the word cache, which is the state of any job after its first texts; "new" clears the cache
in every round, so that each distinct word goes through the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benches.compare import Race, words_of
from benches.conftest import LABELS, SIZES, Pair, texts_of
from gliner_fast.batch import Batch, plan_batches
from gliner_fast.labels import LabelSet
from gliner_fast.words import split_words

TEXT_COUNTS = {"short": 500, "mixed": 300}
BATCH_SIZE = 8  # gliner's default
Row = tuple[list[int], list[int]]  # a text's subword ids, and the word number that each stands for (0: none)


def rows_of_ours(batches: list[Batch]) -> dict[int, Row]:
    """Each text's row, without padding."""
    rows = {}
    for batch in batches:
        ids = batch.input_ids.numpy()
        numbers: NDArray[np.int64] = np.zeros(ids.size, np.int64)
        first_word = np.cumsum(batch.word_counts.numpy()) - batch.word_counts.numpy()
        positions = batch.pooled_positions.numpy()
        numbers[positions] = batch.pooled_words.numpy() - first_word[positions // ids.shape[1]] + 1
        numbers = numbers.reshape(ids.shape)
        for row, (text, length) in enumerate(zip(batch.rows.tolist(), batch.lengths.tolist(), strict=True)):
            rows[text] = (ids[row, :length].tolist(), numbers[row, :length].tolist())
    return rows


def rows_of_reference(batches: list[dict[str, Any]]) -> dict[int, Row]:
    """The same of the reference's batches, which are in input order."""
    rows: dict[int, Row] = {}
    for batch in batches:
        for ids, mask, numbers in zip(batch["input_ids"], batch["attention_mask"], batch["words_mask"], strict=True):
            length = int(mask.sum())
            rows[len(rows)] = (ids[:length].tolist(), numbers[:length].tolist())
    return rows


@pytest.mark.parametrize("words", ["seen", "new"])
@pytest.mark.parametrize("name", TEXT_COUNTS)
def bench_prepare(race: Race, pair: Callable[[str, str], Pair], name: str, words: str) -> None:
    models = pair(SIZES[0], "cpu")  # the same tokenizer at every size
    texts, labels = texts_of(name, TEXT_COUNTS[name]), LABELS
    batcher, limit = models.ours.data_processor.batcher, models.ours.config.max_len

    def ours() -> list[Batch]:
        if words == "new":
            batcher._cache.clear()
        split = split_words(texts, limit).words
        subwords = batcher.encode_words(split)
        prompts = batcher.encode_prompts([LabelSet.read(labels)])
        prompt_of_text = np.zeros(len(texts), np.int64)
        lengths = batcher.row_lengths(subwords, prompts, prompt_of_text)
        return [
            batcher.assemble(subwords, rows, prompts, prompt_of_text[rows])
            for rows in plan_batches(lengths, 2_048, max_texts=None)
        ]

    def reference() -> list[dict[str, Any]]:
        prepared = models.reference.prepare_batch(texts, labels)
        collator = models.reference.create_collator()
        return [
            models.reference.collate_batch(
                prepared["input_x"][first : first + BATCH_SIZE], prepared["entity_types"], collator
            )
            for first in range(0, len(texts), BATCH_SIZE)
        ]

    assert rows_of_ours(ours()) == rows_of_reference(reference())
    race.run(
        ours,
        {"gliner": reference},
        agreement=f"identical rows for {len(texts)} texts",
        **words_of(
            texts, corpus=name, labels=len(labels), cached_words=words, batches="ours: 2,048 subwords; gliner: 8 texts"
        ),
    )

"""Batches: each example once an epoch, within the budget, with its spans where the logits are; and from any place."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER
from gliner_fast.annotated.example import DataError, Example
from gliner_fast.batch import Batcher
from gliner_fast.training import batches
from gliner_fast.training.batches import BatchStream, Place, TrainingBatch
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus

K = 12
CONFIG = TrainingConfig(output_dir="unused", batch_tokens=200)
EXAMPLES = [
    Example(
        tuple(f"word{number}" for _ in range(1 + number % 17)),
        ((0, 1, f"type {number % 5}"), (number % 17, 1 + number % 17, "last")),
    )
    for number in range(60)
]


@pytest.fixture(scope="module")
def batcher() -> Batcher:
    return GLiNER.from_pretrained().predictor().batcher


@pytest.fixture
def stream(batcher: Batcher) -> Iterator[Callable[..., BatchStream]]:
    """Makes streams, and closes them."""
    made: list[BatchStream] = []

    def make(examples: list[Example] = EXAMPLES, config: TrainingConfig = CONFIG, **options: Any) -> BatchStream:
        corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=K, ent_token="<<ENT>>")
        made.append(BatchStream(corpus, batcher, config, K, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def key(batch: list[TrainingBatch]) -> list[tuple[Any, ...]]:
    """All that a batch holds, piece by piece."""
    return [
        (each.batch.input_ids.tolist(), each.targets.positives.tolist(), each.targets.word_counts) for each in batch
    ]


def epoch_of(stream: BatchStream) -> list[TrainingBatch]:
    """The batches of a first epoch."""
    found = next(stream)
    while sum(len(batch.targets.word_counts) for batch in found) < len(EXAMPLES):
        found += next(stream)
    return found


def test_an_epoch_holds_each_example_once(stream: Callable[..., BatchStream]) -> None:
    own = stream()
    for _ in range(2):
        counts = Counter(count for batch in epoch_of(own) for count in batch.targets.word_counts)
        assert counts == Counter(len(example.words) for example in EXAMPLES)


def test_batches_keep_to_the_budget(stream: Callable[..., BatchStream]) -> None:
    for batch in epoch_of(stream()):
        assert batch.batch.input_ids.numel() <= CONFIG.batch_tokens
    for batch in epoch_of(stream(config=replace(CONFIG, batch_size=3))):
        assert len(batch.targets.word_counts) <= 3
    assert max(len(batch.targets.word_counts) for batch in epoch_of(stream())) > 3


def test_pieces_are_the_batch_with_less_padding(stream: Callable[..., BatchStream]) -> None:
    whole, cut = stream(), stream(piece_tokens=60)
    numbers = []
    for _ in range(6):
        (batch,), pieces = next(whole), next(cut)
        numbers.append(len(pieces))
        assert all(piece.batch.input_ids.numel() <= 60 or len(piece.targets.word_counts) == 1 for piece in pieces)
        counts = [count for piece in pieces for count in piece.targets.word_counts]
        assert counts == list(batch.targets.word_counts)
        assert sum(piece.targets.count for piece in pieces) == batch.targets.count
        assert sum(len(piece.targets.positives) for piece in pieces) == len(batch.targets.positives)
    assert max(numbers) > 2


def test_positives_are_the_logits_of_gold_spans(stream: Callable[..., BatchStream], batcher: Batcher) -> None:
    config = replace(CONFIG, negative_share=0.0, random_drop=False, shuffle_types=False)
    for batch in epoch_of(stream(config=config)):
        found, first = set(batch.targets.positives.tolist()), 0
        for words, classes in zip(batch.targets.word_counts, batch.targets.class_counts, strict=True):
            assert classes == 2
            # The first word is of the first type; the last one, alone, of the second.
            assert first in found
            assert first + (words - 1) * K * classes + 1 in found
            first += words * K * classes
        assert len(found) == 2 * len(batch.targets.word_counts)


def test_where_coarse_and_fine_types_are_asked_for_the_finest_is_right(batcher: Batcher) -> None:
    files = [(TrainingFile(path="one"), [Example(("Ada", "ran"), ((0, 1, "athlete"),))])]
    corpus = Corpus(files, max_len=384, max_width=K, ent_token="<<ENT>>", implies={"athlete": ("person",)})
    config = replace(CONFIG, negative_share=0.0, random_drop=False, shuffle_types=False)
    stream = BatchStream(corpus, batcher, config, K)
    seen = set()
    for _ in range(40):
        (batch,) = next(stream)
        seen.add((tuple(batch.targets.class_counts), tuple(batch.targets.positives.tolist())))
    stream.close()
    # Alone either is found; of both the athlete, who comes first, and not the person.
    assert seen == {((1,), (0,)), ((2,), (0,))}


def test_a_stream_goes_on_from_any_place(stream: Callable[..., BatchStream], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_CHUNK", 25)  # three chunks an epoch
    whole, places = stream(), [Place()]
    wanted = []
    for _ in range(40):
        wanted.append(key(next(whole)))
        places.append(whole.next_place)
    assert len(set(places)) == len(places)
    assert places[-1].epoch >= 1
    for after in (0, 1, 7, 13, 29):
        again = stream(place=places[after])
        assert [key(next(again)) for _ in range(40 - after)] == wanted[after:]


def test_processes_share_the_batches(stream: Callable[..., BatchStream]) -> None:
    alone = stream()
    wanted = [key(next(alone)) for _ in range(12)]
    pair = [stream(process=process, processes=2) for process in range(2)]
    assert [key(next(own)) for _ in range(6) for own in pair] == wanted
    assert pair[0].next_place == pair[1].next_place == alone.next_place


def test_epochs_differ(stream: Callable[..., BatchStream]) -> None:
    own = stream()
    first, second = (key(epoch_of(own)) for _ in range(2))
    assert first != second


def test_a_corpus_without_a_type_is_told(stream: Callable[..., BatchStream]) -> None:
    with pytest.raises(DataError, match="no example has an entity type to be asked for"):
        next(stream([Example(("a", "b"), ())] * 3))


def test_texts_that_the_tokenizer_cuts_are_told_once(checkpoint: Callable[[str], Path]) -> None:
    batcher = GLiNER.from_pretrained(checkpoint("bert-cut-first")).predictor().batcher  # reads 96 subwords
    examples = [Example(("word",) * 100, ((90, 91, "x"),)), Example(("a", "b"), ((0, 1, "x"),))]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=K, ent_token="<<ENT>>")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stream = BatchStream(corpus, batcher, CONFIG, K)
        for _ in range(4):
            next(stream)
        stream.close()
    assert [str(own.message)[:44] for own in told] == ["1 of 2 texts are longer, with the labels tha"]
    assert "than the 96 subwords that the tokenizer reads" in str(told[0].message)


def test_batches_come_where_no_thread_can_be_started(
    stream: Callable[..., BatchStream], monkeypatch: pytest.MonkeyPatch
):
    expected = [key(next(own)) for own in [stream()] for _ in range(3)]

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)  # as once the main thread has ended
    assert [key(next(own)) for own in [stream()] for _ in range(3)] == expected


def test_negatives_as_gliner_draws_them_are_drawn_anew_for_every_batch(stream: Callable[..., BatchStream]) -> None:
    """A draw of gliner's gives all texts of a batch the same first types: one for a chunk gave an epoch two of them."""
    examples = [Example(("word",), ((0, 1, f"type {number % 40}"),)) for number in range(400)]
    for size in (8, None):
        config = CONFIG.replace(sampling="gliner", batch_size=size)
        _, chunk = next(stream(examples, config)._chunks(Place(0, 0)))
        negatives = Counter(
            label
            for example, asked in zip(chunk.examples, chunk.asked, strict=True)
            for label in set(asked.types) - set(example.labels)
        )
        assert 120 < negatives.total() < 280  # none or one each, at random
        assert len(negatives) > 25
        assert max(negatives.values()) < 30

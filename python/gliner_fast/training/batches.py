"""A corpus -> training batches without end, within a budget of subwords.

What comes is a function of corpus, settings and place alone, so a run goes on from a place as if it had never stopped.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast import _rust
from gliner_fast.annotated.example import DataError, Span
from gliner_fast.batch import Batch, Batcher, EncodedPrompts, plan_batches
from gliner_fast.label_encoder import LabelTexts
from gliner_fast.labels import LabelSet
from gliner_fast.predicting.stages import start
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.corpus import Corpus, Judged, TrainingExample
from gliner_fast.training.sampling import Asked, sample_types, share_types
from gliner_fast.training.targets import Targets, known_spans, make_targets

# Examples that are sorted by length together: enough for batches of a GPU's size to hold texts of like length.
_CHUNK = 4096
# Texts of a batch in gliner, unless it is told otherwise.
_GLINER_BATCH = 8


@dataclass(frozen=True)
class Place:
    """Where a run stands in its data: the next batch to come."""

    epoch: int = 0
    chunk: int = 0
    batch: int = 0


@dataclass(frozen=True)
class TrainingBatch:
    """Texts with their prompts, and what should be found in them: a batch, or a piece of one."""

    batch: Batch
    targets: Targets


class BatchStream:
    """Batches without end; each process of a run takes its share of them.

    Attributes:
        next_place: of the first batch that was not handed out, to any process: a new stream goes on from there.
    """

    def __init__(
        self,
        corpus: Corpus,
        batcher: Batcher,
        config: TrainingConfig,
        max_width: int | None,
        *,
        place: Place | None = None,
        piece_tokens: int | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.next_place = place or Place()
        self._corpus, self._batcher, self._config, self._max_width = corpus, batcher, config, max_width
        self._piece_tokens, self._process, self._processes = piece_tokens, process, processes
        self._has_warned = False
        self._planned = self._plan()

    @property
    def drawing(self) -> int:
        """Which batches a seed comes to: a number of its own for each way in which versions have drawn them.

        With "gliner" negatives were once drawn for a whole chunk, which cuts it into other batches, too.
        """
        return 2 if self._config.sampling == "gliner" and not self._batcher.reads_labels_apart else 1

    def close(self) -> None:
        """Ends the thread that prepares what comes."""
        self._planned.close()

    def __next__(self) -> list[TrainingBatch]:
        """This process's share of the next `processes` batches, in pieces of at most `piece_tokens` subwords.

        Raises:
            DataError: no example of an epoch has anything to be asked for.
        """
        group = [next(self._planned) for _ in range(self._processes)]
        self.next_place = group[-1][2]
        chunk, rows, _ = group[self._process]
        pieces = [rows] if self._piece_tokens is None else chunk.cut(rows, self._piece_tokens)
        return [chunk.assemble(piece, self._batcher, self._max_width) for piece in pieces]

    def _plan(self) -> Generator[tuple[Chunk, NDArray[np.int64], Place], None, None]:
        """All batches from the place on, each with its chunk and the place behind it.

        The next chunk is prepared in a thread, while the batches of this one are computed.
        """
        place = self.next_place
        with ThreadPoolExecutor(1) as thread:
            chunks = self._chunks(place)
            coming = start(thread, next, chunks)
            while True:
                first, chunk = coming.result()
                self._warn_of_cut_texts(chunk)
                coming = start(thread, next, chunks)
                for number, rows in enumerate(chunk.batches):
                    if first != Place(place.epoch, place.chunk) or number >= place.batch:
                        yield chunk, rows, Place(first.epoch, first.chunk, number + 1)

    def _warn_of_cut_texts(self, chunk: Chunk) -> None:
        """Tells once, by the first process, that the tokenizer cuts texts."""
        if chunk.cut_texts and not self._has_warned and self._process == 0:
            self._has_warned = True
            with_labels, or_fewer = ", with the labels that they are asked for,", ", or set max_types to less"
            if self._batcher.reads_labels_apart:
                with_labels = or_fewer = ""
            warnings.warn(
                f"{chunk.cut_texts:,} of {len(chunk.examples):,} texts are longer{with_labels} than the "
                f"{self._batcher.tokenizer.max_subwords} subwords that the tokenizer reads: words behind them are "
                f"trained on, but not seen. Divide such texts{or_fewer}",
                stacklevel=2,
            )

    def _chunks(self, place: Place) -> Iterator[tuple[Place, Chunk]]:
        """The chunks from that of a place on, each with its own place."""
        epoch, first = place.epoch, place.chunk
        while True:
            order = self._corpus.epoch(epoch, self._config.seed)
            is_empty = first == 0 and len(order) > 0
            for number in range(first, -(-len(order) // _CHUNK)):
                examples = [self._corpus.examples[i] for i in order[number * _CHUNK : (number + 1) * _CHUNK]]
                generator = random.Random(f"chunk {self._config.seed} {epoch} {number}")  # noqa: S311
                chunk = self._prepare(examples, generator)
                is_empty = is_empty and not chunk.batches
                yield Place(epoch, number), chunk
            if is_empty:
                raise DataError(
                    "no example has an entity type to be asked for: none has a span, and there is no negative type"
                )
            epoch, first = epoch + 1, 0

    def _prepare(self, examples: list[TrainingExample], generator: random.Random) -> Chunk:
        """Draws the types of some examples and cuts them into batches."""
        corpus, config = self._corpus, self._config
        if config.sampling == "gliner" and self._batcher.reads_labels_apart:
            return self._prepare_sharing(examples, generator)
        asked = self._draw_types(examples, generator)
        pairs = [(example, own) for example, own in zip(examples, asked, strict=True) if own.types]
        examples, asked = [example for example, _ in pairs], [own for _, own in pairs]
        prompts, prompt_of_row = self._encode_types(asked)
        subwords = self._encode_words(examples)
        lengths = self._batcher.row_lengths(subwords, prompts, prompt_of_row)
        cut_texts = int(self._batcher.find_cut_rows(subwords, prompts, prompt_of_row).sum())
        batches = list(plan_batches(lengths, config.batch_tokens, config.batch_size))
        generator.shuffle(batches)
        return Chunk(examples, asked, corpus.implied, subwords, prompts, prompt_of_row, lengths, cut_texts, batches)

    def _draw_types(self, examples: list[TrainingExample], generator: random.Random) -> list[Asked]:
        """The types of each of some examples, which come in random order.

        `gliner` draws a batch's negatives from the batch's labels, and draws anew for the next one. So they are drawn
        here for as many examples as a batch of it has: those that stand together before they are sorted by length.
        """
        corpus, config = self._corpus, self._config
        size = len(examples) if config.sampling == "paper" else config.batch_size or _GLINER_BATCH
        return [
            asked
            for first in range(0, len(examples), size)
            for asked in sample_types(
                examples[first : first + size], corpus.foreign_labels, config, generator, corpus.implied
            )
        ]

    def _prepare_sharing(self, examples: list[TrainingExample], generator: random.Random) -> Chunk:
        """Cuts examples into batches, whose texts are then asked for the same types: those are no part of a row."""
        batcher, config = self._batcher, self._config
        subwords, nothing = self._encode_words(examples), np.zeros(len(examples), np.int64)
        empty = batcher.encode_prompts([LabelSet((), ())])
        lengths = batcher.row_lengths(subwords, empty, nothing)
        cut_texts = int(batcher.find_cut_rows(subwords, empty, nothing).sum())
        batches = list(plan_batches(lengths, config.batch_tokens, config.batch_size))
        generator.shuffle(batches)
        of_row: dict[int, Asked] = {}
        for rows in batches:
            own = [examples[row] for row in rows.tolist()]
            of_row.update(zip(rows.tolist(), share_types(own, config, generator), strict=True))
        asked = [of_row[row] for row in range(len(examples))]
        prompts, prompt_of_row = self._encode_types(asked)
        implied = self._corpus.implied
        return Chunk(examples, asked, implied, subwords, prompts, prompt_of_row, lengths, cut_texts, batches)

    def _encode_words(self, examples: list[TrainingExample]) -> _rust.Subwords:
        return self._batcher.encode_words(_rust.Words.from_lists([list(example.words) for example in examples]))

    def _encode_types(self, asked: list[Asked]) -> tuple[EncodedPrompts, NDArray[np.int64]]:
        """The distinct prompts, and which of them each row has, (R,)."""
        places: dict[tuple[str, ...], int] = {}
        prompt_of_row = np.array([places.setdefault(own.names, len(places)) for own in asked], np.int64)
        return self._batcher.encode_prompts([LabelSet(names, names) for names in places]), prompt_of_row


@dataclass(frozen=True)
class Chunk:
    """Examples that were sorted by length together.

    Attributes:
        examples: R of them.
        asked: the types of each.
        implied: for each label all coarser ones.
        subwords: of the words of each.
        prompts: the distinct ones.
        prompt_of_row: (R,)
        lengths: (R,) subwords of each row.
        cut_texts: rows that the tokenizer's limit cuts.
        batches: the rows of each batch.
    """

    examples: list[TrainingExample]
    asked: list[Asked]
    implied: Mapping[str, Sequence[str]]
    subwords: _rust.Subwords
    prompts: EncodedPrompts
    prompt_of_row: NDArray[np.int64]
    lengths: NDArray[np.int64]
    cut_texts: int
    batches: list[NDArray[np.int64]]

    def cut(self, rows: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
        """Cuts a batch into pieces of like length, of at most `budget` subwords each."""
        return [rows[chosen] for chosen in plan_batches(self.lengths[rows], budget, None)]

    def assemble(self, rows: NDArray[np.int64], batcher: Batcher, max_width: int | None) -> TrainingBatch:
        """Lays out one batch."""
        batch = _with_own_labels(batcher.assemble(self.subwords, rows, self.prompts, self.prompt_of_row[rows]))
        spans, judged, known = [], [], []
        for row in rows.tolist():
            example, asked = self.examples[row], self.asked[row]
            place = {label: index for index, label in enumerate(asked.types)}
            own = _finest([span for span in example.spans if span[2] in place], self.implied)
            spans.append([(start, end, place[label]) for start, end, label in own])
            judged.append(asked.judged)
            is_partial = Judged.KNOWN in asked.judged
            known.append(known_spans(example.words, example.spans, max_width or 1) if is_partial else None)
        counts = batch.word_counts.tolist(), batch.class_counts.tolist()
        return TrainingBatch(batch, make_targets(spans, judged, *counts, max_width, known=known))


def _with_own_labels(batch: Batch) -> Batch:
    """A bi-encoder's batch without labels that none of its texts is asked for: all that it has are encoded."""
    if batch.labels is None or batch.label_rows is None:
        return batch
    own, rows = torch.unique(batch.label_rows, return_inverse=True)
    labels = LabelTexts([batch.labels.ids[index] for index in own.tolist()], batch.labels.pad_id)
    return replace(batch, labels=labels, label_rows=rows)


def _finest(spans: list[Span], implied: Mapping[str, Sequence[str]]) -> list[Span]:
    """The spans without those whose label is implied by another one of the same words."""
    if not implied:
        return spans
    coarse = {(start, end, label) for start, end, fine in spans for label in implied.get(fine, ())}
    return [span for span in spans if span not in coarse]

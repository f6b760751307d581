"""A request -> the entities of its texts: the one way through, in input order whatever order the work is done in."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.batch import Batcher, plan_batches
from gliner_fast.decode import (
    Candidates,
    Selection,
    find_candidates,
    flat_allowed_spans,
    flat_thresholds,
    resolve,
)
from gliner_fast.describing import Findings, describe, read_findings
from gliner_fast.labels import label_thresholds
from gliner_fast.preparing import Prepared, prepare
from gliner_fast.request import Request
from gliner_fast.stats import Stats, encoder_timed
from gliner_fast.words import WordTriples

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.network import SpanNetwork


@dataclass(frozen=True)
class Predictor:
    """A model's way through, in two halves: `prepare` needs no device and may run beside `predict`, in another thread.

    Attributes:
        network: scores the spans.
        batcher: makes batches.
        max_words: longest row in words.
        max_width: K.
        budget: most subwords a batch, padding included.
        lower_budget: told of a lower budget, after the device ran out of memory.
        splitter: the user's own word splitter, or None.
        device: where the network is.
    """

    network: SpanNetwork
    batcher: Batcher
    max_words: int
    max_width: int
    budget: int
    lower_budget: Callable[[int], None]
    splitter: WordTriples | None
    device: torch.device

    def prepare(self, request: Request) -> Prepared:
        """Makes subwords of a request's texts and labels; raises ValueError or TypeError for what is not as agreed."""
        return prepare(
            request, self.batcher, max_words=self.max_words, max_width=self.max_width, splitter=self.splitter
        )

    def predict(self, prepared: Prepared, stats: Stats | None = None) -> list[list[Entity]]:
        """Predicts the entities of prepared texts.

        Args:
            prepared: the texts.
            stats: what is done is added to it.

        Returns:
            For each text of the request its entities in reading order.

        Raises:
            MemoryError: a single row takes more memory than there is.
        """
        timed = nullcontext() if stats is None else encoder_timed(self.network, stats)
        stats = Stats() if stats is None else stats
        of_texts: list[list[Entity]] = [[] for _ in prepared.texts]
        of_windows: list[Findings] = []
        with torch.inference_mode(), timed:
            for whole, windows in self._predict_batches(prepared, stats):
                _file(prepared, whole, of_texts)
                if windows is not None:
                    of_windows.append(windows)
        if of_windows:
            began = perf_counter()
            _file(prepared, _resolve_windows(prepared, Findings.join(of_windows)), of_texts)
            stats.decode_seconds += perf_counter() - began
        found = _for_every_place(prepared, of_texts)
        stats.texts += len(found)
        stats.computed_texts += len(np.unique(prepared.rows.texts[prepared.scorable]))
        stats.entities += sum(map(len, found))
        stats.prepare_seconds += prepared.seconds
        return found

    def _predict_batches(self, prepared: Prepared, stats: Stats) -> Iterator[tuple[Findings, Findings | None]]:
        """Predicts batch after batch; one that the device has no memory for, and all after it, are made smaller."""
        budget = self.budget
        batches = self._plan(prepared, prepared.scorable, budget)
        while batches:
            try:
                findings = self._predict_batch(prepared, batches[0], stats)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                budget = min(budget, _half_of(prepared, batches[0], error))
                self.lower_budget(budget)
                batches = self._plan(prepared, np.concatenate(batches), budget)
                continue
            batches.popleft()
            yield findings

    def _plan(self, prepared: Prepared, rows: NDArray[np.int64], budget: int) -> deque[NDArray[np.int64]]:
        """Cuts rows into batches, longest first."""
        batches = plan_batches(prepared.lengths[rows], budget, prepared.request.options.batch_size)
        return deque(rows[chosen] for chosen in batches)

    def _predict_batch(
        self, prepared: Prepared, rows: NDArray[np.int64], stats: Stats
    ) -> tuple[Findings, Findings | None]:
        """The entities of whole texts, and the candidates that windows own, to be resolved with their text's others."""
        began, encode_seconds = perf_counter(), stats.encode_seconds
        sets = prepared.set_of_text[prepared.rows.texts[rows]]
        batch = self.batcher.assemble(prepared.subwords, rows, prepared.prompts, sets)
        word_counts, class_counts = batch.word_counts.numpy(), batch.class_counts.numpy()
        selection = _select(prepared, rows)
        thresholds = allowed = None
        if not prepared.request.options.return_class_probs:  # they alone need scores below the threshold
            thresholds = torch.from_numpy(flat_thresholds(selection, class_counts))
            allowed = flat_allowed_spans(selection, word_counts, self.max_width)
        spans = None if allowed is None else torch.from_numpy(allowed)
        scores = self.network(batch.to(self.device), thresholds, spans)
        scored = perf_counter()
        found = scores.logits if scores.candidates is None else scores.candidates
        candidates, probabilities = find_candidates(found, word_counts, class_counts, self.max_width, selection)
        is_window = prepared.rows.are_windows[rows]  # (B,)
        in_window = is_window[candidates.texts]  # (S,)
        decoded = resolve(_only(candidates, ~in_window), word_counts, selection.nested, selection.multi_label)
        whole = read_findings(prepared, batch, scores, probabilities, decoded, self.network, self.max_width)
        windows = None
        if is_window.any():
            owned = _only(candidates, in_window & _owned(prepared, rows, candidates))
            windows = read_findings(prepared, batch, scores, probabilities, owned, self.network, self.max_width)
        stats.windows += len(rows)
        stats.words += int(word_counts.sum())
        stats.subwords += int(batch.lengths.sum())
        stats.padded_subwords += batch.input_ids.numel()
        stats.score_seconds += scored - began - (stats.encode_seconds - encode_seconds)
        stats.decode_seconds += perf_counter() - scored
        return whole, windows


def _owned(prepared: Prepared, rows: NDArray[np.int64], candidates: Candidates) -> NDArray[np.bool_]:
    """(S,) True for candidates of a batch that their row owns."""
    owners = rows[candidates.texts]  # (S,)
    starts = candidates.starts + prepared.rows.firsts[owners]  # (S,) counted in the text
    owned: NDArray[np.bool_] = (starts >= prepared.rows.owned_firsts[owners]) & (
        starts < prepared.rows.owned_lasts[owners]
    )
    return owned


def _only(candidates: Candidates, chosen: NDArray[np.bool_]) -> Candidates:
    """The chosen candidates of the same texts."""
    return Candidates(
        np.concatenate([[0], np.cumsum(chosen)])[candidates.offsets].astype(np.int64),
        candidates.starts[chosen],
        candidates.ends[chosen],
        candidates.classes[chosen],
        candidates.scores[chosen],
    )


def _for_every_place(prepared: Prepared, of_texts: list[list[Entity]]) -> list[list[Entity]]:
    """Entities of every text of the request; equal texts get equal ones, but none in common, so each may be changed."""
    options = prepared.request.options
    is_plain = not (options.return_class_probs or options.return_vectors or options.return_label_vectors)
    found: list[list[Entity]] = [[] for _ in prepared.request.texts]
    for (first, *others), entities in zip(prepared.places, of_texts, strict=True):
        found[first] = entities
        for place in others:
            found[place] = [entity.copy() for entity in entities] if is_plain else copy.deepcopy(entities)
    return found


def _file(prepared: Prepared, entities: Findings, of_texts: list[list[Entity]]) -> None:
    """Puts entities, described, to the text that they are of."""
    for text, entity in zip(entities.texts.tolist(), describe(prepared, entities), strict=True):
        of_texts[text].append(entity)


def _resolve_windows(prepared: Prepared, candidates: Findings) -> Findings:
    """Keeps the best candidates of long texts that may stand together, whatever windows they come from."""
    # Spans with the same start are of one window, so this is the order in which those of a short text come.
    ordered = candidates.take(np.lexsort((candidates.starts, candidates.texts)))
    texts, counts = np.unique(ordered.texts, return_counts=True)
    options, places = prepared.request.options, [prepared.places[text][0] for text in texts.tolist()]
    numbered = Candidates(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        ordered.starts,
        ordered.ends,
        classes=np.arange(len(ordered.texts)),  # not read: this tells which ones are kept
        scores=ordered.scores,
    )
    kept = resolve(
        numbered,
        np.diff(prepared.words.text_offsets)[texts],
        nested=~np.array(_of_texts(options.flat_ner, places), np.bool_),
        multi_label=np.array(_of_texts(options.multi_label, places), np.bool_),
    )
    return ordered.take(kept.classes)


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    # torch has a class for CUDA alone; on the CPU its allocator says "can't allocate memory".
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "allocate memory" in str(error)


def _half_of(prepared: Prepared, rows: NDArray[np.int64], error: Exception) -> int:
    """Half the subwords of a batch that did not fit, padding included.

    Raises:
        MemoryError: a single row cannot be halved; told in the user's terms.
    """
    subwords = int(prepared.lengths[rows].max())
    if len(rows) == 1:
        raise MemoryError(
            f"1 texts of up to {subwords:,} subwords, labels included, do not fit into memory: ask for fewer labels at "
            "a time, or cut the text or its longest word"
        ) from error
    return len(rows) * subwords // 2


def _select(prepared: Prepared, rows: NDArray[np.int64]) -> Selection:
    """What may be an entity in each row of a batch."""
    options = prepared.request.options
    texts = prepared.rows.texts[rows]
    places = [prepared.places[text][0] for text in texts.tolist()]
    sets = [prepared.label_sets[index] for index in prepared.set_of_text[texts].tolist()]
    thresholds: Iterable[float | Sequence[float]]
    if isinstance(options.threshold, Mapping):
        mapping = options.threshold
        by_set = {labels: label_thresholds(labels.names, mapping) for labels in set(sets)}
        thresholds = [by_set[labels] for labels in sets]
    else:
        thresholds = _of_texts(options.threshold, places)
    allowed = prepared.allowed_spans
    return Selection(
        list(thresholds),
        nested=~np.array(_of_texts(options.flat_ner, places), np.bool_),
        multi_label=np.array(_of_texts(options.multi_label, places), np.bool_),
        label_counts=[len(labels.names) for labels in sets],
        allowed_spans=None if allowed is None else [allowed[row] for row in rows.tolist()],
    )


def _of_texts(value: Any, places: list[int]) -> list[Any]:
    """An option's value for each of some texts: its own from a sequence, or the one for all."""
    return [value[place] for place in places] if isinstance(value, Sequence) else [value] * len(places)

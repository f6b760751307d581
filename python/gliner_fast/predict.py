"""A request -> the entities of its texts: the one way through, in input order whatever order the work is done in."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.batch import Batch, Batcher, plan_batches
from gliner_fast.candidates import Candidates, only
from gliner_fast.decode import Selection, find_candidates, flat_allowed_spans, flat_thresholds, resolve
from gliner_fast.describing import Findings, describe, read_findings
from gliner_fast.labels import label_thresholds
from gliner_fast.preparing import Prepared, prepare
from gliner_fast.request import Request
from gliner_fast.stages import HostStages
from gliner_fast.stats import Stats, encoder_timed
from gliner_fast.words import WordTriples

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.network import SpanNetwork, SpanScores


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
        """Predicts batch after batch; one that the device has no memory for, and all after it, are made smaller.

        On CUDA the next batch is laid out and the one before is decoded, in a thread each, while the device computes.
        """
        budget = self.budget
        waiting = self._plan(prepared, prepared.scorable, budget)
        coming: Future[_LaidOut] | None = None  # of waiting[0]
        in_flight: deque[tuple[NDArray[np.int64], Future[tuple[Findings, Findings | None]]]] = deque()
        # A CPU has no time to give; of one batch nothing can overlap, and threads cost a short text their start.
        with HostStages(overlap=self.device.type == "cuda" and len(waiting) > 1) as stages:
            while waiting or in_flight:
                may_start = bool(waiting) and len(in_flight) < stages.most_in_flight
                try:
                    if may_start:
                        laid_out = (coming or stages.lay_out(self._lay_out, prepared, waiting[0])).result()
                        coming = None
                        if stages.overlap and len(waiting) > 1:
                            coming = stages.lay_out(self._lay_out, prepared, waiting[1])
                        # No name for the scores, or the ones of a batch would live until the next has its own.
                        decoding = stages.decode(self._decode, prepared, self._score(laid_out, stats), stats)
                        in_flight.append((waiting.popleft(), decoding))
                        continue
                    findings = in_flight[0][1].result()
                except (RuntimeError, MemoryError) as error:
                    if not _is_out_of_memory(error):
                        raise
                    if not may_start:  # it was started, and failed later
                        waiting.appendleft(in_flight.popleft()[0])
                    padded = not self.network.reads_packed
                    budget = min(budget, _half_of(prepared, waiting[0], error, padded=padded))
                    self.lower_budget(budget)
                    waiting, coming = self._plan(prepared, np.concatenate(waiting), budget), None
                    continue
                in_flight.popleft()
                yield findings

    def _plan(self, prepared: Prepared, rows: NDArray[np.int64], budget: int) -> deque[NDArray[np.int64]]:
        """Cuts rows into batches, longest first."""
        most_texts, padded = prepared.request.options.batch_size, not self.network.reads_packed
        batches = plan_batches(prepared.lengths[rows], budget, most_texts, padded=padded)
        return deque(rows[chosen] for chosen in batches)

    def _lay_out(self, prepared: Prepared, rows: NDArray[np.int64]) -> _LaidOut:
        """All that the device is given of a batch."""
        began = perf_counter()
        sets = prepared.set_of_text[prepared.rows.texts[rows]]
        batch = self.batcher.assemble(prepared.subwords, rows, prepared.prompts, sets)
        if self.network.reads_packed:
            batch = batch.packed()
        selection = _select(prepared, rows)
        thresholds = allowed = None
        if not prepared.request.options.return_class_probs:  # they alone need scores below the threshold
            thresholds = torch.from_numpy(flat_thresholds(selection, batch.class_counts.numpy()))
            allowed = flat_allowed_spans(selection, batch.word_counts.numpy(), self.max_width)
        spans = None if allowed is None else torch.from_numpy(allowed)
        return _LaidOut(batch, selection, thresholds, spans, perf_counter() - began)

    def _score(self, laid_out: _LaidOut, stats: Stats) -> _Scored:
        """Starts the network on a batch; waits for nothing where the device is CUDA."""
        began, encode_seconds = perf_counter(), stats.encode_seconds
        scores = self.network(laid_out.batch.to(self.device), laid_out.thresholds, laid_out.allowed_spans)
        encoding = stats.encode_seconds - encode_seconds
        stats.score_seconds += laid_out.seconds + perf_counter() - began - encoding
        return _Scored(laid_out.batch, laid_out.selection, scores)

    @torch.inference_mode()  # which is each thread's own
    def _decode(self, prepared: Prepared, scored: _Scored, stats: Stats) -> tuple[Findings, Findings | None]:
        """The entities of whole texts, and the candidates that windows own, to be resolved with their text's others."""
        began = perf_counter()
        batch, selection, scores, rows = scored.batch, scored.selection, scored.scores, scored.batch.rows
        word_counts, class_counts = batch.word_counts.numpy(), batch.class_counts.numpy()
        found = scores.logits if scores.candidates is None else scores.candidates
        candidates = find_candidates(found, word_counts, class_counts, self.max_width, selection)
        is_window = prepared.rows.are_windows[rows]  # (B,)
        in_window = is_window[candidates.texts]  # (S,)
        decoded = resolve(only(candidates, ~in_window), word_counts, selection.nested, selection.multi_label)
        whole = read_findings(prepared, batch, scores, decoded, self.network, self.max_width)
        windows = None
        if is_window.any():
            owned = only(candidates, in_window & _owned(prepared, rows, candidates))
            windows = read_findings(prepared, batch, scores, owned, self.network, self.max_width)
        stats.windows += len(rows)
        stats.words += int(word_counts.sum())
        stats.subwords += int(batch.lengths.sum())
        stats.padded_subwords += batch.input_ids.numel()
        stats.decode_seconds += perf_counter() - began
        return whole, windows


@dataclass(frozen=True)
class _LaidOut:
    """A batch on the host, what may be an entity in it, the same as the device reads it, and the seconds it took."""

    batch: Batch
    selection: Selection
    thresholds: torch.Tensor | None
    allowed_spans: torch.Tensor | None
    seconds: float


@dataclass(frozen=True)
class _Scored:
    """A batch that the device has begun."""

    batch: Batch
    selection: Selection
    scores: SpanScores


def _owned(prepared: Prepared, rows: NDArray[np.int64], candidates: Candidates) -> NDArray[np.bool_]:
    """(S,) True for candidates of a batch that their row owns."""
    owners = rows[candidates.texts]  # (S,)
    starts = candidates.starts + prepared.rows.firsts[owners]  # (S,) counted in the text
    owned: NDArray[np.bool_] = (starts >= prepared.rows.owned_firsts[owners]) & (
        starts < prepared.rows.owned_lasts[owners]
    )
    return owned


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


def _half_of(prepared: Prepared, rows: NDArray[np.int64], error: Exception, *, padded: bool) -> int:
    """Half the subwords of a batch that did not fit, padding included where there is any.

    Raises:
        MemoryError: a single row cannot be halved; told in the user's terms.
    """
    subwords = int(prepared.lengths[rows].max())
    if len(rows) == 1:
        raise MemoryError(
            f"1 texts of up to {subwords:,} subwords, labels included, do not fit into memory: ask for fewer labels at "
            "a time, or cut the text or its longest word"
        ) from error
    return (len(rows) * subwords if padded else int(prepared.lengths[rows].sum())) // 2


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

"""A request -> the entities of its texts: the one way through, in input order whatever order the work is done in."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.batch import Batch, Batcher, plan_batches
from gliner_fast.decode import (
    Selection,
    find_candidates,
    flat_allowed_spans,
    flat_thresholds,
    only_allowed,
    resolve,
)
from gliner_fast.labels import LabelSet, label_thresholds
from gliner_fast.precision import autocast_dtype
from gliner_fast.predicting.aside import aside_from, autocast_as
from gliner_fast.predicting.collecting import Found
from gliner_fast.predicting.describing import describe, read_findings
from gliner_fast.predicting.linking import asks_for_relations, describe_relations, find_relations
from gliner_fast.predicting.preparing import Prepared, can_read_whole, prepare
from gliner_fast.predicting.request import Options, Request, of_places
from gliner_fast.predicting.schedule import Schedule
from gliner_fast.predicting.stages import HostStages
from gliner_fast.predicting.window_relations import WindowRelations, of_windows
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.marked_spans import find_marked_spans
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.represented_spans import RepresentedSpans, find_represented_spans
from gliner_fast.scoring.word_vectors import time_major
from gliner_fast.stats import Stats, encoder_timed
from gliner_fast.words import LONGEST_WORD, NO_LIMIT, WordTriples, split_words

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.network import BatchScores, Network
    from gliner_fast.relations.relation import Relation


@dataclass(frozen=True)
class Predictor:
    """A model's way through, in two halves: `prepare` needs no device and may run beside `predict`, in another thread.

    Attributes:
        network: scores the spans, or marks the words.
        batcher: makes subwords and batches.
        max_words: longest row in words.
        max_width: K; windows of long texts overlap by more, and a token-level model may find wider spans.
        budget: most subwords a batch, padding included.
        lower_budget: told of a lower budget, after the device ran out of memory.
        recover_budget: told of each batch that went well, with the budget of those to come; gives a higher one if that
            was lowered, and is to be tried again.
        splitter: the user's own word splitter, or None.
        device: where the network is.
        is_token_level: whether it marks words, instead of scoring spans.
    """

    network: Network
    batcher: Batcher
    max_words: int
    max_width: int
    budget: int
    lower_budget: Callable[[int], None]
    recover_budget: Callable[[int], int]
    splitter: WordTriples | None
    device: torch.device
    is_token_level: bool = False

    def prepare(self, request: Request) -> Prepared:
        """Makes subwords of a request's texts and labels; raises ValueError or TypeError for what is not as agreed."""
        self.check(request)
        return prepare(
            request, self.batcher, max_words=self.max_words, max_width=self.max_width, splitter=self.splitter
        )

    def check(self, request: Request) -> None:
        """Raises ValueError where relations are asked of a model that finds none."""
        if request.options.relations and self.network.relations is None:
            raise ValueError(
                f"relations is {request.options.relations!r:.80}, but the model finds none: leave them out, or load a "
                "relation extraction (relex) checkpoint"
            )

    def can_read_whole(self, request: Request) -> bool:
        """Whether windows leave out no word of the request's texts: none has more subwords than there is room for."""
        return can_read_whole(request, self.batcher, self.splitter)

    def has_endless_word(self, text: str, options: Options) -> bool:
        """Whether the model would read a word of the text for hours, or for want of memory not at all.

        Where the tokenizer has no limit, a window holds all subwords of each of its words.
        """
        if len(text) <= LONGEST_WORD or self.batcher.tokenizer.max_subwords is not None:
            return False
        # A word of any splitter's that has a blank in it is taken for several: tokenizers part it there.
        if max(map(len, text.split()), default=0) <= LONGEST_WORD:
            return False
        words = split_words([text], NO_LIMIT if options.on_long == "window" else self.max_words, self.splitter).words
        return bool((words.ends - words.starts > LONGEST_WORD).any())

    @torch.no_grad()
    def encode_labels(self, labels: Sequence[str] | Mapping[str, str]) -> torch.Tensor:
        """The vectors of a bi-encoder's labels, or of their descriptions, (labels, D), on the device.

        Raises:
            ValueError: the model is no bi-encoder.
        """
        own = LabelSet.read(labels)
        texts = self.batcher.encode_labels([own])
        if not own.prompts:
            weight = next(self.network.parameters())
            return weight.new_zeros(0, self.network.scorer.width)
        place = {prompt: index for index, prompt in enumerate(dict.fromkeys(own.prompts))}
        prompt_of = dict(zip(own.names, own.prompts, strict=True))
        return self.network.label_vectors(texts)[[place[prompt_of[label]] for label in labels]]

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
        # Of one batch nothing can overlap, and threads cost a short text their start.
        overlap = self.can_overlap and len(self.plan(prepared, prepared.scorable, self.budget)) > 1
        with HostStages(overlap=overlap) as stages:
            ((_, found),) = Schedule(self, iter([prepared]), stats).run(stages)
        return found

    def predict_each(
        self, requests: Iterable[Prepared | None], stats: Stats | None = None, *, unwanted: Event | None = None
    ) -> Generator[tuple[Prepared, list[list[Entity]]], None, None]:
        """Each of some requests with what `predict` gives for it, in their order.

        On CUDA the next is asked for while the device has two batches and fewer than two are left to be started, or
        where none is left; at most two are under way. On a CPU once the one before has been given.

        Args:
            requests: prepared; None says that none is ready while others are under way.
            stats: what is done is added to it.
            unwanted: once another thread sets it, this ends with the batch that is started.
        """
        with HostStages(overlap=self.can_overlap) as stages:
            yield from Schedule(self, iter(requests), stats, unwanted).run(stages)

    @property
    def can_overlap(self) -> bool:
        """Whether the host can work on one batch while the device works on another; a CPU has no time to give."""
        return self.device.type == "cuda"

    def plan(self, prepared: Prepared, rows: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
        """Cuts rows into batches, longest first."""
        most_texts, padded = prepared.request.options.batch_size, not self.network.reads_packed
        batches = plan_batches(prepared.lengths[rows], budget, most_texts, padded=padded)
        return [rows[chosen] for chosen in batches]

    def lay_out(self, prepared: Prepared, rows: NDArray[np.int64]) -> LaidOut:
        """All that the device is given of a batch."""
        began = perf_counter()
        sets = prepared.set_of_text[prepared.rows.texts[rows]]
        padded = not self.network.reads_packed
        batch = prepared.batcher.assemble(prepared.subwords, rows, prepared.prompts, sets, padded=padded)
        if self.device.type == "cuda":
            batch = self._staged(batch)
        selection = _select(prepared, rows)
        thresholds = allowed = None
        # Class probabilities and marks alone need scores below the threshold.
        if not (prepared.request.options.return_class_probs or self.is_token_level):
            thresholds = torch.from_numpy(flat_thresholds(selection, batch.class_counts.numpy()))
            if not self._needs_all_spans(prepared):
                allowed = flat_allowed_spans(selection, batch.word_counts.numpy(), self.max_width)
        spans = None if allowed is None else torch.from_numpy(allowed)
        return LaidOut(batch, selection, thresholds, spans, perf_counter() - began)

    def _staged(self, batch: Batch) -> Batch:
        """A batch with all that can be made ready for a card: its host has enough to do with starting kernels."""
        if self.network.rnn is not None and len(batch.rows) > 1:
            batch = replace(batch, word_order=time_major(batch.word_counts))
        return batch.stage(pin=True)

    @torch.inference_mode()
    def score(self, laid_out: LaidOut, stats: Stats, *, timed: bool) -> Scored:
        """Starts the network on a batch; waits for nothing where the device is CUDA."""
        began, encode_seconds = perf_counter(), stats.encode_seconds
        with (
            # Once, for the many kernels that are started on it.
            torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext(),
            encoder_timed(self.network, stats) if timed else nullcontext(),
        ):
            scores = self.network(laid_out.batch.to(self.device), laid_out.thresholds, laid_out.allowed_spans)
        stream = ready = None
        if self.device.type == "cuda":
            stream = torch.cuda.current_stream(self.device)
            if scores.candidates is None:  # or decoding would wait for the batch that is started next, too
                scores = replace(scores, on_host=PendingScores.of(scores.logits))
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record(stream)
        encoding = stats.encode_seconds - encode_seconds
        stats.score_seconds += laid_out.seconds + perf_counter() - began - encoding
        return Scored(laid_out.batch, laid_out.selection, scores, stream, ready, autocast_dtype(self.device.type))

    def candidates(self, batch: Batch, scores: BatchScores, selection: Selection) -> Candidates:
        """The spans of a batch that may be entities; waits for what is on its way."""
        word_counts, class_counts = batch.word_counts.numpy(), batch.class_counts.numpy()
        if self.network.spans is not None:
            return self.represented_spans(batch, scores, selection).candidates
        if self.is_token_level:
            return find_marked_spans(scores.dense, word_counts, class_counts, selection).candidates
        found = scores.dense if scores.candidates is None else scores.candidates
        return find_candidates(found, word_counts, class_counts, self.max_width, selection)

    def represented_spans(self, batch: Batch, scores: BatchScores, selection: Selection) -> RepresentedSpans:
        """The same of a model that scores the spans that it marks, with their marks."""
        layer, counts = self.network.spans, (batch.word_counts.numpy(), batch.class_counts.numpy())
        if layer is None:
            raise AssertionError("asked for span vectors of a model that has none")
        return find_represented_spans(scores.dense, scores.words, scores.prompts, layer, *counts, selection)

    @torch.inference_mode()  # which is each thread's own, as are the stream, the device and autocast
    def decode(self, prepared: Prepared, scored: Scored) -> Found:
        """Waits for a batch's scores, and finds its entities."""
        began = perf_counter()
        batch, selection, scores, rows = scored.batch, scored.selection, scored.scores, scored.batch.rows
        word_counts = batch.word_counts.numpy()
        with (
            nullcontext() if scored.stream is None else torch.cuda.stream(scored.stream),
            nullcontext()
            if scored.autocast is None
            else autocast_as(self.device.type, scored.autocast, keeps=scored.stream is None),
        ):
            with _aside(scored) if self.network.spans is not None else nullcontext():
                if self._needs_all_spans(prepared):
                    all_spans = self.candidates(batch, scores, replace(selection, allowed_spans=None))
                    candidates = only_allowed(all_spans, selection)
                else:
                    all_spans = candidates = self.candidates(batch, scores, selection)
            is_window = prepared.rows.are_windows[rows]  # (B,)
            in_window = is_window[candidates.texts]  # (S,)
            decoded = resolve(candidates.take(~in_window), word_counts, selection.nested, selection.multi_label)
            with _aside(scored) if _asks_for_more(prepared) else nullcontext():
                whole = read_findings(prepared, batch, scores, decoded, self.network, self.max_width)
                windows = None
                if is_window.any():
                    owned = candidates.take(in_window & _owned(prepared, rows, candidates))
                    windows = read_findings(prepared, batch, scores, owned, self.network, self.max_width)
                entities = describe(prepared, whole)
                relations, window_relations = self._link(prepared, scored, candidates, all_spans, decoded, entities)
        stats = Stats(
            windows=len(rows),
            words=int(word_counts.sum()),
            subwords=int(batch.lengths.sum()),
            padded_subwords=batch.input_ids.numel(),
            decode_seconds=perf_counter() - began,
        )
        return Found(whole.texts.tolist(), entities, windows, stats, relations, window_relations)

    def _link(
        self,
        prepared: Prepared,
        scored: Scored,
        candidates: Candidates,
        all_spans: Candidates,
        decoded: Candidates,
        entities: list[Entity],
    ) -> tuple[Sequence[tuple[int, Relation]], WindowRelations | None]:
        """The relations between a batch's entities, each with its text, and those between the spans of its windows.

        Args:
            prepared: the texts.
            scored: the batch.
            candidates: what may be an entity.
            all_spans: the same with spans that may not be, where relations depend on them.
            decoded: the entities of whole texts,
            entities: and these, described.
        """
        if not asks_for_relations(prepared):
            return (), None
        batch, selection, rows = scored.batch, scored.selection, scored.batch.rows
        is_window = prepared.rows.are_windows[rows]  # (B,)
        link = partial(find_relations, prepared, batch, scored.scores, self.network)
        relations: Sequence[tuple[int, Relation]] = ()
        linked = link(decoded, all_spans.take(~is_window[all_spans.texts]))
        if linked is not None:
            texts, firsts = prepared.rows.texts[rows[linked.rows]], decoded.offsets[linked.rows]
            described = describe_relations(prepared, texts, firsts, linked, entities)
            relations = list(zip(texts.tolist(), described, strict=True))
        if not is_window.any():
            return relations, None
        # Each window's own: which of them the text keeps is known once all of its windows are.
        in_windows, word_counts = candidates.take(is_window[candidates.texts]), batch.word_counts.numpy()
        own = resolve(in_windows, word_counts, selection.nested, selection.multi_label)
        linked = link(own, all_spans.take(is_window[all_spans.texts]))
        return relations, None if linked is None else of_windows(prepared, rows, linked, own)

    def _needs_all_spans(self, prepared: Prepared) -> bool:
        """Whether relations between the spans that may be entities depend on others, too."""
        relations = self.network.relations
        may_depend = relations is not None and (self.is_token_level or relations.reads_all_spans)
        return may_depend and asks_for_relations(prepared)


@dataclass(frozen=True)
class LaidOut:
    """A batch on the host, what may be an entity in it, the same as the device reads it, and the seconds it took."""

    batch: Batch
    selection: Selection
    thresholds: torch.Tensor | None
    allowed_spans: torch.Tensor | None
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A batch that the device has begun.

    Attributes:
        batch: on the host.
        selection: what may be an entity in it.
        scores: on the device, or on their way to the host. On CUDA all of it has to live until the batch is decoded.
        stream: where it was begun; None where the device is not CUDA.
        ready: happens there once the network is done.
        autocast: the dtype that autocast computes in; None where it is off.
    """

    batch: Batch
    selection: Selection
    scores: BatchScores
    stream: torch.cuda.Stream | None
    ready: torch.cuda.Event | None
    autocast: torch.dtype | None


def _asks_for_more(prepared: Prepared) -> bool:
    """Whether more is asked for than entities and their scores."""
    options = prepared.request.options
    return options.return_vectors or options.return_label_vectors or asks_for_relations(prepared)


def _aside(scored: Scored) -> AbstractContextManager[None]:
    """Where a device computes what is made of a batch's scores: on CUDA not behind batches that were begun since."""
    if scored.stream is None or scored.ready is None:
        return nullcontext()
    return aside_from(scored.stream, scored.ready)


def _owned(prepared: Prepared, rows: NDArray[np.int64], candidates: Candidates) -> NDArray[np.bool_]:
    """(S,) True for candidates of a batch that their row owns."""
    owners = rows[candidates.texts]  # (S,)
    starts = candidates.starts + prepared.rows.firsts[owners]  # (S,) counted in the text
    owned: NDArray[np.bool_] = (starts >= prepared.rows.owned_firsts[owners]) & (
        starts < prepared.rows.owned_lasts[owners]
    )
    return owned


def _select(prepared: Prepared, rows: NDArray[np.int64]) -> Selection:
    """What may be an entity in each row of a batch."""
    options = prepared.request.options
    texts = prepared.rows.texts[rows]
    places = prepared.places[texts]
    sets = prepared.label_sets_of(texts)
    thresholds: Iterable[float | Sequence[float]]
    if isinstance(options.threshold, Mapping):
        mapping = options.threshold
        by_set = {labels: label_thresholds(labels.names, mapping) for labels in set(sets)}
        thresholds = [by_set[labels] for labels in sets]
    else:
        thresholds = of_places(options.threshold, places)
    allowed = prepared.allowed_spans
    return Selection(
        list(thresholds),
        nested=~np.array(of_places(options.flat_ner, places), np.bool_),
        multi_label=np.array(of_places(options.multi_label, places), np.bool_),
        label_counts=[len(labels.names) for labels in sets],
        allowed_spans=None if allowed is None else [allowed[row] for row in rows.tolist()],
    )

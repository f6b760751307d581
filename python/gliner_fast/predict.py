"""A window of texts -> their entities: the one way through, in input order whatever order the work is done in."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.batch import Batch, Batcher, EncodedPrompts, plan_batches
from gliner_fast.decode import Decoded, Selection, class_probabilities, decode
from gliner_fast.labels import LabelPlan, LabelSet, label_thresholds
from gliner_fast.words import WordTriples, split_words

if TYPE_CHECKING:
    from gliner_fast import _rust
    from gliner_fast.entity import Entity
    from gliner_fast.network import SpanNetwork, SpanScores


@dataclass(frozen=True)
class Request:
    """What is asked of a window of texts; per-text values have one entry for each text."""

    texts: Sequence[Any]
    """Anything; what is not a string, or is blank, has no entities (Q9)."""
    labels: LabelPlan
    threshold: float | Sequence[float] | Mapping[str, float]
    flat_ner: bool | Sequence[bool]
    multi_label: bool | Sequence[bool]
    input_spans: Sequence[Sequence[Mapping[str, int]]] | None = None
    class_probs: bool = False
    vectors: bool = False
    label_vectors: bool = False
    max_texts: int | None = None

    def part(self, first: int, last: int) -> Request:
        """What is asked of the texts first..last."""
        per_text = ("texts", "threshold", "flat_ner", "multi_label", "input_spans")
        values = {name: getattr(self, name) for name in per_text}
        labels = LabelPlan(self.labels.sets, self.labels.set_of_text[first:last])
        cut: dict[str, Any] = {
            name: value[first:last] if isinstance(value, Sequence) else value for name, value in values.items()
        }
        return replace(self, labels=labels, **cut)


@dataclass(frozen=True)
class _Window:
    """The texts of a request that have words and labels, prepared."""

    texts: list[str]
    places: NDArray[np.int64]  # (V,) each text's place in the request
    words: _rust.Words
    subwords: _rust.Subwords
    prompts: EncodedPrompts
    label_sets: list[LabelSet]
    set_of_text: NDArray[np.int64]  # (V,)
    lengths: NDArray[np.int64]  # (V,) subwords of each row, prompt and special subwords included
    allowed_spans: list[set[tuple[int, int]]] | None


def predict_window(
    request: Request,
    network: SpanNetwork,
    batcher: Batcher,
    *,
    max_words: int,
    max_width: int,
    budget: int,
    splitter: WordTriples | None,
    device: torch.device,
) -> list[list[Entity]]:
    """Predicts the entities of a window of texts.

    Args:
        request: the texts and what is asked of them.
        network: scores the spans.
        batcher: makes batches.
        max_words: longest text in words; a longer one is cut, with the package's warning.
        max_width: K.
        budget: most subwords a batch, padding included.
        splitter: the user's own word splitter, or None.
        device: where the network is.

    Returns:
        For each text its entities in reading order.
    """
    found: list[list[Entity]] = [[] for _ in request.texts]
    window = _prepare(request, batcher, max_words, splitter)
    scorable = np.flatnonzero(_has_labels(window) & (np.diff(window.words.text_offsets) > 0))
    for chosen in plan_batches(window.lengths[scorable], budget, request.max_texts):
        rows = scorable[chosen]
        batch = batcher.assemble(window.subwords, rows, window.prompts, window.set_of_text[rows])
        with torch.inference_mode():
            scores = _score(network, batch.to(device))
            decoded = _decode(request, window, batch, scores, max_width)
            entities = _describe(request, window, batch, scores, decoded, network, max_width)
        for row, own in zip(rows.tolist(), entities, strict=True):
            found[window.places[row]] = own
    return found


def _prepare(request: Request, batcher: Batcher, max_words: int, splitter: WordTriples | None) -> _Window:
    places = [place for place, text in enumerate(request.texts) if isinstance(text, str) and text.strip()]
    texts = [request.texts[place] for place in places]
    words, total_counts = split_words(texts, max_words, splitter)
    for total in total_counts[total_counts > max_words].tolist():
        warnings.warn(f"Sentence of length {total} has been truncated to {max_words}", stacklevel=5)
    subwords = batcher.encode_words(words)
    where = np.array(places, np.int64)
    prompts = batcher.encode_prompts(request.labels.sets)
    set_of_text = request.labels.set_of_text[where]
    allowed = None
    if request.input_spans is not None:
        allowed = _word_spans([request.input_spans[place] for place in places], words)
    return _Window(
        texts,
        where,
        words,
        subwords,
        prompts,
        list(request.labels.sets),
        set_of_text,
        batcher.row_lengths(subwords, prompts, set_of_text),
        allowed,
    )


def _score(network: SpanNetwork, batch: Batch) -> SpanScores:
    """Runs the network; memory that is not enough is told in the user's terms.

    Raises:
        MemoryError: attention over a row's subwords takes more memory than there is.
    """
    try:
        scores: SpanScores = network(batch)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        rows, subwords = batch.input_ids.shape
        raise MemoryError(
            f"{rows} texts of up to {subwords:,} subwords, labels included, do not fit into memory: ask for fewer "
            "labels at a time, cut the longest text or word, or lower batch_size"
        ) from error
    return scores


def _has_labels(window: _Window) -> NDArray[np.bool_]:
    sizes = np.array([len(labels.names) for labels in window.label_sets], np.int64)
    return sizes[window.set_of_text] > 0


def _word_spans(input_spans: Sequence[Sequence[Mapping[str, int]]], words: _rust.Words) -> list[set[tuple[int, int]]]:
    """Character spans -> word spans; one that does not begin and end with a word is dropped (compat section 1.3)."""
    allowed = []
    offsets, starts, ends = words.text_offsets.tolist(), words.starts.tolist(), words.ends.tolist()
    for text, spans in enumerate(input_spans):
        own = range(offsets[text], offsets[text + 1])
        word_at_start = {starts[word]: word - own.start for word in own}
        word_at_end = {ends[word]: word - own.start for word in own}
        try:
            pairs = [(word_at_start.get(span["start"]), word_at_end.get(span["end"])) for span in spans]
        except (TypeError, KeyError) as error:
            raise TypeError(
                f"input_spans holds {spans!r} for a text: expected a list of mappings such as {{'start': 0, 'end': 12}}"
            ) from error
        allowed.append({(first, last + 1) for first, last in pairs if first is not None and last is not None})
    return allowed


def _decode(
    request: Request, window: _Window, batch: Batch, scores: SpanScores, max_width: int
) -> tuple[Decoded, NDArray[np.float32]]:
    places = window.places[batch.rows].tolist()
    sets = [window.label_sets[index] for index in window.set_of_text[batch.rows].tolist()]
    thresholds: Iterable[float | Sequence[float]]
    if isinstance(request.threshold, Mapping):
        mapping = request.threshold
        by_set = {labels: label_thresholds(labels.names, mapping) for labels in set(sets)}
        thresholds = [by_set[labels] for labels in sets]
    else:
        thresholds = _of_texts(request.threshold, places)
    selection = Selection(
        list(thresholds),
        nested=~np.array(_of_texts(request.flat_ner, places), np.bool_),
        multi_label=np.array(_of_texts(request.multi_label, places), np.bool_),
        label_counts=[len(labels.names) for labels in sets],
        allowed_spans=None if window.allowed_spans is None else [window.allowed_spans[row] for row in batch.rows],
    )
    return decode(scores.logits, batch.word_counts.numpy(), batch.class_counts.numpy(), max_width, selection)


def _of_texts(value: Any, places: list[int]) -> list[Any]:
    """An option's value for each of some texts: its own from a sequence, or the one for all."""
    return [value[place] for place in places] if isinstance(value, Sequence) else [value] * len(places)


def _describe(
    request: Request,
    window: _Window,
    batch: Batch,
    scores: SpanScores,
    decoded_and_scores: tuple[Decoded, NDArray[np.float32]],
    network: SpanNetwork,
    max_width: int,
) -> list[list[Entity]]:
    """Turns decoded entities into the dicts that the user gets."""
    decoded, probabilities = decoded_and_scores
    rows = batch.rows[decoded.texts]  # (S,) row of each entity in the window
    first_words = window.words.text_offsets[rows]
    starts = window.words.starts[first_words + decoded.starts].tolist()
    ends = window.words.ends[first_words + decoded.ends - 1].tolist()
    names = [window.label_sets[index].names for index in window.set_of_text[batch.rows].tolist()]
    entities: list[Entity] = []
    for text, row, start, end, class_, score in zip(
        decoded.texts.tolist(),
        rows.tolist(),
        starts,
        ends,
        decoded.classes.tolist(),
        decoded.scores.tolist(),
        strict=True,
    ):
        entities.append(
            {
                "start": start,
                "end": end,
                "text": window.texts[row][start:end],
                "label": names[text][class_],
                "score": score,
            }
        )
    word_counts, class_counts = batch.word_counts.numpy(), batch.class_counts.numpy()
    if request.class_probs:
        best = class_probabilities(probabilities, decoded, word_counts, class_counts, max_width, names)
        for entity, own in zip(entities, best, strict=True):
            entity["class_probs"] = dict(own)
    if request.vectors and entities:
        packed = (np.cumsum(word_counts) - word_counts)[decoded.texts]  # (S,) first packed word of each text
        spans = [torch.from_numpy(packed + word).to(scores.words.device) for word in (decoded.starts, decoded.ends - 1)]
        vectors = network.scorer.span_vectors(scores.words, *spans)
        for entity, vector in zip(entities, _to_numpy(vectors), strict=True):
            entity["vector"] = vector
    if request.label_vectors and entities:
        packed = (np.cumsum(class_counts) - class_counts)[decoded.texts]
        chosen = torch.from_numpy(packed + decoded.classes).to(scores.prompts.device)
        for entity, vector in zip(entities, _to_numpy(scores.prompts[chosen]), strict=True):
            entity["label_vector"] = vector
    bounds = decoded.offsets.tolist()
    return [entities[first:last] for first, last in pairwise(bounds)]


def _to_numpy(vectors: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = vectors.float().cpu().numpy()
    return array

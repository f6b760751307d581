"""What batches find, back to the texts of the request that they come from, in input order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gliner_fast.candidates import Candidates
from gliner_fast.decode import resolve
from gliner_fast.predicting.describing import Findings, describe
from gliner_fast.predicting.preparing import Prepared
from gliner_fast.stats import Stats

if TYPE_CHECKING:
    from gliner_fast.entity import Entity


class Found(NamedTuple):
    """What a batch found.

    Attributes:
        texts: of each entity of a whole text, where it was found.
        entities: these, described already: on CUDA by the thread that decodes, so that none who starts kernels has to.
        windows: candidates that windows of long texts own, to be resolved with their text's others; None without any.
        stats: what was done.
    """

    texts: list[int]
    entities: list[Entity]
    windows: Findings | None
    stats: Stats


class Collector:
    """What is found in the texts of one request, batch by batch.

    Attributes:
        prepared: the texts.
        undone: batches that nothing was heard of yet.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.undone = 0
        self._of_texts: list[list[Entity]] = [[] for _ in prepared.texts]
        self._of_windows: list[Findings] = []

    def add(self, found: Found) -> None:
        """Takes what a batch found."""
        self.undone -= 1
        _file(found.texts, found.entities, self._of_texts)
        if found.windows is not None:
            self._of_windows.append(found.windows)

    def result(self, stats: Stats) -> list[list[Entity]]:
        """For each text of the request its entities in reading order; what was done is added to `stats`."""
        prepared = self.prepared
        if self._of_windows:
            began = perf_counter()
            resolved = _resolve_windows(prepared, Findings.join(self._of_windows))
            _file(resolved.texts.tolist(), describe(prepared, resolved), self._of_texts)
            stats.decode_seconds += perf_counter() - began
        found = _for_every_place(prepared, self._of_texts)
        stats.texts += len(found)
        stats.computed_texts += len(np.unique(prepared.rows.texts[prepared.scorable]))
        stats.entities += sum(map(len, found))
        stats.prepare_seconds += prepared.seconds
        return found


def of_places(value: Any, places: NDArray[np.int64]) -> list[Any]:
    """An option's value for each of some texts, by their places: its own from a sequence, or the one for all."""
    if not isinstance(value, Sequence):
        return [value] * len(places)
    return [value[place] for place in places.tolist()]


def _for_every_place(prepared: Prepared, of_texts: list[list[Entity]]) -> list[list[Entity]]:
    """Entities of every text of the request; equal texts get equal ones, but none in common, so each may be changed."""
    options = prepared.request.options
    is_plain = not (options.return_class_probs or options.return_vectors or options.return_label_vectors)
    found: list[list[Entity] | None] = [None] * len(prepared.request.texts)
    for place, entities in zip(prepared.places.tolist(), of_texts, strict=True):
        found[place] = entities
    for text, places in prepared.further_places.items():
        entities = of_texts[text]
        for place in places:
            found[place] = [entity.copy() for entity in entities] if is_plain else copy.deepcopy(entities)
    return [[] if entities is None else entities for entities in found]


def _file(texts: Sequence[int], entities: Sequence[Entity], of_texts: list[list[Entity]]) -> None:
    """Puts entities to the text that they are of."""
    for text, entity in zip(texts, entities, strict=True):
        of_texts[text].append(entity)


def _resolve_windows(prepared: Prepared, candidates: Findings) -> Findings:
    """Keeps the best candidates of long texts that may stand together, whatever windows they come from."""
    # Spans with the same start are of one window, so this is the order in which those of a short text come.
    ordered = candidates.take(np.lexsort((candidates.starts, candidates.texts)))
    texts, counts = np.unique(ordered.texts, return_counts=True)
    options, places = prepared.request.options, prepared.places[texts]
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
        nested=~np.array(of_places(options.flat_ner, places), np.bool_),
        multi_label=np.array(of_places(options.multi_label, places), np.bool_),
    )
    return ordered.take(kept.classes)

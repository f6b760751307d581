"""What batches find, back to the texts of the request that they come from, in input order."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gliner_fast.decode import resolve
from gliner_fast.predicting.describing import Findings, describe
from gliner_fast.predicting.linking import asks_for_relations
from gliner_fast.predicting.preparing import Prepared
from gliner_fast.predicting.request import of_places
from gliner_fast.predicting.window_relations import WindowRelations, link_windows
from gliner_fast.relations.relation import LinkedEntities
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.stats import Stats

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.relations.relation import Relation


# So many texts that fit make one that does not a matter of its own, and there may be one more.
_TEXTS_FOR_AN_UNFIT = 10


class Found(NamedTuple):
    """What a batch found.

    Attributes:
        texts: of each entity of a whole text, where it was found.
        entities: these, described already: on CUDA by the thread that decodes, so that none who starts kernels has to.
        relations: between these entities, each with its text.
        windows: candidates that windows of long texts own, to be resolved with their text's others; None without any.
        stats: what was done.
        window_relations: relations between spans of windows; those stay both of whose spans become entities of the
            text. None without any.
    """

    texts: list[int]
    entities: list[Entity]
    windows: Findings | None
    stats: Stats
    relations: Sequence[tuple[int, Relation]] = ()
    window_relations: WindowRelations | None = None


class NotRead(list["Entity"]):
    """No entities, in the place of those of a text that did not fit into memory."""


class Collector:
    """What is found in the texts of one request, batch by batch.

    Attributes:
        prepared: the texts.
        undone: batches that nothing was heard of yet.
        has_fit: whether memory was enough for one.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.undone = 0
        self.has_fit = False
        self._unfit: list[int] = []
        self._told = ""
        self._of_texts: list[list[Entity]] = [[] for _ in prepared.texts]
        self._of_windows: list[Findings] = []
        self._relations: list[list[Relation]] | None = None
        if asks_for_relations(prepared):
            self._relations = [[] for _ in prepared.texts]
        self._window_relations: list[WindowRelations] = []

    def add(self, found: Found) -> None:
        """Takes what a batch found."""
        self.undone -= 1
        self.has_fit = True
        _file(found.texts, found.entities, self._of_texts)
        if found.windows is not None:
            self._of_windows.append(found.windows)
        if self._relations is not None:
            for text, relation in found.relations:
                self._relations[text].append(relation)
        if found.window_relations is not None:
            self._window_relations.append(found.window_relations)

    def leave_out(self, row: int, error: MemoryError) -> None:
        """Takes note of a row that did not fit into memory, alone in its batch."""
        self.undone -= 1
        self._unfit.append(row)
        self._told = self._told or str(error)

    def result(self, stats: Stats, *, others_fit: bool) -> list[list[Entity]]:
        """For each text of the request its entities in reading order.

        Args:
            stats: what was done is added to it.
            others_fit: memory was enough for texts of requests before: a single one that it is short for may be alone.

        Raises:
            MemoryError: too many of them were left out for the fault to be theirs.
        """
        prepared = self.prepared
        unfit = np.unique(prepared.rows.texts[self._unfit])
        computed_texts = len(np.unique(prepared.rows.texts[prepared.scorable]))
        if len(unfit):
            _expect_few(len(unfit), computed_texts, self._told, others_fit=others_fit)
        if self._of_windows:
            began = perf_counter()
            resolved = _resolve_windows(prepared, Findings.join(self._of_windows))
            entities = describe(prepared, resolved)
            _file(resolved.texts.tolist(), entities, self._of_texts)
            if self._relations is not None:
                texts, relations = link_windows(prepared, self._window_relations, resolved, entities)
                for text, relation in zip(texts.tolist(), relations, strict=True):
                    self._relations[text].append(relation)
            stats.decode_seconds += perf_counter() - began
        of_texts = self._of_texts
        if self._relations is not None:
            of_texts = [LinkedEntities(*both) for both in zip(of_texts, self._relations, strict=True)]
        found = _for_every_place(prepared, of_texts)
        for text in unfit.tolist():
            for place in (int(prepared.places[text]), *prepared.further_places.get(text, ())):
                found[place] = NotRead()
        stats.texts += len(found)
        stats.computed_texts += computed_texts
        stats.entities += sum(map(len, found))
        stats.prepare_seconds += prepared.seconds
        return found


def _expect_few(unfit: int, computed: int, told: str, *, others_fit: bool) -> None:
    """Raises MemoryError where memory is short for all, not for texts that need more than others."""
    fit = computed - unfit
    if not (fit or others_fit) or unfit > 1 + fit // _TEXTS_FOR_AN_UNFIT:
        raise MemoryError(
            f"{told}. So it is with {unfit:,} of {computed:,} texts that were read together, too many to leave them "
            "out: have other programs free memory, or take a device with more"
        )


def _for_every_place(prepared: Prepared, of_texts: list[list[Entity]]) -> list[list[Entity]]:
    """Entities of every text of the request; equal texts get equal ones, but none in common, so each may be changed."""
    options = prepared.request.options
    are_linked = asks_for_relations(prepared)
    is_plain = not (options.return_class_probs or options.return_vectors or options.return_label_vectors or are_linked)
    found: list[list[Entity] | None] = [None] * len(prepared.request.texts)
    for place, entities in zip(prepared.places.tolist(), of_texts, strict=True):
        found[place] = entities
    for text, places in prepared.further_places.items():
        entities = of_texts[text]
        for place in places:
            found[place] = [entity.copy() for entity in entities] if is_plain else copy.deepcopy(entities)
    if are_linked:
        return [LinkedEntities([], []) if entities is None else entities for entities in found]
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

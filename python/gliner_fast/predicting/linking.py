"""What the entities of a batch are linked by, and how it is told (compat section 1.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from gliner_fast.labels import label_thresholds
from gliner_fast.predicting.describing import packed_ends
from gliner_fast.predicting.request import of_places
from gliner_fast.relations.pairs import Nodes
from gliner_fast.relations.relation import Relation, end_of
from gliner_fast.relations.scorer import Question, RelationScorer
from gliner_fast.scoring.candidates import Candidates

if TYPE_CHECKING:
    from gliner_fast.batch import Batch
    from gliner_fast.entity import Entity
    from gliner_fast.network import BatchScores, Network
    from gliner_fast.predicting.preparing import Prepared


@dataclass(frozen=True)
class FoundRelations:
    """Relations between entities of a batch.

    Attributes:
        rows: (F,) of the batch.
        heads: (F,) which of the batch's entities.
        tails: (F,) which of these.
        classes: (F,) index into the text's relations.
        scores: (F,) float32.
        vectors: further values by their key in `Relation`, F each.
    """

    rows: NDArray[np.int64]
    heads: NDArray[np.int64]
    tails: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    vectors: Mapping[str, NDArray[np.float32]]

    def take(self, chosen: NDArray[Any]) -> FoundRelations:
        """Some of them."""
        return FoundRelations(
            self.rows[chosen], self.heads[chosen], self.tails[chosen], self.classes[chosen], self.scores[chosen],
            {name: values[chosen] for name, values in self.vectors.items()},
        )  # fmt: skip


def asks_for_relations(prepared: Prepared) -> bool:
    """Whether some text's relations are looked for."""
    return prepared.request.options.return_relations and any(
        labels.relations is not None for labels in prepared.label_sets
    )


def find_relations(
    prepared: Prepared, batch: Batch, scores: BatchScores, network: Network, entities: Candidates, all_spans: Candidates
) -> FoundRelations | None:
    """Finds the relations between entities of a batch.

    Args:
        prepared: the texts.
        batch: B rows of them.
        scores: what the network says of the batch.
        network: of a relex model.
        entities: decoded ones, of some of the rows.
        all_spans: the candidates of these rows, whether or not they may be entities.

    Returns:
        Relations by row, head, tail and class; None where nothing can be related.
    """
    scorer = network.relations
    if scorer is None or scores.relation_prompts is None or batch.relation_counts is None:
        raise AssertionError("asked for relations of a model that finds none")
    texts = prepared.rows.texts[batch.rows]  # (B,)
    sets = prepared.label_sets_of(texts)
    are_asked = np.array([labels.relations is not None for labels in sets], np.bool_)
    nodes = _nodes(scorer, entities, all_spans, is_token_level=scorer.spans is not None)
    can_relate = are_asked & (np.bincount(nodes.texts[nodes.entities >= 0], minlength=len(sets)) > 1)  # (B,)
    nodes = nodes.take(can_relate[nodes.texts])
    if not len(nodes.texts):
        return None
    counts = batch.relation_counts.numpy()
    options, places = prepared.request.options, prepared.places[texts]
    question = Question(
        nodes.texts,
        nodes.entities >= 0,
        np.array(of_places(options.adjacency_threshold, places), np.float64),
        scores.relation_prompts,
        counts,
        _relation_thresholds(sets, of_places(options.relation_threshold, places), counts),
    )
    spans = network.relation_spans(scores.words, *packed_ends(batch, nodes, scores.words.device))
    found = scorer(spans, question, vectors=options.return_vectors, labels=options.return_label_vectors)
    return FoundRelations(
        nodes.texts[found.heads], nodes.entities[found.heads], nodes.entities[found.tails], found.classes, found.scores,
        found.vectors,
    )  # fmt: skip


def _nodes(scorer: RelationScorer, entities: Candidates, all_spans: Candidates, *, is_token_level: bool) -> Nodes:
    """The spans that the package looks for relations between, in its order.

    A span of several classes is one; but of a token-level model it comes once for each of them.
    """
    widest = 1 + max(entities.ends.max(initial=0), all_spans.ends.max(initial=0))

    def keys(spans: Candidates) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = (spans.texts * widest + spans.starts) * widest + spans.ends
        return numbers

    distinct, first_entities = np.unique(keys(entities), return_index=True)
    if is_token_level:
        wanted = keys(all_spans)
    elif scorer.reads_all_spans:
        wanted = np.unique(keys(all_spans))
    else:
        wanted = distinct
    at = np.minimum(np.searchsorted(distinct, wanted), max(0, len(distinct) - 1))
    found = distinct[at] == wanted if len(distinct) else np.zeros(len(wanted), np.bool_)
    of_nodes = np.where(found, first_entities[at] if len(distinct) else 0, -1)
    of_texts, ends = np.divmod(wanted, widest)
    texts, starts = np.divmod(of_texts, widest)
    nodes = Nodes(texts, starts, ends, of_nodes)
    return nodes if scorer.reads_all_spans else nodes.take(found)


def _relation_thresholds(
    sets: Sequence[Any], thresholds: Sequence[float | Mapping[str, float]], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """One threshold for each relation token of each text; infinite where it stands for no relation."""
    flat = np.full(counts.sum(), np.inf)
    at = 0
    for labels, threshold, count in zip(sets, thresholds, counts.tolist(), strict=True):
        if labels.relations is not None:
            names = labels.relations.names[:count]
            own = label_thresholds(names, threshold) if isinstance(threshold, Mapping) else threshold
            flat[at : at + len(names)] = own
        at += count
    return flat


def describe_relations(
    prepared: Prepared,
    texts: NDArray[np.int64],
    firsts: NDArray[np.int64],
    found: FoundRelations,
    entities: list[Entity],
) -> list[Relation]:
    """Writes one dict for each relation.

    Args:
        prepared: the texts.
        texts: (F,) the text of each relation.
        firsts: (F,) which of the entities is its text's first.
        found: the relations.
        entities: described.
    """
    relations: list[dict[str, Any]] = []
    for labels, first, head, tail, class_, score in zip(
        prepared.label_sets_of(texts),
        firsts.tolist(),
        found.heads.tolist(),
        found.tails.tolist(),
        found.classes.tolist(),
        found.scores.tolist(),
        strict=True,
    ):
        if labels.relations is None:
            raise AssertionError("a text has relations that it was not asked for")
        relations.append(
            {
                "head": end_of(entities[head], head - first),
                "tail": end_of(entities[tail], tail - first),
                "relation": labels.relations.names[class_],
                "score": score,
            }
        )
    for name in (name for name in Relation.__annotations__ if name in found.vectors):  # in the package's order
        for relation, value in zip(relations, found.vectors[name], strict=True):
            relation[name] = value
    return cast("list[Relation]", relations)

"""Entities of a batch -> which are linked, and by which relations: the layers of relex models.

The package gives each linked pair to two layers, 2D -> 4D -> D, and multiplies by the relations' vectors. As in the
span head (DESIGN 3.1) the first layer splits into a head half and a tail half, computed once an entity, and the second
into the relations' vectors, computed once a relation. And no pair is looked at but of what became entities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gliner_fast.cpu.linear import expect_layer
from gliner_fast.relations.adjacency import ContextualAdjacency, PairwiseAdjacency, adjacency_layer
from gliner_fast.relations.pairs import ordered_pairs, padded_blocks
from gliner_fast.relations.triples import TripleScorer, triple_scorer
from gliner_fast.scoring.span_vectors import MarkedSpanVectors
from gliner_fast.upload import upload

# Numbers of the widest tensor of pairs at a time: on a CPU it stays in the caches.
_CPU_BLOCK, _GPU_BLOCK = 2**20, 2**25

# Head, tail, class and score of relations.
_Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


@dataclass(frozen=True)
class Question:
    """What is asked about the nodes of B texts.

    Attributes:
        texts: (S,) the text of each node, ascending.
        are_entities: (S,) False for nodes that no relation may have.
        adjacency_thresholds: (B,) the probability of a link that pairs of each text must pass.
        prompts: (R, D) vectors of the texts' relations, text after text.
        counts: (B,) relations of each text.
        thresholds: (R,) the probability that each must pass; infinite where none does.
    """

    texts: NDArray[np.int64]
    are_entities: NDArray[np.bool_]
    adjacency_thresholds: NDArray[np.float64]
    prompts: Tensor
    counts: NDArray[np.int64]
    thresholds: NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """Relations that pass, by text, head, tail and class.

    Attributes:
        heads: (F,) node.
        tails: (F,) node.
        classes: (F,) index into the text's relations.
        scores: (F,) float32.
        vectors: what the scores were made of, by its key in `Relation`; each (F, D).
    """

    heads: NDArray[np.int64]
    tails: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    vectors: dict[str, NDArray[np.float32]]


class PairScorer(nn.Module):
    """Scores pairs of entities against relations by a layer over both of them, factored.

    Attributes:
        inner: [head ; tail], 2D -> 4D, ReLU behind it.
        outer: 4D -> D.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(2 * width, 4 * width)
        self.outer = nn.Linear(4 * width, width)
        self.dropout = dropout

    def halves(self, spans: Tensor) -> tuple[Tensor, Tensor]:
        """What each entity adds as head and as tail, each (S, 4D)."""
        inner = expect_layer(self.inner, nn.Linear, "relations.pairs.inner")
        head, tail = inner.weight.chunk(2, dim=1)
        return F.linear(spans, head, inner.bias), F.linear(spans, tail)

    def forward(self, heads: Tensor, tails: Tensor, prompts: Tensor) -> Tensor:
        """Logits of G texts.

        Args:
            heads: (G, P, 4D) of each pair, as `halves` gives them.
            tails: (G, P, 4D).
            prompts: (G, C, D) vectors of relations.

        Returns:
            (G, P, C).
        """
        outer = expect_layer(self.outer, nn.Linear, "relations.pairs.outer")
        types, constant = prompts @ outer.weight, prompts @ outer.bias  # (G, C, 4D), (G, C)
        return torch.baddbmm(constant[:, None], self._joint(heads, tails), types.mT)

    def vectors(self, heads: Tensor, tails: Tensor) -> Tensor:
        """The vectors of pairs, which the package multiplies by those of relations: (F, 4D) twice -> (F, D)."""
        vectors: Tensor = self.outer(self._joint(heads, tails))
        return vectors

    def _joint(self, heads: Tensor, tails: Tensor) -> Tensor:
        joint = heads + tails
        joint = F.relu(joint) if torch.is_grad_enabled() else joint.relu_()
        return F.dropout(joint, self.dropout, self.training)


class RelationScorer(nn.Module):
    """Finds the relations between entities.

    Attributes:
        spans: of a token-level model; None where the span head has them.
        adjacency: decides which entities are linked; None: all are.
        pairs: scores linked ones against relations,
        triples: or this does.
    """

    def __init__(
        self, width: int, dropout: float, relations_layer: str, triples_layer: str | None, *, is_token_level: bool
    ) -> None:
        super().__init__()
        self.spans = MarkedSpanVectors(width, dropout) if is_token_level else None
        self.adjacency: PairwiseAdjacency | ContextualAdjacency | None = None
        if relations_layer != "none":
            self.adjacency = adjacency_layer(relations_layer, width)
        self.pairs = PairScorer(width, dropout) if triples_layer is None else None
        self.triples: TripleScorer | None = None if triples_layer is None else triple_scorer(triples_layer, width)

    @property
    def reads_all_spans(self) -> bool:
        """Whether a link between two entities depends on spans that became none, too."""
        return isinstance(self.adjacency, ContextualAdjacency)

    def forward(self, spans: Tensor, question: Question, *, vectors: bool = False, labels: bool = False) -> Answer:
        """Finds relations.

        Args:
            spans: (S, D) vectors of the nodes.
            question: about them.
            vectors: whether to add what pairs were scored by.
            labels: whether to add the relations' vectors.
        """
        block = _CPU_BLOCK if spans.device.type == "cpu" else _GPU_BLOCK
        ends = (spans, spans) if self.pairs is None else self.pairs.halves(spans)
        parts = [
            part
            for heads, tails in self._linked(spans, question, block)
            for part in self._score(ends, question, heads, tails, block)
        ]
        none = np.zeros(0, np.int64)
        heads, tails, classes = (np.concatenate([none, *(part[own] for part in parts)]) for own in range(3))
        scores = np.concatenate([np.zeros(0, np.float32), *(part[3] for part in parts)])
        order = np.lexsort((classes, tails, heads))  # nodes are by text
        found = Answer(heads[order], tails[order], classes[order], scores[order], {})
        if vectors and len(order):
            found.vectors.update(self._vectors(spans, found))
        if labels and len(order):
            firsts = np.cumsum(question.counts) - question.counts
            (rows,) = _on_device(spans, firsts[question.texts[found.heads]] + found.classes)
            found.vectors["label_vector"] = _to_numpy(question.prompts[rows])
        return found

    def _linked(
        self, spans: Tensor, question: Question, block: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Pairs of nodes that are linked, by head and tail: where all are, some at a time."""
        chosen = np.flatnonzero(question.are_entities)
        adjacency = self.adjacency
        if adjacency is None:
            yield from ordered_pairs(question.texts, chosen, block)
            return
        # Compared in the weights' own precision, as the package does it.
        (limits,) = upload([torch.from_numpy(question.adjacency_thresholds).to(spans.dtype).float()], spans.device)
        none: NDArray[np.int64] = np.zeros(0, np.int64)
        kept_heads, kept_tails = [none], [none]
        if isinstance(adjacency, PairwiseAdjacency):
            (texts,) = _on_device(spans, question.texts)
            of_heads, of_tails = adjacency.project(spans)
            for heads, tails in ordered_pairs(question.texts, chosen, max(1, block // of_heads.shape[1])):
                head, tail = _on_device(spans, heads, tails)
                kept = _copied(adjacency.score(of_heads[head], of_tails[tail]) > limits[texts[head]])
                kept_heads.append(heads[kept])
                kept_tails.append(tails[kept])
        else:
            for first, last, linked in _linked_in_texts(adjacency, spans, limits, question.texts, block):
                are_entities = question.are_entities[first:last]
                passes = linked & are_entities & are_entities[:, None]  # (E, E)
                np.fill_diagonal(passes, val=False)
                heads, tails = np.nonzero(passes)
                kept_heads.append(heads + first)
                kept_tails.append(tails + first)
        yield np.concatenate(kept_heads), np.concatenate(kept_tails)

    def _score(
        self,
        ends: tuple[Tensor, Tensor],
        question: Question,
        heads: NDArray[np.int64],
        tails: NDArray[np.int64],
        block: int,
    ) -> Iterator[_Found]:
        """The relations of linked pairs, in no order; what nodes add as heads and tails is in `ends`, (S, H) each."""
        of_heads, of_tails = ends
        device = of_heads.device
        columns_of_widest = 1 if self.pairs is not None else max(1, question.counts.max(initial=0))
        firsts, limits = np.cumsum(question.counts) - question.counts, just_below(question.thresholds)
        for own in padded_blocks(question.texts[heads], max(1, block // (of_heads.shape[1] * columns_of_widest))):
            counts = question.counts[own.texts]
            columns = np.arange(counts.max(initial=0))
            are_types = columns < counts[:, None]  # (G, C)
            types = np.where(are_types, firsts[own.texts][:, None] + columns, 0)  # (G, C); padded with any
            own_limits = np.where(are_types, limits[types], np.float32(np.inf))  # (G, C)
            head, tail, type_ = _on_device(of_heads, heads[own.pairs], tails[own.pairs], types)
            (limit,) = upload([torch.from_numpy(own_limits)], device)
            (are_pairs,) = upload([torch.from_numpy(own.are_pairs)], device)
            logits = self._logits(of_heads[head], of_tails[tail], question.prompts[type_])  # (G, P, C)
            scores = torch.sigmoid(logits).float()
            passes = (scores > limit[:, None]) & are_pairs[:, :, None]
            # On CUDA the host waits three times: for how many there are, for their places and for their scores.
            places = torch.nonzero(passes, as_tuple=True)
            if len(places[0]):
                rows, chosen, classes = _copied(torch.stack(places))
                pairs = own.pairs[rows, chosen]
                yield heads[pairs], tails[pairs], classes, _copied(scores[places])

    def _logits(self, heads: Tensor, tails: Tensor, prompts: Tensor) -> Tensor:
        """(G, P, H) twice and (G, C, D) -> (G, P, C)."""
        if self.pairs is not None:
            logits: Tensor = self.pairs(heads, tails, prompts)
            return logits
        if self.triples is None:
            raise AssertionError("a relex model has one of the two")
        scores: Tensor = self.triples(heads[:, :, None], prompts[:, None], tails[:, :, None])
        return scores

    def _vectors(self, spans: Tensor, found: Answer) -> dict[str, NDArray[np.float32]]:
        heads, tails = _on_device(spans, found.heads, found.tails)
        if self.pairs is None:
            return {
                "head_relation_vector": _to_numpy(spans[heads]),
                "tail_relation_vector": _to_numpy(spans[tails]),
            }
        of_heads, of_tails = self.pairs.halves(spans)
        return {"vector": _to_numpy(self.pairs.vectors(of_heads[heads], of_tails[tails]))}


def just_below(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """What a float32 is above exactly if it is above the threshold, which the package compares in float64."""
    with np.errstate(over="ignore"):  # of a threshold that no score comes near
        rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _linked_in_texts(
    adjacency: ContextualAdjacency, spans: Tensor, limits: Tensor, texts: NDArray[np.int64], most: int
) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
    """Which pairs of each text's nodes pass its limit, (E, E) on the host, with its first node and one past its last.

    Texts of up to `most` pairs, or one with more, are copied together: for each copy the host waits for the device.
    """
    runs = _runs(texts)
    ends = np.cumsum([(last - first) ** 2 for _, first, last in runs])
    begin = 0
    while begin < len(runs):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, "right")))
        own = runs[begin:end]
        passes = [(adjacency(spans[first:last]).float() > limits[text]).flatten() for text, first, last in own]
        parts = np.split(_copied(torch.cat(passes)), ends[begin : end - 1] - before)
        for (_, first, last), part in zip(own, parts, strict=True):
            yield first, last, part.reshape(last - first, last - first)
        begin = end


def _runs(texts: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Each text that has nodes, its first, and one past its last."""
    own, firsts, counts = np.unique(texts, return_index=True, return_counts=True)
    return list(zip(own.tolist(), firsts.tolist(), (firsts + counts).tolist(), strict=True))


def _copied(tensor: Tensor) -> NDArray[Any]:
    """As an array that torch's memory is not kept by.

    What is kept would lie between the tensors of one block and the next, and no large one would fit where another was.
    """
    array: NDArray[Any] = tensor.cpu().numpy().copy()
    return array


def _on_device(like: Tensor, *arrays: NDArray[np.int64]) -> list[Tensor]:
    return upload([torch.from_numpy(np.ascontiguousarray(array)) for array in arrays], like.device)


def _to_numpy(vectors: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = vectors.float().cpu().numpy()
    return array

"""Entity vectors -> how likely each entity is related to each other one: layers that `relations_layer` names.

The package runs them on a padded batch of texts with a mask. Here entities come packed: no layer lets what is masked
change an entity that is not, so each text has the scores that it has in any batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import expect_layer
from gliner_fast.errors import UnsupportedCheckpointError
from gliner_fast.precision import widened

_HEADS = 8  # of attention: no setting of a checkpoint changes it


class PairwiseAdjacency(nn.Module, ABC):
    """Scores a pair by its two entities alone, so that pairs of any texts may be scored at once."""

    @abstractmethod
    def project(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """What an entity adds to a pair as its head, and as its tail: (E, D) -> (E, H), (E, H), in float32 or wider."""

    @abstractmethod
    def score(self, heads: Tensor, tails: Tensor) -> Tensor:
        """Probabilities that pairs are related, (P,), in float32 or wider.

        Args:
            heads: (P, H) rows of the first that `project` gave, one of each pair.
            tails: (P, H) rows of the second.
        """


class DotAdjacency(PairwiseAdjacency):
    """sigmoid(a . b) of entity vectors a and b."""

    def project(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """The entities as they are."""
        vectors = widened(entities)
        return vectors, vectors

    def score(self, heads: Tensor, tails: Tensor) -> Tensor:
        """The sigmoid of dot products, (P, H), (P, H) -> (P,)."""
        return (heads * tails).sum(-1).sigmoid()


class BilinearAdjacency(DotAdjacency):
    """sigmoid(W a . W b), with biases: one projection for heads and tails."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)

    def project(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """The projection of each entity, twice: (E, D) -> (E, D), (E, D)."""
        vectors: Tensor = widened(self.proj(entities))
        return vectors, vectors


class MLPAdjacency(PairwiseAdjacency):
    """sigmoid(w . relu(W [a ; b] + c) + d).

    W splits into halves (DESIGN 3.1): what it makes of a and of b is computed once an entity, not once a pair.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def project(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """What the first layer makes of each entity, its bias with the head: (E, D) -> (E, D), (E, D)."""
        first = expect_layer(self.mlp[0], nn.Linear, "relations.adjacency.mlp.0")
        of_head, of_tail = first.weight.chunk(2, dim=1)
        return widened(F.linear(entities, of_head, first.bias)), widened(F.linear(entities, of_tail))

    def score(self, heads: Tensor, tails: Tensor) -> Tensor:
        """The second layer on the sum of both, (P, H), (P, H) -> (P,)."""
        out = expect_layer(self.mlp[2], nn.Linear, "relations.adjacency.mlp.2")
        inner = (heads + tails).relu_()  # (P, H)
        return F.linear(inner, widened(out.weight), widened(out.bias))[:, 0].sigmoid()


class ContextualAdjacency(nn.Module, ABC):
    """Scores the pairs of a text by all of its entities."""

    def forward(self, entities: Tensor) -> Tensor:
        """Probabilities that the entities of one text are related: (E, D) -> (E, E), head by tail, float32 or wider."""
        if not len(entities):  # not every attention kernel has an answer for no rows
            return widened(entities.new_zeros(0, 0))
        return widened(self.related(entities))

    @abstractmethod
    def related(self, entities: Tensor) -> Tensor:
        """The same of at least one entity, in any precision."""


class AttentionAdjacency(ContextualAdjacency):
    """The weights of self-attention, their mean over heads: each head entity's sum to 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)

    def related(self, entities: Tensor) -> Tensor:
        """(E, D) -> (E, E)."""
        weights: Tensor = self.attn(entities, entities, entities)[1]
        return weights


class GATAdjacency(ContextualAdjacency):
    """sigmoid(z_i . z_j), with z a projection of what self-attention makes of the entities."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)
        self.linear = nn.Linear(width, width)

    def related(self, entities: Tensor) -> Tensor:
        """(E, D) -> (E, E)."""
        mixed = self.attn(entities, entities, entities, need_weights=False)[0]  # (E, D)
        vectors = widened(self.linear(mixed))
        return (vectors @ vectors.T).sigmoid()


class GraphConvolution(nn.Module):
    """relu(W N^-1/2 A N^-1/2 x + c), with the graph's weights A and N their sums (Kipf and Welling 2017, eq. 2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, entities: Tensor, graph: Tensor) -> Tensor:
        """(E, D) vectors by the (E, E) graph, whose rows have positive sums, -> (E, D)."""
        scale = graph.sum(-1).rsqrt()  # (E,)
        mixed = (scale[:, None] * graph * scale) @ widened(entities)  # (E, D)
        return F.relu(self.linear(mixed.to(entities.dtype)))


class GCNAdjacency(ContextualAdjacency):
    """sigmoid(z_i . z_j), with z a projection of a graph convolution, whose graph is `DotAdjacency` and self-loops.

    The package cannot run this layer in 16 bits: its graph is float32 there, and its entities are not.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gcn = GraphConvolution(width)
        self.proj = nn.Linear(width, width)

    def related(self, entities: Tensor) -> Tensor:
        """(E, D) -> (E, E)."""
        exact = widened(entities)
        graph = (exact @ exact.T).sigmoid()
        # An entity's likeness to itself is in the graph; the self-loop comes on top of it.
        graph = graph + torch.eye(len(graph), dtype=graph.dtype, device=graph.device)
        vectors = widened(self.proj(self.gcn(entities, graph)))
        return (vectors @ vectors.T).sigmoid()


Adjacency: TypeAlias = PairwiseAdjacency | ContextualAdjacency

_LAYERS: dict[str, Callable[[int], Adjacency]] = {
    "dot": lambda _: DotAdjacency(),
    "mlp": MLPAdjacency,
    "attention": AttentionAdjacency,
    "attn": AttentionAdjacency,
    "bilinear": BilinearAdjacency,
    "gcn": GCNAdjacency,
    "gat": GATAdjacency,
}


def adjacency_layer(mode: str, width: int) -> Adjacency:
    """The layer of a mode, whose parameters have the package's names below `relations_rep_layer.relation_rep_layer.`.

    Args:
        mode: the setting `relations_layer`, one of `config.RELATIONS_LAYERS` but "none", in upper or lower case.
        width: numbers of an entity vector.

    Raises:
        UnsupportedCheckpointError: attention whose heads do not divide the width.
    """
    name = mode.lower()
    if name in ("attention", "attn", "gat") and width % _HEADS:
        raise UnsupportedCheckpointError(
            f"relations_layer is {mode!r}, whose {_HEADS} heads cannot share {width} numbers: expected a hidden_size "
            f"divisible by {_HEADS}"
        )
    return _LAYERS[name](width)

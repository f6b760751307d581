"""Which entities of a batch are looked at together, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Nodes:
    """Spans of B texts that relations may be between, text after text.

    Attributes:
        texts: (S,) the text of each, ascending.
        starts: (S,) its first word, counted in the text.
        ends: (S,) one past its last word.
        entities: (S,) which of the batch's entities it is; -1 for a span that became none.
    """

    texts: _Ints
    starts: _Ints
    ends: _Ints
    entities: _Ints

    def take(self, chosen: NDArray[np.bool_]) -> Nodes:
        """Some of them."""
        return Nodes(self.texts[chosen], self.starts[chosen], self.ends[chosen], self.entities[chosen])


class Block(NamedTuple):
    """Pairs of some texts beside each other, padded with a pair that comes again.

    Attributes:
        texts: (G,) a text may come more than once.
        pairs: (G, P) which pairs of all.
        are_pairs: (G, P) False where there is none.
    """

    texts: _Ints
    pairs: _Ints
    are_pairs: NDArray[np.bool_]


def ordered_pairs(texts: _Ints, chosen: _Ints, most: int) -> Iterator[tuple[_Ints, _Ints]]:
    """All pairs of two chosen nodes of one text, head and tail, by head and then tail.

    Args:
        texts: (S,) the text of each node, ascending.
        chosen: nodes, ascending.
        most: pairs that are given at once, or those of one head if these are more.
    """
    own = texts[chosen]  # ascending
    firsts, lasts = np.searchsorted(own, own, "left"), np.searchsorted(own, own, "right")
    ends = np.cumsum(lasts - firsts)
    begin = 0
    while begin < len(chosen):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + most, "right")))
        counts = (lasts - firsts)[begin:end]
        heads = np.repeat(np.arange(begin, end), counts)
        within = np.arange(len(heads)) - np.repeat(np.cumsum(counts) - counts, counts)
        tails = np.repeat(firsts[begin:end], counts) + within
        are_two = heads != tails
        yield chosen[heads[are_two]], chosen[tails[are_two]]
        begin = end


def padded_blocks(texts: _Ints, most: int) -> Iterator[Block]:
    """Cuts pairs into blocks of texts with about as many.

    Args:
        texts: (P,) the text of each pair, ascending.
        most: pairs of a block, padding included; at least 1.
    """
    own, firsts, counts = np.unique(texts, return_index=True, return_counts=True)
    parts = -(-counts // most)  # of each text
    numbers = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = np.repeat(firsts, parts) + numbers * most
    sizes = np.minimum(np.repeat(firsts + counts, parts) - begins, most)
    of_text = np.repeat(own, parts)
    order = np.argsort(-sizes, kind="stable")
    at = 0
    while at < len(order):
        widest = int(sizes[order[at]])
        rows = order[at : at + max(1, most // widest)]
        columns = np.arange(widest)
        are_pairs = columns < sizes[rows, None]
        yield Block(of_text[rows], begins[rows, None] + np.where(are_pairs, columns, 0), are_pairs)
        at += len(rows)

"""Position scores of DeBERTa's attention, read off a diagonal view instead of being gathered for each (i, j)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Subwords from which a text's position scores are computed in blocks on a CPU, and the rows of a block.
_LONG_TEXT, _BLOCK_ROWS = 160, 64


@dataclass(frozen=True)
class LayerPositions:
    """Position keys and queries of one layer for texts of L subwords, scaled as the scores are.

    Attributes:
        keys: (H, 2L-1, head_dim) in order of descending distance i - j; None without content-to-position scores.
        queries: (H, 2L-1, head_dim) in order of ascending distance; None without position-to-content scores.
        scale: factor of query . key.
    """

    keys: Tensor | None
    queries: Tensor | None
    scale: float

    def bias(self, query: Tensor, key: Tensor, first_head: int) -> Tensor | None:
        """Content-to-position plus position-to-content scores, (B, h, L, L), for query and key (B, h, L, head_dim).

        The product with 2L-1 consecutive distances holds the score of (i, j) on a diagonal: column L-1-i+j of row
        i for the keys, column L-1+i-j of row j for the queries. A view with row stride 2L-2 reads it off. Half of the
        product is not on it, so that long texts are taken a block of rows at a time, each with the distances it reads.
        """
        heads = slice(first_head, first_head + query.shape[1])
        bias = None
        if self.keys is not None:
            parts = [scores for _, scores in _diagonals(query, self.keys[heads])]
            bias = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        if self.queries is not None:
            by_key = [(rows, scores.mT) for rows, scores in _diagonals(key, self.queries[heads])]
            if bias is None:
                bias = torch.cat([scores for _, scores in by_key], dim=3)
            elif len(by_key) == 1:
                bias = bias + by_key[0][1]
            else:
                for rows, scores in by_key:
                    bias[..., rows].add_(scores)
        return bias


def _diagonals(content: Tensor, table: Tensor) -> list[tuple[slice, Tensor]]:
    """Scores of content (B, h, L, head_dim) against distances (h, 2L-1, head_dim), blocks of rows: (B, h, R, L), views.

    [b, h, i, j] is the score of content i against row L-1-i+j of the table.
    """
    length = content.shape[2]
    table = table.narrow(1, 0, 2 * length - 1)  # which tells a compiler how many distances there are, for any length
    # Blocks of equal size or nearly. A gradient, a compiler and a GPU do better with one product.
    by_torch = torch.is_grad_enabled() or torch.compiler.is_compiling() or content.device.type != "cpu"
    if by_torch or length < _LONG_TEXT:  # asked in this order: a compiler would take a loop for one length only
        return [(slice(0, length), _block_diagonals(content, table))]
    size = -(-length // round(length / _BLOCK_ROWS))
    blocks = []
    for first in range(0, length, size):
        rows = slice(first, min(length, first + size))
        blocks.append(
            (rows, _block_diagonals(content[:, :, rows], table[:, length - rows.stop : 2 * length - 1 - first]))
        )
    return blocks


def _block_diagonals(content: Tensor, table: Tensor) -> Tensor:
    """Scores of content (B, h, R, head_dim) against distances (h, L+R-1, head_dim): (B, h, R, L), a view.

    [b, h, i, j] is the score of content i against row R-1-i+j of the table.
    """
    batch, heads, rows, head_dim = content.shape
    columns = table.shape[1]
    # One product a head for all texts, so that the table is read once.
    by_head = content.transpose(0, 1).reshape(heads, batch * rows, head_dim)
    scores = by_head @ table.mT  # (h, B*R, L+R-1), at the beginning of memory of its own
    strides = (rows * columns, batch * rows * columns, columns - 1, 1)
    shape = (batch, heads, rows, columns - rows + 1)
    return scores.as_strided(shape, strides, rows - 1)

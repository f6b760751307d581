"""Disentangled attention over packed texts (DeBERTa, He et al. 2021, equations 2 to 4): the specification, in torch.

A score is content against content, plus content against the distance i - j in both directions:

    score[i, j] = scale * q[i] . k[j] + q[i] . position_keys[r] + k[j] . position_queries[r],   r = rows[i - j]

Other encoders have no such vectors of distances, but a number of each (`Positions.biases`), or rotate queries and keys
by their places (`Rotations`), or attend within a window. Also computes what the kernel (`disentangled_attention.py`)
does not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Positions:
    """What a layer knows of distances, scaled as the scores are.

    Attributes:
        keys: (H, R, d), what queries are multiplied with; None without content-to-position scores.
        queries: (H, R, d), what keys are multiplied with; None without position-to-content scores.
        rows: (2M-1,) int32, the row of both for the distances -(M-1)..M-1; M is at least the longest text.
        biases: (H, 2M-1), what is added to the scores at these distances; None for nothing (T5).
    """

    keys: Tensor | None
    queries: Tensor | None
    rows: Tensor
    biases: Tensor | None = None


@dataclass(frozen=True)
class Rotations:
    """By which angles queries and keys are rotated, for each place in a text (RoPE, Su et al. 2021).

    The number at c of a vector's first half and its twin of the second are a point in a plane.

    Attributes:
        cosines: (M, d / 2) float32, M is at least the longest text.
        sines: the same of the sines.
    """

    cosines: Tensor
    sines: Tensor

    def rotate(self, qkv: Tensor, places: Tensor) -> Tensor:
        """(N, 3, H, d), places in their texts (N,) -> (N, 3, H, d): queries and keys rotated, in float32 at least."""
        cosines, sines = self.cosines[places, None, None], self.sines[places, None, None]  # (N, 1, 1, d / 2)
        content, values = qkv.split((2, 1), 1)  # type: ignore[no-untyped-call]
        first, second = content.to(torch.promote_types(qkv.dtype, cosines.dtype)).chunk(2, -1)  # (N, 2, H, d / 2) each
        rotated = torch.cat([first * cosines - second * sines, second * cosines + first * sines], -1)
        return torch.cat([rotated.to(qkv.dtype), values], 1)


def disentangled_attention_reference(
    qkv: Tensor, positions: Positions, *, lengths: Sequence[int], scale: float, window: int | None = None
) -> Tensor:
    """Values, averaged by the softmax of the scores within each text.

    Args:
        qkv: (N, 3, H, d), queries, keys and values of the packed subwords.
        positions: of this layer.
        lengths: subwords of each text; N in all.
        scale: factor of query . key.
        window: subwords on either side that a query sees at most; None: it sees all.

    Returns:
        (N, H, d).
    """
    farthest = len(positions.rows) // 2  # distance 0 stands in the middle
    contexts = [qkv.new_empty(0, *qkv.shape[2:])]
    for text, length in zip(qkv.split(list(lengths)), lengths, strict=True):  # type: ignore[no-untyped-call]
        query, key, value = text.permute(1, 2, 0, 3)  # each (H, L, d)
        scores = query @ key.mT * scale  # (H, L, L)
        at = torch.arange(length, device=qkv.device)
        distances = at[:, None] - at  # [i, j] = i - j
        index = positions.rows[distances + farthest].long().expand_as(scores)  # [h, i, j] = row of i - j
        if positions.keys is not None:
            scores += (query @ positions.keys.mT).gather(-1, index)  # (H, L, R) -> (H, L, L)
        if positions.queries is not None:
            scores += (key @ positions.queries.mT).gather(-1, index.mT).mT
        if positions.biases is not None:
            scores += positions.biases[:, distances + farthest]
        if window is not None:
            scores = scores.masked_fill(distances.abs() > window, -torch.inf)
        contexts.append((scores.softmax(-1) @ value).transpose(0, 1))  # (L, H, d)
    return torch.cat(contexts)

"""A bi-encoder's labels, encoded once for all pieces of a batch.

The pieces read one leaf of the autograd graph, in which their gradients add up, and the last of them takes the sum into
the encoder of labels: each piece still has a backward pass of its own, and frees its memory before the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast.batch import Batch
from gliner_fast.label_encoder import LabelTexts

_Distinct = dict[bytes, NDArray[np.int64]]


def share_labels(
    pieces: Sequence[Batch], label_vectors: Callable[[LabelTexts], Tensor], most_subwords: int
) -> Iterator[Batch]:
    """The pieces of a batch, each with the vectors of its labels where other pieces have a part in them.

    A piece must have had its backward pass before the next one is asked for. Pieces that share nothing come as they
    are, and the network encodes their labels.

    Args:
        pieces: of any model; those of a uni-encoder have no labels to share.
        label_vectors: encodes labels, (U, D).
        most_subwords: of the labels that are encoded together, whose graph is held as long as pieces read them; a piece
            with more has them for itself.
    """
    for group, labels in _groups(pieces, most_subwords):
        if labels is None:
            yield from group
        else:
            yield from _with_vectors(group, labels, label_vectors)


def _groups(pieces: Sequence[Batch], most_subwords: int) -> Iterator[tuple[list[Batch], LabelTexts | None]]:
    """Neighbouring pieces that share labels, with the distinct labels; None where there is nothing to share."""
    group: list[Batch] = []
    distinct: _Distinct = {}
    for piece in pieces:
        own = {} if piece.labels is None else {ids.tobytes(): ids for ids in piece.labels.ids}
        joined = distinct | own
        if group and sum(map(len, joined.values())) > most_subwords:
            yield group, _worth_sharing(group, distinct)
            group, joined = [], own
        group.append(piece)
        distinct = joined
    if group:
        yield group, _worth_sharing(group, distinct)


def _worth_sharing(group: list[Batch], distinct: _Distinct) -> LabelTexts | None:
    """The distinct labels of pieces, if any of them occurs in two pieces."""
    own = [piece.labels for piece in group if piece.labels is not None]
    if sum(len(labels.ids) for labels in own) == len(distinct):
        return None
    return LabelTexts(list(distinct.values()), own[0].pad_id)


def _with_vectors(
    group: list[Batch], labels: LabelTexts, label_vectors: Callable[[LabelTexts], Tensor]
) -> Iterator[Batch]:
    """The pieces with the vectors of these labels."""
    place = {ids.tobytes(): index for index, ids in enumerate(labels.ids)}
    vectors = label_vectors(labels)  # (U, D)
    # Gradients of many pieces are added up in it: not in half precision.
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    leaf = vectors.detach()
    if vectors.requires_grad:
        leaf.requires_grad_()
        vectors.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: gradient if leaf.grad is None else gradient + leaf.grad
        )
    for piece in group:
        assert piece.labels is not None
        assert piece.label_rows is not None
        rows = torch.tensor([place[ids.tobytes()] for ids in piece.labels.ids], device="cpu")  # (U of the piece,)
        given = replace(labels, given=vectors if piece is group[-1] else leaf)
        yield replace(piece, labels=given, label_rows=rows[piece.label_rows])

"""Labels -> label vectors by an encoder of their own: bi-encoders have it in place of prompts (compat section 5.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.packed_weights import Sample, stamp_of
from gliner_fast.encoder import build_encoder, encoder_width
from gliner_fast.encoders.as_built import is_plain
from gliner_fast.errors import CheckpointError
from gliner_fast.precision import autocast_dtype

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LABELS_AT_ONCE = 256


@dataclass(frozen=True)
class LabelTokenizer:
    """The tokenizer of a bi-encoder's labels, each of which is read as a whole.

    Attributes:
        backend: truncation and padding are ours.
        pad_id: fills rows up.
        max_subwords: of a label, special ones included; None for no limit.
    """

    backend: Tokenizer
    pad_id: int
    max_subwords: int | None

    def encode(self, label: str) -> NDArray[np.int64]:
        """Subword ids of a label with special ones around them; what passes the limit is cut off before the last ones.

        Surrogates must have been replaced.
        """
        ids: list[int] = self.backend.encode(label, add_special_tokens=True).ids
        limit = self.max_subwords
        if limit is not None and len(ids) > limit:
            bare = self.backend.encode(label, add_special_tokens=False).ids
            front = next((at for at in range(len(ids) - len(bare) + 1) if ids[at : at + len(bare)] == bare), 0)
            behind = ids[front + len(bare) :]
            ids = ids[: limit - len(behind)] + behind
        return np.array(ids, np.int64)


@dataclass(eq=False)  # not frozen: torch's compiler looks into frozen ones, and has no way with arrays
class LabelTexts:
    """The U distinct labels of a call, tokenized.

    Attributes:
        ids: subword ids of each.
        pad_id: fills rows up.
        given: (U, D) the vectors that the user gave, in place of all that.
    """

    ids: Sequence[NDArray[np.int64]]
    pad_id: int
    given: Tensor | None = None


@dataclass(frozen=True)
class _Kept:
    """Vectors of labels, and what they were made of.

    Attributes:
        of: the labels, and the weights as they were, in whole numbers too or not.
        sample: some of the weights' numbers: they tell of changes behind torch's back, on the CPU.
        vectors: (U, D).
    """

    of: tuple[object, ...]
    sample: Sample
    vectors: Tensor


class LabelEncoder(nn.Module):
    """The encoder of labels, the mean over each label's subwords, and a projection to the head's width, if need be.

    The package projects each subword and takes the mean then, which is the same up to rounding. Without a gradient the
    vectors of the last labels are kept as long as the weights stay: one text after another is asked for the same ones.
    A change of weights behind torch's back is seen on the CPU alone. Nothing is kept where others than torch,
    transformers and this package have a part in the encoder: an adapter may be switched without a change of weights.
    """

    def __init__(self, encoder_config: Mapping[str, Any], width: int) -> None:
        super().__init__()
        try:
            self.encoder = build_encoder(encoder_config)
        except CheckpointError as error:  # of an encoder_config, which the one of texts has, too
            raise type(error)(f"the encoder of labels: {error}") from error
        own_width = encoder_width(self.encoder)
        self.projection: Linear | None = Linear(own_width, width) if own_width != width else None
        self._kept: _Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what was kept."""
        return {**self.__dict__, "_kept": None}

    def vectors_of(self, labels: LabelTexts) -> Tensor:
        """Vectors of labels, (U, D), maybe as they were made before."""
        if torch.is_grad_enabled() or self.training or not self._is_as_built():
            self._kept = None  # weights are about to change, or what is made of them without telling
            return cast(Tensor, self(labels.ids, labels.pad_id))
        weights = list(self.parameters())
        device = weights[0].device.type
        autocast = autocast_dtype(device)
        texts = tuple(own.tobytes() for own in labels.ids)
        whole = [
            None if own.whole is None else type(own.whole.parts[0]) for own in self.modules() if isinstance(own, Linear)
        ]
        of = (texts, labels.pad_id, autocast, whole, *(stamp_of(weight) for weight in weights))
        kept = self._kept  # read once: another thread may be replacing it
        if kept is None or kept.of != of or not kept.sample.is_as_it_was():
            sample = Sample.take(weights)
            kept = _Kept(of, sample, self(labels.ids, labels.pad_id))
            if device == "cuda":  # or another thread, on another stream, could read them before they are there
                torch.cuda.current_stream(weights[0].device).synchronize()
            self._kept = kept
        return kept.vectors

    def _is_as_built(self) -> bool:
        """Whether nobody has put modules or hooks of their own in."""
        return all(map(is_plain, self.modules()))

    def forward(self, ids: Sequence[NDArray[np.int64]], pad_id: int) -> Tensor:
        """Vectors of labels, (U, D).

        Args:
            ids: subword ids of each label.
            pad_id: fills rows up.
        """
        device = next(self.parameters()).device
        # Of like length together, for those that are padded.
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        parts = [order[at : at + _LABELS_AT_ONCE] for at in range(0, len(order), _LABELS_AT_ONCE)]
        means = torch.cat([self._means([ids[index] for index in part], pad_id, device) for part in parts])
        means = means[torch.from_numpy(np.argsort(order)).to(device)]  # (U, E)
        vectors: Tensor = means if self.projection is None else self.projection(means)  # (U, D)
        return vectors

    def _means(self, ids: Sequence[NDArray[np.int64]], pad_id: int, device: torch.device) -> Tensor:
        """The mean hidden state of each label, (U, E)."""
        lengths = torch.from_numpy(np.array([len(own) for own in ids], np.int64))  # (U,) on the CPU
        if self.encoder.reads_packed and not self.training:
            offsets = F.pad(lengths.cumsum(0), (1, 0))
            packed = torch.from_numpy(np.concatenate(ids)).to(device)
            hidden = self.encoder(packed, lengths, offsets.to(device))  # (N, E)
        else:
            rows = np.full((len(ids), int(lengths.max())), pad_id, np.int64)
            for row, own in zip(rows, ids, strict=True):
                row[: len(own)] = own
            subwords = torch.arange(rows.shape[1], device="cpu") < lengths[:, None]  # (U, L)
            wanted = subwords.flatten().nonzero()[:, 0].to(device)
            hidden = self.encoder(torch.from_numpy(rows).to(device), lengths, wanted=wanted)  # (N, E)
        label = torch.repeat_interleave(lengths).to(device)  # (N,)
        sums = torch.zeros(len(ids), hidden.shape[-1], dtype=torch.float32, device=device)
        sums = sums.index_add(0, label, hidden.float())
        return (sums / lengths.to(device)[:, None]).to(hidden.dtype)

"""Words and labels of a bi-encoder -> the same, having attended to each other (`post_fusion_schema`, compat 5.6).

Without it neither knows of the other before the head; published "poly-encoders" have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.config import FUSION_STEPS
from gliner_fast.cpu.linear import Linear
from gliner_fast.errors import CheckpointError
from gliner_fast.upload import upload


@dataclass(frozen=True)
class _Rows:
    """How packed rows belong to texts.

    Attributes:
        places: (N,) of each row in the flattened (B, L) grid of padded texts.
        are_rows: (B, L) bool, where that grid has a row.
    """

    places: Tensor
    are_rows: Tensor

    @classmethod
    def of(cls, counts: Tensor, device: torch.device) -> _Rows:
        """Rows by their number in each text, (B,) on the CPU."""
        are_rows = torch.arange(int(counts.max()), device="cpu") < counts[:, None]  # (B, L)
        (places,) = upload([are_rows.flatten().nonzero()[:, 0]], device)
        (grid,) = upload([are_rows], device)
        return cls(places, grid)

    def pad(self, packed: Tensor, heads: int) -> Tensor:
        """(N, D) -> (B, heads, L, D / heads)."""
        texts, longest = self.are_rows.shape
        padded = packed.new_zeros(texts * longest, packed.shape[1]).index_copy(0, self.places, packed)
        return padded.view(texts, longest, heads, -1).transpose(1, 2)

    def pack(self, padded: Tensor) -> Tensor:
        """(B, heads, L, D / heads) -> (N, D)."""
        return padded.transpose(1, 2).flatten(2).flatten(0, 1)[self.places]


class _Attention(nn.Module):
    """Of a block what is called `self_attn` or `cross_attn`: each text's rows attend to its rows, or to the others."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_layer = Linear(width, width)
        self.key_layer = Linear(width, width)
        self.value_layer = Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, asking: _Rows, asked: _Rows) -> Tensor:
        """(N, D), (M, D), (M, D) -> (N, D); no row sees another text, or padding."""
        attended = F.scaled_dot_product_attention(
            asking.pad(self.query_layer(queries), self.heads),
            asked.pad(self.key_layer(keys), self.heads),
            asked.pad(self.value_layer(values), self.heads),
            asked.are_rows[:, None, None, :],
            self.dropout if self.training else 0.0,
        )
        return asking.pack(attended)


class _SelfAttentionBlock(nn.Module):
    """Rows of a kind attend to each other: "l2l" and "t2t". Queries, keys and values are projected twice, as there."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads, dropout)
        self.pre_norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.q_proj, self.k_proj, self.v_proj = Linear(width, width), Linear(width, width), Linear(width, width)

    def forward(self, vectors: Tensor, rows: _Rows) -> Tensor:
        """(N, D) -> (N, D)."""
        vectors = self.pre_norm(vectors)
        projected = self.q_proj(vectors), self.k_proj(vectors), self.v_proj(vectors)
        fused: Tensor = self.post_norm(vectors + self.dropout(self.self_attn(*projected, rows, rows)))
        return fused


class _CrossAttentionBlock(nn.Module):
    """Rows of a kind attend to those of the other: "l2t" and "t2l"."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.cross_attn = _Attention(width, heads, dropout)
        self.pre_norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.v_proj = Linear(width, width)

    def forward(self, vectors: Tensor, others: Tensor, rows: _Rows, others_rows: _Rows) -> Tensor:
        """(N, D) and (M, D) of the others -> (N, D)."""
        vectors = self.pre_norm(vectors)
        attended = self.cross_attn(vectors, others, self.v_proj(others), rows, others_rows)
        fused: Tensor = self.post_norm(vectors + self.dropout(attended))
        return fused


class CrossFuser(nn.Module):
    """Layers of attention between the labels and the words of each text.

    Modules have the package's names. What a text's rows become does not depend on the texts beside it.

    Raises:
        CheckpointError: heads do not part the width evenly, or layers are no number of them.
    """

    def __init__(self, width: int, heads: int, layers: int, schema: str, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise CheckpointError(
                f"post_fusion_schema is {schema!r}, and hidden_size {width}: it must be a multiple of the encoder's "
                f"{heads} attention heads"
            )
        if not isinstance(layers, int) or layers < 0:
            raise CheckpointError(f"num_post_fusion_layers is {layers!r}: expected a whole number of at least 0")
        self.steps = schema.split("-")
        assert set(self.steps) <= set(FUSION_STEPS), "others are refused before a network is built"
        self.layers = nn.ModuleList(
            nn.ModuleList(
                (_SelfAttentionBlock if step in ("l2l", "t2t") else _CrossAttentionBlock)(width, heads, dropout)
                for step in self.steps
            )
            for _ in range(layers)
        )

    def set_dropout(self, share: float) -> None:
        """Drops another share, in [0, 1], of attention and of what it gives."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = share
            elif isinstance(module, _Attention):
                module.dropout = share

    def forward(
        self, words: Tensor, labels: Tensor, word_counts: Tensor, class_counts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Words and labels, having attended to each other.

        Args:
            words: (N, D) packed word vectors.
            labels: (T, D) packed label vectors, each text's own.
            word_counts: (B,) words of each text, on the CPU.
            class_counts: (B,) labels of each text, on the CPU.

        Returns:
            (N, D) and (T, D).
        """
        if not len(words) or not len(labels):
            return words, labels
        of_words, of_labels = _Rows.of(word_counts, words.device), _Rows.of(class_counts, labels.device)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            for step, block in zip(self.steps, layer, strict=True):
                if step == "l2l":
                    labels = block(labels, of_labels)
                elif step == "t2t":
                    words = block(words, of_words)
                elif step == "l2t":
                    labels = block(labels, words, of_labels, of_words)
                else:
                    words = block(words, labels, of_words, of_labels)
        return words, labels

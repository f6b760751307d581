"""One transformer layer of DeBERTa, over padded or packed texts; `deberta.py` tells what it does without, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.native import is_bare, torch_must_see
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, attend
from gliner_fast.encoders.deberta_config import DebertaConfig
from gliner_fast.encoders.deberta_positions import LayerPositions
from gliner_fast.encoders.residual_norm import add_and_norm
from gliner_fast.encoders.sublayers import finish_layer
from gliner_fast.kernels.attention_reference import Positions

# Scores of a group of heads held at once, in elements: 2**26 float32 are 256 MiB. Texts of up to about 1,000
# subwords fit whole at any sensible batch; only far longer ones are done a few heads at a time.
_MAX_SCORES = 2**26


class DebertaLayer(nn.Module):
    """One transformer layer with disentangled attention (DeBERTa, He et al. 2021, equations 2 to 4)."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.heads
        self.attention_dropout = config.attention_dropout
        self.hidden_dropout = config.hidden_dropout
        self.qkv = Linear(width, 3 * width)
        self.attention_output = Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, config.norm_eps)
        self.intermediate = Linear(width, inner)
        self.output = Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, config.norm_eps)

    def forward(
        self, hidden: Tensor, positions: LayerPositions, key_padding: Tensor | None, wanted: Tensor | None = None
    ) -> Tensor:
        """(B, L, D) -> (B, L, D), or (R, D) where only some rows of the flattened (B*L, D) are wanted.

        `key_padding` is True at padded keys, (B, 1, 1, L), None where there are none.
        """
        batch, length, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, length, 3, self.heads, -1)
        attended = self._attend(qkv, positions, key_padding).reshape(batch, length, width)
        return self.finish(hidden, attended, wanted)

    def forward_grouped(self, hidden: Tensor, groups: Sequence[Group], wanted: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, D) for packed texts, without dropout and gradient; (R, D) where only some rows are wanted."""
        qkv = self.qkv(hidden).view(len(hidden), 3, self.heads, -1)  # (N, 3, H, head_dim)
        return self.finish(hidden, self.attend_grouped(qkv, groups), wanted)

    def attend_grouped(self, qkv: Tensor, groups: Sequence[Group]) -> Tensor:
        """(N, 3, H, head_dim) -> (N, D): each group by itself, so that neither padding nor a mask is computed."""
        attended = qkv.new_empty(len(qkv), *qkv.shape[2:])  # (N, H, head_dim)
        for group in groups:
            own = qkv[group.rows].view(-1, group.length, *qkv.shape[1:])  # (B, L, 3, H, head_dim)
            context = self._attend(own, group.positions, None)
            attended[group.rows].view_as(context).copy_(context)
        return attended.flatten(1)

    def forward_packed(
        self,
        hidden: Tensor,
        positions: Positions,
        texts: PackedTexts,
        wanted: Tensor | None = None,
        *,
        scale: float,
        executor: AttentionExecutor,
    ) -> Tensor:
        """(N, D) -> (N, D) for packed texts, without dropout; (R, D) where only some rows are wanted."""
        qkv = self.qkv(hidden).view(len(hidden), 3, self.heads, -1)  # (N, 3, H, head_dim)
        attended = attend(qkv, positions, texts, scale=scale, executor=executor)  # (N, H, head_dim)
        return self.finish(hidden, attended.flatten(1), wanted)

    def finish(self, hidden: Tensor, attended: Tensor, wanted: Tensor | None) -> Tensor:
        """All that comes after the attention, subword by subword: (..., D) twice -> (..., D), or (R, D)."""
        if wanted is not None:
            hidden, attended = hidden.flatten(0, -2)[wanted], attended.flatten(0, -2)[wanted]
        native = finish_layer(
            attended,
            hidden,
            attention_output=self.attention_output,
            attention_norm=self.attention_norm,
            intermediate=self.intermediate,
            output=self.output,
            output_norm=self.output_norm,
        )
        if native is not None:
            return native
        hidden = add_and_norm(
            self._dropped(self.attention_output(attended)), hidden, self.attention_norm, in_place=True
        )
        out = self._dropped(self.output(self._inner(hidden)))
        return add_and_norm(out, hidden, self.output_norm, in_place=True)

    def _inner(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., F), the GELU included, which is a part of the product where nobody stands between them."""
        dense = self.intermediate
        if type(dense) is Linear and is_bare(dense) and not torch_must_see():
            return dense.product(hidden, "gelu")
        return F.gelu(dense(hidden))

    def _dropped(self, vectors: Tensor) -> Tensor:
        return F.dropout(vectors, self.hidden_dropout) if self.training else vectors

    def _attend(self, qkv: Tensor, positions: LayerPositions, key_padding: Tensor | None) -> Tensor:
        """Attends in texts of L subwords: (B, L, 3, H, head_dim) -> (B, L, H, head_dim), a view."""
        # Views of one product all the way: no query, key or value is ever copied.
        batch, length = qkv.shape[:2]
        group = max(1, min(self.heads, _MAX_SCORES // max(1, batch * length * (2 * length - 1))))
        parts = [
            self._attend_heads(qkv[:, :, :, first : first + group], positions, key_padding, first)
            for first in range(0, self.heads, group)
        ]
        context = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (B, H, L, head_dim)
        return context.transpose(1, 2)

    def _attend_heads(
        self, qkv: Tensor, positions: LayerPositions, key_padding: Tensor | None, first_head: int
    ) -> Tensor:
        """Attends with some heads: (B, L, 3, h, head_dim) -> (B, h, L, head_dim)."""
        query, key, value = qkv.transpose(1, 3).unbind(2)  # each (B, h, L, head_dim)
        bias = positions.bias(query, key, first_head)  # (B, h, L, L) or None
        if key_padding is not None:
            minus_infinity = float("-inf")
            if bias is None:
                bias = query.new_zeros(len(query), 1, 1, key_padding.shape[-1]).masked_fill(key_padding, minus_infinity)
            elif torch.is_grad_enabled():
                bias = bias.masked_fill(key_padding, minus_infinity)
            else:
                bias.masked_fill_(key_padding, minus_infinity)
        dropout = self.attention_dropout if self.training else 0.0
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout, scale=positions.scale
        )


@dataclass(frozen=True)
class Group:
    """Neighbours of one length among packed texts.

    Attributes:
        rows: their subwords.
        length: L, the subwords of each.
        positions: of the layer, for texts of L subwords.
    """

    rows: slice
    length: int
    positions: LayerPositions

"""ModernBERT over packed texts (Warner et al. 2024): transformers' modules and weights, no padding (DESIGN 3.3).

Queries and keys are rotated by their places (RoPE), most layers attend within a window, norms come first, and a gate
multiplies the inner layer. transformers computes all scores, padding included, and masks those outside the window. For
inference alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.native import is_bare, torch_must_see
from gliner_fast.encoders.as_built import is_exact_gelu, is_of_same_file, parts_of
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, attend, runs_of_equals
from gliner_fast.encoders.residual_norm import add_residual
from gliner_fast.encoders.sublayers import finish_gated_layer
from gliner_fast.kernels.attention_reference import Positions, Rotations


def takes(config: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether `run_packed` computes what the model does."""
    # Before transformers 5.1 the modules have other parts: those run as they are.
    kinds = getattr(getattr(model, "rotary_emb", None), "rope_type", None)
    window = getattr(getattr(model, "config", None), "sliding_window", None)
    return (
        config.get("model_type") == "modernbert"
        and isinstance(kinds, dict)
        and all(kind == "default" for kind in kinds.values())  # others rotate by angles that depend on the batch
        and all(hasattr(layer, "attention_type") for layer in getattr(model, "layers", ()))
        and isinstance(window, int)
        and window >= 0
        and getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa"
    )


def is_unchanged(model: Any) -> bool:
    """Whether the modules that `run_packed` passes over, for their parts, are still those of transformers."""
    return all(is_of_same_file(model, layer, *parts_of(layer, "attn")) for layer in model.layers)


def run_packed(
    model: Any, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None, executor: AttentionExecutor
) -> Tensor:
    """Hidden states of the last layer, (N, E) or (R, E)."""
    if (executor == "rust" and torch_must_see()) or torch.is_grad_enabled():
        executor = "grouped"
    hidden: Tensor = model.embeddings(input_ids=input_ids[None])[0]  # (N, E)
    attention = _Attention(model, hidden, texts, executor)
    for layer in model.layers:
        attended = attention.attend(layer, hidden)
        if wanted is not None and layer is model.layers[-1]:
            hidden, attended = hidden[wanted], attended[wanted]
        hidden = _finish(layer, attended, hidden)
    final: Tensor = model.final_norm(hidden)
    return final


class _Attention:
    """What the attention of all layers needs to know of a batch."""

    def __init__(self, model: Any, hidden: Tensor, texts: PackedTexts, executor: AttentionExecutor) -> None:
        """Rotates by the model's own angles.

        Args:
            model: transformers' own.
            hidden: (N, E), for its dtype.
            texts: how subwords belong to texts.
            executor: of the attention.
        """
        self.texts, self.executor = texts, executor
        self.window = int(model.config.sliding_window)  # subwords on either side
        places = torch.arange(texts.longest, device=hidden.device)[None]
        self.rotations = {}
        for kind in set(model.config.layer_types):
            angles = model.rotary_emb(hidden, places, kind)  # cosines and sines, (1, L, d), both halves the same
            cosines, sines = (part[0, :, : part.shape[-1] // 2].float().contiguous() for part in angles)
            self.rotations[kind] = Rotations(cosines, sines)
        # Without positions of its own a distance has no row; the kernel wants to know how far texts reach.
        rows = torch.zeros(2 * texts.longest - 1, dtype=torch.int32, device=hidden.device)
        self.positions = Positions(None, None, rows)
        self.runs = runs_of_equals(texts.lengths)

    def attend(self, layer: Any, hidden: Tensor) -> Tensor:
        """(N, E) -> (N, E), what goes into the last product of the attention."""
        own = layer.attn
        # Nobody else holds this product, so it may be rotated in place: no module has a hook or is somebody else's.
        qkv = own.Wqkv(layer.attn_norm(hidden)).view(len(hidden), 3, -1, own.head_dim)  # (N, 3, H, d)
        rotations, scale = self.rotations[layer.attention_type], own.head_dim**-0.5
        window = self.window if layer.attention_type == "sliding_attention" else None
        if self.executor == "grouped":
            return _attend_in_runs(rotations.rotate(qkv, self.texts.places), self.runs, scale, window)
        return attend(
            qkv,
            self.positions,
            self.texts,
            scale=scale,
            executor=self.executor,
            rotations=rotations,
            window=window,
        ).flatten(1)


def _attend_in_runs(qkv: Tensor, runs: Sequence[tuple[slice, int]], scale: float, window: int | None) -> Tensor:
    """(N, 3, H, d), rotated -> (N, H * d), texts of one length together."""
    contexts = []
    for rows, length in runs:
        parts = qkv[rows].view(-1, length, *qkv.shape[1:]).permute(2, 0, 3, 1, 4)  # (3, texts, H, L, d)
        mask = None
        if window is not None and length > window + 1:
            at = torch.arange(length, device=qkv.device)
            mask = (at[:, None] - at).abs() <= window  # (L, L), True: seen
        query, key, value = parts
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
        contexts.append(out.transpose(1, 2).reshape(-1, qkv.shape[2] * qkv.shape[3]))
    return torch.cat(contexts)


def _finish(layer: Any, attended: Tensor, hidden: Tensor) -> Tensor:
    """All that comes after the attention: (N, E) twice -> (N, E)."""
    attention, mlp = layer.attn, layer.mlp
    is_known = type(mlp).__module__ == type(layer).__module__ and is_bare(mlp) and is_bare(mlp.drop)
    is_plain = is_known and is_bare(attention.out_drop)
    if is_plain and is_bare(mlp.act) and is_exact_gelu(mlp.act):
        native = finish_gated_layer(
            attended,
            hidden,
            attention_output=attention.Wo,
            norm=layer.mlp_norm,
            intermediate=mlp.Wi,
            output=mlp.Wo,
        )
        if native is not None:
            return native
    hidden = add_residual(attention.out_drop(attention.Wo(attended)), hidden, attention.Wo if is_plain else None)
    return add_residual(mlp(layer.mlp_norm(hidden)), hidden, mlp.Wo if is_plain else None)

"""T5's encoder, and mT5's (Raffel et al. 2020), over packed texts: transformers' modules, no padding (DESIGN 3.3).

Distances in a text have a number for each head that is added to the scores, the same in all layers, and nothing scales
these; norms come first and subtract no mean. For inference alone, but for `make`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.native import is_bare, torch_must_see
from gliner_fast.encoders.as_built import is_of_same_file, parts_of
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, attend, runs_of_equals
from gliner_fast.encoders.residual_norm import add_residual
from gliner_fast.encoders.sublayers import finish_gated_layer, gate, norm_rows
from gliner_fast.kernels.attention_reference import Positions

# Those that the package runs; each has a decoder too, which GLiNER leaves out.
KINDS = ("t5", "mt5")


def make(config: Any) -> Any:
    """The encoder for a configuration of transformers, as the package makes it."""
    from transformers import T5EncoderModel

    model = T5EncoderModel(config)  # of mT5 too, whose layers are copies
    # One module by both names, whose weight stays one when another is put in its place.
    model.set_input_embeddings(model.shared)
    return model


def takes(config: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether `run_packed` computes what the model does."""
    return config.get("model_type") in KINDS and not getattr(getattr(model, "config", None), "is_decoder", False)


def is_unchanged(model: Any) -> bool:
    """Whether the modules that `run_packed` passes over, for their parts, are still those of transformers."""
    stack = model.encoder
    return is_of_same_file(model, stack) and all(_is_known(model, block) for block in stack.block)


def _is_known(model: nn.Module, block: Any) -> bool:
    layers = list(block.layer) if is_of_same_file(model, block) else []
    if len(layers) != 2 or not is_of_same_file(model, *layers):
        return False
    own, *drops = parts_of(layers[0], "SelfAttention", "dropout")
    inner, *others = parts_of(layers[1], "DenseReluDense", "dropout")
    return is_of_same_file(model, own, inner) and all(type(drop) is nn.Dropout for drop in (*drops, *others))


def run_packed(
    model: Any, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None, executor: AttentionExecutor
) -> Tensor:
    """Hidden states of the last layer, (N, E) or (R, E)."""
    stack = model.encoder
    if (executor == "rust" and torch_must_see()) or torch.is_grad_enabled():
        executor = "grouped"
    hidden: Tensor = stack.embed_tokens(input_ids)  # (N, E)
    attention = _Attention(stack, texts, executor)
    for block in stack.block:
        attended = attention.attend(block.layer[0], hidden)
        if wanted is not None and block is stack.block[-1]:
            hidden, attended = hidden[wanted], attended[wanted]
        hidden = _finish(block, attended, hidden)
    return norm_rows(hidden, stack.final_layer_norm)


class _Attention:
    """What the attention of all layers needs to know of a batch."""

    def __init__(self, stack: Any, texts: PackedTexts, executor: AttentionExecutor) -> None:
        """Looks up what is added to the scores.

        Args:
            stack: transformers' own.
            texts: how subwords belong to texts.
            executor: of the attention.
        """
        self.texts, self.executor = texts, executor
        own = stack.block[0].layer[0].SelfAttention  # whose biases serve all layers
        reach = texts.longest - 1
        distances = torch.arange(-reach, reach + 1, device=texts.offsets.device)  # of a query from a key
        buckets = own._relative_position_bucket(  # noqa: SLF001  (transformers' own way to count them)
            -distances,
            bidirectional=True,
            num_buckets=own.relative_attention_num_buckets,
            max_distance=own.relative_attention_max_distance,
        )
        biases: Tensor = own.relative_attention_bias(buckets).T  # (H, 2M - 1)
        if executor in ("triton", "rust"):  # who would make them float32 in each layer
            biases = biases.float()
        biases = biases.contiguous()
        # Without vectors of its own a distance has no row; the kernel wants to know how far texts reach.
        rows = torch.zeros(len(distances), dtype=torch.int32, device=distances.device)
        self.positions = Positions(None, None, rows, biases)
        self.runs = runs_of_equals(texts.lengths)
        if executor == "grouped":
            at = torch.arange(texts.longest, device=distances.device)
            self.mask = biases[:, at[:, None] - at + reach]  # (H, M, M), of which a shorter text has a corner

    def attend(self, layer: Any, hidden: Tensor) -> Tensor:
        """(N, E) -> (N, H * d), what goes into the last product of the attention."""
        own = layer.SelfAttention
        normed = norm_rows(hidden, layer.layer_norm)
        parts = [own.q(normed), own.k(normed), own.v(normed)]
        if self.executor == "grouped":
            return self._attend_in_runs(parts, own.key_value_proj_dim)
        qkv = torch.stack(parts, 1).view(len(hidden), 3, -1, own.key_value_proj_dim)  # (N, 3, H, d)
        return attend(qkv, self.positions, self.texts, scale=1.0, executor=self.executor).flatten(1)

    def _attend_in_runs(self, parts: Sequence[Tensor], head_dim: int) -> Tensor:
        """(N, H * d) three times -> (N, H * d), texts of one length together."""
        contexts = []
        for rows, length in self.runs:
            query, key, value = (part[rows].view(-1, length, part.shape[1] // head_dim, head_dim) for part in parts)
            query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # each (texts, H, L, d)
            mask = self.mask[:, :length, :length].to(query.dtype)
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
            contexts.append(out.transpose(1, 2).reshape(-1, parts[0].shape[1]))
        return torch.cat(contexts)


def _finish(block: Any, attended: Tensor, hidden: Tensor) -> Tensor:
    """All that comes after the attention: (N, H * d) and (N, E) -> (N, E)."""
    first, second = block.layer
    own, inner = first.SelfAttention, second.DenseReluDense
    is_gated = is_bare(inner) and is_bare(inner.dropout) and _is_gated_by_tanh(inner)
    if is_gated:
        native = finish_gated_layer(
            attended,
            hidden,
            attention_output=own.o,
            norm=second.layer_norm,
            intermediate=inner.wi_0,
            gates=inner.wi_1,
            activation="gelu_tanh",
            output=inner.wo,
        )
        if native is not None:
            return native
    hidden = _keep_finite(add_residual(own.o(attended), hidden, own.o))
    normed = norm_rows(hidden, second.layer_norm)
    # Where the last layer alone computes in another precision, transformers knows what to do.
    is_gated = is_gated and getattr(inner.wo, "weight", normed).dtype is normed.dtype
    vectors = inner.wo(gate(inner.wi_0(normed), inner.wi_1(normed))) if is_gated else inner(normed)
    return _keep_finite(add_residual(vectors, hidden, inner.wo))


def _is_gated_by_tanh(inner: nn.Module) -> bool:
    (act,) = parts_of(inner, "act")
    is_known = type(inner).__name__ == "T5DenseGatedActDense" and type(act).__name__ == "NewGELUActivation"
    return is_known and act is not None and is_bare(act)


def _keep_finite(hidden: Tensor) -> Tensor:
    """What transformers makes of sums in fp16, which T5's pass now and then."""
    if hidden.dtype is not torch.float16:
        return hidden
    most = torch.finfo(hidden.dtype).max
    limit = torch.where(hidden.isinf().any(), most - 1000, most)
    return hidden.clamp(-limit, limit)

"""BERT and its kin over packed texts: transformers' modules and weights, no padding (DESIGN 3.3).

transformers pads texts to the longest, and computes the padding. Here the linear layers run over all subwords of a
batch in one product, and the attention over texts of one length at a time, without a mask, or by a kernel that takes
texts of any lengths at once. For inference alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear
from gliner_fast.encoders.as_built import is_exact_gelu, is_of_same_file, parts_of
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, attend, runs_of_equals
from gliner_fast.encoders.residual_norm import add_and_norm
from gliner_fast.encoders.sublayers import finish_layer
from gliner_fast.kernels.attention_reference import Positions

# Their layers are copies of BERT's, with BERT's names. Names alone are not enough: others have them and norm before the
# attention (RoBERTa-PreLayerNorm, Megatron's BERT). `test_hidden_states_are_those_of_padded_texts` tells.
_KINDS = {"bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text"}


def takes(config: Mapping[str, Any], model: nn.Module) -> bool:
    """Whether `run_packed` computes what the model does."""
    return (
        config.get("model_type") in _KINDS
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") in ("absolute", None)
        and not config.get("is_decoder", False)
        and not config.get("add_cross_attention", False)
        and getattr(getattr(model, "config", None), "_attn_implementation", None) == "sdpa"
    )


def is_unchanged(model: Any) -> bool:
    """Whether the modules that `run_packed` passes over, for their parts, are still those of transformers."""
    return is_of_same_file(model, model.encoder) and all(_is_known(model, layer) for layer in model.encoder.layer)


def _is_known(model: nn.Module, layer: nn.Module) -> bool:
    attention, intermediate, output = parts_of(layer, "attention", "intermediate", "output")
    if attention is None or intermediate is None or output is None:
        return False
    inner, first = parts_of(attention, "self", "output")
    return (
        first is not None
        and is_of_same_file(model, layer, attention, inner, first, intermediate, output)
        and all(type(part) is nn.Dropout for own in (first, output) for part in parts_of(own, "dropout"))
        and is_exact_gelu(getattr(intermediate, "intermediate_act_fn", None))
    )


def run_packed(
    model: Any, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None, executor: AttentionExecutor
) -> Tensor:
    """Hidden states of the last layer, (N, E) or (R, E)."""
    # "rust" among them: without positions of its own there is nothing in the attention that torch's kernel lacks.
    if executor not in ("torch", "triton") or torch.is_grad_enabled():
        runs = runs_of_equals(texts.lengths)
        hidden = _embed_in_runs(model, input_ids, runs)
        attend_in = partial(_attend_in_runs, runs=runs)
    else:
        hidden = _embed_at_once(model, input_ids, texts)
        # Without positions of its own a distance has no row; the kernel wants to know how far texts reach.
        rows = torch.zeros(2 * texts.longest - 1, dtype=torch.int32, device=input_ids.device)
        attend_in = partial(_attend_at_once, texts=texts, positions=Positions(None, None, rows), executor=executor)
    if hasattr(model, "embeddings_project"):
        hidden = model.embeddings_project(hidden)
    layers = model.encoder.layer
    for layer in layers:
        attended = attend_in(layer.attention.self, hidden)
        if wanted is not None and layer is layers[-1]:
            hidden, attended = hidden[wanted], attended[wanted]
        hidden = _finish(layer, attended, hidden)
    return hidden


def _embed_in_runs(model: Any, input_ids: Tensor, runs: Sequence[tuple[slice, int]]) -> Tensor:
    """(N,) -> (N, E) by the model's own module, which knows how its positions are counted."""
    return torch.cat(
        [model.embeddings(input_ids=input_ids[rows].view(-1, length)).flatten(0, 1) for rows, length in runs]
    )


def _embed_at_once(model: Any, input_ids: Tensor, texts: PackedTexts) -> Tensor:
    """As `_embed_in_runs`, in one call, for which places in texts are counted here: a GPU would wait for many calls."""
    embeddings, places = model.embeddings, texts.places
    padding = getattr(embeddings, "padding_idx", None)
    if padding is not None:  # RoBERTa and its kin begin behind the padding's place, and do not count padding
        is_counted = input_ids != padding
        counted = F.pad(is_counted.cumsum(0), (1, 0))  # (N + 1,) before each
        places = (counted[1:] - counted[texts.starts]) * is_counted + padding
    embedded: Tensor = embeddings(
        input_ids=input_ids[None], token_type_ids=torch.zeros_like(input_ids)[None], position_ids=places[None]
    )
    return embedded[0]


def _finish(layer: Any, attended: Tensor, hidden: Tensor) -> Tensor:
    """All that comes after the attention: (N, E) twice -> (N, E)."""
    first, second = layer.attention.output, layer.output
    native = finish_layer(
        attended,
        hidden,
        attention_output=first.dense,
        attention_norm=first.LayerNorm,
        intermediate=layer.intermediate.dense,
        output=second.dense,
        output_norm=second.LayerNorm,
    )
    if native is not None:
        return native
    hidden = _add_and_norm(first, attended, hidden)
    return _add_and_norm(second, _inner(layer.intermediate, hidden), hidden)


def _attend_in_runs(attention: Any, hidden: Tensor, runs: Sequence[tuple[slice, int]]) -> Tensor:
    """(N, E) -> (N, E)."""
    heads = attention.num_attention_heads
    projected = [attention.query(hidden), attention.key(hidden), attention.value(hidden)]
    context = torch.empty_like(projected[2])
    for rows, length in runs:
        query, key, value = (part[rows].view(-1, length, heads, part.shape[1] // heads) for part in projected)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))  # each (texts, H, L, head_dim)
        out = F.scaled_dot_product_attention(query, key, value)
        context[rows].view(-1, length, heads, value.shape[-1]).copy_(out.transpose(1, 2))
    return context


def _attend_at_once(
    attention: Any, hidden: Tensor, texts: PackedTexts, positions: Positions, executor: AttentionExecutor
) -> Tensor:
    """(N, E) -> (N, E)."""
    heads = attention.num_attention_heads
    qkv = torch.stack([attention.query(hidden), attention.key(hidden), attention.value(hidden)], 1)  # (N, 3, E)
    qkv = qkv.view(len(hidden), 3, heads, -1)  # (N, 3, H, head_dim)
    scale = qkv.shape[-1] ** -0.5
    return attend(qkv, positions, texts, scale=scale, executor=executor).flatten(1)


def _inner(intermediate: Any, hidden: Tensor) -> Tensor:
    dense = intermediate.dense
    # Something that took the place of the layer, an adapter say, is asked in transformers' way.
    if type(dense) is not Linear:
        other: Tensor = intermediate(hidden)
        return other
    return dense.product(hidden, "gelu")


def _add_and_norm(output: Any, vectors: Tensor, residual: Tensor) -> Tensor:
    return add_and_norm(output.dense(vectors), residual, output.LayerNorm)

"""DeBERTa's attention over packed texts by the disentangled-flash package, in place of ours (DESIGN 3.6).

The package is optional (extra `gpu`). On CUDA its Triton kernels run; elsewhere its code in plain PyTorch, text after
text, which is slow, but other people's: ours is tested against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from gliner_fast.encoders.deberta_config import DebertaConfig

# What its kernels take (its README, 1.1.1): the width of a head, and subwords of a text.
HEAD_DIMS = (32, 64, 128)
MOST_SUBWORDS = 8192


def expect_flash(device: torch.device, dtype: torch.dtype, head_dim: int, variable: str) -> None:
    """Raises ValueError, in the terms of the variable that asks for it, where the package cannot attend."""
    try:
        import disentangled_flash  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{variable} is 'disentangled-flash', but that package is not installed: pip install 'gliner-fast[gpu]', "
            "or leave the variable unset"
        ) from error
    if device.type == "cuda" and (head_dim not in HEAD_DIMS or dtype is torch.float64):
        raise ValueError(
            f"{variable} is 'disentangled-flash', but the model has heads of width {head_dim} in {dtype}: the package "
            f"takes {HEAD_DIMS} in float32, float16 and bfloat16; leave the variable unset"
        )


def takes_flash(lengths: Sequence[int], device: torch.device) -> bool:
    """Whether the package takes texts of these lengths; under autocast none, which leaves its weights as they are."""
    return max(lengths, default=0) <= MOST_SUBWORDS and not torch.is_autocast_enabled(device.type)


class FlashTexts:
    """How packed subwords belong to texts, as the package wants to be told.

    Attributes:
        offsets: (B+1,) where each text begins, and N; on the device.
        info: the same on the host, so that the package waits for the device only where a length is new.
    """

    def __init__(self, lengths: Sequence[int], offsets: Tensor) -> None:
        from disentangled_flash import PackedSequenceInfo

        if 0 in lengths:  # which the package refuses
            offsets = offsets[[0, *(text for text, length in enumerate(lengths, 1) if length)]]
            lengths = [length for length in lengths if length]
        self.offsets = offsets
        self.info = PackedSequenceInfo(tuple(accumulate(lengths, initial=0)), tuple(lengths), max(lengths))


class FlashAttention:
    """Queries, keys, values and attention of one layer, for inference, with its weights as they are now.

    Args:
        config: of the encoder.
        weight: (3D, D), for queries, keys and values; copied.
        bias: (3D,); copied.
        relative: (2*span, D), what the layers project for the positions.
        beside: a layer of the same encoder, whose plan of positions is then shared.
        allow_tf32: products of float32 may run in TF32.

    Attributes:
        module: the package's.
    """

    def __init__(
        self,
        config: DebertaConfig,
        weight: Tensor,
        bias: Tensor,
        relative: Tensor,
        beside: FlashAttention | None = None,
        *,
        allow_tf32: bool = False,
    ) -> None:
        from disentangled_flash import DisentangledFlashAttention

        with torch.device("meta"):  # nothing is initialised that is replaced at once
            module: Any = DisentangledFlashAttention(
                _as_the_package_reads(config),
                backend="triton" if weight.device.type == "cuda" else "torch",
                fp32_precision="fast" if allow_tf32 else "strict",
                # Read from a file of a megabyte, and kept by the package for ever.
                profile_registry=None if beside is None else beside.module._profile_registry,  # noqa: SLF001  (it has no public name)
            )
        if beside is not None:
            module.set_position_plan_cache(beside.module.position_plan_cache)
        for name, own, offset in zip(("query", "key", "value"), weight.chunk(3), bias.chunk(3), strict=True):
            projection = getattr(module, f"{name}_proj")
            projection.weight = nn.Parameter(own, requires_grad=False)
            projection.bias = nn.Parameter(offset, requires_grad=False)
        self.module: Any = module.eval()
        self.module.prepare_for_inference(relative)  # here: in its first call, threads would be in each other's way

    def __call__(self, hidden: Tensor, texts: FlashTexts) -> Tensor:
        """(N, D) -> (N, D)."""
        from disentangled_flash.tuning import tuning_sequence_length

        longest = texts.info.max_seqlen
        if hidden.is_cuda:
            # Where the plan of one of its few lengths is there, those of the lengths below share the tables with it.
            self.module.prepare_shape(tuning_sequence_length(longest), hidden.device)
        attended: Tensor
        attended, _ = self.module.forward_packed(hidden, texts.offsets, longest, packed_info=texts.info)
        return attended


def _as_the_package_reads(config: DebertaConfig) -> SimpleNamespace:
    """The settings by transformers' names; the package asks for attributes, of whatever it is given."""
    return SimpleNamespace(
        hidden_size=config.hidden_size,
        num_attention_heads=config.heads,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        relative_attention=True,
        share_att_key=True,
        max_relative_positions=config.max_relative_positions,
        position_buckets=config.position_buckets,
        pos_att_type=config.pos_att_type,
    )

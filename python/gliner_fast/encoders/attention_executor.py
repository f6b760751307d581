"""Who computes the attention, and whether over packed or padded texts. The one place that chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from gliner_fast.cpu.native import (
    allows_tf32,
    asked_executor,
    expect_rust,
    expect_triton,
    rust_is_fastest,
    rust_takes,
    triton_is_fastest,
)
from gliner_fast.encoders.flash_attention import expect_flash
from gliner_fast.encoders.native_attention import native_attention
from gliner_fast.kernels.attention_reference import Positions, Rotations, disentangled_attention_reference

# padded and grouped: torch's own attention, with the position scores as its mask, over padded texts; or over packed
# ones, those of equal length together, so that neither padding nor a mask is computed. The others: packed,
# text by text; torch is the plain reference, disentangled-flash another package, products before it included.
AttentionExecutor = Literal["padded", "grouped", "torch", "rust", "triton", "disentangled-flash"]

VARIABLE = "GLINER_FAST_ATTENTION"


@dataclass(frozen=True)
class PackedTexts:
    """How packed subwords belong to texts.

    Attributes:
        lengths: subwords of each text, on the host.
        offsets: (B+1,) int64, 0 and the sums of the lengths, on the device.
    """

    lengths: Sequence[int]
    offsets: Tensor

    @cached_property
    def longest(self) -> int:
        """Subwords of the longest text; every layer asks."""
        return max(self.lengths, default=0)

    @cached_property
    def starts(self) -> Tensor:
        """(N,) int64 on the device: where the text of each subword begins."""
        text = torch.arange(len(self.lengths), device=self.offsets.device)
        return self.offsets[text.repeat_interleave(self.offsets.diff(), output_size=sum(self.lengths))]

    @cached_property
    def places(self) -> Tensor:
        """(N,) int64 on the device: the place of each subword in its text."""
        return torch.arange(len(self.starts), device=self.offsets.device) - self.starts


def runs_of_equals(lengths: Sequence[int]) -> list[tuple[slice, int]]:
    """Neighbours of one length among packed texts: their rows, and the length; empty texts are left out."""
    runs, end = [], 0
    for length, texts in groupby(lengths):  # a batch is sorted by length
        first, end = end, end + length * sum(1 for _ in texts)
        if length:
            runs.append((slice(first, end), length))
    return runs


def choose_attention(device: torch.device, dtype: torch.dtype, head_dim: int) -> AttentionExecutor:
    """The executor for a model on a device: what the environment variable says, else the fastest.

    Raises:
        ValueError: the variable names no executor, or one that cannot run there.
    """
    asked = asked_executor(VARIABLE, get_args(AttentionExecutor))
    if not asked:
        return fastest_attention(device, dtype, head_dim)
    if asked == "rust":
        expect_rust(device, dtype, VARIABLE)
    if asked == "triton":
        expect_triton(device, VARIABLE)
    if asked == "disentangled-flash":
        expect_flash(device, dtype, head_dim, VARIABLE)
    return cast(AttentionExecutor, asked)


def fastest_attention(device: torch.device, dtype: torch.dtype, head_dim: int) -> AttentionExecutor:
    """The fastest executor for a model on a device."""
    if triton_is_fastest(device, dtype):
        from gliner_fast.kernels.disentangled_attention import HEAD_DIMS

        if head_dim in HEAD_DIMS:
            return "triton"
    if device.type != "cpu":
        return "padded"  # on a GPU many short calls would cost more than the padding
    return "rust" if rust_takes(device, dtype) and rust_is_fastest() else "grouped"


def attend(
    qkv: Tensor,
    positions: Positions,
    texts: PackedTexts,
    *,
    scale: float,
    executor: AttentionExecutor,
    rotations: Rotations | None = None,
    window: int | None = None,
) -> Tensor:
    """Attention over packed texts, (N, 3, H, d) -> (N, H, d), as `kernels.attention_reference` describes it.

    With `rotations` queries and keys are rotated first, by "triton" in place: nobody else may hold `qkv` then.
    """
    if executor == "rust":
        return native_attention(qkv, positions, lengths=texts.lengths, scale=scale, rotations=rotations, window=window)
    if executor == "triton":
        from gliner_fast.kernels.disentangled_attention import disentangled_attention

        if rotations is not None:
            from gliner_fast.kernels.rotations import rotate_in_place

            qkv = qkv.contiguous()
            rotate_in_place(qkv, rotations, texts.places)
        return disentangled_attention(
            qkv,
            positions,
            longest=texts.longest,
            offsets=texts.offsets,
            scale=scale,
            window=window,
            allow_tf32=qkv.dtype is torch.float32 and allows_tf32(),  # asked of no 16 bits, since asking takes time
        )
    if rotations is not None:
        qkv = rotations.rotate(qkv, texts.places)
    return disentangled_attention_reference(qkv, positions, lengths=texts.lengths, scale=scale, window=window)

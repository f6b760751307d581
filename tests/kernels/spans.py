"""What the tests of the span kernels share: devices, batches, how two results are compared."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.kernels._triton import HAS_TRITON, INTERPRETED
from tests.installed import TRITON

# Triton 3.9 spills where 3.6 does not, in the loop of one tile of many logits, and the other way round.
needs_registers_of_3_6 = pytest.mark.skipif(
    TRITON[:2] > (3, 6), reason="block sizes were chosen by what Triton 3.6 does with registers"
)
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed (the extra `gpu`), or too old")
# Without a GPU the kernels run in Triton's interpreter (tests/conftest.py).
DEVICES = [pytest.param("cuda", marks=pytest.mark.gpu) if torch.cuda.is_available() else "cpu"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# What every path must get right: all logits, candidates and gradients.
SHAPES = {
    # word counts, class counts, widest span, H
    "one word": ([1], [1], 1, 16),
    "widths beyond the text": ([1, 5], [3, 2], 12, 33),
    "two tiles of a text": ([40], [5], 12, 20),
    "an empty text between": ([7, 0, 4], [2, 5, 1], 3, 70),
    "a text without types": ([3, 2], [0, 3], 2, 8),
    "two blocks of types": ([9], [130], 4, 16),
    "two blocks of widths": ([6, 30], [1, 40], 20, 24),
    "widths that no blocks divide": ([20], [2], 17, 8),
    "all widths of a block": ([33], [2], 16, 8),
    "100 widths": ([24], [2], 100, 8),
    "100 types": ([13], [100], 12, 16),
    "1,000 types": ([2], [1000], 2, 8),
    "one hidden unit": ([4], [2], 3, 1),
    # H = 4D for the D of published checkpoints, and of smaller ones.
    **{f"D {width}": ([6], [3], 3, 4 * width) for width in (48, 256, 384, 512, 768, 1024)},
}

# The interpreter is slow, and rounds to 16 bits the same way for all shapes: there each has one dtype of them, in turn.
SHAPES_AND_DTYPES = [
    pytest.param(shape, dtype, id=f"{name}-{dtype}")
    for turn, (name, shape) in enumerate(SHAPES.items())
    for dtype in DTYPES
    if not INTERPRETED or dtype is not DTYPES[1 + turn % 2]
]

LONG = ([10_000, 1], [1, 2], 2, 8)  # so slow in the interpreter that it runs in fp32 alone


@dataclass(frozen=True)
class Batch:
    """Inputs of the span scorer; `shape` are its keyword arguments."""

    tensors: tuple[Tensor, Tensor, Tensor, Tensor]
    shape: dict[str, Any]

    @property
    def double(self) -> tuple[Tensor, ...]:
        return tuple(tensor.double() for tensor in self.tensors)


def random_batch(
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    hidden: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Batch:
    """Logits of about unit size."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device, dtype)

    words, types = sum(word_counts), sum(class_counts)
    tensors = normal(words, hidden), normal(words, hidden), normal(types, hidden) / hidden**0.5, normal(types)
    return Batch(tensors, {"word_counts": word_counts, "class_counts": class_counts, "max_width": max_width})


def constant_logits(logits: Tensor) -> Batch:
    """One word and one type for each logit, which the kernel meets exactly: nothing is added to c."""
    tensors = (logits.new_zeros(1, 8), logits.new_zeros(1, 8), logits.new_zeros(len(logits), 8), logits)
    return Batch(tensors, {"word_counts": [1], "class_counts": [len(logits)], "max_width": 1})


EXTREME_LOGITS = torch.tensor([math.nan, -math.inf, -200.0, 0.0, 200.0, math.inf])
# A threshold, and which of these logits pass it.
PASSES_OF_EXTREME: list[tuple[float, list[int]]] = [
    (-1.0, [1, 2, 3, 4, 5]),
    (0.0, [3, 4, 5]),  # the sigmoid of -200 is 0 in fp32
    (0.5, [4, 5]),
    (1.0, []),
    (math.inf, []),
    (math.nan, []),
]


def assert_close_to_exact(ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    """At most twice as wrong as plain torch in the same dtype; equal where a value is not finite."""
    finite = torch.isfinite(exact)
    torch.testing.assert_close(ours[~finite].double(), exact[~finite], rtol=0, atol=0, equal_nan=True)
    if finite.any():
        error, bound = ((got[finite].double() - exact[finite]).abs().max() for got in (ours, plain))
        assert error <= 2 * bound + 1e-5


class CountingKernel:
    """A kernel that counts how often it is started."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.launches = 0

    def __getitem__(self, grid: Any) -> Any:
        self.launches += 1
        return self.kernel[grid]


def compile_by(program: str, *options: str) -> dict[str, Any]:
    """What a program of this folder finds in the kernels that it compiles; by itself, since this process interprets."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.kernels.{program}", *options],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found

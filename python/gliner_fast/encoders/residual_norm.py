"""Who adds the residual and norms the sum: a Triton kernel over many rows on CUDA, torch else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.native import asked_executor, expect_triton, is_bare, is_recorded, triton_is_fastest

VARIABLE = "GLINER_FAST_NORM"
# Rows from which on the kernel is taken: with fewer a GPU waits for the host, which starts it more slowly than the two
# calls of torch. An estimate; `pytest benches/bench_add_norm.py` on a card tells.
FEWEST_ROWS = 1024


def add_and_norm(vectors: Tensor, residual: Tensor, norm: nn.Module, *, in_place: bool = False) -> Tensor:
    """norm(vectors + residual), (..., D) twice -> (..., D).

    Args:
        vectors: what is added.
        residual: what it is added to.
        norm: a layer norm, or what stands in its place.
        in_place: without a gradient the sum may take the place of the vectors.

    Raises:
        ValueError: the environment variable names nobody, or one that cannot run there.
    """
    if _takes_kernel(vectors, residual, norm):
        from gliner_fast.kernels.add_norm import add_norm

        assert isinstance(norm, nn.LayerNorm)
        return add_norm(vectors, residual, norm.weight, norm.bias, eps=norm.eps)
    in_place = in_place and not torch.is_grad_enabled() and vectors.dtype is residual.dtype
    normed: Tensor = norm(vectors.add_(residual) if in_place else vectors + residual)
    return normed


def add_residual(vectors: Tensor, residual: Tensor, layer: nn.Module | None) -> Tensor:
    """Vectors + residual, in the place of the vectors where a layer of ours made them that shows them to nobody else.

    Args:
        vectors: what is added.
        residual: what it is added to.
        layer: what made the vectors; None where others may have seen them.
    """
    is_ours = type(layer) is Linear and is_bare(layer) and vectors.dtype is residual.dtype
    return vectors.add_(residual) if is_ours and not torch.is_grad_enabled() else vectors + residual


def asked_norm() -> str:
    """What the environment variable says: torch, triton or nothing.

    Raises:
        ValueError: it names nobody.
    """
    return asked_executor(VARIABLE, ("torch", "triton"))


def _takes_kernel(vectors: Tensor, residual: Tensor, norm: nn.Module) -> bool:
    if torch.is_grad_enabled() or is_recorded():
        return False
    asked = asked_norm()
    if asked == "triton":
        expect_triton(vectors.device, VARIABLE)
    elif asked == "torch" or not vectors.is_cuda or len(vectors) < FEWEST_ROWS:
        return False
    return (
        not torch.is_autocast_enabled(vectors.device.type)
        and _fits(vectors, residual, norm)
        and (asked == "triton" or triton_is_fastest(vectors.device, vectors.dtype))
    )


def _fits(vectors: Tensor, residual: Tensor, norm: nn.Module) -> bool:
    if type(norm) is not nn.LayerNorm or not is_bare(norm) or norm.weight is None or norm.bias is None:
        return False
    from gliner_fast.kernels._triton import DTYPES
    from gliner_fast.kernels.add_norm import MOST_COLUMNS

    parts = residual, norm.weight, norm.bias
    return (
        vectors.dim() == 2
        and vectors.shape == residual.shape
        and norm.weight.shape == (vectors.shape[1],)
        and vectors.shape[1] <= MOST_COLUMNS
        and vectors.dtype in DTYPES
        and all(part.dtype is vectors.dtype and part.device == vectors.device for part in parts)
    )

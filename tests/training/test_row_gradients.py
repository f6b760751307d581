"""Gradients of embedding tables from the rows that were read, against those of plain tables."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gliner_fast.training.row_gradients import RowGradients

ROWS = 2000
# Pieces of the batches of three steps; rows come more than once, the padding's too, and others in each step.
STEPS = [
    [torch.tensor([[1, 5, 5, 0], [7, 1999, 1, 0]]), torch.tensor([[5, 8]])],
    [torch.tensor([[3, 0, 3]])],
    [torch.tensor([[1, 3, 9]]), torch.tensor([[9, 9, 9]])],
]


def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(ROWS, 3, padding_idx=0, dtype=torch.float64)


def backward(module: nn.Embedding, pieces: list[Tensor]) -> None:
    for ids in pieces:
        out = module(ids)
        (out * torch.arange(out.numel(), dtype=torch.float64).view_as(out).sin()).sum().backward()


def test_each_step_has_the_gradient_of_a_plain_table() -> None:
    ours, plain = table(), table()
    rows = RowGradients(ours)
    for pieces in STEPS:
        for module in (ours, plain):
            module.weight.grad = None
            backward(module, pieces)
        rows.gather()
        assert not ours.weight.grad.is_sparse
        torch.testing.assert_close(ours.weight.grad, plain.weight.grad, rtol=1e-14, atol=1e-14)
        assert not ours.weight.grad[0].any()  # the padding
        ours.weight.grad.mul_(0.5)  # as clipping does: the next step must not see it


def test_a_weight_that_a_checkpoint_puts_in_place_of_the_first_is_found() -> None:
    module = table()
    rows = RowGradients(module)
    backward(module, STEPS[0])
    rows.gather()
    module.weight = nn.Parameter(torch.zeros(ROWS, 3, dtype=torch.float64))
    backward(module, STEPS[1])
    rows.gather()
    assert module.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("frozen", [True, False])
def test_small_tables_and_frozen_ones_are_left_alone(frozen: bool) -> None:
    module = table() if frozen else nn.Embedding(10, 3)
    module.weight.requires_grad_(not frozen)
    RowGradients(module).gather()
    assert not module.sparse


def test_released_tables_have_plain_gradients() -> None:
    module = table()
    rows = RowGradients(module)
    backward(module, STEPS[0])
    rows.gather()
    rows.release()
    module.weight.grad = None
    backward(module, STEPS[1])
    assert not module.weight.grad.is_sparse


def test_a_step_without_texts_has_no_gradient() -> None:
    module = table()
    RowGradients(module).gather()
    assert module.weight.grad is None

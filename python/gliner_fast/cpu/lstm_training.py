"""The word LSTM with its gradient in closed form, for training on a CPU.

torch differentiates its LSTM step by step, one direction after the other: a gradient of the recurrent weights is made
and added up for each word. Here both directions go through one product a step, and the gradients of the weights are two
products over all words at the end: 1.5 to 2.3 times as fast, forward and back (two cores of an EPYC 7003, 2026-11-26,
`pytest benches/bench_word_lstm.py`). The numbers are torch's up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def train_lstm(lstm: nn.LSTM, vectors: Tensor, order: Tensor, sizes: Tensor, word_counts: Tensor) -> Tensor:
    """A bidirectional LSTM over packed words.

    Args:
        lstm: its weights, biases included.
        vectors: (N, D) words of all texts, one text after another.
        order: (N,) the index into them that `word_vectors.time_major` gives.
        sizes: (longest,) texts that reach each word.
        word_counts: (B,) words of each text.

    Returns:
        (N, D), differentiable.
    """
    ends = word_counts.cumsum(0)
    own_end = torch.repeat_interleave(ends, word_counts)  # (N,)
    own_start = torch.repeat_interleave(ends - word_counts, word_counts)
    own = torch.arange(len(vectors), device="cpu")
    backwards = (own_start + own_end - 1 - own)[order]  # (N,): last words first
    steps = sizes.tolist()
    for layer in range(lstm.num_layers):
        if layer and lstm.dropout:
            vectors = nn.functional.dropout(vectors, lstm.dropout, lstm.training)
        weights = [
            torch.stack([getattr(lstm, f"{kind}_l{layer}"), getattr(lstm, f"{kind}_l{layer}_reverse")])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        inputs = torch.stack([vectors[order], vectors[backwards]])  # (2, N, D)
        out: Tensor = _BothDirections.apply(inputs, *weights, steps)  # type: ignore[no-untyped-call]  # (2, N, H)
        vectors = torch.cat(
            [
                torch.empty_like(own).index_copy(0, places, own)
                for own, places in zip(out, (order, backwards), strict=True)
            ],
            dim=-1,
        )
    return vectors


def trains_in_closed_form(vectors: Tensor) -> bool:
    """Whether `train_lstm` is the way: with gradients, on a CPU, in the precision of the weights."""
    return (
        torch.is_grad_enabled()
        and vectors.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _BothDirections(torch.autograd.Function):
    """Two LSTMs at once over words laid out step by step; the gates are i, f, g, o as in torch."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, w_in: Tensor, w_hidden: Tensor, b_in: Tensor, b_hidden: Tensor, sizes: list[int]
    ) -> Tensor:
        """(2, N, D), (2, 4H, D), (2, 4H, H), (2, 4H) twice, texts of each step -> hidden states, (2, N, H)."""
        width = w_hidden.shape[2]
        gates = torch.baddbmm((b_in + b_hidden)[:, None], inputs, w_in.mT)  # (2, N, 4H): sums, each until its step
        hidden, cells, squashed = (gates.new_empty(2, gates.shape[1], width) for _ in range(3))
        for now, before in _steps(sizes):
            own = gates[:, now]
            if before is not None:
                own.baddbmm_(hidden[:, before], w_hidden.mT)
            i, f, g, o = own.chunk(4, dim=-1)
            own[..., : 2 * width].sigmoid_()
            g.tanh_()
            o.sigmoid_()
            cell = torch.mul(i, g, out=cells[:, now])
            if before is not None:
                cell.addcmul_(f, cells[:, before])
            torch.mul(o, torch.tanh(cell, out=squashed[:, now]), out=hidden[:, now])
        ctx.sizes = sizes
        ctx.save_for_backward(inputs, w_in, w_hidden, gates, hidden, cells, squashed)
        return hidden

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, None]:
        """The gradients of what went in."""
        (d_hidden,) = gradients
        inputs, w_in, w_hidden, gates, hidden, cells, squashed = ctx.saved_tensors
        steps = list(_steps(ctx.sizes))
        i, f, g, o = gates.chunk(4, dim=-1)
        hidden_before, cells_before = torch.zeros_like(hidden), torch.zeros_like(cells)
        for now, before in steps[1:]:
            hidden_before[:, now], cells_before[:, now] = hidden[:, before], cells[:, before]
        # What depends on no later word is computed for all words at once.
        of_hidden = o * (1 - squashed * squashed)  # dc/dh
        of_cell = torch.stack([g * i * (1 - i), cells_before * f * (1 - f), i * (1 - g * g)], dim=-2)  # (2, N, 3, H)
        of_output = squashed * o * (1 - o)
        d_gates = torch.empty_like(gates)
        by_gate = d_gates.view(*d_gates.shape[:2], 4, -1)  # (2, N, 4, H)
        later = 0  # texts that reach the next word
        d_later_hidden = d_later_cell = d_hidden[:, :0]
        for now, before in reversed(steps):
            own_hidden = d_hidden[:, now].clone()
            own_hidden[:, :later] += d_later_hidden
            own_cell = own_hidden * of_hidden[:, now]
            own_cell[:, :later] += d_later_cell
            torch.mul(own_cell[:, :, None], of_cell[:, now], out=by_gate[:, now, :3])
            torch.mul(own_hidden, of_output[:, now], out=by_gate[:, now, 3])
            if before is not None:
                later = now.stop - now.start
                d_later_hidden = d_gates[:, now] @ w_hidden
                d_later_cell = own_cell * f[:, now]
        # The biases' gradients are equal, but two: whoever scales one in place must not scale the other.
        d_bias = d_gates.sum(1)
        return d_gates @ w_in, d_gates.mT @ inputs, d_gates.mT @ hidden_before, d_bias, d_bias.clone(), None


def _steps(sizes: list[int]) -> Iterator[tuple[slice, slice | None]]:
    """Where each step's words are, and where the words before them are; the longest texts come first in every step."""
    start = previous = 0
    for size in sizes:
        yield slice(start, start + size), slice(previous, previous + size) if start else None
        previous, start = start, start + size

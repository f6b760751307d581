"""The word LSTM on a CPU, by the Rust kernel: over packed texts of any lengths, both directions at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gliner_fast import _rust
from gliner_fast.cpu.linear import is_packable, linear
from gliner_fast.cpu.native import asked_executor, is_bare, rust_is_fastest, rust_takes, torch_must_see
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.cpu.packed_weights import Packed

KeptInputs = dict[str, Packed[_rust.PackedWeights]]

VARIABLE = "GLINER_FAST_LSTM"  # torch or rust; unset for the fastest


def is_lstm_native() -> bool:
    """Whether `native_lstm` is wanted: what the environment variable says, else where it was measured to be faster.

    Raises:
        ValueError: the variable names nobody.
    """
    asked = asked_executor(VARIABLE, ("torch", "rust"))
    return asked == "rust" or (not asked and rust_is_fastest())


def takes_native_lstm(lstm: nn.LSTM, vectors: Tensor) -> bool:
    """Whether `native_lstm` can do it: on the CPU, for inference, all as torch's own class has it, and of one dtype."""
    return (
        not torch_must_see()
        and type(lstm) is nn.LSTM
        and lstm.bidirectional
        and lstm.bias
        and not lstm.proj_size
        and is_bare(lstm)
        and all(
            type(part) in (Tensor, nn.Parameter)
            and rust_takes(part.device, part.dtype)
            and part.dtype is vectors.dtype
            and part.is_contiguous()
            and part.data_ptr() % part.element_size() == 0
            for part in (vectors, *lstm.parameters())
        )
    )


def native_lstm(lstm: nn.LSTM, vectors: Tensor, word_counts: Tensor, kept: KeptInputs | None = None) -> Tensor:
    """What `lstm` makes of packed words, up to rounding: (N, D) -> (N, 2H). Autograd does not see through it.

    On as many threads as torch may use, of which a text keeps two busy, one a direction. What becomes of a text depends
    on that text alone, to the last bit, but for the products with its inputs where these are `linear`'s. States and
    gates are float32, whatever the dtype.

    Args:
        lstm: bidirectional, with biases, for which `takes_native_lstm` holds.
        vectors: (N, D), one text after another.
        word_counts: (B,) int64 on the CPU.
        kept: weights of its inputs, packed, by name, to be multiplied in float32 however many words there are; those
            that are not there, or are others by now, are added.
    """
    counts, dtype = word_counts.numpy(), vectors.dtype
    for layer in range(lstm.num_layers):
        forward, backward = (_direction(lstm, vectors, f"l{layer}{side}", kept) for side in ("", "_reverse"))
        found = torch.from_numpy(_rust.lstm(forward, backward, counts, torch.get_num_threads(), parallel_address()))
        vectors = found.to(dtype)
    return vectors


def _direction(
    lstm: nn.LSTM, vectors: Tensor, name: str, kept: KeptInputs | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The inputs' part of the gates, (N, 4H), the weight of the state before, (4H, H), and its bias, (4H,)."""
    w_in, w_hidden, b_in, b_hidden = (
        getattr(lstm, f"{kind}_{name}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    packed = None
    if kept is not None and is_packable(w_in):
        own = kept.get(name)
        if own is None or not own.are_of(w_in):
            own = kept[name] = Packed.pack(_rust.PackedWeights, w_in)
        (packed,) = own.parts
    of_inputs = linear(vectors, w_in.detach(), b_in.detach(), "none", packed)  # (N, 4H)
    return of_inputs.float().numpy(), w_hidden.detach().float().numpy(), b_hidden.detach().float().numpy()

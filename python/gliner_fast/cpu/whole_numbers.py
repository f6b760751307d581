"""Whole numbers of 16 or 8 bits in place of float32: for CPUs that multiply no shorter floating-point numbers.

Weights of linear layers, and what goes into them, are rounded with scales of their own: row by row to 14 bits, or 64
numbers of a row at a time to 8 bits. CPUs multiply two or four times as many such numbers at a time as float32. How
often an answer changes: `python -m benches.precision`.

In float32 stay sums, attention, norms, the word LSTM with the product of its inputs, the position tables of DeBERTa, a
convolution, the scorer's last layer (`scorer.out`), and what links entities (`relations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from gliner_fast import _rust
from gliner_fast.compiling import is_compiled
from gliner_fast.cpu.linear import Linear
from gliner_fast.cpu.native import is_float32_on_cpu, is_x86
from gliner_fast.cpu.packed_weights import Packed
from gliner_fast.precision import WholeNumbers, cpu_features
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.token_scorer import TokenScorer
from gliner_fast.scoring.word_vectors import WordLSTM

if TYPE_CHECKING:
    from typing_extensions import Self

_KINDS: dict[WholeNumbers, type[_rust.Int8Weights | _rust.Int16Weights]] = {
    "int16": _rust.Int16Weights,
    "int8": _rust.Int8Weights,
}


def quantize(network: nn.Module, kind: WholeNumbers) -> None:
    """Gives the layers of a network their weights in whole numbers beside those in float32.

    They take half as much memory again, or a quarter. They are multiplied for inference in float32 on the CPU alone. A
    layer drops them once its weights change or move, a gradient is asked for, or it is put into training mode.

    Raises:
        ValueError: one of the layers is not in float32 on the CPU, or the network in training mode, or compiled; then
            all are as they were.
    """
    layers = _layers(network)
    _expect_float32(kind, {name: layer for name, (layer, _) in layers.items()})
    if network.training:
        raise ValueError(f"{kind} is for inference, but the model is in training mode: call eval() first")
    if any(map(is_compiled, network.modules())):
        raise ValueError(f"{kind} is not compiled: leave out compile(), or {kind}")
    packed = [(layer, Packed.pack(_KINDS[kind], layer.weight, parts)) for layer, parts in layers.values()]
    for layer, whole in packed:
        layer.float32, layer.whole = None, whole
    _keep_inputs(network)


def why_slow(kind: WholeNumbers) -> str | None:
    """What a user is to be told of whole numbers on this CPU; None where they are made for it."""
    if not (is_x86() and _rust.has_vectors()):
        return f"{kind} is made for x86 CPUs with AVX2, and may be slow on this one"
    if kind == "int8" and "avx512_vnni" not in cpu_features():
        return "int8 is made for CPUs with AVX-512 VNNI: on this one int16 is faster, and nearer"
    return None


def _keep_inputs(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, WordLSTM):
            module.kept = {}


def _expect_float32(kind: WholeNumbers, layers: dict[str, Linear]) -> None:
    formats = {name: (layer.weight.dtype, layer.weight.device) for name, layer in layers.items()}
    for name, (dtype, device) in formats.items():
        if dtype is not torch.float32 or device.type != "cpu":
            whose = "the model" if len(set(formats.values())) == 1 else name
            raise ValueError(
                f"{kind} replaces products of float32 on the CPU, but {whose} is in {dtype} on {device}: load the "
                f"model without dtype and map_location, or leave {kind} out"
            )


def _layers(network: nn.Module) -> dict[str, tuple[Linear, int]]:
    """Layers that multiply whole numbers, by name, and in how many parts by columns."""
    parts, unread = _read_by_scorer(network)
    return {
        name: (module, parts.get(module, 1))
        for name, module in network.named_modules()
        if isinstance(module, Linear) and module not in unread and module.weight.numel()
    }


def _read_by_scorer(network: nn.Module) -> tuple[dict[nn.Module, int], set[nn.Module]]:
    """Layers that scorers multiply with in so many parts by columns; and those that they need not have packed."""
    parts: dict[nn.Module, int] = {}
    unread: set[nn.Module] = set()
    for module in network.modules():
        if isinstance(module, SpanScorer):
            unread.add(module.out)  # it is multiplied with entity types, not words
            if module.joint is not None:
                parts[module.joint] = 2
        elif isinstance(module, TokenScorer):
            unread.add(module.out)  # three rows
            parts[module.joint] = 3
    return parts, unread


def drop(network: nn.Module) -> None:
    """Leaves the layers their float32 weights alone, as they lie."""
    for module in network.modules():
        if isinstance(module, Linear):
            module.whole = module.float32 = None
        elif isinstance(module, WordLSTM):
            module.kept = None


def kinds_of(network: nn.Module) -> dict[str, WholeNumbers | None]:
    """By the layer's name the kind of whole numbers that its present weights are kept in, too; None for none."""
    kinds: dict[str, WholeNumbers | None] = {}
    for name, (layer, _) in _layers(network).items():
        whole = None if layer.whole is None else layer.whole.follow(layer.weight)
        kinds[name] = next((kind for kind, own in _KINDS.items() if whole and isinstance(whole.parts[0], own)), None)
    return kinds


def precision_of(network: nn.Module) -> str | None:
    """The whole numbers that layers multiply: "int8", or "partly int8" where some do not; None where none does."""
    kinds = set(kinds_of(network).values())
    names = " and ".join(sorted(kind for kind in kinds if kind is not None))
    return f"partly {names}" if names and None in kinds else names or None


@dataclass(frozen=True)
class Packing:
    """What of a network is packed by `quantize`, for its copies, which have nothing of it.

    Attributes:
        kinds: as `kinds_of` tells.
        keeps_inputs: whether the word LSTM keeps its inputs' weights packed.
    """

    kinds: dict[str, WholeNumbers | None]
    keeps_inputs: bool

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """As it is now."""
        keeps = any(isinstance(module, WordLSTM) and module.kept is not None for module in network.modules())
        return cls(kinds_of(network), keeps)

    @property
    def is_whole(self) -> bool:
        """Whether there are whole numbers at all."""
        return any(self.kinds.values())

    def repeat(self, network: nn.Module) -> None:
        """Gives a copy the same, but for layers that are no longer in float32 on the CPU."""
        for name, (layer, parts) in _layers(network).items():
            kind = self.kinds.get(name)
            if kind is not None and is_float32_on_cpu(layer.weight):
                layer.whole = Packed.pack(_KINDS[kind], layer.weight, parts)
        if self.keeps_inputs:
            _keep_inputs(network)

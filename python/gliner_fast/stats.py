"""What was done, and where the time went."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_fast.network import Network


@dataclass
class Stats:
    """Counts and seconds of one or more predictions; two of them add up.

    Attributes:
        texts: texts that were asked about, those without words included.
        computed_texts: texts that were computed: distinct, with words and labels.
        windows: rows that the network read; each text is one, unless it was cut into windows.
        words: words in these rows; where windows overlap, they count in each.
        subwords: subwords in these rows, labels and special subwords included.
        padded_subwords: subwords of all batches, padding included.
        entities: entities found, those of repeated texts included.
        prepare_seconds: texts to subwords. In a stream this runs beside the other stages.
        encode_seconds: in the encoder. On CUDA the time that launching it takes: the device works on meanwhile, and
            is waited for in `decode_seconds`. A compiled network is timed as a whole, in `score_seconds`.
        score_seconds: in the rest of the network, and laying out its batches.
        decode_seconds: scores to entities.
    """

    texts: int = 0
    computed_texts: int = 0
    windows: int = 0
    words: int = 0
    subwords: int = 0
    padded_subwords: int = 0
    entities: int = 0
    prepare_seconds: float = 0.0
    encode_seconds: float = 0.0
    score_seconds: float = 0.0
    decode_seconds: float = 0.0

    def __add__(self, other: Stats) -> Stats:
        own, others = self.to_dict(), other.to_dict()
        return Stats(**{name: value + others[name] for name, value in own.items()})

    def __sub__(self, other: Stats) -> Stats:
        own, others = self.to_dict(), other.to_dict()
        return Stats(**{name: value - others[name] for name, value in own.items()})

    def add(self, other: Stats) -> None:
        """Adds another's numbers to these."""
        own = vars(self)
        for name, value in vars(other).items():
            own[name] += value

    def copy(self) -> Stats:
        """The numbers of this moment."""
        return dataclasses.replace(self)

    def to_dict(self) -> dict[str, Any]:
        """The numbers by name, ready for JSON; `Stats(**numbers)` reads them again."""
        return dict(vars(self))

    @property
    def padding_share(self) -> float:
        """Share of the batches that is padding, in [0, 1)."""
        return 1 - self.subwords / self.padded_subwords if self.padded_subwords else 0.0


@contextmanager
def encoder_timed(network: Network, stats: Stats) -> Iterator[None]:
    """Adds the time that calls of the encoder take in this thread to `encode_seconds`; no device is waited for."""
    if network.is_compiled:  # hooks would have it compiled again and again
        yield
        return
    thread = threading.get_ident()  # several threads may run one network, each with stats of its own
    started = 0.0

    def start(*_: Any) -> None:
        nonlocal started
        if threading.get_ident() == thread:
            started = perf_counter()

    def end(*_: Any) -> None:
        if threading.get_ident() == thread:
            stats.encode_seconds += perf_counter() - started

    encoder = network.encoder
    hooks = [encoder.register_forward_pre_hook(start), encoder.register_forward_hook(end)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

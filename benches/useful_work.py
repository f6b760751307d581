"""The operations that an answer needs: what "useful" means, on a CPU and on a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benches.floor import encoder_operations, span_scores_work
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.scorer import SpanScorer


@dataclass
class UsefulWork:
    """What the texts of a call need, padding and texts that come again left out.

    Attributes:
        encoder: operations of DeBERTa's products over true subwords, of the last layer over those that the head reads;
            0 for another encoder.
        span_scores: operations over true spans; 0 for another scorer.
        subwords: of texts and prompts.
    """

    encoder: int = 0
    span_scores: int = 0
    subwords: int = 0

    @classmethod
    def of(cls, model: Any, call: Callable[[], object]) -> UsefulWork:
        """Counts what the model's network is given in a call."""
        found, network = cls(), model.model

        def count(_: Any, given: tuple[Any, ...]) -> None:
            batch = given[0]
            lengths = batch.lengths.tolist()
            found.subwords += sum(lengths)
            if isinstance(network.encoder, DebertaEncoder):
                wanted = len(batch.pooled_positions) + len(batch.class_positions)
                found.encoder += encoder_operations(network.encoder.config, lengths, wanted)
            if isinstance(network.scorer, SpanScorer):
                scorer, counts = network.scorer, (batch.word_counts.tolist(), batch.class_counts.tolist())
                work = span_scores_work(*counts, scorer.max_width, scorer.out.in_features, size=1)
                found.span_scores += work.operations

        hook = network.register_forward_pre_hook(count)
        try:
            call()
        finally:
            hook.remove()
        return found

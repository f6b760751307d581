"""What DeBERTa-v2/v3 is made with, and where its relative positions lie in their table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gliner_fast.config_values import refuse_deberta_values
from gliner_fast.errors import CheckpointError, shown


@dataclass(frozen=True)
class DebertaConfig:
    """The settings that the encoder needs, with the defaults of `transformers.DebertaV2Config`."""

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    norm_eps: float
    position_buckets: int
    max_relative_positions: int
    pos_att_type: tuple[str, ...]
    pad_token_id: int
    hidden_dropout: float
    attention_dropout: float

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> DebertaConfig | None:
        """Reads a transformers configuration; None for a variant that only transformers runs.

        Those are the ones with absolute positions, token types, a convolution, unshared position projections or
        another activation: DeBERTa-v2-xlarge and hand-made ones, none of them DeBERTa-v3.

        Raises:
            CheckpointError: it is a DeBERTa's, with a setting that it cannot have.
        """
        if config.get("model_type", "deberta-v2") != "deberta-v2":
            return None
        refuse_deberta_values(config)
        hidden, heads = config.get("hidden_size", 1536), config.get("num_attention_heads", 24)
        positions = _kinds_of_positions(config.get("pos_att_type") or [])
        max_positions = config.get("max_relative_positions", -1)
        ours = (
            config.get("relative_attention", False)
            and config.get("share_att_key", False)
            and not config.get("position_biased_input", True)
            and not config.get("type_vocab_size", 0)
            and not config.get("conv_kernel_size", 0)
            and config.get("embedding_size", hidden) == hidden
            and config.get("attention_head_size", hidden // heads) == hidden // heads
            and hidden % heads == 0
            and "layer_norm" in [part.strip() for part in str(config.get("norm_rel_ebd", "none")).lower().split("|")]
            and config.get("hidden_act", "gelu") == "gelu"
            and set(positions) <= {"c2p", "p2c"}
        )
        if not ours:
            return None
        read = cls(
            vocab_size=config.get("vocab_size", 128100),
            hidden_size=hidden,
            layers=config.get("num_hidden_layers", 24),
            heads=heads,
            intermediate_size=config.get("intermediate_size", 6144),
            norm_eps=config.get("layer_norm_eps", 1e-7),
            position_buckets=config.get("position_buckets", -1),
            max_relative_positions=max_positions if max_positions > 0 else config.get("max_position_embeddings", 512),
            pos_att_type=tuple(positions),
            pad_token_id=config.get("pad_token_id") or 0,
            hidden_dropout=config.get("hidden_dropout_prob", 0.1),
            attention_dropout=config.get("attention_probs_dropout_prob", 0.1),
        )
        read._refuse_positions()
        return read

    def _refuse_positions(self) -> None:
        """Refuses a table of relative positions without rows, and distances that cannot be put into buckets."""
        if self.span < 1:
            raise CheckpointError(
                f"the encoder's max_relative_positions, or else max_position_embeddings, is {self.span}: expected at "
                "least 1, since there are no position_buckets"
            )
        middle = self.position_buckets // 2  # from there on a bucket has several distances: see `position_rows`
        has_buckets = self.position_buckets > 0 and self.max_relative_positions > 0
        if has_buckets and not 0 < middle < self.max_relative_positions - 1:
            raise CheckpointError(
                f"the encoder's position_buckets is {self.position_buckets}, for distances below "
                f"{self.max_relative_positions}: expected at least 2, and less than twice as many as distances"
            )

    @property
    def span(self) -> int:
        """Rows on either side of distance 0 in the table of relative positions."""
        return self.position_buckets if self.position_buckets > 0 else self.max_relative_positions


def _kinds_of_positions(pos_att_type: Any) -> list[str]:
    """What takes part in attention beside the subwords, such as ["c2p", "p2c"]."""
    if isinstance(pos_att_type, str):
        return [part.strip() for part in pos_att_type.lower().split("|")]
    if not isinstance(pos_att_type, (list, tuple)) or not all(isinstance(kind, str) for kind in pos_att_type):
        raise CheckpointError(
            f"the encoder's pos_att_type is {shown(pos_att_type)}: expected a list of strings, such as ['c2p', 'p2c']"
        )
    return list(pos_att_type)


def position_rows(length: int, config: DebertaConfig) -> Tensor:
    """Rows of the relative-position table for the distances -(L-1)..L-1 in ascending order, (2L-1,) int64.

    Up to `position_buckets / 2` a distance has a row of its own, beyond it the rows are log-bucketed
    (DeBERTa-v2's `make_log_bucket_position`), and the last one serves every greater distance.
    """
    distance = torch.arange(1 - length, length, device="cpu")  # (2L-1,)
    buckets, farthest = config.position_buckets, config.max_relative_positions
    if buckets > 0 and farthest > 0:
        middle = buckets // 2
        magnitude = distance.abs().clamp(min=middle)  # near distances stay as they are
        # In float32, step for step as transformers does it: another order of operations could round a bucket up.
        # Whatever torch's default dtype is now: the rows are kept, and others set it, to load a model in bf16, say.
        ratio = magnitude.float() / middle
        steps = torch.ceil(torch.log(ratio) / math.log((farthest - 1) / middle) * (middle - 1))
        far = (steps.long() + middle) * distance.sign()
        distance = torch.where(distance.abs() <= middle, distance, far)
    return (distance + config.span).clamp(0, 2 * config.span - 1)

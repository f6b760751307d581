"""`InferencePackingConfig`, by which scripts ask `gliner` to pack texts into rows without padding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class InferencePackingConfig:
    """Accepted wherever `gliner` takes one, without any effect: padding is avoided without it (compat section 1.3).

    Attributes:
        max_length: of a row of texts in subwords; nothing is cut there.
        sep_token_id: in `gliner` unused, too.
        streams_per_batch: rows a batch.
    """

    max_length: int
    sep_token_id: int | None = None
    streams_per_batch: int = 1

"""`InferencePackingConfig`, by which scripts ask `gliner` to pack texts into rows without padding."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

if __name__ != "gliner_fast.infer_packing":  # but gliner.infer_packing: see `gliner_fast.config`
    sys.modules[__name__] = import_module("gliner_fast.infer_packing")


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

"""What the environment says of the benches: how much work they do, and on checkpoints of which sizes."""

from __future__ import annotations

import math
import os

from tests.checkpoint_recipes import SIZES


def read_scale() -> float:
    """GLINER_FAST_BENCH_SCALE; ends the process where it is no number above 0."""
    given = os.environ.get("GLINER_FAST_BENCH_SCALE", "1")
    try:
        scale = float(given)
    except ValueError:
        scale = math.nan
    if not 0 < scale < math.inf:
        raise SystemExit(
            f"GLINER_FAST_BENCH_SCALE is {given!r}: expected a number above 0, such as 0.1 for a quick look or 10"
        )
    return scale


def read_sizes() -> list[str]:
    """GLINER_FAST_BENCH_SIZES; ends the process where one of them is no size."""
    given = os.environ.get("GLINER_FAST_BENCH_SIZES", "small,base")
    sizes = given.split(",")
    if not set(sizes) <= set(SIZES):
        raise SystemExit(
            f"GLINER_FAST_BENCH_SIZES is {given!r}: expected some of {', '.join(SIZES)}, with commas between, "
            "such as small,base"
        )
    return sizes

"""The spans above their entity type's threshold, found where they are scored: no logit of another is ever stored.

The specification is in `span_reference.py`; here is the launch function, of the kernel in `span_scores.py`. A CPU finds
candidates in Rust (`native_candidates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gliner_fast.kernels.pending_candidates import PendingCandidates, Room, SpanCandidates, start_copy
from gliner_fast.kernels.span_scores import Hits, as_kernel_inputs, count_dtype, launch
from gliner_fast.kernels.span_tiling import Tiling, cut_tiles, to_device


def span_candidates(
    u: Tensor,
    v: Tensor,
    g: Tensor,
    c: Tensor,
    *,
    word_counts: Sequence[int],
    class_counts: Sequence[int],
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None = None,
    room: Room | None = None,
    allow_tf32: bool = False,
    sigmoid: Callable[[Tensor], Tensor] = torch.sigmoid,
) -> PendingCandidates:
    """The candidates that `span_candidates_reference` finds, by the kernel: the dense logits are never written.

    The device has to start the kernel and a few copies, and the host waits for none: `PendingCandidates.wait` does,
    once, and a second time in the rare batch that has more than were given room, which runs again. What is left, to
    sort the hits and to compare a few again, is done there, by the thread that waits. `room` remembers how much batches
    needed; None: a new one. `thresholds` are on the host, and `sigmoid` is its.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device, or thresholds that are not on the host.
    """
    if thresholds.device.type != "cpu":
        raise ValueError(f"thresholds are on {thresholds.device}: expected them on the CPU, which compares with them")
    room = room or Room()
    inputs = as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    thresholds = thresholds.to(u.dtype)  # (T,)
    bounds = to_device(logit_bounds(thresholds), u.device)

    def search(places: int) -> tuple[Tensor, torch.cuda.Event | None]:
        return _search(inputs, tiling, max_width, bounds, allowed_spans, places, allow_tf32=allow_tf32)

    def read(keys: Tensor, logits: Tensor) -> SpanCandidates:
        order = keys.argsort()  # they come in the order in which programs were done
        texts, starts, widths, types = tiling.decode(keys[order], max_width)
        scores = sigmoid(logits[order].to(u.dtype))
        # The bounds let a little too much through: this is the comparison that torch makes.
        passes = scores > thresholds[tiling.texts_on_host[texts, 3] + types]
        return SpanCandidates(texts[passes], starts[passes], widths[passes], types[passes], scores[passes])

    words = len(u)
    return PendingCandidates(
        search, read, *search(room.of(words, tiling.logits)), learn=lambda hits: room.learn(hits, words)
    )


def _search(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    tiling: Tiling,
    max_width: int,
    bounds: Tensor,
    allowed_spans: Tensor | None,
    room: int,
    *,
    allow_tf32: bool,
) -> tuple[Tensor, torch.cuda.Event | None]:
    """Starts the search for at least `room` hits and their way to the host.

    Returns:
        (2 + 1.5 * room,) int64 on the host, as `PendingCandidates` describes it, and what happens when it has come.
    """
    # A multiple of 16, so that the logits begin at one of 16 bytes: Triton compiles once more for those that do not.
    room = -(-room // 16) * 16
    table = torch.empty(2 + room + room // 2, dtype=torch.int64, device=bounds.device)
    table[:2].zero_()
    hits = Hits(table[2 : 2 + room], table.view(count_dtype(tiling.logits))[:1], bounds, allowed_spans)
    launch(*inputs, tiling, max_width, table[2 + room :].view(torch.float32), allow_tf32=allow_tf32, hits=hits)
    return start_copy(table)


def logit_bounds(thresholds: Tensor) -> Tensor:
    """Logits that no candidate is below, (T,) fp32; NaN, which nothing reaches, for thresholds above 1.

    Sure, not sharp: sigmoids err by some units in the last place (so the threshold gives way by 2**-20), the logit of
    the threshold by less than 1e-3, and the kernel compares its sums before they are rounded to the logits' dtype.
    """
    numbers = thresholds.float().numpy().clip(min=0) * np.float32(1 - 2**-20)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = np.log(numbers / (1 - numbers))
    eps = np.float32(torch.finfo(thresholds.dtype).eps)
    return torch.from_numpy(bounds - eps * np.abs(bounds) - np.float32(1e-3))

"""The spans above their entity type's threshold, found where they are scored: no logit of another is ever stored.

The specification is in `span_reference.py`; here is the launch function, of the kernel in `span_scores.py`. A CPU finds
candidates in Rust (`native_candidates.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gliner_fast.kernels.pending_candidates import PendingCandidates, Room
from gliner_fast.kernels.span_scores import Hits, as_kernel_inputs, count_dtype, launch
from gliner_fast.kernels.span_tiling import Tiling, cut_tiles

# Stands in a place that no hit has taken: greater than every key.
_NO_KEY = torch.iinfo(torch.int64).max


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
) -> PendingCandidates:
    """The candidates that `span_candidates_reference` finds, by the kernel: the dense logits are never written.

    The host waits for nothing: `PendingCandidates.wait` does, once, and a second time in the rare batch that has more
    than were given room, which runs again. `room` remembers how much batches needed; None: a new one.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device.
    """
    room = room or Room()
    inputs = as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    thresholds = thresholds.to(u)

    def search(places: int) -> tuple[Tensor, torch.cuda.Event | None]:
        return _search(inputs, tiling, max_width, thresholds, allowed_spans, u.dtype, places, allow_tf32=allow_tf32)

    words = len(u)
    return PendingCandidates(
        u.dtype, search, *search(room.of(words, tiling.logits)), learn=lambda hits: room.learn(hits, words)
    )


def _search(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    tiling: Tiling,
    max_width: int,
    thresholds: Tensor,
    allowed_spans: Tensor | None,
    dtype: torch.dtype,
    room: int,
    *,
    allow_tf32: bool,
) -> tuple[Tensor, torch.cuda.Event | None]:
    """Starts the search for up to `room` candidates and their way to the host.

    Returns:
        (2 + 5 * room,) int32 on the host: hits, candidates, and in a row each texts, starts, widths, types and the bits
        of the scores as float32, candidates first and in order. And what happens when it has come, as
        `PendingCandidates` says.
    """
    device = inputs[0].device
    # A multiple of 16, or Triton would compile once more for those that are none.
    keys = torch.full((-(-room // 16) * 16,), _NO_KEY, device=device)
    logits = keys.new_empty(len(keys), dtype=torch.float32)
    count = keys.new_zeros(1, dtype=count_dtype(tiling.logits))
    hits = Hits(keys, count, logit_bounds(thresholds), allowed_spans)
    launch(*inputs, tiling, max_width, logits, allow_tf32=allow_tf32, hits=hits)
    texts, starts, widths, types = tiling.decode(keys.clamp(max=max(0, tiling.logits - 1)), max_width)
    scores = logits.to(dtype).sigmoid()
    # The bounds let a little too much through: this is the comparison that torch makes.
    is_candidate = (keys != _NO_KEY) & (scores > thresholds[tiling.texts[texts, 3] + types])
    order = keys.where(is_candidate, _NO_KEY).argsort()
    indices = torch.stack([texts, starts, widths, types])[:, order].int()  # (4, room)
    bits = scores[order].float().view(torch.int32)
    counts = torch.cat([count, is_candidate.sum()[None]]).clamp(max=2**31 - 1).int()
    table = torch.cat([counts, indices.view(-1), bits])
    if not table.is_cuda:
        return table, None
    on_host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    on_host.copy_(table, non_blocking=True)
    is_there = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_there.record(torch.cuda.current_stream(device))
    return on_host, is_there


def logit_bounds(thresholds: Tensor) -> Tensor:
    """Logits that no candidate is below, (T,) fp32; NaN, which nothing reaches, for thresholds above 1.

    Sure, not sharp: sigmoids err by some units in the last place (so the threshold gives way by 2**-20), the logit of
    the threshold by less than 1e-3, and the kernel compares its sums before they are rounded to the logits' dtype.
    """
    bounds = torch.logit(thresholds.float().clamp(min=0) * (1 - 2**-20))
    return bounds - torch.finfo(thresholds.dtype).eps * bounds.abs() - 1e-3

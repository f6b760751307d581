"""The spans above their entity type's threshold, found where they are scored: no logit of another is ever stored.

In this order: the specification in plain torch; the launch function, of the kernel in `span_scores.py`; what is waited
for. A CPU finds candidates in Rust (`native_candidates.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliner_fast.kernels.span_scores import Hits, as_kernel_inputs, count_dtype, launch, span_scores_reference
from gliner_fast.kernels.span_tiling import Tiling, cut_tiles

# Stands in a place that no hit has taken: greater than every key.
_NO_KEY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class SpanCandidates:
    """Spans that score above their type's threshold, in the order of the dense layout: text, start, width, type.

    Attributes:
        texts: (S,) int64, the text of each.
        starts: (S,) int64, its first word, counted in its text.
        widths: (S,) int64, its width index: k stands for k + 1 words.
        types: (S,) int64, its entity type, counted in its text.
        scores: (S,) sigmoids, in the dtype of the logits.
    """

    texts: Tensor
    starts: Tensor
    widths: Tensor
    types: Tensor
    scores: Tensor


def span_candidates_reference(
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
) -> SpanCandidates:
    """Spans within their text whose sigmoid, in the logits' dtype, is greater than the threshold rounded to that dtype.

    Beside what `span_scores_reference` takes: `thresholds` (T,), one for each packed type, infinite for a type that
    admits none; `allowed_spans` (N, K) bool, where given, False for the spans that are not asked for, each by its first
    word and its width. A NaN is no candidate.
    """
    logits = span_scores_reference(u, v, g, c, word_counts=word_counts, class_counts=class_counts, max_width=max_width)
    scores, thresholds = logits.sigmoid(), thresholds.to(logits)
    found = []
    word = type_ = at = 0
    for text, (words, classes) in enumerate(zip(word_counts, class_counts, strict=True)):
        size = words * max_width * classes
        block = scores[at : at + size].view(words, max_width, classes)  # (W, K, C)
        wanted = block > thresholds[type_ : type_ + classes]
        if allowed_spans is not None:
            wanted &= allowed_spans[word : word + words, :, None]
        start, width, own_type = torch.where(wanted)  # each (S_b,)
        inside = start + width < words  # a score past the end is 0, which a threshold below 0 would let in
        start, width, own_type = start[inside], width[inside], own_type[inside]
        found.append((torch.full_like(start, text), start, width, own_type, block[start, width, own_type]))
        word, type_, at = word + words, type_ + classes, at + size
    if not found:
        none = scores.new_empty(0, dtype=torch.int64)
        return SpanCandidates(none, none, none, none, scores)
    return SpanCandidates(*(torch.cat(parts) for parts in zip(*found, strict=True)))


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
    allow_tf32: bool = False,
) -> PendingCandidates:
    """The candidates that `span_candidates_reference` finds, by the kernel: the dense logits are never written.

    The host waits for nothing: `PendingCandidates.wait` does, once, and a second time in the rare batch that has more
    than were given room, which runs again.

    Raises:
        TypeError: for another dtype.
        ValueError: for another device.
    """
    inputs = as_kernel_inputs(u, v, g, c)
    tiling = cut_tiles(inputs[0], word_counts, class_counts, max_width)
    thresholds = thresholds.to(u)

    def search(room: int) -> tuple[Tensor, torch.cuda.Event | None]:
        return _search(inputs, tiling, max_width, thresholds, allowed_spans, u.dtype, room, allow_tf32=allow_tf32)

    return PendingCandidates(u.dtype, search, *search(_first_room(len(u)) if tiling.logits else 0))


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates that the device is looking for; where it is the CPU, they are found already.

    Attributes:
        dtype: of the logits, and so of the scores.
        search: looks for as many as there is room for, again.
        table: (2 + 5 * room,) int32 on the host, as `_search` lays it out; not to be read before `wait`.
        is_there: happens once the table has come; None where it has.
    """

    dtype: torch.dtype
    search: Callable[[int], tuple[Tensor, torch.cuda.Event | None]]
    table: Tensor
    is_there: torch.cuda.Event | None

    def wait(self) -> SpanCandidates:
        """The candidates, on the host."""
        table, is_there = self.table, self.is_there
        while True:
            if is_there is not None:
                is_there.synchronize()
            hits, found = table[:2].tolist()
            columns = table[2:].view(5, -1)
            if hits <= columns.shape[1]:
                texts, starts, widths, types, bits = columns[:, :found]
                scores = bits.contiguous().view(torch.float32).to(self.dtype)
                return SpanCandidates(texts.long(), starts.long(), widths.long(), types.long(), scores)
            table, is_there = self.search(hits)


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


def _first_room(words: int) -> int:
    """Candidates that get room before their number is known: several times what a trained model finds."""
    return 1024 + 4 * words


def logit_bounds(thresholds: Tensor) -> Tensor:
    """Logits that no candidate is below, (T,) fp32; NaN, which nothing reaches, for thresholds above 1.

    Sure, not sharp: sigmoids err by some units in the last place (so the threshold gives way by 2**-20), the logit of
    the threshold by less than 1e-3, and the kernel compares its sums before they are rounded to the logits' dtype.
    """
    bounds = torch.logit(thresholds.float().clamp(min=0) * (1 - 2**-20))
    return bounds - torch.finfo(thresholds.dtype).eps * bounds.abs() - 1e-3

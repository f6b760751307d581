"""Word and prompt vectors -> span scores of texts of mixed length: our head beside the unfactored one.

`gliner's head` computes every span on its own in a padded batch, as the package does (written out: the GPU machine may
lack the package); `factored in torch` is ours without the kernel. On CUDA the conditions also hold the peak memory of
each, above what was there before, and the kernel's own time beside its floor (`benches.floor`). On a CPU one tiny case
keeps all this working; TRITON_INTERPRET=1 GLINER_FAST_SPAN_EXECUTOR=triton sends it through the kernel.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate, cycle, takewhile
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benches.compare import Race
from benches.floor import SpanCounts, device_seconds, measure_peaks, span_scores_work
from benches.on_card import peak_bytes
from gliner_fast.kernels import span_scores as kernel
from gliner_fast.kernels import span_tiling
from gliner_fast.kernels.span_reference import span_scores_reference
from gliner_fast.scorer import SpanScorer

MAX_WIDTH = 12
# Words of the texts, over and over: tweets, sentences, paragraphs.
TEXT_WORDS = (12, 21, 33, 8, 60, 128, 17, 250)
# Largest difference over the largest value. In half precision gliner's head rounds each span's vector, ours has none.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


SHAPES = [
    # D, entity types, words
    *((768, classes, words) for classes in (5, 25, 100) for words in (64, 512, 4096)),
    (512, 25, 4096),
    (1024, 25, 4096),
]
CASES = [
    ("cpu", 32, 5, 100, torch.float32),
    *(
        pytest.param("cuda", *shape, dtype, marks=pytest.mark.gpu, id="-".join(map(str, ("cuda", *shape, dtype))))
        for shape in SHAPES
        for dtype in TOLERANCE
        if torch.cuda.is_available()
    ),
]


@pytest.mark.parametrize(("device", "width", "classes", "words", "dtype"), CASES)
def bench_span_scores(race: Race, device: str, width: int, classes: int, words: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    word_counts = mixed_lengths(words)
    class_counts = [classes] * len(word_counts)
    shape: SpanCounts = {"word_counts": word_counts, "class_counts": class_counts, "max_width": MAX_WIDTH}
    head = SpanScorer(width, MAX_WIDTH, "markerV0", dropout=0.0).to(device, dtype).eval()
    joint = head.joint
    assert joint is not None
    vectors = torch.randn(words, width, device=device, dtype=dtype)  # (N, D)
    prompts = torch.randn(sum(class_counts), width, device=device, dtype=dtype)  # (T, D)
    padded = torch.nn.utils.rnn.pad_sequence(vectors.split(word_counts), batch_first=True)  # (B, W, D)
    batch_prompts = prompts.view(len(word_counts), classes, width)  # (B, C, D)

    def factors() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *head.halves(vectors), prompts @ head.out.weight, prompts @ head.out.bias

    def run_ours() -> Tensor:
        logits: Tensor = head(vectors, prompts, word_counts, class_counts)
        return logits

    def run_factored() -> Tensor:
        return span_scores_reference(*factors(), **shape)

    def run_unfactored() -> Tensor:
        starts, ends = F.relu(head.start(padded)), F.relu(head.end(padded))  # each (B, W, D)
        last = torch.arange(padded.shape[1], device=device)[:, None] + torch.arange(MAX_WIDTH, device=device)  # (W, K)
        last = last.clamp_(max=padded.shape[1] - 1)
        pairs = torch.cat([starts[:, :, None].expand(-1, -1, MAX_WIDTH, -1), ends[:, last]], dim=-1)  # (B, W, K, 2D)
        spans = head.out(F.relu(joint(pairs)))  # (B, W, K, D)
        return torch.einsum("BWKD,BCD->BWKC", spans, batch_prompts)

    with torch.inference_mode():
        error = relative_error(run_ours(), run_unfactored(), word_counts)
        assert error <= TOLERANCE[dtype]
        assert device == "cpu" or head.executor == "triton"
        rivals = {"gliner's head": run_unfactored, "factored in torch": run_factored}
        conditions: dict[str, Any] = {}
        if device == "cuda":
            peaks = {name: peak_bytes(call) for name, call in [("ours", run_ours), *rivals.items()]}
            conditions["peak_bytes"] = peaks
            conditions["peak_ratio"] = {name: peaks[name] / peaks["ours"] for name in rivals}
            conditions["kernel"] = kernel_figures(factors(), shape)
        race.run(
            run_ours,
            rivals,
            agreement=f"relative error {error:.1e}",
            amount=words,
            unit="words",
            executor=head.executor,
            texts=len(word_counts),
            classes=classes,
            hidden_size=width,
            max_width=MAX_WIDTH,
            dtype=str(dtype).removeprefix("torch."),
            **conditions,
        )


def mixed_lengths(words: int) -> list[int]:
    """Lengths of texts that add up to so many words."""
    ends = [*takewhile(lambda end: end < words, accumulate(cycle(TEXT_WORDS))), words]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def relative_error(flat: Tensor, padded: Tensor, word_counts: list[int]) -> float:
    """Largest difference over the largest value, over spans within their text; flat blocks beside (B, W, K, C)."""
    worst, largest = 0.0, 0.0
    blocks = flat.split([words * padded[0, 0].numel() for words in word_counts])
    for own, wanted, words in zip(blocks, padded.float(), word_counts, strict=True):
        got = own.float().view(words, *wanted.shape[1:])
        inside = torch.arange(words)[:, None] + torch.arange(MAX_WIDTH) < words  # (W, K); a NaN is no way out
        error = (got - wanted[:words])[inside].abs().max()
        worst = max(float(error), worst) if error.isfinite() else float("inf")
        largest = max(largest, float(wanted[:words][inside].abs().max()))
    return worst / max(largest, 1e-30)


def kernel_figures(inputs: tuple[Tensor, Tensor, Tensor, Tensor], shape: SpanCounts) -> dict[str, float]:
    """The kernel alone: seconds for all logits and for the best hundredth of them; the floor of the former."""
    u, _, _, c = inputs
    tiling = span_tiling.cut_tiles(u, **shape)
    logits = u.new_empty(tiling.logits)
    launch = partial(kernel.launch, *inputs, tiling, MAX_WIDTH, allow_tf32=False)
    seconds = device_seconds(partial(launch, logits))
    bound = float(logits[torch.isfinite(logits)].float().quantile(0.99))
    keys = torch.empty(tiling.logits, dtype=torch.int64, device=u.device)
    count = keys.new_zeros(1, dtype=kernel.count_dtype(tiling.logits))
    hits = kernel.Hits(keys, count, torch.full_like(c, bound, dtype=torch.float32), None)
    found = torch.empty(tiling.logits, device=u.device)

    def find() -> None:
        hits.count.zero_()
        launch(found, hits=hits)

    peaks = measure_peaks(u.dtype)
    floor = peaks.floor(span_scores_work(**shape, hidden=u.shape[1], size=u.element_size()))
    return {
        "seconds": seconds,
        "candidates_seconds": device_seconds(find),
        "floor_seconds": floor,
        "share_of_floor": floor / seconds,
        "peak_bytes_a_second": peaks.bytes,
        "peak_operations_a_second": peaks.operations,
    }

"""What bounds the speed on a CPU: where the time goes, how near to the peak the products run, and the least it can be.

    python -m benches.limits --size base

Writes docs/limits-cpu.md, of texts in bulk and one at a time. The time of a stage is without the stages inside it. The
floor is that of `benches.floor`: the products that the answer needs at the row's own peak, or the weights read from
memory once for each call, whichever takes longer, and nothing else. A peak of its own, since a shared machine is not
equally fast throughout.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor

from benches.bench_end_to_end import TEXT_COUNTS, THRESHOLD
from benches.compare import SCALE
from benches.conftest import LABELS, checkpoint, texts_of
from benches.floor import Peaks, Work, cpu_peak
from benches.hardware import cpu_name
from benches.useful_work import UsefulWork

if TYPE_CHECKING:
    from gliner_fast.cpu.linear import AnyWeights

PRODUCTS, ATTENTION, GELU, NORM, LSTM, SPANS = "products", "attention", "GELU", "norms", "LSTM", "spans"
STAGES = (PRODUCTS, ATTENTION, GELU, NORM, LSTM, SPANS)
ROUNDS = 5
READ_BYTES = 2**29  # twice the last-level cache of a large server CPU


class Clock:
    """Seconds of each stage, without those of stages inside it, and the operations of the products.

    Attributes:
        seconds: by stage.
        operations: a multiply-add is two.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.operations = 0
        self._inside: list[float] = []  # seconds of what the running stages have started

    def timed(
        self, stage: str, call: Callable[..., Any], count: Callable[..., int] | None = None
    ) -> Callable[..., Any]:
        """The call, timed as a stage; `count` says how many operations its arguments are."""

        @wraps(call)
        def run(*given: Any, **options: Any) -> Any:
            self._inside.append(0.0)
            begin = time.perf_counter()
            result = call(*given, **options)
            seconds = time.perf_counter() - begin
            self.seconds[stage] += seconds - self._inside.pop()
            if self._inside:
                self._inside[-1] += seconds
            if count is not None and result is not None:
                self.operations += count(*given, **options)
            return result

        return run


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Has every stage of a DeBERTa on the CPU timed."""
    from gliner_fast import scorer
    from gliner_fast.cpu import linear as linears
    from gliner_fast.cpu import native_lstm
    from gliner_fast.encoders import deberta_layer
    from gliner_fast.scoring import word_vectors

    def of_linear(vectors: Tensor, weight: Tensor, *_: Any, packed: AnyWeights | None = None, **__: Any) -> int:
        outputs, inputs = weight.shape if packed is None else packed.shape
        return 2 * vectors.numel() // inputs * inputs * outputs

    def of_rest(attended: Tensor, _: Tensor, **modules: Any) -> int:
        linear = ("attention_output", "intermediate", "output")
        weights: list[Tensor] = [modules[name].weight for name in linear]
        return 2 * len(attended) * sum(weight.numel() for weight in weights)

    stages: list[tuple[str, Any, str, Callable[..., int] | None]] = [
        (PRODUCTS, linears, "linear", of_linear),
        (PRODUCTS, scorer, "linear", of_linear),
        (PRODUCTS, native_lstm, "linear", of_linear),
        (PRODUCTS, deberta_layer, "finish_layer", of_rest),
        (ATTENTION, deberta_layer, "attend", None),
        (GELU, torch.nn.functional, "gelu", None),
        (NORM, deberta_layer, "add_and_norm", None),
        (LSTM, word_vectors.WordLSTM, "forward", None),
        (SPANS, scorer.SpanScorer, "find", None),
    ]
    with ExitStack() as patches:
        for stage, home, name, count in stages:
            call = clock.timed(stage, getattr(home, name), count)
            patches.enter_context(mock.patch.object(home, name, call))
        yield


@dataclass(frozen=True)
class Row:
    """What was measured of some texts.

    Attributes:
        title: of the row.
        texts: how many.
        seconds: of all.
        shares: of the seconds, by stage.
        speed: operations of the linear layers a second.
        work: that cannot be left out.
        peaks: the higher of those before and after.
    """

    title: str
    texts: int
    seconds: float
    shares: dict[str, float]
    speed: float
    work: Work
    peaks: Peaks

    def cells(self) -> list[str]:
        """The row of the table."""
        rest = max(0.0, 1 - sum(self.shares.values()))
        return [
            self.title,
            f"{1e3 * self.seconds / self.texts:.1f}",
            f"{self.shares[PRODUCTS]:.0%}",
            f"{self.speed / 1e9:.0f} of {self.peaks.operations / 1e9:.0f}",
            f"{self.speed / self.peaks.operations:.0%}",
            *(f"{share:.1%}" for share in (*(self.shares[stage] for stage in STAGES[1:]), rest)),
            f"{self.seconds / self.peaks.floor(self.work):.2f}x",
        ]


def measure(title: str, model: Any, texts: Sequence[str], labels: list[str], *, single: bool) -> Row:
    """All texts in one call, or each in a call of its own."""

    def call() -> None:
        for own in [[text] for text in texts] if single else [texts]:
            model.inference(own, labels, threshold=THRESHOLD)

    call()  # packs weights, fills the caches of words
    before = Peaks(bytes_per_second(), cpu_peak())
    clocks, totals = [], []
    for _ in range(ROUNDS):
        clock = Clock()
        with watched(clock):
            begin = time.perf_counter()
            call()
            totals.append(time.perf_counter() - begin)
        clocks.append(clock)
    peaks = Peaks(max(before.bytes, bytes_per_second()), max(before.operations, cpu_peak()))
    shares = {
        stage: statistics.median(own.seconds[stage] / whole for own, whole in zip(clocks, totals, strict=True))
        for stage in STAGES
    }
    speed = statistics.median(own.operations / own.seconds[PRODUCTS] for own in clocks)
    calls = len(texts) if single else 1
    work = Work(calls * weight_bytes(model.model), UsefulWork.of(model, call).encoder)
    return Row(title, len(texts), statistics.median(totals), shares, speed, work, peaks)


def weight_bytes(network: torch.nn.Module) -> int:
    """Bytes of all weights but the table of word embeddings, of which few rows are read."""
    table = max(parameter.numel() for parameter in network.parameters())
    return 4 * (sum(parameter.numel() for parameter in network.parameters()) - table)


def bytes_per_second() -> float:
    """What torch's threads read from memory, at best."""
    data = torch.ones(READ_BYTES // 4)
    seconds = []
    for _ in range(7):
        begin = time.perf_counter()
        data.sum()
        seconds.append(time.perf_counter() - begin)
    return READ_BYTES / min(seconds)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", help="of the random checkpoint (default: %(default)s)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the page (default: %(default)s)")
    options = parser.parse_args(arguments)

    from gliner_fast import GLiNER

    model = GLiNER.from_pretrained(checkpoint(options.size))
    cases = [(name, count, False) for name in TEXT_COUNTS for count in (5, 25)]
    cases += [(name, 5, True) for name in ("short", "mixed")]
    rows = []
    for name, count, single in cases:
        texts = texts_of(name, TEXT_COUNTS[name])
        title = f"{len(texts)} {name}, {count} types{', one at a time' if single else ''}"
        rows.append(measure(title, model, texts, LABELS[:count], single=single))
        print(" | ".join(rows[-1].cells()), flush=True)
    options.docs.mkdir(exist_ok=True)
    page = options.docs / "limits-cpu.md"
    page.write_text(text_of(options.size, rows), encoding="utf-8")
    print(page.read_text(encoding="utf-8"))


def text_of(size: str, rows: list[Row]) -> str:
    """The page."""
    memory = [row.peaks.bytes / 1e9 for row in rows]
    heads = ["texts", "ms a text", PRODUCTS, "GFLOP/s", "of the peak", *STAGES[1:], "the rest", "to be had"]
    introduction = [
        f"A checkpoint of DeBERTa-v3-{size}'s shape in float32, medians of {ROUNDS} rounds.",
        "",
        "- *Products*: how fast the linear layers multiply, *of the peak* beside the fastest float32 product (768",
        "  x 768 x 3072, by MKL or oneDNN; the higher of two measured before and after the row). Where what",
        "  follows the attention is one native call, as it is for few subwords, its GELU and norms count as",
        "  products, which so look slower than they are.",
        "- *The rest*: preparing, decoding, word embeddings, pooling, Python between the stages.",
        "- *To be had*: the time beside a floor, which is the encoder's products that the answer needs",
        "  (attention's included; padding and positions left out, and all that follows the encoder) at that peak",
        "  or, if that takes longer, every weight read from memory once for each call; all else for nothing.",
        "",
        "The peak is the row's own: on a shared machine it changes, and a figure is as good as that.",
    ]
    machine = (
        f"{datetime.now(timezone.utc).date().isoformat()}, {cpu_name()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; {min(memory):.0f} to {max(memory):.0f} GB/s read from memory; made by"
    )
    lines = [
        "# What bounds the speed on a CPU",
        "",
        *introduction,
        "",
        machine,
        "",
        "```bash",
        f"GLINER_FAST_BENCH_SCALE={SCALE:g} python -m benches.limits --size {size}",
        "```",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(row.cells())} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""The search for block sizes and the count of a kernel's least work: both are plain arithmetic."""

from __future__ import annotations

import math
from itertools import product
from typing import ClassVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benches import tune_budget
from benches.bench_span_scores import mixed_lengths
from benches.floor import Peaks, Work, encoder_operations, span_scores_work
from benches.tune_attention import CHOICES, fastest
from benches.tune_span_scores import improve
from gliner_fast.cpu import linear
from gliner_fast.encoders.attention_executor import VARIABLE
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig
from gliner_fast.kernels import disentangled_attention as attention
from gliner_fast.kernels.span_reference import span_scores_reference
from gliner_fast.kernels.span_tiling import Blocks
from tests.encoders.test_deberta import SETTINGS


def test_a_size_that_helps_only_once_another_has_changed_is_found():
    def seconds(blocks: Blocks) -> float:
        if blocks.rows > 512:
            return math.inf  # the card cannot run it
        helps = blocks.rows == 512 and blocks.warps == 8 and blocks.stages == 2
        return 2 - blocks.rows / 512 + (blocks.warps == 4) - 0.5 * helps

    best, best_seconds = improve(Blocks(64, 16, 64, warps=4, stages=4), seconds)
    assert (best.rows, best.warps, best.stages) == (512, 8, 2)
    assert best_seconds == 0.5


def test_a_difference_within_noise_changes_nothing():
    start = Blocks(64, 16, 64, warps=4, stages=4)
    assert improve(start, lambda blocks: 1 - 0.01 * (blocks.warps == 8)) == (start, 1)


def test_the_fastest_sizes_are_found_among_those_that_run():
    def seconds(blocks: attention.Blocks) -> float:
        return math.inf if blocks.stages == 3 else 1 / (blocks.rows * blocks.warps * blocks.stages)

    best, best_seconds = fastest(CHOICES, seconds)
    assert (best, best_seconds) == (attention.Blocks(64, warps=8, stages=2), 1 / 1024)


def test_budgets_are_set_one_after_another_and_each_has_its_line(monkeypatch: pytest.MonkeyPatch):
    class Model:
        token_budget = 0
        asked: ClassVar[list[int]] = []

        def inference(self, texts: list[str], labels: list[str]) -> None:
            assert (texts, labels) == (["a b", "c"], ["d"])
            self.asked.append(self.token_budget)

    monkeypatch.setattr(tune_budget, "BUDGETS", (100, 200))
    lines = tune_budget.rows(Model(), ["a b", "c"], ["d"], lambda call: call() or 2**29)
    assert Model.asked == [100, 200] * 4  # a round for the memory, and three that are timed
    assert [line.split()[0] for line in lines] == ["100", "200"]
    assert all(line.endswith("0.50 GiB") for line in lines)


def test_the_default_sizes_are_among_those_tried():
    for bits, head_dim, positions, short in product((16, 32), attention.HEAD_DIMS, (True, False), (True, False)):
        for major in (8, 9, 10, 12):
            assert attention.default_blocks(attention.ShapeClass(bits, head_dim, positions, short), major) in CHOICES


def test_the_least_work_is_that_of_true_spans():
    word_counts, class_counts, max_width, hidden = [5, 1, 0], [2, 3, 4], 3, 8
    work = span_scores_work(word_counts, class_counts, max_width, hidden, size=4)
    logits = span_scores_reference(
        *torch.ones(2, 6, hidden), torch.ones(9, hidden), torch.ones(9),
        word_counts=word_counts, class_counts=class_counts, max_width=max_width,
    )  # fmt: skip
    assert work.operations == 2 * hidden * int(torch.isfinite(logits).sum())
    assert work.bytes == 4 * (2 * 6 * hidden + 9 * hidden + 9 + len(logits))


def test_an_encoder_s_least_work_is_what_torch_counts_of_its_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "torch")
    monkeypatch.setenv(linear.VARIABLE, "torch")  # the counter knows torch's own products alone
    config = DebertaConfig.read({**SETTINGS, "pos_att_type": []})
    encoder, lengths = DebertaEncoder(config).eval(), [7, 3, 12]
    ids, offsets = torch.ones(22, dtype=torch.int64), torch.tensor([0, 7, 10, 22])
    with torch.inference_mode():
        encoder(ids, torch.tensor(lengths), offsets)  # the tables of positions are made once
        with FlopCounterMode(display=False) as counter:
            encoder(ids, torch.tensor(lengths), offsets)
    assert encoder_operations(config, lengths) == counter.get_total_flops()


def test_the_floor_is_the_slower_of_bytes_and_operations():
    peaks = Peaks(bytes=100, operations=1000)
    assert peaks.floor(Work(200, 1000)) == 2
    assert peaks.floor(Work(200, 5000)) == 5


def test_mixed_lengths_add_up():
    for words in (1, 12, 64, 512, 4096):
        lengths = mixed_lengths(words)
        assert sum(lengths) == words
        assert min(lengths) > 0

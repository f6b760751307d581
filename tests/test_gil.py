"""Calls of gliner_fast._rust that take long leave Python to other threads meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from gliner_fast import _rust
from tests.test_align import NO_IDS, int64, layout
from tests.test_words import SPLITTER


def zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


# Each call takes a tenth of a millisecond or more, and does nothing else: numpy, too, lets others run.


def calls_of_texts() -> dict[str, Callable[[], object]]:
    tokens = [str(number) for number in range(30_000)]
    texts, text, places, count = (
        ["a word, " * 20_000],
        ["a" * len(tokens)],
        np.arange(len(tokens)),
        int64([len(tokens)]),
    )
    ends, offsets, ones, scores = places + 1, int64([0, *count]), np.ones_like(places), zeros(len(tokens))
    cache, words = _rust.SubwordCache(0), _rust.Words.from_lists([tokens])
    lookup = cache.look_up(words)
    subwords, rows = lookup.complete(ones, ones), np.zeros(10, np.int64)
    prompts, rules = _rust.Prompts(NO_IDS, int64([0, 0]), int64([0])), layout()
    no = np.zeros(1, np.bool_)
    wide, of_wide = zeros(400 * 12 * 500), (int64([400]), int64([500]), 12, zeros(500) + 0.9)
    marks, of_marks = zeros(1000 * 500 * 3), (int64([1000]), int64([500]), zeros(500) + 0.9, np.ones(500))
    return {
        "split": lambda: SPLITTER.split(texts),
        "from_offsets": lambda: _rust.Words.from_offsets(text, offsets, places, ends),
        "from_lists": lambda: _rust.Words.from_lists([tokens]),
        "look_up": lambda: cache.look_up(words),
        "complete": lambda: lookup.complete(ones, ones),
        "assemble": lambda: subwords.assemble(rows, prompts, rows, rules),
        "find_candidates": lambda: _rust.find_candidates(wide, *of_wide),
        "find_likely": lambda: _rust.find_likely(wide, *of_wide),
        "find_marked_spans": lambda: _rust.find_marked_spans(marks, *of_marks),
        "resolve": lambda: _rust.resolve(offsets, places, ends, scores, count, no, no),
    }


def calls_of_layers() -> dict[str, Callable[[], object]]:
    x, weight, vector, out, large = zeros(256, 256), zeros(256, 256), zeros(256), zeros(256, 256), zeros(1024, 1024)
    rows, rows_out = zeros(4096, 256), zeros(4096, 256)
    packed, whole, count = _rust.PackedWeights(weight), _rust.Int8Weights(weight), int64([256])
    dense, norm, distances = (packed, None), (vector, vector, 1e-5, True), np.zeros(511, np.int32)
    direction, thresholds = (zeros(256, 512), zeros(512, 128), zeros(512)), vector + 0.9
    qkv, attended = zeros(256, 3, 4, 64), zeros(256, 4, 64)
    return {
        "find_spans": lambda: _rust.find_spans(x, x, x, vector, count, count, 12, thresholds, 1, 0),
        "attention": lambda: _rust.attention(qkv, None, None, distances, None, None, None, count, 1.0, attended, 1, 0),
        "linear": lambda: _rust.linear(x, weight, None, "none", 1, 0),
        "pack": lambda: _rust.PackedWeights(large),
        "apply": lambda: packed.apply(x, None, "none", out, 1, 0),
        "apply whole": lambda: whole.apply(x, None, "none", out, 1, 0),
        "sublayers": lambda: _rust.sublayers(x, x, dense, norm, dense, "gelu", dense, norm, out, 1, 0),
        "gated_sublayers": lambda: _rust.gated_sublayers(x, x, dense, norm, dense, dense, "gelu", dense, out, 1, 0),
        "norm_rows": lambda: _rust.norm_rows(rows, norm, rows_out, 1, 0),
        "gate": lambda: _rust.gate(rows, rows, "gelu_tanh", rows_out, 1, 0),
        "lstm": lambda: _rust.lstm(direction, direction, count, 1, 0),
    }


def lets_others_run(call: Callable[[], object]) -> bool:
    """Whether Python runs in another thread while this one calls: none is made to give up its turn meanwhile."""
    turn, ran = threading.Lock(), []
    before = sys.getswitchinterval()
    sys.setswitchinterval(100.0)
    try:
        with turn:
            other = threading.Thread(target=lambda: (turn.acquire(), ran.append(True)))
            other.start()
        for _ in range(1000):  # a busy system may wake the other late
            call()
            if ran:
                break
        is_in_time = bool(ran)
    finally:
        sys.setswitchinterval(before)
    other.join()
    return is_in_time


def test_python_runs_in_other_threads_meanwhile():
    assert not lets_others_run(lambda: None)
    calls = calls_of_texts() | calls_of_layers()
    assert [name for name, call in calls.items() if not lets_others_run(call)] == []

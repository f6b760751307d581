"""What every bench shares: texts, labels, checkpoints, both packages' models, the race.

Environment:
    GLINER_FAST_BENCH_SCALE: how much work (default 1; see `benches.compare`).
    GLINER_FAST_BENCH_SIZES: checkpoint sizes, of tiny, small, base and large (default "small,base").
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from benches import hardware
from benches.compare import SCALE, Race
from benches.settings import read_sizes
from tests import checkpoint_recipes, random_checkpoints, relation_checkpoints, tokenizer_makers

HERE = Path(__file__).parent
CACHE = HERE / ".cache"
SIZES = read_sizes()
LABELS = [
    "person", "organization", "location", "date", "event", "product", "country", "city", "book", "writer", "award",
    "university", "political party", "election", "politician", "law", "disease", "chemical compound",
    "scientific field", "programming language", "song", "band", "film", "animal", "vehicle",
]  # fmt: skip
# "cuda" carries the marker `gpu`, which `make bench` leaves out and `make gpu-check` asks for.
DEVICES = ["cpu", *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else [])]


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both packages, on one device."""

    ours: Any
    reference: Any
    device: str


@cache
def read_texts(name: str) -> tuple[str, ...]:
    """All texts of benches/data/NAME.jsonl; `long` are those of `mixed` that have 200 words and more."""
    if name == "long":
        return tuple(text for text in read_texts("mixed") if len(text.split()) >= 200)
    lines = (HERE / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


def texts_of(name: str, count: int) -> list[str]:
    """The first `count` texts times GLINER_FAST_BENCH_SCALE, at least two."""
    return list(read_texts(name)[: max(2, round(count * SCALE))])


def distinct_texts(name: str, count: int) -> list[str]:
    """Texts of a corpus; once it is used up, again with their words turned round by one, by two, ..., then shuffled.

    Equal texts are computed once by ours, so that repeated ones would flatter it.
    """
    own = read_texts(name)
    texts = []
    for index in range(count):
        words, turn = own[index % len(own)].split(" "), index // len(own)
        if turn < len(words):
            words = [*words[turn:], *words[:turn]]
        else:
            random.Random(index).shuffle(words)  # the same in every run
        texts.append(" ".join(words))
    return texts


# What makes a checkpoint another kind than most that are published.
KINDS: dict[str, dict[str, Any]] = {
    "": {},
    "token-level": {"span_mode": "token_level"},
    "bi-encoder": {"label_encoder": "bert"},
    "bi-modernbert": {"encoder": "modernbert", "label_encoder": "bert", "num_rnn_layers": 0},
    "mt5": {"encoder": "mt5"},
    # Few entities: random models have several candidates for each, and gliner looks at all pairs of candidates.
    "relations": {"relations_layer": "mlp", "fraction_above_half": 0.003},
    "relations-unlinked": {"relations_layer": "none", "fraction_above_half": 0.001},  # all pairs are looked at
}


_RECIPE = (checkpoint_recipes, random_checkpoints, relation_checkpoints, tokenizer_makers)


def checkpoint(size: str, kind: str = "") -> Path:
    """A random calibrated checkpoint of a size, and kind, made once and kept until the recipe changes."""
    recipe = b"".join(Path(inspect.getfile(module)).read_bytes() for module in _RECIPE)
    name = f"{kind}-{size}" if kind else size
    folder = CACHE / f"{name}-{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not folder.exists():
        for stale in CACHE.glob(f"{name}-*"):
            shutil.rmtree(stale)  # a base checkpoint is 0.7 GB
        unfinished = CACHE / f"unfinished-{name}-{os.getpid()}"
        random_checkpoints.make_checkpoint(unfinished, size=size, **KINDS[kind])
        unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def pair() -> Callable[..., Pair]:
    """Loads a checkpoint of a size (and kind) into both packages; the last one stays loaded."""

    @lru_cache(maxsize=1)
    def load(size: str, device: str, kind: str = "") -> Pair:
        from gliner import GLiNER as Reference

        from gliner_fast import GLiNER

        path = checkpoint(size, kind)
        ours = GLiNER.from_pretrained(path, map_location=device)
        return Pair(ours, Reference.from_pretrained(path, map_location=device), device)

    return load


@pytest.fixture
def race(benchmark: Any, request: pytest.FixtureRequest) -> Race:
    """Times ours beside its rivals on the bench's device (its parameter `device`, else the CPU)."""
    device = request.node.callspec.params.get("device", "cpu") if hasattr(request.node, "callspec") else "cpu"
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return Race(benchmark, hardware.describe(device), wait)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the benches that run gliner: a GPU machine may lack it."""
    for item in items:
        if "pair" in getattr(item, "fixturenames", ()):
            item.add_marker("gliner")


@pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-benchmark's own wrapper
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """Forgets a bench that was interrupted in its first round: pytest-benchmark would fail to write all the others."""
    benches = getattr(session.config, "_benchmarksession", None)
    if benches is not None:
        benches.benchmarks = [bench for bench in benches.benchmarks if bench]
    yield


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Keeps the host's name and the long list of processor flags out of result files."""
    machine_info.pop("node", None)
    machine_info["cpu"] = {"brand_raw": hardware.cpu_name()}


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Rounds to microseconds: more digits than that are noise, and results are kept in the repository."""
    for bench in output_json["benchmarks"]:
        bench["stats"]["data"] = [round(seconds, 6) for seconds in bench["stats"].get("data", [])]

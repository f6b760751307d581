"""The benchmarks of the paper (GLiNER, Zaratiana et al. 2024, Tables 1 to 3): which sets are averaged together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """Sets whose F1 scores are averaged, each with the same weight.

    Attributes:
        name: of the benchmark.
        sets: names of its sets, without case and marks.
    """

    name: str
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Average:
    """The mean of those sets of a benchmark that are here.

    Attributes:
        benchmark: what it is of.
        present: names of the averaged sets, as the user names them.
        f1: their mean F1, in [0, 1].
    """

    benchmark: Benchmark
    present: tuple[str, ...]
    f1: float

    @property
    def is_complete(self) -> bool:
        """Whether all sets are here; only then does it compare with the paper's."""
        return len(self.present) == len(self.benchmark.sets)


BENCHMARKS = (
    Benchmark(
        "out of domain",
        (
            *(f"crossner{domain}" for domain in ("ai", "literature", "music", "politics", "science")),
            "mitmovie",
            "mitrestaurant",
        ),
    ),
    Benchmark(
        "20 NER sets",
        (
            "ace05", "anatem", "bc2gm", "bc4chemd", "bc5cdr", "broadtwitter", "conll03", "fabner", "findvehicle",
            "genia", "harveyner", "mitmovie", "mitrestaurant", "multinerd", "ncbi", "ontonotes", "polyglotner",
            "tweetner7", "wikiann", "wikineural",
        ),
    ),
    Benchmark(
        "MultiCoNER",
        tuple(f"multiconer{code}" for code in ("bn", "de", "en", "es", "fa", "hi", "ko", "nl", "ru", "tr", "zh")),
    ),
)  # fmt: skip

# Names under which the same sets are found: those of UniNER's and InstructUIE's files, and ours with a language behind.
_ALIASES = {
    "ace2005": "ace05", "broadtweetcorpus": "broadtwitter", "conll2003": "conll03", "genianer": "genia",
    "tweetner7en": "tweetner7", "wikiannen": "wikiann",
    "wikineuralen": "wikineural", "ncbidisease": "ncbi",
}  # fmt: skip


def averages(f1_of_set: Mapping[str, float]) -> list[Average]:
    """The averages of the benchmarks that have at least two of their sets here.

    Args:
        f1_of_set: F1 of each set by its name, such as "CrossNER_AI", "crossner-ai" or "mit_movie".
    """
    known: dict[str, str] = {}
    for name in f1_of_set:
        plain = re.sub(r"[^a-z0-9]", "", name.lower())
        known[_ALIASES.get(plain, plain)] = name
    found = []
    for benchmark in BENCHMARKS:
        present = tuple(known[own] for own in benchmark.sets if own in known)
        if len(present) > 1:
            found.append(Average(benchmark, present, sum(f1_of_set[name] for name in present) / len(present)))
    return found

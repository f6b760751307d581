"""Files of examples -> what a run trains on: cut to what the model reads, with what is known of their labels."""

from __future__ import annotations

import math
import random
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import chain

from gliner_fast.annotated.example import DataError, Example
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.setting_values import ConfigError
from gliner_fast.words import WordTriples


class Judged(IntEnum):
    """Which spans tell something about an entity type that an example is asked for."""

    MARKED = 0
    """Those marked with it alone."""
    KNOWN = 1
    """Those too of which is known what else they are (`targets.known_spans`)."""
    ALL = 2
    """Every span: what is not marked is not one."""


@dataclass(frozen=True)
class TrainingExample:
    """An example with what the model can find in it.

    Attributes:
        words: at most `max_len` of them.
        spans: (first word, one past the last, label), distinct; all within the words and of at most K words.
        label_set: the entity types that it is marked with wherever they occur; None where nobody knows.
        partial: those of which some are marked.
        negatives: entity types that it is known to have none of.
        fixed: the types to ask for, whatever is sampled, where the example names them and gliner's sampling is used.
        file: the index of its file.
    """

    words: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]
    label_set: frozenset[str] | None
    partial: tuple[str, ...]
    negatives: tuple[str, ...] | None
    fixed: tuple[str, ...] | None
    file: int

    @property
    def labels(self) -> list[str]:
        """The distinct labels of its spans, in order of appearance."""
        return list(dict.fromkeys(label for _, _, label in self.spans))

    def judge(self, label: str) -> Judged:
        """Which of its spans tell something about an entity type."""
        if self.label_set is not None and label in self.label_set:
            return Judged.ALL
        if label in self.partial:
            return Judged.KNOWN
        is_own = any(label == own for _, _, own in self.spans)
        return Judged.MARKED if is_own and self.label_set is not None else Judged.ALL


@dataclass(frozen=True)
class Dropped:
    """Gold spans that the model cannot find.

    Attributes:
        too_wide: of more than K words.
        too_late: that end past `max_len`.
    """

    too_wide: int
    too_late: int


class Corpus:
    """All examples of a run.

    Attributes:
        examples: of all files, in order.
        dropped: what was left out of them.
        fingerprint: examples, words and spans of each file, and a checksum of them: a run may only go on with the same
            data.
        implied: for each label all coarser ones.
    """

    def __init__(
        self,
        files: Sequence[tuple[TrainingFile, Sequence[Example]]],
        *,
        max_len: int,
        max_width: int | None,
        ent_token: str,
        implies: Mapping[str, Sequence[str]] | None = None,
        generic: Sequence[str] = (),
    ) -> None:
        """Takes files with their examples.

        Args:
            files: as they stand in the configuration.
            max_len: words of the longest text.
            max_width: K; None where spans may be of any width.
            ent_token: the entity token, which no label may contain.
            implies: coarser labels that a label implies.
            generic: labels that are no other file's negatives.

        Raises:
            DataError: there is no example, or a label that cannot be asked for.
        """
        self.examples: list[TrainingExample] = []
        self.fingerprint: list[list[int]] = []
        self.implied = _all_implied(implies or {})
        self._generic = frozenset(generic)
        self._files = [file for file, _ in files]
        self._firsts = [0]
        too_wide = too_late = 0
        for index, (file, examples) in enumerate(files):
            file_labels = _label_set(file, examples, ent_token)
            for example in examples:
                coarse = ((*span[:2], label) for span in example.spans for label in self.implied.get(span[2], ()))
                spans = tuple(dict.fromkeys([*example.spans, *coarse]))
                inside = [span for span in spans if span[1] <= max_len]
                narrow = [span for span in inside if max_width is None or span[1] - span[0] <= max_width]
                too_late += len(spans) - len(inside)
                too_wide += len(inside) - len(narrow)
                labels = file_labels if example.labels is None else frozenset(example.labels)
                words = tuple(example.words[:max_len])
                self.examples.append(
                    TrainingExample(
                        words, tuple(narrow), labels, file.partial, example.negatives, example.labels, index
                    )
                )
            self._firsts.append(len(self.examples))
            word_count, span_count = sum(len(e.words) for e in examples), sum(len(e.spans) for e in examples)
            checksum = zlib.crc32(repr([(e.words, e.spans, e.labels, e.negatives) for e in examples]).encode())
            self.fingerprint.append([len(examples), word_count, span_count, checksum])
        if not self.examples:
            raise DataError("there is nothing to train on: name files with examples in train")
        self.dropped = Dropped(too_wide, too_late)

    def epoch(self, number: int, seed: int) -> list[int]:
        """The examples of an epoch, in the order in which they come; a function of its arguments alone."""
        generator = random.Random(f"epoch {seed} {number}")  # noqa: S311  # no secret
        order: list[int] = []
        for file, first, last in zip(self._files, self._firsts, self._firsts[1:], strict=False):
            whole = math.floor(file.weight)
            order += list(range(first, last)) * whole
            # Rounded at random, so that a small share of a small file is not always nothing.
            rest = math.floor((file.weight - whole) * (last - first) + generator.random())
            order += generator.sample(range(first, last), min(rest, last - first))
        generator.shuffle(order)
        return order

    @cached_property
    def foreign_labels(self) -> list[list[str]]:
        """For each file the labels that may be its examples' negatives, each as often as examples have it."""
        by_file: list[list[str]] = [[] for _ in self._files]
        for example in self.examples:
            by_file[example.file] += [label for label in example.labels if label not in self._generic]
        places = {file.path: index for index, file in enumerate(self._files)}
        everywhere = [label for labels in by_file for label in labels]
        return [
            everywhere if file.others is None else [label for other in file.others for label in by_file[places[other]]]
            for file in self._files
        ]


def _all_implied(implies: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """For each label all coarser ones, those that a coarser one implies among them."""
    found = {}
    for label in implies:
        reached: dict[str, None] = {}
        waiting = [label]
        while waiting:
            for coarser in implies.get(waiting.pop(), ()):
                if coarser not in reached and coarser != label:
                    reached[coarser] = None
                    waiting.append(coarser)
        found[label] = tuple(reached)
    return found


def _label_set(file: TrainingFile, examples: Sequence[Example], ent_token: str) -> frozenset[str] | None:
    """The labels that a file says it marks.

    Raises:
        DataError: a label contains the entity token, which would count as one more type.
    """
    found = {label for example in examples for label in _all_labels(example)}
    for label in found.union(file.labels if isinstance(file.labels, tuple) else (), file.partial):
        if ent_token in label:
            raise DataError(f"{file.path}: the label {label!r} contains the entity token {ent_token}: rename it")
    if file.labels == "file":
        return frozenset(label for example in examples for _, _, label in example.spans)
    return None if file.labels is None else frozenset(file.labels)


def _all_labels(example: Example) -> Iterator[str]:
    yield from (label for _, _, label in example.spans)
    yield from example.labels or ()
    yield from example.negatives or ()


def _warn_of_unknown_names(config: TrainingConfig, files: Sequence[tuple[TrainingFile, Sequence[Example]]]) -> None:
    """Tells of labels in settings that no file has: most often they are misspelt."""
    known = {label for _, examples in files for example in examples for label in _all_labels(example)}
    for file, _ in files:
        known.update(file.labels if isinstance(file.labels, tuple) else (), file.partial)
    known.update(*_all_implied(config.implies).values())
    for setting, labels in (
        ("generic", config.generic),
        ("implies", config.implies),
        ("paraphrases", config.paraphrases),
    ):
        unknown = [label for label in labels if label not in known]
        if unknown:
            warnings.warn(f"{setting}: no example has the labels {', '.join(map(repr, unknown))}", stacklevel=3)


def read_corpus(
    config: TrainingConfig,
    *,
    max_len: int,
    max_width: int | None,
    ent_token: str,
    splitter: WordTriples | None = None,
) -> Corpus:
    """Reads the files of a configuration; names in its settings that occur nowhere in them are told.

    `splitter` is as in `read_examples`.

    Raises:
        ConfigError: a name in its settings cannot be asked for.
        DataError: something in them is wrong; the message names file and line.
        OSError: one cannot be read.
    """
    from gliner_fast.annotated.examples import read_examples

    named = {
        "generic": config.generic,
        "implies": [*config.implies, *chain.from_iterable(config.implies.values())],
        "paraphrases": [*config.paraphrases, *chain.from_iterable(config.paraphrases.values())],
    }
    for setting, names in named.items():
        for name in names:
            if ent_token in name or not name.strip():
                raise ConfigError(f"{setting} has {name!r}: expected a name without the entity token {ent_token}")
    files = [(file, read_examples(file.path, splitter=splitter, relations=True)) for file in config.train]
    if any(example.relations for _, examples in files for example in examples):
        warnings.warn("the data have relations, which are not trained: entities are", stacklevel=4)
    _warn_of_unknown_names(config, files)
    return Corpus(
        files,
        max_len=max_len,
        max_width=max_width,
        ent_token=ent_token,
        implies=config.implies,
        generic=config.generic,
    )

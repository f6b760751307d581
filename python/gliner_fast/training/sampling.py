"""Which entity types an example is asked for: its own, and some that it has none of (paper section 3.2)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.corpus import Judged, TrainingExample

# Draws for each negative of another example, before the pool is taken to hold no new one.
_TRIES = 10
# Types that `gliner` draws from a batch to choose negatives from.
_GLINER_POOL = 100


@dataclass(frozen=True)
class Asked:
    """The entity types that an example is asked for, in prompt order.

    Attributes:
        types: distinct labels.
        names: what each of them is called this time; distinct.
        judged: for each of them, which spans tell something about it.
    """

    types: tuple[str, ...]
    names: tuple[str, ...]
    judged: tuple[Judged, ...]


def sample_types(
    examples: Sequence[TrainingExample],
    foreign_labels: Sequence[Sequence[str]],
    config: TrainingConfig,
    generator: random.Random,
    implied: Mapping[str, Sequence[str]] | None = None,
) -> list[Asked]:
    """Draws the types that each of some examples is asked for.

    Args:
        examples: that are trained on together.
        foreign_labels: for each file the labels that may be its examples' negatives (`Corpus.foreign_labels`).
        config: the settings.
        generator: the only source of chance.
        implied: for each label all coarser ones (`Corpus.implied`).

    Returns:
        For each example its types; none where it has no label and no negative can be had.
    """
    if config.sampling == "gliner":
        return _sample_as_gliner(examples, config, generator)
    asked = []
    for example in examples:
        labels = _draw_levels(example.labels, implied or {}, generator)
        types = labels + _draw_negatives(example, labels, foreign_labels[example.file], config, generator)
        types = _arrange(types, config, generator)
        names = _draw_names(types, config.paraphrases, generator)
        asked.append(Asked(tuple(types), names, tuple(map(example.judge, types))))
    return asked


def _draw_levels(labels: list[str], implied: Mapping[str, Sequence[str]], generator: random.Random) -> list[str]:
    """Of the labels of an example where one implies another: the coarse, the fine, or both, with equal chances."""
    left = set(labels)
    for coarse in labels:
        finer = [label for label in labels if coarse in implied.get(label, ())]
        if finer:
            left -= generator.choice([{coarse}, set(finer), set()])
    return [label for label in labels if label in left]


def _draw_names(
    types: list[str], paraphrases: Mapping[str, Sequence[str]], generator: random.Random
) -> tuple[str, ...]:
    """A name for each type; one that is taken already gives way to the type's own label."""
    if not paraphrases:
        return tuple(types)
    taken = set(types)
    names = []
    for label in types:
        name = generator.choice(paraphrases[label]) if label in paraphrases else label
        if name in taken:
            name = label
        taken.add(name)
        names.append(name)
    return tuple(names)


def _draw_negatives(
    example: TrainingExample,
    labels: list[str],
    foreign: Sequence[str],
    config: TrainingConfig,
    generator: random.Random,
) -> list[str]:
    """Types that the example has none of, so many that they make up `negative_share` of its types."""
    share = config.negative_share
    wanted = max(1, len(labels)) * share / (1 - share)
    count = int(wanted + generator.random())  # rounded at random: right on average
    taken = set(example.labels)  # not only those that are asked for: none of them is a negative
    own = sorted((example.label_set or frozenset()).union(example.negatives or (), example.partial) - taken)
    generator.shuffle(own)
    drawn: list[str] = []
    own_weight, other_weight = config.own_negatives, config.other_negatives if foreign else 0.0
    while len(drawn) < count:
        weight = own_weight if own else 0.0
        if weight + other_weight == 0.0:
            break
        if generator.random() * (weight + other_weight) < weight:
            label = own.pop()
            if label in taken:
                continue  # it came from another example before
        else:
            new = (each for each in (generator.choice(foreign) for _ in range(_TRIES)) if each not in taken)
            found = next(new, None)
            if found is None:
                other_weight = 0.0
                continue
            label = found
        drawn.append(label)
        taken.add(label)
    return drawn


def _arrange(types: list[str], config: TrainingConfig, generator: random.Random) -> list[str]:
    """Shuffles types, drops some at random, and cuts them to `max_types`."""
    if not types:
        return types
    places = generator.sample(range(len(types)), len(types))
    kept = generator.randint(1, len(types)) if config.random_drop else len(types)
    places = places[: min(kept, config.max_types)]
    return [types[place] for place in (places if config.shuffle_types else sorted(places))]


def share_types(examples: Sequence[TrainingExample], config: TrainingConfig, generator: random.Random) -> list[Asked]:
    """One list of types for all examples of a batch, as `gliner` draws it for bi-encoders (compat section 7.2).

    What one example names, all others are asked for: their negatives. An example's own are fixed by `ner_labels`, as
    for other models, and not by `ner_label`, which the package reads instead.
    """
    types = list(
        dict.fromkeys(
            label
            for example in examples
            for label in (example.fixed if example.fixed is not None else [*example.labels, *(example.negatives or ())])
        )
    )
    generator.shuffle(types)
    types = types[: config.max_types * len(examples)] or [""]  # an empty label, and nothing to find
    return [Asked(tuple(types), tuple(types), (Judged.ALL,) * len(types))] * len(examples)


def _sample_as_gliner(
    examples: Sequence[TrainingExample], config: TrainingConfig, generator: random.Random
) -> list[Asked]:
    """Types as `gliner` draws them, all of them judged (compat section 7.2)."""
    everything = sorted({label for example in examples for label in example.labels})
    pool = generator.sample(everything, min(_GLINER_POOL, len(everything)))
    asked = []
    for example in examples:
        ratio = generator.randint(0, config.max_neg_type_ratio)
        negatives = example.negatives if example.negatives is not None else pool[: len(example.spans) * ratio]
        if example.fixed is not None:
            types = list(example.fixed)
        else:
            types = list(dict.fromkeys([*example.labels, *negatives]))
            generator.shuffle(types)
            types = types[: config.max_types]
        if not types and not example.spans:
            types = [""]  # one entity token, and nothing to find
        asked.append(Asked(tuple(types), tuple(types), (Judged.ALL,) * len(types)))
    return asked

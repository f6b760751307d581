"""A relation extraction model and annotated sentences -> exact-match scores of its entities and relations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gliner_fast import _rust
from gliner_fast.annotated.examples import examples_from_records, relations_of_data
from gliner_fast.evaluation.results import AskedLabels, Evaluation, Result, label_sets_for, lowest, score_line
from gliner_fast.evaluation.scores import Score, micro
from gliner_fast.labels import LabelPlan, expect_relations
from gliner_fast.pipeline import predict_parts
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relations.relation import relations_of

if TYPE_CHECKING:
    from gliner_fast.annotated.example import Example, Span
    from gliner_fast.entity import Entity
    from gliner_fast.evaluation.scored_examples import LabelThresholds
    from gliner_fast.predicting.predictor import Predictor
    from gliner_fast.relex import RelexGLiNER

_Linked: TypeAlias = tuple[tuple[int, int], tuple[int, int], str]
"""First and last word + 1 of head and of tail, and the relation: what the entities are called does not count."""
_MOST_TEXTS, _MOST_CHARACTERS = 4096, 2**22  # that are prepared together


def evaluate_relations(
    model: RelexGLiNER,
    examples: Sequence[Example],
    labels: AskedLabels | None = None,
    relations: Sequence[str] | None = None,
    *,
    thresholds: Sequence[LabelThresholds] = (0.5,),
    adjacency_threshold: float | None = None,
    relation_threshold: float | Mapping[str, float] | None = None,
    flat_ner: bool = True,
    multi_label: bool = False,
    ignored: Collection[str] = (),
    name: str = "data",
) -> Evaluation:
    """Scores the entities and relations that a model finds in annotated sentences, once for each threshold.

    A relation counts as found where it and the words of its head and of its tail agree, whatever the two entities are
    called; equal ones of a sentence count once, as in `gliner`. What is annotated with a relation that is not asked for
    counts as missed. The model reads the relations with the labels, so that its entities may differ from those that
    `evaluate` scores.

    Args:
        model: the model.
        examples: the sentences.
        labels: see `evaluate`, as for all that is not named here.
        relations: what each is asked for; None for an example's own `relation_labels`, or, where it has none, all
            relations that occur in the data.
        thresholds: see there.
        adjacency_threshold: as `RelexGLiNER.inference` has it; None for the threshold of entities, or for 0.5 where
            that is a mapping.
        relation_threshold: likewise.
        flat_ner: see there.
        multi_label: see there.
        ignored: labels to leave out; a relation of an entity so labelled is left out of the annotation with it.
        name: see there.

    Raises:
        TypeError: relations of another type.
        ValueError: the model finds no relations; no threshold, or a mapping that lacks a label or relation.
    """
    lowest(thresholds)  # what is none is refused
    ignored = [ignored] if isinstance(ignored, str) else ignored
    if isinstance(relations, str):  # one, and not its letters
        relations = [relations]
    if relations:
        expect_relations(relations, adjacency_threshold, relation_threshold)
    label_sets = label_sets_for(examples, labels, ignored)
    every = relations_of_data(examples) if relations is None else list(dict.fromkeys(relations))
    asked = [
        every if relations is not None or example.relation_labels is None else list(example.relation_labels)
        for example in examples
    ]
    predictor = model.predictor()
    words = [example.words[: predictor.max_words] for example in examples]
    places = _Places(words)
    per_text = [dict(zip(own.names, own.prompts, strict=True)) for own in label_sets]
    gold = [_gold(example, ignored) for example in examples]
    entity_names = tuple(dict.fromkeys(label for own in label_sets for label in own.names))
    given = every if relations is not None else ()
    relation_names = tuple(dict.fromkeys([*given, *(relation for own in asked for relation in own)]))
    results, requests = list[Result](), list[Request]()
    for threshold in thresholds:
        options = Options(
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            relations=asked if relation_names else (),
            adjacency_threshold=adjacency_threshold if relation_names else None,
            relation_threshold=relation_threshold if relation_names else None,
        )
        requests.append(Request.read(places.texts, per_text, options))
        parts = requests[-1].parts(_MOST_TEXTS, _MOST_CHARACTERS)
        with closing(predict_parts(_with_words(model, places), parts, ahead=False)) as answers:
            found = [places.in_words(text, own) for text, own in enumerate(own for part in answers for own in part)]
        results.append(
            Result(
                threshold,
                _scores([(spans, own) for (spans, _), (own, _) in zip(gold, found, strict=True)], entity_names),
                _scores([(links, own) for (_, links), (_, own) in zip(gold, found, strict=True)], relation_names),
            )
        )
    return Evaluation(
        name,
        len(examples),
        _count_cut(predictor, examples, requests[0].labels),
        entity_names,
        tuple(ignored),
        flat_ner,
        multi_label,
        tuple(results),
        relation_names,
        adjacency_threshold,
        relation_threshold,
    )


def evaluate_relations_like_gliner(
    model: RelexGLiNER,
    test_data: Iterable[Any],
    flat_ner: bool = False,
    multi_label: bool = False,
    threshold: float = 0.5,
    adjacency_threshold: float | None = None,
    relation_threshold: float | None = None,
    entity_types: AskedLabels | None = None,
    relation_types: Sequence[str] | None = None,
) -> tuple[tuple[str, float], tuple[str, float]]:
    """What `evaluate` of `gliner`'s relation extraction models returns: `evaluate_like_gliner`'s two, of both."""
    evaluation = evaluate_relations(
        model,
        examples_from_records(test_data, "test_data", splitter=model.data_processor.custom_splitter, relations=True),
        entity_types,
        relation_types,
        thresholds=[threshold],
        adjacency_threshold=adjacency_threshold,
        relation_threshold=relation_threshold,
        flat_ner=flat_ner,
        multi_label=multi_label,
    )
    (result,) = evaluation.results
    return (
        score_line(result.micro, "entity", stacklevel=4),
        score_line(micro((result.relations or {}).values()), "relation", stacklevel=4),
    )


class _Places:
    """Texts made of given words, which nothing splits in another way, and their words' places.

    Attributes:
        texts: all different, and none blank: of a blank text nothing is read.
    """

    def __init__(self, words: Sequence[Sequence[str]]) -> None:
        self.texts = [" ".join([f"{number}:", *own]) for number, own in enumerate(words)]
        self._words = words

    def words_of(self, text: str) -> list[tuple[str, int, int]]:
        """(word, start, end) of a text's words: a splitter. Its number in front says which they are."""
        number, _, _ = text.partition(":")
        at, triples = len(number) + 2, list[tuple[str, int, int]]()
        for word in self._words[int(number)]:
            triples.append((word, at, at + len(word)))
            at += len(word) + 1
        return triples

    def in_words(self, number: int, entities: list[Entity]) -> tuple[set[Span], set[_Linked]]:
        """The entities of a text, and its relations, by their words."""
        triples = self.words_of(self.texts[number])
        firsts = {start: word for word, (_, start, _) in enumerate(triples)}
        lasts = {end: word + 1 for word, (_, _, end) in enumerate(triples)}
        spans = [(firsts[entity["start"]], lasts[entity["end"]], entity["label"]) for entity in entities]
        links: set[_Linked] = set()
        for relation in relations_of(entities):
            head, tail = spans[relation["head"]["entity_idx"]], spans[relation["tail"]["entity_idx"]]
            links.add((head[:2], tail[:2], relation["relation"]))
        return set(spans), links


def _with_words(model: RelexGLiNER, places: _Places) -> Callable[[], Predictor]:
    return lambda: replace(model.predictor(), splitter=places.words_of)


def _gold(example: Example, ignored: Collection[str]) -> tuple[set[Span], set[_Linked]]:
    """What is annotated, but what is ignored."""
    spans = example.spans
    return (
        {span for span in spans if span[2] not in ignored},
        {
            (spans[head][:2], spans[tail][:2], relation)
            for head, tail, relation in example.relations
            if spans[head][2] not in ignored and spans[tail][2] not in ignored
        },
    )


def _scores(
    pairs: Sequence[tuple[Collection[tuple[Any, Any, str]], Collection[tuple[Any, Any, str]]]], names: Sequence[str]
) -> dict[str, Score]:
    """The score of each name from what is annotated and found in each sentence, of which the name is the last part."""
    gold = Counter(item[-1] for own, _ in pairs for item in own)
    predicted = Counter(item[-1] for _, own in pairs for item in own)
    hits = Counter(item[-1] for own, found in pairs for item in own if item in found)
    return {name: Score(gold[name], predicted[name], hits[name]) for name in dict.fromkeys([*names, *gold])}


def _count_cut(predictor: Predictor, examples: Sequence[Example], labels: LabelPlan) -> int:
    """How many examples are longer than the model reads."""
    batcher = predictor.batcher
    subwords = batcher.encode_words(_rust.Words.from_lists([list(example.words) for example in examples]))
    are_cut = batcher.find_cut_rows(subwords, batcher.encode_prompts(labels.sets), labels.set_of_text)
    are_longer = [len(example.words) > predictor.max_words for example in examples]
    return int((are_cut | np.array(are_longer, np.bool_)).sum())  # of no examples they would be floats

"""Which entity types examples are asked for."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gliner_fast.annotated.example import DataError, Example
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus, Judged, read_corpus
from gliner_fast.training.sampling import Asked, sample_types
from gliner_fast.training.setting_values import ConfigError
from tests.training.sentences import write_sentences

WORDS = ("a", "b", "c", "d", "e", "f")
LIMITS: dict[str, Any] = {"max_len": 384, "max_width": 12, "ent_token": "<<ENT>>"}
FILE = TrainingFile(path="one")


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(output_dir="unused", **{"random_drop": False, **options})


def example(*labels: str, **options: Any) -> Example:
    return Example(WORDS, tuple((number, number + 1, label) for number, label in enumerate(labels)), **options)


def corpus(*files: tuple[TrainingFile, list[Example]], **options: Any) -> Corpus:
    return Corpus(files, **{**LIMITS, **options})


def draw(data: Corpus, times: int = 1, seed: int = 0, **options: Any) -> list[list[Asked]]:
    """What each example is asked for, several times."""
    generator = random.Random(seed)
    settings = config(**options)
    return [sample_types(data.examples, data.foreign_labels, settings, generator, data.implied) for _ in range(times)]


def negatives_of_first(data: Corpus, own: set[str], times: int = 400, **options: Any) -> Counter[str]:
    return Counter(label for asked in draw(data, times, **options) for label in asked[0].types if label not in own)


@pytest.mark.parametrize(("share", "mean"), [(0.0, 0.0), (0.5, 2.0), (0.75, 6.0), (0.25, 2 / 3)])
def test_negatives_make_up_their_share(share: float, mean: float) -> None:
    data = corpus((FILE, [example("x", "y"), *(example(f"n{number}") for number in range(40))]))
    drawn = negatives_of_first(data, {"x", "y"}, 600, negative_share=share)
    assert drawn.total() / 600 == pytest.approx(mean, abs=0.1)


def test_own_types_are_always_asked_for_unless_dropped() -> None:
    data = corpus((FILE, [example("x", "y", "x"), example("n")]))
    assert all({"x", "y"} <= set(asked[0].types) for asked in draw(data, 50))


def test_negatives_come_from_the_example_s_own_label_set() -> None:
    data = corpus((FILE, [example("x", labels=("x", "p", "q")), example("n")]))
    assert set(negatives_of_first(data, {"x"}, other_negatives=0.0)) == {"p", "q"}
    assert set(negatives_of_first(data, {"x"}, own_negatives=0.0)) == {"n"}
    both = negatives_of_first(data, {"x"}, own_negatives=3.0, other_negatives=1.0)
    assert both["n"] / both.total() == pytest.approx(0.25, abs=0.07)


def test_negatives_that_are_known_to_be_absent_are_used() -> None:
    data = corpus((FILE, [example("x", negatives=("m",))]))
    assert set(negatives_of_first(data, {"x"}, other_negatives=0.0)) == {"m"}


def test_frequent_labels_of_other_examples_are_frequent_negatives() -> None:
    data = corpus((FILE, [example("x"), *[example("often")] * 9, example("seldom")]))
    drawn = negatives_of_first(data, {"x"})
    assert drawn["often"] > 4 * drawn["seldom"] > 0


def test_other_files_are_taken_from_only_where_they_may_be() -> None:
    far, near, own = (TrainingFile(path=name) for name in ("far", "near", "own"))
    files = [(far, [example("f")]), (near, [example("n")])]
    data = corpus((TrainingFile(path="own", others=("far",)), [example("x")]), *files)
    assert set(negatives_of_first(data, {"x"})) == {"f"}
    data = corpus((own, [example("x")]), *files)
    assert set(negatives_of_first(data, {"x"})) == {"f", "n"}
    data = corpus((TrainingFile(path="own", others=()), [example("x")]), *files)
    assert not negatives_of_first(data, {"x"})


def test_no_type_is_asked_for_twice() -> None:
    data = corpus((TrainingFile(path="one", labels="file"), [example("x", "y"), example("p"), example("q")]))
    for asked in draw(data, 200, negative_share=0.9):
        for own in asked:
            assert len(set(own.types)) == len(own.types) == len(own.names) == len(own.judged)


def test_a_random_number_of_types_is_dropped() -> None:
    data = corpus((FILE, [example("a", "b", "c", "d", "e")]))
    sizes = Counter(len(asked[0].types) for asked in draw(data, 500, negative_share=0.0, random_drop=True))
    assert set(sizes) == {1, 2, 3, 4, 5}
    assert min(sizes.values()) > 60


def test_types_are_shuffled_or_stay_in_order() -> None:
    data = corpus((FILE, [example("a", "b", "c"), example("n")]))
    orders = {asked[0].types for asked in draw(data, 200, negative_share=0.0)}
    assert len(orders) == 6
    kept = {asked[0].types for asked in draw(data, 200, shuffle_types=False, random_drop=True, negative_share=0.0)}
    assert all(list(types) == sorted(types) for types in kept)


def test_there_are_never_more_types_than_allowed() -> None:
    data = corpus((FILE, [example(*"abcdef"), *(example(f"n{number}") for number in range(40))]))
    assert {len(asked[0].types) for asked in draw(data, 50, max_types=4, negative_share=0.8)} == {4}


def test_an_example_without_spans_gets_negatives_and_only_these() -> None:
    data = corpus((FILE, [example(), example("n")]))
    assert draw(data)[0][0] == Asked(("n",), ("n",), (Judged.ALL,))
    assert draw(corpus((FILE, [example()])))[0][0] == Asked((), (), ())


def test_a_span_beyond_the_label_set_is_learned_but_not_its_absence() -> None:
    data = corpus((TrainingFile(path="one", labels=("athlete", "team")), [example("athlete", "person")]))
    (asked,) = draw(data, negative_share=0.5)[0]
    judged = dict(zip(asked.types, asked.judged, strict=True))
    team = {"team": Judged.ALL} if "team" in judged else {}
    assert judged == {"athlete": Judged.ALL, "person": Judged.MARKED, **team}


def test_a_label_that_a_file_marks_in_part_is_judged_by_what_is_known() -> None:
    file = TrainingFile(path="one", labels=("athlete",), partial=("person",))
    data = corpus((file, [example("person"), example("athlete")]))
    seen = [dict(zip(own.types, own.judged, strict=True)) for asked in draw(data, 50) for own in asked]
    assert {judged["person"] for judged in seen if "person" in judged} == {Judged.KNOWN}
    assert {judged["athlete"] for judged in seen if "athlete" in judged} == {Judged.ALL}
    assert any("person" in asked[1].types for asked in draw(data, 50))  # it may be a negative as well


def test_generic_labels_are_no_negatives_of_other_files() -> None:
    files = [(TrainingFile(path="other"), [example("person"), example("reagent")])]
    data = corpus((TrainingFile(path="own"), [example("x")]), *files, generic=("person",))
    assert set(negatives_of_first(data, {"x"})) == {"reagent"}


IMPLIES = {"striker": ("athlete",), "athlete": ("person",)}


def test_a_span_gets_the_labels_that_its_own_implies() -> None:
    data = corpus((FILE, [Example(WORDS, ((0, 2, "striker"), (3, 4, "person")))]), implies=IMPLIES)
    assert data.examples[0].spans == ((0, 2, "striker"), (3, 4, "person"), (0, 2, "athlete"), (0, 2, "person"))
    assert data.implied == {"striker": ("athlete", "person"), "athlete": ("person",)}


def test_labels_that_imply_each_other_come_to_an_end() -> None:
    data = corpus((FILE, [example("a")]), implies={"a": ("b",), "b": ("a",)})
    assert data.implied == {"a": ("b",), "b": ("a",)}


def test_an_example_is_asked_for_coarse_labels_fine_ones_or_both() -> None:
    file = TrainingFile(path="one", labels=("athlete", "team"), partial=("person",))
    data = corpus((file, [example("athlete")]), implies=IMPLIES)
    seen = Counter(frozenset(asked[0].types) - {"team"} for asked in draw(data, 300))
    assert set(seen) == {frozenset(["person"]), frozenset(["athlete"]), frozenset(["athlete", "person"])}
    assert min(seen.values()) > 60


def test_a_type_goes_by_one_of_its_names() -> None:
    data = corpus((FILE, [example("person", "city"), example("town")]))
    names = {"person": ("person", "human"), "city": ("town",)}
    drawn = [asked[0] for asked in draw(data, 300, paraphrases=names)]
    seen = Counter(dict(zip(own.types, own.names, strict=True))["person"] for own in drawn)
    assert min(seen["person"], seen["human"]) > 100
    for own in drawn:
        assert len(set(own.names)) == len(own.names)
        name = dict(zip(own.types, own.names, strict=True))["city"]
        # The name of one type is never that of another one that is asked for.
        assert name == ("city" if "town" in own.types else "town")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"paraphrases": {"person": ["human <<ENT>> x"]}},
            "paraphrases has 'human <<ENT>> x': expected a name without",
        ),
        ({"implies": {"person": ["a <<ENT>> b"]}}, "implies has 'a <<ENT>> b': expected a name without the entity"),
        ({"generic": ["<<ENT>>"]}, "generic has '<<ENT>>'"),
        ({"generic": [" "]}, "generic has ' '"),
        ({"paraphrases": {"person": []}}, "paraphrases of 'person' is empty: name at least one"),
    ],
    ids=str,
)
def test_names_that_cannot_be_asked_for_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    train = [str(write_sentences(tmp_path / "data.jsonl"))]
    with pytest.raises(ConfigError, match=message):
        read_corpus(TrainingConfig(output_dir="unused", train=train, **settings), **LIMITS)  # type: ignore[arg-type]


def test_labels_of_settings_that_occur_nowhere_are_told(tmp_path: Path) -> None:
    file = TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl")), labels=("date",))
    right = TrainingConfig(
        output_dir="unused", train=(file,), generic=("date", "thing"), implies={"place": ("thing",)},
        paraphrases={"person": ("human",)},
    )  # fmt: skip
    read_corpus(right, **LIMITS)
    with pytest.warns(UserWarning, match="paraphrases: no example has the labels 'persn'"):
        read_corpus(right.replace(paraphrases={"persn": ("human",)}), **LIMITS)


def test_the_same_seed_draws_the_same() -> None:
    data = corpus((TrainingFile(path="one", labels="file"), [example("x", "y"), *map(example, "abcdefgh")]))
    assert draw(data, 5, seed=3, random_drop=True) == draw(data, 5, seed=3, random_drop=True)
    assert draw(data, 5, seed=3, random_drop=True) != draw(data, 5, seed=4, random_drop=True)


class Label(str):
    """Hashed by its first letter, up or down: processes hash strings each in its way, and sets are in that order."""

    __slots__ = ()
    direction = 1

    def __hash__(self) -> int:
        return Label.direction * ord(self[0])


@pytest.mark.parametrize("sampling", ["paper", "gliner"])
def test_another_process_draws_the_same(sampling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for direction in (1, -1):
        monkeypatch.setattr(Label, "direction", direction)
        labels = tuple(map(Label, "abcdefgh"))
        data = corpus((FILE, [example(label, labels=None if sampling == "gliner" else labels) for label in labels]))
        drawn.append(draw(data, 3, sampling=sampling))
    assert drawn[0] == drawn[1]


# --- as gliner does it ------------------------------------------------------------------------------------------------


@pytest.mark.gliner
def test_gliner_sampling_draws_what_gliner_draws() -> None:
    """The same sets of types, with the same frequencies, for every form of example."""
    from gliner.data_processing.processor import UniEncoderSpanProcessor

    examples = [example("x", "y"), example("n"), example("x", labels=("p", "q")), example("x", negatives=("z",))]
    examples.append(example())
    data = corpus((FILE, examples))
    settings = type("Config", (), {"max_neg_type_ratio": 1, "max_types": 3})
    processor = UniEncoderSpanProcessor.__new__(UniEncoderSpanProcessor)
    processor.config = settings
    rows = [
        {"ner": [list(span) for span in each.spans]}
        | ({"ner_labels": list(each.labels)} if each.labels else {})
        | ({"ner_negatives": list(each.negatives)} if each.negatives else {})
        for each in examples
    ]
    random.seed(1)
    times = 2000
    theirs = [processor.batch_generate_class_mappings(rows)[0] for _ in range(times)]
    ours = draw(data, times, sampling="gliner", max_types=3)
    for index in range(len(examples)):
        wanted = Counter(frozenset(mapping[index]) for mapping in theirs)
        drawn = Counter(frozenset(asked[index].types) for asked in ours)
        assert drawn.keys() == wanted.keys()
        for types, count in wanted.items():
            assert abs(drawn[types] - count) / times < 0.06


# --- the corpus -------------------------------------------------------------------------------------------------------


def test_spans_that_no_model_can_find_are_left_out_and_counted() -> None:
    spans = ((0, 1, "x"), (0, 1, "x"), (0, 3, "wide"), (3, 5, "late"), (2, 4, "fits"))
    data = corpus((FILE, [Example(WORDS, spans)]), max_len=4, max_width=2)
    assert data.examples[0].spans == ((0, 1, "x"), (2, 4, "fits"))
    assert data.examples[0].words == WORDS[:4]
    assert (data.dropped.too_wide, data.dropped.too_late) == (1, 1)


def test_an_epoch_holds_each_example_as_often_as_its_file_weighs() -> None:
    files = [(TrainingFile(path=str(weight), weight=weight), [example("x")] * 10) for weight in (1.0, 2.5, 0.1)]
    data = corpus(*files)
    seen = Counter(data.epoch(0, seed=1))
    assert [seen[index] for index in range(10)] == [1] * 10
    assert sorted(seen[index] for index in range(10, 20)) == [2] * 5 + [3] * 5
    assert sum(seen[index] for index in range(20, 30)) == 1
    assert data.epoch(0, seed=1) == data.epoch(0, seed=1)
    assert data.epoch(0, seed=1) != data.epoch(1, seed=1)


def test_a_label_may_not_contain_the_entity_token() -> None:
    with pytest.raises(DataError, match="one: the label 'a <<ENT>> b' contains the entity token <<ENT>>: rename it"):
        corpus((FILE, [example("a <<ENT>> b")]))


def test_there_must_be_something_to_train_on() -> None:
    with pytest.raises(DataError, match="there is nothing to train on"):
        corpus()


def test_relations_are_told_to_be_left_out(tmp_path: Path) -> None:
    record = {"tokenized_text": ["Ada", "Bob"], "ner": [[0, 0, "person"], [1, 1, "person"]]}
    linked = {**record, "relations": [[0, 1, "knows"]], "rel_labels": ["knows"], "rel_negatives": ["likes"]}
    paths = [tmp_path / "plain.jsonl", tmp_path / "linked.jsonl"]
    for path, own in zip(paths, (record, linked), strict=True):
        path.write_text(json.dumps(own))
    plain, other = (TrainingConfig(output_dir="unused", train=(TrainingFile(path=str(path)),)) for path in paths)
    expected = read_corpus(plain, **LIMITS)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="the data have relations, which are not trained"):
        assert read_corpus(other, **LIMITS).examples == expected.examples  # type: ignore[arg-type]

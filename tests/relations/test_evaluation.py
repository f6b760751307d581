"""Scores of relations on annotated sentences: those of `gliner`'s `evaluate`, and those of plain predictions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import GLiNER
from gliner_fast.annotated import DataError, Example
from gliner_fast.annotated.examples import examples_from_records, read_examples
from gliner_fast.annotated.writers import write_examples
from gliner_fast.cli import main
from gliner_fast.comparing.installed_gliner import load_reference
from gliner_fast.data_processor import whitespace_words
from gliner_fast.evaluation import evaluate_relations
from gliner_fast.evaluation.scores import micro
from gliner_fast.relex import RelexGLiNER
from tests.reference.scores import score_sets
from tests.relation_checkpoints import RELATIONS
from tests.samples import CROSSNER, LABELS

Record = dict[str, Any]
TEXTS = [text[:160] for text in CROSSNER[:10]]
LIMITS = {"threshold": 0.3, "adjacency_threshold": 0.25, "relation_threshold": 0.35}


def found_in(model: RelexGLiNER, **modes: bool) -> list[Record]:
    """What a model finds in some texts, in the form of annotated data."""
    entities, relations = model.inference(TEXTS, LABELS, RELATIONS, **LIMITS, **modes)
    records: list[Record] = []
    for text, own, linked in zip(TEXTS, entities, relations, strict=True):
        words = list(whitespace_words(text))
        firsts = {start: word for word, (_, start, _) in enumerate(words)}
        lasts = {end: word for word, (_, _, end) in enumerate(words)}
        records.append(
            {
                "tokenized_text": [word for word, _, _ in words],
                "ner": [[firsts[e["start"]], lasts[e["end"]], e["label"]] for e in own],
                "relations": [[r["head"]["entity_idx"], r["tail"]["entity_idx"], r["relation"]] for r in linked],
            }
        )
    return records


def spoilt(records: list[Record]) -> list[Record]:
    """Annotation that is partly right: entities in another order, some renamed; relations turned, renamed, repeated."""
    chance = random.Random(0)
    made = []
    for record in records:
        order = list(range(len(record["ner"])))
        chance.shuffle(order)
        place = {old: new for new, old in enumerate(order)}
        ner = [list(record["ner"][old]) for old in order]
        for entity in ner:
            entity[2] = chance.choice(LABELS) if chance.random() < 0.2 else entity[2]
        relations = []
        for head, tail, relation in record["relations"]:
            drawn, ends = chance.random(), [place[head], place[tail]]
            if drawn < 0.2:
                relations.append([*reversed(ends), relation])
            elif drawn < 0.6:
                relations += [[*ends, relation]] * chance.choice([1, 2])
            elif drawn > 0.8:
                relations.append([*ends, chance.choice([*RELATIONS, "never asked"])])
        made.append({**record, "ner": ner, "relations": relations})
    return made


def links(record: Record) -> set[Any]:
    """Relations by the words of both ends."""
    return {(*record["ner"][head][:2], *record["ner"][tail][:2], own) for head, tail, own in record["relations"]}


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[[str], RelexGLiNER]:
    return lambda kind: GLiNER.from_pretrained(checkpoint(kind))


@pytest.fixture(scope="module")
def relex(load: Callable[[str], RelexGLiNER]) -> RelexGLiNER:
    return load("relex")


@pytest.fixture(scope="module")
def annotated(relex: RelexGLiNER) -> list[Record]:
    return spoilt(found_in(relex, flat_ner=False))


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["relex", "relex-none", "relex-triples", "token-relex"])
@pytest.mark.parametrize(("flat_ner", "multi_label"), [(True, False), (False, True)])
def test_evaluate_returns_what_gliner_returns(
    kind: str,
    flat_ner: bool,
    multi_label: bool,
    load: Callable[[str], RelexGLiNER],
    monkeypatch: pytest.MonkeyPatch,
):
    model, modes = load(kind), {"flat_ner": flat_ner, "multi_label": multi_label}
    data = spoilt(found_in(model, **modes))
    # A text without any entity takes some of gliner's models down.
    data = [record for record in data if record["ner"]]
    how: Any = {**LIMITS, **modes, "batch_size": 1, "entity_types": LABELS, "relation_types": RELATIONS}
    reference = load_reference(model)
    if kind == "token-relex":  # or it would look for relations between annotated spans alone
        collate = reference.data_processor.create_batch_dict
        monkeypatch.setattr(
            reference.data_processor, "create_batch_dict", lambda *given: {**collate(*given), "span_idx": None}
        )
    ours, theirs = model.evaluate(data, **how), reference.evaluate(data, **how)
    for (line, f1), (their_line, their_f1) in zip(ours, theirs, strict=True):
        assert line == their_line
        assert f1 == pytest.approx(their_f1)
        assert 0.2 < f1 < 0.95


def test_scores_are_those_of_plain_predictions(relex: RelexGLiNER, annotated: list[Record]):
    evaluation = evaluate_relations(
        relex,
        examples_from_records(annotated, relations=True),
        LABELS,
        RELATIONS,
        thresholds=[0.3, 0.6],
        adjacency_threshold=0.25,
        relation_threshold=0.35,
        flat_ner=False,
    )
    first, second = evaluation.results
    found = found_in(relex, flat_ner=False)
    entities = score_sets(*([{tuple(e) for e in record["ner"]} for record in own] for own in (annotated, found)))
    assert first.micro == entities
    assert first.relations
    gold, predicted = ([links(record) for record in own] for own in (annotated, found))
    for relation, score in first.relations.items():
        alone = [[{link for link in own if link[-1] == relation} for own in side] for side in (gold, predicted)]
        assert score == score_sets(*alone)
    assert list(first.relations) == [*RELATIONS, "never asked"]
    assert first.relations["never asked"].gold > 0
    assert second.micro.predicted < first.micro.predicted
    assert evaluation.asked_relations == tuple(RELATIONS)
    assert (evaluation.flat_ner, evaluation.multi_label) == (False, False)
    assert evaluation.to_dict()["results"][0]["relations"]["kinds"].keys() == first.relations.keys()


def test_each_example_is_asked_for_its_own_relations_or_all_of_the_data(relex: RelexGLiNER, annotated: list[Record]):
    own = ["works for", "part of"]
    kept = [{**r, "relations": [link for link in r["relations"] if link[2] in own]} for r in annotated]
    labelled = examples_from_records([{**record, "rel_labels": own} for record in kept], relations=True)
    some = evaluate_relations(relex, labelled, LABELS)
    asked = evaluate_relations(relex, examples_from_records(kept, relations=True), LABELS, [*own, own[0]])
    assert (some.results, some.asked_relations) == (asked.results, tuple(own))
    assert evaluate_relations(relex, labelled, LABELS, own[0]).asked_relations == (own[0],)
    none = evaluate_relations(relex, [replace(example, relation_labels=()) for example in labelled], LABELS)
    assert none.asked_relations == ()
    every = evaluate_relations(relex, examples_from_records(annotated, relations=True), LABELS)
    assert set(every.asked_relations or ()) == {link[2] for record in annotated for link in record["relations"]}


def test_what_cannot_be_asked_is_told(relex: RelexGLiNER):
    example = Example(("Ada",), ((0, 1, "person"),))
    for relations in ({"knows": "x"}, b"ab", [["knows"]]):
        with pytest.raises(TypeError, match="expected strings such as"):
            evaluate_relations(relex, [example], relations=relations)
    for wrong, message in [
        ({"relations": [" "]}, "relation"),
        ({"thresholds": []}, "thresholds is empty"),
        ({"thresholds": [float("nan")]}, "threshold"),
        ({"thresholds": [[0.3, 0.5]]}, "threshold"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate_relations(relex, [example], **wrong)
    assert evaluate_relations(relex, [], relations=["knows"]).asked_relations == ("knows",)


def test_what_is_ignored_takes_its_relations_along(relex: RelexGLiNER):
    words = ("Ada", "Lovelace", "lived", "in", "London")
    spans = ((0, 2, "person"), (4, 5, "else"))
    example = Example(words, spans, relations=((0, 1, "lived in"), (0, 0, "lived in"), (1, 0, "lived in")))
    evaluation = evaluate_relations(relex, [example], thresholds=[1.0], multi_label=True, ignored="else")
    (result,) = evaluation.results
    assert (evaluation.asked, evaluation.ignored, evaluation.multi_label) == (("person",), ("else",), True)
    assert [score.gold for score in (result.micro, (result.relations or {})["lived in"])] == [1, 1]


def test_words_behind_the_cut_are_missed_and_counted(load: Callable[[str], RelexGLiNER]):
    model = load("relex")
    model.config.max_len = 3
    words = ("Ada", "Lovelace", "lived", "in", "London")
    example = Example(words, ((0, 2, "person"), (4, 5, "city")), relations=((0, 1, "lived in"),))
    evaluation = evaluate_relations(model, [example, Example(words[:3], ())], thresholds=[0.0])
    assert (evaluation.examples, evaluation.cut) == (2, 1)
    assert evaluation.results[0].labels["city"].gold == 1


def test_relations_that_leave_the_tokenizer_no_room_for_the_words_are_counted(
    load: Callable[[str], RelexGLiNER], monkeypatch: pytest.MonkeyPatch
):
    model = load("relex")
    batcher = model.predictor().batcher
    monkeypatch.setattr(batcher, "tokenizer", replace(batcher.tokenizer, max_subwords=40))
    examples = [Example(("Ada",) * 8, (), relation_labels=own) for own in (tuple(RELATIONS), ("knows",))]
    assert evaluate_relations(model, examples, ["person"]).cut == 1


def test_the_words_of_texts_are_those_of_the_model_s_splitter(load: Callable[[str], RelexGLiNER]):
    model = load("relex")
    model.data_processor.words_splitter = lambda text: [(text[at], at, at + 1) for at in range(len(text))]
    data = [{"text": "Ada", "entities": [[0, 2, "person"]]}]
    with pytest.warns(UserWarning, match="is (predicted|annotated)"):  # and no error: "Ad" is no word of others
        model.evaluate(data, threshold=1.0, entity_types=LABELS, relation_types=RELATIONS)


def test_words_are_those_given_where_texts_are_equal(relex: RelexGLiNER):
    examples = [Example(("Ada Lovelace", "sang"), ()), Example(("Ada", "Lovelace", "sang"), ())]
    together, *alone = (
        evaluate_relations(relex, own, LABELS, RELATIONS, thresholds=[0.0], flat_ner=False).results[0].micro.predicted
        for own in (examples, examples[:1], examples[1:])
    )
    assert together == sum(alone)


def test_what_is_no_list_of_relations_or_thresholds_is_refused(relex: RelexGLiNER):
    with pytest.raises(TypeError, match="relations is .* expected strings"):
        evaluate_relations(relex, [], LABELS, {"knows": "is acquainted with"})
    with pytest.raises(ValueError, match="thresholds is empty"):
        evaluate_relations(relex, [], LABELS, RELATIONS, thresholds=[])


def test_without_any_relation_entities_are_scored(relex: RelexGLiNER, annotated: list[Record]):
    data = [{**record, "relations": []} for record in annotated]
    with pytest.warns(UserWarning, match="no relation is (predicted|annotated)") as told:
        (_, entities), (line, relations) = relex.evaluate(data, **LIMITS, entity_types=LABELS)
    assert {warning.filename for warning in told} == {__file__}
    assert entities > 0
    assert (line, relations) == ("P: 0.00%\tR: 0.00%\tF1: 0.00%\n", 0)


def test_no_sentences_have_scores_of_zero(relex: RelexGLiNER):
    with pytest.warns(UserWarning, match="no (entity|relation) is (predicted|annotated)"):
        assert (
            relex.evaluate([], entity_types=LABELS, relation_types=RELATIONS)
            == (("P: 0.00%\tR: 0.00%\tF1: 0.00%\n", 0),) * 2
        )


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relations", "message"),
    [
        ([[0, 2, "knows"]], r"relations\[0\] is \[0, 2, 'knows'\], and ner has 2 entities: expected the places"),
        ([[-1, 0, "knows"]], "expected the places of head and tail"),
        ([[2, 0, "knows"]], "expected the places of head and tail"),
        ([[0, -1, "knows"]], "expected the places of head and tail"),
        ([["a", 0, "knows"]], "expected whole numbers"),
        ([{"head": 0}], r"expected \[head, tail, relation\], such as"),
        ("knows", "relations is 'knows': expected a list"),
        ([[0, 1, "likes"]], "'likes', which is not among the rel_labels"),
    ],
)
def test_wrong_relations_are_told(relations: Any, message: str):
    record = {"tokenized_text": ["Ada", "Bob"], "ner": [[0, 0, "person"], [1, 1, "person"]], "relations": relations}
    with pytest.raises(DataError, match=message):
        examples_from_records([{**record, "rel_labels": ["knows"]}], relations=True)


def test_what_a_column_of_a_dataset_leaves_open_is_not_said():
    record = {"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]], "relations": None, "rel_labels": None}
    (example,) = examples_from_records([record], relations=True)
    assert (example.relations, example.relation_labels) == ((), None)
    with pytest.raises(DataError, match="not among the rel_labels"):
        examples_from_records([{**record, "relations": [[0, 0, "knows"]], "rel_labels": []}], relations=True)
    linked = {**record, "relations": [[0, 0, "knows"]]}
    with pytest.warns(UserWarning, match="keys that are not read: 'relations', 'rel_labels'"):
        assert examples_from_records([linked])[0].relations == ()


def test_relations_are_read_and_written_only_where_they_are_asked_for(tmp_path: Path):
    spans = ((0, 1, "person"), (1, 2, "person"))
    examples = [
        Example(("Ada", "Bob"), spans, relations=((1, 0, "knows"),), relation_labels=("knows",)),
        Example(("Ada", "Bob"), spans),
        Example(("Ada", "Bob"), spans, relation_labels=()),
    ]
    path = tmp_path / "data.jsonl"
    write_examples(examples, path, "gliner")
    assert read_examples(path, relations=True) == examples
    assert '"relations": []' in path.read_text()
    with pytest.raises(DataError, match="unknown key 'relations'"):
        read_examples(path)
    assert read_examples(path, ignore_keys=["relations", "rel_labels"])[0] == Example(("Ada", "Bob"), spans)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_scores_relations(
    annotated: list[Record], checkpoint: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    data = tmp_path / "linked.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in annotated))
    (tmp_path / "linked.labels.json").write_text(json.dumps(LABELS))
    how = ["--nested", "--thresholds", "0.3", "--adjacency-threshold", "0.25", "--relation-threshold", "0.35"]
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(checkpoint("relex")), str(data), *how, "--per-label", "--json", str(tmp_path / "s.json")])
    assert end.value.code == 0
    table = capfd.readouterr().out
    (scores,) = json.loads((tmp_path / "s.json").read_text())["sets"]
    (result,) = scores["results"]
    expected = evaluate_relations(
        GLiNER.from_pretrained(checkpoint("relex")),
        examples_from_records(annotated, relations=True),
        LABELS,
        thresholds=[0.3],
        adjacency_threshold=0.25,
        relation_threshold=0.35,
        flat_ner=False,
        name="linked",
    )
    assert scores == json.loads(json.dumps(expected.to_dict()))
    assert result["relations"]["hits"] > 0
    assert (scores["adjacency_threshold"], scores["relation_threshold"]) == (0.25, 0.35)
    for kind in ("all of them", *scores["asked_relations"]):
        assert f"linked  0.3          0.35       {kind}" in table
    start = "linked  0.3          0.35       all of them"
    row = next(line.removeprefix(start).split() for line in table.splitlines() if line.startswith(start))
    own = micro((expected.results[0].relations or {}).values())
    rates = [f"{100 * rate:.2f}" for rate in (own.precision, own.recall, own.f1)]
    assert row == [f"{own.gold:,}", f"{own.predicted:,}", *rates]


def test_the_command_scores_relations_of_the_sets_that_have_some_or_of_all(
    checkpoint: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    record = {"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]]}
    (tmp_path / "plain.jsonl").write_text(json.dumps(record))
    (tmp_path / "linked.jsonl").write_text(json.dumps([record, {**record, "rel_labels": ["knows"]}]))

    def evaluate(*options: str) -> tuple[list[Any], str, str]:
        files = [str(tmp_path / name) for name in ("plain.jsonl", "linked.jsonl")]
        scores = tmp_path / "scores.json"
        with pytest.raises(SystemExit) as end:
            main(["evaluate", str(checkpoint("relex")), *files, *options, "--json", str(scores), "--overwrite"])
        assert end.value.code == 0
        report = json.loads(scores.read_text())
        assert "relation" in report["matching_of_relations"]
        return [own.get("asked_relations") for own in report["sets"]], *capfd.readouterr()

    asked, table, notes = evaluate()
    assert asked == [None, ["knows"]]
    assert [table.count(name) for name in ("plain", "linked", "knows")] == [1, 2, 0]
    assert "relation" not in notes
    assert evaluate("--relations", "knows")[0] == [["knows"], ["knows"]]


@pytest.mark.parametrize(
    "option", [["--relations", "knows"], ["--adjacency-threshold", "0.4"], ["--relation-threshold", "0.4"]]
)
def test_the_command_asks_no_other_model_for_relations(
    option: list[str], checkpoint: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    data = tmp_path / "data.jsonl"
    data.write_text('{"tokenized_text": ["Ada"], "ner": []}\n')
    with pytest.raises(SystemExit):
        main(["evaluate", str(checkpoint("deberta")), str(data), *option])
    assert "the model finds no relations: leave out --relations" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "relations", "option", "note"),
    [
        ("deberta", [[0, 0, "knows"]], [], "data: its relations are not scored: the model finds none"),
        ("relex", [], ["--relation-threshold", "0.4"], "data: no relation is annotated, nor asked for by --relations"),
    ],
)
def test_the_command_says_where_it_scores_no_relations(
    kind: str,
    relations: list[Any],
    option: list[str],
    note: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]], "relations": relations}))
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(checkpoint(kind)), str(data), *option, "--json", str(tmp_path / "s.json")])
    assert end.value.code == 0
    out, err = capfd.readouterr()
    assert note in err
    assert "relation" not in out
    assert "matching_of_relations" not in json.loads((tmp_path / "s.json").read_text())

"""Thresholds chosen by annotated sentences: the best there are on the grid, and honest about it."""

import numpy as np
import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.annotated import Example
from gliner_fast.evaluation.calibrate import GRID, calibrate, choose_thresholds
from gliner_fast.evaluation.scored_examples import ScoredExamples
from gliner_fast.evaluation.scores import Score
from gliner_fast.scoring.candidates import Candidates


def scored(labels, *examples):
    """Sentences of one-word spans, each a list of (word, label, score, is annotated)."""
    spans = [(word, labels.index(label), score, is_gold) for own in examples for word, label, score, is_gold in own]
    words, classes, scores, are_gold = (np.array(column) for column in zip(*spans, strict=True))
    gold = np.zeros((len(examples), len(labels)), np.int64)
    for row, own in zip(gold, examples, strict=True):
        for _, label, _, is_gold in own:
            row[labels.index(label)] += is_gold
    return ScoredExamples(
        tuple(labels),
        np.ones(len(labels), np.bool_),
        Candidates(
            np.cumsum([0, *map(len, examples)]).astype(np.int64),
            words.astype(np.int64),
            words.astype(np.int64) + 1,
            classes.astype(np.int64),
            scores.astype(np.float32),
        ),
        edges=scores.astype(np.float32),
        markers=classes.astype(np.int64),
        insides=np.full(len(scores), np.inf),
        are_gold=are_gold.astype(np.bool_),
        gold=gold,
        word_counts=np.full(len(examples), 10, np.int64),
        cut=np.zeros(len(examples), np.bool_),
        floor=GRID[0],
        dtype=torch.float32,
    )


# Right persons score above 0.65, wrong ones below; right cities above 0.12, and 0.5 loses most of them.
SENTENCE = [
    (0, "person", 0.9, True), (1, "person", 0.68, True), (2, "person", 0.61, False), (3, "person", 0.56, False),
    (4, "city", 0.6, True), (5, "city", 0.21, True), (6, "city", 0.17, True), (7, "city", 0.12, False),
]  # fmt: skip


def choose(data, min_entities=1):
    return choose_thresholds(data, flat_ner=True, multi_label=False, min_entities=min_entities)


def test_each_label_gets_the_threshold_that_separates_it():
    # Of 8 persons each half of the sentences has 4, and then half as many are enough.
    calibration = choose(scored(["person", "city"], *[SENTENCE] * 4), min_entities=8)
    assert calibration.usual.same == Score(gold=20, predicted=20, hits=12)
    assert calibration.overall.threshold == 0.15
    assert calibration.overall.same == Score(gold=20, predicted=28, hits=20)
    assert calibration.per_label.threshold == {"person": 0.65, "city": 0.15}
    assert calibration.per_label.same == calibration.per_label.held_out == Score(20, 20, 20)


def test_rare_labels_keep_the_threshold_for_all():
    calibration = choose(scored(["person", "city"], *[SENTENCE] * 4), min_entities=9)
    assert calibration.per_label.threshold["person"] == calibration.overall.threshold
    assert calibration.per_label.same.f1 >= calibration.overall.same.f1


def test_of_equal_thresholds_the_nearest_to_the_usual_one_is_taken():
    calibration = choose(scored(["person"], [(0, "person", 0.9, True)], [(0, "person", 0.9, True)]))
    assert calibration.overall.threshold == 0.5
    assert calibration.per_label.threshold == {"person": 0.5}


def test_the_commonest_label_moves_first_and_until_none_moves_any_more():
    sentence = [
        (0, "city", 0.2, True), (0, "person", 0.4, False), (1, "city", 0.6, False), (1, "person", 0.6, True),
        (2, "person", 0.2, True),
    ]  # fmt: skip
    calibration = choose(scored(["city", "person"], sentence, sentence))
    assert calibration.overall.threshold == 0.15
    # Cities first would leave persons at 0.15; and in the first round persons come to no more than 0.4.
    assert calibration.per_label.threshold == {"city": 0.6, "person": 0.05}


def test_held_out_scores_do_not_see_their_own_sentences():
    # Each half of its own would take another threshold: the first keeps what scores 0.3, the second must not.
    one = [(0, "person", 0.9, True), (1, "person", 0.3, True), (2, "person", 0.3, True)]
    other = [(0, "person", 0.9, True), (1, "person", 0.3, False), (2, "person", 0.3, False)]
    calibration = choose(scored(["person"], one, other, one, other))
    assert calibration.overall.held_out.f1 < calibration.overall.same.f1


def test_what_is_written_is_read_as_a_labels_file():
    calibration = choose(scored(["person", "city"], *[SENTENCE] * 4))
    chosen = calibration.per_label.threshold
    assert calibration.labels_file({"city": "a town"}) == {
        "person": {"threshold": chosen["person"]},
        "city": {"description": "a town", "threshold": chosen["city"]},
    }
    record = calibration.to_dict()
    assert record["objective"] == "micro F1"
    assert record["per_label"]["threshold"] == chosen
    assert record["usual"]["same"]["f1"] == 60.0


def test_a_model_is_calibrated_on_words():
    model = GLiNER.from_pretrained()
    ada = Example(("Ada", "Lovelace", "lived", "in", "London", "."), ((0, 2, "person"), (4, 5, "city")))
    rome = Example(("Enrico", "Fermi", "left", "Rome", "."), ((0, 2, "person"), (3, 4, "city")))
    calibration = calibrate(model, [ada, rome], min_entities=1)
    assert set(calibration.per_label.threshold) == {"person", "city"}
    assert calibration.per_label.same.f1 >= calibration.overall.same.f1 >= calibration.usual.same.f1 > 0
    with pytest.raises(ValueError, match="1 annotated sentence: calibration takes two at least"):
        calibrate(model, [ada])

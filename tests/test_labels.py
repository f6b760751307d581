"""Labels and thresholds in every accepted form, and the errors for the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gliner_fast.labels import LabelSet, label_thresholds, plan_labels, plan_thresholds


@pytest.mark.parametrize(
    ("given", "prompts", "names"),
    [
        (["person", "city"], ("person", "city"), ("person", "city")),
        (("person", "city", "person"), ("person", "city"), ("person", "city")),
        ("person", ("person",), ("person",)),
        ([], (), ()),
        ([""], ("",), ("",)),
        ({"PER": "a human being", "LOC": "a place"}, ("a human being", "a place"), ("PER", "LOC")),
        ({}, (), ()),
        ([1, "1"], ("1", "1"), (1, "1")),
        (np.array(["a", "b"]), ("a", "b"), ("a", "b")),
        (["Person", " person "], ("Person", " person "), ("Person", " person ")),
    ],
)
def test_a_label_set_keeps_order_case_and_blanks(given: Any, prompts: tuple[str, ...], names: tuple[Any, ...]) -> None:
    assert LabelSet.read(given) == LabelSet(prompts, names)


def test_shared_labels_are_one_set_for_all_texts() -> None:
    plan = plan_labels(["a", "b"], 3)
    assert plan.sets == (LabelSet(("a", "b"), ("a", "b")),)
    assert plan.set_of_text.tolist() == [0, 0, 0]


def test_equal_per_text_labels_share_a_set() -> None:
    plan = plan_labels([["a"], {"b": "about b"}, ["a"], []], 4)
    assert [labels.prompts for labels in plan.sets] == [("a",), ("about b",), ()]
    assert plan.set_of_text.tolist() == [0, 1, 0, 2]


def test_per_text_labels_may_be_mappings_alone() -> None:
    plan = plan_labels([{"a": "about a"}, {"a": "about a"}, {"b": "about b"}], 3)
    assert [labels.names for labels in plan.sets] == [("a",), ("b",)]
    assert plan.set_of_text.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (None, TypeError, "labels is None"),
        (5, TypeError, r"labels is 5 \(int\)"),
        (([("a")], ["b"]), TypeError, "labels is"),  # a tuple of lists: only a list holds per-text labels
        ({"a": 1}, TypeError, "only string keys and values"),
        ({1: "a"}, TypeError, "only string keys and values"),
        ({"a": "x", "b": "x"}, ValueError, "must be unique"),
        ([["a"], "b"], TypeError, "only lists or label description mappings"),
        ([["a"]], ValueError, "must have length 2, got 1"),
    ],
)
def test_labels_of_another_form_are_refused_in_words(labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan_labels(labels, 2)


@pytest.mark.parametrize("given", [0, 0.5, 1, -1.0, 2, math.inf, np.float32(0.5), np.array(0.5)[()]])
def test_any_number_is_a_threshold(given: Any) -> None:
    assert plan_thresholds(given, 3) == float(given)


@pytest.mark.parametrize("given", [[0.1, 1], (0.1, 1), np.array([0.1, 1.0])])
def test_a_sequence_holds_one_threshold_a_text(given: Any) -> None:
    assert plan_thresholds(given, 2) == [0.1, 1.0]


def test_a_mapping_holds_one_threshold_a_label() -> None:
    thresholds = plan_thresholds({"a": 0.2, "b": 1, "unused": 0}, 5)
    assert isinstance(thresholds, dict)
    assert label_thresholds(("b", "a"), thresholds) == [1.0, 0.2]
    with pytest.raises(ValueError, match="no value for the label 'c'"):
        label_thresholds(("a", "c"), thresholds)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (math.nan, ValueError, "threshold is NaN"),
        ("0.5", TypeError, r"threshold is '0.5' \(str\)"),
        (None, TypeError, "threshold is None"),
        ([0.5], ValueError, "length 2, one value for each text, got 1"),
        ([0.5, "x"], TypeError, r"threshold\[1\] is 'x'"),
        ({"a": math.nan}, ValueError, r"threshold\['a'\] is NaN"),
    ],
)
def test_other_thresholds_are_refused_in_words(given: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        plan_thresholds(given, 2)

"""Scores as JSON, table and chart."""

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from gliner_fast.evaluation import Evaluation, Result, Score
from gliner_fast.evaluation.chart import chart
from gliner_fast.evaluation.report import labels_table, report, sets_table


def evaluation(name, *hits):
    results = (
        Result(0.3, {"person": Score(10, 10, hits[0]), "a [b]": Score(0, 0, 0)}),
        Result({"person": 0.7, "a [b]": 0.5}, {"person": Score(10, 10, hits[1]), "a [b]": Score(0, 0, 0)}),
    )
    return Evaluation(name, 100, 3, ("person", "a [b]"), ("else",), True, False, results)


@pytest.fixture
def evaluations():
    return [evaluation("crossner_ai", 5, 6), evaluation("mit_movie", 7, 8), evaluation("<mine>", 1, 2)]


def shown(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_json_holds_counts_rates_and_averages(evaluations):
    record = json.loads(json.dumps(report(evaluations, {"model": "m"})))
    assert record["model"] == "m"
    first = record["sets"][0]
    assert (first["set"], first["examples"], first["cut"], first["ignored"]) == ("crossner_ai", 100, 3, ["else"])
    assert first["results"][0]["labels"]["person"]["hits"] == 5
    assert [result["f1"] for result in first["results"]] == [50.0, 60.0]
    assert [result["macro_f1"] for result in first["results"]] == [50.0, 60.0]
    assert [(own["benchmark"], own["threshold"], own["f1"], own["complete"]) for own in record["averages"]] == [
        ("out of domain", 0.3, 60.0, False),
        ("out of domain", {"person": 0.7, "a [b]": 0.5}, 70.0, False),
    ]


def test_the_table_has_a_row_a_set_and_threshold_and_says_what_an_average_lacks(evaluations):
    lines = shown(sets_table(evaluations))
    assert lines[1].split() == ["crossner_ai", "0.3", "100", "10", "50.00", "50.00", "50.00", "50.00"]
    assert lines[2].split()[:3] == ["crossner_ai", "per", "label"]
    assert lines[5].startswith("<mine>")
    assert lines[7].startswith("out of domain, mean of 2 sets of 7")
    assert lines[7].endswith("60.00")
    assert len(lines) == 9


def test_names_stand_in_tables_as_they_are_to_be_shown(evaluations):
    own = evaluation("\x1b[1", 5, 6)
    assert any(line.startswith("[31") for line in shown(sets_table([own], lambda name: name.replace("\x1b[", "[3"))))
    titled = shown(labels_table(own, str.upper))
    assert [line.split()[0] for line in titled[-4:]] == ["PERSON", "PERSON", "A", "A"]


def test_labels_have_a_table_of_their_own(evaluations):
    lines = shown(labels_table(evaluations[0]))
    assert lines[2].split() == ["person", "0.3", "10", "10", "50.00", "50.00", "50.00"]
    assert lines[5].split() == ["a", "[b]", "0.5", "0", "0", "0.00", "0.00", "0.00"]


def test_the_name_of_a_set_is_no_markup():
    named = evaluation("data[red]", 5, 6)
    assert shown(sets_table([named]))[1].startswith("data[red] ")
    assert shown(labels_table(named))[0] == "data[red]"


def test_a_name_that_xml_has_no_characters_for_is_charted():
    drawn = chart([evaluation("b\udcff\x1b", 5, 6)], "\ufffe").encode()
    assert "b\ufffd\ufffd" in [own.text for own in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]


def test_the_chart_is_svg_with_bars_as_long_as_their_scores(evaluations):
    root = ET.fromstring(chart(evaluations, "F1 & more"))
    tag = "{http://www.w3.org/2000/svg}"
    bars = [own for own in root.iter(f"{tag}rect") if own.get("height") == "12"]
    assert [float(bar.get("width")) for bar in bars] == [250, 300, 350, 400, 50, 100]
    texts = [own.text for own in root.iter(f"{tag}text")]
    assert {"F1 & more", "threshold 0.3", "per label", "crossner_ai", "<mine>", "60.0"} <= set(texts)
    height = float(root.get("height"))
    assert all(float(bar.get("y")) + 12 < height for bar in bars)


def test_a_label_that_is_not_asked_for_has_no_threshold():
    result = Result({"person": 0.7}, {"person": Score(10, 10, 5), "place": Score(3, 0, 0)})
    one = replace(result, threshold=0.5)
    assert shown(labels_table(Evaluation("mine", 10, 0, ("person",), (), True, False, (one,))))[3].split()[1] == "not"
    lines = shown(labels_table(Evaluation("mine", 10, 0, ("person",), (), True, False, (result,))))
    assert lines[3].split() == ["place", "not", "asked", "3", "0", "0.00", "0.00", "0.00"]

"""What commands read and show: labels, thresholds, marked texts."""

import pytest

from gliner_fast.cli.reading import WantedLabels, in_chunks, read_labels, read_thresholds
from gliner_fast.cli.showing import coloured, coloured_relations


def _plain(text, spans):
    entities = [{"start": s, "end": e, "label": label, "score": 0.5, "text": text[s:e]} for s, e, label in spans]
    return coloured(text, entities, ["a", "b"]).plain


@pytest.mark.parametrize(
    ("text", "spans", "shown"),
    [
        ("Ada in Rome", [(0, 3, "a"), (7, 11, "b")], "Ada a 0.50 in Rome b 0.50"),
        ("Ada in Rome", [], "Ada in Rome"),
        ("", [], ""),
        ("New York City", [(0, 13, "a"), (0, 8, "b")], "New York b 0.50 City a 0.50"),
        ("New York", [(0, 8, "a"), (0, 8, "b")], "New York a 0.50 b 0.50"),
        ("x\x1b[31mred\x07\r", [(0, 1, "a")], "x a 0.50\u241b[31mred\u2407\u240d"),
        ("\ud800 [bold]x[/]", [(2, 8, "a")], "\ufffd [bold] a 0.50x[/]"),
    ],
)
def test_entities_are_marked_where_they_stand(text, spans, shown):
    assert _plain(text, spans) == shown


def test_relations_are_a_line_each_below_their_text():
    def end(text, label):
        return {"start": 0, "end": len(text), "text": text, "type": label, "entity_idx": 0}

    relations = [
        {"head": end("Ada", "a"), "tail": end("New\n York", "b"), "relation": "lives in", "score": 0.876},
        {"head": end("\x1b[1m", "b"), "tail": end("[bold]x", "a"), "relation": "\x07", "score": 0.5},
    ]
    lines = coloured_relations(relations, ["a", "b"]).plain.split("\n")
    assert lines == ["", "  Ada → lives in → New York 0.88", "  \u241b[1m → \u2407 → [bold]x 0.50"]
    assert coloured_relations([], ["a"]).plain == ""


def test_chunks_and_settings():
    assert [len(chunk) for chunk in in_chunks(({"n": n} for n in range(5)), 2)] == [2, 2, 1]
    assert list(in_chunks([], 2)) == []
    assert read_labels(["a,b", "c"], None).labels == ["a", "b", "c"]
    assert read_thresholds(0.4, [], WantedLabels(["a"], {})) == 0.4
    assert read_thresholds(0.4, ["a=b=0.7"], WantedLabels(["a=b", "c"], {})) == {"a=b": 0.7, "c": 0.4}
    assert read_thresholds(0.4, ["a=0.7"], WantedLabels(["a", "b"], {"a": 0.1, "b": 0.2})) == {"a": 0.7, "b": 0.2}


@pytest.mark.parametrize(
    ("name", "content", "labels", "thresholds"),
    [
        ("l.txt", "person\n\n city, or town \n", ["person", "city, or town"], {}),
        ("l.txt", "[PER] a person\n{city}\n", ["[PER] a person", "{city}"], {}),
        ("l.json", '["a", "b"]', ["a", "b"], {}),
        ("l.JSON", '["a", "b"]', ["a", "b"], {}),
        ("l.jsn", ' ["a", "b"]', ["a", "b"], {}),
        ("l.json", '{"a": "first", "b": "second"}', {"a": "first", "b": "second"}, {}),
        ("l.json", '{"a": {"threshold": 0.7}, "b": {}}', ["a", "b"], {"a": 0.7}),
        ("l.json", '{"a": {"description": "first", "threshold": 1}, "b": "b"}', {"a": "first", "b": "b"}, {"a": 1.0}),
    ],
)
def test_labels_files_hold_names_descriptions_and_thresholds(name, content, labels, thresholds, tmp_path):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    wanted = read_labels([], file)
    assert (wanted.labels, wanted.thresholds) == (labels, thresholds)

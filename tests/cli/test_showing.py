"""What commands read and show: labels, thresholds, marked texts, and what would steer a terminal."""

import io
import json
import sys

import pytest

from gliner_fast.cli import _fail, _show_warning, main
from gliner_fast.cli.reading import WantedLabels, in_chunks, read_labels, read_thresholds
from gliner_fast.cli.showing import coloured, coloured_relations, show, tell, visible, visible_in_line

STEERING = "\x1b]0;title\x07\x1b[31m\u202e"
SHOWN = "\u241b]0;title\u2407\u241b[31m\ufffd"


class Terminal(io.StringIO):
    """A terminal, as far as programs ask."""

    def isatty(self):
        return True


def _plain(text, spans):
    entities = [{"start": s, "end": e, "label": label, "score": 0.5, "text": text[s:e]} for s, e, label in spans]
    return coloured(text, entities, [label for _, _, label in spans]).plain


@pytest.mark.parametrize(
    "text", ["", "Ada\tin\nRome", "a\rb\0c\x7f\x85", "\u200e\u061c\u2028\u2029\u202a\u2067", "\udce9"]
)
def test_what_steers_a_terminal_is_seen_one_character_for_one(text):
    for shown, kept in ((visible(text), "\t\n"), (visible_in_line(text), "")):
        assert len(shown) == len(text)
        assert all(character.isprintable() or character in kept for character in shown)
        assert all(own == other for own, other in zip(shown, text, strict=True) if other.isprintable())


def test_a_terminal_gets_no_raw_answer_and_a_pipe_no_other(monkeypatch, capsys):
    show(STEERING)
    assert capsys.readouterr().out == f"{STEERING}\n"
    monkeypatch.setattr(sys, "stdout", Terminal())
    show(f"{STEERING}\n")
    assert sys.stdout.getvalue() == f"{SHOWN}\n\n"


def test_errors_and_warnings_cannot_steer_a_terminal(capsys):
    assert _fail(f"{STEERING}\nof two lines") == 2
    _show_warning(UserWarning(f"{STEERING}\r\nof two"), UserWarning, "", 0)
    tell(f"caf\udce9{STEERING}")
    assert capsys.readouterr().err == (
        f"gliner-fast: error: {SHOWN} of two lines\ngliner-fast: warning: {SHOWN} of two\ncaf\\udce9{SHOWN}\n"
    )


@pytest.fixture
def checkpoint(tmp_path):
    """What `info` reads of one, with settings that would steer a terminal."""
    config = {"model_name": f"{STEERING}\n  runs here  yes", "words_splitter_type": STEERING, "encoder_config": {}}
    (tmp_path / "gliner_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return tmp_path


@pytest.fixture
def sentences(tmp_path):
    file = tmp_path / f"in{STEERING}.jsonl"
    row = {"tokenized_text": ["Ada", "lived"], "ner": [[0, 0, f"person{STEERING}"]]}
    file.write_text(f"{json.dumps(row)}\nbad\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("info", "checkpoint"), [f"({SHOWN}\u240a  runs here  yes)", f"split by {SHOWN},"]),
        (("data", "stats", "sentences"), [f"person{SHOWN} 1", f"in{SHOWN}.jsonl"]),
    ],
)
def test_commands_show_it_on_a_terminal_and_write_it_raw_elsewhere(command, told, request, monkeypatch, capsys):
    *command, file = command
    arguments = [*command, str(request.getfixturevalue(file))]
    with pytest.raises(SystemExit):
        main(arguments)
    raw, err = capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(SystemExit):
        main(arguments)
    shown = sys.stdout.getvalue()
    for own in told:
        assert own in shown
        assert own.replace(SHOWN, STEERING).replace("\u240a", "\n") in raw
    for own in (shown, err):
        assert not set(own) & {"\x07", "\u202e"}
        assert "\x1b]" not in own


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
        ("\u202eAda\u2069", [(1, 4, "a")], "\ufffdAda a 0.50\ufffd"),
        ("Ada", [(0, 3, "\u2066b\n\x9b")], "Ada \ufffdb\u240a\ufffd 0.50"),
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


def test_a_byte_order_mark_is_no_part_of_the_first_label(tmp_path):
    (tmp_path / "labels.txt").write_text("person\ncity\n", encoding="utf-8-sig")
    assert read_labels([], tmp_path / "labels.txt").names == ["person", "city"]

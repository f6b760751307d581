"""`gliner-fast data | evaluate | calibrate`: files in, JSON, tables and converted files out."""

import json

import pytest
import typer
from typer.testing import CliRunner

from gliner_fast.cli.calibrate import calibrate
from gliner_fast.cli.data import data
from gliner_fast.cli.evaluate import evaluate
from gliner_fast.cli.reading import InputError

RECORDS = [
    {"tokenized_text": ["Ada", "Lovelace", "lived", "in", "London", "."], "ner": [[0, 1, "person"], [4, 4, "city"]]},
    {"tokenized_text": ["Enrico", "Fermi", "left", "Rome", "."], "ner": [[0, 1, "person"], [3, 3, "else"]]},
]


@pytest.fixture
def run():
    """Runs a command; gives what it wrote to stdout and to stderr."""
    app = typer.Typer(rich_markup_mode="rich")
    app.add_typer(data, name="data")
    app.command()(evaluate)
    app.command()(calibrate)

    def runner(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout, result.stderr

    return runner


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "crossner_ai.jsonl"
    path.write_text("\n".join(map(json.dumps, RECORDS)))
    return path


def test_help_has_the_formats_of_annotated_data(run):
    out, _ = run("data", "--help")
    assert "ner is [first, last, label], in words from 0, the last one INCLUDED" in out
    assert '"ner": [[0, 1, "person"]]}' in out


def test_stats_count(run, file):
    out, _ = run("data", "stats", file)
    assert out.splitlines()[0] == str(file)
    assert "examples     2, 0 without a span, 0 duplicates" in out
    assert "labels       3: person 2, city 1, else 1" in out
    summary = json.loads(run("data", "stats", file, "--max-width", 1, "--json")[0])[str(file)]
    assert (summary["words"], summary["spans"], summary["wide_spans"]) == (11, 4, 2)
    assert "relations" not in out
    file.write_text('{"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]], "relations": [[0, 0, "is"], [0, 0, "is"]]}')
    assert "relations    1: is 2" in run("data", "stats", file)[0]


def test_stats_tell_each_kind_of_fault_once_and_count_all(file):
    bad = [{"tokenized_text": ["Ada"], "ner": [[0, last, "person"]]} for last in range(1, 30)]
    odd = [{**RECORDS[0], "abcdefghijklmnopqrstuvwxyz"[key]: 0} for key in range(25)]
    rows = [json.dumps(own) for own in (*bad, *odd)]
    file.write_text("\n".join([json.dumps(RECORDS[0]), "{", *rows, "{", json.dumps(RECORDS[1])]))
    app = typer.Typer(rich_markup_mode="rich")
    app.add_typer(data, name="data")
    result = CliRunner().invoke(app, ["data", "stats", str(file), str(file)])
    assert result.exit_code == 2
    assert result.stdout.count("examples     2, 0 without a span, 0 duplicates") == 2
    told = result.stderr.splitlines()
    assert len(told) == 2 * 21
    assert told[0].startswith(f"gliner-fast: error: {file}, line 2: not JSON")
    assert told[0].endswith(" (also line 57)")
    assert told[1].startswith(f"gliner-fast: error: {file}, line 3: ner[0] is [0, 1, 'person']")
    assert told[1].endswith(" (also line 4, line 5, line 6 and 25 more)")
    assert told[2].startswith(f"gliner-fast: error: {file}, line 32: unknown key 'a'")
    assert told[20] == f"gliner-fast: error: {file}: 56 faults; what is counted is the rest"
    result = CliRunner().invoke(app, ["data", "stats", str(file), "--json"])
    assert (result.exit_code, json.loads(result.stdout)[str(file)]["examples"]) == (2, 2)


def test_convert_goes_round_all_formats(run, file, tmp_path):
    run("data", "convert", file, tmp_path / "out.conll", "--to", "conll")
    assert (tmp_path / "out.conll").read_text().startswith("Ada\tB-person\nLovelace\tI-person\nlived\tO\n")
    run("data", "convert", tmp_path / "out.conll", tmp_path / "out.offsets.gz", "--to", "offsets")
    _, told = run("data", "convert", tmp_path / "out.offsets.gz", tmp_path / "out.jsonl", "--to", "gliner")
    assert told == f"{tmp_path / 'out.jsonl'}: 2 examples, 4 spans\n"
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == RECORDS


def test_a_dash_is_standard_output(run, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    text, told = run("data", "convert", file, "-", "--to", "gliner")
    assert [json.loads(line) for line in text.splitlines()] == RECORDS
    assert told == "-: 2 examples, 4 spans\n"
    text, _ = run("data", "sample", file, tmp_path / "drawn", "-k", 1, "--rest", "-")
    (rest,), (drawn,) = text.splitlines(), (tmp_path / "drawn").read_text().splitlines()
    assert sorted([rest, drawn]) == sorted(map(json.dumps, RECORDS))
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "drawn"])


def test_one_example_is_no_examples(run, tmp_path):
    file = tmp_path / "one.jsonl"
    file.write_text('{"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]]}')
    _, told = run("data", "convert", file, tmp_path / "out.jsonl", "--to", "gliner")
    assert told.endswith(": 1 example, 1 span\n")
    _, told = run("data", "sample", file, tmp_path / "drawn.jsonl", "-k", 1)
    assert told.endswith(": 1 example\n")
    _, told = run("evaluate", "built-in", file)
    assert "one: 1 sentence in " in told


def test_convert_renames_labels(run, file, tmp_path):
    run(
        "data",
        "convert",
        file,
        tmp_path / "out.jsonl",
        "--to",
        "gliner",
        "--rename",
        "city=a town",
        "--rename",
        "else=x",
    )
    labels = [
        label for line in (tmp_path / "out.jsonl").read_text().splitlines() for _, _, label in json.loads(line)["ner"]
    ]
    assert labels == ["person", "a town", "person", "x"]
    with pytest.raises(InputError, match="--rename 'city': expected OLD=NEW"):
        run("data", "convert", file, tmp_path / "out.jsonl", "--to", "gliner", "--rename", "city")


def test_sample_parts_a_file_into_training_and_test(run, tmp_path):
    words = [["one", str(number % 8)] for number in range(10)]  # the last two are the first two again
    source = tmp_path / "all.jsonl"
    source.write_text("\n".join(json.dumps({"tokenized_text": own, "ner": [[0, 0, "x"]]}) for own in words))

    def drawn(*arguments):
        outputs = [tmp_path / "train.jsonl", "--rest", tmp_path / "test.jsonl", "--overwrite"]
        run("data", "sample", source, *outputs, *arguments)
        return [
            [json.loads(line)["tokenized_text"][1] for line in (tmp_path / name).read_text().splitlines()]
            for name in ("train.jsonl", "test.jsonl")
        ]

    train, test = drawn("-k", 4)
    assert len(train) == 4
    assert not set(train) & set(test)
    assert set(train) | set(test) == set("01234567")
    assert drawn("-k", 4) == [train, test]
    assert drawn("-k", 4, "--seed", 1) != [train, test]
    assert drawn("-k", 7)[0][:4] == train
    assert drawn("-k", 10)[1] == []
    with pytest.raises(ValueError, match="11 examples are to be drawn, and there are 10"):
        drawn("-k", 11)


@pytest.mark.parametrize(
    ("source", "target", "rest", "names"),
    [("a", "a", "c", "IN and OUT"), ("a", "b", "a", "IN and --rest"), ("a", "b", "b", "OUT and --rest")],
)
def test_sample_writes_nothing_over_another_file(run, file, source, target, rest, names):
    paths = {"a": file, "b": file.with_name("b"), "c": file.with_name("c")}
    before = file.read_bytes()
    with pytest.raises(InputError, match=f"{names} are the same file"):
        run("data", "sample", paths[source], paths[target], "-k", 1, "--rest", paths[rest])
    assert file.read_bytes() == before
    assert not paths["b"].exists()


def test_evaluate_writes_table_json_and_chart(run, file, tmp_path):
    out, told = run(
        "evaluate", "built-in", file, "--thresholds", "0.3,0.5",
        "--json", tmp_path / "scores.json", "--chart", tmp_path / "f1.svg", "--per-label",
    )  # fmt: skip
    assert len([line for line in out.splitlines() if line.startswith("crossner_ai  0.")]) == 2
    assert len([line for line in out.splitlines() if line.startswith("person ")]) == 2
    assert "crossner_ai: 2 sentences in" in told
    assert "'else' is asked for and counts like any label" in told
    record = json.loads((tmp_path / "scores.json").read_text())
    assert record["sets"][0]["asked"] == ["person", "city", "else"]
    assert [result["threshold"] for result in record["sets"][0]["results"]] == [0.3, 0.5]
    assert record["sets"][0]["results"][1]["labels"]["person"]["f1"] == 100.0
    assert (tmp_path / "f1.svg").read_text().startswith("<svg")


def test_labels_are_given_or_lie_beside_the_file(run, file):
    (file.parent / "crossner_ai.labels.json").write_text('["person", "city", "else", "date"]')
    out, told = run("evaluate", "built-in", file, "--ignore-label", "else", "--json", "-")
    (own,) = json.loads(out)["sets"]
    assert (own["asked"], own["ignored"]) == (["person", "city", "date"], ["else"])
    assert own["results"][0]["gold"] == 3
    assert "else" not in told
    out, _ = run("evaluate", "built-in", file, "-l", "person", "--limit", 1, "--json", "-")
    (own,) = json.loads(out)["sets"]
    assert (own["asked"], own["examples"], own["results"][0]["gold"]) == (["person"], 1, 2)


def test_what_calibrate_writes_is_a_labels_file(run, file, tmp_path):
    chosen = tmp_path / "labels.json"
    _, told = run("calibrate", "built-in", file, "-o", chosen, "--min-entities", 1, "--json", tmp_path / "report.json")
    assert "one for each label    F1" in told
    thresholds = {label: fields["threshold"] for label, fields in json.loads(chosen.read_text()).items()}
    assert set(thresholds) == {"person", "city", "else"}
    best = json.loads((tmp_path / "report.json").read_text())["per_label"]
    assert best["threshold"] == thresholds
    out, _ = run("evaluate", "built-in", file, "--labels-file", chosen, "--json", "-")
    usual, own = json.loads(out)["sets"][0]["results"]
    assert own["threshold"] == thresholds
    assert own["f1"] == best["same"]["f1"] >= usual["f1"]


def test_calibrate_warns_of_few_entities(run, file):
    _, told = run("calibrate", "built-in", file)
    assert "warning: 4 entities annotated, in 2 sentences: of fewer than 100 F1 is known to some 10 points" in told
    file.write_text("\n".join(map(json.dumps, RECORDS * 25)))
    _, told = run("calibrate", "built-in", file)
    assert "warning" not in told


@pytest.mark.parametrize("command", [("calibrate", "-o"), ("calibrate", "--json"), ("evaluate", "--json")])
@pytest.mark.parametrize("labels", [[], ["-l", "person"]])
def test_the_labels_beside_the_data_are_not_written_over(run, file, tmp_path, command, labels):
    beside = tmp_path / "crossner_ai.labels.json"
    beside.write_text('{"person": {"description": "by hand"}}')
    with pytest.raises(InputError, match=r"the labels beside DATA and --\w+ are the same file, .*: name another one"):
        run(command[0], "no-model", file, *labels, command[1], beside)
    assert "by hand" in beside.read_text()


def test_calibrate_writes_scores_to_stdout_where_the_labels_do_not_go_there(run, file, tmp_path):
    out, _ = run("calibrate", "built-in", file, "-o", tmp_path / "labels.json", "--json", "-")
    assert json.loads(out)["per_label"]["threshold"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "labels.json"]
    with pytest.raises(InputError, match="--output and --json would share stdout: give one of them a file"):
        run("calibrate", "built-in", file, "--json", "-")


def test_what_is_missing_is_told_before_a_model_is_loaded(run, file, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.jsonl"):
        run("evaluate", "no-model", file, tmp_path / "missing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("?")
    with pytest.raises(FileNotFoundError, match="missing.jsonl"):
        run("data", "stats", broken, tmp_path / "missing.jsonl")
    nowhere = tmp_path / "nowhere" / "file"
    for arguments in (["evaluate", "--json"], ["evaluate", "--chart"], ["calibrate", "-o"], ["calibrate", "--json"]):
        with pytest.raises(InputError, match=r"nowhere/file cannot be written: there is no folder .*/nowhere"):
            run(arguments[0], "no-model", file, arguments[1], nowhere)


@pytest.mark.parametrize("given", ["", "0.5,", "high", "0.5,1.5"])
def test_bad_thresholds_are_refused(run, file, given):
    with pytest.raises(InputError, match=r"--thresholds .*: expected numbers from 0 to 1, such as 0.3,0.5"):
        run("evaluate", "built-in", file, "--thresholds", given)


def test_two_sets_of_one_name_are_refused(run, file):
    with pytest.raises(InputError, match="two sets are named 'crossner_ai'"):
        run("evaluate", "built-in", file, file)

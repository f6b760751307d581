"""Files of annotated sentences -> examples: every format gives the same, and what is wrong is told by file and line."""

import gzip
import json
import re

import datasets
import numpy as np
import pytest

from gliner_fast.annotated import DataError, Example, read_examples
from gliner_fast.annotated.examples import examples_from_records, labels_of, rename_labels
from gliner_fast.annotated.summary import summarise
from gliner_fast.annotated.writers import write_examples

ADA = Example(("Ada", "Lovelace", "lived", "in", "London"), ((0, 2, "person"), (4, 5, "big city")))
SHE = Example(("She", "sang"), ())

GLINER = [
    {"tokenized_text": list(ADA.words), "ner": [[0, 1, "person"], [4, 4, "big city"]], "text": "unread"},
    {"tokenized_text": ["She", "sang"], "ner": []},
]
OFFSETS = [
    {"text": "Ada Lovelace lived\nin London", "entities": [[0, 12, "person"], [22, 28, "big city"]]},
    {"text": "She sang", "entities": []},
]
OBJECTS = [
    {
        "text": "Ada Lovelace lived in London",
        "spans": [
            {"start": 0, "end": 12, "label": "person", "score": 0.9, "text": "Ada Lovelace"},
            {"start": 22, "end": 28, "label": "big city"},
        ],
    },
    {"text": "She sang", "spans": []},
]
SPACY = [[row["text"], {"entities": row["entities"]}] for row in OFFSETS]
TAGS = [
    {"tokens": list(ADA.words), "ner_tags": ["B-person", "I-person", "O", "O", "B-big city"]},
    {"tokens": ["She", "sang"], "ner_tags": ["O", "O"]},
]
CONLL = (
    "-DOCSTART-\tO\n\n# id 7 domain=en\nAda\tB-person\nLovelace\tI-person\nlived\tO\nin\tO\nLondon\tB-big city\n\n\n"
    "She\tO\nsang\tO"
)


def _lines(records):
    return "\n".join(map(json.dumps, records)) + "\n"


def _written(tmp_path, content, name="data"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("records", [GLINER, OFFSETS, OBJECTS, SPACY, TAGS], ids=lambda records: str(records[0])[:20])
def test_every_json_format_is_recognised_as_lines_and_as_a_list(records, tmp_path):
    for content in (
        _lines(records),
        "\ufeff" + _lines(records).replace("\n", "\r\n\r\n"),
        json.dumps(records),
        json.dumps(records, indent=2) + "\n",
    ):
        assert read_examples(_written(tmp_path, content)) == [ADA, SHE]
    assert read_examples(_written(tmp_path, gzip.compress(_lines(records).encode()))) == [ADA, SHE]
    assert examples_from_records(records) == [ADA, SHE]


def test_conll_passes_over_comments_and_document_starts(tmp_path):
    for content in (CONLL, CONLL.replace("\n", "\r\n"), CONLL + "\n\n"):
        assert read_examples(_written(tmp_path, content)) == [ADA, SHE]


def test_a_hashtag_is_a_word_and_no_comment(tmp_path):
    path = _written(tmp_path, "# text = #Paris rocks\n#Paris B-city\nrocks O\n\n# O\nwins O\n")
    assert [(example.words, example.spans) for example in read_examples(path)] == [
        (("#Paris", "rocks"), ((0, 1, "city"),)),
        (("#", "wins"), ()),
    ]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-a I-a O B-a", [(0, 2, "a"), (3, 4, "a")]),  # IOB2
        ("I-a I-a B-a I-b O I-b", [(0, 2, "a"), (2, 3, "a"), (3, 4, "b"), (5, 6, "b")]),  # IOB1
        ("S-a B-a I-a E-a I-a O", [(0, 1, "a"), (1, 4, "a"), (4, 5, "a")]),  # BIOES
        ("U-a U-a B-a L-a B-b", [(0, 1, "a"), (1, 2, "a"), (2, 4, "a"), (4, 5, "b")]),  # BILOU
        ("B-a-b I-a-b I-a", [(0, 2, "a-b"), (2, 3, "a")]),
        ("O O", []),
    ],
)
def test_tags_of_every_scheme(tags, spans, tmp_path):
    rows = "".join(f"word {tag}\n" for tag in tags.split())
    (example,) = read_examples(_written(tmp_path, rows))
    assert list(example.spans) == spans


def test_conll_columns_may_stand_anywhere(tmp_path):
    path = _written(tmp_path, "#1 Ada B-person x\n#2 sang O x\n")
    (example,) = read_examples(path, format="conll", word_column=1, tag_column=2)
    assert example == Example(("Ada", "sang"), ((0, 1, "person"),))


def test_datasets_with_class_labels_come_from_folders_parquet_and_memory(tmp_path):
    names = ["O", "B-person", "I-person", "B-big city"]
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.Sequence(datasets.Value("string")),
            "pos_tags": datasets.Sequence(datasets.Value("int64")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=names)),
        }
    )
    table = datasets.Dataset.from_dict(
        {
            "id": ["0", "1"],
            "tokens": [ADA.words, SHE.words],
            "pos_tags": [[1] * 5, [1] * 2],
            "ner_tags": [[1, 2, 0, 0, 3], [0, 0]],
        },
        features=features,
    )
    splits = datasets.DatasetDict({"train": table, "dev": table})
    splits.save_to_disk(str(tmp_path / "saved"))
    table.to_parquet(str(tmp_path / "table.parquet"))
    assert read_examples(tmp_path / "saved" / "train") == [ADA, SHE]
    assert read_examples(tmp_path / "table.parquet") == [ADA, SHE]
    assert examples_from_records(table) == [ADA, SHE]
    assert examples_from_records(table.to_iterable_dataset()) == [ADA, SHE]
    with pytest.raises(DataError, match=r"saved holds the splits train, dev: name one, such as .*saved/train"):
        read_examples(tmp_path / "saved")
    with pytest.raises(DataError, match="is no folder of a Dataset"):
        read_examples(tmp_path)


TAGGED = datasets.Features(
    {
        "tokens": datasets.Sequence(datasets.Value("string")),
        "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-person"])),
    }
)


def test_a_hidden_tag_is_no_label(tmp_path):
    table = datasets.Dataset.from_dict({"tokens": [["a"], ["b", "c"]], "ner_tags": [[1], [0, -1]]}, TAGGED)
    table.save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"/saved, row 1: ner_tags\[1\] is -1: expected the number of .*, 0 to 1"):
        read_examples(tmp_path / "saved")


@pytest.mark.parametrize("number", [-1, 2, -100, None])
def test_a_number_without_a_name_is_named(number):
    class Rows(list):
        """Rows that `datasets` itself would not store."""

        features, column_names = TAGGED, list(TAGGED)

        def select_columns(self, columns):
            return [{name: row[name] for name in columns} for row in self]

    rows = Rows([{"tokens": ["a", "b"], "ner_tags": [0, 1]}, {"tokens": ["a", "b"], "ner_tags": [0, number]}])
    assert examples_from_records(Rows(rows[:1])) == [Example(("a", "b"), ((1, 2, "person"),))]
    with pytest.raises(DataError, match=rf"^dev\[1\]: ner_tags\[1\] is {number}: expected the number"):
        examples_from_records(rows, "dev")


def test_a_stream_that_does_not_know_its_columns_gives_plain_records():
    stream = datasets.IterableDataset.from_generator(lambda: iter(GLINER))
    assert stream.column_names is None
    assert examples_from_records(stream) == [ADA, SHE]


def test_records_in_memory_may_hold_what_gliner_takes():
    first, last = np.array([0, 1])
    ner = [[first, last, "person"], [np.int32(4), 4, "big city"]]
    rows = [{**GLINER[1], "id": 3, "source": "x"}, {**GLINER[0], "ner": ner}]
    with pytest.warns(UserWarning, match=r"^dev: keys that are not read: 'id', 'source'$"):
        assert examples_from_records(rows, "dev") == [SHE, ADA]
    for wrong in (True, np.True_, 0.0, "0"):
        with pytest.raises(DataError, match="expected whole numbers"):
            examples_from_records([{"tokenized_text": ["a"], "ner": [[wrong, 0, "x"]]}])


def test_a_word_of_a_column_file_may_hold_a_no_break_space(tmp_path):
    (example,) = read_examples(_written(tmp_path, "10\u00a0000   O\nAda  B-person \n"))
    assert example == Example(("10\u00a0000", "Ada"), ((1, 2, "person"),))


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0", "\x0b"])
def test_columns_may_be_parted_by_other_blanks(blank, tmp_path):
    (example,) = read_examples(_written(tmp_path, f"so{blank}O\nAda{blank}B-person\n\n"))
    assert example == Example(("so", "Ada"), ((1, 2, "person"),))


def test_labels_and_negatives_come_along(tmp_path):
    record = GLINER[0] | {"ner_labels": ["person", "big city", "date"], "ner_negatives": ["food"]}
    (example,) = read_examples(_written(tmp_path, _lines([record])))
    assert (example.labels, example.negatives) == (("person", "big city", "date"), ("food",))


def _gliner(ner, words=("Ada", "sang"), **more):
    return json.dumps({"tokenized_text": list(words), "ner": ner, **more})


GOOD = _gliner([])

BAD_LINES = [
    # (line 2 of a JSON file after a good line 1, what the error says after "FILE, line 2")
    (_gliner([[0, 2, "a"]]), r": ner\[0\] is \[0, 2, 'a'\], and the text has 2 words, 0 to 1"),
    (_gliner([[-1, 0, "a"]]), r": ner\[0\] is \[-1, 0, 'a'\], and the text has 2 words"),
    (_gliner([[0, 0, "a"], [1, 0, "a"]]), r": ner\[1\] is \[1, 0, 'a'\]: it ends before it begins"),
    (_gliner([[0, 0]]), r": ner\[0\] is \[0, 0\]: expected \[start, end, label\]"),
    (_gliner([["0", 0, "a"]]), r": ner\[0\] .*: expected whole numbers"),
    (_gliner([[True, 1, "a"]]), r": ner\[0\] .*: expected whole numbers"),
    (_gliner([[0, 0, 7]]), r": ner\[0\] .*: its label is 7, expected a string"),
    (_gliner([[0, 0, " "]]), r": ner\[0\] .*: its label is ' ', expected a string that is not empty"),
    (_gliner({}), r": ner is \{\}: expected a list"),
    (_gliner([], words=()), r": tokenized_text is empty"),
    (_gliner([], words=("Ada", "")), r": tokenized_text\[1\] is '': expected a word"),
    (_gliner([], words=("Ada", 3)), r": tokenized_text\[1\] is 3: expected a word"),
    (_gliner([], negatives=[]), r": unknown key 'negatives': expected tokenized_text, ner, .*--ignore-key negatives"),
    (_gliner([], ner_labels=[1]), r": ner_labels\[0\] is 1: expected a string"),
    (_gliner([], ner_labels="person"), r": ner_labels is 'person': expected a list"),
    (_gliner([[0, 0, "a"]], ner_labels=["b"]), r": ner\[0\] has the label 'a', which is not among the ner_labels"),
    (_gliner([[0, 0, "a"]], ner_negatives=["a"]), r": ner\[0\] has the label 'a', which is among the ner_negatives"),
    ('{"tokenized_text": ["Ada"]}', r": 'ner' is missing"),
    (GOOD[:-1], r": not JSON \(Expecting .*Does this one go on in the next line\?$"),
    ("{'tokenized_text': []}", r": not JSON \(Expecting .*, or one list of them$"),
    ("[1, 2]", r": a list: expected an object such as"),
    ('{"sentence": "Ada"}', r": 'tokenized_text' is missing"),
    (json.dumps(OFFSETS[0]), r": a record of the format 'offsets', and .*data, line 1 has 'gliner': one file"),
    (json.dumps(TAGS[0]), r": a record of the format 'tags', and"),
]


@pytest.mark.parametrize(("line", "message"), BAD_LINES, ids=[message[:40] for _, message in BAD_LINES])
def test_bad_json_lines_are_named(line, message, tmp_path):
    path = _written(tmp_path, f"{GOOD}\n{line}\n{GOOD}\n")
    with pytest.raises(DataError, match=rf"^.*/data, line 2{message}"):
        read_examples(path)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"text": "Ada", "entities": [[0, 4, "a"]]}],
            r"entities\[0\] is \[0, 4, 'a'\], and the text has 3 characters",
        ),
        ([{"text": "Ada", "entities": [[1, 1, "a"]]}], r"expected 0 <= start < end <= 3"),
        ([{"text": " ", "entities": []}], r"text has no words"),
        ([{"text": 3, "entities": []}], r"text is 3: expected a string"),
        ([{"text": "Ada"}], r"none of 'entities', 'spans', 'label', 'labels': expected one of them"),
        ([{"text": "Ada", "entities": [], "spans": []}], r"'entities' and 'spans' of"),
        ([{"text": "Ada", "entities": [{"start": 0, "end": 3}]}], r"entities\[0\]: 'label' is missing"),
        ([{"tokens": ["a", "b"], "ner_tags": ["O"]}], r"1 ner_tags for 2 tokens"),
        ([{"tokens": ["a", "b"], "ner_tags": ["O"] * 3}], r"3 ner_tags for 2 tokens"),
        ([{"tokens": ["a"], "ner_tags": [1]}], r"ner_tags\[0\] is 1: expected a string, .* ClassLabel"),
        ([{"tokens": ["a"], "ner_tags": ["person"]}], r"ner_tags\[0\] is 'person'"),
        ([{"words": 3}], r"no format has these keys \('words'\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_records_of_other_formats_are_named(records, message, tmp_path):
    with pytest.raises(DataError, match=rf"/data.json, line 1: .*{message}|/data.json, line 1: {message}"):
        read_examples(_written(tmp_path, _lines(records), "data.json"))
    with pytest.raises(DataError, match=r"^dev\[0\]: "):
        examples_from_records(records, "dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ada O\nsang\n", r"line 2: 1 columns, and the rows before have 2"),
        ("Ada O\nsang x O\n", r"line 2: 3 columns, and the rows before have 2"),
        ("Ada\n", r"line 1: 'Ada' stands alone"),
        ("Ada O\n\nLondon city\n", r"line 3: the tag in column -1 is 'city': expected O"),
        ("Ada B-\n", r"line 1: the tag in column -1 is 'B-'"),
        ("Ada\tB-person\t\n", r"line 1: the tag in column -1 is '': .* the line ends with a tab"),
        ("Ada\tO\n\n#Paris\tcity\n", r"line 3: the tag in column -1 is 'city'"),
        ("Ada\tO\n\tO\n", r"line 2: the word in column 0 is empty"),
        (b"Ada O\n\nZo\xeb O\n", r"line 3: not UTF-8 \(.* at byte 3"),
        ("", r"holds no examples"),
        ("\n\n", r"holds no examples"),
    ],
)
def test_bad_columns_are_named(content, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_examples(_written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"[\n{GOOD},\n{GOOD}\n", 3),  # the end is missing
        (f"[\n{GOOD}\n{GOOD}]", 3),  # the comma is missing
        (f"[{GOOD},\n\n]", 3),
        (f"[{GOOD}\n] x", 2),
        (f"\n[\n{GOOD},\n{GOOD[:-1]}]", 4),
        (f"[{GOOD},\n\n{_gliner([[3, 3, 'a']])}]", 3),
    ],
)
def test_bad_json_lists_are_named_by_line(content, line, tmp_path):
    with pytest.raises(DataError, match=rf"/data, line {line}: "):
        read_examples(_written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (f"{{}}\n{GOOD}\n{{\n\n{_gliner([[3, 3, 'a']])}\n{GOOD}\n", [1, 3, 5]),
        (f"[{GOOD},\n[],\n{GOOD},\n{GOOD[:-1]}", [2, 4]),  # the list cannot be read on
        # Sentences with a bad row are left out whole, and a comment in one is a row of it.
        ("A O\n\nB\n# c\nC O\n\n# d\nD O\nE x\nF O O\n\nAda O\n", [3, 4, 9, 10]),
        (b"A O\n\nAda O\n\nZo\xeb O\n\nB O\n", [5]),  # nor what is not UTF-8
        ("A\n", [1]),
    ],
)
def test_faults_are_reported_and_the_rest_is_read(content, lines, tmp_path):
    faults = []
    path = _written(tmp_path, content)
    examples = read_examples(path, report=faults.append)
    assert [re.match(rf"{path}, line (\d+): ", str(fault))[1] for fault in faults] == [str(line) for line in lines]
    assert len(examples) == (0 if content == "A\n" else 2)
    with pytest.raises(DataError, match=rf"/data, line {lines[0]}: "):
        read_examples(path)
    for empty, message in (("\n", "holds no examples"), (b"\xeb O\n", "line 1: not UTF-8")):
        with pytest.raises(DataError, match=message):
            read_examples(_written(tmp_path, empty), report=faults.append)


def test_csv_is_refused_by_its_name(tmp_path):
    path = _written(tmp_path, "Ada B-person\nsang O\n", "data.csv")
    with pytest.raises(DataError, match=r"/data.csv: CSV is not read: expected JSON, .* \(--format conll\)"):
        read_examples(path)
    (example,) = read_examples(path, format="conll")
    assert example.spans == ((0, 1, "person"),)


def test_a_broken_gzip_file_is_named(tmp_path):
    whole = gzip.compress(_lines(GLINER * 2000).encode())
    with pytest.raises(DataError, match=r"/data.jsonl.gz, after line \d+: broken gzip file"):
        read_examples(_written(tmp_path, whole[: len(whole) // 2], "data.jsonl.gz"))


def test_spans_off_the_word_borders_are_an_error_or_left_out_and_counted(tmp_path):
    record = {"text": "Ada Lovelace sang", "entities": [[0, 3, "person"], [0, 7, "person"], [3, 12, "person"]]}
    path = _written(tmp_path, _lines([record]))
    with pytest.raises(
        DataError, match=r"line 1: entities\[1\] is 'Ada Lov', which does not begin and end with a word"
    ):
        read_examples(path)
    with pytest.warns(UserWarning, match=r"2 spans left out for not beginning .*, such as 'Ada Lov'"):
        (example,) = read_examples(path, misaligned="drop")
    assert example.spans == ((0, 1, "person"),)


def test_keys_may_be_passed_over_and_formats_named(tmp_path):
    path = _written(tmp_path, _lines([OFFSETS[1] | {"id": 7}]))
    assert read_examples(path, ignore_keys=["id"]) == [SHE]
    with pytest.raises(DataError, match=r"line 1: unknown key 'id': .* ignore_keys"):
        read_examples(path)
    with pytest.raises(DataError, match=r"line 1: a record of the format 'offsets', and asked for is 'gliner'"):
        read_examples(path, format="gliner")
    with pytest.raises(ValueError, match=r"format is 'csv': expected one of gliner"):
        read_examples(path, format="csv")


@pytest.mark.parametrize(
    ("record", "key"),
    [(OFFSETS[1], "label"), (OFFSETS[1], "tokenized_text"), (TAGS[1], "labels"), (TAGS[1], "ner")],
)
def test_a_key_that_is_passed_over_may_be_that_of_another_format(record, key, tmp_path):
    path = _written(tmp_path, _lines([record | {key: "sports"}]))
    assert read_examples(path, ignore_keys=[key]) == [SHE]
    with pytest.raises(DataError, match="line 1"):
        read_examples(path)


def test_of_two_keys_for_one_thing_one_can_be_passed_over(tmp_path):
    path = _written(tmp_path, _lines([OFFSETS[1] | {"label": "sports"}]))
    with pytest.raises(DataError, match=r"expected one of them; to pass over one, .*--ignore-key label"):
        read_examples(path)


@pytest.mark.parametrize("to", ["gliner", "conll", "offsets"])
@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_what_is_written_is_read_again(to, name, tmp_path):
    write_examples([ADA, SHE], tmp_path / name, to)
    assert read_examples(tmp_path / name) == [ADA, SHE]


@pytest.mark.parametrize("word", ["{", "{}", "[", "[]", "[[", "[{", "{'", '["'])
@pytest.mark.parametrize("gap", ["\t", " "])
def test_columns_may_begin_with_a_bracket(word, gap, tmp_path):
    path = _written(tmp_path, f"{word}{gap}O\nAda{gap}B-person\n")
    assert read_examples(path) == [Example((word, "Ada"), ((1, 2, "person"),))]


@pytest.mark.parametrize("name", ["data.conll", "data.BIO", "data.tsv", "data.conll.gz"])
def test_columns_may_begin_as_json_does_under_a_name_of_theirs(name, tmp_path):
    examples = [Example(('{"', "Ada"), ((1, 2, "person"),))]
    write_examples(examples, tmp_path / name, "conll")
    assert read_examples(tmp_path / name) == examples


def test_blanks_at_the_end_of_a_row_are_no_column(tmp_path):
    assert read_examples(_written(tmp_path, "Ada B-person\t\nsang O \n")) == [
        Example(("Ada", "sang"), ((0, 1, "person"),))
    ]


def test_gliner_keeps_labels_and_conll_refuses_what_it_cannot_say(tmp_path):
    full = Example(("Ada", "sang"), ((0, 1, "a"), (0, 2, "b")), ("a", "b"), ("c",))
    write_examples([full], tmp_path / "out", "gliner")
    assert read_examples(tmp_path / "out") == [full]
    with pytest.raises(DataError, match=r"example 1: the spans \(0, 1, 'a'\) and \(0, 2, 'b'\) overlap"):
        write_examples([full], tmp_path / "out", "conll")
    with pytest.raises(DataError, match=r"example 2: 'a\\tb' with 'O' holds a tab"):
        write_examples([SHE, Example(("a\tb",), ())], tmp_path / "out", "conll")
    with pytest.raises(DataError, match=r"example 1: the word '-DOCSTART-' parts documents in conll"):
        write_examples([Example(("-DOCSTART-",), ())], tmp_path / "out", "conll")
    with pytest.raises(DataError, match="the tag 'B-person ' begins or ends with a blank, which conll does not keep"):
        write_examples([Example(("Ada",), ((0, 1, "person "),))], tmp_path / "out", "conll")


def test_a_summary_counts():
    wide = Example(tuple("abcdefghijklmn"), ((0, 13, "x"), (0, 13, "x"), (2, 3, "person")))
    summary = summarise([ADA, SHE, ADA, wide])
    assert (summary.examples, summary.empty_examples, summary.duplicate_examples) == (4, 1, 1)
    assert (summary.words, summary.words_per_example) == (26, (2, 5, 14, 14))
    assert (summary.spans, summary.repeated_spans, summary.overlapping_examples) == (7, 1, 1)
    assert (summary.span_widths, summary.wide_spans) == ((1, 2, 13, 13), 2)
    assert summary.labels == {"person": 3, "big city": 2, "x": 2}
    assert summarise([SHE]).span_widths == (0, 0, 0, 0)
    linked = Example(("Ada", "Bob"), ((0, 1, "a"), (1, 2, "a")), relations=((0, 1, "x"), (1, 0, "y"), (1, 0, "x")))
    assert summarise([linked, linked]).relations == {"x": 4, "y": 2}
    assert labels_of([ADA, SHE, wide]) == ["person", "x", "big city"]


def test_labels_are_renamed_everywhere():
    linked = ((0, 1, "PER"),), ("PER",)  # as relations are called stays
    coded = Example(("Ada", "sang"), ((0, 1, "PER"), (1, 2, "x")), ("PER", "person", "x"), ("LOC",), *linked)
    renamed = Example(("Ada", "sang"), ((0, 1, "person"), (1, 2, "x")), ("person", "x"), ("location",), *linked)
    assert rename_labels([coded, SHE], {"PER": "person", "LOC": "location"}) == [renamed, SHE]
    both = Example(("Ada",), ((0, 1, "PER"),), None, ("person", "city"))
    assert rename_labels([both], {"PER": "person"}) == [Example(("Ada",), ((0, 1, "person"),), None, ("city",))]
    with pytest.raises(ValueError, match="no example has the label 'ORG'; there are 'LOC', 'PER', 'person', 'x'"):
        rename_labels([coded], {"ORG": "organization"})


def test_characters_are_counted_in_the_words_of_a_splitter(tmp_path):
    record = {"text": "北京大学的李明", "entities": [[0, 4, "university"], [5, 7, "person"]]}
    path = _written(tmp_path, _lines([record]))

    def split(text):
        return [(text[start:end], start, end) for start, end in ((0, 4), (4, 5), (5, 7))]

    (example,) = read_examples(path, splitter=split)
    assert (example.words, example.spans) == (("北京大学", "的", "李明"), ((0, 1, "university"), (2, 3, "person")))
    assert examples_from_records([record], splitter=split) == [example]
    with pytest.raises(DataError, match="which does not begin and end with a word"):
        read_examples(path)


def test_a_span_has_all_words_that_stand_at_its_ends():
    record = {"text": "zum Haus", "entities": [[0, 8, "place"]]}
    parts = [("zu", 0, 3), ("dem", 0, 3), ("Ha", 4, 8), ("us", 4, 8)]
    (example,) = examples_from_records([record], splitter=lambda _: parts)
    assert (example.words, example.spans) == (("zu", "dem", "Ha", "us"), ((0, 4, "place"),))


def test_damaged_parquet_is_told_by_its_name(tmp_path):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "table.parquet"
    datasets.Dataset.from_dict({"tokens": [["Ada"]], "ner_tags": [["O"]]}).to_parquet(str(path))
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[-8:-4], "little")
    content[-8 - size : -size] = b"\xff" * 8
    for damaged in (bytes(content), path.read_bytes()[:-20]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"(?s)table\.parquet cannot be read as Parquet .*is it cut off"):
            read_examples(path)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        ("{}\n" + "[" * 200_000, 2, "nested deeper than JSON is read"),
        ('[\n{"x": ' + "[" * 200_000, 2, "nested deeper than JSON is read"),
        ('[\n{"x": ' + "9" * 5000 + "}]", 2, "not JSON .*4300"),
    ],
)
def test_json_that_python_cannot_read_is_told_by_its_line(tmp_path, content, place, message):
    path = tmp_path / "data.json"
    path.write_text(content)
    faults: list[Exception] = []
    try:
        read_examples(path, report=faults.append)
    except DataError as error:
        faults.append(error)
    assert re.search(f"data.json, line {place}: {message}", str(faults[-1]))


@pytest.mark.parametrize("to", ["gliner", "offsets"])
def test_halves_of_characters_are_written_with_escapes(tmp_path, to):
    example = Example(("Ada\ud800", "sang"), ((0, 1, "person"),))
    write_examples([example, ADA], tmp_path / "out.jsonl", to)
    assert "\\ud800" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    if to == "gliner":
        assert read_examples(tmp_path / "out.jsonl") == [example, ADA]


@pytest.mark.parametrize("word", ["\ufeff", "\ufeffAda"])
@pytest.mark.parametrize("to", ["gliner", "conll"])
def test_a_first_word_that_begins_as_a_byte_order_mark_does_is_kept(word, to, tmp_path):
    examples = [Example((word, "sang"), ((0, 1, "person"),)), ADA]
    write_examples(examples, tmp_path / "out", to)
    assert read_examples(tmp_path / "out") == examples


def test_conll_has_no_place_for_halves_of_characters(tmp_path):
    with pytest.raises(DataError, match="example 1: .* holds half a character"):
        write_examples([Example(("Ada\ud800",), ())], tmp_path / "out.conll", "conll")
    assert not (tmp_path / "out.conll").exists()

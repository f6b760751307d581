"""Jobs from files to files: every choice that a user has."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gliner_fast import GLiNER, JobError, JobInputError, Redaction, extract_files
from gliner_fast.jobs import job as job_module
from gliner_fast.jobs import local_engine
from gliner_fast.jobs.job_folder import SliceRecord
from gliner_fast.jobs.progress import Pace, Watch
from gliner_fast.jobs.report import JobReport
from tests.jobs.conftest import as_told, read_jsonl, texts_of, write_jsonl, write_lines
from tests.samples import BOOKS, CROSSNER, LABELS

OPTIONS: dict[str, Any] = {"threshold": 0.3, "rows_per_shard": 100}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of(150)


@pytest.fixture(scope="module")
def expected(small_model: GLiNER, texts: list[str]) -> list[list[tuple[Any, ...]]]:
    found = small_model.inference(texts, LABELS, threshold=0.3)
    assert sum(map(len, found)) > 100
    return [as_told(own) for own in found]


def write_parquet(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, row_group_size=64)
    return path


def write_csv(path: Path, texts: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))
    return path


def write_gzip_jsonl(path: Path, texts: list[str]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts))
    return path


SOURCES: list[tuple[str, Callable[[Path, list[str]], Path]]] = [
    ("in.parquet", write_parquet),
    ("in.csv", write_csv),
    ("in.jsonl.gz", write_gzip_jsonl),
    ("in.txt", write_lines),
]


def read_output(output: Path) -> list[dict[str, Any]]:
    if output.is_dir():
        return [row for shard in sorted(output.glob("shard-*")) for row in read_output(shard)]
    if output.suffix == ".parquet":
        return pq.read_table(output).to_pylist()
    if output.suffix == ".gz":
        return [json.loads(line) for line in gzip.decompress(output.read_bytes()).splitlines()]
    return read_jsonl(output)


@pytest.mark.parametrize(("name", "write"), SOURCES, ids=[name for name, _ in SOURCES])
@pytest.mark.parametrize("output", ["found.parquet", "found.jsonl", "found.jsonl.gz", "found"])
def test_every_input_to_every_output(
    name: str,
    write: Callable[[Path, list[str]], Path],
    output: str,
    small_model: GLiNER,
    texts: list[str],
    expected: list[list[tuple[Any, ...]]],
    tmp_path: Path,
):
    source = write(tmp_path / name, texts)
    report = extract_files(source, tmp_path / output, LABELS, model=small_model, **OPTIONS)
    rows = read_output(tmp_path / output)
    assert [row["text"] for row in rows] == texts
    assert [as_told(row["entities"]) for row in rows] == expected
    if name != "in.txt":
        assert [int(row["id"]) for row in rows] == list(range(len(texts)))
    assert (report.is_complete, report.rows, report.rejects) == (True, len(texts), 0)
    assert report.entities == sum(map(len, expected))
    assert report.shards == 4  # 8, 32, 100 and 10 rows


def test_a_finished_job_is_not_done_again(small_model: GLiNER, texts: list[str], tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", texts)
    first = extract_files(source, tmp_path / "found.parquet", LABELS, model=small_model, **OPTIONS)
    before = (tmp_path / "found.parquet").stat()
    again = extract_files(source, tmp_path / "found.parquet", LABELS, model=small_model, **OPTIONS)
    assert (again.rows, again.rows_here, again.entities) == (first.rows, 0, first.entities)
    assert (tmp_path / "found.parquet").stat() == before


@pytest.mark.parametrize(("pattern", "output"), [("*.jsonl", "found.jsonl"), ("**/*.jsonl", "sub/found")])
def test_a_glob_that_matches_the_jobs_own_output_passes_over_it(
    pattern: str, output: str, small_model: GLiNER, tmp_path: Path
):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(150)]
    rows[120] = {"text": None}
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options = OPTIONS | {"model": small_model, "output_format": "jsonl"}
    with pytest.raises(JobError, match="line 121"):  # stops with one slice or more done
        extract_files(tmp_path / pattern, tmp_path / output, LABELS, on_error="fail", **options)
    assert extract_files(tmp_path / pattern, tmp_path / output, LABELS, **options).rows == 150
    assert extract_files(tmp_path / pattern, tmp_path / output, LABELS, **options).rows_here == 0
    with pytest.raises(JobError, match="is an input and lies where the output goes"):  # no job wrote it
        extract_files(tmp_path / pattern, source, LABELS, overwrite=True, **options)


def test_one_row_an_entity_leads_back_by_number_and_id(
    small_model: GLiNER, texts: list[str], expected: list[list[tuple[Any, ...]]], tmp_path: Path
):
    source = write_parquet(tmp_path / "in.parquet", texts)
    output = tmp_path / "found.jsonl"
    extract_files(source, output, LABELS, model=small_model, layout="rows", id_column="id", **OPTIONS)
    rows = read_jsonl(output)
    assert list(rows[0]) == ["id", "row", "start", "end", "text", "label", "score"]
    assert all(row["id"] == row["row"] for row in rows)
    assert [(row["row"], *own) for row in rows for own in as_told([row])] == [
        (number, *own) for number, entities in enumerate(expected) for own in entities
    ]


def test_chosen_columns_and_another_name_for_the_entities(small_model: GLiNER, tmp_path: Path):
    rows = [{"key": n, "body": text, "entities": "mine", "noise": [1]} for n, text in enumerate(texts_of(9))]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    options = OPTIONS | {"model": small_model, "text_column": "body", "id_column": "key"}
    with pytest.raises(JobInputError, match="'entities'"):
        extract_files(source, tmp_path / "a.parquet", LABELS, **options)
    extract_files(source, tmp_path / "a.parquet", LABELS, columns=["body"], **options)
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["key", "body", "entities"]
    extract_files(source, tmp_path / "b.parquet", LABELS, entities_column="found", **options)
    assert pq.read_table(tmp_path / "b.parquet").column_names == ["key", "body", "entities", "noise", "found"]


def test_each_row_may_have_its_own_labels(small_model: GLiNER, tmp_path: Path):
    texts = texts_of(20)
    own = [["person"], ["city", "event"], {"LOC": "location"}, "person, award"]
    rows = [{"text": text, "wanted": own[number % 4]} for number, text in enumerate(texts)]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    extract_files(source, tmp_path / "out.jsonl", labels_column="wanted", model=small_model, **OPTIONS)
    labels = [["person"], ["city", "event"], {"LOC": "location"}, ["person", "award"]] * 5
    found = small_model.inference(texts, labels, threshold=0.3)
    assert [as_told(row["entities"]) for row in read_jsonl(tmp_path / "out.jsonl")] == [as_told(e) for e in found]


@pytest.mark.parametrize(
    "options",
    [
        {"flat_ner": False},
        {"multi_label": True, "threshold": 0.2},
        {"threshold": {label: 0.2 + 0.1 * number for number, label in enumerate(LABELS)}},
        {"batch_size": 3},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_mean_what_they_mean_for_inference(
    options: dict[str, Any], small_model: GLiNER, texts: list[str], tmp_path: Path
):
    source = write_lines(tmp_path / "in.txt", texts)
    chosen = OPTIONS | options
    extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **chosen)
    del chosen["rows_per_shard"]
    found = small_model.inference(texts, LABELS, **chosen)
    assert [as_told(row["entities"]) for row in read_jsonl(tmp_path / "out.jsonl")] == [as_told(e) for e in found]


def test_a_batch_has_at_most_as_many_texts_as_asked_for(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sizes, forward = [], small_model.model.forward

    def counted(batch: Any, *others: Any) -> Any:
        sizes.append(len(batch.lengths))
        return forward(batch, *others)

    monkeypatch.setattr(small_model.model, "forward", counted)
    source = write_lines(tmp_path / "in.txt", texts_of(5))
    extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, batch_size=2)
    assert sizes == [2, 2, 1]


def test_long_texts_are_read_in_windows_unless_told_otherwise(small_model: GLiNER, tmp_path: Path):
    text = " ".join(texts_of(120))
    limit = small_model.config.max_len
    assert len(text.split()) > limit
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "short"}, {"text": text}])
    extract_files(source, tmp_path / "all.jsonl", LABELS, model=small_model, **OPTIONS)
    entities = read_jsonl(tmp_path / "all.jsonl")[1]["entities"]
    assert max(entity["end"] for entity in entities) > 0.9 * len(text)
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in entities)
    with pytest.raises(ValueError, match="words"):
        extract_files(source, tmp_path / "none.jsonl", LABELS, model=small_model, on_long="error", **OPTIONS)
    with pytest.warns(UserWarning, match=f"truncated to {limit}"):
        extract_files(source, tmp_path / "cut.jsonl", LABELS, model=small_model, on_long="truncate", **OPTIONS)
    cut = read_jsonl(tmp_path / "cut.jsonl")[1]["entities"]
    assert max(entity["end"] for entity in cut) < max(entity["end"] for entity in entities)


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"rows_per_shard": 1}], ids=str)
def test_a_long_text_has_its_entities_whatever_is_around_it(
    options: dict[str, Any], small_model: GLiNER, tmp_path: Path
):
    documents = [" ".join(BOOKS)[:15_000], " ".join(CROSSNER)[:9_000]]
    assert all(len(document.split()) > 3 * small_model.config.max_len for document in documents)
    short = texts_of(9)
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"text": text} for text in (*short[:4], documents[0], *short[4:], documents[1])]
    )
    extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **(OPTIONS | options))
    rows = read_jsonl(tmp_path / "out.jsonl")
    for row, document in zip((rows[4], rows[-1]), documents, strict=True):
        alone = small_model.predict_entities(document, LABELS, threshold=0.3, on_long="window")
        assert [as_told([entity]) for entity in row["entities"]] == [as_told([entity]) for entity in alone]
        assert all(document[entity["start"] : entity["end"]] == entity["text"] for entity in row["entities"])
        assert max(entity["end"] for entity in row["entities"]) > 0.95 * len(document)


def test_a_string_is_one_label_and_one_column(small_model: GLiNER, tmp_path: Path):
    source = write_parquet(tmp_path / "in.parquet", texts_of(9))
    options = OPTIONS | {"model": small_model}
    extract_files(source, tmp_path / "a.jsonl", "person", columns="id", **options)
    extract_files(source, tmp_path / "b.jsonl", ["person"], columns=["id"], **options)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_very_long_texts_are_predicted_a_few_at_a_time(
    small_model: GLiNER, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_parquet(tmp_path / "in.parquet", texts)
    extract_files(source, tmp_path / "whole.jsonl", LABELS, model=small_model, **OPTIONS)
    windows, characters = job_module.Job.windows, []

    def counted(*given: Any) -> Any:
        for window in windows(*given):
            characters.append(sum(map(len, window.texts)))
            yield window

    monkeypatch.setattr(job_module, "_MOST_CHARACTERS", 200)
    monkeypatch.setattr(job_module.Job, "windows", counted)
    extract_files(source, tmp_path / "cut.jsonl", LABELS, model=small_model, **OPTIONS)
    assert sum(characters) == sum(map(len, texts))
    assert max(characters) <= 200 + max(map(len, texts))  # the last text of a window goes beyond
    whole, cut = read_jsonl(tmp_path / "whole.jsonl"), read_jsonl(tmp_path / "cut.jsonl")
    assert [as_told(row["entities"]) for row in cut] == [as_told(row["entities"]) for row in whole]
    assert [row["id"] for row in cut] == list(range(len(texts)))


def test_reading_a_slice_takes_no_longer_for_what_is_done_between_its_windows(
    small_model: GLiNER, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_parquet(tmp_path / "in.parquet", texts)
    now = [0.0]
    monkeypatch.setattr(local_engine, "perf_counter", lambda: now[0])
    windows = job_module.Job.windows

    def slow(*given: Any) -> Any:
        for window in windows(*given):
            yield window
            now[0] += 100

    monkeypatch.setattr(job_module.Job, "windows", slow)
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **OPTIONS)
    assert report.stats["read_seconds"] == 0
    assert now[0] > 100


def test_a_text_that_is_too_long_is_named_by_its_line(small_model: GLiNER, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(30)]
    rows[3] = rows[20] = {"text": None}
    rows[25] = {"text": "word " * 1000}
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    message = rf"{source}, line 26: the text has 1,000 words, .*\(--on-long window\)"
    with pytest.raises(JobError, match=message):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, on_long="error", **OPTIONS)


@pytest.mark.parametrize(("name", "write"), SOURCES, ids=[name for name, _ in SOURCES])
def test_a_text_that_is_too_long_is_named_by_its_file(
    name: str, write: Callable[[Path, list[str]], Path], small_model: GLiNER, tmp_path: Path
):
    texts = texts_of(60)
    texts[55] = "word " * 1000
    sources = [write(tmp_path / f"{letter}-{name}", own) for letter, own in (("a", texts[:50]), ("b", texts[50:]))]
    line = 7 if name == "in.csv" else 6  # a header has a line, too
    with pytest.raises(JobError, match=f"{sources[1]}, line {line}: the text has 1,000 words"):
        extract_files(sources, tmp_path / "out.jsonl", LABELS, model=small_model, on_long="error", **OPTIONS)


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet"])
def test_redacted_texts_take_the_place_of_the_originals(
    output: str, small_model: GLiNER, texts: list[str], expected: list[list[tuple[Any, ...]]], tmp_path: Path
):
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    source = write_jsonl(tmp_path / "in.jsonl", [*rows, {"id": "secret", "text": None}])
    redaction = Redaction("mask")
    report = extract_files(
        source, tmp_path / output, LABELS, model=small_model, redaction=redaction, columns=["id"], **OPTIONS
    )
    (reject,) = read_jsonl(Path(report.rejects_file))
    assert (reject["line"], reject["raw"]) == (151, "")
    assert "null" not in reject["reason"]
    for text, row, entities in zip(texts, read_output(tmp_path / output), expected, strict=True):
        masked = list(text)
        for start, end, *_ in entities:
            masked[start:end] = "█" * (end - start)
        assert row["text"] == "".join(masked)
        assert all(set(entity["text"]) == {"█"} for entity in row["entities"])


def test_a_stream_does_not_tell_what_is_to_be_redacted(small_model: GLiNER, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Yes."}, {"text": ["Ada Lovelace"]}])
    out = io.BytesIO()
    with pytest.warns(UserWarning, match="line 2 is left out: not usable; more is not told") as warned:
        extract_files(source, out, LABELS, model=small_model, redaction=Redaction(), **OPTIONS)
    assert len(out.getvalue().splitlines()) == len(warned) == 1


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_text_that_is_not_read_whole_is_not_redacted(kind: str, checkpoint: Callable[[str], Path], tmp_path: Path):
    model = GLiNER.from_pretrained(checkpoint("bert-cut-first"))  # 96 subwords
    dense = " ".join(["qxzj" * 9] * 20)  # of which a window has room for two words
    texts = ["Ada", None, "Ada", f"Ada {'qxzj' * 24}", dense]
    source = tmp_path / f"in.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), source)
    else:
        write_jsonl(source, [{"text": text} for text in texts])
    options: dict[str, Any] = {"model": model, "redaction": Redaction("label"), "threshold": 0.3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = extract_files(source, tmp_path / "out.jsonl", ["person"], **options)
    assert len(read_output(tmp_path / "out.jsonl")) == 3
    rejects = read_jsonl(Path(report.rejects_file or ""))
    told = [(reject["line"], reject["raw"], "more subwords" in reject["reason"]) for reject in rejects]
    assert told == [(2, "", False), (4, "", True)]
    with pytest.raises(JobError, match="line 2|row 2"):
        extract_files(source, tmp_path / "failed.jsonl", ["person"], on_error="fail", **options)
    with pytest.raises(JobError, match="in the clear: take 'window'"):
        extract_files(source, tmp_path / "out.jsonl", ["person"], on_long="truncate", **options)


@pytest.mark.parametrize("output", ["out.jsonl", "out.parquet", "out"])
def test_an_empty_input_gives_an_empty_output(output: str, small_model: GLiNER, tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", [])
    report = extract_files(source, tmp_path / output, LABELS, model=small_model, **OPTIONS)
    assert (report.is_complete, report.rows) == (True, 0)
    assert read_output(tmp_path / output) == []
    if output == "out.parquet":
        assert pq.read_table(tmp_path / output).column_names == ["text", "entities"]


def test_rows_that_are_all_bad_give_an_empty_output(small_model: GLiNER, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": None}] * 70)
    report = extract_files(source, tmp_path / "out.parquet", LABELS, model=small_model, **OPTIONS)
    assert (report.rows, report.rejects) == (70, 70)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_stream_gets_json_lines_and_warnings(
    small_model: GLiNER, texts: list[str], expected: list[list[tuple[Any, ...]]], tmp_path: Path
):
    rows: list[dict[str, Any]] = [{"text": text, "n": [n, str(n)][n % 2]} for n, text in enumerate(texts)]
    source = write_jsonl(tmp_path / "in.jsonl", [*rows[:40], {"text": 5}, *rows[40:]])
    out = io.BytesIO()
    with pytest.warns(UserWarning, match=r"in\.jsonl, line 41 is left out: "):
        report = extract_files(source, out, LABELS, model=small_model, **OPTIONS)
    written = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [as_told(row.pop("entities")) for row in written] == expected
    assert written == rows
    assert (report.rows, report.rejects, report.is_complete, report.shards) == (151, 1, True, 0)
    assert all(report.stats[f"{stage}_seconds"] > 0 for stage in ("read", "prepare", "encode", "decode", "write"))
    with pytest.raises(JobError, match=r"in\.jsonl, line 41: 'text' is 5 .*\(--on-error skip\) to go on behind it$"):
        extract_files(source, io.BytesIO(), LABELS, model=small_model, on_error="fail", **OPTIONS)


class _Sipping(io.RawIOBase):
    """A stream without a buffer, which takes a little of what it is given."""

    def __init__(self) -> None:
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data[:7])
        return min(len(data), 7)


def test_a_stream_that_takes_a_part_gets_the_rest(small_model: GLiNER, texts: list[str], tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts[:20]])
    whole, sips = io.BytesIO(), _Sipping()
    for out in (whole, sips):
        extract_files(source, out, LABELS, model=small_model, **OPTIONS)
    assert sips.taken == whole.getvalue() != b""
    assert not sips.closed


def test_a_stream_gets_each_slice_as_soon_as_it_is_done_and_counts_the_rejects_of_all(
    small_model: GLiNER, texts: list[str], tmp_path: Path
):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts]
    rows[5] = rows[25] = rows[60] = {"text": 5}  # one in each of the first three slices
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    told = io.BytesIO()
    out = io.BufferedWriter(told, 2**20)
    with pytest.raises(JobError, match="rows rejected: 3, allowed: 2"), pytest.warns(match="is left out"):
        extract_files(source, out, LABELS, model=small_model, max_rejects=2, **OPTIONS)
    written = [json.loads(line)["text"] for line in told.getvalue().splitlines()]
    assert written == [text for number, text in enumerate(texts[:40]) if number not in (5, 25)]


def test_a_stream_shows_its_progress(small_model: GLiNER, texts: list[str], tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", texts)
    watches = []

    @contextmanager
    def show(finished: Mapping[int, SliceRecord], pace: Pace) -> Iterator[None]:
        watches.append(Watch(finished, pace))
        yield

    extract_files(source, io.BytesIO(), LABELS, model=small_model, progress=show, **OPTIONS)
    (watch,) = watches
    now = watch.look()
    assert (now.rows, now.rows_total, now.is_computing) == (150, 150, True)
    assert now.words_per_second > 0


def test_the_report_is_there_for_programs(small_model: GLiNER, texts: list[str], tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", texts)
    report = extract_files(source, tmp_path / "out.parquet", LABELS, model=small_model, **OPTIONS)
    written = json.loads((tmp_path / "out.parquet.job" / "report.json").read_text(encoding="utf-8"))
    assert written == report.to_dict()
    assert sum(written["stage_shares"].values()) == pytest.approx(1)
    assert set(written["stage_shares"]) == {"read", "prepare", "encode", "score", "decode", "write"}
    assert 0 <= written["padding_share"] < 1
    assert written["stats"]["texts"] == 150
    shown = str(report)
    assert "done: 150 rows" in shown
    assert "out.parquet" in shown


def test_a_report_that_a_death_prevented_is_written_by_the_next_call(
    small_model: GLiNER, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_lines(tmp_path / "in.txt", texts)
    path = tmp_path / "out.jsonl.job" / "report.json"

    def die(report: JobReport, path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(JobReport, "write", die)
    with pytest.raises(KeyboardInterrupt):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **OPTIONS)
    monkeypatch.undo()
    assert not path.exists()
    for _ in range(2):
        report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **OPTIONS)
        written = json.loads(path.read_text(encoding="utf-8"))
        assert (written["rows"], written["rows_here"], report.rows_here) == (150, 0, 0)
        assert written["stats"]["texts"] == 150


def test_a_job_goes_on_where_no_thread_can_be_started(
    small_model: GLiNER, texts: list[str], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_lines(tmp_path / "in.txt", texts)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)  # as once the main thread has ended
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **OPTIONS)
    assert report.is_complete
    assert [as_told(row["entities"]) for row in read_jsonl(tmp_path / "out.jsonl")] == expected

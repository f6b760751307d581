"""Jobs that go wrong: bad rows, a full disk, changed inputs, choices that make no sense. Nothing is lost."""

from __future__ import annotations

import errno
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gliner_fast import GLiNER, JobError, JobInputError, Redaction, extract_files
from gliner_fast.jobs import job as job_module
from gliner_fast.jobs.chosen_model import ChosenModel
from gliner_fast.jobs.job import Job
from gliner_fast.jobs.plan import Plan, digest_model
from gliner_fast.jobs.ray_options import RayOptions
from gliner_fast.predicting import predictor as predictor_module
from tests.jobs.conftest import as_told, read_jsonl, texts_of, write_jsonl, write_lines
from tests.samples import LABELS

OPTIONS: dict[str, Any] = {"threshold": 0.3, "rows_per_shard": 100}
TEXTS = texts_of(150)

BAD_ROWS = [
    (b'{"text": ', "not JSON"),
    (b"[1]", "is no JSON object"),
    (b'{"text": null, "own": "city"}', "'text' is null"),
    (b'{"text": ["a"], "own": "city"}', "expected a string"),
    (b'{"body": "a", "own": "city"}', "no field 'text'"),
    (b'{"text": "\xff", "own": "city"}', "not UTF-8"),
    (b'{"text": "\\ud800", "own": "city"}', "half a character"),
    (b'{"text": "a"}', "this row has no field 'own' (its fields: 'text')"),
    (b'{"text": "a", "own": []}', "no label"),
    (b'{"text": "a", "own": {"city": 5}}', "expected a list such as"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("on_long", ["window", "truncate"])
def test_a_word_that_would_keep_the_job_for_hours_is_a_reject(small_model: GLiNER, tmp_path: Path, on_long: str):
    assert small_model.predictor().batcher.tokenizer.max_subwords is None
    source = write_jsonl(
        tmp_path / "in.jsonl", [{"text": "Ada and " + "ACGT" * 25_000}, {"text": "Ada lived in Rome."}]
    )
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, on_long=on_long)
    assert (report.rows, report.rejects) == (2, 1)
    (reject,) = read_jsonl(Path(report.rejects_file or ""))
    assert reject["line"] == 1
    assert "it has a word of more than 16,384 characters, which is not read: " in reject["reason"]


@pytest.mark.timeout(60)
def test_a_word_that_is_not_read_does_not_cost_the_row(small_model: GLiNER, tmp_path: Path):
    text = "Ada " * small_model.config.max_len + "ACGT" * 25_000
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text}])
    with pytest.warns(UserWarning, match="Sentence of length 385 has been truncated to 384"):
        report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, on_long="truncate")
    assert (report.rows, report.rejects) == (1, 0)


def test_of_what_is_to_be_redacted_a_word_that_is_too_long_is_told(small_model: GLiNER, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "Ada lived " + "ACGT" * 25_000}, {"text": "Ada lived."}])
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, redaction=Redaction("mask"))
    (reject,) = read_jsonl(Path(report.rejects_file or ""))
    assert "it has a word of more than 16,384 characters" in reject["reason"]
    assert "ACGT" not in json.dumps(reject)


@pytest.mark.gliner
def test_what_is_to_be_redacted_has_to_have_room_beside_the_row_s_own_labels(
    checkpoint: Callable[[str], Path], tmp_path: Path
):
    model = GLiNER.from_pretrained(checkpoint("bert-cut-first"))  # 96 subwords
    text = f"Ada {'qxzj' * 12}"
    rows = [{"text": text, "own": ["person"]}, {"text": text, "own": [f"label {number}" for number in range(15)]}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    report = extract_files(source, tmp_path / "out", labels_column="own", model=model, redaction=Redaction())
    (reject,) = read_jsonl(Path(report.rejects_file or ""))
    assert (reject["line"], "fewer labels" in reject["reason"]) == (2, True)


def test_only_words_are_too_long(small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(predictor_module, "LONGEST_WORD", 50)
    texts = ["x" * 50, "x y " * 30, "x" * 40 + "/" + "y" * 40, "x" * 30 + "-" + "y" * 20, "\U0001f600" * 51, ""]
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model)
    assert [reject["line"] for reject in read_jsonl(Path(report.rejects_file or ""))] == [4]


def test_a_thousand_bad_rows_among_ten_thousand(small_model: GLiNER, tmp_path: Path):
    texts = texts_of(500) * 20
    bad = dict(zip(sorted(random.Random(3).sample(range(10_000), 1_000)), BAD_ROWS * 100, strict=True))
    good = [number for number in range(10_000) if number not in bad]
    lines = [json.dumps({"id": number, "text": text, "own": LABELS}).encode() for number, text in enumerate(texts)]
    for number, (line, _) in bad.items():
        lines[number] = line
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join(lines))
    output = tmp_path / "out.jsonl"
    report = extract_files(source, output, model=small_model, labels_column="own", threshold=0.3)
    assert (report.rows, report.rejects) == (10_000, 1_000)
    rows = read_jsonl(output)
    assert [(row["id"], row["text"]) for row in rows] == [(number, texts[number]) for number in good]
    distinct = sorted(set(texts))
    answers = dict(zip(distinct, small_model.inference(distinct, LABELS, threshold=0.3), strict=True))
    expected = {text: as_told(entities) for text, entities in answers.items()}
    assert all(as_told(row["entities"]) == expected[row["text"]] for row in rows)
    rejects = read_jsonl(Path(report.rejects_file))
    assert [(reject["row"], reject["line"], reject["raw"]) for reject in rejects] == [
        (number, number + 1, line.decode("utf-8", "backslashreplace")) for number, (line, _) in bad.items()
    ]
    assert all(reason in reject["reason"] for reject, (_, reason) in zip(rejects, bad.values(), strict=True))
    assert {reject["file"] for reject in rejects} == {str(source)}


def test_a_limit_of_rejects_ends_the_job_and_a_higher_one_goes_on(small_model: GLiNER, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(200)]
    rows[70] = rows[150] = rows[160] = {"text": 5}
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    output = tmp_path / "out.jsonl"
    with pytest.raises(JobError, match=r"in\.jsonl, line 71: .*behind the 40 rows that are done"):
        extract_files(source, output, LABELS, model=small_model, on_error="fail", **OPTIONS)
    rejects = tmp_path / "out.jsonl.job" / "rejects.jsonl"
    assert [reject["line"] for reject in read_jsonl(rejects)] == [71]
    with pytest.raises(JobError, match=r"rows rejected: 3, allowed: 1.* line 151: .* are in .*rejects\.jsonl$"):
        extract_files(source, output, LABELS, model=small_model, max_rejects=1, **OPTIONS)
    assert [reject["line"] for reject in read_jsonl(rejects)] == [71, 151, 161]
    parts = [file.name for folder in ("shards", "rejects") for file in (tmp_path / "out.jsonl.job" / folder).iterdir()]
    assert sorted(parts) == ["rejects-0000002.jsonl", *(f"shard-000000{number}.jsonl" for number in range(3))]
    report = extract_files(source, output, LABELS, model=small_model, max_rejects=3, **OPTIONS)
    assert (report.rows, report.rejects, report.rows_here) == (200, 3, 60)
    assert len(read_jsonl(output)) == 197


@pytest.mark.parametrize("stops", [True, False], ids=["stopped", "finished"])
def test_a_limit_holds_for_what_earlier_calls_rejected(stops: bool, small_model: GLiNER, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(200)]
    rows[3] = rows[5] = {"text": None}
    if stops:
        rows[150] = rows[151] = {"text": 5}
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    output = tmp_path / "out.jsonl"
    if stops:
        with pytest.raises(JobError, match="rows rejected: 4, allowed: 2"):
            extract_files(source, output, LABELS, model=small_model, max_rejects=2, **OPTIONS)
    else:
        extract_files(source, output, LABELS, model=small_model, **OPTIONS)
    for options in ({"on_error": "fail"}, {"max_rejects": 0}, {"max_rejects": 1}):
        with pytest.raises(
            JobError, match=r"by earlier calls: 2, allowed: \d.*in\.jsonl, line 4: 'text' is null.*rejects\.jsonl"
        ):
            extract_files(source, output, LABELS, model=small_model, **options, **OPTIONS)
        told = read_jsonl(tmp_path / "out.jsonl.job" / "rejects.jsonl")
        assert [reject["line"] for reject in told] == [4, 6, *([151, 152] if stops else [])]
    for file in (tmp_path / "out.jsonl.job").rglob("rejects*.jsonl"):
        file.unlink()
    if not stops:  # a slice without its rejects would be done again
        for _ in range(2):
            with pytest.raises(JobError, match=r"by earlier calls: 2, allowed: 1.*rejects\.jsonl is gone"):
                extract_files(source, output, LABELS, model=small_model, max_rejects=1, **OPTIONS)
            (tmp_path / "out.jsonl.job" / "rejects.jsonl").touch()  # emptied
    report = extract_files(source, output, LABELS, model=small_model, **OPTIONS)
    assert (report.rows, report.rejects) == (200, 4 if stops else 2)


def test_rejects_of_a_call_that_was_killed_are_told_of_too(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts_of(100)]
    rows[3] = rows[5] = rows[45] = rows[65] = {"text": None}
    source, output = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    options: dict[str, Any] = {**OPTIONS, "rows_per_shard": 20, "model": small_model}
    with pytest.raises(JobError, match="rows rejected: 3, allowed: 2"):
        extract_files(source, output, LABELS, max_rejects=2, **options)
    write, written = Job.write, []

    def dying(*given: Any) -> Any:
        if len(written) == 2:
            raise RuntimeError("killed")
        written.append(0)
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "write", dying)
        with pytest.raises(RuntimeError, match="killed"):
            extract_files(source, output, LABELS, max_rejects=9, **options)
    with pytest.raises(JobError, match=r"by earlier calls: 4, allowed: 1.* all are in .*rejects\.jsonl"):
        extract_files(source, output, LABELS, max_rejects=1, **options)
    told = read_jsonl(tmp_path / "out.jsonl.job" / "rejects.jsonl")
    assert [reject["line"] for reject in told] == [4, 6, 46, 66]


def test_rows_that_parquet_drops_for_their_columns_are_warned_of(small_model: GLiNER, tmp_path: Path):
    rows: list[dict[str, Any]] = [{"text": "a", "price": 1} for _ in range(1_000)]
    rows += [{"text": "b", "price": 1.5}, {"text": "b", "price": 1, "new": 2}, {"text": None}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    with pytest.warns(UserWarning, match=r"^2 rows with a text .* first 1,000 rows.*rejects\.jsonl.*--columns"):
        report = extract_files(source, tmp_path / "out.parquet", LABELS, model=small_model, **OPTIONS)
    assert (report.rows, report.rejects, report.stats["misfits"]) == (1_003, 3, 2)
    again = extract_files(source, tmp_path / "out.parquet", LABELS, model=small_model, **OPTIONS)
    assert (again.rows, again.rows_here) == (1_003, 0)  # and no warning, which would be an error
    chosen = extract_files(source, tmp_path / "b.parquet", LABELS, model=small_model, columns="text", **OPTIONS)
    assert chosen.rejects == 1  # and no warning


@pytest.mark.parametrize("name", ["out.jsonl", "out"])
def test_overwriting_with_a_broken_model_keeps_the_earlier_output(
    name: str, small_model: GLiNER, checkpoint: Callable[[str], Path], tmp_path: Path
):
    source = write_lines(tmp_path / "in.txt", TEXTS)
    extract_files(source, tmp_path / name, LABELS, model=small_model, **OPTIONS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    broken = shutil.copytree(checkpoint("deberta"), tmp_path / "model")
    for weights in (*broken.glob("*.bin"), *broken.glob("*.safetensors")):
        weights.write_bytes(b"cut off")
    with pytest.raises(ValueError, match="model"):
        extract_files(source, tmp_path / name, LABELS, model=broken, overwrite=True, **OPTIONS)
    assert {path: path.read_bytes() for path in before} == before


def test_an_input_that_changes_while_the_job_runs_is_named(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_lines(tmp_path / "in.txt", TEXTS)
    write_shard = job_module.write_shard

    def change_input(*arguments: Any, **options: Any) -> None:
        write_lines(source, list(reversed(TEXTS)))
        write_shard(*arguments, **options)

    monkeypatch.setattr(job_module, "write_shard", change_input)
    with pytest.raises(JobError, match=r"in\.txt has changed while the job ran: .*--overwrite"):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, **OPTIONS)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_full_disk_is_one_error_and_costs_nothing(
    small_model: GLiNER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_lines(tmp_path / "in.txt", TEXTS)
    output = tmp_path / "out.parquet"
    write_shard = job_module.write_shard

    def fill_disk(path: Path, *arguments: Any, **options: Any) -> None:
        if "shard-0000001" in path.name:
            path.write_bytes(b"half a shard")
            raise OSError(errno.ENOSPC, "No space left on device")
        write_shard(path, *arguments, **options)

    monkeypatch.setattr(job_module, "write_shard", fill_disk)
    with pytest.raises(OSError, match="No space left on device; what is finished stays") as failure:
        extract_files(source, output, LABELS, model=small_model, **OPTIONS)
    assert failure.value.filename.endswith("shard-0000001.parquet")
    monkeypatch.undo()
    report = extract_files(source, output, LABELS, model=small_model, **OPTIONS)
    assert (report.rows, report.rows_here) == (150, 142)
    assert pq.read_table(output)["text"].to_pylist() == TEXTS


def test_what_has_changed_is_said(small_model: GLiNER, tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", TEXTS)
    extract_files(source, tmp_path / "out", LABELS, model=small_model, **OPTIONS)
    with pytest.raises(JobError, match=r"threshold was 0\.3 and is 0\.5"):
        extract_files(source, tmp_path / "out", LABELS, model=small_model, **(OPTIONS | {"threshold": 0.5}))
    source.write_text(source.read_text(encoding="utf-8") + "one more\n", encoding="utf-8")
    with pytest.raises(JobError, match=r"in\.txt has another size, content or time of change than when the job began"):
        extract_files(source, tmp_path / "out", LABELS, model=small_model, **OPTIONS)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("deberta", "gliner_config.json"),
        ("deberta", "model.safetensors"),
        ("deberta", "tokenizer.json"),
        ("deberta", "tokenizer_config.json"),
        ("deberta", "spm.model"),
        ("deberta", "vocab.txt"),
        ("deberta-bin", "pytorch_model.bin"),
    ],
)
def test_another_file_of_the_model_is_another_model(
    kind: str, name: str, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_lines(tmp_path / "in.txt", TEXTS[:8])
    file = shutil.copytree(checkpoint(kind), tmp_path / "model") / name
    if not file.exists():
        file.write_bytes(b"a tokenizer of another form")
    extract_files(source, tmp_path / "out", LABELS, model=file.parent, **OPTIONS)
    monkeypatch.setattr(GLiNER, "from_pretrained", None)  # what is refused is not loaded
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(JobError, match="the model is another one"):
        extract_files(source, tmp_path / "out", LABELS, model=file.parent, **OPTIONS)
    file.write_bytes(whole)
    assert extract_files(source, tmp_path / "out", LABELS, model=file.parent, **OPTIONS).is_complete


def test_a_loaded_model_is_the_one_of_its_folder_or_is_refused(checkpoint: Callable[[str], Path], tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", TEXTS[:8])
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    with torch.no_grad():
        model.model.scorer.out.bias.add_(1)
    with pytest.raises(JobError, match=r"the model's weights are not those of .*: save_pretrained it"):
        extract_files(source, tmp_path / "out", LABELS, model=model, **OPTIONS)
    stream = io.BytesIO()  # needs no name
    extract_files(source, stream, LABELS, model=model, **OPTIONS)
    assert len(stream.getvalue().splitlines()) == 8
    model.save_pretrained(tmp_path / "saved", safe_serialization=True)
    saved = GLiNER.from_pretrained(tmp_path / "saved")
    saved.data_processor.transformer_tokenizer.model_max_length = 500  # which cuts nothing
    with pytest.raises(JobError, match=r"the model's tokenizer, or its model_max_length, is not that of .*saved"):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=saved, **OPTIONS)
    saved.save_pretrained(tmp_path / "saved", safe_serialization=True)
    saved = GLiNER.from_pretrained(tmp_path / "saved")
    extract_files(source, tmp_path / "out.jsonl", LABELS, model=saved, **OPTIONS)
    assert (tmp_path / "out.jsonl").read_bytes() == stream.getvalue()


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int16"])
@pytest.mark.parametrize(
    "kind", ["deberta", "deberta-bin", "deberta-no-lstm", "bert", "era-v1", "era-has-rnn", "token", "bi"]
)
def test_a_loaded_model_has_its_folder_s_weights(kind: str, dtype: str, checkpoint: Callable[[str], Path]):
    folder = checkpoint(kind)
    model = GLiNER.from_pretrained(folder, dtype=dtype)
    assert ChosenModel.of(model, is_named=True) == ChosenModel(str(folder), folder)
    with torch.no_grad():
        next(model.model.encoder.parameters()).mul_(2)
    with pytest.raises(JobError, match="the model's weights are not those of"):
        ChosenModel.of(model, is_named=True)


def test_a_job_knows_a_model_by_the_tokenizer_of_its_labels_too(checkpoint: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(checkpoint("bi"), tmp_path / "model")
    before = digest_model(folder)
    source, out = write_lines(tmp_path / "in.txt", TEXTS[:8]), tmp_path / "out.jsonl"
    extract_files(source, out, LABELS, model=str(folder), **OPTIONS)
    assert len(out.read_bytes().splitlines()) == 8
    tokenizer = folder / "labels_tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert digest_model(folder) != before
    with pytest.raises(JobError, match="model"):
        extract_files(source, out, LABELS, model=str(folder), **OPTIONS)


def test_weights_are_looked_for_in_the_file_that_they_came_from(checkpoint: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(checkpoint("deberta"), tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    model = GLiNER.from_pretrained(folder, variant="fp16", dtype="fp32")
    chosen = ChosenModel.of(model, is_named=True)
    assert chosen.options == {"variant": "fp16"}
    again = GLiNER.from_pretrained(folder, dtype="fp32", **chosen.options)
    assert again.variant == "fp16"
    model.model = torch.compile(model.model)  # type: ignore[assignment]  # other names for the same weights
    assert ChosenModel.of(model, is_named=True) == chosen


def test_a_stream_does_not_look_for_the_model_s_folder(checkpoint: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(checkpoint("deberta"), tmp_path / "model")
    model = GLiNER.from_pretrained(folder)
    shutil.rmtree(folder)
    stream = io.BytesIO()
    extract_files(write_lines(tmp_path / "in.txt", TEXTS[:3]), stream, LABELS, model=model)
    assert len(stream.getvalue().splitlines()) == 3


def test_what_a_loaded_model_has_of_its_own_goes_with_the_job(checkpoint: Callable[[str], Path], tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", TEXTS[:8])
    folder = checkpoint("deberta")
    model = GLiNER.from_pretrained(folder, max_length=5, max_width=2, corrected_numbering=True)
    extract_files(source, tmp_path / "out", LABELS, model=model, **OPTIONS)
    own = {"corrected_numbering": True, "max_length": 5, "max_width": 2}
    assert ChosenModel.of(model, is_named=True).options == own
    with pytest.raises(JobError, match=r"model_options was \{'corrected_numbering': True, .* and is \{\}"):
        extract_files(source, tmp_path / "out", LABELS, model=folder, **OPTIONS)
    (line, *_) = (tmp_path / "out" / "_job" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    plan = Plan.from_dict(json.loads(line)["plan"])
    again = Job(plan, [], None).load_model(torch.device("cpu"))
    assert (again.config.max_len, again.config.max_width, again.corrected_numbering) == (5, 2, True)

    model.data_processor.words_splitter = one_word
    with pytest.raises(JobError, match=r"words_splitter was None and is '.*test_job_errors\.one_word'"):
        extract_files(source, tmp_path / "out", LABELS, model=model, **OPTIONS)
    with pytest.raises(JobError, match="a word splitter of your own, which Ray's actors have not"):
        extract_files(source, tmp_path / "out", LABELS, model=model, ray=RayOptions(), **OPTIONS)


def test_a_job_begun_with_what_is_refused_now_says_how_to_go_on(small_model: GLiNER, tmp_path: Path):
    source = write_lines(tmp_path / "in.txt", TEXTS[:8])
    extract_files(source, tmp_path / "out", LABELS, model=small_model, **OPTIONS)
    manifest = tmp_path / "out" / "_job" / "manifest.jsonl"
    plan, *others = manifest.read_text(encoding="utf-8").splitlines()
    for changes, message in (
        (
            {"rows_per_shard": 0},
            r"rows_per_shard is 0: .* Start anew with overwrite \(--overwrite\), or choose another",
        ),
        ({"unknown": 1}, r"keeps other settings than .*, or start anew with overwrite \(--overwrite\)"),
    ):
        values = json.loads(plan)
        values["plan"]["settings"] |= changes
        manifest.write_text("\n".join([json.dumps(values), *others, ""]), encoding="utf-8")
        with pytest.raises(JobError, match=message):
            extract_files(source, tmp_path / "out", LABELS, model=small_model, **OPTIONS)
    extract_files(source, tmp_path / "out", LABELS, model=small_model, overwrite=True, **OPTIONS)


def one_word(text: str) -> list[tuple[str, int, int]]:
    return [(text, 0, len(text))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "meta"}, "device is 'meta', but the model is on cpu: move it there"),
        ({"dtype": "fp16"}, "dtype is 'fp16', but the model computes in float32: load it anew"),
    ],
)
def test_a_loaded_model_computes_where_and_as_it_is(
    options: dict[str, Any], message: str, small_model: GLiNER, tmp_path: Path
):
    source = write_lines(tmp_path / "in.txt", TEXTS[:8])
    with pytest.raises(JobError, match=message):
        extract_files(source, tmp_path / "out", LABELS, model=small_model, **options)
    assert not (tmp_path / "out").exists()
    extract_files(source, tmp_path / "out", LABELS, model=small_model, device="cpu", dtype="fp32")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output": "out.csv"}, JobError, r"extension \.csv: expected \.parquet"),
        ({"output": "in.parquet"}, JobError, "lies where the output goes"),
        ({"inputs": "."}, JobError, "lies in the input folder"),
        ({"inputs": "no.jsonl"}, FileNotFoundError, r"no\.jsonl"),
        ({"inputs": []}, JobInputError, "no input"),
        ({"text_column": "body"}, JobInputError, "body"),
        ({"labels": None}, JobError, "one of the two"),
        ({"labels": {"person", "city"}}, JobError, "labels is a set: expected a list"),
        ({"output": "s3://bucket/out.parquet"}, JobError, "no local path"),
        ({"output": "OUT.PARQUET"}, JobError, r"extension \.PARQUET"),
        ({"max_rejects": -1}, JobError, "expected 0 or more"),
        ({"layout": "rows", "redaction": Redaction()}, JobError, "use the layout 'list'"),
        ({"ray": RayOptions(), "output": io.BytesIO()}, JobError, "Ray writes shards"),
        ({"ray": RayOptions(), "device": "cpu"}, JobError, "leave device at 'auto'"),
        ({"ray": RayOptions(), "dtype": "int16"}, JobError, "int16 computes on CPUs: give the actors no GPU"),
        ({"on_error": "ignore"}, JobError, "expected 'skip' or 'fail'"),
        ({"device": "quantum"}, ValueError, "'quantum'"),
        ({"dtype": "fp7"}, ValueError, "fp7"),
        ({"model": "no/such/folder"}, FileNotFoundError, "does not exist"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_choices_leave_nothing_behind(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"text": ["Ada"]}), tmp_path / "in.parquet")
    with pytest.raises(error, match=message):
        extract_files(**{"inputs": "in.parquet", "output": "out.parquet", "labels": LABELS} | options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]

"""Jobs whose slices several devices share; the CPU counts as many as it is named."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER, extract_files, pipeline
from gliner_fast.devices import spread
from gliner_fast.jobs import job as job_module
from gliner_fast.jobs import runner
from gliner_fast.jobs.job_folder import SliceRecord
from gliner_fast.jobs.stopping import Stop
from tests.jobs.conftest import as_told, read_jsonl, texts_of, write_jsonl
from tests.samples import LABELS

OPTIONS: dict[str, Any] = {"threshold": 0.3, "rows_per_shard": 100}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return texts_of(150)


def test_several_devices_share_the_slices(
    small_model: GLiNER, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    with source.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")
    used = []

    def counted(*arguments: Any) -> list[Any]:
        used.append(arguments[1])
        return spread(*arguments)

    monkeypatch.setattr(pipeline, "spread", counted)
    reports = [
        extract_files(source, tmp_path / f"{number}.jsonl", LABELS, model=small_model.source, device=device, **OPTIONS)
        for number, device in enumerate(["cpu", "cpu, cpu,cpu"])
    ]
    assert used == [[torch.device("cpu")] * 3]
    expected, found = (read_jsonl(tmp_path / f"{number}.jsonl") for number in (0, 1))
    assert_same(found, expected)
    assert reports[0].rows == reports[1].rows == len(texts) + 1
    assert reports[0].rejects == reports[1].rejects == 1
    stream = io.BytesIO()
    with pytest.warns(UserWarning, match="line 151 is left out"):
        extract_files(source, stream, LABELS, model=small_model, device="cpu,cpu", **OPTIONS)
    assert_same([json.loads(line) for line in stream.getvalue().splitlines()], expected)
    with pytest.raises(ValueError, match="device 'quantum' cannot be used"):
        extract_files(source, tmp_path / "2.jsonl", LABELS, device="cpu,quantum")


def test_a_stop_on_several_devices_loses_nothing(
    small_model: GLiNER, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows: list[dict[str, Any]] = [{"text": text} for text in texts]
    rows[3] = {"text": None}
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    stop = Stop()
    write = job_module.Job.write

    def write_and_stop(*arguments: Any) -> SliceRecord:
        record = write(*arguments)
        if record.number == 1:
            stop.set()
        return record

    monkeypatch.setattr(runner, "stop_on_interrupt", lambda: nullcontext(stop))
    monkeypatch.setattr(job_module.Job, "write", write_and_stop)
    options = {"model": small_model, "device": "cpu,cpu,cpu", "rows_per_shard": 40, "threshold": 0.3}
    report = extract_files(source, tmp_path / "found.jsonl", LABELS, **options)
    assert not report.is_complete  # all five slices were read, the last of them with the first
    assert report.rows < len(texts)
    assert [reject["line"] for reject in read_jsonl(Path(report.rejects_file or ""))] == [4]
    stop.clear()
    report = extract_files(source, tmp_path / "found.jsonl", LABELS, **options)
    assert report.is_complete
    assert report.rows == len(texts)
    assert [row["text"] for row in read_jsonl(tmp_path / "found.jsonl")] == texts[:3] + texts[4:]


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Rows of one order; weights that lie elsewhere in memory may round sums differently."""
    assert [row["text"] for row in found] == [row["text"] for row in expected]
    told = [[(e["start"], e["end"], e["text"], e["label"], e["score"]) for e in row["entities"]] for row in found]
    assert told == [as_told(row["entities"]) for row in expected]
    assert sum(len(row["entities"]) for row in found) > 100

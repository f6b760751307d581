"""A row that does not fit into memory costs itself; a want of memory for all ends the job."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gliner_fast import GLiNER, JobError, Redaction, extract_files
from tests.jobs.conftest import as_told, read_jsonl, texts_of, write_jsonl
from tests.samples import LABELS

TEXTS = texts_of(20)
TEXTS[5] = "Ada Lovelace " * 150
# The first slice has 8 rows.
GOOD = [text for place, text in enumerate(TEXTS) if place != 5]

pytestmark = pytest.mark.filterwarnings("ignore:out of memory")


@pytest.fixture
def limited(small_model: GLiNER, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes memory short for batches of more than so many subwords."""
    forward = small_model.model.forward

    def limit(subwords: int) -> None:
        def fail(batch: Any, *others: Any) -> Any:
            if batch.input_ids.numel() > subwords:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(batch, *others)

        monkeypatch.setattr(small_model.model, "forward", fail)

    return limit


@pytest.mark.parametrize("device", ["auto", "cpu,cpu"])
def test_a_row_that_does_not_fit_is_a_reject(device: str, small_model: GLiNER, limited: Any, tmp_path: Path):
    expected = small_model.inference(GOOD, LABELS, threshold=0.3)
    limited(200)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text, "n": n} for n, text in enumerate(TEXTS)])
    options: dict[str, Any] = {"model": small_model, "threshold": 0.3, "columns": ["n", "text"]}
    report = extract_files(source, tmp_path / "out.jsonl", LABELS, device=device, **options)
    assert (report.rows, report.rejects, report.is_complete) == (20, 1, True)
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["n"] for row in rows] == [n for n in range(20) if n != 5]
    assert [as_told(row["entities"]) for row in rows] == [as_told(own) for own in expected]
    (reject,) = read_jsonl(Path(report.rejects_file or ""))
    assert (reject["row"], reject["line"]) == (5, 6)
    assert reject["reason"].startswith("it does not fit into memory, where others do: cut the text")


def test_of_parquet_with_labels_of_rows_and_redaction_too(small_model: GLiNER, limited: Any, tmp_path: Path):
    limited(200)
    table = pa.table({"text": TEXTS, "own": [LABELS] * len(TEXTS)})
    pq.write_table(table, tmp_path / "in.parquet")
    report = extract_files(
        tmp_path / "in.parquet", tmp_path / "out.parquet", labels_column="own", model=small_model, redaction=Redaction()
    )
    assert (report.rows, report.rejects) == (20, 1)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 19
    (reject,) = read_jsonl(Path(report.rejects_file or ""))
    assert reject["reason"].startswith("it does not fit into memory")
    assert "Lovelace" not in json.dumps(reject)


def test_of_a_stream_it_is_told(small_model: GLiNER, limited: Any, tmp_path: Path):
    limited(200)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    output = io.BytesIO()
    with pytest.warns(UserWarning, match=r"in\.jsonl, line 6 is left out: it does not fit into memory"):
        report = extract_files(source, output, LABELS, model=small_model)
    assert (report.rows, report.rejects) == (20, 1)
    assert len(output.getvalue().splitlines()) == 19


def test_who_wants_no_rejects_has_its_line(small_model: GLiNER, limited: Any, tmp_path: Path):
    limited(200)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    with pytest.raises(JobError, match=r"in\.jsonl, line 6: it does not fit into memory"):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model, on_error="fail")


def test_where_memory_is_short_for_all_the_job_ends(small_model: GLiNER, limited: Any, tmp_path: Path):
    limited(10)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    with pytest.raises(MemoryError, match="8 of 8 texts that were read together, too many to leave them out"):
        extract_files(source, tmp_path / "out.jsonl", LABELS, model=small_model)

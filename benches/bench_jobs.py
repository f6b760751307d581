"""Files -> files: a job beside `inference` on the same texts in memory. What it costs to read, write and remember."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benches.compare import SCALE, Race, words_of
from benches.conftest import LABELS
from benches.job_memory import make_texts
from gliner_fast import Entity, GLiNER, extract_files

ROWS = 2_000
THRESHOLD = 0.5


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.timeout(1800)  # room for GLINER_FAST_BENCH_SCALE=4 on two cores
def bench_jobs(race: Race, kind: str, tmp_path: Path) -> None:
    model = GLiNER.from_pretrained()
    texts, labels = list(make_texts(max(20, round(ROWS * SCALE)))), LABELS[:5]
    source, output = tmp_path / "in.parquet", tmp_path / f"out.{kind}"
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), source)

    def ours() -> None:
        for left in (output, output.with_name(output.name + ".job")):
            (shutil.rmtree if left.is_dir() else Path.unlink)(left) if left.exists() else None
        extract_files(source, output, labels, model=model, threshold=THRESHOLD)

    def in_memory() -> list[list[Entity]]:
        return model.inference(texts, labels, threshold=THRESHOLD)

    ours()
    expected = in_memory()
    assert any(expected), "the model found no entity: nothing would be compared"
    read: Callable[[Path], list[dict[str, Any]]] = read_parquet if kind == "parquet" else read_jsonl
    found = [row["entities"] for row in read(output)]
    keys = [[[(e["start"], e["end"], e["label"]) for e in own] for own in side] for side in (found, expected)]
    assert keys[0] == keys[1]
    race.run(
        ours,
        {"inference in memory": in_memory},
        agreement=f"all {sum(map(len, found)):,} entities equal",
        **words_of(
            texts,
            corpus="distinct short texts",
            labels=len(labels),
            model="built-in",
            threshold=THRESHOLD,
            dtype="float32",
        ),
    )


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """All rows of a file, or of the files in a folder."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

"""What the tests of jobs share: a small checkpoint, texts, and outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import Entity, GLiNER
from gliner_fast.jobs.job_folder import Paths
from tests.samples import CROSSNER


@pytest.fixture(scope="session")
def small_model(checkpoint: Callable[[str], Path]) -> GLiNER:
    return GLiNER.from_pretrained(checkpoint("deberta"))


def texts_of(count: int) -> list[str]:
    """Short texts, some of them equal."""
    return [" ".join(CROSSNER[number % len(CROSSNER)].split()[: 4 + number % 9]) for number in range(count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def as_told(entities: Sequence[Entity]) -> list[tuple[Any, ...]]:
    """Entities as tuples; scores of batches of another size may round differently."""
    return [(e["start"], e["end"], e["text"], e["label"], pytest.approx(e["score"], abs=1e-5)) for e in entities]


@pytest.fixture(params=["found.jsonl", "found"], ids=["file", "folder"])
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> Paths:
    return Paths(tmp_path / request.param, is_file=request.param.endswith(".jsonl"))

"""Texts and labels that several tests read."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

LABELS = ["person", "location", "organization", "musical artist", "algorithm", "event"]


def read_jsonl(name: str) -> list[dict[str, Any]]:
    """Returns the rows of a file in tests/data."""
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


CROSSNER = [row["text"] for row in read_jsonl("crossner.jsonl")]
CROSSNER_LABELS: dict[str, list[str]] = json.loads((DATA / "crossner_labels.json").read_text(encoding="utf-8"))
UNICODE = [row["text"] for row in read_jsonl("unicode.jsonl")]
BOOKS = [row["text"] for row in read_jsonl("books.jsonl")]

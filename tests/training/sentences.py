"""Twenty annotated sentences, so alike and so different that a model must read them to tell their entities."""

from __future__ import annotations

import json
from pathlib import Path

PEOPLE = ["Ada Lovelace", "Charles Babbage", "Marie Curie", "Alan Turing", "Grace Hopper"]
PLACES = ["London", "Warsaw", "New York", "Paris"]
PATTERNS = ["{person} was born in {place} .", "In {place} lived {person} for years .", "{place} honours {person} ."]


def annotated_sentences() -> list[dict[str, object]]:
    """Sentences in `gliner`'s format; every third has no place, every seventh nothing at all."""
    rows = []
    for number in range(20):
        person, place = PEOPLE[number % 5], PLACES[number % 4]
        pattern = PATTERNS[number % 3]
        words: list[str] = []
        spans: list[tuple[int, int, str]] = []
        for part in pattern.split():
            label = part.strip("{}")
            new = {"person": person, "place": place}[label].split() if label != part else [part]
            if label != part:
                spans.append((len(words), len(words) + len(new) - 1, label))
            words += new
        if number % 7 == 6:
            words, spans = ["Nothing", "happened", "on", "day", str(number), "."], []
        rows.append({"tokenized_text": words, "ner": spans})
    return rows


def write_sentences(path: Path) -> Path:
    """Writes them as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in annotated_sentences()), encoding="utf-8")
    return path

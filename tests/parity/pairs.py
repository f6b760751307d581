"""One checkpoint loaded twice, by ours and by gliner, and the comparison of what they answer."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gliner_fast.comparing.reference_candidates import find_reference_candidates, labels_of_text, represents_spans
from gliner_fast.comparing.verification import TOLERANCE, compare

Answers = list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Pair:
    """Ours and the reference, with the same weights."""

    ours: Any
    reference: Any

    @classmethod
    def load(cls, folder: Path, *, reference_folder: Path | None = None, **options: Any) -> Pair:
        """Loads one folder, or two where the reference misreads the first."""
        return cls(cls.load_ours(folder, **options), cls.load_reference(reference_folder or folder, **options))

    @staticmethod
    def load_ours(folder: Path, **options: Any) -> Any:
        """Loads a folder with gliner_fast."""
        from gliner_fast import GLiNER

        return GLiNER.from_pretrained(str(folder), **options)

    @staticmethod
    def load_reference(folder: Path, **options: Any) -> Any:
        """Loads a folder with gliner."""
        from gliner import GLiNER

        return GLiNER.from_pretrained(str(folder), **options)

    def check(self, texts: list[str], labels: Any, *, tolerance: float = TOLERANCE, **options: Any) -> Answers:
        """Asserts that both answer alike, and returns the reference's answers.

        Options of `inference` go to both; `threshold`, `flat_ner` and `multi_label` may be lists, one value a text.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sentence of length")  # compared in a test of its own
            ours = self.ours.inference(texts, labels, **options)
            alone = {"batch_size": 1} if represents_spans(self.reference) else {}
            theirs = self.reference.inference(texts, labels, **options | alone)
            self._check_answers(texts, labels, ours, theirs, tolerance, options)
        return theirs

    def _check_answers(
        self, texts: list[str], labels: Any, ours: Answers, theirs: Answers, tolerance: float, options: dict[str, Any]
    ) -> None:
        assert type(ours) is list
        assert len(ours) == len(theirs) == len(texts)
        for index, (text, mine, their) in enumerate(zip(texts, ours, theirs, strict=True)):
            for entity in mine:
                assert text[entity["start"] : entity["end"]] == entity["text"]
            settings = {
                name: value[index] if isinstance(value := options.get(name, default), list) else value
                for name, default in (("threshold", 0.5), ("flat_ner", True), ("multi_label", False))
            }

            def candidates(_: int, at: int = index, settings: dict[str, Any] = settings) -> Any:
                floor = settings["threshold"] - tolerance
                found = find_reference_candidates(self.reference, texts[at], labels_of_text(labels, at), floor=floor)
                if options.get("input_spans") is None:
                    return found
                allowed = {(span["start"], span["end"]) for span in options["input_spans"][at]}
                return [candidate for candidate in found if (candidate.start, candidate.end) in allowed]

            report = compare([mine], [their], candidates, tolerance=tolerance, **settings)
            assert report.ok, f"{text!r} with {options}\n{report}"
            _check_entities(mine, their, tolerance)


def spans(answers: Answers) -> set[tuple[int, int, int, Any]]:
    """Returns what was found, without scores: text, start, end and label of each entity."""
    return {(index, e["start"], e["end"], e["label"]) for index, entities in enumerate(answers) for e in entities}


def _check_entities(mine: list[dict[str, Any]], theirs: list[dict[str, Any]], tolerance: float) -> None:
    """Asserts that the same entities come in the same form: keys, their order, Python types, extra values."""
    by_key = {(entity["start"], entity["end"], entity["label"]): entity for entity in theirs}
    copies = Counter((entity["start"], entity["end"], entity["label"]) for entity in theirs)
    for key, count in Counter((entity["start"], entity["end"], entity["label"]) for entity in mine).items():
        assert count == max(1, copies[key])
    for entity in mine:
        their = by_key.get((entity["start"], entity["end"], entity["label"]))
        if their is None:
            continue  # explained, or `compare` had complained
        assert type(entity) is dict
        assert list(entity) == list(their)
        assert entity["text"] == their["text"]
        assert {key: type(value) for key, value in entity.items()} == {key: type(value) for key, value in their.items()}
        if "class_probs" in their:
            _check_class_probs(entity["class_probs"], their["class_probs"], tolerance)
        for name in ("vector", "label_vector"):
            if name in their:
                assert entity[name].dtype == their[name].dtype == np.float32
                assert entity[name].shape == their[name].shape
                assert np.abs(entity[name] - their[name]).max() <= tolerance * max(1.0, np.abs(their[name]).max())


def _check_class_probs(mine: dict[str, float], theirs: dict[str, float], tolerance: float) -> None:
    assert len(mine) == len(theirs)
    assert list(mine.values()) == sorted(mine.values(), reverse=True)
    for ours, reference in zip(mine.values(), theirs.values(), strict=True):
        assert type(ours) is float
        assert abs(ours - reference) <= tolerance
    # The order of equal values is unspecified there (Q15), so a label may be missing only at the end of the list.
    last = min(theirs.values())
    for label in mine.keys() ^ theirs.keys():
        assert abs({**mine, **theirs}[label] - last) <= tolerance
    for label in mine.keys() & theirs.keys():
        assert abs(mine[label] - theirs[label]) <= tolerance

"""Ours against `gliner` on annotated sets: every difference explained or not, and both F1 scores.

    python -m benches.agreement FOLDER [--sets crossner_ai ...] [--model MODEL] [--output RESULT.json]

FOLDER holds `NAME.jsonl`, in GLiNER's own format, and `NAME.labels.json`. Texts are the words joined by blanks, which
are split anew. Exact-match micro F1 at threshold 0.5, flat.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benches.hardware import describe
from gliner_fast import Entity, GLiNER
from gliner_fast.annotated import Example, read_examples
from gliner_fast.comparing import verification
from gliner_fast.comparing.installed_gliner import load_reference
from gliner_fast.comparing.reference_candidates import Candidate, find_reference_candidates
from tests.reference.scores import score_sets

THRESHOLDS = (0.3, 0.5, 0.9)
MODES = {"flat": (True, False), "nested": (False, False), "flat multi": (True, True), "nested multi": (False, True)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one line a set and mode; 1 where a difference is unexplained or F1 differs by more than 0.1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="names of sets; all of them if left out")
    parser.add_argument("--model", help="folder or Hub id; the built-in model if left out")
    parser.add_argument("--limit", type=int, help="sentences of each set")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    ours = GLiNER.from_pretrained(options.model)
    reference = load_reference(ours)
    names = options.sets or sorted(path.name.removesuffix(".jsonl") for path in options.folder.glob("*.jsonl"))
    results = [compare_set(options.folder, name, ours, reference, options.limit) for name in names]
    fine = all(result["ok"] for result in results)
    if options.output:
        record = {"machine": describe("cpu"), "model": str(options.model or "built in"), "ok": fine, "sets": results}
        options.output.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if fine else 1


class Answers:
    """The reference's answers to some texts under any decoding settings, scored once.

    By its own stages: `inference` does the same, batch by batch, and scores anew on each call.
    """

    def __init__(self, reference: Any, texts: Sequence[str], labels: Sequence[str], batch_size: int = 8) -> None:
        self.reference = reference
        self.prepared = reference.prepare_batch(texts, labels)
        collator = reference.create_collator()
        inputs = self.prepared["input_x"]
        self.batches = []
        for first in range(0, len(inputs), batch_size):
            batch = reference.collate_batch(
                inputs[first : first + batch_size],
                self.prepared["entity_types"],
                collator,
                self.prepared["label_names"],
            )
            self.batches.append((batch, reference.run_batch(batch)))

    def decode(self, **settings: Any) -> list[list[Entity]]:
        """Entities of each text."""
        decoded = [
            own for batch, output in self.batches for own in self.reference.decode_batch(output, batch, **settings)
        ]
        names = ("valid_texts", "valid_to_orig_idx", "start_token_map", "end_token_map", "num_original")
        found: list[list[Entity]] = self.reference.map_entities_to_text(
            decoded, *(self.prepared[name] for name in names)
        )
        return found


def compare_set(folder: Path, name: str, ours: GLiNER, reference: Any, limit: int | None) -> dict[str, Any]:
    """Runs both on one set, in all modes and thresholds."""
    examples = read_examples(folder / f"{name}.jsonl")[:limit]
    labels = json.loads((folder / f"{name}.labels.json").read_text())
    texts = [" ".join(example.words) for example in examples]
    gold = [gold_entities(example) for example in examples]
    reports, f1 = [], {}
    answers = Answers(reference, texts, labels)
    for (mode, (flat_ner, multi_label)), threshold in product(MODES.items(), THRESHOLDS):
        settings: dict[str, Any] = {"flat_ner": flat_ner, "multi_label": multi_label, "threshold": threshold}
        mine, theirs = ours.inference(texts, labels, **settings), answers.decode(**settings)

        def candidates(index: int, floor: float = threshold - verification.TOLERANCE) -> list[Candidate]:
            return find_reference_candidates(reference, texts[index], labels, floor=floor)

        report = verification.compare(mine, theirs, candidates, **settings)
        reports.append({"mode": mode, "threshold": threshold, **report.to_dict()})
        if mode == "flat" and threshold == 0.5:
            f1 = {"ours": micro_f1(mine, gold), "reference": micro_f1(theirs, gold)}
        print(
            f"{name:22} {mode:13} {threshold:.1f}  {report.entities:6} entities  {report.equal:6} equal  "
            f"{report.explained:3} explained  {report.moved + report.unexplained:3} unexplained  "
            f"max |score difference| {report.max_score_difference:.1e}",
            flush=True,
        )
    print(f"{name:22} F1 ours {f1['ours']:.2f}, gliner {f1['reference']:.2f}", file=sys.stderr, flush=True)
    fine = all(report["ok"] for report in reports) and abs(f1["ours"] - f1["reference"]) <= 0.1
    return {"set": name, "sentences": len(examples), "ok": fine, "f1": f1, "comparisons": reports}


def gold_entities(example: Example) -> set[tuple[int, int, str]]:
    """Annotated entities by the characters of the words joined by blanks."""
    starts, at = [], 0
    for word in example.words:
        starts.append(at)
        at += len(word) + 1
    return {
        (starts[start], starts[end - 1] + len(example.words[end - 1]), label) for start, end, label in example.spans
    }


def micro_f1(found: Sequence[Sequence[Any]], gold: Sequence[set[tuple[int, int, str]]]) -> float:
    """Exact-match micro F1 in percent."""
    predicted = [{(entity["start"], entity["end"], entity["label"]) for entity in own} for own in found]
    return 100 * score_sets(gold, predicted).f1


if __name__ == "__main__":
    sys.exit(main())

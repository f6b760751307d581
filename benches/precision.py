"""What numbers of 16 and 8 bits change: entities that stay as in fp32, and F1, ours and `gliner`'s.

    python -m benches.precision FOLDER [--sets crossner_ai ...] [--dtypes int16 ...] [--output docs/precision.md]

FOLDER is as for `benches.agreement`. Agreement is the share of the entities found by either, in fp32 by `gliner` and in
fewer bits, that both find: same place, same label. Threshold 0.5, flat. Nothing is timed: a CPU without native 16-bit
products emulates them, slowly, with the same answers up to the order of sums.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benches.agreement import gold_entities, micro_f1
from benches.compare import keys_of
from benches.hardware import device_name
from gliner_fast import GLiNER
from gliner_fast.annotated.examples import read_examples
from gliner_fast.comparing.installed_gliner import load_reference

OWNERS = {"bf16": ("ours", "gliner"), "fp16": ("ours", "gliner"), "int16": ("ours",), "int8": ("ours", "gliner")}


@dataclass(frozen=True)
class Row:
    """One set: of `gliner` in fp32 the entities and F1, of each dtype and owner (agreement in percent, F1)."""

    name: str
    sentences: int
    entities: int
    f1: float
    others: dict[tuple[str, str], tuple[float, float]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="*", help="names of sets; all of them if left out")
    parser.add_argument("--model", help="folder or Hub id; the built-in model if left out")
    parser.add_argument("--dtypes", nargs="*", choices=OWNERS, default=list(OWNERS), help="all of them if left out")
    parser.add_argument("--limit", type=int, help="sentences of each set")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args(arguments)
    models = load(options.model, options.dtypes, options.device)
    names = options.sets or sorted(path.name.removesuffix(".jsonl") for path in options.folder.glob("*.jsonl"))
    rows = [measure(options.folder, name, models, options.limit) for name in names]
    page = as_page(rows, options)
    print(page)
    if options.output:
        options.output.write_text(page, encoding="utf-8")


def load(model: str | None, dtypes: Sequence[str], device: str) -> dict[tuple[str, str], Any]:
    """By dtype and owner: `gliner` in fp32, and all owners of each dtype."""
    exact = GLiNER.from_pretrained(model, map_location=device)
    models: dict[tuple[str, str], Any] = {("fp32", "gliner"): load_reference(exact)}
    for dtype in dtypes:
        models[dtype, "ours"] = GLiNER.from_pretrained(model, map_location=device, dtype=dtype)
        if "gliner" in OWNERS[dtype]:
            models[dtype, "gliner"] = reference = load_reference(exact)
            reference.quantize(dtype) if dtype == "int8" else reference.to(models[dtype, "ours"].dtype)
    return models


def measure(folder: Path, name: str, models: dict[tuple[str, str], Any], limit: int | None) -> Row:
    examples = read_examples(folder / f"{name}.jsonl")[:limit]
    labels = json.loads((folder / f"{name}.labels.json").read_text(encoding="utf-8"))
    texts, gold = [" ".join(own.words) for own in examples], [gold_entities(own) for own in examples]
    found = {kind: model.inference(texts, labels, threshold=0.5) for kind, model in models.items()}
    exact = found.pop(("fp32", "gliner"))
    others = {kind: (agreement(exact, own), micro_f1(own, gold)) for kind, own in found.items()}
    row = Row(name, len(examples), sum(map(len, exact)), micro_f1(exact, gold), others)
    print(row, flush=True)
    return row


def agreement(one: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> float:
    """Percent of the entities of either that are of both."""
    mine, theirs = keys_of(one), keys_of(other)
    return 100 * len(mine & theirs) / max(1, len(mine | theirs))


def as_page(rows: Sequence[Row], options: argparse.Namespace) -> str:
    kinds = [(dtype, owner) for dtype in options.dtypes for owner in OWNERS[dtype]]
    heads = ["set", "sentences", "entities, fp32", "F1, fp32", *(f"{owner} {dtype}" for dtype, owner in kinds)]
    lines = [
        f"# {', '.join(options.dtypes)}",
        "",
        (
            "Share of the entities found by `gliner` in fp32 or in these numbers that both find, and F1 in these. "
            f"Threshold 0.5, flat, model {options.model or 'built in'}; "
            f"{datetime.now(timezone.utc).date().isoformat()}, {device_name(options.device)}, "
            f"torch {torch.__version__}; made by"
        ),
        "",
        "```bash",
        "python -m benches.precision DATA/eval"
        + (f" --sets {' '.join(options.sets)}" if options.sets else "")
        + (f" --dtypes {' '.join(options.dtypes)}" if options.dtypes != list(OWNERS) else "")
        + (f" --model {options.model}" if options.model else "")
        + (f" --limit {options.limit}" if options.limit else "")
        + (f" --device {options.device}" if options.device != "cpu" else ""),
        "```",
        "",
        "Texts are the annotated words joined by blanks and split anew, so that F1 in fp32 is not quite that of",
        "[out of domain](paper-ood.md), which scores the annotated words as they stand.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
    ]
    for row in rows:
        cells = [f"{row.others[kind][0]:.1f} %, F1 {row.others[kind][1]:.1f}" for kind in kinds]
        lines.append(f"| {row.name} | {row.sentences:,} | {row.entities:,} | {row.f1:.1f} | {' | '.join(cells)} |")
    for kind in kinds if len(rows) > 1 else []:
        total = sum(row.entities for row in rows)
        mean = sum(row.others[kind][0] * row.entities for row in rows) / max(1, total)
        lines += ["", f"Over all {total:,} entities {kind[1]} agrees in {kind[0]} for {mean:.1f} %."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

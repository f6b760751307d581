"""The paper's Table 1 for a model of ours: F1 on seven sets that it was not trained on, as docs/paper-ood.md.

python -m benches.out_of_domain built-in --eval DATA/eval
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

from benches.hardware import cpu_name
from benches.paper_shape import OUT_OF_DOMAIN, read_set

THRESHOLDS = (0.5, 0.4, 0.3)
BUILT_IN_CHOICE = (
    "One choice was made on a part of these sets: the weight of positive examples in the loss, on 50 sentences of each",
    "of five ([model card](../python/gliner_fast/models/minilm/MODEL_CARD.md)).",
    "",
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, Hub id, or built-in")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation sets, NAME.jsonl and NAME.labels.json")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the table (default: %(default)s)")
    options = parser.parse_args(arguments)

    import torch

    from gliner_fast import GLiNER
    from gliner_fast.evaluation import evaluate

    model = GLiNER.from_pretrained(options.model)
    evaluations = []
    for name in OUT_OF_DOMAIN:
        labels, examples = read_set(options.eval, name)
        evaluations.append(evaluate(model, examples, labels, thresholds=THRESHOLDS, name=name))
        print(name, [round(100 * result.micro.f1, 1) for result in evaluations[-1].results], flush=True)
    options.docs.mkdir(exist_ok=True)
    lines = [
        "# Out of domain",
        "",
        f"The model `{options.model}` on sets that it was not trained on: whole test sets, exact match, flat, micro F1",
        "in percent, CrossNER without its catch-all label. The scores that count are those at 0.5, the default; the",
        "others tell how far from it the best threshold is. Words are scored as they were annotated; joined into texts",
        "and split anew, as in the tables of [16 bits](precision-gpu.md), they give a slightly other F1.",
        "",
        *(BUILT_IN_CHOICE if options.model == "built-in" else ()),
        f"{datetime.now(timezone.utc).date().isoformat()}, {cpu_name()}, torch {torch.__version__}; made by",
        "",
        "```bash",
        f"python -m benches.out_of_domain {options.model} --eval DATA/eval",
        "```",
        "",
        f"| threshold | {' | '.join(OUT_OF_DOMAIN)} | mean |",
        f"|---|{'---|' * (len(OUT_OF_DOMAIN) + 1)}",
    ]
    for number, threshold in enumerate(THRESHOLDS):
        f1 = [100 * evaluation.results[number].micro.f1 for evaluation in evaluations]
        lines.append(f"| {threshold} | {' | '.join(f'{value:.1f}' for value in f1)} | **{sum(f1) / len(f1):.1f}** |")
    (options.docs / "paper-ood.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = json.dumps([evaluation.to_dict() for evaluation in evaluations], indent=1)
    (options.docs / "paper-ood.json").write_text(report + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()

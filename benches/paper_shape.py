"""The paper's ablations at our scale: many small trainings, a table each in docs/.

    python -m benches.paper_shape negatives --data DATA/train --eval DATA/eval --encoder ENCODER --work runs/shape

Experiments: `negatives` (share of negative types), `dropping` (random dropping of types), `pretraining` (fine-tuning
from a trained model or from the bare encoder) and `encoders` (give --encoder more than once). Data, derived labels and
all settings that are not compared are those of the built-in model's recipe. A run that is done is not done again, so
the command may be killed and given anew.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benches.hardware import cpu_name
from gliner_fast.annotated.example import Example
from gliner_fast.training.config import TrainingConfig, TrainingFile

if TYPE_CHECKING:
    from gliner_fast import GLiNER
    from gliner_fast.training.corpus import Corpus

OUT_OF_DOMAIN = (
    "crossner_ai", "crossner_literature", "crossner_music", "crossner_politics", "crossner_science",
    "mit_movie", "mit_restaurant",
)  # fmt: skip
SUPERVISED = ("broad_twitter", "anatem")  # few labels, one domain; both are of the paper's 20 sets
HELD_OUT = 1000  # sentences at a supervised set's end that are tested on; training takes from its beginning
COUNTS = (100, 1000)  # supervised examples


@dataclass(frozen=True)
class Run:
    """One training and its F1 scores.

    Attributes:
        name: of the folder.
        row: what is compared, as the table says it.
        config: its settings.
        sets: that it is evaluated on, with labels and sentences.
    """

    name: str
    row: str
    config: TrainingConfig
    sets: dict[str, tuple[list[str], list[Example]]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--data", type=Path, required=True, help="annotated files for training, NAME.jsonl.gz")
    parser.add_argument("--eval", type=Path, required=True, help="evaluation sets, NAME.jsonl and NAME.labels.json")
    parser.add_argument("--encoder", type=Path, action="append", required=True, help="folder; repeatable for encoders")
    parser.add_argument("--model", default="built-in", help="that pretraining goes on from (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the table (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=1400, help="subwords of a step (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="by commas (default: %(default)s)")
    parser.add_argument("--sentences", type=int, default=200, help="of each evaluation set (default: %(default)s)")
    options = parser.parse_args(arguments)
    if len(options.encoder) > 1 and options.experiment != "encoders":
        parser.error(f"{options.experiment} begins from one encoder: give --encoder once")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    runs = [run for seed in seeds for run in EXPERIMENTS[options.experiment](options, seed)]
    scores = [finish(run, options.work) for run in runs]
    options.docs.mkdir(exist_ok=True)
    target = options.docs / f"paper-{options.experiment}.md"
    target.write_text(page(options, seeds, runs, scores), encoding="utf-8")
    print(target.read_text(encoding="utf-8"))


def negatives(options: argparse.Namespace, seed: int) -> list[Run]:
    """Share of negative types among those that an example is asked for (the paper's Table 5)."""
    return [
        ablation(options, f"negatives-{share:.2f}-{seed}", f"{share:.0%} negative types", seed, negative_share=share)
        for share in (0.0, 0.5, 0.75)
    ]


def dropping(options: argparse.Namespace, seed: int) -> list[Run]:
    """Random dropping of entity types (the paper's section 5.4)."""
    # Off is what half of the comparison of negatives is, too, so it is the same run.
    return [
        ablation(options, f"dropping-on-{seed}", "random dropping on", seed, random_drop=True),
        ablation(options, f"negatives-0.50-{seed}", "random dropping off", seed, negative_share=0.5),
    ]


def encoders(options: argparse.Namespace, seed: int) -> list[Run]:
    """Encoders to start from."""
    # The first is what the other comparisons begin from: half of the types negative, so it is the same run.
    first, *others = options.encoder
    return [
        ablation(options, f"negatives-0.50-{seed}", first.parent.name, seed, negative_share=0.5),
        *(
            ablation(options, f"encoder-{path.parent.name}-{path.name}-{seed}", path.parent.name, seed, encoder=path)
            for path in others
        ),
    ]


def pretraining(options: argparse.Namespace, seed: int) -> list[Run]:
    """A few supervised examples, from a trained model or from the bare encoder."""
    runs = []
    for count in COUNTS:
        for name in SUPERVISED:
            labels, examples = read_set(options.eval, name)
            chosen = random.Random(f"{name} {seed}").sample(examples[:-HELD_OUT], count)
            source = options.work / f"supervised-{name}-{count}-{seed}.jsonl"
            write_examples(chosen, source)
            sets = {name: (labels, examples[-HELD_OUT:][: options.sentences])}
            for start, changes in (
                ("trained model", {"encoder": None, "model": options.model}),
                ("bare encoder", {}),
            ):
                config = base(options, seed).replace(
                    train=(TrainingFile(path=str(source), labels=tuple(labels)),),
                    implies={},
                    paraphrases={},
                    own_negatives=1.0,
                    other_negatives=0.0,
                    steps=min(options.steps, 3 * count),
                    **changes,
                )
                run = f"pretraining-{name}-{count}-{start.split()[0]}-{seed}"
                runs.append(Run(run, f"{count} examples, from the {start}", config, sets))
    return runs


EXPERIMENTS = {"negatives": negatives, "dropping": dropping, "encoders": encoders, "pretraining": pretraining}


def ablation(
    options: argparse.Namespace, name: str, row: str, seed: int, *, encoder: Path | None = None, **changes: Any
) -> Run:
    """A training as the recipe has it but for `changes`, evaluated on the out-of-domain sets."""
    sets = {}
    for own in OUT_OF_DOMAIN:
        labels, examples = read_set(options.eval, own)
        sets[own] = (labels, random.Random(own).sample(examples, min(options.sentences, len(examples))))
    return Run(name, row, base(options, seed, encoder).replace(**changes), sets)


def base(options: argparse.Namespace, seed: int, encoder: Path | None = None) -> TrainingConfig:
    """The recipe at this experiment's scale; types as the paper draws them."""
    from gliner_fast.training.builtin.__main__ import _RECIPE, prepare

    encoder = encoder or options.encoder[0]
    work = options.work / f"prepared-{encoder.parent.name}-{encoder.name}"
    config = prepare(options.data, encoder, work, _RECIPE, [])
    # One checkpoint, at the end: a small run that is killed begins anew.
    return config.replace(
        steps=options.steps,
        batch_tokens=options.batch_tokens,
        seed=seed,
        negative_share=0.5,
        random_drop=False,
        save_total_limit=1,
    )


def finish(run: Run, work: Path) -> dict[str, float]:
    """F1 of each set, trained and evaluated now if that was not done before."""
    from gliner_fast import GLiNER
    from gliner_fast.evaluation import evaluate
    from gliner_fast.training.run import begin_run
    from gliner_fast.training.trainer import Trainer, start_model

    folder = work / run.name
    record = folder / "f1.json"
    config = run.config.replace(output_dir=str(folder), save_steps=run.config.steps)
    settings = config.to_yaml()
    if record.exists():
        done: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        if done["settings"] == settings and done["sentences"] == {
            name: len(own) for name, (_, own) in run.sets.items()
        }:
            return dict(done["f1"])
        raise SystemExit(f"{folder} holds a run with other settings: name another --work folder")
    place = begin_run(config, resume=True)
    model = start_model(config)
    trainer = Trainer(
        model, corpus_of(config, model), [], config, place, tell=lambda line: print(f"{run.name}: {line}", flush=True)
    )
    model = GLiNER.from_pretrained(trainer.train().model)
    f1 = {name: 100 * evaluate(model, examples, labels).f1 for name, (labels, examples) in run.sets.items()}
    sentences = {name: len(own) for name, (_, own) in run.sets.items()}
    record.write_text(json.dumps({"f1": f1, "sentences": sentences, "settings": settings}, indent=1), encoding="utf-8")
    return f1


_corpora: dict[str, Corpus] = {}


def corpus_of(config: TrainingConfig, model: GLiNER) -> Corpus:
    """The examples of a run; read anew only where the run before had others."""
    from gliner_fast.training.corpus import read_corpus

    own = model.config
    limits: dict[str, Any] = {"max_len": own.max_len, "max_width": own.max_width, "ent_token": own.ent_token}
    same = {"output_dir": "", "seed": 0, "steps": 1, "save_steps": 1, "negative_share": 0.5, "random_drop": False}
    key = config.replace(**same).to_yaml() + json.dumps(limits)
    if key not in _corpora:
        _corpora.clear()
        _corpora[key] = read_corpus(config, **limits)
    return _corpora[key]


def read_set(folder: Path, name: str) -> tuple[list[str], list[Example]]:
    from gliner_fast.annotated import read_examples

    labels = json.loads((folder / f"{name}.labels.json").read_text(encoding="utf-8"))
    return labels, read_examples(folder / f"{name}.jsonl")


def write_examples(examples: Sequence[Example], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"tokenized_text": own.words, "ner": [[start, end - 1, label] for start, end, label in own.spans]})
        for own in examples
    ]
    target.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def page(options: argparse.Namespace, seeds: list[int], runs: list[Run], scores: list[dict[str, float]]) -> str:
    """The table: a row for each thing compared, the mean over seeds and the spread from least to most."""
    names = list(dict.fromkeys(name for own in scores for name in own))
    rows: dict[str, list[dict[str, float]]] = {}
    for run, own in zip(runs, scores, strict=True):
        rows.setdefault(run.row, []).append(own)
    encoders = ", ".join(path.parent.name for path in options.encoder)
    spread = "In brackets the least and the most over seeds. " if len(seeds) > 1 else ""
    introduction = (
        f"{str(EXPERIMENTS[options.experiment].__doc__).splitlines()[0]} At most {options.steps} steps of "
        f"{runs[0].config.batch_tokens:,} subwords, from {encoders}, seed{'s' * (len(seeds) > 1)} "
        f"{', '.join(map(str, seeds))}; exact-match F1 at 0.5, flat, on at most {options.sentences} sentences of each "
        f"set. {spread}Nothing beyond this budget is claimed."
    )
    scale = f"--steps {options.steps} --batch-tokens {options.batch_tokens}"
    folders = " ".join(["--encoder ENCODER"] * len(options.encoder))
    command = (
        f"python -m benches.paper_shape {options.experiment} --data DATA/train --eval DATA/eval {folders} "
        f"--work WORK {scale} --seeds {options.seeds} --sentences {options.sentences}"
    )
    today = datetime.now(timezone.utc).date().isoformat()
    lines = [
        f"# {options.experiment.capitalize()}",
        "",
        introduction,
        "",
        f"{today}, {cpu_name()}, torch {torch.__version__}; made by",
        "",
        "```bash",
        command,
        "```",
        "",
    ]
    # A mean is one over the same sets only.
    is_whole = all(own.keys() == set(names) for own in scores)
    heads = [*names, "mean"] if is_whole else names
    lines += [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for row, of_seeds in rows.items():
        cells = [[score[name] for score in of_seeds if name in score] for name in names]
        if is_whole:
            cells.append([statistics.fmean(score.values()) for score in of_seeds])
        lines.append(f"| {row} | {' | '.join(map(cell, cells))} |")
    return "\n".join(lines) + "\n"


def cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()

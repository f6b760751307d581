"""The command that makes the built-in model: its recipe is sound, and on small data it runs to the end."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from gliner_fast import GLiNER
from gliner_fast.annotated.example import Example
from gliner_fast.checkpoints.locating import BUILT_IN
from gliner_fast.training.builtin.__main__ import _RECIPE, main, prepare, write_compact
from gliner_fast.training.builtin.derive import derive
from gliner_fast.training.config import TrainingConfig

ROWS = [
    {
        "tokenized_text": ["Ada", "Lovelace", "left", "Cambridge", "University", "for", "the", "United", "States", "."],
        "ner": [[0, 1, "politician"], [3, 4, "educational institution"], [7, 8, "geopolitical entity"]],
    },
    {"tokenized_text": ["Nobody", "came", "."], "ner": []},
]


def test_narrower_labels_follow_from_the_words() -> None:
    words = ("the", "United", "States", "and", "Paris", "and", "Oxford", "University")
    spans = ((0, 3, "geopolitical entity"), (4, 5, "geopolitical entity"), (6, 8, "educational institution"))
    derived = derive(Example(words, spans)).spans
    assert derived == (*spans, (0, 3, "country"), (6, 8, "university"))


def test_the_recipe_is_read_and_names_labels_that_its_files_share(tmp_path: Path) -> None:
    config = fake_run(tmp_path)
    assert isinstance(config, TrainingConfig)
    assert len(config.train) > 10
    coarse = {label for labels in config.implies.values() for label in labels}
    # A label that is implied but not marked in full must not count as absent where it is not marked.
    assert coarse - set(config.implies) <= set(config.train[0].partial) | {"artist or author"}
    assert coarse - {"artist or author", "geopolitical entity", "educational institution"} <= set(config.generic)


def fake_run(folder: Path, *changes: str) -> TrainingConfig:
    return prepare(fake_data(folder), fake_encoder(folder), folder / "out", _RECIPE, list(changes))


def fake_data(folder: Path) -> Path:
    """Every file of the recipe, with the same few rows."""
    import yaml

    (folder / "data").mkdir()
    for file in yaml.safe_load(_RECIPE.read_text())["train"]:
        rows = ROWS
        if file["path"].startswith("stackoverflow"):
            more = [[0, 0, "language"], [1, 1, "library"], [2, 2, "value"]]
            rows = [*ROWS, {"tokenized_text": ["C", "glibc", "3"], "ner": more}]
        with gzip.open(folder / "data" / (file["path"] + ".gz"), "wt") as target:
            target.writelines(json.dumps(row) + "\n" for row in rows)
    return folder / "data"


def fake_encoder(folder: Path) -> Path:
    """A random two-layer BERT with the built-in model's tokenizer."""
    path = folder / "encoder"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_text((BUILT_IN / name).read_text())
    for name in ("special_tokens_map.json", "vocab.txt"):
        (path / name).write_text("{}")
    return path


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # this tokenizer has GLiNER's tokens already
def test_the_command_runs_to_a_model_that_loads(tmp_path: Path) -> None:
    arguments = ["--data", str(fake_data(tmp_path)), "--encoder", str(fake_encoder(tmp_path))]
    arguments += ["--output", str(tmp_path / "out"), "--set", "steps=3", "--set", "hidden_size=32"]
    arguments += ["--set-further", "steps=2"]
    main(arguments)
    log = [json.loads(line) for line in (tmp_path / "out" / "further" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 2
    compact = tmp_path / "out" / "compact"
    assert (compact / "model.int8.safetensors").stat().st_size < 2_000_000
    found = GLiNER.from_pretrained(compact).predict_entities("Ada left Cambridge.", ["person"], threshold=0.0)
    assert found
    encoder = json.loads((compact / "gliner_config.json").read_text())["encoder_config"]
    assert encoder["attention_probs_dropout_prob"] == 0.0
    for path in compact.glob("*.json"):
        assert str(tmp_path) not in path.read_text(), "a path of the machine that it was made on"
    assert json.loads((compact / "tokenizer.json").read_text())["truncation"] is None
    main(arguments)  # again: there is nothing left to do

    final = tmp_path / "out" / "run" / "final"
    other = shutil.copytree(final, tmp_path / "other")
    weights = load_file(final / "model.safetensors")
    save_file({name: 3 * weight for name, weight in weights.items()}, other / "model.safetensors")
    write_compact([final, other], tmp_path / "mean")
    mean = GLiNER.from_pretrained(tmp_path / "mean")
    for one, ours in zip(GLiNER.from_pretrained(final).parameters(), mean.parameters(), strict=True):
        torch.testing.assert_close(ours, 2 * one, rtol=0, atol=float(one.detach().abs().max()) / 50)

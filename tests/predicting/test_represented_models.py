"""Models that score the spans that they mark, from texts to entities; what they find is compared in tests/parity."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.training import TrainingError, trainer
from tests.samples import CROSSNER, LABELS

TEXTS = [*CROSSNER[:12], "", "word"]
KINDS = ["token-spans", "token-spans-bert", "bi-token-spans"]
WIDE = {"flat_ner": False, "multi_label": True}


@pytest.fixture(scope="module")
def load(checkpoint: Callable[[str], Path]) -> Callable[..., GLiNER]:
    """Loads a kind; without options once."""
    loaded: dict[str, GLiNER] = {}

    def model(kind: str, **options: Any) -> GLiNER:
        if options:
            return GLiNER.from_pretrained(checkpoint(kind), **options)
        return loaded.setdefault(kind, GLiNER.from_pretrained(checkpoint(kind)))

    return model


def assert_same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """The same entities, with scores up to rounding."""
    assert [[{**e, "score": 0} for e in own] for own in found] == [[{**e, "score": 0} for e in own] for own in expected]
    for mine, their in zip(found, expected, strict=True):
        assert [e["score"] for e in mine] == pytest.approx([e["score"] for e in their], abs=tolerance)


# --- thresholds and texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_text_is_read_as_if_it_were_alone(kind: str, load: Callable[..., GLiNER]):
    model = load(kind)
    thresholds = [(0.2, 0.3, 0.5)[number % 3] for number in range(len(TEXTS))]
    together = model.inference(TEXTS, LABELS, threshold=thresholds, **WIDE)
    assert sum(map(len, together)) > 100
    alone = [
        model.predict_entities(text, LABELS, threshold=own, **WIDE) for text, own in zip(TEXTS, thresholds, strict=True)
    ]
    assert_same(together, alone)
    streamed = model.stream(TEXTS, LABELS, threshold=0.3, on_long="truncate")
    assert list(streamed) == model.inference(TEXTS, LABELS, threshold=0.3)


def test_thresholds_of_labels_are_those_of_their_marks_and_scores(load: Callable[..., GLiNER]):
    model = load("token-spans")
    one_for_all = model.inference(TEXTS, LABELS, threshold=0.3, **WIDE)
    assert_same(model.inference(TEXTS, LABELS, threshold=dict.fromkeys(LABELS, 0.3), **WIDE), one_for_all)
    # A label that nothing passes marks nothing and rates nothing: fewer spans are left for the others, too.
    first, *others = LABELS
    found = model.inference(TEXTS, LABELS, threshold={first: 1.0, **dict.fromkeys(others, 0.3)}, **WIDE)
    places = [{(e["start"], e["end"], e["label"]) for e in own} for own in found]
    before = [{(e["start"], e["end"], e["label"]) for e in own if e["label"] != first} for own in one_for_all]
    assert all(first not in {label for *_, label in own} for own in places)
    assert sum(map(len, places)) < sum(map(len, before))


def test_nothing_is_found_at_one(load: Callable[..., GLiNER]):
    assert load("token-spans").inference(TEXTS, LABELS, threshold=1.0) == [[] for _ in TEXTS]


def test_only_spans_that_are_asked_for_are_found(load: Callable[..., GLiNER]):
    model = load("token-spans")
    found = model.inference(CROSSNER[:12], LABELS, threshold=0.3)
    asked = [[{"start": e["start"], "end": e["end"]} for e in own[::2]] for own in found]
    chosen = model.inference(CROSSNER[:12], LABELS, threshold=0.3, input_spans=asked)
    assert_same(chosen, [own[::2] for own in found])
    assert sum(map(len, chosen)) > 10


# --- the model as an object -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_gives_the_same_answers(copied: Callable[[Any], Any], load: Callable[..., GLiNER]):
    model = load("token-spans")
    assert copied(model).inference(TEXTS, LABELS, threshold=0.3) == model.inference(TEXTS, LABELS, threshold=0.3)


@pytest.mark.parametrize(("dtype", "off", "share"), [("int16", 0.05, 0.9), ("int8", 0.5, 0.3), ("bf16", 0.5, 0.3)])
def test_other_precisions_find_much_the_same(dtype: str, off: float, share: float, load: Callable[..., GLiNER]):
    # Random weights amplify rounding about a thousandfold (compat section 5.7).
    model = load("token-spans", dtype=dtype)
    assert model.precision == {"bf16": "bfloat16"}.get(dtype, dtype)
    exact, found = (
        {(row, e["start"], e["end"], e["label"]): e["score"] for row, own in enumerate(answers) for e in own}
        for answers in (own.inference(CROSSNER[:30], LABELS, threshold=0.3) for own in (load("token-spans"), model))
    )
    both = exact.keys() & found.keys()
    assert len(both) > share * len(exact.keys() | found.keys())
    assert 0 < max(abs(exact[place] - found[place]) for place in both) < off


def test_a_new_model_is_saved_and_loaded(checkpoint: Callable[[str], Path], tmp_path: Path):
    folder = checkpoint("token-spans")
    settings = json.loads((folder / "gliner_config.json").read_text())
    tokenizer = GLiNER.from_pretrained(folder).data_processor.transformer_tokenizer
    made = GLiNER.from_config(settings, backbone_from_pretrained=False, tokenizer=tokenizer)
    made.save_pretrained(tmp_path, safe_serialization=True)
    again = GLiNER.from_pretrained(tmp_path, strict=True)
    names = [name for name, _ in again.named_parameters() if ".spans." in f".{name}"]
    assert len(names) == 12
    own = dict(made.named_parameters())
    assert all(torch.equal(weight, own[name]) for name, weight in again.named_parameters())
    options = {"threshold": 0.3, **WIDE}
    assert again.inference(TEXTS, LABELS, **options) == made.inference(TEXTS, LABELS, **options)


def test_models_of_relations_do_not_read_the_setting(checkpoint: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(checkpoint("token-relex"), tmp_path / "relex")
    path = folder / "gliner_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"represent_spans": True}))
    model, plain = GLiNER.from_pretrained(folder), GLiNER.from_pretrained(checkpoint("token-relex"))
    assert model.model.spans is None
    assert model.inference(TEXTS, LABELS, threshold=0.3) == plain.inference(TEXTS, LABELS, threshold=0.3)


# --- training ---------------------------------------------------------------------------------------------------------


def test_it_is_not_trained(load: Callable[..., GLiNER], tmp_path: Path):
    refusal = r"the model scores the spans that it marks \(represent_spans\), .* not trained: train it with gliner"
    model = load("token-spans")
    with pytest.raises(TrainingError, match=refusal):
        model.train_model([], output_dir=tmp_path / "run", max_steps=1)
    with pytest.raises(TrainingError, match=refusal):
        trainer.Trainer(model, None, [], None, None)
    assert not (tmp_path / "run").exists()

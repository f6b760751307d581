"""A model that finds relations as an object: what it saves, copies of it, its settings and its precisions."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.relex import RelexGLiNER
from tests.relation_checkpoints import RELATIONS
from tests.relations.answers import assert_same
from tests.samples import CROSSNER, LABELS
from tests.test_network import Lookup

TEXTS = [text[:120] for text in CROSSNER[:10]]
ASKED = {"threshold": 0.3, "adjacency_threshold": 0.3, "relation_threshold": 0.3}
KINDS = ["relex", "relex-none", "relex-bilinear", "relex-gat", "relex-triples", "token-relex"]


@pytest.fixture
def load(checkpoint: Callable[[str], Path]) -> Callable[..., RelexGLiNER]:
    """Loads a kind, a new one each time."""
    return lambda kind="relex", **options: GLiNER.from_pretrained(checkpoint(kind), **options)


def answer(model: Any) -> Any:
    found = model.inference(TEXTS, LABELS, RELATIONS, **ASKED)
    assert sum(map(len, found[1])) > 10
    return found


def places(answers: Any) -> tuple[set[Any], set[Any]]:
    """Entities and relations without their scores."""
    entities = {(at, e["start"], e["end"], e["label"]) for at, own in enumerate(answers[0]) for e in own}
    relations = {
        (at, r["head"]["start"], r["head"]["end"], r["tail"]["start"], r["tail"]["end"], r["relation"])
        for at, own in enumerate(answers[1])
        for r in own
    }
    return entities, relations


def agreement(answers: Any, others: Any) -> tuple[float, float]:
    """The share of entities that are the same, and that of relations between spans that both have."""
    (entities, relations), (other_entities, other_relations) = places(answers), places(others)
    spans = {entity[:3] for entity in entities} & {entity[:3] for entity in other_entities}
    own, other = (
        {one for one in found if {(one[0], *one[1:3]), (one[0], *one[3:5])} <= spans}
        for found in (relations, other_relations)
    )
    assert min(len(own), len(other)) > 10
    return (
        len(entities & other_entities) / len(entities | other_entities),
        len(own & other) / len(own | other),
    )


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("safe_serialization", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ours_and_gliner_load_what_ours_saves(
    kind: str, safe_serialization: bool, load: Callable[..., RelexGLiNER], tmp_path: Path
):
    from gliner import GLiNER as Reference

    model = load(kind)
    model.save_pretrained(tmp_path, safe_serialization=safe_serialization)
    again, theirs = GLiNER.from_pretrained(tmp_path, strict=True), Reference.from_pretrained(str(tmp_path), strict=True)
    assert type(again) is RelexGLiNER
    expected = answer(model)
    assert_same(answer(again), expected)
    assert again.config == model.config
    found = theirs.inference(TEXTS, LABELS, relations=RELATIONS, **ASKED)
    for ours, reference in zip(places(expected), places(found), strict=True):
        # Scores are those of gliner but for rounding, so what is beside a threshold may differ.
        assert len(ours ^ reference) <= len(reference) // 50
        assert len(reference) > 10


@pytest.mark.parametrize("kind", ["relex", "relex-none", "relex-triples", "token-relex-gat"])
def test_saved_tensors_and_settings_are_gliner_s_own(kind: str, checkpoint: Callable[[str], Path], tmp_path: Path):
    from gliner import GLiNER as Reference

    GLiNER.from_pretrained(checkpoint(kind)).save_pretrained(tmp_path / "ours")
    Reference.from_pretrained(str(checkpoint(kind))).save_pretrained(tmp_path / "theirs")
    ours, theirs = (torch.load(tmp_path / name / "pytorch_model.bin") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    ours, theirs = (json.loads((tmp_path / name / "gliner_config.json").read_text()) for name in ("ours", "theirs"))
    written = theirs.keys() - {"transformers_version", "dtype", "encoder_config"}
    assert {name: ours.get(name) for name in written} == {name: theirs[name] for name in written}


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("kind", ["relex", "relex-triples", "token-relex-gat"])
def test_a_copy_gives_the_same_answers(kind: str, is_used: bool, copied: Callable[[Any], Any], load: Any):
    model = load(kind)
    expected = answer(model)
    other = copied(model if is_used else load(kind))
    assert type(other) is RelexGLiNER
    assert_same(answer(other), expected)


@pytest.mark.parametrize("part", ["", "relations", "relations.pairs"])
def test_a_part_left_in_training_mode_does_not_predict_in_it(part: str, load: Callable[..., RelexGLiNER]):
    model = load()
    expected = answer(model)
    model.model.get_submodule(part).train()
    assert answer(model) == expected
    assert not any(module.training for module in model.modules())


# --- settings ---------------------------------------------------------------------------------------------------------


def test_spans_are_as_wide_as_is_asked_for(load: Callable[..., RelexGLiNER]):
    model = load(max_width=2)
    entities, relations = answer(model)
    assert max(len(entity["text"].split()) for own in entities for entity in own) == 2
    for own, among in zip(relations, entities, strict=True):
        for relation in own:
            assert relation["head"]["text"] == among[relation["head"]["entity_idx"]]["text"]


def test_words_beyond_the_longest_text_have_no_relations(load: Callable[..., RelexGLiNER]):
    model = load(max_length=12)
    with pytest.warns(UserWarning, match="has been truncated to 12"):
        _, cut = model.inference(TEXTS, LABELS, RELATIONS, **ASKED)
    ends = [max(relation[end]["end"] for end in ("head", "tail")) for own in cut for relation in own]
    assert ends
    assert max(ends) < 80
    model.config.max_len = 384
    assert_same(answer(model), answer(load()))


def test_corrected_numbering_moves_relations_with_their_entities(load: Callable[..., RelexGLiNER]):
    texts = ["\u200b " + text for text in TEXTS]
    model = load(corrected_numbering=True)
    entities, relations = model.inference(texts, LABELS, RELATIONS, **ASKED)
    assert any(relations)
    for text, own, among in zip(texts, relations, entities, strict=True):
        for end in (relation[end] for relation in own for end in ("head", "tail")):
            entity = among[end["entity_idx"]]
            assert (end["start"], end["end"]) == (entity["start"], entity["end"])
            assert text[end["start"] : end["end"]] == end["text"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo tells of each place where it goes on without the compiler
@pytest.mark.parametrize("kind", ["relex", "token-relex-gat"])
def test_a_compiled_model_finds_as_before(kind: str, load: Callable[..., RelexGLiNER]):
    model = load(kind)
    torch.manual_seed(0)
    width = model.model.projection.in_features
    model.model.encoder = Lookup(model.config.vocab_size, width)  # the compiler takes half a minute for a transformer
    model.model.encoder.reads_packed, model.model.encoder.width = False, width
    asked = {"threshold": 0.2, "adjacency_threshold": 0.0, "relation_threshold": 0.0}
    expected = model.inference(TEXTS, LABELS, RELATIONS, **asked)
    with pytest.warns(UserWarning, match=r"compile\(\) makes a model slower on a CPU: leave it out there"):
        model.compile(backend="eager")
    found = model.inference(TEXTS, LABELS, RELATIONS, **asked)
    assert sum(map(len, expected[1])) > 10
    assert_same(found, expected)


# --- precisions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["relex", "relex-gat", "relex-gcn", "relex-triples", "token-relex"])
def test_16_bits_find_mostly_the_same(kind: str, dtype: str, load: Callable[..., RelexGLiNER]):
    model = load(kind, dtype=dtype)
    assert model.dtype == (torch.bfloat16 if dtype == "bf16" else torch.float16)
    least = 0.6 if dtype == "bf16" else 0.9
    assert min(agreement(answer(load(kind)), answer(model))) > least


@pytest.mark.parametrize("kind", ["relex", "token-relex"])
def test_whole_numbers_find_mostly_the_same(kind: str, load: Callable[..., RelexGLiNER], tmp_path: Path):
    exact, model = load(kind), load(kind, dtype="int16")
    assert (exact.precision, model.precision) == ("float32", "int16")
    expected, found = answer(exact), answer(model)
    assert found != expected
    assert min(agreement(expected, found)) > 0.95
    assert_same(answer(copy.deepcopy(model)), found)
    model.save_pretrained(tmp_path)
    assert_same(answer(GLiNER.from_pretrained(tmp_path)), expected)  # what is saved is float32


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_holds_in_the_thread_that_relates(
    kind: str, load: Callable[..., RelexGLiNER], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    model = load(kind)
    model.token_budget = 120

    def found() -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return places(answer(model))

    beside = found()
    request.getfixturevalue("overlapping")
    monkeypatch.setattr(Predictor, "can_overlap", True)
    assert found() == beside

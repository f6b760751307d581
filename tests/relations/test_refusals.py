"""What models that find relations are not asked, and what no other model is: told by name, before anything long."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from gliner_fast import GLiNER
from gliner_fast.cli import main
from gliner_fast.errors import CheckpointError, CheckpointWarning, UnsupportedCheckpointError
from gliner_fast.pipeline import Window, predict_windows
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relex import RelexGLiNER
from gliner_fast.stats import Stats
from gliner_fast.training import TrainingConfig, TrainingError, train, trainer
from tests.training.sentences import write_sentences

TEXT, LABELS, RELATIONS = "Ada Lovelace lived in London.", ["person", "city"], ["lived in"]
NOT_TRAINED = r"the model finds relations \(relations_layer is 'mlp'\), .* not trained: train it with gliner"


@pytest.fixture(scope="module")
def relex(checkpoint: Callable[[str], Path]) -> RelexGLiNER:
    return GLiNER.from_pretrained(checkpoint("relex"))


@pytest.fixture
def broken(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of a checkpoint with other settings."""

    def changed(**settings: Any) -> Path:
        folder = shutil.copytree(checkpoint("relex"), tmp_path / "broken")
        path = folder / "gliner_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        return folder

    return changed


def unread() -> Iterator[Any]:
    """Data that nobody is to read."""
    raise AssertionError("read")
    yield


# --- training ------------------------------------------------------------------------------------------


@pytest.fixture
def config(checkpoint: Callable[[str], Path], tmp_path: Path) -> dict[str, Any]:
    """Settings of a run."""
    return {
        "output_dir": str(tmp_path / "run"),
        "model": str(checkpoint("relex")),
        "train": str(write_sentences(tmp_path / "data.jsonl")),
        "device": "cpu",
        "steps": 1,
    }


def test_it_is_not_trained_in_place(relex: RelexGLiNER, tmp_path: Path):
    with pytest.raises(TrainingError, match=NOT_TRAINED):
        relex.train_model(unread(), output_dir=tmp_path / "run", max_steps=1)
    assert not (tmp_path / "run").exists()


def test_it_is_not_trained_by_a_configuration(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trainer, "read_corpus", None)
    with pytest.raises(TrainingError, match=NOT_TRAINED):
        train(TrainingConfig.from_mapping(config, "test"))


def test_it_is_not_trained_on_the_command_line(
    config: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as end:
        main(["train", str(tmp_path / "config.yaml")])
    out, err = capfd.readouterr()
    assert (end.value.code, out) == (2, "")
    assert "the model finds relations (relations_layer is 'mlp')" in err
    assert "Traceback" not in err


def test_no_trainer_takes_it(relex: RelexGLiNER):
    with pytest.raises(TrainingError, match=NOT_TRAINED):
        trainer.Trainer(relex, None, [], None, None)


@pytest.mark.parametrize("make", [GLiNER, GLiNER.from_config, RelexGLiNER, RelexGLiNER.from_config])
def test_it_is_not_made_anew(make: Callable[..., Any], checkpoint: Callable[[str], Path]):
    with pytest.raises(UnsupportedCheckpointError, match="relation extraction models are .* not made anew"):
        make(checkpoint("relex") / "gliner_config.json")


# --- relations of other models ----------------------------------------------------------------------------------------


@pytest.fixture
def other(checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> GLiNER:
    """A model of entities alone, which computes nothing."""
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    monkeypatch.setattr(model.model, "forward", None)
    return model


NO_RELATIONS = r"relations is .*'lived in'.*, but the model finds none: leave them out, or load a relation extraction"


def test_other_models_are_asked_for_no_relations(other: GLiNER):
    for relations in ("lived in", RELATIONS, [RELATIONS]):
        request = Request.read([TEXT], LABELS, Options(relations=relations))
        with pytest.raises(ValueError, match=NO_RELATIONS):
            other.answer(request)
    windows = predict_windows(other, [Window([TEXT], LABELS)], Options(relations=RELATIONS), stats=Stats())
    with pytest.raises(ValueError, match=NO_RELATIONS):
        list(windows)


def test_a_request_for_no_relations_is_any_model_s(other: GLiNER):
    request = Request.read([TEXT], LABELS, Options(relations=[], return_relations=True))
    assert other.predictor().prepare(request).texts == [TEXT]


def test_a_stream_of_another_model_is_refused_before_a_text_is_read(other: GLiNER):
    with pytest.raises(ValueError, match=NO_RELATIONS):
        RelexGLiNER.stream(other, unread(), LABELS, relations=RELATIONS)  # type: ignore[arg-type]


def test_other_models_have_no_arguments_of_relations(other: GLiNER):
    with pytest.raises(TypeError, match="relations"):
        other.stream([TEXT], LABELS, relations=RELATIONS)
    with pytest.raises(TypeError, match="flat_ner is"):  # the third argument of other models
        other.inference([TEXT], LABELS, RELATIONS)
    with pytest.raises(AttributeError, match="predict_relations"):
        _ = other.predict_relations


def test_another_checkpoint_is_not_loaded_as_one_of_relations(checkpoint: Callable[[str], Path]):
    with pytest.raises(CheckpointError, match=r"RelexGLiNER is for relation extraction .*GLiNER\.from_pretrained"):
        RelexGLiNER.from_pretrained(checkpoint("deberta"))


def test_a_class_of_the_user_s_own_is_kept(checkpoint: Callable[[str], Path]):
    class Own(RelexGLiNER):
        pass

    assert type(Own.from_pretrained(checkpoint("relex"))) is Own
    assert type(RelexGLiNER.from_pretrained(checkpoint("relex"))) is RelexGLiNER


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_encoder": "BAAI/bge-small-en"}, "a relation extraction .* with a labels_encoder"),
        ({"relations_layer": "biaffine"}, "relations_layer 'biaffine'"),
        ({"relations_layer": "None"}, "relations_layer 'None'"),  # gliner has no such layer, only "none"
        ({"relations_layer": 5}, "relations_layer 5"),
        ({"triples_layer": "TuckER"}, "triples_layer 'TuckER'"),
        ({"triples_layer": "distmult"}, "triples_layer 'distmult'"),
        ({"triples_layer": "TransH"}, "'TransH', which gliner builds for a hidden_size of 768 alone: it is 48"),
    ],
)
def test_layers_that_are_not_run_are_refused_by_name(
    settings: dict[str, Any], message: str, broken: Callable[..., Path]
):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        GLiNER.from_pretrained(broken(**settings))


def test_a_tokenizer_without_the_relation_token_is_refused(broken: Callable[..., Path]):
    folder = broken(rel_token="<<RELATION>>")
    with pytest.raises(
        CheckpointError, match=r"tokenizer does not have the relation token '<<RELATION>>': set .* vocab_size to -1"
    ):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize("number", [-1, 7, 10**6])
def test_another_number_than_the_tokenizer_s_is_warned_of(number: int, broken: Callable[..., Path], relex: RelexGLiNER):
    folder = broken(rel_token_index=number)
    message = rf"rel_token_index is {number}, but the tokenizer's id of '<<REL>>' is .*relations will not be found"
    if number > 10**5:
        with pytest.warns(UserWarning, match=message), pytest.raises(CheckpointError, match="the relation token has"):
            GLiNER.from_pretrained(folder)
        return
    with pytest.warns(UserWarning, match=message):
        model = GLiNER.from_pretrained(folder)
    entities, relations = model.predict_relations(TEXT, LABELS, RELATIONS, threshold=-1, adjacency_threshold=-1)
    assert entities == relex.predict_entities(TEXT, LABELS, RELATIONS, threshold=-1)
    assert relations == []


def test_embeddings_of_too_few_tokens_are_told(broken: Callable[..., Path], relex: RelexGLiNER):
    folder = broken()
    tensors = load_file(folder / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name] = tensors[name][: relex.config.rel_token_index].clone()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="word embeddings, but the relation token has the id"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize("layer", ["relations_rep_layer", "pair_rep_layer"])
def test_layers_that_the_file_lacks_are_named(layer: str, broken: Callable[..., Path]):
    folder = broken()
    tensors = load_file(folder / "model.safetensors")
    save_file({name: own for name, own in tensors.items() if layer not in name}, folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match=rf"it lacks '{layer}\..*, filled with zeros"):
        GLiNER.from_pretrained(folder)
    with pytest.raises(CheckpointError, match=f"does not fit the model: it lacks '{layer}"):
        GLiNER.from_pretrained(folder, strict=True)


def test_a_tokenizer_that_lacks_all_of_gliner_s_tokens_gets_them(relex: RelexGLiNER):
    from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer, add_special_tokens
    from tests.random_checkpoints import corpus
    from tests.tokenizer_makers import make_tokenizer

    bare = CheckpointTokenizer.of(make_tokenizer("unigram", corpus(), size=2_000, max_subwords=None))
    config = relex.config.replace(class_token_index=-1, rel_token_index=-1, vocab_size=-1)
    tokenizer, found = add_special_tokens(bare, config, resize=True)
    assert [tokenizer.backend.token_to_id(own) for own in ("<<ENT>>", "<<SEP>>", "<<REL>>")] == [2000, 2001, 2002]
    assert (found.class_token_index, found.rel_token_index, found.vocab_size) == (2000, 2002, 2003)

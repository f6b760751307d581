"""New bi-encoders: two encoders, random or pretrained, and a random head, of the shapes that gliner gives them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from gliner_fast import CheckpointError, GLiNER, UnsupportedCheckpointError
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS
from tests.training.test_encoders import make_encoder

TEXTS = CROSSNER[:6]
LABEL_WIDTH = 40  # of the labels' encoder: neither the texts' (32) nor the head's


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with an encoder of their own and a tokenizer, as on the Hub; no GLiNER tokens in them."""
    root = tmp_path_factory.mktemp("encoders")
    of_labels = {"deberta-v3": {"hidden_size": LABEL_WIDTH}, "t5": {"d_model": LABEL_WIDTH}}
    texts = {name: make_encoder(root / name, name) for name in ("deberta-v3", "bert", "mt5")}
    labels = {f"labels-{name}": make_encoder(root / f"labels-{name}", name, **own) for name, own in of_labels.items()}
    spare = make_encoder(root / "spare", "deberta-v3", vocab_size=950)
    return {**texts, **labels, "labels-bert": make_encoder(root / "labels-bert", "bert"), "spare": spare}


@pytest.fixture
def settings(encoders: dict[str, Path]) -> dict[str, Any]:
    return settings_of(encoders, "deberta-v3", "labels-deberta-v3")


def settings_of(encoders: dict[str, Path], texts: str, labels: str, **others: Any) -> dict[str, Any]:
    """Settings of a model; the name of each encoder of texts or labels."""
    named = {"model_name": str(encoders[texts]), "labels_encoder": str(encoders[labels])}
    return {**named, "hidden_size": 24, "max_width": 4, "span_mode": "markerV0", **others}


def random_model(settings: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """The weights of a model whose encoders are random, too."""
    torch.manual_seed(seed)
    weights: dict[str, torch.Tensor] = GLiNER.from_config(settings, backbone_from_pretrained=False).model.state_dict()
    return weights


# --- what is made -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "labels"),
    [("deberta-v3", "labels-bert"), ("bert", "labels-deberta-v3"), ("mt5", "labels-t5"), ("spare", "labels-bert")],
)
def test_both_encoders_are_the_pretrained_ones(texts: str, labels: str, encoders: dict[str, Path]) -> None:
    model = GLiNER.from_config(settings_of(encoders, texts, labels)).model
    ids, lengths = torch.randint(5, 800, (2, 9), generator=torch.Generator().manual_seed(1)), torch.tensor([9, 6])
    mask = torch.arange(9) < lengths[:, None]
    for name, ours in ((texts, model.encoder), (labels, model.label_encoder.encoder)):
        whole = AutoModel.from_pretrained(encoders[name]).eval()
        with torch.inference_mode():
            theirs = getattr(whole, "encoder", whole) if name.endswith("t5") else whole
            wanted = theirs(ids, attention_mask=mask.long()).last_hidden_state
            torch.testing.assert_close(ours(ids, lengths)[mask], wanted[mask], rtol=0, atol=1e-5)


def test_random_encoders_are_random_and_reproducible(settings: dict[str, Any]) -> None:
    first, again, other = (random_model(settings, seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    of_labels = [name for name in first if name.startswith("label_encoder.") and name.endswith("embeddings.weight")]
    assert of_labels
    for name in of_labels:
        assert not torch.equal(first[name], other[name])
        assert float(first[name].std()) == pytest.approx(0.2, rel=0.1)  # DeBERTa's own range, and not torch's


def test_a_head_as_wide_as_an_encoder_has_no_projection_of_it(encoders: dict[str, Path]) -> None:
    def projected(hidden_size: int) -> tuple[bool, bool]:
        model = GLiNER.from_config(settings_of(encoders, "bert", "labels-deberta-v3", hidden_size=hidden_size)).model
        return model.projection is not None, model.label_encoder.projection is not None

    assert {width: projected(width) for width in (24, 32, LABEL_WIDTH)} == {
        24: (True, True), 32: (False, True), LABEL_WIDTH: (True, False)
    }  # fmt: skip


def test_no_tokenizer_has_a_subword_without_an_embedding(encoders: dict[str, Path], tmp_path: Path) -> None:
    settings = settings_of(encoders, "bert", "labels-bert", class_token_index=5, vocab_size=7)  # of another model
    model = GLiNER.from_config(settings)
    config = model.config
    assert (config.class_token_index, config.vocab_size) == (-1, -1)
    for tokenizer, own in (
        (model.data_processor.transformer_tokenizer, config.encoder_config),
        (model.data_processor.labels_tokenizer, config.labels_encoder_config),
    ):
        assert "<<ENT>>" not in tokenizer.get_vocab()
        assert own is not None
        assert len(tokenizer) == own["vocab_size"]
    model.save_pretrained(tmp_path)
    assert GLiNER.from_pretrained(tmp_path).encode_labels("<<ENT>>").shape == (1, 24)


def test_tokenizers_may_be_given(encoders: dict[str, Path], settings: dict[str, Any]) -> None:
    given = AutoTokenizer.from_pretrained(encoders["labels-bert"])
    given.add_tokens([f"new{number}" for number in range(7)])
    model = GLiNER.from_config(settings, labels_tokenizer=given)
    assert model.data_processor.labels_tokenizer is given
    table = model.model.label_encoder.encoder.word_embeddings.weight
    pretrained = AutoModel.from_pretrained(settings["labels_encoder"]).embeddings.word_embeddings.weight
    assert (len(table), len(pretrained)) == (len(given), len(given) - 7)
    assert torch.equal(table[:-7], pretrained)
    assert model.encode_labels(["new6"]).shape == (1, 24)
    with pytest.raises(ValueError, match="labels_tokenizer is given, but no labels_encoder: leave it out"):
        GLiNER.from_config({**settings, "labels_encoder": None}, labels_tokenizer=given)


# --- beside gliner ----------------------------------------------------------------------------------------------------


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:Resizing embeddings is not supported for bi-encoder models")
@pytest.mark.parametrize("is_pretrained", [True, False])
@pytest.mark.parametrize(
    ("texts", "labels", "others"),
    [
        ("deberta-v3", "labels-bert", {}),
        ("spare", "labels-deberta-v3", {"span_mode": "marker", "num_rnn_layers": 2}),
        ("bert", "labels-deberta-v3", {"span_mode": "token_level", "hidden_size": LABEL_WIDTH}),
        ("mt5", "labels-t5", {"num_rnn_layers": 0, "hidden_size": 32}),
        ("deberta-v3", "labels-t5", {"post_fusion_schema": "l2l-l2t-t2t", "num_post_fusion_layers": 2}),
    ],
)
def test_what_is_saved_has_gliner_s_names_and_shapes_and_predicts_the_same_there(
    texts: str, labels: str, others: dict[str, Any], is_pretrained: bool, encoders: dict[str, Path], tmp_path: Path
) -> None:
    from gliner import GLiNER as Reference

    settings = settings_of(encoders, texts, labels, **others)
    torch.manual_seed(4)
    ours = GLiNER.from_config(settings, backbone_from_pretrained=is_pretrained)
    ours.save_pretrained(tmp_path / "ours", safe_serialization=True)
    theirs = Reference.from_config(settings, backbone_from_pretrained=is_pretrained)
    theirs.save_pretrained(tmp_path / "theirs", safe_serialization=True)
    saved, wanted = (load_file(tmp_path / whose / "model.safetensors") for whose in ("ours", "theirs"))
    assert {name: tensor.shape for name, tensor in saved.items()} == {
        name: tensor.shape
        for name, tensor in wanted.items()
        if not name.startswith("rnn.")  # which nobody runs (Q11)
    }
    for name in ("encoder_config", "labels_encoder_config"):
        written, their = (
            json.loads((tmp_path / whose / "gliner_config.json").read_text())[name] for whose in ("ours", "theirs")
        )
        for key in ("model_type", "vocab_size", "pad_token_id"):
            assert written[key] == their[key]
    pair = Pair(ours, Reference.from_pretrained(str(tmp_path / "ours"), strict=True))
    answers = pair.check(TEXTS, LABELS, threshold=0.0, flat_ner=False)
    assert sum(map(len, answers)) > 10
    torch.testing.assert_close(ours.encode_labels(LABELS), pair.reference.encode_labels(LABELS), rtol=0, atol=1e-5)
    loaded = Pair.load_ours(tmp_path / "ours", strict=True)
    Pair(loaded, pair.reference).check(TEXTS[:2], LABELS, threshold=0.0, flat_ner=False)


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:Resizing embeddings is not supported for bi-encoder models")
@pytest.mark.parametrize("texts", ["bert", "deberta-v3", "spare"])
def test_what_gliner_makes_and_saves_is_loaded(texts: str, encoders: dict[str, Path], tmp_path: Path) -> None:
    from gliner import GLiNER as Reference

    made = Reference.from_config(settings_of(encoders, texts, "labels-bert"))
    made.save_pretrained(tmp_path / "theirs")
    loaded = Pair.load_ours(tmp_path / "theirs")
    Pair(loaded, made).check(TEXTS, LABELS, threshold=0.0, flat_ner=False)
    tokenizer = loaded.data_processor.transformer_tokenizer
    assert tokenizer.get_vocab() == made.data_processor.transformer_tokenizer.get_vocab()
    assert "<<ENT>>" in tokenizer.get_vocab()
    loaded.save_pretrained(tmp_path / "ours")
    Pair.load(tmp_path / "ours").check(TEXTS[:2], LABELS, threshold=0.0, flat_ner=False)
    loaded.data_processor.words_splitter = lambda text: [(own[0], *own.span()) for own in re.finditer(r"\S+", text)]
    assert loaded.predict_entities("Ada <<ENT>> wrote", ["person"], threshold=0.0)  # an IndexError there


# --- what is told -----------------------------------------------------------------------------------------------------


def test_what_cannot_be_had_is_named(settings: dict[str, Any], encoders: dict[str, Path], tmp_path: Path) -> None:
    missing = {**settings, "labels_encoder": str(tmp_path / "nowhere")}
    with pytest.raises(
        CheckpointError, match=r"labels_encoder '.*nowhere' cannot be had: .* Name a local folder in lab"
    ):
        GLiNER.from_config(missing)
    known = json.loads((encoders["labels-bert"] / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"tokenizer of the bi-encoder's labels cannot be had from .*nowhere"):
        GLiNER.from_config({**missing, "labels_encoder_config": known})
    tokenizer = AutoTokenizer.from_pretrained(encoders["labels-bert"])
    with pytest.raises(
        CheckpointError, match=r"pretrained encoder '.*nowhere' .* Name a local folder in labels_encoder"
    ):
        GLiNER.from_config({**missing, "labels_encoder_config": known}, labels_tokenizer=tokenizer)
    made = GLiNER.from_config(
        {**missing, "labels_encoder_config": known}, labels_tokenizer=tokenizer, backbone_from_pretrained=False
    )
    assert made.encode_labels(LABELS).shape == (len(LABELS), 24)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"model_type": "qwen2"}, "the encoder of labels: encoder_config names 'qwen2', which is not an encoder"),
        ({"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1}, "of labels: .* names 'bart'"),
        ({"model_type": "vit", "num_hidden_layers": 1}, "of labels: .* names 'vit', which is not an encoder of texts"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_labels_have_no_other_encoders_than_texts(
    kind: dict[str, Any], message: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    AutoTokenizer.from_pretrained(settings["labels_encoder"]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 32, "num_attention_heads": 4, **kind}))
    with pytest.raises(UnsupportedCheckpointError, match=message):
        GLiNER.from_config({**settings, "labels_encoder": str(tmp_path)})


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 48},
        {"num_hidden_layers": 3},
        {"num_hidden_layers": 1},  # the second would be left out
        {"intermediate_size": 64},
        {"position_buckets": 8, "max_position_embeddings": 40},  # whose rows are not the first of the larger table's
    ],
    ids=str,
)
@pytest.mark.parametrize("whose", ["encoder_config", "labels_encoder_config"])
def test_settings_of_another_encoder_than_the_pretrained_one_are_refused(
    whose: str, change: dict[str, Any], settings: dict[str, Any]
) -> None:
    folder = settings["model_name" if whose == "encoder_config" else "labels_encoder"]
    other = json.loads((Path(folder) / "config.json").read_text()) | change
    with pytest.raises(CheckpointError, match=rf"^{whose} is not that of the pretrained encoder .*: leave {whose} out"):
        GLiNER.from_config({**settings, whose: other})

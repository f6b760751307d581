"""`gliner_config.json` of every era, and the kinds of checkpoint that are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gliner_fast.config import KNOWN_SPAN_MODES, RELATIONS_LAYERS, SPAN_MODES, TRIPLES_LAYERS, GLiNERConfig
from gliner_fast.errors import CheckpointError, UnsupportedCheckpointError

# urchade/gliner_base, a first-era configuration (compat section 2.2), host-specific values left out.
FIRST_ERA = {
    "size_sup": -1,
    "max_types": 25,
    "shuffle_types": True,
    "random_drop": True,
    "max_neg_type_ratio": 1,
    "max_len": 384,
    "lr_encoder": "1e-5",
    "num_steps": 30000,
    "max_width": 12,
    "model_name": "microsoft/deberta-v3-base",
    "fine_tune": True,
    "subtoken_pooling": "first",
    "hidden_size": 768,
    "span_mode": "marker",
    "dropout": 0.2,
    "name": "abl",
}


def test_a_first_era_file_reads_with_defaults_and_keeps_unknown_keys(tmp_path: Path) -> None:
    path = tmp_path / "gliner_config.json"
    path.write_text(json.dumps(FIRST_ERA))
    config = GLiNERConfig.from_file(path)
    assert (config.hidden_size, config.span_mode, config.class_token_index, config.encoder_config) == (
        768,
        "marker",
        -1,
        None,
    )
    assert config.lr_encoder == "1e-5"
    assert {**config.to_dict(), **FIRST_ERA} == config.to_dict()
    config.refuse_unsupported()


@pytest.mark.gliner
def test_a_setting_that_is_not_given_is_what_gliner_has_it_be() -> None:
    from gliner import GLiNERConfig as ReferenceConfig

    ours, theirs = GLiNERConfig(relations_layer="dot").to_dict(), ReferenceConfig(relations_layer="dot").to_dict()
    shared = ours.keys() & theirs.keys()
    assert {"max_width", "max_len", "dropout", "subtoken_pooling", "ent_token", "class_token_index"} < shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("max_width", [10**20], "at most 2,147,483,647"),
        ("hidden_size", [True, 1.5, "384"], "a whole number of at least 1"),
        ("max_len", [10**30], "at most 9,223,372,036,854,775,807"),
        ("num_rnn_layers", ["1", None, []], "a whole number"),
        ("dropout", [float("nan"), -1, 2, "x", None], "a number from 0 to 1"),
        ("class_token_index", ["5", None, 1.0], "a whole number"),
        ("rel_token_index", ["5", None], "a whole number"),
        ("vocab_size", ["5", None], "a whole number"),
        ("ent_token", [None, 5], "a string"),
        ("rel_token", [None, 5], "a string"),
        ("sep_token", ["\ud800"], "a string without halves of surrogates"),
    ],
)
def test_a_setting_of_another_kind_is_told_by_file_and_name(
    name: str, values: list[object], expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "gliner_config.json"
    for value in values:
        path.write_text(json.dumps({name: value}))
        with pytest.raises(CheckpointError, match=rf"gliner_config\.json: {name} is .*: expected {expected}$"):
            GLiNERConfig.from_file(path)


def test_an_override_of_none_leaves_the_file_s_value(tmp_path: Path) -> None:
    path = tmp_path / "gliner_config.json"
    path.write_text(json.dumps(FIRST_ERA))
    config = GLiNERConfig.from_file(path, max_len=100, max_width=None)
    assert (config.max_len, config.max_width) == (100, 12)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model_type": "gliner_streaming_span"}, "a streaming model"),
        ({"relations_layer": "biaffine", "span_mode": "token_level"}, "a relation extraction"),
        ({"labels_decoder": "gpt2"}, "a label-generating"),
        ({"labels_encoder": "bge-small", "post_fusion_schema": "l2l-x2t"}, "a bi-encoder with the post_fusion_schema"),
        *[({"span_mode": mode}, f"span_mode '{mode}'") for mode in KNOWN_SPAN_MODES if mode not in SPAN_MODES],
        ({"span_mode": "markerV9"}, "unknown span_mode 'markerV9'"),
        ({"span_encoder_config": {"model_type": "bert"}}, "an extra span encoder"),
        ({"fuse_layers": True}, "fuses all encoder layers"),
        ({"precomputed_prompts_mode": True}, "precomputed prompts"),
    ],
)
def test_other_kinds_are_refused_in_one_sentence_that_names_them(changes: dict[str, Any], kind: str) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=kind) as caught:
        GLiNERConfig.from_dict(changes).refuse_unsupported()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_width": 0}, "max_width is 0"),
        ({"max_len": "384"}, "max_len is '384'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"subtoken_pooling": "median"}, "subtoken_pooling is 'median'"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_file(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "gliner_config.json"
    path.write_text(json.dumps(changes))
    with pytest.raises(CheckpointError, match=words) as caught:
        GLiNERConfig.from_file(path)
    assert str(path) in str(caught.value)


def test_token_level_models_are_told_apart_and_run() -> None:
    token_level, span = GLiNERConfig(span_mode="token_level"), GLiNERConfig()
    token_level.refuse_unsupported()
    assert (token_level.is_token_level, span.is_token_level) == (True, False)


def test_models_that_score_the_spans_that_they_mark_are_told_apart_and_run() -> None:
    scoring = GLiNERConfig(span_mode="token_level", represent_spans=True)
    for kind in (scoring, scoring.replace(labels_encoder="bge-small")):
        kind.refuse_unsupported()
        assert kind.scores_marked_spans
    # Neither others' marks, nor models that find relations: these do not read the setting.
    for other in (GLiNERConfig(represent_spans=True), GLiNERConfig(span_mode="token_level")):
        assert not other.scores_marked_spans
    assert not scoring.replace(relations_layer="mlp").scores_marked_spans
    with pytest.raises(CheckpointError, match="represent_spans is True, and the model is made by it"):
        scoring.in_use().represent_spans = False


def test_bi_encoders_are_told_apart_and_run() -> None:
    bi_encoder = GLiNERConfig(labels_encoder="bge-small", post_fusion_schema="")
    for schema in ("", None, "l2l-l2t-t2t", "t2l"):
        bi_encoder.replace(post_fusion_schema=schema).refuse_unsupported()
    assert (bi_encoder.is_bi_encoder, GLiNERConfig().is_bi_encoder) == (True, False)


# --- relations --------------------------------------------------------------------------------------------------------

OF_RELEX = {"triples_layer", "embed_rel_token", "rel_token_index", "rel_token"}
RELEX = {"relations_layer": "GAT", "triples_layer": "DistMult", "embed_rel_token": False, "rel_token_index": 1_002}


def test_the_layers_of_relations_are_those_that_are_run() -> None:
    from gliner_fast.relations import adjacency, triples

    assert ("none", *adjacency._LAYERS) == RELATIONS_LAYERS
    assert sorted(TRIPLES_LAYERS) == sorted([*triples._FORMULAS, *triples._LAYERS])


@pytest.mark.parametrize("triples_layer", [None, *TRIPLES_LAYERS])
@pytest.mark.parametrize("relations_layer", [*RELATIONS_LAYERS, "MLP"])
def test_models_of_relations_are_told_apart_and_run(relations_layer: str, triples_layer: str | None) -> None:
    config = GLiNERConfig(relations_layer=relations_layer, triples_layer=triples_layer)
    config.refuse_unsupported()
    assert (config.is_relex, GLiNERConfig().is_relex) == (True, False)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"relations_layer": "None"}, "relations_layer 'None'"),  # in gliner only "none" is none
        ({"relations_layer": "biaffine"}, "relations_layer 'biaffine'"),
        ({"relations_layer": 5}, "relations_layer 5"),
        ({"relations_layer": "dot", "triples_layer": "distmult"}, "triples_layer 'distmult'"),
        ({"relations_layer": "dot", "triples_layer": "Hole"}, "triples_layer 'Hole'"),
        ({"relations_layer": "dot", "triples_layer": "TuckER"}, "triples_layer 'TuckER'"),
        ({"relations_layer": "dot", "labels_encoder": "bge-small"}, "with a labels_encoder"),
        ({"relations_layer": "dot", "labels_decoder": "gpt2"}, "a label-generating"),
    ],
)
def test_models_of_relations_that_are_not_run_are_refused_by_name(changes: dict[str, Any], kind: str) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=kind):
        GLiNERConfig.from_dict(changes).refuse_unsupported()


def test_only_the_settings_of_a_model_of_relations_have_what_these_need() -> None:
    # With a rel_token, gliner warns of every tokenizer that lacks it.
    assert set(GLiNERConfig().to_dict()) & OF_RELEX == set()
    assert GLiNERConfig().to_dict()["relations_layer"] is None
    relex = GLiNERConfig(**RELEX)
    written = json.loads(json.dumps(relex.to_dict()))
    assert {name: written[name] for name in RELEX} == RELEX
    assert set(written) >= OF_RELEX
    assert GLiNERConfig.from_dict(written) == relex


def test_settings_of_relations_in_the_file_of_another_model_are_read_and_not_written() -> None:
    config = GLiNERConfig.from_dict({"rel_token": "<<R>>", "relations_layer": None, "rel_token_index": 7})
    assert (config.rel_token, config.rel_token_index) == ("<<R>>", 7)
    assert set(config.to_dict()) & OF_RELEX == set()
    assert config.extra == {}


@pytest.mark.parametrize("name", ["relations_layer", *sorted(OF_RELEX)])
def test_what_relations_are_found_by_cannot_be_assigned_once_it_is_in_use(name: str) -> None:
    config, other = GLiNERConfig(**RELEX), {"embed_rel_token": True, "rel_token_index": 5}.get(name, "TransE")
    in_use = config.in_use()
    with pytest.raises(CheckpointError, match=rf"^{name} is .*, and the model is made by it"):
        setattr(in_use, name, other)
    assert in_use.to_dict() == config.to_dict()
    setattr(in_use, name, getattr(config, name))  # the same again changes nothing
    setattr(config, name, other)
    assert getattr(config, name) == other


def test_an_unknown_setting_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no setting 'nonsense'"):
        _ = GLiNERConfig().nonsense

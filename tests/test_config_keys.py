"""Keys that are no settings, configurations of encoders, and what gliner's configurations have of transformers'."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gliner_fast import CheckpointError, GLiNER, GLiNERConfig

ENCODER = {"model_type": "deberta-v2", "hidden_size": 64, "vocab_size": 100}
OWN = {"transformers_version": "4.51.3", "lr_encoder": "1e-5", "train_data": "d.json", "architectures": None}


def test_keys_of_files_are_taken_by_keyword() -> None:
    config = GLiNERConfig(max_len=10, **OWN)
    assert (config.max_len, config.lr_encoder, config.extra) == (10, "1e-5", OWN)
    assert config == GLiNERConfig.from_dict({"max_len": 10, **OWN})
    assert config.replace(max_len=11, train_data="e.json").to_dict() == {
        **config.to_dict(),
        "max_len": 11,
        "train_data": "e.json",
    }


@pytest.mark.parametrize(
    ("key", "meant"),
    [("max_widht", "max_width"), ("max_lenght", "max_len"), ("span_model", "span_mode"), ("maxlen", "max_len")],
)
def test_a_misspelt_setting_is_refused_and_the_right_one_named(key: str, meant: str) -> None:
    with pytest.raises(TypeError, match=rf"GLiNERConfig\(\) has no setting '{key}': did you mean '{meant}'\?"):
        GLiNERConfig(**{key: 5})
    config = GLiNERConfig()
    with pytest.raises(AttributeError, match=f"has no setting '{key}': did you mean '{meant}'"):
        setattr(config, key, 5)
    assert config == GLiNERConfig()
    assert GLiNERConfig.from_dict({key: 5}).extra == {key: 5}  # files are taken as they are
    with pytest.raises(TypeError, match="positional"):
        GLiNERConfig("microsoft/deberta-v3-small")  # type: ignore[misc]


def test_no_key_of_transformers_or_of_gliner_is_taken_for_a_misspelling() -> None:
    import gliner.config
    from transformers import PretrainedConfig

    classes = [own for own in vars(gliner.config).values() if inspect.isclass(own)]
    names = {name for own in classes for name in inspect.signature(own).parameters} | set(PretrainedConfig().to_dict())
    names |= {"attn_implementation", "max_length", "sep_token_id", "cls_token_id", "use_cache", "tie_word_embeddings"}
    config = GLiNERConfig()
    for name in names - {"args", "kwargs"} - set(config.__dataclass_fields__):
        GLiNERConfig(**{name: None})
        if name != "max_length":  # as transformers once wrote it into files, and not meant by who assigns it
            setattr(config, name, None)
    with pytest.raises(AttributeError, match="did you mean 'max_len'"):
        config.max_length = 5


def test_a_key_of_the_file_may_be_assigned_however_like_a_setting_it_is() -> None:
    config = GLiNERConfig.from_dict({"max_widht": 7})
    config.max_widht = 8
    assert (config.max_widht, config.max_width) == (8, 12)
    with pytest.raises(AttributeError, match="did you mean 'max_len'"):
        config.max_lenn = 8


def test_own_keys_are_kept_and_saved_and_others_are_attribute_errors(checkpoint: Any, tmp_path: Path) -> None:
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    assert getattr(model.config, "use_cache", "none") == "none"
    model.config.my_key = {"a": 1}
    model.config.update({"use_cache": False, "max_len": 7})
    model.config.encoder_config.my_own = 3
    with pytest.raises(CheckpointError, match="max_width is 12, and the model is made by it"):
        model.config.update({"max_width": 3})
    model.save_pretrained(tmp_path)
    again = GLiNER.from_pretrained(tmp_path).config
    assert (again.my_key, again.use_cache, again.max_len, again.encoder_config.my_own) == ({"a": 1}, False, 7, 3)


def test_an_encoder_s_configuration_is_a_dict_with_attributes() -> None:
    given = dict(ENCODER)
    config = GLiNERConfig(encoder_config=given, labels_encoder_config=given)
    encoder = config.encoder_config
    assert (encoder.hidden_size, encoder["hidden_size"], getattr(encoder, "nonsense", None)) == (64, 64, None)
    encoder.vocab_size = 200
    assert config.to_dict()["encoder_config"] == {**ENCODER, "vocab_size": 200}
    assert given == config.labels_encoder_config == ENCODER
    assert type(config.to_dict()["encoder_config"]) is dict
    for again in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.replace()):
        assert again == config
        again.encoder_config.hidden_size = 1
        assert encoder.hidden_size == 64
    with pytest.raises(CheckpointError, match="encoder_config is 'deberta': expected a mapping"):
        config.encoder_config = "deberta"


def test_an_encoder_s_configuration_may_be_an_object_of_transformers() -> None:
    from transformers import DebertaV2Config

    config = GLiNERConfig(encoder_config=DebertaV2Config(hidden_size=64))
    assert (config.encoder_config.hidden_size, config.encoder_config.model_type) == (64, "deberta-v2")


def test_a_configuration_is_written_and_read_again(tmp_path: Path) -> None:
    config = GLiNERConfig(max_len=10, encoder_config=ENCODER, **OWN)
    config.to_json_file(tmp_path / "any.json", use_diff=False)
    assert json.loads(config.to_json_string()) == config.to_dict()
    config.save_pretrained(tmp_path / "new" / "folder")
    for path in (tmp_path / "any.json", tmp_path / "new" / "folder" / "config.json"):
        assert GLiNERConfig.from_json_file(str(path)) == config
    assert GLiNERConfig.from_pretrained(tmp_path / "new" / "folder", revision="main") == config
    assert GLiNERConfig.from_pretrained(tmp_path / "any.json", max_len=11).max_len == 11
    with pytest.raises(FileNotFoundError, match="urchade/gliner_base is no local folder"):
        GLiNERConfig.from_pretrained("urchade/gliner_base")
    with pytest.raises(FileNotFoundError, match="gliner_config.json"):
        GLiNERConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hf upload"):
        config.save_pretrained(tmp_path, push_to_hub=True)


def test_transformers_is_not_needed() -> None:
    code = (
        "import sys, gliner_fast; c = gliner_fast.GLiNERConfig(a=1, encoder_config={'b': 2})\n"
        "c.c = c.encoder_config.b; c.to_json_string(); print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == ""


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["deberta", "token", "bi", "relex"])
def test_gliner_reads_what_is_written_and_the_other_way_round(
    kind: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from gliner import GLiNER as Reference
    from gliner import GLiNERConfig as ReferenceConfig

    ours = GLiNER.from_pretrained(checkpoint(kind)).config
    theirs = Reference.from_pretrained(str(checkpoint(kind))).config
    for config in (ours, theirs):
        config.my_key = "mine"
        config.encoder_config.initializer_range = 0.5
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(str(tmp_path / "theirs"))
    read = ReferenceConfig.from_pretrained(str(tmp_path / "ours")), GLiNERConfig.from_pretrained(tmp_path / "theirs")
    for config in (*read, ReferenceConfig.from_json_file(str(tmp_path / "ours" / "config.json"))):
        assert (config.my_key, config.max_len, config.encoder_config.initializer_range) == ("mine", ours.max_len, 0.5)
        assert config.encoder_config.hidden_size == theirs.encoder_config.hidden_size
    as_written = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert GLiNERConfig(**as_written) == read[1]

"""`checkpoint.load_tokenizer`: the tokenizer that AutoTokenizer gives, without the seconds that importing it takes."""

import json
import shutil
import subprocess
import sys

import pytest

from gliner_fast import checkpoint as checkpoint_module
from gliner_fast.checkpoint import load_tokenizer
from gliner_fast.config import GLiNERConfig
from gliner_fast.errors import CheckpointError

CONFIG = GLiNERConfig(model_name="no/such-encoder")
FAMILIES = {
    "deberta": [
        "DebertaV2Tokenizer",
        "DebertaV2TokenizerFast",
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        None,
        "XLMRobertaTokenizer",
        "XLMRobertaTokenizerFast",
        "CpmTokenizer",
        "CamembertTokenizerFast",
        "T5TokenizerFast",
        "AlbertTokenizer",
    ],
    "bert": [
        "BertTokenizer",
        "BertTokenizerFast",
        "PreTrainedTokenizerFast",
        "PreTrainedTokenizer",
        "MPNetTokenizer",
        "BertJapaneseTokenizer",
    ],
    "modernbert": [
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        "GPT2Tokenizer",
        "NoSuchTokenizer",
        "AutoTokenizer",
        "RobertaTokenizer",
        "RobertaTokenizerFast",
    ],
}


def folder_of(checkpoint, kind, tmp_path, **settings):
    """A copy of a checkpoint's tokenizer with other settings; None takes one out."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.copy(checkpoint(kind) / "tokenizer.json", folder)
    read = json.loads((checkpoint(kind) / "tokenizer_config.json").read_text()) | settings
    kept = {name: value for name, value in read.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    return folder


def outcome(folder):
    """Everything of a tokenizer that could differ, or the kind of the error."""
    try:
        tokenizer = load_tokenizer(folder, CONFIG)
    except CheckpointError as error:
        return type(error)
    return (
        type(tokenizer),
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.special_tokens_map,
        tokenizer.model_max_length,
        tokenizer.padding_side,
        tokenizer.truncation_side,
        len(tokenizer),
    )


@pytest.fixture
def assert_as_auto_tokenizer(monkeypatch):
    def check(folder):
        ours = outcome(folder)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_module, "_named_tokenizer", lambda _: None)
            assert ours == outcome(folder)

    return check


@pytest.mark.gliner  # its package trains the tokenizers
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in FAMILIES.items() for name in names])
def test_a_class_that_the_checkpoint_names(kind, name, checkpoint, tmp_path, assert_as_auto_tokenizer):
    assert_as_auto_tokenizer(folder_of(checkpoint, kind, tmp_path, tokenizer_class=name))


@pytest.mark.gliner
@pytest.mark.parametrize("name", ["DebertaV2Tokenizer", "BertTokenizer", "PreTrainedTokenizerFast"])
def test_an_encoder_s_configuration_beside_it(name, checkpoint, tmp_path, assert_as_auto_tokenizer):
    folder = folder_of(checkpoint, "bert", tmp_path, tokenizer_class=name)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "tokenizer_class": "BertTokenizer"}))
    assert_as_auto_tokenizer(folder)


@pytest.mark.gliner
def test_code_in_a_checkpoint_is_not_run(checkpoint, tmp_path):
    folder = folder_of(checkpoint, "bert", tmp_path, auto_map={"AutoTokenizer": [None, "evil.Evil"]})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Evil: pass\n")
    outcome(folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.gliner
def test_loading_a_deberta_imports_neither_torch_s_compiler_nor_transformers_models(checkpoint):
    code = (
        f"from gliner_fast import GLiNER; GLiNER.from_pretrained({str(checkpoint('deberta'))!r})\n"
        "import sys; print(*sorted({'torch._dynamo', 'transformers.models.auto.auto_factory'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""

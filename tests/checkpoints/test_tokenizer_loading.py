"""`tokenizer_loading`: what transformers gives, without the seconds that importing it takes."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gliner_fast.checkpoints import tokenizer_loading
from gliner_fast.checkpoints.locating import HubOptions, load_encoder_config, load_labels_config
from gliner_fast.checkpoints.tokenizer_files import is_known_transformers, read_tokenizer
from gliner_fast.checkpoints.tokenizer_loading import (
    CheckpointTokenizer,
    load_from_transformers,
    load_label_tokenizer,
    load_tokenizer,
)
from gliner_fast.config import GLiNERConfig
from gliner_fast.errors import CheckpointError
from tests.samples import CROSSNER
from tests.tokenizer_makers import GLINER_TOKENS, make_tokenizer

transformers_version = version("transformers")
beside_transformers_5 = pytest.mark.skipif(
    transformers_version.startswith("4."), reason="beside transformers 4, which has other classes, no file is read here"
)
CONFIG = GLiNERConfig(model_name="no/such-encoder")
HUB = HubOptions()
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
        tokenizer = load_from_transformers(folder, CONFIG, HUB)
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
            patch.setattr(tokenizer_loading, "_named_tokenizer", lambda _: None)
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


EVIL = """open({trace!r}, "w")
from transformers import PretrainedConfig, PreTrainedTokenizerFast
class Evil(PreTrainedTokenizerFast): pass
class EvilConfig(PretrainedConfig): model_type = "evil"
"""


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """The file that code in a checkpoint writes, though the first line of standard input is a yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "run"


@pytest.mark.gliner
@pytest.mark.parametrize("known", ["BertTokenizer", "Evil", None])
def test_code_in_a_checkpoint_is_not_run(known, checkpoint, tmp_path, trace):
    own = {"tokenizer_class": known, "auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    folder = folder_of(checkpoint, "bert", tmp_path, **own)
    (folder / "evil.py").write_text(EVIL.format(trace=str(trace)))
    outcome(folder)
    assert not trace.exists()


def test_code_beside_the_named_encoder_is_not_run(tmp_path, trace):
    settings = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "evil.py").write_text(EVIL.format(trace=str(trace)))
    config = GLiNERConfig(model_name=str(tmp_path), labels_encoder=str(tmp_path))
    for load in (load_encoder_config, load_labels_config):
        with pytest.raises(CheckpointError, match="contains custom code"):
            load(config, HubOptions(local_files_only=True))
    for load_tokens in (load_tokenizer, load_label_tokenizer):
        with pytest.raises(CheckpointError):
            load_tokens(tmp_path, config, HubOptions(local_files_only=True))
    assert not trace.exists()


# --- without transformers ---------------------------------------------------------------------------------------------

TRUNCATION = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
    "pad_token": "[PAD]",
}  # fmt: skip


@pytest.fixture(autouse=True)
def beside_any_transformers_5(monkeypatch):
    """Newer versions are compared, too, before they are trusted."""
    if transformers_version.startswith("5."):
        monkeypatch.setattr("gliner_fast.checkpoints.tokenizer_files.is_known_transformers", lambda: True)


#: Settings that change subwords, each for the classes that read them; and some that change none.
VARIANTS = {
    "DebertaV2Tokenizer": [
        {"do_lower_case": True},
        {"split_by_punct": True},
        {"add_prefix_space": False},
        {"unk_id": 5},
        {"unk_token": "[MASK]"},
        {"bos_token": None},
        {"eos_token": None},
        {"bos_token": None, "eos_token": None},
        {"pad_token": None},
        {"sp_model_kwargs": {}, "vocab_type": "spm"},
    ],
    "BertTokenizer": [
        {"do_lower_case": False},
        {"strip_accents": False},
        {"strip_accents": True, "do_lower_case": False},
        {"tokenize_chinese_chars": False},
        {"bos_token": "[CLS]"},
        {"eos_token": "[SEP]"},
        {"bos_token": "[SEP]", "eos_token": "[CLS]"},
        {"never_split": None, "do_basic_tokenize": True},
    ],
    "PreTrainedTokenizerFast": [
        {"bos_token": "[CLS]", "eos_token": "[SEP]"},
        {"bos_token": "[MASK]", "eos_token": None},
        {"pad_token": None},
        {"add_prefix_space": True, "do_lower_case": True},
        {"add_bos_token": True, "add_eos_token": False},
    ],
}
COMMON = [
    {},
    {"model_max_length": None},
    {
        "model_max_length": 64,
        "padding_side": "left",
        "max_length": 12,
        "stride": 2,
        "truncation_strategy": "only_first",
    },
    {"additional_special_tokens": ["[FLERT]"], "extra_special_tokens": None},
    {"clean_up_tokenization_spaces": True, "processor_class": "Some", "chat_template": "x"},
]
CASES = [
    (family, name + suffix, settings)
    for family, name in [
        ("deberta", "DebertaV2Tokenizer"),
        ("unigram", "DebertaV2Tokenizer"),
        ("wordpiece", "BertTokenizer"),
        ("unigram", "PreTrainedTokenizerFast"),
        ("byte-bpe", "PreTrainedTokenizerFast"),
    ]
    for settings in COMMON + VARIANTS[name]
    for suffix in ([""] if name.endswith("Fast") else ["", "Fast"])
]


def write(folder, family, name, settings):
    """A small tokenizer of a family, its settings changed; None takes one out, but for special tokens."""
    tokenizer = make_tokenizer(family, tuple(CROSSNER[:20]), size=300, max_subwords=512, extra=GLINER_TOKENS)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    read = json.loads(path.read_text()) | {"tokenizer_class": name} | settings
    kept = {key: value for key, value in read.items() if value is not None or key.endswith("_token")}
    path.write_text(json.dumps(kept))
    return folder


def parts(tokenizer):
    """All that the predictor takes from a tokenizer."""
    return json.loads(tokenizer.backend.to_str()), tokenizer.pad_id, tokenizer.max_subwords, len(tokenizer)


@beside_transformers_5
@pytest.mark.parametrize(("family", "name", "settings"), CASES)
def test_files_are_read_as_transformers_reads_them(family, name, settings, tmp_path):
    folder = write(tmp_path, family, name, settings)
    assert read_tokenizer(folder) is not None
    assert parts(load_tokenizer(folder, CONFIG, HUB)) == parts(
        CheckpointTokenizer.of(load_from_transformers(folder, CONFIG, HUB))
    )


def added_tokens(folder):
    """The added tokens as transformers 4 wrote them into the settings."""
    read = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return {str(token.pop("id")): token for token in read}


@beside_transformers_5
@pytest.mark.parametrize(("family", "name"), [("deberta", "DebertaV2Tokenizer"), ("wordpiece", "BertTokenizerFast")])
def test_files_that_transformers_4_wrote_are_read(family, name, tmp_path):
    folder = write(tmp_path, family, name, {})
    write(tmp_path, family, name, {"added_tokens_decoder": added_tokens(folder)})
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "[MASK]"}))  # is not read beside that
    (folder / "added_tokens.json").write_text(json.dumps({"[EXTRA]": 400}))
    assert read_tokenizer(folder) is not None
    assert parts(load_tokenizer(folder, CONFIG, HUB)) == parts(
        CheckpointTokenizer.of(load_from_transformers(folder, CONFIG, HUB))
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"some_setting": 1},
        {"mask_token": "[NEW]"},
        {"additional_special_tokens": ["[NEW]"]},
        {"extra_special_tokens": {"image_token": "[FLERT]"}},
        {"image_token": "[FLERT]"},
        {"cls_token": {"__type": "AddedToken", "content": "[CLS]", "lstrip": True}},
        {"added_tokens_decoder": {"0": {"content": "[PAD]", "special": True, "lstrip": True}}},
        {"split_special_tokens": True},
        {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}},
        {"tokenizer_class": "AlbertTokenizer"},
        {"tokenizer_class": None},
        {"tokenizer_class": "BertTokenizer"},  # of other pieces than the file's
        {"cls_token": None, "bos_token": None},
        {"extra_special_tokens": ""},
        {"padding_side": "x"},
        {"truncation_side": "x"},
    ],
    ids=str,
)
def test_what_is_not_understood_is_left_to_transformers(settings, tmp_path):
    folder = write(tmp_path, "deberta", "DebertaV2Tokenizer", settings)
    assert read_tokenizer(folder) is None


@pytest.mark.parametrize("file", ["config.json", "special_tokens_map.json", "added_tokens.json"])
def test_a_file_beside_it_is_left_to_transformers(file, tmp_path):
    folder = write(tmp_path, "deberta", "DebertaV2Tokenizer", {})
    (folder / file).write_text(json.dumps({"model_type": "bert"}))
    assert read_tokenizer(folder) is None


@pytest.mark.parametrize(
    ("version", "is_known"),
    [
        ("5.16.0", True),
        ("5.24.3", True),
        ("5.2.0", False),
        ("5.0.0", False),
        ("5.1.6", False),
        ("4.57.1", False),
        ("6.0.0", False),
    ],
)
def test_files_are_read_beside_versions_that_were_compared(version, is_known, monkeypatch):
    monkeypatch.setattr("gliner_fast.checkpoints.tokenizer_files.metadata.version", lambda _: version)
    assert is_known_transformers.__wrapped__() is is_known


def test_another_version_reads_them_itself(tmp_path, monkeypatch):
    folder = write(tmp_path, "deberta", "DebertaV2Tokenizer", {})
    monkeypatch.setattr("gliner_fast.checkpoints.tokenizer_files.is_known_transformers", lambda: False)
    assert read_tokenizer(folder) is None


@beside_transformers_5
@pytest.mark.parametrize(
    ("part", "settings", "is_read"),
    [
        ({"truncation": TRUNCATION}, {"truncation_side": "right"}, True),
        ({"truncation": TRUNCATION}, {}, False),
        ({"truncation": TRUNCATION | {"direction": "Left"}}, {"truncation_side": None}, False),
        ({"padding": PADDING}, {}, True),
        ({"padding": PADDING | {"pad_token": "[MASK]"}}, {"pad_token": None}, False),
    ],
)
@pytest.mark.parametrize(("family", "name"), [("deberta", "DebertaV2Tokenizer"), ("byte-bpe", "TokenizersBackend")])
def test_truncation_and_padding_of_the_file_count_where_the_settings_are_silent(
    family, name, part, settings, is_read, tmp_path
):
    folder = write(tmp_path, family, name, settings)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    assert (read_tokenizer(folder) is not None) is is_read
    if is_read:
        assert parts(load_tokenizer(folder, CONFIG, HUB)) == parts(
            CheckpointTokenizer.of(load_from_transformers(folder, CONFIG, HUB))
        )


@pytest.mark.parametrize("name", ["DebertaV2Tokenizer", "AlbertTokenizer"])
def test_truncation_at_the_left_is_refused(name, tmp_path):
    folder = write(tmp_path, "deberta", name, {"truncation_side": "left"})
    with pytest.raises(CheckpointError, match="truncates at the left"):
        load_tokenizer(folder, CONFIG, HUB)


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {}}'])
def test_a_broken_file_is_told_in_transformers_words(text, tmp_path):
    folder = write(tmp_path, "deberta", "DebertaV2Tokenizer", {})
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_tokenizer(folder, CONFIG, HUB)


# --- what is imported, and when ---------------------------------------------------------------------------------------


@beside_transformers_5
@pytest.mark.parametrize("change", ["none", "gone", "broken", "replaced", "another folder to work in"])
def test_transformers_tokenizer_is_that_of_the_files_as_they_were(change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model", "deberta", "DebertaV2Tokenizer", {})
    loaded = load_tokenizer(Path("model"), CONFIG, HUB)
    expected = parts(CheckpointTokenizer.of(load_from_transformers(Path("model"), CONFIG, HUB)))
    if change == "gone":
        shutil.rmtree("model")
    if change == "broken":
        Path("model/tokenizer.json").write_text("{")
    if change == "replaced":
        write(tmp_path / "model", "wordpiece", "BertTokenizer", {})
    if change == "another folder to work in":
        monkeypatch.chdir("/")
    found = loaded.of_transformers
    assert parts(CheckpointTokenizer.of(found)) == expected
    is_there = change in ("none", "another folder to work in")
    assert type(found).__name__ == ("DebertaV2Tokenizer" if is_there else type_of_no_model())
    assert (found.pad_token, found.cls_token, found.model_max_length) == ("[PAD]", "[CLS]", 512)


def type_of_no_model():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.__name__


@pytest.mark.gliner
@pytest.mark.skipif(not is_known_transformers(), reason="a transformers that reads the files itself")
def test_a_deberta_is_loaded_and_predicts_without_transformers_triton_and_torch_s_compiler(checkpoint):
    code = (
        f"from gliner_fast import GLiNER; model = GLiNER.from_pretrained({str(checkpoint('deberta'))!r})\n"
        "model.predict_entities('Ada Lovelace wrote to Charles Babbage.', ['person'])\n"
        "import sys; print(*sorted({'torch._dynamo', 'transformers', 'triton'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""

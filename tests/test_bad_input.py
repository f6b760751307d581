"""What no program should be given: a clear error or the documented answer, never a crash or a wrong offset."""

import gc
import json
import os
import pickle
import re
import resource
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gliner_fast import CheckpointError, CheckpointWarning, GLiNER, UnsupportedCheckpointError
from gliner_fast.checkpoints import locating as checkpoint_module
from gliner_fast.checkpoints.locating import INT8_ROWS
from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER

TEXT = "Ada Lovelace lived in London."
LABELS = ["person", "city"]
WAYS_AROUND = (Path(__file__).resolve().parent.parent / "docs" / "how-it-is-fast.md").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def model():
    return GLiNER.from_pretrained()


@pytest.fixture
def copy(checkpoint, tmp_path):
    """Gives a copy of a checkpoint, to break."""

    def copied(kind="deberta"):
        return shutil.copytree(checkpoint(kind), tmp_path / kind)

    return copied


# Texts, labels, options


@pytest.mark.parametrize("texts", [[], [""], [" \t\r\n", "\u3000"], ["", None, float("nan")]])
def test_what_is_no_text_has_no_entities(texts, model):
    assert model.inference(texts, LABELS, threshold=0) == [[] for _ in texts]


def test_what_is_neither_text_nor_missing_is_told_once(model):
    texts = ["", None, 5, b"Ada", ["Ada"], {"text": "Ada"}]
    with pytest.warns(UserWarning, match=r"text 2 is 5 \(int\): what is no string has no entities") as told:
        assert model.inference(texts, LABELS, threshold=0) == [[] for _ in texts]
    assert [own.filename for own in told] == [__file__]


@pytest.mark.parametrize("labels", [[], (), {}, [[]]])
def test_no_labels_find_nothing(labels, model):
    assert model.inference([TEXT], labels) == [[]]
    assert model.predict_entities(TEXT, labels, threshold=-1, flat_ner=False) == []


@pytest.mark.parametrize("texts", [None, 5, 1.5])
def test_what_holds_no_texts_is_refused(texts, model):
    with pytest.raises(TypeError, match="expected a list of strings"):
        model.inference(texts, LABELS)


@pytest.mark.parametrize("threshold", [-1, -0.001, 1, 1.0001, 2, float("inf"), -float("inf")])
def test_an_absurd_threshold_lets_all_or_nothing_pass(threshold, model):
    found = model.predict_entities("Ada", LABELS, threshold=threshold, multi_label=True)
    assert len(found) == (2 if threshold < 0 else 0)  # one word, two labels


@pytest.mark.parametrize(
    ("threshold", "error", "message"),
    [
        (float("nan"), ValueError, "threshold is NaN"),
        ([float("nan")], ValueError, r"threshold\[0\] is NaN"),
        ("0.5", TypeError, "threshold is '0.5' .str.: expected a number"),
        (None, TypeError, "threshold is None"),
        (["x"], TypeError, r"threshold\[0\] is 'x'"),
        ([], ValueError, "must have length 1"),
        ([0.5, 0.5], ValueError, "must have length 1"),
        ({"person": 0.5}, ValueError, "threshold has no value for the label 'city'"),
        ({"person": 0.5, "city": "high"}, TypeError, "threshold.'city'. is 'high'"),
        ({"person": 0.5, "city": float("nan")}, ValueError, "threshold.'city'. is NaN"),
    ],
)
def test_a_threshold_that_is_no_number_is_refused(threshold, error, message, model):
    with pytest.raises(error, match=message):
        model.predict_entities(TEXT, LABELS, threshold=threshold)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, 8.0, "8", True])
def test_a_batch_size_that_is_no_positive_number_is_refused(batch_size, model):
    with pytest.raises(ValueError, match="batch_size is .* expected a whole number of at least 1"):
        model.inference([TEXT], LABELS, batch_size=batch_size)


@pytest.mark.parametrize("input_spans", [[[(0, 3)]], [[{"start": 0}]], [["span"]], [[None]]])
def test_input_spans_of_another_form_are_refused(input_spans, model):
    with pytest.raises(TypeError, match="input_spans holds .* expected a list of mappings"):
        model.inference([TEXT], LABELS, input_spans=input_spans)


def test_input_spans_may_be_an_array(model):
    spans = [[{"start": 0, "end": 3}], []]
    as_array = np.empty(2, object)
    as_array[:] = spans
    expected = model.inference([TEXT] * 2, LABELS, threshold=-1, input_spans=spans)
    assert model.inference([TEXT] * 2, LABELS, threshold=-1, input_spans=as_array) == expected


@pytest.mark.parametrize("input_spans", [[], [[], []]])
def test_input_spans_for_other_texts_are_refused(input_spans, model):
    with pytest.raises(ValueError, match="input_spans must have length 1"):
        model.inference([TEXT], LABELS, input_spans=input_spans)


# Sizes


@pytest.mark.parametrize("kind", ["bert-cut-first", "bert-cut-mean", "bert"])
@pytest.mark.gliner
def test_a_label_longer_than_the_window(kind, checkpoint):
    both = Pair.load(checkpoint(kind))
    for labels in (
        ["person", "a " + "very " * 600 + "long label", "city"],
        ["word " * 700],
        [f"label {n}" for n in range(400)],
    ):
        found = both.check([TEXT, *CROSSNER[:2]], labels, threshold=0.3)
        assert all({entity["label"] for entity in entities} <= set(labels) for entities in found)


@pytest.mark.gliner
def test_ten_thousand_labels(checkpoint):
    # BERT's window holds a hundred of them and no word of the text; the rest is cut off, in the reference as in ours.
    Pair.load(checkpoint("bert")).check([TEXT], [f"label {number}" for number in range(10_000)])


@pytest.mark.gliner
def test_a_word_of_a_megabyte(checkpoint):
    found = Pair.load(checkpoint("bert")).check([f"Ada {'a' * 1_000_000} London"], LABELS, threshold=0)[0]
    assert max(entity["end"] for entity in found) == 1_000_011


def test_a_row_that_does_not_fit_into_memory_is_told_as_such(checkpoint, monkeypatch):
    # No limit cuts DeBERTa's rows: a hundred thousand subwords ask torch for 160 GB of attention scores. The kernel in
    # Rust keeps none of them, and would take minutes.
    monkeypatch.setenv("GLINER_FAST_ATTENTION", "grouped")
    model = GLiNER.from_pretrained(checkpoint("deberta"))
    gc.collect()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 4 * 2**30, hard))
    try:
        with pytest.raises(MemoryError, match=r"a text of [\d,]+ subwords, labels included, does not fit into memory"):
            model.predict_entities("a" * 100_000, LABELS)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert isinstance(model.predict_entities(TEXT, LABELS), list)


# Lone surrogates: the reference raises TypeError


@pytest.mark.parametrize(
    "text", ["\ud800", "Ada \udfff in London", "\ud83d\ude00 in London", "\udc00Ada\ud800 \ud800\ud800"]
)
def test_lone_surrogates_read_as_the_replacement_character(text, model):
    replaced = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    options = {"threshold": 0.01, "flat_ner": False, "multi_label": True}
    ours = model.predict_entities(text, LABELS, **options)
    assert spans([ours]) == spans([model.predict_entities(replaced, LABELS, **options)])
    assert ours
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in ours)


@pytest.mark.gliner
def test_the_answer_with_surrogates_is_the_reference_s_to_the_replaced_text(checkpoint):
    both = Pair.load(checkpoint("deberta"))
    text = "Ada \ud800 Lovelace \udfffin London\ud83d"
    theirs = both.check([text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")], LABELS, threshold=0.05)
    assert spans(both.ours.inference([text], LABELS, threshold=0.05)) == spans(theirs)
    with pytest.raises(TypeError):
        both.reference.inference([text], LABELS)


def test_surrogates_in_labels(model):
    found = model.predict_entities(TEXT, ["\ud800", "city"], threshold=0.01, multi_label=True)
    assert {entity["label"] for entity in found} <= {"\ud800", "city"}


# Folders and files


@pytest.mark.parametrize("path", ["/no/such/folder", "./no/such", "no/such/folder", "~/no-such-folder-here"])
def test_a_folder_that_is_not_there_is_named(path):
    with pytest.raises(FileNotFoundError, match="no.such.* does not exist"):
        GLiNER.from_pretrained(path)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("cached", [[], ["model.fp16.safetensors"], ["model.safetensors"], ["model.bf16.safetensors"]])
@pytest.mark.parametrize("there", ["model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", INT8_ROWS])
def test_the_hub_is_asked_for_weights_until_there_are_some(there, cached, variant, tmp_path, monkeypatch):
    for name in cached:  # of an earlier call
        (tmp_path / name).touch()

    def fetch(model_id, *, allow_patterns, **_):
        if any(fnmatch(there, pattern) for pattern in allow_patterns):
            (tmp_path / there).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    folder = checkpoint_module.locate("some/model", checkpoint_module.HubOptions(), variant)
    names = {path.name for path in folder.iterdir()}
    if there == "model.fp16.safetensors" and variant is None:
        assert there not in names - set(cached)  # nobody asked for it
    else:
        assert {"model.safetensors", "pytorch_model.bin", f"model.{variant}.safetensors", INT8_ROWS} & names


def test_a_hub_id_that_cannot_be_had_is_named():
    with pytest.raises(FileNotFoundError, match="'nobody/no-such-model' is neither a local folder nor"):
        GLiNER.from_pretrained("nobody/no-such-model")


def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No config file found in .*gliner_config\.json"):
        GLiNER.from_pretrained(tmp_path)


def test_a_file_in_place_of_a_folder(copy):
    with pytest.raises(CheckpointError, match="is a file: expected the folder"):
        GLiNER.from_pretrained(copy() / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"max_width": 12', "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"max_width": "wide"}', "max_width is 'wide'"),
        ('{"max_width": 0}', "max_width is 0"),
        pytest.param("[" * 100_000, "is not valid JSON", id="nested"),
        ('{"subtoken_pooling": "median"}', "subtoken_pooling is 'median': expected one of first, last, mean, max"),
    ],
)
def test_a_broken_configuration(content, message, copy):
    folder = copy()
    (folder / "gliner_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        GLiNER.from_pretrained(folder)


@pytest.fixture
def edited(copy):
    """Gives a copy of a checkpoint with settings changed: of `encoder_config` where `encoder` is given."""

    def changed(kind="deberta", *, encoder=None, **settings):
        folder = copy(kind)
        config = json.loads((folder / "gliner_config.json").read_text()) | settings
        config["encoder_config"] |= encoder or {}
        (folder / "gliner_config.json").write_text(json.dumps(config))
        return folder

    return changed


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("deberta", {"num_attention_heads": 0}, "the encoder's num_attention_heads is 0 .int.: expected a whole"),
        ("deberta", {"num_attention_heads": 2.0}, "num_attention_heads is 2.0 .float.: expected a whole number of at"),
        ("deberta", {"num_hidden_layers": 10**6}, r"safetensors has 2 layers of the encoder, .* asks for 1000000"),
        ("deberta", {"position_buckets": None}, "position_buckets is None .NoneType.: expected a whole number"),
        ("deberta", {"position_buckets": 1}, "position_buckets is 1, for distances below .* expected at least 2"),
        ("deberta", {"position_buckets": 10**30}, "position_buckets is 1000.*: expected at most 2,147,483,647"),
        ("deberta", {"max_relative_positions": 1}, "position_buckets is .*, for distances below 1"),
        ("deberta", {"position_buckets": 0, "max_position_embeddings": 0}, "or else max_position_embeddings, is 0"),
        ("deberta", {"pos_att_type": 5}, "pos_att_type is 5 .int.: expected a list of strings"),
        ("deberta", {"layer_norm_eps": "x"}, "layer_norm_eps is 'x' .str.: expected a number from 0 to 1"),
        ("deberta", {"pad_token_id": 10**9}, "gliner_config.json: no network can be built of its settings: Assertion"),
        ("deberta", {"intermediate_size": 0}, "the encoder's intermediate_size is 0 .int.: expected a whole"),
        ("deberta", {"hidden_dropout_prob": 2}, "hidden_dropout_prob is 2 .int.: expected a number from 0 to 1"),
        (
            "deberta",
            {"attention_probs_dropout_prob": None},
            "attention_probs_dropout_prob is None .NoneType.",
        ),
        ("bert", {"num_attention_heads": -1}, "the encoder's num_attention_heads is -1"),
        ("bert", {"num_hidden_layers": 0}, "the encoder's num_hidden_layers is 0"),
        ("bert", {"hidden_act": "x"}, "gliner_config.json: no network can be built of its settings: KeyError: 'x'"),
        ("bert", {"model_type": []}, r"names the encoder \[\], which the installed transformers does not know"),
        ("bert", {"model_type": "nobody"}, "names the encoder 'nobody', which the installed transformers does not"),
        ("bert", {"model_type": "clip"}, "names 'clip', which is not an encoder of texts alone"),
    ],
)
def test_an_encoder_s_setting_that_it_cannot_have(kind, settings, message, edited):
    with pytest.raises(CheckpointError, match=message):
        GLiNER.from_pretrained(edited(kind, encoder=settings))


def test_labels_that_an_encoder_does_not_need_are_not_made(edited):
    folder = edited("bert", encoder={"num_labels": 10**15, "id2label": {"x": "y"}, "label2id": 5})
    assert GLiNER.from_pretrained(folder).predict_entities(TEXT, LABELS, threshold=1) == []


@pytest.mark.parametrize("limit", ["x", float("nan"), 0, -5, True, 1])
def test_a_tokenizer_s_limit_that_is_none(limit, copy):
    folder = copy("bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": limit}))
    with pytest.raises(CheckpointError, match=f"model_max_length is {limit!r}"):
        GLiNER.from_pretrained(folder)


def test_a_pipe_in_place_of_a_tokenizer_s_settings_is_not_waited_for(copy):
    folder = copy()
    (folder / "tokenizer_config.json").unlink()
    os.mkfifo(folder / "tokenizer_config.json")
    with pytest.raises(CheckpointError, match="has no tokenizer of its own"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize("number", [100_000, 10**9])
def test_a_subword_without_an_embedding_is_refused(number, copy):
    folder = copy("bert")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[list(vocabulary)[20]] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(
        CheckpointError, match=f"word embeddings, but the tokenizer has subwords with ids up to {number}"
    ):
        GLiNER.from_pretrained(folder)


def test_a_folder_without_weights(copy):
    folder = copy()
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model\.safetensors or pytorch_model\.bin"):
        GLiNER.from_pretrained(folder)


def test_a_folder_without_a_tokenizer(copy):
    folder = copy()
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer of its own"):
        GLiNER.from_pretrained(folder)


def test_a_broken_tokenizer(copy):
    folder = copy()
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(CheckpointError, match="the tokenizer in .* cannot be loaded"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5_000, -1, -1_000])
@pytest.mark.parametrize("kind", ["deberta", "deberta-bin"])
def test_weights_that_are_cut_off(kind, kept, copy):
    folder = copy(kind)
    file = next(folder.glob("*model*"))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="cannot be read .* broken or cut off"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_something_else(name, copy):
    folder = copy()
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("<html>not found</html>" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        GLiNER.from_pretrained(folder)


class _Payload:
    def __reduce__(self):
        return print, ("a checkpoint must not run code",)


def test_a_checkpoint_cannot_run_code(copy, capsys):
    folder = copy()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Payload()}, protocol=2))
    with pytest.raises(CheckpointError):
        GLiNER.from_pretrained(folder)
    torch.save({"weight": _Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        GLiNER.from_pretrained(folder)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "lost", ["prompt_rep_layer.0.weight", "span_rep_layer.span_rep_layer.out_project.3.bias", "rnn.lstm.bias_hh_l0"]
)
def test_missing_weights_are_named_and_never_random(lost, copy):
    folder = copy()
    tensors = load_file(folder / "model.safetensors")
    del tensors[lost]
    save_file(tensors, folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match=lost):
        first = GLiNER.from_pretrained(folder)
    with pytest.warns(CheckpointWarning, match=lost):
        second = GLiNER.from_pretrained(folder)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(CheckpointError, match=lost):
        GLiNER.from_pretrained(folder, strict=True)


def test_unknown_weights_are_named(copy):
    folder = copy()
    save_file(load_file(folder / "model.safetensors") | {"extra.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.warns(CheckpointWarning, match=r"'extra\.weight', which the model does not use"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize(("setting", "value"), [("hidden_size", 32), ("span_mode", "marker")])
def test_weights_of_another_shape_than_the_configuration_s(setting, value, copy):
    folder = copy()
    config = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps(config | {setting: value}))
    with pytest.raises(CheckpointError, match="has the shape .* but the configuration asks for"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"labels_encoder": "BAAI/bge-small-en", "post_fusion_schema": "l2l-t2x"}, "post_fusion_schema"),
        ({"relations_layer": "biaffine"}, "relation extraction"),
        ({"labels_decoder": "gpt2"}, "decoder"),
        ({"model_type": "gliner_streaming_span"}, "streaming"),
        ({"span_mode": "markerV1"}, "markerV1"),
        ({"span_mode": "markerV2"}, "markerV2"),
        ({"span_mode": "query"}, "query"),
        ({"span_mode": "mlp"}, "mlp"),
        ({"span_mode": "cat"}, "cat"),
        ({"span_mode": "conv_conv"}, "conv_conv"),
        ({"span_mode": "conv_max"}, "conv_max"),
        ({"span_mode": "conv_mean"}, "conv_mean"),
        ({"span_mode": "conv_sum"}, "conv_sum"),
        ({"span_mode": "conv_share"}, "conv_share"),
        ({"span_mode": "markerV9"}, "markerV9"),
        ({"fuse_layers": True}, "fuse_layers"),
        ({"precomputed_prompts_mode": True}, "precomputed prompts"),
        ({"span_encoder_config": {"model_type": "rnn"}}, "span encoder"),
    ],
)
def test_kinds_that_do_not_run_yet_are_refused_by_name(settings, name, copy):
    folder = copy()
    config = json.loads((folder / "gliner_config.json").read_text())
    (folder / "gliner_config.json").write_text(json.dumps(config | settings))
    with pytest.raises(UnsupportedCheckpointError, match=name) as error:
        GLiNER.from_pretrained(folder)
    assert str(error.value).count(". ") == 0  # one sentence
    assert "\n" not in str(error.value)


def test_an_encoder_that_keeps_copies_of_its_weights_is_refused(copy):
    folder = copy()
    config = json.loads((folder / "gliner_config.json").read_text())
    sizes = {name: config["encoder_config"][name] for name in ("hidden_size", "num_attention_heads", "vocab_size")}
    config["encoder_config"] = {"model_type": "ibert", "num_hidden_layers": 1, "intermediate_size": 8, **sizes}
    (folder / "gliner_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpointError, match="the encoder 'ibert' keeps second copies of its weights"):
        GLiNER.from_pretrained(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp7"}, "dtype is 'fp7'"),
        ({"dtype": torch.int8}, "dtype is torch.int8"),
        ({"variant": "fp32"}, "variant is 'fp32'"),
        ({"quantize": "int4"}, "int4"),
        ({"load_onnx_model": True}, "load_onnx_model"),
        ({"runtime": "openvino"}, "runtime"),
        ({"max_length": 0}, "max_len is 0"),
        ({"max_width": -1}, "max_width is -1"),
    ],
)
def test_options_of_loading_that_cannot_be_met(options, message, checkpoint):
    with pytest.raises(ValueError, match=message):
        GLiNER.from_pretrained(checkpoint("deberta"), **options)


@pytest.mark.parametrize("variable", re.findall(r"(?m)^\| `(GLINER_FAST_\w+)`", WAYS_AROUND))
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])  # fp16 reads fewer of them, as CUDA does
def test_an_environment_variable_that_names_nobody_is_told(variable, dtype, checkpoint, monkeypatch):
    model = GLiNER.from_pretrained(checkpoint("deberta"), dtype=dtype)
    monkeypatch.setenv(variable, "tritno")
    with pytest.raises(ValueError, match=f"{variable} is 'tritno': expected "):
        model.predict_entities(TEXT, LABELS)

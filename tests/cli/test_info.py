"""`gliner-fast info`: what is here, and what a checkpoint is."""

import json
import re
import sys

import pytest

from gliner_fast import __version__


def _rows(out):
    return [json.loads(line) for line in out.splitlines()]


def test_info_says_what_is_here_and_what_the_checkpoint_is(run):
    code, out, _ = run("info")
    assert code == 0
    for line in (
        f"gliner-fast +{__version__}", "torch +2", "cpu +.*threads", "kind +uni-encoder, span", "runs here +yes",
        "encoder +bert", "parameters +[0-9,]{10}",
    ):  # fmt: skip
        assert re.search(line, out), line


@pytest.mark.gliner
@pytest.mark.parametrize(
    ("kind", "era", "encoder"),
    [
        ("era-v1", "gliner 0.1 (first era)", "deberta-v2"),
        ("era-has-rnn", "gliner 0.2.0 to 0.2.22", "deberta-v2"),
        ("bert", "gliner 0.2.23 or later", "bert"),
    ],
)
def test_info_names_the_era_and_counts_parameters(kind, era, encoder, run, checkpoint):
    from gliner_fast import GLiNER

    code, out, _ = run("info", checkpoint(kind), "--json")
    assert code == 0
    found = json.loads(out)["checkpoint"]
    assert found["written by"] == era
    assert found["encoder"].startswith(encoder)
    assert found["folder"] == str(checkpoint(kind))
    network = GLiNER.from_pretrained(checkpoint(kind)).model
    assert int(found["parameters"].replace(",", "")) == sum(p.numel() for p in network.parameters())


def test_info_counts_no_scales_of_rows(run):
    from gliner_fast import GLiNER

    _, out, _ = run("info", "--json", "built-in")
    counted = json.loads(out)["checkpoint"]["parameters"].replace(",", "")
    assert int(counted) == sum(p.numel() for p in GLiNER.from_pretrained().model.parameters())


def test_info_describes_kinds_that_do_not_run_here(run, tmp_path):
    (tmp_path / "gliner_config.json").write_text(
        json.dumps({"span_mode": "token_level", "relations_layer": "x", "encoder_config": {"model_type": "bert"}})
    )
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, out, _ = run("info", tmp_path)
    assert code == 0
    assert re.search("kind +relation extraction, token-level", out)
    assert re.search("runs here +no: .*relation extraction", out)


@pytest.mark.parametrize(
    ("kind", "told", "head", "label_vector"),
    [
        ("token", "uni-encoder, token-level", "marks where entities start, end and go on", "the entity token"),
        ("token-spans", "uni-encoder, token-level", "go on, and scores the spans between", "the entity token"),
        ("bi", "bi-encoder, span", "spans of up to 12 words", "by an encoder of its own, bert"),
        (
            "bi-fused",
            "bi-encoder, span, labels and words attend",
            "spans of up to 12 words",
            "by an encoder of its own",
        ),
        ("relex", "relation extraction, span", "spans of up to 12 words", "the entity token"),
        ("token-relex", "relation extraction, token-level", "marks where entities start", "the entity token"),
    ],
)
def test_info_describes_other_kinds_that_run_here(run, checkpoint, kind, told, head, label_vector):
    code, out, _ = run("info", checkpoint(kind))
    assert code == 0
    assert re.search("runs here +yes", out)
    assert re.search(f"kind +{told}", out)
    assert re.search(f"head +.*{head}", out)
    assert re.search(f"label vector +{label_vector}", out)
    assert re.search(r"written by +gliner 0\.2\.23 or later", out)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("relex", "pairs linked by mlp, scored by a layer over both entities"),
        ("relex-none", "all pairs, scored by a layer over both entities"),
        ("relex-triples", "pairs linked by bilinear, scored by DistMult"),
        ("deberta", None),
    ],
)
def test_info_says_what_finds_relations(run, checkpoint, kind, told):
    from gliner_fast import GLiNER

    code, out, _ = run("info", checkpoint(kind), "--json")
    assert code == 0
    found = json.loads(out)["checkpoint"]
    assert found.get("relations") == told
    assert found["runs here"] == "yes"
    network = GLiNER.from_pretrained(checkpoint(kind)).model
    assert int(found["parameters"].replace(",", "")) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("splitter", "told"),
    [
        ("whitespace", None),
        ("janome", "split by janome, for which pip install janome"),
        ("moses", "split by moses, which nobody knows"),
    ],
)
def test_info_names_a_word_splitter_that_is_not_the_usual_one(splitter, told, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "janome", None)  # not installed
    config = {"words_splitter_type": splitter, "encoder_config": {"model_type": "bert"}}
    (tmp_path / "gliner_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, out, _ = run("info", "--json", tmp_path)
    assert code == 0
    told_of = json.loads(out)["checkpoint"]
    assert told_of.get("words") == told
    lacks = told is not None and "," in told
    assert told_of["runs here"].startswith("no: ") == lacks


def test_info_reads_the_names_of_t5(run, tmp_path):
    shape = {"num_layers": 8, "d_model": 512, "num_heads": 6, "vocab_size": 250_112}
    config = {"encoder_config": {"model_type": "mt5", **shape}}
    (tmp_path / "gliner_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    _, out, _ = run("info", "--json", tmp_path)
    assert json.loads(out)["checkpoint"]["encoder size"] == "8 layers, 512 wide, 6 heads, 250,112 subwords"


def _head(head):
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(raw).to_bytes(8, "little") + raw


_TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 0]}
_BROKEN = {
    "empty": b"",
    "cut off": (100).to_bytes(8, "little") + b'{"a',
    "no size of a list": (2**63).to_bytes(8, "little") + b"{}",
    "more than there is memory": (2**36).to_bytes(8, "little") + b"{}",
    "deep": _head(b"[" * 90_000),
    "a list": _head([]),
    "no shape": _head({"a": {}}),
    "a number for a tensor": _head({"a": 5}),
    "a word for a shape": _head({"a": {**_TENSOR, "shape": "xx"}}),
    "a negative shape": _head({"a": {**_TENSOR, "shape": [-5]}}),
    "a shape of thousands of digits": _head({"a": {**_TENSOR, "shape": [10**4000]}}),
    "numbers that are not there": _head({"a": {**_TENSOR, "data_offsets": [0, 8]}}),
}


@pytest.mark.parametrize("content", _BROKEN.values(), ids=_BROKEN)
def test_info_of_a_broken_file_is_an_error(content, run, tmp_path):
    (tmp_path / "gliner_config.json").write_text('{"encoder_config": {}}')
    (tmp_path / "model.safetensors").write_bytes(content)
    code, out, err = run("info", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith(f"gliner-fast: error: {tmp_path / 'model.safetensors'} cannot be read (")
    assert "broken or cut off" in err


def test_info_prints_no_size_that_is_none(run, tmp_path):
    config = {"encoder_config": {"hidden_size": True, "vocab_size": 10**4000, "num_layers": "6"}}
    (tmp_path / "gliner_config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(_head({}))
    code, out, _ = run("info", "--json", tmp_path)
    told = json.loads(out)["checkpoint"]
    assert code == 0
    assert told["encoder size"] == "unknown layers, unknown wide, unknown subwords"

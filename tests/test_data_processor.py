"""What a model reads texts with, and what may be put in its place."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import processors

from gliner_fast import GLiNER
from gliner_fast.data_processor import DataProcessor, whitespace_words
from gliner_fast.errors import CheckpointError
from gliner_fast.words import WordsSplitter

TEXT = "Angela Merkel met Emmanuel Macron in Paris."
LABELS = ["person", "city"]


@pytest.fixture
def model() -> GLiNER:
    """The built-in one, a new one each time."""
    return GLiNER.from_pretrained()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_the_default_splitter_is_known_in_a_copy_too(copied: Callable[[GLiNER], GLiNER], model: GLiNER):
    processor: DataProcessor = copied(model).data_processor
    assert processor.custom_splitter is None
    assert processor.assigned_splitter is None
    processor.words_splitter = WordsSplitter(WordsSplitter(whitespace_words))
    assert processor.custom_splitter is None


def test_a_splitter_inside_is_told_from_the_checkpoint_s(model: GLiNER):
    def letters(text: str) -> list[tuple[str, int, int]]:
        return [(letter, at, at + 1) for at, letter in enumerate(text) if not letter.isspace()]

    processor = model.data_processor
    assert hasattr(processor.words_splitter, "splitter")
    processor.words_splitter.splitter = letters
    assert processor.custom_splitter is processor.assigned_splitter is letters
    assert list(processor.words_splitter("a b")) == [("a", 0, 1), ("b", 2, 3)]


def test_nothing_can_be_set_on_the_default_splitter_to_no_effect(model: GLiNER):
    with pytest.raises(AttributeError):
        model.data_processor.words_splitter.splitter.whitespace_pattern = r"\S+"


def test_the_transformers_tokenizer_has_the_limit_that_was_read(model: GLiNER):
    processor = model.data_processor
    before = processor.batcher
    limit = before.tokenizer.max_subwords
    assert processor.transformer_tokenizer.model_max_length == limit
    assert processor.batcher is before
    processor.transformer_tokenizer.model_max_length = 12
    assert processor.batcher.tokenizer.max_subwords == 12
    assert not processor.reads_as_made
    processor.transformer_tokenizer.model_max_length = limit
    assert processor.reads_as_made


@pytest.mark.filterwarnings("ignore:windows of a long text")
def test_a_stream_reads_its_next_windows_by_another_limit(model: GLiNER):
    (whole,) = model.stream([TEXT], LABELS)
    stream = model.stream([TEXT] * 200, LABELS, window_size=32)
    found = [next(stream)]
    model.data_processor.transformer_tokenizer.model_max_length = 12
    found += stream
    (cut,) = model.stream([TEXT], LABELS)
    assert cut != whole
    changed = found.index(cut)
    assert found == [whole] * changed + [cut] * (200 - changed)


def test_a_tokenizer_that_truncates_at_the_left_is_refused(model: GLiNER):
    processor = model.data_processor
    left = copy.deepcopy(processor.transformer_tokenizer)
    processor.transformer_tokenizer.truncation_side = "left"
    with pytest.raises(CheckpointError, match="truncates at the left"):
        model.predict_entities(TEXT, LABELS)
    processor.transformer_tokenizer.truncation_side = "right"
    found = model.predict_entities(TEXT, LABELS)
    left.truncation_side = "left"
    with pytest.raises(CheckpointError, match="truncates at the left"):
        processor.transformer_tokenizer = left
    assert model.predict_entities(TEXT, LABELS) == found != []


def test_what_cannot_be_used_is_refused_and_nothing_is_changed(model: GLiNER):
    found = model.predict_entities(TEXT, LABELS)
    with pytest.raises(CheckpointError, match="object is a slow tokenizer"):
        model.data_processor.transformer_tokenizer = object()  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="the model is no bi-encoder, and has no labels_tokenizer"):
        model.data_processor.labels_tokenizer = model.data_processor.transformer_tokenizer
    assert model.predict_entities(TEXT, LABELS) == found != []


def test_a_tokenizer_that_puts_special_subwords_elsewhere_is_refused_where_it_is_assigned(model: GLiNER):
    found = model.predict_entities(TEXT, LABELS)
    other = copy.deepcopy(model.data_processor.transformer_tokenizer)
    between = [("[SEP]", other.convert_tokens_to_ids("[SEP]"))]
    other.backend_tokenizer.post_processor = processors.TemplateProcessing("$A [SEP] $A", special_tokens=between)
    with pytest.raises(CheckpointError, match="gliner_fast cannot use it"):
        model.data_processor.transformer_tokenizer = other
    assert model.predict_entities(TEXT, LABELS) == found != []


def test_without_a_splitter_words_are_those_of_the_default_one(model: GLiNER):
    words = model.prepare_inputs([TEXT, ""])
    model.data_processor.words_splitter = None
    assert model.prepare_inputs([TEXT, ""]) == words == ([TEXT.replace(".", " .").split(), []], *words[1:])


def test_a_bi_encoder_reads_labels_as_made_while_their_tokenizer_and_its_limit_are_the_same(
    checkpoint: Callable[[str], Path],
):
    processor = GLiNER.from_pretrained(checkpoint("bi")).data_processor
    tokenizer = processor.labels_tokenizer
    limit = tokenizer.model_max_length
    tokenizer.model_max_length = 7
    assert not processor.reads_as_made
    tokenizer.model_max_length = limit
    assert processor.reads_as_made
    other = copy.deepcopy(tokenizer)
    processor.labels_tokenizer = other
    assert processor.reads_as_made
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["something else"])
    processor.labels_tokenizer = other
    assert not processor.reads_as_made


def test_a_tokenizer_s_limit_is_saved(model: GLiNER, tmp_path: Path):
    model.data_processor.transformer_tokenizer.model_max_length = 12
    model.save_pretrained(tmp_path)
    saved = GLiNER.from_pretrained(tmp_path)
    assert saved.data_processor.batcher.tokenizer.max_subwords == 12
    assert saved.predict_entities(TEXT, LABELS) == model.predict_entities(TEXT, LABELS)


@pytest.mark.parametrize("limit", [None, 600, 10**30])
def test_what_an_encoder_has_no_position_for_is_cut_off_whatever_the_tokenizer_s_limit(
    limit: int | None, model: GLiNER, tmp_path: Path
):
    model.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"model_max_length": limit}
    path.write_text(json.dumps({name: value for name, value in settings.items() if value is not None}))
    unlimited = GLiNER.from_pretrained(tmp_path)
    texts = [f"{TEXT} Antidisestablishmentarianism was incomprehensible. " * 28, TEXT]  # 364 words, more subwords
    found = unlimited.inference(texts, LABELS)
    assert found == model.inference(texts, LABELS)
    whole, _ = unlimited.stream(texts, LABELS)
    assert len(whole) > len(found[0]) > len(found[1]) == 3
    assert unlimited.data_processor.reads_as_made
    unlimited.data_processor.transformer_tokenizer = copy.deepcopy(unlimited.data_processor.transformer_tokenizer)
    assert unlimited.inference(texts, LABELS) == found


def test_labels_of_a_bi_encoder_are_cut_where_its_positions_end(checkpoint: Callable[[str], Path]):
    model = GLiNER.from_pretrained(checkpoint("bi"))
    positions = model.model.label_encoder.encoder.model.config.max_position_embeddings
    processor, labels = model.data_processor, ["city " * 2 * positions]
    processor.labels_tokenizer.model_max_length = positions
    cut = model.predict_entities(TEXT, labels, threshold=0.0)
    processor.labels_tokenizer.model_max_length = 10**30
    assert model.predict_entities(TEXT, labels, threshold=0.0) == cut != []
    processor.labels_tokenizer = copy.deepcopy(processor.labels_tokenizer)
    assert model.predict_entities(TEXT, labels, threshold=0.0) == cut

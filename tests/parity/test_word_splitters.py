"""Checkpoints with a splitter of their own, whole models beside gliner."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gliner_fast import GLiNER, extract_files, verify
from gliner_fast.annotated import DataError
from gliner_fast.annotated.examples import examples_from_records, read_examples
from gliner_fast.annotated.writers import write_examples
from gliner_fast.cli import main
from gliner_fast.jobs.chosen_model import ChosenModel
from gliner_fast.training import train
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.word_splitters import _library_splitter, word_splitter
from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER, LABELS
from tests.split_texts import LIBRARIES, TEXTS, give_gliner_jieba
from tests.stanza_models import KNOWN_TO_STANZA, make_stanza_models

pytestmark = pytest.mark.gliner

SPLIT_TEXTS = [
    *(text for text in TEXTS.values() if "\ud800" not in text),  # which no reference takes
    *CROSSNER[:6],
    "北京大学的李明教授和来自上海的王芳在东京见面。",
    "서울에 사는 김철수 씨와 부산의 이영희 씨가 만났다.",
]


@pytest.fixture
def with_splitter(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Path]:
    """Gives a copy of a checkpoint that names a splitter."""
    give_gliner_jieba(monkeypatch)

    def made(kind: str, splitter: str) -> Path:
        pytest.importorskip(LIBRARIES.get(splitter, splitter))
        folder = shutil.copytree(checkpoint(kind), tmp_path / splitter)
        config = json.loads((folder / "gliner_config.json").read_text())
        (folder / "gliner_config.json").write_text(json.dumps(config | {"words_splitter_type": splitter}))
        return folder

    return made


@pytest.mark.parametrize("splitter", ["janome", "jieba", "mecab", "spacy", "hindi"])
@pytest.mark.parametrize("kind", ["deberta", "bert", "mt5", "token"])
def test_entities_are_those_of_gliner(kind: str, splitter: str, with_splitter: Callable[[str, str], Path]) -> None:
    both = Pair.load(with_splitter(kind, splitter))
    for threshold in (0.3, 0.5):
        found = both.check(SPLIT_TEXTS, LABELS, threshold=threshold, flat_ner=False)
        assert sum(map(len, found)) > 5
    text = SPLIT_TEXTS[-2]
    assert spans([both.ours.predict_entities(text, LABELS)]) == spans([both.reference.predict_entities(text, LABELS)])


@pytest.mark.parametrize("splitter", ["janome", "jieba", "mecab"])
def test_long_texts_are_read_whole_in_windows_of_the_splitter_s_words(
    splitter: str, with_splitter: Callable[[str, str], Path]
) -> None:
    folder = with_splitter("deberta-narrow", splitter)  # 24 words
    model = GLiNER.from_pretrained(folder)
    text = "".join(TEXTS[language] for language in ("Chinese", "Japanese", "Korean", "English")) * 4
    found = model.predict_entities(text, LABELS, threshold=0.4, on_long="window")
    ends = {end for _, start, end in model.data_processor.words_splitter(text)}
    assert {entity["end"] for entity in found} <= ends
    assert max(entity["end"] for entity in found) > len(text) * 0.8
    # What is read first is what gliner reads, which cuts the rest off.
    both = Pair(model, Pair.load_reference(folder))
    both.check([text], LABELS, threshold=0.4)


def test_stanza_s_entities_are_those_of_gliner(
    with_splitter: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stanza's own code, with models of random weights: none can be downloaded."""
    folder = with_splitter("mt5", "stanza")  # as gliner-x
    pytest.importorskip("langdetect")
    models = tmp_path / "models"
    make_stanza_models(models, {"en": KNOWN_TO_STANZA, "ja": TEXTS["Japanese"]})
    import stanza

    init = stanza.Pipeline.__init__
    monkeypatch.setattr(
        "stanza.Pipeline.__init__", lambda *given, **settings: init(*given, dir=str(models), **settings)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _library_splitter.cache_clear()
    try:
        both = Pair.load(folder)
        found = both.check(SPLIT_TEXTS, LABELS, threshold=0.3)
        assert sum(map(len, found)) > 5
        text = SPLIT_TEXTS[0]
        mine, theirs = (model.predict_entities(text, LABELS, threshold=0.3) for model in (both.ours, both.reference))
        assert spans([mine]) == spans([theirs])
        streamed = list(both.ours.stream(SPLIT_TEXTS, LABELS, threshold=0.3))
        assert streamed == both.ours.inference(SPLIT_TEXTS, LABELS, threshold=0.3)
    finally:
        _library_splitter.cache_clear()


@pytest.fixture
def model(with_splitter: Callable[[str, str], Path]) -> GLiNER:
    """A model that splits with jieba."""
    return GLiNER.from_pretrained(with_splitter("deberta", "jieba"))


def test_a_splitter_that_is_assigned_goes_before_the_checkpoint_s(model: GLiNER, pair: Callable[[str], Pair]) -> None:
    text = SPLIT_TEXTS[-2]
    own = model.predict_entities(text, LABELS, threshold=0.3)
    plain = pair("deberta").ours
    model.data_processor.words_splitter = plain.data_processor.words_splitter
    assert model.predict_entities(text, LABELS, threshold=0.3) == plain.predict_entities(text, LABELS, threshold=0.3)
    assert ChosenModel.of(model, is_named=True).words_splitter == "gliner_fast.data_processor.whitespace_words"
    model.data_processor.words_splitter = word_splitter("jieba")
    assert model.predict_entities(text, LABELS, threshold=0.3) == own
    assert ChosenModel.of(model, is_named=True).words_splitter is None
    model.data_processor.words_splitter = word_splitter("janome")
    assert ChosenModel.of(model, is_named=True).words_splitter == "word_splitter('janome')"
    model.data_processor.words_splitter = None  # for the default one
    assert model.predict_entities(text, LABELS, threshold=0.3) == plain.predict_entities(text, LABELS, threshold=0.3)
    assert ChosenModel.of(model, is_named=True).words_splitter == "gliner_fast.data_processor.whitespace_words"


def test_the_splitter_is_saved_copied_and_taken_into_jobs(model: GLiNER, tmp_path: Path) -> None:
    texts = SPLIT_TEXTS[-2:]
    expected = model.inference(texts, LABELS, threshold=0.3)
    assert any(expected)
    model.save_pretrained(tmp_path / "saved")
    for other in (GLiNER.from_pretrained(tmp_path / "saved"), pickle.loads(pickle.dumps(model))):
        assert other.inference(texts, LABELS, threshold=0.3) == expected
        assert other.data_processor.words_splitter.splitter is word_splitter("jieba")
    (tmp_path / "in.txt").write_text("\n".join(texts), encoding="utf-8")
    for given in (model, model.source):
        extract_files(tmp_path / "in.txt", tmp_path / "out.jsonl", LABELS, model=given, threshold=0.3, overwrite=True)
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
        assert spans([row["entities"] for row in rows]) == spans(expected)


def test_a_new_model_has_the_splitter_of_its_configuration(model: GLiNER) -> None:
    made = GLiNER.from_config(
        model.config, tokenizer=model.data_processor.transformer_tokenizer, backbone_from_pretrained=False
    )
    assert made.data_processor.words_splitter.splitter is word_splitter("jieba")
    with pytest.raises(ValueError, match="words_splitter_type is 'jieba', and the model is made by it"):
        made.config.words_splitter_type = "janome"


def test_what_is_counted_in_characters_is_split_as_the_model_splits(model: GLiNER, tmp_path: Path) -> None:
    text = SPLIT_TEXTS[-2]  # of which the default splitter makes two words
    start = text.index("上海")
    data = [{"text": text, "entities": [[0, 4, "organization"], [start, start + 2, "location"]]}]
    assert model.evaluate(data)[0].startswith("P: ")
    report = model.train_model(data, output_dir=tmp_path / "run", max_steps=1, per_device_train_batch_size=1)
    assert report.steps == 1
    saved = json.loads((report.model / "gliner_config.json").read_text())
    assert saved["words_splitter_type"] == "jieba"

    (tmp_path / "data.jsonl").write_text(f"{json.dumps(data[0])}\n" * 2, encoding="utf-8")
    for command in ("evaluate", "calibrate"):
        with pytest.raises(SystemExit, match="0"):
            main([command, str(model.source), str(tmp_path / "data.jsonl")])
    file = TrainingFile(path=str(tmp_path / "data.jsonl"))
    config = TrainingConfig(output_dir=str(tmp_path / "other"), model=str(model.source), train=(file,), steps=1)
    assert train(config).steps == 1


def test_blanks_that_a_splitter_gives_are_words_of_data(model: GLiNER, tmp_path: Path) -> None:
    words = ["东京", " ", "Ada", " ", "London"]
    data = [{"tokenized_text": words, "ner": [[0, 0, "location"], [2, 2, "person"]]}]
    assert model.evaluate(data, threshold=0.01)[0].startswith("P: ")
    examples = examples_from_records(data)
    write_examples(examples, tmp_path / "data.jsonl", "gliner")
    assert read_examples(tmp_path / "data.jsonl")[0].words == tuple(words)
    with pytest.raises(DataError, match="the word ' ' begins or ends with a blank, which conll does not keep"):
        write_examples(examples, tmp_path / "data.conll", "conll")


PARTS = "Er ging zum Markt, und Ada Lovelace kam zum Essen nach London."


@pytest.fixture
def with_parts(
    with_splitter: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A checkpoint that splits with stanza, to which each text is German, and "zum" is "zu dem"."""
    folder = with_splitter("deberta", "stanza")
    pytest.importorskip("langdetect")
    models = tmp_path / "models"
    known = KNOWN_TO_STANZA
    words = {"zum": "zu dem", "Ada": "A da", "z": "zu dem", "Er": "E r"}
    make_stanza_models(models, {"en": known, "de": known}, {"de": words, "en": words})
    import stanza

    init = stanza.Pipeline.__init__
    monkeypatch.setattr(
        "stanza.Pipeline.__init__", lambda *given, **settings: init(*given, dir=str(models), **settings)
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _library_splitter.cache_clear()
    yield folder
    _library_splitter.cache_clear()


def test_parts_of_words_that_gliner_does_not_place_are_compared(with_parts: Path) -> None:
    both = Pair.load(with_parts)
    texts = [PARTS, "Ada", PARTS[::-1]]
    theirs = both.reference.inference(texts, LABELS, threshold=0.05)
    assert any(entity["start"] is None or entity["end"] is None for found in theirs for entity in found)
    splitter = both.reference.data_processor.words_splitter
    report = verify(both.ours, texts, LABELS, threshold=0.05, reference=both.reference)
    assert report.ok, str(report)
    assert report.entities > 3
    assert both.reference.data_processor.words_splitter is splitter


def test_a_span_has_all_words_that_stand_at_its_start(with_parts: Path) -> None:
    model = GLiNER.from_pretrained(with_parts)
    triples = list(model.data_processor.words_splitter(PARTS))
    start, end = next((start, end) for (_, start, end), (_, other, _) in pairwise(triples) if start == other)
    parts = [word for word, first, _ in triples if first == start]
    assert len(parts) > 1
    spans = [[{"start": start, "end": end}]]
    ours = model.inference([PARTS], LABELS, threshold=0.0, input_spans=spans)[0]
    # The same by words with places of their own.
    places = [(word, 10 * at, 10 * at + 9) for at, (word, _, _) in enumerate(triples)]
    model.data_processor.words_splitter = lambda _: places
    first = next(at for at, (_, own, _) in enumerate(triples) if own == start)
    last = max(at for at, (_, _, own) in enumerate(triples) if own == end)
    spans = [[{"start": places[first][1], "end": places[last][2]}]]
    apart = model.inference([PARTS.ljust(10 * len(triples))], LABELS, threshold=0.0, input_spans=spans)[0]
    assert [(e["label"], e["score"]) for e in ours] == [(e["label"], pytest.approx(e["score"])) for e in apart]


def test_a_library_that_is_missing_is_told_when_the_model_is_loaded(
    with_splitter: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_splitter("deberta", "jieba")
    _library_splitter.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba3", None)
    with pytest.raises(ImportError, match="pip install jieba3"):
        GLiNER.from_pretrained(folder)

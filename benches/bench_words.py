"""Texts -> words -> rows of subwords, step by step: ours beside the functions of gliner that do the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gliner_fast
from benches.compare import SCALE, Race
from benches.conftest import LABELS, read_texts
from gliner_fast import _rust
from gliner_fast.word_splitters import _library_splitter, missing_packages, word_splitter
from gliner_fast.words import whitespace_splitter
from tests.split_texts import TEXTS as TEXTS_OF_LANGUAGES
from tests.split_texts import give_gliner_jieba
from tests.stanza_models import KNOWN_TO_STANZA, make_stanza_models

TEXTS = 300
SCRIPTS = {
    "accents": "Le président de la République, né à Orléans en 1847, déclara « c'est-à-dire » à l'Assemblée. ",
    "cyrillic": "Президент выступил перед парламентом в Москве 12 июня 1991 года, сообщило агентство. ",
    "cjk": "东京大学は、日本の東京都文京区本郷に本部を置く国立大学である。 1877年に設立された。 ",
}


def corpus(name: str) -> list[str]:
    """Texts of the bench data, or as many of one script."""
    if name in SCRIPTS:
        return [SCRIPTS[name] * 6] * max(2, round(TEXTS * SCALE))
    return list(read_texts(name)[: max(2, round(TEXTS * SCALE))])


@pytest.mark.parametrize("name", ["mixed", *SCRIPTS])
def bench_split(race: Race, name: str) -> None:
    from gliner.data_processing.tokenizer import WhitespaceTokenSplitter

    texts, splitter, reference = corpus(name), whitespace_splitter(), WhitespaceTokenSplitter()

    def run_reference() -> list[list[tuple[str, int, int]]]:
        return [list(reference(text)) for text in texts]

    expected = [triple for own in run_reference() for triple in own]
    words = splitter.split(texts)
    strings = [word for own in words.to_lists() for word in own]
    assert list(zip(strings, words.starts.tolist(), words.ends.tolist(), strict=True)) == expected
    race.run(
        lambda: splitter.split(texts),
        {"gliner": run_reference},
        agreement=f"identical: {len(expected):,} words",
        amount=len(expected),
        unit="words",
        texts=len(texts),
        corpus=name,
    )


# The texts that each library is made for.
LANGUAGES = {
    "spacy": "English", "mecab": "Korean", "janome": "Japanese", "jieba": "Chinese", "hindi": "Hindi",
    "camel": "Arabic", "universal": "German", "stanza": "English",
}  # fmt: skip


@pytest.mark.parametrize("kind", LANGUAGES)
def bench_library(
    race: Race, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A checkpoint's own splitter, beside gliner's with the same library, and the default one on the same texts.

    stanza's model has its usual size and random weights; the words of each differ, so texts are counted.
    """
    from gliner.data_processing.tokenizer import WordsSplitter

    if missing_packages(kind):
        pytest.skip(f"not installed: {', '.join(missing_packages(kind))}")
    give_gliner_jieba(monkeypatch)
    if kind == "stanza":
        import stanza

        make_stanza_models(tmp_path, {"en": KNOWN_TO_STANZA})
        pipeline = partial(stanza.Pipeline, dir=str(tmp_path))
        monkeypatch.setattr(stanza, "Pipeline", pipeline)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        request.addfinalizer(_library_splitter.cache_clear)
    sentence = TEXTS_OF_LANGUAGES[LANGUAGES[kind]]
    texts = [f"{sentence} " * (240 // len(sentence))] * max(2, round(40 * SCALE))
    splitter, reference, default = word_splitter(kind), WordsSplitter(kind), whitespace_splitter()
    assert splitter is not None
    expected = list(reference(texts[0]))
    assert list(splitter(texts[0])) == expected
    race.run(
        lambda: [splitter(text) for text in texts],
        {
            "gliner": lambda: [list(reference(text)) for text in texts],
            "the default splitter": lambda: default.split(texts),
        },
        agreement=f"identical: {len(expected)} words",
        amount=len(texts) * len(expected),
        unit="words",
        texts=len(texts),
        corpus=LANGUAGES[kind],
        splitter=kind,
    )


class Prompt:
    """One prompt for all texts, tokenized word by word."""

    def __init__(self, tokenizer: Any) -> None:
        self.words = [word for label in LABELS for word in ("<<ENT>>", label)] + ["<<SEP>>"]
        ids, counts = encode(tokenizer, self.words)
        offsets, shifts = np.array([0, len(ids)], np.int64), np.array([-(counts == 0).sum()], np.int64)
        self.encoded = _rust.Prompts(ids, offsets, shifts)


def encode(tokenizer: Any, words: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of each word by itself, flat, and how many each has."""
    if not words:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    encoding = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    ids, word_ids = np.array(encoding["input_ids"], np.int64), np.array(encoding.word_ids(), np.int64)
    return ids, np.bincount(word_ids, minlength=len(words)).astype(np.int64)


def pooled_of_masks(masks: list[list[int]], word_counts: list[int]) -> NDArray[np.int64]:
    """Flat positions and packed words, (2, M), of gliner's words masks."""
    mask = np.array(masks)
    rows, places = np.nonzero(mask)
    firsts = np.cumsum([0, *word_counts])
    return np.stack([rows * mask.shape[1] + places, firsts[rows] + mask[rows, places] - 1])


@pytest.mark.parametrize("batch", [8, 300])
def bench_look_up_and_assemble(race: Race, batch: int) -> None:
    """Words that the cache knows -> rows and the positions of their words; gliner: tokenizer and words mask."""
    from gliner.data_processing.utils import prepare_word_mask
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(Path(gliner_fast.__file__).parent / "models" / "minilm")
    words = whitespace_splitter().split(corpus("mixed")[:batch])
    lists, word_total = words.to_lists(), int(words.text_offsets[-1])
    prompt = Prompt(tokenizer)
    class_token = tokenizer.convert_tokens_to_ids("<<ENT>>")
    assert isinstance(class_token, int)
    layout = _rust.RowLayout(
        prefix=np.array([tokenizer.cls_token_id]),
        suffix=np.array([tokenizer.sep_token_id]),
        pad_id=tokenizer.pad_token_id,
        class_token_id=class_token,
        max_subwords=None,
        pooling="first",
        corrected=False,
    )
    cache = _rust.SubwordCache(2**18)
    rows, prompt_of_row = np.arange(len(lists)), np.zeros(len(lists), np.int64)

    def run_ours() -> _rust.Rows:
        found = cache.look_up(words)
        subwords = found.complete(*encode(tokenizer, found.missing))
        return subwords.assemble(rows, prompt.encoded, prompt_of_row, layout)

    def run_reference() -> tuple[NDArray[np.int64], list[list[int]]]:
        texts = [prompt.words + own for own in lists]
        encoded = tokenizer(texts, is_split_into_words=True, return_tensors="np", padding="longest")
        return encoded["input_ids"], prepare_word_mask(
            texts, encoded, skip_first_words=[len(prompt.words)] * len(texts)
        )

    expected_ids, masks = run_reference()
    for _ in range(2):  # with all words new, and with none
        laid = run_ours()
        np.testing.assert_array_equal(laid.input_ids, expected_ids)
        pooled = np.stack([laid.pooled_positions, laid.pooled_words])
        np.testing.assert_array_equal(pooled, pooled_of_masks(masks, laid.word_counts.tolist()))
    race.run(
        run_ours,
        {"gliner": run_reference},
        agreement=f"identical rows for {len(lists)} texts",
        amount=word_total,
        unit="words",
        texts=len(lists),
        labels=len(LABELS),
        cached_words="seen",
    )

"""The splitters of checkpoints beside those of gliner, by the same libraries, where these are installed."""

from __future__ import annotations

import copy
import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_fast import word_splitters
from gliner_fast.errors import CheckpointError, CheckpointWarning
from gliner_fast.word_splitters import (
    WORD_SPLITTERS,
    _library_splitter,
    missing_packages,
    place_words,
    word_splitter,
)
from tests.reference.examples import examples
from tests.reference.words import replace_surrogates
from tests.samples import UNICODE
from tests.split_texts import LIBRARIES, TEXTS, give_gliner_jieba, stand_in
from tests.stanza_models import KNOWN_TO_STANZA, make_stanza_models

Triples = list[tuple[str, int, int]]

# Characters at which these libraries go wrong, and any others, lone surrogates included.
CHARACTERS = st.one_of(
    st.sampled_from(
        "aZ09 _-.,/:'é\u0301\u200d\u2009\x1c\u3000\n\r東京日本語李明서울한국हिंदी१।العربية①²👩🚀\ud800\udfff\ufffd\x85ｱﾞ"
    ),
    st.characters(exclude_categories=()),
)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Has splitters made for this test alone."""
    _library_splitter.cache_clear()
    yield
    _library_splitter.cache_clear()


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Callable[[str], Triples]]:
    """Gives gliner's splitter of a kind."""
    from gliner.data_processing.tokenizer import WordsSplitter

    give_gliner_jieba(monkeypatch)

    def made(kind: str) -> Callable[[str], Triples]:
        splitter = WordsSplitter(kind)
        return lambda text: list(splitter(replace_surrogates(text)))

    return made


def own(kind: str) -> Callable[[str], Triples]:
    splitter = word_splitter(kind)
    assert splitter is not None
    return lambda text: list(splitter(text))


def check(text: str, mine: Triples, theirs: Triples) -> None:
    """The same words at the same places, up to the first that gliner places nowhere; all of mine within the text."""
    assert [word for word, _, _ in mine] == [word for word, _, _ in theirs]
    lost = next((number for number, (_, start, _) in enumerate(theirs) if start in (-1, None)), len(theirs))
    assert mine[:lost] == theirs[:lost]
    assert all(0 <= start <= end <= len(text) for _, start, end in mine)


# --- libraries that cut a text into words -----------------------------------------------------------------------------


@pytest.mark.gliner
@pytest.mark.parametrize("kind", LIBRARIES)
def test_texts_of_many_languages_split_as_by_gliner(kind: str, reference: Any) -> None:
    pytest.importorskip(LIBRARIES[kind])
    theirs, mine = reference(kind), own(kind)
    for text in [*TEXTS.values(), *UNICODE]:
        check(text, mine(text), theirs(text))


@pytest.mark.gliner
@pytest.mark.parametrize("kind", LIBRARIES)
def test_any_text_splits_as_by_gliner(kind: str, reference: Any) -> None:
    pytest.importorskip(LIBRARIES[kind])
    theirs, mine = reference(kind), own(kind)

    @examples
    @given(st.text(CHARACTERS, max_size=60))
    def test(text: str) -> None:
        check(text, mine(text), theirs(text))

    test()


def test_the_words_of_jieba_are_those_of_its_dictionary() -> None:
    pytest.importorskip("jieba3")
    assert own("jieba")("北京大学的李明") == [("北京大学", 0, 4), ("的", 4, 5), ("李明", 5, 7)]


def test_a_lone_surrogate_is_read_as_the_character_for_what_is_no_character() -> None:
    pytest.importorskip("mecab")
    assert own("mecab")("a \ud800 b") == [("a", 0, 1), ("\ufffd", 2, 3), ("b", 4, 5)]


def test_spacy_forgets_words_and_reads_a_text_of_any_length(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    spacy = pytest.importorskip("spacy")
    pipelines: list[Any] = []
    blank = spacy.blank
    monkeypatch.setattr(spacy, "blank", lambda language: pipelines.append(blank(language)) or pipelines[-1])
    monkeypatch.setattr(word_splitters, "_MOST_SPACY_WORDS", 2_000)
    splitter = own("spacy")
    words = splitter(" ".join(f"word{number}" for number in range(200_000)))
    assert len(words) == 200_000
    assert words[-1] == ("word199999", words[-1][1], words[-1][1] + 10)
    assert len(pipelines) == 1
    assert splitter("word1 ends") == [("word1", 0, 5), ("ends", 6, 10)]
    assert len(pipelines) == 2
    assert len(pipelines[-1].vocab) < 2_000


PLACED = [
    ("ab cd", ["ab", "cd"], [("ab", 0, 2), ("cd", 3, 5)]),
    ("ab ab", ["ab", "ab"], [("ab", 0, 2), ("ab", 3, 5)]),
    ("x \uff21b y", ["x", "ab", "y"], [("x", 0, 1), ("ab", 2, 4), ("y", 5, 6)]),
    ("\uff21b", ["ab"], [("ab", 0, 2)]),
    ("x  \uff21 \uff22  y", ["x", "a", "b", "y"], [("x", 0, 1), ("a", 3, 6), ("b", 3, 6), ("y", 8, 9)]),
    ("x y ", ["x", "y", "?"], [("x", 0, 1), ("y", 2, 3), ("?", 3, 3)]),
    ("xy", ["x", "?", "y"], [("x", 0, 1), ("?", 1, 1), ("y", 1, 2)]),
    ("", [], []),
]


@pytest.mark.parametrize(("text", "words", "placed"), PLACED, ids=ascii)
def test_a_word_that_does_not_stand_in_the_text_stands_between_its_neighbours(
    text: str, words: list[str], placed: Triples
) -> None:
    assert place_words(text, words) == placed


@examples
@given(st.text("ab \n", max_size=12), st.lists(st.text("abc ", max_size=3), max_size=6))
def test_any_words_are_placed_within_the_text_in_order(text: str, words: list[str]) -> None:
    placed = place_words(text, iter(words))
    assert [word for word, _, _ in placed] == words
    assert [start for _, start, _ in placed] == sorted(start for _, start, _ in placed)
    assert all(0 <= start <= end <= len(text) for _, start, end in placed)


@pytest.mark.gliner
def test_hanlp_is_asked_as_by_gliner(monkeypatch: pytest.MonkeyPatch, fresh: None, reference: Any) -> None:
    """A stand-in for HanLP, whose model would have to be downloaded."""
    pretrained = stand_in(monkeypatch, "hanlp.pretrained")
    pretrained.tok = ModuleType("hanlp.pretrained.tok")
    pretrained.tok.ALL = {"FINE_ELECTRA_SMALL_ZH": "the url"}
    models = {"the url": lambda text: [text[i : i + 2].strip() for i in range(0, len(text), 2)]}
    hanlp = stand_in(monkeypatch, "hanlp", load=models.__getitem__, pretrained=pretrained)
    theirs, mine = reference("hanlp"), own("hanlp")
    for text in TEXTS.values():
        if "\ud800" not in text:
            check(text, mine(text), theirs(text))

    def fail(url: str) -> None:
        raise OSError("no network")

    _library_splitter.cache_clear()
    monkeypatch.setattr(hanlp, "load", fail)
    with pytest.raises(CheckpointError, match=r"FINE_ELECTRA_SMALL_ZH cannot be had: OSError: no network"):
        word_splitter("hanlp")


# --- by language ------------------------------------------------------------------------------------------------------


@pytest.mark.gliner
def test_universal_splits_each_language_as_by_gliner(
    monkeypatch: pytest.MonkeyPatch, fresh: None, reference: Any
) -> None:
    """CAMeL Tools by a stand-in, where they are not installed."""
    for library in ("langdetect", "mecab", "janome", "indicnlp", "jieba3", "spacy"):
        pytest.importorskip(library)
    if find_spec("camel_tools") is None:
        stand_in(monkeypatch, "camel_tools")
        stand_in(monkeypatch, "camel_tools.tokenizers")
        stand_in(monkeypatch, "camel_tools.tokenizers.word", simple_word_tokenize=str.split)
    theirs, mine = reference("universal"), own("universal")
    monkeypatch.setattr("langdetect.DetectorFactory.seed", 0)  # a splitter of stanza's may have been made after it
    for text in [*TEXTS.values(), *UNICODE]:
        check(text, mine(text), theirs(text))
    assert ("北京大学", 0, 4) in mine(TEXTS["Chinese"])
    assert ("서울", 0, 2) in mine(TEXTS["Korean"])


@pytest.fixture
def stanza_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tokenizers of stanza for three languages, one with parts of words, and one that is known but not there."""
    pytest.importorskip("stanza")
    pytest.importorskip("langdetect")
    make_stanza_models(
        tmp_path,
        {"en": KNOWN_TO_STANZA, "de": KNOWN_TO_STANZA, "ja": KNOWN_TO_STANZA + TEXTS["Japanese"], "fr": ""},
        {"de": {"e": "x y", "i": "i j", "n": "a b c"}},
    )
    # stanza takes it from the environment when it is imported.
    for function in ("Pipeline.__init__", "download"):
        monkeypatch.setattr(f"stanza.{function}", _with_folder(function, str(tmp_path)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def _with_folder(function: str, folder: str) -> Any:
    import stanza

    if function == "download":
        download = stanza.download
        return lambda *given, **settings: download(*given, model_dir=folder, **settings)
    init = stanza.Pipeline.__init__
    return lambda self, *given, **settings: init(self, *given, dir=folder, **settings)


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:stanza's model of the language 'fr':gliner_fast.errors.CheckpointWarning")
def test_stanza_splits_each_language_as_by_gliner(stanza_models: Path, fresh: None, reference: Any) -> None:
    theirs, mine = reference("stanza"), own("stanza")
    for text in [*TEXTS.values(), *UNICODE]:
        if text != TEXTS["German"]:
            check(text, mine(text), theirs(text))
    # In parts of words gliner leaves entities without a beginning.
    text = TEXTS["German"]
    parts, words = theirs(text), mine(text)
    assert [word for word, _, _ in words] == [word for word, _, _ in parts]
    assert [place for place in parts if place[1] is not None] == [
        place for place, other in zip(words, parts, strict=True) if other[1] is not None
    ]
    assert {text[start:end] for (word, start, end), part in zip(words, parts, strict=True) if part[1] is None} >= {"e"}


@pytest.mark.gliner
@pytest.mark.filterwarnings("ignore:stanza's model of the language 'fr':gliner_fast.errors.CheckpointWarning")
def test_any_text_splits_as_by_gliner_s_stanza(stanza_models: Path, fresh: None, reference: Any) -> None:
    theirs, mine = reference("stanza"), own("stanza")

    @examples
    @given(st.text(CHARACTERS, max_size=60))
    def test(text: str) -> None:
        check(text, mine(text), theirs(text))

    test()


def test_a_language_whose_model_cannot_be_had_is_split_as_english_and_told_of_once(
    stanza_models: Path, fresh: None
) -> None:
    splitter = own("stanza")
    text = "Le président de la République habite à Paris avec sa famille."
    with pytest.warns(CheckpointWarning, match=r"language 'fr' cannot be had.*stanza\.download\('fr'"):
        words = splitter(text)
    assert splitter(text) == words  # no warning, which would be an error
    assert splitter("Ελλάδα και Αθήνα") != []  # a language that stanza does not have, in this folder: no warning
    assert len(words) > 3


def test_without_a_model_of_english_loading_ends_and_tells_how_to_get_one(
    stanza_models: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stanza_models / "en" / "tokenize" / "tiny.pt").unlink()
    with pytest.raises(CheckpointError, match=r"model of English.*stanza\.download\('en', processors='tokenize'\)"):
        word_splitter("stanza")
    asked = []

    def download(language: str, **settings: Any) -> None:
        asked.append((language, settings["processors"]))
        raise OSError("no network")

    monkeypatch.setattr("stanza.download", download)
    with pytest.raises(CheckpointError, match="model of English"):
        word_splitter("stanza")
    assert asked == []  # HF_HUB_OFFLINE
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(CheckpointError, match="OSError: no network"):
        word_splitter("stanza")
    assert asked == [("en", "tokenize")]


def test_a_model_that_is_missing_is_downloaded(
    stanza_models: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stanza_models / "en" / "tokenize" / "tiny.pt"
    content = model.read_bytes()
    model.unlink()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("stanza.download", lambda *_, **__: model.write_bytes(content))
    assert len(own("stanza")("Ada Lovelace lived in London.")) > 3


def test_the_seed_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    langdetect = pytest.importorskip("langdetect")
    monkeypatch.setattr(langdetect.DetectorFactory, "seed", 7)
    detect = word_splitters._language_detector(seed=0)
    assert detect(TEXTS["German"]) == "de"
    assert detect("123 !") is None
    assert langdetect.DetectorFactory.seed == 7


# --- what is not there ------------------------------------------------------------------------------------------------


def test_the_default_splitter_is_the_one_in_rust() -> None:
    assert word_splitter("whitespace") is None


def test_the_names_are_those_of_gliner() -> None:
    assert set(WORD_SPLITTERS) == {
        *("whitespace", "spacy", "mecab", "jieba", "hanlp", "janome", "camel", "hindi", "universal", "stanza")
    }


@pytest.mark.parametrize("name", ["moses", None, ["spacy"]])
def test_a_name_that_nobody_knows_is_refused_with_those_there_are(name: Any) -> None:
    message = f"words_splitter_type is {name!r}: expected one of whitespace, camel, "
    with pytest.raises(CheckpointError, match=re.escape(message)):
        word_splitter(name)


@pytest.mark.parametrize(
    ("kind", "module", "install"),
    [
        ("camel", "camel_tools", "pip install camel-tools$"),
        ("hanlp", "hanlp", "pip install hanlp$"),
        ("hindi", "indicnlp", r"pip install indic-nlp-library, or 'gliner-fast\[splitters\]'"),
        ("janome", "janome", r"pip install janome, or 'gliner-fast\[splitters\]'"),
        ("jieba", "jieba3", r"pip install jieba3, or 'gliner-fast\[splitters\]'"),
        ("mecab", "mecab", r"pip install python-mecab-ko, or 'gliner-fast\[splitters\]'"),
        ("spacy", "spacy", r"pip install spacy, or 'gliner-fast\[splitters\]'"),
        ("stanza", "stanza", r"pip install stanza.*, or 'gliner-fast\[stanza\]'"),
        ("universal", "camel_tools", "pip install .*camel-tools"),
    ],
)
def test_a_library_that_is_missing_is_named(
    kind: str, module: str, install: str, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "version_info", (3, 12))
    with pytest.raises(ImportError, match=f"words_splitter_type is '{kind}', which needs .*: {install}"):
        word_splitter(kind)
    assert missing_packages(kind)


def test_no_extra_is_named_that_would_not_bring_it(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setitem(sys.modules, "mecab", None)
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(ImportError, match="pip install python-mecab-ko, which has wheels for Python 3.12 and before"):
        word_splitter("mecab")


def test_a_library_that_is_broken_is_named(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    stand_in(monkeypatch, "janome")
    monkeypatch.setitem(sys.modules, "janome.tokenizer", ModuleType("janome.tokenizer"))
    with pytest.raises(ImportError, match=r"a library of it is broken: ImportError: cannot import name 'Tokenizer'"):
        word_splitter("janome")


@pytest.mark.parametrize("kind", ["janome", "stanza"])
def test_whatever_a_broken_library_raises_it_is_named(kind: str, monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    stand_in(monkeypatch, kind)
    if kind == "janome":
        broken = ModuleType("janome.tokenizer")
        broken.Tokenizer = lambda: 1 / 0
        monkeypatch.setitem(sys.modules, "janome.tokenizer", broken)
    else:  # as it is put there it has no Pipeline
        stand_in(monkeypatch, "langdetect")
    with pytest.raises(
        ImportError, match=f"words_splitter_type is '{kind}', and a library of it is broken: .* pip install"
    ):
        word_splitter(kind)


# --- processes and threads --------------------------------------------------------------------------------------------


def test_a_splitter_is_copied_and_pickled_as_its_name(fresh: None) -> None:
    pytest.importorskip("mecab")
    splitter = word_splitter("mecab")
    stored = pickle.dumps(splitter)
    assert copy.deepcopy(splitter) is splitter
    assert pickle.loads(stored) is splitter
    _library_splitter.cache_clear()  # as in another process
    other = pickle.loads(stored)
    assert other is not splitter
    assert other(TEXTS["Korean"]) == splitter(TEXTS["Korean"])


@pytest.mark.parametrize("kind", ["janome", "spacy"])
def test_threads_may_split_at_once(kind: str) -> None:
    pytest.importorskip(LIBRARIES[kind])
    splitter = own(kind)
    texts = [text[first:] for text in TEXTS.values() for first in range(8)]
    expected = list(map(splitter, texts))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(splitter, texts)) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_splits_can_split() -> None:
    pytest.importorskip("mecab")
    splitter = word_splitter("mecab")
    expected = splitter(TEXTS["Korean"])
    with splitter._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if splitter(TEXTS["Korean"]) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0

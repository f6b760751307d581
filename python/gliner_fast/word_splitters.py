"""A checkpoint's `words_splitter_type` -> its word splitter, by the library that `gliner` splits with (compat 4.1)."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any, NamedTuple

from gliner_fast.cpu.forking import renew_lock_in_children
from gliner_fast.cpu.openmp import in_one_thread
from gliner_fast.errors import CheckpointError, CheckpointWarning, reason_of
from gliner_fast.surrogates import without_surrogates
from gliner_fast.words import WordTriples

Triples = list[tuple[str, int, int]]
Split = Callable[[str], Triples]

_DEFAULT_LANGUAGE = "en"  # of stanza: what has no model is split as English
# spaCy keeps every word that it ever saw, some 400 bytes each, and what it has of them is made anew beyond so many. Its
# memory zones, which forget those of a text, make texts of known words four times as slow.
_MOST_SPACY_WORDS = 200_000
# What pip calls the modules that are imported here.
_PACKAGES = {
    "camel_tools": "camel-tools",
    "hanlp": "hanlp",
    "indicnlp": "indic-nlp-library",
    "janome": "janome",
    "jieba3": "jieba3",
    "langdetect": "langdetect",
    "mecab": "python-mecab-ko",
    "spacy": "spacy",
    "stanza": "stanza",
}
_LARGE = {"camel-tools", "hanlp"}  # no extra brings them
_BEFORE_3_13 = {"python-mecab-ko"}  # has no wheels for later Pythons, and so no extra there


def word_splitter(kind: str) -> WordTriples | None:
    """The splitter that `gliner` has for a `words_splitter_type`; None for "whitespace", the default one, in Rust.

    One a process: what libraries read is in memory once, however many models ask for it. Whatever it needs for any
    text is imported here, as in `gliner`: a job is to end at its beginning for a library that is missing or broken.
    stanza's models are the exception, being many: that of English is loaded here, others when a text asks for them.

    Raises:
        CheckpointError: a name that nobody knows, or stanza has no model of English here.
        ImportError: a library is missing or broken; names what pip is to install.
    """
    if kind not in WORD_SPLITTERS:
        raise CheckpointError(f"words_splitter_type is {kind!r}: expected one of {', '.join(WORD_SPLITTERS)}")
    return None if kind == "whitespace" else _library_splitter(kind)


@cache
def _library_splitter(kind: str) -> LibrarySplitter:
    missing = missing_packages(kind)
    if missing:
        extra = "stanza" if kind == "stanza" else "splitters"
        more = "" if _LARGE & set(missing) else f", or 'gliner-fast[{extra}]'"
        if sys.version_info >= (3, 13) and _BEFORE_3_13 & set(missing):
            more = ", which has wheels for Python 3.12 and before alone, and is built with a C++ compiler here"
        raise ImportError(
            f"words_splitter_type is {kind!r}, which needs what is not installed: pip install {' '.join(missing)}{more}"
        )
    try:
        return LibrarySplitter(kind, _KINDS[kind].make())
    except CheckpointError:
        raise
    except Exception as error:  # libraries built for another numpy, say, raise whatever they like
        packages = " ".join(_PACKAGES[module] for module in _KINDS[kind].modules)
        raise ImportError(
            f"words_splitter_type is {kind!r}, and a library of it is broken: {reason_of(error)}. Install them "
            f"anew: pip install --force-reinstall --no-deps {packages}"
        ) from error


def missing_packages(kind: str) -> list[str]:
    """What pip is to install for a `words_splitter_type`, where it is not here; imports nothing."""
    modules = () if kind not in _KINDS else _KINDS[kind].modules
    return [_PACKAGES[module] for module in modules if find_spec(module) is None]


class LibrarySplitter:
    """A library's words, with their places; pickled and copied as its name, and made anew in another process.

    One text at a time, whichever threads ask: the libraries do not promise to be safe (janome's cache is not), and
    what they do in Python goes no faster in several.
    """

    def __init__(self, kind: str, split: Split) -> None:
        """Takes the function that a library splits with."""
        self._kind, self._split, self._lock = kind, split, Lock()
        renew_lock_in_children(self)

    def __call__(self, text: str) -> Triples:
        """(word, start, end) in code points.

        A lone surrogate is read as U+FFFD, as by the default splitter: most libraries refuse it, as `gliner` does.
        """
        readable = without_surrogates(text)
        with self._lock:
            return self._split(readable)

    def __repr__(self) -> str:
        return f"word_splitter({self._kind!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return word_splitter, (self._kind,)

    def renew_lock(self) -> None:
        """Takes a new one, in a process that was forked maybe while another thread had this one."""
        self._lock = Lock()


def place_words(text: str, words: Iterable[str]) -> Triples:
    """Where a library's words stand in the text: each behind the one before, as `gliner` looks for them.

    A word that does not stand there, since the library changed it, is given what lies between its neighbours that do,
    without the blanks around. (`gliner` places it at -1, and what follows at the text's beginning again.)
    """
    placed: Triples = []
    unplaced: list[str] = []
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0:
            unplaced.append(word)
            continue
        if unplaced:  # rare, and each word passes here
            placed += _place_between(text, unplaced, end, start)
            unplaced = []
        end = start + len(word)
        placed.append((word, start, end))
    return placed + _place_between(text, unplaced, end, len(text))


def _place_between(text: str, words: list[str], start: int, end: int) -> Triples:
    own = text[start:end].strip()
    first = text.find(own, start)
    return [(word, first, first + len(own)) for word in words]


def _spacy(language: str = "en") -> Split:
    import spacy

    nlp = spacy.blank(language)

    def split(text: str) -> Triples:
        nonlocal nlp
        if len(nlp.vocab) > _MOST_SPACY_WORDS:
            nlp = spacy.blank(language)
        # Its tokenizer is all that it has, and reads texts of more than a million characters, which the whole refuses.
        return [(token.text, token.idx, token.idx + len(token.text)) for token in nlp.tokenizer(text)]

    return split


def _mecab() -> Split:
    import mecab

    tagger = mecab.MeCab()
    return lambda text: place_words(text, tagger.morphs(text))


def _janome() -> Split:
    from janome.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    return lambda text: place_words(text, tokenizer.tokenize(text, wakati=True))


def _jieba() -> Split:
    from jieba3 import jieba3  # `gliner` asks for jieba, and then imports this one

    tokenizer = jieba3()
    return lambda text: place_words(text, tokenizer.cut_text(text))


def _hanlp() -> Split:
    import hanlp
    import hanlp.pretrained

    try:
        tokenizer = hanlp.load(hanlp.pretrained.tok.ALL["FINE_ELECTRA_SMALL_ZH"])
    except ImportError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"words_splitter_type is 'hanlp', and its model FINE_ELECTRA_SMALL_ZH cannot be had: {reason_of(error)}"
        ) from error
    return lambda text: place_words(text, tokenizer(text))


def _camel() -> Split:
    from camel_tools.tokenizers.word import simple_word_tokenize

    return lambda text: place_words(text, simple_word_tokenize(text))


def _hindi() -> Split:
    from indicnlp.tokenize.indic_tokenize import trivial_tokenize

    def split(text: str) -> Triples:
        # It joins the parts of dates and numbers ("1 / 2" is "1/2"); `gliner` leaves out what then stands nowhere.
        placed, end = [], 0
        for word in trivial_tokenize(text, lang="hi"):
            start = text.find(word, end)
            if start >= 0:
                end = start + len(word)
                placed.append((word, start, end))
        return placed

    return split


def _universal() -> Split:
    """Each language by its library, all others by spaCy."""
    detect = _language_detector(seed=0)
    chinese = _jieba()
    of_language = {
        "ko": _mecab(),
        "ja": _janome(),
        "hi": _hindi(),
        "zh-cn": chinese,
        "zh-tw": chinese,
        "ar": _camel(),
    }
    others = _spacy("xx")
    return lambda text: of_language.get(detect(text) or "", others)(text)


def _stanza() -> Split:
    """Each language by its model, what has none as English."""
    from stanza import Pipeline  # noqa: F401  (so that a broken library is not taken for a missing model)

    detect = _language_detector(seed=42)
    pipelines: dict[str, Any] = {}
    try:
        pipelines[_DEFAULT_LANGUAGE] = default = _stanza_pipeline(_DEFAULT_LANGUAGE)
    except ImportError:
        raise
    except Exception as error:
        raise CheckpointError(
            "words_splitter_type is 'stanza', and its model of English, which also splits what no model is there for, "
            f"cannot be had: {_way_to_model(_DEFAULT_LANGUAGE, error)}"
        ) from error

    def split(text: str) -> Triples:
        language = detect(text) or _DEFAULT_LANGUAGE
        language = "zh" if language == "zh-cn" else language
        if language not in pipelines:
            pipelines[language] = _stanza_pipeline_or(default, language)
        with in_one_thread():  # several gain nothing, and beside the network's they wait for the cores
            sentences = pipelines[language](text).sentences
        words = [word for sentence in sentences for word in sentence.words]
        # Of "zum", read as "zu dem", stanza does not place the parts: they stand where the whole does.
        places = [word if word.start_char is not None else word.parent for word in words]
        return [(word.text, place.start_char, place.end_char) for word, place in zip(words, places, strict=True)]

    return split


def _stanza_pipeline(language: str) -> Any:
    """The tokenizer of a language, downloaded if it must and may be; raises whatever stanza does."""
    import stanza

    def load() -> Any:
        # On the CPU also where there is a GPU: texts are prepared beside what the device computes, in any thread, and
        # in processes that were forked.
        return stanza.Pipeline(language, processors="tokenize", verbose=False, download_method=None, use_gpu=False)

    try:
        return load()
    except Exception:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
            raise
    stanza.download(language, processors="tokenize", verbose=False)
    return load()


def _stanza_pipeline_or(default: Any, language: str) -> Any:
    """The tokenizer of a language, or the default one; says so where stanza has one that cannot be had here."""
    try:
        return _stanza_pipeline(language)
    except ValueError:  # of a language that stanza does not have
        return default
    except Exception as error:  # noqa: BLE001  # whatever it is, `gliner` goes on, and so must a job
        warnings.warn(
            f"stanza's model of the language {language!r} cannot be had, so that texts in it are split as English "
            f"ones, as by gliner: {_way_to_model(language, error)}",
            CheckpointWarning,
            stacklevel=2,
        )
        return default


def _way_to_model(language: str, error: Exception) -> str:
    return (
        f"{reason_of(error)}. Get it, with a network and without HF_HUB_OFFLINE, by "
        f"python -c \"import stanza; stanza.download('{language}', processors='tokenize')\""
    )


def _language_detector(*, seed: int) -> Callable[[str], str | None]:
    """langdetect, which names the language of a text; None where it sees none.

    It draws at random, from a seed that `gliner` sets for the whole process: 0 when it makes its universal splitter, 42
    for stanza's, so that there the model that was loaded last decides for all. Here each splitter has a detector and a
    seed of its own, answers as in a process of `gliner` with this model alone, and leaves those of others as they are.
    """
    from langdetect import PROFILES_DIRECTORY, DetectorFactory, LangDetectException

    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.set_seed(seed)

    def detect(text: str) -> str | None:
        detector = factory.create()
        detector.append(text)
        try:
            language: str = detector.detect()
        except LangDetectException:
            return None
        return language

    return detect


class _Kind(NamedTuple):
    make: Callable[[], Split]
    modules: tuple[str, ...]


_KINDS = {
    "camel": _Kind(_camel, ("camel_tools",)),
    "hanlp": _Kind(_hanlp, ("hanlp",)),
    "hindi": _Kind(_hindi, ("indicnlp",)),
    "janome": _Kind(_janome, ("janome",)),
    "jieba": _Kind(_jieba, ("jieba3",)),
    "mecab": _Kind(_mecab, ("mecab",)),
    "spacy": _Kind(_spacy, ("spacy",)),
    "stanza": _Kind(_stanza, ("stanza", "langdetect")),
    "universal": _Kind(_universal, ("langdetect", "mecab", "janome", "indicnlp", "jieba3", "camel_tools", "spacy")),
}
WORD_SPLITTERS = ("whitespace", *_KINDS)

"""What tests of word splitters share: texts of many languages, and the libraries that split them."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest

TEXTS = {
    "English": "Barack Obama visited Paris, U.S.A. in 2009; didn't he e-mail us?",
    "German": "Angela Merkel wohnt in Berlin-Mitte und geht zum Käsekaufen im Supermarkt.",
    "Chinese": "北京大学的李明教授于2009年访问了上海,并在复旦大学作了报告。",
    "Taiwanese": "國立臺灣大學的王教授訪問了臺北市、並發表了演講。",
    "Japanese": "東京都に住む田中さんは、日本語と English を話します。",
    "Korean": "서울에 사는 김철수 씨는 한국어를 말합니다. 됐습니다!",
    "Hindi": "दिल्ली में रहने वाले राम 15 / 08 / 1947 को हिंदी बोलते हैं। क्या?",
    "Arabic": "يعيش محمد في القاهرة، ويتحدث العربية.",
    "mixed": "東京 and 서울 and Paris और दिल्ली و القاهرة",
    "empty": "",
    "blanks": "  \t\n \u3000",
    "emoji": "Hi 👩\u200d🚀! 🇩🇪 ok ❤️",
    "combining marks": "e\u0301a Cafe\u0301 Å A\u030a क्षि",
    "a lone surrogate": "a \ud800 b 東京\udfff서울",
    "U+0000": "a\x00b 東京",
    "wide and narrow": "\uff21\uff22\uff23\u3000\uff11\uff12 ｶﾀｶﾅ ﾊﾟ 가",
    "lines": "one\r\ntwo\u2028three\x85four\tfive\x1csix",
    "numbers": "1 , 2 / 3 . 4 10 : 30",
    "links": "see https://example.org/a?b=c&d=1 or mail ada@example.org",
}
# What is imported for a `words_splitter_type`.
LIBRARIES = {
    "camel": "camel_tools",
    "hindi": "indicnlp",
    "janome": "janome",
    "jieba": "jieba3",
    "mecab": "mecab",
    "spacy": "spacy",
}


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> ModuleType:
    """Puts a module where it is looked for."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    module.__path__ = []
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def give_gliner_jieba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has gliner find jieba, which it asks for, and imports jieba3."""
    if find_spec("jieba") is None:
        stand_in(monkeypatch, "jieba")

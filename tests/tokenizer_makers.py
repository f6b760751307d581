"""Trains small tokenizers laid out as those of the encoder families, and fills them up to any number of entries."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

#: What `gliner` adds to an encoder's tokenizer, in its order; the entity token's id is the length minus two.
GLINER_TOKENS = ("[FLERT]", "<<ENT>>", "<<SEP>>")
#: The same for a model that finds relations, too.
RELATION_TOKENS = ("<<ENT>>", "<<SEP>>", "<<REL>>")

# DeBERTa-v3's first four entries and BERT-like names for all; [MASK] is its last.
_SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
_LONGEST_UNIGRAM = 12  # characters
_TRAINED_PIECES = 8_000  # as many real pieces as the corpus gives, up to this; the rest is filler


def make_tokenizer(
    family: str, texts: tuple[str, ...], *, size: int, max_subwords: int | None, extra: tuple[str, ...] = ()
) -> PreTrainedTokenizerBase:
    """Returns a tokenizer of `size` entries plus `extra` special tokens at its end.

    Args:
        family: "unigram" (DeBERTa-v3's, where control characters and zero-width spaces vanish), "deberta" (the same
            pieces in transformers' own DeBERTa class, which normalises in its own way), "t5" (the same pieces in the
            class of T5, which puts nothing in front), "wordpiece" (uncased BERT) or "byte-bpe" (ModernBERT; nothing
            ever vanishes).
        texts: what it is trained on.
        size: entries without `extra`. Those that training does not fill are pieces that no text can match.
        max_subwords: the longest sequence it gives; None: no limit, as DeBERTa's.
        extra: special tokens to add, such as `GLINER_TOKENS`.
    """
    if family == "t5":
        return _t5_tokenizer(texts, size, max_subwords, extra)
    model = _train("unigram" if family == "deberta" else family, texts, size)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    options: dict[str, Any] = names | {"mask_token": "[MASK]"}
    if max_subwords is not None:
        options["model_max_length"] = max_subwords
    if family in {"unigram", "deberta"}:
        options |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    own_class = _fast_class({"deberta": "DebertaV2", "wordpiece": "Bert"}.get(family, "PreTrained"))
    tokenizer: PreTrainedTokenizerBase = own_class(tokenizer_object=model, **options)
    if extra:
        tokenizer.add_tokens(list(extra), special_tokens=True)
    return tokenizer


def _fast_class(model: str) -> Any:
    """transformers' class around a tokenizer of `tokenizers`; in transformers 4 each model has a slow one, too."""
    import transformers

    return getattr(transformers, f"{model}TokenizerFast")


def _t5_tokenizer(
    texts: tuple[str, ...], size: int, max_subwords: int | None, extra: tuple[str, ...]
) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    pieces = json.loads(_train("unigram", texts, size).to_str())["model"]["vocab"]
    others = [(piece, score) for piece, score in pieces if piece not in {*_SPECIALS, "[MASK]"}]
    own = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    filler = [(f"\ue000{piece}\ue001", others[-1][1]) for piece in range(size - len(own) - len(others))]
    options = {} if max_subwords is None else {"model_max_length": max_subwords}
    backend = Tokenizer(models.Unigram([*own, *others, *filler], unk_id=2))
    metaspace: dict[str, Any] = {"replacement": "\u2581", "prepend_scheme": "always"}
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**metaspace)]
    )
    backend.decoder = decoders.Metaspace(**metaspace)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer: PreTrainedTokenizerBase = _fast_class("T5")(tokenizer_object=backend, extra_ids=0, **options)
    if extra:
        tokenizer.add_tokens(list(extra), special_tokens=True)
    return tokenizer


@lru_cache
def _train(family: str, texts: tuple[str, ...], size: int) -> Tokenizer:
    """Makes one for each family and size, the same in every process.

    Unigram and WordPiece vocabularies are counted out, since their trainers depend on how a hash table or the threads
    happened to order things; the byte-level BPE trainer does not.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    pieces = min(_TRAINED_PIECES, size) - len(_SPECIALS) - 1  # - 1: [MASK]
    common: dict[str, Any] = {
        "vocab_size": pieces + len(_SPECIALS), "special_tokens": _SPECIALS, "show_progress": False
    }  # fmt: skip
    normalizer: normalizers.Normalizer
    splitter: pre_tokenizers.PreTokenizer
    if family == "unigram":
        normalizer = normalizers.Sequence(
            [normalizers.Strip(), normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace("  ", " ")]
        )
        splitter = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
        words = [word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
        draft, trainer = Tokenizer(models.Unigram(_count_unigrams(words, pieces), _SPECIALS.index("[UNK]"))), None
        draft.normalizer, draft.pre_tokenizer = normalizer, splitter
        draft.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    elif family == "wordpiece":
        normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        words = [word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
        vocabulary = _count_pieces(words, pieces)
        draft, trainer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")), None
        draft.normalizer, draft.pre_tokenizer, draft.decoder = normalizer, splitter, decoders.WordPiece()
    else:
        draft, trainer = (
            Tokenizer(models.BPE()),
            trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common),
        )
        draft.normalizer = normalizers.NFC()
        draft.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        draft.decoder = decoders.ByteLevel()
    if trainer is not None:
        draft.train_from_iterator(texts, trainer)

    filled = Tokenizer.from_str(json.dumps(_filled(json.loads(draft.to_str()), size)))
    specials = [AddedToken(token, special=True, normalized=False) for token in [*_SPECIALS, "[MASK]"]]
    filled.add_special_tokens(specials)
    filled.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return filled


def _count_pieces(words: list[str], size: int) -> dict[str, int]:
    """A WordPiece vocabulary: special tokens, every character, then the most frequent beginnings and ends of words."""
    characters = sorted({character for word in words for character in word})
    pieces = Counter(word[:length] for word in words for length in range(2, len(word) + 1))
    pieces.update("##" + word[first:] for word in words for first in range(1, len(word) - 1))
    frequent = sorted(pieces, key=lambda piece: (-pieces[piece], piece))
    ordered = [*_SPECIALS, *characters, *("##" + character for character in characters), *frequent]
    return {piece: number for number, piece in enumerate(ordered[: size + len(_SPECIALS)])}


def _count_unigrams(words: list[str], size: int) -> list[tuple[str, float]]:
    """A Unigram vocabulary: special tokens, every character, then the most frequent parts of words."""
    parts = Counter(
        word[first:last]
        for word in words
        for first in range(len(word))
        for last in range(first + 1, min(first + _LONGEST_UNIGRAM, len(word)) + 1)
    )
    total = sum(parts.values())
    frequent = sorted(parts, key=lambda part: (len(part) > 1, -parts[part] * len(part), part))
    return [
        *((token, 0.0) for token in _SPECIALS),
        *((part, math.log(parts[part] / total)) for part in frequent[:size]),
    ]


def _filled(state: dict[str, Any], size: int) -> dict[str, Any]:
    """Fills the vocabulary up to `size` entries, [MASK] last; private-use pieces match no ordinary text."""
    model = state["model"]
    learned = model["vocab"]
    filler = [f"\ue000{number}\ue001" for number in range(size - len(learned) - 1)]
    if model["type"] == "Unigram":
        lowest = min(score for _, score in learned) - 20.0
        # The trainer leaves special tokens a score like any piece; at 0.0 they would be preferred, but they are
        # cut out as special tokens before the model is asked.
        model["vocab"] = [*learned, *([piece, lowest] for piece in filler), ["[MASK]", 0.0]]
        model["unk_id"] = _SPECIALS.index("[UNK]")
    else:
        for number, piece in enumerate([*filler, "[MASK]"], start=len(learned)):
            learned[piece] = number
    return state

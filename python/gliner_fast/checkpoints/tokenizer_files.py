"""tokenizer.json and tokenizer_config.json, read as transformers reads them, without the seconds its import takes.

Only what is understood to the last setting is read here, and only beside a transformers that was compared; of all else,
transformers says what it means. `tests/checkpoints/test_tokenizer_loading.py` compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"

# Minor versions of transformers that read files as is done here: 5.0, to name one, does not.
_COMPARED = tuple(f"5.{minor}" for minor in range(16, 25))

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
# Settings that change no subword: of padding, of putting texts together again, of chats, of where it all came from.
_IDLE = {
    "add_bos_token", "add_eos_token", "backend", "chat_template", "clean_up_tokenization_spaces", "do_basic_tokenize",
    "is_local", "local_files_only", "max_length", "model_input_names", "name_or_path", "never_split",
    "pad_to_multiple_of", "pad_token_type_id", "padding_side", "processor_class", "sp_model_kwargs", "stride",
    "tokenizer_class", "truncation_strategy", "vocab_type",
}  # fmt: skip
_UNDERSTOOD = _IDLE | {*_SPECIAL, *_EXTRA, "added_tokens_decoder", "model_max_length", "truncation_side"}

Settings = Mapping[str, Any]
Special = Mapping[str, str | None]


@dataclass(frozen=True)
class ReadTokenizer:
    """What the files say.

    Attributes:
        backend: as transformers would have it; truncation and padding as in the file, or none.
        special: the tokens that are named, such as {"pad_token": "[PAD]"}; None: there is none.
        model_max_length: longest sequence, special subwords included; None: no limit is given.
        truncation_side: "right" or "left".
    """

    backend: Tokenizer
    special: Special
    model_max_length: float | None
    truncation_side: str


@dataclass(frozen=True)
class _Class:
    """A tokenizer class of transformers."""

    special: Special
    """Its tokens, where the settings do not name others."""
    settings: frozenset[str]
    """What it reads beside what all read."""
    build: Callable[[Path, Settings, Special], Tokenizer | None]
    """None where the file is of another kind."""


def read_tokenizer(folder: Path) -> ReadTokenizer | None:
    """The tokenizer in a checkpoint's folder; None where only transformers can say what it is."""
    path = folder / TOKENIZER_NAME
    settings_path = folder / TOKENIZER_CONFIG_NAME
    has_files = path.is_file() and settings_path.is_file()  # a pipe would be waited for
    if not is_known_transformers() or not has_files or (folder / "config.json").exists():
        return None  # an encoder's configuration may name another class
    settings = json.loads(settings_path.read_text(encoding="utf-8"))
    name = settings.get("tokenizer_class")
    kind = _CLASSES.get(name.removesuffix("Fast")) if isinstance(name, str) else None
    if kind is None or not settings.keys() <= _UNDERSTOOD | kind.settings:
        return None
    special = {**kind.special, **{name: settings[name] for name in _SPECIAL if name in settings}}
    if not all(token is None or isinstance(token, str) for token in special.values()):
        return None
    if not all(settings.get(name, "right") in ("left", "right") for name in ("truncation_side", "padding_side")):
        return None
    backend = kind.build(path, settings, special)
    if backend is None or backend.post_processor is None or not _has_all(backend, folder, settings, special):
        return None
    return ReadTokenizer(backend, special, settings.get("model_max_length"), settings.get("truncation_side", "right"))


def surround(backend: Tokenizer, special: Special) -> None:
    """Puts the tokens named "bos" and "eos" around a sequence, where there are such, as compat's Q22 asks for."""
    from tokenizers.processors import TemplateProcessing

    first, last = special.get("bos_token"), special.get("eos_token")
    if first is None and last is None:
        return
    single = " ".join(part for part in (first and f"{first}:0", "$A:0", last and f"{last}:0") if part)
    pair = " ".join(part for part in (single, first and f"{first}:1", "$B:1", last and f"{last}:1") if part)
    ids = [(token, backend.token_to_id(token)) for token in (first, last) if token is not None]
    backend.post_processor = TemplateProcessing(single=single, pair=pair, special_tokens=ids)


@cache
def is_known_transformers() -> bool:
    """Whether the installed transformers reads files as is done here."""
    return metadata.version("transformers").startswith(tuple(f"{version}." for version in _COMPARED))


def _has_all(backend: Tokenizer, folder: Path, settings: Settings, special: Special) -> bool:
    """Whether the settings say all, and all that they name is a special token already: else some would be added."""
    from tokenizers import AddedToken

    # Truncation and padding of the file stand in for what the settings do not say.
    if (backend.truncation and "truncation_side" not in settings) or (backend.padding and not special.get("pad_token")):
        return False
    added = backend.get_added_tokens_decoder()
    if "added_tokens_decoder" in settings:
        named = {int(place): AddedToken(**token) for place, token in settings["added_tokens_decoder"].items()}
        if {place: repr(token) for place, token in named.items()} != {p: repr(token) for p, token in added.items()}:
            return False
    elif any((folder / name).exists() for name in ("special_tokens_map.json", "added_tokens.json")):
        return False
    needed = {token for token in special.values() if token is not None}
    for name in _EXTRA:
        tokens = settings.get(name, [])
        if tokens is None:
            continue
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            return False
        needed.update(tokens)
    return needed <= {token.content for token in added.values() if token.special}


# --- its classes ------------------------------------------------------------------------------------------------------


def _as_in_the_file(path: Path, settings: Settings, special: Special) -> Tokenizer:  # noqa: ARG001
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def _as_deberta(path: Path, settings: Settings, special: Special) -> Tokenizer | None:
    """The pieces of the file, normalised and split as `transformers.DebertaV2Tokenizer` does, not as the file says."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import Unigram

    read = json.loads(path.read_text(encoding="utf-8"))
    if read["model"].get("type") != "Unigram":
        return None
    pieces = [(piece, score) for piece, score in read["model"]["vocab"]]
    unknown = (special["unk_token"], 0.0)
    unk_id = pieces.index(unknown) if unknown in pieces else settings.get("unk_id", 1)
    backend = Tokenizer(Unigram(pieces, unk_id=unk_id, byte_fallback=False))
    steps = [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False)]
    lower = [normalizers.Lowercase()] if settings.get("do_lower_case") else []
    backend.normalizer = normalizers.Sequence([*lower, *steps])
    scheme = "always" if settings.get("add_prefix_space", True) else "first"
    spaces = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    punctuation = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.get("split_by_punct") else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*punctuation, spaces])
    backend.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme=scheme)
    return _finished(backend, read, special)


def _as_bert(path: Path, settings: Settings, special: Special) -> Tokenizer | None:
    """The pieces of the file, normalised and split as `transformers.BertTokenizer` does, not as the file says."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import WordPiece

    read = json.loads(path.read_text(encoding="utf-8"))
    if read["model"].get("type") != "WordPiece":
        return None
    backend = Tokenizer(WordPiece(read["model"]["vocab"], unk_token=str(special["unk_token"])))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return _finished(backend, read, special)


def _finished(backend: Tokenizer, read: Mapping[str, Any], special: Special) -> Tokenizer | None:
    """Adds the file's own tokens, and the subwords around a sequence; None where these are not named."""
    from tokenizers import AddedToken
    from tokenizers.processors import TemplateProcessing

    added = sorted(read["added_tokens"], key=lambda token: token["id"])
    backend.add_tokens([AddedToken(**{name: flag for name, flag in token.items() if name != "id"}) for token in added])
    first, last = special["cls_token"], special["sep_token"]
    if first is None or last is None:
        return None
    if read.get("truncation"):
        backend.enable_truncation(read["truncation"]["max_length"])  # how, does not matter: that there is one does
    if read.get("padding"):
        backend.enable_padding()
    backend.post_processor = TemplateProcessing(
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in (first, last)],
    )
    return backend


_BERT_TOKENS = {name: f"[{name.removesuffix('_token').upper()}]" for name in _SPECIAL[2:]}
_FROM_FILE = _Class({}, frozenset({"add_prefix_space", "do_lower_case"}), _as_in_the_file)
_CLASSES = {
    "DebertaV2Tokenizer": _Class(
        _BERT_TOKENS | {"bos_token": "[CLS]", "eos_token": "[SEP]"},
        frozenset({"do_lower_case", "split_by_punct", "add_prefix_space", "unk_id"}),
        _as_deberta,
    ),
    "BertTokenizer": _Class(
        _BERT_TOKENS, frozenset({"do_lower_case", "tokenize_chinese_chars", "strip_accents"}), _as_bert
    ),
    "PreTrainedTokenizer": _FROM_FILE,
    "TokenizersBackend": _FROM_FILE,
}

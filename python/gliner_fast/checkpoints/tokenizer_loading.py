"""The tokenizer of a checkpoint: what GLiNER needs of it at once, transformers' own when it is asked for."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gliner_fast.batch import SubwordTokenizer
from gliner_fast.checkpoints.locating import HubOptions
from gliner_fast.checkpoints.tokenizer_files import TOKENIZER_CONFIG_NAME, ReadTokenizer, read_tokenizer, surround
from gliner_fast.config import LABEL_TOKENIZER_FOLDER, GLiNERConfig
from gliner_fast.errors import CheckpointError, reason_of, shown
from gliner_fast.label_encoder import LabelTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

# Sentences that show whether a tokenizer treats words one by one; a few scripts, punctuation, and a repeated word.
_PROBES = (
    ("Alan", "Turing", "lived", "in", "London", ".", "London"),
    ("e-mail", "@", "C", "+", "+", "123", "über", "数据", "данные"),
)
_NO_LIMIT = 10**9  # tokenizers without a limit of their own say 10**30


class CheckpointTokenizer:
    """A tokenizer of which transformers' form is made only when it is asked for, since importing that takes seconds.

    Attributes:
        backend: splits into subwords and adds special ones; no truncation, no padding; a copy of its own.
        pad_id: fills rows up.
    """

    def __init__(
        self, backend: Tokenizer, pad_id: int | None, limit: float | None, load: Callable[[], PreTrainedTokenizerBase]
    ) -> None:
        """Takes the backend as its own; `load` makes transformers' form."""
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self.pad_id = 0 if pad_id is None else pad_id
        self.readable: int | None = None  # subwords that the encoder has positions for; None for any number
        self._limit, self._load = limit, load

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> CheckpointTokenizer:
        """Reduces a tokenizer of transformers, on a copy of what splits.

        Raises:
            CheckpointError: a slow tokenizer, or one that truncates at the left.
        """
        from tokenizers import Tokenizer

        if not getattr(tokenizer, "is_fast", False):
            raise CheckpointError(f"{type(tokenizer).__name__} is a slow tokenizer: gliner_fast needs a tokenizer.json")
        _refuse_left_truncation(tokenizer.truncation_side)
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        made = cls(backend, tokenizer.pad_token_id, None, partial(_itself, tokenizer))
        made.of_transformers = tokenizer  # whose limit is looked at
        return made

    @cached_property
    def of_transformers(self) -> PreTrainedTokenizerBase:
        """The same tokenizer in its familiar form."""
        return self._load()

    @property
    def max_subwords(self) -> int | None:
        """Longest sequence, special subwords included; None for no limit.

        As transformers' form says, once it is made, but no longer than the encoder has positions for.

        Raises:
            CheckpointError: it is no number; that form has been told to truncate at the left since.
        """
        made = self.__dict__.get("of_transformers")
        limit = self._limit if made is None else made.model_max_length
        if limit is None:
            return self.readable
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 1:
            raise CheckpointError(
                f"the tokenizer's model_max_length is {shown(limit)}: expected a number of subwords, or null"
            )
        if limit >= _NO_LIMIT:
            return self.readable
        if made is not None:
            _refuse_left_truncation(made.truncation_side)
        return int(limit) if self.readable is None else min(int(limit), self.readable)

    def splits_as(self, other: CheckpointTokenizer | None) -> bool:
        """Whether texts have the same subwords by another one."""
        return self is other or (other is not None and self.backend.to_str() == other.backend.to_str())

    def __len__(self) -> int:
        """Entries, added ones included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def highest_id(self) -> int:
        """The highest id of its entries, which is above their number where the ids have gaps."""
        size = len(self)
        if None not in map(self.backend.id_to_token, range(size)):  # of 128,000 entries 13 ms, get_vocab 60
            return size - 1
        return max(self.backend.get_vocab(with_added_tokens=True).values())

    def with_tokens(self, tokens: list[str]) -> CheckpointTokenizer:
        """The same with special tokens added at its end, in transformers' form too."""
        self.of_transformers.add_tokens(tokens, special_tokens=True)
        return CheckpointTokenizer.of(self.of_transformers)

    def without_unread(self, tokens: list[str], rows: int) -> CheckpointTokenizer:
        """The same, to which added tokens that an encoder of so many rows has none for are words like others.

        transformers' form keeps them, as `gliner` has it.
        """
        from tokenizers import Tokenizer

        if self.highest_id() < rows:
            return self
        state = json.loads(self.backend.to_str())
        added = [own for own in state["added_tokens"] if own["id"] < rows or own["content"] not in tokens]
        reduced = copy.copy(self)
        reduced.backend = Tokenizer.from_str(json.dumps({**state, "added_tokens": added}))
        return reduced

    def for_words(self) -> SubwordTokenizer:
        """What GLiNER asks of it, checked on probes.

        Raises:
            CheckpointError: it does not treat words alone, or reads none.
        """
        bare = self.backend.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
        dressed = self.backend.encode(["a"], is_pretokenized=True, add_special_tokens=True).ids
        places = range(len(dressed) - len(bare) + 1)
        front = next((at for at in places if dressed[at : at + len(bare)] == bare), None)
        if front is None:
            raise CheckpointError(
                "the tokenizer changes a word when it adds special subwords: gliner_fast cannot use it"
            )
        limit, special = self.max_subwords, len(dressed) - len(bare)
        if limit is not None and limit < special:
            raise CheckpointError(
                f"the tokenizer's model_max_length is {limit}, but the {special} special subwords of a text alone pass "
                "it: raise it, or leave it out for no limit"
            )
        reduced = SubwordTokenizer(
            self.backend,
            prefix=np.array(dressed[:front], np.int64),
            suffix=np.array(dressed[front + len(bare) :], np.int64),
            pad_id=self.pad_id,
            max_subwords=limit,
        )
        reduced.check(_PROBES)
        return reduced

    def for_labels(self) -> LabelTokenizer:
        """What a bi-encoder asks of its labels' tokenizer."""
        return LabelTokenizer(self.backend, self.pad_id, self.max_subwords)


def load_tokenizer(folder: Path | None, config: GLiNERConfig, hub: HubOptions) -> CheckpointTokenizer:
    """The checkpoint's tokenizer, or that of its encoder for first-era checkpoints that carry none (Q23).

    Raises:
        CheckpointError: it can be had from neither, or cannot be used.
    """
    try:
        read = read_tokenizer(folder) if folder is not None else None
    except Exception:  # noqa: BLE001  # whatever is wrong with the files, transformers has the words for it
        read = None
    if read is None or folder is None:
        return CheckpointTokenizer.of(load_from_transformers(folder, config, hub))
    _refuse_left_truncation(read.truncation_side)
    surround(read.backend, read.special)
    pad = read.special.get("pad_token") or read.special.get("eos_token")
    pad_id = None if pad is None else read.backend.token_to_id(pad)
    return CheckpointTokenizer(
        read.backend, pad_id, read.model_max_length, partial(_load_again, folder.absolute(), config, read)
    )


def load_label_tokenizer(folder: Path | None, config: GLiNERConfig, hub: HubOptions) -> CheckpointTokenizer:
    """The tokenizer of a bi-encoder's labels: the checkpoint's own, else that of the encoder that is named.

    As transformers loads it: the package gives it none of the special tokens that `surround` puts around texts.

    Raises:
        CheckpointError: it can be had from neither, or cannot be used.
    """
    from transformers import AutoTokenizer

    own = None if folder is None else folder / LABEL_TOKENIZER_FOLDER
    source = own if own is not None and (own / TOKENIZER_CONFIG_NAME).is_file() else config.labels_encoder
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **hub.of_auto_class)
    except Exception as error:
        raise CheckpointError(
            f"the tokenizer of the bi-encoder's labels cannot be had from {source}: {reason_of(error)}. Put its files "
            f"into {source if own is None else own}, or go online once"
        ) from error
    return CheckpointTokenizer.of(tokenizer)


def _load_again(folder: Path, config: GLiNERConfig, read: ReadTokenizer) -> PreTrainedTokenizerBase:
    """The tokenizer of files that were read; of no class in particular where they are gone or others by now."""
    if (folder / TOKENIZER_CONFIG_NAME).is_file():
        with suppress(CheckpointError):
            tokenizer = load_from_transformers(folder, config, HubOptions(local_files_only=True))
            if CheckpointTokenizer.of(tokenizer).backend.to_str() == read.backend.to_str():
                return tokenizer
    from transformers import PreTrainedTokenizerFast

    limit = {} if read.model_max_length is None else {"model_max_length": read.model_max_length}
    special = {name: token for name, token in read.special.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=read.backend, **special, **limit)


def load_from_transformers(folder: Path | None, config: GLiNERConfig, hub: HubOptions) -> PreTrainedTokenizerBase:
    """The same as transformers has it.

    Raises:
        CheckpointError: it can be had from neither.
    """
    own = folder is not None and (folder / TOKENIZER_CONFIG_NAME).is_file()
    source = folder if own else config.model_name
    try:
        load = _named_tokenizer(folder) if folder is not None and own else None
        tokenizer: PreTrainedTokenizerBase
        if load is None:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(source, **hub.of_auto_class)
        else:
            tokenizer = load(source, **hub.of_encoder)
    except Exception as error:
        reason = reason_of(error)
        if own:
            raise CheckpointError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
        raise CheckpointError(
            f"the checkpoint has no tokenizer of its own, and that of its encoder {config.model_name!r} cannot be "
            f"had: {reason}. Put the encoder's tokenizer files into the checkpoint's folder, or go online once"
        ) from error
    # transformers 5 stopped adding [CLS] and [SEP] for some tokenizers; set to True only, since False would take
    # them away from others (Q22).
    for edge in ("bos", "eos"):
        if hasattr(tokenizer, f"add_{edge}_token") and getattr(tokenizer, f"{edge}_token_id") is not None:
            setattr(tokenizer, f"add_{edge}_token", True)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _named_tokenizer(folder: Path) -> Callable[..., Any] | None:
    """`from_pretrained` of the class that AutoTokenizer would choose: importing AutoTokenizer itself takes seconds.

    None leaves the choice to AutoTokenizer: an encoder's configuration beside the tokenizer, code in the checkpoint, or
    a class that transformers does not name.
    """
    if (folder / "config.json").exists():
        return None
    settings = json.loads((folder / TOKENIZER_CONFIG_NAME).read_text(encoding="utf-8"))
    name = settings.get("tokenizer_class")
    if not isinstance(name, str) or "auto_map" in settings:
        return None
    import transformers

    fast, base = transformers.PreTrainedTokenizerFast, name.removesuffix("Fast")
    if base == "PreTrainedTokenizer":  # of no model in particular
        return fast.from_pretrained
    found = getattr(transformers, base, None)
    # In transformers 4 each model has two classes, and AutoTokenizer prefers this one.
    if transformers.__version__.startswith("4."):
        found = getattr(transformers, base + "Fast", None)
    return found.from_pretrained if isinstance(found, type) and issubclass(found, fast) else None


def add_special_tokens(
    tokenizer: CheckpointTokenizer, config: GLiNERConfig, resize: bool
) -> tuple[CheckpointTokenizer, GLiNERConfig]:
    """Finds the entity token; adds GLiNER's tokens to the tokenizer of a checkpoint that lacks them (compat 2.4).

    Of a relex model the relation token, too.

    Raises:
        CheckpointError: the configuration names an entity or a relation token that the tokenizer does not have.
    """
    if resize and -1 in (config.class_token_index, config.vocab_size):
        if config.is_relex:
            tokenizer = tokenizer.with_tokens(added_tokens(config))
            size = len(tokenizer)
            return tokenizer, config.replace(class_token_index=size - 3, rel_token_index=size - 1, vocab_size=size)
        tokenizer = tokenizer.with_tokens(added_tokens(config))
        return tokenizer, config.replace(class_token_index=len(tokenizer) - 2, vocab_size=len(tokenizer))
    size = len(tokenizer)
    how = "class_token_index and vocab_size to -1 to have GLiNER's tokens added and found"
    advice = f"set {how}" if resize else f"load with resize_token_embeddings=True, and set {how}"
    if not 0 <= config.class_token_index < size:
        raise CheckpointError(
            f"class_token_index is {config.class_token_index}, but the tokenizer has {size} entries: {advice}"
        )
    looked_for = [("entity", config.ent_token, "class_token_index", "labels")]
    if config.is_relex:
        looked_for.append(("relation", config.rel_token, "rel_token_index", "relations"))
    for kind, token, setting, lost in looked_for:
        found, expected = tokenizer.backend.token_to_id(token), getattr(config, setting)
        if found is None:
            raise CheckpointError(f"the tokenizer does not have the {kind} token {token!r}: {advice}")
        if found != expected:
            warnings.warn(
                f"{setting} is {expected}, but the tokenizer's id of {token!r} is {found}: {lost} will not be found",
                stacklevel=4,
            )
    if tokenizer.backend.token_to_id(config.sep_token) is None:
        warnings.warn(f"the tokenizer does not have {config.sep_token!r}: prompts hold its pieces", stacklevel=4)
    return tokenizer, config


def added_tokens(config: GLiNERConfig) -> list[str]:
    """What GLiNER adds to the tokenizer of texts, in its order."""
    if config.is_relex:
        return [config.ent_token, config.sep_token, config.rel_token]
    return ["[FLERT]", config.ent_token, config.sep_token]


def _itself(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    return tokenizer  # a lambda could not be pickled


def _refuse_left_truncation(side: str) -> None:
    if side != "right":
        raise CheckpointError("the tokenizer truncates at the left, which would cut the beginning off, labels first")

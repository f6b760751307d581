"""The parts of `gliner`'s data processor that scripts touch: tokenizer and word splitter."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from gliner_fast.words import WordTriples, split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer


class DataProcessor:
    """The parts of `gliner`'s data processor that scripts touch.

    Attributes:
        words_splitter: a callable that yields (word, start, end) for a text: the checkpoint's. Assign another one to
            split differently; the model reads its words, which need not be those of the text.
    """

    def __init__(
        self,
        tokenizer: CheckpointTokenizer,
        label_tokenizer: CheckpointTokenizer | None = None,
        words_splitter: WordTriples | None = None,
    ) -> None:
        """Takes the checkpoint's tokenizer, a bi-encoder's of its labels, and the splitter if not the default one."""
        self._tokenizer, self._label_tokenizer = tokenizer, label_tokenizer
        self._own_splitter: WordTriples = words_splitter or whitespace_words
        self.words_splitter = self._own_splitter

    @cached_property
    def transformer_tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, made when it is first asked for: the predictor needs none of transformers."""
        return self._tokenizer.of_transformers

    @cached_property
    def labels_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The same of a bi-encoder's labels; None for other models."""
        return None if self._label_tokenizer is None else self._label_tokenizer.of_transformers

    @property
    def custom_splitter(self) -> WordTriples | None:
        """The splitter, or None for the default one, which runs in Rust."""
        return None if self.words_splitter is whitespace_words else self.words_splitter

    @property
    def assigned_splitter(self) -> WordTriples | None:
        """The splitter that was assigned, or None for the checkpoint's, which whoever loads it has, too."""
        given: WordTriples | None = self.words_splitter
        return None if given is self._own_splitter else given or whitespace_words


def whitespace_words(text: str) -> list[tuple[str, int, int]]:
    r"""(word, start, end) of each match of `\w+(?:[-_]\w+)*|\S` (compat section 4.1)."""
    words = split_words([text], len(text) + 1).words
    return [
        (text[start:end], start, end) for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)
    ]

"""The parts of `gliner`'s data processor that scripts touch, and what the model reads texts with: see `batcher`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gliner_fast.batch import Batcher
from gliner_fast.checkpoints.tokenizer_loading import CheckpointTokenizer
from gliner_fast.words import WordsSplitter, WordTriples, split_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gliner_fast.config import GLiNERConfig

_InUse = tuple[CheckpointTokenizer, int | None, CheckpointTokenizer | None, int | None]


class DataProcessor:
    """The parts of `gliner`'s data processor that scripts touch: what is assigned holds from the next call on.

    Attributes:
        config: the model's settings.
        corrected_numbering: see `GLiNER.from_pretrained`.
        words_splitter: a callable that yields (word, start, end) for a text: at first a `WordsSplitter`, by the
            `splitter` of the checkpoint. Assign either to split differently; the model reads its words, which need
            not be those of the text.
    """

    def __init__(
        self,
        config: GLiNERConfig,
        tokenizer: CheckpointTokenizer,
        label_tokenizer: CheckpointTokenizer | None = None,
        words_splitter: WordTriples | None = None,
        *,
        corrected_numbering: bool = False,
    ) -> None:
        """Takes the checkpoint's tokenizer, a bi-encoder's of its labels, and the splitter if not the default one."""
        self.config, self.corrected_numbering = config, corrected_numbering
        self._tokenizer, self._label_tokenizer = tokenizer, label_tokenizer
        self._own_splitter: WordTriples = words_splitter or whitespace_words
        self.words_splitter: Any = WordsSplitter(self._own_splitter)
        self._as_made = self._in_use()
        self._batcher, self._batcher_of = self._make_batcher(), self._as_made

    @property
    def transformer_tokenizer(self) -> PreTrainedTokenizerBase:
        """The checkpoint's tokenizer, made when it is first asked for: the predictor needs none of transformers.

        Its `model_max_length` is followed, and it may be replaced; tokens that are added to it in place are not seen.
        """
        return self._tokenizer.of_transformers

    @transformer_tokenizer.setter
    def transformer_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Replaces it.

        Raises:
            CheckpointError: it cannot be used: it is slow, truncates at the left, or does not treat words one by one.
        """
        new = CheckpointTokenizer.of(tokenizer)
        new.readable = self._tokenizer.readable
        new.for_words()  # refused here, and not by each call
        self._tokenizer = new

    @property
    def labels_tokenizer(self) -> PreTrainedTokenizerBase:
        """The same of a bi-encoder's labels; other models have none, as an AttributeError says."""
        return self._expect_label_tokenizer().of_transformers

    @labels_tokenizer.setter
    def labels_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        readable = self._expect_label_tokenizer().readable
        self._label_tokenizer = CheckpointTokenizer.of(tokenizer)
        self._label_tokenizer.readable = readable

    @property
    def ent_token(self) -> str:
        """What stands before each label in a prompt."""
        return self.config.ent_token

    @property
    def sep_token(self) -> str:
        """What stands between prompt and text."""
        return self.config.sep_token

    @property
    def batcher(self) -> Batcher:
        """What makes batches of words and labels; another one once a tokenizer or its limit is another.

        Raises:
            CheckpointError: a tokenizer has been told to truncate at the left.
        """
        in_use = self._in_use()
        if in_use != self._batcher_of:
            self._batcher, self._batcher_of = self._make_batcher(), in_use
        return self._batcher

    @property
    def reads_as_made(self) -> bool:
        """Whether the tokenizers are still those of the checkpoint, and their limits."""
        own, limit, of_labels, labels_limit = self._in_use()
        made, its_limit, made_of_labels, its_labels_limit = self._as_made
        has_limits_as_made = (limit, labels_limit) == (its_limit, its_labels_limit)
        return has_limits_as_made and own.splits_as(made) and (of_labels is None or of_labels.splits_as(made_of_labels))

    @property
    def custom_splitter(self) -> WordTriples | None:
        """The splitter, or None for the default one, which runs in Rust."""
        given = _innermost(self.words_splitter)
        return None if given is whitespace_words else given

    @property
    def assigned_splitter(self) -> WordTriples | None:
        """The splitter that was assigned, or None for the checkpoint's, which whoever loads it has, too."""
        given = _innermost(self.words_splitter)
        return None if given is self._own_splitter else given or whitespace_words

    def _in_use(self) -> _InUse:
        """Asked before each call, so it looks at numbers alone."""
        own, of_labels = self._tokenizer, self._label_tokenizer
        return own, own.max_subwords, of_labels, None if of_labels is None else of_labels.max_subwords

    def _make_batcher(self) -> Batcher:
        return Batcher(
            self._tokenizer.for_words(),
            self.config,
            corrected_numbering=self.corrected_numbering,
            label_tokenizer=None if self._label_tokenizer is None else self._label_tokenizer.for_labels(),
        )

    def _expect_label_tokenizer(self) -> CheckpointTokenizer:
        if self._label_tokenizer is None:
            raise AttributeError(
                "the model is no bi-encoder, and has no labels_tokenizer: it reads labels with each text"
            )
        return self._label_tokenizer


class _WhitespaceWords:
    r"""The default splitter: (word, start, end) of each match of `\w+(?:[-_]\w+)*|\S` (compat section 4.1).

    No plain function, on which an attribute could be set to no effect.
    """

    __slots__ = ()

    def __call__(self, text: str) -> list[tuple[str, int, int]]:
        words = split_words([text]).words
        return [
            (text[start:end], start, end) for start, end in zip(words.starts.tolist(), words.ends.tolist(), strict=True)
        ]

    def __repr__(self) -> str:
        return f"{__name__}.whitespace_words"

    def __reduce__(self) -> str:
        return "whitespace_words"  # the only one, in another process, too


whitespace_words = _WhitespaceWords()


def _innermost(splitter: Any) -> WordTriples | None:
    return _innermost(splitter.splitter) if isinstance(splitter, WordsSplitter) else splitter

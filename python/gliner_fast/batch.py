"""Prompt and words -> subword batches within a token budget (compat sections 4.3 to 4.5, DESIGN 3.3 and 3.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gliner_fast import _rust
from gliner_fast.cpu.forking import renew_lock_in_children
from gliner_fast.errors import CheckpointError
from gliner_fast.label_encoder import LabelTexts
from gliner_fast.surrogates import without_surrogates
from gliner_fast.upload import gather, send, upload

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from gliner_fast.config import GLiNERConfig
    from gliner_fast.label_encoder import LabelTokenizer
    from gliner_fast.labels import LabelSet

# Most words remembered with their subwords: the bound of the cache's memory.
_CACHED_WORDS = 2**18
# Prompts remembered, by their characters: some tens of MB at most. A longer one, a text among the labels say, is none
# that comes again.
_CACHED_PROMPTS = ((2**13, 1024), (2**17, 16))
_WORDS_PER_CALL = 4096  # unseen words handed to the tokenizer at once
_NO_TOKEN = -1
# What the network indexes with, on its device: all int64, so that one copy moves them.
_ON_DEVICE = (
    "input_ids", "pooled_positions", "pooled_words", "class_positions", "offsets", "relation_positions", "label_rows",
)  # fmt: skip
_left_behind: list[_rust.SubwordCache] = []  # caches of the processes that this one was forked from


@dataclass(frozen=True)
class Batch:
    """Texts of similar length with their prompts, ready for the network.

    Attributes:
        rows: (B,) the texts, by their place in the prepared window.
        input_ids: (B, L) int64, padded at the right.
        lengths: (B,) subwords in each row; on the CPU.
        word_counts: (B,) words in each text; on the CPU.
        class_counts: (B,) entity tokens found in each row, which is the number of its labels unless the tokenizer's
            limit cut some off or a label contains the entity token (Q3); on the CPU.
        pooled_positions: (M,) rows of the flattened (B*L,) subwords that stand for words, ascending.
        pooled_words: (M,) the packed word that each belongs to.
        class_positions: (T,) rows of the flattened subwords that hold an entity token.
        offsets: (B+1,) where each text begins in `input_ids`, which are then packed, (N,), and so are the positions;
            None for padded ones.
        word_order: words in the order that an LSTM on CUDA reads them in, and how many texts reach each step, as
            `word_vectors.time_major` tells; the second on the CPU. None: to be found where they are needed.
        relation_positions: (R,) rows of the flattened subwords that hold a relation token; None for models that find no
            relations.
        relation_counts: (B,) relation tokens found in each row, as for class_counts; on the CPU.
        labels: the labels of a bi-encoder, whose rows hold none; None for other models.
        label_rows: (T,) which of these labels each type of each text is; None for other models.
        staged: what `to` moves, gathered by `stage`.
    """

    rows: NDArray[np.int64]
    input_ids: Tensor
    lengths: Tensor
    word_counts: Tensor
    class_counts: Tensor
    pooled_positions: Tensor
    pooled_words: Tensor
    class_positions: Tensor
    offsets: Tensor | None = None
    word_order: tuple[Tensor, Tensor] | None = None
    relation_positions: Tensor | None = None
    relation_counts: Tensor | None = None
    labels: LabelTexts | None = None
    label_rows: Tensor | None = None
    staged: Tensor | None = None

    @property
    def word_total(self) -> int:
        """N, the words of all texts."""
        return int(self.word_counts.sum())

    def to(self, device: torch.device) -> Batch:
        """Moves what the network indexes with, in one copy; counts and lengths stay on the CPU, where they steer it."""
        if self.staged is None and device.type == "cpu":
            return self
        parts = self._to_be_moved()
        if self.staged is None:
            moved = upload(list(parts.values()), device)
        else:
            moved = send(self.staged, [part.shape for part in parts.values()], device)
        changes: dict[str, Any] = dict(zip(parts, moved, strict=True))
        if self.word_order is not None:
            changes["word_order"] = (changes["word_order"], self.word_order[1])
        return replace(self, **changes, staged=None)

    def stage(self, *, pin: bool) -> Batch:
        """The same with what `to` moves gathered already, in pinned memory where a CUDA device is to read it.

        The thread that starts kernels need not do it then.
        """
        return replace(self, staged=gather(list(self._to_be_moved().values()), pin=pin))

    def _to_be_moved(self) -> dict[str, Tensor]:
        """What `to` moves, by its attribute; of `word_order` the order alone."""
        parts = {name: getattr(self, name) for name in _ON_DEVICE}
        parts["word_order"] = None if self.word_order is None else self.word_order[0]
        return {name: part for name, part in parts.items() if part is not None}


@dataclass(frozen=True)
class EncodedPrompts:
    """The distinct prompts of a call.

    Attributes:
        prompts: in Rust; those of a bi-encoder are empty.
        lengths: (P,) subwords of each.
        labels: of a bi-encoder, those of all label sets.
        label_rows: for each label set which of these it asks for.
    """

    prompts: _rust.Prompts
    lengths: NDArray[np.int64]
    labels: LabelTexts | None = None
    label_rows: Sequence[NDArray[np.int64]] = ()


@dataclass(frozen=True)
class SubwordTokenizer:
    """The checkpoint's tokenizer, reduced to what GLiNER asks of it.

    Attributes:
        backend: tokenizes one word at a time; truncation and padding are ours.
        prefix: special subwords in front of every row, such as [CLS].
        suffix: special subwords behind every row, such as [SEP].
        pad_id: fills rows up.
        max_subwords: longest row, special subwords included; None for no limit.
    """

    backend: Tokenizer
    prefix: NDArray[np.int64]
    suffix: NDArray[np.int64]
    pad_id: int
    max_subwords: int | None

    def encode(self, words: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Subword ids of words, flat, and how many each word has (0 for a word that the tokenizer drops)."""
        ids: list[NDArray[np.int64]] = []
        counts: list[NDArray[np.int64]] = []
        for first in range(0, len(words), _WORDS_PER_CALL):
            chunk = list(words[first : first + _WORDS_PER_CALL])
            encoding = self.backend.encode(chunk, is_pretokenized=True, add_special_tokens=False)
            ids.append(np.array(encoding.ids, np.int64))
            counts.append(np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(chunk)).astype(np.int64))
        if not ids:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return np.concatenate(ids), np.concatenate(counts)

    def check(self, probes: Sequence[Sequence[str]]) -> None:
        """Compares our rows with the tokenizer's own on probe sentences, so that nothing rests on an assumption.

        Raises:
            CheckpointError: a word's subwords depend on its neighbours, or special subwords are not where we put them.
        """
        for words in probes:
            whole = self.backend.encode(list(words), is_pretokenized=True, add_special_tokens=True).ids
            alone = np.concatenate([self.encode([word])[0] for word in words])
            ours = np.concatenate([self.prefix, alone, self.suffix])
            if whole != ours.tolist():
                raise CheckpointError(
                    f"the checkpoint's tokenizer does not treat words one by one: {list(words)} gives {whole}, "
                    f"its words alone {ours.tolist()}; gliner_fast cannot use it"
                )


class Batcher:
    """Turns words and label sets into batches; holds the word cache. Safe to use from many threads."""

    def __init__(
        self,
        tokenizer: SubwordTokenizer,
        config: GLiNERConfig,
        *,
        corrected_numbering: bool,
        label_tokenizer: LabelTokenizer | None = None,
    ) -> None:
        """Makes batches by a tokenizer; `label_tokenizer` reads the labels of a bi-encoder, and of it alone."""
        self.tokenizer = tokenizer
        self._label_tokenizer = label_tokenizer
        self.corrected_numbering = corrected_numbering
        self._config = config
        self._cache = _rust.SubwordCache(_CACHED_WORDS)
        renew_lock_in_children(self)
        self._layout = _rust.RowLayout(
            prefix=tokenizer.prefix,
            suffix=tokenizer.suffix,
            pad_id=tokenizer.pad_id,
            class_token_id=config.class_token_index if label_tokenizer is None else _NO_TOKEN,
            max_subwords=tokenizer.max_subwords,
            pooling=config.subtoken_pooling,
            corrected=corrected_numbering,
        )
        # Not a bound method: the reference cycle would keep all this in memory until the garbage collector runs.
        self._encode_prompt = partial(_encode_prompt, tokenizer, config)
        self._cached_prompts = [(longest, lru_cache(most)(self._encode_prompt)) for longest, most in _CACHED_PROMPTS]

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, pickled or not, begins with an empty cache."""
        make = partial(Batcher, corrected_numbering=self.corrected_numbering, label_tokenizer=self._label_tokenizer)
        return make, (self.tokenizer, self._config)

    def renew_lock(self) -> None:
        """Begins with an empty cache, in a process that was forked maybe while another thread had this one's lock."""
        _left_behind.append(self._cache)  # half changed perhaps, so that not even to free it is safe
        self._cache = _rust.SubwordCache(_CACHED_WORDS)

    @property
    def reads_labels_apart(self) -> bool:
        """Whether labels are those of a bi-encoder, and no part of a text's row."""
        return self._label_tokenizer is not None

    def encode_words(self, words: _rust.Words) -> _rust.Subwords:
        """Subwords of every word; only words never met go through the tokenizer."""
        found = self._cache.look_up(words)
        return found.complete(*self.tokenizer.encode(found.missing))

    def encode_prompts(self, label_sets: Sequence[LabelSet]) -> EncodedPrompts:
        """Subwords of the prompts `ent label ent label ... sep` of some label sets, or of a bi-encoder's labels."""
        if self._label_tokenizer is not None:
            return self.with_labels(self.encode_labels(label_sets), label_sets)
        encoded = [self._look_up_prompt(labels) for labels in label_sets]
        lengths = np.array([len(ids) for ids, _ in encoded], np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = np.concatenate([ids for ids, _ in encoded]) if encoded else np.zeros(0, np.int64)
        shifts = np.array([shift for _, shift in encoded], np.int64)
        return EncodedPrompts(_rust.Prompts(ids, offsets, shifts), lengths)

    def _look_up_prompt(self, labels: LabelSet) -> tuple[NDArray[np.int64], int]:
        prompts, relations = labels.prompts, () if labels.relations is None else labels.relations.prompts
        characters = sum(map(len, prompts)) + sum(map(len, relations))
        for longest, encode in self._cached_prompts:
            if characters <= longest:
                return encode(prompts, relations)
        return self._encode_prompt(prompts, relations)

    def encode_labels(self, label_sets: Sequence[LabelSet]) -> LabelTexts:
        """Subwords of the distinct labels of some label sets, in the order in which they come first.

        Raises:
            ValueError: the model is no bi-encoder.
        """
        tokenizer = self._label_tokenizer
        if tokenizer is None:
            raise ValueError("the model is no bi-encoder: labels are read together with each text, not by themselves")
        distinct = _distinct_labels(label_sets)
        return LabelTexts([tokenizer.encode(without_surrogates(label)) for label in distinct], tokenizer.pad_id)

    def with_labels(self, labels: LabelTexts, label_sets: Sequence[LabelSet]) -> EncodedPrompts:
        """The empty prompts of a bi-encoder, beside the distinct labels of these label sets.

        Where the user has given vectors, there is one for each label of the only set.
        """
        if labels.given is None:
            place = {label: index for index, label in enumerate(_distinct_labels(label_sets))}
            rows = [np.array([place[label] for label in own.prompts], np.int64) for own in label_sets]
        else:
            rows = [np.arange(len(own.prompts)) for own in label_sets]
        none, lengths = np.zeros(0, np.int64), np.zeros(len(label_sets), np.int64)
        empty = _rust.Prompts(none, np.zeros(len(label_sets) + 1, np.int64), lengths)
        return EncodedPrompts(empty, lengths, labels, rows)

    def row_lengths(
        self, subwords: _rust.Subwords, prompts: EncodedPrompts, prompt_of_row: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Subwords of each text's row, prompt and special subwords included, after the tokenizer's limit."""
        lengths = self._whole_lengths(subwords, prompts, prompt_of_row)
        limit = self.tokenizer.max_subwords
        return lengths if limit is None else np.minimum(lengths, limit)

    def find_cut_rows(
        self, subwords: _rust.Subwords, prompts: EncodedPrompts, prompt_of_row: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether the tokenizer's limit cuts each text's row."""
        lengths = self._whole_lengths(subwords, prompts, prompt_of_row)
        limit = self.tokenizer.max_subwords
        return lengths > (np.inf if limit is None else limit)

    def _whole_lengths(
        self, subwords: _rust.Subwords, prompts: EncodedPrompts, prompt_of_row: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        specials = len(self.tokenizer.prefix) + len(self.tokenizer.suffix)
        return subwords.subword_counts + prompts.lengths[prompt_of_row] + specials

    def assemble(
        self,
        subwords: _rust.Subwords,
        rows: NDArray[np.int64],
        prompts: EncodedPrompts,
        prompt_of_row: NDArray[np.int64],
        *,
        padded: bool = True,
    ) -> Batch:
        """Lays out the rows of one batch: padded, or one after another."""
        laid = subwords.assemble(rows, prompts.prompts, prompt_of_row, self._layout, padded=padded)
        class_counts, label_rows = torch.from_numpy(laid.class_counts), None
        if prompts.labels is not None:
            of_rows = [prompts.label_rows[index] for index in prompt_of_row.tolist()]
            class_counts = torch.from_numpy(np.array([len(own) for own in of_rows], np.int64))
            label_rows = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *of_rows]))
        relation_positions = relation_counts = None
        if self._config.is_relex:
            relation_positions, relation_counts = self._find_relation_tokens(laid.input_ids, laid.offsets, padded)
        return Batch(
            rows,
            torch.from_numpy(laid.input_ids),
            torch.from_numpy(laid.lengths),
            torch.from_numpy(laid.word_counts),
            class_counts,
            pooled_positions=torch.from_numpy(laid.pooled_positions),
            pooled_words=torch.from_numpy(laid.pooled_words),
            class_positions=torch.from_numpy(laid.class_positions),
            offsets=None if padded else torch.from_numpy(laid.offsets),
            relation_positions=relation_positions,
            relation_counts=relation_counts,
            labels=prompts.labels,
            label_rows=label_rows,
        )

    def _find_relation_tokens(
        self, input_ids: NDArray[np.int64], offsets: NDArray[np.int64], padded: bool
    ) -> tuple[Tensor, Tensor]:
        """Where in the flattened subwords relation tokens are, and how many each row has."""
        positions = np.flatnonzero(input_ids.ravel() == self._config.rel_token_index)
        begins = np.arange(len(input_ids) + 1) * input_ids.shape[1] if padded else offsets  # (B + 1,)
        counts = np.diff(np.searchsorted(positions, begins))
        return torch.from_numpy(positions), torch.from_numpy(counts)


def plan_batches(
    lengths: NDArray[np.int64], budget: int, max_texts: int | None, *, padded: bool = True
) -> Iterator[NDArray[np.int64]]:
    """Cuts texts into batches of similar length, longest first, so that running out of memory happens early.

    Args:
        lengths: subwords of each row, (texts,).
        budget: most subwords a batch, padding included; a longer text makes a batch of its own.
        max_texts: most texts a batch; None for no limit.
        padded: a batch costs its longest text times its texts; else the sum of its texts.

    Yields:
        (B,) texts of one batch, longest first, equals in input order.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])  # subwords up to and with each text
    first = 0
    while first < len(order):
        if padded:
            longest = max(1, int(lengths[order[first]]))
            count = max(1, budget // longest)
        else:
            # As many as must be, all about as large: a small one at the end would take a device nearly as long.
            done = ends[first] - lengths[order[first]]
            share = (ends[-1] - done) / max(1, -(-(ends[-1] - done) // budget))
            enough = int(np.searchsorted(ends, done + share, side="left")) + 1
            fitting = int(np.searchsorted(ends, done + budget, side="right"))
            count = max(1, min(enough, fitting) - first)
        if max_texts is not None:
            count = min(count, max_texts)
        yield order[first : first + count]
        first += count


def _encode_prompt(
    tokenizer: SubwordTokenizer, config: GLiNERConfig, prompts: tuple[str, ...], relations: tuple[str, ...]
) -> tuple[NDArray[np.int64], int]:
    """Ids of one prompt, and minus the number of its words that the tokenizer drops (Q1)."""
    words = []
    for prompt in prompts:
        # An empty label contributes its entity token alone.
        words += [config.ent_token, without_surrogates(prompt)] if prompt else [config.ent_token]
    words.append(config.sep_token)
    if config.is_relex:  # an empty relation is a word, which the tokenizer drops
        for relation in relations:
            words += [config.rel_token, without_surrogates(relation)]
        words.append(config.sep_token)
    ids, counts = tokenizer.encode(words)
    return ids, -int((counts == 0).sum())


def _distinct_labels(label_sets: Sequence[LabelSet]) -> list[str]:
    """What is read of all labels, each once, in the order in which they come first."""
    return list(dict.fromkeys(label for own in label_sets for label in own.prompts))

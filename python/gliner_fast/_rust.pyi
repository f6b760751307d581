# ruff: noqa: PYI021 -- a native module has no other place for its documentation
"""The native module: words, subword batches, span scores and candidates, greedy decoding, and layers on a CPU.

Arrays in and out are C-contiguous. Those that come out share no memory with anything here; `Rows` hands out the same
ones each time, the others are made anew. None that is given may be written to during a call. Every call that takes
long releases the GIL, and each may be made from many threads at once; all classes are immutable but `SubwordCache`,
which locks itself. Ranges are half-open; offsets count code points.

A bad shape or value is a `ValueError` that names the place, the value and what was expected; a wrong type or dtype is a
`TypeError`. Sizes: `B` texts, `W` words of all texts, `N` candidates, `R` rows, `S` the longest row.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Int8Weights",
    "Int16Weights",
    "Lookup",
    "PackedWeights",
    "Prompts",
    "RowLayout",
    "Rows",
    "SubwordCache",
    "Subwords",
    "WordSplitter",
    "Words",
    "attention",
    "find_candidates",
    "find_likely",
    "find_marked_spans",
    "find_spans",
    "gate",
    "gated_sublayers",
    "has_vectors",
    "linear",
    "lstm",
    "norm_rows",
    "resolve",
    "sublayers",
    "take_signal_stacks",
]

_Ints: TypeAlias = NDArray[np.int64]
_Weights: TypeAlias = Int8Weights | Int16Weights | PackedWeights
_Likely: TypeAlias = tuple[_Ints, _Ints, _Ints, _Ints, NDArray[np.float32], bool]

@final
class WordSplitter:
    r"""Splits as `re.compile(r"\w+(?:[-_]\w+)*|\S").finditer` does, given the interpreter's own tables.

    Args:
        word_ranges: code points that `\w` matches, (N, 2): half-open, ascending, disjoint.
        space_ranges: likewise for `\s`.
    """

    def __new__(cls, word_ranges: NDArray[np.uint32], space_ranges: NDArray[np.uint32]) -> WordSplitter: ...
    def split(self, texts: Sequence[str], max_words: int | None = None) -> Words:
        """The words of each text, at most `max_words` of them a text.

        A lone surrogate is read as U+FFFD, a word by itself; it moves no offset.
        """

@final
class Words:
    """The words of B texts, flat."""

    @staticmethod
    def from_offsets(
        texts: Sequence[str], text_offsets: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Words:
        """Words that another splitter found.

        Args:
            texts: B texts.
            text_offsets: text b owns rows text_offsets[b]:text_offsets[b + 1], (B + 1,).
            starts: first code point of each word in its text, (W,). Words may come in any order and overlap.
            ends: the code point after its last one, (W,).

        Raises:
            ValueError: if the arrays do not fit each other, or a word reaches out of its text.
        """

    @staticmethod
    def from_lists(texts: Sequence[Sequence[str]]) -> Words:
        """Words that were split before, with the offsets they have where one blank joins a text's words."""

    def __len__(self) -> int:
        """B."""

    @property
    def text_offsets(self) -> NDArray[np.int64]:
        """Text b owns words text_offsets[b]:text_offsets[b + 1], (B + 1,)."""

    @property
    def total_counts(self) -> NDArray[np.int64]:
        """Words in each text before `max_words` cut them, (B,)."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """First code point of each word in its text, (W,)."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """The code point after the last one of each word in its text, (W,)."""

    def to_lists(self) -> list[list[str]]:
        """The words of each text, as strings."""

@final
class SubwordCache:
    """Remembers the subword ids of words, for a tokenizer that sees each word by itself.

    Words of more than 256 bytes or 1,024 ids are never remembered. Of what is remembered, that which was not asked for
    lately is forgotten first; what a lookup returns does not depend on it.

    Args:
        capacity: most words remembered, fewer where with their ids they take more than 64 bytes each; 0 remembers none.
    """

    def __new__(cls, capacity: int) -> SubwordCache: ...
    def look_up(self, words: Words) -> Lookup:
        """Finds the ids of all words, as far as they are known."""

    def __len__(self) -> int:
        """Words remembered at the moment."""

    def clear(self) -> None:
        """Forgets everything; lookups that are under way are unharmed."""

@final
class Lookup:
    """A batch of words of which some may be unknown to the cache."""

    @property
    def missing(self) -> list[str]:
        """The distinct unknown words, in the order in which they were first met."""

    def complete(self, ids: NDArray[np.int64], counts: NDArray[np.int64]) -> Subwords:
        """Takes the ids of the missing words, and remembers them.

        Args:
            ids: of all missing words, end to end; each within 0..2**32.
            counts: how many of them belong to each, (len(missing),); 0 is allowed.

        Raises:
            ValueError: if the lengths disagree, or an id or a count is out of range.
        """

@final
class Subwords:
    """The subword ids of every word of B texts."""

    @property
    def subword_counts(self) -> NDArray[np.int64]:
        """Ids in each text, (B,)."""

    @property
    def word_counts(self) -> NDArray[np.int64]:
        """Words in each text, (B,)."""

    @property
    def word_lengths(self) -> NDArray[np.int64]:
        """Ids of each word, text after text, (W,)."""

    def assemble(
        self,
        rows: NDArray[np.int64],
        prompts: Prompts,
        prompt_of_row: NDArray[np.int64],
        layout: RowLayout,
        *,
        padded: bool = True,
    ) -> Rows:
        """Lays prompts and texts into rows for the encoder.

        Row r is the layout's prefix, then prompt `prompt_of_row[r]` and text `rows[r]` as far as they fit, then the
        suffix.

        Args:
            rows: indices of texts, (R,); in any order, repetitions included.
            prompts: the distinct prompts.
            prompt_of_row: index of each row's prompt, (R,).
            layout: special tokens, limits and rules.
            padded: fill rows up on the right to the longest; else they lie one after another.

        Raises:
            ValueError: if `prompt_of_row` has another length than `rows`, a row names a text or a prompt that does not
                exist, or the rows do not fit into memory.
        """

@final
class Prompts:
    """Distinct prompts, tokenized.

    Args:
        ids: subword ids of all prompts, end to end.
        offsets: prompt p is ids[offsets[p]:offsets[p + 1]], (P + 1,).
        shifts: number of the prompt's words that yielded an id, less the number of its words, (P,); at most 0.

    Raises:
        ValueError: if the arrays do not fit each other, or a shift is above 0.
    """

    def __new__(cls, ids: NDArray[np.int64], offsets: NDArray[np.int64], shifts: NDArray[np.int64]) -> Prompts: ...

@final
class RowLayout:
    """How a row is put together.

    Args:
        prefix: special tokens before the prompt.
        suffix: special tokens after the text; truncation keeps them.
        pad_id: what fills shorter rows up.
        class_token_id: the token that stands before each entity type; -1 for none.
        max_subwords: longest row, special tokens included; None for no limit.
        pooling: "first", "last", "mean" or "max": which subwords of a word are selected, "mean" and "max" alike all.
        corrected: whether a word's number is its own index. By default it is, as in GLiNER, the count of words that
            have an id: after a word without one, all numbers are one too low, and a label without one masks the first
            word of the text.

    Raises:
        ValueError: if the special tokens alone pass `max_subwords`, or the pooling is unknown.
    """

    def __new__(
        cls,
        *,
        prefix: NDArray[np.int64],
        suffix: NDArray[np.int64],
        pad_id: int,
        class_token_id: int,
        max_subwords: int | None,
        pooling: str,
        corrected: bool,
    ) -> RowLayout: ...

@final
class Rows:
    """Rows for the encoder, and which of their subwords stand for words and entity types."""

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """(R, S), padded on the right; (N,) where rows are not padded."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row begins in the flattened ids, and where the last one ends, (R + 1,)."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Subwords of each row without padding, (R,)."""

    @property
    def word_counts(self) -> NDArray[np.int64]:
        """Words of each row's text, (R,); those that were cut off included."""

    @property
    def pooled_positions(self) -> NDArray[np.int64]:
        """Place in the flattened ids of every selected subword, ascending, (M,)."""

    @property
    def pooled_words(self) -> NDArray[np.int64]:
        """The word that it stands for, counted through the words of all rows, (M,)."""

    @property
    def class_positions(self) -> NDArray[np.int64]:
        """Place in the flattened ids of every class token, ascending, (T,)."""

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """Class tokens in each row, (R,)."""

def find_candidates(
    scores: NDArray[np.float32],
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    thresholds: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Picks the spans that score above their threshold and lie within their text.

    Args:
        scores: flat; text b is a block (word_counts[b], max_width, class_counts[b]), one after another. Width index k
            stands for k + 1 words.
        word_counts: words in each text, (B,).
        class_counts: entity types of each text, (B,).
        max_width: words of the widest span.
        thresholds: flat, class_counts[b] scores a text. A score equal to its threshold is left out; so is NaN.

    Returns:
        By text, start, width and class: candidates of text b are text_offsets[b]:text_offsets[b + 1], (B + 1,); then
        their starts, ends, classes and scores, (N,) each.

    Raises:
        ValueError: if the lengths do not fit the counts, a count is negative, `max_width` is below 1, or a text has
            2**32 or more scores to one start word.
    """

def find_likely(
    logits: NDArray[np.float32],
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    thresholds: NDArray[np.float32],
) -> _Likely:
    """As `find_candidates`, but for logits, of which few need their sigmoid.

    All spans come whose probability, computed in float32 by whomever, may pass its threshold, and some that are a few
    roundings below it.

    Returns:
        By text, start, width and class, as `find_candidates` returns them: text_offsets, starts, ends and classes; then
        their logits, (N + 64,), with zeros behind, which are room for vectors; then whether all N pass for sure.

    Raises:
        ValueError: as `find_candidates`.
    """

def find_marked_spans(
    scores: NDArray[np.float32],
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    edges: NDArray[np.float32],
    insides: NDArray[np.float64],
) -> tuple[_Ints, _Ints, _Ints, _Ints, NDArray[np.float32], NDArray[np.float32]]:
    """Spans that start and end at a word marked so, with every word from there to there marked as inside.

    Args:
        scores: probabilities of marks, flat: text b is a (word_counts[b], class_counts[b], 3) block, blocks one after
            another, of which the last axis is start, end and inside.
        word_counts: words of each text, (B,).
        class_counts: entity types of each text, (B,).
        edges: what the marks of a span's first and last word must pass, one a text and type, (T,).
        insides: what the marks of all its words must reach, (T,); in float64, as the package compares them. NaN
            neither passes nor reaches anything.

    Returns:
        By text, start, type and end: text_offsets (B + 1,), starts, ends and classes (N,); then the lower of the scores
        of both edges, and the lowest of the marks inside, (N,).

    Raises:
        ValueError: an array's length does not fit, or a count is negative.
    """

def find_spans(
    u: NDArray[np.float32],
    v: NDArray[np.float32],
    g: NDArray[np.float32],
    c: NDArray[np.float32],
    word_counts: NDArray[np.int64],
    class_counts: NDArray[np.int64],
    max_width: int,
    thresholds: NDArray[np.float32],
    threads: int,
    openmp: int,
) -> _Likely:
    """Scores all spans on the CPU, and keeps those that `find_likely` keeps; the others are stored nowhere.

    `logit[i, k, t] = relu(u[i] + v[i + k]) . g[t] + c[t]`: GLiNER's equation 1 with the head factored. What is found in
    a text depends on that text alone, to the last bit.

    Args:
        u: start halves of the packed words, bias included, (N, H).
        v: end halves of the packed words, (N, H).
        g: the texts' entity types after the second layer, packed, (T, H).
        c: their constants, (T,).
        word_counts: words in each text, (B,); N in all.
        class_counts: entity types of each text, (B,); T in all.
        max_width: words of the widest span.
        thresholds: the probability that each type must pass, (T,).
        threads: most threads to use, this one included; fewer where there is little to do.
        openmp: `gliner_fast.cpu.openmp.parallel_address()`, to run on torch's threads, or 0 for new ones. Nothing else:
            the address is called.

    Returns:
        As `find_likely`.

    Raises:
        ValueError: as `find_candidates`; also if rows are empty.
    """

def has_vectors() -> bool:
    """Whether this CPU has the instructions that make `attention`, `find_spans` and `linear` fast."""

def take_signal_stacks(openmp: int) -> None:
    """Gives the calling thread a stack for signal handlers, and each of torch's that work for it, unless it has one.

    A thread keeps it for as long as it lives. Nothing happens on systems without signals.

    Args:
        openmp: the address of `GOMP_parallel` in the OpenMP library that torch runs on, or 0. Nothing checks it, and
            the address is called.
    """

def attention(
    qkv: NDArray[np.float32] | NDArray[np.uint16],
    keys: NDArray[np.float32] | None,
    queries: NDArray[np.float32] | None,
    by_distance: NDArray[np.int32],
    biases: NDArray[np.float32] | None,
    rotations: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    window: int | None,
    lengths: NDArray[np.int64],
    scale: float,
    out: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
    openmp: int,
) -> None:
    """Fills `out` with attention over packed texts; no score leaves it.

    It is DeBERTa's (equations 2 to 4), or without positions, biased, rotated or windowed, as the arguments say.
    What a text becomes depends on that text alone, to the last bit. All is computed in float32.

    Args:
        qkv: queries, keys and values of the packed subwords, (N, 3, H, d), in float32, or bf16 as its bits.
        keys: what queries are multiplied with, scaled, (H, R, d); None without content-to-position scores.
        queries: what keys are multiplied with, scaled, (H, R, d); None without position-to-content scores.
        by_distance: the row of both for the distances -(M-1)..M-1, (2M-1,); M is at least the longest text.
        biases: what is added to the scores at these distances, (H, 2M-1); None for nothing.
        rotations: cosines and sines, (M, d / 2) each, by which queries and keys are turned first (RoPE); or None.
        window: subwords on either side that a query sees at most; None: it sees all.
        lengths: subwords of each text, (B,); N in all.
        scale: factor of query . key.
        out: (N, H, d), of the same kind of numbers, C-contiguous; shares no memory with the others.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Raises:
        TypeError: if `out` is of another kind of numbers than qkv, cannot be written to, or is seen to share memory
            with another array (as views of one array are, but not views that torch made).
        ValueError: if the shapes do not fit each other, a distance has no row, or an array is not contiguous.
    """

def linear(
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    activation: Literal["none", "gelu", "gelu_tanh"],
    threads: int,
    openmp: int,
) -> NDArray[np.float32]:
    """`activation(x @ weight.T + bias)`, made for a few rows: the weights are read once, as they lie.

    What becomes of a row depends on that row alone, to the last bit.

    Args:
        x: (N, I).
        weight: (O, I).
        bias: (O,), or None.
        activation: `gelu` is the exact one, by the normal distribution.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Returns:
        (N, O).

    Raises:
        ValueError: if the shapes do not fit each other, an array is not contiguous, or there is no such activation.
    """

@final
class Int8Weights:
    """A linear layer's weights in whole numbers of 8 bits.

    Of each row 64 numbers at a time are rounded to 8 bits with a scale of their own, and so are those of each row that
    is multiplied with it. Fast on CPUs with AVX-512 VNNI.

    Args:
        weight: (O, I).
    """

    def __new__(cls, weight: NDArray[np.float32]) -> Int8Weights: ...
    @property
    def shape(self) -> tuple[int, int]:
        """O and I."""

    def apply(
        self,
        x: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        activation: Literal["none", "gelu", "gelu_tanh"],
        out: NDArray[np.float32],
        threads: int,
        openmp: int,
    ) -> None:
        """Fills `out`, (R, O), with `activation(x @ weight.T + bias)`.

        What a row becomes depends on that row alone, to the last bit; NaN where a number of it is not finite.

        Args:
            x: (R, I).
            bias: (O,).
            activation: of the sums; `gelu` is the exact one.
            out: C-contiguous; nobody else may read or write it meanwhile.
            threads: as for `find_spans`.
            openmp: as for `find_spans`.

        Raises:
            ValueError: if the shapes do not fit each other, or an array is not contiguous.
        """

@final
class Int16Weights:
    """A linear layer's weights in whole numbers of 16 bits.

    Each row is rounded to 14 bits with a scale of its own, and so is each row that is multiplied with it.

    Args:
        weight: (O, I).
    """

    def __new__(cls, weight: NDArray[np.float32]) -> Int16Weights: ...
    @property
    def shape(self) -> tuple[int, int]:
        """O and I."""

    def apply(
        self,
        x: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        activation: Literal["none", "gelu", "gelu_tanh"],
        out: NDArray[np.float32],
        threads: int,
        openmp: int,
    ) -> None:
        """Fills `out`, (R, O), with `activation(x @ weight.T + bias)`.

        What a row becomes depends on that row alone, to the last bit; NaN where a number of it is not finite.

        Args:
            x: (R, I).
            bias: (O,).
            activation: of the sums; `gelu` is the exact one.
            out: C-contiguous; nobody else may read or write it meanwhile.
            threads: as for `find_spans`.
            openmp: as for `find_spans`.

        Raises:
            ValueError: if the shapes do not fit each other, or an array is not contiguous.
        """

@final
class PackedWeights:
    """A linear layer's weights in float32, as the processor multiplies them fastest.

    Args:
        weight: (O, I).
    """

    def __new__(cls, weight: NDArray[np.float32]) -> PackedWeights: ...
    @property
    def shape(self) -> tuple[int, int]:
        """O and I."""

    def resembles(self, weight: NDArray[np.float32], first: int) -> bool:
        """Whether some dozens of numbers, all over it, are those of a weight's columns from `first` on."""

    def apply(
        self,
        x: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        activation: Literal["none", "gelu", "gelu_tanh"],
        out: NDArray[np.float32],
        threads: int,
        openmp: int,
    ) -> None:
        """Fills `out`, (R, O), with `activation(x @ weight.T + bias)`.

        What a row becomes depends on that row alone, to the last bit.

        Args:
            x: (R, I).
            bias: (O,).
            activation: of the sums; `gelu` is the exact one.
            out: C-contiguous; nobody else may read or write it meanwhile.
            threads: as for `find_spans`.
            openmp: as for `find_spans`.

        Raises:
            ValueError: if the shapes do not fit each other, or an array is not contiguous.
        """

def sublayers(
    attended: NDArray[np.float32],
    hidden: NDArray[np.float32],
    attention_output: tuple[_Weights, NDArray[np.float32] | None],
    attention_norm: tuple[NDArray[np.float32], NDArray[np.float32] | None, float, bool],
    intermediate: tuple[_Weights, NDArray[np.float32] | None],
    activation: Literal["none", "gelu", "gelu_tanh"],
    output: tuple[_Weights, NDArray[np.float32] | None],
    output_norm: tuple[NDArray[np.float32], NDArray[np.float32] | None, float, bool],
    out: NDArray[np.float32],
    threads: int,
    openmp: int,
) -> None:
    """Fills `out`, (N, D), with what follows the attention in a layer of BERT's kind.

    `h = norm(attention_output(attended) + hidden)`, then `norm(output(activation(intermediate(h))) + h)`. What a row
    becomes depends on that row alone, to the last bit.

    Args:
        attended: what the attention gives, (N, A).
        hidden: what came into the layer, (N, D).
        attention_output: weights, (D, A), and bias, (D,) or None.
        attention_norm: weight of a norm, (D,), its bias, (D,) or None, what is added to the variance, and whether the
            mean is taken off first.
        intermediate: weights, (F, D), and bias.
        activation: as for `linear`.
        output: weights, (D, F), and bias.
        output_norm: as the other one.
        out: C-contiguous; nobody else may read or write it meanwhile.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Raises:
        ValueError: if the shapes do not fit each other, or an array is not contiguous.
    """

def gated_sublayers(
    attended: NDArray[np.float32],
    hidden: NDArray[np.float32],
    attention_output: tuple[_Weights, NDArray[np.float32] | None],
    norm: tuple[NDArray[np.float32], NDArray[np.float32] | None, float, bool],
    intermediate: tuple[_Weights, NDArray[np.float32] | None],
    gates: tuple[_Weights, NDArray[np.float32] | None] | None,
    activation: Literal["none", "gelu", "gelu_tanh"],
    output: tuple[_Weights, NDArray[np.float32] | None],
    out: NDArray[np.float32],
    threads: int,
    openmp: int,
) -> None:
    """Fills `out`, (N, D), with what follows the attention in a layer of ModernBERT's or T5's kind.

    `h = attention_output(attended) + hidden`, then `output(activation(first) * second) + h`, where first and second are
    the halves of `intermediate(norm(h))`, or what `intermediate` and `gates` make of `norm(h)`. What a row becomes
    depends on that row alone, to the last bit.

    Args:
        attended: what the attention gives, (N, A).
        hidden: what came into the layer, (N, D).
        attention_output: weights, (D, A), and bias, (D,) or None.
        norm: as for `sublayers`.
        intermediate: weights, (2F, D), and bias; (F, D) with `gates`.
        gates: weights, (F, D), and bias; or None.
        activation: as for `linear`.
        output: weights, (D, F), and bias.
        out: C-contiguous; nobody else may read or write it meanwhile.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Raises:
        ValueError: if the shapes do not fit each other, or an array is not contiguous.
    """

def norm_rows(
    x: NDArray[np.float32] | NDArray[np.uint16],
    norm: tuple[NDArray[np.float32], NDArray[np.float32] | None, float, bool],
    out: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
    openmp: int,
) -> None:
    """Fills `out`, (N, D), with normed rows. All is computed in float32.

    Args:
        x: (N, D), in float32, or bf16 as its bits.
        norm: as for `sublayers`.
        out: of the same kind of numbers, C-contiguous; nobody else may read or write it meanwhile.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Raises:
        TypeError: if arrays are of different kinds of numbers.
        ValueError: if the shapes do not fit each other, or an array is not contiguous.
    """

def gate(
    x: NDArray[np.float32] | NDArray[np.uint16],
    gates: NDArray[np.float32] | NDArray[np.uint16],
    activation: Literal["none", "gelu", "gelu_tanh"],
    out: NDArray[np.float32] | NDArray[np.uint16],
    threads: int,
    openmp: int,
) -> None:
    """Fills `out`, (N, F), with `activation(x) * gates`. All is computed in float32.

    Args:
        x: (N, F), in float32, or bf16 as its bits.
        gates: (N, F), of the same kind of numbers.
        activation: as for `linear`.
        out: of that kind, too, C-contiguous; nobody else may read or write it meanwhile.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Raises:
        TypeError: if arrays are of different kinds of numbers.
        ValueError: if the shapes do not fit each other, or an array is not contiguous.
    """

def lstm(
    forward: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    backward: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]],
    lengths: NDArray[np.int64],
    threads: int,
    openmp: int,
) -> NDArray[np.float32]:
    """A bidirectional LSTM over packed texts, all texts a step together; the gates are i, f, g, o as in torch.

    What becomes of a text depends on that text alone, to the last bit.

    Args:
        forward: what the inputs make of the gates, (W, 4H); the weight of the state before, (4H, H); a bias, (4H,).
        backward: the same for the way from each text's last word.
        lengths: words of each text, (B,); W in all.
        threads: as for `find_spans`.
        openmp: as for `find_spans`.

    Returns:
        The states at each word, both directions side by side, (W, 2H).

    Raises:
        ValueError: if the shapes do not fit each other, or an array is not contiguous.
    """

def resolve(
    text_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    scores: NDArray[np.float32],
    word_counts: NDArray[np.int64],
    nested: NDArray[np.bool_],
    multi_label: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keeps the best-scoring candidates that may stand together, in O(n log n).

    From the best score down, a candidate is kept unless it clashes with one that is kept: if both are the same span
    and the text is not multi-label; else if they share a word and, where spans may nest, neither lies within the other.
    Equal scores count in the given order; a NaN score is dropped.

    Args:
        text_offsets: candidates of text b are text_offsets[b]:text_offsets[b + 1], (B + 1,).
        starts: first word of each candidate, (N,).
        ends: the word after its last one, (N,).
        scores: (N,).
        word_counts: words in each text, (B,).
        nested: whether spans of the text may lie within each other, (B,).
        multi_label: whether a span of the text may have several entity types, (B,).

    Returns:
        Indices of the kept candidates, by text and start, at the same start the better score first, (K,); those of text
        b are kept_offsets[b]:kept_offsets[b + 1], (B + 1,).

    Raises:
        ValueError: if the arrays do not fit each other, a span is empty or reaches out of its text, or there are more
            words or candidates of one text than 32 bits count.
    """

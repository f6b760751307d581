"""Word and label vectors -> marks of words: the head of token-level models (compat section 5.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear, expect_weights, linear
from gliner_fast.scorer import ProjectionMLP
from gliner_fast.upload import upload

# Numbers of the widest tensor that pairs of words and types are computed by at a time: on a CPU it stays in the
# caches, on a card its product is large enough to be fast.
_CPU_BLOCK, _GPU_BLOCK = 2**21, 2**25


class TokenScorer(nn.Module):
    """Scores words against entity types: whether an entity of the type starts there, ends there, and goes on there.

    The package computes W2 relu(W1 [a ; g ; a' * g'] + b1) + b2 for every word and type, with a and a' of the word and
    g and g' of the type. W1 splits into thirds (DESIGN 3.1): what it makes of a is computed once a word, and of g once
    a type, so that a pair of a word and a type takes D x 4D multiply-adds where it took 3D x 4D.
    """

    def __init__(self, width: int, dropout: float, *, projects_labels: bool = False) -> None:
        super().__init__()
        self.width = width
        self.dropout = dropout
        self.words = Linear(width, 2 * width)
        self.types = Linear(width, 2 * width)
        self.joint = Linear(3 * width, 4 * width)
        self.out = Linear(4 * width, 3)
        self.labels = ProjectionMLP(width, 4 * width, dropout) if projects_labels else None

    def prompt(self, labels: Tensor) -> Tensor:
        """Label vectors as types are scored by them, (T, D): as they are, but for models that find relations, too."""
        if self.labels is None:
            return labels
        projected: Tensor = self.labels(labels)
        return projected

    def forward(
        self, words: Tensor, prompts: Tensor, word_counts: Sequence[int], class_counts: Sequence[int]
    ) -> Tensor:
        """Logits of all marks.

        Args:
            words: (N, D) packed word vectors.
            prompts: (T, D) packed label vectors.
            word_counts: words of each text.
            class_counts: entity types of each text.

        Returns:
            Flat logits: text b is a (W_b, C_b, 3) block, blocks one after another; start, end, inside.
        """
        word, word_factor = self.words(words).chunk(2, dim=-1)  # each (N, D)
        type_, type_factor = self.types(prompts).chunk(2, dim=-1)  # each (T, D)
        joint = expect_weights(self.joint, "scorer.joint")
        of_words, of_types = self._joint(word, 0), self._joint(type_, 1) + joint.bias  # (N, 4D), (T, 4D)
        word_of_pair, type_of_pair = _pairs(word_counts, class_counts, words.device)
        block = _CPU_BLOCK if words.device.type == "cpu" else _GPU_BLOCK
        size = max(1, block // (4 * self.width))
        logits = []
        for at in range(0, len(word_of_pair), size):
            words_here, types_here = word_of_pair[at : at + size], type_of_pair[at : at + size]
            inner = of_words[words_here]  # (P, 4D)
            inner += of_types[types_here]
            inner = self._joint(word_factor[words_here] * type_factor[types_here], 2, inner)
            logits.append(self.out(F.dropout(inner, self.dropout, self.training).relu_()))  # (P, 3)
        return torch.cat(logits).reshape(-1) if logits else words.new_zeros(0)

    def _joint(self, vectors: Tensor, third: int, others: Tensor | None = None) -> Tensor:
        """What a third of the joint layer's columns makes of vectors, without its bias, (..., D) -> (..., 4D).

        Args:
            vectors: what that third reads.
            third: 0 for words, 1 for types, 2 for both.
            others: (P, 4D) of what is made of the other two, to be added; overwritten where no gradient is asked for.
        """
        weight = self.joint.weight.chunk(3, dim=1)[third]
        packed = self.joint.packed(vectors, 3)[third]
        if others is None or packed is not None:
            product = linear(vectors, weight, packed=packed)
            return product if others is None else others.add_(product)
        if torch.is_grad_enabled() or not vectors.dtype == others.dtype == weight.dtype:
            return torch.addmm(others, vectors, weight.mT)
        return others.addmm_(vectors, weight.mT)

    def span_vectors(self, words: Tensor, starts: Tensor, last_words: Tensor) -> Tensor:
        """The mean of the word vectors of chosen spans, (S, D), in float32.

        Args:
            words: (N, D) packed word vectors.
            starts: (S,) first word of each span, an index into the packed words.
            last_words: (S,) last word of each span.
        """
        lengths = last_words - starts + 1  # (S,)
        span = torch.repeat_interleave(lengths)  # (W,) of each word of each span
        within = torch.arange(len(span), device=words.device) - (lengths.cumsum(0) - lengths)[span]
        sums = words.new_zeros(len(starts), words.shape[1], dtype=torch.float32)
        sums.index_add_(0, span, words[starts[span] + within].float())
        return sums / lengths[:, None]


def _pairs(word_counts: Sequence[int], class_counts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The word and the type of each pair, packed, text after text, word after word, (P,) each."""
    words, classes = np.array(word_counts, np.int64), np.array(class_counts, np.int64)
    if device.type == "cuda":
        counts = upload([torch.from_numpy(words), torch.from_numpy(classes)], device)
        return pairs_on_device(*counts, words=int(words.sum()), pairs=int((words * classes).sum()))
    classes_of_word = np.repeat(classes, words)  # (N,)
    word = np.repeat(np.arange(len(classes_of_word)), classes_of_word)
    first_pair = np.cumsum(classes_of_word) - classes_of_word  # (N,) of each word
    first_type = np.repeat(np.cumsum(classes) - classes, words)  # (N,) of each word's text
    type_ = np.arange(len(word)) + np.repeat(first_type - first_pair, classes_of_word)
    return torch.from_numpy(word), torch.from_numpy(type_)


def pairs_on_device(word_counts: Tensor, class_counts: Tensor, *, words: int, pairs: int) -> tuple[Tensor, Tensor]:
    """`_pairs` where the counts, (B,) each, are: of tens of thousands of words they would be long on their way.

    Its twin is for CPUs, where numpy is several times as fast.

    Args:
        word_counts: words of each text.
        class_counts: entity types of each text.
        words: N, of all texts.
        pairs: P, of all texts; told, or the host would wait for the device.
    """
    classes_of_word = class_counts.repeat_interleave(word_counts, output_size=words)  # (N,)
    word = torch.repeat_interleave(classes_of_word, output_size=pairs)
    first_pair = classes_of_word.cumsum(0) - classes_of_word  # (N,) of each word
    first_types = class_counts.cumsum(0) - class_counts  # (B,)
    first_type = first_types.repeat_interleave(word_counts, output_size=words)  # (N,) of each word's text
    shift = (first_type - first_pair).repeat_interleave(classes_of_word, output_size=pairs)
    return word, torch.arange(pairs, device=word.device) + shift

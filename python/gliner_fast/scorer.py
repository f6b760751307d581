"""Word and label vectors -> span scores: the span head, factored (DESIGN 3.1, compat section 5.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear, expect_weights, linear
from gliner_fast.kernels.pending_candidates import PendingCandidates, Room
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.span_executor import Executor, SpanLayout, choose_executor, find_spans, score_spans


class ProjectionMLP(nn.Module):
    """Linear, ReLU, dropout, Linear: (..., D) -> (..., D) through `inner` units."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = Linear(width, inner)
        self.outer = Linear(inner, width)
        self.dropout = dropout

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.outer(F.dropout(F.relu(self.inner(vectors)), self.dropout, self.training))
        return out


class SpanScorer(nn.Module):
    """Scores spans against entity types for `markerV0` and `marker`.

    The package computes R_ik = MLP_out(relu([MLP_start(h_i) ; MLP_end(h_i+k)])) for every span and multiplies by the
    type embeddings. Both layers split: the first into a start and an end half, computed once a word, and the second
    into the type embeddings, computed once a type. Spans x 4D never exist outside one block, in training neither.

    In training the inner units of the words' and the types' MLPs are dropped. The package drops those of MLP_out as
    well, others for every span; that takes a mask of spans x 4D, and is not done here.

    Attributes:
        executor: who computed the last scores, "torch", "rust" or "triton"; None before the first.
    """

    def __init__(self, width: int, max_width: int, span_mode: str, dropout: float) -> None:
        super().__init__()
        if span_mode not in ("markerV0", "marker"):
            raise AssertionError(f"span_mode {span_mode!r} must have been refused at the door")
        self.width = width
        self.max_width = max_width
        self.dropout = dropout
        self.executor: Executor | None = None
        self._room = Room()
        inner = 4 * width if span_mode == "markerV0" else 2 * width
        self.prompt = ProjectionMLP(width, 4 * width, dropout)
        self.start = ProjectionMLP(width, inner, dropout)
        self.end = ProjectionMLP(width, inner, dropout)
        self.joint: Linear | None = Linear(2 * width, 4 * width) if span_mode == "markerV0" else None
        self.out = Linear(4 * width if span_mode == "markerV0" else 2 * width, width)

    def forward(
        self, words: Tensor, prompts: Tensor, word_counts: Sequence[int], class_counts: Sequence[int]
    ) -> Tensor:
        """Logits of all spans.

        Args:
            words: (N, D) packed word vectors.
            prompts: (T, D) packed prompt representations, as `self.prompt` makes them.
            word_counts: words of each text.
            class_counts: entity types of each text.

        Returns:
            Flat logits, laid out as `kernels.span_reference` says.
        """
        executor = self.executor_for(words)
        self.executor = "torch" if executor == "rust" else executor  # Rust finds candidates only
        out = expect_weights(self.out, "scorer.out")
        constant = prompts @ out.bias  # (T,)
        if self.joint is None and self.executor == "torch":
            return self._score_additively(*self.halves(words), prompts, constant, word_counts, class_counts)
        layout = SpanLayout(word_counts, class_counts, self.max_width)
        return score_spans(*self._addends(words), prompts @ out.weight, constant, layout, self.executor)

    def find(
        self,
        words: Tensor,
        prompts: Tensor,
        word_counts: Sequence[int],
        class_counts: Sequence[int],
        thresholds: Tensor,
        allowed_spans: Tensor | None = None,
    ) -> PendingCandidates | Candidates:
        """The spans above their threshold, looked for where the words are.

        All as for `forward`; `thresholds`, (T,), is the probability that each entity type must pass; `allowed_spans`,
        (N, K) bool, says which spans are asked for, where not all are; Rust finds the others too.

        Raises:
            ValueError: `executor_for(words)` is "torch", which finds none by itself.
        """
        self.executor = executor = self.executor_for(words)
        if executor == "torch":
            raise ValueError("torch finds no candidates by itself: ask for all scores")
        layout = SpanLayout(word_counts, class_counts, self.max_width)
        out = expect_weights(self.out, "scorer.out")
        types = prompts @ out.weight  # (T, H)
        constant = prompts @ out.bias  # (T,)
        return find_spans(
            *self._addends(words), types, constant, layout, thresholds, allowed_spans, executor, self._room
        )

    def executor_for(self, words: Tensor) -> Executor:
        """Who would compute the scores of these words. The sums of `marker` are few, and on a CPU torch's."""
        executor = choose_executor(words.device, words.dtype)
        return "torch" if self.joint is None and executor == "rust" else executor

    def halves(self, words: Tensor, lasts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What a word adds to the spans that start and to those that end with it: two of (N, H).

        Where `lasts` is given, (N, D), the second is of these words instead.

        markerV0: the halves of the joint layer's input to its ReLU, bias in the first (H = 4D). marker: the two
        inputs of its one layer (H = D each).
        """
        starts, ends = F.relu(self.start(words)), F.relu(self.end(words if lasts is None else lasts))  # each (N, D)
        if self.joint is None:
            return starts, ends
        joint = expect_weights(self.joint, "scorer.joint")
        start_weight, end_weight = joint.weight.chunk(2, dim=1)  # each (4D, D)
        first, second = joint.packed(starts, 2)
        return (
            linear(starts, start_weight, joint.bias, packed=first),
            linear(ends, end_weight, packed=second),
        )

    def _addends(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """The u and v of `kernels.span_reference`, which scores a span by relu(u_i + v_j): two of (N, H)."""
        first, second = self.halves(words)
        if self.joint is not None:
            return first, second
        # Neither half of `marker` is negative: relu([s ; 0] + [0 ; e]) is [s ; e], what its layer reads.
        return F.pad(first, (0, second.shape[1])), F.pad(second, (first.shape[1], 0))  # H = 2D

    def span_vectors(self, words: Tensor, starts: Tensor, last_words: Tensor) -> Tensor:
        """Span representations R of chosen spans, (S, D).

        Args:
            words: (N, D) packed word vectors.
            starts: (S,) first word of each span, an index into the packed words.
            last_words: (S,) last word of each span.
        """
        if len(starts) < len(words):
            first, second = self.halves(words[starts], words[last_words])  # (S, H) each
        else:
            first, second = self.halves(words)
            first, second = first[starts], second[last_words]
        joined = torch.cat([first, second], dim=-1) if self.joint is None else F.relu(first + second)  # (S, 2D or 4D)
        vectors: Tensor = self.out(joined)
        return vectors

    def _score_additively(
        self,
        starts: Tensor,
        ends: Tensor,
        prompts: Tensor,
        constant: Tensor,
        word_counts: Sequence[int],
        class_counts: Sequence[int],
    ) -> Tensor:
        """`marker` has no ReLU after its layer, so its score is a start term plus an end term plus a constant.

        A few small products for each text: on a GPU they would wait for the host to start them.
        """
        start_weight, end_weight = self.out.weight.chunk(2, dim=1)  # each (D, D)
        start_types, end_types = prompts @ start_weight, prompts @ end_weight  # each (T, D)
        blocks = []
        word = type_ = 0
        for words, classes in zip(word_counts, class_counts, strict=True):
            own_words, own_types = slice(word, word + words), slice(type_, type_ + classes)
            start_scores = torch.addmm(constant[own_types], starts[own_words], start_types[own_types].mT)  # (W, C)
            end_scores = ends[own_words] @ end_types[own_types].mT  # (W, C)
            # Widths past the end read -inf, and so are -inf.
            padded = F.pad(end_scores, (0, 0, 0, self.max_width - 1), value=float("-inf"))  # (W+K-1, C)
            by_width = padded.unfold(0, self.max_width, 1).mT  # (W, K, C): [i, k] = end_scores[i + k]
            blocks.append((start_scores[:, None, :] + by_width).reshape(-1))
            word, type_ = word + words, type_ + classes
        return torch.cat(blocks) if blocks else starts.new_zeros(0)

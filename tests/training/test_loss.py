"""The loss against the package's own, and against the paper's equation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.corpus import Judged
from gliner_fast.training.loss import batch_loss
from gliner_fast.training.targets import Targets, known_spans, locate_logits, make_targets

K = 4
WORDS, CLASSES = [6, 2, 5], [3, 1, 2]

# Ours, and what the package calls it.
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"loss": "focal"}, {}),
    ({"loss": "focal", "reduction": "mean"}, {"reduction": "mean"}),
    ({"loss": "focal", "focal_alpha": 0.75}, {"alpha": 0.75}),
    ({"loss": "focal", "focal_gamma": 2.0}, {"gamma": 2.0}),
    ({"loss": "focal", "prob_margin": 0.2, "focal_gamma": 1.0}, {"prob_margin": 0.2, "gamma": 1.0}),
    ({"loss": "focal", "label_smoothing": 0.1}, {"label_smoothing": 0.1}),
    (
        {"loss": "focal", "focal_alpha": 0.3, "focal_gamma": 1.5, "prob_margin": 0.05, "label_smoothing": 0.2},
        {"alpha": 0.3, "gamma": 1.5, "prob_margin": 0.05, "label_smoothing": 0.2},
    ),
    ({"loss": "focal", "span_width_weight": True}, {"use_span_width_weight": True}),
    ({"loss": "dice"}, {"loss_type": "dice"}),
    (
        {"loss": "dice", "dice_gamma": 2.0, "span_width_weight": True},
        {"loss_type": "dice", "dice_gamma": 2.0, "use_span_width_weight": True},
    ),
    *(
        ({"loss": "focal", "masking": masking, "negatives": negatives}, {"masking": masking, "negatives": negatives})
        for masking in ("none", "global", "label", "span")
        for negatives in (0.0, 1.0)
    ),
    # Not beyond float32: there the package clamps probabilities, the paper does not.
    ({"loss": "bce"}, {}),
    ({"loss": "bce", "focal_alpha": 0.8}, {"alpha": 0.8}),
    ({"loss": "bce", "label_smoothing": 0.3, "reduction": "mean"}, {"label_smoothing": 0.3, "reduction": "mean"}),
]  # fmt: skip


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(output_dir="unused", **options)


def example(words: list[int], classes: list[int]) -> tuple[Tensor, Targets]:
    """Random flat logits, and targets with every third text's last type without a span."""
    generator = torch.Generator().manual_seed(5)
    blocks, spans = [], []
    for count, types in zip(words, classes, strict=True):
        block = 3 * torch.randn(count, K, types, generator=generator, dtype=torch.float64)
        past = torch.arange(count)[:, None] + torch.arange(K) >= count
        blocks.append(block.masked_fill(past[:, :, None], float("-inf")).reshape(-1))
        own = [(0, 1, 0), (0, min(2, count), 0), (count - 1, count, types - 1)]
        spans.append(sorted(set(own if types != 3 else own[:2])))
    targets = make_targets(spans, [[Judged.ALL] * types for types in classes], words, classes, K)
    return torch.cat(blocks).requires_grad_(), targets


def package_loss(logits: Tensor, targets: Targets, **options: Any) -> Tensor:
    """What `gliner` makes of the same: padded, with masks. It counts classes and spans by mask."""
    from gliner.modeling.base import UniEncoderSpanModel

    texts, widest, most = len(targets.word_counts), max(targets.word_counts), max(targets.class_counts)
    scores, labels = (torch.zeros(texts, widest, K, most, dtype=logits.dtype) for _ in range(2))
    span_mask = torch.zeros(texts, widest, K, dtype=torch.bool)
    class_mask = torch.zeros(texts, most, dtype=logits.dtype)
    gold = torch.zeros(len(logits), dtype=logits.dtype).index_fill(0, targets.positives, 1.0)
    first = 0
    for text, (words, classes) in enumerate(zip(targets.word_counts, targets.class_counts, strict=True)):
        own = slice(first, first + words * K * classes)
        block = logits[own].view(words, K, classes)
        span_mask[text, :words] = block[:, :, 0] != float("-inf")
        scores[text, :words, :, :classes] = block.masked_fill(block == float("-inf"), 0.0)
        labels[text, :words, :, :classes] = gold[own].view(words, K, classes)
        class_mask[text, :classes] = 1
        first = own.stop
    loss: Tensor = UniEncoderSpanModel.loss(
        UniEncoderSpanModel.__new__(UniEncoderSpanModel), scores, labels, class_mask, span_mask, **options
    )
    return loss


@pytest.mark.gliner
@pytest.mark.parametrize(("ours", "theirs"), OPTIONS, ids=[str(ours) for ours, _ in OPTIONS])
def test_loss_and_gradient_equal_the_package_s(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    logits, targets = example(WORDS, CLASSES)
    mine, wanted = batch_loss(logits, targets, config(**ours)), package_loss(logits, targets, **theirs)
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (mine, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.gliner
@pytest.mark.parametrize("masking", ["global", "label", "span"])
def test_the_same_draws_mask_the_same_negatives_as_in_the_package(masking: str) -> None:
    # Texts of one shape: there the package's padded tensor has our flat one's order, and so the same draws (float32).
    logits, targets = example([5, 5], [3, 3])
    logits = logits.detach().float()
    losses = []
    for loss in (
        lambda: batch_loss(logits, targets, config(loss="focal", masking=masking, negatives=0.5)),
        lambda: package_loss(logits, targets, masking=masking, negatives=0.5),
    ):
        torch.manual_seed(7)
        losses.append(loss())
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    whole = batch_loss(logits, targets, config(loss="focal"))
    assert losses[0] < whole


def test_the_mean_of_a_piece_is_by_the_count_of_its_batch() -> None:
    logits, targets = example(WORDS, CLASSES)
    whole, piece = (
        batch_loss(logits, targets, config(reduction="mean"), count=count) for count in (None, 4 * targets.count)
    )
    torch.testing.assert_close(4 * piece, whole)


def test_the_loss_is_equation_3() -> None:
    logits, targets = example(WORDS, CLASSES)
    y = torch.zeros(len(logits), dtype=torch.float64).index_fill(0, targets.positives, 1.0)
    inside = logits != float("-inf")
    p = logits[inside].sigmoid()
    equation = -(y[inside] * p.log() + (1 - y[inside]) * (1 - p).log()).sum()
    torch.testing.assert_close(batch_loss(logits, targets, config()), equation, rtol=1e-12, atol=0)


def test_a_hopeless_logit_still_has_a_gradient() -> None:
    # At 1e-6 the package clamps the probability, and its gradient is 0.
    logits = torch.tensor([-40.0, 40.0], requires_grad=True)
    targets = make_targets([[(0, 1, 0)]], [[Judged.ALL] * 2], [1], [2], 1)
    batch_loss(logits, targets, config()).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([-1.0, 1.0]))


def test_nothing_past_the_end_has_a_gradient() -> None:
    logits, targets = example(WORDS, CLASSES)
    (gradient,) = torch.autograd.grad(batch_loss(logits, targets, config(loss="focal", focal_gamma=2.0)), logits)
    past = logits == float("-inf")
    assert torch.all(gradient[past] == 0)
    assert torch.all(gradient[~past] != 0)


@pytest.mark.parametrize("loss", ["bce", "focal", "dice"])
def test_a_logit_that_is_no_number_shows_in_the_loss(loss: str) -> None:
    logits, targets = example(WORDS, CLASSES)
    spoilt = logits.detach().index_fill(0, torch.tensor([0]), float("nan"))
    assert batch_loss(spoilt, targets, config(loss=loss)).isnan()


def test_of_a_type_that_is_not_judged_only_gold_counts() -> None:
    logits, targets = example(WORDS, CLASSES)
    unjudged = Targets(targets.positives, torch.tensor([2, 0, 2, 0, 2, 2]).byte(), None, WORDS, CLASSES, K)
    (gradient,) = torch.autograd.grad(batch_loss(logits, unjudged, config()), logits)
    types = locate_logits(targets, logits.device).types
    gold = torch.zeros(len(logits), dtype=torch.bool).index_fill(0, targets.positives, True)
    silent = (types == 1) | (types == 3)
    inside = logits != float("-inf")
    assert torch.equal(gradient != 0, inside & (~silent | gold))
    assert (silent & gold).any()


def test_of_a_type_that_is_marked_in_part_what_is_known_counts() -> None:
    words, spans = ("In", "Paris", "he", "met", "Ada"), [(1, 2, "city"), (4, 5, "person")]
    known = known_spans(words, spans, 2)
    assert known.tolist() == [[False, True], [True, True], [True, True], [True, True], [True, True]]
    targets = make_targets([[(4, 5, 0)]], [[Judged.KNOWN, Judged.ALL]], [5], [2], 2, known=[known])
    logits = torch.zeros(5 * 2 * 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(batch_loss(logits, targets, config()), logits)
    by_type = gradient.view(5, 2, 2)
    assert torch.equal(by_type[:, :, 0] != 0, torch.from_numpy(known))  # "In" alone may be anything
    assert (by_type[:, :, 1] > 0).all()
    assert by_type[4, 0, 0] < 0


def test_texts_without_a_partly_marked_type_need_no_known_spans() -> None:
    known = known_spans(("a", "B"), [], 1)
    types = [[Judged.ALL], [Judged.KNOWN]]
    targets = make_targets([[], []], types, [1, 2], [1, 1], 1, known=[None, known])
    logits = torch.zeros(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(batch_loss(logits, targets, config()), logits)
    assert (gradient != 0).tolist() == [True, True, False]


def test_half_precision_logits_are_summed_in_float32() -> None:
    logits, targets = example(WORDS, CLASSES)
    half = logits.detach().bfloat16()
    assert batch_loss(half, targets, config()).dtype == torch.float32
    torch.testing.assert_close(
        batch_loss(half, targets, config()).double(), batch_loss(half.double(), targets, config()), rtol=1e-6, atol=0
    )


def test_places_of_logits_are_those_of_the_blocks() -> None:
    _, targets = example(WORDS, CLASSES)
    places = locate_logits(targets, torch.device("cpu"))
    wanted = [
        (sum(CLASSES[:text]) + type_, sum(WORDS[:text]) * K + span)
        for text in range(len(WORDS))
        for span in range(WORDS[text] * K)
        for type_ in range(CLASSES[text])
    ]
    assert list(zip(places.types.tolist(), places.spans.tolist(), strict=True)) == wanted


def test_spans_of_types_that_the_tokenizer_cut_off_are_left_out() -> None:
    targets = make_targets([[(0, 1, 0), (1, 2, 2)]], [[Judged.ALL, Judged.ALL, Judged.MARKED]], [2], [2], K)
    assert targets.positives.tolist() == [0]
    assert targets.judged is None


def test_of_an_entity_token_in_the_text_nothing_is_learned() -> None:
    targets = make_targets([[(0, 1, 0)]], [[Judged.ALL]], [2], [2], K)  # it makes a type that nobody asked for
    assert targets.judged is not None
    assert targets.judged.tolist() == [Judged.ALL, Judged.MARKED]

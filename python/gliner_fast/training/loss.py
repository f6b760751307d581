"""Logits and gold spans -> the loss (GLiNER, Zaratiana et al. 2024, equation 3; compat section 7.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.corpus import Judged
from gliner_fast.training.targets import LogitPlaces, Targets, locate_logits

_EPS = 1e-6


def batch_loss(logits: Tensor, targets: Targets, config: TrainingConfig, *, count: int | None = None) -> Tensor:
    """The loss of a batch, or of a piece of it: a sum over spans (or marks) and entity types, in float32 at least.

    Args:
        logits: (S,) flat, -inf past the end of a text.
        targets: what they should be.
        config: `loss`, and the settings below it.
        count: `Targets.count` of the whole batch, where this is a piece of it.

    Returns:
        A scalar. With `reduction="mean"` the sum is divided by the count, as the package does.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    positive = torch.zeros_like(logits).index_fill(0, targets.positives, 1.0)  # (S,)
    inside = (logits != float("-inf")) | (positive > 0)  # a NaN is inside: it must show
    # Past the end an ordinary number stands in, so that no gradient is NaN.
    losses = element_losses(logits.masked_fill(~inside, 0.0), positive, config)  # (S,)
    losses = losses * _weights(positive, inside, targets, config)
    total = losses.sum()
    return total if config.reduction == "sum" else total / (count or targets.count)


def element_losses(logits: Tensor, positive: Tensor, config: TrainingConfig) -> Tensor:
    """The loss of each logit alone, (S,): before masks, weights and sums.

    Args:
        logits: (S,) finite.
        positive: (S,) 1 for gold, else 0.
        config: `loss` and its settings.
    """
    if config.loss == "dice":
        p = logits.sigmoid()
        adjusted = (1 - p) ** config.dice_gamma * p
        return 1 - (2 * adjusted * positive + _EPS) / (adjusted + positive + _EPS)
    y = positive * (1 - config.label_smoothing) + config.label_smoothing / 2
    if config.loss == "bce":
        losses = F.softplus(logits) - logits * y
    else:
        p = logits.sigmoid()
        shifted = (p - config.prob_margin).clamp(0, 1)
        losses = -y * p.clamp(min=_EPS).log() - (1 - y) * (1 - shifted).clamp(min=_EPS).log()
        if config.focal_gamma > 0:
            p_of_target = p * y + (1 - shifted) * (1 - y)
            losses = losses * (1 - p_of_target) ** config.focal_gamma
    if config.focal_alpha >= 0:
        losses = losses * (config.focal_alpha * y + (1 - config.focal_alpha) * (1 - y))
    return losses


def _weights(positive: Tensor, inside: Tensor, targets: Targets, config: TrainingConfig) -> Tensor:
    """How much each logit counts, (S,): 0 past the end, unjudged or masked, more for wide gold spans if so asked."""
    weights = inside.to(positive)
    needs_places = targets.judged is not None or config.masking in ("label", "span") or config.span_width_weight
    places = locate_logits(targets, positive.device) if needs_places else None
    if targets.judged is not None and places is not None:
        judged = targets.judged[places.types]  # (S,)
        tells = (positive > 0) | (judged == Judged.ALL)
        if targets.known is not None:
            tells |= (judged == Judged.KNOWN) & targets.known[places.spans]
        weights = weights * tells
    if config.masking != "none":
        maskable = _maskable(positive, places, targets, config)
        weights = weights * (~maskable | (torch.rand_like(positive) < config.negatives))
    if config.span_width_weight and places is not None:
        width = (places.spans % targets.max_width + 1).to(positive)  # in words
        weights = weights * (1 + positive * width.log())
    return weights


def _maskable(positive: Tensor, places: LogitPlaces | None, targets: Targets, config: TrainingConfig) -> Tensor:
    """Which logits may be left out by chance, (S,): all negatives, or those of types or spans without any positive."""
    if config.masking == "global" or places is None:
        return positive == 0
    if config.masking == "label":
        group, groups = places.types, sum(targets.class_counts)
    else:
        group, groups = places.spans, sum(targets.word_counts) * targets.max_width
    return positive.new_zeros(groups).index_add(0, group, positive)[group] == 0

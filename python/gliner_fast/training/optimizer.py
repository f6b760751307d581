"""Parameters -> AdamW with two learning rates, and how these change (paper section 3; compat section 7.4)."""

from __future__ import annotations

import math

import torch
from torch import nn

from gliner_fast.training.config import TrainingConfig


def parameter_groups(network: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    """Four groups: encoder and the rest, each with and without weight decay; those without parameters are left out.

    As in the package the projection counts as encoder, and so does a bi-encoder's encoder of labels with its own; what
    does not decay are biases and layer norms. `peak_lr` is what `lr` is a share of. Parameters that are frozen, or that
    no gradient reaches (a pooler's), are in none.
    """
    norms = {
        f"{name}.{kind}"
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
        for kind, _ in module.named_parameters(recurse=False)
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and ".pooler." not in name:
            is_encoder = name.startswith(("encoder.", "projection.", "label_encoder."))
            decays = name not in norms and "bias" not in name
            groups.setdefault((is_encoder, decays), []).append(parameter)
    decay_of_others = config.weight_decay if config.weight_decay_others is None else config.weight_decay_others
    return [
        {
            "params": parameters,
            "peak_lr": config.lr_encoder if is_encoder else config.lr_others,
            "weight_decay": (config.weight_decay if is_encoder else decay_of_others) if decays else 0.0,
        }
        for (is_encoder, decays), parameters in sorted(groups.items())
    ]


def build_optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW for the parameters that are trained.

    Raises:
        ValueError: there are none.
    """
    groups = parameter_groups(network, config)
    if not groups:
        raise ValueError("nothing is left to train: every parameter is frozen")
    # One pass over the weights instead of a dozen.
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, config: TrainingConfig) -> float:
    """Gives each group its learning rate for a step, counted from 0; returns the highest."""
    factor = schedule_factor(step, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return max(float(group["lr"]) for group in optimizer.param_groups)


def count_warmup_steps(config: TrainingConfig) -> int:
    """Steps until the learning rates are whole."""
    return math.ceil(config.steps * config.warmup) if config.warmup_steps is None else config.warmup_steps


def schedule_factor(step: int, config: TrainingConfig) -> float:
    """What learning rates are multiplied by in a step, counted from 0; as transformers' schedules have it."""
    warmup = count_warmup_steps(config)
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "linear":
        return max(0.0, 1.0 - done)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * done)))

"""Learning rates and parameter groups against those of the package and of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.checkpoints.tensor_names import checkpoint_names
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.optimizer import build_optimizer, parameter_groups, schedule_factor, set_learning_rates
from tests.small_network import small_network


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig(output_dir="unused", **options)


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_learning_rates_are_those_of_transformers(schedule: str, warmup: float, steps: int) -> None:
    from transformers import get_scheduler

    settings = config(schedule=schedule, warmup=warmup, steps=steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, -(-int(steps * warmup * 1000) // 1000), steps)
    for step in range(steps):
        assert schedule_factor(step, settings) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_the_rates_of_a_step_reach_their_groups() -> None:
    network = GLiNER.from_pretrained().model
    settings = config(lr_encoder=1.0, lr_others=4.0, steps=10, warmup=0.0, schedule="linear")
    optimizer = build_optimizer(network, settings)
    assert set_learning_rates(optimizer, 5, settings) == 2.0
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.5, 2.0]


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["deberta", "bert", "deberta-two-lstm", "token"])
def test_groups_are_those_of_the_package(checkpoint: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    from gliner import GLiNER as Reference
    from gliner.training import Trainer

    ours = GLiNER.from_pretrained(checkpoint(kind)).model
    reference = Reference.from_pretrained(str(checkpoint(kind)))
    arguments = reference.create_training_args(
        tmp_path, learning_rate=1e-5, others_lr=5e-5, weight_decay=0.01, others_weight_decay=0.02, use_cpu=True
    )
    theirs = Trainer(model=reference, args=arguments).create_optimizer()
    wanted = {
        name.removeprefix("model."): (group["lr"], group["weight_decay"])
        for group in theirs.param_groups
        for parameter in group["params"]
        for name, own in reference.named_parameters()
        if own is parameter and ".pooler." not in name
    }
    names = checkpoint_names(ours)
    found = {
        their: (group["peak_lr"], group["weight_decay"])
        for group in parameter_groups(ours, config(weight_decay=0.01, weight_decay_others=0.02))
        for parameter in group["params"]
        for name, own in ours.named_parameters()
        if own is parameter
        for their in names[name]
    }
    assert found == wanted


@pytest.mark.parametrize(("others", "decays"), [(None, [0.0, 0.0, 0.25, 0.25]), (0.0, [0.0, 0.0, 0.0, 0.25])])
def test_what_is_no_encoder_decays_as_the_encoder_does_unless_told(others: float | None, decays: list[float]) -> None:
    groups = parameter_groups(small_network(), config(weight_decay=0.25, weight_decay_others=others))
    assert sorted(group["weight_decay"] for group in groups) == decays


def test_a_network_that_is_all_frozen_has_nothing_to_train() -> None:
    network = GLiNER.from_pretrained().model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is left to train"):
        build_optimizer(network, config())

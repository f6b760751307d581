"""Whether all of a module is in inference mode."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from gliner_fast.predicting.inner_modules import InnerModules


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 2))).eval()


@pytest.mark.parametrize("place", ["", "0", "1", "1.0"])
def test_a_part_in_training_mode_is_found(place: str):
    module, inner = make(), InnerModules()
    assert not inner.are_training(module)
    module.get_submodule(place).training = True
    assert inner.are_training(module)
    module.eval()
    assert not inner.are_training(module)


@pytest.mark.parametrize("place", ["", "0", "1", "1.0"])
def test_so_is_one_that_was_put_in_later(place: str):
    module, inner = make(), InnerModules()
    assert not inner.are_training(module)
    module.get_submodule(place).add_module("new", nn.Dropout())
    assert inner.are_training(module)
    module.eval()
    module.get_submodule(place).new.add_module("newer", nn.Dropout())
    assert inner.are_training(module)


def test_what_was_taken_out_is_not_asked():
    module, inner = make(), InnerModules()
    module[1][0].train()
    assert inner.are_training(module)
    module[1][0] = nn.ReLU().eval()
    assert not inner.are_training(module)
    del module[1]
    assert not inner.are_training(module)


def test_a_place_may_be_empty():
    module, inner = make(), InnerModules()
    module.register_module("none", None)
    assert not inner.are_training(module)
    module.none = nn.Dropout()
    assert inner.are_training(module)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_torchscript_made_is_asked_too():
    module, inner = make(), InnerModules()
    module[0] = torch.jit.trace(nn.Sequential(nn.Linear(2, 2)).eval(), torch.zeros(1, 2))
    assert not inner.are_training(module)
    module[0].train()
    assert inner.are_training(module)


def test_it_makes_no_reference_cycle_and_copies_look_for_themselves():
    module = make()
    module.inner = InnerModules()
    assert not module.inner.are_training(module)
    copied = copy.deepcopy(module)
    copied[0].train()
    assert copied.inner.are_training(copied)
    assert not module.inner.are_training(module)
    gc.collect()
    gc.disable()
    try:
        held = weakref.ref(module)
        del module
        assert held() is None
    finally:
        gc.enable()

"""The door to Triton, with Triton behind it and without."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gliner_fast.kernels._triton as door


def load_again() -> ModuleType:
    """The same file as a second module, so that the real one stays as it is."""
    spec = importlib.util.spec_from_file_location("door_without_triton", Path(door.__file__))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_one(x):
    return x + 1


def test_without_triton_the_door_opens_on_plain_functions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # what Python puts there to make an import fail
    alone = load_again()
    assert not alone.HAS_TRITON
    assert alone.tl is None
    assert alone.jit(add_one) is add_one
    assert alone.jit_for_any(numbers=["x"])(add_one) is add_one


def test_a_stand_in_for_triton_gets_the_function(monkeypatch: pytest.MonkeyPatch):
    language, triton = ModuleType("triton.language"), ModuleType("triton")
    triton.language, triton.jit = language, lambda function, **options: ("kernel of", function, options)
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    with_triton = load_again()
    assert with_triton.HAS_TRITON
    assert with_triton.tl is language
    assert with_triton.jit(add_one) == ("kernel of", add_one, {})
    given = {"do_not_specialize": ["n"], "do_not_specialize_on_alignment": ["at"]}
    assert with_triton.jit_for_any(numbers=["n"], addresses=["at"])(add_one) == ("kernel of", add_one, given)


def test_the_door_agrees_with_what_is_installed():
    is_installed = importlib.util.find_spec("triton") is not None
    assert is_installed == door.HAS_TRITON

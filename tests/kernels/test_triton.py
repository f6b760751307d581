"""The door to Triton, with Triton behind it and without."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import gliner_fast.kernels._triton as door
from tests.installed import TRITON


def load_again() -> ModuleType:
    """The same file as a second module, so that the real one stays as it is."""
    spec = importlib.util.spec_from_file_location("door_without_triton", Path(door.__file__))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def add_one(x):
    return x + 1


def put_in_the_place_of_triton(version: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    language, triton = ModuleType("triton.language"), ModuleType("triton")
    triton.language, triton.jit = language, lambda function, **options: ("kernel of", function, options)
    triton.__version__ = version
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setitem(sys.modules, "triton.language", language)
    return language


def test_without_triton_the_door_opens_on_plain_functions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "triton", None)  # what Python puts there to make an import fail
    alone = load_again()
    assert not alone.HAS_TRITON
    assert alone.tl is None
    assert alone.jit(add_one) is add_one
    assert alone.jit_for_any(numbers=["x"])(add_one) is add_one


def test_a_stand_in_for_triton_gets_the_function(monkeypatch: pytest.MonkeyPatch):
    language = put_in_the_place_of_triton("3.10.0", monkeypatch)
    with_triton = load_again()
    assert with_triton.HAS_TRITON
    assert with_triton.tl is language
    assert with_triton.jit(add_one) == ("kernel of", add_one, {})
    given = {"do_not_specialize": ["n"], "do_not_specialize_on_alignment": ["at"]}
    assert with_triton.jit_for_any(numbers=["n"], addresses=["at"])(add_one) == ("kernel of", add_one, given)


@pytest.mark.parametrize(("version", "is_taken"), [("3.3.1", False), ("3.4.0", True), ("3.9.0+git123", True)])
def test_a_triton_that_is_too_old_for_the_kernels_is_as_none(
    version: str, is_taken: bool, monkeypatch: pytest.MonkeyPatch
):
    put_in_the_place_of_triton(version, monkeypatch)
    found = load_again()
    assert found.HAS_TRITON is is_taken
    assert (found.jit(add_one) is add_one) is not is_taken


def test_the_door_agrees_with_what_is_installed():
    assert (TRITON >= door.OLDEST) == door.HAS_TRITON

"""Bi-encoders alone have their methods, which are documented for all; tests/parity has their answers."""

from __future__ import annotations

import inspect

import pytest

from gliner_fast import GLiNER

METHODS = ["encode_labels", "predict_with_embeds", "batch_predict_with_embeds"]


@pytest.mark.parametrize("name", METHODS)
def test_another_model_says_why_it_lacks_them(name: str, built_in: GLiNER):
    assert not hasattr(built_in, name)
    with pytest.raises(AttributeError, match=f"the model is no bi-encoder, and has no {name}"):
        getattr(built_in, name)


@pytest.mark.parametrize("name", METHODS)
def test_they_are_documented(name: str):
    assert inspect.getdoc(getattr(GLiNER, name))
    assert "labels" in inspect.signature(getattr(GLiNER, name)).parameters


def test_what_no_model_has_is_missing_as_of_any_module(built_in: GLiNER):
    with pytest.raises(AttributeError, match="^'GLiNER' object has no attribute 'no_such_name'$"):
        _ = built_in.no_such_name

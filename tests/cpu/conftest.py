"""What tests of whole numbers share."""

from __future__ import annotations

import pytest

from gliner_fast import _rust

KINDS = {"int16": _rust.Int16Weights, "int8": _rust.Int8Weights}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Of whole numbers."""
    kind: str = request.param
    return kind

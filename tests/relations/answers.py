"""Compares answers of models that find relations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def assert_same(found: Any, expected: Any) -> None:
    """Asserts equality up to the rounding of scores."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-5)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:
        assert found == expected

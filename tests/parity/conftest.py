"""Pairs of predictors, loaded once a session."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.parity.pairs import Pair


@pytest.fixture(scope="session")
def pair(checkpoint: Callable[[str], Path]) -> Callable[[str], Pair]:
    """Gives ours and gliner's predictor for a kind of checkpoint."""

    @cache
    def loaded(kind: str) -> Pair:
        return Pair.load(checkpoint(kind))

    return loaded

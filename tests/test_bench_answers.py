"""What the benches take for agreement of two packages' answers."""

from __future__ import annotations

from typing import Any

import pytest

from benches.bench_end_to_end import same_answers
from benches.bench_gpu import agreement_of
from benches.conftest import Pair

NOTHING: list[Any] = [[], []]
FOUND: list[Any] = [[{"start": 0, "end": 3, "text": "Ada", "label": "person", "score": 0.9}], []]


def test_where_neither_finds_anything_nothing_was_compared():
    models = Pair(None, None, "cpu")
    assert same_answers(FOUND, FOUND, models, ["Ada", "b"], ["person"]).equal == 1
    with pytest.raises(AssertionError, match="nothing was compared"):
        same_answers(NOTHING, NOTHING, models, ["Ada", "b"], ["person"])


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_on_a_card_it_is_the_same(dtype: str):
    told, is_enough = agreement_of(lambda: FOUND, lambda: FOUND, lambda _: [], dtype)
    assert (told, is_enough) == ("1 of 1 entities as in fp32", True)
    assert not agreement_of(lambda: NOTHING, lambda: NOTHING, lambda _: [], dtype)[1]

"""Words that `gliner` reads without knowing where they stand are given our places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gliner_fast.comparing.placed_words import words_have_places

Words = list[tuple[str, Any, Any]]
OURS: Words = [("do", 0, 2), ("n't", 2, 5)]


def models(theirs: Words, ours: Words | None = OURS) -> tuple[Any, Any]:
    """A loaded `gliner` model, and ours, whose splitters find these words."""
    custom = None if ours is None else lambda _: iter(ours)
    reference = SimpleNamespace(data_processor=SimpleNamespace(words_splitter=lambda _: iter(theirs)))
    return reference, SimpleNamespace(data_processor=SimpleNamespace(custom_splitter=custom))


@pytest.mark.parametrize(
    ("theirs", "read"),
    [
        ([("do", 0, 2), ("n't", -1, 2)], OURS),
        ([("do", 0, 2), ("n't", None, None)], OURS),
        ([("do", 0, 3), ("n't", 3, 5)], [("do", 0, 3), ("n't", 3, 5)]),  # it knows places of its own
        ([("do", 0, 2), ("not", -1, 2)], [("do", 0, 2), ("not", -1, 2)]),  # it reads other words
    ],
)
def test_words_without_a_place_are_given_ours_where_they_are_the_same(theirs: Words, read: Words):
    reference, ours = models(theirs)
    with words_have_places(reference, ours):
        assert list(reference.data_processor.words_splitter("don't")) == read


def test_the_splitter_of_gliner_is_its_own_again_whatever_happens():
    reference, ours = models(OURS)
    own = reference.data_processor.words_splitter

    def fail() -> None:
        with words_have_places(reference, ours):
            assert reference.data_processor.words_splitter is not own
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert reference.data_processor.words_splitter is own


def test_beside_our_default_splitter_that_of_gliner_stays():
    reference, ours = models(OURS, None)
    own = reference.data_processor.words_splitter
    with words_have_places(reference, ours):
        assert reference.data_processor.words_splitter is own
    with words_have_places(SimpleNamespace(), models(OURS)[1]):  # one that has no processor
        pass

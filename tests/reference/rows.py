"""Prompt and words -> a row of subwords and its words mask, as a tokenizer and gliner's `prepare_word_mask` do it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row without padding.

    Attributes:
        input_ids: subword ids.
        words_mask: for each of them the number of the word that it stands for, from 1; 0 for all others.
    """

    input_ids: list[int]
    words_mask: list[int]


def make_row(
    prompt: list[list[int]],
    words: list[list[int]],
    *,
    prefix: list[int],
    suffix: list[int],
    max_subwords: int | None,
    pooling: str,
    corrected: bool,
) -> Row:
    """Lays a prompt and a text, both as lists of the ids of each word, into a row."""
    ids: list[int] = []
    word_ids: list[int | None] = []  # which word of prompt and text together, as the tokenizer tells
    for word, own in enumerate([*prompt, *words]):
        ids += own
        word_ids += [word] * len(own)
    if max_subwords is not None:
        room = max_subwords - len(prefix) - len(suffix)
        ids, word_ids = ids[:room], word_ids[:room]
    ids = [*prefix, *ids, *suffix]
    word_ids = [*[None] * len(prefix), *word_ids, *[None] * len(suffix)]
    return Row(ids, mark_words(word_ids, len(prompt), pooling=pooling, corrected=corrected))


def mark_words(word_ids: list[int | None], prompt_words: int, *, pooling: str, corrected: bool) -> list[int]:
    """The words mask (compat 4.4; with `corrected`, numbered as gliner's pull request 394 does)."""
    mask = []
    seen: set[int] = set()
    for place, word in enumerate(word_ids):
        if word is None:
            mask.append(0)
            continue
        seen.add(word)
        before = word_ids[place - 1] if place > 0 else None
        after = word_ids[place + 1] if place + 1 < len(word_ids) else None
        selected = {"first": word != before, "last": word != after, "mean": True, "max": True}[pooling]
        number = (word + 1 if corrected else len(seen)) - prompt_words
        mask.append(number if selected and number > 0 else 0)
    return mask

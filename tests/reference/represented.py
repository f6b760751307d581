"""Marks of words and a rating of spans -> candidates, one span and one type after another (compat section 6.5)."""

from collections.abc import Callable

Represented = tuple[int, int, int, float, float, int]  # start, end (excluded), class, score, lowest mark, marking class


def find_represented_spans(
    marks: list[list[list[float]]],
    edges: list[float],
    limits: list[float],
    rate: Callable[[int, int, int], float],
) -> list[Represented]:
    """Every span of a text that a type marks, with every type that rates it above its limit; NaN passes nothing.

    Args:
        marks: of each word and type: start, end, inside.
        edges: of each type, what marks must pass.
        limits: of each type, what ratings must pass.
        rate: gives the rating of first word, last word and type.
    """
    found = []
    for start in range(len(marks)):
        for marker, edge in enumerate(edges):
            for last in range(start, len(marks)):
                inside = [marks[word][marker][2] for word in range(start, last + 1)]
                own = [marks[start][marker][0], marks[last][marker][1], *inside]
                if not all(mark > edge for mark in own):
                    continue
                for class_, limit in enumerate(limits):
                    score = rate(start, last, class_)
                    if score > limit:
                        found.append((start, last + 1, class_, score, min(own), marker))
    return found

"""Marks of words -> candidates, one start with one end after another (compat section 6.5)."""

import numpy as np
from numpy.typing import NDArray

Marked = tuple[int, int, int, float, float]  # start, end (excluded), class, lower edge, lowest inside


def find_marked_spans(
    blocks: list[NDArray[np.float32]], edges: list[NDArray[np.float32]], insides: list[NDArray[np.float64]]
) -> list[list[Marked]]:
    """Every span of each text that is marked; NaN marks nothing.

    Args:
        blocks: scores of each text, (words, classes, 3): start, end, inside.
        edges: of each text, what starts and ends must pass, (classes,).
        insides: of each text, what words inside must reach, (classes,).
    """
    found = []
    for block, own_edges, own_insides in zip(blocks, edges, insides, strict=True):
        words, classes, _ = block.shape
        own = []
        for start in range(words):
            for label in range(classes):
                for last in range(start, words):
                    first, final = block[start, label, 0], block[last, label, 1]
                    within = [float(block[word, label, 2]) for word in range(start, last + 1)]
                    is_marked = first > own_edges[label] and final > own_edges[label]
                    if is_marked and all(score >= own_insides[label] for score in within):
                        own.append((start, last + 1, label, float(min(first, final)), min(within)))
        found.append(own)
    return found

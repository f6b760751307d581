"""Span scores -> candidates, one cell after another."""

import numpy as np
from numpy.typing import NDArray


def find_candidates(
    blocks: list[NDArray[np.float32]], thresholds: list[NDArray[np.float32]]
) -> list[list[tuple[int, int, int, float]]]:
    """(start, end, class, score) of every candidate of each text.

    Args:
        blocks: scores of each text, (words, max_width, classes).
        thresholds: of each text, (classes,).
    """
    found = []
    for block, limits in zip(blocks, thresholds, strict=True):
        words, widths, classes = block.shape
        own = []
        for start in range(words):
            for width in range(widths):
                for label in range(classes):
                    score = block[start, width, label]
                    if score > limits[label] and start + width + 1 <= words:
                        own.append((start, start + width + 1, label, float(score)))
        found.append(own)
    return found

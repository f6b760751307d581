"""Where memory is short: whose error says so, and how small a batch is to be next."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the host, had no room."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch has a class for its own CUDA allocator alone. On the CPU it says "can't allocate memory", of pinned memory
    # and of kernels the driver "out of memory", Triton too, and cuBLAS CUBLAS_STATUS_ALLOC_FAILED.
    told = ("allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(part in str(error) for part in told)


def halved_subwords(lengths: NDArray[np.int64], error: Exception, *, padded: bool, linked: bool = False) -> int:
    """Half the subwords of a batch that did not fit, padding included where there is any.

    Args:
        lengths: subwords of its texts.
        error: what said that there was no room.
        padded: each text takes as much as the longest.
        linked: relations were looked for, too.

    Raises:
        MemoryError: a single text cannot be halved; told in the user's terms.
    """
    longest = int(lengths.max())
    if len(lengths) == 1:
        advice = "ask for fewer labels at a time, or cut the text or its longest word"
        if linked:
            advice += "; where it has very many entities to relate, raise threshold or adjacency_threshold"
        raise MemoryError(
            f"a text of {longest:,} subwords, labels included, does not fit into memory: {advice}"
        ) from error
    return (len(lengths) * longest if padded else int(lengths.sum())) // 2


def lowered_budget(budget: int, halved: int) -> int:
    """The budget from now on, after a batch did not fit of which `halved` is half the subwords.

    It is halved at most. A small batch fails where others have taken the memory, which may pass: were half of that
    batch the budget from then on, one call with two short texts would make a server slow for good. And a batch that
    was planned with a larger budget does not halve it again.
    """
    return min(budget, max(halved, budget // 2))

"""Where memory is short: whose error says so, how small a batch is to be next, and when batches grow again."""

from __future__ import annotations

import re

import numpy as np
import torch
from numpy.typing import NDArray

# Batches that go well before a lowered budget is doubled. A batch that does not fit takes a card as long as some that
# do, so each time that this was too early it takes twice as many, up to the second number.
PATIENCE, MOST_PATIENCE = 128, 2**14
_TOLD_AGAIN = 16  # one shortage may halve a budget some times


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the host, had no room."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch has a class for its own CUDA allocator alone. On the CPU it says "can't allocate memory", of pinned memory
    # and of kernels the driver "out of memory", Triton too, cuBLAS CUBLAS_STATUS_ALLOC_FAILED (of the room for its
    # handle, that it is not initialized), and cuDNN ..._DEVICE_ALLOCATION_FAILED.
    told = (
        "allocate memory",
        "out of memory",
        "ALLOC_FAILED",
        "ALLOCATION_FAILED",
        "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",
    )
    return isinstance(error, RuntimeError) and any(part in str(error) for part in told)


def shortage_of_onednn(error: Exception) -> MemoryError | None:
    """What to tell where oneDNN had no memory on a CPU; None for other errors.

    It then fails in this thread for good, whatever memory there is later (seen with torch 2.11's): smaller batches, or
    torch in our place, would not help.
    """
    if not (isinstance(error, RuntimeError) and re.search("could not (create|execute) a primitive", str(error))):
        return None
    told = MemoryError(
        f"oneDNN {error}, as a rule for want of memory, and multiplies no more in this thread: free memory, or raise "
        "the limit that the process was given (ulimit -v), and start it anew"
    )
    told.__cause__ = error
    return told


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


class Recovery:
    """How a budget that was lowered gets back to what it was: memory may be short for a moment only.

    Threads may share it: what one miscounts for another is a batch or two.

    Attributes:
        now: what was made of the budget that was asked for.
        full: the budget in subwords before it was lowered; 0 where none was, or it has been back for long.
    """

    def __init__(self) -> None:
        self.now: int | None = None
        self.full = 0
        self._asked: int | None = None
        self._good = 0  # batches since the budget was changed
        self._patience = PATIENCE
        self._was_raised = False
        self._told = 0

    def lower(self, asked: int | None, full: int, budget: int) -> bool:
        """Notes that a budget is lowered; whether it is to be told: the first time, and where it falls much further.

        Args:
            asked: what is asked for until now; other than `now` where the user has changed it.
            full: that in subwords.
            budget: in subwords, from now on.
        """
        if not self.full or asked != self.now:
            self._forget()
            self._asked, self.full = asked, full
        elif self._was_raised:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        self.now, self._good, self._was_raised = budget, 0, False
        is_new = not self._told or budget <= self._told // _TOLD_AGAIN
        self._told = budget if is_new else self._told
        return is_new

    def after_batch(self, asked: int | None) -> int | None:
        """What is to be asked for once one more batch went well; `asked` is what was until now."""
        if not self.full:
            return asked
        if asked != self.now:
            self._forget()
            return asked
        self._good += 1
        if self._good >= self._patience:
            self._good, self._was_raised = 0, True
            if self.now == self._asked:
                self._forget()
            else:
                self.now = self._asked if self.now is None or 2 * self.now >= self.full else 2 * self.now
                return self.now
        return asked

    def _forget(self) -> None:
        self.full, self._good, self._patience, self._was_raised, self._told = 0, 0, PATIENCE, False, 0

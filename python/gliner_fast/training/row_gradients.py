"""Gradients of embedding tables, of which a step reads a few rows.

The gradient of `nn.Embedding` is as large as its table, made anew for each piece of a batch, and added up: most of it
zeros, for twelve of MiniLM's 23 million weights. Here a piece gives the rows that it read, and a step ends with one
table of zeros that stays, into which they are added.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Below that, a table is not worth the detour.
_LEAST_ROWS = 1024


class RowGradients:
    """The embedding tables of a network, each gradient of which is gathered once a step."""

    def __init__(self, network: nn.Module) -> None:
        """Makes the large tables of a network, those that are trained, give the rows that they were read at."""
        self._tables = [
            _Table(module)
            for module in network.modules()
            if isinstance(module, nn.Embedding) and module.num_embeddings >= _LEAST_ROWS and module.weight.requires_grad
        ]

    def gather(self) -> None:
        """Turns gradients of rows, as backward passes have left them, into ordinary ones.

        They hold until the next call, and nobody may write into them but to scale them.
        """
        for table in self._tables:
            table.gather()

    def release(self) -> None:
        """Gives the tables their ordinary gradients back: most optimizers know no others."""
        for table in self._tables:
            table.release()


class _Table:
    def __init__(self, module: nn.Embedding) -> None:
        self._was_sparse = module.sparse
        module.sparse = True
        self._module = module  # not its weight: a checkpoint may put another in its place
        self._gradient: Tensor | None = None
        self._rows: Tensor | None = None  # where the gradient is not zero

    def gather(self) -> None:
        weight = self._module.weight
        found = weight.grad
        if found is None or not found.is_sparse:
            return
        rows, values = found._indices()[0], found._values()  # noqa: SLF001  (uncoalesced: rows come several times)
        if self._gradient is None:
            self._gradient = torch.zeros_like(weight)
        elif self._rows is not None:
            self._gradient.index_fill_(0, self._rows, 0.0)
        weight.grad = self._gradient.index_add_(0, rows, values)
        self._rows = rows

    def release(self) -> None:
        self._module.sparse = self._was_sparse
        self._gradient = self._rows = None

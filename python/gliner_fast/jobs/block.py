"""What flows through a job: rows as they were read, and rows that cannot be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gliner_fast.jobs._arrow import pa

Labels: TypeAlias = Sequence[str] | Mapping[str, str]
"""A row's own labels: names, or label to description."""
Columns: TypeAlias = pa.Table | list[dict[str, Any]]
"""What rows pass through: a table or, read from JSON lines for a JSON lines output, objects as they came."""


@dataclass(frozen=True)
class Reject:
    r"""An input row that cannot be used.

    Attributes:
        row: its number in the whole input, from 0.
        file: where it stands.
        line: its line in that file, from 1; in Parquet, which has no lines, its row in that file, from 1.
        reason: what is wrong, and what was expected.
        raw: the line as it stands; bytes that are no UTF-8 as escapes such as \\xff. Nothing, of a row that was good
            until the model read it.
    """

    row: int
    file: str
    line: int
    reason: str
    raw: str


@dataclass(frozen=True)
class Block:
    """Consecutive input rows, of which R can be used.

    Attributes:
        count: rows read, good ones and rejects.
        rows: (R,) number of each good row in the whole input, from 0.
        texts: R texts.
        labels: for each good row its own labels; None where the job has one list of labels for all rows.
        columns: R rows of input columns to pass through. A table without columns has no rows either: count by `rows`.
        rejects: the other rows, in order.
        files: for each good row where it stands.
        lines: (R,) line of each good row in its file, from 1, as in `Reject`.
    """

    count: int
    rows: NDArray[np.int64]
    texts: Sequence[str]
    labels: Sequence[Labels] | None
    columns: Columns
    rejects: Sequence[Reject]
    files: Sequence[str]
    lines: NDArray[np.int64]

    def reject(self, reasons: Mapping[int, str]) -> Block:
        """The same with some of the R good rows, by their places, among the rejects."""
        if not reasons:
            return self
        kept = [place for place in range(len(self.rows)) if place not in reasons]
        rejects = [
            Reject(int(self.rows[place]), self.files[place], int(self.lines[place]), reason, raw="")
            for place, reason in reasons.items()
        ]
        columns = self.columns
        if isinstance(columns, list):
            columns = [columns[place] for place in kept]
        elif columns.num_columns:
            columns = columns.take(pa.array(kept, pa.int64()))
        return Block(
            self.count,
            self.rows[kept],
            [self.texts[place] for place in kept],
            None if self.labels is None else [self.labels[place] for place in kept],
            columns,
            sorted([*self.rejects, *rejects], key=lambda reject: reject.row),
            [self.files[place] for place in kept],
            self.lines[kept],
        )

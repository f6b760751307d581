"""How far an engine is, while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from gliner_fast.stats import Stats


@dataclass
class Pace:
    """How far a job is, for whoever shows it; read while it runs.

    Attributes:
        rows_read: input rows read or passed over.
        bytes_read: of the files, as they lie on the disk.
        bytes_total: of all files; 0 where nobody knows.
        rows_total: of the whole input; None where it is not known.
        computing_since: when the model was there, by `time.monotonic`; None before.
        live: what the pipeline has done since the job went on.
    """

    rows_read: int = 0
    bytes_read: int = 0
    bytes_total: int = 0
    rows_total: int | None = None
    computing_since: float | None = None
    live: Stats = field(default_factory=Stats)

"""The one door to pyarrow, which only jobs need: says how to get it where it is missing."""

from __future__ import annotations

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ModuleNotFoundError as error:
    raise ImportError("jobs on files need pyarrow: pip install 'gliner-fast[jobs]'") from error

__all__ = ["pa", "pc", "pq"]

"""Annotated sentences: read from and written to the formats that people have, counted, and parted."""

from __future__ import annotations

from gliner_fast.annotated.example import DataError, Example
from gliner_fast.annotated.examples import read_examples
from gliner_fast.annotated.writers import write_examples

__all__ = ["DataError", "Example", "read_examples", "write_examples"]

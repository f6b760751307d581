"""What can go wrong with a run."""

from __future__ import annotations


class TrainingError(ValueError):
    """A run cannot begin or go on; the message says why and what to do."""

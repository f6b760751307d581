"""Errors that name what is wrong with a checkpoint."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint is broken, incomplete or inconsistent; the message names the file and the way out."""


class UnsupportedCheckpointError(CheckpointError):
    """A sound checkpoint of a kind that this version does not run."""


class CheckpointWarning(UserWarning):
    """A checkpoint loads, but something in it is missing or unused; the message names it."""

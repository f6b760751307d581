"""What jobs raise. It lies apart: who catches it needs none of what jobs need."""

from __future__ import annotations


class JobError(ValueError):
    """A job that cannot start or go on; the message says why and what to do. What is finished stays finished."""


class JobInputError(ValueError):
    """The input as a whole cannot be read; the message names the file and says what to do."""

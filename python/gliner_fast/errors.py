"""Errors that name what is wrong with a checkpoint, and how messages show values."""

from __future__ import annotations

from collections.abc import Iterable


class CheckpointError(ValueError):
    """A checkpoint is broken, incomplete or inconsistent; the message names the file and the way out."""


class UnsupportedCheckpointError(CheckpointError):
    """A sound checkpoint of a kind that this version does not run."""


class CheckpointWarning(UserWarning):
    """A checkpoint loads, but something in it is missing or unused; the message names it."""


class LongTextError(ValueError):
    """A text that the model does not read whole, with `on_long="error"`.

    Attributes:
        text: its number.
        size: what it has, and what the model has room for.
    """

    def __init__(self, text: int, size: str) -> None:
        super().__init__(text, size)  # what it is pickled by
        self.text = text
        self.size = size

    def __str__(self) -> str:
        return f"text {self.text} {self.size}: on_long='window' reads all of it, 'truncate' its beginning"


def is_of_system(error: BaseException) -> bool:
    """Whether the system refused something, a disk say; what libraries find wrong in a file has no number."""
    return isinstance(error, OSError) and error.errno is not None


def shown(value: object) -> str:
    """A value in a message: at most 60 characters, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def listed(names: Iterable[str]) -> str:
    """Names in a message."""
    return ", ".join(map(repr, names))


def count(noun: str, number: int) -> str:
    """A number of things, in a message: "1 row", "2,000 rows", "3 entities"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def reason_of(error: BaseException) -> str:
    """Somebody else's error in a message of ours: its class and first line."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"

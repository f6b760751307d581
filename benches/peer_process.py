"""A predictor in a process of its own, so that no rival's waiting threads take the cores from another."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from benches.peers import Answers, Predict


class PeerProcess:
    """Loads a predictor in a new process and has it answer there, when called.

    Args:
        load: makes a predictor of a folder, in the new process.
        folder: of the checkpoint.
        calls: the texts of each call of the predictor; a run makes all of them.
        labels: their entity types.
    """

    def __init__(
        self, load: Callable[[Path], Predict], folder: Path, calls: Sequence[Sequence[str]], labels: list[str]
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, load, folder, calls, labels), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()

    def run(self) -> None:
        """Predicts, and leaves the answers where they are.

        Raises:
            EOFError, OSError: the process has ended; its own error is on standard error.
        """
        self._connection.send(False)
        self._connection.recv()

    def answers(self) -> Answers:
        """Predicts and sends the answers over. Raises as `run` does."""
        self._connection.send(True)
        return cast(Answers, self._connection.recv())


def _serve(
    connection: Connection,
    load: Callable[[Path], Predict],
    folder: Path,
    calls: Sequence[Sequence[str]],
    labels: list[str],
) -> None:
    predict = load(folder)
    while True:
        try:
            wants_answers = connection.recv()
        except EOFError:
            return
        answers = [entities for texts in calls for entities in predict(texts, labels)]
        connection.send(answers if wants_answers else None)

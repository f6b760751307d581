"""Jobs and commands in processes of their own, to be killed: one loads everything, and forks a child for each.

A child starts within milliseconds, where a new Python would take seconds to import torch; many kills stay affordable.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMPLETE, STOPPED, FAILED = 0, 3, 4


class Nursery:
    """Forks jobs of one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self._connection, theirs = socket.socketpair()
        handle = theirs.fileno()
        command = [sys.executable, "-W", "ignore", "-m", "tests.nursery", str(checkpoint), str(handle)]
        self._process = subprocess.Popen(command, pass_fds=[handle], stdin=subprocess.DEVNULL)
        theirs.close()
        assert self._answer() == "ready"

    def start(self, **arguments: Any) -> int:
        """Starts `extract_files(**arguments)` in a child and returns its process number.

        With `die_at=n` the child dies at its n-th call to the disk (fsync or rename), as if it were killed there.
        """
        return int(self._ask(arguments))

    def command(self, *arguments: object, streams: Sequence[int], folder: Path, **environment: str) -> int:
        """Starts `gliner-fast` in a child, with three open files as its streams, and returns its process number."""
        question = {"arguments": [*map(str, arguments)], "folder": str(folder), "environment": environment}
        return int(self._ask(question, streams))

    def wait(self, child: int) -> int:
        """Waits for a child; returns its exit code (of a job: COMPLETE, STOPPED, FAILED), or minus a signal."""
        return int(self._ask({"wait": child}))

    def poll(self, child: int) -> int | None:
        """Returns None while a child runs; what `wait` would have returned, once it has ended, in its place."""
        code = self._ask({"poll": child})
        return None if code == "None" else int(code)

    def run(self, **arguments: Any) -> int:
        """Runs `extract_files(**arguments)` to its end."""
        return self.wait(self.start(**arguments))

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.wait(30)

    def _ask(self, question: dict[str, Any], handles: Sequence[int] = ()) -> str:
        socket.send_fds(self._connection, [json.dumps(question).encode()], handles)
        return self._answer()

    def _answer(self) -> str:
        answer = self._connection.recv(2**16).decode()
        assert answer, "the nursery has ended"
        return answer


def _main() -> None:
    from gliner_fast import GLiNER, extract_files
    from gliner_fast.cli import main

    assert extract_files  # loaded here, and what the model loads late too, once and not by each child
    model = GLiNER.from_pretrained(sys.argv[1])
    model.predict_entities("Ada Lovelace lived in London.", ["person"])
    connection = socket.socket(fileno=int(sys.argv[2]))
    connection.sendall(b"ready")
    while True:
        message, handles, _, _ = socket.recv_fds(connection, 2**16, 3)
        if not message:
            return
        question = json.loads(message)
        if "wait" in question or "poll" in question:
            child, flags = (question["wait"], 0) if "wait" in question else (question["poll"], os.WNOHANG)
            ended, status = os.waitpid(child, flags)
            connection.sendall(str(os.waitstatus_to_exitcode(status) if ended else None).encode())
            continue
        child = os.fork()
        if child == 0 and handles:
            connection.close()
            for number, handle in enumerate(handles):
                os.dup2(handle, number)
                os.close(handle)
            os.chdir(question["folder"])
            os.environ.update(question["environment"])
            main(question["arguments"])  # which exits
        if child == 0:
            _run(model, question)
        for handle in handles:
            os.close(handle)
        connection.sendall(str(child).encode())


def _run(model: Any, arguments: dict[str, Any]) -> None:
    from gliner_fast.jobs import extract_files

    code = FAILED
    try:
        die_at(arguments.pop("die_at", None))
        report = extract_files(model=model, **arguments)
        code = COMPLETE if report.is_complete else STOPPED
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def die_at(call: int | None) -> None:
    """Ends this process as SIGKILL would, when it is about to sync or rename a file for the n-th time."""
    if call is None:
        return
    left = call

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sync = os.fsync

    def counted_sync(handle: int) -> None:
        count()
        sync(handle)

    os.fsync = counted_sync
    # Python tells its audit of every os.rename, os.replace and os.link, whoever calls them; of fsync it does not.
    sys.addaudithook(lambda event, _: count() if event in {"os.rename", "os.link"} else None)


if __name__ == "__main__":
    _main()

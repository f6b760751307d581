"""Jobs in processes of their own, to be killed: one process loads everything, and forks a child for each job.

A child starts within milliseconds, where a new Python would take seconds to import torch; 20 kills stay affordable.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

COMPLETE, STOPPED, FAILED = 0, 3, 4


class Nursery:
    """Forks jobs of one checkpoint."""

    def __init__(self, checkpoint: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.jobs.nursery", str(checkpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def start(self, **arguments: Any) -> int:
        """Starts `extract_files(**arguments)` in a child and returns its process number.

        With `die_at=n` the child dies at its n-th call to the disk (fsync or rename), as if it were killed there.
        """
        return int(self._ask(arguments))

    def wait(self, child: int) -> int:
        """Waits for a child; returns COMPLETE, STOPPED, FAILED, or minus the signal that ended it."""
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
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _ask(self, question: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _main() -> None:
    from gliner_fast import GLiNER, extract_files

    assert extract_files  # loaded here, and what the model loads late too, once and not by each child
    model = GLiNER.from_pretrained(sys.argv[1])
    model.predict_entities("Ada Lovelace lived in London.", ["person"])
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            _, status = os.waitpid(question["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        if "poll" in question:
            ended, status = os.waitpid(question["poll"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if ended else None, flush=True)
            continue
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            _run(model, question)
        print(child, flush=True)


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

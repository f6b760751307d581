"""Runs commands in this process."""

import io
import sys

import pytest

from gliner_fast.cli import main


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs the command line; gives its exit code, what it wrote, and its complaints."""

    def runner(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return end.value.code, out, err

    return runner

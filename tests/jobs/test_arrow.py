"""The door to pyarrow."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import gliner_fast


def test_a_missing_pyarrow_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    door = Path(gliner_fast.__file__).parent / "jobs" / "_arrow.py"
    with pytest.raises(ImportError, match=r"pip install 'gliner-fast\[jobs\]'"):
        runpy.run_path(str(door))

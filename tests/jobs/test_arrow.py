"""The door to pyarrow."""

from __future__ import annotations

import pydoc
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import gliner_fast


def test_a_missing_pyarrow_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    door = Path(gliner_fast.__file__).parent / "jobs" / "_arrow.py"
    with pytest.raises(ImportError, match=r"pip install 'gliner-fast\[jobs\]'"):
        runpy.run_path(str(door))


_ALONE = """
import sys
sys.modules["pyarrow"] = sys.modules["orjson"] = None
import gliner_fast
for name in dir(gliner_fast):
    getattr(gliner_fast, name)
assert "RayOptions" in dir(gliner_fast) and "extract_files" not in dir(gliner_fast)
try:
    gliner_fast.extract_files
except ImportError as error:
    print(error)
"""


def test_without_it_all_but_jobs_can_be_named():
    told = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, check=True).stdout
    assert told == "jobs on files need pyarrow: pip install 'gliner-fast[jobs]'\n"
    assert "extract_files(" in pydoc.render_doc(gliner_fast, renderer=pydoc.plaintext)

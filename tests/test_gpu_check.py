"""`make gpu-check` on a machine that has less than `.venv`: what it needs, and what is left out without it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from benches import hardware

ROOT = Path(__file__).resolve().parent.parent
# What stands in for a machine without them: Python itself refuses these imports.
MISSING = ("gliner", "pyarrow", "ray", "accelerate", "datasets", "pandas", "sentencepiece")
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); import pytest; sys.exit(pytest.main())"


def test_gpu_tests_need_neither_plugins_nor_gliner():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "-p", "no:timeout", "-p", "no:benchmark", "-p", "no:xdist", "-q",
         "--collect-only", "-m", "gpu and not gliner", "tests/test_gpu.py", "tests/kernels"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": "python"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_the_built_in_model_answers_as_on_the_cpu" in done.stdout
    assert "test_a_random_checkpoint_answers_as_gliner_does" not in done.stdout


def test_a_result_names_the_packages_that_are_here(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "gliner":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(hardware, "version", version)
    assert hardware.installed_versions() == dict.fromkeys(
        ("torch", "transformers", "tokenizers", "numpy", "triton", "disentangled-flash", "flashdeberta"), "1.0"
    )

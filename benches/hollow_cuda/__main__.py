"""Tests and benches on the hollow CUDA, as `rehearsal` has them: `python -m benches.hollow_cuda PYTEST ARGUMENTS`."""

import sys

import pytest

from benches import hollow_cuda

if not hollow_cuda.is_here():
    hollow_cuda.rehearse(hollow_cuda.FOLDER)
sys.exit(pytest.main(sys.argv[1:]))

"""What becomes of the memory that a process frees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gliner_fast.heap import LARGEST_KEPT, _is_glibc

# Tensors like those of a layer come and go; how many pages had to be asked for anew once they had come before.
COME_AND_GO = f"""
import resource
import torch
from gliner_fast import GLiNER

if {{loads}}:
    GLiNER.from_pretrained()
for step in range(12):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    parts = [torch.zeros({LARGEST_KEPT} - 8192, dtype=torch.uint8) for _ in range(4)]
    del parts
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 4 * LARGEST_KEPT // os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 0
NAMES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "THP_MEM_ALLOC_ENABLE", "LD_PRELOAD")

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = [
    pytest.mark.skipif(not _is_glibc(), reason="another C library, whose heap is left as it is"),
    pytest.mark.skipif(
        HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="pages are not counted one by one here"
    ),
]


def pages_asked_for(*, loads: bool, **environment: str) -> int:
    kept = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", COME_AND_GO.format(loads=loads)],
        env={**kept, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


# Without a model it is one or the other: what lies at the end of the heap decides.


def test_with_a_model_what_is_freed_is_kept():
    assert pages_asked_for(loads=True) < PAGES / 10


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_environment_says_stands(name: str):
    assert pages_asked_for(loads=True, **{name: "131072"}) > PAGES

"""What becomes of the memory that a process frees."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from gliner_fast.cpu import heap
from gliner_fast.cpu.heap import LARGEST_KEPT, keep_freed_memory

NAMES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")

# How many blocks come straight from the system, once the first tensor of nearly 32 MiB is there.
COUNT_BLOCKS = f"""
import ctypes
import torch
from gliner_fast import GLiNER

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usm fsm uord ford keep".split()]

def blocks():
    count = ctypes.CDLL(None).mallinfo2
    count.restype = Info
    return count().hblks

GLiNER.from_pretrained()
before = blocks()
large = torch.zeros({LARGEST_KEPT} - 8192, dtype=torch.uint8)
print(blocks() - before)
"""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """What the C library is told, in place of telling it; on any system."""
    calls: list[tuple[int, int]] = []

    def mallopt(name: int, value: int) -> int:
        calls.append((name, value))
        return 1

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(heap.sys, "platform", "linux")
    monkeypatch.setattr(heap.os, "confstr", lambda _: "glibc 2.36", raising=False)
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory.cache_clear()
    yield calls
    keep_freed_memory.cache_clear()


def test_glibc_is_told_once(told: list[tuple[int, int]]):
    keep_freed_memory()
    keep_freed_memory()
    assert told == [(-3, 32 * 2**20), (-1, 256 * 2**20)]  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


@pytest.mark.parametrize("name", NAMES)
def test_what_the_environment_says_stands(name: str, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "")
    keep_freed_memory()
    assert told == []


def no_such_name(_: str) -> str:
    raise ValueError("unrecognized configuration name")  # macOS


def invalid(_: str) -> str:
    raise OSError(22, "Invalid argument")  # musl


@pytest.mark.parametrize("confstr", [no_such_name, invalid, lambda _: None, lambda _: "other 1.0", None])
def test_other_libraries_are_left_as_they_are(confstr, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch):
    if confstr is None:
        monkeypatch.delattr(heap.os, "confstr")
        monkeypatch.setattr(heap.sys, "platform", "win32")
    else:
        monkeypatch.setattr(heap.os, "confstr", confstr)
    keep_freed_memory()
    assert told == []


def test_one_that_refuses_the_first_is_not_told_the_second(
    told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
):
    def refuse(name: int, value: int) -> int:
        told.append((name, value))
        return 0

    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=refuse))
    keep_freed_memory()
    assert [name for name, _ in told] == [-3]


def has_mallinfo() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallinfo2")


def has_mimalloc() -> bool:
    """Whether torch takes its tensors from an allocator of its own, as it does on ARM."""
    torch = find_spec("torch")
    libraries = Path(torch.origin).parent.glob("lib/libc10.*") if torch and torch.origin else ()
    return any(b"mi_malloc" in library.read_bytes() for library in libraries)


@pytest.mark.skipif(not has_mallinfo(), reason="needs glibc 2.33, which counts the blocks")
@pytest.mark.skipif(has_mimalloc(), reason="torch does not ask glibc for its tensors")
@pytest.mark.parametrize(("environment", "blocks"), [({}, 0), ({"MALLOC_MMAP_THRESHOLD_": "131072"}, 1)], ids=str)
def test_a_loaded_model_s_process_takes_large_tensors_from_its_heap(environment: dict[str, str], blocks: int):
    kept = {name: value for name, value in os.environ.items() if name not in (*NAMES, "LD_PRELOAD")}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_BLOCKS], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == blocks

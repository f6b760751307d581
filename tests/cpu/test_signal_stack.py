"""Signals that come while oneDNN computes with the stack pointer on the heap.

In processes of their own: pytest's faulthandler would give this one such a stack already.
"""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from gliner_fast.cpu.openmp import parallel_address

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's layout of stack_t")

COMPUTES = """
import signal
import torch
from gliner_fast.cpu.linear import choose_linear, linear

torch.set_num_threads(1)
came = wrong = 0

def count(number, frame):
    global came
    came += 1

signal.signal(signal.SIGALRM, count)
inputs = [(rows, torch.randn(rows, width), torch.randn(64, width)) for rows, width in ((64, 256), (2, 768), (64, 3072))]
with torch.inference_mode():
    assert choose_linear(*inputs[0][1:]) == "onednn"
    expected = [linear(vectors, weight) for _, vectors, weight in inputs]
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    while came < 5000:
        for (_, vectors, weight), known in zip(inputs, expected):
            wrong += not torch.equal(linear(vectors, weight), known)
    signal.setitimer(signal.ITIMER_REAL, 0)
assert not wrong
"""

STACK = """
import ctypes, faulthandler, os, sys, threading

class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t)]

def stack():
    asked = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(asked)) == 0
    return None if asked.flags & 2 else (asked.start, asked.bytes)  # SS_DISABLE

from gliner_fast.cpu.signal_stack import keep_signals_away
assert stack() is None
"""


IN_A_THREAD = """
import signal, threading, time
import torch
from gliner_fast.cpu.linear import choose_linear, linear

signal.signal(signal.SIGPROF, lambda number, frame: None)
inputs = [(torch.randn(rows, width), torch.randn(64, width)) for rows, width in ((64, 256), (2, 768), (64, 3072))]

def compute():
    with torch.inference_mode():
        assert choose_linear(*inputs[0]) == "onednn"
        expected = [linear(*own) for own in inputs]
        signal.setitimer(signal.ITIMER_PROF, 1e-4, 1e-4)
        wrong, end = 0, time.process_time() + 6
        while time.process_time() < end:
            wrong += sum(not torch.equal(linear(*own), known) for own, known in zip(inputs, expected))
        signal.setitimer(signal.ITIMER_PROF, 0)
    assert not wrong
    found.append(True)

found = []
thread = threading.Thread(target=compute); thread.start(); thread.join()
assert found
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("GLINER_FAST_LINEAR", "onednn")
    monkeypatch.delenv("PYTHONFAULTHANDLER", raising=False)


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="needs oneDNN on x86",
)
@pytest.mark.parametrize("vectors", ["AVX2", "DEFAULT"])
def test_signals_change_nothing(environment, monkeypatch, vectors):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", vectors)
    run(COMPUTES)


def test_the_main_thread_gets_a_stack_once(environment):
    run(STACK + "keep_signals_away(); first = stack(); keep_signals_away(); assert first and stack() == first")


def test_one_that_was_taken_away_is_made_anew(environment):
    run(
        STACK
        + """
from gliner_fast._rust import take_signal_stacks

for _ in range(2):
    take_signal_stacks(0)
    assert stack()
    assert ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(None, 2, 0)), None) == 0
    assert stack() is None
"""
    )


def test_a_stack_of_somebody_else_stays(environment):
    run(STACK + "faulthandler.enable(); first = stack(); keep_signals_away(); assert first and stack() == first")


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available(),
    reason="needs oneDNN on x86",
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_timer_of_cpu_time_changes_nothing_in_another_thread(environment, threads):
    """The system gives its signals to a thread that computes, torch's own among them."""
    run(f"import torch; torch.set_num_threads({threads})\n" + IN_A_THREAD)


def test_other_threads_get_one_for_as_long_as_they_live(environment):
    run(
        STACK
        + """
found = []

def compute():
    keep_signals_away()
    found.append(stack())

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def compute_in_a_thread():
    other = threading.Thread(target=compute); other.start(); other.join()

compute_in_a_thread()
assert found[0] and stack() is None
before = resident()
for _ in range(400):
    compute_in_a_thread()
assert all(found) and resident() - before < 50 * 2**20, resident() - before
keep_signals_away()
assert stack()
"""
    )


@pytest.mark.skipif(not parallel_address(), reason="torch has an OpenMP library without GOMP_parallel, or none")
def test_torch_s_threads_get_one_each(environment):
    run(
        STACK
        + """
import torch
from gliner_fast.cpu.openmp import parallel_address

Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
parallel = ctypes.CFUNCTYPE(None, Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(parallel_address())

def stacks():
    found = []
    parallel(Body(lambda data: found.append(stack())), None, 0, 0)
    return found

torch.set_num_threads(3)
assert stacks() == [None] * 3
keep_signals_away()
found = stacks()
assert all(found) and len(set(found)) == 3, found
"""
    )


def test_a_process_that_a_thread_forks_has_one_too(environment):
    run(
        STACK
        + """
keep_signals_away()
codes = []

def fork():
    child = os.fork()
    if child == 0:
        keep_signals_away()
        os._exit(0 if stack() else 1)
    codes.append(os.waitpid(child, 0)[1])

other = threading.Thread(target=fork); other.start(); other.join()
assert codes == [0]
"""
    )

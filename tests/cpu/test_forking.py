"""Processes that are forked while other threads are at work."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_is_forked_while_a_thread_looks_words_up_predicts():
    """The thread is in the cache nearly all the time, for 400,000 words again and again."""
    program = """
import os, signal, threading, time
from gliner_fast import GLiNER, _rust
from gliner_fast.words import split_words
model = GLiNER.from_pretrained()
text = "Ada Lovelace lived in London."
found = model.predict_entities(text, ["person", "city"])
words = split_words(["word%d" % (i % 5000) for i in range(400_000)], 384).read
model.data_processor.batcher.encode_words(words)
stop = False
def look_up():
    while not stop:
        model.data_processor.batcher._cache.look_up(words)
thread = threading.Thread(target=look_up)
thread.start()
time.sleep(0.1)
for _ in range(4):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        same = model.predict_entities(text, ["person", "city"])
        if os.fork() == 0:
            os._exit(0 if model.predict_entities(text, ["person", "city"]) == same else 1)
        ended = os.waitstatus_to_exitcode(os.wait()[1])
        os._exit(ended if [e["text"] for e in same] == [e["text"] for e in found] != [] else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
thread.join()
print(len(model.data_processor.batcher._cache) >= 5000)
"""
    assert run(program).split() == [*(4 * ["0"]), "True"]


def test_a_first_prediction_imports_nothing():
    """Another thread might be importing it at a fork."""
    program = """
import sys
from gliner_fast import GLiNER
model = GLiNER.from_pretrained()
before = set(sys.modules)
texts = ["Ada Lovelace lived in London.", "Ada Lovelace lived in London. " * 80]
model.inference(texts, ["person", "city"])
model.inference(texts, ["person", "city"], on_long="window")
list(model.stream(texts, ["person", "city"]))
print(sorted(set(sys.modules) - before))
"""
    assert run(program) == "[]\n"


def test_a_process_that_is_forked_while_a_thread_builds_a_model_builds_its_own():
    program = """
import os, signal, threading
import torch
from gliner_fast import GLiNER
from gliner_fast.encoder import parameters_on_meta
inside, done = threading.Event(), threading.Event()
def build():
    with parameters_on_meta():
        inside.set()
        done.wait()
thread = threading.Thread(target=build)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    register = torch.nn.Module.register_parameter
    model = GLiNER.from_pretrained()
    found = model.predict_entities("Ada Lovelace lived in London.", ["person", "city"])
    os._exit(0 if found and register.__module__.startswith("torch.") else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
thread.join()
print(torch.nn.Module.register_parameter.__module__)
"""
    assert run(program).split() == ["0", "torch.nn.modules.module"]

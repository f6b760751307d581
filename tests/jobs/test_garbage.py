"""What the garbage collector passes over while a job runs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from gliner_fast import extract_files
from gliner_fast.jobs.garbage import spare_what_is_there


@pytest.fixture(autouse=True)
def nothing_spared():
    gc.unfreeze()
    yield
    gc.unfreeze()


GPU = torch.device("cuda", 0)  # which need not be there


def test_what_is_there_is_spared_and_what_comes_later_is_not():
    before = [[]]
    with spare_what_is_there([torch.device("cpu"), GPU]):
        assert gc.get_freeze_count() > 1000
        later = [[]]
        looked_at = {id(one) for one in gc.get_objects()}
        assert id(before) not in looked_at
        assert id(later) in looked_at
    assert gc.get_freeze_count() == 0


def test_garbage_is_not_spared():
    class Node:
        pass

    node = Node()
    node.itself, gone = node, weakref.ref(node)
    gc.disable()
    try:
        del node
        with spare_what_is_there([GPU]):
            assert gone() is None
    finally:
        gc.enable()


def test_nothing_is_spared_for_a_cpu():
    with spare_what_is_there([torch.device("cpu")]):
        assert gc.get_freeze_count() == 0


def test_what_others_spare_they_spare_afterwards_and_no_more():
    before = [[]]
    gc.freeze()
    later = [[]]
    with spare_what_is_there([GPU]):
        pass
    looked_at = {id(one) for one in gc.get_objects()}
    assert id(before) not in looked_at
    assert id(later) in looked_at


def test_a_job_spares_what_is_there_and_gives_it_back_also_after_an_error(tmp_path, monkeypatch):
    counts, given = [], []

    def spare(devices):
        given.extend(devices)
        return spare_what_is_there([GPU])

    def forward(*_):
        counts.append(gc.get_freeze_count())
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("gliner_fast.jobs.local_engine.spare_what_is_there", spare)
    monkeypatch.setattr("gliner_fast.network.Network.forward", forward)
    texts = tmp_path / "texts.txt"
    texts.write_text("Ada Lovelace lived in London.\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        extract_files(texts, tmp_path / "found.jsonl", ["person"])
    assert given == [torch.device("cpu")]
    assert counts[0] > 1000
    assert gc.get_freeze_count() == 0

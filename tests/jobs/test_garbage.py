"""What the garbage collector passes over while a job runs."""

from __future__ import annotations

import gc

import pytest

from gliner_fast import extract_files
from gliner_fast.jobs.garbage import spare_what_is_there


@pytest.fixture(autouse=True)
def nothing_spared():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_is_there_is_spared_and_what_comes_later_is_not():
    before = [[]]
    with spare_what_is_there():
        assert gc.get_freeze_count() > 1000
        later = [[]]
        looked_at = {id(one) for one in gc.get_objects()}
        assert id(before) not in looked_at
        assert id(later) in looked_at
    assert gc.get_freeze_count() == 0


def test_what_others_spare_they_spare_afterwards_and_no_more():
    before = [[]]
    gc.freeze()
    later = [[]]
    with spare_what_is_there():
        pass
    looked_at = {id(one) for one in gc.get_objects()}
    assert id(before) not in looked_at
    assert id(later) in looked_at


def test_a_job_spares_its_model_and_gives_it_back_also_after_an_error(tmp_path, monkeypatch):
    counts = []

    def forward(*_):
        counts.append(gc.get_freeze_count())
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("gliner_fast.network.SpanNetwork.forward", forward)
    texts = tmp_path / "texts.txt"
    texts.write_text("Ada Lovelace lived in London.\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        extract_files(texts, tmp_path / "found.jsonl", ["person"])
    assert counts[0] > 1000
    assert gc.get_freeze_count() == 0

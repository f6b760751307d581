"""`cpu/openmp.py`: one thread for what is small, while other threads keep theirs."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gliner_fast.cpu.openmp import in_one_thread


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP")
def test_one_thread_here_and_as_many_as_before_elsewhere_and_afterwards(two_threads):
    with ThreadPoolExecutor(1) as pool:
        with in_one_thread():
            assert torch.get_num_threads() == 1
            assert pool.submit(torch.get_num_threads).result() == 2
            with in_one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2

        def in_a_new_thread():
            with in_one_thread():
                inside = torch.get_num_threads()
            return inside, torch.get_num_threads()

        assert pool.submit(in_a_new_thread).result() == (1, 2)


def test_an_error_leaves_the_threads_as_they_were(two_threads):
    with pytest.raises(KeyError), in_one_thread():
        raise KeyError
    assert torch.get_num_threads() == 2

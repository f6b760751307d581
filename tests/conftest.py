"""What all tests share: no network, and random checkpoints that are made once a session."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Tiny models gain nothing from threads, and threads that wait for a busy core cost a hundred times their work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # quiet where a test forks

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

# Before a kernel is imported: without a GPU they run in Triton's interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a kind of checkpoint (`tests.checkpoints.KINDS`); read only: tests share it."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def made(kind: str) -> Path:
        return make_checkpoint(root / kind, kind=kind)

    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a checkpoint: gliner writes them."""
    for item in items:
        if "checkpoint" in getattr(item, "fixturenames", ()):
            item.add_marker("gliner")

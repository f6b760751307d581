"""What all tests share: no network, random checkpoints that are made once a session, and stages that overlap."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# Tiny models gain nothing from threads, and threads that wait for a busy core cost a hundred times their work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # quiet where a test forks

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

# Before a kernel is imported: without a GPU they run in Triton's interpreter.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from tests.nursery import Nursery
from tests.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from gliner_fast import GLiNER

# The machine may be busy, and speed is for benches: no example fails for taking long.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a kind of checkpoint (`tests.checkpoint_recipes`); read only: tests share it."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def made(kind: str) -> Path:
        return make_checkpoint(root / kind, kind=kind)

    return made


@pytest.fixture(scope="session")
def nursery(checkpoint: Callable[[str], Path]) -> Iterator[Nursery]:
    """A process that forks jobs and commands."""
    nursery = Nursery(checkpoint("deberta"))
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def built_in() -> GLiNER:
    """The built-in model."""
    from gliner_fast import GLiNER

    return GLiNER.from_pretrained()


@pytest.fixture
def model_of_small_batches(built_in: GLiNER, monkeypatch: pytest.MonkeyPatch) -> GLiNER:
    """The built-in model, with batches of a few texts, and nothing remembered from other tests."""
    from gliner_fast.predicting.out_of_memory import Recovery

    for name, value in (("token_budget", 120), ("_told", set()), ("_recovery", Recovery())):
        monkeypatch.setattr(built_in, name, value)
    return built_in


@pytest.fixture
def forgetful_model(built_in: GLiNER, monkeypatch: pytest.MonkeyPatch) -> GLiNER:
    """The built-in model, with nothing remembered from other tests."""
    from gliner_fast.predicting.out_of_memory import Recovery

    for name, value in (("token_budget", None), ("_told", set()), ("config", built_in.config)):
        monkeypatch.setattr(built_in, name, value)
    monkeypatch.setattr(built_in, "_recovery", Recovery())
    return built_in


@pytest.fixture
def overlapping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the stages overlap on the CPU as they do on CUDA."""
    from gliner_fast.predicting import predictor as predictor_module
    from gliner_fast.predicting.stages import HostStages

    monkeypatch.setattr(predictor_module, "HostStages", lambda **_: HostStages(overlap=True))


def pytest_configure() -> None:
    """Refuses to test another checkout's package: of two with one environment that holds the one's."""
    import gliner_fast

    tested, own = Path(gliner_fast.__file__).resolve().parents[2], Path(__file__).resolve().parents[1]
    if tested != own:
        raise pytest.UsageError(
            f"these tests are of {own}, but gliner_fast is {Path(gliner_fast.__file__).parent}: make an environment "
            "here (make env), or put python into PYTHONPATH"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what needs a checkpoint, as gliner writes them, and skips what needs a card that is not there.

    Not where `-m gpu` asks for these tests: without a card they fail there, or a check of one could pass by skipping.
    """
    has_card = torch.cuda.is_available() or "gpu" in config.option.markexpr
    for item in items:
        if "checkpoint" in getattr(item, "fixturenames", ()):
            item.add_marker("gliner")
        if not has_card and item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))

"""Cold start: what a process pays before its first entity. Each round is a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from benches.compare import Race
from benches.conftest import SIZES, checkpoint


def running(code: str) -> Callable[[], None]:
    """A call that runs a program in a new interpreter, offline; taking it down is not counted."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    code += "; import os; os._exit(0)"

    def run() -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)

    return run


def bench_import(race: Race) -> None:
    compare(
        race,
        running("from gliner_fast import GLiNER"),
        {"import torch": running("import torch"), "import gliner": running("from gliner import GLiNER")},
    )


def compare(race: Race, ours: Callable[[], None], rivals: dict[str, Callable[[], None]], **conditions: Any) -> None:
    """A race of processes; but for `make bench-check` only that ours ends well, as others take seconds each."""
    if race.benchmark.disabled:
        race.benchmark(ours)
        return
    race.run(ours, rivals, agreement="none to check", amount=1, unit="processes", **conditions)


@pytest.mark.gliner
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.timeout(900)
def bench_load(race: Race, size: str) -> None:
    path = str(checkpoint(size))
    compare(
        race,
        running(f"from gliner_fast import GLiNER; GLiNER.from_pretrained({path!r})"),
        {
            "gliner": running(f"from gliner import GLiNER; GLiNER.from_pretrained({path!r})"),
            "import torch": running("import torch"),
        },
        size=size,
    )

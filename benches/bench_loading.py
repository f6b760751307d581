"""Cold start: what a process pays before its first entity. Each round is a new process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from benches.compare import Race
from benches.conftest import SIZES, checkpoint


def running(code: str) -> Callable[[], None]:
    """A call that runs a program in a new interpreter, offline."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}

    def run() -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)

    return run


def bench_import(race: Race) -> None:
    race.run(
        running("from gliner_fast import GLiNER"),
        {"import torch": running("import torch"), "import gliner": running("from gliner import GLiNER")},
        agreement="none to check",
        amount=1,
        unit="processes",
    )


@pytest.mark.gliner
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.timeout(900)
def bench_load(race: Race, size: str) -> None:
    path = str(checkpoint(size))
    race.run(
        running(f"from gliner_fast import GLiNER; GLiNER.from_pretrained({path!r})"),
        {
            "gliner": running(f"from gliner import GLiNER; GLiNER.from_pretrained({path!r})"),
            "import torch": running("import torch"),
        },
        agreement="none to check",
        amount=1,
        unit="processes",
        size=size,
    )

"""One step, however it is divided: among processes, batches or pieces of a batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.errors import TrainingError
from gliner_fast.training.run import begin_run
from gliner_fast.training.trainer import train
from gliner_fast.weights import find_weights, read_weights
from tests.training.short_runs import steps_without_dropout


@pytest.fixture
def config(checkpoint: Callable[[str], Path], tmp_path: Path) -> TrainingConfig:
    return steps_without_dropout(checkpoint("deberta"), tmp_path)


def assert_same_weights(folder: Path, other: Path, start: Path) -> None:
    """Asserts that two runs moved the weights alike."""
    ours, theirs, before = (read_weights(find_weights(each)) for each in (folder / "final", other / "final", start))
    # BERT's softmax does not see a bias of all keys: its gradient is what rounding leaves, which Adam makes a step of.
    names = [name for name in ours if not name.endswith("attention.self.key.bias")]
    moved = max(float((ours[name] - before[name]).abs().max()) for name in names)
    assert moved > 1e-4
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in names) < 0.01 * moved


def test_two_processes_train_as_one_with_twice_the_batches(config: TrainingConfig, tmp_path: Path) -> None:
    two = config.replace(output_dir=str(tmp_path / "two"), eval=(config.train[0].path,), eval_steps=2)
    if not torch.accelerator.is_available():
        two = two.replace(device="auto")  # the default; two processes want two GPUs where there are any
    (tmp_path / "config.yaml").write_text(two.to_yaml())
    assert in_two_processes(tmp_path / "config.yaml") == f"{tmp_path / 'two' / 'best'}\n"  # told once
    train(config.replace(accumulation=2))
    assert_same_weights(tmp_path / "two", tmp_path / "whole", tmp_path / "start")
    lines: list[str] = []
    train(two, resume=True, tell=lines.append)
    assert "processes: 1, and 2 before: the weights will not be those of an unbroken run" in lines


def test_processes_that_would_train_a_model_each_are_refused(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)  # such as Apple's, which knows no groups
    with pytest.raises(TrainingError, match=r"2 processes were started .* and each would write its own model"):
        begin_run(config.replace(device="auto"), resume=False)
    assert not Path(config.output_dir).exists()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_batch_in_pieces_is_the_same_step(
    config: TrainingConfig, tmp_path: Path, reduction: Literal["sum", "mean"]
) -> None:
    config = config.replace(reduction=reduction)
    whole = train(config)
    pieces = train(config.replace(output_dir=str(tmp_path / "pieces"), piece_tokens=40))
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_weights(tmp_path / "pieces", tmp_path / "whole", tmp_path / "start")


def test_every_process_learns_which_model_is_the_best(config: TrainingConfig, tmp_path: Path) -> None:
    """Those that do not evaluate say the same as the one that does."""
    config = config.replace(eval=(config.train[0].path,), steps=2)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "run.py").write_text(REPORTING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, tmp_path / "run.py", tmp_path / "config.yaml", tmp_path], check=True, timeout=400)
    reports = [(tmp_path / f"report-{process}").read_text() for process in (0, 1)]
    assert reports[0] == reports[1]
    assert str(tmp_path / "whole" / "best") in reports[0]


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's threads from /proc")
def test_no_thread_of_the_group_outlives_python(config: TrainingConfig, tmp_path: Path) -> None:
    """One that takes the GIL when Python has begun to end aborts the process: seen in a run of CI."""
    config = config.replace(steps=1)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "run.py").write_text(WATCHING_THREADS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, tmp_path / "run.py", tmp_path / "config.yaml", tmp_path], check=True, timeout=400)
    for process in (0, 1):
        while_training, at_the_end = json.loads((tmp_path / f"threads-{process}").read_text())
        assert "pt_gloo_runloop" in while_training
        assert "pt_gloo_runloop" not in at_the_end


# What is registered first is called last: after the run has left its group.
WATCHING_THREADS = """
import atexit, json, os, sys
from pathlib import Path
from gliner_fast.training import TrainingConfig, train

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

def report():
    Path(sys.argv[2], "threads-" + os.environ["RANK"]).write_text(json.dumps([while_training, threads()]))

atexit.register(report)
train(TrainingConfig.from_yaml(sys.argv[1]))
while_training = threads()
"""


REPORTING = """
import os, sys
from pathlib import Path
from gliner_fast.training import TrainingConfig, train

report = train(TrainingConfig.from_yaml(sys.argv[1]))
Path(sys.argv[2], "report-" + os.environ["RANK"]).write_text(f"{report.best} {report.model}")
"""


def in_two_processes(config: Path) -> str:
    """Trains in two processes of this machine, by the README's command for several GPUs; returns what they print."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = Path(sys.executable).with_name("gliner-fast")
    command = [*launch, program, "train", config, "--quiet"]
    return subprocess.run(command, check=True, timeout=400, stdout=subprocess.PIPE, text=True).stdout

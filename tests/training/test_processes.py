"""One step, however it is divided: among processes, batches or pieces of a batch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from gliner_fast.checkpoints.weight_files import find_weights, read_weights
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.errors import TrainingError
from gliner_fast.training.run import begin_run
from gliner_fast.training.trainer import train
from tests.installed import TORCH, release_of
from tests.training.short_runs import steps_without_dropout

Told = tuple[TrainingConfig, list[dict[str, Any]]]


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


@pytest.mark.skipif(release_of("accelerate") < (1, 14), reason="an older accelerate looks for other devices")
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


def with_evaluations(config: TrainingConfig) -> TrainingConfig:
    """A run of two processes that evaluates, too; on the default device, unless they would want two GPUs there."""
    device = config.device if torch.accelerator.is_available() else "auto"
    return config.replace(eval=(config.train[0].path,), eval_steps=2, device=device)


@pytest.fixture(scope="module")
def told_by_two(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A run of two processes, and what each of them said of it."""
    folder = tmp_path_factory.mktemp("two")
    config = with_evaluations(steps_without_dropout(checkpoint("deberta"), folder))
    (folder / "config.yaml").write_text(config.to_yaml())
    (folder / "run.py").write_text(TELLING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, folder / "run.py", folder / "config.yaml", folder], check=True, timeout=400)
    return config, [json.loads((folder / f"told-{process}").read_text()) for process in (0, 1)]


def test_two_processes_train_as_one_with_twice_the_batches(
    config: TrainingConfig, told_by_two: Told, tmp_path: Path
) -> None:
    """So do those that the command line starts: test_shared_labels.py has the same of a bi-encoder."""
    two, _ = told_by_two
    train(config.replace(accumulation=2))
    assert_same_weights(Path(two.output_dir), tmp_path / "whole", tmp_path / "start")
    lines: list[str] = []
    train(two, resume=True, tell=lines.append)
    assert "processes: 1, and 2 before: the weights will not be those of an unbroken run" in lines


# What is registered first is called last: after the run has left its group.
TELLING = """
import atexit, faulthandler, json, os, sys
from pathlib import Path
from gliner_fast.training import TrainingConfig, train

faulthandler.dump_traceback_later(200, exit=True)

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

def tell():
    told["threads at the end"] = threads()
    Path(sys.argv[2], "told-" + os.environ["RANK"]).write_text(json.dumps(told))

atexit.register(tell)
report = train(TrainingConfig.from_yaml(sys.argv[1]))
told = {"best": str(report.best), "model": str(report.model), "threads": threads()}
"""


def test_every_process_learns_which_model_is_the_best(told_by_two: Told) -> None:
    """Those that do not evaluate say the same as the one that does."""
    two, told = told_by_two
    assert told[0]["best"] == told[1]["best"] != "None"
    assert told[0]["model"] == told[1]["model"] == str(Path(two.output_dir, "best"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's threads from /proc")
def test_no_thread_of_the_group_outlives_python(told_by_two: Told) -> None:
    """One that takes the GIL when Python has begun to end aborts the process: seen in a run of CI."""
    if TORCH < (2, 11):
        pytest.skip("the first torch that was seen to name that thread is 2.11")
    for told in told_by_two[1]:
        assert "pt_gloo_runloop" in told["threads"]
        assert "pt_gloo_runloop" not in told["threads at the end"]


# The first process leaves while a thread of gloo has a tensor that Python knew, as it does for a moment after each
# collective; the other one joins in so late that the first waits for that thread by then.
LEAVING = """
import faulthandler, sys, time
from pathlib import Path
import torch
from gliner_fast.training import TrainingConfig
from gliner_fast.training.run import begin_run

faulthandler.dump_traceback_later(100, exit=True)  # nobody else would end it
run, leaves = begin_run(TrainingConfig.from_yaml(sys.argv[1]), resume=False), Path(sys.argv[2], "leaves")
if run.accelerator.is_main_process:
    torch.distributed.all_reduce(torch.ones(1), async_op=True)
    leaves.touch()
else:
    while not leaves.exists():
        time.sleep(0.01)
    time.sleep(1)
    torch.distributed.all_reduce(torch.ones(1))
"""


def test_a_process_leaves_while_a_thread_of_the_group_has_a_tensor(config: TrainingConfig, tmp_path: Path) -> None:
    """Such a thread takes the GIL to free it: seen to wait for ever beside torch 2.6, on a busy machine."""
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    (tmp_path / "run.py").write_text(LEAVING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, tmp_path / "run.py", tmp_path / "config.yaml", tmp_path], check=True, timeout=200)


def test_a_run_of_two_processes_that_cannot_begin_says_why_and_no_more(config: TrainingConfig, tmp_path: Path) -> None:
    (tmp_path / "whole" / "checkpoint-000002").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(config.replace(device="auto").to_yaml())
    with pytest.raises(subprocess.CalledProcessError) as failure:
        in_two_processes(tmp_path / "config.yaml", stderr=subprocess.PIPE)
    assert f"error: {tmp_path / 'whole'} holds the checkpoints of an earlier run" in failure.value.stderr
    assert "begin_run" not in failure.value.stderr  # the other process, which had waited for the first


def in_two_processes(config: Path, **options: Any) -> str:
    """Trains in two processes of this machine, by the README's command for several GPUs; returns what they print."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    program = Path(sys.executable).with_name("gliner-fast")
    command = [*launch, program, "train", config, "--quiet"]
    return subprocess.run(command, check=True, timeout=400, stdout=subprocess.PIPE, text=True, **options).stdout

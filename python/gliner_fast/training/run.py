"""Where a run takes place: the machine and the output folder, looked at before anything is loaded."""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gliner_fast.training.checkpoints import RunFolder
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator  # type: ignore[import-untyped]


# While the first process evaluates, the others wait for it; torch's own ten minutes with NCCL may be too few. Where one
# of them dies, torchrun ends the others.
_LONGEST_WAIT = timedelta(days=1)


@dataclass(frozen=True)
class Run:
    """Where a run takes place.

    Attributes:
        accelerator: what knows the machine.
        folder: of the run's output.
        checkpoint: to go on from; None at the beginning.
        is_resumed: whether it was to go on from a checkpoint, if there was one.
    """

    accelerator: Accelerator
    folder: RunFolder
    checkpoint: Path | None
    is_resumed: bool


def begin_run(config: TrainingConfig, *, resume: bool) -> Run:
    """Looks at machine and output folder, before anything is loaded.

    Raises:
        ImportError: accelerate is not installed.
        TrainingError: there is no such device, several processes would train a model each, an earlier run's
            checkpoints or models are in the way, or another process writes to the folder.
    """
    accelerator = _make_accelerator(config)
    folder = RunFolder(config.output_dir)
    return Run(accelerator, folder, _begin_folder(folder, accelerator, resume=resume), resume)


def _begin_folder(folder: RunFolder, accelerator: Accelerator, *, resume: bool) -> Path | None:
    """Begins the folder in the first process, which tells the others where to go on, or why the run cannot begin.

    They would wait for it else, and tell of a lost connection.
    """
    told: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            told = [folder.begin(resume=resume)]
        except (TrainingError, OSError) as error:
            told = [error]
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

        broadcast_object_list(told)
    if isinstance(told[0], Exception):
        raise told[0]
    checkpoint: Path | None = told[0]
    return checkpoint


def _make_accelerator(config: TrainingConfig) -> Accelerator:
    """What knows the machine.

    Raises:
        ImportError: accelerate is not installed.
        TrainingError: there is no such device, or several processes would train a model each.
    """
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
        from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("training needs accelerate: pip install 'gliner-fast[train]'") from error

    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device is 'cuda', but torch finds no GPU here: set it to 'auto' or 'cpu'")
    if torch.distributed.is_available():
        # Its functions hold the group that is the default at its import for ever: see `_leave_the_others`.
        import_module("torch.distributed.nn")

    # It remembers the precision of an earlier run in this process, and would refuse another; the Trainer of
    # transformers forgets it in the same way.
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
    accelerator = Accelerator(
        mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
        # Only where it is told so does it join several processes without a GPU.
        cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        # A pooler has weights that no gradient reaches. Buffers are constants, such as positions, and writing into them
        # would spoil the graph of labels that pieces of a batch share.
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
        ],
    )
    # As torchrun and accelerate launch tell it.
    started = os.environ.get("WORLD_SIZE", "1")
    if started != "1" and accelerator.num_processes == 1:
        raise TrainingError(
            f"{started} processes were started (WORLD_SIZE), but they cannot train together on {accelerator.device}, "
            "and each would write its own model into output_dir: start one, or start them with device 'cpu'"
        )
    if accelerator.num_processes > 1:
        atexit.register(_leave_the_others)
    return accelerator


def _leave_the_others() -> None:
    """Ends the group of processes and the threads of gloo, while Python is whole.

    Such a thread takes the GIL to free the tensor of the last collective, and the process aborts ("terminate called
    without an active exception") where Python has begun to end by then. What is destroyed here waits for its threads,
    but where something else still refers to it.
    """
    if not torch.distributed.is_initialized():
        return
    # torch 2.6 frees a group with the GIL in hand, and meanwhile waits for gloo's threads; one that has yet to free its
    # last tensor waits for the GIL, and the process never ends (mended in torch by pull request 154976). What Python
    # itself holds of gloo is freed without the GIL, if it is the last to go: nothing here may hold the group.
    gloo = _gloo_of_all()
    torch.distributed.destroy_process_group()
    del gloo


def _gloo_of_all() -> Any:
    """What connects all processes on the CPU; None where NCCL alone does."""
    world: Any = torch.distributed.group.WORLD
    try:
        return world._get_backend(torch.device("cpu"))  # noqa: SLF001
    except RuntimeError:
        return None

"""Where a job on Ray runs; needs neither Ray nor what jobs need."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from gliner_fast.jobs.errors import JobError

MISSING = "jobs on Ray need it: pip install 'gliner-fast[ray]'"


def expect_ray() -> None:
    """Asks whether Ray is here, whose extra brings all else that jobs need.

    Raises:
        ImportError: it is not; names the extra.
    """
    if importlib.util.find_spec("ray") is None:
        raise ImportError(MISSING)


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """Where a job's slices run, and on what.

    Attributes:
        address: "auto" for the cluster that this machine belongs to, or the "host:port" of a cluster's head. None: the
            Ray that this process is connected to, or the one that RAY_ADDRESS names, or else a new one of this machine.
        actors: processes, each with its own model; None: as many as there is room for.
        num_cpus: CPUs of an actor, which computes in as many threads. None: one thread, for which a CPU is set aside
            unless the actor has a GPU.
        num_gpus: GPUs of an actor; 0.5 lets two share one. None: 1 where the cluster has GPUs, else 0.
    """

    address: str | None = None
    actors: int | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        """Refuses what nothing could run on.

        Raises:
            JobError: says what, and what was expected.
        """
        if self.actors is not None and self.actors < 1:
            raise JobError(f"actors is {self.actors}: expected at least 1, or None for as many as there is room for")
        if self.num_cpus is not None and self.num_cpus <= 0:
            raise JobError(f"num_cpus is {self.num_cpus}: an actor needs some, such as 1")
        if self.num_gpus is not None and self.num_gpus < 0:
            raise JobError(f"num_gpus is {self.num_gpus}: expected 0, a share such as 0.5, or a number of GPUs")

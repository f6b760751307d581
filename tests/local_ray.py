"""A Ray of two CPUs on this machine, whose actors import what the tests import."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import gliner_fast

ROOTS = [Path(gliner_fast.__file__).parent.parent, Path(__file__).parent.parent]
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(map(str, ROOTS)),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

# Ray Data sets settings of its own by names that it deprecates.
QUIET_RAY = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\.context")


@contextmanager
def local_ray() -> Iterator[Any]:
    """Starts Ray, gives the module `ray`, and stops Ray."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with _loose_ends():
            ray.init(
                address="local",  # whatever else runs on this machine
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
            )
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            yield ray
        finally:
            with _loose_ends():
                ray.shutdown()
                gc.collect()


@contextmanager
def _loose_ends() -> Iterator[None]:
    """Lets Ray leave its logs open and its processes running; 2.40 does, and later tests would be told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield

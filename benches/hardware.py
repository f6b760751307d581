"""Names the machine and the versions that a result belongs to.

`python -m benches.hardware [--device cuda]` prints a short name for a result file: the processor or the card.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "gliner", "torch", "transformers", "tokenizers", "numpy", "triton", "disentangled-flash", "flashdeberta",
)  # fmt: skip


def cpu_name() -> str:
    """The processor's own name, as Linux tells it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def device_name(device: str) -> str:
    """The card's name for `cuda`, the processor's for `cpu`."""
    if device == "cpu":
        return cpu_name()
    import torch

    return torch.cuda.get_device_name()


def describe(device: str) -> dict[str, object]:
    """What a speed depends on besides the code: written beside every result."""
    import torch

    import gliner_fast

    facts: dict[str, object] = {
        "device": device_name(device),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {"gliner_fast": gliner_fast.__version__, **installed_versions()},
    }
    if device == "cuda":
        facts["cuda"] = torch.version.cuda
    return facts


def installed_versions() -> dict[str, str]:
    """The version of each of `PACKAGES` that is here: some GPU machines have no gliner."""
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def short_name(device: str) -> str:
    """The name for a result file, in lower case and hyphens."""
    name = re.sub(r"\((r|tm)\)|\bcpu\b|\bprocessor\b|@.*", " ", device_name(device).lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def main() -> None:
    """Prints the name for a result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    print(short_name(parser.parse_args().device))


if __name__ == "__main__":
    main()

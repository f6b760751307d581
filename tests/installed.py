"""Versions of what is installed, for tests of what others do not have."""

from importlib import metadata

import pytest
from packaging.version import Version


def release_of(package: str) -> tuple[int, ...]:
    """Its numbers, such as (5, 16, 1); none where it is missing."""
    try:
        return Version(metadata.version(package)).release
    except metadata.PackageNotFoundError:
        return ()


TORCH = release_of("torch")
TRANSFORMERS = release_of("transformers")
TRITON = release_of("triton")

HAS_FLASH = TORCH >= (2, 7)
needs_flash = pytest.mark.skipif(not HAS_FLASH, reason="disentangled-flash needs torch 2.7")
FLASH = pytest.param("disentangled-flash", marks=needs_flash)

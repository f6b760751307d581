"""Files in, files out: jobs that can be killed, resumed and spread over machines (DESIGN 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gliner_fast.jobs.errors import JobError, JobInputError
from gliner_fast.jobs.report import JobReport

if TYPE_CHECKING:
    from gliner_fast.jobs.extract import extract_files

__all__ = ["JobError", "JobInputError", "JobReport", "extract_files"]


def __getattr__(name: str) -> Any:
    if name == "extract_files":  # alone of these it needs what the extra [jobs] brings
        from gliner_fast.jobs.extract import extract_files

        return extract_files
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

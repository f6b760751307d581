"""Files in, files out: jobs that can be killed, resumed and spread over machines (DESIGN 6)."""

from __future__ import annotations

from gliner_fast.jobs.extract import extract_files
from gliner_fast.jobs.inputs import JobInputError
from gliner_fast.jobs.plan import JobError
from gliner_fast.jobs.report import JobReport

__all__ = ["JobError", "JobInputError", "JobReport", "extract_files"]

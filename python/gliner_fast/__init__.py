"""A fast drop-in predictor for GLiNER models: entities of any type, named in plain words."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gliner_fast.comparing.report import VerificationReport
    from gliner_fast.comparing.verification import verify
    from gliner_fast.config import GLiNERConfig
    from gliner_fast.entity import Entity
    from gliner_fast.errors import CheckpointError, CheckpointWarning, LongTextError, UnsupportedCheckpointError
    from gliner_fast.infer_packing import InferencePackingConfig
    from gliner_fast.jobs import JobError, JobInputError, JobReport, extract_files
    from gliner_fast.jobs.ray_options import RayOptions
    from gliner_fast.model import GLiNER
    from gliner_fast.redaction import Redacted, Redaction, redact
    from gliner_fast.relations.relation import Relation
    from gliner_fast.relex import RelexGLiNER

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointWarning",
    "Entity",
    "GLiNER",
    "GLiNERConfig",
    "InferencePackingConfig",
    "JobError",
    "JobInputError",
    "JobReport",
    "LongTextError",
    "RayOptions",
    "Redacted",
    "Redaction",
    "Relation",
    "RelexGLiNER",
    "UnsupportedCheckpointError",
    "VerificationReport",
    "__version__",
    "extract_files",
    "redact",
    "verify",
]

# Loaded when first used: importing the package costs nothing, torch comes with the model.
_HOMES = {
    "CheckpointError": "errors",
    "CheckpointWarning": "errors",
    "Entity": "entity",
    "GLiNER": "model",
    "GLiNERConfig": "config",
    "InferencePackingConfig": "infer_packing",
    "JobError": "jobs.errors",
    "JobInputError": "jobs.errors",
    "JobReport": "jobs.report",
    "LongTextError": "errors",
    "RayOptions": "jobs.ray_options",
    "Redacted": "redaction",
    "Redaction": "redaction",
    "Relation": "relations.relation",
    "RelexGLiNER": "relex",
    "UnsupportedCheckpointError": "errors",
    "VerificationReport": "comparing.report",
    "extract_files": "jobs",
    "redact": "redaction",
    # Not `verify.py`: a submodule that is imported takes its name in the package, and would hide the function.
    "verify": "comparing.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # help() asks for each of these names: none may need what is not here.
    from importlib.util import find_spec

    has_jobs = find_spec("pyarrow") is not None
    return sorted(name for name in __all__ if has_jobs or name != "extract_files")

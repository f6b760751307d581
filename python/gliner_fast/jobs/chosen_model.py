"""The model of a job, named so that another process, or the same call on another day, has an equal one."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from gliner_fast import checkpoint
from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.jobs.plan import JobError
from gliner_fast.loading import are_weights_of
from gliner_fast.model import GLiNER


@dataclass(frozen=True)
class ChosenModel:
    """What loads a job's model.

    Attributes:
        name: what `from_pretrained` takes, in any process; None for the built-in model.
        folder: where it lies; None where it has none and needs none.
        options: what `from_pretrained` takes beside it, where a loaded model is not as its folder says.
        has_own_splitter: whether words are split by a callable that was assigned to a loaded model.
    """

    name: str | None
    folder: Path | None
    options: dict[str, Any] = field(default_factory=dict)
    has_own_splitter: bool = False

    @classmethod
    def of(cls, model: str | PathLike[str] | GLiNER | None, *, is_named: bool) -> ChosenModel:
        """Reads what the user gave.

        Args:
            model: a folder, a Hub id, a loaded model, or None for the built-in one.
            is_named: whether the job must find the model again by its name.

        Raises:
            FileNotFoundError: there is no such model.
            JobError: it must be found, and a loaded one has no folder, or other weights than lie there.
        """
        if not isinstance(model, GLiNER):
            name = None if model is None else fspath(model)
            return cls(name, checkpoint.locate(name, checkpoint.HubOptions(), None))
        source = model.source
        if source is None and not is_named:
            return cls(None, None)
        if source is None:
            raise JobError(
                "the model was not loaded from anywhere: save_pretrained it, and give the folder, so that the job can "
                "go on"
            )
        if is_named and not are_weights_of(model.model, source, model.config):
            raise JobError(
                f"the model's weights are not those of {source}, where it was loaded from: save_pretrained it, and "
                "give that folder, so that the job can go on"
            )
        name = None if source == checkpoint.BUILT_IN else str(source)
        options = _options(model, GLiNERConfig.from_file(source / CONFIG_NAME))
        return cls(name, source, options, model.data_processor.custom_splitter is not None)


def _options(model: GLiNER, stored: GLiNERConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"corrected_numbering": True} if model.corrected_numbering else {}
    if model.config.max_len != stored.max_len:
        options["max_length"] = model.config.max_len
    if model.config.max_width != stored.max_width:
        options["max_width"] = model.config.max_width
    return options

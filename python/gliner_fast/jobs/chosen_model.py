"""The model of a job, named so that another process, or the same call on another day, has an equal one."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from gliner_fast.checkpoints import locating
from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.data_processor import whitespace_words
from gliner_fast.jobs.errors import JobError
from gliner_fast.model import GLiNER
from gliner_fast.weights import has_weights_of
from gliner_fast.word_splitters import LibrarySplitter
from gliner_fast.words import WordTriples


@dataclass(frozen=True)
class ChosenModel:
    """What loads a job's model.

    Attributes:
        name: what `from_pretrained` takes, in any process; None for the built-in model.
        folder: where it lies; None where it has none and needs none.
        options: what `from_pretrained` takes beside it, where a loaded model is not as its folder says.
        words_splitter: the name of a callable that was assigned to a loaded model to split words; None for the
            checkpoint's own.
    """

    name: str | None
    folder: Path | None
    options: dict[str, Any] = field(default_factory=dict)
    words_splitter: str | None = None

    @classmethod
    def of(cls, model: str | PathLike[str] | GLiNER | None, *, is_named: bool) -> ChosenModel:
        """Reads what the user gave.

        Args:
            model: a folder, a Hub id, a loaded model, or None for the built-in one.
            is_named: whether the job must find the model again by its name.

        Raises:
            FileNotFoundError: there is no such model.
            JobError: it must be found, and a loaded one has no folder, or other weights or another tokenizer than lie
                there.
        """
        if not isinstance(model, GLiNER):
            name = None if model is None else fspath(model)
            return cls(name, locating.locate(name, locating.HubOptions(), None))
        if not is_named:
            return cls(None, None)
        source = model.source
        if source is None:
            raise JobError(
                "the model was not loaded from anywhere: save_pretrained it, and give the folder, so that the job can "
                "go on"
            )
        if not has_weights_of(model.model, source, model.variant):
            raise JobError(
                f"the model's weights are not those of {source}, where it was loaded from: save_pretrained it, and "
                "give that folder, so that the job can go on"
            )
        if not model.data_processor.reads_as_made:
            raise JobError(
                f"the model's tokenizer, or its model_max_length, is not that of {source}, where it was loaded from: "
                "save_pretrained it, and give that folder, so that the job can go on"
            )
        name = None if source == locating.BUILT_IN else str(source)
        options = _options(model, GLiNERConfig.from_file(source / CONFIG_NAME))
        splitter = model.data_processor.assigned_splitter
        return cls(name, source, options, None if splitter is None else _name_of(splitter))


def _options(model: GLiNER, stored: GLiNERConfig) -> dict[str, Any]:
    options: dict[str, Any] = {"corrected_numbering": True} if model.corrected_numbering else {}
    if model.variant is not None:
        options["variant"] = model.variant
    if model.config.max_len != stored.max_len:
        options["max_length"] = model.config.max_len
    if model.config.max_width != stored.max_width:
        options["max_width"] = model.config.max_width
    return options


def _name_of(splitter: WordTriples) -> str:
    """As much as can be told of a callable tomorrow."""
    if isinstance(splitter, LibrarySplitter) or splitter is whitespace_words:
        return repr(splitter)
    kind = splitter if hasattr(splitter, "__qualname__") else type(splitter)
    return f"{kind.__module__}.{kind.__qualname__}"

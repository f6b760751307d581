"""What a job computes: every choice that its output depends on, so that a job which goes on is the same job."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from gliner_fast import __version__
from gliner_fast.config import LABEL_TOKENIZER_FOLDER
from gliner_fast.errors import listed
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.sinks import Layout, ShardFormat
from gliner_fast.labels import LabelSet, expect_relations, plan_thresholds
from gliner_fast.predicting.request import OnLong

# Files of a checkpoint folder that its answers depend on.
_MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.model", "*.txt")
_PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The choices that a job's output depends on.

    A new one has a default, with which a job goes on that was begun without it.

    Attributes:
        model: folder or Hub id; None for the built-in model.
        model_digest: of the checkpoint's files.
        model_options: what `from_pretrained` is given beside it, where a loaded model is not as its folder says.
        words_splitter: the name of a callable that the user assigned to a loaded model; None for the checkpoint's.
        dtype: what the network computes in.
        labels: for all rows; None where each row has its own, in `labels_column`.
        threshold: one for all labels, or one for each.
        flat_ner: no two entities share a word.
        multi_label: one span may have several labels.
        on_long: what happens to texts longer than the model's limit.
        batch_size: most texts a batch.
        text_column: input column of the texts.
        id_column: input column that names the rows; always passed through.
        labels_column: input column of each row's own labels.
        columns: input columns to pass through; None for all, or, with the layout "rows", for none.
        rows_per_shard: most rows a shard.
        format: of the shards, and their extension.
        layout: a row a text with a list of entities, or a row an entity.
        entities_column: name of that list's column.
        redaction: how entities are redacted, without the key; None: not.
        relations: kinds of relations to look for, for all rows; None: none.
        adjacency_threshold: of the link between two entities; None: `threshold`, or 0.5 where that is a
            mapping.
        relation_threshold: one for all relations, or one for each; None likewise.
        relations_column: name of the column of relations, beside that of entities.
    """

    model: str | None
    model_digest: str
    model_options: dict[str, Any]
    words_splitter: str | None
    dtype: str
    labels: list[str] | dict[str, str] | None
    threshold: float | dict[str, float]
    flat_ner: bool
    multi_label: bool
    on_long: OnLong
    batch_size: int | None
    text_column: str
    id_column: str | None
    labels_column: str | None
    columns: list[str] | None
    rows_per_shard: int
    format: ShardFormat
    layout: Layout
    entities_column: str
    redaction: dict[str, Any] | None
    relations: list[str] | None = None
    adjacency_threshold: float | None = None
    relation_threshold: float | dict[str, float] | None = None
    relations_column: str = "relations"

    def __post_init__(self) -> None:
        """Refuses choices that do not go together.

        Raises:
            JobError: says which, and what to choose instead.
        """
        if (self.labels is None) == (self.labels_column is None):
            raise JobError("name the labels for all rows, or a labels column that holds each row's own: one of the two")
        if self.labels is not None:
            _expect_labels(self.labels)
        if self.labels is None and isinstance(self.threshold, Mapping):
            raise JobError("thresholds for each label need labels for all rows: with a labels column give one number")
        plan_thresholds(self.threshold, 0)
        if self.labels is not None and isinstance(self.threshold, Mapping):
            missing = [label for label in self.labels if label not in self.threshold]
            if missing:
                raise JobError(f"threshold has no value for the label {missing[0]!r}: give every label one")
        self._expect_relations()
        if self.redaction is not None:
            self._expect_redactable()
        if self.rows_per_shard < 1:
            raise JobError(f"rows_per_shard is {self.rows_per_shard}: expected at least 1")
        for name, allowed in (("on_long", OnLong), ("layout", Layout), ("format", ShardFormat)):
            if getattr(self, name) not in get_args(allowed):
                raise JobError(f"{name} is {getattr(self, name)!r}: expected one of {listed(get_args(allowed))}")

    def _expect_relations(self) -> None:
        try:
            expect_relations(self.relations, self.adjacency_threshold, self.relation_threshold)
        except (TypeError, ValueError) as error:
            raise JobError(str(error)) from error
        if self.relations is None:
            if self.relations_column != "relations":
                raise JobError("relations_column is given without relations: name some, or leave it out")
        elif self.layout == "rows":
            raise JobError(
                "relations stand beside a row's list of entities, and the layout 'rows' has none: use 'list'"
            )
        elif self.relations_column == self.entities_column:
            raise JobError(f"entities_column and relations_column are both {self.entities_column!r}: rename either")

    def _expect_redactable(self) -> None:
        if self.layout == "rows":
            raise JobError("redaction writes whole texts, and the layout 'rows' has none: use the layout 'list'")
        if self.on_long == "truncate":
            raise JobError(
                "redaction with on_long 'truncate' would write what is cut off in the clear: take 'window', which "
                "reads all of a text, or 'error'"
            )


@dataclass(frozen=True)
class Plan:
    """A job's settings and inputs, as its manifest keeps them.

    Attributes:
        settings: every choice.
        inputs: for each file its `path`, `format`, `compression` and `fingerprint`; a fingerprint of None is stdin, or
            a job that is not to be resumed.
        schema: the Arrow schema of the columns that pass through, as text; None where rows stay JSON objects, and for
            stdin.
        version: of this package.
    """

    settings: Settings
    inputs: list[dict[str, Any]]
    schema: str | None
    version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Reads what `to_dict` gave.

        Raises:
            JobError: it comes from a version with other settings, or one that took what is refused now.
        """
        own, settings = fields(Settings), values["settings"]
        needed = {field.name for field in own if field.default is MISSING}
        if not needed <= set(settings) <= {field.name for field in own}:
            raise JobError(
                f"the job was begun by gliner_fast {values['version']}, which keeps other settings than {__version__}: "
                "finish it with that version, or start anew with overwrite (--overwrite)"
            )
        try:
            read = Settings(**settings)
        except JobError as error:
            raise JobError(
                f"the job was begun by gliner_fast {values['version']} with choices that are refused now: {error}. "
                "Start anew with overwrite (--overwrite), or choose another output"
            ) from error
        return cls(read, values["inputs"], values["schema"], values["version"])

    def changes_from(self, earlier: Plan) -> list[str]:
        """What differs from an earlier plan in a way that its output depends on, each as a phrase.

        Where a file lies may change: its name and content may not.
        """
        changes = [
            _change(field.name, getattr(earlier.settings, field.name), getattr(self.settings, field.name))
            for field in fields(Settings)
            if field.name not in {"model", "model_digest"}
            and getattr(earlier.settings, field.name) != getattr(self.settings, field.name)
        ]
        if self.settings.model_digest != earlier.settings.model_digest:
            changes.append(f"the model is another one ({earlier.settings.model or 'the built-in one'} had other files)")
        if len(self.inputs) != len(earlier.inputs):
            changes.append(_change("number of input files", len(earlier.inputs), len(self.inputs)))
        for was, now in zip(earlier.inputs, self.inputs, strict=False):
            if Path(was["path"]).name != Path(now["path"]).name:
                changes.append(_change("an input file", was["path"], now["path"]))
            elif was["fingerprint"] is None:
                changes.append("standard input cannot be read a second time")
            elif {**was, "path": None} != {**now, "path": None}:
                changes.append(f"{now['path']} has another size, content or time of change than when the job began")
        if self.version != earlier.version:
            changes.append(_change("gliner_fast", earlier.version, self.version))
        if self.schema != earlier.schema and not changes:
            changes.append("the columns to pass through have other types")
        return changes


def _expect_labels(labels: list[str] | dict[str, str]) -> None:
    if not LabelSet.read(labels).names:
        raise JobError("labels is empty: name at least one entity type, such as ['person']")
    words = [*labels, *labels.values()] if isinstance(labels, dict) else labels
    if not all(word.strip() for word in words):
        raise JobError(f"labels is {labels!r}, with an empty label or description: the model looks for what it says")


def _change(name: str, was: object, now: object) -> str:
    return f"{name} was {was!r} and is {now!r}"


def digest_model(folder: Path) -> str:
    """SHA-256 over the files of a checkpoint folder that its answers depend on, names included."""
    digest = hashlib.sha256()
    folders = (folder, folder / LABEL_TOKENIZER_FOLDER)
    for file in sorted({path for own in folders for pattern in _MODEL_FILES for path in own.glob(pattern)}):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()

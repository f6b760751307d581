"""One job, as every process that works on it knows it, and what becomes of a slice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gliner_fast.errors import LongTextError
from gliner_fast.jobs._arrow import pa
from gliner_fast.jobs.aside import write_aside
from gliner_fast.jobs.block import Block, Columns, Labels, Reject
from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.inputs import InputFile, fingerprint, name_of
from gliner_fast.jobs.job_folder import Paths, SliceRecord, rejects_name, shard_name
from gliner_fast.jobs.json_columns import is_misfit
from gliner_fast.jobs.plan import Plan, Settings
from gliner_fast.jobs.records import RowCheck
from gliner_fast.jobs.sinks import added_columns, write_rejects, write_shard
from gliner_fast.jobs.slices import Slice
from gliner_fast.jobs.sources import RowReader, Selection, plan_schema
from gliner_fast.jobs.stopping import Stop
from gliner_fast.model import GLiNER
from gliner_fast.pipeline import Window
from gliner_fast.predicting.collecting import NotRead
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relations.relation import LinkedEntities, relations_of
from gliner_fast.words import ENDLESS_WORD

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.redaction import Redaction


# Characters that are prepared at once: their words and subwords take some twenty times as many bytes.
_MOST_CHARACTERS = 2**22

# Such a row would keep a job for hours, or end it for want of memory, whenever it is begun again.
_ENDLESS_WORD = f"it {ENDLESS_WORD}"

# Why a row that is to be redacted becomes a reject.
_NOT_READ_WHOLE = (
    "it has a word of more subwords than the tokenizer's limit leaves beside the labels, and what the model does not "
    "read cannot be redacted: ask for fewer labels, or break the word up"
)

_UNFIT = (
    "it does not fit into memory, where others do: cut the text or its longest word, ask for fewer labels or, where it "
    "has very many entities to relate, raise a threshold; or read it on a machine or device with more memory"
)

# What to do about rows that end a job.
SKIP_ROWS = "Have such rows skipped (--on-error skip)"


@dataclass(frozen=True)
class Job:
    """All that a process needs to work on a job; it can be sent to another machine that sees the same files.

    Attributes:
        plan: what is computed.
        files: the input.
        redaction: replaces entities, with its key; None: no redaction.
    """

    plan: Plan
    files: Sequence[InputFile]
    redaction: Redaction | None

    @property
    def options(self) -> Options:
        """How entities are predicted."""
        settings = self.plan.settings
        return Options(
            threshold=settings.threshold,
            flat_ner=settings.flat_ner,
            multi_label=settings.multi_label,
            on_long=settings.on_long,
            batch_size=settings.batch_size,
            relations=settings.relations or (),
            adjacency_threshold=settings.adjacency_threshold,
            relation_threshold=settings.relation_threshold,
            leave_out_unfit=True,
            # What is not read would be written in the clear; "error" refuses it by itself.
            must_read_all=self.redaction is not None and settings.on_long == "window",
        )

    @property
    def relations_column(self) -> str | None:
        """Name of the column of relations; None where none are asked for."""
        return None if self.plan.settings.relations is None else self.plan.settings.relations_column

    def load_model(self, device: torch.device) -> GLiNER:
        """Loads the job's model."""
        settings = self.plan.settings
        return GLiNER.from_pretrained(
            settings.model, map_location=device, dtype=settings.dtype, **settings.model_options
        )

    def open_rows(self, model: GLiNER, stop: Stop | None = None) -> RowReader:
        """Opens the input at its first row.

        A row that would stall the job, or must be read whole and cannot, is a reject.
        Once `stop` is set, standard input ends with what was taken of it.
        """
        has_no_limit = model.predictor().batcher.tokenizer.max_subwords is None
        check = self._expect_words_to_end(model) if has_no_limit else None
        if self.options.must_read_all and not has_no_limit:
            check = self._expect_read_whole(model)
        return RowReader(self.files, select_columns(self.plan.settings), self.plan.schema, check, stop)

    def _expect_words_to_end(self, model: GLiNER) -> RowCheck:
        predictor, options = model.predictor(), self.options

        def check(text: str, own: Labels | None) -> str | None:
            del own
            return _ENDLESS_WORD if predictor.has_endless_word(text, options) else None

        return check

    def _expect_read_whole(self, model: GLiNER) -> RowCheck:
        predictor, options, labels = model.predictor(), self.options, self.plan.settings.labels

        def check(text: str, own: Labels | None) -> str | None:
            given: Any = labels if own is None else [own]
            request = Request.read([text], given, options)
            return None if predictor.can_read_whole(request) else _NOT_READ_WHOLE

        return check

    def expect_same_inputs(self) -> None:
        """Asks whether the files are still those that the plan tells of: rows before and after a change do not mix.

        Raises:
            JobError: names one that is not.
            OSError: one cannot be read any more.
        """
        for file, planned in zip(self.files, self.plan.inputs, strict=True):
            if fingerprint(file) != planned["fingerprint"]:
                raise JobError(
                    f"{file.path} has changed while the job ran: start anew (--overwrite) once nothing writes it"
                )

    def windows(self, block: Block) -> Iterator[Window]:
        """The block's texts in windows to be predicted: one, unless the texts are very long; at least one.

        The cut depends on the block alone, as the results must: a slice that is done again is cut as it was.
        """
        labels = self.plan.settings.labels
        first = characters = 0
        for place, text in enumerate(block.texts, start=1):
            characters += len(text)
            # Where a text may be an error, numbers must not skip rejects, or the message would name another row.
            is_gap = (
                self.plan.settings.on_long == "error"
                and place < len(block.rows)
                and (block.rows[place] != block.rows[place - 1] + 1)
            )
            if characters > _MOST_CHARACTERS or is_gap:
                yield _window(block, labels, first, place)
                first, characters = place, 0
        if first < len(block.texts) or first == 0:
            yield _window(block, labels, first, len(block.texts))

    def reject_unfit(
        self, block: Block, entities: Sequence[Sequence[Entity]]
    ) -> tuple[Block, Sequence[Sequence[Entity]]]:
        """Rows that did not fit into memory become rejects; the others, with their entities."""
        unfit = {place: _UNFIT for place, own in enumerate(entities) if isinstance(own, NotRead)}
        return block.reject(unfit), [own for place, own in enumerate(entities) if place not in unfit]

    def redact(self, block: Block, entities: Sequence[Sequence[Entity]]) -> tuple[Block, Sequence[Sequence[Entity]]]:
        """What the output may tell: the rows and their entities, or those of the redacted texts in their place.

        It must see all entities: one that is left out before stands in the clear.

        Entities of a text keep their relations.
        """
        if self.redaction is None:
            return block, entities
        redacted = [
            self.redaction.apply(text, own, relations_of(own)) for text, own in zip(block.texts, entities, strict=True)
        ]
        texts = [own.text for own in redacted]
        columns = _replace_column(block.columns, self.plan.settings.text_column, texts)
        return replace(block, texts=texts, columns=columns), [
            LinkedEntities(own.entities, own.relations) for own in redacted
        ]

    def tell_rejects(self, block: Block) -> Sequence[Reject]:
        """The block's rejects, as the output may tell of them: what was not read cannot be redacted."""
        if self.redaction is None:
            return block.rejects
        hidden = "not usable; more is not told of what is to be redacted"
        return [
            replace(
                own, reason=own.reason if own.reason in (_NOT_READ_WHOLE, _ENDLESS_WORD, _UNFIT) else hidden, raw=""
            )
            for own in block.rejects
        ]

    def write(
        self, paths: Paths, part: Slice, block: Block, entities: Sequence[Sequence[Entity]], stats: Mapping[str, float]
    ) -> SliceRecord:
        """Puts a slice's shard and rejects in their places, whole, and says what is in them.

        Raises:
            OSError: they cannot be written; names the file.
        """
        begin = perf_counter()
        settings = self.plan.settings
        block, entities = self.reject_unfit(block, entities)
        told, told_entities = self.redact(block, entities)
        if block.rejects:
            rejects = self.tell_rejects(block)
            write_aside(paths.rejects / rejects_name(part.number), lambda path: write_rejects(path, rejects))
        misfits = sum(is_misfit(reject.reason) for reject in block.rejects)
        shard = paths.shards / shard_name(part.number, f".{settings.format}")
        write_aside(
            shard,
            lambda path: write_shard(
                path,
                told,
                told_entities,
                format=settings.format,
                layout=settings.layout,
                entities_column=settings.entities_column,
                relations_column=self.relations_column,
            ),
        )
        return SliceRecord(
            part.number,
            block.count,
            shard.name,
            shard.stat().st_size,
            len(block.rejects),
            sum(map(len, told_entities)),
            {**stats, "misfits": misfits, "write_seconds": perf_counter() - begin},
            count_relations(told_entities),
        )


def count_relations(entities: Sequence[Sequence[Entity]]) -> int:
    """How many relations there are between the entities of all texts."""
    return sum(len(relations_of(own)) for own in entities)


def _window(block: Block, labels: Any, first: int, last: int) -> Window:
    own: Any = labels if block.labels is None else list(block.labels[first:last])
    number = int(block.rows[first]) if first < last else 0
    return Window(block.texts[first:last], own, first_text=number, explain=partial(_tell_place, block))


def _tell_place(block: Block, error: ValueError) -> JobError | None:
    """What a job says in place of the error of a text that is too long: its line, and the job's options."""
    if not isinstance(error, LongTextError):
        return None
    place = int(np.searchsorted(block.rows, error.text))  # its number in a job is that of its row
    return JobError(
        f"{name_of(block.files[place])}, line {block.lines[place]}: the text {error.size}: have long texts read in "
        "windows (--on-long window), or their beginning alone (--on-long truncate)"
    )


def select_columns(settings: Settings) -> Selection:
    """What a job reads of each row.

    A redacted text takes the original's place, so its column is then among those that pass through.
    """
    columns = settings.columns
    if columns is None and settings.layout == "rows":
        columns = []  # one row an entity: the row's number, and its id where it has one, lead back to the input
    elif columns is not None and settings.redaction is not None and settings.text_column not in columns:
        columns = [*columns, settings.text_column]
    return Selection(
        text_column=settings.text_column,
        id_column=settings.id_column,
        labels_column=settings.labels_column,
        columns=columns,
        as_objects=settings.format != "parquet",
        reserved=added_columns(
            settings.layout,
            settings.entities_column,
            None if settings.relations is None else settings.relations_column,
        ),
    )


def _replace_column(columns: Columns, name: str, values: Sequence[str]) -> Columns:
    if isinstance(columns, list):
        return [{**row, name: value} if name in row else row for row, value in zip(columns, values, strict=True)]
    place = columns.schema.get_field_index(name)
    if place < 0:
        return columns
    field = columns.schema.field(place)
    return columns.set_column(place, field, pa.array(values, field.type))


def plan_job(files: Sequence[InputFile], settings: Settings, redaction: Redaction | None, *, is_resumable: bool) -> Job:
    """Looks at the input, and fixes what the output will be.

    Args:
        files: the input.
        settings: the choices.
        redaction: of the texts.
        is_resumable: whether the job may go on later, and so must know its input again.

    Raises:
        JobInputError: the input cannot be read, lacks a column, or has one of a name that the output adds.
    """
    selection = select_columns(settings)
    inputs: list[dict[str, Any]] = [
        {
            "path": file.path,
            "format": file.format,
            "compression": file.compression,
            "fingerprint": fingerprint(file) if is_resumable else None,
        }
        for file in files
    ]
    return Job(Plan(settings, inputs, plan_schema(files, selection)), files, redaction)

"""`Extractor`: the entities of a text column, and their relations, as a class for Ray Data's `map_batches`.

    import ray
    from gliner_fast.ray import Extractor

    found = ray.data.read_parquet("s3://bucket/articles").map_batches(
        Extractor,
        fn_constructor_kwargs={"labels": ["person", "city"]},
        batch_format="pyarrow",
        batch_size=1024,
        num_gpus=1,
        compute=ray.data.ActorPoolStrategy(size=4),
    )
    found.write_parquet("s3://bucket/found")

This module does not import Ray: an actor, where Ray runs already, is asked what Ray has assigned to it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gliner_fast.errors import listed
from gliner_fast.labels import LabelSet, expect_relations
from gliner_fast.predicting.request import Options, Request
from gliner_fast.relations.relation import LinkedEntities, relations_of
from gliner_fast.words import ENDLESS_WORD

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from gliner_fast.entity import Entity
    from gliner_fast.redaction import Redaction


class Extractor:
    """Adds a column of entities to Arrow tables; it loads its model once, when Ray starts the actor.

    The column is a list<struct<start: int64, end: int64, text: string, label: string, score: float>>, with the entities
    and in the order of `GLiNER.inference`; offsets count code points. A row whose text is null, or whose own labels are
    no labels, has null there, as one that has a word of more than 16,384 characters where the tokenizer has no limit
    (with a warning); a text in which nothing was found has an empty list.

    With relations a second column, of list<struct<head, tail, relation: string, score: float>>, has those between the
    row's entities; head and tail are each a struct<start: int64, end: int64, text: string, type: string, entity_idx:
    int64>, of which the last counts in the row's entities. It is null where these are.

    Attributes:
        model: the loaded model.
    """

    def __init__(
        self,
        *,
        labels: Sequence[str] | Mapping[str, str] | None = None,
        labels_column: str | None = None,
        model: str | None = None,
        text_column: str = "text",
        entities_column: str = "entities",
        threshold: float | Mapping[str, float] = 0.5,
        flat_ner: bool = True,
        multi_label: bool = False,
        relations: str | Sequence[str] | None = None,
        adjacency_threshold: float | None = None,
        relation_threshold: float | Mapping[str, float] | None = None,
        relations_column: str = "relations",
        on_long: Literal["window", "truncate", "error"] = "window",
        batch_size: int | None = None,
        redaction: Redaction | None = None,
        device: str = "auto",
        dtype: str = "fp32",
    ) -> None:
        """Loads the model; in an actor, onto what Ray assigned to it.

        Args:
            labels: entity types in plain words, or a mapping of label to description.
            labels_column: a column with each row's own labels, instead of `labels`: lists, mappings of label to
                description, or strings such as "person, city".
            model: folder or Hub id; None for the built-in model. Every machine must reach it.
            text_column: a column of strings.
            entities_column: name of the column to add.
            threshold: entities score above it; a mapping gives each label its own.
            flat_ner: no two entities share a word; False lets one contain another.
            multi_label: one span may have several labels.
            relations: kinds of relations to look for, in plain words; of relation extraction (relex) models alone.
            adjacency_threshold: the probability of a link that two entities must pass to be looked at; None for
                `threshold`, or for 0.5 where that is a mapping.
            relation_threshold: relations score above it, None as before; a mapping gives each relation its own.
            relations_column: name of the column of relations to add, where some are asked for.
            on_long: texts beyond the model's limit are read in overlapping windows, cut with a warning, or refused.
                With a redaction they are not cut, since the rest would be shown as it is.
            batch_size: most texts that the model reads at once; None chooses by length. The `batch_size` of
                `map_batches` is another thing: the rows of a table. Hundreds of them let texts be sorted by length.
            redaction: the text column then holds the redacted texts, and entities and relations what stands in those;
                all are null where a text cannot be read whole. Other columns stay as they are.
            device: "cpu", "cuda", ...; "auto" is the GPU that Ray assigned to the actor, or else the CPU.
            dtype: "fp32", "bf16", "fp16" or "auto"; "int16" or "int8" on a CPU.

        Raises:
            FileNotFoundError: the model is not there.
            CheckpointError: it cannot be loaded.
            ImportError: a library of its word splitter is missing.
            TypeError: relations or their thresholds of a wrong type.
            ValueError: labels are missing or given twice, the device cannot be used, or the model finds no relations.
        """
        if redaction is not None and on_long == "truncate":
            raise ValueError(
                "on_long='truncate' with a redaction would write what is cut off in the clear: take 'window'"
            )
        if (labels is None) == (labels_column is None):
            raise ValueError("give either labels, the entity types for all rows, or labels_column: one of the two")
        asked = None if labels is None else LabelSet.read(labels)
        if asked is not None and not asked.names:
            raise ValueError("labels is empty: name at least one entity type, such as ['person']")
        if asked is not None and not all(word.strip() for word in (*asked.names, *asked.prompts)):
            raise ValueError(
                f"labels is {labels!r}, with an empty label or description: the model looks for what it says"
            )
        asked_relations = [relations] if isinstance(relations, str) else relations
        if (convert := getattr(asked_relations, "tolist", None)) is not None:
            asked_relations = convert()  # an array
        expect_relations(asked_relations, adjacency_threshold, relation_threshold)
        if asked_relations is not None and relations_column == entities_column:
            raise ValueError(f"entities_column and relations_column are both {entities_column!r}: rename either")
        from gliner_fast.model import GLiNER

        self.model = GLiNER.from_pretrained(model, map_location=use_assigned(device), dtype=dtype)
        if asked_relations is not None:
            self.model.config.expect_relex()
        self._labels = labels
        self._labels_column = labels_column
        self._text_column = text_column
        self._entities_column = entities_column
        self._relations_column = None if asked_relations is None else relations_column
        self._redaction = redaction
        self._options = Options(
            threshold=threshold,
            flat_ner=flat_ner,
            multi_label=multi_label,
            on_long=on_long,
            batch_size=batch_size,
            relations=asked_relations or (),
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            must_read_all=redaction is not None and on_long == "window",
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Returns the table with its entities, and their relations where some are asked for.

        Raises:
            TypeError: not an Arrow table, or a column of another type.
            ValueError: a column is missing, or the name of the new one is taken.
            LongTextError: a text is too long, with `on_long="error"`.
            MemoryError: a single text does not fit into memory.
        """
        import pyarrow as pa

        from gliner_fast.jobs.arrow_types import entities_type, relations_type

        if not isinstance(table, pa.Table):
            raise TypeError(f"the batch is a {type(table).__name__}: call map_batches with batch_format='pyarrow'")
        if self._entities_column in table.column_names:
            raise ValueError(f"the table has a column {self._entities_column!r}: choose another entities_column")
        if self._relations_column in table.column_names:
            raise ValueError(f"the table has a column {self._relations_column!r}: choose another relations_column")
        texts = _read_texts(_column(table, self._text_column), self._text_column)
        entities = self._predict(texts, self._labels_of_rows(table))
        if self._redaction is not None:
            texts, entities = _redact(self._redaction, texts, entities)
            place = table.column_names.index(self._text_column)
            given = table.schema.field(place).type
            type_ = given if pa.types.is_large_string(given) else pa.string()
            table = table.set_column(place, self._text_column, pa.array(texts, type_))
        table = table.append_column(self._entities_column, pa.array(entities, entities_type()))
        if self._relations_column is None:
            return table
        relations = [None if own is None else relations_of(own) for own in entities]
        return table.append_column(self._relations_column, pa.array(relations, relations_type()))

    def _labels_of_rows(self, table: pa.Table) -> list[Any]:
        if self._labels_column is None:
            return [self._labels] * table.num_rows
        return _read_labels(_column(table, self._labels_column), self._labels_column)

    def _predict(self, texts: list[str | None], labels: list[Any]) -> list[list[Entity] | None]:
        predictor = self.model.predictor()
        rows = [row for row, text in enumerate(texts) if text is not None and labels[row] is not None]
        endless = {row for row in rows if predictor.has_endless_word(texts[row] or "", self._options)}
        if endless:
            warnings.warn(
                f"row {min(endless)} of a table has null for its entities, since it {ENDLESS_WORD}", stacklevel=3
            )
        rows = [row for row in rows if row not in endless]
        if self._options.must_read_all:
            rows = [row for row in rows if predictor.can_read_whole(self._request(texts, labels, [row]))]
        found = self.model.answer(self._request(texts, labels, rows))
        by_row = dict(zip(rows, found, strict=True))
        return [by_row.get(row) for row in range(len(texts))]

    def _request(self, texts: list[str | None], labels: list[Any], rows: list[int]) -> Request:
        asked = [labels[row] for row in rows] if self._labels is None else self._labels
        return Request.read([texts[row] or "" for row in rows], asked, self._options)


def use_assigned(device: str) -> torch.device:
    """Takes what Ray assigned to this actor: as many threads as CPUs and, for "auto", the GPU if there is one.

    Outside of Ray's actors threads stay as they are, and "auto" is any GPU.

    Raises:
        ValueError: the device cannot be used.
    """
    import torch

    from gliner_fast.precision import choose_device

    assigned = _assigned_resources()
    if assigned is None:
        return choose_device(device)
    torch.set_num_threads(max(1, int(assigned.get("CPU", 0))))
    # Ray shows an actor no GPU but its own, which is the first one then. One that has none must not take another's.
    has_gpu = assigned.get("GPU", 0) > 0
    return choose_device(("cuda" if has_gpu else "cpu") if device == "auto" else device)


def _assigned_resources() -> dict[str, float] | None:
    ray = sys.modules.get("ray")  # in an actor it is there
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    assigned: dict[str, float] = context.get_assigned_resources()
    return assigned


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ValueError(f"the table has no column {name!r}, only {listed(table.column_names)}")
    return table[name]


def _read_texts(column: pa.ChunkedArray, name: str) -> list[str | None]:
    from gliner_fast.jobs.arrow_types import holds_strings

    if not holds_strings(column.type):
        raise TypeError(f"the column {name!r} holds {column.type}: expected strings")
    texts: list[str | None] = column.to_pylist()
    return texts


def _read_labels(column: pa.ChunkedArray, name: str) -> list[Any]:
    """Each row's labels, read as jobs read them; None where a job would reject the row."""
    from gliner_fast.jobs.arrow_types import holds_labels

    if not holds_labels(column.type):
        raise TypeError(
            f"the column {name!r} holds {column.type}: expected list<string>, map<string, string>, struct of strings "
            "or string"
        )
    return [_labels_of_row(value, name) for value in column.to_pylist()]


def _labels_of_row(value: Any, name: str) -> Sequence[str] | Mapping[str, str] | None:
    from gliner_fast.jobs.arrow_types import as_labels
    from gliner_fast.jobs.records import BadRow
    from gliner_fast.jobs.row_labels import read_row_labels

    try:
        return read_row_labels(as_labels(value), name)
    except BadRow:
        return None


def _redact(
    redaction: Redaction, texts: list[str | None], entities: list[list[Entity] | None]
) -> tuple[list[str | None], list[list[Entity] | None]]:
    """Redacts each text; one without labels, or not read whole, cannot be redacted, so it is null too.

    Entities of a text keep their relations.
    """
    redacted = [
        None if text is None or found is None else redaction.apply(text, found, relations_of(found))
        for text, found in zip(texts, entities, strict=True)
    ]
    return (
        [one.text if one else None for one in redacted],
        [LinkedEntities(one.entities, one.relations) if one else None for one in redacted],
    )

"""Hugging Face datasets -> records, with the names of their tags."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gliner_fast.annotated.example import DataError
from gliner_fast.errors import is_of_system

# Columns that some form of record reads; a published table has others, and they are passed over.
_COLUMNS = ("tokenized_text", "ner", "ner_labels", "ner_negatives", "tokens", "words", "ner_tags", "tags")
_OFFSET_COLUMNS = ("text", "entities", "spans", "label", "labels")


def read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields the place ("FILE, row N", from 0 as datasets count) and the record of each row.

    Args:
        path: a folder that `Dataset.save_to_disk` wrote, or a Parquet file.

    Raises:
        DataError: it is no such folder, its Parquet is damaged, or the number of a tag has no name.
        ImportError: `datasets` is not installed.
    """
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"{path} is read by Hugging Face datasets: pip install datasets") from error
    if path.is_dir():
        try:
            table = datasets.load_from_disk(str(path))
        except FileNotFoundError as error:
            raise DataError(f"{path} is no folder of a Dataset, as save_to_disk writes it: {error}") from error
        if isinstance(table, datasets.DatasetDict):
            raise DataError(f"{path} holds the splits {', '.join(table)}: name one, such as {path / next(iter(table))}")
    else:
        try:
            table = datasets.Dataset.from_parquet(str(path), keep_in_memory=True)
        except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
            if is_of_system(error):
                raise
            raise DataError(
                f"{path} cannot be read as Parquet ({error.__cause__ or error}): is it cut off, or misnamed?"
            ) from error

    def place_of(row: int) -> str:
        return f"{path}, row {row}"

    for row, record in enumerate(named_tags(table, place_of)):
        yield place_of(row), record


def named_tags(data: Iterable[Any], place_of: Callable[[int], str]) -> Iterable[Any]:
    """The records of a dataset, its ClassLabel numbers as their names; other data as it is.

    Args:
        data: a dataset or any records; a streamed dataset may not know its columns, and gives plain records.
        place_of: the place of a row, for messages.

    Raises:
        DataError: where a row is read: the number of a tag has no name.
    """
    if getattr(data, "features", None) is None or getattr(data, "column_names", None) is None:
        return data
    return _rows_of(data, place_of)


def _rows_of(table: Any, place_of: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    has_words = any(name in table.column_names for name in _COLUMNS)
    columns = [
        name for name in table.column_names if name in _COLUMNS + (("labels",) if has_words else _OFFSET_COLUMNS)
    ]
    names = {name: getattr(getattr(table.features[name], "feature", None), "names", None) for name in columns}
    for number, row in enumerate(table.select_columns(columns)):
        yield {
            name: _names_of(row[name], own, f"{place_of(number)}: {name}")
            if (own := names[name]) is not None and row[name] is not None
            else row[name]
            for name in columns
        }


def _names_of(numbers: Sequence[int | None], names: Sequence[str], place: str) -> list[str]:
    for index, number in enumerate(numbers):
        if number is None or not 0 <= number < len(names):
            raise DataError(
                f"{place}[{index}] is {number!r}: expected the number of a ClassLabel, 0 to {len(names) - 1}; datasets "
                "has -1 where tags are hidden, and others -100 where there is none"
            )
    return [names[number] for number in numbers if number is not None]

"""What a job takes of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """Which columns are read, and which pass through to the output.

    Attributes:
        text_column: holds the texts.
        id_column: names the rows; always passes through, before the others where it is not among them.
        labels_column: holds each row's own labels.
        columns: pass through; None for all.
        as_objects: rows of JSON lines pass through as the objects they are; else, and in other formats, as a table.
        reserved: names that the output gives to its own columns; no input column may bring one of them along.
    """

    text_column: str = "text"
    id_column: str | None = None
    labels_column: str | None = None
    columns: Sequence[str] | None = None
    as_objects: bool = False
    reserved: Sequence[str] = ()

    @property
    def kept(self) -> list[str] | None:
        """Columns that pass through, in the order of the output; None for all."""
        if self.columns is None:
            return None
        names = list(dict.fromkeys(self.columns))
        return names if self.id_column is None or self.id_column in names else [self.id_column, *names]

    @property
    def read(self) -> list[str]:
        """Columns that a row must have whatever passes through, each once."""
        needed = (self.text_column, self.id_column, self.labels_column)
        return list(dict.fromkeys(name for name in needed if name is not None))

    def name_it(self, name: str) -> str:
        """What to do about a column that is not there, in a message."""
        askers = {"text_column": self.text_column, "id_column": self.id_column, "labels_column": self.labels_column}
        setting = next((setting for setting, named in askers.items() if named == name), "columns")
        return f"name the right one by {setting} (--{setting.replace('_', '-')})"

    def tell_apart(self, name: str) -> str:
        """What to do about several columns of one name, in a message."""
        return "rename all but one" + ("" if name in self.read else ", or leave it out of those that pass (--columns)")

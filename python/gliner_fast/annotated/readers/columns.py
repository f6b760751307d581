"""CoNLL files, a word and its tag a line -> examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gliner_fast.annotated.example import DataError, Example, Report
from gliner_fast.annotated.readers.source import read_lines
from gliner_fast.annotated.readers.tags import is_tag, spans_of_tags


def read_columns(path: Path, word_column: int = 0, tag_column: int = -1, *, report: Report) -> Iterator[Example]:
    """Reads the sentences of a column file.

    Columns are parted by tabs where a line has one, by blanks else. Blank lines and -DOCSTART- lines part sentences.
    A line that begins with "#" in front of a sentence is a comment, unless it is a row of this file: words may be
    hashtags.

    Args:
        path: the file.
        word_column: of the word, from 0; negative ones count from the end.
        tag_column: of the tag, likewise.
        report: takes a row of another number of columns, an empty word, or a tag that is none; the sentence is left
            out.

    Raises:
        DataError: by `report`.
    """
    words: list[str] = []
    tags: list[str] = []
    width: int | None = None
    is_spoilt = False
    for number, line in read_lines(path):
        cells = _split(line)
        if not line.strip() or cells[0] == "-DOCSTART-":
            if words and not is_spoilt:
                yield Example(tuple(words), spans_of_tags(tags))
            words, tags, is_spoilt = [], [], False
            continue
        is_first = not words and not is_spoilt
        if line.startswith("#") and is_first and not _is_row(line, cells, width, tag_column):
            continue
        place = f"{path}, line {number}"
        try:
            if width is None:
                width = _check_width(cells, (word_column, tag_column), place)
            word, tag = _read_row(line, cells, width, (word_column, tag_column), place)
        except DataError as error:
            report(error)
            is_spoilt = True
        else:
            words.append(word)
            tags.append(tag)
    if words and not is_spoilt:
        yield Example(tuple(words), spans_of_tags(tags))


def _split(line: str) -> list[str]:
    if "\t" in line.rstrip():
        return line.split("\t")
    # Not split(), but where blanks of another kind part all columns: a word may hold a no-break space.
    cells = [cell for cell in line.split(" ") if cell]
    return line.split() if len(cells) == 1 else cells


def _is_row(line: str, cells: list[str], width: int | None, tag_column: int) -> bool:
    """Whether a line that begins with "#" is a row: it has the file's columns, and a tab between them or a tag."""
    if width is not None and len(cells) != width:
        return False
    if width is not None and "\t" in line:
        return True
    return -len(cells) <= tag_column < len(cells) and is_tag(cells[tag_column].strip())


def _read_row(line: str, cells: list[str], width: int, columns: tuple[int, int], place: str) -> tuple[str, str]:
    """The word and its tag."""
    if len(cells) != width:
        raise DataError(f"{place}: {len(cells)} columns, and the rows before have {width}: {line!r}")
    word_column, tag_column = columns
    word, tag = cells[word_column].strip(), cells[tag_column].strip()
    if not word:
        raise DataError(f"{place}: the word in column {word_column} is empty: {line!r}")
    if not is_tag(tag):
        hint = "; the line ends with a tab, behind which a column is empty" if line.endswith("\t") else ""
        raise DataError(
            f"{place}: the tag in column {tag_column} is {tag!r}: expected O, or B- or I- (E-, S-, L-, U-) and a "
            f"label, such as B-person{hint}"
        )
    return word, tag


def _check_width(cells: list[str], columns: tuple[int, int], place: str) -> int:
    if len(cells) < 2:
        raise DataError(f"{place}: {cells[0]!r} stands alone: expected a word and its tag, parted by a tab or blanks")
    for column in columns:
        if not -len(cells) <= column < len(cells):
            raise DataError(f"{place}: {len(cells)} columns, and column {column} is asked for")
    return len(cells)

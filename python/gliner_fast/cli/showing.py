"""What a terminal shows: texts with their entities and relations, coloured, and nothing that could steer it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from gliner_fast.entity import Entity
    from gliner_fast.relations.relation import Relation

# Readable on dark and on light terminals alike.
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red", "bright_cyan", "bright_green", "bright_magenta")

_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_VISIBLE |= dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000), 0x2028, 0x2029), 0xFFFD)
# What turns the order of characters round, so that a text reads as another one (CVE-2021-42574).
_VISIBLE |= dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
_VISIBLE_IN_LINE = _VISIBLE | {0x09: 0x2409, 0x0A: 0x240A}


def visible(text: str) -> str:
    """Returns a text that cannot steer a terminal, nor show its characters in another order; tabs and lines stay.

    One character stands for one, so that offsets still hold.
    """
    return text.translate(_VISIBLE)


def visible_in_line(text: str) -> str:
    """Returns the same of a text that is to stay in its line: a name, a label, a value of a row."""
    return text.translate(_VISIBLE_IN_LINE)


def show(text: str) -> None:
    """Prints an answer: visibly on a terminal, and as it is into files and pipes, where programs read it."""
    print(visible(text) if sys.stdout.isatty() else text)


def show_rows(title: str, rows: Mapping[str, str]) -> None:
    """Prints named values below a title, as `show` prints; on a terminal none can pass for another row."""
    is_terminal = sys.stdout.isatty()
    shown = visible_in_line if is_terminal else str
    print(f"\x1b[1m{shown(title)}\x1b[0m" if is_terminal else title)
    width = max(map(len, rows), default=0)
    for name, value in rows.items():
        print(f"  {name:<{width}}  {shown(value)}")


def tell(message: str) -> None:
    """Prints on standard error what is for people, and so always visibly; of names that are not UTF-8, the bytes."""
    print(visible(message.encode(errors="backslashreplace").decode()), file=sys.stderr, flush=True)


def coloured(text: str, entities: Sequence[Entity], labels: Sequence[str]) -> Text:
    """Returns a text with its entities in their label's colour, each followed by label and score."""
    from rich.text import Text

    shown = Text()
    source = Text(visible(text))
    colour_of = _colours(labels)
    for entity in entities:
        source.stylize(f"bold {colour_of[entity['label']]}", entity["start"], entity["end"])
    done = 0
    for entity in sorted(entities, key=lambda entity: entity["end"]):
        shown.append_text(source[done : entity["end"]] if entity["end"] > done else Text())
        done = max(done, entity["end"])
        colour = colour_of[entity["label"]]
        shown.append(f" {visible_in_line(entity['label'])}", style=f"italic {colour}")
        shown.append(f" {entity['score']:.2f}", style="dim")
    return shown.append_text(source[done:]) if done < len(source) else shown


def coloured_relations(relations: Sequence[Relation], labels: Sequence[str]) -> Text:
    """Returns a line for each relation: its ends in their label's colour, what links them, and the score."""
    from rich.text import Text

    shown = Text()
    colour_of = _colours(labels)
    for relation in relations:
        head, tail = relation["head"], relation["tail"]
        shown.append("\n  ")
        shown.append(_in_one_line(head["text"]), style=f"bold {colour_of[head['type']]}")
        shown.append(" → ")
        shown.append(_in_one_line(relation["relation"]), style="italic")
        shown.append(" → ")
        shown.append(_in_one_line(tail["text"]), style=f"bold {colour_of[tail['type']]}")
        shown.append(f" {relation['score']:.2f}", style="dim")
    return shown


def _in_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def _colours(labels: Sequence[str]) -> dict[str, str]:
    return {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(labels)}

"""What a terminal shows: texts with their entities and relations, coloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

    from gliner_fast.entity import Entity
    from gliner_fast.relations.relation import Relation

# Readable on dark and on light terminals alike.
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red", "bright_cyan", "bright_green", "bright_magenta")

# A text must not be able to steer the terminal. One character for one, so that offsets still hold.
_VISIBLE = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_VISIBLE |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD) | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)


def coloured(text: str, entities: Sequence[Entity], labels: Sequence[str]) -> Text:
    """Returns a text with its entities in their label's colour, each followed by label and score."""
    from rich.text import Text

    shown = Text()
    source = Text(text.translate(_VISIBLE))
    colour_of = _colours(labels)
    for entity in entities:
        source.stylize(f"bold {colour_of[entity['label']]}", entity["start"], entity["end"])
    done = 0
    for entity in sorted(entities, key=lambda entity: entity["end"]):
        shown.append_text(source[done : entity["end"]] if entity["end"] > done else Text())
        done = max(done, entity["end"])
        colour = colour_of[entity["label"]]
        shown.append(f" {entity['label']}".translate(_VISIBLE), style=f"italic {colour}")
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
    return " ".join(text.translate(_VISIBLE).split())


def _colours(labels: Sequence[str]) -> dict[str, str]:
    return {label: _COLOURS[number % len(_COLOURS)] for number, label in enumerate(labels)}

"""Evaluations -> a bar chart in SVG, which browsers and READMEs show without more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from gliner_fast.evaluation.results import Evaluation

# Pixels: a bar with its gap, the gap between sets, the names' column, 100 %, an entry of the legend.
_BAR, _GAP, _NAMES, _PLOT, _ENTRY = 14, 10, 190, 500, 120
# Told apart by people who see colours differently, too (Okabe and Ito).
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")

# Characters that XML has no way to write; a set has the name of its file, and those may hold any.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def chart(evaluations: Sequence[Evaluation], title: str) -> str:
    """Micro F1 in percent: a group of bars a set, a bar a threshold; an SVG document."""
    results = evaluations[0].results
    group = len(results) * _BAR + _GAP
    top = 60
    height = top + len(evaluations) * group + 30
    width = _NAMES + max(_PLOT + 60, len(results) * _ENTRY)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        '<g font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-size="15">{_as_xml(title)}</text>',
    ]
    for index, result in enumerate(results):
        name = "per label" if isinstance(result.threshold, Mapping) else f"threshold {result.threshold:g}"
        x = _NAMES + index * _ENTRY
        parts.append(f'<rect x="{x}" y="32" width="10" height="10" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 15}" y="41">{name}</text>')
    for percent in range(0, 101, 20):
        x = _NAMES + _PLOT * percent // 100
        parts.append(f'<line x1="{x}" x2="{x}" y1="{top - 5}" y2="{height - 25}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{percent}</text>')
    for place, evaluation in enumerate(evaluations):
        y = top + place * group
        middle = y + len(results) * _BAR // 2 + 4
        parts.append(f'<text x="{_NAMES - 8}" y="{middle}" text-anchor="end">{_as_xml(evaluation.name)}</text>')
        for index, result in enumerate(evaluation.results):
            f1, bar = 100 * result.micro.f1, y + index * _BAR
            colour = _COLOURS[index % len(_COLOURS)]
            parts.append(
                f'<rect x="{_NAMES}" y="{bar}" width="{_PLOT * f1 / 100:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{_NAMES + _PLOT * f1 / 100 + 4:.1f}" y="{bar + 10}" font-size="10">{f1:.1f}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _as_xml(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))

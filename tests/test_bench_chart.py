"""The chart of a bench's result file."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benches.chart import PLOT, chart

RESULT = Path(__file__).parent.parent / "benches" / "results" / "2026-11-26-amd-epyc-end-to-end-base.json"
SVG = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_speeds_are_high():
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    drawn = ET.fromstring(chart(result, "short"))
    texts = [text.text for text in drawn.iter(f"{SVG}text")]
    bars = [float(bar.attrib["width"]) for bar in drawn.iter(f"{SVG}rect") if bar.attrib["width"] != "100%"]
    sides = [
        seconds["median_s"]
        for bench in result["benchmarks"]
        if "short" in bench["name"]
        for seconds in (bench["extra_info"]["ours"], *bench["extra_info"]["rivals"].values())
    ]
    assert len(bars) == len(sides)
    assert max(bars) == PLOT
    assert bars == pytest.approx([bars[0] * sides[0] / seconds for seconds in sides], abs=0.1)
    assert texts.count("gliner_fast") == sum("short" in bench["name"] for bench in result["benchmarks"])
    assert any(text.startswith("1.00x, ") for text in texts)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="whose name contains 'nothing'"):
        chart(json.loads(RESULT.read_text(encoding="utf-8")), "nothing")

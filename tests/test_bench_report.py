"""The tables of the benches' result files."""

from __future__ import annotations

from pathlib import Path

import pytest

from benches.report import main

RESULTS = Path(__file__).parent.parent / "benches" / "results"


def test_every_result_file_is_told_of(capsys: pytest.CaptureFixture[str]):
    main([str(path) for path in sorted(RESULTS.glob("*.json"))])
    told = capsys.readouterr().out
    assert "intel-xeon-amx-job-memory.json: not by pytest-benchmark, no table (machine, model, jobs)" in told
    assert "| end_to_end[mixed-5-base-cpu] | 1,086 words | 530 words/s | gliner as shipped |" in told

"""`make gpu-check` on a machine that has less than `.venv`: what it needs, and what is left out without it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benches import bench_gpu, gpu_check, hardware, report
from benches.floor import Peaks
from benches.on_card import covered
from gliner_fast import GLiNER
from gliner_fast.kernels._triton import HAS_TRITON

ROOT = Path(__file__).resolve().parent.parent
# What stands in for a machine without them: Python itself refuses these imports.
MISSING = ("gliner", "pyarrow", "ray", "accelerate", "datasets", "pandas", "sentencepiece")
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); import pytest; sys.exit(pytest.main())"


def test_gpu_tests_need_neither_plugins_nor_gliner():
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "-p", "no:timeout", "-p", "no:benchmark", "-p", "no:xdist", "-q",
         "--collect-only", "-m", "gpu and not gliner", "tests/test_gpu.py", "tests/kernels"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": "python"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_the_built_in_model_answers_as_on_the_cpu" in done.stdout
    assert "test_a_random_checkpoint_answers_as_gliner_does" not in done.stdout


# A worker of xdist's would hand on that it is one, and pytest-benchmark does nothing there.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
BENCH = """
import time

def test_{name}(benchmark):
    open({begun!r}, "w").close()
    benchmark.pedantic(lambda: time.sleep({seconds}), rounds=1)
"""


def test_a_part_that_takes_too_long_leaves_the_figures_of_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, seconds in (("quick", 0), ("slow", 300)):
        code = BENCH.format(name=name, seconds=seconds, begun=str(tmp_path / f"{name} has begun"))
        (tmp_path / f"test_{name}.py").write_text(code)
    result, log, limit = tmp_path / "result.json", tmp_path / "log", 150

    class Hurried(subprocess.Popen[bytes]):
        """Its time is over once the slow bench has begun: a fixed time is too short, or idled out in vain."""

        def wait(self, timeout: float | None = None) -> int:
            if timeout != limit:
                return super().wait(timeout)
            end = time.monotonic() + limit
            while self.poll() is None and not (tmp_path / "slow has begun").exists() and time.monotonic() < end:
                time.sleep(0.05)
            return super().wait(0)

    monkeypatch.setattr(gpu_check.subprocess, "Popen", Hurried)
    files = [str(tmp_path / f"test_{name}.py") for name in ("quick", "slow")]
    part = gpu_check.Part("", 1, ("pytest", "-p", "benches.conftest", "-c", os.devnull, *files))
    whole = gpu_check.command(part, result, "not slow", in_parallel=True)
    began = time.monotonic()
    assert not gpu_check.run(whole, limit, ENVIRONMENT, log)
    assert time.monotonic() - began < 200  # on a machine with other work to do
    assert [bench["name"] for bench in json.loads(result.read_text())["benchmarks"]] == ["test_quick"]
    assert "KeyboardInterrupt" in log.read_text()


def test_a_part_is_interrupted_where_the_shell_has_us_ignore_that(tmp_path: Path):
    log, began = tmp_path / "log", time.monotonic()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sleeper = "import time; print('began', flush=True); time.sleep(300)"
        assert not gpu_check.run([sys.executable, "-S", "-c", sleeper], 2, os.environ, log)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < gpu_check.GRACE  # or it was killed
    assert "KeyboardInterrupt" in log.read_text()


def test_a_part_that_fails_is_told_from_one_that_does_not(tmp_path: Path):
    log = tmp_path / "log"
    assert gpu_check.run([sys.executable, "-c", "print('well')"], 60, os.environ, log)
    assert not gpu_check.run([sys.executable, "-c", "import sys; sys.exit('not well')"], 60, os.environ, log)
    assert log.read_text().split() == ["well", "not", "well"]


def test_what_parts_name_is_there():
    parts = [part for part in gpu_check.PARTS.values() if part.given[0] == "pytest"]
    named = [case.format(size="base") for part in parts for case in part.given[1:]]
    listed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-m", "gpu", *named],
        cwd=ROOT, env=ENVIRONMENT | {"GLINER_FAST_BENCH_SIZES": "base"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stdout + listed.stderr
    cases = [case for case in named if "::" in case]
    assert len(cases) > 30
    assert set(cases) <= set(listed.stdout.splitlines())
    modules = [part.given[0] for part in gpu_check.PARTS.values() if part.given[0] != "pytest"]
    assert modules == ["benches.profile_card", "benches.tune_attention", "benches.tune_budget"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a card")
@pytest.mark.skipif(
    torch.version.cuda is None or not (HAS_TRITON and shutil.which("g++") and shutil.which("nm")),
    reason="the hollow CUDA is built by g++ and nm, for a torch that is made for CUDA, and starts Triton's kernels",
)
def test_what_is_for_a_card_runs_on_a_cuda_that_computes_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "benches.hollow_cuda", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         "tests/test_gpu.py", "tests/test_upload.py", "tests/encoders/test_gpu_layers.py"],
        cwd=ROOT, env=ENVIRONMENT | {"PYTHONPATH": "python"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_every_bench_for_a_card_belongs_to_a_part():
    named = {case for part in gpu_check.PARTS.values() for case in part.given}
    whole = {Path(case).name for case in named}
    for path in (ROOT / "benches").glob("bench_*.py"):
        code = path.read_text(encoding="utf-8")
        benches = re.findall(r"^def (bench_\w+)", code, re.MULTILINE)
        if not re.search(r'mark\.gpu|"device", DEVICES', code) or path.stem == "bench_end_to_end":
            continue
        own = {case.partition("::")[2].partition("[")[0] for case in named if path.name in case}
        assert path.name in whole or set(benches) == own, path.name


@pytest.mark.parametrize("page", ["benches/gpu_check.py", "kernels/README.md"])
def test_the_calls_that_are_recommended_name_parts(page: str):
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    calls = re.findall(r"-m benches\.gpu_check ((?:[a-z][a-z0-9-]* +)+)--seconds (\d+)", text)
    assert len(calls) == 2
    for parts, seconds in calls:
        assert set(parts.split()) <= set(gpu_check.PARTS)
        assert int(seconds) <= 400  # of the 900 for which a card is lent, start and end of the machine included


def test_another_size_is_asked_for_throughout():
    assert gpu_check.read_arguments(["speed", "--size", "large"]).size == "large"
    whole = gpu_check.command(gpu_check.PARTS["speed"], Path("out"), "gpu", in_parallel=False, size="large")
    assert "benches/bench_gpu.py::bench_gpu[short-5-bf16-large-cuda]" in whole
    with gpu_check.environment_with(Path("none"), "large") as environment:
        assert environment["GLINER_FAST_BENCH_SIZES"] == "large"


def test_a_part_that_fails_leaves_what_was_measured_before(tmp_path: Path):
    written, result = tmp_path / "unfinished.json", tmp_path / "speed.json"
    result.write_text("earlier")
    assert gpu_check.keep_figures(written, result, ended=False) is None
    written.touch()  # as pytest-benchmark does at its start
    assert gpu_check.keep_figures(written, result, ended=False) is None
    written.write_text("some")
    assert gpu_check.keep_figures(written, result, ended=False) == tmp_path / "speed-cut-off.json"
    assert result.read_text() == "earlier"
    written.write_text("later")
    assert gpu_check.keep_figures(written, result, ended=True) == result
    assert result.read_text() == "later"
    assert not written.exists()


def test_a_package_that_is_not_on_the_path_is_told_of():
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benches.gpu_check"],
        cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("gliner_fast is not found, or its extension is not built: ")
    assert "PYTHONPATH=python" in done.stderr


def test_a_part_is_told_where_results_go(tmp_path: Path):
    whole = gpu_check.command(gpu_check.PARTS["profile"], tmp_path / "result.json", "gpu", in_parallel=False)
    assert whole[1:] == ["-m", "benches.profile_card", "--size", "base", "--out", str(tmp_path)]


def test_a_part_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        gpu_check.main(["speed", "sped"])
    assert "no part is called sped: expected some of card, speed, profile, tests, " in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a card")
def test_without_a_card_nothing_is_begun():
    with pytest.raises(SystemExit, match="no CUDA device"):
        gpu_check.main([])


def test_what_overlaps_on_the_card_counts_once():
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3), (6, 6.5)]) == 5


def test_a_card_that_the_profiler_does_not_see_is_not_called_idle(checkpoint, monkeypatch: pytest.MonkeyPatch):
    model, card = GLiNER.from_pretrained(checkpoint("deberta")), dict[str, Any]()
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(bench_gpu, "measure_peaks", lambda _: Peaks(1e12, 1e15))
    monkeypatch.setattr(bench_gpu, "peak_bytes", lambda call: call() and 0)
    monkeypatch.setattr(bench_gpu, "profiled", lambda _: SimpleNamespace(events=list))
    bench_gpu.add_card_figures(card, model, ["Ada Lovelace lived in London."], ["person"], "fp32")
    assert {"subwords_a_second", "share_of_product_peak", "stages"} <= set(card)
    assert "busy_share" not in card


def test_what_a_card_came_to_is_a_row_and_the_rest_is_blank():
    card = {"subwords_a_second": 1_234_567.8, "share_of_product_peak": 0.456}
    result = {"benchmarks": [{"name": "bench_gpu_card[short]", "extra_info": {"card": card}}]}
    assert "| gpu_card[short] | 1,234,568 | 46 % |  |  |" in report.as_markdown(result)
    assert report.as_markdown({"benchmarks": [{"name": "bench_gpu_card[short]", "extra_info": {"card": {}}}]}) == ""


def test_a_result_names_the_packages_that_are_here(monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "gliner":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(hardware, "version", version)
    assert hardware.installed_versions() == dict.fromkeys(
        ("torch", "transformers", "tokenizers", "numpy", "triton", "disentangled-flash", "flashdeberta"), "1.0"
    )

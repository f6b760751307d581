r"""GPU tests and GPU benches in parts, the most telling first; `make gpu-check` runs all parts.

A card that is lent for minutes must not go back without figures. So each part is a process of its own, with a time of
its own: it is interrupted then, and still writes the figures that it has. Nothing needs a network or .venv: the Python
that runs this is used, with what lies in WHEELS (`make gpu-wheels`) beside it for as long as this runs, and the built
extension, of which one build serves every Python from 3.10.

No part are `bench_end_to_end` on a card, in whose place `bench_gpu` stands, and `tune_span_scores`.

Example, in two calls, for a card that is lent for 900 seconds with its start and its end (kernels/README.md):
    PYTHONPATH=python python3 -m benches.gpu_check card speed profile tests --seconds 400 --out "$OUT"
    PYTHONPATH=python python3 -m benches.gpu_check compiled latency-compiled peers speed-25 attention latency \
        gelu latency-graphs tune --seconds 320 --out "$OUT"
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path

from benches import hollow_cuda, report
from benches.hardware import short_name

ROOT = Path(__file__).resolve().parent.parent
GRACE = 30  # seconds to write results in, once interrupted
_SHOWN = 1_500  # characters of what a part printed last; all is in the log


@dataclass(frozen=True)
class Part:
    """What is run as one process.

    Attributes:
        about: what it tells.
        seconds: after which it is interrupted.
        given: to Python after -m, "{out}" for the folder of the results, "{size}" for that of the checkpoint; pytest is
            told the markers and where to write in addition.
        is_bench: whether pytest writes figures.
        needs: a package without which it does not run.
    """

    about: str
    seconds: int
    given: tuple[str, ...]
    is_bench: bool = True
    needs: str = "pytest_benchmark"


def _benches(about: str, seconds: int, file: str, *cases: str) -> Part:
    return Part(about, seconds, ("pytest", *(f"benches/{file}::{case}" for case in cases)))


def _end_to_end(bench: str, labels: int) -> list[str]:
    works = [("short", "bf16"), ("mixed", "bf16"), ("short", "fp32"), ("mixed", "fp32")]
    return [f"{bench}[{corpus}-{labels}-{dtype}-{{size}}-cuda]" for corpus, dtype in works]


def _by_dtype(*benches: str, lengths: Sequence[int]) -> list[str]:
    dtypes = ("bfloat16", "float32")
    return [f"{name}[{length}-torch.{dtype}-cuda]" for dtype in dtypes for length in lengths for name in benches]


TESTS = ("tests/test_gpu.py", "tests/test_upload.py", "tests/kernels", "tests/encoders/test_gpu_layers.py")
# What is asked of a card first: ten times `gliner` as shipped, three times the best of it, single texts in half of its
# time. What a cut may cost comes last, here and in a part.
PARTS = {
    "card": _benches(
        "ours alone: subwords a second, how busy the card is", 100, "bench_gpu.py", *_end_to_end("bench_gpu_card", 5)
    ),
    "speed": _benches(
        "texts to entities with 5 types, beside gliner", 200, "bench_gpu.py", *_end_to_end("bench_gpu", 5)
    ),
    "profile": Part(
        "where the card's time goes, kernel by kernel", 60,
        ("benches.profile_card", "--size", "{size}", "--out", "{out}"), is_bench=False, needs="gliner",
    ),
    "tests": Part("every GPU test, several at once", 150, ("pytest", *TESTS), is_bench=False, needs="pytest"),
    "compiled": _benches(
        "beside gliner with its DeBERTa compiled", 120, "bench_gpu.py",
        "bench_gpu_compiled[short-{size}-cuda]", "bench_gpu_compiled[mixed-{size}-cuda]",
    ),
    "latency-compiled": _benches(
        "single texts beside gliner with its DeBERTa compiled", 110, "bench_gpu.py",
        "bench_gpu_latency_compiled[default-{size}-cuda]",
    ),
    "peers": _benches(
        "beside FlashDeBERTa and disentangled-flash", 90, "bench_gpu.py",
        "bench_gpu_attentions[short-{size}-cuda]", "bench_gpu_attentions[mixed-{size}-cuda]",
    ),
    "speed-25": _benches("texts to entities with 25 types", 120, "bench_gpu.py", *_end_to_end("bench_gpu", 25)),
    "attention": _benches(
        "our attention beside torch's and disentangled-flash's", 80, "bench_attention.py",
        *_by_dtype("bench_attention_with_products", "bench_attention", lengths=(64, 128, 512, 32, 256)),
    ),
    "latency": _benches(
        "single texts, with and without CUDA graphs", 90, "bench_gpu.py",
        "bench_gpu_latency[bf16-{size}-cuda]", "bench_gpu_latency[fp32-{size}-cuda]",
    ),
    "gelu": Part("GELU in the product before it", 40, ("pytest", "benches/bench_gelu.py")),
    "latency-graphs": _benches(
        "single texts beside gliner compiled into CUDA graphs", 130, "bench_gpu.py",
        "bench_gpu_latency_compiled[reduce-overhead-{size}-cuda]",
    ),
    "tune": Part("block sizes of the attention", 120, ("benches.tune_attention",), is_bench=False, needs="torch"),
    "kernels": Part(
        "span scores, residual and norm, rotations, each beside torch", 90,
        ("pytest", "benches/bench_span_scores.py", "benches/bench_add_norm.py", "benches/bench_rotations.py"),
    ),
    "budget": Part(
        "subwords a batch", 60, ("benches.tune_budget", "--size", "{size}"), is_bench=False, needs="gliner"
    ),
    "gradient": Part("the span scores' gradient", 60, ("pytest", "benches/bench_span_gradient.py")),
    "speed-100": _benches(
        "texts to entities with 100 types", 400, "bench_gpu.py", *_end_to_end("bench_gpu", 100)
    ),
    "card-25": _benches("as card, with 25 types", 100, "bench_gpu.py", *_end_to_end("bench_gpu_card", 25)),
    "training": Part(
        "a step of training, beside gliner's", 180, ("pytest", "benches/bench_training.py"), needs="accelerate"
    ),
    "relations": Part("texts to entities and relations", 120, ("pytest", "benches/bench_relations.py")),
    "kinds": Part(
        "token-level models, bi-encoders, mT5: texts to entities", 240, ("pytest", "benches/bench_kinds.py")
    ),
    "pieces": Part(
        "encoder and head by themselves", 120, ("pytest", "benches/bench_encoder.py", "benches/bench_head.py")
    ),
}  # fmt: skip


def command(part: Part, result: Path, markers: str, *, in_parallel: bool, size: str = "base") -> list[str]:
    """What runs a part."""
    whole = [sys.executable, "-m", *(given.format(out=result.parent, size=size) for given in part.given)]
    if part.given[0] != "pytest":
        return whole
    whole += ["-q", "-m", markers]
    if part.is_bench:
        # Other people's warnings fail a test here, but should not cost a figure.
        return [*whole, "-W", "default", f"--benchmark-json={result}"]
    # Nor should other people's notices of what will change fail a test on versions that no one has tried.
    for category in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
        whole += ["-W", f"default::{category}"]
    return [*whole, *(["-n", str(min(12, os.cpu_count() or 1)), "--dist", "load"] if in_parallel else [])]


def run(whole: Sequence[str], seconds: float, environment: Mapping[str, str], log: Path) -> bool:
    """Runs a command for so long at most, then interrupts it; whether it ended well by itself.

    What it prints is added to the log.
    """
    with log.open("ab") as file, _interruptible():
        process = subprocess.Popen(whole, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"interrupted after {seconds:.0f} seconds", flush=True)
        process.send_signal(signal.SIGINT)  # pytest writes what it has, and its workers end with it
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()  # and its workers end where it is gone
            process.wait()
        return False
    return process.returncode == 0


def keep_figures(written: Path, result: Path, *, ended: bool) -> Path | None:
    """Moves what a part has written to where its results belong, and tells where that is; None where it wrote nothing.

    A part that did not end well takes no earlier figures of the same day away: they were of more than it came to.
    """
    if not (written.exists() and written.stat().st_size):
        written.unlink(missing_ok=True)
        return None
    if not ended and result.exists():
        result = result.with_stem(f"{result.stem}-cut-off")
    return written.replace(result)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """What is started can be interrupted, even if we cannot: a shell has what it starts by `&` ignore that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is handled is not ignored by who is started
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def environment_with(wheels: Path, size: str) -> Iterator[dict[str, str]]:
    """The environment of the parts: offline, with the packages of some wheels as long as the context lasts."""
    with tempfile.TemporaryDirectory() as carried:
        for wheel in sorted(wheels.glob("*.whl")):  # one by one, so that one that does not fit costs no other
            install = ["pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--target", carried]
            done = subprocess.run([sys.executable, "-m", *install, str(wheel)], check=False)
            if done.returncode:
                print(f"{wheel.name} cannot be installed: what needs it is left out", flush=True)
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "python"), carried, os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "GLINER_FAST_BENCH_SIZES": size,
        }
        flash = Path(carried, "flashdeberta")
        if flash.exists() and not _runs("import flashdeberta", environment):
            print("flashdeberta does not run with what is here, and is left out", flush=True)
            shutil.rmtree(flash)
        yield environment


def _runs(code: str, environment: Mapping[str, str]) -> bool:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    return done.returncode == 0


def _has(package: str, environment: Mapping[str, str]) -> bool:
    found = f"import sys; from importlib.util import find_spec; sys.exit(find_spec({package!r}) is None)"
    return _runs(found, environment)


def _has_extension() -> bool:
    try:
        return find_spec("gliner_fast._rust") is not None
    except ModuleNotFoundError:  # of the package itself
        return False


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What the command line asks for; a rehearsal's results go where nobody looks for results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = "\n".join(f"  {name:16} {part.seconds:4} s  {part.about}" for name, part in PARTS.items())
    parser.epilog = f"parts, and the time that each may take:\n{parts}"
    parser.add_argument("parts", nargs="*", metavar="PART", help="in the order wanted; all, if none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "results", help="folder of the result files")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for all of this, not only the parts")
    parser.add_argument("--size", choices=["tiny", "small", "base", "large"], default="base", help="of the checkpoint")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist" / "gpu-wheels")
    parser.add_argument(
        "--rehearse", action="store_true",
        help="without a card, on a CUDA that computes nothing: shows what would not run, writes no results",
    )  # fmt: skip
    asked = parser.parse_args(arguments)
    unknown = set(asked.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part is called {', '.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    if asked.rehearse:
        asked.out = hollow_cuda.FOLDER / "results"
    return asked


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts, prints their logs and the tables of their figures; 1 where one failed or ran out of time."""
    asked = read_arguments(arguments)
    end = time.monotonic() + asked.seconds  # before torch is imported, which takes a lent card's time as well
    if not _has_extension():
        sys.exit(
            "gliner_fast is not found, or its extension is not built: run `make env` where cargo is, carry "
            "python/gliner_fast/_rust.abi3.so, and start this with PYTHONPATH=python"
        )
    if asked.rehearse and not hollow_cuda.is_here():
        os.environ["GLINER_FAST_BENCH_SCALE"] = "0.02"
        hollow_cuda.rehearse(hollow_cuda.FOLDER)
    import torch

    if not torch.cuda.is_available():
        sys.exit("no CUDA device: these tests and benches are for one")
    print(torch.cuda.get_device_name(), flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    patience = 10 if asked.rehearse else 1  # kernels are compiled, and by few cores
    name = f"{date.today()}-{short_name('cuda')}"  # noqa: DTZ011
    of_size = "" if asked.size == "base" else f"-{asked.size}"
    log, failed, results = asked.out / "gpu-check.log", list[str](), list[Path]()
    log.unlink(missing_ok=True)
    with environment_with(asked.wheels, asked.size) as environment:
        has_gliner = _has("gliner", environment)
        if not has_gliner:
            print("gliner is missing: what compares with it is left out; carry `make gpu-wheels`", flush=True)
        if has_gliner:  # here, so that no part's time goes into it
            subprocess.run(
                [sys.executable, "-c", "from benches.conftest import SIZES, checkpoint; [*map(checkpoint, SIZES)]"],
                cwd=ROOT, env=environment, check=False,
            )  # fmt: skip
            print(f"checkpoints are there, {end - time.monotonic():.0f} s are left", flush=True)
        markers, in_parallel = "gpu" if has_gliner else "gpu and not gliner", _has("xdist", environment)
        for part_name in asked.parts or PARTS:
            part, left = PARTS[part_name], end - time.monotonic()
            written = asked.out / "unfinished.json"
            written.unlink(missing_ok=True)
            print(f"\n=== {part_name}: {part.about} ===", flush=True)
            if not _has(part.needs, environment):
                print(f"{part_name}: needs {part.needs}, which is missing; carry `make gpu-wheels`", flush=True)
                failed.append(part_name)
                continue
            began, told = time.monotonic(), log.stat().st_size if log.exists() else 0
            ended = left > GRACE and run(
                command(part, written, markers, in_parallel=in_parallel, size=asked.size),
                min(patience * part.seconds, left - GRACE), environment, log,
            )  # fmt: skip
            if log.exists():
                print(log.read_bytes()[told:].decode(errors="replace")[-_SHOWN:], flush=True)
            print(f"{part_name}: {'done' if ended else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
            failed += [] if ended else [part_name]
            kept = keep_figures(written, asked.out / f"{name}-{part_name}{of_size}.json", ended=ended)
            results += [kept] if kept else []
    if results and not asked.rehearse:
        report.main([str(result) for result in results])
    print(f"failed or interrupted: {', '.join(failed) or 'nothing'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

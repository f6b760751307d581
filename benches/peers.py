"""Ours and what a user could take in its place on a CPU, each as a function from texts and labels to entities.

The ports read an ONNX export, which gliner writes once a checkpoint. `pip install -e '.[peers]'` brings them.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Answers = list[list[dict[str, Any]]]
Predict = Callable[[Sequence[str], list[str]], Answers]

THRESHOLD = 0.5  # fast-gliner knows no other


def missing() -> list[str]:
    """Packages that are not installed."""
    return [name for name in ("onnx", "onnxruntime", "fast_gliner", "gliner_cpp") if find_spec(name) is None]


def export(checkpoint: Path) -> Path:
    """The ONNX export of a checkpoint, beside which lies what readers need; made once."""
    from gliner import GLiNER

    folder = checkpoint / "onnx"
    if not folder.exists():
        unfinished = checkpoint / "onnx.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            GLiNER.from_pretrained(checkpoint).export_to_onnx(unfinished)
        for path in checkpoint.glob("*.json"):
            shutil.copy(path, unfinished)
        unfinished.rename(folder)
    return folder


def load_ours(folder: Path) -> Predict:
    """gliner_fast."""
    from gliner_fast import GLiNER

    return inference_of(GLiNER.from_pretrained(folder))


def load_int16(folder: Path) -> Predict:
    """gliner_fast in whole numbers of 16 bits."""
    from gliner_fast import GLiNER

    return inference_of(GLiNER.from_pretrained(folder, dtype="int16"))


def load_gliner(folder: Path) -> Predict:
    """The gliner package as it ships."""
    from gliner import GLiNER

    return inference_of(GLiNER.from_pretrained(folder))


def load_onnx(folder: Path) -> Predict:
    """The gliner package, its network run by ONNX Runtime."""
    from gliner import GLiNER

    return inference_of(GLiNER.from_pretrained(folder, load_onnx_model=True))


def inference_of(model: Any) -> Predict:
    """What a model of either package predicts."""

    def predict(texts: Sequence[str], labels: list[str]) -> Answers:
        answers: Answers = model.inference(list(texts), labels, threshold=THRESHOLD)
        return answers

    return predict


def load_fast_gliner(folder: Path) -> Predict:
    """fast-gliner: Rust, ONNX Runtime."""
    from fast_gliner import FastGLiNER

    model = FastGLiNER(str(folder), "model.onnx", "cpu")

    def predict(texts: Sequence[str], labels: list[str]) -> Answers:
        answers: Answers = model.predict_entities(list(texts), labels)
        return answers

    return predict


def load_gliner_cpp(folder: Path) -> Predict:
    """gliner-cpp: C++, ONNX Runtime."""
    import gliner_cpp

    model = gliner_cpp.Model(str(folder / "model.onnx"), str(folder / "tokenizer.json"), gliner_cpp.Config(12, 512))

    def predict(texts: Sequence[str], labels: list[str]) -> Answers:
        return [
            [{"start": e["start_idx"], "end": e["end_idx"], "label": e["class_label"]} for e in entities]
            for entities in model.inference(list(texts), labels, threshold=THRESHOLD)
        ]

    return predict


OURS, SHIPPED, INT16 = "ours", "gliner as shipped", "ours, int16"

# By name; these read the checkpoint's folder, the ports that of the export.
PACKAGES: dict[str, Callable[[Path], Predict]] = {OURS: load_ours, SHIPPED: load_gliner, INT16: load_int16}
PORTS: dict[str, Callable[[Path], Predict]] = {
    "gliner, ONNX": load_onnx,
    "fast-gliner": load_fast_gliner,
    "gliner-cpp": load_gliner_cpp,
}

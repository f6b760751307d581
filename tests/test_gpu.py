"""The same answers on a CUDA device. `make gpu-check` runs these; no other target does."""

from __future__ import annotations

import pytest
import torch

from gliner_fast import GLiNER, verify
from gliner_fast.verification import compare
from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gpu

DEVICE = "cuda"


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    # cuDNN's LSTM runs in TF32 (10 bits) unless told otherwise, ours and the reference's alike; fp32 is compared here.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["deberta", "deberta-marker", "deberta-mean", "bert"])
def test_a_random_checkpoint_answers_as_gliner_does(kind: str, checkpoint):
    model = GLiNER.from_pretrained(checkpoint(kind), map_location=DEVICE)
    assert model.device.type == DEVICE
    report = verify(model, CROSSNER, LABELS, threshold=0.3)
    assert report.entities > 100
    assert report.ok, str(report)


def test_the_built_in_model_answers_as_on_the_cpu():
    on_cpu = GLiNER.from_pretrained().inference(CROSSNER, LABELS, threshold=0.3)
    on_gpu = GLiNER.from_pretrained(map_location=DEVICE).inference(CROSSNER, LABELS, threshold=0.3)
    report = compare(on_gpu, on_cpu, lambda _: [], threshold=0.3)
    assert report.entities > 100
    assert report.moved == 0
    assert len(report.differences) <= report.entities / 100  # scores at the threshold


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_keeps_nearly_all_entities(dtype: str):
    exact = GLiNER.from_pretrained(map_location=DEVICE).inference(CROSSNER, LABELS)
    half = GLiNER.from_pretrained(map_location=DEVICE, dtype=dtype).inference(CROSSNER, LABELS)
    keys = [
        {(text, e["start"], e["end"], e["label"]) for text, own in enumerate(answers) for e in own}
        for answers in (exact, half)
    ]
    assert len(keys[0] & keys[1]) >= 0.95 * len(keys[0] | keys[1])


def test_a_batch_answers_as_its_texts_alone():
    model = GLiNER.from_pretrained(map_location=DEVICE)
    together = model.inference(CROSSNER, LABELS)
    alone = [model.predict_entities(text, LABELS) for text in CROSSNER]
    assert compare(together, alone, lambda _: []).moved == 0

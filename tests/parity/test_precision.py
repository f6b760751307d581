"""Half precision: the same entities, as far as rounding lets it."""

import pytest

from tests.parity.pairs import Pair, spans
from tests.samples import CROSSNER, LABELS

pytestmark = pytest.mark.gliner


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["deberta", "bert", "modernbert", "mt5", "token", "token-spans", "bi"])
def test_half_precision_is_as_near_to_fp32_as_the_reference_s(kind, dtype, checkpoint, pair):
    # Random checkpoints amplify rounding about a thousandfold (C§5.7), so the reference's own loss is the measure;
    # test_builtin_model.py shows that a trained model keeps nearly all entities.
    half = Pair.load(checkpoint(kind), dtype=dtype)
    texts = CROSSNER[::2]
    exact = spans(pair(kind).reference.inference(texts, LABELS))
    ours, theirs = (spans(predictor.inference(texts, LABELS)) for predictor in (half.ours, half.reference))
    assert len(exact) > 100
    assert len(ours & exact) / len(ours | exact) >= 0.95 * len(theirs & exact) / len(theirs | exact)


def test_scores_in_half_precision_are_python_floats(checkpoint):
    from gliner_fast import GLiNER

    found = GLiNER.from_pretrained(checkpoint("deberta"), dtype="bf16").inference(CROSSNER[:4], LABELS)
    assert any(found)
    assert all(type(entity["score"]) is float for entities in found for entity in entities)


@pytest.mark.parametrize(
    ("dtype", "meant"),
    [("fp32", "float32"), ("float", "float32"), ("bf16", "bfloat16"), ("fp16", "float16"), ("half", "float16")],
)
def test_names_of_dtypes(dtype, meant, checkpoint):
    import torch

    from gliner_fast import GLiNER

    model = GLiNER.from_pretrained(checkpoint("deberta"), dtype=dtype)
    assert next(model.model.parameters()).dtype == getattr(torch, meant)

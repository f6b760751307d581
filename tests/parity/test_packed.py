"""Over packed texts a checkpoint gives gliner's answers, through the kernels from subwords to candidates."""

from collections.abc import Iterator

import pytest

from gliner_fast.comparing.verification import compare
from gliner_fast.encoders import attention_executor
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.scoring import span_executor
from tests.installed import TRANSFORMERS
from tests.parity.pairs import Pair
from tests.samples import CROSSNER
from tests.samples import LABELS as ALL_LABELS

pytestmark = [
    pytest.mark.gliner,
    pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU: tests/test_gpu.py has one"),
]

# The interpreter is slow: few short texts, of several lengths in one batch.
TEXTS = [*sorted((text for text in CROSSNER if len(text.split()) >= 6), key=len)[:3], "in Rome"]
LABELS = ALL_LABELS[:3]


EXECUTORS = {
    "deberta": ["grouped", "torch", "rust", "triton", "disentangled-flash"],
    "bert": ["grouped", "torch", "triton"],
    "modernbert": ["grouped", "torch", "rust", "triton"],  # whose windows are shorter than the texts
    "mt5": ["grouped", "torch", "rust", "triton"],
}


@pytest.fixture(params=[(kind, name) for kind, names in EXECUTORS.items() for name in names], ids=" ".join)
def both(request: pytest.FixtureRequest, pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pair, list[tuple]]]:
    """Ours over packed texts beside gliner, and for each batch its subwords and those that the encoder was given."""
    kind, executor = request.param
    if kind == "modernbert" and TRANSFORMERS < (5, 1):
        pytest.skip("before transformers 5.1 ModernBERT is run as it is")
    monkeypatch.setenv(attention_executor.VARIABLE, executor)
    monkeypatch.setenv(span_executor.VARIABLE, executor if executor in ("rust", "triton") else "torch")
    loaded, seen = pair(kind), []
    hook = loaded.ours.model.encoder.register_forward_hook(
        lambda _, given, __: seen.append((int(given[1].sum()), given[0].numel(), len(given[1])))
    )
    yield loaded, seen
    hook.remove()


def test_entities_are_those_of_gliner_and_no_padding_is_computed(both):
    loaded, seen = both
    answers = loaded.check(TEXTS, LABELS, threshold=0.2)
    assert sum(map(len, answers)) > 0
    assert [(rows, texts) for _, rows, texts in seen] == [(subwords, len(TEXTS)) for subwords, _, _ in seen]


def test_a_text_answers_alone_as_among_others_and_as_where_texts_are_padded(both, monkeypatch):
    loaded, seen = both
    together = loaded.ours.inference(TEXTS, LABELS, threshold=0.2)
    alone = [loaded.ours.predict_entities(text, LABELS, threshold=0.2) for text in TEXTS]
    assert len(seen) == 1 + len(TEXTS)
    monkeypatch.setenv(attention_executor.VARIABLE, "padded")
    padded = loaded.ours.inference(TEXTS, LABELS, threshold=0.2)
    for other in (alone, padded):
        report = compare(together, other, lambda _: [], threshold=0.2)
        assert report.ok, str(report)
        assert report.entities > 0


def test_encoders_of_transformers_keep_their_own_attention(pair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(attention_executor.VARIABLE, "torch")
    loaded = pair("deberta-v2")
    assert not loaded.ours.model.reads_packed
    assert loaded.check(TEXTS, LABELS, threshold=0.2)

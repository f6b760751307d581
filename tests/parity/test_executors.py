"""Through the Triton kernel a checkpoint gives gliner's answers, whatever is asked for."""

from collections.abc import Iterator

import pytest

from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.scoring.span_executor import VARIABLE
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS

pytestmark = [
    pytest.mark.gliner,
    pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU: tests/test_gpu.py has one"),
]

# The interpreter is slow: short texts, more than one a batch.
TEXTS = sorted((text for text in CROSSNER if len(text.split()) >= 6), key=len)[:6]


@pytest.fixture(params=["deberta", "deberta-marker"])
def both(request, pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pair, list[bool]]]:
    """Ours through Triton beside gliner, and for each batch whether candidates were found without all the scores."""
    monkeypatch.setenv(VARIABLE, "triton")
    loaded, found = pair(request.param), []
    hook = loaded.ours.model.register_forward_hook(lambda _, __, scores: found.append(scores.candidates is not None))
    yield loaded, found
    hook.remove()


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 0.3},
        {"threshold": 0.3, "flat_ner": False, "multi_label": True},
        {"threshold": [0.2, 0.3, 0.4, 0.5, 0.3, 0.3]},
        {"threshold": 0.2, "input_spans": [[{"start": 0, "end": text.index(" ")}] for text in TEXTS]},
    ],
    ids=["flat", "nested, several labels", "a threshold a text", "given spans"],
)
def test_candidates_found_by_the_kernel_become_gliner_s_entities(both, options):
    loaded, found = both
    answers = loaded.check(TEXTS, LABELS, **options)
    assert sum(map(len, answers)) > 0
    assert loaded.ours.model.scorer.executor == "triton"
    assert found
    assert all(found)


def test_the_best_labels_of_a_span_come_from_all_scores_of_the_kernel(both):
    loaded, found = both
    answers = loaded.check(TEXTS[:3], LABELS, threshold=0.3, return_class_probs=True)
    assert sum(map(len, answers)) > 0
    assert loaded.ours.model.scorer.executor == "triton"
    assert not any(found)

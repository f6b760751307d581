"""An answer depends on the text and the labels alone: not on its neighbours, its place or other threads."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from gliner_fast.comparing.reference_candidates import find_reference_candidates
from gliner_fast.comparing.verification import compare
from tests.samples import BOOKS, CROSSNER, LABELS, UNICODE

pytestmark = pytest.mark.gliner  # candidates near the threshold come from the reference

TEXTS = [*CROSSNER[::8], *UNICODE[::20], *BOOKS[:2], "", "Paris"]


def _assert_same(some, others, reference):
    """Asserts equality up to rounding, which batches may change."""
    report = compare(
        some,
        others,
        lambda index: find_reference_candidates(reference, TEXTS[index], LABELS, floor=0.3),
        threshold=0.3,
    )
    assert report.ok, str(report)
    assert report.max_score_difference < 1e-4


@pytest.mark.parametrize(
    "kind",
    ["deberta", "deberta-two-lstm", "bert", "bert-cut-mean", "modernbert", "mt5", "token", "token-spans-bert", "bi"],
)
def test_a_text_alone_and_among_others(kind, pair):
    both = pair(kind)
    together = both.ours.inference(TEXTS, LABELS, threshold=0.3)
    _assert_same([both.ours.predict_entities(text, LABELS, threshold=0.3) for text in TEXTS], together, both.reference)
    _assert_same(both.ours.inference(TEXTS, LABELS, threshold=0.3, batch_size=3), together, both.reference)


@pytest.mark.parametrize("kind", ["deberta", "bert"])
def test_the_order_of_texts_does_not_matter(kind, pair):
    both = pair(kind)
    order = list(range(len(TEXTS)))
    random.Random(0).shuffle(order)
    shuffled = both.ours.inference([TEXTS[index] for index in order], LABELS, threshold=0.3)
    back = dict(zip(order, shuffled, strict=True))
    _assert_same(
        [back[i] for i in range(len(TEXTS))], both.ours.inference(TEXTS, LABELS, threshold=0.3), both.reference
    )


def test_a_text_twice_gets_the_same_answer_twice(pair):
    ours = pair("deberta").ours
    first, *others = ours.inference([CROSSNER[0]] * 20, LABELS, threshold=0.3, batch_size=20)
    assert first
    for other in others:  # the budget makes batches of two sizes, in which the same products round differently
        assert [{**entity, "score": 0} for entity in other] == [{**entity, "score": 0} for entity in first]
        assert [e["score"] for e in other] == pytest.approx([e["score"] for e in first], abs=1e-4)


def test_asking_again_answers_the_same(pair):
    ours = pair("deberta").ours
    assert ours.inference(TEXTS, LABELS) == ours.inference(TEXTS, LABELS)


def test_many_threads_share_one_predictor(pair):
    ours = pair("deberta").ours
    jobs = [(TEXTS[start::7], LABELS[: 1 + start % 6], 0.2 + 0.1 * (start % 5)) for start in range(7)]
    alone = [ours.inference(texts, labels, threshold=threshold) for texts, labels, threshold in jobs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many switches between threads as Python can make
    try:
        with ThreadPoolExecutor(8) as pool:
            running = [
                (number, pool.submit(ours.inference, texts, labels, threshold=threshold))
                for _ in range(6)
                for number, (texts, labels, threshold) in enumerate(jobs)
            ]
            for number, future in running:
                assert future.result() == alone[number]
    finally:
        sys.setswitchinterval(interval)


def test_torch_s_random_state_is_left_alone(pair):
    import torch

    torch.manual_seed(0)
    before = torch.get_rng_state()
    pair("deberta").ours.inference(TEXTS[:4], LABELS)
    assert torch.equal(before, torch.get_rng_state())

"""What the network gives: all scores, or the spans above thresholds; compiled as it is."""

from __future__ import annotations

import pytest
import torch

from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.scoring.span_executor import VARIABLE
from tests.small_network import small_batch, small_network

THRESHOLDS = torch.full((6,), 0.5235)
EXECUTORS = [
    "torch",
    "rust",
    pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and no GPU")),
]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("thresholds", [None, THRESHOLDS], ids=["all scores", "thresholds"])
def test_candidates_are_found_where_thresholds_are_given(
    executor: str, thresholds: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, executor)
    network, batch = small_network(), small_batch()
    with torch.inference_mode():
        scores = network(batch, thresholds)
    if executor != "torch" and thresholds is not None:
        assert network.scorer.executor == executor
        found = scores.candidates.wait() if executor == "triton" else scores.candidates
        assert len(found.texts) > 0
        assert (found.scores > THRESHOLDS[0].item()).all()
        assert len(scores.logits) == 0
    else:
        assert network.scorer.executor == executor.replace("rust", "torch")  # Rust gives no other scores
        assert scores.candidates is None
        assert len(scores.logits) == (12 + 7) * 12 * 3


def test_spans_that_are_not_asked_for_do_not_leave_the_device(monkeypatch: pytest.MonkeyPatch):
    if not INTERPRETED:
        pytest.skip("needs Triton, and no GPU")
    monkeypatch.setenv(VARIABLE, "triton")
    network, batch = small_network(), small_batch()
    allowed = torch.zeros(12 + 7, 12, dtype=torch.bool)
    allowed[2, 1] = allowed[12 + 3, 0] = True
    with torch.inference_mode():
        found = network(batch, torch.zeros(6), allowed).candidates.wait()
    places = zip(found.texts.tolist(), found.starts.tolist(), found.widths.tolist(), found.types.tolist(), strict=True)
    assert list(places) == [(0, 2, 1, t) for t in range(3)] + [(1, 3, 0, t) for t in range(3)]


class Lookup(torch.nn.Embedding):
    """Stands in for the encoder."""

    def forward(self, input_ids: torch.Tensor, _: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids).flatten(0, 1)[wanted]


@pytest.mark.filterwarnings("ignore::UserWarning")  # dynamo tells of each place where it goes on without the compiler
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_compiled_network_scores_as_before(executor: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, executor)
    network, batch = small_network(), small_batch()
    network.encoder = Lookup(100, 64)  # the compiler takes half a minute for a transformer
    with torch.inference_mode():
        wanted, wanted_candidates = network(batch).logits, network(batch, THRESHOLDS).candidates
        network.compile(backend="eager", dynamic=True)  # all of the compiler but the code that it makes
        ours, candidates = network(batch).logits, network(batch, THRESHOLDS).candidates
    assert network.scorer.executor == executor
    torch.testing.assert_close(ours, wanted)
    assert (candidates is None) == (executor == "torch")
    if executor == "triton":
        candidates, wanted_candidates = candidates.wait(), wanted_candidates.wait()
    if candidates is not None:
        assert candidates.starts.tolist() == wanted_candidates.starts.tolist()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_network_is_compiled_in_few_pieces_and_for_texts_of_any_length():
    network = small_network()
    batches = [small_batch(*counts) for counts in ([12, 7, 5], [30, 9, 5, 4], [11] * 5, [100, 3, 8])]
    with torch.inference_mode():
        wanted = [network(batch).logits for batch in batches]
        network.compile(backend="eager", dynamic=True)
        torch._dynamo.utils.counters.clear()
        found, pieces = [], []
        for batch in batches:
            found.append(network(batch).logits)
            pieces.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert pieces[0] <= 6  # none for each layer
    assert pieces == [pieces[0]] * 4


@pytest.mark.parametrize("name", ["LINEAR", "LSTM", "NORM", "CUDA_GRAPHS"])
def test_a_typo_is_told_before_a_batch_whoever_then_computes_it(name: str, monkeypatch: pytest.MonkeyPatch):
    network = small_network()
    assert network.reads_packed in (True, False)
    monkeypatch.setenv(f"GLINER_FAST_{name}", "tritno")
    with pytest.raises(ValueError, match=f"GLINER_FAST_{name} is 'tritno'"):
        _ = network.reads_packed


def test_what_a_property_lacks_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch):
    network = small_network()
    monkeypatch.setattr(network, "encoder", torch.nn.Identity())
    with pytest.raises(AttributeError, match=r"^'Identity' object has no attribute 'reads_packed'$"):
        _ = network.reads_packed


def test_a_module_that_is_asked_for_by_gliner_s_name_is_told_where_it_is():
    network = small_network()
    with pytest.raises(AttributeError, match=r"no attribute 'token_rep_layer': .*There are encoder, .*model\.encoder$"):
        _ = network.token_rep_layer
    assert not hasattr(network, "token_rep_layer")

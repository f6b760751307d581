"""Layers that score triples of a head, a relation type and a tail, beside the package's own with the same weights."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from gliner_fast.config import TRIPLES_LAYERS, GLiNERConfig
from gliner_fast.errors import UnsupportedCheckpointError
from gliner_fast.relations import triples
from gliner_fast.relations.triples import TripleScorer, triple_scorer

WIDTH = 24
PARAMETRIC = ["TransH", "TransF", "PairRE", "TripleRE", "ERMLP", "ConvKB"]
FORMULAS = [mode for mode in TRIPLES_LAYERS if mode not in PARAMETRIC]
needs_gliner = pytest.mark.gliner


@pytest.fixture(autouse=True)
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers with parameters at a small width."""
    monkeypatch.setattr(triples, "PARAMETRIC_WIDTH", WIDTH)


def layers(mode: str, dtype: torch.dtype, width: int = WIDTH) -> tuple[TripleScorer, nn.Module]:
    """Ours, and the package's with the same random weights, biases too."""
    from gliner.modeling.multitask.triples_layers import TriplesScoreLayer

    torch.manual_seed(0)
    theirs = TriplesScoreLayer(mode, dim=width).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)  # in float64: torch draws other numbers in other dtypes
    theirs.to(dtype)
    ours = triple_scorer(mode, width).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def vectors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64, width: int = WIDTH) -> list[Tensor]:
    """Some (..., D), at whose size no distance is cut off."""
    torch.manual_seed(1)
    return [(torch.randn(*shape, width, dtype=torch.float64) * 0.25).to(dtype) for shape in shapes]


@needs_gliner
@pytest.mark.parametrize("count", [1, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", TRIPLES_LAYERS)
def test_scores_are_the_package_s(mode: str, dtype: torch.dtype, count: int):
    ours, theirs = layers(mode, dtype)
    triple = vectors(*[(count,)] * 3, dtype=dtype)
    found = ours(*triple)
    assert (found.shape, found.dtype) == ((count,), dtype)
    assert count < 2 or found.std() > 0.02
    # The package's HolE is float32 whatever comes in.
    exact = dtype == torch.float64 and mode != "HolE"
    wanted = theirs(*triple).to(dtype)
    torch.testing.assert_close(found, wanted, rtol=1e-12 if exact else 1e-5, atol=1e-13 if exact else 2e-6)


@needs_gliner
@pytest.mark.parametrize("mode", ["UM", "SE", "TransE", "TransH", "TransF", "PairRE", "TripleRE"])
def test_far_apart_is_cut_off_where_the_package_does(mode: str):
    ours, theirs = layers(mode, torch.float64)
    triple = [40 * own for own in vectors((33,), (33,), (33,))]
    found = ours(*triple)
    factor = ours.interaction.r_to_gamma(triple[1])[:, 0] if mode == "TripleRE" else 1
    assert torch.isclose(found / factor, torch.tensor(-10.0, dtype=torch.float64)).any()
    torch.testing.assert_close(found, theirs(*triple), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", TRIPLES_LAYERS)
def test_pairs_by_relation_types_are_scored_as_rows_of_triples_are(mode: str):
    torch.manual_seed(0)
    scorer = triple_scorer(mode, WIDTH).double().eval()
    heads, tails, relations = vectors((5, 1), (5, 1), (3,))
    found = scorer(heads, relations, tails)
    assert found.shape == (5, 3)
    rows = (own.expand(5, 3, WIDTH).reshape(15, WIDTH) for own in (heads, relations, tails))
    torch.testing.assert_close(found.reshape(-1), scorer(*rows), rtol=1e-12, atol=1e-13)


# The package has an answer for no triples in some modes only.
@pytest.mark.parametrize("mode", TRIPLES_LAYERS)
def test_no_triples_have_no_scores(mode: str):
    scorer = triple_scorer(mode, WIDTH).bfloat16().eval()
    for *shapes, wanted in [((0,), (0,), (0,)), ((0, 1), (3,), (0, 3)), ((5, 1), (0,), (5, 0))]:
        heads, relations = vectors(*shapes[:2], dtype=torch.bfloat16)
        found = scorer(heads, relations, heads)
        assert (found.shape, found.dtype) == (wanted, torch.float32)


@needs_gliner
@pytest.mark.parametrize("mode", TRIPLES_LAYERS)
def test_16_bits_give_float32_scores_no_further_off_than_the_package_s(mode: str):
    ours, theirs = layers(mode, torch.bfloat16)
    triple = vectors((33,), (33,), (33,), dtype=torch.bfloat16)
    found, plain = ours(*triple), theirs(*triple)
    assert found.dtype == torch.float32
    exact = ours.double()(*(own.double() for own in triple))
    assert (found.double() - exact).abs().max() <= 2 * (plain.double() - exact).abs().max() + 1e-5


@needs_gliner
@pytest.mark.parametrize("mode", PARAMETRIC)
def test_layers_with_parameters_are_the_package_s_at_its_own_width(mode: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    ours, theirs = layers(mode, torch.float32, width=768)
    triple = vectors((3,), (3,), (3,), dtype=torch.float32, width=768)
    torch.testing.assert_close(ours(*triple), theirs(*triple), rtol=1e-5, atol=1e-4)


@needs_gliner
@pytest.mark.parametrize("mode", PARAMETRIC)
def test_gradients_are_the_package_s(mode: str):
    ours, theirs = layers(mode, torch.float64)
    triple = vectors((9,), (9,), (9,))
    ours(*triple).square().sum().backward()
    theirs(*triple).square().sum().backward()
    wanted = {name: own.grad for name, own in theirs.named_parameters()}
    for name, own in ours.named_parameters():
        torch.testing.assert_close(own.grad, wanted[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mode", TRIPLES_LAYERS)
def test_a_scorer_can_be_pickled(mode: str):
    torch.manual_seed(0)
    scorer, triple = triple_scorer(mode, WIDTH).eval(), vectors((3,), (3,), (3,), dtype=torch.float32)
    assert torch.equal(pickle.loads(pickle.dumps(scorer))(*triple), scorer(*triple))


@needs_gliner
def test_what_the_package_cannot_build_is_refused():
    from gliner.modeling.multitask.triples_layers import TriplesScoreLayer

    with pytest.raises(ValueError, match="emb_dim1"):
        TriplesScoreLayer("ConvE")
    with pytest.raises(UnsupportedCheckpointError, match=r"triples_layer 'ConvE' \(gliner cannot build it"):
        GLiNERConfig(relations_layer="dot", triples_layer="ConvE").refuse_unsupported()


@needs_gliner
def test_what_the_package_mixes_up_is_refused():
    from gliner.modeling.multitask.triples_layers import TriplesScoreLayer

    torch.manual_seed(0)
    theirs, (heads, relations, tails) = (
        TriplesScoreLayer("TuckER", dim=WIDTH).double().eval(),
        vectors((3,), (3,), (3,)),
    )
    alone, in_company = theirs(heads[:2], relations[:2], tails[:2]), theirs(heads, relations, tails)[:2]
    assert not torch.allclose(alone, in_company, rtol=0.1)
    with pytest.raises(UnsupportedCheckpointError, match=r"triples_layer 'TuckER' \(gliner mixes"):
        GLiNERConfig(relations_layer="dot", triples_layer="TuckER").refuse_unsupported()


@needs_gliner
@pytest.mark.parametrize(("mode", "width"), [("SimplE", 15), ("ComplEx", 15), ("QuatE", 18)])
def test_a_width_that_cannot_be_cut_is_refused(mode: str, width: int):
    from gliner.modeling.multitask.triples_layers import TriplesScoreLayer

    with pytest.raises((RuntimeError, ValueError)):
        TriplesScoreLayer(mode)(*vectors((2,), (2,), (2,), width=width))
    with pytest.raises(
        UnsupportedCheckpointError, match=rf"triples_layer is '{mode}', .* parts: hidden_size is {width}"
    ):
        triple_scorer(mode, width)


@needs_gliner
@pytest.mark.parametrize("mode", PARAMETRIC)
def test_a_width_at_which_the_package_fails_is_refused_where_there_are_parameters(
    mode: str, monkeypatch: pytest.MonkeyPatch
):
    from gliner.modeling.multitask.triples_layers import TriplesScoreLayer

    monkeypatch.undo()
    with pytest.raises(RuntimeError):
        TriplesScoreLayer(mode).eval()(*vectors((2,), (2,), (2,), dtype=torch.float32, width=384))
    with pytest.raises(UnsupportedCheckpointError, match=rf"triples_layer is '{mode}', .*of 768 alone: it is 384"):
        triple_scorer(mode, 384)


@pytest.mark.parametrize("mode", FORMULAS)
def test_formulas_run_at_other_widths(mode: str):
    assert triple_scorer(mode, 384)(*vectors((2,), (2,), (2,), width=384)).shape == (2,)

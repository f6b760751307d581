"""Layers that score pairs of entities, beside the package's own with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gliner_fast.config import RELATIONS_LAYERS
from gliner_fast.errors import UnsupportedCheckpointError
from gliner_fast.relations.adjacency import Adjacency, PairwiseAdjacency, adjacency_layer

MODES = RELATIONS_LAYERS[1:]
WIDTH = 16
PAIRWISE, CONTEXTUAL = ["dot", "mlp", "bilinear"], ["attention", "attn", "gcn", "gat"]
needs_gliner = pytest.mark.gliner


def layers(mode: str, dtype: torch.dtype) -> tuple[Adjacency, nn.Module]:
    """Ours, and the package's with the same random weights, biases too."""
    from gliner.modeling.multitask.relations_layers import RelationsRepLayer

    torch.manual_seed(0)
    theirs = RelationsRepLayer(WIDTH, mode).double().eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.25)  # in float64: torch draws other numbers in other dtypes
    theirs.to(dtype)
    ours = adjacency_layer(mode, WIDTH).to(dtype).eval()
    prefix = "relation_rep_layer."
    ours.load_state_dict({name.removeprefix(prefix): own for name, own in theirs.state_dict().items()}, strict=True)
    return ours, theirs


def entities(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(E, D), whose dot products are of ordinary size."""
    torch.manual_seed(count)
    return (torch.randn(count, WIDTH, dtype=torch.float64) * 0.5).to(dtype)


def matrix(layer: Adjacency, vectors: Tensor) -> Tensor:
    """(E, E) probabilities, head by tail."""
    if not isinstance(layer, PairwiseAdjacency):
        return layer(vectors)
    heads, tails = layer.project(vectors)
    head, tail = torch.cartesian_prod(torch.arange(len(vectors)), torch.arange(len(vectors))).view(-1, 2).T
    return layer.score(heads[head], tails[tail]).view(len(vectors), len(vectors))


def spread(probabilities: Tensor) -> Tensor:
    """How far probabilities of different entities are apart: what is constant would equal anything constant."""
    return probabilities.max() - probabilities.min()


def test_each_mode_is_of_one_of_the_two_kinds():
    kinds = {mode: isinstance(adjacency_layer(mode, WIDTH), PairwiseAdjacency) for mode in MODES}
    assert kinds == {**dict.fromkeys(PAIRWISE, True), **dict.fromkeys(CONTEXTUAL, False)}


@needs_gliner
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("mode", MODES)
def test_the_matrix_is_the_package_s(mode: str, dtype: torch.dtype, atol: float, count: int):
    ours, theirs = layers(mode, dtype)
    vectors = entities(count, dtype)
    found = matrix(ours, vectors)
    assert found.shape == (count, count)
    assert count < 2 or spread(found) > 1e-3
    with torch.no_grad():
        wanted = theirs(vectors[None], torch.ones(1, count))[0]
    torch.testing.assert_close(found, wanted.to(dtype), rtol=1e-5, atol=atol)


# The package has an answer for no entities in some modes only.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
def test_no_entities_have_an_empty_matrix(mode: str, dtype: torch.dtype):
    found = matrix(adjacency_layer(mode, WIDTH).to(dtype).eval(), entities(0, dtype))
    assert (found.shape, found.dtype) == ((0, 0), torch.float32)


@needs_gliner
@pytest.mark.parametrize("mode", MODES)
def test_the_package_s_padded_batch_gives_each_text_the_matrix_that_it_has_alone(mode: str):
    ours, theirs = layers(mode, torch.float64)
    counts = [7, 1, 4]
    texts = [entities(count) for count in counts]
    padded = torch.full((len(counts), 9, WIDTH), 3.0, dtype=torch.float64)
    for row, own in zip(padded, texts, strict=True):
        row[: len(own)] = own
    mask = torch.arange(9) < torch.tensor(counts)[:, None]
    with torch.no_grad():
        batch = theirs(padded, mask)
    for wanted, own in zip(batch, texts, strict=True):
        torch.testing.assert_close(matrix(ours, own), wanted[: len(own), : len(own)], rtol=0, atol=1e-14)


@needs_gliner
@pytest.mark.parametrize("mode", MODES)
def test_16_bits_give_float32_probabilities_no_further_off_than_the_package_s(mode: str):
    ours, theirs = layers(mode, torch.bfloat16)
    vectors = entities(7, torch.bfloat16)
    found = matrix(ours, vectors)
    assert found.dtype == torch.float32
    exact = matrix(ours.double(), vectors.double())
    if mode == "gcn":  # the package has no answer
        with pytest.raises(RuntimeError, match="BFloat16"):
            theirs(vectors[None])
        bound = 2**-8
    else:
        bound = 2 * (theirs(vectors[None])[0].double() - exact).abs().max().item() + 1e-5
    assert (found.double() - exact).abs().max() <= bound


@needs_gliner
@pytest.mark.parametrize("mode", ["mlp", "bilinear", "gcn", "gat"])
def test_gradients_are_the_package_s(mode: str):
    ours, theirs = layers(mode, torch.float64)
    pull = torch.randn(5, 5, dtype=torch.float64)
    (matrix(ours, entities(5)) * pull).sum().backward()
    (theirs(entities(5)[None])[0] * pull).sum().backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_a_mode_may_be_in_upper_case():
    assert type(adjacency_layer("GAT", WIDTH)) is type(adjacency_layer("gat", WIDTH))


@pytest.mark.parametrize("mode", ["attention", "attn", "gat"])
def test_a_width_that_heads_cannot_share_is_refused(mode: str):
    with pytest.raises(UnsupportedCheckpointError, match="relations_layer is .*8 heads cannot share 20 numbers"):
        adjacency_layer(mode, 20)

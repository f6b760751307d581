"""The factored head of token-level models against the package's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_fast.cpu.whole_numbers import precision_of, quantize
from gliner_fast.scoring import token_scorer
from gliner_fast.scoring.token_scorer import TokenScorer

WIDTH = 10
WORD_COUNTS, CLASS_COUNTS = [6, 0, 1, 9], [3, 2, 1, 2]


@pytest.fixture(params=["all pairs at once", "a few pairs at a time"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of words and types in one block, or in several that no text's end meets."""
    if request.param == "a few pairs at a time":
        monkeypatch.setattr(token_scorer, "_CPU_BLOCK", 7 * 4 * WIDTH)


def vectors(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(N, D) words and (T, D) labels."""
    torch.manual_seed(0)
    return torch.randn(sum(WORD_COUNTS), WIDTH, dtype=dtype), torch.randn(sum(CLASS_COUNTS), WIDTH, dtype=dtype)


def plain(scorer: TokenScorer, words: Tensor, labels: Tensor) -> Tensor:
    """All logits as compat section 5.5 writes the head down: both layers for every pair of a word and a type."""
    logits = []
    for own_words, own_labels in zip(words.split(WORD_COUNTS), labels.split(CLASS_COUNTS), strict=True):
        first, factor = scorer.words(own_words)[:, None].chunk(2, dim=-1)  # each (W, 1, D)
        of_type, type_factor = scorer.types(own_labels)[None].chunk(2, dim=-1)  # each (1, C, D)
        shape = len(own_words), len(own_labels), WIDTH
        joined = torch.cat([first.expand(shape), of_type.expand(shape), factor * type_factor], -1)  # (W, C, 3D)
        logits.append(scorer.out(F.relu(scorer.joint(joined))).reshape(-1))
    return torch.cat(logits)


@pytest.mark.usefixtures("blocks")
def test_marks_are_those_of_the_head_as_it_is_written_down():
    scorer = TokenScorer(WIDTH, dropout=0.4).double().eval()
    words, labels = vectors(torch.float64)
    found = scorer(words, scorer.prompt(labels), WORD_COUNTS, CLASS_COUNTS)
    assert found.shape == (3 * sum(w * c for w, c in zip(WORD_COUNTS, CLASS_COUNTS, strict=True)),)
    torch.testing.assert_close(found, plain(scorer, words, labels), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("blocks")
def test_gradients_are_those_of_the_head_as_it_is_written_down():
    scorer = TokenScorer(WIDTH, dropout=0.0).double()
    words, labels = (own.requires_grad_() for own in vectors(torch.float64))
    leaves = [*scorer.parameters(), words, labels]
    weights = torch.linspace(-1, 1, 3 * (6 * 3 + 1 + 9 * 2), dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((logits * weights).sum(), leaves)
        for logits in (scorer(words, labels, WORD_COUNTS, CLASS_COUNTS), plain(scorer, words, labels))
    )
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=0, atol=1e-9)


@pytest.mark.gliner
def test_marks_are_the_package_s():
    from gliner.modeling.scorers import Scorer

    torch.manual_seed(0)
    ours, theirs = TokenScorer(WIDTH, 0.4).double().eval(), Scorer(WIDTH, 0.4).double().eval()
    for mine, their in (
        (ours.words, theirs.proj_token),
        (ours.types, theirs.proj_label),
        (ours.joint, theirs.out_mlp[0]),
        (ours.out, theirs.out_mlp[3]),
    ):
        mine.load_state_dict(their.state_dict())
    words, labels = vectors(torch.float64)
    expected = [
        theirs(own_words[None], own_labels[None]).reshape(-1)
        for own_words, own_labels in zip(words.split(WORD_COUNTS), labels.split(CLASS_COUNTS), strict=True)
    ]
    found = ours(words, labels, WORD_COUNTS, CLASS_COUNTS)
    torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("word_counts", "class_counts"), [([], []), ([0], [3]), ([4], [0])])
def test_without_words_or_types_there_are_no_marks(word_counts: list[int], class_counts: list[int]):
    scorer = TokenScorer(WIDTH, dropout=0.0).eval()
    found = scorer(
        torch.randn(sum(word_counts), WIDTH), torch.randn(sum(class_counts), WIDTH), word_counts, class_counts
    )
    assert found.shape == (0,)


@pytest.mark.parametrize(
    ("word_counts", "class_counts"),
    [([3], [2]), ([1], [1]), ([4, 1, 3], [2, 5, 1]), ([0, 3, 0], [2, 0, 4]), ([2, 0, 3], [3, 4, 2]), ([], [])],
)
def test_a_device_pairs_words_with_types_as_the_host_does(word_counts: list[int], class_counts: list[int]):
    expected = token_scorer._pairs(word_counts, class_counts, torch.device("cpu"))
    words, classes = (torch.tensor(numbers, dtype=torch.int64) for numbers in (word_counts, class_counts))
    pairs = int((words * classes).sum())
    found = token_scorer.pairs_on_device(words, classes, words=sum(word_counts), pairs=pairs)
    assert [own.tolist() for own in found] == [own.tolist() for own in expected]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shorter_numbers_give_nearly_the_same_marks(dtype: torch.dtype):
    scorer = TokenScorer(WIDTH, dropout=0.0).eval()
    words, labels = vectors(torch.float32)
    exact = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
    short = scorer.to(dtype)(words.to(dtype), labels.to(dtype), WORD_COUNTS, CLASS_COUNTS)
    assert short.dtype == dtype
    assert (short.float() - exact).abs().max() <= 0.03 * exact.abs().max()


def test_the_head_trains_under_autocast():
    scorer = TokenScorer(WIDTH, dropout=0.0)
    words, labels = vectors(torch.float32)
    exact = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
    with torch.autocast("cpu", torch.bfloat16):
        short = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
    assert short.dtype == torch.bfloat16
    gradients = [torch.autograd.grad(logits.float().sum(), scorer.joint.weight)[0] for logits in (exact, short)]
    assert gradients[1].dtype == torch.float32
    assert (gradients[0] - gradients[1]).abs().max() <= 0.1 * gradients[0].abs().max()
    assert (short.float() - exact).abs().max() <= 0.05 * exact.abs().max()


def test_the_head_computes_under_autocast_without_a_gradient():
    scorer = TokenScorer(WIDTH, dropout=0.0).eval()
    words, labels = vectors(torch.float32)
    with torch.inference_mode():
        exact = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
        with torch.autocast("cpu", torch.bfloat16):
            short = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
    assert short.dtype == torch.bfloat16
    assert (short.float() - exact).abs().max() <= 0.05 * exact.abs().max()


def test_inner_units_are_dropped_in_training_alone():
    torch.manual_seed(0)
    scorer, (words, labels) = TokenScorer(WIDTH, dropout=0.4), vectors(torch.float32)
    first, second = (scorer(words, labels, WORD_COUNTS, CLASS_COUNTS) for _ in range(2))
    assert not torch.equal(first, second)
    scorer.eval()
    assert torch.equal(*(scorer(words, labels, WORD_COUNTS, CLASS_COUNTS) for _ in range(2)))


def test_whole_numbers_give_nearly_the_same_marks():
    scorer = TokenScorer(WIDTH, dropout=0.0).eval()
    words, labels = vectors(torch.float32)
    with torch.inference_mode():
        exact = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
        quantize(scorer, "int16")
        rounded = scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)
        assert precision_of(scorer) == "int16"  # they were multiplied in the three parts that they are packed in
    assert scorer.joint.whole is not None
    assert len(scorer.joint.whole.parts) == 3
    assert scorer.out.whole is None
    assert 0 < (rounded - exact).abs().max() <= 0.01 * exact.abs().max()


def test_a_span_s_vector_is_the_mean_of_its_words():
    scorer = TokenScorer(WIDTH, dropout=0.0).eval()
    words, _ = vectors(torch.float32)
    starts, lasts = torch.tensor([0, 3, 3, 15]), torch.tensor([0, 8, 4, 15])
    found = scorer.span_vectors(words, starts, lasts)
    expected = torch.stack([words[s : e + 1].mean(0) for s, e in zip(starts.tolist(), lasts.tolist(), strict=True)])
    torch.testing.assert_close(found, expected)
    assert scorer.span_vectors(words, starts[:0], lasts[:0]).shape == (0, WIDTH)


def test_a_span_s_words_of_16_bits_are_summed_in_float32():
    words = torch.ones(300, WIDTH, dtype=torch.bfloat16)  # whose own sum stays at 256
    found = TokenScorer(WIDTH, dropout=0.0).span_vectors(words, torch.tensor([0]), torch.tensor([299]))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.ones(1, WIDTH))


def test_an_adapter_around_the_layer_that_is_read_by_its_weights_is_refused_and_others_take_part():
    scorer = TokenScorer(WIDTH, dropout=0.0).double().eval()
    words, labels = vectors(torch.float64)
    scorer.out = torch.nn.Sequential(scorer.out)
    torch.testing.assert_close(
        scorer(words, labels, WORD_COUNTS, CLASS_COUNTS), plain(scorer, words, labels), rtol=0, atol=1e-12
    )
    scorer.joint = torch.nn.Sequential(scorer.joint)
    with pytest.raises(TypeError, match=r"scorer\.joint is a Sequential: .*merge the adapter into the weights"):
        scorer(words, labels, WORD_COUNTS, CLASS_COUNTS)

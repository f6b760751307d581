"""The layers over pairs, beside a loop over texts, pairs and relations that is written from the formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gliner_fast.config import RELATIONS_LAYERS
from gliner_fast.relations import scorer as scorer_module
from gliner_fast.relations.adjacency import PairwiseAdjacency
from gliner_fast.relations.scorer import Answer, Question, RelationScorer, just_below
from gliner_fast.relations.triples import triple_scorer
from tests.reference.examples import examples

WIDTH = 16
TRIPLES = [None, "DistMult", "TransE", "UM", "HolE"]
# Nodes and relations of each text: none, one, and many of both.
SHAPES = [(5, 3), (0, 2), (1, 4), (7, 0), (4, 1), (2, 5), (0, 0), (3, 0)]


def make_scorer(relations_layer: str, triples_layer: str | None = None, *, is_token_level: bool = False):
    """Random weights, in float64: the loop rounds otherwise, and nothing is to depend on it."""
    torch.manual_seed(0)
    made = RelationScorer(WIDTH, 0.3, relations_layer, triples_layer, is_token_level=is_token_level)
    return made.double().eval()


def make_question(
    shapes: list[tuple[int, int]] = SHAPES, *, seed: int = 0, link: float = 0.5, threshold: float = 0.5
) -> tuple[Tensor, Question]:
    """Vectors of nodes, of which some are no entities, and what is asked about them."""
    random = np.random.default_rng(seed)
    nodes, counts = (np.array([shape[at] for shape in shapes], np.int64) for at in (0, 1))
    texts = np.repeat(np.arange(len(shapes)), nodes)
    vectors = torch.from_numpy(random.normal(size=(len(texts), WIDTH)) * 0.6)
    question = Question(
        texts,
        random.random(len(texts)) < 0.8,
        np.full(len(shapes), link),
        torch.from_numpy(random.normal(size=(counts.sum(), WIDTH))),
        counts,
        np.full(counts.sum(), threshold),
    )
    return vectors, question


def link_probability(scorer: RelationScorer, nodes: Tensor, head: int, tail: int) -> float:
    """Of two nodes of one text; 1 where the model has no such layer."""
    layer = scorer.adjacency
    if layer is None:
        return 1.0
    if isinstance(layer, PairwiseAdjacency):
        heads, tails = layer.project(nodes)
        return layer.score(heads[head, None], tails[tail, None]).item()
    return layer(nodes)[head, tail].item()


def relation_score(scorer: RelationScorer, head: Tensor, tail: Tensor, relation: Tensor) -> float:
    """The probability of one relation between two entities."""
    if scorer.triples is not None:
        logit = scorer.triples(head[None], relation[None], tail[None])[0]
    else:
        inner = F.relu(scorer.pairs.inner(torch.cat([head, tail])))
        logit = scorer.pairs.outer(inner) @ relation
    return torch.sigmoid(logit).item()


@torch.no_grad()
def loop(scorer: RelationScorer, vectors: Tensor, question: Question) -> list[tuple[int, int, int, float]]:
    """Head, tail, class and score of every relation that passes, by text, head, tail and class."""
    found, first_relations = [], np.cumsum(question.counts) - question.counts
    for text in range(len(question.counts)):
        (own,) = np.nonzero(question.texts == text)
        for head in own:
            for tail in own:
                are_entities = question.are_entities[head] and question.are_entities[tail]
                if head == tail or not are_entities:
                    continue
                link = link_probability(scorer, vectors[own], head - own[0], tail - own[0])
                if not link > question.adjacency_thresholds[text]:
                    continue
                for class_ in range(question.counts[text]):
                    at = first_relations[text] + class_
                    score = relation_score(scorer, vectors[head], vectors[tail], question.prompts[at])
                    if score > question.thresholds[at]:
                        found.append((int(head), int(tail), class_, score))
    return found


def rows(answer: Answer) -> list[tuple[int, int, int]]:
    return list(zip(answer.heads.tolist(), answer.tails.tolist(), answer.classes.tolist(), strict=True))


def check(scorer: RelationScorer, vectors: Tensor, question: Question) -> int:
    """Asserts that relations are those of the loop, and says how many there are."""
    with torch.no_grad():
        answer = scorer(vectors, question)
    wanted = loop(scorer, vectors, question)
    assert rows(answer) == [row[:3] for row in wanted]
    assert answer.scores.dtype == np.float32
    np.testing.assert_allclose(answer.scores, [row[3] for row in wanted], rtol=0, atol=1e-6)
    return len(wanted)


@pytest.mark.parametrize("is_token_level", [False, True])
@pytest.mark.parametrize("triples_layer", TRIPLES)
@pytest.mark.parametrize("relations_layer", RELATIONS_LAYERS)
def test_relations_are_those_of_the_loop(relations_layer: str, triples_layer: str | None, is_token_level: bool):
    scorer = make_scorer(relations_layer, triples_layer, is_token_level=is_token_level)
    link = 0.2 if relations_layer in ("attention", "attn") else 0.5  # each head's sum to 1
    vectors, question = make_question(link=link, threshold=0.0)
    if triples_layer in ("TransE", "UM"):  # distances, which are cut off
        vectors, question = vectors / 2, replace(question, prompts=question.prompts / 4)
    scores = np.unique(answer_of(scorer, vectors, question).scores)
    middle = (float(scores[len(scores) // 2 - 1]) + float(scores[len(scores) // 2])) / 2
    everything = len(loop(scorer, vectors, question))
    question = replace(question, thresholds=np.full(len(question.thresholds), middle))
    assert 0 < check(scorer, vectors, question) < everything


@pytest.mark.parametrize("block", [1, 2 * WIDTH, 4 * WIDTH, 13 * WIDTH, 2**20])
@pytest.mark.parametrize("triples_layer", [None, "DistMult"])
@pytest.mark.parametrize("relations_layer", ["none", "mlp", "gat"])
def test_blocks_of_any_size_give_the_same(
    relations_layer: str, triples_layer: str | None, block: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scorer_module, "_CPU_BLOCK", block)
    assert check(make_scorer(relations_layer, triples_layer), *make_question(threshold=0.3)) > 9


@examples
@given(
    shapes=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=5),
    seed=st.integers(0, 99),
    block=st.integers(1, 40 * WIDTH),
    relations_layer=st.sampled_from(["none", "dot", "mlp", "gcn"]),
    triples_layer=st.sampled_from([None, "DistMult"]),
)
def test_texts_of_any_shapes_are_answered(
    shapes: list[tuple[int, int]], seed: int, block: int, relations_layer: str, triples_layer: str | None
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer_module, "_CPU_BLOCK", block)
        check(make_scorer(relations_layer, triples_layer), *make_question(shapes, seed=seed))


def test_a_last_text_without_relations_is_no_place_beyond_all_of_them():
    vectors, question = make_question([(3, 2), (3, 0)], threshold=0.0)
    question = replace(question, are_entities=np.ones(6, np.bool_))
    assert check(make_scorer("none"), vectors, question) == 6 * 2


# --- thresholds -------------------------------------------------------------------------------------------------------


def all_entities(**options) -> tuple[Tensor, Question]:
    vectors, question = make_question([(4, 3)], **options)
    return vectors, replace(question, are_entities=np.ones(4, np.bool_))


def answer_of(scorer: RelationScorer, vectors: Tensor, question: Question) -> Answer:
    with torch.no_grad():
        return scorer(vectors, question)


@pytest.mark.parametrize("triples_layer", [None, "DistMult"])
def test_a_relation_scores_strictly_above_its_threshold(triples_layer: str | None):
    scorer = make_scorer("none", triples_layer).float()
    vectors, question = all_entities(threshold=0.0)
    vectors, question = vectors.float(), replace(question, prompts=question.prompts.float())
    everything = answer_of(scorer, vectors, question)
    assert len(everything.heads) == 4 * 3 * 3
    for class_ in range(3):
        scores = everything.scores[everything.classes == class_]
        middle = float(np.sort(scores)[6])
        for threshold, passing in ((middle, scores > middle), (np.nextafter(middle, 0.0), scores >= middle)):
            thresholds = np.full(3, np.inf)
            thresholds[class_] = threshold
            found = answer_of(scorer, vectors, replace(question, thresholds=thresholds))
            assert set(found.classes.tolist()) == {class_}
            np.testing.assert_array_equal(found.scores, scores[passing])


def test_a_link_is_strictly_above_its_text_s_threshold():
    scorer = make_scorer("dot").float()
    vectors, question = all_entities(threshold=0.0)
    vectors, question = vectors.float(), replace(question, prompts=question.prompts.float())
    exact = (vectors[:, None] * vectors).sum(-1).sigmoid()
    limit = exact[0].sort()[0][1].item()  # of the first and another
    found = answer_of(scorer, vectors, replace(question, adjacency_thresholds=np.array([limit])))
    wanted = {(head, tail) for head in range(4) for tail in range(4) if head != tail and exact[head, tail] > limit}
    assert {row[:2] for row in rows(found)} == wanted
    assert 0 < len(wanted) < 11


def test_a_link_s_threshold_is_one_of_the_spans_precision():
    scorer = make_scorer("dot").bfloat16()
    vectors = torch.zeros(2, WIDTH, dtype=torch.bfloat16)
    vectors[:, 0] = torch.tensor([1.0078125, -0.83984375])  # a link of 0.3002: above 0.3, which is 0.3008 in bf16
    question = make_question([(2, 1)], threshold=0.0)[1]
    for limit, linked in ((0.3, False), (0.299, True)):
        asked = replace(
            question,
            are_entities=np.ones(2, np.bool_),
            adjacency_thresholds=np.array([limit]),
            prompts=question.prompts.bfloat16(),
        )
        with torch.no_grad():
            assert bool(len(scorer(vectors, asked).heads)) is linked


@pytest.mark.parametrize("relations_layer", ["none", "dot", "gat"])
def test_each_text_has_thresholds_of_its_own(relations_layer: str):
    vectors, question = make_question([(5, 2), (5, 2), (5, 2)], threshold=0.0)
    thresholds = np.array([0.0, np.inf, 0.3, 0.7, np.inf, np.inf])
    own = replace(question, adjacency_thresholds=np.array([0.0, 0.6, 0.0]), thresholds=thresholds)
    scorer = make_scorer(relations_layer)
    assert check(scorer, vectors, own) > 0
    found = answer_of(scorer, vectors, own)
    assert set(found.classes[question.texts[found.heads] == 0].tolist()) == {0}
    assert 2 not in question.texts[found.heads]


@pytest.mark.parametrize("relations_layer", ["none", "bilinear", "gat"])
def test_what_no_threshold_lets_pass_is_an_empty_answer(relations_layer: str):
    vectors, question = make_question(threshold=np.inf)
    scorer = make_scorer(relations_layer)
    with torch.no_grad():
        found = scorer(vectors, question, vectors=True, labels=True)
    assert rows(found) == []
    assert (found.scores.dtype, found.vectors) == (np.float32, {})
    unlinked = replace(
        question, adjacency_thresholds=np.full(len(SHAPES), np.inf), thresholds=np.zeros(len(question.thresholds))
    )
    assert (rows(answer_of(scorer, vectors, unlinked)) == []) == (relations_layer != "none")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("relations_layer", ["none", "dot", "mlp"])
def test_scores_that_are_none_pass_nothing(relations_layer: str):
    vectors, question = all_entities(threshold=-1.0, link=-1.0)
    vectors[2] = torch.nan
    question.prompts[1] = torch.nan
    found = answer_of(make_scorer(relations_layer), vectors, question)
    pairs = [(head, tail) for head in (0, 1, 3) for tail in (0, 1, 3) if head != tail]
    assert rows(found) == [(*pair, class_) for pair in pairs for class_ in (0, 2)]


SMALL = float(np.nextafter(np.float32(0.3), np.float32(0)))


@pytest.mark.parametrize("threshold", [0.3, SMALL, 0.1, 0.5, 0.0, 1.0, 1 / 3, -1.0, 1e-45, 1e-60, np.inf, -np.inf])
def test_what_is_above_in_float64_is_above_in_float32(threshold: float):
    (limit,) = just_below(np.array([threshold]))
    nearest = np.float32(threshold)
    scores = [nearest, np.nextafter(nearest, np.float32(np.inf)), np.nextafter(nearest, np.float32(-np.inf))]
    for score in [*scores, np.float32(0), np.float32(1)]:
        assert (score > limit) == (float(score) > threshold)


@examples
@given(st.floats(0, 1), st.floats(0, 1, width=32))
def test_any_score_is_above_where_it_is_in_float64(threshold: float, score: float):
    assert (np.float32(score) > just_below(np.array([threshold]))[0]) == (score > threshold)


@pytest.mark.filterwarnings("error")
def test_a_threshold_beyond_float32_lets_nothing_pass():
    assert just_below(np.array([1e300]))[0] > 1
    assert just_below(np.array([-1e300]))[0] < 0


@pytest.mark.parametrize(("pairs", "copies"), [(2**20, 1), (1, 6), (5 * 5 + 1, 4)])  # of 25, 1, 49, 16, 4 and 9 pairs
@pytest.mark.parametrize("relations_layer", ["attention", "gcn", "gat"])
def test_what_links_all_texts_is_brought_to_the_host_together(
    relations_layer: str, pairs: int, copies: int, monkeypatch: pytest.MonkeyPatch
):
    copied: list[Tensor] = []
    copy = scorer_module._copied
    monkeypatch.setattr(scorer_module, "_CPU_BLOCK", pairs)
    monkeypatch.setattr(scorer_module, "_copied", lambda tensor: copied.append(tensor) or copy(tensor))
    vectors, question = make_question(link=np.inf)  # no pair is linked, so nothing else is copied
    assert rows(answer_of(make_scorer(relations_layer), vectors, question)) == []
    assert len(copied) == copies
    assert sum(map(len, copied)) == sum(nodes**2 for nodes, _ in SHAPES)


# --- what comes with relations ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("relations_layer", ["none", "mlp", "attention"])
def test_vectors_times_labels_are_the_scores(relations_layer: str):
    scorer = make_scorer(relations_layer)
    vectors, question = make_question(link=0.2)
    with torch.no_grad():
        found = scorer(vectors, question, vectors=True, labels=True)
    assert list(found.vectors) == ["vector", "label_vector"]
    logits = (found.vectors["vector"] * found.vectors["label_vector"]).sum(1)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), found.scores, atol=1e-5)
    assert len(found.scores) > 10
    for own in found.vectors.values():
        assert (own.dtype, own.shape) == (np.float32, (len(found.scores), WIDTH))


def test_vectors_of_a_model_of_triples_are_those_of_its_entities():
    scorer = make_scorer("none", "DistMult")
    vectors, question = make_question()
    with torch.no_grad():
        found = scorer(vectors, question, vectors=True, labels=True)
    assert list(found.vectors) == ["head_relation_vector", "tail_relation_vector", "label_vector"]
    np.testing.assert_array_equal(found.vectors["head_relation_vector"], vectors[found.heads].float().numpy())
    np.testing.assert_array_equal(found.vectors["tail_relation_vector"], vectors[found.tails].float().numpy())
    np.testing.assert_array_equal(found.vectors["label_vector"], expected_labels(question, found))


def expected_labels(question: Question, found: Answer) -> NDArray[np.float32]:
    firsts = np.cumsum(question.counts) - question.counts
    return question.prompts[firsts[question.texts[found.heads]] + found.classes].float().numpy()


def test_vectors_come_only_where_they_are_asked_for():
    scorer, (vectors, question) = make_scorer("none"), make_question()
    assert answer_of(scorer, vectors, question).vectors == {}
    with torch.no_grad():
        assert list(scorer(vectors, question, labels=True).vectors) == ["label_vector"]
        assert list(scorer(vectors, question, vectors=True).vectors) == ["vector"]


@pytest.mark.parametrize("relations_layer", RELATIONS_LAYERS)
def test_only_layers_over_all_entities_read_spans_that_became_none(relations_layer: str):
    scorer = make_scorer(relations_layer)
    vectors, question = all_entities(threshold=0.0, link=0.0)
    entities_alone = replace(question, are_entities=np.array([True, True, True, False]))
    found = answer_of(scorer, vectors, entities_alone)
    assert all(3 not in row[:2] for row in rows(found))
    assert len(found.heads) == 3 * 2 * 3
    if scorer.adjacency is None:
        assert not scorer.reads_all_spans
        return
    moved = vectors.clone()
    moved[3] += 1.0
    before, after = (link_probability(scorer, own, 0, 1) for own in (vectors, moved))
    assert (before != after) == scorer.reads_all_spans


def test_a_token_level_model_s_vectors_are_of_first_and_last_word():
    spans = make_scorer("none", is_token_level=True).spans
    words = make_question([(6, 0)])[0]
    starts, lasts = torch.tensor([0, 2, 4]), torch.tensor([1, 2, 5])
    with torch.no_grad():
        found = spans(words, starts, lasts)
        for row, start, last in zip(found, starts, lasts, strict=True):
            ends = torch.cat([spans.start(words[start]), spans.end(words[last])])
            torch.testing.assert_close(row, spans.out(F.relu(spans.joint(F.relu(ends)))), rtol=0, atol=1e-12)
    assert found.shape == (3, WIDTH)
    assert make_scorer("none").spans is None


def test_dropout_is_for_training_alone():
    scorer, (vectors, question) = make_scorer("none"), make_question()
    with torch.no_grad():
        before = scorer(vectors, question).scores
        np.testing.assert_array_equal(scorer(vectors, question).scores, before)
        scorer.train()
        assert not np.array_equal(scorer(vectors, question).scores, before)


class Waits(TorchDispatchMode):
    """Counts what the host waits for on CUDA: how many places a mask has, and, by `copied`, what comes from there."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = args[1] if func.overloadpacket is torch.ops.aten.index else ()
        self.count += func.overloadpacket in (torch.ops.aten.nonzero, torch.ops.aten.masked_select)
        self.count += any(mask is not None and mask.dtype == torch.bool for mask in masks)
        return func(*args, **(kwargs or {}))

    def copied(self, tensor: Tensor) -> NDArray[Any]:
        self.count += 1
        return tensor.numpy().copy()


@pytest.mark.parametrize(("threshold", "most"), [(0.0, 3), (1.0, 1)])
def test_the_host_waits_three_times_a_block_and_once_where_nothing_passes(
    threshold: float, most: int, monkeypatch: pytest.MonkeyPatch
):
    scorer, waits, blocks = make_scorer("none"), Waits(), []
    cut = scorer_module.padded_blocks
    monkeypatch.setattr(scorer_module, "_copied", waits.copied)
    monkeypatch.setattr(scorer_module, "padded_blocks", lambda *given: (blocks.append(b) or b for b in cut(*given)))
    vectors, question = make_question(threshold=threshold)
    with waits:
        found = answer_of(scorer, vectors, question)
    assert (len(found.scores) > 0) == (threshold == 0.0)
    assert 0 < waits.count <= most * len(blocks)


@pytest.mark.parametrize(
    ("relations_layer", "part"), [("dot", "pairs.inner"), ("none", "pairs.outer"), ("mlp", "adjacency.mlp.0")]
)
def test_an_adapter_around_a_layer_that_is_read_by_its_weights_is_refused(relations_layer: str, part: str):
    scorer = make_scorer(relations_layer)
    scorer.set_submodule(part, torch.nn.Sequential(scorer.get_submodule(part)))
    told = rf"relations\.{part} is a Sequential: this layer is read by its weights.*merge the adapter"
    with torch.no_grad(), pytest.raises(TypeError, match=told):
        scorer(*make_question(threshold=0.0))


@pytest.mark.parametrize(
    ("triples_layer", "part"), [("ERMLP", "mlp.0"), ("ERMLP", "mlp.2"), ("ConvKB", "conv"), ("ConvKB", "fc")]
)
def test_nor_does_a_layer_of_triples_pass_over_one(triples_layer: str, part: str):
    layer = triple_scorer(triples_layer, 768).interaction
    layer.set_submodule(part, torch.nn.Sequential(layer.get_submodule(part)))
    told = rf"relations\.triples\.interaction\.{part} is a Sequential: .*merge the adapter"
    with torch.no_grad(), pytest.raises(TypeError, match=told):
        layer(*torch.randn(3, 1, 768))


def test_an_adapter_around_a_layer_that_is_called_takes_part():
    scorer = make_scorer("bilinear")
    vectors, question = make_question(threshold=0.0)
    found = answer_of(scorer, vectors, question)
    scorer.adjacency.proj = torch.nn.Sequential(scorer.adjacency.proj, torch.nn.Softplus())
    assert rows(answer_of(scorer, vectors, question)) != rows(found)
    assert check(scorer, vectors, question)

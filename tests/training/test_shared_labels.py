"""Labels that pieces of a batch share: encoded once, with the losses and gradients of pieces that encode their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gliner_fast import GLiNER, _rust
from gliner_fast.annotated.example import Example
from gliner_fast.batch import Batch
from gliner_fast.label_encoder import LabelTexts
from gliner_fast.labels import LabelSet
from gliner_fast.network import Network
from gliner_fast.training import train, trainer
from gliner_fast.training.batches import BatchStream
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus
from gliner_fast.training.shared_labels import share_labels
from tests.training.short_runs import steps_without_dropout
from tests.training.test_processes import assert_same_weights, in_two_processes, with_evaluations

ALL = 10**6  # subwords: more than any labels here have

# The labels of each text of each piece.
ASKED: dict[str, list[list[list[str]]]] = {
    "shared by all": [[["person", "city"], ["person", "city"]], [["person", "city"]], [["city", "person"]]],
    "shared by none": [[["person"]], [["city", "bank"]], [["a river that is long"]]],
    "shared by some": [[["person", "city"], ["bank"]], [["a river that is long", "person"]], [["bank", "city"]]],
    "not read by the last piece": [[["person", "city"]], [["person", "city"]], [["bank"]]],
    "a single one": [[["person"]], [["person"]]],
    "of a single text": [[["person", "city"]]],
    "repeated": [[["person", "city"], ["city", "person"]], [["city", "city"]], [["person"], ["person"]]],
}


@pytest.fixture(scope="module")
def models(checkpoint: Callable[[str], Path]) -> dict[str, GLiNER]:
    """Bi-encoders in double precision: only the means over a label's subwords are rounded to float32."""
    made = {kind: GLiNER.from_pretrained(checkpoint(kind)) for kind in ("bi", "bi-same-width", "bi-token")}
    for model in made.values():
        model.model.double()
    return made


def pieces_of(model: GLiNER, asked: Sequence[Sequence[Sequence[str]]]) -> list[Batch]:
    """Pieces of made-up texts, each with the labels that its texts are asked for, and no others."""
    batcher, pieces = model.predictor().batcher, []
    for number, labels_of_texts in enumerate(asked):
        sets = [LabelSet(tuple(labels), tuple(labels)) for labels in labels_of_texts]
        words = [["Ada", "Lovelace", "saw", "London"][: 2 + (number + text) % 3] for text in range(len(sets))]
        rows = np.arange(len(sets))
        subwords = batcher.encode_words(_rust.Words.from_lists(words))
        pieces.append(batcher.assemble(subwords, rows, batcher.encode_prompts(sets), rows))
    return pieces


def losses_and_gradients(network: Network, pieces: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """A made-up loss of each piece, which weighs every logit otherwise, and what it leaves in the weights."""
    network.zero_grad()
    losses = []
    for piece in pieces:
        logits = network(piece).logits
        finite = logits[logits.isfinite()]
        loss = (finite * torch.arange(len(finite)).sin()).sum()
        loss.backward()
        losses.append(loss.detach())
    return losses, {name: own.grad.clone() for name, own in network.named_parameters() if own.grad is not None}


def assert_same_step(network: Network, pieces: list[Batch], most: int) -> None:
    """Asserts that shared labels change neither a loss nor a gradient."""
    wanted = losses_and_gradients(network, pieces)
    found = losses_and_gradients(network, share_labels(pieces, network.label_vectors, most))
    assert any(name.startswith("label_encoder.") for name in wanted[1])
    assert_close(found, wanted)


def assert_close(found: tuple[list[Tensor], dict[str, Tensor]], wanted: tuple[list[Tensor], dict[str, Tensor]]) -> None:
    """Asserts that losses are equal, and gradients but for rounding to float32."""
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-9, atol=1e-9)
    largest = max(float(gradient.abs().max()) for gradient in wanted[1].values())
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("kind", ["bi", "bi-same-width", "bi-token"])
def test_losses_and_gradients_are_those_of_pieces_that_encode_their_own(
    kind: str, asked: list[list[list[str]]], models: dict[str, GLiNER]
) -> None:
    model = models[kind]
    model.model.eval()  # no dropout
    assert_same_step(model.model, pieces_of(model, asked), ALL)


@given(
    asked=st.lists(
        st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), min_size=1, max_size=3), min_size=1
    ),
    most=st.integers(0, 30),
)
@settings(max_examples=20)
def test_whatever_is_asked_for_and_however_few_labels_are_held_the_step_is_the_same(
    asked: list[list[list[str]]], most: int, models: dict[str, GLiNER]
) -> None:
    model = models["bi"]
    model.model.eval()
    assert_same_step(model.model, pieces_of(model, asked[:4]), most)


class Counting:
    """Encodes labels, and keeps the subwords of what was asked for."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.calls: list[list[bytes]] = []

    def __call__(self, labels: LabelTexts) -> Tensor:
        self.calls.append([ids.tobytes() for ids in labels.ids])
        return self._network.label_vectors(labels)


@pytest.mark.parametrize(
    ("name", "counts"),
    [("shared by all", [2]), ("shared by none", []), ("shared by some", [4]), ("of a single text", [])],
)
def test_a_shared_label_is_encoded_once(name: str, counts: list[int], models: dict[str, GLiNER]) -> None:
    model = models["bi"]
    encode = Counting(model.model)
    pieces = pieces_of(model, ASKED[name])
    shared = list(share_labels(pieces, encode, ALL))
    assert [len(call) for call in encode.calls] == counts
    assert all(len(set(call)) == len(call) for call in encode.calls)
    if not counts:
        assert all(ours is theirs for ours, theirs in zip(shared, pieces, strict=True))


def test_no_more_labels_are_held_than_allowed(models: dict[str, GLiNER]) -> None:
    model = models["bi"]
    asked = [[[f"type {number}", f"type {number + 1}"]] for number in range(6)]
    pieces = pieces_of(model, asked)
    first, second = pieces[0].labels, pieces[1].labels
    assert first is not None
    assert second is not None
    most = sum(map(len, [*first.ids, second.ids[1]]))  # of the three labels of two pieces
    for allowed, counts in ((most, [3, 3, 3]), (most - 1, [])):
        encode = Counting(model.model)
        list(share_labels(pieces, encode, allowed))
        assert [len(call) for call in encode.calls] == counts


def test_a_frozen_encoder_of_labels_gets_no_gradient(models: dict[str, GLiNER]) -> None:
    pieces = pieces_of(models["bi-same-width"], ASKED["shared by some"])  # no projection: nothing of labels is trained
    network = models["bi-same-width"].model
    assert network.label_encoder is not None
    network.label_encoder.requires_grad_(False)
    try:
        wanted = losses_and_gradients(network, pieces)
        found = losses_and_gradients(network, share_labels(pieces, network.label_vectors, ALL))
    finally:
        network.label_encoder.requires_grad_(True)
    assert_close(found, wanted)
    assert not any(name.startswith("label_encoder.") for name in found[1])


def test_labels_of_other_models_stay_with_their_texts(built_in: GLiNER) -> None:
    pieces = pieces_of(built_in, ASKED["shared by all"])
    encode = Counting(built_in.model)
    assert all(ours is theirs for ours, theirs in zip(share_labels(pieces, encode, ALL), pieces, strict=True))
    assert encode.calls == []


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(checkpoint: Callable[[str], Path], tmp_path: Path) -> TrainingConfig:
    """Steps of several pieces, of a bi-encoder."""
    return steps_without_dropout(checkpoint("bi"), tmp_path)


def test_a_batch_in_pieces_is_the_same_step(
    config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, given_with = train(config), []

    def watched(*arguments: Any) -> Any:
        for piece in share_labels(*arguments):
            given_with.append(piece.labels is not None and piece.labels.given is not None)
            yield piece

    monkeypatch.setattr(trainer, "share_labels", watched)
    pieces = train(config.replace(output_dir=str(tmp_path / "pieces"), piece_tokens=40))
    assert sum(given_with) >= 2 * config.steps  # labels were shared
    assert pieces.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_weights(tmp_path / "pieces", tmp_path / "whole", tmp_path / "start")


def test_two_processes_train_as_one_with_twice_the_batches(config: TrainingConfig, tmp_path: Path) -> None:
    config = config.replace(piece_tokens=40)
    two = with_evaluations(config.replace(output_dir=str(tmp_path / "two")))
    (tmp_path / "config.yaml").write_text(two.to_yaml())
    assert in_two_processes(tmp_path / "config.yaml") == f"{tmp_path / 'two' / 'best'}\n"  # told once
    train(config.replace(accumulation=2))
    assert_same_weights(tmp_path / "two", tmp_path / "whole", tmp_path / "start")


def test_a_run_in_pieces_that_is_resumed_is_an_unbroken_one(
    checkpoint: Callable[[str], Path], config: TrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.replace(model=str(checkpoint("bi")), dropout=0.4, piece_tokens=40)  # its encoders drop, too
    whole = train(config)
    broken, begun = config.replace(output_dir=str(tmp_path / "broken")), 0

    def failing(*arguments: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun > 3:
            raise KeyboardInterrupt
        return share_labels(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "share_labels", failing)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    again = train(broken, resume=True)
    assert begun == 4
    assert again.loss == whole.loss
    one, other = (GLiNER.from_pretrained(report.model).model.state_dict() for report in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_pieces_of_a_stream_share_labels(checkpoint: Callable[[str], Path]) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    examples = [Example(("one", "word") * (1 + number), ((0, 1, f"type {number % 3}"),)) for number in range(20)]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=12, ent_token="<<ENT>>")
    config = TrainingConfig(output_dir="unused", batch_tokens=400, sampling="gliner")
    stream = BatchStream(corpus, model.predictor().batcher, config, 12, piece_tokens=60)
    pieces = [piece.batch for piece in next(stream)]
    stream.close()
    assert len(pieces) > 2
    encode = Counting(model.model)
    assert len(list(share_labels(pieces, encode, config.batch_tokens))) == len(pieces)
    assert [len(call) for call in encode.calls] == [3]

"""Token-level models are trained: their targets and loss are the package's, and what is learned it finds, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_fast import GLiNER
from gliner_fast.training import train
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Judged
from gliner_fast.training.loss import batch_loss
from gliner_fast.training.targets import Targets, locate_logits, make_targets
from gliner_fast.training.trainer import start_model
from tests.parity.pairs import Pair
from tests.samples import CROSSNER, LABELS
from tests.training.sentences import annotated_sentences, write_sentences
from tests.training.short_runs import learn_by_heart
from tests.training.test_drop_in import configured
from tests.training.test_encoders import make_encoder

WORDS, CLASSES = [6, 1, 5], [3, 1, 2]
# Nested, of one type and of several, of one word, and one of a type that the tokenizer's limit has cut off.
SPANS = [[(0, 3, 0), (1, 2, 0), (1, 2, 2), (5, 6, 1)], [(0, 1, 0)], [(0, 5, 1), (2, 3, 2)]]


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Targets]:
    generator = torch.Generator().manual_seed(5)
    size = sum(3 * words * classes for words, classes in zip(WORDS, CLASSES, strict=True))
    logits = 3 * torch.randn(size, generator=generator, dtype=dtype)
    targets = make_targets(SPANS, [[Judged.ALL] * 3 for _ in WORDS], WORDS, CLASSES, None)
    return logits.requires_grad_(), targets


def padded(flat: Tensor) -> Tensor:
    """(B, W, C, 3) of flat blocks, zeros behind."""
    sizes = [3 * words * classes for words, classes in zip(WORDS, CLASSES, strict=True)]
    return torch.stack(
        [
            F.pad(block.view(words, classes, 3), (0, 0, 0, max(CLASSES) - classes, 0, max(WORDS) - words))
            for block, words, classes in zip(flat.split(sizes), WORDS, CLASSES, strict=True)
        ]
    )


@pytest.mark.gliner
def test_targets_are_the_package_s() -> None:
    from gliner.data_processing import UniEncoderTokenProcessor

    logits, targets = example()
    batch = {
        "tokens": [["word"] * words for words in WORDS],
        "seq_length": torch.tensor(WORDS),
        "classes_to_id": [{class_: class_ + 1 for class_ in range(classes)} for classes in CLASSES],
        "entities": [[(start, end - 1, class_) for start, end, class_ in own] for own in SPANS],
    }
    wanted = UniEncoderTokenProcessor.create_labels(SimpleNamespace(), batch)
    positive = torch.zeros(len(logits)).index_fill(0, targets.positives, 1.0)
    assert torch.equal(padded(positive), wanted)
    assert len(targets.positives) == len(set(targets.positives.tolist())) == int(wanted.sum())


OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"loss": "focal"}, {}),
    ({"loss": "focal", "reduction": "mean"}, {"reduction": "mean"}),
    (
        {"loss": "focal", "focal_alpha": 0.3, "focal_gamma": 1.5, "prob_margin": 0.05, "label_smoothing": 0.2},
        {"alpha": 0.3, "gamma": 1.5, "prob_margin": 0.05, "label_smoothing": 0.2},
    ),
    ({"loss": "bce"}, {}),
]


@pytest.mark.gliner
@pytest.mark.parametrize(("ours", "theirs"), OPTIONS, ids=[str(ours) for ours, _ in OPTIONS])
def test_loss_and_gradient_equal_the_package_s(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    from gliner.modeling.base import UniEncoderTokenModel

    logits, targets = example()
    mine = batch_loss(logits, targets, TrainingConfig(output_dir="unused", **ours))
    positive = torch.zeros_like(logits).index_fill(0, targets.positives, 1.0)
    word_mask, class_mask = (torch.arange(max(counts)) < torch.tensor(counts)[:, None] for counts in (WORDS, CLASSES))
    wanted = UniEncoderTokenModel.loss(
        UniEncoderTokenModel.__new__(UniEncoderTokenModel),
        padded(logits),
        padded(positive),
        class_mask.double(),
        word_mask.double(),
        **theirs,
    )
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (mine, wanted)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_every_logit_knows_its_word_and_type() -> None:
    _, targets = example()
    places = locate_logits(targets, torch.device("cpu"))
    types, words = [], []
    first_type = first_word = 0
    for word_count, class_count in zip(WORDS, CLASSES, strict=True):
        for word in range(word_count):
            for class_ in range(class_count):
                types += [first_type + class_] * 3
                words += [first_word + word] * 3
        first_type, first_word = first_type + class_count, first_word + word_count
    assert places.types.tolist() == types
    assert places.spans.tolist() == words


def test_types_that_are_marked_in_part_are_judged_by_known_words() -> None:
    known = [torch.tensor([[True], [False], [True]]).numpy()]
    targets = make_targets([[(0, 1, 0)]], [[Judged.KNOWN, Judged.ALL]], [3], [2], None, known=known)
    logits = torch.randn(18, requires_grad=True)
    (gradient,) = torch.autograd.grad(batch_loss(logits, targets, TrainingConfig(output_dir="unused")), logits)
    counts = (gradient.view(3, 2, 3) != 0).tolist()
    assert counts == [[[True] * 3] * 2, [[False] * 3, [True] * 3], [[True] * 3] * 2]


def test_a_mean_is_over_pairs_of_words_and_types() -> None:
    _, targets = example()
    assert targets.count == 6 * 3 + 1 + 5 * 2


@pytest.fixture(scope="module")
def learned(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on twenty sentences, until it knows them; its report."""
    return learn_by_heart(checkpoint("token"), tmp_path_factory.mktemp("token-level"))


def test_twenty_sentences_are_learned_by_heart(learned: Any) -> None:
    assert learned.best is not None
    assert learned.best.f1 == 1.0


@pytest.mark.gliner
def test_gliner_finds_the_same_in_what_was_learned(learned: Any) -> None:
    texts: Any = [" ".join(row["tokenized_text"]) for row in annotated_sentences()]  # type: ignore[arg-type]
    assert sum(map(len, Pair.load(learned.model).check(texts, ["person", "place"]))) > 20


@pytest.mark.gliner
def test_a_new_token_level_head_is_put_on_an_encoder(tmp_path: Path) -> None:
    config = TrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        encoder=str(make_encoder(tmp_path / "encoder", "bert")),
        span_mode="token_level",
        hidden_size=24,
        max_width=1,  # not read: nothing is too wide
        steps=3,
        lr_encoder=1e-3,
        lr_others=1e-2,
        device="cpu",
        batch_tokens=256,
    )
    assert start_model(config).config.is_token_level
    told: list[str] = []
    report = train(config, tell=told.append)
    assert "left out: 0 spans beyond 384 words" in told[0]
    settings = json.loads((report.model / "gliner_config.json").read_text())
    assert settings["span_mode"] == "token_level"
    assert Pair.load(report.model).check(CROSSNER[:6], LABELS, threshold=0.1, flat_ner=False)


def test_train_model_reads_what_the_package_reads_of_token_level_models(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = GLiNER.from_pretrained(checkpoint("token"))
    asked = {"masking": "span", "negatives": 0.5, "loss_type": "dice", "use_span_width_weight": True}
    config = configured(model, tmp_path, focal_loss_gamma=2, **asked)
    assert (config.loss, config.focal_gamma, config.masking, config.span_width_weight) == ("focal", 2, "none", False)


def test_train_model_trains_in_place(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = GLiNER.from_pretrained(checkpoint("token"))
    texts, labels = ["Ada Lovelace was born in London ."], ["person", "place"]
    before = model.inference(texts, labels, threshold=0.0)
    model.train_model(annotated_sentences(), output_dir=tmp_path, max_steps=2, learning_rate=1e-3, use_cpu=True)
    after = model.inference(texts, labels, threshold=0.0)
    assert after != before
    assert GLiNER.from_pretrained(tmp_path / "final").inference(texts, labels, threshold=0.0) == after

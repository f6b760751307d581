"""Bi-encoders are trained: loss and gradients are the package's, and what is learned it finds, too."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gliner_fast import GLiNER, _rust
from gliner_fast.annotated.example import Example
from gliner_fast.labels import LabelSet
from gliner_fast.training import train, trainer
from gliner_fast.training.batches import BatchStream
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus, Judged
from gliner_fast.training.loss import batch_loss
from gliner_fast.training.optimizer import parameter_groups
from gliner_fast.training.sampling import share_types
from gliner_fast.training.targets import locate_logits, make_targets
from gliner_fast.training.trainer import prepare_model
from tests.parity.pairs import Pair
from tests.training.sentences import annotated_sentences, write_sentences
from tests.training.short_runs import learn_by_heart
from tests.training.test_drop_in import configured

ROWS: list[dict[str, Any]] = [
    {"tokenized_text": ["Ada", "Lovelace", "lived", "in", "London", "."], "ner": [[0, 1, "person"], [4, 4, "city"]]},
    {"tokenized_text": ["Nothing", "here"], "ner": []},
    {"tokenized_text": ["Barclays", "Bank", "is", "in", "London"], "ner": [[0, 1, "bank"], [4, 4, "city"]]},
]
TYPES = ["person", "city", "bank", "a type of none"]


# --- one step beside the package's ------------------------------------------------------------------------------------


def our_loss(model: GLiNER, config: TrainingConfig) -> torch.Tensor:
    """The loss of `ROWS`, all asked for `TYPES`, with gradients left in the weights."""
    batcher = model.predictor().batcher
    words = [row["tokenized_text"] for row in ROWS]
    subwords = batcher.encode_words(_rust.Words.from_lists(words))
    prompts = batcher.encode_prompts([LabelSet(tuple(TYPES), tuple(TYPES))])
    rows = np.arange(len(ROWS))
    batch = batcher.assemble(subwords, rows, prompts, np.zeros(len(ROWS), np.int64))
    spans = [[(start, end + 1, TYPES.index(label)) for start, end, label in row["ner"]] for row in ROWS]
    counts = batch.word_counts.tolist(), batch.class_counts.tolist()
    judged = [[Judged.ALL] * len(TYPES) for _ in ROWS]
    targets = make_targets(spans, judged, *counts, model.config.widest)
    loss = batch_loss(model.model(batch).logits, targets, config, count=targets.count)
    loss.backward()
    return loss


def reference_loss(theirs: Any, **settings: Any) -> torch.Tensor:
    """The package's loss of `ROWS`, all asked for `TYPES`."""
    collate = theirs.data_collator_class(theirs.config, data_processor=theirs.data_processor, prepare_labels=True)
    # Without chance: the package would shuffle the types of the batch.
    theirs.data_processor.batch_generate_class_mappings = lambda rows, *_: (
        [{label: place for place, label in enumerate(TYPES, 1)}] * len(rows),
        [dict(enumerate(TYPES, 1))] * len(rows),
    )
    theirs.model.eval()
    loss: torch.Tensor = theirs.model(**collate(ROWS), **settings).loss
    return loss


@pytest.mark.gliner
@pytest.mark.parametrize("kind", ["bi", "bi-same-width", "bi-token", "bi-modernbert", "bi-fused", "bi-token-fused"])
def test_loss_and_gradients_are_the_package_s(kind: str, checkpoint: Callable[[str], Path]) -> None:
    pair = Pair.load(checkpoint(kind))
    ours, theirs = pair.ours, pair.reference
    ours.model.eval()  # no dropout
    wanted = reference_loss(theirs)
    wanted.backward()
    found = our_loss(ours, TrainingConfig(output_dir="unused", loss="focal", focal_alpha=-1.0, focal_gamma=0.0))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)
    gradients = {name: weight.grad for name, weight in theirs.model.named_parameters() if weight.grad is not None}
    of_labels = [name for name in gradients if "labels_encoder" in name]
    assert len(of_labels) > 5
    mine = [weight.grad for weight in ours.model.label_encoder.parameters() if weight.grad is not None]
    for own, names in (
        (mine, [*of_labels, *(name for name in gradients if "labels_projection" in name)]),
        ([w.grad for w in ours.model.parameters() if w.grad is not None], list(gradients)),
    ):
        norms = [
            torch.stack([gradient.norm() for gradient in each]).norm() for each in (own, [gradients[n] for n in names])
        ]
        torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=0)


def test_labels_of_the_batch_alone_are_encoded(checkpoint: Callable[[str], Path]) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    examples = [Example(("one", "word") * (1 + number), ((0, 1, f"type {number}"),)) for number in range(40)]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=12, ent_token="<<ENT>>")
    config = TrainingConfig(output_dir="unused", batch_tokens=200, negative_share=0.5)
    stream = BatchStream(corpus, model.predictor().batcher, config, 12)
    sizes = set()
    for _ in range(6):
        for each in next(stream):
            batch = each.batch
            assert batch.labels is not None
            assert batch.label_rows is not None
            assert sorted(set(batch.label_rows.tolist())) == list(range(len(batch.labels.ids)))
            assert len(batch.label_rows) == int(batch.class_counts.sum()) == sum(each.targets.class_counts)
            sizes.add(len(batch.labels.ids))
    stream.close()
    assert max(sizes) < 40


@pytest.mark.parametrize("sampling", ["paper", "gliner"])
def test_a_span_s_label_is_the_one_that_is_encoded_for_it(sampling: Any, checkpoint: Callable[[str], Path]) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    batcher = model.predictor().batcher
    label_tokenizer = batcher._label_tokenizer
    assert label_tokenizer is not None
    examples = [Example(("word",) * (1 + number), ((0, 1, f"type {number}"),)) for number in range(9)]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=12, ent_token="<<ENT>>")
    config = TrainingConfig(output_dir="unused", batch_size=3, sampling=sampling, random_drop=False)
    stream, seen = BatchStream(corpus, batcher, config, 12), set()
    for _ in range(3):
        (each,) = next(stream)
        batch, targets = each.batch, each.targets
        assert batch.labels is not None
        assert batch.label_rows is not None
        if sampling == "gliner":
            assert batch.class_counts.tolist() == [3, 3, 3]  # all types of the batch
        types = locate_logits(targets, torch.device("cpu")).types[targets.positives]
        rows = torch.arange(3).repeat_interleave(batch.class_counts)[types]
        assert sorted(rows.tolist()) == [0, 1, 2]
        for type_, row in zip(types.tolist(), rows.tolist(), strict=True):
            number = int(batch.word_counts[row]) - 1
            ids = batch.labels.ids[int(batch.label_rows[type_])]
            assert ids.tolist() == label_tokenizer.encode(f"type {number}").tolist()
            seen.add(number)
    stream.close()
    assert seen == set(range(9))


@pytest.mark.gliner
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"label_smoothing": 0.1},
        {"focal_loss_prob_margin": 0.2},
        {"loss_type": "dice"},
        {"use_span_width_weight": True},
        {"focal_loss_alpha": 0.7, "focal_loss_gamma": 2.0, "loss_reduction": "mean"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["bi", "bi-token"])
def test_train_model_reads_the_settings_that_the_package_reads(
    kind: str, settings: dict[str, Any], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    pair = Pair.load(checkpoint(kind))
    ours, theirs = pair.ours, pair.reference
    named = {"focal_loss_prob_margin": "prob_margin", "focal_loss_alpha": "alpha", "focal_loss_gamma": "gamma"}
    named |= {"loss_reduction": "reduction"}
    wanted = reference_loss(theirs, **{named.get(name, name): value for name, value in settings.items()})
    ours.model.eval()
    found = our_loss(ours, configured(ours, tmp_path, **settings))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_of_cut_texts_a_bi_encoder_s_user_is_told_what_helps(checkpoint: Callable[[str], Path]) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi-bert"))
    examples = [Example(("word",) * 120, ((0, 1, "one"),))]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=384, max_width=12, ent_token="<<ENT>>")
    stream = BatchStream(corpus, model.predictor().batcher, TrainingConfig(output_dir="unused"), 12)
    with pytest.warns(UserWarning, match=r"1 of 1 texts are longer than the 96 subwords .* Divide such texts$"):
        next(stream)
    stream.close()


# --- types as gliner draws them ---------------------------------------------------------------------------------------


@pytest.mark.gliner
def test_a_batch_shares_the_types_that_gliner_draws() -> None:
    from gliner.data_processing.processor import BiEncoderSpanProcessor

    examples = [
        Example(("a", "b"), ((0, 1, "x"), (1, 2, "y"))),
        Example(("a",), ((0, 1, "x"),), negatives=("n", "m")),
        Example(("a",), ()),
    ]
    corpus = Corpus([(TrainingFile(path="one"), examples)], max_len=9, max_width=9, ent_token="<<ENT>>")
    rows = [
        {"ner": [list(span) for span in each.spans]}
        | ({"ner_negatives": list(each.negatives)} if each.negatives else {})
        for each in examples
    ]
    processor = BiEncoderSpanProcessor.__new__(BiEncoderSpanProcessor)
    processor.config = type("Config", (), {"max_types": 1})
    random.seed(0)
    theirs = Counter(frozenset(processor.batch_generate_class_mappings(rows)[0][0]) for _ in range(4000))
    config, generator = TrainingConfig(output_dir="unused", sampling="gliner", max_types=1), random.Random(0)
    drawn = [share_types(corpus.examples, config, generator) for _ in range(4000)]
    assert all(own.types == each[0].types for each in drawn for own in each)
    ours = Counter(frozenset(each[0].types) for each in drawn)
    # Which of them are left out hangs on the hashes of strings there, and is the same in all of a process.
    assert {len(types) for types in ours} == {len(types) for types in theirs} == {3}
    assert frozenset.union(*ours) == {"x", "y", "n", "m"}


def test_where_nothing_is_named_an_empty_label_is_asked_for() -> None:
    corpus = Corpus([(TrainingFile(path="one"), [Example(("a",), ())])], max_len=9, max_width=9, ent_token="<<ENT>>")
    config = TrainingConfig(output_dir="unused", sampling="gliner")
    assert share_types(corpus.examples, config, random.Random(0))[0].types == ("",)


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_encoder_of_labels_learns_as_the_encoder_does_or_not_at_all(checkpoint: Callable[[str], Path]) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    config = TrainingConfig(output_dir="unused", lr_encoder=1.0, lr_others=2.0)
    of_labels = {id(weight) for weight in model.model.label_encoder.parameters()}

    def rates() -> set[object]:
        groups = parameter_groups(model.model, config)
        return {group["peak_lr"] for group in groups for weight in group["params"] if id(weight) in of_labels}  # type: ignore[attr-defined]

    assert rates() == {1.0}
    prepare_model(model, config.replace(freeze_label_encoder=True), torch.device("cpu"))
    frozen = [name for name, weight in model.model.named_parameters() if not weight.requires_grad]
    assert frozen
    assert all(name.startswith("label_encoder.encoder.") for name in frozen)
    model.unfreeze_component("labels_encoder")
    assert all(weight.requires_grad for weight in model.model.parameters())


def test_components_are_frozen_by_the_package_s_names(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    config = configured(model, tmp_path, freeze_components=["labels_encoder"])
    assert (config.freeze_encoder, config.freeze_label_encoder) == (False, True)
    with pytest.warns(UserWarning, match="'decoder' not found. Available components: text_encoder, labels_encoder"):
        model.freeze_component("decoder")


@pytest.mark.gliner
@pytest.mark.parametrize(("kind", "sampling"), [("bi", "paper"), ("bi", "gliner"), ("bi-token", "gliner")])
def test_twenty_sentences_are_learned_by_heart_and_gliner_finds_the_same(
    kind: str, sampling: Any, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    report = learn_by_heart(checkpoint(kind), tmp_path, sampling=sampling)
    assert report.best is not None
    assert report.best.f1 > 0.9
    texts: Any = [" ".join(row["tokenized_text"]) for row in annotated_sentences()]  # type: ignore[arg-type]
    assert sum(map(len, Pair.load(report.model).check(texts, ["person", "place"]))) > 20


def test_a_broken_run_comes_to_the_weights_of_an_unbroken_one(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainingConfig(
        output_dir=str(tmp_path / "whole"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        model=str(checkpoint("bi")),
        sampling="gliner",
        batch_size=4,
        steps=6,
        save_steps=3,
        device="cpu",
    )
    whole = train(config)
    broken = config.replace(output_dir=str(tmp_path / "broken"))
    left = iter(range(4))
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "batch_loss", lambda *given, **options: next(left) * 0 + batch_loss(*given, **options))
        with pytest.raises(StopIteration):
            train(broken)
    assert not (tmp_path / "broken" / "final").exists()
    again = train(broken, resume=True)
    one, other = (GLiNER.from_pretrained(report.model).model.state_dict() for report in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_train_model_trains_in_place(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = GLiNER.from_pretrained(checkpoint("bi"))
    texts, labels = ["Ada Lovelace was born in London ."], ["person", "place"]
    before = model.inference(texts, labels, threshold=0.0)
    model.train_model(annotated_sentences(), output_dir=tmp_path, max_steps=2, learning_rate=1e-3, use_cpu=True)
    after = model.inference(texts, labels, threshold=0.0)
    assert after != before
    again = GLiNER.from_pretrained(tmp_path / "final").inference(texts, labels, threshold=0.0)
    for entity in again[0]:  # weights that lie elsewhere in memory may be rounded differently
        entity["score"] = pytest.approx(entity["score"], abs=1e-6)
    assert again == after


def test_a_setting_of_labels_encoders_that_there_is_none_for_is_told(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    told: list[str] = []
    config = TrainingConfig(
        output_dir=str(tmp_path / "run"),
        train=(TrainingFile(path=str(write_sentences(tmp_path / "data.jsonl"))),),
        model=str(checkpoint("deberta")),
        freeze_label_encoder=True,
        steps=1,
        device="cpu",
    )
    train(config, tell=told.append)
    assert "freeze_label_encoder is set, and the model is no bi-encoder: there is no such encoder" in told

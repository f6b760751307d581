"""A step of training: ours beside that of gliner's `train_model`, on the same weights, rows, types and settings.

A step is rows -> batch -> loss -> gradients -> clipping -> AdamW, dropout included: in both that of the encoder and of
the words' and types' MLPs, in gliner also that of every span (`scorer.SpanScorer`). Both have the loss of the paper and
two learning rates. gliner's rows are laid out in the same process, where its `train_model` has one beside it; what its
loop does around a step is left out. Beside the time stands what the step keeps in memory from the way forth for the way
back and, on CUDA, the peak above what was there before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benches.compare import Race
from benches.conftest import DEVICES, LABELS, SIZES, checkpoint, texts_of
from benches.on_card import peak_bytes
from gliner_fast import GLiNER
from gliner_fast.annotated.examples import examples_from_records
from gliner_fast.training import trainer
from gliner_fast.training.batches import BatchStream
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus
from gliner_fast.training.loss import batch_loss
from gliner_fast.training.optimizer import build_optimizer
from gliner_fast.training.recent_steps import RecentSteps
from gliner_fast.training.run import begin_run
from gliner_fast.training.trainer import Trainer, choose_piece_tokens, prepare_model

ROWS = 8  # the batch size of the package's `create_training_args`
TOLERANCE = 1e-4  # of loss and of the gradient's norm, without dropout
RATE = 1e-9  # hundreds of steps must not train anything


def annotated_rows(name: str, label_count: int, count: int = ROWS) -> list[dict[str, Any]]:
    """Texts with a made-up span every seven words, and the same types to ask for in both packages."""
    labels = LABELS[:label_count]
    rows = []
    for text in texts_of(name, count)[:count]:
        words = text.split()
        starts = range(0, len(words) - 2, 7)
        spans = [[start, start + start % 3, labels[start % label_count]] for start in starts]
        rows.append({"tokenized_text": words, "ner": spans, "ner_labels": labels})
    return rows


class Ours:
    """Our trainer, to be asked for single steps."""

    def __init__(self, size: str, rows: list[dict[str, Any]], device: str, folder: Path, kind: str = "") -> None:
        self.model = GLiNER.from_pretrained(checkpoint(size, kind), map_location=device)
        self.config = TrainingConfig(
            output_dir=str(folder),
            sampling="gliner",
            loss="focal",  # with gliner's clamped probabilities
            batch_size=len(rows),
            batch_tokens=2**20,
            lr_encoder=RATE,
            lr_others=RATE,
            device=device,  # type: ignore[arg-type]
            dropout=self.model.config.dropout,
        )
        settings = self.model.config
        corpus = Corpus(
            [(TrainingFile(path="rows"), examples_from_records(rows))],
            max_len=settings.max_len,
            max_width=settings.max_width,
            ent_token=settings.ent_token,
        )
        batcher = self.model.predictor().batcher
        run = begin_run(self.config, resume=False)
        self.device = run.accelerator.device
        prepare_model(self.model, self.config, self.device)
        optimizer = build_optimizer(self.model.model, self.config)
        for group in optimizer.param_groups:
            group["lr"] = RATE
        self.optimizer = run.accelerator.prepare_optimizer(optimizer, device_placement=False)
        pieces = choose_piece_tokens(self.config, self.device)
        self.batches = BatchStream(corpus, batcher, self.config, settings.max_width, piece_tokens=pieces)
        self.trainer = Trainer(self.model, corpus, [], self.config, run)

    def step(self) -> Tensor:
        """One step, host work included."""
        return self.trainer.step(self.model.model, self.optimizer, self.batches, RecentSteps())

    def gather_gradients(self) -> None:
        """Makes ordinary gradients of what backward passes have left."""
        self.trainer.gather_gradients()

    def losses(self) -> Iterator[Tensor]:
        """The losses of the pieces of the batch, with the model as it stands."""
        for piece in next(self.batches):
            logits = self.model.model(piece.batch.to(self.device)).logits
            yield batch_loss(logits, piece.targets.to(self.device), self.config)


class Theirs:
    """gliner's trainer, as its `train_model` makes it, to be asked for single steps."""

    def __init__(self, size: str, rows: list[dict[str, Any]], device: str, folder: Path) -> None:
        from gliner import GLiNER as Reference
        from gliner.training import Trainer as ReferenceTrainer

        self.model = Reference.from_pretrained(str(checkpoint(size)), map_location=device)
        arguments = self.model.create_training_args(
            folder, learning_rate=RATE, others_lr=RATE, per_device_train_batch_size=len(rows), use_cpu=device == "cpu"
        )
        self.rows, self.collate = rows, self.model._create_data_collator()
        self.trainer = ReferenceTrainer(
            model=self.model, args=arguments, train_dataset=rows, data_collator=self.collate
        )
        self.optimizer = self.trainer.create_optimizer()

    def step(self) -> Tensor:
        """One step, host work included."""
        loss: Tensor = self.trainer.training_step(self.model, self.collate(self.rows))
        nn.utils.clip_grad_norm_(self.model.parameters(), self.trainer.args.max_grad_norm)
        self.optimizer.step()
        self.model.zero_grad()
        return loss

    def gather_gradients(self) -> None:
        """Nothing: they are ordinary."""

    def losses(self) -> Iterator[Tensor]:
        """The loss of the batch, with the model as it stands."""
        yield self.trainer.compute_loss(self.model, self.trainer._prepare_inputs(self.collate(self.rows)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("label_count", [5, 25])
@pytest.mark.parametrize("name", ["short", "mixed"])
@pytest.mark.timeout(1_800)  # base on two cores
def bench_training(race: Race, tmp_path: Path, name: str, label_count: int, size: str, device: str) -> None:
    rows = annotated_rows(name, label_count)
    ours, theirs = Ours(size, rows, device, tmp_path), Theirs(size, rows, device, tmp_path)
    both = zip(loss_and_norm(ours), loss_and_norm(theirs), strict=True)
    error = max(abs(mine - their) / max(abs(their), 1e-30) for mine, their in both)
    assert error <= TOLERANCE
    memory = {label: kept_bytes(side) for label, side in (("ours", ours), ("gliner", theirs))}
    conditions: dict[str, Any] = {"kept_bytes": memory}
    if device == "cuda":
        conditions["peak_bytes"] = {"ours": peak_bytes(ours.step), "gliner": peak_bytes(theirs.step)}
    race.run(
        ours.step,
        {"gliner's train_model": theirs.step},
        agreement=f"loss and norm of its gradient within {error:.0e}, without dropout",
        amount=sum(len(row["tokenized_text"]) for row in rows),
        unit="words",
        corpus=name,
        rows=len(rows),
        labels=label_count,
        size=size,
        dtype="float32",
        **conditions,
    )
    ours.batches.close()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("label_count", [5, 25])
@pytest.mark.timeout(1_800)
def bench_shared_labels(
    race: Race, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label_count: int, size: str, device: str
) -> None:
    rows = annotated_rows("mixed", label_count, 4 * ROWS)
    ours = Ours(size, rows, device, tmp_path, "bi-encoder")
    for group in ours.optimizer.param_groups:
        group["lr"] = 0.0  # of random weights the loss is so steep that even `RATE` tells two steps apart
    pieces = next(ours.batches)

    def step_alone() -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "share_labels", lambda pieces, *_: iter(pieces))
            return ours.step()

    ours.model.eval()  # without dropout
    error = float((ours.step() / step_alone() - 1).abs().max())
    ours.model.train()
    assert error <= TOLERANCE
    race.run(
        ours.step,
        {"each piece encodes its labels": step_alone},
        agreement=f"loss and norm of its gradient within {error:.0e}, without dropout",
        amount=sum(len(row["tokenized_text"]) for row in rows),
        unit="words",
        corpus="mixed",
        rows=len(rows),
        labels=label_count,
        pieces=len(pieces),
        size=size,
        dtype="float32",
    )
    ours.batches.close()


def loss_and_norm(side: Ours | Theirs) -> tuple[float, float]:
    """The loss without dropout, and the norm of its gradient."""
    side.model.eval()
    total = 0.0
    with torch.backends.cudnn.flags(enabled=False):  # its LSTM has no way back in eval
        for loss in side.losses():
            loss.backward()
            total += float(loss.detach())
    side.gather_gradients()
    norm = nn.utils.get_total_norm([p.grad for p in side.model.parameters() if p.grad is not None])
    side.model.zero_grad()
    side.model.train()
    return total, float(norm)


def kept_bytes(side: Ours | Theirs) -> int:
    """Memory that the way forth keeps for the way back at most, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in side.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        return tensor

    most = 0
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        for loss in side.losses():
            most = max(most, sum(kept.values()))
            loss.backward()
            kept.clear()
    side.model.zero_grad()
    return most

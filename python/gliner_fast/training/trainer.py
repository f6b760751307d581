"""Trains a model: batches -> loss -> gradients -> weights, with checkpoints that a run goes on from exactly.

accelerate does what depends on the machine: the device, several processes, mixed precision. The loop is our own, since
with batches by token budget only the batches know how far a run has come: all that is random in step n is drawn from
seed and n, so a checkpoint needs weights, optimizer and a place, and a resumed run repeats an unbroken one bit by bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gliner_fast.annotated.example import Example
from gliner_fast.batch import Batch
from gliner_fast.checkpoints.tensor_names import checkpoint_names
from gliner_fast.errors import count
from gliner_fast.network import Network
from gliner_fast.scorer import ProjectionMLP, SpanScorer
from gliner_fast.scoring.token_scorer import TokenScorer
from gliner_fast.training.batches import BatchStream
from gliner_fast.training.checkpoints import Best, TrainingState, checksum_of, load_checkpoint
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.corpus import Corpus, read_corpus
from gliner_fast.training.errors import TrainingError, expect_trainable
from gliner_fast.training.loss import batch_loss
from gliner_fast.training.optimizer import build_optimizer, set_learning_rates
from gliner_fast.training.recent_steps import RecentSteps
from gliner_fast.training.row_gradients import RowGradients
from gliner_fast.training.run import Run, begin_run
from gliner_fast.training.shared_labels import share_labels

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

Tell = Callable[[str], None]

# Subwords computed at once on a CPU. On one core of an EPYC 7003 (2026-11-23), small size, 8 short texts in a batch:
# 512 were 25 % faster than whole batches of 984, 128 hardly; with mixed texts 512 were 5 % faster, 256 12 % slower.
_CPU_PIECE = 512
_CPU_PIECE_PER_THREAD = 256
# A run that tells nothing looks hung: seconds from one sign of life to the next, until the first regular line.
_SIGN_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingReport:
    """What a run came to.

    Attributes:
        steps: steps done, by earlier parts of the run too.
        loss: mean loss of the last steps that were told of; NaN where none was left to do.
        best: the evaluation that came out best; None where nothing was evaluated.
        model: folder of the model to use: the best one, or the final one where nothing was evaluated.
        seconds: that this part of the run took.
    """

    steps: int
    loss: float
    best: Best | None
    model: Path
    seconds: float


def train(config: TrainingConfig, *, resume: bool = False, tell: Tell | None = None) -> TrainingReport:
    """Trains a model as a configuration says.

    Args:
        config: the settings.
        resume: go on from the newest checkpoint of `config.output_dir`, if there is one.
        tell: takes lines of progress; they are in `log.jsonl` as well.

    Raises:
        TrainingError: the run cannot begin, or its loss is no number.
        FileNotFoundError: a file of data is not there.
        DataError: the data cannot be used; the message names file and line.
        ConfigError: the settings do not suit the data.
        CheckpointError: model or encoder cannot be loaded.
        ImportError: accelerate is not installed.
        MemoryError: a step does not fit into memory.
    """
    from gliner_fast.annotated.examples import read_examples

    for path in (*(file.path for file in config.train), *config.eval):
        Path(path).stat()  # a missing one is told before anything is loaded
    run = begin_run(config, resume=resume)
    with run.folder:
        model = start_model(config)
        settings = model.config
        splitter = model.data_processor.custom_splitter
        corpus = read_corpus(
            config,
            max_len=settings.max_len,
            max_width=settings.widest,
            ent_token=settings.ent_token,
            splitter=splitter,
        )
        eval_sets = [read_examples(path, splitter=splitter, relations=True) for path in config.eval]
        return Trainer(model, corpus, eval_sets, config, run, tell=tell).train()


def start_model(config: TrainingConfig) -> GLiNER:
    """The model that a run begins with.

    Raises:
        TrainingError: the configuration names none, or one that is not trained here.
        CheckpointError: it cannot be loaded.
    """
    from gliner_fast.config import GLiNERConfig
    from gliner_fast.model import GLiNER

    if config.model is not None:
        model = GLiNER.from_pretrained(config.model)
        expect_trainable(model.config)  # before the data is read
        return model
    if config.encoder is None:
        raise TrainingError("nothing to train: name a checkpoint in model, or a pretrained encoder in encoder")
    torch.manual_seed(config.seed)  # the new head is random
    settings = GLiNERConfig(
        model_name=config.encoder,
        labels_encoder=config.labels_encoder,
        hidden_size=config.hidden_size,
        span_mode=config.span_mode,
        num_rnn_layers=config.num_rnn_layers,
        subtoken_pooling=config.subtoken_pooling,
        max_width=config.max_width,
        max_len=config.max_len,
        max_types=config.max_types,
    )
    return GLiNER.from_config(settings)


class Trainer:
    """One run of one model."""

    def __init__(
        self,
        model: GLiNER,
        corpus: Corpus,
        eval_sets: Sequence[Sequence[Example]],
        config: TrainingConfig,
        run: Run,
        *,
        tell: Tell | None = None,
    ) -> None:
        expect_trainable(model.config)
        checkpoint_names(model.model)  # refused here, and not by the first checkpoint
        self.model, self.corpus, self.eval_sets, self.config, self.run = model, corpus, eval_sets, config, run
        self._tell = tell if tell is not None and run.accelerator.is_main_process else lambda _: None
        self._best: Best | None = None
        self._judged_by = checksum_of(eval_sets)
        self._piece_tokens = choose_piece_tokens(config, run.accelerator.device)
        # Several processes add up their gradients by themselves, a compiled network has ordinary ones only, and a GPU
        # fills a table in no time.
        is_alone_on_cpu = run.accelerator.num_processes == 1 and run.accelerator.device.type == "cpu"
        self._row_gradients = RowGradients(model.model) if is_alone_on_cpu and not config.compile else None

    def train(self) -> TrainingReport:
        """Trains from the run's checkpoint, or from the beginning, to the end.

        Raises:
            TrainingError: the checkpoint is of another run; the loss is no number.
            MemoryError: a batch does not fit on the device.
        """
        began = time.perf_counter()
        config, model, accelerator, folder = self.config, self.model, self.run.accelerator, self.run.folder
        state = None
        if self.run.checkpoint is not None:
            state = load_checkpoint(
                self.run.checkpoint, model, config, self.corpus.fingerprint, self._judged_by, self._tell
            )
            self._best = state.best
        first = 0 if state is None else state.step
        batcher = model.predictor().batcher
        prepare_model(model, config, accelerator.device)
        optimizer = accelerator.prepare_optimizer(build_optimizer(model.model, config), device_placement=False)
        if state is not None:
            try:
                optimizer.load_state_dict(state.optimizer)
            except ValueError as error:
                raise TrainingError(
                    f"{self.run.checkpoint} was made with other parameters frozen than those that are frozen now: "
                    "freeze the same ones, or begin anew in another output_dir"
                ) from error
            if accelerator.scaler is not None and state.scaler is not None:
                accelerator.scaler.load_state_dict(state.scaler)
        network = accelerator.prepare_model(model.model) if accelerator.num_processes > 1 else model.model
        if config.compile:
            network.compile(dynamic=True)
        batches = BatchStream(
            self.corpus,
            batcher,
            config,
            model.config.widest,
            place=None if state is None else state.place,
            piece_tokens=self._piece_tokens,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        if state is not None:
            self._tell_differences(state, batches.drawing)
        self._tell_beginning(first)
        if accelerator.is_main_process:
            folder.cut_log(first)
        try:
            loss = self._run_steps(network, optimizer, batches, first)
        finally:
            batches.close()
            model.eval()
            if self._row_gradients is not None:
                self._row_gradients.release()
        if accelerator.is_main_process:
            folder.save_model(model, folder.final)
        accelerator.wait_for_everyone()
        model.source = folder.final.absolute()
        chosen = self._choose_model()
        return TrainingReport(config.steps, loss, self._best, chosen, time.perf_counter() - began)

    def _choose_model(self) -> Path:
        """The folder of the model to use. The process that evaluates tells the others, and which one was best."""
        folder, accelerator = self.run.folder, self.run.accelerator
        has_best = self._best is not None and folder.best.is_dir()
        told: list[Any] = [self._best, folder.best if has_best else folder.final]
        if accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

            broadcast_object_list(told)
        self._best = told[0]
        chosen: Path = told[1]
        return chosen

    def _run_steps(self, network: nn.Module, optimizer: Any, batches: BatchStream, first: int) -> float:
        """Does the steps from `first` on; returns the mean loss of the last ones."""
        config, accelerator = self.config, self.run.accelerator
        recent = RecentSteps()
        loss, began, sign_due = math.nan, time.perf_counter(), 0.0
        for step in range(first, config.steps):
            # All that is random in a step, dropout above all, depends on seed, step and process alone.
            torch.manual_seed(_step_seed(config.seed, step, accelerator.process_index))
            rate = set_learning_rates(optimizer, step, config)
            recent.steps.append(self.step(network, optimizer, batches, recent))
            done = step + 1
            is_last = done == config.steps
            is_saved = is_last or done % config.checkpoint_interval == 0
            is_evaluated = bool(self.eval_sets) and (is_last or done % config.eval_steps == 0)
            if is_saved or is_evaluated or done % config.log_steps == 0:
                # Only now the losses are read: each reading waits for the device. Nothing is kept of a spoilt model.
                loss = recent.mean_loss(done)
                sign_due = math.inf
                if accelerator.is_main_process:
                    pace, minutes = round(recent.pace()), self._minutes_left(began, done - first, done)
                    self._log(done, loss=round(loss, 6), lr=rate, words_per_second=pace, minutes_left=minutes)
                recent = RecentSteps()
            elif time.perf_counter() >= sign_due:
                # Not in the log, whose steps must not depend on the clock; and no loss: a GPU would be waited for.
                minutes = self._minutes_left(began, done - first, done)
                self._tell(f"step {done:,} of {config.steps:,}  minutes_left {minutes:,.6g}")
                sign_due = time.perf_counter() + _SIGN_SECONDS
            if is_evaluated and accelerator.is_main_process:
                self._evaluate(done)
            if is_saved and accelerator.is_main_process:
                scaler = None if accelerator.scaler is None else accelerator.scaler.state_dict()
                state = TrainingState(
                    done,
                    batches.next_place,
                    self._best,
                    self.corpus.fingerprint,
                    optimizer.state_dict(),
                    scaler,
                    accelerator.num_processes,
                    self._piece_tokens,
                    self._judged_by,
                    batches.drawing,
                )
                self.run.folder.save_checkpoint(self.model, state, config)
            if is_saved or is_evaluated:
                accelerator.wait_for_everyone()
                recent.restart()
        return loss

    def _minutes_left(self, began: float, here: int, done: int) -> float:
        """Minutes that the steps behind `done` will take, as long each as those `here`, since `began`."""
        return round((time.perf_counter() - began) / here * (self.config.steps - done) / 60, 1)

    def step(self, network: nn.Module, optimizer: Any, batches: BatchStream, recent: RecentSteps) -> Tensor:
        """One step of the optimizer; returns its loss and the norm of its gradient, (2,), still on the device."""
        config, accelerator = self.config, self.run.accelerator
        losses = []
        for number in range(config.accumulation):
            pieces = next(batches)
            count = sum(piece.targets.count for piece in pieces)
            most = config.piece_tokens or config.batch_tokens
            shared = share_labels([piece.batch for piece in pieces], self.model.model.label_vectors, most)
            for piece in pieces:
                batch = piece.batch
                recent.words += batch.word_total
                is_last = number == config.accumulation - 1 and piece is pieces[-1]
                try:
                    with nullcontext() if is_last else accelerator.no_sync(network):
                        with accelerator.autocast():
                            batch = next(shared)
                            logits = network(batch.to(accelerator.device)).logits
                        loss = batch_loss(logits, piece.targets.to(accelerator.device), config, count=count)
                        accelerator.backward(loss / config.accumulation)
                except torch.OutOfMemoryError as error:
                    raise MemoryError(
                        f"{batch.input_ids.numel():,} subwords at once{_labels_too(batch)} do not fit on "
                        f"{accelerator.device}: set piece_tokens to less; a step is then computed in more pieces, and "
                        "stays the same"
                    ) from error
                losses.append(loss.detach() / config.accumulation)
        self.gather_gradients()
        norm = accelerator.clip_grad_norm_(network.parameters(), config.max_grad_norm or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        # The loss scaler of fp16 leaves out steps of an infinite gradient, and they are no fault.
        return torch.stack([torch.stack(losses).sum(), torch.zeros_like(norm) if accelerator.scaler else norm])

    def gather_gradients(self) -> None:
        """Makes ordinary gradients of what backward passes have left; clipping and the optimizer need them."""
        if self._row_gradients is not None:
            self._row_gradients.gather()

    def _evaluate(self, step: int) -> None:
        """Evaluates the model of the moment, and keeps it if it is the best so far."""
        scores = [_f1(self.model, examples, self.config) for examples in self.eval_sets]
        self.model.train()
        f1 = sum(scores) / len(scores)
        is_best = self._best is None or f1 > self._best.f1
        self._log(step, f1=round(f1, 6), f1_of_sets=[round(score, 6) for score in scores], best=is_best)
        if is_best:
            self._best = Best(step, f1)
            self.run.folder.save_model(self.model, self.run.folder.best)

    def _log(self, step: int, **values: Any) -> None:
        self.run.folder.append_log({"step": step, **values})
        shown = "  ".join(f"{name} {value:,.6g}" for name, value in values.items() if isinstance(value, (int, float)))
        self._tell(f"step {step:,} of {self.config.steps:,}  {shown}")

    def _tell_beginning(self, step: int) -> None:
        dropped, settings = self.corpus.dropped, self.model.config
        left_out = [f"{count('span', dropped.too_late)} beyond {settings.max_len} words"]
        if settings.widest is not None:
            left_out.insert(0, f"{count('span', dropped.too_wide)} of more than {settings.widest} words")
        self._tell(f"{count('example', len(self.corpus.examples))}; left out: {', '.join(left_out)}")
        if self.config.freeze_label_encoder and self.model.model.label_encoder is None:
            self._tell("freeze_label_encoder is set, and the model is no bi-encoder: there is no such encoder")
        if self.config.precision == "fp16" and self.run.accelerator.device.type == "cpu":
            self._tell("precision is 'fp16', which a CPU does not train in: it is float32 here")
        for name, reason in self.config.unread:
            self._tell(f"{name} is set, and not read: {reason}")
        if step:
            self._tell(f"going on after step {step:,}")
        elif self.run.is_resumed:
            self._tell(f"no checkpoint in {self.run.folder.path}: beginning at step 0")

    def _tell_differences(self, state: TrainingState, drawing: int) -> None:
        """Tells what makes the weights other than those of an unbroken run: an earlier version, or the machine."""
        if state.drawing != drawing:
            self._tell(
                "batches are drawn otherwise than by the version that the run was begun with: some examples of this "
                "epoch may come twice or not at all, and the weights will not be those of an unbroken run"
            )
        if state.processes is None:
            return
        for name, was, now in (
            ("processes", state.processes, self.run.accelerator.num_processes),
            ("subwords at once", state.piece_tokens or "whole batches", self._piece_tokens or "whole batches"),
        ):
            if was != now:
                self._tell(f"{name}: {now}, and {was} before: the weights will not be those of an unbroken run")


def prepare_model(model: GLiNER, config: TrainingConfig, device: torch.device) -> None:
    """Makes a model ready to be trained on a device."""
    model.to(device, torch.float32).train()
    for parameter in model.parameters():
        # Into memory of our own: how a mapped file is aligned decides how sums are rounded, and runs would differ.
        parameter.data = parameter.data.clone()
    network: Network = model.model
    if config.freeze_encoder:
        network.encoder.requires_grad_(False)
    if config.freeze_label_encoder and network.label_encoder is not None:
        network.label_encoder.encoder.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, (ProjectionMLP, SpanScorer, TokenScorer)):
            module.dropout = config.dropout
    if network.fuser is not None:
        network.fuser.set_dropout(config.dropout)
    model.config = model.config.replace(dropout=config.dropout).in_use()


def _labels_too(batch: Batch) -> str:
    """What a bi-encoder has to encode beside its texts, in words; nothing for other models."""
    return "" if batch.labels is None else f" and {len(batch.labels.ids):,} labels (fewer with max_types)"


def choose_piece_tokens(config: TrainingConfig, device: torch.device) -> int | None:
    """Most subwords to compute at once; None for whole batches."""
    if config.piece_tokens is not None or device.type != "cpu":
        return config.piece_tokens
    return max(_CPU_PIECE, _CPU_PIECE_PER_THREAD * torch.get_num_threads())


def _step_seed(seed: int, step: int, process: int) -> int:
    """A seed for what is random in a step; steps and processes far apart in it."""
    return (seed * 1_000_003 + step * 10_007 + process) % 2**63


def _f1(model: GLiNER, examples: Sequence[Example], config: TrainingConfig) -> float:
    """Exact-match micro F1 of a model on some examples."""
    from gliner_fast.evaluation import evaluate

    return evaluate(model, examples, config.eval_labels, thresholds=(config.eval_threshold,)).f1

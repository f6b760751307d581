"""Runs of the trainer: what they learn, what they leave behind, and that a kill changes nothing."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.checkpoints.locating import BUILT_IN
from gliner_fast.checkpoints.weight_files import find_weights, read_weights
from gliner_fast.cli import main
from gliner_fast.training import checkpoints, row_gradients, trainer
from gliner_fast.training.checkpoints import RunFolder
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import read_corpus
from gliner_fast.training.errors import TrainingError
from gliner_fast.training.run import begin_run
from gliner_fast.training.trainer import TrainingReport, train
from tests.parity.pairs import Pair
from tests.training.sentences import annotated_sentences, write_sentences
from tests.training.short_runs import learn_by_heart

TEXTS = [" ".join(row["tokenized_text"]) for row in annotated_sentences()]
LABELS = ["person", "place"]
STEPS = 9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentences(tmp_path_factory.mktemp("data") / "sentences.jsonl")


@pytest.fixture(scope="module")
def configure(checkpoint: Callable[[str], Path], data: Path) -> Callable[..., TrainingConfig]:
    """Makes the configuration of a run of a few seconds into a folder."""

    def configured(folder: Path, **changes: Any) -> TrainingConfig:
        settings: dict[str, Any] = {
            "train": (TrainingFile(path=str(data), labels="file"),),
            "model": str(checkpoint("deberta")),
            "steps": STEPS,
            "save_steps": 2,
            "log_steps": 2,
            "batch_tokens": 128,  # several batches an epoch
            "lr_encoder": 1e-3,
            "lr_others": 1e-3,
            "device": "cpu",
        }
        return TrainingConfig(output_dir=str(folder), **{**settings, **changes})

    return configured


@pytest.fixture(scope="module")
def unbroken(configure: Callable[..., TrainingConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("unbroken")
    train(configure(folder))
    return folder


@pytest.fixture(scope="module")
def overfitted(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    """A run on twenty sentences, until it knows them; its report."""
    return learn_by_heart(checkpoint("deberta"), tmp_path_factory.mktemp("overfitted"))


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in read_weights(find_weights(folder / "final")).items()}


def assert_same_run(folder: Path, unbroken: Path) -> None:
    """The same weights, bit by bit, and the same log."""
    ours, wanted = final_weights(folder), final_weights(unbroken)
    assert ours.keys() == wanted.keys()
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, wanted[name])] == []
    assert read_losses(folder) == read_losses(unbroken)


def read_losses(folder: Path) -> list[tuple[int, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


# --- what is learned --------------------------------------------------------------------------------------------------


def test_twenty_sentences_are_learned_by_heart(overfitted: TrainingReport) -> None:
    assert overfitted.best is not None
    assert overfitted.best.f1 == 1.0
    found = GLiNER.from_pretrained(overfitted.model).inference(TEXTS, LABELS)
    for row, entities in zip(annotated_sentences(), found, strict=True):
        words: Any = row["tokenized_text"]
        wanted = [(" ".join(words[first : last + 1]), label) for first, last, label in row["ner"]]
        assert [(entity["text"], entity["label"]) for entity in entities] == wanted


@pytest.mark.gliner
def test_gliner_loads_what_was_trained_and_finds_the_same(overfitted: TrainingReport) -> None:
    answers = Pair.load(overfitted.model).check(TEXTS, LABELS)
    assert sum(map(len, answers)) > 20


def test_the_log_tells_losses_and_evaluations(overfitted: TrainingReport) -> None:
    entries = [json.loads(line) for line in (overfitted.model.parent / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if "loss" in entry] == [40, 60, 80, 120]
    assert next((entry["step"], entry["best"]) for entry in entries if "f1" in entry) == (60, True)
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize(("seconds", "early"), [(10.0**6, [1]), (0.0, [1, 2, 3])])
def test_signs_of_life_come_by_the_clock_until_the_first_line_of_the_log(
    configure: Callable[..., TrainingConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    early: list[int],
) -> None:
    monkeypatch.setattr(trainer, "_SIGN_SECONDS", seconds)
    lines: list[str] = []
    train(configure(tmp_path, steps=7, log_steps=4, save_steps=7), tell=lines.append)
    signs = [f"step {step} of 7  minutes_left" for step in early]
    assert [line.split("  ")[0] for line in lines[1:]] == [f"step {step} of 7" for step in [*early, 4, 7]]
    assert [line[: len(sign)] for line, sign in zip(lines[1:], signs, strict=False)] == signs
    assert [step for step, _ in read_losses(tmp_path)] == [4, 7]


def test_dropout_in_training_goes_into_the_checkpoint(unbroken: Path) -> None:
    assert json.loads((unbroken / "final" / "gliner_config.json").read_text())["dropout"] == 0.4


def test_bf16_trains_float32_weights(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    report = train(configure(tmp_path, precision="bf16", steps=4, accumulation=2))
    weights = final_weights(tmp_path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert report.loss > 0


def test_a_text_that_holds_the_entity_token_is_trained_on(
    configure: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    row = {"tokenized_text": ["Ada", "wrote", "<<ENT>>", "there"], "ner": [[0, 0, "person"]]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    file = TrainingFile(
        path=str(tmp_path / "data.jsonl"), labels=("place",)
    )  # not all spans tell something of "person"
    assert train(configure(tmp_path / "run", train=(file,), steps=1, random_drop=False)).loss > 0


def test_a_frozen_encoder_stays_as_it_was(
    configure: Callable[..., TrainingConfig], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    train(configure(tmp_path, freeze_encoder=True, steps=2))
    before, after = read_weights(find_weights(checkpoint("deberta"))), final_weights(tmp_path)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed
    assert not any("bert_layer" in name for name in changed)


def test_a_trained_model_has_ordinary_gradients(
    configure: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_gradients, "_LEAST_ROWS", 1)
    model = GLiNER.from_pretrained(configure(tmp_path).model)
    tables = [module for module in model.model.modules() if isinstance(module, torch.nn.Embedding)]
    config = configure(tmp_path, steps=2)
    run = begin_run(config, resume=False)
    limits = {"max_len": model.config.max_len, "max_width": model.config.max_width, "ent_token": model.config.ent_token}
    running = trainer.Trainer(model, read_corpus(config, **limits), [], config, run)
    assert any(table.sparse for table in tables)
    running.train()
    assert not any(table.sparse for table in tables)


def test_an_evaluation_sees_the_weights_of_the_moment(
    configure: Callable[..., TrainingConfig], data: Path, tmp_path: Path
) -> None:
    # What the encoder keeps for one evaluation must not serve the next one.
    config = configure(tmp_path, eval=(str(data),), eval_steps=1, steps=3, warmup=0.0)
    seen = []
    f1 = trainer._f1

    def watched(model: GLiNER, *arguments: Any) -> float:
        scores = model.inference(TEXTS[:2], LABELS, threshold=0.0, flat_ner=False)
        model.save_pretrained(tmp_path / "now")
        again = GLiNER.from_pretrained(tmp_path / "now").inference(TEXTS[:2], LABELS, threshold=0.0, flat_ner=False)
        seen.append([[e["score"] for e in own] for own in scores])
        assert seen[-1] == [pytest.approx([e["score"] for e in own], abs=1e-5) for own in again]
        return f1(model, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_f1", watched)
        train(config)
    assert len(seen) == 3
    assert all(scores for moment in seen for scores in moment)
    assert seen[0] != seen[1] != seen[2]


# --- kills ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def test_an_equal_run_gives_equal_bits(
    configure: Callable[..., TrainingConfig], unbroken: Path, tmp_path: Path
) -> None:
    train(configure(tmp_path))
    assert_same_run(tmp_path, unbroken)


@pytest.mark.parametrize("moment", [3, 11, 22])
def test_a_run_that_dies_anywhere_goes_on_as_if_it_had_not(
    configure: Callable[..., TrainingConfig],
    unbroken: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: int,
) -> None:
    """Dies at the moment-th call of what writes, renames or computes."""
    left = moment

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", dying(torch.save))
        patch.setattr(Path, "rename", dying(Path.rename))
        patch.setattr(trainer, "batch_loss", dying(trainer.batch_loss))
        with pytest.raises(Killed):
            train(configure(tmp_path))
    train(configure(tmp_path), resume=True)
    assert_same_run(tmp_path, unbroken)


DYING = """
import os, signal, sys
from gliner_fast.training import TrainingConfig, train, trainer

compute, left = trainer.batch_loss, int(sys.argv[2])

def dying(*arguments, **options):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(*arguments, **options)

trainer.batch_loss = dying
train(TrainingConfig.from_yaml(sys.argv[1]), resume=True)
"""


def test_a_run_killed_at_random_steps_goes_on(
    configure: Callable[..., TrainingConfig], unbroken: Path, tmp_path: Path
) -> None:
    """Twice by SIGKILL, which nothing can catch, at other steps each time the test runs; a failure shows them."""
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(configure(run).to_yaml())
    for _ in range(2):
        done = max((int(path.name[-6:]) for path in run.glob("checkpoint-*")), default=0)
        moment = random.randint(1, STEPS - done)  # each step computes at least one
        sys.stdout.write(f"going on after step {done}, killed at loss {moment}\n")
        command = [sys.executable, "-W", "ignore", "-c", DYING, str(config), str(moment)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not (run / "final").exists()
    with pytest.raises(SystemExit, match="^0$"):
        main(["train", str(config), "--resume", "--quiet"])
    assert_same_run(run, unbroken)


def test_a_finished_run_has_nothing_left_to_do(
    configure: Callable[..., TrainingConfig], unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = final_weights(unbroken)
    monkeypatch.setattr(trainer, "batch_loss", None)  # no step is made
    report = train(configure(unbroken), resume=True)
    assert report.steps == STEPS
    assert all(torch.equal(tensor, before[name]) for name, tensor in final_weights(unbroken).items())


def test_only_the_newest_checkpoints_are_kept(unbroken: Path) -> None:
    assert sorted(path.name for path in unbroken.iterdir()) == [
        "checkpoint-000006", "checkpoint-000008", "checkpoint-000009", "final", "lock", "log.jsonl",
    ]  # fmt: skip


@pytest.mark.gliner
def test_a_checkpoint_is_a_model_that_gliner_loads(unbroken: Path) -> None:
    Pair.load(unbroken / "checkpoint-000008").check(TEXTS[:4], LABELS, threshold=0.3)


@pytest.mark.parametrize(
    ("name", "left"),
    [("state.pt", 0), ("state.pt", 1000), ("state.pt", -1), ("config.yaml", None), ("../model.safetensors", 1000)],
)
def test_a_broken_checkpoint_says_what_to_remove(
    configure: Callable[..., TrainingConfig],
    unbroken: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    left: int | None,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    file = run / "checkpoint-000009" / "training" / name
    content = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(content[:left] if left >= 0 else b"x" * 1000)
    (tmp_path / "config.yaml").write_text(configure(run).to_yaml())
    with pytest.raises(SystemExit, match="^2$"):
        main(["train", str(tmp_path / "config.yaml"), "--resume", "--quiet"])
    told = capsys.readouterr().err
    assert f"{run / 'checkpoint-000009'} is broken or was not made by this version of gliner_fast (" in told
    assert f"remove it, and the run goes on from {run / 'checkpoint-000008'}" in told
    assert "weights_only" not in told  # torch's advice


@pytest.mark.parametrize(
    ("kind", "sampling", "is_other"),
    [("deberta", "gliner", True), ("deberta", "paper", False), ("bi", "gliner", False)],
)
def test_a_run_whose_batches_are_drawn_otherwise_now_says_so(
    kind: str,
    sampling: str,
    is_other: bool,
    configure: Callable[..., TrainingConfig],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    config = configure(tmp_path, model=str(checkpoint(kind)), sampling=sampling, steps=1)
    train(config)
    path = tmp_path / "checkpoint-000001" / "training" / "state.pt"
    lines: list[str] = []
    train(config, resume=True, tell=lines.append)
    state = torch.load(path, weights_only=True)
    del state["drawing"]  # as versions left it that drew "gliner" another way
    torch.save(state, path)
    assert not any("drawn otherwise" in line for line in lines)
    train(config, resume=True, tell=lines.append)
    assert any("drawn otherwise" in line for line in lines) == is_other


def test_a_best_model_of_another_evaluation_is_forgotten(
    configure: Callable[..., TrainingConfig], data: Path, tmp_path: Path
) -> None:
    config = configure(tmp_path / "run", eval=(str(data),), steps=2)
    assert train(config).model.name == "best"
    lines: list[str] = []
    report = train(config.replace(eval_threshold=0.3), resume=True, tell=lines.append)
    assert (report.best, report.model.name) == (None, "final")
    assert any("is forgotten: eval_threshold is another one now" in line for line in lines)
    shutil.rmtree(tmp_path / "run" / "best")
    report = train(config, resume=True, tell=lines.append)
    assert (report.best, report.model.name) == (None, "final")
    assert any(line.endswith(f"{tmp_path / 'run' / 'best'} is gone") for line in lines)


def test_a_best_model_of_other_evaluation_examples_is_forgotten(
    configure: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    judging = write_sentences(tmp_path / "own.jsonl")
    config = configure(tmp_path / "run", eval=(str(judging),), steps=2)
    train(config)
    lines: list[str] = []
    assert train(config, resume=True, tell=lines.append).best is not None
    assert not any("is forgotten" in line for line in lines)
    judging.write_text("".join(judging.read_text().splitlines(keepends=True)[1:]))
    assert train(config, resume=True, tell=lines.append).best is None
    assert any("is forgotten: the evaluation examples are others now" in line for line in lines)


def test_half_precision_on_a_cpu_is_told_to_be_none(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    lines: list[str] = []
    train(configure(tmp_path, precision="fp16", steps=1, prob_margin=0.1), tell=lines.append)
    assert "precision is 'fp16', which a CPU does not train in: it is float32 here" in lines
    assert "prob_margin is set, and not read: loss is 'bce'" in lines


def test_files_are_on_the_disk_before_their_folder_has_its_name(
    configure: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        assert {*path.rglob("*"), path} <= set(synced)
        synced.clear()
        return rename(path, target)

    monkeypatch.setattr(checkpoints, "sync", synced.append)
    monkeypatch.setattr(Path, "rename", watched)
    train(configure(tmp_path, steps=2))
    assert synced == [tmp_path]


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
@pytest.mark.parametrize("most", [100_000, 1_600_000], ids=["weights", "optimizer"])
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    most: int, configure: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(OSError, match=r"too large; what was saved before stays") as failure:
            train(configure(tmp_path, steps=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failure.value.filename == str(tmp_path / "checkpoint-000002")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "log.jsonl"]


def test_what_a_kill_left_half_done_is_put_right(tmp_path: Path) -> None:
    for name in ("checkpoint-000002", "checkpoint-000004.unfinished", "best.replaced", "final", "final.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert RunFolder(tmp_path).begin(resume=True) == tmp_path / "checkpoint-000002"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-000002", "final", "lock"]
    assert (tmp_path / "best" / "best.replaced").exists()
    assert (tmp_path / "final" / "final").exists()


def test_what_is_not_the_run_s_own_stays(tmp_path: Path) -> None:
    for name in ("data", "data.old", "best.old", "draft.unfinished", "best.replaced.unfinished"):
        (tmp_path / name).mkdir()
    (tmp_path / "final.unfinished").touch()  # a file
    before = sorted(path.name for path in tmp_path.iterdir())
    assert RunFolder(tmp_path).begin(resume=True) is None
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "lock") == before


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_earlier_run_is_not_trained_over(configure: Callable[..., TrainingConfig], unbroken: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds the checkpoints of an earlier run: .* \(--resume\)"):
        train(configure(unbroken))


@pytest.mark.parametrize("name", ["best", "final"])
def test_an_earlier_model_without_checkpoints_is_not_replaced_unasked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    for _ in range(2):
        with pytest.raises(
            TrainingError, match=rf"{name} is there, .*: name another output_dir, move it away.*--resume"
        ):
            RunFolder(tmp_path).begin(resume=False)
    assert RunFolder(tmp_path).begin(resume=True) is None


@pytest.mark.parametrize("resume", [True, False])
def test_two_runs_do_not_write_to_one_folder(
    configure: Callable[..., TrainingConfig], tmp_path: Path, resume: bool
) -> None:
    folder = RunFolder(tmp_path)
    folder.begin(resume=False)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TrainingError, match="another run writes to .*: wait until it ends, or name another output_dir"):
        train(configure(tmp_path), resume=resume)
    assert sorted(tmp_path.iterdir()) == before
    folder.end()
    RunFolder(tmp_path).begin(resume=False)


def test_a_run_that_cannot_begin_leaves_no_lock(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(TrainingError, match="nothing to train") as kept:
            train(configure(tmp_path, model=None))
        assert kept.value.__traceback__ is not None  # which holds the frames


def test_a_run_goes_on_with_its_own_settings_only(configure: Callable[..., TrainingConfig], unbroken: Path) -> None:
    with pytest.raises(TrainingError, match=r"checkpoint-000009 was made with steps 9, and it is 12 now"):
        train(configure(unbroken, steps=12), resume=True)


def test_a_run_goes_on_however_its_warm_up_is_told(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    config = configure(tmp_path / "run", steps=4, save_steps=2, warmup=0.5)
    train(config)
    train(config.replace(warmup=0.1, warmup_steps=2), resume=True)
    with pytest.raises(TrainingError, match=r"was made with warmup_steps None, and it is 3 now"):
        train(config.replace(warmup_steps=3), resume=True)


def test_a_run_goes_on_with_its_own_data_only(
    configure: Callable[..., TrainingConfig], data: Path, tmp_path: Path
) -> None:
    path = write_sentences(tmp_path / "own.jsonl")
    config = configure(tmp_path / "run", train=(TrainingFile(path=str(path)),), steps=2)
    train(config)
    whole = path.read_text()
    for other in ("".join(whole.splitlines(keepends=True)[1:]), whole.replace('"person"', '"people"')):
        assert other != whole
        path.write_text(other)
        with pytest.raises(TrainingError, match="was made with other data"):
            train(config, resume=True)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_stops_the_run(
    configure: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    step, batch_loss = 0, trainer.batch_loss

    def spoilt(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal step
        step += 1
        if step == 4 and what == "gradient":
            logits.register_hook(lambda gradient: gradient * float("nan"))
        return batch_loss(logits, *arguments, **options) * (float("nan") if step == 4 and what == "loss" else 1.0)

    monkeypatch.setattr(trainer, "batch_loss", spoilt)
    with pytest.raises(TrainingError, match=f"the {what} of step 4 is nan: lower the learning rates"):
        train(configure(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("checkpoint*")) == ["checkpoint-000002"]


def test_a_batch_that_does_not_fit_says_what_to_lower(
    configure: Callable[..., TrainingConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "batch_loss", full)
    with pytest.raises(MemoryError, match=r"subwords at once do not fit on cpu: set piece_tokens to less"):
        train(configure(tmp_path))


def test_the_built_in_model_may_be_trained_further() -> None:
    assert trainer.start_model(TrainingConfig(output_dir="unused", model="built-in")).source == BUILT_IN


def test_a_missing_file_is_told_before_anything_is_loaded(
    configure: Callable[..., TrainingConfig], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no-dev.jsonl"):
        train(configure(tmp_path / "run", model=str(tmp_path / "no-model"), eval=(str(tmp_path / "no-dev.jsonl"),)))
    assert not (tmp_path / "run").exists()


def test_a_run_needs_a_model(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to train: name a checkpoint in model, or .* in encoder"):
        train(configure(tmp_path, model=None))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_missed(configure: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="device is 'cuda', but torch finds no GPU"):
        train(configure(tmp_path, device="cuda"))

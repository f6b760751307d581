"""The folders of a run: checkpoints that it can go on from, the best and the final model, the log.

    OUT/checkpoint-001000/           a checkpoint as `save_pretrained` writes it, which `gliner` loads too
    OUT/checkpoint-001000/training/  optimizer, place in the data and settings
    OUT/best/  OUT/final/            models alone
    OUT/log.jsonl                    a line each time something is told
    OUT/lock                         held by the process that writes here

Every folder is written aside, brought to the disk and renamed: it is whole or it is absent, whatever moment the process
or the machine dies at.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import Self

from gliner_fast import weights
from gliner_fast.checkpoints import weight_files
from gliner_fast.errors import CheckpointError
from gliner_fast.training.batches import Place
from gliner_fast.training.config import TrainingConfig
from gliner_fast.training.errors import TrainingError
from gliner_fast.training.optimizer import count_warmup_steps
from gliner_fast.training.setting_values import ConfigError
from gliner_fast.whole_files import errors_of_system, sync, write_whole

if TYPE_CHECKING:
    from filelock import FileLock

    from gliner_fast.annotated.example import Example
    from gliner_fast.model import GLiNER

_NAME = re.compile(r"checkpoint-(\d+)$")
_STATE, _CONFIG = "training/state.pt", "training/config.yaml"
# What is being written, and what it replaces; names that nobody gives to a copy of his own.
_ASIDE = ".unfinished"
_OLD = ".replaced"
_LEFT = re.compile(r"(checkpoint-\d+|best|final)\.(unfinished|replaced)")
# Settings that do not change what is learned: a run may go on with others.
_FREE = {
    "output_dir",
    "log_steps",
    "save_steps",
    "save_total_limit",
    "eval",
    "eval_labels",
    "eval_steps",
    "eval_threshold",
}
# Those of them without which two F1 cannot be compared.
_JUDGING = ("eval", "eval_labels", "eval_threshold")


@dataclass(frozen=True)
class Best:
    """The evaluation that came out best."""

    step: int
    f1: float


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on, beside the weights.

    Attributes:
        step: steps done.
        place: of the next batch.
        best: so far; None before the first evaluation.
        fingerprint: of the data (`Corpus.fingerprint`).
        optimizer: its `state_dict`.
        scaler: that of fp16's loss scaler; None without one.
        processes: that share the batches; None where nobody noted it.
        piece_tokens: most subwords that are computed at once; None for whole batches.
        judged_by: checksum of the evaluation sets (`checksum_of`); None where nobody noted it.
        drawing: which batches its seed came to (`BatchStream.drawing`); 1 is also what nobody noted.
    """

    step: int
    place: Place
    best: Best | None
    fingerprint: list[list[int]]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    processes: int | None = None
    piece_tokens: int | None = None
    judged_by: int | None = None
    drawing: int = 1


class RunFolder:
    """The output folder of a run, locked from its beginning to its end; as a context it ends the run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.best, self.final, self._log = self.path / "best", self.path / "final", self.path / "log.jsonl"
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        """The folder, as it was begun."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases the lock."""
        self.end()

    def begin(self, *, resume: bool) -> Path | None:
        """Makes the folder and sweeps up what a killed run left; returns the checkpoint to go on from, if any.

        Of several processes that train together the first one alone begins it, as it alone writes.

        Args:
            resume: go on from the newest checkpoint.

        Raises:
            TrainingError: an earlier run's checkpoints or models are there, and the run is not to go on from them; or
                another process writes there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            return self._begin(resume=resume)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Lets other processes write here."""
        if self._lock is not None:
            self._lock.release()

    def _take_lock(self) -> None:
        from filelock import FileLock, Timeout

        self._lock = FileLock(self.path / "lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(
                f"another run writes to {self.path}: wait until it ends, or name another output_dir"
            ) from error

    def _begin(self, *, resume: bool) -> Path | None:
        names = (path for path in self.path.iterdir() if _LEFT.fullmatch(path.name))
        left = [path for path in names if path.is_dir() and not path.is_symlink()]
        for old in left:  # killed between the two renames of `_write_aside`, or just after
            target = old.with_suffix("")
            if old.suffix == _OLD and not target.exists():
                old.rename(target)
            else:
                shutil.rmtree(old)
        found = _checkpoints(self.path)
        if found and not resume:
            raise TrainingError(
                f"{self.path} holds the checkpoints of an earlier run: go on from them with resume (--resume), "
                "or name another output_dir"
            )
        models = [folder for folder in (self.best, self.final) if folder.exists()]
        if models and not resume:
            raise TrainingError(
                f"{models[0]} is there, of an earlier run whose checkpoints are gone: name another output_dir, move it "
                "away, or have it replaced with resume (--resume)"
            )
        return found[-1] if found else None

    def save_checkpoint(self, model: GLiNER, state: TrainingState, config: TrainingConfig) -> None:
        """Writes a checkpoint and removes the oldest ones, if only some are to be kept."""

        def write(folder: Path) -> None:
            model.save_pretrained(folder, safe_serialization=True)
            (folder / _STATE).parent.mkdir()
            with errors_of_system(folder / _STATE), (folder / _STATE).open("wb") as file:
                torch.save(dataclasses.asdict(state), file)
            (folder / _CONFIG).write_text(config.to_yaml(), encoding="utf-8")

        self._write_aside(self.path / f"checkpoint-{state.step:06d}", write)
        for old in _checkpoints(self.path)[: -config.save_total_limit] if config.save_total_limit is not None else []:
            going = old.rename(old.with_name(old.name + _ASIDE))  # half a checkpoint must not look like one
            shutil.rmtree(going)

    def save_model(self, model: GLiNER, folder: Path) -> None:
        """Writes a model, in the place of an earlier one."""
        self._write_aside(folder, lambda aside: model.save_pretrained(aside, safe_serialization=True))

    def append_log(self, entry: dict[str, Any]) -> None:
        """Adds a line to the log."""
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def cut_log(self, step: int) -> None:
        """Takes out of the log what came after a step, and will come again; a line that was cut off or damaged, too."""
        if not self._log.exists():
            return
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if (own := _step_of(line)) is not None and own <= step]
        write_whole(self._log, "".join(line + "\n" for line in kept).encode())

    def _write_aside(self, target: Path, write: Callable[[Path], object]) -> None:
        aside, old = (target.with_name(target.name + end) for end in (_ASIDE, _OLD))
        try:
            aside.mkdir()
            write(aside)
            for path in (*aside.rglob("*"), aside):
                sync(path)  # else a power cut may leave the new name with empty files
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)  # a full disk has need of the room
            reason = (
                f"{error.strerror or error}; what was saved before stays, and with resume (--resume) the run goes on"
            )
            raise OSError(error.errno, reason, str(target)) from error
        if target.exists():
            target.rename(old)
        aside.rename(target)
        sync(self.path)
        if old.exists():
            shutil.rmtree(old)


def _step_of(line: str) -> int | None:
    """The step of a line of the log; None where it is no line of ours."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None


def load_checkpoint(
    folder: Path,
    model: GLiNER,
    config: TrainingConfig,
    fingerprint: list[list[int]],
    judged_by: int,
    tell: Callable[[str], None] = lambda _: None,
) -> TrainingState:
    """Gives a model the weights of a checkpoint, and returns the rest.

    The best evaluation is forgotten, and `tell` told so, where it was made on other examples, labels or threshold than
    those to come, or its model is gone.

    Raises:
        TrainingError: it cannot be read, or was made with other settings or other data.
        CheckpointError: it does not fit the model.
    """
    with _errors_naming(folder):
        earlier = TrainingConfig.from_yaml(folder / _CONFIG)
    # However it is told.
    same_warmup = count_warmup_steps(earlier) == count_warmup_steps(config)
    free = _FREE | {"warmup", "warmup_steps"} if same_warmup else _FREE
    for field in dataclasses.fields(TrainingConfig):
        was, now = getattr(earlier, field.name), getattr(config, field.name)
        if was != now and field.name not in free:
            raise TrainingError(
                f"{folder} was made with {field.name} {was!r}, and it is {now!r} now: go on with the same settings, "
                "or begin anew in another output_dir"
            )
    with _errors_naming(folder):
        # weights_only: a checkpoint is data, and must not be able to run code.
        saved = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
        saved["place"] = Place(**saved["place"])
        saved["best"] = None if saved["best"] is None else Best(**saved["best"])
        state = TrainingState(**saved)
    if state.fingerprint != fingerprint:
        raise TrainingError(
            f"{folder} was made with other data: examples, words, spans and checksum of its files were "
            f"{state.fingerprint}, and are {fingerprint} now. Begin anew in another output_dir"
        )
    with _errors_naming(folder):
        path = weight_files.find_weights(folder)
        tensors = weight_files.read_weights(path)
    learning = [parameter.requires_grad for parameter in model.model.parameters()]
    weights.load_weights(model.model, tensors, dtype=None, strict=True, source=str(path))
    for parameter, learns in zip(model.model.parameters(), learning, strict=True):
        parameter.requires_grad_(learns)  # the user may have frozen some
    if state.best is None:
        return state
    reasons = [f"{name} is another one now" for name in _JUDGING if getattr(earlier, name) != getattr(config, name)]
    if state.judged_by not in (None, judged_by) and "eval is another one now" not in reasons:
        reasons.append("the evaluation examples are others now")
    if not (best := RunFolder(config.output_dir).best).is_dir():
        reasons.append(f"{best} is gone")
    if reasons:
        tell(f"the best F1 so far, {state.best.f1:.2%}, is forgotten: {' and '.join(reasons)}")
        return dataclasses.replace(state, best=None)
    return state


def checksum_of(eval_sets: Sequence[Sequence[Example]]) -> int:
    """Of evaluation sets: two F1 can be compared where it is the same."""
    told = [[(own.words, own.spans, own.labels) for own in examples] for examples in eval_sets]
    return zlib.crc32(repr(told).encode())


def _checkpoints(path: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [(int(match[1]), own) for own in path.iterdir() if (match := _NAME.fullmatch(own.name))]
    return [own for _, own in sorted(found)]


@contextmanager
def _errors_naming(folder: Path) -> Iterator[None]:
    """Has what is wrong with the files of a checkpoint name it, and say how the run can go on.

    Raises:
        TrainingError: for whatever is raised where a file is missing, cut off or of another make.
    """
    try:
        yield
    except (
        FileNotFoundError,
        EOFError,
        RuntimeError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        ConfigError,
        CheckpointError,
    ) as error:
        others = [path for path in _checkpoints(folder.parent) if path != folder]  # it is the newest
        goes_on = f"goes on from {others[-1]}" if others else "begins anew"
        # What torch says of a file that it cannot unpickle is how to run what code may be in there.
        why = "it cannot be unpickled" if isinstance(error, pickle.UnpicklingError) else error
        raise TrainingError(
            f"{folder} is broken or was not made by this version of gliner_fast ({type(error).__name__}: {why}): "
            f"remove it, and the run {goes_on}"
        ) from error

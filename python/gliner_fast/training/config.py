"""Every setting of a training run: one frozen dataclass, read from YAML, with the paper's values as defaults.

The paper is GLiNER (Zaratiana et al. 2024), section 3. Where it is silent the default is that of the `gliner` package.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Self

from gliner_fast.config import POOLINGS, SPAN_MODES, TOKEN_LEVEL
from gliner_fast.training.setting_values import ConfigError, normalise, read_fields
from gliner_fast.training.settings_text import as_described_yaml, as_yaml

# A short run is killed as easily as a long one, and must not begin anew.
_MOST_STEPS_UNSAVED = 1000


@dataclass(frozen=True, kw_only=True)
class TrainingFile:
    """A file of annotated examples, and what may be concluded from what it does not mark."""

    path: str
    """Of a file in any format of `gliner-fast data`."""
    weight: float = 1.0
    """How often each of its examples comes in an epoch: 0.5 takes another half of them each time."""
    labels: Literal["file"] | tuple[str, ...] | None = None
    """The entity types that it marks wherever they occur; "file": all that occur in it. None: nobody knows. An example
    that names its own goes by those. A span of any other label is learned from, but not finding it elsewhere is not:
    an athlete may also be marked as a person where other persons are not."""
    partial: tuple[str, ...] = ()
    """Entity types, named by proper names, of which it marks some. A span is then known not to be one where it shares a
    word with a marked span, or where it holds no capital letter; of other spans nothing is concluded."""
    others: tuple[str, ...] | None = None
    """Files, by `path`, whose labels are known not to occur here, and so may be negatives; None: all files, this one
    included, as the paper does; empty: none."""

    def __post_init__(self) -> None:
        normalise(self)

    @classmethod
    def read(cls, name: str, value: Any) -> Self:
        """What stands in a list of files: a path, or settings with a path.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(path=value)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is {value!r}: expected a path, or settings with a path")
        return cls(**read_fields(cls, value, f"{name}."))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a training run.

    Paths, lists and numbers of numpy may be given too; what stands in it is what YAML has.

    Raises:
        ConfigError: a value of a wrong type or out of range.
    """

    output_dir: str
    """Folder of the checkpoints, the best and the final model, and the log."""
    train: tuple[TrainingFile, ...] = ()
    """Files of annotated examples, each with a path and settings; a path alone stands for a file with the defaults."""

    # What is trained: a model or a bare encoder, or a model given in Python.
    model: str | None = None
    """A GLiNER checkpoint to go on from: folder or Hub id."""
    encoder: str | None = None
    """A pretrained BERT-family encoder to start from: folder or Hub id. The head is then new and random."""
    labels_encoder: str | None = None
    """Beside `encoder`, another such encoder for the labels, which makes the model a bi-encoder: folder or Hub id."""
    hidden_size: int = 768
    """D, the width of a new head; with the settings down to `max_len` read only where `encoder` is given."""
    span_mode: str = "markerV0"
    """How a span is made of its words: "markerV0" or "marker"; or "token_level": words are marked instead."""
    num_rnn_layers: int = 1
    """LSTM layers over the words; a bi-encoder has none."""
    subtoken_pooling: str = "first"
    """Which of its subwords a word is made of: "first", "last", "mean" or "max"."""
    max_width: int = 12
    """K, words of the widest span; of token-level models it is not read."""
    max_len: int = 384
    """Words of the longest text; the rest is cut off."""

    # Which entity types an example is asked for.
    sampling: Literal["paper", "gliner"] = "paper"
    """How entity types are drawn: as in the paper, or "gliner", as in that package; of what follows, `max_types`
    alone is then read, with `max_neg_type_ratio`, but for bi-encoders: all texts of a batch are asked for all that
    one has."""
    max_types: int = 25
    """Most entity types that an example is asked for; where a bi-encoder's batch shares them, times its texts."""
    negative_share: float = 0.5
    """Share of negative types among an example's types, in [0, 1): the paper's Table 5 compares 0, 0.5 and 0.75."""
    own_negatives: float = 1.0
    """Weight of negatives from the example's own label set, where it has one, against `other_negatives`."""
    other_negatives: float = 1.0
    """Weight of negatives from other examples."""
    random_drop: bool = True
    """Ask for a random number of the types only."""
    shuffle_types: bool = True
    """Ask for the types in random order."""
    generic: tuple[str, ...] = ()
    """Labels that are no example's negatives because of other files: what they mean occurs, unmarked, anywhere."""
    implies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Coarser labels that a label implies, such as {athlete: [person]}: a span gets them too. An example that has both
    is asked for the coarse ones, the fine ones or both, by chance; where both are asked for, the finest is the right
    one. A file that does not mark the coarse label in full may name it in its `partial`."""
    paraphrases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that a label is asked for by, of which one is drawn each time; say the label itself too, to keep it."""
    max_neg_type_ratio: int = 1
    """Most negative types for each span, with "gliner"."""

    # Batches.
    batch_tokens: int = 4096
    """Most subwords a batch, prompts and padding included; a bi-encoder's labels are not counted."""
    batch_size: int | None = None
    """Most texts a batch; None: `batch_tokens` alone decides."""
    piece_tokens: int | None = None
    """Most subwords computed at once: a batch is cut into pieces of like length, and their gradients summed. The step
    is the same, with less padding and less memory. None: what a CPU's caches hold, whole batches on a GPU."""
    accumulation: int = 1
    """Batches to each step of the optimizer."""
    seed: int = 42
    """Seed of all that is random."""

    # Loss (compat section 7.3).
    loss: Literal["bce", "focal", "dice"] = "bce"
    """"bce" is the paper's equation 3, computed from logits; "focal" clamps probabilities at 1e-6 as gliner does; or
    "dice"."""
    focal_alpha: float = -1.0
    """Weight of positives, and 1 - alpha that of negatives, with "bce" too; negative: none. Above 0.5 more is found,
    above all of types that were not trained on, of which models are too unsure."""
    focal_gamma: float = 0.0
    """With "focal", how much less spans count that the model is sure of already; 0: not less."""
    prob_margin: float = 0.0
    """With "focal", negatives below this probability count nothing."""
    label_smoothing: float = 0.0
    """Share by which the targets are drawn from 0 and 1 towards the middle."""
    dice_gamma: float = 1.0
    """With "dice", how much less spans count that the model is sure of."""
    span_width_weight: bool = False
    """Positives of k words weigh 1 + ln k; not those of token-level models."""
    reduction: Literal["sum", "mean"] = "sum"
    """"mean" divides by the number of spans, or of pairs of a word and a type where words are marked."""
    negatives: float = 1.0
    """Probability of keeping a negative, among those that `masking` names."""
    masking: Literal["none", "global", "label", "span"] = "none"
    """Which negatives are kept by chance: "global" all, "label" those of types without any span in the text, "span"
    those of spans (of a token-level model, words) without any type; "none": all are kept for sure."""

    # Optimization.
    steps: int = 30_000
    """Steps of the optimizer."""
    lr_encoder: float = 1e-5
    """Highest learning rate of the encoder."""
    lr_others: float = 5e-5
    """Highest learning rate of all others."""
    weight_decay: float = 0.01
    """Weight decay of AdamW, for the encoder."""
    weight_decay_others: float | None = None
    """For all others; None: as `weight_decay`."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rates fall after the warm-up: "cosine", "linear", or "constant", not at all."""
    warmup: float = 0.1
    """Share of the steps in which the learning rates rise from 0."""
    warmup_steps: int | None = None
    """Their number, instead of a share; as in transformers it may be more than `steps`."""
    max_grad_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it; 0: none are."""
    dropout: float = 0.4
    """In the head; the encoder's own stands in its configuration."""
    freeze_encoder: bool = False
    """Leave the encoder as it is, and train the head alone."""
    freeze_label_encoder: bool = False
    """Leave a bi-encoder's encoder of labels as it is."""

    # Where and how.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto" takes a GPU where there is one."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of the products: "fp32", "bf16" or (on a GPU) "fp16"; weights and sums stay in float32."""
    compile: bool = False
    """Compile the network by `torch.compile`."""

    # What is told and kept.
    log_steps: int = 50
    """Steps from one line of progress to the next."""
    save_steps: int | None = None
    """Steps from one checkpoint to the next; None: a tenth of `steps`, at most 1,000."""
    save_total_limit: int | None = 3
    """Newest checkpoints that are kept; None: all."""
    eval: tuple[str, ...] = ()
    """Files of examples to evaluate on; the model that does best is kept in `output_dir`/best."""
    eval_labels: tuple[str, ...] | None = None
    """Entity types to ask for there; None: an example's own, or all that occur in its file."""
    eval_steps: int = 1000
    """Steps from one evaluation to the next."""
    eval_threshold: float = 0.5
    """Entities are what scores above it."""

    def __post_init__(self) -> None:
        normalise(self)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{name} is {value!r}: expected a number {_described(low, high)}")
        if self.negative_share == 1.0:
            raise ConfigError("negative_share is 1.0: some types must be positive, so it lies below 1")
        for name, known in (("span_mode", (*SPAN_MODES, TOKEN_LEVEL)), ("subtoken_pooling", POOLINGS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}: expected one of {', '.join(known)}")
        _check_beginning(self.model, self.encoder, self.labels_encoder)
        if self.sampling == "paper" and self.own_negatives == self.other_negatives == 0 and self.negative_share > 0:
            raise ConfigError("own_negatives and other_negatives are both 0: for no negatives set negative_share to 0")
        for label, names in self.paraphrases.items():
            if not names:
                raise ConfigError(f"paraphrases of {label!r} is empty: name at least one, such as the label itself")
        _check_files(self.train)

    @property
    def checkpoint_interval(self) -> int:
        """Steps from one checkpoint to the next."""
        return min(math.ceil(self.steps / 10), _MOST_STEPS_UNSAVED) if self.save_steps is None else self.save_steps

    @property
    def unread(self) -> Iterator[tuple[str, str]]:
        """Settings other than the default that others leave without an effect, and why."""
        idle = [(name, f"{self.model} has its own") for name in _OF_NEW_HEADS if self.model is not None]
        if self.labels_encoder is not None:
            idle.append(("num_rnn_layers", "a bi-encoder has no LSTM"))
        if self.loss != "focal":
            idle += [(name, f"loss is {self.loss!r}") for name in ("focal_gamma", "prob_margin")]
        if self.loss == "dice":
            idle += [(name, "loss is 'dice'") for name in ("focal_alpha", "label_smoothing")]
        else:
            idle.append(("dice_gamma", f"loss is {self.loss!r}"))
        if self.masking == "none":
            idle.append(("negatives", "masking is 'none'"))
        for name, reason in idle:
            if getattr(self, name) != getattr(type(self), name):
                yield name, reason

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], source: str = "the configuration") -> Self:
        """Reads settings as YAML gives them.

        Args:
            settings: names of this class.
            source: where they come from, for messages.

        Raises:
            ConfigError: an unknown name, a value of a wrong type or out of range, or no `output_dir`.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(f"{source} holds a {type(settings).__name__}: expected settings such as 'steps: 1000'")
        try:
            return cls(**read_fields(cls, settings))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error

    @classmethod
    def from_yaml(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Reads a file of settings; `changes` replace some of them.

        Raises:
            OSError: the file cannot be read.
            ConfigError: it is not YAML, or as `from_mapping`.
        """
        import yaml  # type: ignore[import-untyped]

        try:
            settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not YAML: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"{path} is nested deeper than YAML is read") from error
        if settings is None:
            settings = {}
        if isinstance(settings, Mapping):
            settings = {**settings, **(changes or {})}
        changed = f", with {' and '.join(map(str, changes))} changed" if changes else ""
        return cls.from_mapping(settings, f"{path}{changed}")

    def to_yaml(self) -> str:
        """All settings, so that `from_yaml` reads the same back."""
        return as_yaml(self)

    def to_described_yaml(self) -> str:
        """`to_yaml`, with the meaning of each setting above it, as a comment."""
        return as_described_yaml(self, within={"train": TrainingFile})

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)


# A checkpoint to go on from brings its own.
_OF_NEW_HEADS = ("hidden_size", "span_mode", "num_rnn_layers", "subtoken_pooling", "max_width", "max_len")
_ANY = float("inf")
_RANGES: list[tuple[str, float, float]] = [
    ("hidden_size", 1, _ANY), ("num_rnn_layers", 0, _ANY), ("max_width", 1, _ANY), ("max_len", 1, _ANY),
    ("max_types", 1, _ANY), ("negative_share", 0, 1), ("own_negatives", 0, _ANY), ("other_negatives", 0, _ANY),
    ("max_neg_type_ratio", 0, _ANY), ("batch_tokens", 1, _ANY), ("batch_size", 1, _ANY), ("piece_tokens", 1, _ANY),
    ("accumulation", 1, _ANY),
    ("focal_alpha", -_ANY, 1), ("focal_gamma", 0, _ANY), ("prob_margin", 0, 1), ("label_smoothing", 0, 1),
    ("dice_gamma", 0, _ANY), ("negatives", 0, 1), ("steps", 1, _ANY), ("lr_encoder", 0, 1e6),
    ("lr_others", 0, 1e6), ("weight_decay", 0, _ANY), ("weight_decay_others", 0, _ANY), ("warmup", 0, 1),
    ("warmup_steps", 0, _ANY),
    ("max_grad_norm", 0, _ANY), ("dropout", 0, 1), ("log_steps", 1, _ANY), ("save_steps", 1, _ANY),
    ("save_total_limit", 1, _ANY), ("eval_steps", 1, _ANY), ("eval_threshold", 0, 1),
]  # fmt: skip


def _check_beginning(model: str | None, encoder: str | None, labels_encoder: str | None) -> None:
    if model is not None and encoder is not None:
        raise ConfigError("both model and encoder are given: a checkpoint to go on from has its encoder in it")
    if model is not None and labels_encoder is not None:
        raise ConfigError("both model and labels_encoder are given: leave it out, a checkpoint has its own in it")
    if labels_encoder is not None and encoder is None:
        raise ConfigError("labels_encoder is given without encoder: name the encoder of texts, too, or leave it out")


def _check_files(files: tuple[TrainingFile, ...]) -> None:
    paths = [file.path for file in files]
    for file in files:
        if not 0 < file.weight < math.inf:
            raise ConfigError(f"weight of {file.path} is {file.weight!r}: expected a number above 0")
        for other in file.others or ():
            if other not in paths:
                raise ConfigError(f"others of {file.path} names {other!r}: expected the path of a file of train")


def _described(low: float, high: float) -> str:
    if high == _ANY:
        return f"of at least {low:g}"
    return f"of at most {high:g}" if low == -_ANY else f"from {low:g} to {high:g}"

"""`train_model` with the arguments of `gliner.GLiNER.train_model` (compat section 7.4)."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from torch import nn

from gliner_fast.annotated.examples import examples_from_records
from gliner_fast.training.config import TrainingConfig, TrainingFile
from gliner_fast.training.corpus import Corpus
from gliner_fast.training.errors import TrainingError, expect_trainable
from gliner_fast.training.run import begin_run
from gliner_fast.training.setting_values import ConfigError, read_value
from gliner_fast.training.trainer import Trainer, TrainingReport

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

# Without a budget: `per_device_train_batch_size` alone decides.
_NO_BUDGET = 2**40
_SCHEDULES: dict[str, Literal["linear", "cosine", "constant"]] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
}
# Settings that `create_training_args` of the package gives another default than its class; they change nothing here.
_CREATED = {"dataloader_num_workers": 1}
# Those that their class sets by others, or by the time of day.
_DERIVED = {"logging_dir", "do_eval", "metric_for_best_model", "greater_is_better"}
_KNOWING = {"transformers", "gliner"}  # packages whose classes have defaults
_MAY_BE_NONE = {"save_total_limit"}


@dataclass(kw_only=True)
class Arguments:
    """What `create_training_args` of the package takes, with its names and defaults, as far as it is used here."""

    output_dir: str | None = None
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    others_lr: float | None = None
    others_weight_decay: float | None = None
    focal_loss_alpha: float = -1.0
    focal_loss_gamma: float = 0.0
    focal_loss_prob_margin: float = 0.0
    label_smoothing: float = 0.0
    loss_reduction: str = "sum"
    loss_type: str = "focal"
    dice_gamma: float = 1.0
    use_span_width_weight: bool = False
    negatives: float = 1.0
    masking: str = "none"
    lr_scheduler_type: str = "linear"
    warmup_ratio: float = 0.1
    warmup_steps: float = 0
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 1.0
    max_steps: int = 10_000
    num_train_epochs: float = 3.0
    save_steps: float = 1000
    save_total_limit: int | None = 10
    logging_steps: float = 10
    eval_steps: float | None = None
    use_cpu: bool = False
    bf16: bool = False
    fp16: bool = False
    seed: int = 42


def train_model(
    model: GLiNER,
    train_dataset: Iterable[Any],
    eval_dataset: Iterable[Any] | None = None,
    training_args: Any = None,
    freeze_components: Sequence[str] | None = None,
    compile_model: bool = False,
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    **training_kwargs: Any,
) -> TrainingReport:
    """Trains a model in place, with the arguments, loss and sampling of the package.

    Batches hold as many texts as there, but texts of like length. `eval_dataset` is evaluated by F1, not by loss, and
    the best model kept in `output_dir`/best. Lines of progress go to stderr.

    Args:
        model: the model; it is left on the device that it was trained on.
        train_dataset: examples in any of the formats of `examples_from_records`, such as
            `{"tokenized_text": [...], "ner": [[start, end, label], ...]}`.
        eval_dataset: likewise.
        training_args: an object with the settings as attributes, such as `gliner`'s `TrainingArguments`. Those that are
            not used here are told.
        freeze_components: "text_encoder" to leave the encoder as it is, "labels_encoder" that of a bi-encoder's labels;
            other names are told and passed over.
        compile_model: `torch.compile` the network.
        output_dir: folder of checkpoints and log; needed without `training_args`.
        resume: go on from the newest checkpoint in it.
        **training_kwargs: settings by the package's names, instead of `training_args`.

    Returns:
        What the run came to, where the package returns its `Trainer`.

    Raises:
        TypeError: a setting that neither the package nor `transformers.TrainingArguments` knows.
        ConfigError: a value of a wrong type or out of range.
        TrainingError: see `train`; or there is no output folder.
        DataError: an example cannot be used; the message says at which index.
    """
    expect_trainable(model.config)
    if training_args is not None:
        output_dir = output_dir or getattr(training_args, "output_dir", None)
        if training_kwargs:
            warnings.warn(
                f"{', '.join(training_kwargs)}: not read beside training_args, as in gliner: set them there",
                stacklevel=2,
            )
        training_kwargs = _settings_of(training_args)
        arguments = _read_arguments(training_kwargs)
    else:
        arguments = _as_created(_read_arguments(training_kwargs))
    if output_dir is None:
        raise TrainingError("Either training_args or output_dir must be provided")
    splitter = model.data_processor.custom_splitter
    train = examples_from_records(train_dataset, "train_dataset", splitter=splitter)
    evaluated = [] if eval_dataset is None else examples_from_records(eval_dataset, "eval_dataset", splitter=splitter)
    settings = model.config
    config = _configure(arguments, settings, str(output_dir), len(train), compile_model=compile_model)
    for component in freeze_components or ():
        set_frozen(model, component, frozen=True)
    label_encoder = model.model.label_encoder
    config = config.replace(  # a run must not go on with them thawed
        freeze_encoder=_is_frozen(model.model.encoder),
        freeze_label_encoder=label_encoder is not None and _is_frozen(label_encoder.encoder),
    )
    if settings.is_token_level:  # the package reads none of these there
        config = config.replace(loss="focal", masking="none", span_width_weight=False)
    elif settings.is_bi_encoder:  # nor these, and it takes label smoothing for the margin (compat section 7.3)
        config = config.replace(
            loss="focal", span_width_weight=False, prob_margin=config.label_smoothing, label_smoothing=0.0
        )
    corpus = Corpus(
        [(TrainingFile(path="train_dataset"), train)],
        max_len=settings.max_len,
        max_width=settings.widest,
        ent_token=settings.ent_token,
    )
    run = begin_run(config, resume=resume)
    with run.folder:
        return Trainer(model, corpus, [evaluated] if evaluated else [], config, run, tell=_tell).train()


def create_training_args(output_dir: str | Path, **settings: Any) -> Arguments:
    """Settings for `train_model`, by the package's names and with its defaults.

    Raises:
        TypeError: a setting that neither the package nor `transformers.TrainingArguments` knows.
        ConfigError: a value of a wrong type.
    """
    return replace(_as_created(_read_arguments(settings)), output_dir=str(output_dir))


def _as_created(arguments: Arguments) -> Arguments:
    """With what `create_training_args` of the package sets where a setting of the others is missing, or 0."""
    return replace(
        arguments,
        others_lr=arguments.others_lr or arguments.learning_rate,
        others_weight_decay=arguments.others_weight_decay or arguments.weight_decay,
    )


def set_frozen(model: GLiNER, component: str, *, frozen: bool) -> None:
    """Leaves a component as it is in training, or lets it learn again; an unknown one is told, as in the package."""
    network = model.model
    components: dict[str, nn.Module] = {"text_encoder": network.encoder}
    if network.label_encoder is not None:
        components["labels_encoder"] = network.label_encoder.encoder
    if component not in components:
        known = ", ".join(components)
        warnings.warn(f"Component '{component}' not found. Available components: {known}", stacklevel=3)
        return
    components[component].requires_grad_(not frozen)


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def _settings_of(training_args: Any) -> dict[str, Any]:
    """The settings of an object that are used here; what else was set in the package's class is told."""
    from transformers import TrainingArguments

    used = {name: getattr(training_args, name) for name in get_type_hints(Arguments) if hasattr(training_args, name)}
    if isinstance(training_args, TrainingArguments):
        # The defaults of some settings follow from the device. A class of the user's own may ask for more.
        known = next(own for own in type(training_args).__mro__ if own.__module__.split(".")[0] in _KNOWING)
        usual = known(output_dir=training_args.output_dir, use_cpu=training_args.use_cpu)
        names = [own.name for own in fields(known) if own.name not in used and own.name not in _DERIVED]
        changed = [name for name in names if getattr(training_args, name) != getattr(usual, name)]
        _tell_unused([name for name in changed if getattr(training_args, name) != _CREATED.get(name)])
    return used


def _read_arguments(given: Mapping[str, Any]) -> Arguments:
    """The settings that are used here; the others are told, once.

    Raises:
        TypeError: a setting that nobody knows.
        ConfigError: a value of a wrong type.
    """
    from transformers import TrainingArguments

    ours = get_type_hints(Arguments)
    theirs = set(TrainingArguments.__dataclass_fields__) | {"rel_focal_loss_alpha", "rel_focal_loss_gamma"}
    unknown = sorted(set(given) - set(ours) - theirs)
    if unknown:
        raise TypeError(f"train_model knows no {', '.join(unknown)}")
    _tell_unused(sorted(set(given) - set(ours)))
    # None is the default of a setting, but where it has a meaning of its own.
    read = {
        name: value for name, value in given.items() if name in ours and (value is not None or name in _MAY_BE_NONE)
    }
    return Arguments(**{name: read_value(name, value, ours[name]) for name, value in read.items()})


def _tell_unused(names: Sequence[str]) -> None:
    if names:
        warnings.warn(f"{', '.join(names)}: not used by gliner_fast's train_model", stacklevel=4)


def _configure(
    arguments: Arguments, settings: Any, output_dir: str, examples: int, *, compile_model: bool
) -> TrainingConfig:
    """The package's arguments as our settings.

    Raises:
        ConfigError: one is out of range.
        TrainingError: an unknown schedule.
    """
    a = arguments
    if a.lr_scheduler_type not in _SCHEDULES:
        raise TrainingError(f"lr_scheduler_type is {a.lr_scheduler_type!r}: expected one of {', '.join(_SCHEDULES)}")
    steps = a.max_steps if a.max_steps > 0 else _steps_of_epochs(a, examples)
    is_one_rate = a.others_lr is None  # and one weight decay, whatever the others' is
    warmup = a.warmup_steps if 0 < a.warmup_steps < 1 else a.warmup_ratio
    warmup_steps = None if 0 <= a.warmup_steps < 1 else math.floor(a.warmup_steps)  # which may be refused
    if a.lr_scheduler_type == "constant":  # from the first step on
        warmup, warmup_steps = 0.0, None
    return TrainingConfig(
        output_dir=output_dir,
        sampling="gliner",
        max_types=settings.max_types,
        max_neg_type_ratio=settings.max_neg_type_ratio,
        batch_tokens=_NO_BUDGET,
        batch_size=a.per_device_train_batch_size,
        accumulation=a.gradient_accumulation_steps,
        seed=a.seed,
        loss="dice" if a.loss_type == "dice" else "focal",
        focal_alpha=a.focal_loss_alpha,
        focal_gamma=a.focal_loss_gamma,
        prob_margin=a.focal_loss_prob_margin,
        label_smoothing=a.label_smoothing,
        dice_gamma=a.dice_gamma,
        span_width_weight=a.use_span_width_weight,
        reduction=_known(a, "loss_reduction", "reduction"),
        negatives=a.negatives,
        masking=_known(a, "masking", "masking"),
        steps=steps,
        lr_encoder=a.learning_rate,
        lr_others=a.learning_rate if a.others_lr is None else a.others_lr,
        weight_decay=a.weight_decay,
        weight_decay_others=a.weight_decay if is_one_rate else a.others_weight_decay or 0.0,
        schedule=_SCHEDULES[a.lr_scheduler_type],
        warmup=warmup,
        warmup_steps=warmup_steps,
        max_grad_norm=a.max_grad_norm,
        dropout=settings.dropout,
        device="cpu" if a.use_cpu else "auto",
        precision="bf16" if a.bf16 else "fp16" if a.fp16 else "fp32",
        compile=compile_model,
        log_steps=_steps(a.logging_steps, steps),
        save_steps=_steps(a.save_steps, steps),
        save_total_limit=a.save_total_limit,
        eval_steps=_steps(a.eval_steps or a.save_steps, steps),
    )


def _known(arguments: Arguments, name: str, setting: str) -> Any:
    """A word that our setting takes; for any other one its default, as in the package, and that is told."""
    given, known = getattr(arguments, name), get_args(get_type_hints(TrainingConfig)[setting])
    if given in known:
        return given
    otherwise = getattr(TrainingConfig, setting)
    warnings.warn(
        f"{name} is {given!r}: expected one of {', '.join(known)}; {otherwise!r} is used, as in gliner", stacklevel=4
    )
    return otherwise


def _steps_of_epochs(arguments: Arguments, examples: int) -> int:
    """Steps of the optimizer in `num_train_epochs`, as transformers counts them: what is left of an epoch is one more.

    Raises:
        ConfigError: batches, or steps, of nothing.
    """
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"{name} is {getattr(arguments, name)}: expected a number of at least 1")
    # As torchrun and accelerate launch tell it; the accelerator is made later, of the settings.
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = math.ceil(examples / arguments.per_device_train_batch_size)
    steps = math.ceil(math.ceil(batches / processes) / arguments.gradient_accumulation_steps)
    return math.ceil(arguments.num_train_epochs * max(1, steps))


def _steps(given: float, steps: int) -> int:
    """A number of steps, or below 1 a share of them, as a number."""
    return math.ceil(given * steps) if given < 1 else int(given)

"""`gliner-fast info`: this machine, these versions, that checkpoint."""

from __future__ import annotations

import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gliner_fast.cli.showing import show_rows
from gliner_fast.cli.writing import dump_json

if TYPE_CHECKING:
    from gliner_fast.config import GLiNERConfig

_PACKAGES = ("torch", "transformers", "tokenizers", "triton", "gliner")


def info(
    model: Annotated[str | None, typer.Argument(help="Folder or Hub id; the built-in model if not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show versions, devices and what a checkpoint is.

    Loads no weights, and describes checkpoints of every kind, those that
    gliner_fast does not run included.

    [bold]gliner-fast info urchade/gliner_small-v2.1[/bold]
    """
    from gliner_fast import __version__

    ours = {"gliner-fast": __version__, "python": platform.python_version()}
    found = {
        "versions": ours | {name: _version(name) for name in _PACKAGES},
        "devices": _devices(),
        "checkpoint": describe_checkpoint(model),
    }
    if json:
        print(dump_json(found))
        return
    for title, rows in found.items():
        show_rows(title, rows)


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, str]:
    import torch

    from gliner_fast.precision import cpu_features, fastest_native_dtype

    found = {"cpu": f"{torch.get_num_threads()} threads; native: {', '.join(cpu_features()) or 'nothing special'}"}
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = (
            f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}"
        )
    if torch.backends.mps.is_available():
        found["mps"] = "Apple GPU"
    for name in found:
        fastest = str(fastest_native_dtype(torch.device(name))).removeprefix("torch.")
        found[name] += f"; --dtype auto is {fastest}"
    return found


def describe_checkpoint(model: str | None) -> dict[str, Any]:
    """Says what a checkpoint is, from its configuration and the head of its weights file.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        CheckpointError: its files are broken.
    """
    from gliner_fast.checkpoints.locating import HubOptions, load_encoder_config, locate
    from gliner_fast.checkpoints.weight_files import find_weights
    from gliner_fast.config import CONFIG_NAME, GLiNERConfig
    from gliner_fast.errors import CheckpointError, UnsupportedCheckpointError

    folder = locate(model, HubOptions(), None)
    config = GLiNERConfig.from_file(folder / CONFIG_NAME)
    try:
        config.refuse_unsupported()
        runs = "yes"
    except UnsupportedCheckpointError as error:
        runs = f"no: {error}"
    words, lacks = _words(config.words_splitter_type)
    if runs == "yes" and lacks:
        runs = f"no: {lacks}"
    try:
        encoder = load_encoder_config(config, HubOptions(local_files_only=True))
    except CheckpointError:
        encoder = {}  # of an early checkpoint whose encoder is not here: everything else can still be told
    weights = find_weights(folder)
    return {
        "folder": str(folder),
        "runs here": runs,
        "kind": _kind(config),
        "written by": _era(config),
        "encoder": f"{encoder.get('model_type', 'unknown')} ({config.model_name})",
        "encoder size": ", ".join(
            f"{_number(encoder[key])} {name}"
            for key, name in (
                ("num_hidden_layers", "layers"),
                ("num_layers", "layers"),  # this and the other second names are T5's
                ("hidden_size", "wide"),
                ("d_model", "wide"),
                ("num_attention_heads", "heads"),
                ("num_heads", "heads"),
                ("vocab_size", "subwords"),
            )
            if encoder.get(key) is not None
        ),
        "head": f"{config.hidden_size:,} wide, {_found_by(config)} ({config.span_mode})",
        **_relations(config),
        **words,
        "longest text": f"{config.max_len:,} words at a time; `predict` and `extract` read longer ones in windows",
        "pooling": _pooling(config.subtoken_pooling),
        "label vector": _label_vector(config),
        "parameters": f"{_count_parameters(weights):,}",
        "weights": f"{weights.name}, {weights.stat().st_size / 1e6:,.1f} MB",
    }


def _number(value: object) -> str:
    """A count of an encoder's configuration; what is none, or larger than any can be, is not printed as if it were."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return f"{value:,}" if is_count else "unknown"


def _label_vector(config: GLiNERConfig) -> str:
    if config.is_bi_encoder:
        encoder = config.labels_encoder_config or {}
        return f"by an encoder of its own, {encoder.get('model_type', 'unknown')} ({config.labels_encoder})"
    return "the entity token" if config.embed_ent_token else "the subword after the entity token"


def _pooling(pooling: str) -> str:
    """Which of a word's subwords stand for it."""
    return f"the {pooling} subword of a word" if pooling in {"first", "last"} else f"the {pooling} of a word's subwords"


def _relations(config: GLiNERConfig) -> dict[str, str]:
    """What finds the relations of a model that finds some."""
    if not config.is_relex:
        return {}
    linked = "all pairs" if config.relations_layer == "none" else f"pairs linked by {config.relations_layer}"
    return {"relations": f"{linked}, scored by {config.triples_layer or 'a layer over both entities'}"}


def _words(splitter: str) -> tuple[dict[str, str], str]:
    """What is told of a splitter that is not the usual one, and what keeps it from running here."""
    from gliner_fast.word_splitters import WORD_SPLITTERS, missing_packages

    if splitter == "whitespace":
        return {}, ""
    if splitter not in WORD_SPLITTERS:
        return {"words": f"split by {splitter}, which nobody knows"}, f"nobody knows the words splitter {splitter!r}"
    missing = " ".join(missing_packages(splitter))
    if not missing:
        return {"words": f"split by {splitter}"}, ""
    return {"words": f"split by {splitter}, for which pip install {missing}"}, f"its words splitter needs {missing}"


def _found_by(config: GLiNERConfig) -> str:
    if config.is_token_level:
        marks = "marks where entities start, end and go on"
        return marks + (", and scores the spans between" if config.scores_marked_spans else "")
    return f"spans of up to {config.max_width:,} words"


def _kind(config: GLiNERConfig) -> str:
    unit = "token-level" if config.is_token_level else "span"
    if config.model_type == "gliner_streaming_span":
        return "streaming span model"
    if config.relations_layer is not None:
        return f"relation extraction, {unit}"
    if config.labels_decoder is not None:
        return f"label-generating decoder, {unit}"
    if config.labels_encoder is None:
        return f"uni-encoder, {unit}"
    return f"bi-encoder, {unit}" + (", labels and words attend to each other" if config.post_fusion_schema else "")


def _era(config: GLiNERConfig) -> str:
    """Names the `gliner` that wrote a configuration (compat section 2.2), by what only it wrote."""
    if "has_rnn" in config.extra:
        return "gliner 0.2.0 to 0.2.22"
    if config.encoder_config is None or (config.class_token_index == -1 and not config.is_bi_encoder):
        return "gliner 0.1 (first era)"
    return "gliner 0.2.23 or later"


def _count_parameters(weights: Path) -> int:
    """Counts the numbers in a file, without reading those of a .safetensors file."""
    from gliner_fast.checkpoints.row_int8 import is_scale
    from gliner_fast.checkpoints.weight_files import read_shapes

    return sum(math.prod(shape) for name, shape in read_shapes(weights).items() if not is_scale(name))

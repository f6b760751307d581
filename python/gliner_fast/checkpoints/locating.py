"""Where a checkpoint is, and what else than weights is in it: the encoder's configuration (compat sections 1.2, 2)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.errors import CheckpointError, reason_of

BUILT_IN = Path(__file__).parent.parent / "models" / "minilm"
INT8_ROWS = "model.int8.safetensors"  # `gliner` does not read it: to it such rows are weights like others
BUILT_IN_NAME = "built-in"  # where a name is needed: in a command or a configuration

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SMALL_FILES = ["*.json", "*.txt", "*.model"]


@dataclass(frozen=True)
class HubOptions:
    """How files of a Hub id are fetched; the names are `huggingface_hub`'s."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False
    token: str | bool | None = None

    @property
    def of_encoder(self) -> dict[str, Any]:
        """Those for files of the encoder's own model, such as its tokenizer: the others are the checkpoint's alone."""
        return {"cache_dir": self.cache_dir, "local_files_only": self.local_files_only}

    @property
    def of_auto_class(self) -> dict[str, Any]:
        """The same for transformers' Auto classes, which are to run no code that a model brings along.

        Left alone they ask on standard input, where the answer may be the first line of somebody's texts.
        """
        return {**self.of_encoder, "trust_remote_code": False}


def locate(model_id: str | Path | None, hub: HubOptions, variant: str | None) -> Path:
    """The local folder of a checkpoint; a Hub id is fetched into the cache, only the files that are needed.

    Raises:
        FileNotFoundError: a path that does not exist (Q24), or a Hub id that is not cached and could not be fetched.
        CheckpointError: a path that is a file.
    """
    if model_id is None:
        return BUILT_IN
    path = Path(model_id).expanduser()
    if path.is_dir():
        return path
    if model_id == BUILT_IN_NAME:
        return BUILT_IN
    if path.exists():
        raise CheckpointError(f"{path} is a file: expected the folder that holds {CONFIG_NAME} and the weights")
    if not _HUB_ID.fullmatch(str(model_id)):
        raise FileNotFoundError(
            f"{path} does not exist, and cannot be a Hub id either: give an existing folder or an id such as "
            "'urchade/gliner_small-v2.1'"
        )
    return _fetch(str(model_id), hub, variant)


def weight_names(variant: str | None) -> list[str]:
    """Names that the file of a checkpoint's weights may have, in the order in which they are looked for."""
    of_variant = [] if variant is None else [f"model.{variant}.safetensors"]
    return [*of_variant, "model.safetensors", "pytorch_model.bin", INT8_ROWS]


def _fetch(model_id: str, hub: HubOptions, variant: str | None) -> Path:
    from huggingface_hub import snapshot_download

    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                model_id,
                revision=hub.revision,
                cache_dir=hub.cache_dir,
                force_download=hub.force_download,
                local_files_only=hub.local_files_only,
                token=hub.token,
                allow_patterns=patterns,
            )
        )

    try:
        for name in weight_names(variant):
            folder = fetch([*_SMALL_FILES, name])
            if (folder / name).is_file():
                break
    except Exception as error:  # the Hub's own errors are many; all of them mean that the id could not be had
        raise FileNotFoundError(
            f"{model_id!r} is neither a local folder nor could it be fetched from the Hub: {reason_of(error)}"
        ) from error
    return folder


def load_encoder_config(config: GLiNERConfig, hub: HubOptions) -> Mapping[str, Any]:
    """The encoder's transformers configuration; that of `model_name` for first-era checkpoints that carry none.

    Raises:
        CheckpointError: it can be had from neither.
    """
    return _own_or_fetched("encoder_config", config.encoder_config, "model_name", config.model_name, hub)


def load_labels_config(config: GLiNERConfig, hub: HubOptions) -> Mapping[str, Any] | None:
    """The same of a bi-encoder's labels, or that of `labels_encoder`; None for other models.

    Raises:
        CheckpointError: it can be had from neither.
    """
    if config.labels_encoder is None:
        return None
    return _own_or_fetched(
        "labels_encoder_config", config.labels_encoder_config, "labels_encoder", config.labels_encoder, hub
    )


def _own_or_fetched(
    setting: str, own: Mapping[str, Any] | None, named_in: str, name: str, hub: HubOptions
) -> Mapping[str, Any]:
    if own is not None:
        return {"model_type": "deberta-v2", **own}
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(name, **hub.of_auto_class)
    except Exception as error:
        raise CheckpointError(
            f"there is no {setting}, and that of {named_in} {name!r} cannot be had: {reason_of(error)}. Name a local "
            f"folder in {named_in}, add {setting} to {CONFIG_NAME}, or go online once"
        ) from error
    settings: dict[str, Any] = found.to_dict()
    return settings

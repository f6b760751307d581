"""Where a checkpoint is, and what else than weights is in it: configuration and tokenizer (compat sections 1.2, 2)."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gliner_fast.batch import SubwordTokenizer
from gliner_fast.config import CONFIG_NAME, GLiNERConfig
from gliner_fast.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BUILT_IN = Path(__file__).parent / "models" / "minilm"
BUILT_IN_NAME = "built-in"  # where a name is needed: in a command or a configuration

_TOKENIZER_CONFIG = "tokenizer_config.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SMALL_FILES = ["*.json", "*.txt", "*.model"]
# Sentences that show whether a tokenizer treats words one by one; a few scripts, punctuation, and a repeated word.
_PROBES = (
    ("Alan", "Turing", "lived", "in", "London", ".", "London"),
    ("e-mail", "@", "C", "+", "+", "123", "über", "数据", "данные"),
)
_NO_LIMIT = 10**9  # tokenizers without a limit of their own say 10**30


@dataclass(frozen=True)
class HubOptions:
    """How files of a Hub id are fetched; the names are `huggingface_hub`'s."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    force_download: bool = False
    local_files_only: bool = False
    token: str | bool | None = None


def locate(model_id: str | Path | None, hub: HubOptions, variant: str | None) -> Path:
    """The local folder of a checkpoint; a Hub id is fetched into the cache, only the files that are needed.

    Raises:
        FileNotFoundError: a path that does not exist (Q24), or a Hub id that is neither cached nor reachable.
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

    wanted = "model.safetensors" if variant is None else f"model*{variant}.safetensors"
    try:
        folder = fetch([*_SMALL_FILES, wanted])
        if not list(folder.glob("model*.safetensors")):  # an older checkpoint: one more, larger file
            folder = fetch([*_SMALL_FILES, "model.safetensors", "pytorch_model.bin"])
    except Exception as error:  # the Hub's own errors are many; all of them mean that the id could not be had
        raise FileNotFoundError(
            f"{model_id!r} is neither a local folder nor could it be fetched from the Hub: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
        ) from error
    return folder


def load_tokenizer(
    folder: Path | None, config: GLiNERConfig, cache_dir: str | Path | None = None, local_files_only: bool = False
) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, or that of its encoder for first-era checkpoints that carry none (Q23).

    Raises:
        CheckpointError: it can be had from neither.
    """
    own = folder is not None and (folder / _TOKENIZER_CONFIG).is_file()
    source = folder if own else config.model_name
    try:
        load = _named_tokenizer(folder) if folder is not None and own else None
        if load is None:
            from transformers import AutoTokenizer

            load = AutoTokenizer.from_pretrained
        tokenizer: PreTrainedTokenizerBase = load(source, cache_dir=cache_dir, local_files_only=local_files_only)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
        if own:
            raise CheckpointError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
        raise CheckpointError(
            f"the checkpoint has no tokenizer of its own, and that of its encoder {config.model_name!r} cannot be "
            f"had: {reason}. Put the encoder's tokenizer files into the checkpoint's folder, or go online once"
        ) from error
    # transformers 5 stopped adding [CLS] and [SEP] for some tokenizers; set to True only, since False would take
    # them away from others (Q22).
    for edge in ("bos", "eos"):
        if hasattr(tokenizer, f"add_{edge}_token") and getattr(tokenizer, f"{edge}_token_id") is not None:
            setattr(tokenizer, f"add_{edge}_token", True)
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _named_tokenizer(folder: Path) -> Callable[..., Any] | None:
    """`from_pretrained` of the class that AutoTokenizer would choose: importing AutoTokenizer itself takes seconds.

    None leaves the choice to AutoTokenizer: an encoder's configuration beside the tokenizer, code in the checkpoint, or
    a class that transformers does not name.
    """
    if (folder / "config.json").exists():
        return None
    settings = json.loads((folder / _TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    name = settings.get("tokenizer_class")
    if not isinstance(name, str) or "auto_map" in settings:
        return None
    import transformers

    fast, base = transformers.PreTrainedTokenizerFast, name.removesuffix("Fast")
    if base == "PreTrainedTokenizer":  # of no model in particular
        return fast.from_pretrained
    found = getattr(transformers, base, None)
    if transformers.__version__.startswith(
        "4."
    ):  # there each model has two classes, and AutoTokenizer prefers this one
        found = getattr(transformers, base + "Fast", None)
    return found.from_pretrained if isinstance(found, type) and issubclass(found, fast) else None


def add_special_tokens(tokenizer: PreTrainedTokenizerBase, config: GLiNERConfig, resize: bool) -> GLiNERConfig:
    """Finds the entity token; adds GLiNER's tokens to the tokenizer of a checkpoint that lacks them (compat 2.4).

    Raises:
        CheckpointError: the configuration names an entity token that the tokenizer does not have.
    """
    if resize and -1 in (config.class_token_index, config.vocab_size):
        tokenizer.add_tokens(["[FLERT]", config.ent_token, config.sep_token], special_tokens=True)
        return config.replace(class_token_index=len(tokenizer) - 2, vocab_size=len(tokenizer))
    size = len(tokenizer)
    advice = "set class_token_index and vocab_size to -1 to have GLiNER's tokens added and found"
    if not 0 <= config.class_token_index < size:
        raise CheckpointError(
            f"class_token_index is {config.class_token_index}, but the tokenizer has {size} entries: {advice}"
        )
    vocabulary = tokenizer.get_vocab()
    if config.ent_token not in vocabulary:
        raise CheckpointError(f"the tokenizer does not have the entity token {config.ent_token!r}: {advice}")
    if vocabulary[config.ent_token] != config.class_token_index:
        warnings.warn(
            f"class_token_index is {config.class_token_index}, but the tokenizer's id of {config.ent_token!r} is "
            f"{vocabulary[config.ent_token]}: labels will not be found",
            stacklevel=4,
        )
    if config.sep_token not in vocabulary:
        warnings.warn(f"the tokenizer does not have {config.sep_token!r}: prompts hold its pieces", stacklevel=4)
    return config


def subword_tokenizer(tokenizer: PreTrainedTokenizerBase) -> SubwordTokenizer:
    """Reduces a transformers tokenizer to what GLiNER asks of it, on a copy of its own, and checks that on probes.

    Raises:
        CheckpointError: a slow tokenizer, one that truncates at the left, or one that does not treat words alone.
    """
    from tokenizers import Tokenizer

    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{type(tokenizer).__name__} is a slow tokenizer: gliner_fast needs a tokenizer.json")
    if tokenizer.truncation_side != "right":
        raise CheckpointError("the tokenizer truncates at the left, which would cut the labels off")
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    bare = backend.encode(["a"], is_pretokenized=True, add_special_tokens=False).ids
    dressed = backend.encode(["a"], is_pretokenized=True, add_special_tokens=True).ids
    front = next((at for at in range(len(dressed) - len(bare) + 1) if dressed[at : at + len(bare)] == bare), None)
    if front is None:
        raise CheckpointError("the tokenizer changes a word when it adds special subwords: gliner_fast cannot use it")
    limit = tokenizer.model_max_length
    reduced = SubwordTokenizer(
        backend,
        prefix=np.array(dressed[:front], np.int64),
        suffix=np.array(dressed[front + len(bare) :], np.int64),
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
        max_subwords=int(limit) if limit < _NO_LIMIT else None,
    )
    reduced.check(_PROBES)
    return reduced


def load_encoder_config(
    config: GLiNERConfig, cache_dir: str | Path | None, local_files_only: bool
) -> Mapping[str, Any]:
    """The encoder's transformers configuration; that of `model_name` for first-era checkpoints that carry none.

    Raises:
        CheckpointError: it can be had from neither.
    """
    if config.encoder_config is not None:
        return {"model_type": "deberta-v2", **config.encoder_config}
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(config.model_name, cache_dir=cache_dir, local_files_only=local_files_only)
    except Exception as error:
        raise CheckpointError(
            f"the checkpoint has no encoder_config, and that of {config.model_name!r} cannot be had: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}. "
            "Add encoder_config to gliner_config.json, or go online once"
        ) from error
    settings: dict[str, Any] = found.to_dict()
    return settings

"""Settings of a checkpoint: `gliner_config.json` as one dataclass (compat section 2)."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gliner_fast.config_keys import EncoderConfig, encoder_config_of, setting_meant_by
from gliner_fast.config_values import refuse_value
from gliner_fast.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Self

if __name__ != "gliner_fast.config":
    # Imported as gliner.config, by whom this package has been put in the place of `gliner` (in sys.modules): there is
    # to be one class of this name.
    sys.modules[__name__] = import_module("gliner_fast.config")

Config = TypeVar("Config", bound="GLiNERConfig")

ENTITIES_ALONE = (
    "this model finds entities alone, and no relations: leave them out, or take a relation extraction checkpoint, such "
    "as knowledgator/gliner-relex-large-v1.0"
)
CONFIG_NAME = "gliner_config.json"
OTHER_CONFIG_NAME = "config.json"  # as transformers names that of a configuration by itself
LABEL_TOKENIZER_FOLDER = "labels_tokenizer"  # in the folder of a bi-encoder
POOLINGS = ("first", "last", "mean", "max")
SPAN_MODES = ("markerV0", "marker")
TOKEN_LEVEL = "token_level"
# Who attends to whom in a bi-encoder that fuses labels and words: labels are "l", words "t".
FUSION_STEPS = ("l2l", "t2t", "l2t", "t2l")
# What links entities, in lower case, and what scores them: the tables of `relations`, which need torch.
RELATIONS_LAYERS = ("none", "dot", "mlp", "attention", "attn", "bilinear", "gcn", "gat")
TRIPLES_LAYERS = (
    *("UM", "SE", "TransE", "TransH", "TransF", "PairRE", "TripleRE", "DistMult", "SimplE", "DistMA", "ComplEx"),
    *("QuatE", "HolE", "ERMLP", "ConvKB"),
)
# Written of relex models alone: with a rel_token, gliner warns of every other tokenizer that it lacks it.
_OF_RELEX = ("triples_layer", "embed_rel_token", "rel_token_index", "rel_token")
# Those of gliner that are not.
TRIPLES_REFUSED = {
    "ConvE": "gliner cannot build it, as it needs a size that no setting of a checkpoint gives",
    # Its (P, D) relations times (D, D, D) weights broadcast to (D, P, D), and are read as if they were (P, D, D): a
    # score is made of the relation types of several triples, padding among them, and of other ones for another P.
    "TuckER": "gliner mixes the triples of a batch up, so that the same triple has another score in other company",
}
_OF_ENCODERS = ("encoder_config", "labels_encoder_config", "span_encoder_config")
_OF_DOWNLOADS = {
    *("cache_dir", "force_download", "local_files_only", "proxies", "resume_download", "revision", "subfolder"),
    *("token", "trust_remote_code"),
}
# What network and batches are made by.
_STRUCTURE = {
    *("max_width", "hidden_size", "subtoken_pooling", "span_mode", "post_fusion_schema", "num_post_fusion_layers"),
    *("vocab_size", "num_rnn_layers", "fuse_layers", "embed_ent_token", "class_token_index", "encoder_config"),
    *("span_encoder_config", "ent_token", "sep_token", "_attn_implementation", "labels_encoder"),
    *("labels_encoder_config", "words_splitter_type", "represent_spans", "relations_layer", *_OF_RELEX),
}
KNOWN_SPAN_MODES = (
    *SPAN_MODES,
    *("markerV1", "markerV2", "query", "mlp", "cat", "conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share"),
)


def _takes_other_keys(config: type[Config]) -> type[Config]:
    """A configuration that takes keys that are no settings by keyword, too, as those of a file are."""
    take_settings = config.__init__

    @functools.wraps(take_settings)
    def take(self: Config, *args: Any, extra: Mapping[str, Any] | None = None, **settings: Any) -> None:
        others = {key: settings.pop(key) for key in list(settings) if key not in config.__dataclass_fields__}
        for key in others:
            if (meant := setting_meant_by(key, config.__dataclass_fields__)) is not None:
                raise TypeError(f"{config.__name__}() has no setting {key!r}: did you mean {meant!r}?")
        take_settings(self, *args, extra={**(extra or {}), **others}, **settings)

    config.__init__ = take  # type: ignore[assignment, method-assign]
    return config


@_takes_other_keys
@dataclass(kw_only=True)
class GLiNERConfig:
    """Architecture of a checkpoint, with `gliner`'s names and defaults (compat section 2.1).

    Keys that this class does not know are kept in `extra`, read and assigned as attributes and written back. A setting
    may be assigned, of a model's configuration `max_len` with effect from the next call on; what the model was built
    by is refused there. Configurations of encoders are dicts with attributes. The methods that `gliner`'s class has of
    transformers' are here by their names; it is not a subclass, since transformers takes seconds to import.
    """

    model_name: str = "microsoft/deberta-v3-small"
    name: str = "gliner"
    max_width: int = 12
    """K, the widest span in words; of a token-level model they may be of any width."""
    hidden_size: int = 512
    """D, the width of the head."""
    dropout: float = 0.4
    fine_tune: bool = True
    subtoken_pooling: str = "first"
    span_mode: str = "markerV0"
    post_fusion_schema: str | None = ""
    num_post_fusion_layers: int = 1
    vocab_size: int = -1
    max_neg_type_ratio: int = 1
    max_types: int = 25
    max_len: int = 384
    """Longest text, in words; the rest is cut off with a warning."""
    words_splitter_type: str = "whitespace"
    """What splits texts into words: see `word_splitters`."""
    num_rnn_layers: int = 1
    fuse_layers: bool = False
    embed_ent_token: bool = True
    class_token_index: int = -1
    encoder_config: Mapping[str, Any] | None = None
    span_encoder_config: Mapping[str, Any] | None = None
    ent_token: str = "<<ENT>>"
    sep_token: str = "<<SEP>>"
    _attn_implementation: str | None = None
    token_loss_coef: float = 1.0
    span_loss_coef: float = 1.0
    represent_spans: bool = False
    """Of a token-level model: whether the spans that it marks are scored, rather than their marks."""
    neg_spans_ratio: float = 1.0
    precomputed_prompts_mode: bool | None = None
    id_to_classes: Mapping[str, str] | None = None
    labels_encoder: str | None = None
    """Of a bi-encoder: what its labels are encoded by; of other models None."""
    labels_encoder_config: Mapping[str, Any] | None = None
    relations_layer: str | None = None
    """Of a relex model: what decides which entities are linked, "none" for nothing; of other models None."""
    triples_layer: str | None = None
    """Of a relex model: what scores (head, relation, tail); None for a layer over both entities."""
    embed_rel_token: bool = True
    rel_token_index: int = -1
    rel_token: str = "<<REL>>"
    labels_decoder: str | None = None
    model_type: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OF_ENCODERS:
            value = encoder_config_of(name, value)
        refuse_value(name, value)
        if name in _STRUCTURE and self.__dict__.get("_is_in_use") and value != self.__dict__[name]:
            way_out = f"write {value!r} into {CONFIG_NAME} and load that, or make a model with GLiNER.from_config"
            if name == "max_width":
                way_out = f"load the checkpoint with max_width={value}"
            raise CheckpointError(f"{name} is {self.__dict__[name]!r}, and the model is made by it: {way_out}")
        if name == "subtoken_pooling" and value not in POOLINGS:
            raise CheckpointError(f"subtoken_pooling is {value!r}: expected one of {', '.join(POOLINGS)}")
        if name in self.__dataclass_fields__:
            object.__setattr__(self, name, value)
            return
        meant = None if name in self.extra else setting_meant_by(name, self.__dataclass_fields__, is_assigned=True)
        if meant is not None:
            raise AttributeError(f"the configuration has no setting {name!r}: did you mean {meant!r}?")
        object.__setattr__(self, "extra", {**self.extra, name: value})

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"the configuration has no setting {name!r}")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Reads a `gliner_config.json` of any era; unknown keys go to `extra`."""
        known = {f.name for f in dataclasses.fields(cls)} - {"extra"}
        given = {key: value for key, value in settings.items() if key in known}
        return cls(**given, extra={key: value for key, value in settings.items() if key not in known})

    @classmethod
    def from_file(cls, path: Path, **overrides: Any) -> Self:
        """Reads a file; an override that is None leaves the file's value.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: the file is not a JSON object, or a value is out of range.
        """
        if not path.is_file():
            raise FileNotFoundError(f"No config file found in {path.parent}: expected {path.name} there")
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # nested without end
            raise CheckpointError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(settings, dict):
            raise CheckpointError(f"{path} holds a {type(settings).__name__}: expected a JSON object of settings")
        settings.update({key: value for key, value in overrides.items() if value is not None})
        try:
            return cls.from_dict(settings)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_json_file(cls, json_file: str | PathLike[str]) -> Self:
        """Reads a file, as `from_file` does."""
        return cls.from_file(Path(json_file))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | PathLike[str], **settings: Any) -> Self:
        """Reads the file of a local folder: `config.json`, as `save_pretrained` writes it, else that of a checkpoint.

        Args:
            pretrained_model_name_or_path: the folder, or the file itself.
            settings: take the place of the file's, unless None; those of a download are unused.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: the file is not a JSON object, or a value is out of range.
        """
        settings = {name: value for name, value in settings.items() if name not in _OF_DOWNLOADS}
        path = Path(pretrained_model_name_or_path)
        if path.is_file():
            return cls.from_file(path, **settings)
        if not path.is_dir():
            raise FileNotFoundError(
                f"{pretrained_model_name_or_path} is no local folder: GLiNER.from_pretrained fetches a model, whose "
                "config is this"
            )
        other = path / OTHER_CONFIG_NAME
        return cls.from_file(other if other.is_file() else path / CONFIG_NAME, **settings)

    def to_dict(self) -> dict[str, Any]:
        """All settings as one flat dict, ready for `gliner_config.json`.

        Of those of relations only `relations_layer` stands there for a model that finds none.
        """
        left_out = ("extra",) if self.is_relex else ("extra", *_OF_RELEX)
        settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        plain = {key: own.to_dict() for key, own in settings.items() if isinstance(own, EncoderConfig)}
        return {**self.extra, **settings, **plain}

    def to_json_string(self, use_diff: bool = True) -> str:  # noqa: ARG002
        """All settings as JSON; `use_diff`, with which transformers leaves out defaults, is accepted and unused."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str) + "\n"

    def to_json_file(self, json_file_path: str | PathLike[str], use_diff: bool = True) -> None:
        """Writes `to_json_string` to a file."""
        Path(json_file_path).write_text(self.to_json_string(use_diff), encoding="utf-8")

    def save_pretrained(self, save_directory: str | PathLike[str], push_to_hub: bool = False) -> None:
        """Writes `config.json`, as `gliner` does, into a folder, which is made if it is not there.

        Raises:
            ValueError: it is to be sent to the Hub.
        """
        if push_to_hub:
            raise ValueError("save_pretrained does not send to the Hub: leave out push_to_hub, and use `hf upload`")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / OTHER_CONFIG_NAME)

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Assigns settings by name."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return dataclasses.replace(self, **changes)

    def in_use(self) -> Self:
        """A copy for a model: what that is made by cannot be assigned any more."""
        copy = self.replace()
        object.__setattr__(copy, "_is_in_use", True)
        return copy

    @property
    def is_token_level(self) -> bool:
        """Whether the model marks words where entities start, end and go on, instead of scoring spans."""
        return self.span_mode == TOKEN_LEVEL

    @property
    def scores_marked_spans(self) -> bool:
        """Whether a token-level model scores the spans that it marks by their vectors, instead of by their marks."""
        return self.is_token_level and bool(self.represent_spans) and not self.is_relex  # which does not read it

    @property
    def is_bi_encoder(self) -> bool:
        """Whether labels have an encoder of their own, instead of a place in front of each text."""
        return self.labels_encoder is not None

    @property
    def is_relex(self) -> bool:
        """Whether the model finds relations between its entities, too."""
        return self.relations_layer is not None

    def expect_relex(self) -> None:
        """Asks whether relations can be asked for.

        Raises:
            ValueError: the model finds entities alone.
        """
        if not self.is_relex:
            raise ValueError(ENTITIES_ALONE)

    @property
    def widest(self) -> int | None:
        """Words of the widest span that the model finds; None where they may be any."""
        return None if self.is_token_level else self.max_width

    def refuse_unsupported(self) -> None:
        """Refuses every kind of checkpoint that this version does not run (compat section 2.3), by name.

        Raises:
            UnsupportedCheckpointError: with one sentence that names the kind.
        """
        kind = self._unsupported_kind()
        if kind is not None:
            raise UnsupportedCheckpointError(
                f"this checkpoint is {kind}, which gliner_fast does not run yet: "
                f"it runs models with span_mode {', '.join(SPAN_MODES)} or {TOKEN_LEVEL}"
            )

    def _unsupported_kind(self) -> str | None:
        # A layer may be in upper case, but "none" is none.
        layer = None if self.relations_layer in (None, "none") else str(self.relations_layer).lower()
        # The order of compat section 2.3: a relex model is also a span or token model.
        named: list[tuple[bool, str]] = [
            (self.model_type == "gliner_streaming_span", "a streaming model"),
            (self.labels_decoder is not None, "a label-generating (decoder) model"),
            (self.is_relex and self.is_bi_encoder, "a relation extraction (relex) model with a labels_encoder"),
            (
                layer not in (None, *RELATIONS_LAYERS[1:]),
                f"a relation extraction (relex) model with relations_layer {self.relations_layer!r}",
            ),
            (
                self.is_relex and self.triples_layer not in (None, *TRIPLES_LAYERS),
                f"a relation extraction (relex) model with triples_layer {self.triples_layer!r}"
                + (f" ({reason})" if (reason := TRIPLES_REFUSED.get(str(self.triples_layer))) else ""),
            ),
            (
                self.is_bi_encoder
                and bool(self.post_fusion_schema)
                and not set(str(self.post_fusion_schema).split("-")) <= set(FUSION_STEPS),
                f"a bi-encoder with the post_fusion_schema {self.post_fusion_schema!r}, of other steps than "
                + ", ".join(FUSION_STEPS),
            ),
            (
                self.span_mode not in (*KNOWN_SPAN_MODES, TOKEN_LEVEL),
                f"a span model with the unknown span_mode {self.span_mode!r}",
            ),
            (
                self.span_mode not in (*SPAN_MODES, TOKEN_LEVEL),
                f"a span model with span_mode {self.span_mode!r}",
            ),
            (self.span_encoder_config is not None, "a model with an extra span encoder"),
            (bool(self.fuse_layers), "a model that fuses all encoder layers (fuse_layers)"),
            (bool(self.precomputed_prompts_mode), "a model with precomputed prompts"),
        ]
        return next((kind for holds, kind in named if holds), None)


def as_config(config: GLiNERConfig | Mapping[str, Any] | str | Path) -> GLiNERConfig:
    """Settings in any of the forms that a model is made from: an object, a mapping or the path of a JSON file."""
    if isinstance(config, GLiNERConfig):
        return config
    if isinstance(config, Mapping):
        return GLiNERConfig.from_dict(config)
    if isinstance(config, (str, Path)):
        return GLiNERConfig.from_file(Path(config))
    raise TypeError(f"config is a {type(config).__name__}: expected a GLiNERConfig, a mapping or the path of a file")

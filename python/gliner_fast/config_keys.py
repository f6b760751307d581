"""What a configuration has beside its settings: keys of others, and configurations of encoders inside it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from gliner_fast.errors import CheckpointError

# Keys of transformers' configurations, and of gliner's for other kinds of model, that look like settings of ours.
_LOOK_ALIKES = {
    *("_attn_implementation_autoset", "attn_implementation", "cls_token_id", "num_layers", "sep_token_id"),
    *("decoder_config", "labels_decoder_config", "rel_id_to_classes", "sep_token_index"),
}
# Files of older versions of gliner hold it, so that it is no misspelling there; who assigns it means `max_len`.
_IN_FILES = "max_length"
# How like: 'max_widht' and 'max_lenght' are, 'lr_encoder' and 'max_ents' are not.
_LIKENESS = 0.82


def setting_meant_by(key: str, settings: Iterable[str], *, is_assigned: bool = False) -> str | None:
    """The setting that a key misspells; None for a key of its own, such as those of transformers and of training."""
    if key in _LOOK_ALIKES or (key == _IN_FILES and not is_assigned):
        return None
    return next(iter(difflib.get_close_matches(key, settings, 1, _LIKENESS)), None)


class EncoderConfig(dict[str, Any]):
    """A transformers configuration as it stands in the file: a dict, whose keys are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"the encoder's configuration has no setting {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return dict(self)


def encoder_config_of(setting: str, value: Any) -> EncoderConfig | None:
    """A copy of what was given: a mapping, an object of transformers, or nothing.

    Raises:
        CheckpointError: it is something else.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) and hasattr(value, "to_dict"):
        value = value.to_dict()
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{setting} is {value!r}: expected a mapping of an encoder's settings")
    return EncoderConfig(value)

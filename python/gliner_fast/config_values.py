"""What a setting of a checkpoint may be, told before it reaches code that trusts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gliner_fast.errors import CheckpointError, shown

_MOST = 2**31 - 1  # of sizes, which are multiplied with each other in 64 bits
_MOST_WORDS = 2**63 - 1  # what Rust counts words in


def _wish_of_whole(value: Any, least: int, most: int) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        return "a whole number" if least < 0 else f"a whole number of at least {least}"
    return None if value <= most else f"at most {most:,}"


def _wish_of_share(value: Any) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number and 0 <= value <= 1 else "a number from 0 to 1"


def _wish_of_token(value: Any) -> str | None:
    if not isinstance(value, str):
        return "a string"
    return "a string without halves of surrogates" if any("\ud800" <= each <= "\udfff" for each in value) else None


# Each says what it expects instead of a value; nothing of one that will do.
_Wish = Callable[[Any], "str | None"]
_COUNT: _Wish = partial(_wish_of_whole, least=1, most=_MOST)
_WHOLE: _Wish = partial(_wish_of_whole, least=-_MOST, most=_MOST)

_OF_CHECKPOINTS: dict[str, _Wish] = {
    **dict.fromkeys(("max_width", "hidden_size"), _COUNT),
    "max_len": partial(_wish_of_whole, least=1, most=_MOST_WORDS),
    "dropout": _wish_of_share,
    **dict.fromkeys(("num_rnn_layers", "class_token_index", "rel_token_index", "vocab_size"), _WHOLE),
    **dict.fromkeys(("ent_token", "sep_token", "rel_token"), _wish_of_token),
}
# By the names of most kinds of encoder. Some have others: what cannot be built by those is told then.
_OF_ENCODERS: dict[str, _Wish] = {
    **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"), _COUNT),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"), _wish_of_share),
}
# Of the DeBERTa that is computed here, where no transformers looks at them.
_OF_DEBERTA: dict[str, _Wish] = {
    **_OF_ENCODERS,
    "vocab_size": _COUNT,
    **dict.fromkeys(("position_buckets", "max_relative_positions", "max_position_embeddings"), _WHOLE),
}


def refuse_value(name: str, value: Any) -> None:
    """Refuses what cannot be the setting of that name in a checkpoint.

    Raises:
        CheckpointError: it cannot; names it.
    """
    _refuse(name, value, _OF_CHECKPOINTS)


def refuse_encoder_values(settings: Mapping[str, Any]) -> None:
    """The same of all settings of any encoder of transformers; what is None is left to that.

    Raises:
        CheckpointError: a setting cannot be what it is; names it.
    """
    for name in _OF_ENCODERS:
        if settings.get(name) is not None:
            _refuse(name, settings[name], _OF_ENCODERS, "the encoder's ")


def refuse_deberta_values(settings: Mapping[str, Any]) -> None:
    """The same of a DeBERTa's, none of which may be None.

    Raises:
        CheckpointError: a setting cannot be what it is; names it.
    """
    for name in _OF_DEBERTA:
        if name in settings:
            _refuse(name, settings[name], _OF_DEBERTA, "the encoder's ")


def _refuse(name: str, value: Any, wishes: Mapping[str, _Wish], whose: str = "") -> None:
    wish = wishes[name](value) if name in wishes else None
    if wish is not None:
        raise CheckpointError(f"{whose}{name} is {shown(value)}: expected {wish}")

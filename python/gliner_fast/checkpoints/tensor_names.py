"""What the package calls each of our parameters: the only file that knows its names (compat section 3)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.errors import CheckpointError
from gliner_fast.network import Network
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.token_scorer import TokenScorer

_ENCODER = "token_rep_layer.bert_layer.model."
_LABEL_ENCODER = "token_rep_layer.labels_encoder.model."
_SPAN_HEAD = "span_rep_layer.span_rep_layer."
_ADJACENCY = "relations_rep_layer.relation_rep_layer."
_TRIPLES = "triples_score_layer."
_FUSER = "cross_fuser."

# Rows of the word-embedding matrix are read off the file, whatever the configuration says (compat section 2.2).
_EMBEDDINGS = re.compile(
    re.escape(_ENCODER) + r"(.*\.)?(word_embeddings|tok_embeddings|embed_tokens|shared|wte)\.weight$"
)
# Behind the encoder's name; without layers that are shared, as ALBERT's are.
_LAYER = re.compile(r"(?:encoder\.|transformer\.)?(?:layers?|block)\.(\d{1,9})\.")
# Buffers that older transformers stored, and poolers, which GLiNER never runs.
_IGNORABLE = re.compile(r".*(position_ids|token_type_ids|\.pooler\..*|num_batches_tracked)$")
# Modules of ours whose parts have the package's names.
_SAME_WITHIN = {"relations.adjacency.": _ADJACENCY, "relations.triples.": _TRIPLES, "fuser.": _FUSER}
# What peft calls the weights that it has put something around, and what it has put there.
_ADAPTED = re.compile(r"\.(base_layer|lora_\w+)\.")
# T5's embeddings have two names: of what a file holds under each, the package computes with the second.
SECOND_NAMES = [
    (f"{prefix}shared.weight", f"{prefix}encoder.embed_tokens.weight") for prefix in (_ENCODER, _LABEL_ENCODER)
]


def checkpoint_names(network: Network) -> dict[str, list[str]]:
    """The package's name of each of our parameters; several where ours is theirs, one below the other.

    Raises:
        CheckpointError: a parameter has none, such as an adapter's.
    """
    modules = {
        **_head_names(network.scorer),
        **_mlp_names("relations.pairs", "pair_rep_layer"),
        **_span_head_names("spans"),
        **_span_head_names("relations.spans"),
        "projection": "token_rep_layer.projection",
        "label_encoder.projection": "token_rep_layer.labels_projection",
        "rnn.lstm": "rnn.lstm",
    }
    names: dict[str, list[str]] = {}
    for ours, _ in network.named_parameters():
        try:
            names[ours] = _names_of(ours, network, modules)
        except (KeyError, ValueError) as error:  # noqa: PERF203
            raise CheckpointError(
                f"the model's parameter {ours} has no place in a checkpoint: if it is an adapter's, merge the adapter "
                "into the weights (of peft: merge_and_unload)"
            ) from error
    return names


def is_unread(network: Network, name: str) -> bool:
    """Whether a stored tensor may stay unread without a warning."""
    # Bi-encoders carry an LSTM that nobody runs (Q11), and uni-encoders may carry layers that would fuse labels.
    unread = ((network.label_encoder is not None, "rnn."), (network.fuser is None, _FUSER))
    return bool(_IGNORABLE.match(name)) or any(holds and name.startswith(prefix) for holds, prefix in unread)


def first_name(name: str) -> str:
    """The name by which a stored tensor is read."""
    name = name.replace("_orig_mod.", "")  # a compiled model saves its keys with this prefix
    return next((ours for ours, computed_with in SECOND_NAMES if name == computed_with), name)


def by_first_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors by the names by which they are read: of two for one, that which the package computes with."""
    seconds = [name for name in tensors if first_name(name) != name.replace("_orig_mod.", "")]
    named = {first_name(name): tensor for name, tensor in tensors.items()}
    return {**named, **{first_name(name): tensors[name] for name in seconds}}


def from_backbone(tensors: Mapping[str, Tensor], *, of_labels: bool = False) -> dict[str, Tensor]:
    """A transformers encoder's own tensors under the names that they have in a checkpoint, of texts or of labels."""
    prefix = _LABEL_ENCODER if of_labels else _ENCODER
    return {prefix + name: tensor for name, tensor in tensors.items()}


def embedding_rows(tensors: Mapping[str, Tensor]) -> int | None:
    """V, rows of the stored word-embedding matrix; None if the file has none."""
    matrices = (tensor for name, tensor in tensors.items() if _EMBEDDINGS.match(name) and tensor.ndim == 2)
    return next((len(matrix) for matrix in matrices), None)


def encoder_layers(names: Iterable[str], *, of_labels: bool = False) -> int | None:
    """Layers of a stored encoder, by the names of its tensors; None where they bear no numbers as in most encoders."""
    prefix = _LABEL_ENCODER if of_labels else _ENCODER
    own = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    numbers = [int(match[1]) for name in own if (match := _LAYER.match(name))]
    return max(numbers) + 1 if numbers else None


def lstm_layers(tensors: Mapping[str, Tensor]) -> int:
    """Layers of the stored LSTM; 0 if there is none (Q4: then none is made up)."""
    layers = 0
    while f"rnn.lstm.weight_ih_l{layers}" in tensors:
        layers += 1
    return layers


def _names_of(ours: str, network: Network, modules: Mapping[str, str]) -> list[str]:
    """Raises KeyError or ValueError where there is no name."""
    module, _, kind = ours.rpartition(".")
    if _ADAPTED.search(ours):
        raise KeyError(ours)
    if ours.startswith("encoder."):
        return _encoder_names(ours.removeprefix("encoder."), network.encoder, _ENCODER)
    if ours.startswith("label_encoder.encoder.") and network.label_encoder is not None:
        own = ours.removeprefix("label_encoder.encoder.")
        return _encoder_names(own, network.label_encoder.encoder, _LABEL_ENCODER)
    for own, theirs in _SAME_WITHIN.items():
        if ours.startswith(own):
            return [theirs + ours.removeprefix(own)]
    return [f"{modules[module]}.{kind}"]


def _encoder_names(ours: str, encoder: nn.Module, prefix: str) -> list[str]:
    """Names of a parameter of an encoder, as transformers names it behind a prefix."""
    if not isinstance(encoder, DebertaEncoder):
        return [prefix + ours.removeprefix("model.")]
    module, _, kind = ours.rpartition(".")
    return [prefix + part for part in _deberta_names(module, kind)]


def _deberta_names(module: str, kind: str) -> list[str]:
    """Names that transformers gives a parameter of `DebertaEncoder`."""
    fixed = {
        "word_embeddings": "embeddings.word_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "relative_embeddings": "encoder.rel_embeddings",
        "relative_norm": "encoder.LayerNorm",
    }
    if module in fixed:
        return [f"{fixed[module]}.{kind}"]
    _, layer, part = module.split(".")
    prefix = f"encoder.layer.{layer}"
    if part == "qkv":
        return [f"{prefix}.attention.self.{name}_proj.{kind}" for name in ("query", "key", "value")]
    inner = {
        "attention_output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
        "output_norm": "output.LayerNorm",
    }
    return [f"{prefix}.{inner[part]}.{kind}"]


def _head_names(scorer: SpanScorer | TokenScorer) -> dict[str, str]:
    """The package's name of each layer of a head."""
    if isinstance(scorer, TokenScorer):
        return {
            **_mlp_names("scorer.labels", "prompt_rep_layer"),
            "scorer.words": "scorer.proj_token",
            "scorer.types": "scorer.proj_label",
            "scorer.joint": "scorer.out_mlp.0",
            "scorer.out": "scorer.out_mlp.3",
        }
    return {
        **_mlp_names("scorer.prompt", "prompt_rep_layer"),
        **_span_head_names("scorer", has_joint=scorer.joint is not None),
    }


def _span_head_names(ours: str, *, has_joint: bool = True) -> dict[str, str]:
    """Of the layers that make span vectors; `marker` has one behind the MLPs, others have two."""
    return {
        **_mlp_names(f"{ours}.start", f"{_SPAN_HEAD}project_start"),
        **_mlp_names(f"{ours}.end", f"{_SPAN_HEAD}project_end"),
        f"{ours}.joint": f"{_SPAN_HEAD}out_project.0",
        f"{ours}.out": f"{_SPAN_HEAD}out_project" + (".3" if has_joint else ""),
    }


def _mlp_names(ours: str, theirs: str) -> dict[str, str]:
    """Of the two layers of a `ProjectionMLP` or `PairScorer`: in the package's, ReLU and dropout are 1 and 2."""
    return {f"{ours}.inner": f"{theirs}.0", f"{ours}.outer": f"{theirs}.3"}

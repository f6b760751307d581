"""Calibrates the layers of random checkpoints that find relations, so that some are found and some are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

RELATIONS = ["works for", "located in", "born in", "part of", "author of", "founded by", "member of", "date of"]
_SHARE_LINKED = 0.4  # of the pairs of candidate entities
_SHARE_RELATED = 0.1  # of linked pairs with each relation
_SPREAD = 2.5  # standard deviation of the logits
_SHARPENING = 20.0  # of attention's queries and keys, which would look everywhere alike
# The score of spans that are calibrated by: pairs of all candidates may be too many; the next where none has it.
_FEW = (0.7, 0.4, 0.1)


_Run: TypeAlias = Callable[[float], Iterator[Any]]


@contextmanager
def entities_alone(model: Any) -> Iterator[None]:
    """Takes the layers of relations off a `gliner` model: before scores are calibrated all spans would be entities."""
    core = model.model
    names = ("relations_rep_layer", "triples_score_layer", "pair_rep_layer")
    layers = {name: getattr(core, name) for name in names if hasattr(core, name)}
    for name in layers:
        delattr(core, name)
    yield
    for name, layer in layers.items():
        setattr(core, name, layer)


def calibrate_relations(model: Any, texts: list[str], labels: list[str]) -> None:
    """Moves and scales the layers of a `gliner` model whose entities are calibrated."""

    def run(threshold: float) -> Iterator[Any]:
        return _run(model, texts, labels, threshold)

    layer = getattr(model.model, "relations_rep_layer", None)
    adjacency: Any = None if layer is None else layer.relation_rep_layer
    if hasattr(adjacency, "attn"):
        with torch.no_grad():
            adjacency.attn.in_proj_weight.mul_(_SHARPENING)
    if hasattr(adjacency, "mlp"):
        _calibrate_links(adjacency.mlp[-1], run)
    else:
        vectors = getattr(adjacency, "proj", getattr(adjacency, "linear", None))
        if vectors is not None:
            _calibrate_vectors(vectors, run)
    if hasattr(model.model, "pair_rep_layer"):
        _calibrate_pairs(model.model.pair_rep_layer[-1], run)


def _run(model: Any, texts: list[str], labels: list[str], threshold: float) -> Iterator[Any]:
    """What the model gives for each text that has candidate entities, alone: no layer sees padding."""
    for text in texts:
        prepared = model.prepare_batch([text], labels, relations=RELATIONS)
        batch = model.collate_batch(
            prepared["input_x"], prepared["entity_types"], relation_types=prepared["relation_types"]
        )
        try:
            result = model.run_batch(batch, threshold=threshold, adjacency_threshold=-1.0)  # all pairs
        except (AttributeError, RuntimeError):  # attention over no entities
            continue
        yield result


def _outputs(layer: nn.Module, run: _Run) -> list[tuple[torch.Tensor, Any]]:
    """What a layer gives for each text, and what the model gives."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, out: seen.append(out[0]))
    both: list[tuple[torch.Tensor, Any]] = []
    for threshold in _FEW:
        both += [
            (seen[-1].double(), result) for result in run(threshold) if seen[-1].numel() and seen[-1].isfinite().all()
        ]
        if sum(len(out) for out, _ in both) > 1:
            break
    hook.remove()
    return both


@torch.no_grad()
def _calibrate_links(layer: nn.Linear, run: _Run) -> None:
    """The last layer of "mlp", whose one output is the logit of a link."""
    logits = torch.cat([out.flatten() for out, _ in _outputs(layer, run)])
    scale, level = _SPREAD / logits.std(), torch.quantile(logits, 1.0 - _SHARE_LINKED)
    layer.weight.mul_(scale)
    layer.bias.copy_(scale * (layer.bias - level))


@torch.no_grad()
def _calibrate_vectors(layer: nn.Linear, run: _Run) -> None:
    """The projection of layers whose logits are dot products: centred, about half of them are positive."""
    vectors = [out for out, _ in _outputs(layer, run)]  # (E, H) each
    mean = torch.cat(vectors).mean(0)
    products = torch.cat([((own - mean) @ (own - mean).T).flatten() for own in vectors])
    scale = math.sqrt(_SPREAD / products.std())
    layer.bias.sub_(mean)
    layer.weight.mul_(scale)
    layer.bias.mul_(scale)


@torch.no_grad()
def _calibrate_pairs(layer: nn.Linear, run: _Run) -> None:
    """The last layer over pairs. What relations have in common sets the level, and nothing else."""
    seen = [(out, result.rel_prompts_embedding[0].double()) for out, result in _outputs(layer, run)]
    mean = torch.cat([pairs for pairs, _ in seen]).mean(0)  # (D,)
    common = torch.cat([relations for _, relations in seen]).mean(0)
    direction = common / common.norm()
    own = torch.eye(len(mean), dtype=torch.float64) - torch.outer(direction, direction)
    logits = torch.cat([((pairs - mean) @ own @ relations.T).flatten() for pairs, relations in seen])
    scale, level = _SPREAD / logits.std(), torch.quantile(logits, 1.0 - _SHARE_RELATED)
    layer.weight.copy_(scale * own @ layer.weight.double())
    layer.bias.copy_(scale * (own @ (layer.bias.double() - mean) - level * direction / common.norm()))

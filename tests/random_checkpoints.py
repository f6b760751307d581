"""Makes GLiNER checkpoints with random weights that behave like trained ones, offline.

Random weights alone test nothing: every score would sit near one value. Here they are calibrated, so that a chosen
share of candidates scores above 0.5, different labels get different scores, and scores spread over the whole range.
Decoding, overlap and score comparison then really happen. The checkpoints are written by `gliner` itself.

    make_checkpoint(Path("out"), kind="deberta")                        # tiny, for tests: under a second
    make_checkpoint(Path("out"), size="base", vocab_size=128_004)       # DeBERTa-v3-base's shape, for benches

`checkpoint_recipes` names every kind that the parity tests go through.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.checkpoint_recipes import (
    ENCODERS,
    KINDS,
    LABEL_SUBWORDS,
    MODERNBERT_SIZES,
    RELATION_KINDS,
    SIZES,
    SIZES_OF,
    Recipe,
)
from tests.relation_checkpoints import calibrate_relations, entities_alone
from tests.tokenizer_makers import GLINER_TOKENS, RELATION_TOKENS, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DATA = Path(__file__).parent / "data"

_SHARE_RATED = 0.3  # of marked spans and labels

CALIBRATION_LABELS = [
    "person", "organization", "location", "date", "product", "event",
    "programming language", "scientific field", "award", "university", "song", "political party",
]  # fmt: skip


def make_checkpoint(out: Path, *, kind: str | None = None, **choices: Any) -> Path:
    """Writes a checkpoint folder and returns it.

    Args:
        out: folder to write; made if it is not there.
        kind: a name in `KINDS` or `RELATION_KINDS` to start from; None: the defaults of `Recipe`.
        **choices: fields of `Recipe` to set, such as ``size="base"``.
    """
    import torch
    from gliner import config as configs
    from gliner import model as models

    recipe = replace((KINDS | RELATION_KINDS)[kind] if kind else Recipe(), **choices)
    size = SIZES_OF.get(recipe.encoder, SIZES)[recipe.size]
    head_width, rows = size[4:]
    family, special = ENCODERS[recipe.encoder]
    family = recipe.tokenizer or family
    rows = recipe.vocab_size or rows
    tokens = GLINER_TOKENS if recipe.relations_layer is None else RELATION_TOKENS
    base = make_tokenizer(family, corpus(), size=rows - len(tokens), max_subwords=recipe.max_subwords)
    tokenizer = make_tokenizer(
        family, corpus(), size=rows - len(tokens), max_subwords=recipe.max_subwords, extra=tokens
    )
    encoder_config = special | _shape(special["model_type"], *size[:4])
    encoder_config |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    if special["model_type"] not in ("t5", "mt5"):
        encoder_config["max_position_embeddings"] = recipe.max_subwords or 1_024
    if recipe.size in MODERNBERT_SIZES and recipe.encoder == "modernbert":
        # As published; in small models texts are to be longer than what a layer sees.
        encoder_config |= {"global_attn_every_n_layers": 3, "local_attention": 128}
    is_token_level = recipe.span_mode == "token_level"
    kind = f"{'Uni' if recipe.label_encoder is None else 'Bi'}Encoder{'Token' if is_token_level else 'Span'}"
    of_relations = _relations(recipe, tokenizer)
    kind += "Relex" if of_relations else ""
    of_labels, label_tokenizer = _label_encoder(recipe)
    config = getattr(configs, f"{kind}Config")(
        model_name=f"random/{recipe.encoder}-{recipe.size}",
        name=f"random {recipe.size}",
        max_width=recipe.max_width,
        hidden_size=recipe.hidden_size or head_width,
        subtoken_pooling=recipe.subtoken_pooling,
        span_mode=recipe.span_mode,
        represent_spans=recipe.represent_spans,
        num_rnn_layers=recipe.num_rnn_layers,
        embed_ent_token=recipe.embed_ent_token,
        max_len=recipe.max_len,
        vocab_size=len(tokenizer),
        class_token_index=tokenizer.convert_tokens_to_ids("<<ENT>>"),
        encoder_config=encoder_config,
        **of_labels,
        **of_relations,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        tokenizers = {"tokenizer": tokenizer} | ({"labels_tokenizer": label_tokenizer} if of_labels else {})
        model = getattr(models, f"{kind}GLiNER")(config, backbone_from_pretrained=False, **tokenizers).eval()
        _spread(model.model.token_rep_layer.bert_layer.model)
        if of_labels:
            _spread(model.model.token_rep_layer.labels_encoder.model)
        with entities_alone(model):
            (_calibrate_marks if is_token_level else _calibrate)(model, recipe)
        if recipe.represent_spans:
            _calibrate_marked_spans(model, recipe)
        if of_relations:
            calibrate_relations(model, sentences(recipe), CALIBRATION_LABELS)
    model.save_pretrained(out, safe_serialization=recipe.safetensors)
    _rewrite_as(recipe.era, out, base)
    return out


def _label_encoder(recipe: Recipe) -> tuple[dict[str, Any], PreTrainedTokenizerBase | None]:
    """Settings of a bi-encoder's labels, and their tokenizer; nothing for other models."""
    if recipe.label_encoder is None:
        return {}, None
    family, special = ENCODERS[recipe.label_encoder]
    # Large ones have the shape of the MiniLM that published ones carry.
    layers, width, heads, rows = (2, 32, 2, 1_500) if recipe.size.startswith("tiny") else (6, 384, 12, 30_522)
    tokenizer = make_tokenizer(family, corpus(), size=rows, max_subwords=LABEL_SUBWORDS)
    settings = special | _shape(special["model_type"], layers, width, heads, 4 * width)
    settings |= {
        "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 512
    }  # fmt: skip
    fusion = {"post_fusion_schema": recipe.post_fusion_schema, "num_post_fusion_layers": 2}
    of_labels = {"labels_encoder": f"random/{recipe.label_encoder}", "labels_encoder_config": settings}
    return of_labels | (fusion if recipe.post_fusion_schema else {}), tokenizer


def _relations(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Settings of a model that finds relations; nothing for other models."""
    if recipe.relations_layer is None:
        return {}
    return {
        "relations_layer": recipe.relations_layer, "triples_layer": recipe.triples_layer,
        "embed_rel_token": recipe.embed_rel_token, "rel_token_index": tokenizer.convert_tokens_to_ids("<<REL>>"),
    }  # fmt: skip


def _shape(model_type: str, layers: int, width: int, heads: int, intermediate: int) -> dict[str, Any]:
    """An encoder's numbers, by the names that its family has for them."""
    if model_type in ("t5", "mt5"):
        head_dim, buckets, farthest = (16, 12, 20) if width < 512 else (64, 32, 128)
        return {
            "num_layers": layers, "d_model": width, "num_heads": heads, "d_ff": intermediate, "d_kv": head_dim,
            "relative_attention_num_buckets": buckets, "relative_attention_max_distance": farthest,
        }  # fmt: skip
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": intermediate, "hidden_act": "gelu", "initializer_range": 0.02,
    }  # fmt: skip


@lru_cache(maxsize=1)
def corpus() -> tuple[str, ...]:
    """The texts that tokenizers are trained on and calibration sentences are drawn from."""
    return tuple(
        json.loads(line)["text"]
        for name in ("crossner.jsonl", "books.jsonl")
        for line in (DATA / name).read_text(encoding="utf-8").splitlines()
    )


def _spread(encoder: PreTrainedModel) -> None:
    """Draws the encoder's weights again with a fan-in scale, queries and keys sharper.

    With the usual 0.02 a deep random encoder hardly mixes its context: every entity token would get nearly the same
    vector and all labels the same score.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for name, part in encoder.named_modules():
            if isinstance(part, nn.Linear):
                gain = 2.0 if "query" in name or "key" in name else 1.0
                if name.endswith((".q", ".k")):  # T5 scales no scores
                    gain = 1.5 * encoder.config.d_kv**-0.25
                part.weight.normal_(0.0, gain / math.sqrt(part.in_features))
                if part.bias is not None:
                    part.bias.normal_(0.0, 0.02)
            elif isinstance(part, nn.Embedding):
                # Nothing scales T5's embeddings before they are added to.
                part.weight.normal_(0.0, 1.0 if hasattr(encoder, "shared") else 1.0 / math.sqrt(part.embedding_dim))


def _calibrate(model: Any, recipe: Recipe) -> None:
    """Centres and scales span and type vectors, and moves all scores by one constant.

    The last hidden dimension is given up for that: spans get 1 there and types the constant, so the dot product
    gains it.
    """
    import torch

    core = model.model
    out_project = core.span_rep_layer.span_rep_layer.out_project
    span_layer: Any = out_project[-1] if isinstance(out_project, torch.nn.Sequential) else out_project
    type_layer = core.prompt_rep_layer[-1]
    spans: list[torch.Tensor] = []
    types: list[torch.Tensor] = []
    hooks = [
        span_layer.register_forward_hook(lambda _module, _inputs, out: spans.append(out.flatten(1, -2))),
        type_layer.register_forward_hook(lambda _module, _inputs, out: types.append(out)),
    ]
    inside = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sentence of length")  # where the recipe's max_len is small
        for batch in _batches(model, recipe):
            inside.append(batch["span_mask"])  # (B, W * K)
            model.run_batch(batch)
    for hook in hooks:
        hook.remove()

    with torch.no_grad():
        span_mean = torch.cat([s[m] for s, m in zip(spans, inside, strict=True)]).mean(0)
        type_mean = torch.cat([t.flatten(0, 1) for t in types]).mean(0)
        products = [
            torch.einsum("bnd,bcd->bnc", (s - span_mean)[..., :-1], (t - type_mean)[..., :-1])[m].flatten()
            for s, t, m in zip(spans, types, inside, strict=True)
        ]
        scores = torch.cat(products).double()
        scale = recipe.score_spread / scores.std()
        # torch.quantile takes at most 16 million values, kthvalue any number.
        rank = max(1, math.ceil(len(scores) * (1.0 - recipe.fraction_above_half)))
        shift = -scale * scores.kthvalue(rank).values
        for layer, mean in ((span_layer, span_mean), (type_layer, type_mean)):
            layer.bias.sub_(mean)
            layer.weight.mul_(scale.sqrt())
            layer.bias.mul_(scale.sqrt())
            layer.weight[-1].zero_()
        span_layer.bias[-1] = 1.0
        type_layer.bias[-1] = shift


def _calibrate_marks(model: Any, recipe: Recipe) -> None:
    """Scales the three rows of a token-level scorer's last layer, and sets their biases.

    A few entities come of each sentence where starts and ends are rare, and words inside frequent.
    """
    import torch

    first, last = model.model.scorer.out_mlp[0], model.model.scorer.out_mlp[-1]
    width = first.in_features // 3
    with torch.no_grad():  # [word ; label ; word * label]: else a label's own part would decide all
        first.weight[:, width : 2 * width].mul_(0.3)
        first.weight[:, 2 * width :].mul_(3.0)
    marks = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sentence of length")  # where the recipe's max_len is small
        for batch in _batches(model, recipe):
            logits = model.run_batch(batch).logits  # (B, W, C, 3)
            lengths = batch["text_lengths"].view(-1).tolist()
            marks += [own[:length].reshape(-1, 3) for own, length in zip(logits, lengths, strict=True)]
    found = torch.cat(marks).double()  # (M, 3)
    scale, mean = recipe.score_spread / found.std(0), found.mean(0)
    shares = [math.sqrt(recipe.fraction_above_half)] * 2 + [0.75]
    with torch.no_grad():
        for row, share in enumerate(shares):
            level = torch.quantile(found[:, row] - mean[row], 1.0 - share)
            last.weight[row].mul_(scale[row])
            last.bias[row] = scale[row] * (last.bias[row] - mean[row] - level)


def _calibrate_marked_spans(model: Any, recipe: Recipe) -> None:
    """Centres and scales the vectors of spans that are marked; labels have theirs from the encoder.

    What labels have in common sets the level, and nothing else. Most of the marked spans are some label's.
    """
    import torch

    layer = model.model.span_rep_layer.span_rep_layer.out_project[-1]
    vectors: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, out: vectors.append(out))
    for text in sentences(recipe):  # alone: no padding is marked
        prepared = model.prepare_batch([text], CALIBRATION_LABELS)
        result = model.run_batch(model.collate_batch(prepared["input_x"], prepared["entity_types"]), threshold=0.5)
        vectors[-1] = vectors[-1][result.span_mask].double()  # (N, D)
        labels.append(result.prompts_embedding[0].double())  # (C, D)
    hook.remove()
    mean, common = torch.cat(vectors).mean(0), torch.cat(labels).mean(0)
    direction = common / common.norm()
    own = torch.eye(len(mean), dtype=torch.float64) - torch.outer(direction, direction)
    logits = torch.cat([((v - mean) @ own @ p.T).flatten() for v, p in zip(vectors, labels, strict=True)])
    scale, level = recipe.score_spread / logits.std(), torch.quantile(logits, 1.0 - _SHARE_RATED)
    with torch.no_grad():
        layer.weight.copy_(scale * own @ layer.weight.double())
        layer.bias.copy_(scale * (own @ (layer.bias.double() - mean) - level * direction / common.norm()))


def _batches(model: Any, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yields collated batches of sentences for calibration, four texts each."""
    prepared = model.prepare_batch(sentences(recipe), CALIBRATION_LABELS)
    collator = model.create_collator()
    for first in range(0, 16, 4):
        yield model.collate_batch(prepared["input_x"][first : first + 4], prepared["entity_types"], collator)


def sentences(recipe: Recipe) -> list[str]:
    """The texts that a checkpoint is calibrated by."""
    return random.Random(recipe.seed).sample([text for text in corpus() if len(text.split()) <= 80], 16)


# Training options that first-era configs carry along (gliner_base); nothing reads them.
_OLD_OPTIONS = {
    "lr_encoder": "1e-5", "lr_others": "5e-5", "num_steps": 30000, "warmup_ratio": 0.1, "train_batch_size": 8,
    "eval_every": 5000, "fine_tune": True, "root_dir": "elsewhere", "train_data": "elsewhere", "prev_path": "none",
    "size_sup": -1, "max_types": 25, "shuffle_types": True, "random_drop": True, "max_neg_type_ratio": 1,
    "name": "large", "log_dir": "elsewhere",
}  # fmt: skip


def _rewrite_as(era: str, out: Path, base: PreTrainedTokenizerBase) -> None:
    """Lays the folder out as an earlier `gliner` wrote it (C§2.2).

    v1: a flat list of options; tokenizer and encoder config come from the encoder's own folder, which knows nothing
    of GLiNER's three tokens. v2: the same with the encoder's config inside. v2-with-tokenizer: a copy whose tokenizer
    was saved with the three tokens, without their numbers. has-rnn: 0.2.0 to 0.2.22, before `num_rnn_layers`.
    """
    config_file = out / "gliner_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    if era == "current":
        return
    rnn_layers = config.pop("num_rnn_layers")
    if era == "has-rnn":
        config |= {"has_rnn": rnn_layers > 0, "model_type": "gliner"}
    else:
        # DeBERTa-v3's embedding matrix has more rows than its tokenizer has entries: 128,100 for 128,001.
        encoder_config = config["encoder_config"] | {"vocab_size": len(base) + 99}
        config = _OLD_OPTIONS | {
            key: config[key]
            for key in ("max_width", "max_len", "subtoken_pooling", "hidden_size", "span_mode", "dropout")
        }
        if era == "v2-with-tokenizer":
            config["encoder_config"] = encoder_config
        else:
            encoder = out / "encoder"
            base.save_pretrained(encoder)
            (encoder / "config.json").write_text(json.dumps(encoder_config, indent=2), encoding="utf-8")
            config["model_name"] = str(encoder.resolve())
            if era == "v2":
                config["encoder_config"] = encoder_config
            for file in out.glob("*token*"):
                file.unlink()
    config_file.write_text(json.dumps(config, indent=2), encoding="utf-8")

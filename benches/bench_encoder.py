"""Subword ids -> hidden states: our DeBERTa beside transformers' DebertaV2Model, with the same weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benches.compare import Race, relative_error
from benches.conftest import DEVICES, SIZES, Pair

# Rows x subwords. The middle ones are what short texts with a few labels become.
SHAPES = [(1, 32), (1, 128), (8, 64), (8, 128), (8, 384)]
TOLERANCE = 2e-5  # largest difference over the largest value, fp32: sums run in another order


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("rows", "subwords"), SHAPES)
def bench_encoder(
    race: Race, pair: Callable[[str, str], Pair], rows: int, subwords: int, size: str, device: str
) -> None:
    models = pair(size, device)
    ours = models.ours.model.encoder
    theirs = models.reference.model.token_rep_layer.bert_layer.model
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(subwords, 0.75 * subwords, rows).long()  # batches are cut from sorted texts
    ids = torch.randint(4, theirs.config.vocab_size, (rows, subwords), generator=generator)
    inside = torch.arange(subwords) < lengths[:, None]  # (B, L)
    ids = ids.where(inside, 0)
    packed, ids, mask = ids[inside].to(device), ids.to(device), inside.long().to(device)

    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(device)
    inside_there = inside.to(device)

    def run_ours() -> torch.Tensor:
        with torch.inference_mode():
            if ours.reads_packed:  # as `inference` gives them
                hidden: torch.Tensor = ours(packed, lengths, offsets)
                return hidden
            hidden = ours(ids, lengths)
        return hidden[inside_there]

    def run_theirs() -> torch.Tensor:
        with torch.inference_mode():
            hidden: torch.Tensor = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    expected = run_theirs()[inside_there]  # (tokens, D)
    error = relative_error(run_ours(), expected)
    assert error <= TOLERANCE
    race.run(
        run_ours,
        {"transformers": run_theirs},
        agreement=f"relative error {error:.1e}",
        amount=int(lengths.sum()),
        unit="subwords",
        rows=rows,
        subwords=subwords,
        size=size,
        dtype="float32",
        attention=theirs.config._attn_implementation,
    )

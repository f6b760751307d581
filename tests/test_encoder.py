"""`encoder.py`: modules on the meta device, whatever other threads build meanwhile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import pytest
import torch
from torch import nn

from gliner_fast import encoder
from gliner_fast.encoder import build_encoder, parameters_on_meta, readable_subwords
from gliner_fast.errors import CheckpointError


def build_on_meta() -> nn.Linear:
    with parameters_on_meta():
        return nn.Linear(2, 2)


def test_parameters_are_on_meta_and_buffers_are_real():
    with parameters_on_meta():
        norm = nn.BatchNorm1d(2)
    assert norm.weight.is_meta
    assert norm.running_mean is not None
    assert not norm.running_mean.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_what_another_thread_builds_meanwhile_is_real():
    with parameters_on_meta(), ThreadPoolExecutor(1) as other:
        assert not other.submit(nn.Linear, 2, 2).result(timeout=60).weight.is_meta
        assert nn.Linear(2, 2).weight.is_meta


def test_checkpoints_that_are_built_in_two_threads_leave_modules_as_they_were(monkeypatch: pytest.MonkeyPatch):
    both_ask, lock, before = Event(), Lock(), nn.Module.register_parameter

    class Told:
        def __enter__(self) -> None:
            if not lock.acquire(blocking=False):
                both_ask.set()
                lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(encoder._building, "lock", Told())
    with ThreadPoolExecutor(1) as other:
        with parameters_on_meta():
            second = other.submit(build_on_meta)
            assert both_ask.wait(timeout=60)
        assert second.result(timeout=60).weight.is_meta
    try:
        assert nn.Module.register_parameter is before
    finally:
        nn.Module.register_parameter = before  # type: ignore[method-assign]


BERT = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}


@pytest.mark.parametrize("name", ["kernels-community/flash-attn", "a/b@main:c", 5, ["sdpa"], {"": "a/b"}])
@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_code_from_the_hub_is_no_attention(key: str, name: object):
    with pytest.raises(CheckpointError, match=rf"encoder_config\.{key} is .*: expected .* such as 'sdpa'; code from"):
        build_encoder({**BERT, key: name})
    with pytest.raises(CheckpointError, match=rf"encoder_config\.text_config\.{key} is .*: expected"):
        build_encoder({**BERT, "text_config": {key: name}})
    with pytest.raises(CheckpointError, match=r"^_attn_implementation is .*: expected"):
        build_encoder(BERT, name)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [None, "sdpa", "eager"])
def test_attention_of_transformers_itself_is_taken(name: str | None):
    assert build_encoder({**BERT, "_attn_implementation": name, "_attn_implementation_autoset": True}, name)


TINY = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DISTIL = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
WITH_POSITIONS = [
    *[(kind, 40) for kind in ("bert", "electra", "albert", "distilbert", "megatron-bert", "nystromformer")],
    *[(kind, 38) for kind in ("roberta", "xlm-roberta", "camembert", "mpnet")],  # two rows of no place in a text
]


@pytest.mark.parametrize(("kind", "most"), WITH_POSITIONS)
def test_a_table_of_positions_ends_where_texts_get_too_long(kind: str, most: int):
    shape = DISTIL if kind == "distilbert" else TINY
    built = build_encoder({"model_type": kind, "vocab_size": 30, "max_position_embeddings": 40, **shape}).eval()
    assert readable_subwords(built) == most
    lengths = torch.tensor([most])
    with torch.no_grad():
        assert built(torch.full((1, most), 7), lengths).shape == (1, most, 16)
        with pytest.raises((RuntimeError, IndexError)):
            built(torch.full((1, most + 1), 7), lengths + 1)


@pytest.mark.parametrize("kind", ["t5", "deberta-v2", "modernbert"])
def test_relative_positions_never_end(kind: str):
    shape = TINY | {"position_biased_input": False, "max_position_embeddings": 40, "num_hidden_layers": 4}
    shape |= dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"], 0)
    built = build_encoder({"model_type": kind, **shape}).eval()
    assert readable_subwords(built) is None
    with torch.no_grad():
        assert built(torch.full((1, 90), 7), torch.tensor([90])).shape == (1, 90, 16)

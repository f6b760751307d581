"""The disentangled-flash package as an oracle of our attention, and as an executor that users may name."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import pytest
import torch
from torch import Tensor

from gliner_fast.encoders import flash_attention
from gliner_fast.encoders.attention_executor import VARIABLE, choose_attention
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.encoders.flash_attention import FlashAttention, FlashTexts
from gliner_fast.kernels.attention_reference import Positions, disentangled_attention_reference
from tests.encoders.test_deberta import SETTINGS, pair
from tests.installed import needs_flash

pytestmark = needs_flash

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
# Each side of where distances get log-bucketed (128) and of the table's end (512); what a batch may mix.
HOSTILE = [[1], [2], [63], [64, 65], [127, 128, 129, 130], [255, 256, 257], [512], [700], [33, 1, 64, 2, 70, 31]]
HEADS, HEAD_DIM = 2, 16
WIDTH = HEADS * HEAD_DIM


def offsets_of(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)])


def read_config(kinds: Sequence[str] = ("c2p", "p2c"), buckets: int = 256) -> DebertaConfig:
    config = DebertaConfig.read(
        {**SETTINGS, "hidden_size": WIDTH, "num_attention_heads": HEADS, "pos_att_type": list(kinds),
         "position_buckets": buckets, "max_position_embeddings": 512}
    )  # fmt: skip
    assert config is not None
    return config


# --- the oracle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", HOSTILE, ids=str)
@pytest.mark.parametrize(
    ("kinds", "buckets"),
    [(("c2p", "p2c"), 256), (("c2p",), 256), (("p2c",), 256), ((), 256), (("c2p", "p2c"), -1)],
    ids=["v3", "c2p", "p2c", "no-positions", "no-buckets"],
)
def test_our_reference_is_the_package_s(lengths: list[int], kinds: tuple[str, ...], buckets: int):
    config = read_config(kinds, buckets)
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    hidden, weight, bias = normal(sum(lengths), WIDTH), normal(3 * WIDTH, WIDTH) / math.sqrt(WIDTH), normal(3 * WIDTH)
    relative = normal(2 * config.span, WIDTH)
    with torch.inference_mode():
        theirs = FlashAttention(config, weight, bias, relative)(hidden, FlashTexts(lengths, offsets_of(lengths)))
    scale = 1 / math.sqrt(HEAD_DIM * (1 + len(kinds)))
    projected = torch.nn.functional.linear(relative, weight[: 2 * WIDTH], bias[: 2 * WIDTH]) * scale
    queries, keys = projected.view(-1, 2, HEADS, HEAD_DIM).permute(1, 2, 0, 3)
    positions = Positions(
        keys if "c2p" in kinds else None,
        queries if "p2c" in kinds else None,
        position_rows(max(lengths), config).int(),
    )
    qkv = torch.nn.functional.linear(hidden, weight, bias).view(-1, 3, HEADS, HEAD_DIM)
    ours = disentangled_attention_reference(qkv, positions, lengths=lengths, scale=scale).flatten(1)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


# --- the executor -----------------------------------------------------------------------------------------------------


def packed_hidden(encoder: DebertaEncoder, lengths: list[int]) -> Tensor:
    ids = torch.randint(3, 101, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        hidden: Tensor = encoder(ids, torch.tensor(lengths), offsets_of(lengths))
    return hidden


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the subwords of each layer that the package attends in, and asks for it."""
    calls: list[int] = []
    attend = FlashAttention.__call__

    def counted(layer: FlashAttention, hidden: Tensor, texts: FlashTexts) -> Tensor:
        calls.append(len(hidden))
        return attend(layer, hidden, texts)

    monkeypatch.setattr(FlashAttention, "__call__", counted)
    monkeypatch.setenv(VARIABLE, "disentangled-flash")
    return calls


def test_the_package_attends_where_it_is_asked_for(attended: list[int]):
    _, ours = pair()
    packed_hidden(ours, [7, 3])
    assert attended == [10] * len(ours.layers)


def test_empty_texts_are_left_out(attended: list[int], monkeypatch: pytest.MonkeyPatch):
    _, ours = pair()
    found = packed_hidden(ours, [0, 5, 0, 3, 0])
    assert len(attended) == len(ours.layers)
    assert FlashTexts([0, 5, 0, 3, 0], offsets_of([0, 5, 0, 3, 0])).offsets.tolist() == [0, 5, 8]
    monkeypatch.setenv(VARIABLE, "torch")
    torch.testing.assert_close(found, packed_hidden(ours, [0, 5, 0, 3, 0]), rtol=0, atol=1e-5)


def test_a_text_beyond_what_the_package_takes_is_attended_in_by_ours(
    attended: list[int], monkeypatch: pytest.MonkeyPatch
):
    _, ours = pair()
    whole = packed_hidden(ours, [12, 9])
    attended.clear()
    monkeypatch.setattr(flash_attention, "MOST_SUBWORDS", 11)
    found = packed_hidden(ours, [12, 9])
    assert attended == []
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["layers.0.qkv.weight", "layers.1.qkv.bias", "relative_embeddings.weight"])
def test_what_the_package_keeps_follows_a_changed_weight(name: str, attended: list[int]):
    _, ours = pair()
    before = packed_hidden(ours, [12, 9])
    with torch.no_grad():
        weight = ours.get_parameter(name)
        weight.add_(torch.randn(weight.shape))
    fresh = DebertaEncoder(ours.config).eval()
    fresh.load_state_dict(ours.state_dict())
    after = packed_hidden(ours, [12, 9])
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(after, packed_hidden(fresh, [12, 9]), rtol=0, atol=0)
    assert attended


def test_our_weights_stay_as_they_are(attended: list[int]):
    _, ours = pair()
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in ours.state_dict().items()}
    packed_hidden(ours, [12, 9])
    assert attended
    for name, weight in ours.state_dict().items():
        place, values = before[name]
        assert weight.data_ptr() == place
        assert torch.equal(weight, values)


def test_an_encoder_that_was_used_is_copied_and_pickled(attended: list[int]):
    _, ours = pair()
    expected = packed_hidden(ours, [12, 9])
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        torch.testing.assert_close(packed_hidden(other, [12, 9]), expected, rtol=0, atol=0)


def test_under_autocast_ours_attends(attended: list[int]):
    _, ours = pair()
    with torch.autocast("cpu", torch.bfloat16):
        packed_hidden(ours, [12, 9])
    assert attended == []


def test_threads_may_come_first_together(attended: list[int]):
    _, ours = pair()
    expected = packed_hidden(copy.deepcopy(ours), [12, 9])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: packed_hidden(ours, [12, 9]), range(8)))
    for hidden in found:
        torch.testing.assert_close(hidden, expected, rtol=0, atol=0)


def test_layers_share_one_plan_of_positions():
    config = read_config()
    weights = torch.zeros(3 * WIDTH, WIDTH), torch.zeros(3 * WIDTH), torch.zeros(2 * config.span, WIDTH)
    first = FlashAttention(config, *weights)
    second = FlashAttention(config, *weights, first)
    assert second.module.position_plan_cache is first.module.position_plan_cache
    assert second.module._profile_registry is first.module._profile_registry


# --- where it cannot attend -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.float32, 16), (torch.float64, 64)])
def test_what_its_kernels_do_not_take_is_refused(dtype: torch.dtype, head_dim: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "disentangled-flash")
    assert choose_attention(CPU, dtype, head_dim) == "disentangled-flash"
    with pytest.raises(ValueError, match=rf"heads of width {head_dim} in {dtype}: the package takes \(32, 64, 128\)"):
        choose_attention(CUDA, dtype, head_dim)


def test_heads_as_wide_as_it_takes_are_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "disentangled-flash")
    for head_dim in flash_attention.HEAD_DIMS:
        assert choose_attention(CUDA, torch.bfloat16, head_dim) == "disentangled-flash"

"""Our DeBERTa against transformers' own."""

from __future__ import annotations

from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gliner_fast.checkpoints.tensor_names import _deberta_names
from gliner_fast.encoders import deberta, deberta_layer
from gliner_fast.encoders.attention_executor import VARIABLE
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.kernels._triton import INTERPRETED
from tests.installed import FLASH

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")

SETTINGS = {
    "model_type": "deberta-v2",
    "vocab_size": 101,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
# One word, both sides of where distances get log-bucketed (8), of the table's end (64), and far beyond it.
LENGTHS = [[1], [2], [3, 1], [8, 9, 10], [16, 17], [64], [65, 2], [130, 129, 1], [159, 160, 161], [400, 192]]


def pair(**changes: object) -> tuple[torch.nn.Module, DebertaEncoder]:
    """Transformers' encoder and ours with the same random weights, large enough for attention to matter."""
    from transformers import DebertaV2Config, DebertaV2Model

    settings = {**SETTINGS, **changes}
    torch.manual_seed(0)
    reference = DebertaV2Model(DebertaV2Config(**{k: v for k, v in settings.items() if k != "model_type"})).eval()
    with torch.no_grad():
        for weight in reference.parameters():
            weight.normal_(0.0, 1.0 if weight.dim() == 1 else weight.shape[-1] ** -0.5)
    config = DebertaConfig.read(settings)
    assert config is not None
    ours = DebertaEncoder(config).eval()
    stored = reference.state_dict()
    named = {
        name: torch.cat([stored[theirs] for theirs in _deberta_names(*name.rsplit(".", 1))])
        for name, _ in ours.named_parameters()
    }
    ours.load_state_dict(named)
    return reference, ours


def hidden_of_both(reference: torch.nn.Module, ours: DebertaEncoder, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Hidden states of the true subwords, (sum of lengths, D) each."""
    rows, longest = len(lengths), max(lengths)
    ids = torch.randint(3, 101, (rows, longest), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    theirs = reference(ids.masked_fill(~mask, 0), mask.long()).last_hidden_state
    return theirs[mask], ours(ids.masked_fill(~mask, 0), torch.tensor(lengths))[mask]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pos_att_type": "c2p|p2c"},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"pos_att_type": []},
        {"pos_att_type": ["c2p", "c2p"]},
        {"position_buckets": -1, "max_relative_positions": 20},
        {"position_buckets": 256, "max_position_embeddings": 512},
    ],
    ids=["v3", "as-a-string", "c2p", "p2c", "no-positions", "twice", "no-buckets", "v3-buckets"],
)
def test_hidden_states_equal_those_of_transformers(lengths: list[int], changes: dict[str, object]) -> None:
    reference, ours = pair(**changes)
    with torch.inference_mode():
        theirs, mine = hidden_of_both(reference.double(), ours.double(), lengths)
    # In float64, so that nothing but a wrong formula can differ; transformers rounds its softmax scale to float32.
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7 * float(theirs.abs().max()))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_rounding_in_fp32_is_no_worse_than_that_of_transformers(lengths: list[int]) -> None:
    reference, ours = pair()
    with torch.inference_mode():
        theirs, mine = hidden_of_both(reference, ours, lengths)
        exact, _ = hidden_of_both(reference.double(), ours, lengths)
    assert (mine - exact).abs().max() <= 2 * (theirs - exact).abs().max() + 1e-6


# --- packed texts -----------------------------------------------------------------------------------------------------


def packed_hidden(ours: DebertaEncoder, lengths: list[int]) -> Tensor:
    """Hidden states of the same subwords as in `hidden_of_both`, read packed."""
    longest = max(lengths)
    ids = torch.randint(3, 101, (len(lengths), longest), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return ours(ids[mask], torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)]))


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"pos_att_type": ["c2p"]}, {"pos_att_type": []}, {"position_buckets": -1, "max_relative_positions": 20}],
    ids=["v3", "c2p", "no-positions", "no-buckets"],
)
@pytest.mark.parametrize("executor", ["grouped", "torch", FLASH])
def test_packed_texts_have_the_hidden_states_of_transformers(
    lengths: list[int], changes: dict[str, object], executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    reference, ours = pair(**changes)
    with torch.inference_mode():
        theirs, _ = hidden_of_both(reference.double(), ours.double(), lengths)
        mine = packed_hidden(ours, lengths)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-7 * float(theirs.abs().max()))


@pytest.mark.parametrize(
    "executor", ["grouped", "torch", "rust", FLASH, pytest.param("triton", marks=needs_interpreter)]
)
def test_packed_is_padded_is_single_text_within_rounding(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    reference, ours = pair(hidden_size=64, num_attention_heads=2)
    lengths = [33, 1, 70, 2, 64]
    with torch.inference_mode():
        theirs, padded = hidden_of_both(reference, ours, lengths)
        together = packed_hidden(ours, lengths)
        ids = torch.randint(3, 101, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
        alone = [
            ours(row[:length], torch.tensor([length]), torch.tensor([0, length]))
            for row, length in zip(ids, lengths, strict=True)
        ]
        exact, _ = hidden_of_both(reference.double(), ours, lengths)
    bound = 2 * (theirs - exact).abs().max() + 1e-6
    for mine in (padded, together, torch.cat(alone)):
        assert (mine - exact).abs().max() <= bound


@pytest.mark.parametrize("rows", [[0], [3, 1, 8], [16, 0, 5, 5], []], ids=str)
def test_wanted_rows_are_those_of_all(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    _, ours = pair()
    ids, lengths = torch.randint(3, 101, (2, 9)), torch.tensor([9, 8])
    ids[1, 8] = 0
    offsets, packed = torch.tensor([0, 9, 17]), torch.cat([ids[0], ids[1, :8]])
    wanted = torch.tensor(rows, dtype=torch.int64)
    calls = []
    ours.layers[-1].intermediate.register_forward_hook(lambda _, given, __: calls.append(len(given[0])))
    with torch.inference_mode():
        for given in ((ids, lengths), (packed, lengths, offsets)):
            everything = ours(*given)
            some = ours(*given, wanted=wanted)
            torch.testing.assert_close(some, everything.reshape(-1, 32)[wanted], rtol=0, atol=1e-5)
            assert calls[-1] == len(rows)  # of no other row the last layer is finished


def test_packed_and_padded_texts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    reference, ours = pair()
    with torch.inference_mode():
        for _ in range(2):
            _, padded = hidden_of_both(reference, ours, [12, 7])
            torch.testing.assert_close(packed_hidden(ours, [12, 7]), padded, rtol=0, atol=1e-5)


def test_where_a_gradient_is_wanted_packed_texts_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "triton")
    _, ours = pair()
    packed_hidden(ours, [5, 9]).square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in ours.layers[0].parameters())


def test_heads_done_in_groups_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair()
    ids, lengths = torch.randint(3, 101, (2, 40)), torch.tensor([40, 31])
    with torch.inference_mode():
        whole = ours(ids, lengths)
        monkeypatch.setattr(deberta_layer, "_MAX_SCORES", 3 * 2 * 40 * 79)  # three of four heads fit
        grouped = ours(ids, lengths)
    torch.testing.assert_close(grouped[0], whole[0], rtol=0, atol=1e-5)


def test_position_tables_follow_a_changed_weight() -> None:
    _, ours = pair()
    ids, lengths = torch.randint(3, 101, (1, 12)), torch.tensor([12])
    with torch.inference_mode():
        before = ours(ids, lengths)
    with torch.no_grad():
        ours.relative_embeddings.weight.add_(torch.randn(32))
    fresh = DebertaEncoder(ours.config).eval()
    fresh.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        after = ours(ids, lengths)
        assert not torch.allclose(after, before, atol=1e-3)
        torch.testing.assert_close(after, fresh(ids, lengths), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_inference_mode", [False, True])
@pytest.mark.parametrize("name", ["layers.1.qkv.weight", "relative_embeddings.weight", "relative_norm.bias"])
def test_position_tables_follow_a_change_behind_torch_s_back(
    name: str, in_inference_mode: bool, dtype: torch.dtype
) -> None:
    with torch.inference_mode(in_inference_mode):
        _, ours = pair()
        ours = ours.to(dtype)
        ids, lengths = torch.randint(3, 101, (1, 12)), torch.tensor([12])
        with torch.no_grad():
            before = ours(ids, lengths)
            weight = ours.get_parameter(name)
            weight.add_(1.0) if in_inference_mode else weight.data.add_(1.0)
            after = ours(ids, lengths)
            ours._made = None
            assert torch.equal(after, ours(ids, lengths))
    assert not torch.equal(after, before)


def test_what_is_kept_is_there_before_another_thread_can_find_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "torch")
    _, ours = pair()
    found_at_waits = []
    monkeypatch.setattr(
        deberta, "_wait_for", lambda device: found_at_waits.append((device, ours._made, {**ours._rows}))
    )
    with torch.inference_mode():
        for _ in range(2):
            ours(torch.arange(3, 12), torch.tensor([9]), torch.tensor([0, 9]))
    (device, made, _), (second_device, _, rows) = found_at_waits  # of tables, and of the rows of each distance
    assert device == second_device == torch.device("cpu")
    assert (made, rows) == (None, {})
    assert ours._made is not None
    assert len(ours._rows) == 1


def test_a_card_is_waited_for_on_this_thread_s_stream_but_not_while_it_records(monkeypatch: pytest.MonkeyPatch) -> None:
    waited, records = [], [False]
    stream = SimpleNamespace(synchronize=lambda: waited.append(1))
    card = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: {card: stream}[device])
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: records[0])
    deberta._wait_for(card)
    deberta._wait_for(torch.device("cpu"))
    records[0] = True
    deberta._wait_for(card)
    assert waited == [1]


def test_position_tables_follow_a_fused_optimizer() -> None:
    _, ours = pair()
    ids, lengths = torch.randint(3, 101, (1, 12)), torch.tensor([12])
    optimizer = torch.optim.AdamW(ours.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.inference_mode():
            ours.eval()(ids, lengths)  # the tables of now are kept
        ours.train()(ids, lengths).square().sum().backward()
        optimizer.step()
    fresh = DebertaEncoder(ours.config).eval()
    fresh.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(ids, lengths), fresh(ids, lengths), rtol=0, atol=0)


def test_dropout_in_training_is_where_transformers_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks that are told by size and turn, both must come out equal: no dropout is missing, moved or shared."""
    turns: dict[int, int] = {}

    def dropout(values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0.0:
            return values
        turns[values.numel()] = turns.get(values.numel(), 0) + 1
        generator = torch.Generator().manual_seed(1000 * values.numel() + turns[values.numel()])
        kept = torch.rand(values.shape, generator=generator) >= p
        return values * kept / (1 - p)

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor, dropout_p: float, scale: float
    ) -> Tensor:
        shares = (query @ key.mT * scale + attn_mask).softmax(-1)
        return dropout(shares, dropout_p) @ value

    reference, ours = pair(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    ids, lengths = torch.randint(3, 101, (2, 11)), torch.tensor([11, 7])
    mask = torch.arange(11) < lengths[:, None]
    theirs = reference.double().train()(ids.masked_fill(~mask, 0), mask.long()).last_hidden_state[mask]
    places = dict(turns)
    assert sum(places.values()) == 1 + 2 * 4
    turns.clear()
    mine = ours.double().train()(ids.masked_fill(~mask, 0), lengths)[mask]
    assert turns == places
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6 * float(theirs.detach().abs().max()))


def test_position_tables_follow_a_new_dtype() -> None:
    _, ours = pair()
    ids, lengths = torch.randint(3, 101, (1, 12)), torch.tensor([12])
    with torch.inference_mode():
        whole = ours(ids, lengths)
        half = ours.to(torch.bfloat16)(ids, lengths)
    assert half.dtype == torch.bfloat16
    assert (half.float() - whole).abs().max() < 0.3 * whole.abs().max()


def test_position_tables_follow_another_autocast() -> None:
    _, ours = pair()
    for dtype in (torch.bfloat16, torch.float16, torch.bfloat16):
        with torch.inference_mode(), torch.autocast("cpu", dtype):
            ((keys, queries), *_) = ours._position_tables()
        assert keys.dtype == queries.dtype == dtype
    with torch.inference_mode():
        assert ours._position_tables()[0][0].dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])  # also with the model put to eval, for want of dropout
def test_gradients_equal_those_of_transformers(training: bool) -> None:
    reference, ours = pair()
    theirs, mine = hidden_of_both(reference.double().train(training), ours.double().train(training), [12, 7])
    weights = torch.randn(theirs.shape, dtype=torch.float64)
    (theirs * weights).sum().backward()
    (mine * weights).sum().backward()
    expected = dict(reference.named_parameters())
    for name, parameter in ours.named_parameters():
        wanted = torch.cat([expected[theirs].grad for theirs in _deberta_names(*name.rsplit(".", 1))])
        assert (parameter.grad - wanted).abs().max() <= 1e-6 * wanted.abs().max() + 1e-6, name


@pytest.mark.parametrize("length", [1, 2, 9, 129, 130, 600])
def test_position_rows_are_those_of_transformers(length: int) -> None:
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    config = DebertaConfig.read({**SETTINGS, "position_buckets": 256, "max_position_embeddings": 512})
    assert config is not None
    query = torch.zeros(1, length, 1)
    theirs = build_relative_position(query, query, bucket_size=256, max_position=512)[0]  # (L, L)
    wanted = (theirs + 256).clamp(0, 511)
    rows = position_rows(length, config)
    distance = torch.arange(length)[:, None] - torch.arange(length)
    assert torch.equal(rows[distance + length - 1], wanted)


@pytest.mark.parametrize("given", [-1, 0])
def test_without_a_number_of_relative_positions_there_are_as_many_as_absolute_ones(given: int) -> None:
    config = DebertaConfig.read({**SETTINGS, "position_buckets": -1, "max_relative_positions": given})
    assert config is not None
    assert config.span == config.max_relative_positions == SETTINGS["max_position_embeddings"]


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
def test_position_rows_are_the_same_whatever_the_default_dtype(default: torch.dtype) -> None:
    config = DebertaConfig.read({**SETTINGS, "position_buckets": 256, "max_position_embeddings": 512})
    assert config is not None
    wanted, before = position_rows(600, config), torch.get_default_dtype()
    torch.set_default_dtype(default)  # somebody else's business
    try:
        rows = position_rows(600, config)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(rows, wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_biased_input": True},
        {"type_vocab_size": 2},
        {"conv_kernel_size": 3},
        {"share_att_key": False},
        {"hidden_act": "gelu_new"},
        {"norm_rel_ebd": "none"},
        {"embedding_size": 16},
        {"attention_head_size": 16},
        {"relative_attention": False},
        {"pos_att_type": ["c2p", "p2p"]},
        {"model_type": "bert"},
    ],
)
def test_other_variants_are_left_to_transformers(changes: dict[str, object]) -> None:
    assert DebertaConfig.read({**SETTINGS, **changes}) is None

"""The Rust kernel of DeBERTa's attention beside its reference in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_fast import _rust
from gliner_fast.cpu.openmp import parallel_address
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.encoders.native_attention import native_attention
from gliner_fast.kernels.attention_reference import Positions, Rotations, disentangled_attention_reference

CONFIG = {
    "model_type": "deberta-v2", "hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 2,
    "intermediate_size": 64, "vocab_size": 101, "relative_attention": True, "position_buckets": 32,
    "max_position_embeddings": 64, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False, "type_vocab_size": 0,
}  # fmt: skip


def inputs(
    lengths: list[int], heads: int, head_dim: int, kinds: str, seed: int, *, biased: bool = False
) -> tuple[torch.Tensor, Positions]:
    """Random vectors and numbers, and rows that come in no order at all."""
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(sum(lengths), 3, heads, head_dim, generator=generator)
    tables = torch.randn(2, heads, 11, head_dim, generator=generator) * 0.3
    farthest = max(lengths, default=0) + 2
    rows = torch.randint(0, 11, (2 * farthest + 1,), generator=generator, dtype=torch.int32)
    keys, queries = (table if name in kinds else None for name, table in zip(("c2p", "p2c"), tables, strict=True))
    biases = torch.randn(heads, len(rows), generator=generator) if biased else None
    return qkv, Positions(keys, queries, rows, biases)


def expected(
    qkv: torch.Tensor, positions: Positions, lengths: list[int], scale: float, window: int | None = None
) -> torch.Tensor:
    """The reference in float64."""
    exact = Positions(
        None if positions.keys is None else positions.keys.double(),
        None if positions.queries is None else positions.queries.double(),
        positions.rows,
        None if positions.biases is None else positions.biases.double(),
    )
    return disentangled_attention_reference(qkv.double(), exact, lengths=lengths, scale=scale, window=window)


@settings(max_examples=150)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 9), st.integers(90, 130)), max_size=5),
    heads=st.integers(1, 7),
    head_dim=st.integers(1, 40),
    kinds=st.sampled_from(["c2p p2c", "c2p", "p2c", ""]),
    window=st.one_of(st.none(), st.integers(0, 140)),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_random_texts(lengths, heads, head_dim, kinds, window, biased, seed):
    qkv, positions = inputs(lengths, heads, head_dim, kinds, seed, biased=biased)
    out = native_attention(qkv, positions, lengths=lengths, scale=0.2, window=window)
    assert out.shape == (sum(lengths), heads, head_dim)
    torch.testing.assert_close(out.double(), expected(qkv, positions, lengths, 0.2, window), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 40])
def test_queries_and_keys_are_turned(window, dtype):
    lengths = [5, 0, 130, 33]
    qkv, positions = inputs(lengths, 5, 16, "c2p p2c", 0)
    angles = torch.rand(140, 8, generator=torch.Generator().manual_seed(1)) * 6.0  # of more places than there are
    rotations = Rotations(angles.cos(), angles.sin())
    places = torch.cat([torch.arange(length) for length in lengths])
    qkv = qkv.to(dtype)
    turned = rotations.rotate(qkv.double(), places)
    # Points of a plane, turned: the reference is itself checked by complex numbers.
    plane = torch.complex(*qkv.double().chunk(2, -1)) * torch.polar(torch.ones(()), angles)[places, None, None]
    torch.testing.assert_close(turned[:, :2], torch.cat([plane.real, plane.imag], -1)[:, :2], rtol=0, atol=1e-5)
    assert torch.equal(turned[:, 2], qkv[:, 2].double())
    out = native_attention(qkv, positions, lengths=lengths, scale=0.2, rotations=rotations, window=window)
    assert out.dtype is dtype
    near = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(out.double(), expected(turned, positions, lengths, 0.2, window), rtol=0, atol=near)


@pytest.mark.parametrize("head_dim", [32, 64])
@pytest.mark.parametrize("lengths", [[512, 1, 385], [384], [97, 96, 95, 13, 12, 11]], ids=str)
def test_a_model_s_sizes_and_buckets(lengths, head_dim):
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    qkv, positions = inputs(lengths, 2, head_dim, "c2p p2c", 0)
    tables = torch.randn(2, 2, 2 * config.span, head_dim, generator=torch.Generator().manual_seed(1))
    positions = Positions(*tables, position_rows(max(lengths), config).int())
    out = native_attention(qkv, positions, lengths=lengths, scale=0.1)
    torch.testing.assert_close(out.double(), expected(qkv, positions, lengths, 0.1), rtol=0, atol=3e-5)


def test_large_scores_do_not_overflow():
    qkv, positions = inputs([40], 2, 16, "c2p p2c", 0)
    qkv *= 30.0
    out = native_attention(qkv, positions, lengths=[40], scale=1.0)
    torch.testing.assert_close(out.double(), expected(qkv, positions, [40], 1.0), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_stay_in_their_text(value):
    qkv, positions = inputs([5, 60, 4], 2, 16, "c2p p2c", 0)
    clean = native_attention(qkv, positions, lengths=[5, 60, 4], scale=0.1)
    qkv[30, 1] = value  # a key of the second text
    out = native_attention(qkv, positions, lengths=[5, 60, 4], scale=0.1)
    assert out[5:65].isnan().all()
    assert torch.equal(out[:5], clean[:5])
    assert torch.equal(out[65:], clean[65:])


@pytest.mark.parametrize("openmp", [0, parallel_address()], ids=["new", "torch"])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_text_s_result_is_its_own_whoever_works(openmp, threads):
    lengths = [290, 7, 0, 199]  # as much work as three new threads are worth
    qkv, positions = inputs(lengths, 4, 64, "c2p p2c", 0)
    assert positions.keys is not None
    assert positions.queries is not None
    tables = [positions.keys.numpy(), positions.queries.numpy(), positions.rows.numpy()]

    def attend(rows: slice, own: list[int], threads: int, openmp: int) -> np.ndarray:
        out = np.full((sum(own), 4, 64), np.nan, np.float32)
        _rust.attention(qkv[rows].numpy(), *tables, None, None, None, np.array(own), 0.1, out, threads, openmp)
        return out

    together = attend(slice(None), lengths, threads, openmp)
    starts = np.cumsum(lengths) - lengths
    alone = [attend(slice(at, at + n), [n], 1, 0) for at, n in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"qkv": np.zeros((4, 2, 2, 3), np.float32)}, "qkv has 2 kinds of vectors"),
        (
            {
                "qkv": np.zeros((4, 3, 0, 3), np.float32),
                "out": np.zeros((4, 0, 3), np.float32),
                "keys": None,
                "queries": None,
            },
            "no heads",
        ),
        ({"qkv": np.zeros((4, 3, 2, 6), np.float32)[..., ::2]}, "qkv is not C-contiguous"),
        ({"keys": np.zeros((2, 5, 4), np.float32)}, r"keys is \[2, 5, 4\]: expected 2 heads"),
        ({"queries": np.zeros((2, 6, 3), np.float32)}, r"queries is \[2, 6, 3\]: expected 2 heads, as many rows"),
        ({"by_distance": np.zeros(3, np.int32)}, "at least 5 for a text of 3"),
        ({"by_distance": np.full(7, 5, np.int32)}, r"by_distance\[0\] is 5: expected a row below 5"),
        ({"lengths": np.array([3, 2])}, "qkv has 72 values: expected 90"),
        ({"lengths": np.array([5, -1])}, r"lengths\[1\] is -1"),
        ({"out": np.zeros((2, 4, 3), np.float32)}, r"out is \[2, 4, 3\]: expected 4 subwords, 2 heads, vectors of 3"),
        ({"out": np.zeros((4, 3, 2), np.float32)}, r"out is \[4, 3, 2\]: expected 4 subwords, 2 heads, vectors of 3"),
        ({"out": np.zeros((4, 2, 6), np.float32)[..., ::2]}, "out is not C-contiguous"),
        ({"out": np.zeros((4, 2, 3), np.float32, order="F")}, "out is not C-contiguous"),
        ({"threads": -1}, "threads is -1"),
        ({"window": -1}, "window is -1"),
        ({"rotations": (np.zeros((3, 2), np.float32),) * 2}, r"cosines is \[3, 2\]: expected 1 angles for each place"),
        (
            {"qkv": np.zeros((4, 3, 3, 2), np.float32), "out": np.zeros((4, 3, 2), np.float32), "keys": None}
            | {"queries": None, "rotations": (np.zeros((2, 1), np.float32),) * 2},
            "cosines has 2 values: expected 1 for each place, at least 3 places",
        ),
        (
            {"qkv": np.zeros((4, 3, 2, 4), np.float32), "out": np.zeros((4, 2, 4), np.float32), "keys": None}
            | {"queries": None, "rotations": (np.zeros((6, 1), np.float32),) * 2},
            r"cosines is \[6, 1\]: expected 2 angles for each place",
        ),
        ({"biases": np.zeros((2, 6), np.float32)}, r"biases is \[2, 6\]: expected 2 heads, and as many distances"),
        ({"biases": np.zeros((1, 7), np.float32)}, r"biases is \[1, 7\]: expected 2 heads"),
        (
            {
                "keys": None,
                "queries": None,
                "by_distance": np.zeros(3, np.int32),
                "biases": np.zeros((2, 3), np.float32),
            },
            "at least 5 for a text of 3",
        ),
        ({"rotations": (np.zeros((3, 1), np.float32),) * 2}, "heads of 3 numbers cannot be turned"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, told):
    given = {
        "qkv": np.zeros((4, 3, 2, 3), np.float32),
        "keys": np.zeros((2, 5, 3), np.float32),
        "queries": np.zeros((2, 5, 3), np.float32),
        "by_distance": np.zeros(7, np.int32),
        "biases": None,
        "rotations": None,
        "window": None,
        "lengths": np.array([3, 1]),
        "scale": 1.0,
        "out": np.full((4, 2, 3), np.nan, np.float32),
        "threads": 1,
    }
    _rust.attention(**given, openmp=0)
    assert not given["out"].any()
    with pytest.raises(ValueError, match=told):
        _rust.attention(**given | change, openmp=0)


@pytest.mark.parametrize(("kind", "of_out"), [(np.float32, np.uint16), (np.uint16, np.float32), (np.uint16, np.int16)])
def test_out_is_of_the_kind_of_what_goes_in(kind, of_out):
    qkv, out = np.zeros((3, 3, 1, 4), kind), np.zeros((3, 1, 4), of_out)
    with pytest.raises(TypeError, match="argument 'out': "):
        _rust.attention(qkv, None, None, np.zeros(1, np.int32), None, None, None, np.array([3]), 1.0, out, 1, 0)


def test_another_dtype_is_refused():
    qkv, positions = inputs([3], 1, 4, "c2p", 0)
    with pytest.raises(TypeError, match="qkv is torch.float64 on cpu: expected fp32, bf16 or fp16 on the CPU"):
        native_attention(qkv.double(), positions, lengths=[3], scale=1.0)


def small_encoder() -> DebertaEncoder:
    config = DebertaConfig.read(CONFIG)
    assert config is not None
    torch.manual_seed(0)
    return DebertaEncoder(config).eval()


def test_under_autocast_torch_attends(monkeypatch):
    monkeypatch.setenv("GLINER_FAST_ATTENTION", "rust")
    encoder, given = small_encoder(), (torch.arange(1, 8), torch.tensor([4, 3]), torch.tensor([0, 4, 7]))
    with torch.inference_mode():
        exact = encoder(*given)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(*given)
        again = encoder(*given)
    assert 0 < (rough - exact).abs().max() < 0.2  # of another precision
    assert torch.equal(again, exact)  # and nothing of it is kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch", "ignore::torch.jit.TracerWarning")
def test_a_traced_encoder_holds_torch_s_products(monkeypatch):
    monkeypatch.setenv("GLINER_FAST_ATTENTION", "rust")
    encoder = small_encoder()
    lengths, offsets = torch.tensor([4, 3]), torch.tensor([0, 4, 7])
    with torch.no_grad():
        traced = torch.jit.trace(encoder, (torch.arange(1, 8), lengths, offsets), check_trace=False)
        other = torch.arange(20, 27)
        torch.testing.assert_close(traced(other, lengths, offsets), encoder(other, lengths, offsets), rtol=0, atol=1e-4)

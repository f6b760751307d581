"""ModernBERT over packed texts beside transformers' own run over padded ones."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from gliner_fast.encoder import TransformersEncoder
from gliner_fast.encoders import packed_modernbert
from gliner_fast.encoders.attention_executor import VARIABLE, PackedTexts, attend
from gliner_fast.kernels import _triton, disentangled_attention, rotations
from gliner_fast.kernels._triton import INTERPRETED
from gliner_fast.kernels.attention_reference import Positions, Rotations
from tests.encoders.test_packed_bert import texts_of
from tests.installed import TRANSFORMERS

SETTINGS = {
    "model_type": "modernbert", "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": 300, "local_attention": 8, "global_attn_every_n_layers": 2,
    "global_rope_theta": 1_000.0, "local_rope_theta": 20.0, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0,
    "cls_token_id": 0, "sep_token_id": 0,
}  # fmt: skip
# Windows of 4 subwords on either side; texts at its ends, and of several blocks of the native kernel.
LENGTHS = [[1], [3, 1], [6, 5, 5, 4], [9, 9, 8], [230, 97, 1, 1]]
CHANGES = {
    "as published": {},
    "with biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
    "dropout": {"attention_dropout": 0.5, "mlp_dropout": 0.5, "embedding_dropout": 0.5},
    "another activation": {"hidden_activation": "silu"},
}


def make_encoder(attention: str = "sdpa", **changes: object) -> TransformersEncoder:
    if TRANSFORMERS < (5, 1):
        pytest.skip("before transformers 5.1 ModernBERT has other modules, and is run as it is")
    torch.manual_seed(0)
    encoder = TransformersEncoder({**SETTINGS, **changes}, attention).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(0.0, 1.0 if weight.dim() == 1 else 1.5 * weight.shape[-1] ** -0.5)
    return encoder


def run_both(encoder: TransformersEncoder, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of padded texts, of packed ones, and of these the last, and the first twice, asked for by themselves."""
    ids, is_subword = texts_of(lengths)
    counts, offsets = torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)])
    with torch.inference_mode():
        padded = encoder(ids, counts)[is_subword]
        packed = encoder(ids[is_subword], counts, offsets)
        some = encoder(ids[is_subword], counts, offsets, wanted=torch.tensor([len(packed) - 1, 0, 0]))
    return padded, packed, some


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("executor", ["grouped", "torch"])
def test_hidden_states_are_those_of_padded_texts(
    executor: str, changes: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    padded, packed, some = run_both(make_encoder(**CHANGES[changes]).double(), lengths)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5)  # what is turned is rounded to float32 there
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_so_are_they_by_the_native_kernel(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rust")
    encoder = make_encoder()
    padded, packed, some = run_both(encoder, lengths)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    torch.testing.assert_close(some, packed[[-1, 0, 0]], rtol=0, atol=1e-5)


def test_what_is_far_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(layer_types=["sliding_attention"] * 2 + ["full_attention"])
    encoder.model.layers = encoder.model.layers[:2]  # through one that sees all nothing would be far
    counts, offsets = torch.tensor([60]), torch.tensor([0, 60])
    ids = torch.arange(2, 62)
    other = ids.clone()
    other[-1] = 2
    for executor in ("grouped", "torch", "rust"):
        monkeypatch.setenv(VARIABLE, executor)
        with torch.inference_mode():
            changed = (encoder(ids, counts, offsets) - encoder(other, counts, offsets)).abs().amax(1) > 0
        assert changed.nonzero().flatten().tolist() == list(range(60 - 1 - 2 * 4, 60)), executor


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_as_near_as_those_of_padded_texts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, lengths = make_encoder(), [120, 33, 2]
    exact, _, _ = run_both(encoder.double(), lengths)
    for executor in ("rust", "grouped", "torch"):
        monkeypatch.setenv(VARIABLE, executor)
        padded, packed, _ = run_both(encoder.to(dtype), lengths)
        allowed = 1.5 * float((padded - exact).abs().mean())
        assert float((packed - exact).abs().mean()) <= allowed, executor


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
def test_the_kernel_of_disentangled_attention_sees_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, lengths = make_encoder(hidden_size=64, num_attention_heads=2, local_attention=60), [100, 33, 1, 70, 2]
    windows, turned = [], []
    rotate = rotations.rotate_in_place
    monkeypatch.setattr(rotations, "rotate_in_place", lambda *given: turned.append(given[0].shape) or rotate(*given))
    monkeypatch.setattr(rotations.Rotations, "rotate", None)  # whom nobody calls
    kernel = disentangled_attention.disentangled_attention
    monkeypatch.setattr(
        disentangled_attention,
        "disentangled_attention",
        lambda qkv, positions, **options: windows.append(options["window"]) or kernel(qkv, positions, **options),
    )
    monkeypatch.setenv(VARIABLE, "triton")
    ids, is_subword = texts_of(lengths)
    counts, offsets = torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)])
    with torch.inference_mode():
        padded = encoder(ids, counts)[is_subword]
        packed = encoder(ids[is_subword], counts, offsets)
    assert windows == [None, 30, None]
    assert turned == [(206, 3, 2, 32)] * 3
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_queries_and_keys_are_turned_where_they_lie_by_triton_alone(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    texts, angles = PackedTexts([9, 4], torch.tensor([0, 9, 13])), torch.rand(9, 8) * 6
    positions = Positions(None, None, torch.zeros(17, dtype=torch.int32))
    given = torch.randn(13, 2, 3, 16).to(dtype).transpose(1, 2)  # (N, 3, H, d), not one number after another
    options = {"scale": 0.25, "rotations": Rotations(angles.cos(), angles.sin()), "window": 3}
    expected = attend(given.double(), positions, texts, executor="torch", **options)
    errors = {}
    for executor in ("torch", "rust", "triton"):
        qkv = given.contiguous()
        with torch.inference_mode():
            found = attend(qkv, positions, texts, executor=executor, **options)
            assert torch.equal(attend(given, positions, texts, executor=executor, **options), found)
        errors[executor] = float((found.double() - expected).abs().max())
        assert torch.equal(qkv, given) is (executor != "triton")
    assert max(errors.values()) <= 2 * errors["torch"] + 1e-5


@pytest.mark.parametrize("executor", ["grouped", "torch", "rust", "triton"])
def test_where_a_gradient_is_wanted_packed_texts_have_one(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "INTERPRETED", True)
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    encoder = make_encoder()
    ids, is_subword = texts_of([5, 3])

    def gradient(*given: torch.Tensor) -> torch.Tensor:
        encoder.zero_grad()
        hidden = encoder(*given)
        (hidden if hidden.dim() == 2 else hidden[is_subword]).square().sum().backward()
        return encoder.model.layers[1].attn.Wqkv.weight.grad.clone()

    counts = torch.tensor([5, 3])
    expected = gradient(ids, counts)
    monkeypatch.setenv(VARIABLE, executor)
    found = gradient(ids[is_subword], counts, torch.tensor([0, 5, 8]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_under_autocast_torch_attends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "rust")
    encoder, given = make_encoder(), (torch.arange(2, 9), torch.tensor([4, 3]), torch.tensor([0, 4, 7]))
    with torch.inference_mode():
        exact = encoder(*given)
        monkeypatch.setattr(packed_modernbert, "attend", None)  # whom nobody calls
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(*given)
            padded = encoder(torch.tensor([[2, 3, 4, 5], [6, 7, 8, 1]]), given[1]).flatten(0, 1)[:7]
    assert rough.dtype is padded.dtype is torch.float32  # what layers add up, 16 bits do not hold
    assert 0 < (rough - exact).abs().mean() < 1.2 * (padded - exact).abs().mean()


def test_no_subwords_have_no_hidden_states() -> None:
    with torch.inference_mode():
        found = make_encoder()(torch.zeros(0, dtype=torch.int64), torch.zeros(0).long(), torch.tensor([0]))
    assert found.shape == (0, 32)


def test_the_last_layer_is_finished_for_wanted_rows_alone() -> None:
    encoder = make_encoder()
    rows = []
    encoder.model.layers[-1].mlp.Wo.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    with torch.inference_mode():
        encoder(torch.arange(2, 10), torch.tensor([5, 3]), torch.tensor([0, 5, 8]), wanted=torch.tensor([6]))
    assert rows == [1]


def test_something_in_the_place_of_a_layer_is_asked_too() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return 2 * super().forward(input)

    encoder = make_encoder()
    _, plain, _ = run_both(encoder, [6, 4])
    for layer in encoder.model.layers:
        layer.mlp.Wi.__class__ = layer.attn.Wo.__class__ = Doubled
    padded, packed, _ = run_both(encoder, [6, 4])
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    assert (packed - plain).abs().max() > 0.1


@pytest.mark.parametrize(
    ("attention", "changes", "reads_packed"),
    [
        ("sdpa", {}, True),
        ("eager", {}, False),
        # Angles that depend on the longest text of a batch.
        ("sdpa", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
        ("sdpa", {"local_attention": -2}, False),  # transformers sees nothing, and so everything, then
        ("sdpa", {"local_attention": 0}, True),
    ],
)
def test_who_reads_packed_texts(attention: str, changes: dict[str, object], reads_packed: bool) -> None:
    assert make_encoder(attention, **changes).reads_packed is reads_packed


def test_another_activation_put_in_is_the_one_that_computes() -> None:
    encoder = make_encoder()
    _, plain, _ = run_both(encoder, [6, 4])
    for layer in encoder.model.layers:
        layer.mlp.act = torch.nn.SiLU().eval()
    padded, packed, _ = run_both(encoder, [6, 4])
    assert encoder.reads_packed
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)
    assert (packed - plain).abs().max() > 0.1


def test_what_a_hook_keeps_is_not_written_to() -> None:
    encoder, kept = make_encoder(), []
    encoder.model.layers[1].attn.Wo.register_forward_hook(lambda *given: kept.append((given[2], given[2].clone())))
    run_both(encoder, [6, 4])
    assert len(kept) == 3
    assert all(torch.equal(one, other) for one, other in kept)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
def test_a_window_as_wide_as_numbers_go_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = make_encoder(hidden_size=64, num_attention_heads=2, local_attention=2 * (2**31 - 1))
    monkeypatch.setenv(VARIABLE, "triton")
    padded, packed, _ = run_both(encoder, [40])
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-4)

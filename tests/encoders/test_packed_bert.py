"""BERT's kin over packed texts beside transformers' own run over padded ones."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from gliner_fast.encoder import TransformersEncoder
from gliner_fast.encoders.attention_executor import VARIABLE, runs_of_equals
from gliner_fast.kernels import _triton, disentangled_attention
from gliner_fast.kernels._triton import INTERPRETED
from tests.installed import HAS_FLASH, TRANSFORMERS

SETTINGS = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 140, "type_vocab_size": 2, "pad_token_id": 1,
}  # fmt: skip
KINDS = {
    "bert": {},
    "roberta": {"type_vocab_size": 1},
    "xlm-roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "electra": {"embedding_size": 24},
    "ernie": {"use_task_id": True},
    "data2vec-text": {"type_vocab_size": 1},
}
LENGTHS = [[1], [3, 1], [9, 9, 8], [130, 129, 1, 1]]


def make_encoder(kind: str, attention: str = "sdpa", **changes: object) -> TransformersEncoder:
    if kind == "electra" and TRANSFORMERS < (5,):
        pytest.skip("in transformers 4 ELECTRA has no attention by torch, and is run as it is")
    torch.manual_seed(0)
    settings = {**SETTINGS, **KINDS.get(kind, {}), "model_type": kind, **changes}
    encoder = TransformersEncoder(settings, attention).eval()
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.normal_(0.0, 1.0 if weight.dim() == 1 else weight.shape[-1] ** -0.5)
    return encoder


def texts_of(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids, and True where there is a subword; some are the padding's own, which RoBERTa does not count."""
    is_subword = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(2, 101, is_subword.shape, generator=torch.Generator().manual_seed(1))
    ids[:, 2::5] = 1
    return ids.masked_fill(~is_subword, 1), is_subword


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("executor", ["grouped", "torch"])
def test_hidden_states_are_those_of_padded_texts(
    executor: str, kind: str, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    encoder = make_encoder(kind).double()
    ids, is_subword = texts_of(lengths)
    counts, offsets = torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)])
    with torch.inference_mode():
        padded = encoder(ids, counts)[is_subword]
        packed = encoder(ids[is_subword], counts, offsets)
        wanted = torch.tensor([len(packed) - 1, 0, 0])
        some = encoder(ids[is_subword], counts, offsets, wanted=wanted)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-9)
    torch.testing.assert_close(some, padded[wanted], rtol=0, atol=1e-9)


@pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_kernel_of_disentangled_attention_attends_without_positions(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, lengths = make_encoder(kind, hidden_size=64, num_attention_heads=2), [33, 1, 70, 2]
    ids, is_subword = texts_of(lengths)
    counts, offsets = torch.tensor(lengths), torch.tensor([0, *accumulate(lengths)])
    with torch.inference_mode():
        padded = encoder(ids, counts)[is_subword]
        started = []
        kernel = disentangled_attention.disentangled_attention
        monkeypatch.setattr(
            disentangled_attention,
            "disentangled_attention",
            lambda qkv, positions, **options: started.append(positions) or kernel(qkv, positions, **options),
        )
        monkeypatch.setenv(VARIABLE, "triton")
        packed = encoder(ids[is_subword], counts, offsets)
    assert [(positions.keys, positions.queries) for positions in started] == [(None, None)] * 2  # layers
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-5 * float(padded.abs().max()))


@pytest.mark.parametrize("executor", ["grouped", "torch", "triton"])
def test_where_a_gradient_is_wanted_packed_texts_have_one(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "INTERPRETED", True)
    monkeypatch.setattr(_triton, "HAS_TRITON", True)
    monkeypatch.setenv(VARIABLE, executor)
    encoder = make_encoder("bert")
    encoder(torch.arange(2, 10), torch.tensor([5, 3]), torch.tensor([0, 5, 8])).square().sum().backward()
    attention = encoder.model.encoder.layer[0].attention.self
    for projection in (attention.query, attention.key, attention.value):
        assert projection.weight.grad.abs().sum() > 0


def test_no_subwords_have_no_hidden_states() -> None:
    with torch.inference_mode():
        found = make_encoder("bert")(torch.zeros(0, dtype=torch.int64), torch.zeros(0).long(), torch.tensor([0]))
    assert found.shape == (0, 32)


def test_the_last_layer_is_finished_for_wanted_rows_alone() -> None:
    encoder = make_encoder("bert")
    ids, is_subword = texts_of([5, 3])
    rows = []
    encoder.model.encoder.layer[-1].output.dense.register_forward_hook(lambda _, given, __: rows.append(len(given[0])))
    with torch.inference_mode():
        encoder(ids[is_subword], torch.tensor([5, 3]), torch.tensor([0, 5, 8]), wanted=torch.tensor([6]))
    assert rows == [1]


def test_something_in_the_place_of_a_layer_is_asked_too() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return 2 * super().forward(input)

    encoder = make_encoder("bert").double()
    for layer in encoder.model.encoder.layer:
        layer.intermediate.dense.__class__ = Doubled
    ids, is_subword = texts_of([6, 4])
    counts, offsets = torch.tensor([6, 4]), torch.tensor([0, 6, 10])
    with torch.inference_mode():
        padded, packed = encoder(ids, counts)[is_subword], encoder(ids[is_subword], counts, offsets)
    torch.testing.assert_close(packed, padded, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "attention", "changes", "reads_packed"),
    [
        ("bert", "sdpa", {}, True),
        ("electra", "sdpa", {}, True),
        ("ernie", "sdpa", {}, True),
        ("data2vec-text", "sdpa", {}, True),
        ("bert", "eager", {}, False),
        ("bert", "sdpa", {"hidden_act": "relu"}, False),
        ("albert", "sdpa", {"embedding_size": 16}, False),
    ],
)
def test_who_reads_packed_texts(
    kind: str, attention: str, changes: dict[str, object], reads_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    encoder = make_encoder(kind, attention, **changes)
    assert encoder.reads_packed is reads_packed
    monkeypatch.setenv(VARIABLE, "torch")
    assert encoder.reads_packed is reads_packed
    for name in ["padded", *(["disentangled-flash"] if HAS_FLASH else [])]:  # the latter has DeBERTa's attention alone
        monkeypatch.setenv(VARIABLE, name)
        assert not encoder.reads_packed


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_name_that_no_attention_has_is_told_whatever_the_encoder(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "flashy")
    with pytest.raises(ValueError, match="GLINER_FAST_ATTENTION is 'flashy'"):
        _ = make_encoder(kind).reads_packed


def test_neighbours_of_one_length_are_found() -> None:
    assert runs_of_equals([4, 4, 3, 1, 1, 0]) == [(slice(0, 8), 4), (slice(8, 11), 3), (slice(11, 13), 1)]
    assert runs_of_equals([]) == []

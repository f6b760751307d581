"""`torch.compile` around a network or its encoder: the same answers, and batches as what is compiled reads them."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gliner_fast import GLiNER
from gliner_fast.compiling import is_compiled
from gliner_fast.network import Network
from tests.small_network import small_batch, small_network

TEXT, LABELS = "Ada Lovelace wrote to Charles Babbage in London.", ["person", "city"]
# Dynamo tells of each place where it goes on without the compiler.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Backend:
    """All of the compiler but the code that it makes; counts its pieces."""

    def __init__(self) -> None:
        self.pieces = 0

    def __call__(self, graph: Any, _: Any) -> Any:
        self.pieces += 1
        return graph


def wrap(model: GLiNER, backend: Backend) -> None:
    model.model = torch.compile(model.model, backend=backend)  # type: ignore[assignment]


def wrap_encoder(model: GLiNER, backend: Backend) -> None:
    model.model.encoder = torch.compile(model.model.encoder, backend=backend)  # type: ignore[assignment]


def compile_encoder(model: GLiNER, backend: Backend) -> None:
    model.model.encoder.compile(backend=backend)


def agree(found: Any, wanted: Any) -> bool:
    scores = [entity["score"] for entity in wanted]
    return [e["start"] for e in found] == [e["start"] for e in wanted] and scores == pytest.approx(
        [entity["score"] for entity in found], abs=1e-4
    )


@pytest.mark.parametrize(
    ("way", "kind"),
    # Where the encoder alone is compiled, "token" would be the first once more: it differs in what scores.
    [(wrap, "deberta"), (wrap, "bert"), (wrap, "token"), (wrap_encoder, "deberta"), (wrap_encoder, "bert"),
     (compile_encoder, "deberta"), (compile_encoder, "bert")],
)  # fmt: skip
def test_what_torch_wraps_answers_as_before(way: Any, kind: str, checkpoint: Callable[[str], Path]) -> None:
    torch.compiler.reset()
    model = GLiNER.from_pretrained(checkpoint(kind))
    wanted = model.predict_entities(TEXT, LABELS, threshold=0.1)
    network, encoder, backend = model.model, model.model.encoder, Backend()
    if way is not compile_encoder:
        model.quantize("int16")
    way(model, backend)
    for _ in range(2):
        assert agree(model.predict_entities(TEXT, LABELS, threshold=0.1), wanted)
    assert backend.pieces > 0
    assert model.model is network
    assert model.model.encoder is encoder
    assert is_compiled(network) == (way is wrap)
    assert (network.is_compiled, network.reads_packed) == (True, False)
    assert model.precision == "float32"
    with pytest.raises(ValueError, match="int16 is not compiled"):
        model.quantize("int16")
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    for again in copies:
        assert not again.model.is_compiled
        assert agree(again.predict_entities(TEXT, LABELS, threshold=0.1), wanted)


def test_a_wrapped_network_is_compiled_as_by_its_own_method(checkpoint: Callable[[str], Path]) -> None:
    pieces = []
    for compile_it in (wrap, lambda model, backend: model.model.compile(backend=backend)):
        torch.compiler.reset()
        model, backend = GLiNER.from_pretrained(checkpoint("deberta")), Backend()
        compile_it(model, backend)
        model.predict_entities(TEXT, LABELS)
        pieces.append(backend.pieces)
    assert pieces[0] == pieces[1] > 0


def copied(network: Network) -> Network:
    return copy.copy(network)


def pickled(network: Network) -> Network:
    again: Network = pickle.loads(pickle.dumps(network))
    return again


@pytest.mark.parametrize("make", [copied, copy.deepcopy, pickled])
def test_a_copy_is_not_compiled_and_leaves_the_original_so(make: Callable[[Network], Network]) -> None:
    network = small_network()
    with torch.inference_mode():
        wanted = network(small_batch()).logits
    network.compile(backend=Backend())
    parts = {"scorer": network.scorer, "rnn": network.rnn}
    left_out = {name: {*part.__dict__} & {"forward", "find", "executor_for"} for name, part in parts.items() if part}
    again = make(network)
    assert network.is_compiled
    assert {name: {*part.__dict__} & left_out[name] for name, part in parts.items() if part} == left_out
    assert not again.is_compiled
    for module in (again, again.scorer, again.rnn):
        assert module is None or not {*module.__dict__} & {"forward", "find", "executor_for", "label_vectors"}
    with torch.inference_mode():
        torch.testing.assert_close(again(small_batch()).logits, wanted)


@pytest.mark.parametrize("part", ["scorer", "rnn", "projection"])
def test_other_parts_are_not_compiled_by_themselves(part: str) -> None:
    network = small_network()
    with pytest.raises(ValueError, match=rf"{part} is not compiled by itself: .*model\.compile\(\)"):
        setattr(network, part, torch.compile(getattr(network, part), backend="eager"))
    with torch.inference_mode():
        network(small_batch())
    assert not network.is_compiled


def test_torch_s_quantization_says_what_it_leaves(recwarn: pytest.WarningsRecorder) -> None:
    network = small_network()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "torch's quantization")
        again = copy.deepcopy(network)
    with torch.inference_mode():
        wanted = network(small_batch()).logits
        told = r"linear layers of this model in float32: model\.quantize\(\) multiplies whole numbers of 8 or 16 bits"
        with pytest.warns(UserWarning, match=told):
            quantized = torch.ao.quantization.quantize_dynamic(again, {torch.nn.Linear}, dtype=torch.qint8)
        torch.testing.assert_close(quantized(small_batch()).logits, wanted)
    assert not hasattr(quantized, "qconfig")

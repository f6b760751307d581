"""What is recorded of the encoder for one text at a time, by a stand-in that runs it again; kernels are interpreted."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from gliner_fast.cpu.linear import VARIABLE as LINEAR
from gliner_fast.encoders import cuda_graphs, deberta
from gliner_fast.encoders.attention_executor import VARIABLE as ATTENTION
from gliner_fast.encoders.cuda_graphs import EncoderGraphs, Weights, wants_graphs
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.residual_norm import VARIABLE as NORM
from gliner_fast.kernels._triton import INTERPRETED
from tests.encoders.test_deberta import pair

needs_interpreter = pytest.mark.skipif(not INTERPRETED, reason="needs Triton, and a machine without a GPU")


class Recorder:
    """As CUDA records: the function is called once before, and what repeats it writes where the first result lies."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.recorded += 1
        run()
        out = run()

        def replay() -> None:
            self.replayed += 1
            out.copy_(run())

        return replay, out


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> tuple[DebertaEncoder, Recorder]:
    """An encoder that has each single text recorded."""
    monkeypatch.setenv(ATTENTION, "triton")
    monkeypatch.setattr(deberta, "wants_graphs", lambda ids, _, texts: texts == 1 and len(ids) > 0)
    _, encoder = pair(hidden_size=64, num_attention_heads=2)
    recorder = Recorder()
    encoder._graphs = EncoderGraphs(recorder)
    return encoder, recorder


def run(encoder: DebertaEncoder, length: int, wanted: list[int], seed: int = 0) -> Tensor:
    ids = torch.randint(3, 101, (length,), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        hidden: Tensor = encoder(ids, torch.tensor([length]), torch.tensor([0, length]), wanted=torch.tensor(wanted))
    return hidden


def run_without(encoder: DebertaEncoder, length: int, wanted: list[int], seed: int = 0) -> Tensor:
    plain = DebertaEncoder(encoder.config).eval()
    plain.load_state_dict(encoder.state_dict())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(deberta, "wants_graphs", lambda *_: False)
        return run(plain, length, wanted, seed)


@needs_interpreter
def test_texts_of_any_length_have_the_hidden_states_that_they_have_without(recorded):
    encoder, recorder = recorded
    # Each side of a bucket's end; longer and shorter ones after each other, in memory that the last one left.
    for seed, length in enumerate([5, 1, 31, 32, 33, 2, 64, 32, 9]):
        wanted = [length - 1, 0, length // 2]
        found = run(encoder, length, wanted, seed)
        torch.testing.assert_close(found, run_without(encoder, length, wanted, seed), rtol=0, atol=1e-5)
    assert recorder.recorded == 2  # up to 32, up to 64
    assert recorder.replayed == 9


@needs_interpreter
def test_what_lies_behind_a_text_is_never_read(recorded, monkeypatch: pytest.MonkeyPatch):
    encoder, _ = recorded
    expected = run_without(encoder, 20, [19, 3])
    new_empty = Tensor.new_empty

    def of_nan(like: Tensor, *size: int, **options: Any) -> Tensor:
        # What the kernel does not write is what the memory held before: the worst of it, here.
        empty = new_empty(like, *size, **options)
        return empty.fill_(torch.nan) if empty.is_floating_point() else empty

    monkeypatch.setattr(Tensor, "new_empty", of_nan)
    torch.testing.assert_close(run(encoder, 20, [19, 3]), expected, rtol=0, atol=1e-5)


@needs_interpreter
def test_a_result_outlives_the_next_text(recorded):
    encoder, _ = recorded
    first = run(encoder, 9, [0, 8])
    kept = first.clone()
    run(encoder, 9, [0, 8], seed=1)
    assert torch.equal(first, kept)


@needs_interpreter
def test_more_rows_may_be_wanted_than_there_are_subwords(recorded):
    encoder, _ = recorded
    wanted = [index % 5 for index in range(40)]
    found = run(encoder, 5, wanted)
    torch.testing.assert_close(found, run_without(encoder, 5, wanted), rtol=0, atol=1e-5)


@needs_interpreter
@pytest.mark.parametrize("name", ["layers.0.qkv.weight", "layers.1.output.bias", "relative_embeddings.weight"])
def test_other_weights_are_recorded_anew(name: str, recorded):
    encoder, recorder = recorded
    before = run(encoder, 9, [0, 8])
    owner, _, leaf = name.rpartition(".")
    for changes, change in enumerate(["in place", "its data", "replaced"], 1):
        module, weight = encoder.get_submodule(owner), encoder.get_parameter(name)
        other = torch.randn(weight.shape)
        with torch.no_grad():
            if change == "in place":
                weight.copy_(other)
            elif change == "its data":
                weight.data = other
            else:
                setattr(module, leaf, torch.nn.Parameter(other))
        after = run(encoder, 9, [0, 8])
        assert recorder.recorded == 1 + changes, change
        assert not torch.allclose(after, before, atol=1e-3)
        torch.testing.assert_close(after, run_without(encoder, 9, [0, 8]), rtol=0, atol=1e-5)
        before = after


@needs_interpreter
@pytest.mark.parametrize("variable", [LINEAR, NORM])
def test_who_else_is_asked_for_is_recorded_anew(variable: str, recorded, monkeypatch: pytest.MonkeyPatch):
    encoder, recorder = recorded
    run(encoder, 9, [0, 8])
    monkeypatch.setenv(variable, "torch")
    run(encoder, 9, [0, 8])
    run(encoder, 9, [0, 8])
    assert recorder.recorded == 2
    monkeypatch.setattr(deberta, "allows_tf32", lambda: True)
    run(encoder, 9, [0, 8])
    assert recorder.recorded == 3


@needs_interpreter
def test_the_tables_that_were_recorded_stay_while_others_are_made(recorded, monkeypatch: pytest.MonkeyPatch):
    encoder, recorder = recorded
    first = run(encoder, 9, [0, 8])
    with torch.inference_mode():
        encoder(torch.randint(3, 101, (2, 9)), torch.tensor([9, 7]))  # padded: the tables mirrored
    torch.testing.assert_close(run(encoder, 9, [0, 8]), first, rtol=0, atol=0)
    assert recorder.recorded == 1
    (graph,) = encoder._graphs._recorded.values()
    tables, rows = graph.read  # by their addresses, on a card
    assert (len(tables), len(rows) > 9) == (len(encoder.layers), True)


@needs_interpreter
def test_batches_and_gradients_are_not_recorded(recorded):
    encoder, recorder = recorded
    ids = torch.randint(3, 101, (12,))
    with torch.inference_mode():
        encoder(ids, torch.tensor([7, 5]), torch.tensor([0, 7, 12]), wanted=torch.tensor([0]))
        encoder(ids, torch.tensor([12]), torch.tensor([0, 12]))  # all rows
    encoder(ids, torch.tensor([12]), torch.tensor([0, 12]), wanted=torch.tensor([0])).sum().backward()
    assert recorder.recorded == 0


@needs_interpreter
def test_a_copy_records_for_itself(recorded):
    encoder, _ = recorded
    first = run(encoder, 9, [0])
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other._graphs is not encoder._graphs
        assert other._graphs._recorded == {}
        other._graphs = EncoderGraphs(Recorder())
        torch.testing.assert_close(run(other, 9, [0]), first, rtol=0, atol=0)
        assert len(other._graphs._recorded) == 1


@needs_interpreter
def test_what_is_recorded_in_inference_mode_serves_without_it_and_the_other_way_round(recorded):
    encoder, recorder = recorded
    ids, lengths, offsets, wanted = torch.arange(3, 12), torch.tensor([9]), torch.tensor([0, 9]), torch.tensor([0, 8])
    first = run(encoder, 9, [0, 8])
    assert first.is_inference()
    with torch.no_grad():
        second = encoder(ids, lengths, offsets, wanted=wanted)
        second.add_(0)  # may be written to
        longer = torch.cat([ids, ids, ids, ids])
        encoder(longer, torch.tensor([36]), torch.tensor([0, 36]), wanted=wanted)
    run(encoder, 40, [0, 8])
    assert recorder.recorded == 2


@needs_interpreter
def test_a_layer_s_hook_is_called_for_every_text(recorded):
    encoder, recorder = recorded
    run(encoder, 9, [0, 8])
    called = []
    hook = encoder.layers[0].output_norm.register_forward_hook(lambda *_: called.append(1))
    for _ in range(3):
        run(encoder, 9, [0, 8])
    assert called == [1] * 3
    hook.remove()
    run(encoder, 9, [0, 8])
    assert (len(called), recorder.recorded) == (3, 1)


@needs_interpreter
def test_a_hook_of_the_whole_encoder_is_called_beside(recorded):
    encoder, recorder = recorded
    called = []
    encoder.register_forward_hook(lambda *_: called.append(1))
    for _ in range(2):
        run(encoder, 9, [0, 8])
    assert (len(called), recorder.recorded, recorder.replayed) == (2, 1, 2)


@needs_interpreter
def test_another_norm_in_the_place_of_one_is_recorded_anew(recorded):
    encoder, recorder = recorded
    before = run(encoder, 9, [0, 8])
    encoder.layers[1].output_norm = torch.nn.LayerNorm(64, 1e-2).eval()
    after = run(encoder, 9, [0, 8])
    assert recorder.recorded == 2
    assert not torch.allclose(after, before, atol=1e-3)


@needs_interpreter
def test_something_that_depends_on_more_than_its_weights_is_not_recorded(recorded):
    class Adapter(torch.nn.LayerNorm):
        scale = 1.0

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            return self.scale * super().forward(input)

    encoder, recorder = recorded
    adapter = encoder.layers[1].output_norm = Adapter(64).eval()
    first = run(encoder, 9, [0, 8])
    adapter.scale = 2.0
    torch.testing.assert_close(run(encoder, 9, [0, 8]), 2 * first, rtol=0, atol=0)
    assert recorder.recorded == 0


@needs_interpreter
def test_an_encoder_is_freed_with_what_was_recorded(recorded):
    encoder = copy.deepcopy(recorded[0])
    graphs = encoder._graphs = EncoderGraphs(lambda run: (lambda: None, run()))
    run(encoder, 9, [0, 8])
    assert graphs._recorded
    gone = weakref.ref(encoder)
    gc.disable()  # a card's memory does not wait for the collector
    try:
        del encoder
        assert gone() is None
    finally:
        gc.enable()


@needs_interpreter
def test_a_length_that_there_is_no_memory_to_record_runs_without(recorded):
    encoder, recorder = recorded
    tried = []

    def has_some(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        tried.append(run)
        if len(run()) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return recorder(run)

    encoder._graphs = EncoderGraphs(has_some)
    for length in (40, 9, 40):
        torch.testing.assert_close(
            run(encoder, length, [0, 8]), run_without(encoder, length, [0, 8]), rtol=0, atol=1e-5
        )
    assert (len(tried), recorder.recorded, recorder.replayed) == (2, 1, 1)


@needs_interpreter
def test_encoders_that_share_memory_do_not_take_each_other_s_result(recorded):
    arena = torch.zeros(64, 64)

    class Sharing(Recorder):
        """Leaves each result where another encoder's next run may write."""

        def __call__(self, run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
            out = arena[: len(run())]

            def replay() -> None:
                out.copy_(run())
                sleep(0.001)  # as the host lets other threads in, while it starts what was recorded

            return replay, out

    encoders = [pair(hidden_size=64, num_attention_heads=2)[1] for _ in range(2)]
    for encoder in encoders:
        encoder._graphs = EncoderGraphs(Sharing())
        with torch.no_grad():
            encoder.layers[1].output_norm.weight.copy_(torch.randn(64))
    expected = [run_without(encoder, 9, [0, 8]) for encoder in encoders]

    def work(index: int) -> list[Tensor]:
        return [run(encoders[index], 9, [0, 8]) for _ in range(10)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(work, range(2)))
    for own, hidden in zip(found, expected, strict=True):
        for each in own:
            torch.testing.assert_close(each, hidden, rtol=0, atol=1e-5)


@needs_interpreter
def test_threads_do_not_take_each_other_s_text(recorded):
    encoder, recorder = recorded
    expected = [run_without(encoder, 9, [0, 8], seed) for seed in range(4)]
    found: dict[int, Tensor] = {}

    def work(seed: int) -> None:
        for _ in range(3):
            found[seed] = run(encoder, 9, [0, 8], seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.recorded == 1
    for seed, hidden in enumerate(expected):
        torch.testing.assert_close(found[seed], hidden, rtol=0, atol=1e-5)


@needs_interpreter
def test_where_it_cannot_be_recorded_it_runs_without_and_says_so_once(recorded):
    encoder, _ = recorded
    tried = []

    def fails(_: object) -> None:
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    encoder._graphs = EncoderGraphs(fails)
    with pytest.warns(UserWarning, match=r"could not be recorded as a CUDA graph, and runs without \(operation not"):
        found = run(encoder, 9, [0, 8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(encoder, 40, [0, 8])
    assert len(tried) == 1
    torch.testing.assert_close(found, run_without(encoder, 9, [0, 8]), rtol=0, atol=0)


def test_an_encoder_that_could_not_be_recorded_is_tried_again_once_it_is_another():
    tried = []

    def fails(_: object) -> None:
        tried.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs, text = EncoderGraphs(fails), torch.zeros(3, dtype=torch.int64)
    for state in ("before", "after"):
        with pytest.warns(UserWarning, match="could not be recorded"):
            assert graphs.run(lambda: (lambda *_: text, None), text, text, (state,)) is None
        assert graphs.run(lambda: (lambda *_: text, None), text, text, (state,)) is None
    assert len(tried) == 2


# --- when it is asked for ---------------------------------------------------------------------------------------------


class OnCuda:
    """Ids of which only their place and number are looked at."""

    is_cuda = True

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length


@pytest.mark.parametrize(
    ("length", "rows", "texts", "asked", "expected"),
    [(9, 5, 1, "1", True), (512, 512, 1, "1", True), (513, 5, 1, "1", False), (9, 513, 1, "1", False),
     (9, 5, 2, "1", False), (9, 5, 1, "", False), (9, 5, 1, "0", False), (0, 0, 1, "1", False)],
)  # fmt: skip
def test_graphs_are_for_one_short_text_where_they_are_asked_for(
    length: int, rows: int, texts: int, asked: str, expected: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(cuda_graphs.VARIABLE, asked)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    given = OnCuda(length), OnCuda(rows), texts
    with torch.inference_mode():
        assert wants_graphs(*given) is expected
        assert not wants_graphs(torch.zeros(9), torch.zeros(5), 1)  # on a CPU
        with monkeypatch.context() as patched:
            patched.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
            assert not wants_graphs(*given)
        with monkeypatch.context() as patched:
            patched.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            assert not wants_graphs(*given)
    assert not wants_graphs(*given)  # a gradient is wanted


@torch.inference_mode()
def test_what_is_neither_yes_nor_no_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(cuda_graphs.VARIABLE, "true")
    with pytest.raises(ValueError, match="GLINER_FAST_CUDA_GRAPHS is 'true': expected 1, or 0"):
        wants_graphs(OnCuda(9), OnCuda(5), 1)


KNOWN = frozenset({torch.nn.Linear, torch.nn.ReLU})


def test_the_state_of_a_module_changes_with_its_weights_and_modules_alone():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()).eval()
    weights = Weights(KNOWN)
    states = [weights.state(module)]
    module(torch.zeros(1, 3))
    assert weights.state(module) == states[0]
    with torch.no_grad():
        module[0].bias.add_(1)
    states.append(weights.state(module))
    module[0].bias = torch.nn.Parameter(torch.zeros(3))
    states.append(weights.state(module))
    module[1] = torch.nn.Linear(3, 3).eval()
    states.append(weights.state(module))
    with torch.no_grad():
        module[1].weight.add_(1)  # of what came later
    states.append(weights.state(module))
    assert len(set(states)) == len(states)
    assert weights.state(module) == states[-1]

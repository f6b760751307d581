"""Hidden states of subwords -> vectors of words, packed: no padding word is ever computed (compat section 5.3)."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gliner_fast.cpu.lstm_training import train_lstm, trains_in_closed_form
from gliner_fast.cpu.native_lstm import KeptInputs, is_lstm_native, native_lstm, takes_native_lstm
from gliner_fast.upload import upload

if TYPE_CHECKING:
    from typing_extensions import Self

_flattening = Lock()
_CUDNN_WITH_BF16 = 91300  # from this version on torch gives its LSTMs in bf16 to cuDNN


def pool_subwords(subwords: Tensor, words: Tensor, word_count: int, pooling: str) -> Tensor:
    """One vector a word.

    Args:
        subwords: (M, D) vectors of the subwords that stand for words, in text order.
        words: (M,) the word that each belongs to, in [0, word_count).
        word_count: N, the words of all texts.
        pooling: `first` and `last` name at most one subword a word; `mean` and `max` reduce over all of them.

    Returns:
        (N, D); zero for a word that no subword stands for.
    """
    vectors = subwords.new_zeros(word_count, subwords.shape[1])
    if pooling in ("first", "last"):
        return vectors.index_copy_(0, words, subwords)
    index = words[:, None].expand_as(subwords)  # (M, D)
    return vectors.scatter_reduce(0, index, subwords, "mean" if pooling == "mean" else "amax", include_self=False)


class WordLSTM(nn.Module):
    """The bidirectional LSTM between encoder and head, over true words only.

    Attributes:
        kept: what `whole_numbers.quantize` has it multiply its inputs with, on the CPU: weights packed in float32,
            filled when they are first asked for. Without it, who multiplies depends on the number of words; each
            rounds in its own way, and a whole number made of the result might be the one beside it.
    """

    kept: KeptInputs | None = None

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, vectors: Tensor, word_counts: Tensor, word_order: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, D) -> (N, D) for packed words.

        Args:
            vectors: (N, D).
            word_counts: (B,) on the CPU, each at least 1.
            word_order: what `time_major` gives for them, the order on the vectors' device; None to find it here.
        """
        if takes_native_lstm(self.lstm, vectors) and is_lstm_native():
            return native_lstm(self.lstm, vectors, word_counts, self.kept)
        if vectors.is_cuda:
            keep_in_one_piece(self.lstm)
            if len(word_counts) == 1 and not torch.is_grad_enabled():
                # There is no other order than the one it has, and the host need not look for one.
                alone: Tensor = self.lstm(vectors[None])[0][0]
                return alone
        if word_order is None:
            order, batch_sizes = time_major(word_counts)
            if trains_in_closed_form(vectors):
                return train_lstm(self.lstm, vectors, order, batch_sizes, word_counts)
            (order,) = upload([order], vectors.device)
        else:
            order, batch_sizes = word_order
        # Without `sorted_indices`: they would only put the final states, which nobody reads, into another order.
        out, _ = self.lstm(PackedSequence(vectors[order], batch_sizes))
        return torch.empty_like(out.data).index_copy(0, order, out.data)

    def train(self, mode: bool = True) -> Self:
        """As torch's; weights that are to change are not packed any more."""
        if mode:
            self.kept = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what was packed."""
        return {name: value for name, value in self.__dict__.items() if name != "kept"}


def keep_in_one_piece(lstm: nn.LSTM) -> None:
    """Lays an LSTM's weights into one piece of memory, in cuDNN's order, where they are not yet.

    From there cuDNN reads them; from elsewhere torch copies them there at every call, with a warning. torch's own
    `flatten_parameters` leaves bf16 out (2.11: `torch.backends.cudnn.CUDNN_TENSOR_DTYPES`), in which cuDNN computes.
    """
    with _flattening:  # or another thread, on a stream of its own, could read what is not there yet
        _lay_together(lstm)


def _lay_together(lstm: nn.LSTM) -> None:
    from torch.backends.cudnn.rnn import get_cudnn_mode

    weights = [weight for weight in lstm._flat_weights if isinstance(weight, Tensor)]  # noqa: SLF001
    pieces = {weight.untyped_storage().data_ptr() for weight in weights}
    version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if weights[0].dtype is torch.bfloat16 and (version or 0) < _CUDNN_WITH_BF16:
        return  # torch computes it by itself
    if len(pieces) == 1 or lstm.proj_size or not torch._use_cudnn_rnn_flatten_weight():  # noqa: SLF001
        return
    mode = get_cudnn_mode(lstm.mode)  # type: ignore[no-untyped-call]
    shape = (lstm.input_size, mode, lstm.hidden_size, lstm.proj_size, lstm.num_layers)
    # The weights are used outside of inference mode, too, unless they were made in it.
    in_mode = torch.inference_mode(mode=weights[0].is_inference())
    with torch.cuda.device(weights[0].device), in_mode, torch.no_grad():
        torch._cudnn_rnn_flatten_weight(  # noqa: SLF001
            weights, 4 if lstm.bias else 2, *shape, lstm.batch_first, lstm.bidirectional
        )
        if weights[0].is_cuda:
            torch.cuda.current_stream().synchronize()


def time_major(word_counts: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which `PackedSequence` holds packed words: all first words, all second words, ...

    Args:
        word_counts: (B,) int64 on the CPU, each at least 1.

    Returns:
        (N,) index into the packed words; (longest,) texts that reach each word.
    """
    # By numpy: torch would take all threads for it, each time, beside the thread that starts a card's kernels.
    counts = word_counts.numpy()
    longest_first = np.argsort(-counts, kind="stable")  # (B,)
    starts = (counts.cumsum() - counts)[longest_first]  # (B,)
    counts = counts[longest_first]
    step = np.arange(counts[0])[:, None]  # (W, 1)
    reached = step < counts  # (W, B)
    return torch.from_numpy((starts + step)[reached]), torch.from_numpy(reached.sum(1))

"""DeBERTa-v2/v3 for inference and training, without its waste (DESIGN 3.2).

The same function as `transformers.DebertaV2Model`, up to rounding:

* relative-position keys and queries depend on weights alone, so they are projected once, not in every call;
* position scores are read off a diagonal view instead of being gathered for each (i, j);
* one product makes queries, keys and values; scaled_dot_product_attention takes the position scores as its mask.

It reads padded texts, or packed ones (DESIGN 3.6), with the same weights and up to rounding the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_fast.cpu.linear import Linear, asked_linear
from gliner_fast.cpu.native import allows_tf32, has_nothing_added, is_recorded, torch_must_see
from gliner_fast.cpu.packed_weights import Sample, version_of
from gliner_fast.encoders.attention_executor import (
    AttentionExecutor,
    PackedTexts,
    choose_attention,
    fastest_attention,
    runs_of_equals,
)
from gliner_fast.encoders.cuda_graphs import MOST_SUBWORDS as GRAPH_SUBWORDS
from gliner_fast.encoders.cuda_graphs import Encode, EncoderGraphs, Weights, wants_graphs
from gliner_fast.encoders.deberta_config import DebertaConfig, position_rows
from gliner_fast.encoders.deberta_layer import DebertaLayer, Group
from gliner_fast.encoders.deberta_positions import LayerPositions
from gliner_fast.encoders.flash_attention import FlashAttention, FlashTexts, takes_flash
from gliner_fast.encoders.gpu_layers import run_on_gpu
from gliner_fast.encoders.residual_norm import asked_norm
from gliner_fast.kernels.attention_reference import Positions
from gliner_fast.precision import autocast_dtype
from gliner_fast.upload import move, upload

Made = TypeVar("Made")


# An adapter, say, depends on more than its weights.
_OURS = frozenset({nn.ModuleList, DebertaLayer, Linear, nn.LayerNorm, nn.Embedding})


class DebertaEncoder(nn.Module):
    """DeBERTa-v2/v3: subword ids -> hidden states."""

    def __init__(self, config: DebertaConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.relative_embeddings = nn.Embedding(2 * config.span, config.hidden_size)
        self.relative_norm = nn.LayerNorm(config.hidden_size, config.norm_eps)
        self.layers = nn.ModuleList(DebertaLayer(config) for _ in range(config.layers))
        self._graphs, self._weights = EncoderGraphs(), Weights(_OURS)
        self._made: _Made | None = None
        self._rows: dict[tuple[int, torch.device], Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what was made of the weights."""
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        kept = {name: own for name, own in state.items() if name != "padded_positions"}
        return {**kept, "_made": None, "_weights": Weights(_OURS)}

    def forward(
        self, input_ids: Tensor, lengths: Tensor, offsets: Tensor | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """Hidden states of the last layer.

        Args:
            input_ids: (B, L) int64, padded at the right; or (N,), one text after another, for inference.
            lengths: (B,) subwords in each row, on the CPU.
            offsets: (B+1,) where each packed text begins, and N; None says that `input_ids` are padded.
            wanted: (R,) rows of the flattened subwords, B*L or N of them; None for all. The last layer then computes
                three quarters of its products, all that follows its attention, for these rows alone.

        Returns:
            (B, L, D); rows past a text's length are unspecified. (N, D) for packed texts. (R, D) for wanted rows.
        """
        if offsets is not None:
            return self._forward_packed(input_ids, PackedTexts(lengths.tolist(), offsets), wanted)
        length = input_ids.shape[1]
        hidden: Tensor = self.embedding_norm(self.word_embeddings(input_ids))  # (B, L, D)
        hidden = F.dropout(hidden, self.config.hidden_dropout, self.training)
        key_padding = None
        if is_recorded() or int(lengths.min()) < length:  # a compiler cannot choose by what a tensor holds
            columns = torch.arange(length, device=hidden.device)
            key_padding = columns >= move(lengths, hidden.device)[:, None]  # (B, L)
            key_padding = key_padding[:, None, None, :]  # (B, 1, 1, L): the same for every head and query
        for layer, positions in zip(self._layers(), self.padded_positions(length), strict=True):
            own = wanted if layer is self.layers[-1] else None
            hidden = layer(hidden, positions, key_padding, own)
        return hidden

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the encoder with `torch.compile`, all but what it asks of positions."""
        self.leave_out_of_compiling()
        super().compile(*args, **kwargs)

    def leave_out_of_compiling(self) -> None:
        """Has compilers call `padded_positions` as it is, from now on."""
        self.padded_positions = torch.compiler.disable(self.padded_positions)  # type: ignore[method-assign, no-untyped-call]

    def padded_positions(self, length: int) -> list[LayerPositions]:
        """What each layer needs of the positions in texts of L subwords.

        A function of its own since no compiler follows it: it asks whether the weights are still the same.
        """
        rows = self._table_rows(length, self._device)
        return [self._layer_positions(tables, rows) for tables in self._position_tables()]

    def _layer_positions(
        self, tables: tuple[Tensor, Tensor], rows: tuple[slice | Tensor, slice | Tensor]
    ) -> LayerPositions:
        kinds, (keys, queries), (key_rows, query_rows) = self.config.pos_att_type, tables, rows
        return LayerPositions(
            keys[:, key_rows] if "c2p" in kinds else None,
            queries[:, query_rows] if "p2c" in kinds else None,
            self._scale,
        )

    @property
    def reads_packed(self) -> bool:
        """Whether texts should come packed, where the weights are now."""
        return self._executor != "padded"

    @property
    def _executor(self) -> AttentionExecutor:
        return choose_attention(*self._kind)

    @property
    def _device(self) -> torch.device:
        return self._kind[0]

    @property
    def _kind(self) -> tuple[torch.device, torch.dtype, int]:
        """What the choice of an executor depends on."""
        weight = self.relative_embeddings.weight  # which nobody calls, so that no adapter stands around it
        return weight.device, weight.dtype, self.config.hidden_size // self.config.heads

    def _forward_packed(self, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None) -> Tensor:
        """(N,) -> (N, D) or (R, D), inference only: no subword of padding is computed, and no score is kept."""
        assert not self.training, "attention over packed texts knows no dropout"
        executor = self._executor if not torch.is_grad_enabled() else "torch"  # autograd sees through torch alone
        is_flash = executor == "disentangled-flash"
        if is_flash and not (takes_flash(texts.lengths, input_ids.device) and all(map(_reads_qkv, self._layers()))):
            executor = fastest_attention(*self._kind)
        if executor == "rust" and torch_must_see():
            executor = "grouped"
        if executor == "grouped":
            return self._forward_grouped(input_ids, texts.lengths, wanted)
        if executor == "disentangled-flash":
            return self._forward_flash(input_ids, texts, wanted)
        if executor == "triton" and wanted is not None and wants_graphs(input_ids, wanted, len(texts.lengths)):
            found = self._replay(input_ids, wanted)
            if found is not None:
                return found
        tables = self._position_tables(mirrored=False, widened=executor == "rust")
        rows = self._rows_by_distance(max(texts.lengths, default=1), input_ids.device)
        return self._run_layers(input_ids, texts, wanted, tables, rows, executor)

    def _run_layers(
        self,
        input_ids: Tensor,
        texts: PackedTexts,
        wanted: Tensor | None,
        tables: list[tuple[Tensor, Tensor]],
        rows: Tensor,
        executor: AttentionExecutor,
    ) -> Tensor:
        kinds, layers = self.config.pos_att_type, self._layers()
        hidden: Tensor = self.embedding_norm(self.word_embeddings(input_ids))  # (N, D)
        positions = [
            Positions(keys if "c2p" in kinds else None, queries if "p2c" in kinds else None, rows)
            for keys, queries in tables
        ]
        if executor == "triton":
            found = run_on_gpu(hidden, layers, positions, texts, wanted, scale=self._scale)
            if found is not None:
                return found
        for layer, own_positions in zip(layers, positions, strict=True):
            own = wanted if layer is layers[-1] else None
            hidden = layer.forward_packed(hidden, own_positions, texts, own, scale=self._scale, executor=executor)
        return hidden

    def _replay(self, input_ids: Tensor, wanted: Tensor) -> Tensor | None:
        """(R, D) of one text, by what was recorded; None where nothing can be."""
        weights = self._weights.state(self)
        if weights is None:
            return None
        return self._graphs.run(
            self._to_be_recorded, input_ids, wanted, (allows_tf32(), asked_linear(), asked_norm(), *weights)
        )

    def _to_be_recorded(self) -> tuple[Encode, object]:
        """The layers with the tables of now, for one text that may be shorter than the subwords that it gets."""
        tables = self._position_tables(mirrored=False)
        # For all lengths at once, and here: what is uploaded while it is recorded, others would find half-way.
        rows = self._rows_by_distance(GRAPH_SUBWORDS, self._device)

        def encode(input_ids: Tensor, offsets: Tensor, wanted: Tensor) -> Tensor:
            # The host says how far programs have to reach, the offsets where the text ends.
            return self._run_layers(input_ids, PackedTexts([len(input_ids)], offsets), wanted, tables, rows, "triton")

        return encode, (tables, rows)

    def _forward_grouped(self, input_ids: Tensor, lengths: Sequence[int], wanted: Tensor | None) -> Tensor:
        """As `_forward_packed`, the attention over texts of one length at a time."""
        hidden: Tensor = self.embedding_norm(self.word_embeddings(input_ids))  # (N, D)
        for layer, groups in zip(self._layers(), self._groups(lengths), strict=True):
            hidden = layer.forward_grouped(hidden, groups, wanted if layer is self.layers[-1] else None)
        return hidden

    def _forward_flash(self, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None) -> Tensor:
        """As `_forward_packed`, by the disentangled-flash package, products of the layer included."""
        hidden: Tensor = self.embedding_norm(self.word_embeddings(input_ids))  # (N, D)
        told = FlashTexts(texts.lengths, texts.offsets)
        for layer, attention in zip(self._layers(), self._flash_attentions(), strict=True):
            hidden = layer.finish(hidden, attention(hidden, told), wanted if layer is self.layers[-1] else None)
        return hidden

    def _groups(self, lengths: Sequence[int]) -> Iterator[list[Group]]:
        """Packed texts of one length together, layer by layer."""
        runs, device = runs_of_equals(lengths), self._device
        table_rows = {length: self._table_rows(length, device) for _, length in runs}
        for tables in self._position_tables():
            yield [Group(rows, n, self._layer_positions(tables, table_rows[n])) for rows, n in runs]

    def _rows_by_distance(self, longest: int, device: torch.device) -> Tensor:
        """Rows of the tables for all distances in texts of up to `longest` subwords, (2M-1,) int32, kept."""
        reach = max(32, 1 << (longest - 1).bit_length())  # powers of two, so that few are kept
        rows = self._rows.get((reach, device))
        if rows is None:
            (rows,) = upload([position_rows(reach, self.config).int()], device)
            _wait_for(device)
            self._rows[reach, device] = rows
        return rows

    def _layers(self) -> list[DebertaLayer]:
        return cast("list[DebertaLayer]", list(self.layers))

    def _table_rows(self, length: int, device: torch.device) -> tuple[slice | Tensor, slice | Tensor]:
        """Which rows of the tables of keys and of queries texts of L subwords read, the same in every layer."""
        rows = position_rows(length, self.config)  # (2L-1,)
        first, last = int(rows[0]), int(rows[-1])
        mirror = 2 * self.config.span - 1  # row r of the queries is row mirror - r of the keys
        if last - first + 1 == len(rows):
            # Every distance has a row of its own, so the rows are a slice: no copy.
            return slice(mirror - last, mirror - first + 1), slice(first, last + 1)
        rows = move(rows, device)
        return mirror - rows.flip(0), rows

    @property
    def _scale(self) -> float:
        head_dim = self.config.hidden_size // self.config.heads
        return 1.0 / math.sqrt(head_dim * (1 + len(set(self.config.pos_att_type))))

    def _position_tables(self, *, mirrored: bool = True, widened: bool = False) -> list[tuple[Tensor, Tensor]]:
        """Position keys and queries of every layer, each (H, 2*span, head_dim), in float32 where `widened`.

        Rows ascend with the distance; those of the keys descend where `mirrored`, as the diagonals are read.
        """

        def make() -> list[tuple[Tensor, Tensor]]:
            tables = self._project_tables(mirrored=mirrored)
            return [(keys.float(), queries.float()) for keys, queries in tables] if widened else tables

        return self._kept(("tables", mirrored, widened), make)

    def _flash_attentions(self) -> list[FlashAttention]:
        """The attention of every layer by the disentangled-flash package."""
        return self._kept(("flash", allows_tf32()), self._make_flash_attentions)

    def _kept(self, kind: tuple[object, ...], make: Callable[[], list[Made]]) -> list[Made]:
        """What layers make of weights alone.

        Where no gradient is wanted it is kept until a weight is replaced or changed in place, or another kind is asked
        for. A change behind torch's back is seen on the CPU alone, where it is cheap to look.
        """
        if torch.is_grad_enabled() or not (self._reads_norm() and all(map(_reads_qkv, self._layers()))):
            # What is kept must not outlive a step of training: torch's fused optimizers change weights in place
            # without counting it as a new version. And an adapter depends on more than weights that are known here.
            self._made = None
            return make()
        weights = [self.relative_embeddings.weight, self.relative_norm.weight, self.relative_norm.bias]
        for layer in self._layers():
            weights += [layer.qkv.weight, layer.qkv.bias]
        kind_of_device = weights[0].device.type
        # What is made under autocast has its dtype.
        autocast = autocast_dtype(kind_of_device)
        state = (kind, autocast, *((id(weight), weight.data_ptr(), version_of(weight)) for weight in weights))
        made = self._made  # read once: another thread may be replacing it with an equal one
        if made is None or made.state != state or not made.sample.is_as_it_was():
            sample = Sample.take([] if is_recorded() else weights)
            with torch.no_grad():
                made = _Made(state, sample, make())
            _wait_for(weights[0].device)
            self._made = made
        return made.of_layers

    def _reads_norm(self) -> bool:
        """Whether the weights say all that the norm of the relative positions does."""
        norm = self.relative_norm
        return type(norm) is nn.LayerNorm and has_nothing_added(norm)

    def _make_flash_attentions(self) -> list[FlashAttention]:
        relative = self._relative_vectors()
        made: list[FlashAttention] = []
        for layer in self._layers():
            beside = made[0] if made else None
            weights = layer.qkv.weight, layer.qkv.bias
            made.append(FlashAttention(self.config, *weights, relative, beside, allow_tf32=allows_tf32()))
        return made

    def _relative_vectors(self) -> Tensor:
        """(2*span, D), by ascending distance: what layers project for the positions."""
        vectors: Tensor = self.relative_norm(self.relative_embeddings.weight[: 2 * self.config.span])
        return vectors

    def _project_tables(self, *, mirrored: bool) -> list[tuple[Tensor, Tensor]]:
        config = self.config
        embeddings = self._relative_vectors()
        tables = []
        for layer in self._layers():
            width = config.hidden_size
            kept = F.dropout(embeddings, config.hidden_dropout, self.training)  # anew in each layer
            if _reads_qkv(layer):
                projected = F.linear(kept, layer.qkv.weight[: 2 * width], layer.qkv.bias[: 2 * width])
            else:
                projected = layer.qkv(kept)[:, : 2 * width]  # an adapter sees them, as of transformers' projections
            projected = projected * self._scale
            queries, keys = projected.view(-1, 2, config.heads, width // config.heads).permute(1, 2, 0, 3)
            keys = keys.flip(1) if mirrored else keys
            tables.append((keys.contiguous(), queries.contiguous()))  # each (H, 2*span, head_dim)
        return tables


@dataclass(frozen=True)
class _Made:
    """What layers made of their weights.

    Attributes:
        state: of what kind it is, and of which weights.
        sample: some of their numbers.
        of_layers: what each layer made.
    """

    state: tuple[object, ...]
    sample: Sample
    of_layers: list[Any]


def _reads_qkv(layer: DebertaLayer) -> bool:
    """Whether the weights say all that a layer's projection to queries and keys does."""
    qkv = layer._modules["qkv"]  # noqa: SLF001  (asked of each layer before each batch: torch's way takes thrice as long)
    return type(qkv) is Linear and has_nothing_added(qkv)


def _wait_for(device: torch.device) -> None:
    """Waits for what is to be kept: another thread, on another stream, could read it before it is there."""
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        torch.cuda.current_stream(device).synchronize()

"""Subword batches -> scores: encoder, projection, word vectors, LSTM and head in one module (compat section 5)."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gliner_fast.compiling import compiled_in_place, is_compiled, wrapped
from gliner_fast.cpu.linear import Linear, asked_linear
from gliner_fast.cpu.native_lstm import is_lstm_native
from gliner_fast.cpu.whole_numbers import drop
from gliner_fast.encoder import attention_heads, build_encoder, encoder_width
from gliner_fast.encoders.cuda_graphs import graphs_are_asked_for
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.residual_norm import asked_norm
from gliner_fast.errors import CheckpointError
from gliner_fast.kernels.pending_candidates import PendingCandidates
from gliner_fast.label_encoder import LabelEncoder, LabelTexts
from gliner_fast.relations.scorer import RelationScorer
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.scoring.cross_fuser import CrossFuser
from gliner_fast.scoring.pending_scores import PendingScores
from gliner_fast.scoring.span_vectors import MarkedSpanVectors
from gliner_fast.scoring.token_scorer import TokenScorer
from gliner_fast.scoring.word_vectors import WordLSTM, pool_subwords

if TYPE_CHECKING:
    from gliner_fast.batch import Batch
    from gliner_fast.config import GLiNERConfig


@dataclass(frozen=True)
class BatchScores:
    """What the network says of a batch.

    Attributes:
        logits: flat; text b is a (W_b, K, C_b) block of its spans, blocks one after another; -inf past the end of a
            text. Empty where `candidates` holds all that was asked for. Of a token-level model text b is a
            (W_b, C_b, 3) block of its words' marks.
        words: (N, D) packed word vectors that the head read.
        prompts: (T, D) packed prompt representations that spans or words were scored against.
        candidates: the spans above the thresholds, where some were given and the scorer finds them itself. On CUDA
            nobody has waited for them yet.
        relation_prompts: (R, D) packed vectors of the relation tokens; None of models that find no relations.
        on_host: the sigmoids of `logits`, where these are on a device that goes on to other work.
    """

    logits: Tensor
    words: Tensor
    prompts: Tensor
    candidates: PendingCandidates | Candidates | None = None
    relation_prompts: Tensor | None = None
    on_host: PendingScores | None = None

    @property
    def dense(self) -> Tensor | PendingScores:
        """All scores, from where the host reads them."""
        return self.logits if self.on_host is None else self.on_host


class Network(nn.Module):
    """A model of spans, or a token-level one; a uni-encoder, which reads labels in front of each text, or a bi-encoder.

    A relex model is a uni-encoder whose entities are linked by relations, once they are known.

    A bi-encoder has no LSTM, whatever its checkpoint holds: the package computes none there. It may have layers in
    which labels and words attend to each other.
    """

    def __init__(self, config: GLiNERConfig) -> None:
        super().__init__()
        self.pooling = config.subtoken_pooling
        self.embed_ent_token = config.embed_ent_token
        assert config.encoder_config is not None, "an encoder's settings are looked up before a network is built"
        self.encoder = build_encoder(config.encoder_config, config._attn_implementation)
        width = config.hidden_size
        if width % 2 and config.num_rnn_layers > 0:
            raise CheckpointError(f"hidden_size is {width}: the LSTM needs an even one")
        own_width = encoder_width(self.encoder)
        self.projection: Linear | None = Linear(own_width, width) if own_width != width else None
        self.label_encoder: LabelEncoder | None = None
        if config.is_bi_encoder:
            assert config.labels_encoder_config is not None, "as are those of the labels' encoder"
            self.label_encoder = LabelEncoder(config.labels_encoder_config, width)
        self.fuser: CrossFuser | None = None
        if config.is_bi_encoder and config.post_fusion_schema:
            heads, layers = attention_heads(self.encoder), config.num_post_fusion_layers
            self.fuser = CrossFuser(width, heads, layers, config.post_fusion_schema, config.dropout)
        layers = 0 if config.is_bi_encoder else config.num_rnn_layers
        self.rnn: WordLSTM | None = WordLSTM(width, layers) if layers > 0 else None
        self.scorer: SpanScorer | TokenScorer
        if config.is_token_level:
            self.scorer = TokenScorer(width, config.dropout, projects_labels=config.is_relex)
        else:
            self.scorer = SpanScorer(width, config.max_width, config.span_mode, config.dropout)
        self.spans: MarkedSpanVectors | None = None
        if config.scores_marked_spans:
            self.spans = MarkedSpanVectors(width, config.dropout)
        self.relations: RelationScorer | None = None
        self.embed_rel_token = config.embed_rel_token
        if config.relations_layer is not None:
            self.relations = RelationScorer(
                width,
                config.dropout,
                config.relations_layer,
                config.triples_layer,
                is_token_level=config.is_token_level,
            )

    def __getattr__(self, name: str) -> Any:
        """As torch's; says what there is, where a module is asked for by `gliner`'s name."""
        try:
            return super().__getattr__(name)
        except AttributeError as error:
            if hasattr(type(self), name):  # a property, and it is something within it that lacks an attribute
                return object.__getattribute__(self, name)  # says what
            own = ", ".join(self.__dict__.get("_modules", ()))  # there are none while a copy is being made
            raise AttributeError(
                f"{error}: modules and parameters have names of their own here, not gliner's. There are {own}; the "
                "text encoder is model.model.encoder"
            ) from None

    def forward(
        self, batch: Batch, thresholds: Tensor | None = None, allowed_spans: Tensor | None = None
    ) -> BatchScores:
        """Scores every span of every text of a batch, or every word, against the text's own entity types.

        Args:
            batch: the texts.
            thresholds: (T,) float32, the probability that each entity type must pass: says that no more is asked for
                than the spans above. The other scores are then stored nowhere, if the scorer can do without.
            allowed_spans: (N, K) bool, beside thresholds: says that no more is asked for than these spans, each by its
                first word and its width. Only CUDA leaves the others out.
        """
        class_positions = batch.class_positions if self.embed_ent_token else batch.class_positions + 1
        # The head reads these rows alone, so only they leave the encoder and are projected. Before pooling, as the
        # package does: a word that no subword stands for is zero, not the projection's bias.
        wanted = [batch.pooled_positions, class_positions]
        if batch.relation_positions is not None:
            wanted.append(batch.relation_positions if self.embed_rel_token else batch.relation_positions + 1)
        rows = torch.cat(wanted)  # (M + T + R,)
        packed = () if batch.offsets is None else (batch.offsets,)
        chosen = self.encoder(batch.input_ids, batch.lengths, *packed, wanted=rows)  # (M + T + R, E)
        if self.projection is not None:
            chosen = self.projection(chosen)  # (M + T + R, D)
        subwords, labels, *others = chosen.split([len(own) for own in wanted])
        relations = others[0] if others else None  # (R, D)
        if batch.labels is not None:
            labels = self.label_vectors(batch.labels).to(subwords)[batch.label_rows]  # (T, D)
        words = pool_subwords(subwords, batch.pooled_words, batch.word_total, self.pooling)  # (N, D)
        if self.fuser is not None:
            words, labels = self.fuser(words, labels, batch.word_counts, batch.class_counts)
        if self.rnn is not None:
            words = self.rnn(words, batch.word_counts, batch.word_order)
        prompts = self.scorer.prompt(labels)  # (T, D)
        counts = batch.word_counts.tolist(), batch.class_counts.tolist()
        if (
            isinstance(self.scorer, SpanScorer)
            and thresholds is not None
            and self.scorer.executor_for(words) != "torch"
        ):
            candidates = self.scorer.find(words, prompts, *counts, thresholds, allowed_spans)
            return BatchScores(words.new_empty(0), words, prompts, candidates, relations)
        return BatchScores(self.scorer(words, prompts, *counts), words, prompts, relation_prompts=relations)

    def relation_spans(self, words: Tensor, starts: Tensor, last_words: Tensor) -> Tensor:
        """Vectors of spans as relations read them, (S, D); arguments as `SpanScorer.span_vectors`."""
        if self.relations is None or self.relations.spans is None:
            return self.scorer.span_vectors(words, starts, last_words)
        vectors: Tensor = self.relations.spans(words, starts, last_words)
        return vectors

    def label_vectors(self, labels: LabelTexts) -> Tensor:
        """The vectors of a bi-encoder's labels, (U, D).

        Raises:
            ValueError: this is no bi-encoder.
        """
        if labels.given is not None:
            return labels.given
        if self.label_encoder is None:
            raise ValueError("the model is no bi-encoder: its labels have no vectors of their own")
        return self.label_encoder.vectors_of(labels)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As torch's, where `load_state_dict` comes by, this module's or another's around it.

        Names may be those of `gliner`'s checkpoints; what is missing or does not fit is told by these.
        """
        from gliner_fast.checkpoints.state_dicts import translate  # which knows this class

        given = {name.removeprefix(prefix): own for name, own in state_dict.items() if name.startswith(prefix)}
        translated = translate(self, given)
        if translated is not None:
            for name in translated.read:
                del state_dict[prefix + name]
            state_dict.update({prefix + name: own for name, own in translated.tensors.items()})
            missing_keys += [prefix + name for name in translated.missing if strict]
            error_msgs += translated.errors
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    @property
    def reads_packed(self) -> bool:
        """Whether batches should come packed, so that no padding is computed; never once the network is compiled.

        Raises:
            ValueError: an environment variable names nobody who does the work.
        """
        # Asked before each batch, so here: those that are not read for a device or dtype must not hide a typo.
        for asked in (asked_linear, is_lstm_native, asked_norm, graphs_are_asked_for):
            asked()
        return not self.is_compiled and self.encoder.reads_packed

    @property
    def is_compiled(self) -> bool:
        """Whether the network or its encoder goes through `torch.compile`."""
        return is_compiled(self) or is_compiled(self.encoder)

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's; an encoder that `torch.compile` wraps is compiled in place.

        Raises:
            ValueError: another part is compiled by itself.
        """
        if name == "encoder" and wrapped(value) is not None:
            drop(self)
            value = compiled_in_place(value)
        elif wrapped(value) is not None:
            raise ValueError(
                f"{name} is not compiled by itself: compile the network by model.compile(), or its encoder"
            )
        super().__setattr__(name, value)

    @property
    def qconfig(self) -> object:
        """What torch's quantization gives each module: nobody's here, as it knows torch's own linear layers alone."""
        raise AttributeError("qconfig")

    @qconfig.setter
    def qconfig(self, _: object) -> None:
        warnings.warn(
            "torch's quantization leaves the linear layers of this model in float32: model.quantize() multiplies "
            "whole numbers of 8 or 16 bits",
            stacklevel=2,
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the network with `torch.compile`, all but scorer and LSTM, which run kernels of their own.

        Nor is what a bi-encoder makes of its labels, which is kept from one call to the next, and what has them and
        words attend to each other, whose shapes are other ones for each batch.
        """
        self.leave_out_of_compiling()
        super().compile(*args, **kwargs)

    def leave_out_of_compiling(self) -> None:
        """Has compilers call the parts that `compile` leaves out as they are, from now on."""
        drop(self)  # compiled layers multiply in float32, and so should the scorer
        for module, name in self._left_out_of_compiling():
            setattr(module, name, torch.compiler.disable(getattr(module, name)))  # type: ignore[no-untyped-call]
        if isinstance(self.encoder, DebertaEncoder):
            self.encoder.leave_out_of_compiling()

    def _left_out_of_compiling(self) -> list[tuple[nn.Module, str]]:
        of_scorer = ("forward", "find", "executor_for") if isinstance(self.scorer, SpanScorer) else ("forward",)
        as_they_are: list[tuple[nn.Module, str]] = [(self.scorer, name) for name in of_scorer]
        as_they_are.append((self, "label_vectors"))
        if self.rnn is not None:
            as_they_are.append((self.rnn, "forward"))
        if self.fuser is not None:
            as_they_are.append((self.fuser, "forward"))
        return as_they_are

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: as of torch's modules, the copy of a compiled one is not compiled.

        Nor does it have what compilers call here as it is: these are functions of this one's weights.
        """
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        state["_modules"] = modules = dict(self._modules)
        copies: dict[int, nn.Module] = {}  # of the same weights
        for owner, method in self._left_out_of_compiling():
            if owner is self:
                state.pop(method, None)
            elif method in owner.__dict__:
                del copies.setdefault(id(owner), copy.copy(owner)).__dict__[method]
        modules.update({name: copies[id(part)] for name, part in modules.items() if id(part) in copies})
        return state

"""Subword ids -> hidden states: our DeBERTa where it applies, any other transformers encoder through AutoModel."""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gliner_fast.config_values import refuse_encoder_values
from gliner_fast.cpu.forking import renew_lock_in_children
from gliner_fast.cpu.linear import take_linear
from gliner_fast.encoders import packed_bert, packed_modernbert, packed_t5
from gliner_fast.encoders.as_built import AsBuilt
from gliner_fast.encoders.attention_executor import AttentionExecutor, PackedTexts, choose_attention
from gliner_fast.encoders.deberta import DebertaEncoder
from gliner_fast.encoders.deberta_config import DebertaConfig
from gliner_fast.errors import CheckpointError, UnsupportedCheckpointError
from gliner_fast.upload import move

_DECODERS = ("llama", "mistral", "gemma", "qwen2")
_RUN = "gliner_fast runs encoders (DeBERTa, BERT, RoBERTa, ELECTRA, ModernBERT, T5, ...)"
_ATTENTION_SETTINGS = {"_attn_implementation", "attn_implementation", "_attn_implementation_internal"}
_ATTENTION = re.compile(r"[A-Za-z0-9_|]+")  # but not OWNER/NAME
# Nobody classifies by an encoder's own labels, of which transformers makes as many as there are said to be.
_OF_CLASSIFIERS = ("num_labels", "id2label", "label2id")


class _Building:
    """Lets one checkpoint be built at a time, since the registration of parameters is torch-wide meanwhile."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._register = nn.Module.register_parameter  # torch's, or whatever stood there before the last checkpoint
        renew_lock_in_children(self)

    def register(self) -> Callable[[nn.Module, str, nn.Parameter | None], None]:
        """What registers parameters, to be asked for under the lock."""
        self._register = nn.Module.register_parameter
        return self._register

    def renew_lock(self) -> None:
        """Takes a new one, and undoes what the thread does that has this one: it is not there to do so."""
        if self.lock.locked():
            nn.Module.register_parameter = self._register  # type: ignore[method-assign]
        self.lock = threading.Lock()


_building = _Building()


class _PackedKind(Protocol):
    """A module that runs transformers' encoders of one kind over packed texts, for inference."""

    def takes(self, config: Mapping[str, Any], model: nn.Module) -> bool:
        """Whether `run_packed` computes what the model does.

        Args:
            config: of the encoder, as transformers writes it.
            model: transformers' own.
        """

    def is_unchanged(self, model: Any) -> bool:
        """Whether the modules that `run_packed` passes over, for their parts, are still those of transformers."""

    def run_packed(
        self, model: Any, input_ids: Tensor, texts: PackedTexts, wanted: Tensor | None, executor: AttentionExecutor
    ) -> Tensor:
        """Hidden states of the last layer.

        Args:
            model: one that `takes` takes, in eval mode.
            input_ids: (N,) int64, one text after another, at least one subword.
            texts: how subwords belong to texts.
            wanted: (R,) rows to compute; None for all.
            executor: of the attention, one for packed texts.

        Returns:
            (N, E), or (R, E).
        """


_PACKED_KINDS: tuple[_PackedKind, ...] = (packed_bert, packed_modernbert, packed_t5)


@dataclass(frozen=True)
class _PackedRun:
    """How an encoder is run over packed texts.

    Attributes:
        run: `_PackedKind.run_packed` of its kind.
        is_as_built: whether the encoder is still what `run` computes.
    """

    run: Callable[[Any, Tensor, PackedTexts, Tensor | None, AttentionExecutor], Tensor]
    is_as_built: AsBuilt


class TransformersEncoder(nn.Module):
    """Any encoder of transformers, with transformers' own choice of attention implementation."""

    def __init__(self, encoder_config: Mapping[str, Any], attn_implementation: str | None = None) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        settings = {name: value for name, value in encoder_config.items() if name not in _OF_CLASSIFIERS}
        model_type = settings.pop("model_type", "deberta-v2")
        _expect_known_code({"_attn_implementation": attn_implementation, "encoder_config": settings})
        _refuse_unknown(model_type)
        refuse_encoder_values(settings)
        config = AutoConfig.for_model(model_type, **settings)
        is_half = model_type in packed_t5.KINDS  # of T5, which has a decoder too, the encoder alone is run
        if (getattr(config, "is_encoder_decoder", False) and not is_half) or model_type in _DECODERS:
            raise UnsupportedCheckpointError(f"encoder_config names {model_type!r}, which is not an encoder: {_RUN}")
        if attn_implementation is not None:
            config._attn_implementation = attn_implementation
        self.model = packed_t5.make(config) if is_half else AutoModel.from_config(config, trust_remote_code=False)
        _refuse_other_than_text(model_type, self.model)
        take_linear(self.model)
        self.width = int(config.hidden_size)
        self.heads: int | None = getattr(config, "num_attention_heads", None)
        settings["model_type"] = model_type
        kind = next((kind for kind in _PACKED_KINDS if kind.takes(settings, self.model)), None)
        self._packed = None if kind is None else _PackedRun(kind.run_packed, AsBuilt(self.model, kind.is_unchanged))

    def forward(
        self, input_ids: Tensor, lengths: Tensor, offsets: Tensor | None = None, wanted: Tensor | None = None
    ) -> Tensor:
        """As `DebertaEncoder.forward`; packed texts only where `reads_packed`."""
        if offsets is not None:
            assert self._packed is not None, "texts were packed that nobody reads packed"
            assert not self.model.training, "packed texts know no dropout"
            if not len(input_ids):
                return torch.zeros(0, self.width, dtype=self.model.dtype, device=input_ids.device)
            texts = PackedTexts(lengths.tolist(), offsets)
            return self._packed.run(self.model, input_ids, texts, wanted, self._executor)
        columns = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = (columns < move(lengths, input_ids.device)[:, None]).long()  # (B, L)
        hidden = cast(Tensor, self.model(input_ids, attention_mask=mask).last_hidden_state)  # (B, L, E)
        return hidden if wanted is None else hidden.flatten(0, 1)[wanted]

    @property
    def reads_packed(self) -> bool:
        """Whether texts should come packed, where the weights are now, and the modules as they are now."""
        executor = self._executor  # whatever the encoder, a name that nobody has is told
        packed = self._packed
        return packed is not None and executor not in ("padded", "disentangled-flash") and packed.is_as_built()

    @property
    def _executor(self) -> AttentionExecutor:
        weight = next(self.model.parameters())
        config = self.model.config
        head_dim = getattr(config, "d_kv", None) or self.width // int(getattr(config, "num_attention_heads", 1))
        return choose_attention(weight.device, weight.dtype, head_dim)


def _expect_known_code(settings: Mapping[str, Any], where: str = "") -> None:
    """Refuses attention that is a kernel of the Hub, `OWNER/NAME`: transformers would fetch it and run its code.

    Raises:
        CheckpointError: names the setting.
    """
    for name, value in settings.items():
        if name in _ATTENTION_SETTINGS:
            for own in value.values() if isinstance(value, Mapping) else (value,):
                if own is not None and not (isinstance(own, str) and _ATTENTION.fullmatch(own)):
                    raise CheckpointError(
                        f"{where}{name} is {own!r}: expected one that transformers has itself, such as 'sdpa'; code "
                        "from the Hub is not run"
                    )
        elif isinstance(value, Mapping):
            _expect_known_code(value, f"{where}{name}.")


def _refuse_unknown(model_type: object) -> None:
    from transformers import CONFIG_MAPPING

    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedCheckpointError(
            f"encoder_config names the encoder {model_type!r}, which the installed transformers does not know: "
            "upgrade transformers, or use a checkpoint with another encoder"
        )


def _refuse_other_than_text(model_type: str, model: nn.Module) -> None:
    """Refuses models of images and sound, and those of several models, such as CLIP, which load like encoders."""
    taken = inspect.signature(model.forward).parameters
    if not {"input_ids", "attention_mask"} <= taken.keys() or "pixel_values" in taken:
        raise UnsupportedCheckpointError(
            f"encoder_config names {model_type!r}, which is not an encoder of texts alone: {_RUN}"
        )


def build_encoder(
    encoder_config: Mapping[str, Any], attn_implementation: str | None = None
) -> DebertaEncoder | TransformersEncoder:
    """An encoder for a transformers configuration, with weights as torch and transformers initialise them.

    Inside `parameters_on_meta` nothing is initialised.

    Raises:
        CheckpointError: a setting of it cannot be what it is.
        UnsupportedCheckpointError: transformers does not know the encoder, or it is none.
    """
    config = DebertaConfig.read(encoder_config)
    if config is not None:
        return DebertaEncoder(config)
    return TransformersEncoder(encoder_config, attn_implementation)


def encoder_width(encoder: DebertaEncoder | TransformersEncoder) -> int:
    """E, the width of the hidden states."""
    return encoder.config.hidden_size if isinstance(encoder, DebertaEncoder) else encoder.width


def attention_heads(encoder: DebertaEncoder | TransformersEncoder) -> int:
    """Heads of a layer.

    Raises:
        CheckpointError: the encoder has none.
    """
    heads = encoder.config.heads if isinstance(encoder, DebertaEncoder) else encoder.heads
    if heads is None:
        raise CheckpointError("post_fusion_schema needs an encoder with attention heads, and encoder_config names none")
    return heads


def word_embeddings(encoder: DebertaEncoder | TransformersEncoder) -> int | None:
    """V, the subwords that have an embedding; None where transformers does not say."""
    table = word_table(encoder)
    return None if table is None else table.num_embeddings


def word_table(encoder: DebertaEncoder | TransformersEncoder) -> nn.Embedding | None:
    """The embeddings of subwords; None where transformers does not say which they are."""
    if isinstance(encoder, DebertaEncoder):
        return encoder.word_embeddings
    try:
        found = encoder.model.get_input_embeddings()
    except NotImplementedError:
        return None
    return found if isinstance(found, nn.Embedding) else None


def readable_subwords(encoder: DebertaEncoder | TransformersEncoder) -> int | None:
    """Subwords of the longest text that the encoder has positions for; None where its positions never end.

    A table of RoBERTa's kind begins with rows of no place in a text: those up to the padding's. The numbers of the rows
    may be fewer than these (Nystromformer), and the types of subwords end, too (NomicBERT, which has no table).
    """
    if isinstance(encoder, DebertaEncoder):
        return None
    limits = []
    for owner in (encoder.model, getattr(encoder.model, "embeddings", None)):
        table, buffers = getattr(owner, "position_embeddings", None), ["token_type_ids"]
        if isinstance(table, nn.Embedding):
            limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
            buffers.append("position_ids")
        found = (getattr(owner, name, None) for name in buffers)
        limits += [buffer.shape[-1] for buffer in found if isinstance(buffer, Tensor)]
    return min(limits, default=None)


class _NoNormalNumbers(TorchFunctionMode):
    """Leaves out normal numbers on the meta device: to draw them, torch imports its compiler, which takes a second."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules built inside have their parameters on the meta device: no memory, no initialisation, no random numbers.

    Buffers stay real, since non-persistent ones (position ids, rotary frequencies) are in no checkpoint and only
    the module's own code can make them. So do the parameters of modules that other threads build meanwhile.
    """
    own_thread = threading.get_ident()

    with _building.lock:
        register = _building.register()  # asked for here, where it is no other checkpoint's

        def register_on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            register(module, name, param)
            if param is not None and threading.get_ident() == own_thread:
                module._parameters[name] = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)

        nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
        try:
            with _NoNormalNumbers():
                yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign, assignment]

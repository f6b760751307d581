"""`GLiNER`: a checkpoint, loaded; `methods` holds what else it does."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from gliner_fast.batch import Batch
from gliner_fast.checkpoints import locating
from gliner_fast.checkpoints.creating import create_parts
from gliner_fast.checkpoints.loading import load_parts
from gliner_fast.checkpoints.parts import Parts, prepare_process
from gliner_fast.compiling import compiled_in_place
from gliner_fast.config import GLiNERConfig, as_config
from gliner_fast.cpu.whole_numbers import Packing, precision_of, quantize, why_slow
from gliner_fast.data_processor import DataProcessor
from gliner_fast.errors import CheckpointError
from gliner_fast.methods.label_vectors import why_missing
from gliner_fast.methods.prediction import PredictionMethods
from gliner_fast.methods.saving import SavingMethods
from gliner_fast.methods.training import TrainingMethods
from gliner_fast.network import BatchScores, Network
from gliner_fast.precision import WholeNumbers, parse_precision, parse_whole_numbers
from gliner_fast.predicting.inner_modules import InnerModules
from gliner_fast.predicting.out_of_memory import Recovery
from gliner_fast.predicting.predictor import Predictor
from gliner_fast.predicting.token_budget import default_budget

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from typing_extensions import Self

if __name__ != "gliner_fast.model":
    # Imported as gliner.model, by whom this package has been put in the place of `gliner` (in sys.modules): there is to
    # be one class of this name.
    sys.modules[__name__] = import_module("gliner_fast.model")

Model = TypeVar("Model", bound="GLiNER")

# Methods of `gliner`'s that no model has here.
_LEFT_OUT = frozenset({
    "collate_batch", "compress_prompt_embeddings", "create_collator", "decode_batch", "export_to_onnx",
    "export_to_openvino", "generate_model_card", "map_entities_to_text", "prepare_base_input",
    "prepare_batch", "prepare_state_dict", "resize_embeddings", "run_batch", "set_class_indices",
})  # fmt: skip


class GLiNER(PredictionMethods, TrainingMethods, SavingMethods, nn.Module):
    """Finds entities of any type, named in plain words.

    Example:
        >>> model = GLiNER.from_pretrained()
        >>> model.predict_entities("Marie Curie was born in Warsaw.", ["person", "city"])  # doctest: +SKIP

    Attributes:
        config: the checkpoint's settings.
        model: the network, a `torch.nn.Module`.
        data_processor: tokenizer and word splitter.
        source: the folder that the model was loaded from, or that training wrote it to; None for a new one.
        variant: of the file of weights in that folder, as `from_pretrained` was asked for it.
        token_budget: most subwords a batch, padding included; None chooses by device. Where memory is short it is
            lowered, and raised again once many batches have gone well.
    """

    def __init__(
        self,
        config: GLiNERConfig | Mapping[str, Any] | str | Path,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        labels_tokenizer: PreTrainedTokenizerBase | None = None,
        backbone_from_pretrained: bool = False,
        corrected_numbering: bool = False,
        source: Path | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Makes a new model with random weights; `from_pretrained` loads one.

        Args:
            config: settings, as an object, a mapping or the path of a JSON file.
            tokenizer: None for that of `config.model_name`.
            labels_tokenizer: of a bi-encoder; None for that of `config.labels_encoder`.
            backbone_from_pretrained: start from the pretrained encoder of `config.model_name`, and of
                `config.labels_encoder`.
            corrected_numbering: see `from_pretrained`.
            source: the folder that the parts come from.
            parts: a loaded network and tokenizer, instead of new ones.
        """
        super().__init__()
        if parts is None:
            parts = create_parts(
                as_config(config),
                tokenizer,
                labels_tokenizer,
                hub=locating.HubOptions(),
                backbone_from_pretrained=backbone_from_pretrained,
            )
        self.config = parts.config.in_use()
        self.model: Network = parts.network
        self.data_processor = DataProcessor(
            self.config,
            parts.tokenizer,
            parts.label_tokenizer,
            parts.words_splitter,
            corrected_numbering=corrected_numbering,
        )
        self.source = source
        self.variant: str | None = None
        self.token_budget: int | None = None
        self._told: set[str] = set()
        self._recovery = Recovery()
        self._budgets: dict[tuple[torch.device, torch.dtype], int] = {}
        self._inner_modules = InnerModules()

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        proxies: Mapping[str, str] | None = None,  # noqa: ARG003
        resume_download: bool = False,  # noqa: ARG003
        local_files_only: bool = False,
        token: str | bool | None = None,
        map_location: str | torch.device | None = "cpu",
        strict: bool = False,
        load_tokenizer: bool | None = None,  # noqa: ARG003
        resize_token_embeddings: bool = True,
        compile_torch_model: bool = False,
        quantize: str | None = None,
        dtype: str | torch.dtype | None = None,
        low_cpu_mem_usage: bool = False,  # noqa: ARG003
        variant: str | None = None,
        load_onnx_model: bool = False,
        onnx_model_file: str = "model.onnx",  # noqa: ARG003
        max_length: int | None = None,
        max_width: int | None = None,
        post_fusion_schema: str | None = None,
        _attn_implementation: str | None = None,
        runtime: str | None = None,
        runtime_model_file: str | None = None,  # noqa: ARG003
        runtime_options: Mapping[str, Any] | None = None,  # noqa: ARG003
        corrected_numbering: bool = False,
    ) -> Self:
        """Loads a checkpoint, with `gliner`'s arguments (compat section 1.2).

        Args:
            model_id: a local folder or a Hub id; None or "built-in" loads the small model that ships with this package.
            revision: of the Hub id; as `cache_dir`, `force_download`, `local_files_only` and `token`, for
                `huggingface_hub`.
            cache_dir: see `revision`.
            force_download: see `revision`.
            proxies: accepted and unused, as are `resume_download`, `load_tokenizer` and `low_cpu_mem_usage`: the
                tokenizer is always loaded, and loading never makes random weights first.
            resume_download: see `proxies`.
            local_files_only: see `revision`.
            token: see `revision`.
            map_location: the device; None for the CPU.
            strict: raise where the weights lack something or hold something unknown, instead of a warning.
            load_tokenizer: see `proxies`.
            resize_token_embeddings: add GLiNER's special tokens to a checkpoint that does not say where they are.
            compile_torch_model: `torch.compile` the network; on a GPU only.
            quantize: "int8" and "int16" are the same as `dtype`, and decide where that is "auto".
            dtype: "fp32" (default), "bf16", "fp16", a floating torch dtype, or "auto" for the fastest one of these that
                the hardware computes natively. "int16" and "int8" multiply whole numbers on the CPU, as the
                method `quantize` tells.
            low_cpu_mem_usage: see `proxies`.
            variant: "fp16" or "bf16" prefers the file of that name; without `dtype` it also sets the dtype.
            load_onnx_model: not offered, like `onnx_model_file` and the `runtime` arguments.
            onnx_model_file: see `load_onnx_model`.
            max_length: longest text in words, instead of the checkpoint's `max_len`.
            max_width: widest span in words, instead of the checkpoint's; token-level models find wider ones, too.
            post_fusion_schema: of a bi-encoder, how labels and words attend to each other before they are scored, such
                as "l2l-l2t-t2t"; "" for not at all. Uni-encoders do not read it.
            _attn_implementation: for encoders that run through transformers.
            runtime: "torch" or None; see `load_onnx_model`.
            runtime_model_file: see `load_onnx_model`.
            runtime_options: see `load_onnx_model`.
            corrected_numbering: give words the right numbers where the tokenizer drops some, such as control
                characters. The reference shifts all later entities left there (Q1), and so does the default.

        Raises:
            FileNotFoundError: nothing is there, or it could not be fetched.
            CheckpointError: what is there is broken or inconsistent.
            UnsupportedCheckpointError: it is a kind of checkpoint that this version does not run.
            ImportError: a library of its word splitter is missing; names what pip is to install.
            ValueError: an argument out of range.
        """
        _refuse_other_runtimes(load_onnx_model, runtime)
        device = torch.device("cpu" if map_location is None else map_location)
        if variant is not None and variant not in ("fp16", "bf16"):
            raise ValueError(f"variant is {variant!r}: expected 'fp16' or 'bf16'")
        weights_dtype, whole = parse_precision(dtype or variant, quantize, device)
        hub = locating.HubOptions(revision, cache_dir, force_download, local_files_only, token)
        folder = locating.locate(model_id, hub, variant)
        parts = load_parts(
            folder,
            overrides={
                "max_len": max_length,
                "max_width": max_width,
                "post_fusion_schema": post_fusion_schema,
                "_attn_implementation": _attn_implementation,
            },
            hub=hub,
            dtype=weights_dtype,
            variant=variant,
            strict=strict,
            resize_token_embeddings=resize_token_embeddings,
        )
        model = _class_for(cls, parts.config)(
            parts.config, source=folder, parts=parts, corrected_numbering=corrected_numbering
        )
        model.variant = variant
        model.to(device).eval()
        if whole is not None:
            _quantize(model, whole)
        if compile_torch_model:
            if device.type == "cpu":
                warnings.warn("Cannot compile model on CPU. Set `map_location='cuda'` to compile.", stacklevel=2)
            else:
                model.compile()
        return model

    @classmethod
    def from_config(
        cls,
        config: GLiNERConfig | Mapping[str, Any] | str | Path,
        cache_dir: str | Path | None = None,
        load_tokenizer: bool = True,  # noqa: ARG003
        resize_token_embeddings: bool = True,
        backbone_from_pretrained: bool = True,
        compile_torch_model: bool = False,
        quantize: str | None = None,
        map_location: str | torch.device | None = "cpu",
        max_length: int | None = None,
        max_width: int | None = None,
        post_fusion_schema: str | None = None,
        _attn_implementation: str | None = None,
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        labels_tokenizer: PreTrainedTokenizerBase | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """A new model, to be trained: a random head on pretrained encoders, or all random (compat section 1.2).

        Where the settings name a `labels_encoder`, it is a bi-encoder. Of that nothing is made that it does not use:
        no LSTM, and no tokens of GLiNER's in its tokenizers.

        Arguments are those of `from_pretrained`, and: `tokenizer` replaces that of `config.model_name`, and
        `labels_tokenizer` that of `config.labels_encoder`; `backbone_from_pretrained` is False for random encoders.

        Raises:
            UnsupportedCheckpointError: settings of a relation extraction model, or of what is not run, such as an
                encoder that is a decoder.
            CheckpointError: an encoder or a tokenizer cannot be loaded, or is of another shape than the settings tell.
            ImportError: a library of the word splitter is missing; names what pip is to install.
            ValueError: an argument out of range; a `labels_tokenizer` for a model that is no bi-encoder.
        """
        device = torch.device("cpu" if map_location is None else map_location)
        _, whole = parse_precision(None, quantize, device)
        changes = {
            "max_len": max_length,
            "max_width": max_width,
            "post_fusion_schema": post_fusion_schema,
            "_attn_implementation": _attn_implementation,
        }
        settings = as_config(config).replace(**{name: value for name, value in changes.items() if value is not None})
        parts = create_parts(
            settings,
            tokenizer,
            labels_tokenizer,
            hub=locating.HubOptions(cache_dir=cache_dir, local_files_only=local_files_only),
            backbone_from_pretrained=backbone_from_pretrained,
            resize_token_embeddings=resize_token_embeddings,
        )
        model = cls(parts.config, parts=parts)
        model.to(device).eval()
        if compile_torch_model:
            model.compile()
        if whole is not None:
            _quantize(model, whole)
        return model

    load_from_config = from_config  # the name that it has in `gliner`'s classes of one kind

    if not TYPE_CHECKING:  # for type checkers torch's is enough: by this one any misspelt method would be there

        def __getattr__(self, name: str) -> Any:
            """As torch's; says so of `gliner`'s methods that no model has, and why a model lacks those of others."""
            try:
                return super().__getattr__(name)
            except AttributeError as error:
                left_out = f"gliner's {name} is not offered here: README, 'What differs from gliner'"
                raise AttributeError(left_out if name in _LEFT_OUT else why_missing(name) or str(error)) from None

    @property
    def device(self) -> torch.device:
        """Where the model is: the device of its first parameter."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights."""
        return next(self.model.parameters()).dtype

    @property
    def precision(self) -> str:
        """What the network multiplies: "int16", "int8", or the name of `dtype`, such as "float32".

        "partly int8" where some layers have left whole numbers, as `quantize` tells.
        """
        return precision_of(self.model) or str(self.dtype).removeprefix("torch.")

    @property
    def corrected_numbering(self) -> bool:
        """Whether words are numbered by their own index, as `from_pretrained` tells."""
        return self.data_processor.corrected_numbering

    def quantize(self, dtype: str = "int8") -> None:
        """Multiplies whole numbers in place of float32 from now on, of 8 bits as in `gliner`, or of 16.

        "int8" is made for CPUs with AVX-512 VNNI, and rounds more than `bf16`; "int16" for those with AVX2 or
        AVX-512, and few answers change (docs/precision-whole-numbers.md). Weights take a quarter or half as much
        memory again. It ends where weights change, leave the CPU or float32, or a gradient is asked for, layer by
        layer; what is saved is float32.

        Raises:
            ValueError: another name, or the model is not in float32 on the CPU, in training mode, or compiled.
        """
        _quantize(self, parse_whole_numbers(dtype))

    def forward(self, batch: Batch) -> BatchScores:
        """Scores the spans of a batch; see `Network.forward`."""
        scores: BatchScores = self.model(batch)
        return scores

    def __setattr__(self, name: str, value: Any) -> None:
        """As torch's; a network that `torch.compile` wraps is compiled in place, as by `compile`."""
        super().__setattr__(name, compiled_in_place(value) if name == "model" else value)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the network with `torch.compile`, for any batch shape unless told otherwise.

        Not worth it on a CPU, where the network runs code of its own: it is slower then, as a warning tells.
        """
        if self.device.type == "cpu":
            warnings.warn("compile() makes a model slower on a CPU: leave it out there", stacklevel=2)
        kwargs.setdefault("dynamic", True)
        self.model.compile(*args, **kwargs)

    def predictor(self) -> Predictor:
        """What prepares and predicts windows of texts, with the settings of this moment."""
        # `gliner` leaves the whole model so, modules that were put in since the last call included.
        if self._inner_modules.are_training(self):
            self.eval()
        device = self.device
        return Predictor(
            self.model,
            self.data_processor.batcher,
            max_words=self.config.max_len,
            max_width=self.config.max_width,
            budget=self.token_budget or self._default_budget(device),
            lower_budget=self._lower_budget,
            recover_budget=self._recover_budget,
            splitter=self.data_processor.custom_splitter,
            device=device,
            is_token_level=self.config.is_token_level,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled; whole numbers in place of weights are made anew."""
        return {**self.__dict__, "_packing": Packing.of(self.model)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes what `__getstate__` gave, maybe in another process."""
        packing = state.pop("_packing")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        prepare_process()
        packing.repeat(self.model)

    def _default_budget(self, device: torch.device) -> int:
        """Asked for once a device and dtype: to ask CUDA for its free memory takes longer than a short text may."""
        if device.type != "cuda":
            return default_budget(self.model, device)  # follows the number of threads
        key = (device, self.dtype)
        if key not in self._budgets:
            self._budgets[key] = default_budget(self.model, device)
        return self._budgets[key]

    def _lower_budget(self, budget: int) -> None:
        asked = self.token_budget
        if self._recovery.lower(asked, asked or self._default_budget(self.device), budget):
            warnings.warn(
                f"out of memory: batches are made smaller from now on, at most {budget:,} subwords "
                "(model.token_budget) until many have gone well; the results stay the same but for rounding",
                stacklevel=4,
            )
        self.token_budget = budget

    def _recover_budget(self, budget: int) -> int:
        full, before = self._recovery.full, self.token_budget
        if not full:
            return budget
        asked = self._recovery.after_batch(before)
        if asked != before:
            self.token_budget = asked
        return max(budget, asked or full)


def _quantize(model: GLiNER, kind: WholeNumbers) -> None:
    """Has a model multiply whole numbers; where they are slow, warns whoever calls the method that calls this."""
    quantize(model.model, kind)
    slow = why_slow(kind)
    if slow is not None:
        warnings.warn(slow, stacklevel=3)


def _class_for(asked: type[Model], config: GLiNERConfig) -> type[Model]:
    """Whose methods suit a checkpoint: relex models answer with relations, too; a class of the user's own is kept.

    Raises:
        CheckpointError: a relex model is asked for, and this is none.
    """
    from gliner_fast.relex import RelexGLiNER

    if config.is_relex:
        return cast(type[Model], RelexGLiNER) if asked is GLiNER else asked
    if issubclass(asked, RelexGLiNER):
        raise CheckpointError(
            f"{asked.__name__} is for relation extraction (relex) models, and this checkpoint has no relations_layer: "
            "load it with GLiNER.from_pretrained"
        )
    return asked


def _refuse_other_runtimes(load_onnx_model: bool, runtime: str | None) -> None:
    if load_onnx_model or (runtime is not None and runtime not in ("torch", "pytorch")):
        raise ValueError("gliner_fast runs the PyTorch weights only: leave out load_onnx_model and runtime")

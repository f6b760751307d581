"""The methods of `GLiNER` that find entities, with the arguments and results of `gliner.GLiNER` (compat 1.3, 1.4)."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from typing_extensions import TypedDict, Unpack

from gliner_fast.config import ENTITIES_ALONE
from gliner_fast.data_processor import whitespace_words
from gliner_fast.devices import Devices
from gliner_fast.labels import Labels, Threshold
from gliner_fast.methods.label_vectors import LabelVectorMethods
from gliner_fast.pipeline import list_texts, predict_parts, stream_texts
from gliner_fast.predicting.request import OnLong, Options, Request

if TYPE_CHECKING:
    from gliner_fast.data_processor import DataProcessor
    from gliner_fast.entity import Entity
    from gliner_fast.infer_packing import InferencePackingConfig

# Texts prepared at once. Sorting by length needs a window; a larger one saves no more padding, and costs memory.
_WINDOW = 8192
_WINDOW_CHARACTERS = 2**24
# On CUDA one window is prepared while another is computed, and for the first the device has to wait: it is to be
# small, about a batch, and each of the next twice as large. Texts that come again are computed once in each window
# that they are in.
_CUDA_WINDOW = 8192
_CUDA_WINDOW_CHARACTERS = 2**21
_CUDA_HALVINGS = 3


class StreamOptions(TypedDict, total=False):
    """Arguments of `GLiNER.stream` that its results do not depend on in type."""

    flat_ner: bool
    threshold: float | Mapping[str, float]
    multi_label: bool
    batch_size: int | None
    return_class_probs: bool
    return_vectors: bool
    return_label_vectors: bool
    on_long: OnLong
    window_size: int
    devices: Devices | None


class PredictionMethods(LabelVectorMethods):
    """What finds entities, for a class that has a model.

    As in `gliner` the methods call `inference` with `gliner`'s own arguments by name, for classes that have their own.

    Attributes:
        config: the model's settings.
        data_processor: tokenizer and word splitter.
        token_budget: most subwords a batch, padding included; None chooses by device.
        runtime: what runs the network, as in `gliner`; with `runtime_model`, `is_runtime_model` and `onnx_model`, which
            are False: there is no other.
    """

    data_processor: DataProcessor
    token_budget: int | None
    runtime = "torch"
    runtime_model = is_runtime_model = onnx_model = False
    _told: set[str]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""

    def predict_entities(
        self,
        text: str,
        labels: Labels,
        flat_ner: bool = True,
        threshold: Threshold = 0.5,
        multi_label: bool = False,
        return_class_probs: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        **kwargs: Any,
    ) -> list[Entity]:
        """Finds the entities of one text.

        Args:
            text: the text.
            labels: entity types in plain words, or a mapping of label to description.
            flat_ner: no two entities share a word; False lets one contain another.
            threshold: entities score above it; a mapping gives each label its own.
            multi_label: one span may have several labels.
            return_class_probs: add the best five labels of each span; of a token-level model nothing.
            return_vectors: add each span's representation.
            return_label_vectors: add the label's representation.
            **kwargs: further arguments of `inference`.

        Returns:
            Entities in reading order.

        Raises:
            ValueError: as `inference`, as are a TypeError and a MemoryError.
        """
        return self.inference(
            [text],
            labels,
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )[0]

    def inference(
        self,
        texts: str | Sequence[str],
        labels: Labels,
        flat_ner: bool | Sequence[bool] = True,
        threshold: Threshold = 0.5,
        multi_label: bool | Sequence[bool] = False,
        batch_size: int | None = None,
        packing_config: object | None = None,  # noqa: ARG002
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = None,
        return_class_probs: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        on_long: OnLong = "truncate",
        labels_embeds: torch.Tensor | None = None,
        **external_inputs: Any,
    ) -> list[list[Entity]]:
        """Finds the entities of many texts (compat section 1.3).

        Texts are batched by length within a budget of subwords, not by number, whatever order they come in; the
        results do not depend on it.

        Args:
            texts: the texts; a string is one text. What is blank or no string has no entities.
            labels: entity types for all texts: strings, or a mapping of label to description. A list of lists or of
                mappings gives each text its own.
            flat_ner: no two entities share a word; False lets one contain another. A sequence has one value a text.
            threshold: entities score above it. A sequence has one value a text, a mapping one a label.
            multi_label: one span may have several labels. A sequence has one value a text.
            batch_size: most texts a batch; leave it out to let the budget alone decide, which is faster.
            packing_config: accepted and unused: padding is avoided without it.
            input_spans: for each text the {"start": ..., "end": ...} character spans that may be entities.
            return_class_probs: add the best five labels of each span as `class_probs`; of a token-level model nothing.
            return_vectors: add each span's representation as `vector`.
            return_label_vectors: add the label's representation as `label_vector`.
            on_long: what becomes of a text of more than `config.max_len` words. "truncate" cuts it off there, with the
                package's warning. "window" reads all of it, in windows that overlap, as many as it takes; entities
                are resolved over the whole text. Those of a token-level model that have more than 32 words may be cut.
                "error" refuses it. The latter two also watch the tokenizer's limit of subwords, which cuts silently.
            labels_embeds: of a bi-encoder, what `encode_labels` made of the labels, one row for each label of one list
                for all texts.
            **external_inputs: accepted as `gliner` does, and unused; each name is warned about once (Q7).

        Returns:
            For each text its entities in reading order; equal starts best score first.

        Raises:
            TypeError: an argument of a wrong type.
            LongTextError: a text is too long, with `on_long="error"`; a ValueError that says which.
            ValueError: an option out of range; a threshold of NaN, or none for a label; per-text values for another
                number of texts; `labels_embeds` that do not fit.
            MemoryError: a single text does not fit into memory.
        """
        self._tell_unused(external_inputs, "inference")
        texts = list_texts(texts)
        if labels_embeds is not None:
            self._expect_label_vectors(labels_embeds)
            if isinstance(labels_embeds, torch.Tensor):  # what is none is refused where the labels are known
                # Here, once: in each batch the host would wait for the device to have come to it.
                labels_embeds = labels_embeds.to(self.device)
        options = Options(
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            batch_size=batch_size,
            input_spans=input_spans,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            on_long=on_long,
            label_vectors=labels_embeds,
        )
        return self.answer(Request.read(texts, labels, options))

    def answer(self, request: Request) -> list[list[Entity]]:
        """For each text of a request its entities; `inference`, which describes them, once its arguments are read."""
        if is_cuda := self.device.type == "cuda":
            parts = request.parts(_CUDA_WINDOW, _CUDA_WINDOW_CHARACTERS, halvings=_CUDA_HALVINGS)
        else:
            parts = request.parts(_WINDOW, _WINDOW_CHARACTERS)
        found: list[list[Entity]] = []
        with closing(predict_parts(self.predictor, parts, ahead=is_cuda)) as results:
            for own in results:
                found += own
        return found

    @overload
    def stream(
        self,
        texts: Iterable[Any],
        labels: str | Sequence[str] | Mapping[str, str],
        *,
        as_tuples: Literal[False] = ...,
        **options: Unpack[StreamOptions],
    ) -> Iterator[list[Entity]]: ...

    @overload
    def stream(
        self,
        texts: Iterable[Any],
        labels: str | Sequence[str] | Mapping[str, str],
        *,
        as_tuples: Literal[True],
        **options: Unpack[StreamOptions],
    ) -> Iterator[tuple[list[Entity], Any]]: ...

    @overload
    def stream(
        self,
        texts: Iterable[Any],
        labels: str | Sequence[str] | Mapping[str, str],
        *,
        as_tuples: bool,
        **options: Unpack[StreamOptions],
    ) -> Iterator[Any]: ...

    def stream(
        self,
        texts: Iterable[Any],
        labels: str | Sequence[str] | Mapping[str, str],
        *,
        flat_ner: bool = True,
        threshold: float | Mapping[str, float] = 0.5,
        multi_label: bool = False,
        batch_size: int | None = None,
        return_class_probs: bool = False,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        on_long: OnLong = "window",
        as_tuples: bool = False,
        window_size: int = 1024,
        devices: Devices | None = None,
    ) -> Iterator[Any]:
        """Finds the entities of any number of texts, lazily and in order, in memory that does not grow.

        Texts are read in this thread, in windows of 32, 64, ... `window_size` texts, one window ahead of the one that
        is computed (on CUDA two, so that the device need not wait; with `devices` two a device). What a text gets does
        not depend on its window, up to rounding. Equal runs give equal bits on one device, unless memory ran out.

        Example:
            >>> with open("notes.txt") as lines:  # doctest: +SKIP
            ...     for entities in model.stream(lines, ["person", "city"]):
            ...         print(entities)
            >>> rows = ((row["body"], row["id"]) for row in table)  # doctest: +SKIP
            >>> found = {id: entities for entities, id in model.stream(rows, labels, as_tuples=True)}  # doctest: +SKIP

        Args:
            texts: a list, file, generator, column of pandas, polars or datasets, ...; what is blank or no string has
                no entities. The first that is neither a string nor a missing value (None, NaN) is warned of.
            labels: entity types for all texts, as for `inference`; so are the options up to `on_long`.
            flat_ner: see `inference`.
            threshold: see `inference`; a number, or a mapping of label to number.
            multi_label: see `inference`.
            batch_size: see `inference`.
            return_class_probs: see `inference`.
            return_vectors: see `inference`.
            return_label_vectors: see `inference`.
            on_long: see `inference`; the default reads long texts whole.
            as_tuples: `texts` gives (text, context) pairs, and (entities, context) pairs come out.
            window_size: most texts computed together; fewer need less memory and more time.
            devices: "all" CUDA devices, or a list such as ["cuda:0", "cuda:1"]: each gets a copy of the network for
                this stream, and windows as it is free. Results come in order. None: where the model is.

        Yields:
            For each text its entities; with `as_tuples` a pair of these and the text's context.

        Raises:
            TypeError: options or labels of a wrong type; a pair in place of a text, or with `as_tuples` no pair.
            LongTextError: a text is too long, with `on_long="error"`; a ValueError that says which.
            ValueError: options out of range; a text that has a word of more than 16,384 characters where the tokenizer
                has no limit.
            MemoryError: a single text does not fit into memory.
        """
        options = Options(
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            batch_size=batch_size,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            on_long=on_long,
        )
        return stream_texts(self, texts, labels, options, as_tuples=as_tuples, most_texts=window_size, devices=devices)

    def batch_predict_entities(
        self,
        texts: Sequence[str],
        labels: Labels,
        flat_ner: bool = True,
        threshold: Threshold = 0.5,
        multi_label: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        **kwargs: Any,
    ) -> list[list[Entity]]:
        """The older name of `inference`, with `gliner`'s FutureWarning."""
        warnings.warn(
            "GLiNER.batch_predict_entities is deprecated and will be removed in a future release. "
            "Please use GLiNER.inference instead.",
            FutureWarning,
            stacklevel=2,
        )
        return self.inference(
            texts,
            labels,
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )

    def prepare_inputs(self, texts: Iterable[str]) -> tuple[list[list[str]], list[list[int]], list[list[int]]]:
        """For each text its words, where they start and where they end, in `gliner`'s form."""
        split = self.data_processor.words_splitter or whitespace_words
        found = [list(split(text)) for text in texts]
        words, starts, ends = ([[word[part] for word in own] for own in found] for part in range(3))
        return words, starts, ends

    def configure_inference_packing(self, config: InferencePackingConfig | None) -> None:
        """Accepted as in `gliner`, without any effect: padding is avoided without it, and no row is cut for it."""

    def _tell_unused(self, names: Mapping[str, Any], method: str) -> None:
        new = sorted(set(names) - self._told)
        if new:
            self._told.update(new)
            hint = f"; {ENTITIES_ALONE}" if "relations" in new else ""
            warnings.warn(f"{', '.join(new)}: not an argument of {method}, ignored{hint}", stacklevel=3)

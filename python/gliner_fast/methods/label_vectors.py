"""The methods of bi-encoders alone: label vectors, and entities by vectors that were made before (compat 1.4)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from gliner_fast.config import ENTITIES_ALONE

if TYPE_CHECKING:
    import torch

    from gliner_fast.config import GLiNERConfig
    from gliner_fast.entity import Entity
    from gliner_fast.labels import Labels, Threshold
    from gliner_fast.predicting.predictor import Predictor

Method = TypeVar("Method", bound=Callable[..., Any])


class _OfBiEncoders:
    """A method that other models do not have: services ask `hasattr(model, "encode_labels")`, as of `gliner`'s."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method

    def __get__(self, model: LabelVectorMethods | None, kind: type | None = None) -> Callable[..., Any]:
        if model is None:
            return self._method
        if not model.config.is_bi_encoder:
            raise AttributeError(why_missing(self._method.__name__))
        return MethodType(self._method, model)


def only_of_bi_encoders(method: Method) -> Method:
    """The same method, of models alone that are bi-encoders."""
    return cast(Method, _OfBiEncoders(method))


def why_missing(name: str) -> str | None:
    """Why a model lacks a method of another kind of models; None for one that no model has."""
    if name == "predict_relations":
        return f"the model has no {name}: {ENTITIES_ALONE}"
    if not isinstance(vars(LabelVectorMethods).get(name), _OfBiEncoders):
        return None
    return f"the model is no bi-encoder, and has no {name}: it reads labels with each text, and has no vectors of them"


class LabelVectorMethods(ABC):
    """What encodes labels by themselves, for a class that has a model.

    Attributes:
        config: the model's settings.
    """

    config: GLiNERConfig

    @abstractmethod
    def predictor(self) -> Predictor:
        """What prepares and predicts windows of texts, with the settings of this moment."""

    @abstractmethod
    def inference(self, texts: str | Sequence[str], labels: Labels, *_: Any, **__: Any) -> list[list[Entity]]:
        """Finds the entities of many texts."""

    @only_of_bi_encoders
    def encode_labels(self, labels: Sequence[str] | Mapping[str, str], batch_size: int = 8) -> torch.Tensor:  # noqa: ARG002
        """Vectors of labels, (labels, hidden_size), for `batch_predict_with_embeds`; of a bi-encoder alone.

        Args:
            labels: what is encoded; of a mapping of label to description the descriptions.
            batch_size: accepted and unused.

        Raises:
            AttributeError: of other models, by asking for the method.
        """
        return self.predictor().encode_labels([labels] if isinstance(labels, str) else labels)

    @only_of_bi_encoders
    def predict_with_embeds(
        self,
        text: str,
        labels_embeddings: torch.Tensor,
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
        """As `predict_entities`, with label vectors that `encode_labels` made before; of a bi-encoder alone."""
        return self.batch_predict_with_embeds(
            [text],
            labels_embeddings,
            labels,
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )[0]

    @only_of_bi_encoders
    def batch_predict_with_embeds(
        self,
        texts: str | Sequence[str],
        labels_embeddings: torch.Tensor,
        labels: Labels,
        flat_ner: bool | Sequence[bool] = True,
        threshold: Threshold = 0.5,
        multi_label: bool | Sequence[bool] = False,
        batch_size: int | None = None,
        packing_config: object | None = None,
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = None,
        return_class_probs: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
    ) -> list[list[Entity]]:
        """As `inference`, with label vectors that `encode_labels` made before; of a bi-encoder alone.

        Raises:
            TypeError: `labels_embeddings` is no tensor of two dimensions.
            ValueError: it has another width, or not one row for each label; labels of each text's own.
        """
        self._expect_label_vectors(labels_embeddings)
        return self.inference(
            texts,
            labels,
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            batch_size=batch_size,
            packing_config=packing_config,
            input_spans=input_spans,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            labels_embeds=labels_embeddings,
        )

    def _expect_label_vectors(self, vectors: torch.Tensor) -> None:
        if not self.config.is_bi_encoder:
            raise ValueError("the model is no bi-encoder: it reads labels with each text, and takes no labels_embeds")
        width = self.config.hidden_size
        if getattr(vectors, "ndim", 0) == 2 and vectors.shape[1] != width:
            raise ValueError(f"labels_embeds is {vectors.shape[1]} wide: expected {width}, the model's hidden_size")

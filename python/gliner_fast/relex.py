"""`RelexGLiNER`: a model that finds the relations between its entities, too (compat section 1.5)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from typing_extensions import TypedDict, Unpack

from gliner_fast.labels import Labels, Relations, Threshold
from gliner_fast.methods.relation_scoring import RelationScoring
from gliner_fast.model import GLiNER
from gliner_fast.pipeline import list_texts, stream_texts
from gliner_fast.predicting.request import OnLong, Options, Request
from gliner_fast.relations.relation import Relation, relations_of

if TYPE_CHECKING:
    from gliner_fast.devices import Devices
    from gliner_fast.entity import Entity


class _Others(TypedDict, total=False):
    """Arguments of `RelexGLiNER.inference` that come by name."""

    return_vectors: bool
    return_label_vectors: bool
    on_long: OnLong


Answers = tuple[list[list["Entity"]], list[list[Relation]]]


class RelexGLiNER(RelationScoring, GLiNER):  # type: ignore[misc]  # as gliner's own, which returns other things
    """Finds entities of any type and relations of any kind between them, both named in plain words.

    `GLiNER.from_pretrained` gives one for a checkpoint that has a `relations_layer`. Its methods have the arguments and
    results of `gliner`'s relex models, which are not everywhere those of other models.

    Example:
        >>> model = GLiNER.from_pretrained("knowledgator/gliner-relex-large-v1.0")  # doctest: +SKIP
        >>> entities, relations = model.predict_relations(  # doctest: +SKIP
        ...     "Marie Curie was born in Warsaw.", ["person", "city"], ["place of birth"]
        ... )
    """

    @overload  # type: ignore[override]
    def inference(
        self,
        texts: str | Sequence[str],
        labels: Labels,
        relations: Relations | None = ...,
        flat_ner: bool | Sequence[bool] = ...,
        threshold: Threshold = ...,
        adjacency_threshold: float | Sequence[float] | None = ...,
        relation_threshold: Threshold | None = ...,
        multi_label: bool | Sequence[bool] = ...,
        batch_size: int | None = ...,
        packing_config: object | None = ...,
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = ...,
        return_relations: Literal[True] = ...,
        return_class_probs: bool = ...,
        **others: Unpack[_Others],
    ) -> Answers: ...

    @overload
    def inference(
        self,
        texts: str | Sequence[str],
        labels: Labels,
        relations: Relations | None = ...,
        flat_ner: bool | Sequence[bool] = ...,
        threshold: Threshold = ...,
        adjacency_threshold: float | Sequence[float] | None = ...,
        relation_threshold: Threshold | None = ...,
        multi_label: bool | Sequence[bool] = ...,
        batch_size: int | None = ...,
        packing_config: object | None = ...,
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = ...,
        *,
        return_relations: Literal[False],
        return_class_probs: bool = ...,
        **others: Unpack[_Others],
    ) -> list[list[Entity]]: ...

    @overload
    def inference(
        self,
        texts: str | Sequence[str],
        labels: Labels,
        relations: Relations | None = ...,
        flat_ner: bool | Sequence[bool] = ...,
        threshold: Threshold = ...,
        adjacency_threshold: float | Sequence[float] | None = ...,
        relation_threshold: Threshold | None = ...,
        multi_label: bool | Sequence[bool] = ...,
        batch_size: int | None = ...,
        packing_config: object | None = ...,
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = ...,
        return_relations: bool = ...,
        return_class_probs: bool = ...,
        **others: Unpack[_Others],
    ) -> Answers | list[list[Entity]]: ...

    def inference(
        self,
        texts: str | Sequence[str],
        labels: Labels,
        relations: Relations | None = (),
        flat_ner: bool | Sequence[bool] = True,
        threshold: Threshold = 0.5,
        adjacency_threshold: float | Sequence[float] | None = None,
        relation_threshold: Threshold | None = None,
        multi_label: bool | Sequence[bool] = False,
        batch_size: int | None = None,
        packing_config: object | None = None,  # noqa: ARG002
        input_spans: Sequence[Sequence[Mapping[str, int]]] | None = None,
        return_relations: bool = True,
        return_class_probs: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        on_long: OnLong = "truncate",
    ) -> Answers | list[list[Entity]]:
        """Finds the entities of many texts, and the relations between them.

        Args:
            texts: see `GLiNER.inference`, as for all options that are not named here.
            labels: entity types; see there.
            relations: kinds of relations for all texts: strings, or one. A list of lists gives each text its own. They
                are part of what the model reads, and so may change its entities.
            flat_ner: see there.
            threshold: entities score above it; see there.
            adjacency_threshold: the probability of a link that two entities must pass to be looked at; None for
                `threshold`, or for 0.5 where that is a mapping. A sequence has one value a text. Models with the
                `relations_layer` "none" look at all pairs.
            relation_threshold: relations score above it; None as for `adjacency_threshold`. A mapping has one value a
                relation.
            multi_label: see there.
            batch_size: see there.
            packing_config: accepted and unused.
            input_spans: see there.
            return_relations: False for the entities alone.
            return_class_probs: see there.
            return_vectors: add representations: of entities as there, of relations the pair's as `vector`, or the
                entities' as `head_relation_vector` and `tail_relation_vector`.
            return_label_vectors: add the label's representation as `label_vector`, to relations that of the relation.
            on_long: see there. With "window" a relation is found where one window sees both of its entities.

        Returns:
            For each text its entities, in reading order, and for each text its relations, by where head and then tail
            stand, as in `gliner`: by start, then end. A token-level model that finds a span by several labels gives a
            relation once for each, and may relate a span to itself.

        Raises:
            TypeError: labels, relations or thresholds of a wrong type.
            ValueError: as `GLiNER.inference`.
            MemoryError: a single text does not fit into memory.
        """
        texts = list_texts(texts)
        options = Options(
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            batch_size=batch_size,
            input_spans=input_spans,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            relations=() if relations is None else relations,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            return_relations=return_relations,
            on_long=on_long,
        )
        found = self.answer(Request.read(texts, labels, options))
        entities = [list(own) for own in found]
        return (entities, [relations_of(own) for own in found]) if return_relations else entities

    def predict_entities(  # type: ignore[override]
        self,
        text: str,
        labels: Labels,
        relations: Relations | None = (),
        flat_ner: bool = True,
        threshold: Threshold = 0.5,
        adjacency_threshold: float | None = None,
        multi_label: bool = False,
        return_class_probs: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        **kwargs: Any,
    ) -> list[Entity]:
        """Finds the entities of one text; `relations` are read beside them, but not looked for.

        Arguments, but for these, are those of `GLiNER.predict_entities`; further ones, those of `inference`.
        """
        entities: list[list[Entity]] = self.inference(
            [text],
            labels,
            relations=relations,
            flat_ner=flat_ner,
            threshold=threshold,
            adjacency_threshold=adjacency_threshold,
            multi_label=multi_label,
            return_relations=False,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )
        return entities[0]

    def predict_relations(
        self,
        text: str,
        labels: Labels,
        relations: Relations,
        flat_ner: bool = True,
        threshold: Threshold = 0.5,
        adjacency_threshold: float | None = None,
        relation_threshold: Threshold | None = None,
        multi_label: bool = False,
        *,
        return_vectors: bool = False,
        return_label_vectors: bool = False,
        **kwargs: Any,
    ) -> tuple[list[Entity], list[Relation]]:
        """Finds the entities of one text, and the relations between them.

        Arguments, but for the text, and errors are those of `inference`.

        Returns:
            The text's entities, and its relations, as `inference` has them.
        """
        found: Answers = self.inference(
            [text],
            labels,
            relations=relations,
            flat_ner=flat_ner,
            threshold=threshold,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            multi_label=multi_label,
            return_relations=True,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )
        entities, linked = found
        return entities[0], linked[0]

    def batch_predict_entities(  # type: ignore[override]
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
    ) -> Answers | list[list[Entity]]:
        """The older name of `inference`, with `gliner`'s FutureWarning."""
        warnings.warn(
            "GLiNER.batch_predict_entities is deprecated and will be removed in a future release. "
            "Please use GLiNER.inference instead.",
            FutureWarning,
            stacklevel=2,
        )
        found: Answers | list[list[Entity]] = self.inference(
            texts,
            labels,
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            **kwargs,
        )
        return found

    def stream(
        self,
        texts: Iterable[Any],
        labels: str | Sequence[str] | Mapping[str, str],
        *,
        relations: str | Sequence[str] = (),
        adjacency_threshold: float | None = None,
        relation_threshold: float | Mapping[str, float] | None = None,
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
        """Finds entities and relations of any number of texts; see `GLiNER.stream` and `inference`.

        Yields:
            For each text its entities; with `relations` a pair of these and the text's relations. With `as_tuples`
            a pair of that and the text's context.
        """
        options = Options(
            flat_ner=flat_ner,
            threshold=threshold,
            multi_label=multi_label,
            batch_size=batch_size,
            return_class_probs=return_class_probs,
            return_vectors=return_vectors,
            return_label_vectors=return_label_vectors,
            relations=relations,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            on_long=on_long,
        )
        results = stream_texts(
            self, texts, labels, options, as_tuples=as_tuples, most_texts=window_size, devices=devices
        )
        if not options.relations:
            return results
        if as_tuples:
            return (((list(own), relations_of(own)), context) for own, context in results)
        return ((list(own), relations_of(own)) for own in results)

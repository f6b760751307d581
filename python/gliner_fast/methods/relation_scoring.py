"""The method of `RelexGLiNER` that evaluates it, with the arguments of `gliner`'s relation extraction models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gliner_fast.relex import RelexGLiNER


class RelationScoring:
    """What scores entities and relations against annotation; it imports what it needs when it is called."""

    def evaluate(
        self,
        test_data: Iterable[Any],
        flat_ner: bool = False,
        multi_label: bool = False,
        threshold: float = 0.5,
        adjacency_threshold: float | None = None,
        relation_threshold: float | None = None,
        batch_size: int = 12,  # noqa: ARG002
        entity_types: Sequence[str] | None = None,
        relation_types: Sequence[str] | None = None,
    ) -> tuple[tuple[str, float], tuple[str, float]]:
        """Exact-match precision, recall and F1 of entities and of relations on annotated words.

        Args:
            test_data: examples, or dicts with `tokenized_text`, `ner` and `relations`, `[[head, tail, relation], ...]`
                by the places of both in `ner`.
            flat_ner: no two entities share a word.
            multi_label: one span may have several labels.
            threshold: entities score above it.
            adjacency_threshold: as in `inference`.
            relation_threshold: as in `inference`.
            batch_size: accepted and unused: the budget of subwords decides.
            entity_types: asked for; None asks for all labels of the data, where `gliner` draws some at random.
            relation_types: likewise. `gliner` asks for none where this alone is None, and for drawn ones where
                `entity_types` alone is.

        Returns:
            A line for people, and F1 in [0, 1], of entities and of relations. Relations are those that `inference`
            finds; of a token-level model `gliner` looks for them between annotated entities alone.

        Raises:
            DataError: an example that is none, or annotates what it has not; a ValueError that says which.
        """
        from gliner_fast.evaluation.relation_scores import evaluate_relations_like_gliner

        return evaluate_relations_like_gliner(
            cast("RelexGLiNER", self),
            test_data,
            flat_ner,
            multi_label,
            threshold,
            adjacency_threshold,
            relation_threshold,
            entity_types,
            relation_types,
        )

"""The methods of `GLiNER` that train and evaluate it, with the arguments of `gliner.GLiNER` (compat section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER
    from gliner_fast.training import TrainingReport
    from gliner_fast.training.drop_in import Arguments


class TrainingMethods:
    """What trains and evaluates a model, for `GLiNER` alone; each method imports what it needs when it is called."""

    def evaluate(
        self,
        test_data: Iterable[Any],
        flat_ner: bool = False,
        multi_label: bool = False,
        threshold: float = 0.5,
        batch_size: int = 12,  # noqa: ARG002
        entity_types: Sequence[str] | None = None,
    ) -> tuple[str, float]:
        """Exact-match precision, recall and F1 on annotated words (compat section 7.5).

        Args:
            test_data: examples, or dicts with `tokenized_text` and `ner`.
            flat_ner: no two entities share a word.
            multi_label: one span may have several labels.
            threshold: entities score above it.
            batch_size: accepted and unused: the budget of subwords decides.
            entity_types: asked for; None asks for all labels of the data, where `gliner` draws some at random.

        Returns:
            A line for people, and F1 in [0, 1].

        Raises:
            DataError: an example that is none, or annotates words that it has not; a ValueError that says which. In
                `gliner` such an entity counts as missed.
        """
        from gliner_fast.evaluation import evaluate_like_gliner

        return evaluate_like_gliner(cast("GLiNER", self), test_data, flat_ner, multi_label, threshold, entity_types)

    @staticmethod
    def create_training_args(output_dir: str | Path, **settings: Any) -> Arguments:
        """Settings for `train_model`, by `gliner`'s names and with its defaults."""
        from gliner_fast.training.drop_in import create_training_args

        return create_training_args(output_dir, **settings)

    def freeze_component(self, component_name: str) -> None:
        """Keeps training from changing a component: "text_encoder" or, of a bi-encoder, "labels_encoder"."""
        from gliner_fast.training.drop_in import set_frozen

        set_frozen(cast("GLiNER", self), component_name, frozen=True)

    def unfreeze_component(self, component_name: str) -> None:
        """Undoes `freeze_component`."""
        from gliner_fast.training.drop_in import set_frozen

        set_frozen(cast("GLiNER", self), component_name, frozen=False)

    def train_model(
        self,
        train_dataset: Iterable[Any],
        eval_dataset: Iterable[Any] | None = None,
        training_args: Any = None,
        freeze_components: Sequence[str] | None = None,
        compile_model: bool = False,
        output_dir: str | Path | None = None,
        *,
        resume: bool = False,
        **training_kwargs: Any,
    ) -> TrainingReport:
        """Trains this model in place, with `gliner`'s arguments; see `gliner_fast.training.train_model`."""
        from gliner_fast.training import train_model

        return train_model(
            cast("GLiNER", self),
            train_dataset,
            eval_dataset,
            training_args,
            freeze_components,
            compile_model,
            output_dir,
            resume=resume,
            **training_kwargs,
        )

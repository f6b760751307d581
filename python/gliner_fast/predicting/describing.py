"""Spans of a batch -> the dicts that the user gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from gliner_fast.batch import Batch
from gliner_fast.decode import class_probabilities
from gliner_fast.predicting.preparing import Prepared
from gliner_fast.scorer import SpanScorer
from gliner_fast.scoring.candidates import Candidates
from gliner_fast.upload import upload

if TYPE_CHECKING:
    from gliner_fast.entity import Entity
    from gliner_fast.network import BatchScores, Network
    from gliner_fast.relations.pairs import Nodes


@dataclass(frozen=True)
class Findings:
    """Spans of prepared texts with all that is told of them, free of the batch that they come from.

    Attributes:
        texts: (S,) the text of each span.
        starts: (S,) its first word, counted in the text.
        ends: (S,) one past its last word.
        classes: (S,) index into its text's labels.
        scores: (S,) float32.
        extras: further values by their key in `Entity`, S each.
    """

    texts: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float32]
    extras: dict[str, NDArray[Any]]

    def take(self, chosen: NDArray[np.int64]) -> Findings:
        """Some of them, in the order asked for."""
        return Findings(
            self.texts[chosen],
            self.starts[chosen],
            self.ends[chosen],
            self.classes[chosen],
            self.scores[chosen],
            {name: values[chosen] for name, values in self.extras.items()},
        )

    @classmethod
    def join(cls, parts: Sequence[Findings]) -> Findings:
        """All of them, one after another."""
        return cls(
            np.concatenate([part.texts for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.ends for part in parts]),
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            {name: np.concatenate([part.extras[name] for part in parts]) for name in parts[0].extras},
        )


def read_findings(
    prepared: Prepared,
    batch: Batch,
    scores: BatchScores,
    spans: Candidates,
    network: Network,
    max_width: int,
) -> Findings:
    """Gathers what the user asked to know of some spans of a batch.

    Args:
        prepared: the texts.
        batch: B rows of them.
        scores: what the network says of the batch.
        spans: of the batch.
        network: makes span vectors.
        max_width: K.
    """
    options, row_of_span = prepared.request.options, spans.texts
    word_counts, class_counts = batch.word_counts.numpy(), batch.class_counts.numpy()
    extras: dict[str, NDArray[Any]] = {}
    if options.return_class_probs and isinstance(network.scorer, SpanScorer):  # the package ignores it for others
        names = [labels.names for labels in prepared.label_sets_of(prepared.rows.texts[batch.rows])]
        best = class_probabilities(scores.dense, spans, word_counts, class_counts, max_width, names)
        extras["class_probs"] = np.empty(len(best), object)
        extras["class_probs"][:] = [dict(own) for own in best]
    if options.return_vectors:
        ends = packed_ends(batch, spans, scores.words.device)
        extras["vector"] = _to_numpy(network.scorer.span_vectors(scores.words, *ends))  # (S, D)
    if options.return_label_vectors:
        firsts = (np.cumsum(class_counts) - class_counts)[row_of_span]  # (S,) first packed prompt of each span's row
        (chosen,) = upload([torch.from_numpy(firsts + spans.classes)], scores.prompts.device)
        extras["label_vector"] = _to_numpy(scores.prompts[chosen])  # (S, D)
    rows = batch.rows[row_of_span]  # (S,)
    first_words = prepared.rows.firsts[rows]
    return Findings(
        prepared.rows.texts[rows],
        spans.starts + first_words,
        spans.ends + first_words,
        spans.classes,
        spans.scores,
        extras,
    )


def packed_ends(batch: Batch, spans: Candidates | Nodes, device: torch.device) -> list[torch.Tensor]:
    """The first and the last word of each span, two of (S,) on the device, as indices into the batch's packed words."""
    counts = batch.word_counts.numpy()
    firsts = (np.cumsum(counts) - counts)[spans.texts]  # (S,) first packed word of each span's row
    return upload([torch.from_numpy(firsts + word) for word in (spans.starts, spans.ends - 1)], device)


def describe(prepared: Prepared, findings: Findings) -> list[Entity]:
    """Writes one dict for each finding."""
    first_words = prepared.words.text_offsets[findings.texts]  # (S,)
    starts = prepared.words.starts[first_words + findings.starts]
    ends = prepared.words.ends[first_words + findings.ends - 1]
    entities: list[dict[str, Any]] = []
    for text, labels, start, end, class_, score in zip(
        findings.texts.tolist(),
        prepared.label_sets_of(findings.texts),
        starts.tolist(),
        ends.tolist(),
        findings.classes.tolist(),
        findings.scores.tolist(),
        strict=True,
    ):
        entities.append(
            {
                "start": start,
                "end": end,
                "text": prepared.texts[text][start:end],
                "label": labels.names[class_],
                "score": score,
            }
        )
    for name, values in findings.extras.items():
        for entity, value in zip(entities, values, strict=True):
            entity[name] = value
    return cast("list[Entity]", entities)


def _to_numpy(vectors: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = vectors.float().cpu().numpy()
    return array

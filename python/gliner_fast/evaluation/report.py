"""Evaluations -> JSON and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gliner_fast.evaluation.benchmarks import Average, averages
from gliner_fast.evaluation.results import Evaluation, Result
from gliner_fast.evaluation.scores import macro_f1, micro

if TYPE_CHECKING:
    from rich.table import Table

    from gliner_fast.evaluation.scored_examples import LabelThresholds


def report(evaluations: Sequence[Evaluation], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All scores and benchmark averages, ready for JSON; `settings` stand in front."""
    return {
        **settings,
        "matching": "label, first and last word equal; micro over all labels; percent",
        **(
            {"matching_of_relations": "relation and the words of both entities equal; likewise"}
            if any(evaluation.asked_relations is not None for evaluation in evaluations)
            else {}
        ),
        "sets": [evaluation.to_dict() for evaluation in evaluations],
        "averages": [
            {
                "benchmark": average.benchmark.name,
                "complete": average.is_complete,
                "sets": list(average.present),
                "threshold": evaluations[0].results[index].to_dict()["threshold"],
                "f1": round(100 * average.f1, 3),
            }
            for index in range(len(evaluations[0].results))
            for average in averages_at(evaluations, index)
        ],
    }


def averages_at(evaluations: Sequence[Evaluation], index: int) -> list[Average]:
    """Benchmark averages at the threshold of that index."""
    return averages({evaluation.name: evaluation.results[index].micro.f1 for evaluation in evaluations})


def sets_table(evaluations: Sequence[Evaluation], shown: Callable[[str], str] = str) -> Table:
    """One row a set and threshold, then the averages; names as `shown` gives them."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("set", "threshold", box=None, pad_edge=False)
    for title in ("sentences", "entities", "P", "R", "F1", "macro F1"):
        table.add_column(title, justify="right")
    for evaluation in evaluations:
        for result in evaluation.results:
            score = result.micro
            table.add_row(
                escape(shown(evaluation.name)),
                _name(result.threshold),
                f"{evaluation.examples:,}",
                f"{score.gold:,}",
                *(f"{100 * rate:.2f}" for rate in (score.precision, score.recall, score.f1, macro_f1(result.labels))),
            )
    for index, result in enumerate(evaluations[0].results):
        for average in averages_at(evaluations, index):
            present, count = len(average.present), len(average.benchmark.sets)
            name = f"{average.benchmark.name}, mean of {present} sets" + ("" if average.is_complete else f" of {count}")
            table.add_row(
                f"[bold]{name}[/bold]", _name(result.threshold), "", "", "", "", f"[bold]{100 * average.f1:.2f}[/bold]"
            )
    return table


def labels_table(evaluation: Evaluation, shown: Callable[[str], str] = str) -> Table:
    """One row a label and threshold of one set; names as `shown` gives them."""
    from rich.markup import escape
    from rich.table import Table

    title = escape(shown(evaluation.name))
    table = Table("label", "threshold", title=title, title_justify="left", box=None, pad_edge=False)
    for title in ("entities", "predicted", "P", "R", "F1"):
        table.add_column(title, justify="right")
    for label in evaluation.results[0].labels:
        for result in evaluation.results:
            score = result.labels[label]
            limit: float | None = None
            if label in evaluation.asked:  # or else it is annotated only
                limit = result.threshold[label] if isinstance(result.threshold, Mapping) else result.threshold
            table.add_row(
                escape(shown(label)),
                "not asked" if limit is None else f"{limit:g}",
                f"{score.gold:,}",
                f"{score.predicted:,}",
                *(f"{100 * rate:.2f}" for rate in (score.precision, score.recall, score.f1)),
            )
    return table


def relations_table(
    evaluations: Sequence[Evaluation], shown: Callable[[str], str] = str, *, each: bool = False
) -> Table:
    """One row a set and threshold, of all relations and, if wanted, of each; names as `shown` gives them."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("set", "of entities", "threshold", "relation", box=None, pad_edge=False)
    for title in ("relations", "predicted", "P", "R", "F1"):
        table.add_column(title, justify="right")
    for evaluation in evaluations:
        for result in evaluation.results if evaluation.asked_relations is not None else ():
            scores = result.relations or {}
            limit = _relation_limit(evaluation, result)
            for name, score in [(None, micro(scores.values())), *(scores.items() if each else ())]:
                is_asked = name is None or name in (evaluation.asked_relations or ())
                own = limit[name] if isinstance(limit, Mapping) and name in limit else limit
                table.add_row(
                    escape(shown(evaluation.name)),
                    _name(result.threshold),
                    _name(own) if is_asked else "not asked",
                    "all of them" if name is None else escape(shown(name)),
                    f"{score.gold:,}",
                    f"{score.predicted:,}",
                    *(f"{100 * rate:.2f}" for rate in (score.precision, score.recall, score.f1)),
                )
    return table


def _relation_limit(evaluation: Evaluation, result: Result) -> LabelThresholds:
    """What relations had to score above, as `RelexGLiNER.inference` has it."""
    if evaluation.relation_threshold is not None:
        return evaluation.relation_threshold
    return 0.5 if isinstance(result.threshold, Mapping) else result.threshold


def _name(threshold: LabelThresholds) -> str:
    return "per label" if isinstance(threshold, Mapping) else f"{threshold:g}"

"""What a comparison with `gliner` found, for reading and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from gliner_fast.comparing.installed_gliner import installed_version

FoundBy: TypeAlias = Literal["ours", "reference", "both", "neither"]

_WHO = {"ours": "only ours", "reference": "only gliner", "both": "order or text", "neither": "missing from ours"}
_SHOWN = 20


class Cause(str, Enum):
    """Why an entity or a relation differs."""

    NEAR_THRESHOLD = "near threshold"
    NEAR_TIE = "near tie"
    KNOCK_ON = "knock-on"  # it clashes with, or was freed by, an entity that differs for one of the reasons above
    LINK_NEAR_THRESHOLD = "link near threshold"  # whether a relation was looked for between these two
    ENTITY_DIFFERS = "an entity differs"  # one side lacks an end of the relation
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True)
class Difference:
    """One entity that ours and the reference do not agree on."""

    text: int
    """Index of the text."""
    start: int
    end: int
    label: Any
    score: float
    """The reference's score; ours where the reference has none."""
    found_by: FoundBy
    """"both": found by both, at another place of the list or with another text. "neither": should have been freed by
    another difference."""
    cause: Cause

    def __str__(self) -> str:
        place = f"text {self.text}: {self.label!r} at {self.start}..{self.end}, score {self.score:.6f}"
        return f"{place}, {_WHO[self.found_by]}: {self.cause.value}"


@dataclass(frozen=True)
class RelationDifference:
    """One relation that ours and the reference do not agree on."""

    text: int
    """Index of the text."""
    head: tuple[int, int]
    """Start and end."""
    tail: tuple[int, int]
    relation: Any
    score: float
    """The reference's score; ours where the reference has none."""
    found_by: FoundBy
    """As of a `Difference`."""
    cause: Cause

    def __str__(self) -> str:
        ends = " to ".join(f"{start}..{end}" for start, end in (self.head, self.tail))
        place = f"text {self.text}: {self.relation!r} from {ends}, score {self.score:.6f}"
        return f"{place}, {_WHO[self.found_by]}: {self.cause.value}"


@dataclass(frozen=True)
class RelationReport:
    """What a comparison found of relations. A relation is the same one with the same ends and the same name."""

    found: int
    """Relations that the reference found."""
    equal: int
    """Found by both, scores within the tolerance."""
    moved: int
    """Found by both, scores further apart than the tolerance."""
    explained: int
    unexplained: int
    max_score_difference: float
    """Over the relations that both found."""
    failed: tuple[int, ...] = ()
    """Indices of texts that the reference has no answer to: they are compared as if it had found nothing there."""
    differences: tuple[RelationDifference, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether ours gave the reference's relations: no score moved, nothing unexplained."""
        return self.moved == 0 and self.unexplained == 0

    def to_dict(self) -> dict[str, Any]:
        """All counts and differences, ready for JSON."""
        return {"ok": self.ok, **_counts(self), "differences": _as_dicts(self.differences)}

    def lines(self, tolerance: float) -> list[str]:
        """For reading; scores within the tolerance count as equal."""
        lines = [f"{self.found:,} relations found by gliner", *_lines(self, tolerance)]
        if self.failed:
            shown = [*map(str, self.failed[:_SHOWN]), *(["..."] if len(self.failed) > _SHOWN else [])]
            texts = "1 text" if len(self.failed) == 1 else f"{len(self.failed):,} texts"
            lines.append(f"gliner failed on {texts}, compared as if it had found nothing there: {', '.join(shown)}")
        return lines


@dataclass(frozen=True)
class VerificationReport:
    """What a comparison found. `str(report)` is for reading, `to_dict` for machines."""

    texts: int
    entities: int
    """Entities that the reference found."""
    equal: int
    """Found by both, scores within the tolerance."""
    moved: int
    """Found by both, scores further apart than the tolerance."""
    explained: int
    unexplained: int
    max_score_difference: float
    """Over the entities that both found."""
    tolerance: float
    differences: tuple[Difference, ...] = ()
    reference_version: str = field(default_factory=installed_version)
    """Of the `gliner` that is installed."""
    relations: RelationReport | None = None
    """None where none were asked for."""

    @property
    def parts(self) -> tuple[VerificationReport | RelationReport, ...]:
        """What has counts of its own: entities, and relations where some were asked for."""
        return (self,) if self.relations is None else (self, self.relations)

    @property
    def ok(self) -> bool:
        """Whether ours gave the reference's answers: no score moved, nothing unexplained."""
        return self.moved == 0 and self.unexplained == 0 and (self.relations is None or self.relations.ok)

    def to_dict(self) -> dict[str, Any]:
        """All counts and differences, ready for JSON; `relations` only where some were asked for."""
        values = {"ok": self.ok, **_counts(self), "differences": _as_dicts(self.differences)}
        return values if self.relations is None else {**values, "relations": self.relations.to_dict()}

    def __str__(self) -> str:
        lines = [
            f"{self.texts:,} texts, {self.entities:,} entities found by gliner {self.reference_version}",
            *_lines(self, self.tolerance),
            *([] if self.relations is None else self.relations.lines(self.tolerance)),
        ]
        return "\n".join([*lines, "The same answers." if self.ok else "NOT the same answers."])


def _lines(part: VerificationReport | RelationReport, tolerance: float) -> list[str]:
    differences: Sequence[Difference | RelationDifference] = part.differences
    causes = Counter(d.cause.value for d in differences if d.cause is not Cause.UNEXPLAINED)
    why = f" ({', '.join(f'{number} {cause}' for cause, number in causes.items())})" if causes else ""
    shown = sorted(differences, key=lambda d: d.cause is not Cause.UNEXPLAINED)[:_SHOWN]
    lines = [
        f"  equal                  {part.equal:>9,}  within {tolerance:g}",
        f"  moved score            {part.moved:>9,}  largest difference {part.max_score_difference:.2g}",
        f"  differing, explained   {part.explained:>9,}{' ' if why else ''}{why}",
        f"  differing, unexplained {part.unexplained:>9,}",
        *(f"    {difference}" for difference in shown),
    ]
    if len(differences) > len(shown):
        lines.append(f"    and {len(differences) - len(shown):,} more")
    return lines


def _counts(part: VerificationReport | RelationReport) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in {"differences", "relations"}}


def _as_dicts(differences: Sequence[Difference | RelationDifference]) -> list[dict[str, Any]]:
    return [{**vars(difference), "cause": difference.cause.value} for difference in differences]

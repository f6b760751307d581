"""What a comparison with `gliner` found, for reading and for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from gliner_fast.comparing.installed_gliner import installed_version

FoundBy: TypeAlias = Literal["ours", "reference", "both", "neither"]


class Cause(str, Enum):
    """Why an entity differs."""

    NEAR_THRESHOLD = "near threshold"
    NEAR_TIE = "near tie"
    KNOCK_ON = "knock-on"  # it clashes with, or was freed by, an entity that differs for one of the reasons above
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
        who = {"ours": "only ours", "reference": "only gliner", "both": "order or text", "neither": "missing from ours"}
        place = f"text {self.text}: {self.label!r} at {self.start}..{self.end}, score {self.score:.6f}"
        return f"{place}, {who[self.found_by]}: {self.cause.value}"


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

    @property
    def ok(self) -> bool:
        """Whether ours gave the reference's answers: no score moved, nothing unexplained."""
        return self.moved == 0 and self.unexplained == 0

    def to_dict(self) -> dict[str, Any]:
        """All counts and differences, ready for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "differences"}
        differences = [{**vars(difference), "cause": difference.cause.value} for difference in self.differences]
        return {"ok": self.ok, **values, "differences": differences}

    def __str__(self) -> str:
        causes = Counter(d.cause.value for d in self.differences if d.cause is not Cause.UNEXPLAINED)
        why = f" ({', '.join(f'{number} {cause}' for cause, number in causes.items())})" if causes else ""
        shown = sorted(self.differences, key=lambda d: d.cause is not Cause.UNEXPLAINED)[:20]
        lines = [
            f"{self.texts:,} texts, {self.entities:,} entities found by gliner {self.reference_version}",
            f"  equal                  {self.equal:>9,}  within {self.tolerance:g}",
            f"  moved score            {self.moved:>9,}  largest difference {self.max_score_difference:.2g}",
            f"  differing, explained   {self.explained:>9,}{' ' if why else ''}{why}",
            f"  differing, unexplained {self.unexplained:>9,}",
            *(f"    {difference}" for difference in shown),
        ]
        if len(self.differences) > len(shown):
            lines.append(f"    and {len(self.differences) - len(shown):,} more")
        return "\n".join([*lines, "The same answers." if self.ok else "NOT the same answers."])

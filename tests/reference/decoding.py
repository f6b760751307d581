"""Candidates -> entities: gliner's greedy search (compat 6.2, 6.4), each candidate against all that are kept."""

import math

Candidate = tuple[int, int, float]  # start, end (excluded), score


def clash(one: Candidate, other: Candidate, *, nested: bool, multi_label: bool) -> bool:
    """Whether two candidates may not stand together."""
    (start, end, _), (other_start, other_end, _) = one, other
    if (start, end) == (other_start, other_end):
        return not multi_label
    if end <= other_start or other_end <= start:
        return False
    within = start <= other_start and other_end <= end
    around = other_start <= start and end <= other_end
    return not (nested and (within or around))


def resolve(candidates: list[Candidate], *, nested: bool, multi_label: bool) -> list[int]:
    """Indices of the candidates that are kept."""
    scored = [index for index, candidate in enumerate(candidates) if not math.isnan(candidate[2])]
    kept: list[int] = []
    for index in sorted(scored, key=lambda index: -candidates[index][2]):  # stable: equal scores keep their order
        rivals = (candidates[other] for other in kept)
        if not any(clash(candidates[index], rival, nested=nested, multi_label=multi_label) for rival in rivals):
            kept.append(index)
    return sorted(kept, key=lambda index: candidates[index][0])  # stable: by score at the same start

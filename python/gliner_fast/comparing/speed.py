"""Times our predictor on a user's own texts and machine, beside the installed `gliner` (DESIGN 7)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gliner_fast.comparing.installed_gliner import installed_version, load_reference
from gliner_fast.comparing.report import VerificationReport
from gliner_fast.comparing.verification import entities_alone, verify
from gliner_fast.words import split_words

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

_BATCH_SIZES = {"cpu": (1, 4, 8, 16), "cuda": (1, 16, 64, 256)}


@dataclass(frozen=True)
class Times:
    """Seconds of the rounds of one way to find entities in all texts."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.seconds)

    def quartiles_of_ratios(self, ours: Times) -> tuple[float, float, float]:
        """How many times as long as ours it took, round by round: lower quartile, median, upper quartile."""
        ratios = [theirs / mine for theirs, mine in zip(self.seconds, ours.seconds, strict=True)]
        if len(ratios) == 1:
            return ratios[0], ratios[0], ratios[0]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, middle, high


@dataclass(frozen=True)
class SpeedReport:
    """What a measurement found. `str(report)` is for reading, `to_dict` for machines.

    Attributes:
        texts: how many.
        words: that are read, of all texts, as the model splits them.
        unread_words: behind the model's limit, which `inference` cuts off here and there.
        ours: our times.
        rivals: gliner's times in several ways; none where it was not asked for.
        agreement: whether both gave the same answers just before; None where gliner was not asked for.
        conditions: device, dtypes, threads.
    """

    texts: int
    words: int
    unread_words: int
    ours: Times
    rivals: tuple[Times, ...]
    agreement: VerificationReport | None
    conditions: str

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        rivals = {}
        for rival in self.rivals:
            low, ratio, high = rival.quartiles_of_ratios(self.ours)
            rivals[rival.name] = {"median_s": rival.median, "ratio": ratio, "ratio_quartiles": [low, high]}
        return {
            "texts": self.texts,
            "words": self.words,
            "unread_words": self.unread_words,
            "conditions": self.conditions,
            "median_s": self.ours.median,
            "words_per_second": self.words / self.ours.median,
            "rivals": rivals,
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
        }

    def __str__(self) -> str:
        words = f"{self.words:,} words"
        if self.unread_words:
            words += f" ({self.unread_words:,} more are beyond the model's limit, and not read)"
        lines = [
            f"{self.texts:,} texts, {words}; rounds: {len(self.ours.seconds)}; {self.conditions}",
            f"  {self.ours.name:32} {self.words / self.ours.median:>10,.1f} words/s",
        ]
        for rival in self.rivals:
            low, ratio, high = rival.quartiles_of_ratios(self.ours)
            speed = f"{self.words / rival.median:>10,.1f} words/s"
            spread = f" ({low:.2f} to {high:.2f})" if len(rival.seconds) > 1 else ""
            lines.append(f"  {rival.name:32} {speed}   ours is {ratio:.2f}x{spread}")
        if self.agreement is not None:
            lines.append(f"{self.agreement.equal:,} of {self.agreement.entities:,} entities equal")
            lines += [] if self.agreement.ok else ["NOT the same answers: see gliner-fast verify"]
        return "\n".join(lines)


def measure_speed(
    ours: GLiNER,
    texts: Sequence[str],
    labels: Sequence[str] | Mapping[str, str],
    *,
    threshold: float = 0.5,
    rounds: int = 5,
    compare: bool = True,
    reference: Any = None,
    tell: Callable[[str], None] = lambda _: None,
) -> SpeedReport:
    """Finds entities in all texts again and again, in turns with `gliner`.

    Args:
        ours: our model.
        texts: equal ones would be computed once by ours and each time by `gliner`: they are left out.
        labels: what to look for: names, or names with descriptions.
        threshold: one for all.
        rounds: each of all ways in turn, so that a machine that slows down slows all of them down.
        compare: whether to time `gliner`, in float32 whatever ours is in: as shipped, and with texts sorted by length
            and the batch size that one trial found fastest.
        reference: a loaded `gliner` model; None: loaded from our model's folder.
        tell: takes lines of progress.

    Raises:
        ImportError: `gliner` is not installed, and is asked for.
        ValueError: no text, no round, or a model that was not loaded from a folder.
    """
    import torch

    texts = list(dict.fromkeys(text for text in texts if text.strip()))
    if not texts or rounds < 1:
        raise ValueError("there is nothing to measure: give at least one text that is not empty, and one round")
    alone = entities_alone(ours)
    ways: dict[str, Callable[[], object]] = {
        "gliner_fast": lambda: ours.inference(texts, labels, threshold=threshold, **alone),  # type: ignore[arg-type]
    }
    agreement = None
    if compare:
        tell("loading gliner")
        theirs = load_reference(ours) if reference is None else reference
        tell("comparing the answers")
        agreement = verify(ours, texts, labels, threshold=threshold, reference=theirs)
        by_length = sorted(texts, key=len, reverse=True)

        def shipped() -> object:
            return theirs.inference(texts, labels, threshold=threshold, **alone)

        def sorted_by(size: int) -> Callable[[], object]:
            return lambda: theirs.inference(by_length, labels, threshold=threshold, batch_size=size, **alone)

        tell("looking for gliner's best batch size")
        sizes = _BATCH_SIZES.get(ours.device.type, _BATCH_SIZES["cpu"])
        trials = {size: _seconds(sorted_by(size)) for size in sizes}
        best = min(trials, key=trials.__getitem__)
        ways["gliner as shipped"] = shipped
        ways[f"gliner sorted, batches of {best}"] = sorted_by(best)
    for call in ways.values():
        call()  # fills caches, and loads what is loaded late
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        for name, call in ways.items():
            seconds[name].append(_seconds(call))
    mine, *others = (Times(name, tuple(taken)) for name, taken in seconds.items())
    split = split_words(texts, ours.config.max_len, ours.data_processor.custom_splitter)
    words = int(split.words.text_offsets[-1])
    return SpeedReport(
        texts=len(texts),
        words=words,
        unread_words=int(split.total_counts.sum()) - words,
        ours=mine,
        rivals=tuple(others),
        agreement=agreement,
        conditions=(
            f"{ours.device}, {ours.precision}, threads: {torch.get_num_threads()}, torch {torch.__version__}"
            + (f", gliner {installed_version()} in float32" if compare else "")
        ),
    )


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin

"""What a job did: for people at its end, for programs in report.json."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliner_fast.errors import count
from gliner_fast.jobs.aside import write_aside

if TYPE_CHECKING:
    from gliner_fast.jobs.job_folder import Paths, SliceRecord

_STAGES = ("read", "prepare", "encode", "score", "decode", "write")


@dataclass(frozen=True, kw_only=True)
class JobReport:
    """What a job did, all its runs together.

    Attributes:
        output: the file, or the folder of shards.
        is_complete: False where the job was stopped; the same call goes on.
        rows: input rows, rejects included.
        rejects: rows that could not be used.
        rejects_file: where they are, each with file, line and reason; None where there are none, and for a stream.
        entities: entities found.
        shards: slices that the work was cut into.
        rows_here: rows done by this run; the others were done before.
        seconds: wall time of this run, loading the model included.
        stats: counts and seconds of all runs, as in `Stats`, with the seconds of reading and writing, and the rejects
            that are `misfits`: good but for columns that the first rows had otherwise. Stages overlap: their sum may
            pass the wall time.
        relations: relations found; None where none were asked for.
    """

    output: str
    is_complete: bool
    rows: int
    rejects: int
    rejects_file: str | None
    entities: int
    shards: int
    rows_here: int
    seconds: float
    stats: dict[str, float]
    relations: int | None = None

    @classmethod
    def of(
        cls,
        records: Collection[SliceRecord],
        paths: Paths | None,
        *,
        is_complete: bool,
        rows_before: int,
        seconds: float,
        has_relations: bool,
    ) -> JobReport:
        """Adds up finished slices, `rows_before` of whose rows earlier runs did; `paths` is None for a stream."""
        stats: dict[str, float] = {}
        for record in records:
            for name, value in record.stats.items():
                stats[name] = stats.get(name, 0) + value
        rows, rejects = sum(record.rows for record in records), sum(record.rejects for record in records)
        return cls(
            output="the stream" if paths is None else str(paths.output),
            is_complete=is_complete,
            rows=rows,
            rejects=rejects,
            rejects_file=str(paths.all_rejects) if paths is not None and rejects else None,
            entities=sum(record.entities for record in records),
            shards=0 if paths is None else len(records),
            rows_here=rows - rows_before,
            seconds=seconds,
            stats=stats,
            relations=sum(record.relations for record in records) if has_relations else None,
        )

    @property
    def stage_shares(self) -> dict[str, float]:
        """Share of each stage in the seconds of all stages."""
        seconds = {name: self.stats.get(f"{name}_seconds", 0.0) for name in _STAGES}
        total = sum(seconds.values())
        return {name: own / total if total else 0.0 for name, own in seconds.items()}

    @property
    def padding_share(self) -> float:
        """Share of the computed subwords that is padding."""
        padded = self.stats.get("padded_subwords", 0)
        return 1 - self.stats.get("subwords", 0) / padded if padded else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**asdict(self), "stage_shares": self.stage_shares, "padding_share": self.padding_share}

    def __str__(self) -> str:
        """A few lines for people."""
        was_complete = self.is_complete and self.rows > 0 and not self.rows_here
        state = "already complete" if was_complete else "done" if self.is_complete else "stopped"
        before = self.rows - self.rows_here
        rows = count("row", self.rows) + (f" ({before:,} of them before)" if before and self.rows_here else "")
        if self.rejects:
            rows = f"{self.rows - self.rejects:,} of {rows}"
        found = count("entity", self.entities)
        if self.relations is not None:
            found += f", {count('relation', self.relations)}"
        # A job that was stopped has written no file yet, but slices of it.
        lines = [f"{state}: {rows}, {found}" + (f" in {self.output}" if self.is_complete else "")]
        if self.rows_here:
            shares = ", ".join(f"{name} {share:.0%}" for name, share in self.stage_shares.items() if share >= 0.005)
            lines.append(f"{self.seconds:,.1f} s: {self._speed()}{self.padding_share:.0%} padding; {shares}")
        if self.rejects:
            lines.append(
                f"{count('row', self.rejects)} rejected" + (f", see {self.rejects_file}" if self.rejects_file else "")
            )
        return "\n".join(lines)

    def _speed(self) -> str:
        """Rows of this run a second, and words where all were read by it, with what these are words of."""
        if not self.seconds:
            return ""
        rates = f"{self.rows_here / self.seconds:,.1f} rows/s, "
        words = self.stats.get("words", 0)
        if self.rows_here < self.rows or not words:  # those of earlier runs took other seconds
            return rates
        texts, computed = (int(self.stats.get(name, 0)) for name in ("texts", "computed_texts"))
        speed = f"{rates}{count('word', round(words / self.seconds))}/s"
        if computed < texts:  # a text that repeats has its words counted once, which else would seem slow
            speed += f" (in {count('text', computed)} of {texts:,}: the others are blank or repeat one)"
        return f"{speed}, "

    def write(self, path: Path) -> None:
        """Writes the report as JSON, whole or not at all.

        Raises:
            OSError: it cannot be written; names the file.
        """
        content = json.dumps(self.to_dict(), indent=2) + "\n"
        write_aside(path, lambda part: part.write_text(content, encoding="utf-8"))

"""A plan, and the slices of a job that is done by nobody: what tests of job folders share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from gliner_fast.jobs.aside import write_aside
from gliner_fast.jobs.job_folder import JobFolder, SliceRecord, rejects_name, shard_name
from gliner_fast.jobs.plan import Plan, Settings

SETTINGS = Settings(
    model=None,
    model_digest="abc",
    model_options={},
    words_splitter=None,
    dtype="float32",
    labels=["person"],
    threshold=0.5,
    flat_ner=True,
    multi_label=False,
    on_long="window",
    batch_size=None,
    text_column="text",
    id_column=None,
    labels_column=None,
    columns=None,
    rows_per_shard=4096,
    format="jsonl",
    layout="list",
    entities_column="entities",
    redaction=None,
)
INPUT = {"path": "in.jsonl", "format": "jsonl", "compression": None, "fingerprint": "0123"}
PLAN = Plan(SETTINGS, [INPUT], None)


def changed(**settings: Any) -> Plan:
    return replace(PLAN, settings=replace(SETTINGS, **settings))


def put(folder: JobFolder, number: int, content: bytes = b"{}\n", rejects: int = 0) -> SliceRecord:
    """Puts a shard in its place and has the folder remember it."""
    shard = folder.paths.shards / shard_name(number, ".jsonl")
    write_aside(shard, lambda path: path.write_bytes(content))
    if rejects:
        write_aside(folder.paths.rejects / rejects_name(number), lambda path: path.write_bytes(b"x\n" * rejects))
    record = SliceRecord(number, 1, shard.name, len(content), rejects, 0, {"texts": 1})
    folder.add(record)
    return record


def join(shards: list[Path], out: Path) -> None:
    out.write_bytes(b"".join(shard.read_bytes() for shard in shards))

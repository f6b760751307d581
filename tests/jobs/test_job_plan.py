"""A job goes on as the same job alone: what its plan holds, and how another one is refused."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_folder import JobFolder, Paths
from gliner_fast.jobs.plan import Plan, Settings, digest_model
from tests.jobs.job_folders import INPUT, PLAN, SETTINGS, changed, put

CHANGES = [
    (changed(threshold=0.3), "threshold was 0.5 and is 0.3"),
    (changed(labels=["person", "city"]), "labels was ['person'] and is ['person', 'city']"),
    (changed(model_digest="def"), "the model is another one"),
    (changed(rows_per_shard=10), "rows_per_shard was 4096 and is 10"),
    (changed(relations=["works for"]), "relations was None and is ['works for']"),
    (replace(PLAN, inputs=[INPUT, INPUT]), "number of input files was 1 and is 2"),
    (replace(PLAN, inputs=[INPUT | {"path": "other.jsonl"}]), "an input file was 'in.jsonl' and is 'other.jsonl'"),
    (
        replace(PLAN, inputs=[INPUT | {"fingerprint": "9"}]),
        "in.jsonl has another size, content or time of change than when the job began",
    ),
    (replace(PLAN, version="99"), "gliner_fast was '0.1.0' and is '99'"),
    (replace(PLAN, schema="other"), "the columns to pass through have other types"),
]


# For each setting that a job is known by another value than in `changed(layout="rows")`.
OTHERS: dict[str, Any] = {
    "model_options": {"max_length": 24}, "words_splitter": "split", "dtype": "bfloat16", "labels": None,
    "threshold": 0.3, "flat_ner": False, "multi_label": True, "on_long": "error", "batch_size": 8,
    "text_column": "body", "id_column": "id", "labels_column": "own", "columns": [], "rows_per_shard": 10,
    "format": "parquet", "layout": "list", "entities_column": "found", "redaction": {"style": "mask"},
    "relations": ["works for"], "adjacency_threshold": 0.2, "relation_threshold": 0.4, "relations_column": "links",
}  # fmt: skip


def test_a_job_is_known_by_every_setting():
    told = [change.partition(" was ")[0] for change in changed(**OTHERS).changes_from(changed(layout="rows"))]
    assert told == [field.name for field in fields(Settings) if field.name not in {"model", "model_digest"}]


@pytest.mark.parametrize(("plan", "message"), CHANGES, ids=[message for _, message in CHANGES])
def test_another_plan_is_refused_and_harms_nothing(plan: Plan, message: str, paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    with pytest.raises(JobError) as refusal, JobFolder(paths, plan):
        pass
    assert message in str(refusal.value)
    assert "overwrite" in str(refusal.value)
    with JobFolder(paths, PLAN) as folder:  # the lock was given back, and nothing was lost
        assert set(folder.finished) == {0}


OF_RELATIONS: list[tuple[dict[str, Any], str]] = [
    ({"relations": ["lives in"]}, "relations was ['works for'] and is ['lives in']"),
    ({"relations": None}, "relations was ['works for'] and is None"),
    ({"adjacency_threshold": 0.2}, "adjacency_threshold was None and is 0.2"),
    ({"relation_threshold": {"works for": 0.2}}, "relation_threshold was None and is {'works for': 0.2}"),
    ({"relations_column": "links"}, "relations_column was 'relations' and is 'links'"),
]


@pytest.mark.parametrize(("changes", "message"), OF_RELATIONS, ids=[message for _, message in OF_RELATIONS])
def test_a_job_of_other_relations_is_another_job(changes: dict[str, Any], message: str, paths: Paths):
    with JobFolder(paths, changed(relations=["works for"])):
        pass
    with pytest.raises(JobError) as refusal, JobFolder(paths, changed(**({"relations": ["works for"]} | changes))):
        pass
    assert message in str(refusal.value)


def test_a_job_that_was_begun_before_there_were_relations_goes_on_without_them(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        put(folder, 1)
    lines = [json.loads(line) for line in paths.manifest.read_text(encoding="utf-8").splitlines()]
    later = [field.name for field in fields(Settings) if field.default is not MISSING]
    assert {"relations", "adjacency_threshold", "relation_threshold", "relations_column"} <= set(later)
    for name in later:
        del lines[0]["plan"]["settings"][name]
    for line in lines[1:]:
        del line["slice"]["relations"]
    paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with JobFolder(paths, PLAN) as folder:
        assert set(folder.finished) == {0, 1}
    with pytest.raises(JobError, match="relations was None"), JobFolder(paths, changed(relations=["works for"])):
        pass
    del lines[0]["plan"]["settings"]["threshold"]
    paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(JobError, match="keeps other settings"), JobFolder(paths, PLAN):
        pass


def test_an_input_may_lie_elsewhere(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    with JobFolder(paths, replace(PLAN, inputs=[INPUT | {"path": "/mnt/in.jsonl"}])) as folder:
        assert set(folder.finished) == {0}


def test_a_model_is_known_by_the_names_of_its_files_too(tmp_path: Path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    before = digest_model(tmp_path)
    weights.rename(tmp_path / "other.safetensors")
    assert digest_model(tmp_path) != before


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "pytorch_model.bin", "spm.model", "vocab.txt", "labels_tokenizer/vocab.txt"],
)
def test_a_model_is_known_by_each_file_that_its_answers_depend_on(name: str, tmp_path: Path):
    digests = {digest_model(tmp_path)}
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    for content in (b"", b"one", b"two"):
        file.write_bytes(content)
        digests.add(digest_model(tmp_path))
    assert len(digests) == 4


def test_standard_input_is_not_resumed(paths: Paths):
    plan = replace(PLAN, inputs=[INPUT | {"path": "-", "fingerprint": None}])
    with JobFolder(paths, plan) as folder:
        put(folder, 0)
    with pytest.raises(JobError, match="standard input cannot be read a second time"), JobFolder(paths, plan):
        pass


def test_a_manifest_of_another_version_or_other_settings_names_its_version(paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    lines = [json.loads(line) for line in paths.manifest.read_text(encoding="utf-8").splitlines()]
    lines[0]["plan"]["version"] = "9.9"
    for others, message in (
        ({}, r"gliner_fast was '9\.9' and is "),
        ({"colour": "blue"}, r"begun by gliner_fast 9\.9"),
    ):
        lines[0]["plan"]["settings"] |= others
        paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        with pytest.raises(JobError, match=message), JobFolder(paths, PLAN):
            pass


BAD_SETTINGS = [
    ({"labels": None}, "one of the two"),
    ({"labels_column": "own"}, "one of the two"),
    ({"labels": []}, "labels is empty"),
    ({"labels": ["person", " "]}, "with an empty label or description"),
    ({"labels": {"PER": ""}}, "with an empty label or description"),
    ({"labels": None, "labels_column": "own", "threshold": {"person": 0.5}}, "with a labels column give one number"),
    ({"threshold": {"city": 0.5}}, "no value for the label 'person'"),
    ({"threshold": float("nan")}, "NaN"),
    ({"rows_per_shard": 0}, "expected at least 1"),
    ({"on_long": "ignore"}, "expected one of 'truncate', 'window', 'error'"),
    ({"redaction": {}, "on_long": "truncate"}, "in the clear: take 'window'"),
    ({"layout": "wide"}, "expected one of 'list', 'rows'"),
    ({"relations": []}, "relations is empty: name at least one kind"),
    ({"relations": ["works for", " "]}, "with an empty one: the model looks for what it says"),
    ({"relations": ["works for"], "layout": "rows"}, "the layout 'rows' has none: use 'list'"),
    ({"relations": ["a"], "relations_column": "entities"}, "are both 'entities': rename either"),
    ({"relations": ["a"], "adjacency_threshold": float("nan")}, "adjacency_threshold is NaN"),
    ({"relations": ["a"], "adjacency_threshold": {"a": 0.5}}, "adjacency_threshold is .*: expected a number"),
    ({"relations": ["a"], "relation_threshold": "high"}, "relation_threshold is 'high' .*: expected a number"),
    ({"relations": ["a"], "relation_threshold": {"b": 0.5}}, "relation_threshold has no value for the relation 'a'"),
    ({"relations": ["a"], "relation_threshold": {"a": float("nan")}}, r"relation_threshold\['a'\] is NaN"),
    ({"adjacency_threshold": 0.5}, "adjacency_threshold is given without relations"),
    ({"relation_threshold": 0.5}, "relation_threshold is given without relations"),
    ({"relations_column": "links"}, "relations_column is given without relations"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=[message for _, message in BAD_SETTINGS])
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **settings)

"""The job's memory: whole files, one process, the same plan."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gliner_fast.jobs.errors import JobError
from gliner_fast.jobs.job_folder import JobFolder, Paths, SliceRecord, rejects_name, shard_name, write_aside
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


@pytest.fixture(params=["found.jsonl", "found"], ids=["file", "folder"])
def paths(request: pytest.FixtureRequest, tmp_path: Path) -> Paths:
    return Paths(tmp_path / request.param, is_file=request.param.endswith(".jsonl"))


def test_a_second_run_knows_what_the_first_one_finished(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        records = [put(folder, number) for number in (0, 2)]
    with JobFolder(paths, PLAN) as folder:
        assert list(folder.finished.values()) == records
        assert folder.rows == 2
        assert not folder.is_joined


def test_a_line_that_was_being_written_is_forgotten(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        put(folder, 1)
    content = paths.manifest.read_bytes()
    for size in range(content.rstrip(b"\n").rfind(b"\n") + 1, len(content)):
        paths.manifest.write_bytes(content[:size])
        with JobFolder(paths, PLAN) as folder:
            assert set(folder.finished) == {0}
            put(folder, 1)
        with JobFolder(paths, PLAN) as folder:
            assert set(folder.finished) == {0, 1}


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_shard_that_is_gone_is_done_again(damage: str, paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, b"long enough\n")
        put(folder, 1)
    shard = paths.shards / shard_name(0, ".jsonl")
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(b"long")
    with JobFolder(paths, PLAN) as folder:
        assert set(folder.finished) == {1}


def test_half_written_files_are_swept_away(paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    part = "0123456789ab.part"
    left = [
        paths.shards / f"shard-0000001.jsonl.{part}",
        paths.rejects / f"rejects-0000001.jsonl.{part}",
        paths.job / f"manifest.jsonl.{part}",
        paths.job / f"report.json.{part}",
    ]
    if paths.is_file:
        left.append(paths.output.parent / f"{paths.output.name}.{part}")
    name = paths.output.name
    others = [paths.output.parent / other for other in ("a.part", f"{name}.tar.part", f"{name}.gz.{part}", f"x.{part}")]
    for path in (*left, *others):
        path.write_text("half", encoding="utf-8")
    with JobFolder(paths, PLAN):
        assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_joining_makes_one_file_and_removes_the_parts(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 1, b"second\n", rejects=2)
        put(folder, 0, b"first\n", rejects=1)
        folder.join(join)
        assert paths.output.read_bytes() == b"first\nsecond\n"
        assert paths.all_rejects.read_bytes() == b"x\n" * 3
        assert not paths.shards.exists()
        assert not paths.rejects.exists()
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined
        assert folder.rows == 2


def test_joining_a_folder_leaves_its_shards(tmp_path: Path):
    paths = Paths(tmp_path / "found", is_file=False)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    assert [path.name for path in sorted(paths.output.iterdir())] == ["_job", shard_name(0, ".jsonl")]
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined


def test_an_output_that_was_removed_after_the_job_is_made_again(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    (paths.output if paths.is_file else paths.shards / shard_name(0, ".jsonl")).unlink()
    with JobFolder(paths, PLAN) as folder:
        assert not folder.is_joined
        assert not folder.finished


def test_a_shard_removed_after_the_job_brings_all_rejects_back(tmp_path: Path):
    paths = Paths(tmp_path / "found", is_file=False)
    with JobFolder(paths, PLAN) as folder:
        for number in range(3):
            put(folder, number, rejects=number)
        folder.join(join)
    (paths.shards / shard_name(0, ".jsonl")).unlink()
    with JobFolder(paths, PLAN) as folder:
        assert not folder.finished  # the rejects of 1 and 2 were joined away
    with JobFolder(paths, PLAN) as folder:
        for number in range(3):
            put(folder, number, rejects=number)
        folder.join(join)
    assert paths.all_rejects.read_bytes() == b"x\n" * 3
    with JobFolder(paths, PLAN) as folder:
        assert folder.is_joined


@pytest.mark.parametrize("content", [b"", b"{}\n", b"[\n", b"7\n"])
def test_a_damaged_manifest_is_refused(content: bytes, paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    paths.manifest.write_bytes(content)
    with pytest.raises(JobError, match="is damaged: start anew"), JobFolder(paths, PLAN):
        pass
    with JobFolder(paths, PLAN, overwrite=True):
        pass


@pytest.mark.parametrize("content", [b"precious", b"precious\nwords", b'{"plan": 1}\n{"sl'])
def test_what_is_no_manifest_keeps_its_last_line(content: bytes, paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    paths.manifest.write_bytes(content)
    with pytest.raises(JobError, match="is damaged"), JobFolder(paths, PLAN):
        pass
    assert paths.manifest.read_bytes() == content


ODD_SLICES: list[dict[str, Any]] = [
    {"rows": -20},
    {"rows": True},
    {"rows": 1.0},
    {"rows": 2**63},
    {"entities": -1},
    {"number": -1},
    {"number": 7},
    {"number": True},
    {"number": 10**30},
    {"shard": "shard-0000007.jsonl"},
    {"shard": "shard-0000000.jsonl/../../x"},
    {"stats": ["texts"]},
    {"stats": {"texts": "y"}},
    {"stats": {"texts": True}},
    {"stats": {"texts": -1}},
    {"stats": {"texts": 10**400}},
    {"stats": {"texts": float("inf")}},
    {"stats": {"texts": float("nan")}},
]


def edit_manifest(paths: Paths, changes: dict[str, Any], line: int = 1) -> None:
    """Changes what a line of the manifest says of a slice, or of the whole."""
    lines = [json.loads(line) for line in paths.manifest.read_text(encoding="utf-8").splitlines()]
    lines[line].get("slice", lines[line]).update(changes)
    paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.mark.parametrize("changes", ODD_SLICES, ids=str)
def test_a_manifest_of_slices_that_cannot_be_is_damaged(changes: dict[str, Any], paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    edit_manifest(paths, changes)
    with pytest.raises(JobError, match="is damaged: start anew"), JobFolder(paths, PLAN):
        pass


@pytest.mark.parametrize("size", [-1, True, 2**63, "6", 6.0])
def test_a_manifest_of_an_output_of_an_odd_size_is_damaged(size: Any, paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        folder.join(join)
    edit_manifest(paths, {"joined": size}, line=-1)
    with pytest.raises(JobError, match="is damaged"), JobFolder(paths, PLAN):
        pass


def test_a_manifest_of_a_finished_job_without_one_of_its_slices_is_damaged(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        put(folder, 2)
        folder.join(join)
    with pytest.raises(JobError, match="is damaged"), JobFolder(paths, PLAN):
        pass


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["manifest.jsonl", "holder", "lock", "rejects", "shards"])
def test_links_in_the_places_of_a_jobs_own_files_are_refused(name: str, overwrite: bool, tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
    planted, elsewhere = paths.job / name, tmp_path / "elsewhere"
    planted.rename(elsewhere)
    planted.symlink_to(elsewhere)
    files = [elsewhere] if elsewhere.is_file() else list(elsewhere.iterdir())
    before = [file.read_bytes() for file in files]
    with (
        pytest.raises(JobError, match=f"{name} is a link.*remove the link"),
        JobFolder(paths, PLAN, overwrite=overwrite),
    ):
        pass
    assert [file.read_bytes() for file in files] == before


def test_the_folder_of_a_job_and_a_folder_of_shards_may_be_links(paths: Paths, tmp_path: Path):
    for place in (paths.output if not paths.is_file else paths.job, paths.job):
        if not place.exists():
            elsewhere = tmp_path / f"disk of {place.name}"
            elsewhere.mkdir()
            place.symlink_to(elsewhere)
    for _ in range(2):
        with JobFolder(paths, PLAN) as folder:
            put(folder, 0)
    with JobFolder(paths, PLAN) as folder:
        folder.join(join)
        assert folder.is_joined


def test_a_link_that_is_put_in_the_holders_place_meanwhile_is_replaced(paths: Paths, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(JobFolder, "_refuse_links", lambda _: None)
    (tmp_path / "precious").write_text("words", encoding="utf-8")
    paths.job.mkdir(parents=True)
    (paths.job / "holder").symlink_to(tmp_path / "precious")
    with JobFolder(paths, PLAN):
        assert str(os.getpid()) in (paths.job / "holder").read_text(encoding="utf-8")
    assert (tmp_path / "precious").read_text(encoding="utf-8") == "words"


def test_a_holder_is_told_without_what_moves_the_cursor(paths: Paths):
    with JobFolder(paths, PLAN):
        (paths.job / "holder").write_bytes(b"\x1b[2J\nh\xc3\xa9\xff" + b"x" * 10_000)
        with pytest.raises(JobError) as refusal, JobFolder(paths, PLAN):
            pass
    assert r"process (\x1b[2J\nhé\xffxxx" in str(refusal.value)
    assert str(refusal.value).count("x") < 210


def test_a_kill_between_joining_and_remembering_it_joins_again(tmp_path: Path):
    paths = Paths(tmp_path / "found.jsonl", is_file=True)
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, b"first\n")
    paths.output.write_bytes(b"first\n")
    with JobFolder(paths, PLAN) as folder:
        assert not folder.is_joined
        folder.join(join)
    assert paths.output.read_bytes() == b"first\n"


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
    for name in ("relations", "adjacency_threshold", "relation_threshold", "relations_column"):
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


def test_standard_input_is_not_resumed(paths: Paths):
    plan = replace(PLAN, inputs=[INPUT | {"path": "-", "fingerprint": None}])
    with JobFolder(paths, plan) as folder:
        put(folder, 0)
    with pytest.raises(JobError, match="standard input cannot be read a second time"), JobFolder(paths, plan):
        pass


def test_a_manifest_of_other_settings_names_its_version(paths: Paths):
    with JobFolder(paths, PLAN):
        pass
    lines = [json.loads(line) for line in paths.manifest.read_text(encoding="utf-8").splitlines()]
    lines[0]["plan"]["settings"]["colour"] = "blue"
    lines[0]["plan"]["version"] = "9.9"
    paths.manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(JobError, match=r"begun by gliner_fast 9\.9"), JobFolder(paths, PLAN):
        pass


def test_overwriting_starts_anew_and_removes_only_what_jobs_made(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0, rejects=1)
        folder.join(join)
    others = [folder / "notes.txt" for folder in (paths.output.parent, paths.job if paths.is_file else paths.output)]
    for other in others:
        other.write_text("keep", encoding="utf-8")
    with JobFolder(paths, changed(threshold=0.3), overwrite=True) as folder:
        assert not folder.finished
        assert not folder.is_joined
        assert not (paths.shards / shard_name(0, ".jsonl")).exists()
        assert not paths.all_rejects.exists()
        assert paths.output.exists()  # one file stays until the new job has another to put in its place
    assert all(other.exists() for other in others)


def test_overwriting_goes_on_with_the_same_job_until_it_is_finished(paths: Paths):
    for number in range(2):  # as the same command does that was killed
        with JobFolder(paths, PLAN, overwrite=True) as folder:
            assert set(folder.finished) == set(range(number))
            put(folder, number)
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        folder.join(join)
    with JobFolder(paths, PLAN, overwrite=True) as folder:
        assert not folder.finished
        assert not folder.is_joined


def test_what_no_job_made_is_not_touched(tmp_path: Path):
    file = tmp_path / "found.jsonl"
    file.write_text("precious", encoding="utf-8")
    with pytest.raises(JobError, match="exists, and no job left it"), JobFolder(Paths(file, is_file=True), PLAN):
        pass
    with pytest.raises(JobError, match="is a file"), JobFolder(Paths(file, is_file=False), PLAN):
        pass
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(JobError, match="is a folder"), JobFolder(Paths(folder, is_file=True), PLAN):
        pass
    (folder / "photo.png").write_bytes(b"png")
    (folder / shard_name(0, ".jsonl")).write_text("mine", encoding="utf-8")
    for overwrite in (False, True):
        with (
            pytest.raises(JobError, match="holds files that no job left"),
            JobFolder(Paths(folder, is_file=False), PLAN, overwrite=overwrite),
        ):
            pass
    assert len(list(folder.iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "found.jsonl"]


def _hold(paths: Paths, held: Any, leave: Any) -> None:
    with JobFolder(paths, PLAN):
        held.set()
        leave.wait(240)


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(paths: Paths):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    first = context.Process(target=_hold, args=(paths, held, leave))
    first.start()
    try:
        assert held.wait(240)  # a new process imports torch, which takes a minute on a busy machine
        with pytest.raises(JobError, match=f"written by another process .{first.pid} on"), JobFolder(paths, PLAN):
            pass
    finally:
        first.kill()
        first.join()
    with JobFolder(paths, PLAN):
        pass


def test_a_failed_write_names_the_file_and_leaves_nothing(tmp_path: Path):
    def fill_disk(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device") as failure:
        write_aside(tmp_path / "shard", fill_disk)
    assert failure.value.filename == str(tmp_path / "shard")
    assert failure.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_a_manifest_that_cannot_be_written_is_named_and_forgets_nothing(paths: Paths):
    with JobFolder(paths, PLAN) as folder:
        put(folder, 0)
        whole = paths.manifest.rename(paths.job / "whole")
        paths.manifest.symlink_to("/dev/full")
        with pytest.raises(OSError, match="No space left on device; what is finished stays") as failure:
            put(folder, 1)
        assert failure.value.filename == str(paths.manifest)
        assert set(folder.finished) == {0}
        whole.rename(paths.manifest)
    with JobFolder(paths, PLAN) as folder:
        assert set(folder.finished) == {0}


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

"""What is in folders, by name and by glob: all of it, or an error."""

from __future__ import annotations

import errno
import glob
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gliner_fast.jobs.errors import JobInputError
from gliner_fast.jobs.folders import files_below, files_by_glob
from gliner_fast.jobs.inputs import find_inputs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in: data/ with subfolders."""
    for name in ["b.txt", "a.txt", "deep/c.txt", "deep/er/d.txt", "deep/.hidden/e.txt", "_job/f.txt", ".g.txt"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a folder unreadable, also to root, who reads all."""

    def forbid(name: str, number: int = errno.EACCES) -> None:
        def scandir(path: str) -> os.ScandirIterator[str]:
            if Path(path) == Path(name):
                raise OSError(number, os.strerror(number), path)
            return original(path)

        original = os.scandir
        monkeypatch.setattr(os, "scandir", scandir)

    return forbid


@pytest.mark.parametrize(
    "pattern",
    [
        "data/*", "data/*.txt", "data/**", "data/**/*.txt", "**/*.txt", "*/*.txt", "**/d.txt", "data/deep/../?.txt",
        "data/[ab].txt", "data/.*", "data/*/er/*", "./data//*.txt", "data/**/er/**", "none/*.txt", "data/*/",
        "data/a.txt/*", "**", "*/**/er/*", "data/**/../*.txt", "data/**/**",
    ],
)  # fmt: skip
def test_a_glob_finds_what_python_s_own_finds(tree, pattern):
    for given in (pattern, str(tree / pattern)):
        expected = {name for name in glob.glob(given, recursive=True) if not Path(name).is_dir()}  # noqa: PTH207
        assert files_by_glob(given) == sorted(expected)


@pytest.mark.parametrize("given", ["data", "data/**/*.txt", "data/*/c.txt", "data/*/*.txt"])
def test_a_subfolder_that_cannot_be_read_is_named(tree, given, deny, monkeypatch):
    deny("data/deep")
    real = os.lstat

    def lstat(path: str) -> os.stat_result:
        if Path(path).parent == Path("data/deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(PermissionError) as raised:
        find_inputs([given])
    assert raised.value.filename in {str(Path("data/deep")), str(Path("data/deep/c.txt"))}
    assert "rows would be missing: make it readable" in raised.value.strerror


def test_a_folder_that_cannot_be_read_says_so_itself(tree, deny):
    deny("data")
    with pytest.raises(PermissionError) as raised:
        find_inputs(["data"])
    assert raised.value.filename == "data"


def test_a_folder_that_is_gone_since_it_was_listed_is_named(tree, deny):
    deny("data/deep", errno.ENOENT)
    for given in ("data", "data/**"):
        with pytest.raises(FileNotFoundError, match="rows would be missing"):
            find_inputs([given])


def test_a_hidden_folder_is_not_even_looked_into(tree, deny):
    deny("data/_job")
    assert len(find_inputs(["data"])) == 4


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() == 0, reason="root reads all folders")
def test_the_disk_s_own_permissions_are_told(tree):
    Path("data/deep").chmod(0)
    try:
        for given in ("data", "data/**/*.txt"):
            with pytest.raises(PermissionError, match="rows would be missing"):
                find_inputs([given])
    finally:
        Path("data/deep").chmod(0o755)


def test_links_to_folders_are_followed_and_none_is_gone_through_twice(tree):
    Path("other/below").mkdir(parents=True)
    Path("other/below/h.txt").write_text("x\n", encoding="utf-8")
    Path("data/deep/link").symlink_to(Path("../../other"))
    Path("data/again").symlink_to(Path("deep"))  # a folder that is there anyway, and comes first by name
    Path("other/up").symlink_to(Path("../data"))  # and back to the beginning
    expected = ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt", "deep/link/below/h.txt"]
    assert [str(path) for path in files_below(Path("data"))] == [str(Path("data", name)) for name in expected]
    assert [file.path for file in find_inputs(["data"])] == [str(Path("data", name)) for name in expected]
    found = [file.path for file in find_inputs(["data/**/*.txt"])]
    assert found == [str(Path("data", name)) for name in ["_job/f.txt", *expected]]


def test_nothing_is_below_what_is_no_folder(tree):
    assert [files_by_glob(pattern) for pattern in ("none/**", "data/a.txt/**")] == [[], []]  # Python has the start


def test_a_folder_that_several_names_lead_to_has_its_own_or_else_the_first(tree):
    Path("other").mkdir()
    Path("other/h.txt").write_text("x\n", encoding="utf-8")
    for link, folder in (("an", "deep"), ("zoo", "deep"), ("one", "../other"), ("two", "../other")):
        Path("data", link).symlink_to(folder)
    names = [path.relative_to("data").as_posix() for path in files_below(Path("data"))]
    assert names == ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt", "one/h.txt"]


def test_what_is_in_a_folder_is_sorted_by_its_whole_name(tree):
    Path("data/z.txt").write_text("x\n", encoding="utf-8")
    names = [path.relative_to("data").as_posix() for path in files_below(Path("data"))]
    assert names == ["a.txt", "b.txt", "deep/c.txt", "deep/er/d.txt", "z.txt"]


def test_a_glob_passes_over_a_link_that_leads_to_itself(tree):
    Path("data/loop").symlink_to("loop")
    assert files_by_glob("data/*/c.txt") == [str(Path("data/deep/c.txt"))]
    assert files_by_glob("data/*/*.txt") == [str(Path(name)) for name in ("data/_job/f.txt", "data/deep/c.txt")]


def test_a_link_to_nothing_may_have_led_to_a_folder_of_inputs(tree):
    Path("data/mounted").symlink_to("/nowhere/at/all")
    with pytest.raises(JobInputError, match=r"data.mounted is a link to /nowhere/at/all, which is not there"):
        find_inputs(["data"])


def test_an_empty_name_is_no_folder(tree):
    with pytest.raises(JobInputError, match="an input has an empty name"):
        find_inputs([""])

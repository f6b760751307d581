"""Files that are whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gliner_fast import whole_files
from gliner_fast.whole_files import errors_of_system, sync, write_whole


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "a.json"
    write_whole(file, b"before")

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(whole_files, "sync", fail)
    with pytest.raises(OSError, match="No space left on device") as failure:
        write_whole(file, b"after")
    assert failure.value.filename == str(file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert file.read_bytes() == b"before"


@pytest.mark.parametrize(("system", "flags"), [("posix", os.O_RDONLY), ("nt", os.O_RDWR)])
def test_windows_syncs_what_is_open_for_writing_alone(
    system: str, flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "a.json"
    file.write_bytes(b"whole")
    opened = []
    open_ = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda path, flags: opened.append(flags) or open_(path, flags))
        patch.setattr(os, "name", system)
        sync(file)
    assert opened == [flags]


@pytest.mark.skipif(os.name == "nt", reason="links and permissions are others there")
def test_a_link_stays_a_link_and_permissions_stay_what_they_were(tmp_path: Path):
    file, link = tmp_path / "a.json", tmp_path / "link.json"
    write_whole(file, b"before")
    file.chmod(0o600)
    link.symlink_to(file)
    write_whole(link, b"after")
    assert link.is_symlink()
    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="no such device")
def test_a_device_does_not_become_a_file():
    write_whole(Path(os.devnull), b"gone")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    "words",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        'Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No space left on device" })',
    ],
    ids=["safetensors 0.6", "before"],
)
def test_what_the_system_refuses_a_writer_of_tensors_names_the_file(words: str, tmp_path: Path):
    with pytest.raises(OSError, match="No space left on device") as failure, errors_of_system(tmp_path / "a"):
        raise RuntimeError(words)
    assert (failure.value.errno, failure.value.filename) == (28, str(tmp_path / "a"))

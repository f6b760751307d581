"""What a build refuses, how it begins, and whose code it holds: `rust/binding/build.rs`, the Makefile, notices."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "rust/binding/build.rs"
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.mark.skipif(shutil.which("rustc") is None, reason="needs rustc")
def test_a_link_to_the_kernels_that_git_made_a_file_of_is_refused(tmp_path: Path):
    here, package = tmp_path / "rust/binding", tmp_path / "python/gliner_fast"
    for folder in (here, package):
        folder.mkdir(parents=True)
    script = tmp_path / "build"
    subprocess.run(["rustc", "--edition", "2024", SCRIPT, "-o", script], check=True)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run([script], cwd=here, capture_output=True, text=True, check=False)

    (package / "kernels").mkdir()
    assert run().returncode == 0
    (package / "kernels").rmdir()
    (package / "kernels").write_text("../../kernels", encoding="utf-8")
    assert "git clone -c core.symlinks=true" in run().stderr


@pytest.mark.skipif(
    shutil.which("cargo") is None or platform.machine() != "x86_64", reason="needs cargo's crates for x86"
)
def test_the_notices_are_of_the_crates_that_are_compiled_in():
    run = [sys.executable, ROOT / ".ci/third_party_licenses.py", "--check"]
    assert subprocess.run(run, stderr=subprocess.PIPE, text=True, check=False).stderr == ""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the Makefile reads, in a folder with a blank in its name, and a Python that writes what it is `asked`."""
    here = tmp_path / "a checkout"
    for folder in (".ci", "rust", "python/gliner_fast"):
        (here / folder).mkdir(parents=True)
    for name in ("Makefile", ".ci/constraints.txt", "pyproject.toml", "Cargo.toml", "Cargo.lock"):
        shutil.copy(ROOT / name, here / name)
    write_program(here / "another-python", 'echo "$@" >> asked')
    return here


def write_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Without what a `make test` around it tells every make below.
    told = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "VENV"}}
    return subprocess.run(["make", *arguments], cwd=checkout, env=told, capture_output=True, text=True, check=False)


@needs_make
@pytest.mark.parametrize(
    ("too_old", "named", "message", "unmade"),
    [
        ("old-python", "./old-python", "./old-python is not Python 3.10 or later: name one, as in:", ".venv"),
        (".venv/bin/python", "./another-python", "remove it (rm -rf .venv); then name one, as in:", "asked"),
    ],
)
def test_a_python_that_is_too_old_is_refused_before_anything_is_made(
    checkout: Path, too_old: str, named: str, message: str, unmade: str
):
    write_program(checkout / too_old, "exit 1")
    run = make(checkout, "env", f"PYTHON={named}")
    assert f"{message} make PYTHON=python3.12" in run.stderr
    assert not (checkout / unmade).exists()


@needs_make
@pytest.mark.parametrize(("left", "asked"), [("pyvenv.cfg", "-m venv --clear .venv"), ("mine", "-m venv .venv")])
def test_a_half_made_environment_is_made_anew_and_no_other_folder_emptied(checkout: Path, left: str, asked: str):
    write_program(checkout / ".venv/bin/python", 'test "$1" = -c')
    (checkout / ".venv" / left).touch()
    make(checkout, "env", "PYTHON=./another-python")
    assert (checkout / "asked").read_text(encoding="utf-8").splitlines()[-1] == asked


@needs_make
def test_a_checkout_may_have_blanks_in_its_path_and_venv_none(checkout: Path):
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to(sys.executable)
    write_program(checkout / ".venv/bin/maturin", "env > told")
    (checkout / ".venv/.tools").touch()
    assert make(checkout, "env").returncode == 0
    told = (checkout / "told").read_text(encoding="utf-8").splitlines()
    assert f"VIRTUAL_ENV={checkout}/.venv" in told
    assert f"PYO3_PYTHON={checkout}/.venv/bin/python" in told
    assert f"PIP_CONSTRAINT={(checkout / '.ci/constraints.txt').as_uri()}" in told
    assert "VENV=a b is not one path without blanks" in make(checkout, "env", "VENV=a b").stderr

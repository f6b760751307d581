"""What a build refuses: `rust/binding/build.rs`, run in a checkout of its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "rust/binding/build.rs"


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

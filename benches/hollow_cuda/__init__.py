"""A CUDA whose kernels compute nothing (hollow.cpp), built from what torch and Triton bring, to see a host at its work.

All that a host does for a card is real: torch's calls down to the runtime's, Triton's compiling and starting, pinned
memory, threads. Results are garbage. Needs g++, nm and a torch that is built for CUDA; not a card.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_HERE = Path(__file__).parent
FOLDER = _HERE.parent / ".cache" / "hollow-cuda"
# What torch's libraries take from CUDA's, and hollow.cpp or a function that does nothing has to give.
_ASKED = re.compile(r" U ((?:__)?cuda\w+|cu(?!File)[A-Z]\w+|cublas\w+|cudnn\w+)")
_LIBRARIES = ("torch_cuda", "c10_cuda", "torch_python", "torch_cpu", "caffe2_nvrtc", "torch_nvshmem")


def environment(folder: Path) -> dict[str, str]:
    """What a Python that is to find the hollow CUDA is started with; it is built into a folder first.

    Raises:
        RuntimeError: something is missing, or cannot be built.
    """
    library = _build(folder)
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": f"{folder}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}",
        "TRITON_LIBCUDA_PATH": str(folder),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TRITON_INTERPRET": "0",  # as the tests have it where there is no card
        "HF_HUB_OFFLINE": "1",
    }


def _build(folder: Path) -> Path:
    torch, triton, nvidia = (_folder_of(name) for name in ("torch", "triton", "nvidia"))
    # The runtime's own first: of Triton's, which may be older, it needs what the runtime's wheel leaves out.
    places = [*nvidia.glob("cu*/include"), nvidia / "cuda_runtime/include", nvidia / "cudnn/include"]
    headers = [*places, triton / "backends" / "nvidia" / "include"]
    folder.mkdir(parents=True, exist_ok=True)
    _run("g++", "-O2", "-std=c++17", "-fPIC", "-w", "-c", *(f"-I{each}" for each in headers), str(_HERE / "hollow.cpp"),
         "-o", str(folder / "hollow.o"))  # fmt: skip
    given = set(re.findall(r" T (\w+)", _run("nm", str(folder / "hollow.o"))))
    libraries = [str(path) for name in _LIBRARIES if (path := torch / "lib" / f"lib{name}.so").exists()]
    asked = set(_ASKED.findall(_run("nm", "-D", "--undefined-only", *libraries)))
    called = (triton / "backends" / "nvidia" / "driver.c").read_text(encoding="utf-8")
    asked |= set(re.findall(r"\b(cu[A-Z]\w+)\(", called))
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(asked - given)), encoding="utf-8")
    library = folder / "libhollow.so"
    _run("gcc", "-O1", "-fPIC", "-w", "-c", str(rest), "-o", str(folder / "rest.o"))
    _run("g++", "-shared", "-Wl,-soname,libhollow.so", str(folder / "hollow.o"), str(folder / "rest.o"),
         "-o", str(library))  # fmt: skip
    # Triton links with a library of this name, and asks it for functions: it has all of the other's.
    (folder / "nothing.c").write_text("int hollow_nothing;\n", encoding="utf-8")
    _run("gcc", "-shared", "-fPIC", str(folder / "nothing.c"), "-Wl,-soname,libcuda.so.1,--no-as-needed",
         f"-L{folder}", "-lhollow", f"-Wl,-rpath,{folder}", "-o", str(folder / "libcuda.so.1"))  # fmt: skip
    unversioned = folder / "libcuda.so"  # which older ones of Triton look for
    unversioned.unlink(missing_ok=True)
    unversioned.symlink_to("libcuda.so.1")
    return library


def _folder_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"{package} is not installed: the hollow CUDA is built for a torch that is made for CUDA")
    return Path(next(iter(spec.submodule_search_locations)))


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise RuntimeError(f"{command[0]} is missing: the hollow CUDA needs a C++ compiler and binutils") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{command[0]} failed:\n{error.stderr}") from error


def is_here() -> bool:
    """Whether this process was started with it."""
    return "libhollow.so" in os.environ.get("LD_PRELOAD", "")


def run_again(folder: Path) -> None:
    """Goes on as the same program, with the hollow CUDA in it; ends it where that cannot be built."""
    try:
        found = environment(folder)
    except RuntimeError as error:
        sys.exit(str(error))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], found)


def rehearse(folder: Path) -> None:
    """The same, where tests and benches are to run as `rehearsal` has them."""
    os.environ |= {
        "PYTHONOPTIMIZE": "1",
        "PYTEST_ADDOPTS": f"-p {__name__}.rehearsal --assert=plain -W ignore::pytest.PytestConfigWarning",
        "HOLLOW_START_NS": "0",
    }
    run_again(folder)

"""Checks what a built wheel holds: `python .ci/check_wheel.py dist/*.whl`, standard library only.

maturin skips a linked folder without a word, and a model left out is seen only by the first user, so both are compared
with the tree, byte for byte.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "gliner_fast"
BIGGEST_WHEEL = 80_000_000  # bytes; PyPI refuses more than 100 MB
# By name: of a pattern that matches nothing nobody would hear.
REQUIRED = (
    "__init__.py",
    "_rust.pyi",
    "py.typed",
    "kernels/_triton.py",
    "models/minilm/MODEL_CARD.md",
    "models/minilm/gliner_config.json",
    "models/minilm/model.int8.safetensors",
    "models/minilm/tokenizer.json",
)
LICENSES = ("LICENSE", "THIRD-PARTY-LICENSES", "python/gliner_fast/models/minilm/MODEL_CARD.md")


def expected_files(wheel: Path) -> dict[str, Path]:
    """Wheel path -> file of the tree, for everything that must be in the wheel unchanged."""
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    patterns = ("**/*.py", "**/*.pyi", "training/builtin/*.txt", "training/builtin/*.yaml")
    sources = {path for pattern in patterns for path in PACKAGE.glob(pattern)} | {PACKAGE / name for name in REQUIRED}
    models = {path for path in (PACKAGE / "models").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    kernels = {PACKAGE / "kernels" / path.relative_to(ROOT / "kernels") for path in (ROOT / "kernels").rglob("*.py")}
    files = {path.relative_to(PACKAGE.parent).as_posix(): path for path in sources | models | kernels}
    return files | {f"{information}/licenses/{name}": ROOT / name for name in LICENSES}


def find_faults(wheel: Path) -> list[str]:
    """Every way in which the wheel is not what it should be, one sentence each; empty if it is right."""
    faults = []
    if "-cp310-abi3-" not in wheel.name:
        faults.append(f"{wheel.name}: the tag is not cp310-abi3, so it would serve one Python only")
    if wheel.stat().st_size > BIGGEST_WHEEL:
        faults.append(f"{wheel.name}: {wheel.stat().st_size:,} bytes, more than {BIGGEST_WHEEL:,}")
    expected = expected_files(wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name, path in sorted(expected.items()):
            if name not in names:
                faults.append(f"{name} is missing")
            elif archive.read(name) != path.read_bytes():
                faults.append(f"{name} differs from {path.relative_to(ROOT)}")
    for name in sorted(names - set(expected)):
        is_native = name.startswith("gliner_fast/_rust.abi3.")
        if not is_native and ".dist-info/" not in name and not name.startswith("gliner_fast.libs/"):
            faults.append(f"{name} should not be there")
    if not any(name.startswith("gliner_fast/_rust.abi3.") for name in names):
        faults.append("the native module gliner_fast/_rust is missing")
    return faults


def main() -> int:
    """Prints what is wrong with each wheel named on the command line; 1 if anything is."""
    wheels = [Path(argument) for argument in sys.argv[1:]]
    if not wheels:
        print("usage: python .ci/check_wheel.py WHEEL...", file=sys.stderr)
        return 2
    faults = [fault for wheel in wheels for fault in find_faults(wheel)]
    for fault in faults:
        print(f"wheel: {fault}", file=sys.stderr)
    if not faults:
        print(f"wheel: {len(expected_files(wheels[0]))} files as in the tree, kernels and built-in model among them")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

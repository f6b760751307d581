"""Keeps the house in order: who may import whom, what reaches the wheel, what the README promises."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it to Python 3.10

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "gliner_fast"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Names such as "scorer" and "jobs/plan"; `kernels` is a link, and its files are looked at by themselves.
MODULES = sorted(
    path.relative_to(PACKAGE).with_suffix("").as_posix()
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] != "kernels"
)
KERNELS = sorted((ROOT / "kernels").rglob("*.py"))
SOURCES = sorted(
    path for folder in ("python", "kernels", "tests", "benches", ".ci") for path in (ROOT / folder).rglob("*.py")
)

# The steps of the way through: they do not know each other, `network` and `model` join them.
STEPS = {"words", "batch", "encoder", "scorer", "decode"}
# Who reads checkpoints, from disk or from the hub.
READERS = {
    "checkpoints/weight_files",
    "model",
    "methods/saving",
    "checkpoints/locating",
    "comparing/installed_gliner",
    "training/builtin/__main__",
}


def imported_names(path: Path, package: str = "") -> Iterator[str]:
    """Absolute dotted names that the file imports, inside functions too; `package` is what a leading dot stands for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                home = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*home, base] if base else home)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    """Modules of gliner_fast that a file of the package imports: `gliner_fast.words.split` counts as `words`."""
    names = (name.split(".") for name in imported_names(path, "gliner_fast"))
    return {name[1] for name in names if name[0] == "gliner_fast" and len(name) > 1}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- who may import whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", sorted(STEPS))
def test_a_step_imports_no_other_step(step: str):
    assert ours(PACKAGE / f"{step}.py") & (STEPS | {"model", "network"}) == set()


def test_only_the_readers_of_checkpoints_import_what_reads_them():
    for module in set(MODULES) - READERS:
        roots = {name.split(".")[0] for name in imported_names(PACKAGE / f"{module}.py", "gliner_fast")}
        assert roots & {"huggingface_hub", "safetensors"} == set(), module


# The model, who joins its parts, and who uses it.
ABOVE_THE_PARTS = {
    "annotated",
    "checkpoints",
    "cli",
    "comparing",
    "evaluation",
    "jobs",
    "model",
    "predicting",
    "training",
}
# Rooms that a folder of the package must not look into: what is read knows nothing of who reads it.
CLOSED = {
    "annotated": {"cli", "comparing", "evaluation", "jobs", "model", "training"},
    "checkpoints": {"annotated", "cli", "comparing", "evaluation", "jobs", "model", "predicting", "training"},
    "comparing": {"annotated", "cli", "evaluation", "jobs", "training"},
    "cpu": {"checkpoints", "cli", "comparing", "encoders", "evaluation", "jobs", "model", "network", "predicting"},
    "encoders": {"annotated", "checkpoints", "cli", "evaluation", "jobs", "model", "network", "predicting", "training"},
    "evaluation": {"cli", "comparing", "jobs", "training"},
    "jobs": {"annotated", "cli", "comparing", "evaluation", "training"},
    "methods": {"annotated", "cli", "comparing", "jobs"},
    "predicting": {"annotated", "checkpoints", "cli", "comparing", "evaluation", "jobs", "model", "training"},
    "relations": ABOVE_THE_PARTS,
    "scoring": ABOVE_THE_PARTS | {"methods", "network"},
    "training": {"cli", "comparing", "jobs"},
}


@pytest.mark.parametrize("folder", sorted(CLOSED))
def test_a_folder_looks_into_no_room_that_stands_above_it(folder: str):
    for path in (PACKAGE / folder).rglob("*.py"):
        assert ours(path) & CLOSED[folder] == set(), relative(path)


# The rooms that use the model. What stands beside it, in no folder, knows none of them, with these exceptions.
ABOVE = {"annotated", "cli", "comparing", "evaluation", "jobs", "ray", "training"}
LOOKS_UP = {
    "__init__": {"comparing", "jobs"},  # the front door
    "__main__": {"cli"},
    "ray": {"jobs"},  # it reads labels and gives entities as a job does
}


def test_what_stands_in_no_folder_looks_into_no_room_above_it():
    looks_up = {module: ours(PACKAGE / f"{module}.py") & ABOVE for module in MODULES if "/" not in module}
    assert {module: rooms for module, rooms in looks_up.items() if rooms} == LOOKS_UP


# A step knows nothing of the request that it works for; these join steps.
JOINING = {"devices", "model", "pipeline", "ray", "relex"}


def test_only_what_joins_the_steps_looks_into_predicting():
    looking = {module for module in MODULES if "/" not in module and "predicting" in ours(PACKAGE / f"{module}.py")}
    assert looking == JOINING


def test_the_names_of_checkpoints_stand_in_one_room():
    for module in set(MODULES) - {"checkpoints/tensor_names"}:
        assert "token_rep_layer" not in (PACKAGE / f"{module}.py").read_text(encoding="utf-8"), module


@pytest.mark.parametrize("path", KERNELS, ids=relative)
def test_a_kernel_imports_nothing_of_ours_but_kernels(path: Path):
    names = {name for name in imported_names(path, "gliner_fast.kernels") if name.split(".")[0] == "gliner_fast"}
    assert all(name.startswith("gliner_fast.kernels.") for name in names)


@pytest.mark.parametrize("path", [path for path in KERNELS if path.stem != "_triton"], ids=relative)
def test_a_kernel_gets_triton_through_the_door(path: Path):
    assert "triton" not in {name.split(".")[0] for name in imported_names(path)}


def test_nobody_imports_the_other_kernels():
    for path in SOURCES:
        assert "kernels" not in {name.split(".")[0] for name in imported_names(path)}, relative(path)


def test_the_rust_core_knows_nothing_of_python():
    manifest = tomllib.loads((ROOT / "rust/core/Cargo.toml").read_text(encoding="utf-8"))
    dependencies = {**manifest.get("dependencies", {}), **manifest.get("dev-dependencies", {})}
    assert not {"pyo3", "numpy"} & set(dependencies)
    assert not any("pyo3" in path.read_text(encoding="utf-8") for path in (ROOT / "rust/core/src").rglob("*.rs"))


def test_nothing_needs_a_path_outside_the_tree():
    outside = re.compile(r"\.\./shared\b|/work/")
    build = [ROOT / name for name in ("Makefile", "pyproject.toml", "Cargo.toml", ".ci/run")]
    for path in [*SOURCES, *build]:
        if path != Path(__file__).resolve():
            assert not outside.search(path.read_text(encoding="utf-8")), relative(path)


# --- kernels and the wheel --------------------------------------------------------------------------------------------


def test_the_package_links_to_the_kernels_folder():
    link = PACKAGE / "kernels"
    assert link.is_symlink()
    assert link.readlink() == Path("../../kernels")
    assert link.resolve() == ROOT / "kernels"


def test_the_kernels_folder_is_no_package_of_its_own():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_every_kernel_is_importable_under_our_name():
    for path in KERNELS:
        dotted = ".".join(path.relative_to(ROOT / "kernels").with_suffix("").parts)
        module = importlib.import_module(f"gliner_fast.kernels.{dotted}")
        assert Path(module.__file__).resolve() == path


def test_the_wheel_takes_every_kernel():
    # What the built wheel really holds is compared by `make wheel`, which CI runs.
    (pattern,) = PYPROJECT["tool"]["maturin"]["include"]
    matched = {path.resolve() for path in ROOT.glob(pattern)}
    assert matched == set(KERNELS)
    assert matched


def test_the_package_says_that_it_is_typed():
    assert "Typing :: Typed" in PYPROJECT["project"]["classifiers"]
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_rust.pyi").is_file()


def test_the_wheel_is_asked_for_every_licence():
    checked = re.search(r"^LICENSES = (.*)$", (ROOT / ".ci/check_wheel.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert list(ast.literal_eval(checked[1])) == PYPROJECT["project"]["license-files"]
    assert all((ROOT / name).is_file() for name in PYPROJECT["project"]["license-files"])


def test_maturin_is_new_enough_to_carry_a_linked_folder():
    assert PYPROJECT["build-system"]["requires"] == ["maturin>=1.12.1,<2"]


def test_the_built_in_model_is_whole_and_small():
    files = {path.name: path.stat().st_size for path in (PACKAGE / "models" / "minilm").iterdir()}
    assert {"MODEL_CARD.md", "gliner_config.json", "model.int8.safetensors", "tokenizer.json"} <= set(files)
    assert sum(files.values()) < 60_000_000


# --- the front door ---------------------------------------------------------------------------------------------------


def in_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_loads_nothing_heavy():
    code = "import gliner_fast, sys; print(*sorted({'torch', 'transformers', 'numpy', 'typer'} & set(sys.modules)))"
    assert in_fresh_python(code) == ""


def test_the_package_can_be_run_as_the_command_line():
    import gliner_fast

    assert in_fresh_python("import runpy; runpy.run_module('gliner_fast.__main__')") == ""
    run = [sys.executable, "-m", "gliner_fast", "--version"]
    told = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert told == f"gliner-fast {gliner_fast.__version__}\n"


def test_on_a_cpu_nobody_waits_for_triton_s_import():
    code = (
        "import gliner_fast, sys; gliner_fast.GLiNER, gliner_fast.extract_files\n"
        "print(*sorted({'gliner_fast.kernels._triton', 'torch._dynamo', 'transformers', 'triton'} & set(sys.modules)))"
    )
    assert in_fresh_python(code) == ""


def test_every_public_name_resolves():
    import gliner_fast

    assert {"GLiNER", "Entity", "verify", "__version__"} <= set(gliner_fast.__all__)
    assert set(gliner_fast.__all__) <= set(dir(gliner_fast))
    for name in gliner_fast.__all__:
        assert getattr(gliner_fast, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    import gliner_fast

    with pytest.raises(AttributeError, match="no_such_name"):
        gliner_fast.no_such_name  # noqa: B018  # the access is the test


def test_the_version_is_the_same_everywhere():
    import gliner_fast

    version = PYPROJECT["project"]["version"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
    assert gliner_fast.__version__ == version
    assert workspace["package"]["version"] == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- the README and the documents beside it --------------------------------------------------------------------------

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "*/README.md", "docs/*.md", "docs/*/*.md", "examples/*/*.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
EXAMPLE = re.compile(r"```python\n(?P<code>[^`]*?print[^`]*?)```\s+```text\n(?P<output>.*?)```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")


def commands_of(document: Path) -> list[str]:
    """Command lines of a document's shell blocks, without prompts and comments."""
    blocks = FENCE.findall(document.read_text(encoding="utf-8"))
    shell = (body for language, body in blocks if language in {"bash", "sh", "console"})
    lines = (line.removeprefix("$ ").split("#")[0].strip() for body in shell for line in body.splitlines())
    return [line for line in lines if line]


def anchors_of(document: Path) -> set[str]:
    """What a link may name behind a #: headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_example_prints_what_the_readme_shows():
    examples = list(EXAMPLE.finditer(README))
    assert examples
    for example in examples:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(example["code"], "README.md", "exec"), {})
        assert printed.getvalue().split() == example["output"].split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_python_block_compiles(document: Path):
    for language, body in FENCE.findall(document.read_text(encoding="utf-8")):
        if language == "python":
            compile(body, str(document), "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_link_inside_the_tree_leads_somewhere(document: Path):
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        assert not anchor or anchor in anchors_of(target), f"{path}#{anchor}"


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"help", "demo", "test", "lint", "bench", "gpu-check", "wheel", "clean"} <= targets
    inline = re.findall(r"`([^`]+)`", FENCE.sub("", README))
    lines = (line for line in [*commands_of(ROOT / "README.md"), *inline] if line.startswith("make"))
    named = {word for line in lines for word in line.split()[1:] if "=" not in word}
    assert named
    assert named <= targets


def test_a_new_wheel_takes_the_old_one_away_and_not_those_for_a_gpu(tmp_path: Path):
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nwheel:")[2].splitlines()[1:]
    (tmp_path / "dist" / "gpu-wheels").mkdir(parents=True)
    fetched, old = tmp_path / "dist" / "gpu-wheels" / "fetched.whl", tmp_path / "dist" / "old.whl"
    fetched.touch()
    old.touch()
    (remove,) = (line.strip() for line in recipe[: recipe.index("")] if line.startswith("\trm "))
    subprocess.run(["bash", "-euo", "pipefail", "-c", remove], cwd=tmp_path, check=True)
    assert (fetched.exists(), old.exists()) == (True, False)


def test_every_cli_command_of_the_documents_exists():
    from gliner_fast.cli import app

    lines = [line for document in DOCUMENTS for line in commands_of(document)]
    lines = [line for line in lines if re.search(r"(^|\| )gliner-fast\b", line)]
    named = {re.search(r"gliner-fast (\w+)", line)[1] for line in lines}
    known = {command.callback.__name__ for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    assert named
    assert named <= known


def test_what_docstrings_refer_to_is_in_the_tree():
    sources = "".join(path.read_text(encoding="utf-8") for path in [*PACKAGE.rglob("*.py"), *KERNELS])
    for page, pattern in (("design", r"DESIGN ([\d.]*\d)"), ("gliner-compat", r"compat (?:sections? )?([\d.]*\d)")):
        told = (ROOT / "docs" / "design" / f"{page}.md").read_text(encoding="utf-8")
        named = set(re.findall(pattern, sources))
        assert named
        assert named <= set(re.findall(r"(?m)^#+ ([\d.]*\d)\.? ", told))


def test_every_environment_variable_stands_in_the_documents():
    sources = "".join(path.read_text(encoding="utf-8") for path in [*PACKAGE.rglob("*.py"), *KERNELS])
    read = set(re.findall(r'"(GLINER_FAST_\w+)"', sources))
    assert "GLINER_FAST_ATTENTION" in read
    told = (ROOT / "docs" / "how-it-is-fast.md").read_text(encoding="utf-8")
    assert {name for name in read if f"`{name}`" not in told} == set()

"""Writes THIRD-PARTY-LICENSES, the notices of the crates that are compiled into `_rust`; needs cargo.

`python .ci/third_party_licenses.py` writes the file, `--check` compares it with what would be written. A text that
several crates share stands once, under all their names.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTICES = ROOT / "THIRD-PARTY-LICENSES"
OURS = "gliner-fast-binding"
# Of all platforms that we build for this one has the most crates: the others lack those for x86.
PLATFORM = "x86_64-unknown-linux-gnu"
RULE = "=" * 80
HEAD = """\
The native module gliner_fast._rust holds code of the crates below, by their versions in Cargo.lock, under the licences
that are named here; their texts follow. It holds code of Rust's standard library, too (https://github.com/rust-lang/rust,
MIT OR Apache-2.0, taken under Apache-2.0).

Written by .ci/third_party_licenses.py.
"""


def compiled_crates() -> list[dict[str, Any]]:
    """Packages of others that the module is linked with, by name: macros, which run in the compiler, are left out."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found: set[str] = set()
    waiting = [key for key, package in packages.items() if package["name"] == OURS]
    while waiting:
        key = waiting.pop()
        if key in found or any("proc-macro" in target["kind"] for target in packages[key]["targets"]):
            continue
        found.add(key)
        dependencies = nodes[key]["deps"]
        waiting += [one["pkg"] for one in dependencies if any(kind["kind"] is None for kind in one["dep_kinds"])]
    crates = [packages[key] for key in found if packages[key]["source"]]
    return sorted(crates, key=lambda crate: (crate["name"], crate["version"]))


def licence_texts(crate: dict[str, Any]) -> Iterator[str]:
    """What stands in the crate's licence files."""
    for path in sorted(Path(crate["manifest_path"]).parent.iterdir()):
        if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE")):
            lines = path.read_text(encoding="utf-8").splitlines()
            yield "\n".join(line.rstrip() for line in lines).strip("\n")


def write_notices() -> str:
    """The whole file.

    Raises:
        ValueError: a crate has no licence file, nor has one of the same repository and licence.
    """
    crates = compiled_crates()
    titles = [f"{crate['name']} {crate['version']}" for crate in crates]
    texts = [list(licence_texts(crate)) for crate in crates]
    homes = [((crate["repository"] or "").rstrip("/"), crate["license"]) for crate in crates]
    shared: dict[str, tuple[str, list[str]]] = {}  # without white space -> the text, whose it is
    for title, home, own in zip(titles, homes, texts, strict=True):
        found = own or next((other for other, place in zip(texts, homes, strict=True) if other and place == home), [])
        if not found:
            raise ValueError(f"{title} has no licence file: look for its text where its sources are kept ({home[0]})")
        for text in found:
            shared.setdefault("".join(text.split()), (text, []))[1].append(title)
    table = [f"{title}: {crate['license']}" for title, crate in zip(titles, crates, strict=True)]
    parts = [HEAD, "\n".join(table) + "\n"]
    parts += [f"{RULE}\n{', '.join(names)}\n{RULE}\n\n{text}\n" for text, names in shared.values()]
    return "\n".join(parts)


def main() -> int:
    """Writes the file, or says whether it is what would be written; 1 if it is not."""
    notices = write_notices()
    if sys.argv[1:] != ["--check"]:
        NOTICES.write_text(notices, encoding="utf-8", newline="\n")
    elif not NOTICES.is_file() or NOTICES.read_text(encoding="utf-8") != notices:
        print(
            f"{NOTICES.name} is not of the crates in Cargo.lock: run python .ci/{Path(__file__).name}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The `gliner` package as it is installed here, if it is: what ours is compared with."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gliner_fast.checkpoints.locating import INT8_ROWS
from gliner_fast.checkpoints.weight_files import find_weights, read_weights
from gliner_fast.weights import has_weights_of

if TYPE_CHECKING:
    from gliner_fast.model import GLiNER

REFERENCE_VERSION = "0.2.29"


def load_reference(ours: GLiNER) -> Any:
    """Loads our model's folder with the installed `gliner`, onto the same device, with the same limits.

    Raises:
        ImportError: `gliner` is not installed.
        ValueError: our model was not loaded from a folder, or has other weights than lie there.
    """
    if ours.source is None:
        raise ValueError("the model was not loaded from a folder: pass reference=, or save it and verify the folder")
    if not has_weights_of(ours.model, Path(ours.source), ours.variant):
        raise ValueError(
            f"the model's weights are not those of {ours.source}, where it was loaded from: pass reference=, or save "
            "it and verify that folder"
        )
    with _readable_by_reference(Path(ours.source)) as folder:
        return require_reference().from_pretrained(
            str(folder),
            map_location=str(ours.device),
            max_length=ours.config.max_len,
            max_width=ours.config.max_width,
        )


@contextmanager
def _readable_by_reference(folder: Path) -> Iterator[Path]:
    """The folder itself; one whose weights are in int8 rows, as the built-in model's, in a copy that gliner reads."""
    from safetensors.torch import save_file

    path = find_weights(folder)
    if path.name != INT8_ROWS:
        yield folder
        return
    with TemporaryDirectory() as name:
        for own in folder.glob("*.json"):
            shutil.copy(own, name)
        save_file(read_weights(path), Path(name) / "model.safetensors")
        yield Path(name)


def installed_version() -> str:
    """The version of the installed `gliner`; "unknown" where it does not say."""
    try:
        return metadata.version("gliner")
    except metadata.PackageNotFoundError:
        return "unknown"


def require_reference() -> Any:
    """Returns `gliner.GLiNER`, or says how to install it."""
    try:
        from gliner import GLiNER
    except ImportError as error:
        raise ImportError(
            f"the `gliner` package, to compare with, is not installed: `pip install "
            f"gliner=={REFERENCE_VERSION}` or `pip install 'gliner-fast[dev]'`"
        ) from error
    if (version := installed_version()) != REFERENCE_VERSION:
        warnings.warn(
            f"gliner {version} is installed, and ours answers as {REFERENCE_VERSION} does: where they differ, that may "
            "be why",
            stacklevel=3,
        )
    return GLiNER

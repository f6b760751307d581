"""Files of weights: what is written is what was read, and what is no plain tensor is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gliner_fast import CheckpointError, GLiNER
from gliner_fast.checkpoints.weight_files import read_weights, write_weights
from gliner_fast.weights import export_weights


@pytest.mark.parametrize(
    "kind",
    ["deberta", "deberta-marker", "deberta-two-lstm", "bert", "modernbert", "t5", "token", "bi-same-width", "bi-fused"],
)
def test_what_is_written_is_what_was_read(checkpoint: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    folder = checkpoint(kind)
    exported = export_weights(GLiNER.from_pretrained(folder).model)
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator there)
        told = file.metadata()
    write_weights(exported, tmp_path, safe=True)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(stored)
        assert file.metadata() == {"format": "pt", **(told or {})}  # the second name of a tensor
        assert all(torch.equal(file.get_tensor(name), stored[name]) for name in stored)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return print, ("this must never be printed",)

    path = tmp_path / "pytorch_model.bin"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(path)


@pytest.mark.parametrize(
    "state_dict",
    [
        {5: torch.zeros(1)},
        {"a": torch.zeros(1).to_sparse()},
        {"a": torch.zeros(1, device="meta")},
    ],
    ids=["number", "sparse", "meta"],
)
def test_a_pickle_of_other_than_plain_tensors_is_refused(
    state_dict: dict[object, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state_dict, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin (holds .* no plain tensor|cannot be read)"):
        read_weights(tmp_path / "pytorch_model.bin")


def test_three_bytes_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_weights(tmp_path / "pytorch_model.bin")


def test_what_the_system_refuses_is_no_fault_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "pytorch_model.bin")

"""Weights in int8 rows: within half a step of what they were, and loaded as any others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from gliner_fast import GLiNER
from gliner_fast.checkpoints.locating import BUILT_IN
from gliner_fast.checkpoints.row_int8 import dequantize_rows, quantize_rows
from gliner_fast.errors import CheckpointError
from gliner_fast.weights import export_weights


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_no_number_moves_by_more_than_half_a_step_of_its_row(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = size * torch.randn(64, 80, generator=generator) * torch.rand(64, 1, generator=generator) ** 4
    matrix[3] = 0
    back = dequantize_rows(quantize_rows({"w": matrix}))["w"]
    step = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert ((back - matrix).abs() <= step * (0.5 + 1e-5)).all()
    assert (back[3] == 0).all()


def test_small_ones_vectors_and_whole_numbers_stay_as_they_are() -> None:
    tensors = {"bias": torch.randn(9000), "small": torch.randn(3, 3), "ids": torch.arange(9000).view(90, 100)}
    tensors["nearly"] = torch.randn(65, 63)
    stored = quantize_rows(tensors)
    assert stored.keys() == tensors.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in tensors.items())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in dequantize_rows(stored).items())
    assert quantize_rows({"large": torch.randn(64, 64)})["large"].dtype == torch.int8


def test_a_large_matrix_takes_a_quarter() -> None:
    stored = quantize_rows({"w": torch.randn(512, 512)})
    assert stored["w"].dtype == torch.int8
    assert sum(tensor.nbytes for tensor in stored.values()) < 512 * 512 * 4 * 0.26


def test_a_checkpoint_in_int8_rows_is_loaded(tmp_path: Path) -> None:
    model = GLiNER.from_pretrained()
    for path in BUILT_IN.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, tmp_path)
    exact = export_weights(model.model)
    save_file(quantize_rows(exact), tmp_path / "model.safetensors")
    again = export_weights(GLiNER.from_pretrained(tmp_path, strict=True).model)
    assert again.keys() == exact.keys()
    for name, tensor in exact.items():
        step = tensor.abs().max() / 127 if tensor.ndim == 2 else 0
        assert ((again[name] - tensor).abs() <= step * 0.51).all(), name


def test_scales_that_do_not_fit_are_told(tmp_path: Path) -> None:
    stored = quantize_rows({"w": torch.randn(64, 80)})
    stored["w.row_scale"] = stored["w.row_scale"][:5].clone()
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "gliner_config.json").write_text(json.dumps({"span_mode": "markerV0"}))
    with pytest.raises(CheckpointError, match=r"'w' is torch.int8 of \(64, 80\) with \(5,\) scales"):
        GLiNER.from_pretrained(tmp_path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_scales_that_are_no_numbers_are_told(number: float) -> None:
    stored = quantize_rows({"w": torch.randn(64, 80)})
    stored["w.row_scale"][3] = number
    with pytest.raises(ValueError, match=r"w\.row_scale are torch\.float32, or NaN or infinite"):
        dequantize_rows(stored)
    with pytest.raises(ValueError, match=r"w\.row_scale are torch\.int64"):
        dequantize_rows(stored | {"w.row_scale": torch.ones(64, dtype=torch.int64)})

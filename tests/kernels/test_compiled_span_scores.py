"""What the compiler makes of the span scorer for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    return compile_by("compile_for_hopper")


@pytest.mark.parametrize("variant", ["bf16", "fp16 hits"])
def test_16_bits_run_on_the_matrix_units_with_one_instruction_for_two_sums(variant: str, compiled):
    found = compiled[variant]
    assert found["matrix units"]
    assert found["fused"]
    assert found["copies through L1"]  # of v
    assert found["copies past L1"]  # of g
    assert found["atomic additions"] is (variant == "fp16 hits")


def test_fp32_keeps_off_the_matrix_units_unless_tf32_is_allowed(compiled):
    assert not compiled["fp32"]["matrix units"]
    assert compiled["tf32"]["matrix units"]


def test_the_relu_of_a_nan_is_nan(compiled):
    assert all(found["NaN stays"] for found in compiled.values())


def test_all_fit_into_shared_memory(compiled):
    assert all(found["shared"] <= 99 * 1024 for found in compiled.values())

"""What the compiler makes of the span scorer for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_registers_of_3_6, needs_triton

pytestmark = needs_triton


OTHERS = ["80", "100", "120"]


@pytest.fixture(scope="module")
def for_all() -> dict[str, dict[str, dict[str, object]]]:
    return compile_by("compile_for_hopper", "--architecture", "90", *OTHERS)


@pytest.fixture
def compiled(for_all) -> dict[str, dict[str, object]]:
    return for_all["90"]


@pytest.mark.parametrize("variant", ["bf16", "bf16 hits", "fp16 hits"])
def test_16_bits_run_on_the_matrix_units_with_one_instruction_for_two_sums(variant: str, compiled):
    found = compiled[variant]
    assert found["matrix units"]
    assert found["fused"]
    assert found["copies through L1"]  # of v
    assert found["copies past L1"] or variant == "bf16 hits"  # of g, but where so many threads share it: 8 bytes each
    assert found["atomic additions"] is variant.endswith("hits")


def test_fp32_keeps_off_the_matrix_units_unless_tf32_is_allowed(compiled):
    assert not compiled["fp32"]["matrix units"]
    assert compiled["tf32"]["matrix units"]


def test_the_relu_of_a_nan_is_nan(compiled):
    assert all(found["NaN stays"] for found in compiled.values())


def test_all_fit_into_shared_memory(compiled):
    assert all(found["shared"] <= 99 * 1024 for found in compiled.values())


@needs_registers_of_3_6
def test_no_loop_reads_a_spilled_register_again(compiled):
    assert {name: found["reloads in the loop"] for name, found in compiled.items()} == dict.fromkeys(compiled, 0)
    assert all(found["spilled"] == 0 for name, found in compiled.items() if not name.endswith("hits"))


@pytest.mark.parametrize("architecture", OTHERS)
def test_other_cards_can_have_it_too(architecture: str, for_all, compiled):
    found = for_all[architecture]
    assert found.keys() == compiled.keys()
    assert all(own["shared"] <= 99 * 1024 for own in found.values())


def test_programs_that_keep_hits_may_have_more_warps(compiled):
    assert (compiled["bf16"]["warps"], compiled["bf16 hits"]["warps"]) == (4, 8)

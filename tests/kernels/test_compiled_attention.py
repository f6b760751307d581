"""What the compiler makes of disentangled attention for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    return compile_by("compile_attention_for_hopper")


def test_all_but_strict_fp32_run_on_the_matrix_units(compiled):
    assert len(compiled) == 24  # with and without positions
    assert {name: found["matrix units"] for name, found in compiled.items()} == {
        name: not name.startswith("fp32") for name in compiled
    }


def test_no_register_is_spilled(compiled):
    spilled = {name: found["spilled"] for name, found in compiled.items() if found["spilled"]}
    # Two numbers, of heads so narrow that no published model has them.
    assert spilled in ({}, {"tf32 16 without positions": 8})


def test_16_bits_are_loaded_ahead(compiled):
    assert all(found["asynchronous copies"] for name, found in compiled.items() if "16" in name.split()[0])


def test_four_programs_and_more_fit_into_the_shared_memory_of_a_multiprocessor(compiled):
    assert all(4 * found["shared"] <= 227 * 1024 for found in compiled.values())

"""What the compiler makes of the gradient's kernels for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    return compile_by("compile_gradient_for_hopper")


def test_16_bits_run_on_the_matrix_units_and_fp32_keeps_off_them(compiled):
    assert len(compiled) == 9
    assert {name: found["matrix units"] for name, found in compiled.items()} == {
        name: not name.endswith("fp32") for name in compiled
    }


def test_no_sum_depends_on_the_order_in_which_programs_run(compiled):
    assert not any(found["atomics"] for found in compiled.values())


def test_four_programs_and_more_fit_into_the_shared_memory_of_a_multiprocessor(compiled):
    assert all(4 * found["shared"] <= 227 * 1024 for found in compiled.values())

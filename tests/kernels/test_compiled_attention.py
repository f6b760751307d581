"""What the compiler makes of disentangled attention for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_registers_of_3_6, needs_triton

pytestmark = needs_triton


OTHERS = ["80", "89", "100", "120"]


@pytest.fixture(scope="module")
def for_all() -> dict[str, dict[str, dict[str, object]]]:
    return compile_by("compile_attention_for_hopper", "--architecture", "90", *OTHERS)


@pytest.fixture
def compiled(for_all) -> dict[str, dict[str, object]]:
    return for_all["90"]


def test_all_but_strict_fp32_run_on_the_matrix_units(compiled):
    assert len(compiled) == 52  # with and without positions, and biased, also for short texts in 16 bits; and windowed
    assert {name: found["matrix units"] for name, found in compiled.items()} == {
        name: not name.startswith("fp32") for name in compiled
    }


@needs_registers_of_3_6
def test_registers_are_spilled_nowhere_but_a_few_in_the_largest_tile(compiled):
    spilled = {name: found["spilled"] for name, found in compiled.items() if found["spilled"]}
    assert set(spilled) <= {"bf16 64", "fp16 64"}
    assert all(number <= 16 for number in spilled.values())


@needs_registers_of_3_6
@pytest.mark.parametrize("architecture", OTHERS)
def test_other_cards_can_have_it_too_and_spill_next_to_nothing(architecture: str, for_all):
    found = for_all[architecture]
    assert len(found) == 8
    assert all(own["shared"] <= 99 * 1024 for own in found.values())
    assert all(own["spilled"] <= 16 for own in found.values()), found


def test_16_bits_are_loaded_ahead_where_shared_memory_allows(compiled):
    ahead = {name for name, found in compiled.items() if found["asynchronous copies"]}
    assert {name for name in compiled if "16" in name.split()[0]} - ahead == {"bf16 64", "fp16 64"}


def test_what_a_distance_has_takes_few_instructions(compiled):
    # A tile of biases would turn the softmax's layout around: 1.5 to 2 times as many in 16 bits.
    for name, found in compiled.items():
        if "biased" in name:
            without = compiled[name.replace("biased", "without positions")]["instructions for 1,024 pairs"]
            assert found["instructions for 1,024 pairs"] <= 1.15 * without, name


def test_two_programs_and_more_fit_into_a_multiprocessor(compiled):
    for name, found in compiled.items():
        assert 2 * found["shared"] <= 227 * 1024, name
        # But for float32, whose tiles of eight warps have one's worth of registers.
        assert found["registers"] * (1 if name.startswith(("fp32 64", "tf32 64")) else 2) <= 65_536, name

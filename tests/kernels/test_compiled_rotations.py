"""What the compiler makes of the kernel that turns queries and keys, for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    return compile_by("compile_rotations_for_hopper")


def test_no_register_is_spilled(compiled):
    assert len(compiled) == 9
    assert {name: found["spilled"] for name, found in compiled.items()} == dict.fromkeys(compiled, 0)


def test_sixteen_bytes_are_loaded_and_stored_at_a_time(compiled):
    assert {name: found["whole vectors"] for name, found in compiled.items()} == dict.fromkeys(compiled, True)


def test_no_number_goes_through_shared_memory(compiled):
    assert {name: found["shared"] for name, found in compiled.items()} == dict.fromkeys(compiled, 0)

"""What the compiler makes of residual and norm for an H100, on any machine."""

from __future__ import annotations

import pytest

from tests.kernels.spans import compile_by, needs_triton

pytestmark = needs_triton


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, object]]:
    return compile_by("compile_add_norm_for_hopper")


def test_no_register_is_spilled(compiled):
    assert len(compiled) == 12
    assert {name: found["spilled"] for name, found in compiled.items()} == dict.fromkeys(compiled, 0)


def test_sixteen_bytes_are_loaded_at_a_time(compiled):
    assert {name: found["whole vectors"] for name, found in compiled.items()} == dict.fromkeys(compiled, True)

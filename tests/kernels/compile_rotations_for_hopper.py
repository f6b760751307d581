"""Compiles what turns queries and keys for an H100, which needs none: Triton brings ptxas. Prints what it is made of.

In a process of its own, as `compile_for_hopper.py` and for the same reason.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import rotations as module
from gliner_fast.kernels._triton import COMPILED_AS
from tests.kernels.compile_for_hopper import usage

HEADS = {"base": (12, 64), "large": (16, 64), "narrow": (12, 32)}


def compiled(dtype: str, heads: int, head_dim: int) -> Any:
    """The kernel for sm_90 as the launch function starts it, its pointers at multiples of 16 bytes."""
    kernel = module._rotation_kernel
    names = kernel.arg_names
    rows = 1 << (2 * heads - 1).bit_length()
    constants = {"H": heads, "D": head_dim, "HEADS": rows}
    types = dict.fromkeys(constants, "constexpr") | {"qkv_ptr": f"*{dtype}", "places_ptr": "*i64"}
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, "*fp32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (told.num,): [["tt.divisibility", 16]]
            for told in kernel.params
            if told.name.endswith("_ptr") and not told.do_not_specialize_on_alignment
        },
    )
    options = {"num_warps": module.warps_of(rows * head_dim // 2)}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options | COMPILED_AS)


def main() -> None:
    """Prints a JSON object: of each variant its spilled bytes, and whether it loads and stores 16 bytes at a time."""
    found = {}
    for dtype in ("bf16", "fp16", "fp32"):
        for size, (heads, head_dim) in HEADS.items():
            kernel = compiled(dtype, heads, head_dim)
            ptx = kernel.asm["ptx"]
            found[f"{dtype} {size}"] = {
                "spilled": usage(kernel.asm["cubin"])["spilled"],
                "whole vectors": "ld.global.v4.b32" in ptx and "st.global.v4.b32" in ptx,
                "shared": kernel.metadata.shared,
            }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

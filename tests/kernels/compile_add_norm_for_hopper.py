"""Compiles residual and norm for an H100, which needs none: Triton brings ptxas. Prints what it is made of.

In a process of its own, as `compile_for_hopper.py` and for the same reason.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import add_norm as module
from gliner_fast.kernels._triton import COMPILED_AS
from tests.kernels.compile_for_hopper import usage

COLUMNS = [384, 768, 1024, 8192]


def compiled(dtype: str, columns: int) -> Any:
    """The kernel for sm_90 as the launch function starts it, its pointers at multiples of 16 bytes."""
    kernel = module._add_norm_kernel
    names = kernel.arg_names
    block = 1 << (columns - 1).bit_length()
    constants = {"D": columns, "BLOCK": block}
    types = dict.fromkeys(constants, "constexpr") | {"eps": "fp32"}
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, f"*{dtype}") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name.endswith("_ptr")},
    )
    options = {"num_warps": module.warps_of(block)}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options | COMPILED_AS)


def main() -> None:
    """Prints a JSON object: of each variant its spilled bytes, and whether it loads 16 bytes at a time."""
    found = {}
    for dtype in ("bf16", "fp16", "fp32"):
        for columns in COLUMNS:
            kernel = compiled(dtype, columns)
            ptx = kernel.asm["ptx"]
            found[f"{dtype} {columns}"] = {
                "spilled": usage(kernel.asm["cubin"])["spilled"],
                "whole vectors": "ld.global.v4.b32" in ptx,
            }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

"""Compiles the gradient's kernels for an H100, which needs none: Triton brings ptxas. Prints what each is made of.

In a process of its own, as `compile_for_hopper.py` and for the same reason.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import span_scores_gradient as module
from gliner_fast.kernels._triton import COMPILED_AS

# What the launch function chooses for K = 12 and 25 types.
COMMON = {"K": 12, "BLOCK_W": module._BLOCK_WORDS, "BLOCK_T": module._MOST_TYPES, "SUM": tl.float32}
KERNELS = {
    "du": (module._word_gradient_kernel, {"DIRECTION": 1, "TYPE_BLOCKS": 1}),
    "dv": (module._word_gradient_kernel, {"DIRECTION": -1, "TYPE_BLOCKS": 1}),
    "dg": (module._type_gradient_kernel, {}),
}
DTYPES = {"bf16": (2, "ieee"), "fp16": (2, "ieee"), "fp32": (4, "ieee")}
TABLES, SUMS = ("texts_ptr", "tiles_ptr"), ("dg_ptr", "dc_ptr")


def compiled(kernel: Any, dtype: str, constants: dict[str, Any]) -> Any:
    """The kernel for sm_90, its pointers at multiples of 16 bytes."""
    names = kernel.arg_names
    pointers = dict.fromkeys(TABLES, "*i64") | dict.fromkeys(SUMS, "*fp32")
    signature = {
        name: "constexpr" if name in constants else pointers.get(name, f"*{dtype}") if name.endswith("_ptr") else "i32"
        for name in names
    }
    aligned = [(place,) for place, name in enumerate(names) if name.endswith("_ptr") or name == "H"]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={place: [["tt.divisibility", 16]] for place in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=COMPILED_AS)


def main() -> None:
    """Prints a JSON object: for each kernel and dtype its shared memory in bytes and whether it has certain PTX."""
    found = {}
    for name, (kernel, own) in KERNELS.items():
        for dtype, (size, precision) in DTYPES.items():
            constants = {**COMMON, **own, "BLOCK_H": module._BLOCK_BYTES // size, "PRECISION": precision}
            result = compiled(kernel, dtype, constants)
            ptx = result.asm["ptx"]
            found[f"{name} {dtype}"] = {
                "shared": result.metadata.shared,
                "matrix units": "mma.sync" in ptx or "wgmma" in ptx,
                "atomics": bool(re.search(r"\b(atom|red)\.", ptx)),
            }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

"""Compiles disentangled attention for an H100, which needs none: Triton brings ptxas. Prints what it is made of.

For other cards (`--architecture 80` is an A100) it says only what 16 bits take, and spill, in heads 64 wide. Several
may be named: to begin a process takes as long as to compile for one.

In a process of its own, as `compile_for_hopper.py` and for the same reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import product
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import disentangled_attention as module
from gliner_fast.kernels._triton import COMPILED_AS
from tests.kernels.compile_for_hopper import HOPPER, registers, usage

KINDS: dict[str, dict[str, bool]] = {
    "": {},
    " without positions": {"positions": False},
    " windowed": {"positions": False, "windowed": True},
    " biased": {"positions": False, "biased": True},
}
DTYPES = {"bf16": (16, "ieee"), "fp16": (16, "ieee"), "fp32": (32, "ieee"), "tf32": (32, "tf32")}


def blocks_of(bits: int, head_dim: int, positions: bool, short: bool, architecture: int = HOPPER) -> module.Blocks:
    """The block sizes of a variant."""
    return module.default_blocks(module.ShapeClass(bits, head_dim, positions, short), architecture // 10)


def compiled(
    dtype: str,
    head_dim: int,
    *,
    positions: bool = True,
    short: bool = False,
    windowed: bool = False,
    biased: bool = False,
    architecture: int = HOPPER,
) -> Any:
    """The kernel as the launch function starts it for 12 heads, its pointers at multiples of 16 bytes."""
    bits, precision = DTYPES[dtype]
    blocks = blocks_of(bits, head_dim, positions, short, architecture)
    kernel = module._disentangled_attention_kernel
    names = kernel.arg_names
    constants = {
        "H": 12,
        "D": head_dim,
        "BLOCK": blocks.rows,
        "C2P": positions,
        "P2C": positions,
        "CARRIED": blocks.stages == 1,
        "WINDOWED": windowed,
        "BIASED": biased,
        "PRECISION": precision,
    }
    if not positions:
        constants |= {"keys_ptr": None, "queries_ptr": None}
    if not biased:
        constants["biases_ptr"] = None
    types = dict.fromkeys(constants, "constexpr") | {"rows_ptr": "*i32", "offsets_ptr": "*i64", "scale": "fp32"}
    types |= {"biases_ptr": "*fp32"} if biased else {}
    pointer = "*fp32" if bits == 32 else f"*{dtype}"
    source = ASTSource(
        fn=kernel,
        signature={name: types.get(name, pointer if name.endswith("_ptr") else "i32") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (told.num,): [["tt.divisibility", 16]]
            for told in kernel.params
            if told.name not in constants
            and not told.do_not_specialize_on_alignment
            and (told.name.endswith("_ptr") or told.name == "R")
        },
    )
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options | COMPILED_AS)


def on_hopper() -> dict[str, dict[str, object]]:
    """What each variant takes of a multiprocessor, and whether it has certain PTX."""
    found: dict[str, dict[str, object]] = {}
    for dtype, (bits, _) in DTYPES.items():
        for head_dim, (kind, options), short in product(module.HEAD_DIMS, KINDS.items(), (True, False)):
            if short and (bits == 32 or options.get("windowed")):
                continue  # the same as for longer texts, or longer than any that is short
            if dtype == "fp16" and head_dim < 64:
                continue  # bf16's instructions with another type
            kernel = compiled(dtype, head_dim, short=short, **options)
            ptx = kernel.asm["ptx"]
            made = registers(kernel.asm["cubin"])
            blocks = blocks_of(bits, head_dim, options.get("positions", True), short)
            found[f"{dtype} {head_dim}{kind}" + (" short" if short else "")] = {
                "shared": kernel.metadata.shared,
                "registers": 32 * blocks.warps * -(-made["registers"] // 8) * 8,
                "spilled": made["spilled"],
                "instructions for 1,024 pairs": round(made["loop"] * blocks.warps * 1024 / blocks.rows**2),
                "matrix units": "mma.sync" in ptx or "wgmma" in ptx,
                "asynchronous copies": "cp.async" in ptx,
            }
    return found


def elsewhere(architecture: int) -> dict[str, dict[str, int]]:
    """What another card's variants take."""
    found = {}
    for (kind, options), short in product(KINDS.items(), (True, False)):
        kernel = compiled("bf16", 64, short=short, **options, architecture=architecture)
        shared = {"shared": kernel.metadata.shared}
        found[f"bf16 64{kind}" + (" short" if short else "")] = usage(kernel.asm["cubin"]) | shared
    return found


def main() -> None:
    """Prints a JSON object: of each architecture what is made of each variant."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--architecture", type=int, nargs="+", default=[HOPPER], help="ten times the compute capability (90)"
    )
    asked = parser.parse_args().architecture
    json.dump({own: on_hopper() if own == HOPPER else elsewhere(own) for own in asked}, sys.stdout)


if __name__ == "__main__":
    main()

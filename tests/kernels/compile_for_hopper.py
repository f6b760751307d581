"""Compiles the span scorer for an H100, which needs none: Triton brings ptxas. Prints what each variant is made of.

The interpreter accepts much that the compiler refuses, and says nothing of the instructions: this does. It runs in a
process of its own, since a kernel is either interpreted or compiled.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import span_scores as module

VARIANTS = {
    # dtype, types, words, dense or hits, tf32
    "bf16": (torch.bfloat16, 25, 4096, "dense", False),
    "fp16 hits": (torch.float16, 5, 100, "hits", False),
    "fp32": (torch.float32, 5, 4096, "dense", False),
    "tf32": (torch.float32, 25, 100, "dense", True),
}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}
OPTIONS = ("num_warps", "num_stages", "maxnreg")


class Recorder:
    """Stands in for the kernel and keeps what it would have been started with."""

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        self.arguments, self.constants = arguments, constants


def compiled(dtype: torch.dtype, types: int, words: int, output: str, allow_tf32: bool) -> Any:
    """The kernel as `_launch` would start it for one text on an H100."""
    hidden, max_width = 3072, 12
    u, g = torch.empty(words, hidden, dtype=dtype), torch.empty(types, hidden, dtype=dtype)
    room = torch.empty(words * types * max_width, dtype=torch.float32 if output == "hits" else dtype)
    keys, allowed = torch.empty(len(room), dtype=torch.int64), torch.empty(words, max_width, dtype=torch.bool)
    hits = module._Hits(keys, keys[:1], torch.empty(types), allowed) if output == "hits" else None
    kernel, recorder = module._span_scores_kernel, Recorder()
    module._span_scores_kernel = recorder
    try:
        tiling = module._tiling(u, [words], [types], max_width)
        module._launch(u, u, g, g[:, 0], tiling, max_width, room, allow_tf32=allow_tf32, hits=hits)
    finally:
        module._span_scores_kernel = kernel
    options = {name: recorder.constants.pop(name) for name in OPTIONS}
    signature, constants, hints = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = recorder.arguments[place] if place < len(recorder.arguments) else recorder.constants[name]
        if isinstance(value, torch.Tensor):
            signature[name], hints[(place,)] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        elif value is None or place >= len(recorder.arguments):
            signature[name], constants[(place,)] = "constexpr", value
        else:
            signature[name], hints[(place,)] = "i32", [["tt.divisibility", 16]] if value % 16 == 0 else []
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=hints)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


def main() -> None:
    """Prints a JSON object: of each variant its shared memory in bytes and whether its PTX has certain instructions."""
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    found = {}
    for name, variant in VARIANTS.items():
        kernel = compiled(*variant)
        ptx = kernel.asm["ptx"]
        found[name] = {
            "shared": kernel.metadata.shared,
            "matrix units": "wgmma.mma_async" in ptx,
            "fused": "fma.rn.relu" in ptx,
            "NaN stays": "max.NaN" in ptx or "fma.rn.relu" in ptx,  # the interpreter keeps it either way
            "copies through L1": "cp.async.ca" in ptx,
            "copies past L1": "cp.async.cg" in ptx,
            "atomic additions": "atom" in ptx,
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

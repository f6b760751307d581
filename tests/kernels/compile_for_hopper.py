"""Compiles the span scorer for an H100, which needs none: Triton brings ptxas. Prints what each variant is made of.

Other cards (`--architecture 100` is a B200) it only compiles for.

The interpreter accepts much that the compiler refuses, and says nothing of the instructions: this does. It runs in a
process of its own, since a kernel is either interpreted or compiled.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gliner_fast.kernels import span_scores as module
from gliner_fast.kernels import span_tiling

VARIANTS = {
    # dtype, types, words, dense or hits, tf32
    "bf16": (torch.bfloat16, 25, 4096, "dense", False),
    "bf16 hits": (torch.bfloat16, 25, 4096, "hits", False),
    "bf16 of 100 types, hits": (torch.bfloat16, 100, 4096, "hits", False),
    "fp16 hits": (torch.float16, 5, 100, "hits", False),
    "fp32": (torch.float32, 5, 4096, "dense", False),
    "tf32": (torch.float32, 25, 100, "dense", True),
}
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}
HOPPER = 90
OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


class Recorder:
    """Stands in for the kernel and keeps what it would have been started with."""

    def __getitem__(self, grid: Any) -> Any:
        return self

    def __call__(self, *arguments: Any, **constants: Any) -> None:
        self.arguments, self.constants = arguments, constants


def compiled(
    dtype: torch.dtype, types: int, words: int, output: str, allow_tf32: bool, *, architecture: int = HOPPER
) -> Any:
    """The kernel as `launch` would start it for one text."""
    hidden, max_width = 3072, 12
    u, g = torch.empty(words, hidden, dtype=dtype), torch.empty(types, hidden, dtype=dtype)
    room = torch.empty(words * types * max_width, dtype=torch.float32 if output == "hits" else dtype)
    keys, allowed = torch.empty(len(room), dtype=torch.int64), torch.empty(words, max_width, dtype=torch.bool)
    count = torch.zeros(1, dtype=module.count_dtype(len(room)))
    hits = module.Hits(keys, count, torch.empty(types), allowed) if output == "hits" else None
    kernel, recorder = module._span_scores_kernel, Recorder()
    module._span_scores_kernel = recorder
    try:
        tiling = span_tiling.cut_tiles(u, [words], [types], max_width)
        module.launch(u, u, g, g[:, 0], tiling, max_width, room, allow_tf32=allow_tf32, hits=hits)
    finally:
        module._span_scores_kernel = kernel
    options = {name: recorder.constants.pop(name) for name in OPTIONS}
    signature, constants, hints = {}, {}, {}
    for place, (name, told) in enumerate(zip(kernel.arg_names, kernel.params, strict=True)):
        value = recorder.arguments[place] if place < len(recorder.arguments) else recorder.constants[name]
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            hints[(place,)] = [] if told.do_not_specialize_on_alignment else [["tt.divisibility", 16]]
        elif value is None or place >= len(recorder.arguments):
            signature[name], constants[(place,)] = "constexpr", value
        else:
            signature[name] = "i32"
            hints[(place,)] = [["tt.divisibility", 16]] if value % 16 == 0 and not told.do_not_specialize else []
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=hints)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def every_class() -> dict[str, tuple[torch.dtype, int, int, str, bool]]:
    """A variant for each shape class and output."""
    return {
        f"{own.bits} bits, {own.types} types, {words} words, {output}": (dtype, own.types, words, output, False)
        for own in span_tiling.DEFAULT_BLOCKS
        for dtype, words in [(torch.bfloat16 if own.bits == 16 else torch.float32, 100 if own.is_small else 4096)]
        for output in ("dense", "hits")
    }


def dump(cubin: bytes, option: str) -> str:
    """What cuobjdump says of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, option, file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def usage(cubin: bytes) -> dict[str, int]:
    """Registers of a thread, and bytes of those that did not fit and lie in memory."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", dump(cubin, "--dump-resource-usage"))
    return {"registers": int(found[1]), "spilled": int(found[2])}


def registers(cubin: bytes) -> dict[str, int]:
    """What a thread has of them, bytes that it spills, instructions of its loop and how many read spilled ones."""
    sass = dump(cubin, "-sass")
    code = {int(at, 16): what for at, what in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", sass)}
    jumps = [(at, re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", what)) for at, what in code.items()]
    loops = [range(int(jump[1], 16), at) for at, jump in jumps if jump and int(jump[1], 16) < at]
    bodies = [[code[at] for at in loop if at in code] for loop in loops]
    own = min((body for body in bodies if any(re.search("HGMMA|FFMA", what) for what in body)), key=len)
    reloads = sum(bool(re.search(r"\bLDL\b", what)) for what in own)
    return usage(cubin) | {"loop": len(own), "reloads in the loop": reloads}


def made_of(kernel: Any, architecture: int) -> dict[str, Any]:
    """Registers and shared memory of a kernel, and for Hopper whether its PTX has certain instructions."""
    shared = {"shared": kernel.metadata.shared}
    if architecture != HOPPER:
        return usage(kernel.asm["cubin"]) | shared
    ptx = kernel.asm["ptx"]
    return (
        registers(kernel.asm["cubin"])
        | shared
        | {
            "warps": kernel.metadata.num_warps,
            "matrix units": "wgmma.mma_async" in ptx,
            "fused": "fma.rn.relu" in ptx,
            "NaN stays": "max.NaN" in ptx or "fma.rn.relu" in ptx,  # the interpreter keeps it either way
            "copies through L1": "cp.async.ca" in ptx,
            "copies past L1": "cp.async.cg" in ptx,
            "atomic additions": "atom" in ptx,
        }
    )


def main() -> None:
    """Prints a JSON object: of each architecture what is made of each variant."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--all", action="store_true", help="every shape class instead of the few that tests look at")
    parser.add_argument(
        "--architecture", type=int, nargs="+", default=[HOPPER], help="ten times the compute capability (90)"
    )
    asked = parser.parse_args()
    variants, found = every_class() if asked.all else VARIANTS, {}
    for architecture in asked.architecture:
        capability = divmod(architecture, 10)
        torch.cuda.get_device_capability = lambda *_, own=capability: own
        found[architecture] = {
            name: made_of(compiled(*variant, architecture=architecture), architecture)
            for name, variant in variants.items()
        }
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()

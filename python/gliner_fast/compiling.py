"""Which modules go through `torch.compile`; what it has wrapped is compiled in place, as by the module's own `compile`.

A wrapper would hide what has to be asked of the module before it is called: how it reads batches, and which of its
parts run kernels of their own and are left out of what is compiled.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class PartlyCompiled(Protocol):
    """A module with parts that no compiler is to follow."""

    def leave_out_of_compiling(self) -> None:
        """Has compilers call them as they are, from now on."""


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module go through a compiler."""
    return getattr(module, "_compiled_call_impl", None) is not None


def wrapped(module: object) -> nn.Module | None:
    """What `torch.compile` made a module of; None for any other."""
    inner = dict(module.named_children()).get("_orig_mod") if isinstance(module, nn.Module) else None
    return inner if hasattr(module, "dynamo_ctx") else None


def compiled_in_place(module: Any) -> Any:
    """The module that `torch.compile` wraps, compiled as it asks for when it is called; any other as it is."""
    inner = wrapped(module)
    if inner is None:
        return module
    if isinstance(inner, PartlyCompiled):
        inner.leave_out_of_compiling()
    inner._compiled_call_impl = module.dynamo_ctx(inner._call_impl)  # noqa: SLF001  (what its own `compile` does)
    return inner

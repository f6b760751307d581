"""Whether a model of transformers still computes what its code says, so that others may compute it.

Hooks, adapters and modules put in the place of others would be passed over by who calls the modules' parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import nn


def is_as_built(model: nn.Module, parts: Iterable[nn.Module | None]) -> bool:
    """Whether to call a model and some of its parts is to call what transformers' file of the model has for them.

    Args:
        model: of transformers.
        parts: of it, which nobody else calls; None where one is missing.
    """
    everyone_s = torch.nn.modules.module
    if everyone_s._global_forward_hooks or everyone_s._global_forward_pre_hooks:  # noqa: SLF001  (as `native.is_bare`)
        return False
    home = type(model).__module__
    for part in chain([model], parts):
        if part is None or type(part).__module__ != home:
            return False
        own = part.__dict__  # asked before each batch: torch's way to attributes takes longer
        if own["_forward_hooks"] or own["_forward_pre_hooks"] or own.get("_compiled_call_impl") or "forward" in own:
            return False
    return True


def parts_of(module: nn.Module, *names: str) -> list[nn.Module | None]:
    """Modules right inside another one; None for those that are not there."""
    inside = module._modules  # noqa: SLF001  (as above)
    return [inside.get(name) for name in names]


def is_exact_gelu(activation: object) -> bool:
    """Whether an activation is GELU by the error function, as transformers or torch has it."""
    if type(activation) is nn.GELU:
        return activation.approximate == "none"
    return type(activation).__name__ == "GELUActivation" and getattr(activation, "act", None) is F.gelu

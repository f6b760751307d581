"""Whether a model of transformers still computes what its code says, so that it may be run in another way.

A run over packed texts skips some of the modules, and gives others rows without padding. Where there are hooks,
adapters or modules in the place of others, transformers has to call them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn

from gliner_fast.cpu.native import all_have_hooks, has_nothing_added

_BUILDERS = {"gliner_fast", "torch", "transformers"}


class AsBuilt:
    """Asks a model whether it is as it was built; it is asked before each batch."""

    def __init__(self, model: nn.Module, knows: Callable[[Any], bool]) -> None:
        """Asks about a model.

        Args:
            model: of transformers.
            knows: whether modules stand where they should, once nothing is added to any of them.
        """
        self._model, self._knows = model, knows
        self._seen: list[tuple[dict[str, nn.Module | None], str, nn.Module, type]] = []

    def __call__(self) -> bool:
        """Whether the model is as it was built."""
        if all_have_hooks() or not has_nothing_added(self._model):
            return False
        if self._is_as_seen():
            return True
        self._seen = []
        if not all(map(is_plain, self._model.modules())) or not self._knows(self._model):
            return False
        self._seen = [
            (parent._modules, name, module, type(module))  # noqa: SLF001  (torch's way to them takes longer)
            for parent in self._model.modules()
            for name, module in parent._modules.items()  # noqa: SLF001
            if module is not None
        ]
        return True

    def _is_as_seen(self) -> bool:
        seen = self._seen  # read once: another thread may be replacing it
        for inside, name, module, kind in seen:
            own = module.__dict__  # `has_nothing_added`, whose calls would take as long as the rest
            if (
                inside.get(name) is not module
                or type(module) is not kind
                or own["_forward_hooks"]
                or own["_forward_pre_hooks"]
                or own.get("_compiled_call_impl")
                or "forward" in own
            ):
                return False
        return bool(seen)

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: all but what was seen."""
        return {**self.__dict__, "_seen": []}


def is_plain(module: nn.Module) -> bool:
    """Whether nobody has added anything to a module, nor made one of another kind."""
    return has_nothing_added(module) and type(module).__module__.partition(".")[0] in _BUILDERS


def is_of_same_file(model: nn.Module, *parts: nn.Module | None) -> bool:
    """Whether parts of a model are those of transformers' file of that model; None for one that is not there."""
    return all(type(part).__module__ == type(model).__module__ for part in parts)


def parts_of(module: nn.Module, *names: str) -> list[nn.Module | None]:
    """Modules right inside another one; None for those that are not there."""
    return [module._modules.get(name) for name in names]  # noqa: SLF001


def is_exact_gelu(activation: object) -> bool:
    """Whether an activation is GELU by the error function, as transformers or torch has it."""
    if type(activation) is nn.GELU:
        return activation.approximate == "none"
    return type(activation).__name__ == "GELUActivation" and getattr(activation, "act", None) is F.gelu

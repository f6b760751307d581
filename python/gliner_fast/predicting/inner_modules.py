"""Whether all of a module is in inference mode, asked before each prediction."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import Any

from torch import nn

_children = itemgetter("_modules")
_training = itemgetter("training")


class InnerModules:
    """The modules inside a module: looked up once, and again where one of them has been replaced.

    It does not hold the module itself, which is likely to hold this: that reference cycle would keep the weights in
    memory until the garbage collector runs.
    """

    def __init__(self) -> None:
        self._seen: tuple[list[dict[str, Any]], list[nn.Module | None]] | None = None

    def __reduce__(self) -> tuple[type[InnerModules], tuple[()]]:
        """A copy of a module has others inside."""
        return InnerModules, ()

    def are_training(self, module: nn.Module) -> bool:
        """Whether a module, or one inside it, is in training mode; it is the same module each time."""
        seen = self._seen  # read once: another thread may be replacing it with an equal one
        if seen is None or _children_of([module.__dict__, *seen[0]]) != seen[1]:
            seen = self._seen = _look_inside(module)
        if seen is None:
            return any(each.training for each in module.modules())
        return module.training or any(map(_training, seen[0]))


def _look_inside(module: nn.Module) -> tuple[list[dict[str, Any]], list[nn.Module | None]] | None:
    """The attributes of each module inside, and all their children; None where a module keeps them elsewhere."""
    own = [each.__dict__ for each in module.modules()]
    # What TorchScript made is asked like any other by `modules()`, which takes longer.
    if not all("training" in each and isinstance(each.get("_modules"), dict) for each in own):
        return None
    return own[1:], _children_of(own)


def _children_of(own: list[dict[str, Any]]) -> list[nn.Module | None]:
    # Without a line of Python for each module: there are hundreds, and a short text takes some milliseconds.
    return list(chain.from_iterable(map(dict.values, map(_children, own))))

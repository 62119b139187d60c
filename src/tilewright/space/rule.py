"""What makes a function a rule of the schedule space, and how rules are found.

A rule is a function ``rule(context) -> Iterable[Sketch]``: it reads the kernel and the machine from
the :class:`~tilewright.space.context.Context` and yields structural ways to schedule the kernel, or
nothing where it does not apply.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tilewright.space.context import Context
    from tilewright.space.sketch import Sketch

Rule = Callable[["Context"], "Iterable[Sketch]"]
F = TypeVar("F", bound=Callable[..., object])
_MARK = "__space_rule__"


def rule(function: F) -> F:
    """Mark ``function`` as a rule of the default space (it stays an ordinary function)."""
    setattr(function, _MARK, True)
    return function


@cache
def discover() -> tuple[Rule, ...]:
    """The marked functions defined in ``tilewright.space.rules``, by module name."""
    from tilewright.space import rules

    found: list[Rule] = []
    for info in sorted(pkgutil.iter_modules(rules.__path__, rules.__name__ + "."), key=lambda i: i.name):
        module = importlib.import_module(info.name)
        found += [v for v in vars(module).values() if getattr(v, _MARK, False) and v.__module__ == module.__name__]
    return tuple(found)

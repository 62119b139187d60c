"""What makes a function a schedule primitive, and how primitives are found.

A primitive is a function ``name(kernel, ...) -> (kernel, names)``: it proves its precondition (or
raises ScheduleError and leaves the program untouched), and returns the rewritten kernel with the
names of the loops or buffers that took the place of its subject. Its other arguments are JSON
values (names, numbers, lists), so that every application can be written down in a trace. A
parameter called ``machine`` is filled in by the schedule and not recorded.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from tilewright.util.errors import ScheduleError

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__schedule_primitive__"


def primitive(function: F) -> F:
    """Mark ``function`` as a schedule primitive (it stays an ordinary function).

    Its first parameter must be called ``kernel``; ScheduleError otherwise.
    """
    parameters = list(inspect.signature(function).parameters)
    if parameters[:1] != ["kernel"]:
        raise ScheduleError(f"primitive {function.__name__}: the first parameter must be called 'kernel', not {parameters[:1]}")
    setattr(function, _MARK, True)
    return function


@cache
def discover() -> dict[str, Callable[..., Any]]:
    """Every primitive by name: the marked functions defined in ``tilewright.schedule.primitives``."""
    from tilewright.schedule import primitives

    found: dict[str, Callable[..., Any]] = {}
    for info in pkgutil.iter_modules(primitives.__path__, primitives.__name__ + "."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if getattr(value, _MARK, False) and value.__module__ == module.__name__:
                found[name] = value
    return found


@cache
def signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a primitive (inspecting one on each application would be felt in a search)."""
    return inspect.signature(function)

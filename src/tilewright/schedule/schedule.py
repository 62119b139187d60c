"""The schedule of one kernel: primitives as methods, and the trace of what was applied."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from tilewright.ir.stmt import Kernel
from tilewright.schedule.primitive import discover, signature
from tilewright.schedule.trace import Step, Trace, plain
from tilewright.util.errors import ScheduleError


class Schedule:
    """A kernel being scheduled.

    Each primitive of :mod:`tilewright.schedule.primitives` is a method: it replaces ``kernel`` by
    the rewritten one, appends to ``trace`` and returns the new names (a str for one, a tuple for
    several, None for none). A primitive that refuses raises ScheduleError and changes nothing.

    >>> sch = Schedule(gemm)
    >>> io, ii = sch.split("i", 14)
    >>> sch.reorder(io, "j", ii)
    """

    __slots__ = ("kernel", "machine", "trace")

    def __init__(self, kernel: Kernel, machine: Any = None, trace: Trace | None = None):
        self.kernel = kernel
        self.machine = machine
        self.trace = trace or Trace()

    def apply(self, name: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """Apply the primitive called ``name``; returns all result names, however many."""
        function = discover().get(name)
        if function is None:
            raise ScheduleError(f"there is no primitive {name!r}", hint=f"primitives: {', '.join(sorted(discover()))}")
        bound = self._bind(name, function, args, kwargs)
        recorded = tuple((k, plain(v, f"{name}: argument {k!r}")) for k, v in bound.arguments.items() if k not in ("kernel", "machine"))
        if "machine" in signature(function).parameters:
            bound.arguments.setdefault("machine", self.machine)
        kernel, results = function(*bound.args, **bound.kwargs)
        self.kernel, self.trace = kernel, self.trace.then(Step(name, recorded, tuple(results)))
        return tuple(results)

    def _bind(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        shape = signature(function)
        try:
            return shape.bind(self.kernel, *(_handle(a) for a in args), **{k: _handle(v) for k, v in kwargs.items()})
        except TypeError as e:
            shown = ", ".join(str(p) for p in list(shape.parameters.values())[1:] if p.name != "machine")
            raise ScheduleError(f"{name}: {e}", hint=f"{name}({shown})") from e

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or name not in discover():
            raise AttributeError(f"Schedule has no primitive {name!r}; it has: {', '.join(sorted(discover()))}")

        def method(*args: Any, **kwargs: Any) -> str | tuple[str, ...] | None:
            results = self.apply(name, *args, **kwargs)
            return results if len(results) > 1 else results[0] if results else None

        method.__name__ = name
        method.__doc__ = discover()[name].__doc__
        return method

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *discover()})

    def copy(self) -> Schedule:
        """An independent schedule in the same state (kernels are immutable: this is cheap)."""
        return Schedule(self.kernel, self.machine, self.trace)

    def __str__(self) -> str:
        return str(self.kernel)


def _handle(value: Any) -> Any:
    """Loop and buffer nodes may stand for their names."""
    from tilewright.ir.buffer import Buffer
    from tilewright.ir.expr import Var
    from tilewright.ir.stmt import For

    return value.name if isinstance(value, (For, Buffer, Var)) else value

"""The schedule a kernel gets without tuning: the default point of its space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tilewright.hw import Machine
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.space.costs import uncollected
from tilewright.space.plan import Decision as Decision
from tilewright.space.plan import Plan as Plan
from tilewright.space.space import Space


def default_schedule(
    kernel: Kernel, machine: Machine | None = None, *, threads: int | None = None, constants: Iterable[str] = ()
) -> Schedule:
    """Schedule ``kernel`` for ``machine`` (default: this host) by rules and estimates, without running anything.

    ``constants`` are arguments whose contents are known before the kernel runs (weights): their
    layout may be changed, which shows in the arguments of the result's kernel. A stage that no rule
    fits runs as written, among them loops over symbolic ranges: bind sizes first
    (:func:`tilewright.ir.stmt.specialize`). IRTypeError for rectangular nests on buffers of symbolic shape.
    """
    return plan(kernel, machine, threads=threads, constants=constants).schedule


def plan(
    kernel: Kernel,
    machine: Machine | None = None,
    *,
    threads: int | None = None,
    constants: Iterable[str] = (),
    estimated: bool = False,
) -> Plan:
    """:func:`default_schedule` together with what was decided, and what it is ``estimated`` at where the machine has vectors."""
    with uncollected():
        space = Space(kernel, machine, threads, constants)
        point = space.default()
        seconds = float(space.estimate(point[None])[0]) if estimated and space.machine.vector_bits else None
        space.costs.forget()
        return replace(space.plan(point), seconds=seconds)

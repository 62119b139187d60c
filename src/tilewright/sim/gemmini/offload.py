"""Kernels of a network on the simulated Gemmini, as far as it can do them; the host does the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tilewright.codegen.commands import Command, Host, Program, check, generate, parse_program, walk
from tilewright.hw import Machine
from tilewright.ir.buffer import Buffer
from tilewright.ir.packing import physical_shape, to_logical, to_physical
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel, written_buffers
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.generated import execute, timed
from tilewright.sim.gemmini.tuning import tuned
from tilewright.space.default import plan
from tilewright.space.joined import joined
from tilewright.space.long_rows import long_rows
from tilewright.space.memory_order import Ordered, memory_order
from tilewright.space.single_rows import single_rows
from tilewright.space.unsuited import unsuited
from tilewright.space.version import deciding
from tilewright.util.digest import sources
from tilewright.util.errors import CodegenError, ScheduleError, SpaceError


class ProgramCache(Protocol):
    """Where programs are kept from one process to the next; :class:`tilewright.runtime.cache.BuildCache` is one."""

    def key(self, kind: str, *parts: object) -> str: ...
    def load(self, key: str) -> bytes | None: ...
    def store(self, key: str, payload: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Made:
    """What came of a kernel: a program, or the reason why there is none."""

    program: Program | None = None
    reason: str = ""


#: A kernel, and its arguments whose contents are known ahead of time: what may be laid out as a program likes it is part of the work.
Work = tuple[Kernel, frozenset[str]]


class Offload:
    """Runs kernels, as ``Network.executed`` asks for it: scheduled for ``machine`` and checked, on the functional model.

    Schedules are the default ones, or, for kernels that the host has no part in, the best of ``measured`` on the cycle model, each also
    as runs of the loop ``forms`` (:func:`tilewright.sim.gemmini.tuning.tuned`). With a ``store`` what was found is kept by kernel,
    machine and version: whoever asks again searches nothing. Arrays are plain ones in the order of memory, pixels of convolutions
    with windows of one pixel and vectors in products rows of matrices, and arrays that are only computed element by element matrices of
    long rows, as their memory is the same.

    ``programs`` has what was made of each kernel, with its constants, that the array takes part in, ``refused`` why the host does
    another alone; ``searched`` counts those that were not in the store.
    """

    def __init__(self, machine: Machine, *, measured: int = 0, forms: Sequence[str] = (), store: ProgramCache | None = None):
        self.machine, self.measured, self.forms, self.store = machine, measured, tuple(forms), store
        self.programs: dict[Work, Program] = {}
        self.refused: dict[Work, str] = {}
        self.searched = 0
        self._cycles: dict[Work, int] = {}

    def __call__(self, kernel: Kernel, arrays: Sequence[NDArray[Any]], constants: frozenset[str] = frozenset()) -> None:
        """Updates ``arrays``, the arguments of ``kernel``, in place; the program lays out those in ``constants`` as it likes."""
        program = self.prepare(kernel, constants)
        if program is None:
            reference(kernel, arrays)
            return
        form = self._form(kernel, constants)
        seen = {b.name: _seen(a, b, form) for b, a in zip(kernel.args, arrays, strict=True)}
        execute(program, self.machine, seen)
        written = written_buffers(kernel.body)
        for b, a in zip(kernel.args, arrays, strict=True):
            if b.name in written and not np.shares_memory(seen[b.name], a):
                a[...] = _unseen(seen[b.name], b, form)

    def prepare(self, kernel: Kernel, constants: frozenset[str] = frozenset()) -> Program | None:
        """The program of ``kernel``, made once; None when the host does it alone."""
        work = kernel, constants
        if work not in self.programs and work not in self.refused:
            made = self._kept(self._form(kernel, constants).kernel, constants)
            if made.program is not None:
                self.programs[work] = made.program
            else:
                self.refused[work] = made.reason
        return self.programs.get(work)

    def cycles(self, kernel: Kernel, constants: frozenset[str] = frozenset()) -> int:
        """What the program of ``kernel`` takes on the cycle model; 0 when the host does it alone.

        What the host computes takes no time there.
        """
        work = kernel, constants
        if work not in self._cycles:
            program = self.prepare(kernel, constants)
            self._cycles[work] = timed(program, self.machine).cycles if program is not None else 0
        return self._cycles[work]

    def _form(self, kernel: Kernel, constants: frozenset[str]) -> Ordered:
        """``kernel`` as what is scheduled: other shapes of the same memory, but for ``constants``, whose order is free."""
        ordered = memory_order(kernel, constants)
        return replace(ordered, kernel=long_rows(single_rows(joined(ordered.kernel)), self.machine))

    def _kept(self, kernel: Kernel, constants: frozenset[str]) -> _Made:
        """As :meth:`_make`, from the store where it is there."""
        if self.store is None:
            return self._make(kernel, constants)
        where = (self.machine.name, Configuration.of(self.machine), deciding(), _version())
        key = self.store.key("accelerator program", *where, kernel, sorted(constants), self.measured, self.forms)
        held = self.store.load(key)
        if held is not None:
            text = json.loads(held)
            return _Made(parse_program(text["program"]) if text["program"] else None, text["reason"])
        made = self._make(kernel, constants)
        text = {"program": str(made.program) if made.program is not None else "", "reason": made.reason}
        self.store.store(key, json.dumps(text).encode())
        return made

    def _make(self, kernel: Kernel, constants: frozenset[str]) -> _Made:
        self.searched += 1
        try:
            program = generate(plan(kernel, self.machine, constants=constants).schedule.kernel, self.machine)
        except (CodegenError, ScheduleError, SpaceError) as error:
            return _Made(reason=error.message)
        if not any(isinstance(i, Command) for i in walk(program.body)):
            return _Made(reason=f"nothing in it is work for the array: {unsuited(kernel, self.machine)}")
        if self.measured and not any(isinstance(i, Host) for i in walk(program.body)):
            program = self._searched(program, kernel, constants)
        try:
            check(program, self.machine)
        except CodegenError as error:  # e.g. results that nothing reads, because the kernel has some
            return _Made(reason=error.message)
        return _Made(program)

    def _searched(self, default: Program, kernel: Kernel, constants: frozenset[str]) -> Program:
        """The fastest program that was found, the ``default`` one among them."""
        try:
            found = tuned(kernel, self.machine, measured=self.measured, forms=self.forms, constants=constants)
        except SpaceError:
            return default  # no schedule that was tried has commands
        return found.program if found.cycles < timed(default, self.machine).cycles else default


def _seen(array: NDArray[Any], b: Buffer, form: Ordered) -> NDArray[Any]:
    """``array``, the argument ``b`` in logical order, as the argument of the form: another shape on the same memory."""
    shape, layout = form.kernel.arg(b.name).static_shape, form.layouts.get(b.name)
    if layout is None:
        return array.reshape(shape)
    out = np.empty(physical_shape(layout, b.static_shape), array.dtype)
    to_physical(array, layout, out)
    return out.reshape(shape)


def _unseen(array: NDArray[Any], b: Buffer, form: Ordered) -> NDArray[Any]:
    layout = form.layouts.get(b.name)
    if layout is None:
        return array.reshape(b.static_shape)
    return to_logical(array.reshape(physical_shape(layout, b.static_shape)), layout, b.static_shape)


@cache
def _version() -> str:
    """Digest of what counts cycles and searches by them."""
    return sources(Path(__file__).parents[2], ("sim",))

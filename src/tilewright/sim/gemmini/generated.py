"""Command programs of a Gemmini on the simulators: what they compute, with the host's part, and how many cycles they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.codegen.commands import Command, Host, Pointer, Program, stream, walk, words
from tilewright.hw import Machine
from tilewright.ir.buffer import Buffer
from tilewright.ir.packing import physical_shape, to_logical, to_physical
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel, written_buffers
from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.cycles import Run, simulate
from tilewright.sim.gemmini.functional import Functional
from tilewright.sim.gemmini.memory import MainMemory
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.sim.gemmini.words import decode
from tilewright.util.errors import ExecutionError

_LINE = 64
#: What every byte of an array is before the program writes it.
_POISON = 0xA5


def execute(program: Program, machine: Machine, arrays: Mapping[str, NDArray[Any]]) -> Functional:
    """Runs ``program`` on the functional model, updating ``arrays`` (by argument name, logical order) in place; returns the model.

    In its memory arguments are as their layouts say, and the program's own arrays start poisoned.
    """
    memory = MainMemory(sum(-(-b.nbytes // _LINE) + 1 for b in program.arrays) * _LINE)
    stored: dict[str, _Stored] = {}
    addresses: dict[str, int] = {}
    for b in program.arrays:
        shape = physical_shape(b.layout, b.static_shape) if b.layout else b.static_shape
        space = np.full(b.nbytes, _POISON, np.uint8).view(b.dtype.to_numpy()).reshape(shape)
        addresses[b.name] = memory.place(space, _LINE)
        stored[b.name] = _Stored(b, memory.array(addresses[b.name], shape, b.dtype.to_numpy()))
    for b in program.args:
        if b.name not in arrays or arrays[b.name].shape != b.static_shape or arrays[b.name].dtype != b.dtype.to_numpy():
            raise ExecutionError(f"program {program.name}: argument {b.name} must be an array {b.dtype}{list(b.static_shape)}")
        stored[b.name].write(arrays[b.name])

    def host(kernel: Kernel, sizes: Sequence[int], args: Sequence[str]) -> None:
        values = dict(zip((v.name for v in kernel.sizes), sizes, strict=True))
        logical = {b.name: stored[a].read() for b, a in zip(kernel.args, args, strict=True)}
        reference(kernel, logical, values)
        for b, a in zip(kernel.args, args, strict=True):
            if b.name in written_buffers(kernel.body):
                stored[a].write(logical[b.name])

    model = Functional(Configuration.of(machine), memory)
    model.run(_commands(stream(program, machine, addresses, host)))
    for name in _results(program, machine) & arrays.keys():
        arrays[name][...] = stored[name].read()
    return model


@dataclass(frozen=True, slots=True)
class _Stored:
    """An array of the program in the model's memory: ``physical`` is a view of it."""

    buffer: Buffer
    physical: NDArray[Any]

    def read(self) -> NDArray[Any]:
        """Its elements in logical order: a view where the layout divides no dimension."""
        return to_logical(self.physical, self.buffer.layout, self.buffer.static_shape) if self.buffer.layout else self.physical

    def write(self, array: NDArray[Any]) -> None:
        if self.buffer.layout:
            to_physical(array, self.buffer.layout, self.physical)
        else:
            self.physical[...] = array


def _results(program: Program, machine: Machine) -> set[str]:
    """The arrays that a program writes; other arguments may be read-only."""
    known = words(machine)
    out: set[str] = set()
    for i in walk(program.body):
        if isinstance(i, Command):
            operands = {o.name: o.role for o in known[i.word].instruction.operands}
            out |= {o.base for n, o in i.operands if isinstance(o, Pointer) and operands[n] != "in"}
        elif isinstance(i, Host):
            written = written_buffers(i.kernel.body)
            out |= {a for b, a in zip(i.kernel.args, i.args, strict=True) if b.name in written}
    return out


def timed(program: Program, machine: Machine, timing: Timing | None = None, most: int | None = None) -> Run:
    """``program``, or its first ``most`` words, on the cycle model; its arrays lie one after the other in main memory.

    What the host computes takes no time there.
    """
    return simulate(_commands(islice(stream(program, machine, starts(program)), most)), Configuration.of(machine), timing)


def starts(program: Program) -> dict[str, int]:
    """Where the arrays of a timed program begin: one after the other."""
    out, at = {}, 0x8000_0000
    for b in program.arrays:
        out[b.name] = at
        at += -(-b.nbytes // _LINE) * _LINE
    return out


def _commands(words: Iterator[tuple[int, int, int] | None]) -> Iterator[isa.Command]:
    return (isa.Fence() if w is None else decode(*w) for w in words)

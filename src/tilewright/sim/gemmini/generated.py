"""Command programs of a Gemmini on the simulators: what they compute, with the host's part, and how many cycles they take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from tilewright.codegen.commands import Command, Host, Pointer, Program, stream, walk, words
from tilewright.hw import Machine
from tilewright.ir.reference import reference
from tilewright.ir.stmt import Kernel, written_buffers
from tilewright.sim.gemmini import isa
from tilewright.sim.gemmini.configuration import Configuration
from tilewright.sim.gemmini.cycles import Run, simulate
from tilewright.sim.gemmini.functional import Functional
from tilewright.sim.gemmini.memory import MainMemory
from tilewright.sim.gemmini.memory_timing import Timing
from tilewright.util.errors import ExecutionError

_LINE = 64


def execute(program: Program, machine: Machine, arrays: Mapping[str, NDArray[Any]]) -> Functional:
    """Runs ``program`` on the functional model, updating ``arrays`` (by argument name, C order) in place; returns the model."""
    memory = MainMemory(sum(-(-a.nbytes // _LINE) + 1 for a in arrays.values()) * _LINE)
    addresses: dict[str, int] = {}
    views: dict[str, NDArray[Any]] = {}
    for b in program.args:
        if b.name not in arrays or arrays[b.name].shape != b.static_shape or arrays[b.name].dtype != b.dtype.to_numpy():
            raise ExecutionError(f"program {program.name}: argument {b.name} must be an array {b.dtype}{list(b.static_shape)}")
        addresses[b.name] = memory.place(arrays[b.name], _LINE)
        views[b.name] = memory.array(addresses[b.name], b.static_shape, b.dtype.to_numpy())

    def host(kernel: Kernel, sizes: Sequence[int], args: Sequence[str]) -> None:
        values = dict(zip((v.name for v in kernel.sizes), sizes, strict=True))
        reference(kernel, {b.name: views[a] for b, a in zip(kernel.args, args, strict=True)}, values)

    model = Functional(Configuration.of(machine), memory)
    model.run(_commands(stream(program, machine, addresses, host)))
    for name in _results(program, machine):
        arrays[name][...] = views[name]
    return model


def _results(program: Program, machine: Machine) -> set[str]:
    """The arguments that a program writes; the others may be read-only arrays."""
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
    """``program``, or its first ``most`` words, on the cycle model; its arguments lie one after the other in main memory.

    What the host computes takes no time there.
    """
    addresses, at = {}, 0x8000_0000
    for b in program.args:
        addresses[b.name] = at
        at += -(-b.nbytes // _LINE) * _LINE
    return simulate(_commands(islice(stream(program, machine, addresses), most)), Configuration.of(machine), timing)


def _commands(words: Iterator[tuple[int, int, int] | None]) -> Iterator[isa.Command]:
    return (isa.Fence() if w is None else isa.decode(*w) for w in words)

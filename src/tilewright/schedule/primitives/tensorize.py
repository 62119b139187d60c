"""tensorize: a loop nest becomes a machine instruction that provably computes the same."""

from __future__ import annotations

from collections.abc import Set
from math import prod
from typing import TYPE_CHECKING

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import TRUE, Const, Expr, Var
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import Call, Kernel, Window
from tilewright.schedule.nest import loop_place, replace_stmt
from tilewright.schedule.primitive import primitive
from tilewright.schedule.region import largest_extent, scope_at
from tilewright.schedule.unify import Match, Mismatch, chain_of, unify
from tilewright.util.errors import ScheduleError

if TYPE_CHECKING:
    from tilewright.hw import Machine
    from tilewright.hw.instruction import Instruction

#: Bytes to which local buffers are aligned; arguments are as the caller passes them.
_ALIGNMENT = 64
_MANTISSA = {("bfloat", 16): 7, ("float", 16): 10, ("float", 32): 23, ("float", 64): 52}


@primitive
def tensorize(kernel: Kernel, loop: str, instruction: str, machine: Machine | None = None) -> tuple[Kernel, tuple[str, ...]]:
    """Replace the nest of ``loop`` by a call of ``instruction`` of the schedule's machine. Returns no names.

    The nest must be perfect, around one store. Its accesses are unified with the instruction's
    body (operands become windows with base and stride); element types, memories, extents and the
    instruction's own requirements are checked. Operands of a cache level may be in any cache or
    main memory. ScheduleError says which of these fails.
    """
    subject = f"tensorize {loop} by {instruction}"
    place = loop_place(kernel, loop, "tensorize")
    if machine is None:
        raise ScheduleError(f"{subject}: the schedule has no machine", hint="Schedule(kernel, machine)")
    instr = machine.instruction(instruction)
    program, body = chain_of(place.node), chain_of(instr.kernel.body)
    if body is None:
        raise ScheduleError(f"{subject}: the instruction's body is not one nest around one store", hint="use a mapping: mapping.lower")
    if program is None:
        raise ScheduleError(
            f"{subject}: the nest is not loops around one store",
            hint="separate statements by fission; remove guards by peeling the tail or by cache_read(padded=True)",
            location=getattr(place.node, "loc", None),
        )
    with scope_at(kernel, place, inside=False) as scope:
        found = unify(scope, program, body, {a.name: a.rule for a in instr.axes})
        if isinstance(found, Mismatch):
            raise ScheduleError(
                f"{subject}: {found.reason}", hint=f"it computes {instr.kernel.body}".rstrip(), location=program.loops[0].loc
            )
        _check_memories(instr, found, machine, subject)
        check_constraints(scope, instr, found, {b.name for b in kernel.args}, subject)
        callee, sizes = instr.sized(found.extents)
        call = Call(callee, sizes, tuple(found.windows[p.name] for p in callee.args), program.loops[0].loc)
    return replace_stmt(kernel, place.node, call), ()


def _check_memories(instr: Instruction, found: Match, machine: Machine, subject: str) -> None:
    for operand in instr.operands:
        if operand.name not in found.windows:
            raise ScheduleError(f"{subject}: the body does not use operand {operand.name}")
        b = found.windows[operand.name].buffer
        transparent = machine.memory(operand.memory).kind in ("cache", "main")
        fits = machine.memory(b.memory).kind in ("cache", "main") if transparent else b.memory == operand.memory
        if not fits:
            raise ScheduleError(
                f"{subject}: operand {operand.name} must be in {operand.memory}, but {b.name} is in {b.memory}",
                hint=f"cache_read or cache_write {b.name} to {operand.memory}",
            )


def check_constraints(scope: Simplifier, instr: Instruction, found: Match, arguments: Set[str], subject: str) -> None:
    """ScheduleError unless every requirement of ``instr`` is proven for the operands ``found``; ``arguments`` lie anywhere."""
    from tilewright.hw.constraint import Mantissa, Require, Tied, ValueRange

    # Along a dimension of one element there are no neighbours: whatever is demanded of their distance holds.
    alone = {f"{name}.stride[{d}]" for name, w in found.windows.items() for d, s in enumerate(w.spans) if s.extent == ex.idx(1)}
    known: dict[str, Expr] = {f"{axis}.extent": n for axis, n in found.extents.items()}
    for name, w in found.windows.items():
        base, strides = _address(scope, w, w.buffer.name in arguments)
        known[f"{name}.base"] = base * w.buffer.dtype.nbytes
        known |= {f"{name}.stride[{d}]": s for d, s in enumerate(strides) if s is not None}
    for c in instr.constraints:
        match c:
            case Require():
                holds = bool(c.variables & alone) or scope.expr(ex.substitute(c.condition, known)) == TRUE
                why = ", ".join(f"{v} = {known.get(v, 'not constant')}" for v in sorted(c.variables))
            case ValueRange():
                dtype = instr.operand(c.operand).dtype
                holds = dtype.is_int and c.lo <= dtype.range[0] and dtype.range[1] <= c.hi
                why = f"{found.windows[c.operand].buffer.name} may hold any {dtype}"
            case Mantissa():
                dtype = instr.operand(c.operand).dtype
                holds = _MANTISSA.get((dtype.kind, dtype.bits), 1 << 30) <= c.bits
                why = f"{found.windows[c.operand].buffer.name} may hold any {dtype}"
            case Tied():
                holds = found.windows[c.a] == found.windows[c.b]
                why = f"they are {found.windows[c.a]} and {found.windows[c.b]}"
        if not holds:
            raise ScheduleError(
                f"{subject}: it demands {c}, which is not proven ({why})", hint="change the layout or the memory of the operand"
            )


def _address(scope: Simplifier, w: Window, argument: bool) -> tuple[Expr, list[Expr | None]]:
    """Address of the window's first element (in elements, from an aligned origin), and the stride of each span."""
    b: Buffer = w.buffer
    lanes = [Var(f"lane {d}") for d in range(len(w.spans))]
    ends = [largest_extent(scope, ex.idx(1), s.extent) for s in w.spans]
    inner = Simplifier({**scope.ranges, **{v.name: (0, n) for v, n in zip(lanes, ends, strict=True)}}, list(scope.facts))
    index = w.element(tuple(lanes))
    physical = b.layout.physical_index(index) if b.layout else index
    shape = b.physical_shape()
    address: Expr = ex.idx(0)
    for d, e in enumerate(physical):
        size = prod((x.value for x in shape[d + 1 :] if isinstance(x, Const)), start=1)
        symbolic = [x for x in shape[d + 1 :] if not isinstance(x, Const)]
        for x in symbolic:
            e = e * x
        address = address + e * int(size)
    linear = inner.linear(address)
    strides: list[Expr | None] = []
    for v in lanes:
        plain = all(v.name not in ex.free_vars(a) for a in linear.terms if a != v)
        strides.append(ex.idx(linear.terms.get(v, 0)) if plain else None)
    start = scope.expr(ex.substitute(address, {v.name: ex.idx(0) for v in lanes}))
    origin = Var(f"{b.name}.address")
    return start + (origin if argument else origin * (_ALIGNMENT // b.dtype.nbytes)), strides

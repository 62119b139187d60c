"""Instructions: one decorated Python function is the semantics, the operands and the axes.

    @instruction(latency=4, per_cycle=2, requires=cpu("avx512f"))
    def fma(c: f32[16] @ "reg", a: f32[()] @ "l1", b: f32[16] @ "reg"):
        j = axes(vector(16))
        c[j] += a[()] * b[j]

The annotations are read, never evaluated as Python: the file must start with
``from __future__ import annotations``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

from tilewright.hw.availability import ALWAYS, Requires
from tilewright.hw.axis import Axis
from tilewright.hw.constraint import Constraint, Require, ValueRange
from tilewright.hw.emit import Emit
from tilewright.hw.footprint import accessed
from tilewright.hw.semantics import read_semantics
from tilewright.hw.state import Need, State
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.simplify import Simplifier
from tilewright.ir.types import DType
from tilewright.util.errors import Location, MachineError

IN, OUT, INOUT = "in", "out", "inout"


@dataclass(frozen=True, slots=True)
class Operand:
    """An operand tile: ``shape`` elements of ``dtype`` in ``memory``; ``role`` is in, out or inout."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    memory: str
    role: str

    @property
    def nbytes(self) -> int:
        """Bytes of the tile, sub-byte elements packed."""
        return -(-prod(self.shape) * self.dtype.bits // 8)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}] @ {self.memory}"


@dataclass(frozen=True)
class Instruction:
    """A machine instruction.

    ``kernel`` is the semantics at the largest extents: its loops are named as ``axes``, its
    arguments as ``operands``. Costs describe the largest extents: ``latency`` in cycles until the result can be used,
    ``per_cycle`` the issues per cycle of one ``unit`` (None: the machine's outermost unit), ``energy`` in picojoules.
    ``sets`` names the state it configures (then it has no axes). ``family`` and ``variant`` identify a member
    of a declaration with ``shapes``. One that ``replaces`` its result reduces to it from nothing: what was there before is lost.
    Operands read along dimensions in ``around`` (operand, dimension) may be asked for before their start and after their end:
    zeros are there.
    """

    name: str
    kernel: st.Kernel
    axes: tuple[Axis, ...]
    operands: tuple[Operand, ...]
    constraints: tuple[Constraint, ...] = ()
    needs: tuple[Need, ...] = ()
    sets: str | None = None
    requires: Requires = ALWAYS
    latency: float = 1.0
    per_cycle: float = 1.0
    energy: float = 0.0
    unit: str | None = None
    emit: Emit | None = None
    family: str | None = None
    variant: tuple[tuple[str, Any], ...] = ()
    note: str = ""
    loc: Location | None = field(default=None, compare=False)
    replaces: bool = False
    around: tuple[tuple[str, int], ...] = ()

    def operand(self, name: str) -> Operand:
        """The operand called ``name``; MachineError if there is none."""
        return _named("operand", name, self.operands, self.name)

    def axis(self, name: str) -> Axis:
        """The axis called ``name``; MachineError if there is none."""
        return _named("axis", name, self.axes, self.name)

    @property
    def extents(self) -> dict[str, int]:
        """Largest extent of each axis, in loop order."""
        return {a.name: a.extent for a in self.axes}

    @property
    def value_ranges(self) -> tuple[ValueRange, ...]:
        return tuple(c for c in self.constraints if isinstance(c, ValueRange))

    @property
    def requirements(self) -> tuple[Require, ...]:
        """Conditions on strides, bases and extents."""
        return tuple(c for c in self.constraints if isinstance(c, Require))

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """Operands that are only read; none where the instruction fills a tile."""
        return tuple(o for o in self.operands if o.role == "in")

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates (or other reduction steps, or elements written) of one issue."""
        return prod(a.extent for a in self.axes)

    @cached_property
    def ops(self) -> int:
        """Arithmetic operations of one issue: what the body's expressions and reductions execute."""
        return self.macs * sum(_arithmetic(s) for s in st.walk(self.kernel.body) if isinstance(s, st.Store))

    def cycles(self, extents: Mapping[str, int] | None = None) -> float:
        """Cycles one issue occupies its unit; axes with upto or step take proportionally less for smaller extents."""
        share = 1.0
        for a in self.axes:
            n = (extents or {}).get(a.name, a.extent)
            if a.rule.rule == "upto":
                share *= n / a.extent
            elif a.rule.rule == "step":
                share *= -(-n // a.rule.multiple) * a.rule.multiple / a.extent
        return share / self.per_cycle

    def kernel_for(self, extents: Mapping[str, int]) -> st.Kernel:
        """The semantics at smaller ``extents`` (axis name -> iterations; others stay largest).

        Operand shapes shrink to the part that is accessed. MachineError if the hardware does not
        accept an extent.
        """
        for name, n in extents.items():
            if not self.axis(name).rule.accepts(n):
                raise MachineError(
                    f"instruction {self.name} cannot run {n} iterations of axis {name}: it accepts {self.axis(name).rule}",
                    hint="pad the iteration to an accepted extent",
                )
        return _shrunk(self.kernel, {**self.extents, **extents})

    def sized(self, extents: Mapping[str, ex.Expr]) -> tuple[st.Kernel, tuple[ex.Expr, ...]]:
        """The semantics for ``extents`` that need not be constants, and the sizes to call it with.

        Every axis whose extent is not a constant becomes a size ``<axis>_n`` of the kernel. MachineError if the hardware
        does not accept a constant extent.
        """
        given = {n: e for n, e in extents.items() if not isinstance(e, ex.Const)}
        kernel = self.kernel_for({n: int(e.value) for n, e in extents.items() if isinstance(e, ex.Const)})
        if not given:
            return kernel, ()
        return _with_sizes(kernel, {n: ex.Var(f"{n}_n") for n in given}), tuple(given.values())

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.operands))})"


@dataclass(frozen=True, slots=True)
class InstructionFamily:
    """The instructions of one declaration with ``shapes``; members are named ``family.m16n16k16``."""

    name: str
    members: tuple[Instruction, ...]


def instruction(
    *,
    name: str | None = None,
    shapes: Sequence[tuple[int, ...] | Mapping[str, Any]] | None = None,
    needs: Need | State | str | Sequence[Need | State | str] = (),
    sets: State | str | None = None,
    requires: Requires | None = None,
    latency: float = 1.0,
    per_cycle: float | Callable[..., float] = 1.0,
    energy: float = 0.0,
    unit: str | None = None,
    emit: Emit | Callable[..., Emit] | None = None,
    note: str = "",
    scope: Mapping[str, Any] | None = None,
    replaces: bool = False,
    around: tuple[tuple[str, int], ...] = (),
) -> Callable[[Callable[..., Any]], Any]:
    """Declares an instruction, or with ``shapes`` a family of them.

    Each of ``shapes`` binds names that annotations and body use: a mapping, or a tuple for m, n, k.
    In a family ``emit`` and ``per_cycle`` may be functions of those names. ``scope`` are local names of the
    annotations (by default those where the decorator is used). MachineError: the declaration cannot be read.
    """

    def declare(fn: Callable[..., Any]) -> Instruction | InstructionFamily:
        local = sys._getframe(1).f_locals if scope is None else scope
        title = name or fn.__name__

        def member(variant: Mapping[str, Any]) -> Instruction:
            s = read_semantics(fn, {**local, **variant}, configures=sets is not None)
            return Instruction(
                name=title + ("." + variant_name(variant) if variant else ""),
                kernel=s.kernel.with_(name=title),
                axes=s.axes,
                operands=tuple(
                    Operand(b.name, b.dtype, b.static_shape, b.memory, _role(s.kernel, b.name, replaces)) for b in s.kernel.args
                ),
                constraints=s.constraints,
                needs=_needs(needs),
                sets=sets.name if isinstance(sets, State) else sets,
                requires=requires or ALWAYS,
                latency=latency,
                per_cycle=per_cycle(**variant) if callable(per_cycle) else per_cycle,
                energy=energy,
                unit=unit,
                emit=emit(**variant) if callable(emit) else emit,
                family=title if variant else None,
                variant=tuple(variant.items()),
                note=note or (fn.__doc__ or "").strip(),
                loc=s.kernel.loc,
                replaces=replaces,
                around=around,
            )

        if shapes is None:
            return member({})
        return InstructionFamily(title, tuple(member(s if isinstance(s, Mapping) else dict(zip("mnk", s, strict=True))) for s in shapes))

    return declare


def variant_name(variant: Mapping[str, Any]) -> str:
    """``m16n8k16`` for numbers, types and words set off by dots: ``m16n8k16.f16.f32``."""
    sizes = "".join(f"{k}{v}" for k, v in variant.items() if isinstance(v, int))
    words = [str(v) for v in variant.values() if not isinstance(v, int)]
    return ".".join([sizes, *words] if sizes else words)


def _needs(given: Need | State | str | Sequence[Need | State | str]) -> tuple[Need, ...]:
    many = (given,) if isinstance(given, (Need, State, str)) else given
    return tuple(n if isinstance(n, Need) else Need(n.name if isinstance(n, State) else n) for n in many)


def _role(k: st.Kernel, name: str, replaces: bool) -> str:
    written, read = name in st.written_buffers(k.body), name in st.read_buffers(k.body)
    return INOUT if written and read and not replaces else OUT if written else IN


def _arithmetic(s: st.Store) -> int:
    nodes = (n for n in ex.walk(s.value) if n.dtype.kind != ty.INDEX)
    return sum(isinstance(n, (ex.Binary, ex.Intrinsic)) for n in nodes) + (s.op is not None)


def _shrunk(k: st.Kernel, extents: Mapping[str, int]) -> st.Kernel:
    def stmt(s: st.Stmt) -> st.Stmt | None:
        return replace(s, hi=ex.idx(extents[s.name])) if isinstance(s, st.For) and s.name in extents else None

    smaller = k.with_(body=st.map_stmts(k.body, stmt))
    reach = accessed(smaller)
    args = {b.name: b.with_(shape=tuple(ex.idx(hi + 1) for _, hi in reach[b.name])) if b.name in reach else b for b in k.args}
    return smaller.with_(args=tuple(args.values()), body=st.replace_buffers(smaller.body, args))


def _with_sizes(k: st.Kernel, sizes: Mapping[str, ex.Var]) -> st.Kernel:
    """``k`` with the loops called as ``sizes`` as long as those, and operands just large enough."""

    def stmt(s: st.Stmt) -> st.Stmt | None:
        return replace(s, hi=sizes[s.name]) if isinstance(s, st.For) and s.name in sizes else None

    last = {f.name: sizes.get(f.name, f.hi) - 1 for f in st.loops(k)}
    scope = Simplifier({v.name: (1, None) for v in sizes.values()})
    args: dict[str, Buffer] = {b.name: b for b in k.args}
    for s in st.walk(k.body):
        used = [(ld.buffer.name, ld.indices) for e in st.own_exprs(s) for ld in ex.loads(e)]
        used += [(s.buffer.name, s.indices)] if isinstance(s, st.Store) else []
        for name, indices in used:
            moving = [ex.free_vars(i) & sizes.keys() for i in indices]
            shape = (scope.expr(ex.substitute(i, last) + 1) if m else n for i, m, n in zip(indices, moving, args[name].shape, strict=True))
            args[name] = args[name].with_(shape=tuple(shape))
    body = st.replace_buffers(st.map_stmts(k.body, stmt), args)
    assert isinstance(body, st.Block)  # the kind of a statement stays
    return k.with_(args=tuple(args.values()), body=body, sizes=tuple(sizes.values()))


def _named(what: str, name: str, items: Sequence[Any], owner: str) -> Any:
    for item in items:
        if item.name == name:
            return item
    raise MachineError(f"instruction {owner} has no {what} {name!r}", hint=f"it has: {', '.join(i.name for i in items) or 'none'}")

"""From a mapping to a program: pack the sources, call the instruction, unpack the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Alloc, Call, If, Kernel, LoopKind, Span, Stmt, Store, Window
from tilewright.mapping.lattice import counterexample
from tilewright.mapping.mapping import Mapping
from tilewright.mapping.operator import REDUCTION, Operator, operator_of
from tilewright.mapping.physical import PackedOperand, Placement, place
from tilewright.mapping.validity import fused_strides
from tilewright.util.errors import MappingError

#: (reduction, arithmetic) where a zero operand leaves the result alone.
_ZERO_ABSORBS = (("+", "*"), ("|", "&"), ("^", "&"))


def lower(m: Mapping, kernel: Kernel, calls: bool = True) -> Kernel:
    """``kernel`` with the nest of ``m`` replaced by pack stages, instruction calls and an unpack stage.

    Without ``calls`` the instruction stays the loop nest it stands for, on packed operands: what a
    schedule then refines and tensorizes (see :func:`steps.schedule_steps`).

    Everything around the nest stays. Integer results are bit-identical to the nest's; float sums
    are reassociated. Raises MappingError if the mapping is not valid, the nest is not in
    ``kernel``, or padding a reduction would change results (an arithmetic that zeros do not absorb).
    """
    if wrong := m.problems():
        raise MappingError(f"{m} cannot be lowered: {'; '.join(wrong)}", hint="find_mappings lists the valid ones")
    op = operator_of(kernel, at=m.op.root)
    if (op.iterations, op.output.rows, op.sources) != (m.op.iterations, m.op.output.rows, m.op.sources):
        raise MappingError(f"the nest at loop {m.op.root} of {kernel.name} is not the one {m} maps", hint="extract the operator again")
    placement = place(m)
    _check_padding(placement)
    stages = _Lowering(placement, kernel, _Names(kernel)).stages(calls)

    def swap(s: Stmt) -> tuple[Stmt, ...] | None:
        return stages if isinstance(s, st.For) and s.name == op.root else None

    body = st.map_stmts(kernel.body, swap)
    return kernel.with_(body=body)


def _check_padding(p: Placement) -> None:
    m = p.mapping
    view = m.target.view
    for t in p.padded_axes:
        if view.iterations[t].kind != REDUCTION:
            continue
        axis = tuple(int(x == t) for x in range(len(view.iterations)))
        masks = any(counterexample(s.rows, (axis,), p.tiles) is None for s in view.sources)
        if not masks or ((view.reduce, view.combine) not in _ZERO_ABSORBS and view.combine is not None):
            raise MappingError(
                f"{m}: axis {m.target.axes[t]} would be padded from {m.fused[m.target.axes[t]]} to {p.tiles[t] * p.trips[t]}, "
                f"and zeros change the result of `{view.reduce}= .. {view.combine} ..`",
                hint="choose a mapping whose fused extent is a multiple of the instruction's",
            )


class _Names:
    """New names, unique in a kernel."""

    def __init__(self, kernel: Kernel):
        self._taken = st.names(kernel)

    def fresh(self, base: str) -> str:
        name, n = base, 1
        while name in self._taken:
            name, n = f"{base}_{n}", n + 1
        self._taken.add(name)
        return name


@dataclass(frozen=True, slots=True)
class _Lowering:
    """One lowering under way: the placement, the kernel it happens in, and the names handed out."""

    placement: Placement
    kernel: Kernel
    names: _Names

    @property
    def _op(self) -> Operator:
        return self.placement.mapping.op

    def stages(self, calls: bool) -> tuple[Stmt, ...]:
        """Allocations, packing, the loop nest of calls, unpacking."""
        output, *sources = self.placement.operands
        arrays = {
            o.hardware.name: buffer(self.names.fresh(f"{o.software.name.rstrip(chr(39))}_packed"), o.dtype, o.shape)
            for o in self.placement.operands
        }
        packed = [s for o in sources for s in self._pack(o, arrays[o.hardware.name])]
        result = arrays[output.hardware.name]
        start = self._fill(result, result.dtype.neutral(self._op.reduce or "+"))
        allocs = [Alloc(b) for b in arrays.values()]
        return (*allocs, *packed, start, self._issues(arrays, calls), self._unpack(output, result))

    # --- index arithmetic ---

    def _point(self, outer: dict[int, Expr], inner: dict[int, Expr], loops: dict[int, Expr]) -> tuple[dict[str, Expr], list[Expr]]:
        """Values of the nest's loop variables, and the conditions under which they lie in its box."""
        p, m = self.placement, self.placement.mapping
        env: dict[str, Expr] = {}
        guards: list[Expr] = []
        values = dict(loops)
        for t, x in inner.items():
            fused = outer[t] * p.tiles[t] + x
            if t in p.padded_axes:
                guards.append(ex.compare("<", fused, ex.idx(m.fused[m.target.axes[t]])))
            strides = fused_strides(self._op.extents, m.groups[t])
            for n, u in enumerate(m.groups[t]):
                digit = fused // strides[u]
                values[u] = digit % self._op.extents[u] if n else digit
        for u, e in values.items():
            f = st.find_loop(self.kernel, self._op.names[u])
            env[f.name] = f.lo + e * f.step
        return env, guards

    def _nest(self, o: PackedOperand) -> tuple[dict[int, Var], dict[int, Var], dict[int, Var], list[tuple[Var, int]]]:
        """Loop variables over a packed array: unassigned iterations, outer trips, inside of the tile."""
        p = self.placement
        axes = p.mapping.target.axes
        loops = {u: Var(self.names.fresh(self._op.names[u])) for u in o.loops}
        outer = {t: Var(self.names.fresh(f"{axes[t]}_outer")) for t in o.axes}
        inner = {t: Var(self.names.fresh(f"{axes[t]}_inner")) for t in o.axes}
        around = [(v, self._op.extents[u]) for u, v in loops.items()]
        around += [(v, p.trips[t]) for t, v in outer.items()] + [(v, p.tiles[t]) for t, v in inner.items()]
        return loops, outer, inner, around

    def _slot(self, o: PackedOperand, array: Buffer, loops: dict[int, Var], outer: dict[int, Var], inner: dict[int, Var]) -> Load:
        """The element of the packed array for instruction point ``inner``."""
        target = self.placement.mapping.target
        point: dict[str, Expr] = {target.axes[t]: v for t, v in inner.items()}
        return array[(*loops.values(), *outer.values(), *target.slot(o.hardware, point))]

    # --- stages ---

    def _pack(self, o: PackedOperand, array: Buffer) -> list[Stmt]:
        """Copies a source into its packed array, zero outside the box.

        A compound index such as ``q + s`` meets some slots several times, always with the same
        element (that is what validity means) but inside and outside the box: there the array is
        cleared first and only what lies inside is written.
        """
        loops, outer, inner, around = self._nest(o)
        env, guards = self._point(dict(outer), dict(inner), dict(loops))
        value = ex.cast(ex.substitute(o.software.expr, env), array.dtype)
        slot = self._slot(o, array, loops, outer, inner)
        absent = array.dtype.neutral(self._op.reduce or "+") if self._op.combine is None else 0
        if _one_to_one(o):
            if guards:
                value = ex.where(_all(guards), value, ex.const(absent, array.dtype))
            return [_loops(around, st.store(slot, value))]
        write: Stmt = st.store(slot, value)
        return [self._fill(array, absent), _loops(around, If(_all(guards), st.block(write)) if guards else write)]

    def _fill(self, array: Buffer, value: int | float) -> Stmt:
        index = [Var(self.names.fresh("z")) for _ in array.shape]
        slot = array[tuple(index)]
        return _loops(list(zip(index, array.static_shape, strict=True)), st.store(slot, ex.const(value, array.dtype)))

    def _issues(self, arrays: dict[str, Buffer], calls: bool) -> Stmt:
        """Loops over unassigned iterations and outer trips, spatial ones outside, around one issue."""
        p, m = self.placement, self.placement.mapping
        loops = {u: Var(self.names.fresh(self._op.names[u])) for u in m.unassigned}
        trips = {t: Var(self.names.fresh(f"{a}_outer")) for t, a in enumerate(m.target.axes)}
        kinds = [(v, self._op.extents[u], self._op.iterations[u].kind) for u, v in loops.items()]
        kinds += [(v, p.trips[t], m.target.view.iterations[t].kind) for t, v in trips.items()]
        around = sorted(kinds, key=lambda k: k[2] == REDUCTION)
        callee = m.target.kernel_for(p.tiles)
        windows = {}
        for o in p.operands:
            place_of = (*(loops[u] for u in o.loops), *(trips[t] for t in o.axes))
            spans = tuple(Span(ex.idx(0), ex.idx(n)) for n in o.tile)
            windows[o.hardware.name] = Window(arrays[o.hardware.name], (*place_of, *spans))
        issue = Call(callee, (), tuple(windows[a.name] for a in callee.args)) if calls else self._inlined(callee, windows)
        return _loops([(v, n) for v, n, _ in around], issue)

    def _inlined(self, callee: Kernel, windows: dict[str, Window]) -> Stmt:
        """The instruction's own nest as serial loops, on the windows it would be called with."""
        fresh = {f.name: Var(self.names.fresh(f"{f.name}_inner")) for f in st.loops(callee)}

        def element(e: Expr) -> Expr | None:
            return Load(windows[e.buffer.name].buffer, windows[e.buffer.name].element(e.indices)) if isinstance(e, Load) else None

        def stmt(s: Stmt) -> Stmt | None:
            if isinstance(s, Store):
                w = windows[s.buffer.name]
                return replace(s, buffer=w.buffer, indices=w.element(s.indices))
            return replace(s, var=fresh[s.name], kind=LoopKind.SERIAL) if isinstance(s, st.For) else None

        body = st.map_exprs(st.substitute(callee.body, fresh), lambda e: ex.transform(e, element))
        return st.map_stmts(body, stmt)

    def _unpack(self, o: PackedOperand, array: Buffer) -> Stmt:
        loops, outer, inner, around = self._nest(o)
        env, guards = self._point(dict(outer), dict(inner), dict(loops))
        target = o.software.expr
        assert isinstance(target, Load)  # the output of an operator is an element of a buffer
        value = ex.cast(self._slot(o, array, loops, outer, inner), target.dtype)
        write: Stmt = Store(target.buffer, tuple(ex.substitute(i, env) for i in target.indices), value, self._op.reduce)
        return _loops(around, If(_all(guards), st.block(write)) if guards else write)


def _one_to_one(o: PackedOperand) -> bool:
    """Whether no two instruction points of one issue share a slot: each slot that is read is packed once."""
    return all(sum(map(bool, r)) == 1 for r in o.hardware.rows)


def _all(guards: Sequence[Expr]) -> Expr:
    out = guards[0]
    for g in guards[1:]:
        out = ex.logical("and", out, g)
    return out


def _loops(around: Sequence[tuple[Var, int]], body: Stmt) -> Stmt:
    """``body`` in loops from 0, outermost first; a loop of one trip is its body."""
    for v, n in reversed(around):
        body = st.loop(v.name, 0, n, body) if n != 1 else st.substitute(body, {v.name: ex.idx(0)})
    return body


__all__ = ["lower"]

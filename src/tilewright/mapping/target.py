"""The instruction side of a mapping: the same operator view, plus what the hardware accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tilewright.hw.instruction import Instruction
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, Load
from tilewright.ir.stmt import Kernel
from tilewright.mapping.lattice import counterexample
from tilewright.mapping.operator import Iteration, Operand, Operator, Row, operator_of, plain
from tilewright.util.errors import MappingError


@dataclass(frozen=True, slots=True)
class Target:
    """An instruction to map onto: ``view`` is its semantics, rows of its operands index its tiles.

    ``parts[t]`` names the loops of the semantics that axis t stands for, outermost first: one, or
    several that always move together and may count on in one fused index (the 16 x 4 reduction of
    an AMX tile product is also one reduction of 64).
    """

    name: str
    view: Operator
    parts: tuple[tuple[str, ...], ...]
    declaration: Instruction | None = field(default=None, compare=False)

    @property
    def axes(self) -> tuple[str, ...]:
        return self.view.names

    def tile_extent(self, axis: str, fused: int) -> int:
        """Iterations of ``axis`` one issue should do when ``fused`` are wanted in all.

        Fixed axes do their extent. Where hardware accepts fewer, the trips share the work evenly,
        so that at most one element for each trip is padding.
        """
        t = self.view.column(axis)
        largest = self.view.extents[t]
        if self.declaration is None:
            return largest
        outer = self.declaration.axis(self.parts[t][0])
        inside = largest // outer.extent  # iterations of the parts that count faster: always full
        wanted = -(-fused // inside)
        even = -(-wanted // max(-(-wanted // outer.extent), 1))
        if outer.rule.rule == "step":
            even = -(-even // outer.rule.multiple) * outer.rule.multiple
        return even * inside if outer.rule.accepts(even) else largest

    def kernel_for(self, tiles: Sequence[int]) -> Kernel:
        """The semantics when one issue does ``tiles[t]`` iterations of axis t."""
        if self.declaration is None:
            return self.view.kernel
        wanted = {}
        for names, n, axis in zip(self.parts, tiles, self.view.iterations, strict=True):
            if n != axis.extent:
                wanted[names[0]] = n * self.declaration.axis(names[0]).extent // axis.extent
        return self.declaration.kernel_for(wanted) if wanted else self.view.kernel

    def slot(self, operand: Operand, point: Mapping[str, Expr]) -> tuple[Expr, ...]:
        """Indices in the operand's tile at the instruction point ``point`` (by axis)."""
        env: dict[str, Expr] = {}
        for axis, names in zip(self.axes, self.parts, strict=True):
            if axis not in point:
                continue
            loops = [st.find_loop(self.view.kernel, n) for n in names]
            extents = [int(ex.evaluate(f.extent, {})) for f in loops]
            for n, f in enumerate(loops):
                digit = point[axis] // prod(extents[n + 1 :])
                env[f.name] = f.lo + (digit % extents[n] if n else digit) * f.step
        tile = plain(operand.expr)
        assert isinstance(tile, Load)  # target_of admits nothing else
        return tuple(ex.substitute(i, env) for i in tile.indices)


def target_of(instruction: Instruction | Kernel | Target) -> Target:
    """The target that ``instruction`` (or a kernel of its semantics) declares.

    Raises MappingError unless its body is one perfect nest whose sources are loads of operands.
    """
    if isinstance(instruction, Target):
        return instruction
    declared = instruction if isinstance(instruction, Instruction) else None
    kernel = instruction.kernel if isinstance(instruction, Instruction) else instruction
    view = operator_of(kernel)
    for s in view.sources:
        if not isinstance(plain(s.expr), Load) or len(ex.loads(s.expr)) != 1:
            raise MappingError(
                f"instruction {kernel.name}: {s.expr} is not a plain operand",
                hint="a mappable body is `c[..] += a[..] * b[..]`: products or sums of operands",
            )
    view = replace(view, output=_resolved(view, view.output), sources=tuple(_resolved(view, s) for s in view.sources))
    return Target(declared.name if declared else kernel.name, view, tuple((n,) for n in view.names), declared)


def variants(target: Target) -> tuple[Target, ...]:
    """``target``, and the same instruction with axes that always move together seen as one."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for t, axis in enumerate(target.view.iterations):
        own = all(_unit(len(target.axes), t) in o.rows or not o.uses(t) for o in target.view.operands)
        key = (axis.kind, *(o.uses(t) for o in target.view.operands)) if own else (t,)
        groups.setdefault(key, []).append(t)
    if len(groups) == len(target.axes):
        return (target,)
    return target, _merged(target, list(groups.values()))


def _merged(target: Target, groups: Sequence[Sequence[int]]) -> Target:
    view = target.view
    iterations = tuple(
        Iteration("_".join(view.names[t] for t in g), prod(view.extents[t] for t in g), view.iterations[g[0]].kind) for g in groups
    )

    def operand(o: Operand) -> Operand:
        rows = dict.fromkeys(tuple(max((r[t] for t in g), key=abs) for g in groups) for r in o.rows)
        return replace(o, rows=tuple(rows))

    merged = replace(view, iterations=iterations, output=operand(view.output), sources=tuple(map(operand, view.sources)))
    parts = tuple(tuple(p for t in g for p in target.parts[t]) for g in groups)
    return replace(target, view=merged, parts=parts)


def _resolved(view: Operator, operand: Operand) -> Operand:
    """``operand`` with a row of its own for every axis its address determines inside one tile.

    ``b[k, 4*j + l]`` with l < 4 says as much as ``b[k, j, l]``: what one issue cannot confuse is
    not compound, however long the fused iterations are.
    """
    n = len(view.iterations)
    known = [t for t in range(n) if operand.uses(t) and counterexample(operand.rows, (_unit(n, t),), view.extents) is None]
    rest = (tuple(0 if t in known else c for t, c in enumerate(r)) for r in operand.rows)
    return replace(operand, rows=(*(_unit(n, t) for t in known), *dict.fromkeys(r for r in rest if any(r))))


def _unit(n: int, t: int) -> Row:
    return tuple(int(x == t) for x in range(n))

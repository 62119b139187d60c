"""A mapping: which iterations of an operator ride on which axes of an instruction."""

from __future__ import annotations

import re
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tilewright.hw.instruction import Instruction
from tilewright.ir.stmt import Kernel
from tilewright.mapping import validity
from tilewright.mapping.arithmetic import Binding, Ranges, bindings, operation_problem, type_problems
from tilewright.mapping.operator import Operator
from tilewright.mapping.reasons import violation_text
from tilewright.mapping.target import Target, target_of, variants
from tilewright.mapping.validity import Groups
from tilewright.util.errors import MappingError

if TYPE_CHECKING:
    from tilewright.hw.machine import Machine
    from tilewright.mapping.physical import Placement
    from tilewright.mapping.steps import Step

_AXIS = re.compile(r"(\w+)\s*<-\s*(\w+(?:\s*\*\s*\w+)*)")
_ORDER = re.compile(r"\[([^\]]*)\]\s*$")


@dataclass(frozen=True, slots=True)
class Mapping:
    """``groups[t]`` are the columns of ``op.iterations`` fused into axis t, slowest first (none: one trip).

    ``binding[n]`` is the source of the operator that the instruction's source n takes. Iterations
    in no group stay loops around the instruction. ``ranges`` are the value bounds (operand, low,
    high) that the mapping relies on.
    """

    op: Operator
    target: Target
    groups: Groups
    binding: Binding
    ranges: tuple[tuple[str, int, int], ...] = ()

    def __str__(self) -> str:
        """``i<-n*p*q  j<-k  k<-c*r*s``, with the operand order where it is not the declared one."""
        parts = [f"{t}<-{'*'.join(self.op.names[u] for u in g) or '1'}" for t, g in zip(self.target.axes, self.groups, strict=True)]
        if self.binding != tuple(range(len(self.binding))):
            taken = zip(self.target.view.sources, (self.op.sources[b] for b in self.binding), strict=True)
            parts.append(f"[{', '.join(f'{slot.name}={soft.name}' for slot, soft in taken)}]")
        return "  ".join(parts)

    @property
    def unassigned(self) -> tuple[int, ...]:
        """Columns of the iterations that stay loops."""
        used = {u for g in self.groups for u in g}
        return tuple(u for u in range(len(self.op.iterations)) if u not in used)

    @property
    def fused(self) -> dict[str, int]:
        """Extent of the fused index of every instruction axis."""
        return dict(zip(self.target.axes, validity.fused_extents(self.op, self.groups), strict=True))

    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boolean access matrices X, Y, Z: see :func:`validity.matrices`."""
        return validity.matrices(self.op, self.target.view, self.groups, self.binding)

    def check(self) -> bool:
        """Whether every slot holds one element and every result one slot (exact)."""
        return next(iter(self._structure()), None) is None

    def boolean_check(self) -> bool:
        """The published test ``Z.Y == X and X.Y^T == Z``."""
        return validity.boolean_test(self.op, self.target.view, self.groups, self.binding)

    def problems(self) -> list[str]:
        """Every reason why the instruction would not compute the operator; [] if it does."""
        if wrong := operation_problem(self.op, self.target):
            return [wrong]
        ranges = {name: (lo, hi) for name, lo, hi in self.ranges}
        return [*self._structure(), *type_problems(self.op, self.target, self.binding, ranges)]

    def _structure(self) -> list[str]:
        kinds = [
            f"{self.op.names[u]} is a {self.op.iterations[u].kind} iteration, axis {axis.name} is a {axis.kind} axis"
            for axis, g in zip(self.target.view.iterations, self.groups, strict=True)
            for u in g
            if self.op.iterations[u].kind != axis.kind
        ]
        found = validity.violations(self.op, self.target.view, self.groups, self.binding)
        return kinds or [violation_text(self.op, self.target, self.groups, v) for v in found]

    def explain(self) -> str:
        """The fused index of every axis and what stays outside; or why the mapping is wrong."""
        if wrong := self.problems():
            return "\n".join([f"{self} is not valid:", *(f"  - {w}" for w in wrong)])
        lines = [f"{self}"]
        for axis, g in zip(self.target.view.iterations, self.groups, strict=True):
            strides = validity.fused_strides(self.op.extents, g)
            form = " + ".join(f"{self.op.names[u]}*{strides[u]}" if strides[u] > 1 else self.op.names[u] for u in g)
            lines.append(f"  {axis.name} = ({form or '0'}) mod {axis.extent}")
        outside = ", ".join(f"{self.op.names[u]} ({self.op.iterations[u].kind})" for u in self.unassigned)
        lines.append(f"  loops around the instruction: {outside or 'none'}")
        for soft, hard in validity.pairs(self.op, self.target.view, self.binding):
            lines.append(f"  {hard.expr} holds {soft.expr}")
        return "\n".join(lines)

    def physical(self) -> Placement:
        """Tiles, padding, packed operands and their cost for the operator's extents."""
        from tilewright.mapping.physical import place

        return place(self)

    def lower(self, kernel: Kernel | None = None, *, calls: bool = True) -> Kernel:
        """``kernel`` (default: the operator's) with the nest replaced by pack, instruction calls, unpack.

        See :func:`lowering.lower`; without ``calls`` the tile stays a loop nest for :meth:`steps`.
        """
        from tilewright.mapping.lowering import lower

        return lower(self, kernel or self.op.kernel, calls)

    def steps(self, machine: Machine, kernel: Kernel | None = None) -> list[Step]:
        """Schedule steps that turn ``lower(kernel, calls=False)`` into instructions on ``machine``: plain data.

        See :func:`steps.schedule_steps`.
        """
        from tilewright.mapping.steps import schedule_steps

        return schedule_steps(self, machine, kernel or self.op.kernel)


def parse_mapping(op: Operator, instruction: Instruction | Kernel | Target, text: str, *, ranges: Ranges | None = None) -> Mapping:
    """The mapping written as ``i<-n*p*q  j<-k  k<-c*r*s`` (``1``: the axis takes nothing).

    Without an operand order in brackets the first order that makes the mapping valid is taken.
    ``ranges`` are proven value bounds by operand name. Structure is checked (unknown, repeated,
    missing names raise MappingError), validity is not.
    """
    order = _ORDER.search(text)
    body = text[: order.start()] if order else text
    left = _AXIS.sub("", body).replace(",", " ").strip()
    if left:
        raise MappingError(f"mapping {text!r}: cannot read {left!r}", hint='write like "i<-n*p*q  j<-k  k<-c*r*s"')
    named = {m[1]: tuple(x.strip() for x in m[2].split("*")) for m in _AXIS.finditer(body)}
    views = variants(target_of(instruction))
    target = next((v for v in views if set(v.axes) == set(named)), views[0])
    _check_names(op, target, text, named)
    groups = tuple(() if named[t] == ("1",) else tuple(op.column(x) for x in named[t]) for t in target.axes)
    if operation_problem(op, target):
        raise MappingError(f"mapping {text!r}: {operation_problem(op, target)}")
    orders = [_read_order(op, target, text, order[1])] if order else bindings(op)
    candidates = [Mapping(op, target, groups, b, known_ranges(ranges)) for b in orders]
    return next((m for m in candidates if m.check()), candidates[0])


def _check_names(op: Operator, target: Target, text: str, named: ReadOnly[str, tuple[str, ...]]) -> None:
    if set(named) != set(target.axes):
        raise MappingError(
            f"mapping {text!r} gives axes {', '.join(named) or 'none'}; {target.name} has {', '.join(target.axes)}",
            hint="every axis takes at least one iteration, or 1",
        )
    taken: list[str] = []
    for names in named.values():
        for x in names if names != ("1",) else ():
            op.column(x)
            if x in taken:
                raise MappingError(f"mapping {text!r} uses iteration {x} twice", hint="an iteration rides on one axis or stays a loop")
            taken.append(x)


def _read_order(op: Operator, target: Target, text: str, order: str) -> Binding:
    given = dict(part.replace(" ", "").split("=", 1) for part in order.split(",") if "=" in part)
    names = [s.name for s in op.sources]
    binding = tuple(names.index(given[s.name]) for s in target.view.sources if given.get(s.name) in names)
    if binding not in set(bindings(op)):
        slots = ", ".join(s.name for s in target.view.sources)
        raise MappingError(f"mapping {text!r}: [{order}] does not give {slots} each one of {', '.join(names)}")
    return binding


def explain(op: Operator, instruction: Instruction | Kernel | Target, text: str | None = None, *, ranges: Ranges | None = None) -> str:
    """Why the candidate ``text`` fails, one line for each reason; or what a valid one does.

    Without ``text``: which iterations could ride on every axis, and why the others could not.
    """
    target = target_of(instruction)
    if wrong := operation_problem(op, target):
        return f"{text or op.name} is not valid:\n  - {wrong}"
    if text is not None:
        return parse_mapping(op, target, text, ranges=ranges).explain()
    binding = max(bindings(op), key=lambda b: sum(any(_riders(op, target, b, t)) for t in range(len(target.axes))))
    lines = [f"{op.name} onto {target.name}", *(f"  - {w}" for w in type_problems(op, target, binding, ranges or {}))]
    for t, axis in enumerate(target.view.iterations):
        fits = _riders(op, target, binding, t)
        lines.append(f"  {axis.kind} axis {axis.name}: {', '.join(n for n, f in zip(op.names, fits, strict=True) if f) or 'no iteration'}")
        for u, i in enumerate(op.iterations):
            if i.kind == axis.kind and not fits[u]:
                alone = tuple((u,) if x == t else () for x in range(len(target.axes)))
                lines += [f"    not {i.name}: {why}" for why in Mapping(op, target, alone, binding).problems()[:1]]
    return "\n".join(lines)


def _riders(op: Operator, target: Target, binding: Binding, t: int) -> list[bool]:
    return [validity.fits_alone(op, target.view, binding, u, t) for u in range(len(op.iterations))]


def known_ranges(ranges: Ranges | None) -> tuple[tuple[str, int, int], ...]:
    """Value bounds as the data a mapping keeps."""
    return tuple((name, lo, hi) for name, (lo, hi) in (ranges or {}).items())

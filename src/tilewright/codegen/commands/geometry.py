"""What the axes of an instruction say about the extents of its operands, for the verifier of command programs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tilewright.hw import Instruction
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Compare, Var

#: How variables of conditions that are extents of axes end.
_EXTENT = ".extent"


@lru_cache(maxsize=256)
def walks(i: Instruction) -> dict[str, tuple[str | None, ...]]:
    """The axis that walks each dimension of an operand; None for what is no axis alone."""
    out: dict[str, tuple[str | None, ...]] = {}
    for s in st.walk(i.kernel.body):
        accesses = [(ld.buffer.name, ld.indices) for e in st.own_exprs(s) for ld in ex.loads(e)]
        accesses += [(s.buffer.name, s.indices)] if isinstance(s, st.Store) else []
        for name, indices in accesses:
            out.setdefault(name, tuple(e.name if isinstance(e, ex.Var) else None for e in indices))
    return {n: axes for n, axes in out.items() if axes}


def walked(i: Instruction, name: str, settings: Mapping[str, int], rows: int) -> int:
    """Rows of an operand: what is set for the axis that walks them, else ``rows``."""
    axes = walks(i).get(name, ())
    return settings.get(f"{axes[-2]}.extent", rows) if len(axes) > 1 else rows


def windows_problem(i: Instruction, name: str, tile: tuple[int, int, int], settings: Mapping[str, int]) -> tuple[str, str] | None:
    """What is wrong with the windows of an image that an operand is (rule and way out); None for operands of rows and columns.

    Its lines are an image, row by row, of which state has the extents. Outside it are zeros, of which a window may have some.
    """
    operand = i.operand(name)
    if len(operand.shape) < 3:
        return None
    inside = settings.get(f"{name}.inside0", 1), settings.get(f"{name}.pitch", 1)
    before = tuple(settings.get(f"{name}.before{d}", 0) for d in (0, 1))
    extents = _extents(i, settings)
    wrong = next((a for a, n in extents.items() if not i.axis(a).rule.accepts(n)), None)
    if wrong is not None:
        return f"axis {wrong} has {extents[wrong]} iterations, it takes {i.axis(wrong).rule}", "cut it, or pad it"
    reach = _reach(i, name, extents)
    window = next(
        b.static_shape
        for b in i.kernel_for({a.name: 1 if not a.is_reduction else extents.get(a.name, 1) for a in i.axes}).args
        if b.name == name
    )
    if tile[1] > inside[0] * inside[1] or tile[1] <= (inside[0] - 1) * inside[1]:
        return f"its {tile[1]} lines are not {inside[0]} rows of {inside[1]} pixels", "name the lines that state tells of"
    for d in (0, 1):
        after = int(reach[d] or 0) - before[d] - inside[d]
        beyond = max(before[d], after)
        if beyond > 0 and (name, d) not in i.around:
            return (
                f"its windows reach {beyond} pixels over the edges of the image along dimension {d}, where {i.name} has no zeros",
                "cut them off",
            )
        if beyond >= int(window[d] or 0):
            return (
                f"a window of {window[d]} pixels lies outside the image, {beyond} pixels over its edge",
                "set smaller pads, or more pixels",
            )
    return None


def lines_read(i: Instruction, name: str, rows: int, settings: Mapping[str, int]) -> NDArray[np.bool_]:
    """Which of the ``rows`` lines of an operand are read: of an image, those that its windows reach."""
    if len(i.operand(name).shape) < 3:
        return np.ones(rows, np.bool_)
    pitch, reach = settings.get(f"{name}.pitch", 1), _reach(i, name, _extents(i, settings))
    used = [int(reach[d] or 0) - settings.get(f"{name}.before{d}", 0) for d in (0, 1)]
    line = np.arange(rows)
    inside: NDArray[np.bool_] = (line // pitch < used[0]) & (line % pitch < used[1])
    return inside


def _extents(i: Instruction, settings: Mapping[str, int]) -> dict[str, int]:
    """The iterations of axes that are set, or that equal those of others."""
    out = {a.name: settings[f"{a.name}.extent"] for a in i.axes if f"{a.name}.extent" in settings}
    return out | {a.name: out[b] for a in i.axes for b in equal(i, a.name) if a.name not in out and b in out}


def _reach(i: Instruction, name: str, extents: Mapping[str, int]) -> tuple[int | None, ...]:
    """Elements that the windows of an operand span along its dimensions, zeros around them too."""
    return next(b.static_shape for b in i.kernel_for(dict(extents)).args if b.name == name)


def equal(i: Instruction, axis: str) -> list[str]:
    """Axes that an instruction demands to be as long as ``axis``: ``require(extent(r) == extent(s))``, and no other condition."""
    out = []
    for r in i.requirements:
        match r.condition:
            case Compare(op="==", a=Var(name=a), b=Var(name=b)) if a.endswith(_EXTENT) and b.endswith(_EXTENT):
                pair = [a.removesuffix(_EXTENT), b.removesuffix(_EXTENT)]
                out += [n for n in pair if axis in pair and n != axis]
    return out

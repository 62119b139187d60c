"""What reduces windows of a contraction's result (a pool after a convolution) on the result's way out, block by block.

Windows of neighbouring blocks may overlap: then both blocks compute what they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.expr import Expr, Var, compare
from tilewright.ir.simplify import Simplifier
from tilewright.schedule.guards import started
from tilewright.schedule.schedule import Schedule
from tilewright.schedule.unify import chain_of
from tilewright.space.blocks import Walk
from tilewright.space.stages import Stage, stages
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Windowed:
    """A nest that reduces windows of the result, and the one before it that starts it.

    ``loops`` are the nest's loops by those of the contraction (none where there is but one window), ``steps`` how many results lie
    between windows along each of these, and how many are in one.
    """

    start: Stage
    nest: Stage
    loops: Mapping[str, str]
    steps: Mapping[str, tuple[int, int]]

    def block(self, loop: str, held: int, extent: int) -> int:
        """Windows in a block of ``held`` of the ``extent`` results along a loop of the contraction."""
        step, size = self.steps[loop]
        return self.nest.loops[self.loops[loop]] if held >= extent else (held - size) // step + 1

    def whole(self) -> list[str]:
        """Loops of the contraction that blocks do not cut: of those that windows go along, all but the outermost.

        Transfers see images as lines that follow each other.
        """
        walked = [n for n, way in self.steps.items() if way != (1, 1)]
        return [n for n in walked if n not in walked[:1] or n not in self.loops]

    def walked(self, walks: Mapping[str, Walk]) -> dict[str, Walk]:
        """``walks`` that know of the windows along them."""
        moved = {n: (self.nest.loops[self.loops[n]], *way) for n, way in self.steps.items() if n in self.loops and way != (1, 1)}
        return {n: replace(w, windows=moved.get(n)) for n, w in walks.items()}

    def fits(self, walks: Mapping[str, Walk]) -> list[Expr]:
        """Conditions on the knobs: a block holds a window, and whole rows of an image."""
        out = []
        for n, (_, size) in self.steps.items():
            extent = ex.idx(walks[n].extent)
            least = extent if n in self.whole() else ex.idx(min(size, walks[n].extent))
            if least != ex.idx(1):
                out.append(compare(">=", walks[n].held, least))
        return out


def folded(sch: Schedule, name: str) -> Windowed:
    """The windows that a kernel reduces the contraction ``name`` to, read from the sums themselves: what is between is inlined.

    ScheduleError where the kernel does anything else with them.
    """
    while True:
        readers = [s for s in stages(sch.kernel) if name in s.inputs()]
        if len(readers) != 1 or readers[0].opaque:
            raise ScheduleError(f"{name}: it is not read by one nest")
        nest = readers[0]
        if nest.is_reduction:
            break
        sch.inline(nest.output.name)
    return _windowed(sch.kernel, name, nest)


def _windowed(kernel: st.Kernel, name: str, nest: Stage) -> Windowed:
    every = stages(kernel)
    made = next(s for s in every if s.is_reduction and s.output.name == name)
    before = [s for s in every if s.output.name == nest.output.name and s.root is not nest.root] if not any(s.opaque for s in every) else []
    assert nest.store is not None  # it is a reduction
    reads = [ld for ld in ex.loads(nest.store.value) if ld.buffer.name == name]
    if len(before) != 1 or len(reads) != 1 or started(chain_of(before[0].root), chain_of(nest.root)) is None:
        raise ScheduleError(f"{name}: what reads it does not reduce windows of it from nothing")
    loops: dict[str, str] = {}
    steps: dict[str, tuple[int, int]] = {}
    for mine, theirs in zip(made.target().indices, reads[0].indices, strict=True):
        if mine == theirs and not isinstance(mine, Var):
            continue
        way = _way(nest, theirs)
        if not isinstance(mine, Var) or way is None:
            raise ScheduleError(f"{name}: windows do not move along {mine} by one loop ({theirs})")
        loop, step, span = way
        if step > span:
            raise ScheduleError(f"{name}: windows skip some of it along {mine}")
        steps[mine.name] = step, span
        if loop is not None:
            loops[mine.name] = loop
    if sorted(loops.values()) != sorted(nest.spatial):
        raise ScheduleError(f"{name}: some of the loops over {nest.output.name} move no window")
    return Windowed(before[0], nest, loops, steps)


def _way(nest: Stage, index: Expr) -> tuple[str | None, int, int] | None:
    """The loop that moves a window along a dimension, by how many elements, and how many the window spans.

    Without such a loop there is one window.
    """
    form = Simplifier({n: (0, e - 1) for n, e in nest.loops.items()}).linear(index)
    moving = {v.name: c for v, c in form.terms.items() if isinstance(v, Var)}
    spatial = [n for n in moving if n in nest.spatial]
    inner = [n for n in moving if n in nest.reduction]
    if len(moving) < len(form.terms) or len(spatial) > 1 or len(inner) > 1 or min(moving.values(), default=1) < 1:
        return None
    span = 1 + sum((nest.loops[n] - 1) * moving[n] for n in inner)
    return (spatial[0], moving[spatial[0]], span) if spatial else (None, span, span)


def blocks(sch: Schedule, w: Windowed, walks: Mapping[str, Walk], held: Mapping[str, int], order: Sequence[str]) -> dict[str, str]:
    """Cuts both nests of ``w`` into blocks of which each needs at most ``held`` results.

    Returns the loops over blocks by those of the contraction.
    """
    first, second = list(w.start.loops), list(w.nest.loops)
    partner = dict(zip((n for n in second if n not in w.nest.reduction), first, strict=True))
    cut: dict[str, tuple[str, str]] = {}
    inside = {n: n for n in (*first, *second)}
    sizes = {n: w.block(n, held[n], walks[n].extent) for n in order if n in w.loops}
    several = [n for n, size in sizes.items() if size < w.nest.loops[w.loops[n]]]
    # With one block for all there is still a loop in which just what windows read is computed.
    for n in several or list(sizes)[:1]:
        loop, size = w.loops[n], sizes[n]
        (a, inside[partner[loop]]), (b, inside[loop]) = (sch.split(x, size, "clip") for x in (partner[loop], loop))
        cut[n] = a, b
    if cut:
        for nest, outer in ((first, [a for a, _ in cut.values()]), (second, [b for _, b in cut.values()])):
            sch.reorder(*outer, *(inside[n] for n in nest))
        for a, b in cut.values():
            sch.merge(a, b)
    return {n: a for n, (a, _) in cut.items()}

"""Bringing a kernel into the form that rules expect, before any choice is made.

Loops of one iteration go, nests become perfect where they can, element-wise producers are inlined,
divided loops are split, loops that walk memory are innermost where no rule fits, and local buffers take the layouts of
the arguments beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

from tilewright.hw import Machine
from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.expr import Binary, Const, Expr, Var
from tilewright.ir.stmt import Kernel
from tilewright.schedule.schedule import Schedule
from tilewright.space import normal
from tilewright.space.attempts import Attempts
from tilewright.space.rules import unmatched
from tilewright.space.stages import Stage, stages
from tilewright.space.strides import Access, access


def prepared(kernel: Kernel, machine: Machine) -> Attempts:
    """``kernel`` in the form that rules expect."""
    tries = Attempts(Schedule(kernel, machine))
    sch = tries.sch
    sch.simplify(keep_loops=False)
    tries.attempt("separating nests", partial(normal.separate_nests, sch))
    tries.attempt("accumulating", partial(normal.accumulate_apart, sch))
    tries.attempt("inlining", partial(inline_pointwise, sch))
    tries.attempt("splitting", partial(split_divided, sch))
    if machine.vector_bits:
        unmatched.arrange(tries)
    spread_layouts(sch)
    return tries


def inline_pointwise(sch: Schedule) -> None:
    """Local element-wise results that are read once for each element are computed where they are read."""
    for b in st.allocated(sch.kernel):
        every = stages(sch.kernel)
        writers = [s for s in every if b.name in st.written_buffers(s.root)]
        readers = [s for s in every if b.name in st.read_buffers(s.root)]
        if len(writers) == 1 and len(readers) == 1 and _reads_once(readers[0], writers[0], b):
            sch.inline(b.name)


def split_divided(sch: Schedule) -> None:
    """Loops that indices divide by a constant (``k // 32``, ``k % 32``) become two loops, and the indices affine."""
    for s in stages(sch.kernel):
        for loop, factor in _divisors(s).items():
            sch.split(loop, factor)
    sch.simplify(keep_loops=False)


def spread_layouts(sch: Schedule) -> None:
    """Local buffers take the layout of the arguments they are computed from or into."""
    layouts = {b.name: b.layout for b in sch.kernel.args if b.layout is not None}
    todo = [b for b in st.allocated(sch.kernel) if b.layout is None and b.rank > 1]
    every = stages(sch.kernel)
    while True:
        found = next(((b, layout) for b in todo for s in every if (layout := _beside(s, b, layouts)) is not None), None)
        if found is None:
            return
        b, layout = found
        sch.layout(b.name, str(layout))
        layouts[b.name] = layout
        todo.remove(b)


def _reads_once(reader: Stage, writer: Stage, b: Buffer) -> bool:
    """Whether ``writer`` is element-wise and ``reader`` loads every element of ``b`` in exactly one iteration."""
    if writer.store is None or reader.store is None or writer.store.op is not None or writer.is_init:
        return False
    loads = [ld for ld in ex.loads(reader.store.value) if ld.buffer.name == b.name]
    plain = all(isinstance(i, Var) for i in (*writer.store.indices, *(i for ld in loads for i in ld.indices)))
    return len(loads) == 1 and plain and writer.volume == reader.volume == prod(b.static_shape)


def _divisors(s: Stage) -> dict[str, int]:
    """Loops of the stage whose variable is divided by a constant that divides the extent.

    Not those that walk the result of a reduction: its tiles follow one loop in each dimension.
    """
    out: dict[str, int] = {}
    splittable = s.loops.keys() - (set(s.spatial) if s.is_reduction else set())
    for a in [] if s.store is None else [s.store.indices, *(ld.indices for ld in ex.loads(s.store.value))]:
        for e in (n for i in a for n in ex.walk(i)):
            if isinstance(e, Binary) and e.op in ("//", "%") and isinstance(e.a, Var) and isinstance(e.b, Const) and e.a.name in splittable:
                factor = int(e.b.value)
                if 1 < factor < s.loops[e.a.name] and s.loops[e.a.name] % factor == 0:
                    out.setdefault(e.a.name, factor)
    return out


def _beside(s: Stage, b: Buffer, layouts: Mapping[str, Layout]) -> Layout | None:
    """How ``b`` lies as the first of the buffers with layouts that the stage uses together with it."""
    if s.opaque or s.store is None:
        return None
    used = [(s.output, s.store.indices), *((ld.buffer, ld.indices) for ld in ex.loads(s.store.value))]
    mine = next((indices for u, indices in used if u.name == b.name), None)
    if mine is None:
        return None
    others = ((u.with_(layout=layouts[u.name]), indices) for u, indices in used if u.name != b.name and u.name in layouts)
    found = (u.layout if u.rank == b.rank else _walked(mine, access(u, indices, s.loops)) for u, indices in others)
    return next((layout for layout in found if layout is not None), None)


def _walked(mine: Sequence[Expr], other: Access) -> Layout | None:
    """The order of dimensions in which ``mine``, one loop each, walks memory as ``other`` does: several loops may walk one dimension
    of that. None where the two use different loops.
    """
    loops = {e.name: d for d, e in enumerate(mine) if isinstance(e, Var)}
    fixed = [d for d, e in enumerate(mine) if isinstance(e, Const)]
    strides = {n: abs(step) for n, step in other.strides.items() if step}
    if len(loops) + len(fixed) != len(mine) or loops.keys() != strides.keys():
        return None
    return Layout(tuple((d, 1) for d in (*fixed, *(loops[n] for n in sorted(loops, key=lambda n: -strides[n])))))

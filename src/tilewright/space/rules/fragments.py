"""Epilogues on fragments: what takes the result of a product element by element runs on the registers that an instruction sums in.

A mapped contraction leaves its result packed in tiles of the instruction, and a nest that unpacks it. Where the tiles divide the
result, the element-wise nest that follows is brought into the order of the tiles, and a block of the packed result is computed
inside it: it stays in registers from its first value on, and only what is made of it is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tilewright.hw import Memory
from tilewright.hw.memory import REGISTER
from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr, Load, Var
from tilewright.ir.stmt import Kernel, LoopKind, Stmt, Store, substitute
from tilewright.schedule.schedule import Schedule
from tilewright.space.levels import wrap
from tilewright.space.rules import writeback
from tilewright.space.rules.contraction import dimension_loops
from tilewright.space.stages import Stage, stages


@dataclass(frozen=True, slots=True)
class Taken:
    """How the element-wise nest ``stage`` takes a packed result.

    ``result`` is the array of the program, ``packed`` its tiles, ``unpacking`` the nest between them, ``inits`` the nests that give both
    their first values. ``dims`` has for each of the result's dimensions the loop of ``stage`` and the dimensions of ``packed``
    that it walks, outermost first (one, or blocks and elements of a block).
    """

    stage: Stage
    result: Buffer
    packed: Buffer
    unpacking: Stage
    inits: tuple[Stage, ...]
    dims: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def roots(self) -> frozenset[str]:
        """The outermost loops of all nests that are no more where fragments are consumed."""
        return frozenset(s.name for s in (self.stage, self.unpacking, *self.inits))

    @property
    def spread(self) -> tuple[str, ...]:
        """Loops over which elements of the result are used repeatedly."""
        walked = {n for n, _ in self.dims}
        return tuple(n for n in self.stage.loops if n not in walked)

    def inner(self, loops: Mapping[int, str]) -> list[str]:
        """Of ``loops`` by dimensions of the packed result those inside blocks, and the loops over which elements are used repeatedly."""
        return [*self.spread, *(loops[ds[1]] for _, ds in self.dims if len(ds) == 2)]

    def extent(self, dim: int) -> int:
        """Extent of a dimension of the packed result."""
        return int(self.packed.static_shape[dim])


def taken(base: Kernel, mapped: Kernel, output: str, store: Store, memory: Memory) -> Taken | None:
    """How the result ``output`` of ``base`` is taken in ``mapped``, whose instruction tiles are updated by ``store`` in ``memory``.

    None where nothing takes it element by element, tiles do not divide it, or the memory is not one that computes.
    """
    found = writeback.epilogue(base.body, output) if memory.kind == REGISTER else None
    if found is None:
        return None
    stage, at = found
    reduction = next(s for s in stages(base) if s.is_reduction and s.output.name == output)
    every, packed = stages(mapped), store.buffer
    inits = tuple(s for s in every if s.is_init and s.output.name in (output, packed.name))
    unpacking = [s for s in every if packed.name in s.inputs()]
    if len(inits) != 2 or len(unpacking) != 1 or unpacking[0].opaque or unpacking[0].output.name != output:
        return None
    (last,) = unpacking
    walked, reads = dimension_loops(last.target(), last), last.reads()
    if walked is None or len(reads) != 1 or not all(isinstance(i, Var) for i in reads[0].indices):
        return None
    place = {i.name: d for d, i in enumerate(reads[0].indices) if isinstance(i, Var)}
    dims: list[tuple[str, tuple[int, ...]]] = []
    for index, loops in zip(reduction.target().indices, walked, strict=True):
        if isinstance(index, Var):
            dims.append((at[index.name], tuple(place[n] for n in sorted(loops, key=lambda n: -loops[n]))))
    whole = all(stage.loops[n] == _product(packed, ds) and len(ds) in (1, 2) for n, ds in dims)
    return Taken(stage, reduction.output, packed, last, inits, tuple(dims)) if whole else None


def _product(packed: Buffer, dims: Sequence[int]) -> int:
    out = 1
    for d in dims:
        out *= int(packed.static_shape[d])
    return out


def brought(sch: Schedule, t: Taken) -> dict[int, str]:
    """Bring the nest that takes the result into the order of tiles; returns its loop for each dimension of the packed result."""
    by_dim = [i.name for i in t.unpacking.reads()[0].indices if isinstance(i, Var)]
    if any(len(ds) == 2 for _, ds in t.dims):
        sch.reorder(*(by_dim[d] for _, ds in t.dims for d in ds))
    for _, ds in t.dims:
        if len(ds) == 2:
            sch.fuse(*(by_dim[d] for d in ds))
    loops: dict[int, str] = {}
    for n, ds in t.dims:
        names = sch.apply("split", n, t.extent(ds[1])) if len(ds) == 2 else (n,)
        loops.update(zip(ds, names, strict=True))
    order = [*(loops[ds[0]] for _, ds in t.dims), *t.inner(loops)]
    if len(order) > 1:
        sch.reorder(*order)
    sch.compute_at(t.result.name, order[-1])
    return loops


def first(t: Taken, own: Buffer, shape: Sequence[Expr]) -> Stmt:
    """The nest that gives a fragment its first value."""
    at, loops = _elements(shape, "_first")
    zero = next(s.store for s in t.inits if s.output.name == t.packed.name)
    assert zero is not None  # nests that begin something store a value
    return wrap(loops, Store(own, tuple(at), zero.value))


def last(t: Taken, own: Buffer, origin: Sequence[Expr], shape: Sequence[Expr]) -> Stmt:
    """The element-wise nest on a fragment that begins at ``origin`` of the packed result."""
    at, loops = _elements(shape, "_last")
    there = [o + v for o, v in zip(origin, at, strict=True)]
    env: dict[str, Expr] = {n: Var(f"{n}_last") for n in t.spread}
    for n, ds in t.dims:
        env[n] = there[ds[0]] * t.extent(ds[1]) + there[ds[1]] if len(ds) == 2 else there[ds[0]]
    more = [(f"{n}_last", ex.idx(t.stage.loops[n]), LoopKind.SERIAL) for n in t.spread]
    out, begun = t.stage.store, next(s.store for s in t.inits if s.output.name == t.result.name)
    assert out is not None and begun is not None  # perfect nests
    zero = isinstance(begun.value, ex.Const) and begun.value.value == 0
    value = Load(own, tuple(at)) if zero else begun.value + Load(own, tuple(at))

    def read(e: Expr) -> Expr | None:
        return value if isinstance(e, Load) and e.buffer.name == t.result.name else None

    placed: Mapping[str, Expr] = env
    store = Store(out.buffer, out.indices, ex.transform(out.value, read), out.op)
    return wrap([*loops[:-1], *more, *loops[-1:]], substitute(store, placed))


def _elements(shape: Sequence[Expr], suffix: str) -> tuple[list[Expr], list[tuple[str, Expr, LoopKind]]]:
    """Indices of a block of ``shape``, and the loops that walk it."""
    at: list[Expr] = [ex.idx(0) if isinstance(e, ex.Const) and e.value == 1 else Var(f"d{n}{suffix}") for n, e in enumerate(shape)]
    return at, [(v.name, e, LoopKind.SERIAL) for v, e in zip(at, shape, strict=True) if isinstance(v, Var)]

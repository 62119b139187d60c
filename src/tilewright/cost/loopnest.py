"""Mappings as loops at levels of memory: their text, and the ordinary kernel that a layer becomes under one.

The text is that of published mapping data::

    L3[WIO] P28 R7 Q56 K8 - L2[WI] N1 K4X - L1[O] K2 S7 Q2 P2 C3X - L0[W] P2

Levels from the outermost in; in brackets the tensors the level keeps; then its loops from outer to inner,
dimension and factor, ``X`` after those that run side by side. A level without loops in time is written ``N1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.buffer import buffer
from tilewright.ir.expr import Expr, Var
from tilewright.ir.stmt import For, If, Kernel, LoopKind, Stmt, Store
from tilewright.util.errors import MappingError

_LEVEL = re.compile(r"(\w+)\[(\w*)\]((?: [A-Z]\d+X?)*)")
_FACTOR = re.compile(r"([A-Z])(\d+)(X?)")
#: Stands for "no loop".
_NONE = "N1"


@dataclass(frozen=True, slots=True)
class Factor:
    """A loop over part of a dimension; ``trips`` is a number, or the name of a knob."""

    dim: str
    trips: int | str

    def __str__(self) -> str:
        return f"{self.dim}{self.trips}"


@dataclass(frozen=True, slots=True)
class Level:
    """One memory: the tensors it ``keeps``, its loops in time and, inside those, the loops spread over units below it."""

    name: str
    keeps: str
    temporal: tuple[Factor, ...] = ()
    spatial: tuple[Factor, ...] = ()

    def __str__(self) -> str:
        loops = [str(f) for f in self.temporal] or [_NONE]
        return f"{self.name}[{self.keeps}] {' '.join([*loops, *(f'{f}X' for f in self.spatial)])}"


@dataclass(frozen=True, slots=True)
class Placed:
    """A loop with the ``depth`` of its level (0: innermost). ``name`` is the loop's in the program, ``knob`` that of its symbolic trips."""

    factor: Factor
    depth: int
    spatial: bool

    @property
    def name(self) -> str:
        return f"{self.factor.dim.lower()}{self.depth}{'x' if self.spatial else ''}"

    @property
    def knob(self) -> str:
        return self.name.upper()


@dataclass(frozen=True, slots=True)
class LoopNest:
    """A mapping: ``levels`` from the outermost in.

    MappingError when two levels have one name, or a dimension has two loops in time, or two in space, at one level.
    """

    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        names = [v.name for v in self.levels]
        if len(set(names)) < len(names):
            raise MappingError(f"a mapping has two levels of one name: {' '.join(names)}", hint="name each level once, the outermost first")
        for v in self.levels:
            for factors in (v.temporal, v.spatial):
                dims = [f.dim for f in factors]
                if len(set(dims)) < len(dims):
                    raise MappingError(f"a level has a dimension twice: {v}", hint="multiply the factors")

    def __str__(self) -> str:
        return " - ".join(map(str, self.levels))

    def loops(self) -> Iterator[Placed]:
        """All loops, outermost first."""
        for depth, level in zip(reversed(range(len(self.levels))), self.levels, strict=True):
            yield from (Placed(f, depth, False) for f in level.temporal)
            yield from (Placed(f, depth, True) for f in level.spatial)

    def sizes(self) -> dict[str, int]:
        """Extent of every dimension that has a loop (numbers only)."""
        out: dict[str, int] = {}
        for p in self.loops():
            out[p.factor.dim] = out.get(p.factor.dim, 1) * int(p.factor.trips)
        return out

    def structure(self) -> LoopNest:
        """The same loops with knobs for trips: one program serves all mappings that have this structure."""

        def named(depth: int, spatial: bool, factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
            return tuple(Factor(f.dim, Placed(f, depth, spatial).knob) for f in factors)

        depths = reversed(range(len(self.levels)))
        levels = zip(depths, self.levels, strict=True)
        return LoopNest(tuple(Level(v.name, v.keeps, named(d, False, v.temporal), named(d, True, v.spatial)) for d, v in levels))

    def environment(self) -> dict[str, int]:
        """Values of the knobs of :meth:`structure`."""
        return {p.knob: int(p.factor.trips) for p in self.loops()}


def parse_nest(text: str) -> LoopNest:
    """Read a mapping; MappingError names the part that is not one. Loops of one iteration are left out."""
    levels = []
    for part in text.strip().split(" - "):
        found = _LEVEL.fullmatch(part)
        if found is None:
            raise MappingError(f"{part!r} is not a level of a mapping", hint="write NAME[TENSORS] loops, as in L1[O] K2 C3X")
        name, keeps, loops = found.groups()
        kinds: dict[bool, list[Factor]] = {False: [], True: []}
        for dim, trips, side in _FACTOR.findall(loops):
            if int(trips) < 1:
                raise MappingError(f"loop {dim}{trips} of level {name} has no iterations", hint="factors are 1 or more")
            if int(trips) > 1:
                kinds[bool(side)].append(Factor(dim, int(trips)))
        levels.append(Level(name, keeps, tuple(kinds[False]), tuple(kinds[True])))
    return LoopNest(tuple(levels))


def mapping_program(layer: Kernel, nest: LoopNest) -> Kernel:
    """``layer`` with its loops split and ordered as ``nest`` says.

    ``layer`` is a perfect nest around one store; the loop of dimension ``P`` is called ``p``. Its extent is a number or a
    size, which becomes the product of the factors. Trips that are knobs become sizes of the result. Factors that overshoot a
    number are padding: those iterations are skipped when the program runs, and counted when it is costed. MappingError when a dimension is
    unknown or not covered.
    """
    loops, store = _perfect(layer)
    placed = list(nest.loops())
    if unknown := [p.factor.dim for p in placed if p.factor.dim.lower() not in loops]:
        raise MappingError(f"layer {layer.name} has no dimension {unknown[0]}", hint=f"dimensions: {', '.join(d.upper() for d in loops)}")
    indices, sizes, guards = {}, {}, []
    for name, loop in loops.items():
        own = [p for p in placed if p.factor.dim.lower() == name]
        index, size = _joined(own)
        indices[name] = index
        if isinstance(loop.hi, Var):
            sizes[loop.hi.name] = size
        elif not isinstance(size, ex.Const) or not isinstance(loop.hi, ex.Const):
            raise MappingError(
                f"dimension {name.upper()} of {layer.name} is {loop.hi}",
                hint="extents are sizes of the layer, or numbers and factors numbers",
            )
        elif size.value < loop.hi.value:
            raise MappingError(
                f"factors of {name.upper()} make {size.value}, the layer has {loop.hi.value}", hint="their product must cover it"
            )
        elif size.value > loop.hi.value:
            guards.append(ex.compare("<", index, loop.hi))
    return _built(layer, placed, st.substitute(store, indices), sizes, guards)


def _built(layer: Kernel, placed: list[Placed], store: Stmt, sizes: Mapping[str, Expr], guards: list[Expr]) -> Kernel:
    body: Stmt = store
    for g in guards:
        body = If(g, st.block(body))
    for p in reversed(placed):
        kind, unit = (LoopKind.BIND, f"below{p.depth}") if p.spatial else (LoopKind.SERIAL, None)
        body = For(Var(p.name), ex.idx(0), _trips(p), st.block(body), kind, unit=unit)
    buffers = {b.name: b.with_(shape=tuple(ex.substitute(e, sizes) for e in b.shape)) for b in layer.args}
    block = st.replace_buffers(st.substitute(st.block(body), sizes), buffers)
    assert isinstance(block, st.Block)
    knobs = tuple(Var(p.factor.trips) for p in placed if isinstance(p.factor.trips, str))
    return Kernel(layer.name, tuple(buffers.values()), block, (*knobs, *(v for v in layer.sizes if v.name not in sizes)))


def _perfect(layer: Kernel) -> tuple[dict[str, For], Store]:
    loops: dict[str, For] = {}
    body: Stmt = layer.body
    while True:
        if isinstance(body, st.Block) and len(body.stmts) == 1:
            body = body.stmts[0]
        elif isinstance(body, For) and body.step == 1 and body.lo == ex.idx(0):
            loops[body.name], body = body, body.body
        elif isinstance(body, Store):
            return loops, body
        else:
            raise MappingError(
                f"layer {layer.name} is not a perfect nest around one store", hint="write for loops from 0 around one reduction"
            )


def _trips(p: Placed) -> Expr:
    return Var(p.factor.trips) if isinstance(p.factor.trips, str) else ex.idx(p.factor.trips)


def _joined(own: list[Placed]) -> tuple[Expr, Expr]:
    """Index and extent of a dimension from its loops, outermost first."""
    if all(isinstance(p.factor.trips, int) for p in own):
        size: Expr = ex.Const(prod(int(p.factor.trips) for p in own), ty.index)
    else:
        size = ex.idx(1)
        for p in own:
            size = size * _trips(p)
    index: Expr = ex.idx(0)
    for p in own:
        index = index * _trips(p) + Var(p.name)
    return index, size


def convolution(stride: tuple[int | str, int | str] = (1, 1), dilation: tuple[int | str, int | str] = (1, 1)) -> Kernel:
    """A convolution layer for any sizes N K C P Q R S (P and Q are those of the output).

    O[n, k, p, q] += I[n, c, p * stride + r * dilation, ...] * W[k, c, r, s]. Strides and dilations may be names: they become sizes.
    """
    n, k, c, p, q, r, s = (Var(d) for d in "nkcpqrs")
    extents = {d: Var(d.upper()) for d in "nkcpqrs"}
    sh, sw, dh, dw = (Var(x) if isinstance(x, str) else ex.idx(x) for x in (*stride, *dilation))
    rows, columns = ((extents[o] - 1) * a + (extents[f] - 1) * d + 1 for o, f, a, d in (("p", "r", sh, dh), ("q", "s", sw, dw)))
    w = buffer("W", ty.i8, (extents["k"], extents["c"], extents["r"], extents["s"]))
    i = buffer("I", ty.i8, (extents["n"], extents["c"], rows, columns))
    o = buffer("O", ty.i32, (extents["n"], extents["k"], extents["p"], extents["q"]))
    value = ex.cast(w[k, c, r, s], ty.i32) * ex.cast(i[n, c, p * sh + r * dh, q * sw + s * dw], ty.i32)
    body: Stmt = Store(o, (n, k, p, q), value, "+")
    for d in reversed("nkcpqrs"):
        body = For(Var(d), ex.idx(0), extents[d], st.block(body))
    named = {x: None for x in (*stride, *dilation) if isinstance(x, str)}
    return Kernel("convolution", (w, i, o), st.block(body), (*extents.values(), *(Var(x) for x in named)))

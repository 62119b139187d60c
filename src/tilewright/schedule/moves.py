"""Copy nests as declared transfers: cut into tiles that the instruction takes, each unified with its semantics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import permutations
from math import prod
from struct import pack, unpack

from tilewright.hw import Instruction, Machine
from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer, Layout
from tilewright.ir.clamps import clamped
from tilewright.ir.expr import Binary, Const, Expr, Load, Var
from tilewright.ir.printer import expr_text
from tilewright.ir.simplify import Simplifier
from tilewright.ir.stmt import For, Store, Window
from tilewright.schedule.guards import Around, clipped, unguarded
from tilewright.schedule.primitives.tensorize import check_constraints
from tilewright.schedule.region import largest_extent
from tilewright.schedule.unify import Chain, Match, Mismatch, alike, chain_of, unify
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Move:
    """One way to do a nest: ``loops`` around an instruction with these windows, and the values of its settings as bits.

    ``extents`` are the iterations of its axes, ``around`` the elements before and after windows that it finds as zeros.
    """

    loops: tuple[For, ...]
    instruction: Instruction
    windows: dict[str, Window]
    settings: dict[str, int] = field(default_factory=dict)
    extents: dict[str, Expr] = field(default_factory=dict)
    around: Around = field(default_factory=dict)


def moves(scope: Simplifier, machine: Machine, nest: Chain) -> tuple[list[Move], str]:
    """The declared instructions without arithmetic of their own that do ``nest``, and why the best of the others does not.

    Windows of arrays in main memory are in memory order: what a layout puts side by side is a row.
    """
    constants: dict[str, int] = {}
    store = _in_memory_order(nest.store, machine.main_memory.name)
    store = replace(store, value=_settings(clamped(store.value), constants))
    store = replace(store, value=_in_line_order(store.value, machine.main_memory.name)) if nest.fresh else store
    read = {ld.buffer.memory for ld in ex.loads(store.value) if ld.buffer.rank}
    found: list[Move] = []
    why = Mismatch(f"no instruction writes {store.buffer.memory} from {', '.join(read) or 'nothing'}", -1)
    for instruction in machine.all_instructions:
        arrays = [o for o in instruction.operands if o.shape]
        ends = [o.memory for o in arrays if o.role != "in"]
        if ends != [store.buffer.memory] or {o.memory for o in arrays if o.role == "in"} != read:
            continue
        body = _body(instruction)
        if body is None or len(body.store.indices) == 0:
            continue
        if (text := _otherwise(instruction, body, replace(nest, store=store))) is not None:
            why = max(why, Mismatch(f"{instruction.name}: {text}", 0), key=lambda m: m.depth)
            continue
        for most in _widths(machine, instruction):
            done = _way(scope, replace(nest, store=store), instruction, body, most)
            if isinstance(done, Mismatch):
                why = max(why, Mismatch(f"{instruction.name}: {done.reason}", done.depth), key=lambda m: m.depth)
                continue
            loops, match, around = done
            found.append(_move(loops, instruction, match, around, constants))
    return found, why.reason


def whole(scope: Simplifier, nest: Chain, instruction: Instruction) -> Move | Mismatch:
    """``nest`` as one execution of ``instruction``, without loops around it; or why it is none."""
    constants: dict[str, int] = {}
    store = replace(nest.store, value=_settings(clamped(nest.store.value), constants))
    body = _body(instruction)
    if body is None:
        return Mismatch(f"{instruction.name} is no single nest", -1)
    if instruction.replaces != nest.fresh:
        return Mismatch(f"{instruction.name}: {_begins(instruction)}", 0)
    match = _matched(scope, replace(nest, store=store), instruction, body)
    return match if isinstance(match, Mismatch) else _move((), instruction, *match, constants)


def _body(instruction: Instruction) -> Chain | None:
    """What an instruction does as a chain, its bounds in one place as those of nests are; None where it is none."""
    body = chain_of(instruction.kernel.body)
    return None if body is None else replace(body, store=replace(body.store, value=clamped(body.store.value)))


def _otherwise(instruction: Instruction, body: Chain, nest: Chain) -> str | None:
    """What an instruction between the memories of ``nest`` does that the nest does not; None if nothing without a look at its windows."""
    takes = {o.dtype for o in instruction.operands if o.shape and o.role == "in"}
    reads = {ld.dtype for ld in ex.loads(nest.store.value) if ld.buffer.rank}
    if takes != reads:
        return f"it takes {', '.join(map(str, takes))}, the nest {', '.join(map(str, reads))}"
    if body.store.op != nest.store.op:
        does, wanted = (f"accumulates with {c.store.op}" if c.store.op else "stores without accumulating" for c in (body, nest))
        return f"it {does}, the nest {wanted}"
    if instruction.replaces != nest.fresh:
        return _begins(instruction)
    if nest.fresh and not alike(body.store.value, nest.store.value):
        return f"it computes {expr_text(body.store.value)}, the nest {expr_text(nest.store.value)}"
    return None


def _begins(instruction: Instruction) -> str:
    return f"it {'starts anew' if instruction.replaces else 'goes on'}, the nest does not"


def _move(loops: tuple[For, ...], instruction: Instruction, match: Match, around: Around, constants: dict[str, int]) -> Move:
    settings = {n: constants[w.buffer.name] for n, w in match.windows.items() if w.buffer.name in constants}
    windows = {n: w for n, w in match.windows.items() if n not in settings}
    return Move(loops, instruction, windows, settings, match.extents, around)


def _in_memory_order(s: Store, memory: str) -> Store:
    """``s`` with the arrays in ``memory`` as row-major ones of their physical shapes."""

    def moved(e: Expr) -> Expr | None:
        if not (isinstance(e, Load) and e.buffer.memory == memory and e.buffer.layout is not None):
            return None
        return Load(_plain(e.buffer), e.buffer.layout.physical_index(e.indices))

    value = ex.transform(s.value, moved)
    if s.buffer.memory != memory or s.buffer.layout is None:
        return replace(s, value=value)
    return replace(s, buffer=_plain(s.buffer), indices=s.buffer.layout.physical_index(s.indices), value=value)


def _in_line_order(value: Expr, main: str) -> Expr:
    """``value`` with the arrays outside memory ``main`` seen with their dimensions in the order in which their lines follow each other.

    Pixels of an image are neighbours in a row only that way round.
    """

    def turned(e: Expr) -> Expr | None:
        if not isinstance(e, Load) or e.buffer.memory == main or e.buffer.layout is None:
            return None
        order = [d for d, block in e.buffer.layout.dims if block == 1]
        if sorted(order) != list(range(e.buffer.rank)) or order == sorted(order):
            return None
        layout = Layout(tuple((order.index(d), block) for d, block in e.buffer.layout.dims))
        return Load(e.buffer.with_(shape=tuple(e.buffer.shape[d] for d in order), layout=layout), tuple(e.indices[d] for d in order))

    return ex.transform(value, turned)


def _plain(b: Buffer) -> Buffer:
    return b.with_(shape=b.physical_shape(), layout=None)


def _widths(machine: Machine, instruction: Instruction) -> list[dict[str, int]]:
    """Extents of axes to try: the largest; and where an axis takes several lines of a local memory, one line."""
    lines = {o.dtype.nbytes: machine.memory(o.memory).line for o in instruction.operands if o.shape and machine.memory(o.memory).parent}
    elements = min((line // n for n, line in lines.items()), default=0)
    full = {a.name: a.extent for a in instruction.axes}
    wide = [a.name for a in instruction.axes if a.extent > elements > 0 and a.rule.accepts(elements)]
    return [full, {**full, wide[-1]: elements}] if wide else [full]


def _way(
    scope: Simplifier, nest: Chain, instruction: Instruction, body: Chain, most: dict[str, int]
) -> tuple[tuple[For, ...], Match, Around] | Mismatch:
    """Loops around the instruction, cut to extents of at most ``most``, with which it does the nest; or why none does."""
    why = Mismatch("", -1)
    for around, inner in _cuts(scope, nest, most, body):
        with ExitStack() as stack:
            for f in around:
                stack.enter_context(scope.inside(f))
            result = _matched(scope, replace(nest, loops=inner), instruction, body)
        if not isinstance(result, Mismatch):
            return around, *result
        why = max(why, result, key=lambda m: m.depth)
    return why


def _matched(scope: Simplifier, nest: Chain, instruction: Instruction, body: Chain) -> tuple[Match, Around] | Mismatch:
    guarded = unguarded(scope, nest) if nest.store.op is not None else None
    nest = guarded.nest if guarded is not None else nest
    result = unify(scope, nest, body, {a.name: a.rule for a in instruction.axes})
    if isinstance(result, Mismatch):
        return result
    try:
        check_constraints(scope, instruction, result, frozenset(), instruction.name)
    except ScheduleError as error:
        return Mismatch(error.message, 8)
    if guarded is None:
        return result, {}
    inside = clipped(scope, instruction, result, guarded)
    return inside if isinstance(inside, Mismatch) else (replace(result, windows=inside[0]), inside[1])


def _settings(value: Expr, constants: dict[str, int]) -> Expr:
    """``value`` with its f32 factors as scalars, which settings of an instruction can match; ``constants`` gets their bits."""

    def scalar(e: Expr) -> Expr:
        if not (isinstance(e, Const) and e.dtype == ty.f32):
            return e
        bits = int(unpack("<I", pack("<f", e.value))[0])
        name = f"f32 {bits:#x}"
        constants[name] = bits
        return Load(Buffer(name, ty.f32, ()), ())

    def node(e: Expr) -> Expr | None:
        return replace(e, a=scalar(e.a), b=scalar(e.b)) if isinstance(e, Binary) and e.op == "*" else None

    return ex.transform(value, node)


def _cuts(scope: Simplifier, nest: Chain, most: dict[str, int], body: Chain) -> Iterator[tuple[tuple[For, ...], tuple[For, ...]]]:
    """Ways to leave some loops to the instruction, cut to what an axis takes, and have the rest around: most and longest inside first.

    Loops of one iteration stay around: an axis that they took would be lost to another.
    """
    loops = nest.loops
    reduced, folded = ({n for n, f in enumerate(c.loops) if f.name not in _moving(c)} for c in (nest, body))
    axes = [(most[f.name], n in folded) for n, f in enumerate(body.loops)]
    several = [n for n, f in enumerate(loops) if largest_extent(scope, f.lo, f.hi) != 1]
    tried: set[frozenset[tuple[int, int]]] = set()
    for count in range(min(len(axes), len(several)), -1, -1):
        for inside in permutations(several, count):
            if nest.fresh and not reduced & set(several) <= set(inside):
                continue  # each element of the result is stored once
            for taken in sorted(permutations(axes, count), key=lambda t: -prod(limit for limit, _ in t)):
                chosen = [limit for limit, _ in taken]
                cut_to = frozenset(zip(inside, chosen, strict=True))
                if cut_to in tried or (nest.store.op and any((n in reduced) != fold for n, (_, fold) in zip(inside, taken, strict=True))):
                    continue  # which loop meets which axis is found later
                tried.add(cut_to)
                outer: list[For] = []
                inner: list[For] = []
                limits = dict(zip(inside, chosen, strict=True))
                for n, f in enumerate(loops):
                    if n not in limits:
                        outer.append(f)
                        continue
                    cut = _cut(scope, f, limits[n])
                    outer += cut[:-1]
                    inner.append(cut[-1])
                yield tuple(outer), tuple(inner[sorted(inside).index(n)] for n in inside)


def _moving(c: Chain) -> set[str]:
    """The loops that move the target."""
    return {v for i in c.store.indices for v in ex.free_vars(i)}


def _cut(scope: Simplifier, f: For, limit: int) -> tuple[For, ...]:
    """``f`` as runs of at most ``limit`` iterations: a loop over the runs, unless one does it, and the run."""
    largest = largest_extent(scope, f.lo, f.hi)
    if (largest is not None and largest <= limit) or f.step != 1:
        return (f,)
    number = Var(f"{f.name}_n")
    start = f.lo + number * limit
    runs = scope.expr((f.hi - f.lo + (limit - 1)) // limit)
    run = replace(f, lo=start, hi=ex.binary("min", f.hi, start + limit))
    return For(number, ex.idx(0), runs, f.body, f.kind), run

"""Block IR to nests: blocks become index expressions over their elements, addresses an array and an offset.

Element-wise blocks are never stored: they are expressions of the element's position, put in place where they are
used. Stored are reductions and products, what a loop carries, and what is expensive and used more than once.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Expr, Intrinsic, Load, Var, Where
from tilewright.ir.index_scope import IndexScope
from tilewright.ir.types import DType
from tilewright.lang.block.elements import constant, elementwise
from tilewright.lang.block.ir import Function, Op, Region, Value
from tilewright.lang.block.masks import constant_lanes, masked
from tilewright.lang.block.nests import Item, Loop, Nest, Program
from tilewright.lang.block.settled import settled
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.uses import stored_arguments, weighted_uses
from tilewright.util.errors import Location

#: Names that mean something in the text of kernels.
_LOOPS = ("range", "parallel", "vector", "unroll", "alloc", "grid")
_WORDS = {*keyword.kwlist, *ex.INTRINSICS, *ty.NAMED, *_LOOPS, "sum", "min", "max", "where", "cast"}
#: Nodes of an expression that is worth storing rather than repeating.
_LARGE = 40


@dataclass(frozen=True, slots=True)
class Pending:
    """A reduction not stored yet: ``base op (reduce over axes of value)``."""

    op: str
    axes: tuple[tuple[str, int], ...]
    value: Expr
    base: Expr | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """``expr`` at the position ``axis0, axis1, ...``: an element, or for pointers the offset in ``base``."""

    shape: tuple[int, ...]
    expr: Expr
    base: Buffer | None = None
    pending: Pending | None = None


class NotInduction(Exception):
    """A carried value that is not its start plus a multiple of the iteration."""


def axis(d: int) -> Var:
    return Var(f"axis{d}")


def positions(shape: Sequence[int]) -> tuple[Expr, ...]:
    """The index of the element at the current position; dimensions of one element have index 0."""
    return tuple(ex.idx(0) if n == 1 else axis(d) for d, n in enumerate(shape))


def lower(function: Function, arrays: Sequence[tuple[DType, int] | int | None], grid: Sequence[int]) -> Program:
    """The nests of ``function``.

    ``arrays`` are (element type, elements) of its pointer arguments, None for scalars; a number is that of an earlier
    argument which is the same memory.
    """
    return _Lowering(function, arrays, tuple(grid)).run()


class _Lowering:
    def __init__(self, function: Function, arrays: Sequence[tuple[DType, int] | int | None], grid: tuple[int, ...]) -> None:
        self.function, self.grid = function, grid
        self.env: dict[Value, Block] = {}
        self.locals: dict[str, Buffer] = {}
        self.names: dict[str, int] = {}
        self.items: list[list[Item]] = [[]]
        self.loc: Location | None = None
        self.arguments = []
        for a, array in zip(function.arguments, arrays, strict=True):
            if isinstance(array, int):
                self.env[a] = self.env[function.arguments[array]]
                continue
            name = self.fresh(a.name)
            if array is None:
                buffer = Buffer(name, a.type.dtype, ())
                self.env[a] = Block((), Load(buffer, ()))
            else:
                buffer = Buffer(name, array[0], (ex.idx(array[1]),))
                self.env[a] = Block((), ex.idx(0), buffer)
            self.arguments.append(buffer)
        self.uses = weighted_uses(function)
        bases = {a.name: b.base.name for a in function.arguments if (b := self.env[a]).base is not None}
        self.stored = {bases[name] for name in stored_arguments(function)}

    def run(self) -> Program:
        self.ops(self.function.ops)
        grid = tuple((f"pid{d}", n) for d, n in enumerate(self.grid))
        return Program(self.function.name, grid, tuple(self.arguments), tuple(self.items[0]), self.locals, self.function.loc)

    def fresh(self, name: str) -> str:
        name = name.replace(".", "_")
        n = self.names.get(name, -1) + 1
        self.names[name] = n
        out = f"{name}_{n}" if n else name
        return out if not n or out not in self.names else self.fresh(name)

    def ops(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self.loc = op.loc
            try:
                self.op(op)
            except BlockError as error:
                error.location = error.location or op.loc
                raise

    def op(self, op: Op) -> None:
        if op.name == "for":
            self.loop(op)
        elif op.name == "while":
            self.repeat(op)
        elif op.name == "store":
            self.store(op)
        else:
            assert op.result is not None  # everything else makes a value
            out = self.value(op)
            if self.worth_storing(op, out):
                out = self.stored_block(out, op.result)
            self.env[op.result] = out

    # --- values -----------------------------------------------------------------------------

    def value(self, op: Op) -> Block:
        """The block that ``op`` makes."""
        assert op.result is not None
        shape, a = op.result.shape, op.attributes
        if op.name == "reduce":
            return self.reduced(self.get(op.operands[0]), shape, a["op"], a["axes"])
        if op.name == "dot":
            return self.product(op, shape)
        if op.name == "add" and (out := self.accumulated(op)) is not None:
            return out
        x = [self.get(o) for o in op.operands]
        element = op.result.type.element
        match op.name:
            case "constant":
                return Block((), constant(a["value"], op.result.type.dtype))
            case "program_id":
                return Block((), Var(f"pid{a['axis']}"))
            case "arange":
                return Block(shape, (axis(0) if shape[0] > 1 else ex.idx(0)) + a["start"])
            case "addptr":
                return Block(shape, x[0].expr + ex.idx(x[1].expr), x[0].base)
            case "load":
                return self.load(op, x)
            case "broadcast":
                return self.broadcast(x[0], shape, op.operands[0])
            case "expand_dims":
                return self.moved(x[0], shape, {d: d + (d >= a["axis"]) for d in range(len(x[0].shape))})
            case "permute":
                return self.moved(x[0], shape, {d: n for n, d in enumerate(a["order"])})
            case "reshape":
                return self.reshaped(x[0], shape)
            case "take":
                source = self.kept(op.operands[0]) if a["kept"] else x[0]
                at = (axis(a["axis"]) if shape[a["axis"]] > 1 else ex.idx(0)) * a["step"] + a["start"]
                return Block(shape, ex.substitute(source.expr, {f"axis{a['axis']}": at}))
            case "gather":
                source = self.kept(op.operands[0])
                return Block(shape, ex.substitute(source.expr, {f"axis{a['axis']}": ex.idx(x[1].expr)}))
        assert isinstance(element, DType)  # pointers were handled above
        made = elementwise(op, [b.expr for b in x], element)
        return Block(shape, self.settled(made) if op.name == "where" and not shape else made)

    def get(self, v: Value) -> Block:
        """The block of ``v``, stored if it was a reduction still to be done."""
        b = self.env[v]
        if b.pending is not None:
            b = self.env[v] = self.stored_block(b, v)
        return b

    def load(self, op: Op, x: list[Block]) -> Block:
        base = x[0].base
        assert base is not None  # the builder checked that it is a pointer
        element: Expr = Load(base, (x[0].expr,))
        if len(x) > 1:
            element = Where(x[1].expr, element, ex.cast(x[2].expr, base.dtype), base.dtype)
        return Block(x[0].shape, element)

    def broadcast(self, x: Block, shape: tuple[int, ...], source: Value) -> Block:
        if prod(shape) > prod(x.shape) and x.base is None and _computes(x.expr):
            x = self.env[source] = self.stored_block(x, source)
        shift = len(shape) - len(x.shape)
        return self.moved(x, shape, {d: d + shift for d in range(len(x.shape))})

    def moved(self, x: Block, shape: tuple[int, ...], to: dict[int, int]) -> Block:
        """``x`` with its dimensions renumbered; those of one element are at 0."""
        env = {f"axis{d}": ex.idx(0) if x.shape[d] == 1 else axis(n) for d, n in to.items()}
        return replace(x, shape=shape, expr=ex.substitute(x.expr, env))

    def reshaped(self, x: Block, shape: tuple[int, ...]) -> Block:
        flat = ex.idx(0)
        for p, n in zip(positions(shape), shape, strict=True):
            flat = flat * n + p
        env: dict[str, Expr] = {}
        for d in reversed(range(len(x.shape))):
            env[f"axis{d}"] = flat % x.shape[d] if d else flat
            flat = flat // x.shape[d]
        return replace(x, shape=shape, expr=ex.substitute(x.expr, env))

    # --- reductions -------------------------------------------------------------------------

    def reduced(self, x: Block, shape: tuple[int, ...], op: str, axes: tuple[int, ...]) -> Block:
        loops = tuple((self.fresh("k"), x.shape[d]) for d in axes)
        env: dict[str, Expr] = {f"axis{d}": Var(n) for d, (n, _) in zip(axes, loops, strict=True)}
        kept = [d for d in range(len(x.shape)) if d not in axes]
        env |= {f"axis{d}": axis(n) for n, d in enumerate(kept)}
        return Block(shape, ex.idx(0), None, Pending(op, loops, ex.substitute(x.expr, env)))

    def product(self, op: Op, shape: tuple[int, ...]) -> Block:
        assert op.result is not None
        a, b = (self.factor(o) for o in op.operands[:2])
        loop = (self.fresh("k"), a.shape[1])
        left = ex.substitute(a.expr, {"axis1": Var(loop[0])})
        right = ex.substitute(b.expr, {"axis0": Var(loop[0])})
        dtype = op.result.type.dtype
        if dtype.is_float:
            left, right = ex.cast(left, dtype), ex.cast(right, dtype)
        base = self.env[op.operands[2]] if len(op.operands) > 2 else None
        if base is not None and base.pending is not None:
            base = self.get(op.operands[2])
        return Block(shape, ex.idx(0), None, Pending("+", (loop,), ex.binary("*", left, right), base.expr if base else None))

    def factor(self, v: Value) -> Block:
        """An operand of a product: it is read many times, so what is computed is stored first."""
        b = self.get(v)
        if _computes(b.expr):
            b = self.env[v] = self.stored_block(b, v)
        return b

    def kept(self, v: Value) -> Block:
        """The block of ``v``, stored if it is more than one element of memory: elements at several places are used."""
        b = self.get(v)
        if not isinstance(b.expr, Load | ex.Const):
            b = self.env[v] = self.stored_block(b, v)
        return b

    def accumulated(self, op: Op) -> Block | None:
        """``x + (a reduction)``: the reduction starts at x."""
        for mine, other in (op.operands, op.operands[::-1]):
            b = self.env[mine]
            if b.pending is not None and b.pending.op == "+" and b.pending.base is None and self.uses[mine] == 1:
                return Block(b.shape, b.expr, None, replace(b.pending, base=self.get(other).expr))
        return None

    def worth_storing(self, op: Op, b: Block) -> bool:
        assert op.result is not None
        if b.pending is not None or b.base is not None or b.expr.dtype.kind == ty.INDEX:
            return False
        if b.expr.dtype.kind == ty.BOOL and not ex.loads(b.expr):
            return False  # what only positions decide becomes a bound
        if op.name == "load" and any(ld.buffer.name in self.stored for ld in ex.loads(b.expr)):
            return True  # what is there now, not what a later store leaves
        size = sum(1 for _ in ex.walk(b.expr))
        return self.uses[op.result] > 1 and (size > _LARGE or _costs(b.expr))

    # --- stored blocks ----------------------------------------------------------------------

    def stored_block(self, b: Block, v: Value) -> Block:
        """``b`` in a local buffer, named after ``v``; lanes that a mask makes constant are not stored."""
        buffer = self.local(v.name, v.type.dtype, b.shape)
        element: Expr = Load(buffer, positions(b.shape))
        if b.pending is not None:
            self.assign(buffer, b)
            return Block(b.shape, element)
        guard, value, rest = constant_lanes(b.expr)
        self.nest(buffer, positions(b.shape), value, b.shape, None, guard)
        if guard is not None and rest is not None:
            element = Where(guard, element, ex.cast(rest, element.dtype), element.dtype)
        return Block(b.shape, element)

    def local(self, name: str, dtype: DType, shape: tuple[int, ...]) -> Buffer:
        stem = name.split(".")[0]
        stem = unique = f"{stem}_block" if stem in _WORDS else stem
        n = 1
        while unique in self.names:  # acc2, not acc_1: that is what schedules call their copy of acc
            n += 1
            unique = f"{stem}{n}"
        buffer = Buffer(self.fresh(unique), dtype, tuple(map(ex.idx, shape)))
        self.locals[buffer.name] = buffer
        return buffer

    def assign(self, target: Buffer, b: Block) -> None:
        """``target = b``, where ``b`` may read the same element of target."""
        at = positions(b.shape)
        if b.pending is None:
            op, value = _as_reduction(Load(target, at), b.expr)
            guard, value = masked(value, op) if op is not None else (None, value)
            self.nest(target, at, value, b.shape, op, guard)
            return
        p = b.pending
        if p.base is None or p.base != Load(target, at):
            start = ex.const(target.dtype.neutral(p.op), target.dtype) if p.base is None else p.base
            self.nest(target, at, start, b.shape)
        guard, value = masked(p.value, p.op)
        self.nest(target, at, value, b.shape, p.op, guard, p.axes)

    def nest(
        self,
        target: Buffer,
        indices: tuple[Expr, ...],
        value: Expr,
        shape: tuple[int, ...],
        op: str | None = None,
        guard: Expr | None = None,
        inner: tuple[tuple[str, int], ...] = (),
    ) -> None:
        """Append a nest over the positions of ``shape`` and the loops ``inner``, with loops of its own."""
        if op is None or value.dtype.is_float != target.dtype.is_float or value.dtype.kind == ty.INDEX:
            value = ex.cast(value, target.dtype)
        axes = [(f"axis{d}", n) for d, n in enumerate(shape) if n > 1]
        new = {n: self.fresh("ijlm"[d] if d < 4 else "i") for d, (n, _) in enumerate(axes)} | {n: n for n, _ in inner}
        env: dict[str, Expr] = {n: Var(m) for n, m in new.items()}
        env |= {f"axis{d}": ex.idx(0) for d, n in enumerate(shape) if n == 1}
        loops = tuple((new[n], e) for n, e in (*axes, *inner))
        nest = Nest(target, indices, value, loops, op, guard, self.loc)
        self.items[-1].append(nest.mapped(lambda e: ex.substitute(e, env)))

    def store(self, op: Op) -> None:
        pointer, value = (self.get(o) for o in op.operands[:2])
        assert pointer.base is not None  # the builder checked it
        guard = self.get(op.operands[2]).expr if len(op.operands) > 2 else None
        self.nest(pointer.base, (ex.idx(pointer.expr),), value.expr, pointer.shape, op.attributes.get("op"), guard)

    # --- loops ------------------------------------------------------------------------------

    def loop(self, op: Op) -> None:
        region = op.region
        assert region is not None
        lo, hi = (ex.idx(self.get(o).expr) for o in op.operands[:2])
        step: int = op.attributes["step"]
        trips = self.settled(ex.binary("max", (hi - lo + (step - 1)) // step, 0))
        var = self.fresh(region.variable.name)
        inits = [self.get(o) for o in op.operands[2:]]
        self.env[region.variable] = Block((), lo + Var(var) * step)
        moves = self.inductions(region, inits)
        carried: dict[int, Buffer] = {}
        for n, (a, init) in enumerate(zip(region.arguments, inits, strict=True)):
            if n in moves:
                self.env[a] = replace(init, expr=init.expr + Var(var) * moves[n])
                continue
            if init.base is not None:
                name = a.name.split(".")[0]
                raise BlockError(f"pointer {name!r} does not move by the same step in each iteration", hint="keep an offset, and add it")
            carried[n] = self.local(a.name, a.type.dtype, a.shape)
            self.assign(carried[n], init)
            self.env[a] = Block(a.shape, Load(carried[n], positions(a.shape)))
        outside = dict(self.env)
        self.items.append([])
        self.ops(region.ops)
        self.write_back(region, carried)
        body = tuple(self.items.pop())
        self.env |= outside  # what was stored inside may not have been, when no iteration ran
        self.items[-1].append(Loop(var, trips, body, frozenset(b.name for b in carried.values())))
        for n, (r, init) in enumerate(zip(region.results, inits, strict=True)):
            if n in moves:
                self.env[r] = replace(init, expr=self.settled(init.expr + trips * moves[n]))
            else:
                self.env[r] = Block(r.shape, Load(carried[n], positions(r.shape)))

    def repeat(self, op: Op) -> None:
        """A loop that goes on while a condition holds: all it carries is stored, and the condition computed before each pass."""
        region = op.region
        assert region is not None and region.test is not None
        carried: dict[int, Buffer] = {}
        for n, (a, init) in enumerate(zip(region.arguments, map(self.get, op.operands[2:]), strict=True)):
            if init.base is not None:
                raise BlockError(f"pointer {a.name.split('.')[0]!r} moves in a while loop", hint="keep an offset, and add it")
            carried[n] = self.local(a.name, a.type.dtype, a.shape)
            self.assign(carried[n], init)
            self.env[a] = Block(a.shape, Load(carried[n], positions(a.shape)))
        outside = dict(self.env)
        self.items.append([])
        self.ops(region.ops[: region.head])
        test = self.get(region.test).expr
        head = self.items.pop()
        self.items.append([])
        self.ops(region.ops[region.head :])
        self.write_back(region, carried)
        body = tuple(self.items.pop())
        self.env |= outside
        self.items[-1] += head
        self.items[-1].append(Loop(self.fresh("pass"), ex.idx(0), (*body, *head), frozenset(b.name for b in carried.values()), test))
        for n, r in enumerate(region.results):
            self.env[r] = Block(r.shape, Load(carried[n], positions(r.shape)))

    def settled(self, e: Expr) -> Expr:
        return settled(e, {f"pid{d}": n for d, n in enumerate(self.grid)})

    def inductions(self, region: Region, inits: list[Block]) -> dict[int, Expr]:
        """Carried addresses and integers that move by the same step in each iteration: position -> step."""
        out: dict[int, Expr] = {}
        marks = {f"carried{n}" for n in range(len(inits))}
        inside = {op.result: op for op in region.ops if op.result is not None}
        for n, init in enumerate(inits):
            if init.base is None and init.expr.dtype.kind != ty.INDEX:
                continue
            trial = dict(self.env)
            for m, (a, i) in enumerate(zip(region.arguments, inits, strict=True)):
                trial[a] = replace(i, expr=Var(f"carried{m}"))
            try:
                after = self.pure(region.yields[n], trial, inside)
            except NotInduction:
                continue
            if after.base is not init.base or after.expr.dtype.kind != ty.INDEX:
                continue
            scope = IndexScope()
            step = scope.render(scope.linear(after.expr - Var(f"carried{n}")))
            loop_value = ex.free_vars(self.env[region.variable].expr) - ex.free_vars(ex.idx(0))
            varying = {v for v in loop_value if v not in {f"pid{d}" for d in range(3)}}
            if not ex.free_vars(step) & (marks | varying) and not ex.loads(step):
                out[n] = step
        return out

    def pure(self, v: Value, env: dict[Value, Block], inside: dict[Value, Op]) -> Block:
        """The block of ``v`` where only addresses and integers are involved."""
        if v in env and v not in inside:
            return env[v]
        op = inside.get(v)
        if op is None or op.name in ("load", "reduce", "dot", "for", "while"):
            raise NotInduction
        saved = self.env
        self.env = {**env, **{o: self.pure(o, env, inside) for o in op.operands}}
        try:
            if any(self.env[o].pending is not None or self.env[o].expr.dtype.is_float for o in op.operands):
                raise NotInduction
            return self.value(op)
        finally:
            self.env = saved

    def write_back(self, region: Region, carried: dict[int, Buffer]) -> None:
        """Give carried blocks their new values, each before the buffers it reads change."""
        left = dict(carried)
        while left:
            reads = {n: _buffers(self.env[region.yields[n]]) for n in left}
            free = [n for n in left if not any(carried[n].name in reads[m] for m in left if m != n)]
            n = free[0] if free else next(iter(left))
            if not free:
                for m in left:
                    if m != n and carried[n].name in reads[m]:
                        self.env[region.yields[m]] = self.stored_block(self.env[region.yields[m]], region.yields[m])
            now = self.env[region.yields[n]]
            own = Load(carried[n], positions(now.shape))
            elsewhere = any(ld.buffer == carried[n] and ld != own for ld in _loads(now))
            reread = now.pending is not None and any(ld.buffer == carried[n] for ld in ex.loads(now.pending.value))
            if elsewhere or reread:
                now = self.stored_block(now, region.yields[n])
            if now.pending is not None or now.expr != own:
                self.assign(carried[n], now)
            del left[n]


def _loads(b: Block) -> list[Load]:
    parts = [b.expr] if b.pending is None else [b.pending.value, *([b.pending.base] if b.pending.base is not None else [])]
    return [ld for e in parts for ld in ex.loads(e)]


def _buffers(b: Block) -> set[str]:
    return {ld.buffer.name for ld in _loads(b)}


def _as_reduction(own: Load, value: Expr) -> tuple[str | None, Expr]:
    """``own + rest`` as the update ``+= rest``."""
    if isinstance(value, Binary) and value.op in ("+", "min", "max") and value.dtype == own.dtype:
        for mine, rest in ((value.a, value.b), (value.b, value.a)):
            if mine == own and own.buffer.name not in {ld.buffer.name for ld in ex.loads(rest)}:
                return value.op, rest
    return None, value


def _computes(e: Expr) -> bool:
    """Whether the elements are computed (with floats) from memory, not just loaded or converted."""
    arithmetic = any(isinstance(n, (Binary, Intrinsic)) and n.dtype.is_float for n in ex.walk(e))
    return arithmetic and any(ld.indices for ld in ex.loads(e))


def _costs(e: Expr) -> bool:
    return any(isinstance(n, Intrinsic) or (isinstance(n, Binary) and n.op == "/") for n in ex.walk(e))

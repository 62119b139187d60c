"""Making operations of block IR: types are inferred, blocks broadcast, Python numbers take the type beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tilewright.ir import types as ty
from tilewright.ir.types import DType
from tilewright.lang.block.ir import BlockType, Function, Op, Pointer, Region, Value
from tilewright.lang.block.marks import Nothing, Unsupported
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.tables import Address, Known, PointerType, Table
from tilewright.util.errors import Location

#: Operator of the program form -> operation.
ARITHMETIC = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "//": "floordiv",
    "%": "mod",
    "min": "min",
    "max": "max",
    "&": "and",
    "|": "or",
    "^": "xor",
    "<<": "shl",
    ">>": "shr",
}
COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_LIMIT = 1 << 20


class Specialized(int):
    """An integer argument: its value is known because the program is specialised on it, but it is no constexpr."""

    __slots__ = ()


def _tainted(name: str) -> Callable[[Specialized, Any], Any]:
    plain = getattr(int, name)

    def method(self: Specialized, other: Any) -> Any:
        out = plain(self, other)
        return Specialized(out) if isinstance(out, int) and not isinstance(out, bool) else out

    return method


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "mod", "rmod"):
    setattr(Specialized, f"__{_name}__", _tainted(f"__{_name}__"))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in the building of a function."""

    depth: int
    ops: int
    names: dict[str, int]
    predicate: Value | None


class Builder:
    """Appends operations to a function; errors have no place yet (the reader knows it)."""

    def __init__(self, name: str, arguments: Sequence[tuple[str, BlockType]], grid: tuple[int, ...]) -> None:
        self.grid = grid
        self.loc: Location | None = None
        self.names: dict[str, int] = {}
        self.arguments = tuple(Value(t, self.fresh(n)) for n, t in arguments)
        self.name = name
        self.stack: list[list[Op]] = [[]]
        #: Condition under which statements run now (i1 scalar), or None.
        self.predicate: Value | None = None

    def function(self, loc: Location | None) -> Function:
        """What was built."""
        return Function(self.name, self.arguments, self.stack[0], loc)

    def fresh(self, name: str) -> str:
        n = self.names.get(name, -1) + 1
        self.names[name] = n
        return f"{name}.{n}" if n else name

    def rename(self, v: Value, name: str) -> None:
        """Call a value that has no name of its own like the variable it is assigned to."""
        if v.automatic:
            v.name, v.automatic = self.fresh(name), False

    def emit(self, name: str, operands: Sequence[Value], type: BlockType | None, hint: str | None = None, **attributes: Any) -> Value:
        result = Value(type, self.fresh(hint or name), automatic=True) if type is not None else None
        self.stack[-1].append(Op(name, tuple(operands), attributes, result, self.loc))
        return result  # type: ignore[return-value]

    # --- values -----------------------------------------------------------------------------

    def constant(self, value: int | float | bool, dtype: DType) -> Value:
        if dtype.is_float:
            value = float(value)
        elif isinstance(value, float):
            raise BlockError(f"{value} is no {dtype}", hint="write an integer, or cast the block to a float: x.to(tl.float32)")
        elif dtype.kind != ty.BOOL:
            value = int(value)
            if dtype.bits < 64 and not dtype.range[0] <= value <= dtype.range[1]:
                raise BlockError(f"{value} does not fit in {dtype}", hint="cast the block beside it to a wider type")
        return self.emit("constant", (), BlockType(dtype), "c", value=value)

    def value(self, x: Any, beside: DType | None = None) -> Value:
        """``x`` as a value; numbers take the type of the block they stand ``beside``."""
        if isinstance(x, Value):
            return x
        if isinstance(x, bool):
            return self.constant(x, ty.boolean)
        if isinstance(x, int):
            fitting = ty.i32 if ty.i32.range[0] <= x <= ty.i32.range[1] else ty.i64
            return self.constant(x, beside if beside is not None and beside.kind != ty.BOOL else fitting)
        if isinstance(x, float):
            return self.constant(x, beside if beside is not None and beside.is_float else ty.f32)
        if isinstance(x, Known):
            return self.moved("+", x.pointer, x.at) if x.at else x.pointer
        if isinstance(x, (Table, Address)):
            raise BlockError("an address is not a block or a number", hint="tl.load(addresses + g).to(tl.pointer_type(tl.float32))")
        if isinstance(x, Nothing):
            raise BlockError(f"tl.{x.name} gives nothing here: programs may run in any order", hint="tl.load in a later launch")
        if isinstance(x, list | tuple):
            raise BlockError(f"a {type(x).__name__} of {len(x)} is not a block or a number", hint="pass one array, or name an item: x[0]")
        raise BlockError(f"{x!r} of type {type(x).__name__} is not a block or a number", hint="pass an array or a number")

    def data(self, x: Any, what: str, beside: DType | None = None) -> Value:
        """``x`` as a block of numbers."""
        v = self.value(x, beside)
        if not v.type.is_data:
            raise BlockError(f"{what} is a block of pointers {v.type}, not of numbers", hint="load it first: tl.load(pointer)")
        return v

    def pair(self, a: Any, b: Any, what: str) -> tuple[Value, Value]:
        """Two operands of one shape and type."""
        x = self.data(a, f"an operand of {what}", b.type.dtype if isinstance(b, Value) and b.type.is_data else None)
        y = self.data(b, f"an operand of {what}", x.type.dtype)
        if not isinstance(a, Value) and isinstance(b, Value):
            x = self.data(a, what, y.type.dtype)
        dtype = joined(x.type.dtype, y.type.dtype)
        return self.broadcast_pair(self.cast(x, dtype), self.cast(y, dtype), what)

    # --- shapes -----------------------------------------------------------------------------

    def broadcast_pair(self, a: Value, b: Value, what: str) -> tuple[Value, Value]:
        shape = broadcast_shape(a.shape, b.shape, what)
        return self.broadcast_to(a, shape), self.broadcast_to(b, shape)

    def broadcast_to(self, x: Value, shape: Sequence[int]) -> Value:
        """``x`` repeated to ``shape``: scalars anywhere, dimensions of one element to more; missing dimensions come first."""
        shape = tuple(shape)
        if x.shape == shape:
            return x
        if len(x.shape) > len(shape) or any(
            n not in (1, m) for n, m in zip(reversed(x.shape), reversed(shape[len(shape) - len(x.shape) :]), strict=True)
        ):
            raise BlockError(f"a block of shape {list(x.shape)} cannot be broadcast to {list(shape)}")
        return self.emit("broadcast", (x,), BlockType(x.type.element, shape), x.name.split(".")[0])

    def expand_dims(self, x: Value, axis: int) -> Value:
        rank = len(x.shape) + 1
        at = axis + rank if axis < 0 else axis
        if not 0 <= at < rank:
            raise BlockError(f"axis {axis} is not a dimension of a block of rank {rank}")
        shape = (*x.shape[:at], 1, *x.shape[at:])
        return self.emit("expand_dims", (x,), BlockType(x.type.element, shape), x.name.split(".")[0], axis=at)

    def permute(self, x: Value, order: Sequence[int]) -> Value:
        order = tuple(order)
        if sorted(order) != list(range(len(x.shape))):
            raise BlockError(f"{list(order)} is not an order of the {len(x.shape)} dimensions of a block")
        return self.emit("permute", (x,), BlockType(x.type.element, tuple(x.shape[d] for d in order)), order=order)

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        shape = tuple(constexpr_int(n, "an extent of a shape") for n in shape)
        if prod(shape) != prod(x.shape):
            raise BlockError(f"a block of shape {list(x.shape)} has not as many elements as {list(shape)}")
        return self.emit("reshape", (x,), BlockType(x.type.element, shape)) if shape != x.shape else x

    def take(self, x: Value, axis: int, start: int, step: int, extent: int, kept: bool = False) -> Value:
        """Elements ``start``, ``start + step``, ... along ``axis``; what lies outside may not be used. ``kept``: ``x`` is stored for it."""
        shape = tuple(extent if d == axis else n for d, n in enumerate(x.shape))
        name = x.name.split(".")[0]
        return self.emit("take", (x,), BlockType(x.type.element, shape), name, axis=axis, start=start, step=step, kept=kept)

    def gather(self, x: Any, index: Any, axis: Any) -> Value:
        """The elements of ``x`` whose places along ``axis`` are ``index``."""
        v, i = self.data(x, "the operand of tl.gather"), self.data(index, "the index of tl.gather")
        a = self.axis(axis, v)
        if (
            not i.type.dtype.is_int
            or len(i.shape) != len(v.shape)
            or any(n != m for d, (n, m) in enumerate(zip(i.shape, v.shape, strict=True)) if d != a)
        ):
            raise BlockError(f"tl.gather of {v.type} at {i.type}: the index has the rank of the block, and its shape but for axis {a}")
        return self.emit("gather", (v, i), BlockType(v.type.element, i.shape), axis=a)

    def arange(self, lo: Any, hi: Any) -> Value:
        lo, hi = constexpr_int(lo, "the start of tl.arange"), constexpr_int(hi, "the end of tl.arange")
        n = hi - lo
        if n <= 0:
            raise BlockError(f"tl.arange({lo}, {hi}) is empty", hint="its end must be greater than its start")
        if n & (n - 1):
            raise BlockError(
                f"tl.arange({lo}, {hi}) has {n} elements, which is not a power of two",
                hint=f"use triton.next_power_of_2: {1 << n.bit_length()} elements, and a mask",
            )
        return self.emit("arange", (), BlockType(ty.i32, (checked_shape((n,))[0],)), start=lo, end=hi)

    def full(self, shape: Any, value: Any, dtype: Any) -> Value:
        shape = tuple(constexpr_int(n, "an extent of a block") for n in (shape if isinstance(shape, (tuple, list)) else (shape,)))
        dtype = as_dtype(dtype)
        scalar = self.cast(self.data(value, "the value of tl.full", dtype), dtype)
        return self.broadcast_to(scalar, checked_shape(shape))

    # --- arithmetic -------------------------------------------------------------------------

    def cast(self, x: Value, dtype: DType) -> Value:
        if x.type.element == dtype:
            return x
        if not x.type.is_data:
            raise BlockError(f"a block of {x.type.element} cannot be converted to {dtype}")
        if x.type.dtype.kind == ty.BFLOAT and not dtype.is_float:
            x = self.cast(x, ty.f32)
        return self.emit("cast", (x,), BlockType(dtype, x.shape), x.name.split(".")[0])

    def binary(self, op: str, a: Any, b: Any) -> Value:
        """``a op b``; pointers move by integers."""
        for p, o in ((a, b), (b, a)):
            if isinstance(p, Value) and p.type.is_pointer:
                if op not in ("+", "-") or (op == "-" and p is b):
                    raise BlockError(f"'{op}' is not defined on pointers {p.type}", hint="pointers move by integers: p + offsets")
                return self.moved(op, p, o)
        x, y = self.pair(a, b, f"'{op}'")
        dtype = x.type.dtype
        if op == "/" and not dtype.is_float:
            x, y, dtype = self.cast(x, ty.f32), self.cast(y, ty.f32), ty.f32
        if dtype.kind == ty.BOOL and op not in ("&", "|", "^", "min", "max"):
            x, y, dtype = self.cast(x, ty.i32), self.cast(y, ty.i32), ty.i32
        if dtype.is_float and op in ("&", "|", "^", "<<", ">>"):
            raise BlockError(f"'{op}' is not defined on {dtype}: only integers and masks have bits")
        if dtype.is_float and op in ("//", "%"):
            raise BlockError(f"'{op}' is not defined on {dtype}", hint="use tl.floor(a / b)")
        return self.emit(ARITHMETIC[op], (x, y), BlockType(dtype, x.shape))

    def moved(self, op: str, p: Value, offsets: Any) -> Value:
        o = self.data(offsets, "the offset of a pointer", ty.i32)
        if not o.type.dtype.is_int:
            raise BlockError(f"a pointer is moved by a block of {o.type.dtype}", hint="offsets are integers")
        p, o = self.broadcast_pair(p, o, "pointer arithmetic")
        if op == "-":
            o = self.binary("-", 0, o)
        return self.emit("addptr", (p, o), p.type, p.name.split(".")[0])

    def compare(self, op: str, a: Any, b: Any) -> Value:
        x, y = self.pair(a, b, f"'{op}'")
        return self.emit(COMPARE[op], (x, y), BlockType(ty.boolean, x.shape))

    def invert(self, x: Any) -> Value:
        v = self.data(x, "the operand of '~'")
        if v.type.dtype.kind != ty.BOOL:
            return self.binary("^", v, -1)
        return self.emit("not", (v,), v.type)

    def truth(self, x: Any) -> Value:
        """``x`` as a condition."""
        v = self.data(x, "a condition")
        return v if v.type.dtype.kind == ty.BOOL else self.compare("!=", v, 0)

    def both(self, a: Value | None, b: Value | None) -> Value | None:
        """``a and b``, where None is always true."""
        return b if a is None else a if b is None else self.binary("&", a, b)

    def where(self, condition: Any, a: Any, b: Any) -> Value:
        c = self.truth(condition)
        x, y = self.pair(a, b, "tl.where")
        shape = broadcast_shape(c.shape, x.shape, "tl.where")
        c, x, y = (self.broadcast_to(v, shape) for v in (c, x, y))
        return self.emit("where", (c, x, y), x.type)

    def math(self, name: str, *operands: Any) -> Value:
        """A function of the program form applied to each element; integers become f32 (but for abs)."""
        beside = next((o.type.dtype for o in operands if isinstance(o, Value) and o.type.is_data), None)
        values = [self.data(o, f"an argument of tl.{name}", beside) for o in operands]
        dtype = values[0].type.dtype
        for v in values[1:]:
            dtype = joined(dtype, v.type.dtype)
        if not dtype.is_float and name != "abs":
            dtype = ty.f32
        shape: tuple[int, ...] = ()
        for v in values:
            shape = broadcast_shape(shape, v.shape, f"tl.{name}")
        values = [self.broadcast_to(self.cast(v, dtype), shape) for v in values]
        return self.emit("math", values, BlockType(dtype, shape), name, function=name)

    # --- reductions and products ------------------------------------------------------------

    def reduce(self, op: str, x: Any, axis: Any, keep_dims: bool = False) -> Value:
        """``x`` reduced along ``axis`` (None: all dimensions, to a scalar)."""
        v = self.data(x, "the operand of a reduction")
        if not v.shape:
            raise BlockError("a scalar has nothing to reduce")
        axes = tuple(range(len(v.shape))) if axis is None else (self.axis(axis, v),)
        if v.type.dtype.kind == ty.BOOL or (op in ("+", "*") and v.type.dtype.is_int and v.type.dtype.bits < 32):
            v = self.cast(v, ty.i32)
        shape = tuple(n for d, n in enumerate(v.shape) if d not in axes)
        out = self.emit("reduce", (v,), BlockType(v.type.dtype, shape), {"+": "sum"}.get(op, op), op=op, axes=axes)
        for d in axes if keep_dims else ():
            out = self.expand_dims(out, d)
        return out

    def axis(self, axis: Any, x: Value) -> int:
        a = constexpr_int(axis, "an axis")
        rank = len(x.shape)
        if not -rank <= a < rank:
            raise BlockError(f"axis {a} is not a dimension of a block of shape {list(x.shape)}")
        return a % rank

    def position(self, op: str, x: Any, axis: Any) -> Value:
        """Index of the first largest (``max``) or smallest element along ``axis``: i32."""
        v = self.data(x, "the operand of a reduction")
        a = self.axis(0 if axis is None and len(v.shape) == 1 else axis, v)
        best = self.reduce(op, v, a, keep_dims=True)
        n = v.shape[a]
        index = self.arange(0, n)
        for d in range(len(v.shape)):
            if d != a:
                index = self.expand_dims(index, d)
        return self.reduce("min", self.where(self.compare("==", v, best), index, n), a)

    def dot(self, a: Any, b: Any, acc: Any = None, out_dtype: Any = None) -> Value:
        x, y = self.data(a, "the first operand of tl.dot"), self.data(b, "the second operand of tl.dot")
        if len(x.shape) != 2 or len(y.shape) != 2 or x.shape[1] != y.shape[0]:
            raise BlockError(
                f"tl.dot of shapes {list(x.shape)} and {list(y.shape)}: they do not fit [M, K] and [K, N]",
                hint="transpose an operand: tl.trans(x), or load it with its axes exchanged",
            )
        if x.type.dtype != y.type.dtype:
            raise BlockError(
                f"tl.dot of {x.type.dtype} and {y.type.dtype}: both operands have one type", hint=f"convert one: x.to({y.type.dtype})"
            )
        kept = ty.f32 if x.type.dtype.is_float and x.type.dtype.bits < 64 else ty.f64 if x.type.dtype.is_float else ty.i32
        shape = (x.shape[0], y.shape[1])
        if acc is not None:
            c = self.data(acc, "the accumulator of tl.dot")
            if c.shape != shape:
                raise BlockError(f"the accumulator of tl.dot has shape {list(c.shape)}, the product {list(shape)}")
            return self.emit("dot", (x, y, self.cast(c, kept)), BlockType(kept, shape))
        out = self.emit("dot", (x, y), BlockType(kept, shape))
        return self.cast(out, as_dtype(out_dtype)) if out_dtype is not None else out

    # --- loops ------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """Where building stands, for :meth:`undo`."""
        return Checkpoint(len(self.stack), len(self.stack[-1]), dict(self.names), self.predicate)

    def undo(self, since: Checkpoint) -> None:
        """Forget what was built after ``since``."""
        del self.stack[since.depth :]
        del self.stack[-1][since.ops :]
        self.names, self.predicate = dict(since.names), since.predicate

    def open_loop(self, name: str, lo: Value, hi: Value, step: int, inits: Sequence[tuple[str, Value]]) -> Op:
        """A loop whose body takes the operations that follow, until :meth:`close_loop`."""
        region = Region(Value(BlockType(ty.i32), self.fresh(name)), [Value(v.type, self.fresh(n)) for n, v in inits], [])
        op = Op("for", (lo, hi, *(v for _, v in inits)), {"step": step}, None, self.loc, region)
        self.stack.append(region.ops)
        return op

    def close_loop(self, op: Op, yields: Sequence[Value], trips: Callable[[Region], Value | None] | None = None) -> tuple[Value, ...]:
        """What the loop carries, after it. ``trips`` makes its upper limit once its body is known (None: it is a ``while``)."""
        region = op.region
        assert region is not None  # open_loop made it
        self.stack.pop()
        region.yields = tuple(yields)
        if trips is not None:
            limit = trips(region)
            op.operands = (op.operands[0], op.operands[1] if limit is None else limit, *op.operands[2:])
            op.name = "for" if limit is not None else "while"
        region.results = tuple(Value(v.type, self.fresh(a.name.split(".")[0])) for a, v in zip(region.arguments, yields, strict=True))
        self.stack[-1].append(op)
        return region.results

    def program_id(self, axis: Any) -> Value | int:
        a = constexpr_int(axis, "the axis of tl.program_id")
        if a not in (0, 1, 2):
            raise BlockError(f"axis {a} of the grid does not exist", hint="axes are 0, 1 and 2")
        return self.emit("program_id", (), BlockType(ty.i32), "pid", axis=a) if a < len(self.grid) and self.grid[a] > 1 else Specialized(0)

    def num_programs(self, axis: Any) -> int:
        a = constexpr_int(axis, "the axis of tl.num_programs")
        return Specialized(self.grid[a] if a < len(self.grid) else 1)


def joined(a: DType, b: DType) -> DType:
    """The type in which ``a`` and ``b`` are combined: a float wins, then the wider, then the unsigned."""
    if a == b:
        return a
    if a.is_float or b.is_float:
        return ty.arithmetic_type("max", a, b)
    if ty.BOOL in (a.kind, b.kind):
        return b if a.kind == ty.BOOL else a
    if a.bits != b.bits:
        return a if a.bits > b.bits else b
    return a if not a.signed else b


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The shape both broadcast to: scalars to anything, otherwise equal ranks with equal extents or one."""
    if not a or not b:
        return a or b
    rank = max(len(a), len(b))
    x, y = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    for n, m in zip(x, y, strict=True):
        if n != m and 1 not in (n, m):
            raise BlockError(
                f"{what} of blocks of shapes {list(a)} and {list(b)}: {n} and {m} do not broadcast",
                hint="give one a dimension of extent 1: x[:, None] or x[None, :]",
            )
    return tuple(max(n, m) for n, m in zip(x, y, strict=True))


def constexpr_int(x: Any, what: str) -> int:
    """A compile-time integer."""
    if isinstance(x, Specialized):
        raise BlockError(f"{what} must be a constexpr; {int(x)} is a run-time argument", hint="annotate the parameter: BLOCK: tl.constexpr")
    if isinstance(x, Value):
        raise BlockError(
            f"{what} must be a constexpr, not a value of the running program", hint="annotate the parameter: BLOCK: tl.constexpr"
        )
    if isinstance(x, bool) or not isinstance(x, int):
        raise BlockError(f"{what} must be an integer, not {x!r}")
    return x


def checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` if every extent is a power of two and a block of it can be held."""
    for n in shape:
        if n < 1 or n & (n - 1):
            raise BlockError(
                f"a block of shape {list(shape)} has an extent that is not a power of two", hint="use triton.next_power_of_2, and a mask"
            )
    if prod(shape) > _LIMIT:
        raise BlockError(f"a block of shape {list(shape)} has {prod(shape)} elements, more than {_LIMIT}", hint="use smaller blocks")
    return shape


def as_dtype(x: Any) -> DType:
    """An element type, from it or from a pointer's element type."""
    if isinstance(x, DType):
        return x
    if isinstance(x, PointerType):
        hint = "pass tilewright.pointers([a, b, ...]) in place of the array of addresses"
        raise BlockError("an address that has no array behind it cannot be checked", hint=hint)
    if isinstance(x, Unsupported):
        raise BlockError(f"tl.{x.name} is not an element type of this hardware", hint="tl.float16, tl.bfloat16, tl.float32")
    raise BlockError(f"{x!r} is not an element type", hint="tl.float32, tl.float16, tl.int32, ...")


def pointer_type(dtype: DType) -> BlockType:
    """A scalar pointer to ``dtype``."""
    return BlockType(Pointer(dtype))

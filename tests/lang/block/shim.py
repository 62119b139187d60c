"""Block programs run directly: the same Python functions, with a ``tl`` of NumPy arrays, one program after the other.

Nothing of the compiler is used (but what a caller passes), so what comes out is what a reader of the program expects.
"""

from __future__ import annotations

import itertools
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from tilewright.runtime.descriptors import TensorDescriptor
from tilewright.runtime.pointers import Pointers


class Block(np.ndarray):
    """An array with the methods of blocks."""

    def to(self, dtype: Any) -> Block:
        return self.astype(dtype)

    @property
    def element_ty(self) -> Any:
        return self.dtype


def block(x: Any) -> Block:
    return np.asarray(x).view(Block)


class Pointer:
    """Offsets (in elements) into memory."""

    __array_ufunc__ = None

    def __init__(self, memory: np.ndarray, offsets: Any = 0) -> None:
        self.memory, self.offsets = memory, np.asarray(offsets)
        self.dtype = self.type = SimpleNamespace(element_ty=memory.dtype.type)

    def __add__(self, o: Any) -> Pointer:
        return Pointer(self.memory, self.offsets + np.asarray(o))

    __radd__ = __add__


class Addresses:
    """Addresses of arrays in memory; loading one gives the array's first element."""

    def __init__(self, arrays: tuple[np.ndarray, ...], at: int = 0) -> None:
        self.arrays, self.at = arrays, at

    def __add__(self, n: Any) -> Addresses:
        return Addresses(self.arrays, self.at + int(n))

    def to(self, dtype: Any) -> Pointer:
        array = self.arrays[self.at]
        assert array.dtype == dtype
        return Pointer(array.reshape(-1))


class Descriptor:
    def __init__(self, base: Pointer, shape: Any, strides: Any, block_shape: Any) -> None:
        self.parts = base, shape, strides, block_shape

    def window(self, offsets: Any) -> Window:
        base, shape, strides, block_shape = self.parts
        return Window(base, shape, strides, offsets, block_shape, range(len(shape)))

    def load(self, offsets: Any) -> Block:
        return load(self.window(offsets), boundary_check=range(len(offsets)))

    def store(self, offsets: Any, value: Any) -> None:
        store(self.window(offsets), value, boundary_check=range(len(offsets)))


class Window:
    def __init__(self, base: Pointer, shape: Any, strides: Any, offsets: Any, block_shape: Any, order: Any) -> None:
        self.base, self.shape, self.strides, self.offsets, self.extents = base, shape, strides, tuple(offsets), block_shape
        self.order = order

    def addresses(self, check: Any) -> tuple[Pointer, np.ndarray]:
        at = np.ix_(*(o + np.arange(n) for o, n in zip(self.offsets, self.extents, strict=True)))
        inside = np.ones(self.extents, bool)
        for d in check:
            inside = inside & (at[d] >= 0) & (at[d] < self.shape[d])
        return self.base + sum(i * s for i, s in zip(at, self.strides, strict=True)), inside


def advance(w: Window, by: Any) -> Window:
    return Window(w.base, w.shape, w.strides, [o + b for o, b in zip(w.offsets, by, strict=True)], w.extents, w.order)


def load(p: Any, mask: Any = None, other: Any = 0, boundary_check: Any = (), padding_option: str = "") -> Any:
    if isinstance(p, Addresses):
        return p
    if isinstance(p, Window):
        p, mask = p.addresses(boundary_check)
    mask = np.broadcast_to(True if mask is None else mask, p.offsets.shape)
    values = p.memory[np.where(mask, p.offsets, 0)]
    return block(np.where(mask, values, np.asarray(other, p.memory.dtype)))


def store(p: Any, value: Any, mask: Any = None, boundary_check: Any = ()) -> None:
    if isinstance(p, Window):
        p, mask = p.addresses(boundary_check)
    mask = np.broadcast_to(True if mask is None else mask, p.offsets.shape)
    p.memory[p.offsets[mask]] = np.broadcast_to(value, p.offsets.shape)[mask].astype(p.memory.dtype)


def atomic_add(p: Pointer, value: Any, mask: Any = None) -> None:
    mask = np.broadcast_to(True if mask is None else mask, p.offsets.shape)
    np.add.at(p.memory, p.offsets[mask], np.broadcast_to(value, p.offsets.shape)[mask])


def dot(a: Any, b: Any, acc: Any = None, **_: Any) -> Block:
    wide = np.int32 if a.dtype.kind in "iu" else np.float32
    out = np.asarray(a).astype(wide) @ np.asarray(b).astype(wide)
    return block(out if acc is None else acc + out)


def _numpy(dtype: Any) -> Any:
    """A type of this module's words, or one that the program took from the real words as a parameter's default."""
    return dtype if isinstance(dtype, type) else {"f32": np.float32, "f16": np.float16, "i32": np.int32, "i8": np.int8}[str(dtype)]


def _language(ids: tuple[int, ...], grid: tuple[int, ...]) -> SimpleNamespace:
    f32 = np.float32
    words = {
        n: (lambda x, f=getattr(np, n): block(f(x))) for n in ("exp", "exp2", "log", "log2", "sqrt", "sin", "cos", "abs", "floor", "ceil")
    }
    math = SimpleNamespace(**words)
    return SimpleNamespace(
        **words,
        math=math,
        constexpr=None,
        float32=f32,
        float16=np.float16,
        int64=np.int64,
        int32=np.int32,
        int8=np.int8,
        float8e5=None,
        float8e4nv=None,
        pointer_type=lambda dtype: dtype,
        tensor_descriptor=Descriptor,
        make_tensor_descriptor=Descriptor,
        assume=lambda condition: None,
        static_assert=lambda condition: None,
        program_id=lambda axis=0: block(ids[axis] if axis < len(ids) else 0),
        num_programs=lambda axis=0: grid[axis] if axis < len(grid) else 1,
        arange=lambda lo, hi: block(np.arange(lo, hi)),
        zeros=lambda shape, dtype: block(np.zeros(shape, _numpy(dtype))),
        full=lambda shape, value, dtype: block(np.full(shape, value, _numpy(dtype))),
        load=load,
        store=store,
        atomic_add=atomic_add,
        dot=dot,
        make_block_ptr=Window,
        advance=advance,
        sum=lambda x, axis=None: block(np.sum(x, axis=axis, dtype=x.dtype)),
        max=lambda x, axis=None: block(np.max(x, axis=axis)),
        min=lambda x, axis=None: block(np.min(x, axis=axis)),
        argmax=lambda x, axis: block(np.argmax(x, axis=axis)),
        where=lambda c, a, b: block(np.where(c, a, b)),
        maximum=lambda a, b: block(np.maximum(a, b)),
        minimum=lambda a, b: block(np.minimum(a, b)),
        sigmoid=lambda x: block(1 / (1 + np.exp(-x))),
        rsqrt=lambda x: block(1 / np.sqrt(x)),
        trans=lambda x: x.T,
        expand_dims=lambda x, axis: block(np.expand_dims(x, axis)),
        cdiv=lambda a, b: -(-a // b),
        range=lambda lo, hi, step=1, **_: range(lo, hi, step),
        static_range=range,
        multiple_of=lambda x, n: x,
        max_contiguous=lambda x, n: x,
    )


def run(program: Any, grid: tuple[int, ...], arguments: dict[str, Any], rng: np.random.Generator) -> None:
    """Run ``program`` on ``grid``, in random order; arrays (or tuples of them) among ``arguments`` are updated in place."""
    points = list(itertools.product(*map(range, grid)))
    for n in rng.permutation(len(points)):
        language = _language(points[n], grid)
        values = {k: _argument(v) for k, v in arguments.items()}
        with np.errstate(all="ignore"):
            _plain(program, language)(**values)


def _argument(v: Any) -> Any:
    if isinstance(v, np.ndarray):
        span = 1 + sum((n - 1) * s // v.itemsize for n, s in zip(v.shape, v.strides, strict=True))
        return Pointer(np.lib.stride_tricks.as_strided(v, (span,), (v.itemsize,)))
    if isinstance(v, Pointers):
        return Addresses(v.arrays)
    if isinstance(v, TensorDescriptor):
        return Descriptor(_argument(v.base), v.shape, v.strides, v.block_shape)
    if isinstance(v, tuple):
        return tuple(_argument(x) for x in v)
    return np.float32(v) if isinstance(v, float) else v


def _plain(program: Any, language: SimpleNamespace) -> FunctionType:
    """The function of a block program with the words of ``language``; so are the functions that it calls."""
    f = program.block_function
    names = dict(f.__globals__)
    for k in f.__code__.co_names:
        v = f.__globals__.get(k)
        if k == "tl":
            names[k] = language
        elif hasattr(v, "block_function"):
            names[k] = _plain(v, language)
    return FunctionType(f.__code__, names, f.__name__, f.__defaults__, f.__closure__)

"""Loads and stores, and the windows of ``make_block_ptr``: both become pointers with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tilewright.ir import types as ty
from tilewright.lang.block.builder import Builder, Specialized, checked_shape, constexpr_int
from tilewright.lang.block.ir import BlockType, Value
from tilewright.lang.block.source import BlockError
from tilewright.lang.block.tables import Known, Table

_PADDINGS = ("", "zero", "nan")


@dataclass(frozen=True, slots=True)
class BlockWindow:
    """What ``make_block_ptr`` makes: ``block`` elements at ``offsets`` of a tensor of ``shape`` and ``strides``."""

    base: Value
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    offsets: tuple[Any, ...]
    block: tuple[int, ...]

    @property
    def dtype(self) -> ty.DType:
        return self.base.type.element.element_ty  # type: ignore[union-attr]


def make_block_ptr(b: Builder, base: Any, shape: Any, strides: Any, offsets: Any, block_shape: Any, order: Any) -> BlockWindow:
    """A window; ``order`` (which dimension is densest) is a hint for other hardware and only checked."""
    base = b.value(base) if isinstance(base, Known) else base
    if not isinstance(base, Value) or not base.type.is_pointer or base.shape:
        raise BlockError("the base of tl.make_block_ptr is not a scalar pointer", hint="pass the tensor argument, or it plus an offset")
    parts = [tuple(p) for p in (shape, strides, offsets, block_shape, order)]
    if len({len(p) for p in parts}) != 1:
        raise BlockError(f"tl.make_block_ptr: shape, strides, offsets, block_shape and order have {[len(p) for p in parts]} entries")
    block = checked_shape(tuple(constexpr_int(n, "an extent of block_shape") for n in parts[3]))
    if sorted(parts[4]) != list(range(len(block))):
        raise BlockError(f"order {parts[4]} of tl.make_block_ptr does not name each of the {len(block)} dimensions once")
    return BlockWindow(base, parts[0], parts[1], parts[2], block)


def advance(b: Builder, base: Any, offsets: Any) -> BlockWindow:
    """The window moved by ``offsets`` elements in each dimension."""
    if not isinstance(base, BlockWindow):
        raise BlockError("tl.advance moves block pointers only", hint="make one with tl.make_block_ptr, or add offsets to a pointer")
    if len(offsets) != len(base.block):
        raise BlockError(f"tl.advance by {len(offsets)} offsets of a block pointer with {len(base.block)} dimensions")
    return replace(base, offsets=tuple(add(b, o, d) for o, d in zip(base.offsets, offsets, strict=True)))


def add(b: Builder, x: Any, y: Any) -> Any:
    """A sum that stays a number where both are."""
    return x + y if not isinstance(x, Value) and not isinstance(y, Value) else b.binary("+", x, y)


def _multiply(b: Builder, x: Any, y: Any) -> Any:
    return x * y if not isinstance(x, Value) and not isinstance(y, Value) else b.binary("*", x, y)


def addresses(b: Builder, w: BlockWindow, boundary_check: Sequence[int]) -> tuple[Value, Value | None]:
    """Pointers to the elements of a window, and the mask of those inside the dimensions to check."""
    pointer, mask = w.base, None
    for d, extent in enumerate(w.block):
        index: Any = b.binary("+", b.arange(0, extent), w.offsets[d])
        step = _multiply(b, index, w.strides[d])
        for other in range(len(w.block)):
            if other != d:
                step, index = b.expand_dims(step, min(other, len(step.shape))), b.expand_dims(index, min(other, len(index.shape)))
        pointer = b.moved("+", pointer, step)
        if d in boundary_check:
            inside = b.binary("&", b.compare(">=", index, 0), b.compare("<", index, w.shape[d]))
            mask = b.both(mask, inside)
    return pointer, mask


def _checked(boundary_check: Any, pointer: Any) -> tuple[int, ...]:
    dims = (boundary_check,) if isinstance(boundary_check, int) else tuple(boundary_check)
    if dims and not isinstance(pointer, BlockWindow):
        raise BlockError("boundary_check is for block pointers", hint="pass mask= with a block of pointers")
    if isinstance(pointer, BlockWindow) and any(not 0 <= d < len(pointer.block) for d in dims):
        raise BlockError(f"boundary_check {dims} names a dimension that a block pointer of rank {len(pointer.block)} lacks")
    return dims


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What ``make_tensor_descriptor`` makes: a tensor that is accessed in blocks of ``block``, never outside ``shape``."""

    base: Value
    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    block: tuple[int, ...]

    @property
    def dtype(self) -> ty.DType:
        return self.base.type.element.element_ty  # type: ignore[union-attr]

    @property
    def block_shape(self) -> tuple[int, ...]:
        return self.block

    def window(self, offsets: Any) -> BlockWindow:
        """The block at ``offsets``."""
        at = tuple(offsets) if isinstance(offsets, (tuple, list)) else (offsets,)
        if len(at) != len(self.block):
            raise BlockError(f"{len(at)} offsets into a tensor descriptor of {len(self.block)} dimensions")
        return BlockWindow(self.base, self.shape, self.strides, at, self.block)


def make_tensor_descriptor(b: Builder, base: Any, shape: Any, strides: Any, block_shape: Any, padding_option: str = "zero") -> Descriptor:
    """A descriptor; loads outside ``shape`` are zero (``padding_option``: all that is supported), stores there do nothing."""
    if padding_option != "zero":
        raise BlockError(f"padding_option {padding_option!r} of a tensor descriptor is not supported", hint='"zero"')
    w = make_block_ptr(b, base, shape, strides, (0,) * len(tuple(shape)), block_shape, range(len(tuple(shape))))
    return Descriptor(w.base, w.shape, w.strides, w.block)


def _described(desc: Any, what: str) -> Descriptor:
    if not isinstance(desc, Descriptor):
        raise BlockError(f"{what} takes a tensor descriptor", hint="make one with tl.make_tensor_descriptor")
    return desc


def load_described(b: Builder, desc: Any, offsets: Any) -> Value:
    """The block at ``offsets``, zeros outside the tensor."""
    w = _described(desc, "tl.load_tensor_descriptor").window(offsets)
    loaded: Value = load(b, w, boundary_check=tuple(range(len(w.block))))
    return loaded


def store_described(b: Builder, desc: Any, offsets: Any, value: Any) -> None:
    """Write ``value`` to the block at ``offsets``, where it is inside the tensor."""
    w = _described(desc, "tl.store_tensor_descriptor").window(offsets)
    store(b, w, value, boundary_check=tuple(range(len(w.block))))


def _required_pointer(b: Builder, pointer: Any, what: str) -> Value:
    if isinstance(pointer, Known):
        return b.value(pointer)
    if not isinstance(pointer, Value) or not pointer.type.is_pointer:
        shown = pointer.type if isinstance(pointer, Value) else repr(pointer)
        raise BlockError(f"{what} takes a pointer, not {shown}", hint="add offsets to a tensor argument: x_ptr + offsets")
    return pointer


def load(
    b: Builder,
    pointer: Any,
    mask: Any = None,
    other: Any = None,
    boundary_check: Any = (),
    padding_option: str = "",
    cache_modifier: str = "",
    eviction_policy: str = "",
    volatile: bool = False,
) -> Any:
    """The elements that ``pointer`` addresses; ``other`` (zero by default) where the mask is false.

    Numbers known at the launch are that, and addresses stand for their arrays.
    """
    if isinstance(pointer, Table) and mask is None:
        return pointer.address
    if isinstance(pointer, Known) and mask is None and (element := pointer.element) is not None:
        return Specialized(element)
    dims = _checked(boundary_check, pointer)
    if padding_option not in _PADDINGS:
        raise BlockError(f"padding_option {padding_option!r} is unknown", hint=f"one of: {', '.join(map(repr, _PADDINGS))}")
    if isinstance(pointer, BlockWindow):
        if mask is not None or other is not None:
            raise BlockError("a load through a block pointer takes no mask", hint="boundary_check=(0, 1)")
        other = float("nan") if padding_option == "nan" else None
        pointer, mask = addresses(b, pointer, dims)
    p = _required_pointer(b, pointer, "tl.load")
    dtype = p.type.element.element_ty  # type: ignore[union-attr]
    condition = b.both(b.truth(mask) if mask is not None else None, b.predicate)
    if condition is None:
        if other is not None:
            raise BlockError("tl.load has other= but no mask=", hint="pass the mask whose false lanes take it")
        return b.emit("load", (p,), BlockType(dtype, p.shape))
    filler = b.cast(b.data(0 if other is None else other, "other", dtype), dtype)
    if mask is not None and len(condition.shape) > len(p.shape):
        p = b.broadcast_to(p, condition.shape)
    condition, filler = b.broadcast_to(condition, p.shape), b.broadcast_to(filler, p.shape)
    return b.emit("load", (p, condition, filler), BlockType(dtype, p.shape))


def store(
    b: Builder,
    pointer: Any,
    value: Any,
    mask: Any = None,
    boundary_check: Any = (),
    cache_modifier: str = "",
    eviction_policy: str = "",
    op: str | None = None,
) -> None:
    """Write ``value`` (converted to the element type) where the mask is true; ``op`` adds to what is there."""
    dims = _checked(boundary_check, pointer)
    if isinstance(pointer, BlockWindow):
        if mask is not None:
            raise BlockError("a store through a block pointer takes no mask", hint="boundary_check=(0, 1)")
        pointer, mask = addresses(b, pointer, dims)
    p = _required_pointer(b, pointer, "tl.store" if op is None else "tl.atomic_add")
    dtype = p.type.element.element_ty  # type: ignore[union-attr]
    v = b.cast(b.data(value, "the stored value", dtype), dtype)
    if len(v.shape) > len(p.shape):
        raise BlockError(
            f"a block of shape {list(v.shape)} is stored through pointers of shape {list(p.shape)}", hint="make a pointer for each element"
        )
    v = b.broadcast_to(v, p.shape)
    condition = b.both(b.truth(mask) if mask is not None else None, b.predicate)
    operands = (p, v) if condition is None else (p, v, b.broadcast_to(condition, p.shape))
    b.emit("store", operands, None, op=op)

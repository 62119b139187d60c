"""Differential testing of compiled kernels against the reference semantics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir import types as ty
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Expr
from tilewright.ir.stmt import Kernel
from tilewright.ir.types import DType
from tilewright.runtime.module import Module
from tilewright.runtime.signature import Parameter, Role
from tilewright.util.errors import RuntimeFailure

#: Signature shared by `reference` and `interpret`: updates the arrays of ``args`` in place.
Oracle = Callable[[Kernel, dict[str, np.ndarray], "Mapping[str, int] | None"], Any]
#: Roundings that do not come from accumulation: element-wise arithmetic and mathematical functions.
SLACK = 64.0
_MANTISSA = {"float16": 10, "float32": 23, "float64": 52}


@dataclass(frozen=True, slots=True)
class CheckReport:
    """A passed check: per output the largest error, as a fraction of its bound (0 for exact types)."""

    kernel: str
    trials: int
    tolerance: float
    worst: Mapping[str, float]


def check(
    module: Module,
    kernel: Kernel | None = None,
    *,
    trials: int = 2,
    seed: int | None = None,
    sizes: Mapping[str, int] | None = None,
    inputs: Mapping[str, np.ndarray] | None = None,
    oracle: Oracle | None = None,
) -> CheckReport:
    """Run ``module`` on fresh random data and compare every written array with the reference semantics.

    ``kernel`` is the program it must agree with (default: the one it was compiled from; pass the
    unscheduled one to check the schedule too). Outputs are poisoned before the run. Integers have
    to be equal; floats within :func:`tolerance`. ``sizes`` binds symbolic sizes (default: random,
    1 to 17), ``inputs`` fixes some arrays, ``oracle`` is `reference` unless given. Raises
    RuntimeFailure naming the worst element, and the seed that reproduces it, and what the reference raises (ExecutionError
    for an index outside of its array: then ``module`` is not run).
    """
    program = kernel or module.kernel
    if [b.name for b in program.args] != [p.name for p in module.signature.parameters]:
        raise RuntimeFailure(
            f"{module.kernel.name} and {program.name} have different arguments", hint="check against the kernel it came from"
        )
    golden = oracle or _reference()
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    relative, worst = tolerance(program), {p.name: 0.0 for p in module.signature.written}
    for trial in range(trials):
        rng = np.random.default_rng((seed, trial))
        bound = {n: int(rng.integers(1, 18)) for n in module.signature.sizes} | dict(sizes or {})
        ours = {p.name: _initial(program, p, bound, inputs or {}, rng) for p in module.signature.parameters}
        theirs = {n: a.copy() for n, a in ours.items()}
        golden(program, theirs, bound)  # first: it refuses what would write over the memory of this process
        module(*ours.values(), **bound)
        for p in module.signature.written:
            error = _compare(p, ours[p.name], theirs[p.name], relative, f"{program.name}, seed {seed}")
            worst[p.name] = max(worst[p.name], error)
    return CheckReport(program.name, trials, relative, worst)


def _reference() -> Oracle:
    from tilewright.ir.reference import reference

    return reference


def tolerance(kernel: Kernel) -> float:
    """Relative error allowed to the kernel's float outputs.

    Every rounding adds at most one unit; a reduction of length n makes n of them, in the precision
    of the buffer it accumulates in, and reordering changes each. Reductions that feed each other
    add up. The error is taken relative to the larger of the element and the array's root mean
    square (sums of random terms cancel, their errors do not).
    """
    types = [b.dtype for b in st.all_buffers(kernel) if b.dtype.is_float]
    total = SLACK * max((unit_roundoff(t) for t in types), default=0.0)
    for store, length in float_reductions(kernel):
        total += 4.0 * length * unit_roundoff(store.buffer.dtype)
    return total


def unit_roundoff(dtype: DType) -> float:
    """Half the distance from 1 to the next larger number of a float type."""
    return 2.0 ** -(8 if dtype.kind == ty.BFLOAT else _MANTISSA[f"float{dtype.bits}"] + 1)


def float_reductions(kernel: Kernel) -> list[tuple[st.Store, float]]:
    """Float sums with the number of updates one element receives (1e3 where an extent is symbolic)."""
    found: list[tuple[st.Store, float]] = []

    def visit(s: st.Stmt, nest: tuple[st.For, ...]) -> None:
        if isinstance(s, st.For):
            nest = (*nest, s)
        if isinstance(s, st.Store) and s.op in ("+", "*") and s.buffer.dtype.is_float:
            indexing = {v for i in s.indices for v in ex.free_vars(i)}
            length = 1.0
            for loop in nest:
                if loop.name not in indexing:
                    extent = loop.extent
                    length *= float(extent.value) if isinstance(extent, ex.Const) else 1e3
            found.append((s, length))
        for t in st.substmts(s):
            visit(t, nest)

    visit(kernel.body, ())
    return found


def _initial(
    kernel: Kernel, p: Parameter, sizes: Mapping[str, int], given: Mapping[str, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    shape = p.shape(sizes)
    if p.name in given:
        return np.array(given[p.name], order="C")
    if p.role is not Role.OUT:
        limit = index_limit(kernel, p.buffer, sizes)
        return random_array(p.buffer.dtype, shape, rng, limit)
    return poisoned(p.buffer.dtype, shape) if p.complete else np.zeros(shape, p.storage)


def random_array(dtype: DType, shape: tuple[int, ...], rng: np.random.Generator, limit: int | None = None) -> np.ndarray:
    """Random elements: floats in [-1, 1), integers of the whole range (or [0, limit) for indices)."""
    storage = dtype.to_numpy()
    if dtype.kind == ty.BFLOAT:
        bits = rng.uniform(-1, 1, shape).astype(np.float32).view(np.uint32)
        return np.asarray(bits >> 16).astype(np.uint16)
    if dtype.is_float:
        return np.asarray(rng.uniform(-1, 1, shape)).astype(storage)
    low, high = (0, limit - 1) if limit is not None else dtype.range
    return np.asarray(rng.integers(low, high, shape, dtype=np.uint8 if dtype.kind == ty.BOOL else storage, endpoint=True)).astype(storage)


def poisoned(dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """An array of what no result should be: NaN, or the largest integer."""
    if dtype.kind == ty.BFLOAT:
        return np.full(shape, 0x7FC0, np.uint16)
    return np.full(shape, np.nan if dtype.is_float else dtype.range[1], dtype.to_numpy())


def index_limit(kernel: Kernel, b: Buffer, sizes: Mapping[str, int]) -> int | None:
    """Smallest extent of the dimensions that elements of ``b`` index; None if it indexes nothing."""
    limits: list[int] = []

    def indexed(target: Buffer, indices: tuple[Expr, ...]) -> None:
        for d, i in enumerate(indices):
            if any(ld.buffer.name == b.name for ld in ex.loads(i)):
                limits.append(int(ex.evaluate(target.shape[d], sizes)))

    for s in st.walk(kernel.body):
        if isinstance(s, st.Store):
            indexed(s.buffer, s.indices)
        for e in st.own_exprs(s):
            for ld in ex.loads(e):
                indexed(ld.buffer, ld.indices)
    return max(min(limits), 1) if limits else None


def _compare(p: Parameter, ours: np.ndarray, theirs: np.ndarray, relative: float, what: str) -> float:
    """Largest error over its bound; RuntimeFailure when it exceeds 1."""
    if not p.buffer.dtype.is_float:
        wrong = ours != theirs
        if wrong.any():
            _fail(p, ours, theirs, wrong.astype(float), what, "exactly")
        return 0.0
    got, expected = _wide(p.buffer.dtype, ours), _wide(p.buffer.dtype, theirs)
    finite = np.isfinite(expected)
    scale = float(np.sqrt(np.mean(np.square(expected[finite])))) if finite.any() else 0.0
    bound = relative * np.maximum(np.abs(np.where(finite, expected, 0.0)), scale) + np.finfo(np.float64).tiny
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(got - expected) / bound)
    error = np.where(np.isnan(error), np.inf, error)
    if error.size and error.max() > 1.0:
        _fail(p, got, expected, error, what, f"within {relative:.2g} of it")
    return float(error.max()) if error.size else 0.0


def _wide(dtype: DType, array: np.ndarray) -> np.ndarray:
    if dtype.kind == ty.BFLOAT:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


def _fail(p: Parameter, got: np.ndarray, expected: np.ndarray, error: np.ndarray, what: str, how: str) -> None:
    at = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    count = int((error > (1.0 if how != "exactly" else 0.0)).sum())
    raise RuntimeFailure(
        f"{what}: {p.name}{list(at)} is {got[at]!r}, expected {expected[at]!r} {how} ({count} of {error.size} elements are wrong)",
        hint="the compiled code disagrees with the program's meaning: report the kernel, its schedule and this seed",
    )

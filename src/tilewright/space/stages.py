"""Stages: a kernel read as a sequence of loop nests, each computing one buffer.

Tensor expressions lower to such a sequence (padding, initialisation, reduction, element-wise
epilogue ...). The scheduling rules reason about stages; a kernel that is not of this form (a
factorisation, a stencil in time) has stages too, but marked ``opaque``, and is left as written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from tilewright.ir import expr as ex
from tilewright.ir import stmt as st
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Binary, Cast, Const, Expr, Load, Where
from tilewright.ir.stmt import Alloc, Block, For, Kernel, LoopKind, Stmt, Store
from tilewright.space.strides import Access, access
from tilewright.util.errors import ScheduleError


@dataclass(frozen=True, slots=True)
class Stage:
    """One top-level nest: perfectly nested loops around one store.

    ``loops`` are names from outermost inwards with their extents; ``reduction`` are the loops
    that do not address the result of a reduction store.
    """

    root: Stmt
    store: Store | None
    loops: dict[str, int]
    reduction: tuple[str, ...]
    _reads: list[Access] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def opaque(self) -> bool:
        """Whether the nest is not a rectangular perfect nest around one store."""
        return self.store is None

    @property
    def name(self) -> str:
        """The outermost loop: the handle of the whole stage."""
        return next(iter(self.loops), "")

    @property
    def output(self) -> Buffer:
        """The buffer that the nest stores to. ScheduleError for an opaque nest, which need not have one."""
        if self.store is None:
            raise ScheduleError("a nest that is no rectangle around one store has no single output", hint="ask Stage.opaque first")
        return self.store.buffer

    @property
    def spatial(self) -> tuple[str, ...]:
        """Loops over the results, in order: those that are not summed over."""
        return tuple(n for n in self.loops if n not in self.reduction)

    @property
    def volume(self) -> int:
        """Number of iterations."""
        return prod(self.loops.values())

    @property
    def is_reduction(self) -> bool:
        """Whether it updates its results in loops that do not choose them."""
        return self.store is not None and self.store.op is not None and bool(self.reduction)

    @property
    def is_scheduled(self) -> bool:
        """Whether a loop of the nest already runs in lanes, unrolled or on several cores."""
        return any(f.kind is not LoopKind.SERIAL for f in st.loops(self.root))

    @property
    def is_init(self) -> bool:
        """Sets a buffer to one value."""
        return self.store is not None and self.store.op is None and isinstance(self.store.value, Const)

    def factors(self, masked: bool = False) -> tuple[Load, Load] | None:
        """The two loads a contraction multiplies, or None when the stage is not a sum of products.

        With ``masked`` a factor may also be zero where a condition on indices says so.
        """
        if self.store is None or self.store.op != "+":
            return None
        value = _uncast(self.store.value)
        if not isinstance(value, Binary) or value.op != "*":
            return None
        a, b = (_uncast(unmasked(x) if masked else x) for x in (value.a, value.b))
        return (a, b) if isinstance(a, Load) and isinstance(b, Load) else None

    def target(self) -> Access:
        """Access of the store."""
        assert self.store is not None  # callers check ``opaque`` first
        return access(self.store.buffer, self.store.indices, self.loops)

    def reads(self) -> list[Access]:
        """Accesses of the loads in the stored value, in order, without repeats."""
        if self.store is None:
            return []
        if not self._reads:  # asked for by every rule, for every structure
            unique = dict.fromkeys(ex.loads(self.store.value))
            self._reads.extend(access(ld.buffer, ld.indices, self.loops) for ld in unique)
        return list(self._reads)

    def accesses(self) -> list[tuple[Buffer, tuple[Expr, ...]]]:
        """The arrays that are stored to and loaded from, scalars apart, with their indices; the first is the target."""
        if self.store is None:
            return []
        loaded = [(ld.buffer, ld.indices) for ld in ex.loads(self.store.value)]
        return [(b, indices) for b, indices in [(self.store.buffer, self.store.indices), *loaded] if b.rank]

    def inputs(self) -> set[str]:
        """Names of the buffers read (for a reduction, not counting its own accumulator)."""
        own = {self.store.buffer.name} if self.store is not None and self.store.op else set()
        return st.read_buffers(self.root) - own


def stages(kernel: Kernel | Block) -> list[Stage]:
    """The top-level nests of a kernel, in order (allocations skipped)."""
    body = kernel.body if isinstance(kernel, Kernel) else kernel
    return [stage_of(s) for s in body.stmts if not isinstance(s, Alloc)]


def stage_of(s: Stmt) -> Stage:
    """``s`` read as a stage."""
    loops: dict[str, int] = {}
    inner: Stmt = s
    while isinstance(inner, For):
        if not (isinstance(inner.lo, Const) and isinstance(inner.hi, Const) and inner.lo.value == 0 and inner.step == 1):
            return Stage(s, None, {}, ())
        loops[inner.name] = int(inner.hi.value)
        if len(inner.body.stmts) != 1:
            return Stage(s, None, {}, ())
        inner = inner.body.stmts[0]
    if not isinstance(inner, Store):
        return Stage(s, None, {}, ())
    used = set().union(*(ex.free_vars(i) for i in inner.indices)) if inner.indices else set()
    reduction = tuple(n for n in loops if n not in used) if inner.op else ()
    return Stage(s, inner, loops, reduction)


def unmasked(e: Expr) -> Expr:
    """``x`` of ``where(condition on indices, x, 0)``."""
    inner = _uncast(e)
    zero = isinstance(inner, Where) and isinstance(inner.b, Const) and inner.b.value == 0
    return inner.a if isinstance(inner, Where) and zero and not ex.loads(inner.cond) else e


def _uncast(e: Expr) -> Expr:
    while isinstance(e, Cast):
        e = e.a
    return e

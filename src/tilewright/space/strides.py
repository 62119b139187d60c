"""Physical strides: how far an access moves in memory when one loop advances by one.

The address of an access is a function of the loop variables; instead of manipulating it
symbolically through layouts with blocks, it is evaluated on arrays of sample points with the one
evaluator of ``ir.expr`` and differenced. An access whose differences are not constant over the
samples (a division that steps, a table lookup) has no stride: ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from tilewright.ir import expr as ex
from tilewright.ir.buffer import Buffer
from tilewright.ir.expr import Const, Expr
from tilewright.util.errors import IRTypeError

#: Points sampled for each loop, from its first iteration: several vectors, so that blocks of a packed layout are seen.
SAMPLES = 128
#: A stride that holds for this many iterations counts as regular: within a block of a layout memory is contiguous.
REGULAR = 8


@dataclass(frozen=True, slots=True)
class Access:
    """One load or store of ``buffer`` with its stride (in elements) along each loop that moves it.

    ``runs`` says for loops whose stride changes (a layout's blocks) after how many iterations it does.
    """

    buffer: Buffer
    indices: tuple[Expr, ...]
    strides: Mapping[str, int | None]
    runs: Mapping[str, int]

    def stride(self, loop: str) -> int | None:
        """Elements moved when ``loop`` advances by one: 0 if it does not matter, None if irregular."""
        return self.strides.get(loop, 0)

    def moved_by(self, loop: str) -> bool:
        """Whether the accessed element depends on ``loop``."""
        return self.stride(loop) != 0


def offset(buffer: Buffer, indices: tuple[Expr, ...]) -> Expr:
    """Flattened physical element offset of a logical index (static shapes)."""
    physical = buffer.layout.physical_index(indices) if buffer.layout else indices
    shape = [int(s.value) for s in buffer.physical_shape() if isinstance(s, Const)]
    if len(shape) != len(physical):
        raise IRTypeError(f"{buffer.name} has symbolic extents", hint="specialize the kernel before scheduling it")
    out: Expr = ex.idx(0)
    for d, i in enumerate(physical):
        out = out + i * prod(shape[d + 1 :])
    return out


def access(buffer: Buffer, indices: tuple[Expr, ...], extents: Mapping[str, int]) -> Access:
    """The strides of ``buffer[indices]`` for loops with the given extents (assumed to start at 0)."""
    return _access(buffer, indices, tuple(extents.items()))


@lru_cache(maxsize=1024)
def _access(buffer: Buffer, indices: tuple[Expr, ...], loops: tuple[tuple[str, int], ...]) -> Access:
    # Rules ask for the same accesses again and again, for each structure they consider.
    extents = dict(loops)
    address = offset(buffer, indices)
    names = sorted(ex.free_vars(address))
    if ex.loads(address):
        return Access(buffer, indices, dict.fromkeys(names), {})
    strides: dict[str, int | None] = {}
    runs: dict[str, int] = {}
    for name in names:
        env: dict[str, int | np.ndarray] = {n: _interior(n, extents.get(n, 1)) for n in names}
        steps = np.arange(min(max(extents.get(name, 2), 2), SAMPLES))
        env[name] = steps
        moves = np.diff(np.broadcast_to(np.asarray(ex.evaluate(address, env)), steps.shape))
        changes = np.flatnonzero(moves != moves[0])
        if len(changes):
            runs[name] = int(changes[0]) + 1
        strides[name] = int(moves[0]) if runs.get(name, REGULAR) >= REGULAR else None
    return Access(buffer, indices, strides, runs)


def _interior(name: str, extent: int) -> int:
    """A fixed interior point of a loop, so that strides are not measured only at the origin."""
    return sum(map(ord, name)) % max(extent, 1)
